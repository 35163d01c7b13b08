"""Perturb, then diagonalise: an exact diagonalisation of a nearby matrix, with well-conditioned eigenvectors."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Complex128, Inexact
from numpy.typing import ArrayLike
from torch import Tensor

Method = Literal["optimize", "ginibre"]
Matrix = Inexact[np.ndarray, "n n"]


@dataclass(frozen=True)
class PTD:
    """A diagonalisation ``A + E = V diag(Lambda) Vinv`` of a perturbed matrix, and how good it is.

    Parameters
    ----------
    Lambda : array of complex128, shape (n,)
        Eigenvalues of A + E, by descending imaginary part; in exactly conjugate pairs where A is real.
    V, Vinv : array of complex128, shape (n, n)
        Eigenvectors in columns of unit length, and the inverse.
    E : array, shape (n, n)
        The perturbation, real where A is.
    cond : float
        The 2-norm condition number of V.
    norm_ratio : float
        ‖E‖₂ / ‖A‖₂.
    residual : float
        ‖A + E - V diag(Lambda) Vinv‖₂ / ‖A‖₂, from rounding alone.
    max_real : float
        The largest real part of an eigenvalue; the system is stable where it is negative.
    n_iter : int
        Optimisation steps taken.
    """

    Lambda: Complex128[np.ndarray, " n"]
    V: Complex128[np.ndarray, "n n"]
    Vinv: Complex128[np.ndarray, "n n"]
    E: Matrix
    cond: float
    norm_ratio: float
    residual: float
    max_real: float
    n_iter: int


def perturb_then_diagonalize(
    A: ArrayLike,
    rel_size: float = 1e-2,
    *,
    gamma: float | None = None,
    method: Method = "optimize",
    stable: bool = True,
    margin: float = 0.5,
    max_iter: int = 500,
    learning_rate: float = 0.1,
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
) -> PTD:
    r"""Diagonalise a matrix near A whose eigenvectors are far better conditioned than those of A.

    Use it where a matrix is too non-normal to be diagonalised: the result is exact for A + E (backward stable), so that
    the transfer function of the system stays close to the original one wherever its resolvent is moderate.

    Parameters
    ----------
    A : array, shape (n, n)
        Any square matrix, real or complex.
    rel_size : float
        Positive. The size of E relative to A in the 2-norm: never exceeded, and met exactly by ``"ginibre"``. Where
        ``gamma`` is given, only the size of the first E.
    gamma : float, optional
        Positive. Let the size go free and minimise cond(V) + gamma ‖E‖₂ instead, as the paper does.
    method : {"optimize", "ginibre"}
        Descend on cond(V), or only draw a random Gaussian E.
    stable : bool
        Keep every eigenvalue's real part at or below ``-margin``. This is done by E itself (a penalty in the descent
        and a multiple of the identity in E, within the same size), never by moving eigenvalues afterwards.
    margin : float
        Non-negative. For matrices that are not meant to be stable, pass ``stable=False``.
    max_iter : int
        Steps of Adam, at least 1.
    learning_rate : float
        Positive. Size of one step, relative to ‖E‖₂ / n of the first E.
    seed : int
        Determines the first E.
    cache_dir : path, optional
        A folder in which the optimised E is kept, named by a hash of A and every argument. Nothing is kept by default.

    Returns
    -------
    PTD

    Raises
    ------
    ValueError
        If A is not square, empty, zero or not finite; if a number is out of range; if no E of this size makes A stable;
        or if A + E has eigenvalues that coincide to rounding (ask for a larger ``rel_size``).
    TypeError
        If A is not an array of numbers.

    Warns
    -----
    UserWarning
        If ``stable=False`` and A + E has an eigenvalue with non-negative real part.

    Notes
    -----
    O(n³) a step: 500 steps take about 1 s for n = 16, 4 s for n = 64. The learning rate, the penalty and the projection
    on the allowed size are ours; the paper names only gradient descent. The descent keeps its best E, and starts from
    the random one, so its condition number is never worse.

    Examples
    --------
    >>> from offprint.methods.nn.ptd_ssm import hippo_legs
    >>> A, _ = hippo_legs(16)
    >>> result = perturb_then_diagonalize(A, rel_size=1e-3, max_iter=50)
    >>> f"{np.linalg.cond(np.linalg.eig(A)[1]):.0e}", result.cond < 600, result.norm_ratio <= 1e-3 * (1 + 1e-12)
    ('8e+10', True, True)

    References
    ----------
    Yu, Nigmetov, Morozov, Mahoney and Erichson, *Robustifying State-space Models for Long Sequences via Approximate
    Diagonalization*, arXiv:2310.01698, the PTD section and its theorems on random perturbations.
    Banks, Kulkarni, Mukherjee and Srivastava, *Gaussian Regularization of the Pseudospectrum and Davies' Conjecture*,
    arXiv:1906.11819, for the random perturbation.
    """
    matrix = _square("A", A)
    for name, value in (("rel_size", rel_size), ("gamma", gamma), ("learning_rate", learning_rate)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite; got {value}")
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be non-negative and finite; got {margin}")
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}; got {method!r}")
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1; got {max_iter}")
    settings = (rel_size, gamma, method, stable, margin, max_iter, learning_rate, seed)
    path = None if cache_dir is None else Path(cache_dir) / f"ptd-{_key(matrix, settings)}.npz"
    if path is not None and path.exists():
        with np.load(path) as kept:
            return _warned(_diagonalize(matrix, kept["E"], int(kept["n_iter"])), stable)
    limit = margin if stable else None
    budget = rel_size * float(np.linalg.norm(matrix, 2))
    E = _within(matrix, _ginibre(matrix, seed), budget, limit)
    result = _diagonalize(matrix, E, 0)
    if method == "optimize":
        E, n_iter = _descend(matrix, E, budget, gamma, limit, max_iter, learning_rate)
        result = _diagonalize(matrix, E, n_iter)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, E=result.E, n_iter=result.n_iter)
        partial.replace(path)
    return _warned(result, stable)


def _descend(
    A: Matrix,
    start: Matrix,
    budget: float,
    gamma: float | None,
    limit: float | None,
    max_iter: int,
    learning_rate: float,
) -> tuple[Matrix, int]:
    """Minimise cond(V) by Adam from ``start``; return the best E that meets the limits, and the step count."""
    best, best_E = _objective(torch.from_numpy(A), torch.from_numpy(start), gamma)[0].item(), start
    E = torch.from_numpy(start.copy()).requires_grad_()
    adam = torch.optim.Adam([E], lr=learning_rate * budget / len(A))
    matrix, step = torch.from_numpy(A), 0
    for step in range(1, max_iter + 1):  # noqa: B007  the count is returned
        value, real = _objective(matrix, E, gamma)
        violation = real.new_zeros(()) if limit is None else (torch.relu(real + limit) ** 2).sum()
        if value.item() < best and violation.item() == 0:
            best, best_E = value.item(), E.detach().numpy().copy()
        # The logarithm has the same minimiser; it puts the two terms on one scale, and keeps the gradient through the
        # eigenvectors accurate where they are nearly dependent.
        loss = value.log() + violation
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if E.grad is None or not bool(torch.isfinite(E.grad).all()):
            break
        adam.step()
        if gamma is None:
            with torch.no_grad():
                E.mul_(min(1.0, budget / float(torch.linalg.matrix_norm(E, 2))))
    return best_E, step


def _objective(A: Tensor, E: Tensor, gamma: float | None) -> tuple[Tensor, Tensor]:
    """Return cond(V) + gamma ‖E‖₂ and the real parts of the eigenvalues, differentiable in E."""
    Lambda, V = torch.linalg.eig(A + E)
    sigma = torch.linalg.svdvals(V)
    value = sigma[0] / sigma[-1]
    return (value if gamma is None else value + gamma * torch.linalg.matrix_norm(E, 2)), Lambda.real


def _ginibre(A: Matrix, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    G = rng.standard_normal(A.shape)
    return G + 1j * rng.standard_normal(A.shape) if np.iscomplexobj(A) else G


def _within(A: Matrix, direction: Matrix, budget: float, limit: float | None) -> Matrix:
    """Return E = s direction - c I of norm ``budget``, with the least c that puts the spectrum left of ``-limit``."""
    unit: Matrix = direction / np.linalg.norm(direction, 2)
    largest: Matrix = budget * unit
    if limit is None:
        return largest

    def shift(s: float) -> float:
        return max(0.0, float(np.linalg.eigvals(A + s * unit).real.max()) + limit)

    def perturbation(s: float) -> Matrix:
        E: Matrix = s * unit - shift(s) * np.eye(len(A))
        return E

    if shift(0.0) > budget:
        raise ValueError(
            f"rel_size must be at least {shift(0.0) / np.linalg.norm(A, 2):.3g} to move every eigenvalue of A left of "
            f"-margin = {-limit:g}; pass a larger one, a smaller margin, or stable=False"
        )
    if shift(budget) == 0:
        return largest
    low, high = 0.0, budget
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(perturbation(middle), 2) <= budget else (low, middle)
    return perturbation(low)


def _diagonalize(A: Matrix, E: Matrix, n_iter: int) -> PTD:
    Lambda, V = np.linalg.eig(A + E)
    order = np.lexsort((Lambda.real, -Lambda.imag))
    Lambda, V = Lambda[order].astype(np.complex128), V[:, order].astype(np.complex128)
    sigma = np.linalg.svd(V, compute_uv=False)
    # Beyond this the eigenvectors are dependent to rounding, and their inverse carries no correct digit.
    if sigma[-1] * 1e12 < sigma[0]:
        raise ValueError(
            "A + E has eigenvalues that coincide to rounding, so that its eigenvectors are dependent "
            f"(singular values {sigma[0]:.1g} to {sigma[-1]:.1g}); ask for a larger rel_size"
        )
    Vinv = np.linalg.inv(V)
    size = np.linalg.norm(A, 2)
    return PTD(
        Lambda=Lambda,
        V=V,
        Vinv=Vinv,
        E=E,
        cond=float(sigma[0] / sigma[-1]),
        norm_ratio=float(np.linalg.norm(E, 2) / size),
        residual=float(np.linalg.norm(A + E - (V * Lambda) @ Vinv, 2) / size),
        max_real=float(Lambda.real.max()),
        n_iter=n_iter,
    )


def _warned(result: PTD, stable: bool) -> PTD:
    if not stable and result.max_real >= 0:
        warnings.warn(f"A + E is not stable: its largest real part is {result.max_real:.3g}", UserWarning, stacklevel=3)
    return result


def _square(name: str, A: ArrayLike) -> Matrix:
    try:
        matrix = np.asarray(A)
        matrix = matrix.astype(np.complex128 if np.iscomplexobj(matrix) else np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a matrix of numbers: {error}") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"{name} must be a square matrix; got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be finite; it has {(~np.isfinite(matrix)).sum()} entries that are not")
    if not matrix.any():
        raise ValueError(f"{name} must not be zero: the size of E is relative to it")
    return matrix


def _key(A: Matrix, settings: tuple[object, ...]) -> str:
    return hashlib.sha256(A.tobytes() + repr((A.dtype.str, A.shape, settings)).encode()).hexdigest()[:20]
