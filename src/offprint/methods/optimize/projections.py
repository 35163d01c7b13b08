"""Projections onto simple sets and proximal maps, batched over leading dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, no_type_check

import numba
import numpy as np
from jaxtyping import Float

Array = np.ndarray | Sequence[Any] | float
"""What the maps accept: an array, or anything ``numpy.asarray`` turns into one of real numbers."""


def project_simplex(v: Array, total: float = 1.0) -> Float[np.ndarray, "*batch d"]:
    """Project each vector onto the simplex of non-negative vectors that sum to ``total``.

    Parameters
    ----------
    v : array of float, shape (..., d)
        Vectors along the last axis, d ≥ 1, finite.
    total : float
        The sum of the projected entries, > 0.

    Returns
    -------
    array of float, shape (..., d)
        The nearest points in Euclidean distance, in the dtype of ``v``.

    Raises
    ------
    ValueError
        If ``v`` has no last axis, is empty or not finite, or ``total`` is not positive.

    Notes
    -----
    Sorts each vector once: O(d log d) per vector.

    Examples
    --------
    >>> project_simplex([[2.0, 0.0], [0.2, 0.4]])
    array([[1. , 0. ],
           [0.4, 0.6]])

    References
    ----------
    Duchi, Shalev-Shwartz, Singer and Chandra, *Efficient projections onto the l1-ball for learning in high
    dimensions*, ICML 2008, figure 1.
    """
    v = _vectors(v)
    _check_positive("total", total)
    descending = -np.sort(-v, axis=-1)
    excess = np.cumsum(descending, axis=-1) - total
    counts = np.arange(1, v.shape[-1] + 1, dtype=v.dtype)
    n_kept = np.count_nonzero(descending * counts > excess, axis=-1)[..., None]
    n_kept = np.maximum(n_kept, 1)  # rounding can lose the largest entry, which is always kept
    threshold = np.take_along_axis(excess, n_kept - 1, axis=-1) / n_kept.astype(v.dtype)
    return np.asarray(np.maximum(v - threshold, 0))


def project_box(v: Array, low: Array = -math.inf, high: Array = math.inf) -> Float[np.ndarray, "*batch d"]:
    """Clip each entry to ``[low, high]``.

    Parameters
    ----------
    v : array of float, shape (..., d)
        Finite.
    low, high : float or array of float that broadcasts against ``v``
        Bounds, low ≤ high; infinite where a side is open.

    Returns
    -------
    array of float, shape (..., d)

    Raises
    ------
    ValueError
        If ``v`` is not finite, a bound is NaN or does not broadcast, or some low exceeds its high.

    Examples
    --------
    >>> project_box([-2.0, 0.5, 2.0], low=0.0, high=[1.0, 1.0, 1.5])
    array([0. , 0.5, 1.5])

    References
    ----------
    Parikh and Boyd, *Proximal Algorithms*, 2014, section 6.2.4.
    """
    v = _vectors(v)
    bounds = []
    for name, bound in (("low", low), ("high", high)):
        bound = np.asarray(bound, dtype=v.dtype)
        if np.isnan(bound).any():
            raise ValueError(f"{name} must hold no NaN")
        try:
            bounds.append(np.broadcast_to(bound, v.shape))
        except ValueError:
            raise ValueError(f"{name} must broadcast to the shape {v.shape} of v; got {bound.shape}") from None
    if (bounds[0] > bounds[1]).any():
        raise ValueError("low must not exceed high anywhere")
    return np.clip(v, bounds[0], bounds[1])


def project_ball(
    v: Array, radius: float = 1.0, center: Array | None = None, norm: Literal[1, 2] | float = 2
) -> Float[np.ndarray, "*batch d"]:
    """Project each vector onto the ball of a radius about a centre, in the 1-, 2- or maximum norm.

    Parameters
    ----------
    v : array of float, shape (..., d)
        Vectors along the last axis, finite.
    radius : float
        > 0.
    center : array of float that broadcasts against ``v``, optional
        The origin by default.
    norm : {1, 2, inf}
        Which norm the ball is of; the distance that is minimised is Euclidean for all.

    Returns
    -------
    array of float, shape (..., d)

    Raises
    ------
    ValueError
        If ``v`` or ``center`` is not finite, shapes do not fit, ``radius`` is not positive, or ``norm`` is another.

    Notes
    -----
    O(d) per vector, and O(d log d) for ``norm=1``.

    Examples
    --------
    >>> project_ball([[3.0, 4.0], [0.3, 0.4]])
    array([[0.6, 0.8],
           [0.3, 0.4]])
    >>> project_ball([3.0, 1.0], norm=1)
    array([1., 0.])

    References
    ----------
    Duchi, Shalev-Shwartz, Singer and Chandra, *Efficient projections onto the l1-ball for learning in high
    dimensions*, ICML 2008, for the 1-norm.
    """
    v = _vectors(v)
    _check_positive("radius", radius)
    if norm not in (1, 2, math.inf):
        raise ValueError(f"norm must be 1, 2 or inf; got {norm}")
    middle = np.zeros_like(v) if center is None else _like("center", center, v)
    offset = v - middle
    if norm == math.inf:
        return np.asarray(middle + np.clip(offset, -radius, radius))
    length = np.linalg.norm(offset, ord=norm, axis=-1, keepdims=True)
    if norm == 2:
        return np.asarray(middle + offset * np.minimum(1.0, radius / np.maximum(length, radius)))
    on_boundary = np.sign(offset) * project_simplex(np.abs(offset), radius)
    return np.asarray(middle + np.where(length > radius, on_boundary, offset))


def prox_l1(v: Array, strength: Array) -> Float[np.ndarray, "*batch d"]:
    """Shrink each entry towards zero by ``strength``: the proximal map of ``strength * ||v||_1``.

    Parameters
    ----------
    v : array of float, shape (..., d)
        Finite.
    strength : float or array of float that broadcasts against ``v``
        ≥ 0. As the resolvent of a step ``s`` for a penalty of weight ``w``, give ``s * w``.

    Returns
    -------
    array of float, shape (..., d)

    Raises
    ------
    ValueError
        If ``v`` is not finite, or a strength is negative, not finite or does not broadcast.

    Examples
    --------
    >>> prox_l1([-2.0, 0.5, 3.0], 1.0)
    array([-1.,  0.,  2.])

    References
    ----------
    Parikh and Boyd, *Proximal Algorithms*, 2014, section 6.5.2.
    """
    v = _vectors(v)
    threshold = _like("strength", strength, v)
    if (threshold < 0).any():
        raise ValueError(f"strength must not be negative; got {float(threshold.min()):g}")
    return np.asarray(v - np.clip(v, -threshold, threshold))


def project_affine(v: Array, matrix: Array, target: Array) -> Float[np.ndarray, "*batch d"]:
    """Project each vector onto the solutions x of ``matrix @ x = target``.

    Parameters
    ----------
    v : array of float, shape (..., d)
        Finite.
    matrix : array of float, shape (m, d)
        Finite; rows may be dependent.
    target : array of float, shape (m,)
        Finite; the system must have a solution.

    Returns
    -------
    array of float, shape (..., d)

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or the system has no solution.

    Notes
    -----
    One singular value decomposition of ``matrix``, then O(md) per vector.

    Examples
    --------
    >>> project_affine([1.0, 1.0], [[1.0, 1.0]], [1.0])
    array([0.5, 0.5])

    References
    ----------
    Parikh and Boyd, *Proximal Algorithms*, 2014, section 6.2.1.
    """
    v = _vectors(v)
    a, b = np.asarray(matrix, dtype=v.dtype), np.asarray(target, dtype=v.dtype)
    if a.ndim != 2 or a.shape[1] != v.shape[-1]:
        raise ValueError(f"matrix must have shape (m, {v.shape[-1]}); got {a.shape}")
    if b.shape != a.shape[:1]:
        raise ValueError(f"target must have shape ({a.shape[0]},); got {b.shape}")
    for name, array in (("matrix", a), ("target", b)):
        _check_finite(name, array)
    inverse = np.linalg.pinv(a)
    particular = inverse @ b
    rounding = 100 * float(np.finfo(v.dtype).eps) * max(a.shape)
    if np.linalg.norm(a @ particular - b) > rounding * (np.linalg.norm(a) * np.linalg.norm(particular) + 1e-300):
        raise ValueError("matrix @ x = target must have a solution")
    return np.asarray(v - (v @ a.T - b) @ inverse.T)


class SimplexProduct:
    """The resolvent of a product of probability simplices: projects consecutive blocks of a vector, each onto its own.

    Give it as ``resolvent`` to the solvers of this family. Those that take one sample a step recognise it and stay in
    compiled code. Entries behind the last block are left free.

    Parameters
    ----------
    *sizes : int
        Length of each block, ≥ 1.

    Raises
    ------
    ValueError
        If there is no block, a size is below 1 or, on calling, the vector is shorter than the blocks.

    Notes
    -----
    Expected O(d) a call: the set of positive entries shrinks until it no longer changes, usually within ten passes.

    Examples
    --------
    >>> import numpy as np
    >>> both = SimplexProduct(2, 2)
    >>> both(np.array([2.0, 0.0, 0.2, 0.4]))
    array([1. , 0. , 0.4, 0.6])
    >>> both.uniform()
    array([0.5, 0.5, 0.5, 0.5])

    References
    ----------
    Michelot, *A finite algorithm for finding the projection of a point onto the canonical simplex of R^n*, Journal of
    Optimization Theory and Applications, 1986.
    """

    def __init__(self, *sizes: int) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes must be at least one block length of 1 or more; got {sizes}")
        self.sizes = tuple(int(size) for size in sizes)
        self.ends = np.cumsum(self.sizes)

    def __call__(self, u: np.ndarray, step: float = 1.0) -> Float[np.ndarray, " d"]:
        """Return the projection of ``u``; ``step`` is accepted because resolvents take one, and has no effect."""
        if u.ndim != 1 or u.size < self.ends[-1]:
            raise ValueError(f"u must be a vector of at least {self.ends[-1]} entries; got shape {u.shape}")
        projected = np.array(u, dtype=np.float64)
        project_blocks(projected, self.ends)
        return projected

    def uniform(self) -> Float[np.ndarray, " d"]:
        """Return the point with the uniform distribution in every block."""
        return np.concatenate([np.full(size, 1.0 / size) for size in self.sizes])


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def project_blocks(u: np.ndarray, ends: np.ndarray) -> None:
    """Project the blocks of a vector that end at ``ends`` onto the probability simplex, in place and compiled."""
    start = 0
    for end in ends:
        threshold = (u[start:end].sum() - 1.0) / (end - start)
        n_before = end - start + 1
        n_kept = end - start
        while n_kept < n_before:
            n_before, n_kept, total = n_kept, 0, 0.0
            for j in range(start, end):
                if u[j] > threshold:
                    n_kept += 1
                    total += u[j]
            if n_kept == 0:  # rounding at equal entries: all that were kept are at the threshold
                break
            threshold = (total - 1.0) / n_kept
        for j in range(start, end):
            u[j] = max(u[j] - threshold, 0.0)
        start = end


def _vectors(v: Array) -> Float[np.ndarray, "*batch d"]:
    array = np.asarray(v)
    if array.dtype not in (np.float32, np.float64):
        try:
            array = array.astype(np.float64, casting="same_kind" if array.dtype.kind == "c" else "unsafe")
        except (TypeError, ValueError):
            raise TypeError(f"v must hold real numbers; got dtype {array.dtype}") from None
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"v must have a last axis of at least one entry; got shape {array.shape}")
    _check_finite("v", array)
    return array


def _like(name: str, value: Array, v: np.ndarray) -> Float[np.ndarray, "*batch d"]:
    array = np.asarray(value, dtype=v.dtype)
    _check_finite(name, array)
    try:
        return np.broadcast_to(array, v.shape)
    except ValueError:
        raise ValueError(f"{name} must broadcast to the shape {v.shape} of v; got {array.shape}") from None


def _check_finite(name: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; it holds NaN or infinity")


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number; got {value}")
