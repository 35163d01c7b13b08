"""The exact local Lipschitz constant of a tiny ReLU network: every region of linearity in the box, found one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog

Layer = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Exact:
    """The constant, and what it took.

    Parameters
    ----------
    value : float or None
        ``None`` where the limit was met first.
    n_regions, n_programmes : int
        Regions of linearity that meet the box, and linear programmes solved.
    """

    value: float | None
    n_regions: int
    n_programmes: int


def exact_constant(
    layers: Sequence[Layer],
    lower: Float[np.ndarray, " inputs"],
    upper: Float[np.ndarray, " inputs"],
    max_programmes: int = 20_000,
) -> Exact:
    """Return the largest row sum of sizes of the Jacobian over a box.

    Unit by unit, from the first layer on, a part of the box is cut in two where the unit changes its sign; a linear
    programme tells whether it does. At the end of each path the network is linear.

    Parameters
    ----------
    layers : sequence of (weight, bias)
        Linear layers with a ReLU between them.
    lower, upper : array, shape (inputs,)
    max_programmes : int
        When to give up.

    Returns
    -------
    Exact
    """
    search = _Search([(w.astype(float), b.astype(float)) for w, b in layers], lower, upper, max_programmes)
    try:
        search.descend(0, 0, search.layers[0], [], [])
    except _LimitError:
        return Exact(None, search.n_regions, search.n_programmes)
    return Exact(search.best, search.n_regions, search.n_programmes)


class _LimitError(Exception):
    pass


class _Search:
    def __init__(self, layers: list[Layer], lower: np.ndarray, upper: np.ndarray, limit: int) -> None:
        self.layers = layers
        self.box = list(zip(lower.tolist(), upper.tolist(), strict=True))
        self.middle, self.radius = (lower + upper) / 2, (upper - lower) / 2
        self.limit = limit
        self.best = 0.0
        self.n_regions = self.n_programmes = 0

    def descend(
        self, depth: int, unit: int, affine: Layer, signs: list[bool], cuts: list[tuple[np.ndarray, float]]
    ) -> None:
        """Decide units of the layer at ``depth`` from ``unit`` on; ``affine`` is that layer of the input."""
        weight, bias = affine
        if depth == len(self.layers) - 1:
            self.n_regions += 1
            self.best = max(self.best, float(np.abs(weight).sum(1).max()))
            return
        if unit == len(bias):
            pattern = np.array(signs[-unit:])
            next_weight, next_bias = self.layers[depth + 1]
            inner = next_weight * pattern
            self.descend(depth + 1, 0, (inner @ weight, inner @ bias + next_bias), signs, cuts)
            return
        for active in self._signs(weight[unit], float(bias[unit]), cuts):
            cut = (weight[unit], float(bias[unit])) if active else (-weight[unit], -float(bias[unit]))
            undecided = abs(weight[unit] @ self.middle + bias[unit]) <= np.abs(weight[unit]) @ self.radius
            self.descend(depth, unit + 1, affine, [*signs, active], [*cuts, cut] if undecided else cuts)

    def _signs(self, weight: np.ndarray, bias: float, cuts: list[tuple[np.ndarray, float]]) -> list[bool]:
        middle, reach = float(weight @ self.middle) + bias, float(np.abs(weight) @ self.radius)
        if abs(middle) > reach:
            return [middle > 0]
        return [
            sign
            for sign in (True, False)
            if self._largest(weight if sign else -weight, cuts) + (bias if sign else -bias) >= 0
        ]

    def _largest(self, direction: np.ndarray, cuts: list[tuple[np.ndarray, float]]) -> float:
        """Return the largest product of a direction and a point in the part that the cuts leave."""
        if not cuts:
            return float(direction @ self.middle + np.abs(direction) @ self.radius)
        self.n_programmes += 1
        if self.n_programmes > self.limit:
            raise _LimitError
        matrix = -np.array([weight for weight, _ in cuts])
        offset = np.array([bias for _, bias in cuts])
        solved = linprog(-direction, A_ub=matrix, b_ub=offset, bounds=self.box, method="highs")
        return -float(solved.fun or 0.0) if solved.status == 0 else -np.inf
