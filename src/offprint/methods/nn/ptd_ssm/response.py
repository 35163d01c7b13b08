"""Transfer functions of state-space systems, without diagonalising them."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import scipy.linalg
from jaxtyping import Complex128, Shaped
from numpy.typing import ArrayLike

Discretization = Literal["zoh", "bilinear"]


def transfer_function(
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike,
    omega: ArrayLike,
    delta: float | None = None,
    discretization: Discretization = "zoh",
) -> Complex128[np.ndarray, "..."]:
    r"""Return :math:`G(i\omega) = C (i\omega I - A)^{-1} B + D`, or the same of the discretised system.

    Parameters
    ----------
    A : array, shape (n, n) or (n,)
        The state matrix, real or complex; a vector is a diagonal.
    B : array, shape (n,) or (n, inputs)
    C : array, shape (n,) or (outputs, n)
    D : float or array, shape (outputs, inputs)
    omega : array of float, shape (frequencies,)
        Angular frequencies, in radians per unit of time.
    delta : float, optional
        Positive. The step size with which the system is discretised first; omega still counts radians per unit of
        time, so that a sinusoid makes omega * delta radians per sample.
    discretization : {"zoh", "bilinear"}
        Zero-order hold, or the bilinear rule.

    Returns
    -------
    array of complex128
        Shape (frequencies,) where B and C are vectors, else (frequencies, outputs, inputs).

    Raises
    ------
    ValueError
        If shapes do not fit together, a value is not finite, or delta is not positive.

    Notes
    -----
    One Schur decomposition, O(n³), then one triangular solve for all frequencies, O(n²) each. Both are backward stable,
    so that highly non-normal matrices such as HiPPO-LegS are safe where an eigendecomposition is not.

    Examples
    --------
    >>> transfer_function([[-1.0]], [1.0], [1.0], 0.0, [0.0, 1.0]).round(3).tolist()
    [(1+0j), (0.5-0.5j)]

    References
    ----------
    Laub, *Efficient Multivariable Frequency Response Computations*, IEEE Transactions on Automatic Control 26 (1981).
    """
    scalar, (state, inputs, outputs, direct) = _system(A, B, C, D)
    frequencies = _finite("omega", omega)
    if frequencies.ndim != 1 or np.iscomplexobj(frequencies):
        raise ValueError(f"omega must be a vector of real numbers; got shape {frequencies.shape}")
    points = 1j * frequencies
    if delta is not None:
        if not 0 < delta < math.inf:
            raise ValueError(f"delta must be positive and finite; got {delta}")
        if discretization == "bilinear":
            points = 2j / delta * np.tan(frequencies * delta / 2)
        elif discretization == "zoh":
            state, inputs = zero_order_hold(state, inputs, delta)
            points = np.exp(1j * frequencies * delta)
        else:
            raise ValueError(f"discretization must be 'zoh' or 'bilinear'; got {discretization!r}")
    triangle, Q = scipy.linalg.schur(state.astype(np.complex128), output="complex")
    response: Complex128[np.ndarray, "..."] = (outputs @ Q) @ _back_substitute(triangle, Q.conj().T @ inputs, points)
    response = response + direct
    return response[:, 0, 0] if scalar else response


def zero_order_hold(
    A: Shaped[np.ndarray, "n n"], B: Shaped[np.ndarray, "n inputs"], delta: float
) -> tuple[Shaped[np.ndarray, "n n"], Shaped[np.ndarray, "n inputs"]]:
    """Return the matrices of ``x[t+1] = A_bar x[t] + B_bar u[t]`` for inputs held constant over each step.

    Parameters
    ----------
    A : array, shape (n, n)
    B : array, shape (n, inputs)
    delta : float
        Positive.

    Returns
    -------
    A_bar : array, shape (n, n)
    B_bar : array, shape (n, inputs)

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> A_bar, B_bar = zero_order_hold(np.array([[-1.0]]), np.array([[1.0]]), np.log(2.0))
    >>> float(A_bar.item()), float(B_bar.item())
    (0.5, 0.5)
    """
    n, m = B.shape
    # Exponentiating the augmented matrix needs no inverse of A, so singular A are fine.
    augmented = np.block([[A, B], [np.zeros((m, n + m))]]) * delta
    exponential = scipy.linalg.expm(augmented)
    return exponential[:n, :n], exponential[:n, n:]


def _back_substitute(
    T: Complex128[np.ndarray, "n n"], B: Complex128[np.ndarray, "n m"], points: Complex128[np.ndarray, " k"]
) -> Complex128[np.ndarray, "k n m"]:
    """Solve (z I - T) X = B for each point z, with T upper triangular."""
    n, m = B.shape
    X = np.zeros((n, len(points), m), dtype=np.complex128)
    for i in reversed(range(n)):
        known = B[i] + np.tensordot(T[i, i + 1 :], X[i + 1 :], axes=1)
        X[i] = known / (points - T[i, i])[:, None]
    return X.transpose(1, 0, 2)


def _system(A: ArrayLike, B: ArrayLike, C: ArrayLike, D: ArrayLike) -> tuple[bool, tuple[np.ndarray, ...]]:
    """Return whether the system is scalar, and A, B, C and D as matrices, all checked."""
    a, b, c, d = (_finite(name, value) for name, value in zip("ABCD", (A, B, C, D), strict=True))
    a = np.diag(a) if a.ndim == 1 else a
    if a.ndim != 2 or a.shape[0] != a.shape[1] or a.size == 0:
        raise ValueError(f"A must be a square matrix or a vector; got shape {a.shape}")
    if b.ndim not in (1, 2) or len(b) != len(a):
        raise ValueError(f"B must have {len(a)} rows as A does; got shape {b.shape}")
    if c.ndim not in (1, 2) or c.shape[-1] != len(a):
        raise ValueError(f"C must have {len(a)} columns as A does; got shape {c.shape}")
    scalar = b.ndim == c.ndim == 1
    b, c = b.reshape(len(a), -1), c.reshape(-1, len(a))
    if d.ndim and d.shape != (len(c), b.shape[1]):
        raise ValueError(f"D must be a number or have shape {(len(c), b.shape[1])}; got shape {d.shape}")
    return scalar, (a, b, c, d)


def _finite(name: str, value: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(value)
        array = array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of numbers: {error}") from error
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; it has {(~np.isfinite(array)).sum()} entries that are not")
    return array
