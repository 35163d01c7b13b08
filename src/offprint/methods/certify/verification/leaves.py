"""Domains in which every kink is decided: the network is affine there, and a linear program decides them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import OptimizeResult, linprog
from torch import Tensor

from offprint.methods.certify.lipschitz.pool import proves_empty
from offprint.methods.certify.lirpa.perturbations import Box
from offprint.methods.certify.verification.multipliers import Domains, Root
from offprint.methods.certify.verification.relaxed import lower_bound

#: How far a leaf is widened where the solver finds it empty and its multipliers do not prove it.
ROOM = 1e-6


@dataclass(frozen=True)
class Leaf:
    """A proven bound of the margin in a leaf, and where it is least; ``inf`` where the leaf is empty.

    ``None`` where it was not decided.
    """

    margin: float | None
    point: Tensor | None = None


@dataclass(frozen=True)
class _Program:
    """The least ``t`` with ``rows @ x + offsets <= t``, among inputs of a box with ``sides @ x + ends >= 0``."""

    rows: Tensor
    offsets: Tensor
    sides: Tensor
    ends: Tensor
    lower: Tensor
    upper: Tensor

    def solve(self, room: float) -> OptimizeResult:
        """Solve it with ``sides @ x + ends`` at least ``-room`` times their size."""
        n_rows, n_inputs = self.rows.shape
        t = torch.cat([self.rows.new_ones(n_rows), self.rows.new_zeros(len(self.sides))])
        slack = room * (self.sides.abs().sum(1) + self.ends.abs())
        box = torch.stack([self.lower, self.upper], 1).tolist()
        return linprog(
            [0.0] * n_inputs + [1.0],
            A_ub=torch.cat([torch.cat([self.rows, -self.sides]), -t[:, None]], 1).cpu().numpy(),
            b_ub=torch.cat([-self.offsets, self.ends + slack]).cpu().numpy(),
            bounds=[*(tuple(one) for one in box), (None, None)],
            method="highs",
        )

    def proven(self, multipliers: Tensor) -> float:
        """Return the bound that the multipliers of a solution prove, outside of the solver and its tolerance.

        At every input of the leaf the margin is at least any mixture of the rows, minus what is not negative there.
        """
        weights, prices = torch.split(multipliers.clamp(min=0), [len(self.rows), len(self.sides)])
        total = weights.sum()
        if not bool(total > 0):
            return -torch.inf
        weights, prices = weights / total, prices / total
        slope = weights @ self.rows - prices @ self.sides
        constant = weights @ self.offsets - prices @ self.ends
        return float(torch.where(slope > 0, self.lower, self.upper) @ slope + constant)


def decide(root: Root, domain: Domains, tolerance: float) -> Leaf:
    """Solve for the least margin among inputs that take the decided pieces.

    Parameters
    ----------
    root : Root
    domain : Domains
        A single one; kinks without a decision must have an interval on one side of 0.
    tolerance : float
        How far lower and upper linear bounds may be apart where the network is affine, relative to their size.

    Returns
    -------
    Leaf
        Not decided where some other operator is not affine in this leaf, or the solver failed.
    """
    program = _program(root, domain, tolerance)
    if program is None:
        return Leaf(None)
    for room in (0.0, ROOM):
        solved = program.solve(room)
        if solved.status == 2 and _is_empty(program):
            return Leaf(float("inf"))
        if solved.status == 0 and solved.x is not None:
            margin = program.proven(program.rows.new_tensor(-solved.ineqlin.marginals))
            point = root.target.lower.new_tensor(solved.x[:-1])
            return Leaf(margin, torch.minimum(torch.maximum(point, root.target.lower), root.target.upper))
    return Leaf(None)


def _program(root: Root, domain: Domains, tolerance: float) -> _Program | None:
    """Return the leaf's linear program in float64; ``None`` where the network is not affine in it."""
    signs = domain.signs[0]
    relaxed, problem = root.problem(domain, refine=False)
    for node in relaxed.kinks:  # lines that coincide do not depend on a choice
        problem.relaxations.pop(node, None)
    matrix = root.target.matrix
    decided = torch.nonzero(signs).flatten()
    n_rows, n_outputs = matrix.shape
    rows = matrix.new_zeros(n_rows + len(decided), 1, n_outputs + len(signs))
    rows[:n_rows, 0, :n_outputs] = matrix
    rows[torch.arange(len(decided)) + n_rows, 0, n_outputs + decided] = 1
    with torch.no_grad():
        below = lower_bound(relaxed, problem, relaxed.joined, rows)
        above = lower_bound(relaxed, problem, relaxed.joined, rows, side=True)
    if not (
        _same(below.coefficients, above.coefficients, tolerance) and _same(below.constant, above.constant, tolerance)
    ):
        return None
    side = signs[decided]
    # What is at least 0 is so in its upper bound, what is at most 0 in its lower one.
    up = side > 0
    sides = side[:, None] * torch.where(up[:, None], above.coefficients[n_rows:, 0], below.coefficients[n_rows:, 0])
    ends = side * torch.where(up, above.constant[n_rows:, 0], below.constant[n_rows:, 0])
    offsets = below.constant[:n_rows, 0] - root.target.bound
    found = (below.coefficients[:n_rows, 0], offsets, sides, ends, root.target.lower, root.target.upper)
    return _Program(*(one.double() for one in found))


def _is_empty(program: _Program) -> bool:
    lower, upper = program.lower[None], program.upper[None]
    return proves_empty(program.sides, program.ends, Box(lower, upper), (lower + upper) / 2)


def _same(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)
