"""The HiPPO-LegS state-space system, its normal and diagonal relatives, and the spikes that diagonal ones have."""

from __future__ import annotations

import operator
from typing import Literal

import numpy as np
from jaxtyping import Complex128, Float64
from scipy.optimize import brentq, minimize_scalar


def hippo_legs(n: int) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, " n"]]:
    r"""Return the HiPPO-LegS matrix and input vector, ``x' = A x + B u``, which remember a long history.

    With j, k counted from 1, ``A[j, k]`` is :math:`-\sqrt{(2j-1)(2k-1)}` below the diagonal, -j on it and 0 above, and
    ``B[j]`` is :math:`\sqrt{2j-1}`.

    Parameters
    ----------
    n : int
        Number of states, at least 1.

    Returns
    -------
    A : array of float64, shape (n, n)
    B : array of float64, shape (n,)

    Raises
    ------
    ValueError
        If n is less than 1.
    TypeError
        If n is not an integer.

    Notes
    -----
    O(n²). The condition number of the eigenvectors of A grows faster than 2^n, which is why A must be perturbed (see
    :func:`perturb_then_diagonalize`) or changed (see :func:`dplr`) before it can be diagonalised.

    Examples
    --------
    >>> A, B = hippo_legs(2)
    >>> A.round(3).tolist(), B.round(3).tolist()
    ([[-1.0, 0.0], [-1.732, -2.0]], [1.0, 1.732])

    References
    ----------
    Gu, Dao, Ermon, Rudra and Ré, *HiPPO: Recurrent Memory with Optimal Polynomial Projections*, arXiv:2008.07669.
    """
    j = np.arange(1, _count("n", n) + 1, dtype=np.float64)
    B = np.sqrt(2 * j - 1)
    return np.tril(-np.outer(B, B), -1) - np.diag(j), B


def dplr(n: int) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, " n"]]:
    """Return the HiPPO-LegS matrix as a normal matrix minus a rank-one term: ``A = A_normal - p pᵀ``.

    ``A_normal + I/2`` is skew-symmetric. S4 keeps both terms (diagonal plus low rank); S4D and S5 drop ``p pᵀ``.

    Parameters
    ----------
    n : int
        Number of states, at least 1.

    Returns
    -------
    A_normal : array of float64, shape (n, n)
    p : array of float64, shape (n,)
        The input vector of :func:`hippo_legs` divided by √2.

    Raises
    ------
    ValueError
        If n is less than 1.
    TypeError
        If n is not an integer.

    Notes
    -----
    O(n²).

    Examples
    --------
    >>> A_normal, p = dplr(3)
    >>> np.allclose(A_normal + A_normal.T, -np.eye(3)), np.allclose(A_normal - np.outer(p, p), hippo_legs(3)[0])
    (True, True)

    References
    ----------
    Gu, Goel and Ré, *Efficiently Modeling Long Sequences with Structured State Spaces*, arXiv:2111.00396.
    """
    A, B = hippo_legs(n)
    return (A - A.T) / 2 - np.eye(n) / 2, B / np.sqrt(2)


Half = Complex128[np.ndarray, " pairs"]


