"""Matrix games and quadratic saddle points as finite sums over their columns, with compiled kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, no_type_check

import numba
import numpy as np
import scipy.sparse.linalg
from jaxtyping import Float, Int

from offprint.methods.optimize.finite_sum import Constants, FiniteSumOperator, as_vector
from offprint.methods.optimize.projections import project_blocks

Matrix = np.ndarray | Sequence[Sequence[float]]
Sampling = Literal["uniform", "norms"]


class SaddleOperator(FiniteSumOperator):
    """F(x, y) = (H x + s Aᵀy - h, -s A x - b), a mean over coordinates; built by the two functions below.

    Component i is F with only the i-th entries of x and y left in the linear part, scaled so that the mean is F. It
    reads one row of each stored matrix, all of which are kept in the order of those reads.

    Parameters
    ----------
    a : array of float, shape (m, d)
        Couples x of length d with y of length m.
    hessian : array of float, shape (d, d), optional
        H; nothing is stored for H = 0.
    sign : {1, -1}
        s.
    offset : array of float, shape (d + m,), optional
        (h, b); 0 by default.
    sampling : {"uniform", "norms"}
        Whether components are drawn uniformly or in proportion to the largest squared factor by which each can
        stretch its entries, which makes the average Lipschitz constant as small as it can be.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or ``sampling`` is another.
    """

    def __init__(
        self,
        a: Matrix,
        hessian: Matrix | None = None,
        sign: float = 1.0,
        offset: np.ndarray | None = None,
        sampling: Sampling = "uniform",
    ) -> None:
        self.a = _matrix("A", a)
        m, d = self.a.shape
        self.a_rows = self.a  # row i: what y[i] adds to the x part
        self.a_columns = np.ascontiguousarray(self.a.T)  # row i: what x[i] adds to the y part
        self.h_columns = np.zeros((0, d)) if hessian is None else np.ascontiguousarray(_matrix("H", hessian).T)
        if self.h_columns.shape not in ((0, d), (d, d)):
            raise ValueError(f"H must have shape ({d}, {d}) to go with A of shape {self.a.shape}")
        self.sign = float(sign)
        self.offset = np.zeros(d + m) if offset is None else as_vector("offset", offset)
        self.dim = d + m
        n = max(m, d)
        if sampling not in ("uniform", "norms"):
            raise ValueError(f"sampling must be 'uniform' or 'norms'; got {sampling!r}")
        self._stretch = _squared_stretch(self.a_rows, self.a_columns, self.h_columns)
        weights = self._stretch if sampling == "norms" and self._stretch.sum() > 0 else np.ones(n)
        weights = np.maximum(weights, 1e-12 * weights.max())
        self.scale = weights.sum() / weights
        uniform = sampling == "uniform"
        super().__init__(
            n,
            self._component,
            self._full,
            difference=self._difference,
            probabilities=None if uniform else 1 / self.scale,
        )

    @property
    def kernel_arguments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, np.ndarray]:
        """What the compiled kernels need to evaluate components."""
        return self.a_rows, self.a_columns, self.h_columns, self.sign, self.scale

    @property
    def constants(self) -> Constants:
        """Exact Lipschitz constants: L_F is a spectral norm, L follows from the norms of columns.

        The cocoercive ones are infinite: unless A = 0, the points (0, y) show that there is none.
        """
        if self._constants is None:
            linear = scipy.sparse.linalg.LinearOperator(
                (self.dim, self.dim),
                matvec=lambda u: self._linear(u.ravel()),
                rmatvec=lambda u: self._transposed(u.ravel()),
                dtype=np.float64,
            )
            start = np.random.default_rng(0).standard_normal(self.dim)
            largest = scipy.sparse.linalg.svds(linear, k=1, v0=start, return_singular_vectors=False)[0]
            on_average = math.sqrt(float((self._stretch * self.scale).max()))
            self._constants = Constants(float(largest), math.inf, on_average, math.inf)
        return self._constants

    def _linear(self, u: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        d = self.a.shape[1]
        x, y = u[:d], u[d:]
        top = self.sign * (self.a_columns @ y)
        if self.h_columns.size:
            top += x @ self.h_columns
        return np.concatenate([top, -self.sign * (self.a @ x)])

    def _transposed(self, u: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        d = self.a.shape[1]
        x, y = u[:d], u[d:]
        top = -self.sign * (self.a_columns @ y)
        if self.h_columns.size:
            top += self.h_columns @ x
        return np.concatenate([top, self.sign * (self.a @ x)])

    def _full(self, u: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        return np.asarray(self._linear(u) - self.offset)

    def _difference(
        self, indices: Int[np.ndarray, " batch"], u: Float[np.ndarray, " d"], v: Float[np.ndarray, " d"]
    ) -> Float[np.ndarray, " d"]:
        total = np.zeros(self.dim)
        add_columns(total, 1 / len(indices), indices, u - v, *self.kernel_arguments)
        return total

    def _component(self, indices: Int[np.ndarray, " batch"], u: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        total = -self.offset
        add_columns(total, 1 / len(indices), indices, u, *self.kernel_arguments)
        return total


def from_matrix_game(A: Matrix, *, sampling: Sampling = "uniform") -> SaddleOperator:
    """Build the operator of the game min over x, max over y of yᵀA x, F(x, y) = (Aᵀy, -A x).

    The variable is ``u = (x, y)``. With ``resolvent=SimplexProduct(d, m)`` both are mixed strategies; without a
    resolvent they are free.

    Parameters
    ----------
    A : array of float, shape (m, d)
        What the player of y wins for each pair of pure strategies. Finite.
    sampling : {"uniform", "norms"}
        How components are drawn; "norms" draws those with large rows and columns more often (importance sampling).

    Returns
    -------
    FiniteSumOperator
        With n = max(m, d) components; i reads row i and column i of A, either being 0 where A has none.

    Raises
    ------
    ValueError
        If ``A`` is no matrix, is empty or not finite, or ``sampling`` is another.

    Notes
    -----
    O(b (m + d)) for a batch of b. Keeps A and its transpose, both in row order.

    Examples
    --------
    >>> import numpy as np
    >>> operator = from_matrix_game([[1.0, -1.0], [-1.0, 1.0]])
    >>> operator.full(np.array([0.5, 0.5, 1.0, 0.0]))
    array([ 1., -1., -0., -0.])

    References
    ----------
    Cai, Alacaoglu and Diakonikolas, arXiv 2310.02987, numerical experiments, matrix game.
    """
    return SaddleOperator(A, sampling=sampling)


def from_saddle_qp(
    H: Matrix,
    A: Matrix,
    b: np.ndarray | Sequence[float],
    h: np.ndarray | Sequence[float],
    *,
    sampling: Sampling = "uniform",
) -> SaddleOperator:
    """Build the operator of the Lagrangian ½ xᵀH x - hᵀx - yᵀ(A x - b), F(x, y) = (H x - h - Aᵀy, A x - b).

    Its zeros are the solutions of: minimise ½ xᵀH x - hᵀx subject to A x = b, with their multipliers.

    Parameters
    ----------
    H : array of float, shape (d, d)
        Finite; H + Hᵀ positive semidefinite, or the operator is not monotone.
    A : array of float, shape (m, d)
        Finite.
    b : array of float, shape (m,)
        Finite.
    h : array of float, shape (d,)
        Finite.
    sampling : {"uniform", "norms"}
        How components are drawn.

    Returns
    -------
    FiniteSumOperator
        With n = max(m, d) components, one for each pair of columns of H, A and Aᵀ; the variable is u = (x, y).

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, H is not positive semidefinite, or ``sampling`` is another.

    Notes
    -----
    O(b (m + d)) for a batch of b. The check of H costs one Cholesky factorisation.

    Examples
    --------
    The point of the line x + y = 2 that is nearest to 0:

    >>> import numpy as np
    >>> operator = from_saddle_qp(np.eye(2), np.ones((1, 2)), b=[2.0], h=[0.0, 0.0])
    >>> operator.full(np.array([1.0, 1.0, 1.0]))
    array([0., 0., 0.])

    References
    ----------
    Cai, Alacaoglu and Diakonikolas, arXiv 2310.02987, numerical experiments, quadratic programme.
    """
    a, hessian = _matrix("A", A), _matrix("H", H)
    m, d = a.shape
    if hessian.shape != (d, d):
        raise ValueError(f"H must have shape ({d}, {d}) to go with A of shape {a.shape}; got {hessian.shape}")
    vectors = {"h": as_vector("h", h), "b": as_vector("b", b)}
    for name, size in (("h", d), ("b", m)):
        if vectors[name].size != size:
            raise ValueError(
                f"{name} must have shape ({size},) to go with A of shape {a.shape}; got {vectors[name].shape}"
            )
    try:
        np.linalg.cholesky((hessian + hessian.T) / 2 + 1e-9 * (np.linalg.norm(hessian) + 1e-300) * np.eye(d))
    except np.linalg.LinAlgError:
        raise ValueError("H must be positive semidefinite, or the operator is not monotone") from None
    return SaddleOperator(a, hessian, -1.0, np.concatenate([vectors["h"], vectors["b"]]), sampling)


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def add_columns(
    total: np.ndarray,
    factor: float,
    indices: np.ndarray,
    u: np.ndarray,
    a_rows: np.ndarray,
    a_columns: np.ndarray,
    h_columns: np.ndarray,
    sign: float,
    scale: np.ndarray,
) -> None:
    """Add ``factor`` times the linear parts of the components ``indices`` at ``u`` to ``total``, in place."""
    m, d = a_rows.shape
    for i in indices:
        weight = factor * scale[i]
        if i < m:
            y_weight = sign * weight * u[d + i]
            row = a_rows[i]
            for j in range(d):
                total[j] += y_weight * row[j]
        if i < d:
            x_weight = weight * u[i]
            column = a_columns[i]
            for j in range(m):
                total[d + j] -= sign * x_weight * column[j]
            if h_columns.shape[0] > 0:
                h_column = h_columns[i]
                for j in range(d):
                    total[j] += x_weight * h_column[j]


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def forb_steps(
    v: np.ndarray,
    w: np.ndarray,
    w_previous: np.ndarray,
    value: np.ndarray,
    center: np.ndarray,
    eta: float,
    gamma: float,
    alpha: float,
    indices: np.ndarray,
    ends: np.ndarray,
    a_rows: np.ndarray,
    a_columns: np.ndarray,
    h_columns: np.ndarray,
    sign: float,
    scale: np.ndarray,
) -> np.ndarray:
    """Compiled form of :func:`~offprint.methods.optimize.halpern.forb_steps_in_python` for games and quadratics."""
    v, last = v.copy(), w_previous
    for t in range(indices.shape[0]):
        change = v - last
        new = alpha * v + (1 - alpha) * w - gamma * (eta * value + w - center + change)
        add_columns(new, -gamma * eta / indices.shape[1], indices[t], change, a_rows, a_columns, h_columns, sign, scale)
        project_blocks(new, ends)
        v, last = new, w
    return v


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def extragradient_steps(
    z: np.ndarray,
    w: np.ndarray,
    value: np.ndarray,
    tau: float,
    alpha: float,
    indices: np.ndarray,
    ends: np.ndarray,
    a_rows: np.ndarray,
    a_columns: np.ndarray,
    h_columns: np.ndarray,
    sign: float,
    scale: np.ndarray,
) -> np.ndarray:
    """Compiled steps of variance-reduced extragradient between two snapshots, for games and quadratics."""
    z = z.copy()
    for t in range(indices.shape[0]):
        forward = alpha * z + (1 - alpha) * w - tau * value
        half = forward.copy()
        project_blocks(half, ends)
        add_columns(forward, -tau / indices.shape[1], indices[t], half - w, a_rows, a_columns, h_columns, sign, scale)
        project_blocks(forward, ends)
        z = forward
    return z


def _squared_stretch(rows: np.ndarray, columns: np.ndarray, h_columns: np.ndarray) -> Float[np.ndarray, " n"]:
    """Return for each i the squared norm of the columns of F at (x[i], y[i]), as a map from those two entries."""
    (m, d), n = rows.shape, max(rows.shape)
    x_norm, y_norm, cross = np.zeros(n), np.zeros(n), np.zeros(n)
    y_norm[:m] = np.einsum("ij,ij->i", rows, rows)
    x_norm[:d] = np.einsum("ij,ij->i", columns, columns)
    if h_columns.size:
        x_norm[:d] += np.einsum("ij,ij->i", h_columns, h_columns)
        k = min(m, d)
        cross[:k] = np.einsum("ij,ij->i", h_columns[:k], rows[:k])
    # largest eigenvalue of [[x_norm, ±cross], [±cross, y_norm]]
    return np.asarray((x_norm + y_norm) / 2 + np.hypot((x_norm - y_norm) / 2, cross))


def _matrix(name: str, value: Matrix) -> Float[np.ndarray, "rows columns"]:
    matrix = np.ascontiguousarray(value, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"{name} must be a matrix of at least one entry; got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be finite; it holds NaN or infinity")
    return matrix
