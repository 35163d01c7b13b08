"""Operators that are a mean of n components: what the variance-reduced solvers of this family work on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Component = Callable[[Int[np.ndarray, " batch"], Float[np.ndarray, " d"]], Float[np.ndarray, " d"]]
Full = Callable[[Float[np.ndarray, " d"]], Float[np.ndarray, " d"]]
Difference = Callable[
    [Int[np.ndarray, " batch"], Float[np.ndarray, " d"], Float[np.ndarray, " d"]], Float[np.ndarray, " d"]
]


@dataclass(frozen=True)
class Constants:
    """How strongly an operator and its components vary.

    Parameters
    ----------
    lipschitz : float
        L_F with ``||F u - F v|| <= L_F ||u - v||``.
    cocoercive : float
        L with ``||F u - F v||^2 <= L <F u - F v, u - v>``; infinite where there is none.
    lipschitz_on_average : float
        L with ``E ||F_i u - F_i v||^2 <= L^2 ||u - v||^2``.
    cocoercive_on_average : float
        L with ``E ||F_i u - F_i v||^2 <= L <F u - F v, u - v>``; infinite where there is none.
    n_evals : int
        Component evaluations spent on finding out.
    """

    lipschitz: float
    cocoercive: float
    lipschitz_on_average: float
    cocoercive_on_average: float
    n_evals: int = 0


class FiniteSumOperator:
    """The mean F(u) = (1/n) Σ F_i(u) of n component operators.

    One evaluation of one component is the unit in which every solver of this family counts its work; a full
    evaluation costs n. Constructors for common problems are :func:`from_callables`, :func:`from_affine`,
    :func:`~offprint.methods.optimize.saddle.from_matrix_game`,
    :func:`~offprint.methods.optimize.saddle.from_saddle_qp` and
    :func:`~offprint.methods.optimize.torch_sum.from_torch`.

    Parameters
    ----------
    n : int
        Number of components, ≥ 1.
    component : callable (indices, u) -> array of shape (d,)
        The mean of ``F_i(u)`` over an integer array of indices, which may repeat. Vectorise it: it is the hot path.
    full : callable u -> array of shape (d,), optional
        F(u); by default ``component`` at all indices.
    difference : callable (indices, u, v) -> array of shape (d,), optional
        ``component(indices, u) - component(indices, v)`` where this is cheaper than two calls, as it is for affine
        components. It counts as two evaluations an index all the same.
    probabilities : array of float, shape (n,), optional
        Draw component i with this probability instead of 1/n (importance sampling). ``component`` must then return
        components scaled so that Σ probabilities[i] F_i = F, and ``full`` must be given.
    constants : Constants, optional
        Where they are known; step sizes chosen automatically are read off them.

    Raises
    ------
    ValueError
        If ``n`` < 1, or ``probabilities`` are not n positive numbers with sum 1, or come without ``full``.
    TypeError
        If ``n`` is no integer or a function is not callable.

    Notes
    -----
    Keeps what it is given, and O(n) more where there are ``probabilities``. It counts nothing itself: solvers do.

    Examples
    --------
    Least squares with rows ``a`` and targets ``b``:

    >>> import numpy as np
    >>> a, b = np.eye(3), np.ones(3)
    >>> rows = FiniteSumOperator(3, lambda i, u: a[i].T @ (a[i] @ u - b[i]) / len(i))
    >>> rows.full(np.zeros(3))
    array([-0.33333333, -0.33333333, -0.33333333])

    References
    ----------
    Cai, Alacaoglu and Diakonikolas, *Variance Reduced Halpern Iteration for Finite-Sum Monotone Inclusions*,
    arXiv 2310.02987, the finite-sum setting.
    """

    def __init__(
        self,
        n: int,
        component: Component,
        full: Full | None = None,
        *,
        difference: Difference | None = None,
        probabilities: np.ndarray | Sequence[float] | None = None,
        constants: Constants | None = None,
    ) -> None:
        if isinstance(n, bool) or not isinstance(n, int | np.integer):
            raise TypeError(f"n must be an integer; got {type(n).__name__}")
        if n < 1:
            raise ValueError(f"n must be at least 1; got {n}")
        for name, function in (("component", component), ("full", full), ("difference", difference)):
            if not callable(function) and (function is not None or name == "component"):
                raise TypeError(f"{name} must be callable; got {type(function).__name__}")
        self.n = int(n)
        self.component = component
        self.full = full or (lambda u: component(np.arange(self.n), u))
        self.difference = difference or (lambda indices, u, v: component(indices, u) - component(indices, v))
        self.probabilities = _distribution(probabilities, self.n, full)
        self._constants = constants
        self._cumulative = None if self.probabilities is None else np.cumsum(self.probabilities)

    @property
    def constants(self) -> Constants | None:
        """The constants of this operator where they are known."""
        return self._constants

    def sample(self, size: int | tuple[int, ...], rng: np.random.Generator) -> Int[np.ndarray, "..."]:
        """Draw indices independently, uniformly or by ``probabilities``."""
        if self._cumulative is None:
            return rng.integers(self.n, size=size)
        drawn = np.searchsorted(self._cumulative, rng.random(size), side="right")
        return np.minimum(drawn, self.n - 1)  # the last sum may round to less than 1

    def sample_batch(self, size: int, rng: np.random.Generator) -> Int[np.ndarray, " size"]:
        """Draw one batch: without replacement where sampling is uniform, which has the smaller variance."""
        if self._cumulative is not None:
            return self.sample(size, rng)
        return rng.choice(self.n, size, replace=False, shuffle=False)


def from_callables(components: Sequence[Full]) -> FiniteSumOperator:
    """Build the mean of a list of functions, one for each component.

    The quickest way to write a small problem down. Each evaluation is a Python call; for speed give
    :class:`FiniteSumOperator` one function that handles a whole batch.

    Parameters
    ----------
    components : sequence of callables u -> array of shape (d,)
        F_1, ..., F_n.

    Returns
    -------
    FiniteSumOperator

    Raises
    ------
    ValueError
        If there is none.
    TypeError
        If one is not callable.

    Examples
    --------
    >>> import numpy as np
    >>> operator = from_callables([lambda u: u - 1, lambda u: 3 * u])
    >>> operator.full(np.array([1.0]))
    array([1.5])
    """
    functions = list(components)
    for i, function in enumerate(functions):
        if not callable(function):
            raise TypeError(f"components[{i}] must be callable; got {type(function).__name__}")

    def component(indices: Int[np.ndarray, " batch"], u: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        total = np.zeros_like(u)
        for i in indices:
            value = functions[i](u)
            if np.shape(value) != u.shape:
                raise ValueError(f"components[{i}] must return shape {u.shape}, that of u; got {np.shape(value)}")
            total += value
        return total / len(indices)

    return FiniteSumOperator(len(functions), component)


def from_affine(
    matrices: Float[np.ndarray, "n d d"], offsets: Float[np.ndarray, "n d"], constants: Constants | None = None
) -> FiniteSumOperator:
    """Build the mean of affine components F_i(u) = matrices[i] @ u - offsets[i].

    Parameters
    ----------
    matrices : array of float, shape (n, d, d)
        Finite.
    offsets : array of float, shape (n, d)
        Finite.
    constants : Constants, optional
        Where they are known.

    Returns
    -------
    FiniteSumOperator

    Raises
    ------
    ValueError
        If shapes do not fit or a value is not finite.

    Notes
    -----
    O(b d^2) for a batch of b, O(d^2) for a full evaluation, whose mean matrix is formed once.

    Examples
    --------
    >>> import numpy as np
    >>> operator = from_affine(np.stack([np.eye(2), 3 * np.eye(2)]), np.ones((2, 2)))
    >>> operator.full(np.array([1.0, 0.0]))
    array([ 1., -1.])
    """
    matrices, offsets = np.ascontiguousarray(matrices, np.float64), np.ascontiguousarray(offsets, np.float64)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2]:
        raise ValueError(f"matrices must have shape (n, d, d); got {matrices.shape}")
    if offsets.shape != matrices.shape[:2]:
        raise ValueError(f"offsets must have shape {matrices.shape[:2]}; got {offsets.shape}")
    for name, array in (("matrices", matrices), ("offsets", offsets)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite; it holds NaN or infinity")
    n, d = offsets.shape
    flat = matrices.reshape(n, d * d)
    mean_matrix, mean_offset = matrices.mean(axis=0), offsets.mean(axis=0)

    def linear(indices: Int[np.ndarray, " batch"], u: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        mean: Float[np.ndarray, " d"] = flat.take(indices, axis=0).sum(axis=0).reshape(d, d) @ u / len(indices)
        return mean

    return FiniteSumOperator(
        n,
        lambda indices, u: linear(indices, u) - offsets[indices].mean(axis=0),
        lambda u: mean_matrix @ u - mean_offset,
        difference=lambda indices, u, v: linear(indices, u - v),
        constants=constants,
    )


def estimate_constants(
    operator: FiniteSumOperator,
    u0: np.ndarray | Sequence[float],
    radius: float = 1.0,
    n_pairs: int = 8,
    *,
    n_components: int = 32,
    rng: np.random.Generator | int = 0,
) -> Constants:
    """Estimate the constants of an operator from pairs of points about ``u0``.

    The estimates are the largest ratios seen, hence bounds from below. Half of the pairs lie along the direction in
    which the previous pair made F change, which approaches the direction of largest change as a power iteration does.

    Parameters
    ----------
    operator : FiniteSumOperator
        Whose constants to estimate.
    u0 : array of float, shape (d,)
        Finite.
    radius : float
        Distance of the points from ``u0``, > 0.
    n_pairs : int
        ≥ 1.
    n_components : int
        How many components are evaluated one by one at each pair (all of them when n is smaller), ≥ 1.
    rng : numpy Generator or int
        Draws directions and components.

    Returns
    -------
    Constants

    Raises
    ------
    ValueError
        If ``u0`` is no finite vector, ``radius`` is not positive, a count is below 1, or the operator returns NaN, an
        infinity or another shape.

    Notes
    -----
    Costs ``n + n_pairs * (n + 2 * min(n, n_components))`` component evaluations. All constants of an operator that
    does not vary are 0.

    Examples
    --------
    >>> import numpy as np
    >>> operator = from_callables([lambda u: u, lambda u: 3 * u])
    >>> found = estimate_constants(operator, np.zeros(4))
    >>> round(found.lipschitz, 6), round(found.lipschitz_on_average**2, 6), round(found.cocoercive_on_average, 6)
    (2.0, 5.0, 2.5)

    References
    ----------
    Cai, Alacaoglu and Diakonikolas, *Variance Reduced Halpern Iteration for Finite-Sum Monotone Inclusions*,
    arXiv 2310.02987, the two assumptions on components.
    """
    u0 = as_vector("u0", u0)
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"radius must be a positive number; got {radius}")
    if min(n_pairs, n_components) < 1:
        raise ValueError(f"n_pairs and n_components must be at least 1; got {n_pairs} and {n_components}")
    rng = np.random.default_rng(rng)
    m = min(operator.n, n_components)
    base, direction = checked(operator, operator.full(u0), u0), rng.standard_normal(u0.size)
    lipschitz = cocoercive = on_average = cocoercive_on_average = 0.0
    for pair in range(n_pairs):
        step = direction * (radius / float(np.linalg.norm(direction)))
        change = checked(operator, operator.full(u0 + step), u0 + step) - base
        chosen = np.arange(m) if m == operator.n else operator.sample(m, rng)
        weights = np.full(m, 1 / m) if m < operator.n or operator.probabilities is None else operator.probabilities
        changes = np.array([operator.difference(chosen[i : i + 1], u0 + step, u0) for i in range(m)])
        product, size = float(change @ step), float(np.linalg.norm(change))
        energy = max(float(weights @ np.square(changes).sum(axis=1)), size**2)
        lipschitz, on_average = max(lipschitz, size / radius), max(on_average, math.sqrt(energy) / radius)
        if energy > 0:
            is_positive = product > 1e-12 * math.sqrt(energy) * radius
            cocoercive = max(cocoercive, size**2 / product if is_positive else math.inf)
            cocoercive_on_average = max(cocoercive_on_average, energy / product if is_positive else math.inf)
        direction = change if pair % 2 == 0 and np.any(change) else rng.standard_normal(u0.size)
    n_evals = operator.n + n_pairs * (operator.n + 2 * m)
    return Constants(lipschitz, cocoercive, on_average, cocoercive_on_average, n_evals)


def as_vector(name: str, value: np.ndarray | Sequence[float]) -> Float[np.ndarray, " d"]:
    """Return ``value`` as a new float64 vector, or raise ``ValueError`` naming the argument."""
    vector = np.array(value, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"{name} must be a vector of at least one entry; got shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(f"{name} must be finite; entry {int(np.argmin(np.isfinite(vector)))} is not")
    return vector


def checked(
    operator: FiniteSumOperator,
    value: np.ndarray,
    u: Float[np.ndarray, " d"],
    indices: Int[np.ndarray, " batch"] | None = None,
) -> Float[np.ndarray, " d"]:
    """Return what ``operator`` gave at ``u``, from ``indices`` or in full, if it is a finite vector like ``u``.

    Raises ``ValueError`` otherwise, naming the component at fault.
    """
    if np.shape(value) != u.shape:
        raise ValueError(f"the operator must return shape {u.shape}, that of u; got {np.shape(value)}")
    if np.isfinite(value).all():
        return value
    for i in range(operator.n) if indices is None else indices:
        if not np.isfinite(operator.component(np.array([i]), u)).all():
            raise ValueError(f"component {i} returned NaN or infinity at a finite point")
    raise ValueError("the operator returned NaN or infinity at a finite point, though no single component did")


def _distribution(
    probabilities: np.ndarray | Sequence[float] | None, n: int, full: Full | None
) -> Float[np.ndarray, " n"] | None:
    if probabilities is None:
        return None
    weights = np.array(probabilities, dtype=np.float64)
    if weights.shape != (n,) or not (weights > 0).all() or not math.isclose(weights.sum(), 1.0, rel_tol=1e-9):
        raise ValueError(f"probabilities must be {n} positive numbers with sum 1")
    if full is None:
        raise ValueError("full must be given when probabilities are")
    return weights