def diagonal_spectrum(
    n: int, kind: Literal["legs", "lin", "inv"]
) -> tuple[Half, Half, Complex128[np.ndarray, "n pairs"] | None]:
    """Return one of each pair of conjugate eigenvalues of a diagonal S4D initialisation, with its input vector.

    Parameters
    ----------
    n : int
        Number of real states, even, at least 2.
    kind : {"legs", "lin", "inv"}
        ``"legs"`` takes the normal part of HiPPO-LegS; the other two are closed forms that approximate its spectrum.

    Returns
    -------
    Lambda : array of complex128, shape (n / 2,)
        Eigenvalues with positive imaginary part.
    B : array of complex128, shape (n / 2,)
        The input vector in the eigenvectors' coordinates: of B/2 for ``"legs"``, ones for the closed forms.
    V : array of complex128, shape (n, n / 2), or None
        The eigenvectors, where there is a matrix that has them.

    Raises
    ------
    ValueError
        If n is odd or less than 2, or kind is not known.

    Examples
    --------
    >>> diagonal_spectrum(4, "lin")[0].round(3).tolist()
    [(-0.5+0j), (-0.5+3.142j)]

    References
    ----------
    Gu, Gupta, Goel and Ré, *On the Parameterization and Initialization of Diagonal State Space Models*,
    arXiv:2206.11893, section 4.
    """
    check_even("n", n)
    k = np.arange(n // 2)
    if kind == "lin":
        return -0.5 + 1j * np.pi * k, np.ones(n // 2, dtype=np.complex128), None
    if kind == "inv":
        return -0.5 + 1j * (n / np.pi) * (n / (2 * k + 1) - 1), np.ones(n // 2, dtype=np.complex128), None
    if kind != "legs":
        raise ValueError(f"kind must be 'legs', 'lin' or 'inv'; got {kind!r}")
    A_normal, p = dplr(n)
    # i (A_normal + I/2) is Hermitian, so eigh gives unitary eigenvectors; eig would not.
    frequency, V = np.linalg.eigh(-1j * (A_normal + np.eye(n) / 2))
    half = frequency > 0
    V = V[:, half]
    return -0.5 + 1j * frequency[half], V.conj().T @ (p / np.sqrt(2)), V


def diag_spikes(n: int, k: int | None = None) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    r"""Return where the transfer function of the diagonal initialisation has spikes, and how high they are.

    Dropping the rank-one term of HiPPO-LegS divides its transfer function by 1 + P(s), whatever the read-out, with
    :math:`P(s) = \prod_{j=1}^n (s-j+1)/(s+j)`. On the imaginary axis |P| is close to 1 at high frequency, so the
    quotient has a spike wherever P is negative. A sinusoidal disturbance there is amplified.

    Parameters
    ----------
    n : int
        Number of states, at least 1.
    k : int, optional
        How many spikes; the highest ones, which are also those of highest frequency. All ⌊n/2⌋ by default.

    Returns
    -------
    omega : array of float64, shape (k,)
        Angular frequencies, ascending. A layer with step size Δ has the spike at ωΔ radians per sample.
    height : array of float64, shape (k,)
        The factor by which the exact transfer function is amplified, ascending.

    Raises
    ------
    ValueError
        If n is less than 1 or k is not in 1 … ⌊n/2⌋.
    TypeError
        If n or k is not an integer.

    Notes
    -----
    The phase of P(iω) falls strictly from (n - ½)π to 0, so there is one spike near each odd multiple of π, and
    brackets at the even multiples cannot miss it; |P(iω)| = ω/√(ω² + n²) gives the height without cancellation: about
    2ω²/n² for ω ≫ n. O(n²) for all spikes.

    Examples
    --------
    >>> omega, height = diag_spikes(8)
    >>> omega.round(2).tolist(), height.round(2).tolist()
    ([0.39, 1.96, 5.37, 19.87], [1.05, 1.31, 2.25, 13.8])

    References
    ----------
    Yu, Nigmetov, Morozov, Mahoney and Erichson, *Robustifying State-space Models for Long Sequences via Approximate
    Diagonalization*, arXiv:2310.01698, Lemma 1.
    """
    total = _count("n", n) // 2
    k = total if k is None else _count("k", k)
    if k > total:
        raise ValueError(f"k must be at most {total}, the number of spikes for n = {n}; got {k}")
    low, high = np.log(1e-3), np.log(10.0 * n**2)
    # Spike m lies where the phase is (2m + 1)π, between the turning points 2mπ and (2m + 2)π.
    turns = [high, *(_log_omega_at_phase(n, 2 * m * np.pi, low, high) for m in range(1, k + 1))]
    found = [
        minimize_scalar(lambda x: np.log(_shrinkage(n, x)), bounds=ends, method="bounded", options={"xatol": 1e-12})
        for ends in zip(turns[:0:-1], turns[-2::-1], strict=True)
    ]
    return np.exp([spike.x for spike in found]), np.exp([-spike.fun for spike in found])


def _phase(n: int, log_omega: float) -> float:
    """Return the phase of P(iω), which falls from (n - ½)π at ω = 0 to 0."""
    turn = np.arctan(np.exp(log_omega) / np.arange(1, n + 1))
    return float((n - 0.5) * np.pi - 2 * turn.sum() + turn[-1])


def _log_omega_at_phase(n: int, phase: float, low: float, high: float) -> float:
    if _phase(n, low) <= phase:
        return low
    return float(brentq(lambda x: _phase(n, x) - phase, low, high))


def _shrinkage(n: int, log_omega: float) -> float:
    """Return |1 + P(iω)| from the phase and the closed-form modulus of P, without cancellation."""
    omega = np.exp(log_omega)
    distance = np.hypot(omega, n)
    modulus, shortfall = omega / distance, n**2 / (distance * (distance + omega))
    return float(np.hypot(shortfall, 2 * np.sqrt(modulus) * np.cos(_phase(n, log_omega) / 2)))


def check_even(name: str, value: int) -> None:
    """Refuse a state size that cannot be stored as conjugate pairs."""
    if _count(name, value) % 2:
        raise ValueError(f"{name} must be even: states are stored as conjugate pairs; got {value}")


def _count(name: str, value: int) -> int:
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}") from None
    if value < 1:
        raise ValueError(f"{name} must be at least 1; got {value}")
    return value
