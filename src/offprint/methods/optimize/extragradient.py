"""Extragradient methods for monotone inclusions 0 ∈ F(u) + G(u): plain, anchored, optimistic and variance-reduced."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from offprint.methods.optimize.finite_sum import FiniteSumOperator
from offprint.methods.optimize.forb import compiled_blocks, snapshot_probability
from offprint.methods.optimize.inclusion import Callback, Ledger, Resolvent, Result, batch_size_or, positive
from offprint.methods.optimize.saddle import SaddleOperator, extragradient_steps

Auto = Literal["auto"]


def eag(
    operator: FiniteSumOperator,
    u0: np.ndarray | Sequence[float],
    resolvent: Resolvent | None = None,
    *,
    step_size: float | Auto = "auto",
    tol: float = 1e-6,
    max_evals: int | None = None,
    rng: np.random.Generator | int = 0,
    callback: Callback | None = None,
) -> Result:
    r"""Find a zero of F + G by the extra anchored gradient method (extragradient with a Halpern anchor).

    The deterministic method with the best possible rate for the residual at the last iterate, O(1/k), of a monotone
    Lipschitz F. Take it where full evaluations are cheap, or n is small.

    Parameters
    ----------
    operator : FiniteSumOperator
        F, monotone and Lipschitz.
    u0 : array of float, shape (d,)
        Start. Finite.
    resolvent : callable (u, step) -> array of shape (d,), optional
        J_{step G}; none for G = 0.
    step_size : float or "auto"
        $\eta$, > 0; "auto" takes 1/(2 L_F), with L_F known or estimated at ``u0``.
    tol : float
        Stop at a residual of at most this, > 0.
    max_evals : int, optional
        Evaluations of single components allowed, ≥ n; 1000 n by default.
    rng : numpy Generator or int
        Accepted so that all solvers are called alike; nothing is drawn.
    callback : callable (k, u, residual, n_evals) -> bool, optional
        Called at each iteration; True stops.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If an argument is outside its range, the automatic step finds L = 0, the operator returns NaN, infinity or
        another shape, or the resolvent changes the shape.
    TypeError
        If ``operator`` is no FiniteSumOperator or a function is not callable.

    Notes
    -----
    2n evaluations an iteration. With λ_k = 1/(k + 2) and c_k = λ_k u_0 + (1 - λ_k) u_k,
    ū_k = J_{ηG}(c_k - η F(u_k)) and u_{k+1} = J_{ηG}(c_k - η F(ū_k)).

    Examples
    --------
    >>> import numpy as np
    >>> from offprint.methods.optimize.saddle import from_matrix_game
    >>> result = eag(from_matrix_game([[1.0]]), np.ones(2), tol=1e-3, max_evals=10_000)
    >>> result.converged, bool(abs(result.u).max() < 2e-3)
    (True, True)

    References
    ----------
    Yoon and Ryu, *Accelerated algorithms for smooth convex-concave minimax problems with O(1/k^2) rate on squared
    gradient norm*, ICML 2021.
    """
    ledger, u = Ledger.open(operator, u0, resolvent, tol, max_evals, callback)
    eta = _step_size(ledger, u, step_size, 0.5)
    anchor = u
    with ledger:
        for k in itertools.count():
            value = ledger.full(u)
            ledger.check(k, u, value)
            center = u + (anchor - u) / (k + 2)
            half = ledger.resolve(center - eta * value, eta)
            u = ledger.resolve(center - eta * ledger.full(half), eta)
    return ledger.result(eta)


def extragradient(
    operator: FiniteSumOperator,
    u0: np.ndarray | Sequence[float],
    resolvent: Resolvent | None = None,
    *,
    step_size: float | Auto = "auto",
    tol: float = 1e-6,
    max_evals: int | None = None,
    rng: np.random.Generator | int = 0,
    callback: Callback | None = None,
) -> Result:
    r"""Find a zero of F + G by the extragradient method.

    The standard deterministic method for min-max problems: it converges linearly where the problem allows, and at the
    rate 1/√k for the residual in the worst case.

    Parameters
    ----------
    operator : FiniteSumOperator
        F, monotone and Lipschitz.
    u0 : array of float, shape (d,)
        Start. Finite.
    resolvent : callable (u, step) -> array of shape (d,), optional
        J_{step G}; none for G = 0.
    step_size : float or "auto"
        $\eta$, > 0, below 1/L_F in theory; "auto" takes 0.7/L_F, with L_F known or estimated at ``u0``.
    tol : float
        Stop at a residual of at most this, > 0.
    max_evals : int, optional
        Evaluations of single components allowed, ≥ n; 1000 n by default.
    rng : numpy Generator or int
        Accepted so that all solvers are called alike; nothing is drawn.
    callback : callable (k, u, residual, n_evals) -> bool, optional
        Called at each iteration; True stops.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If an argument is outside its range, the automatic step finds L = 0, the operator returns NaN, infinity or
        another shape, or the resolvent changes the shape.
    TypeError
        If ``operator`` is no FiniteSumOperator or a function is not callable.

    Notes
    -----
    2n evaluations an iteration: ū_k = J_{ηG}(u_k - η F(u_k)), u_{k+1} = J_{ηG}(u_k - η F(ū_k)).

    Examples
    --------
    >>> import numpy as np
    >>> from offprint.methods.optimize.saddle import from_matrix_game
    >>> result = extragradient(from_matrix_game([[1.0]]), np.ones(2), tol=1e-3, max_evals=10_000)
    >>> result.converged, bool(abs(result.u).max() < 2e-3)
    (True, True)

    References
    ----------
    Korpelevich, *The extragradient method for finding saddle points and other problems*, 1976.
    """
    ledger, u = Ledger.open(operator, u0, resolvent, tol, max_evals, callback)
    eta = _step_size(ledger, u, step_size, 0.7)
    with ledger:
        for k in itertools.count():
            value = ledger.full(u)
            ledger.check(k, u, value)
            half = ledger.resolve(u - eta * value, eta)
            u = ledger.resolve(u - eta * ledger.full(half), eta)
    return ledger.result(eta)


def optimistic_gradient(
    operator: FiniteSumOperator,
    u0: np.ndarray | Sequence[float],
    resolvent: Resolvent | None = None,
    *,
    step_size: float | Auto = "auto",
    tol: float = 1e-6,
    max_evals: int | None = None,
    rng: np.random.Generator | int = 0,
    callback: Callback | None = None,
) -> Result:
    r"""Find a zero of F + G by the optimistic gradient (forward-reflected-backward) method.

    Like extragradient, at one full evaluation an iteration instead of two.

    Parameters
    ----------
    operator : FiniteSumOperator
        F, monotone and Lipschitz.
    u0 : array of float, shape (d,)
        Start. Finite.
    resolvent : callable (u, step) -> array of shape (d,), optional
        J_{step G}; none for G = 0.
    step_size : float or "auto"
        $\eta$, > 0, below 1/(2 L_F) in theory; "auto" takes 0.45/L_F, with L_F known or estimated at ``u0``.
    tol : float
        Stop at a residual of at most this, > 0.
    max_evals : int, optional
        Evaluations of single components allowed, ≥ n; 1000 n by default.
    rng : numpy Generator or int
        Accepted so that all solvers are called alike; nothing is drawn.
    callback : callable (k, u, residual, n_evals) -> bool, optional
        Called at each iteration; True stops.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If an argument is outside its range, the automatic step finds L = 0, the operator returns NaN, infinity or
        another shape, or the resolvent changes the shape.
    TypeError
        If ``operator`` is no FiniteSumOperator or a function is not callable.

    Notes
    -----
    n evaluations an iteration: u_{k+1} = J_{ηG}(u_k - η (2 F(u_k) - F(u_{k-1}))), with F(u_{-1}) = F(u_0).

    Examples
    --------
    >>> import numpy as np
    >>> from offprint.methods.optimize.saddle import from_matrix_game
    >>> result = optimistic_gradient(from_matrix_game([[1.0]]), np.ones(2), tol=1e-3, max_evals=10_000)
    >>> result.converged, bool(abs(result.u).max() < 2e-3)
    (True, True)

    References
    ----------
    Popov, *A modification of the Arrow-Hurwicz method for search of saddle points*, 1980; Malitsky and Tam, *A
    forward-backward splitting method for monotone inclusions without cocoercivity*, arXiv 1808.04162.
    """
    ledger, u = Ledger.open(operator, u0, resolvent, tol, max_evals, callback)
    eta = _step_size(ledger, u, step_size, 0.45)
    previous = None
    with ledger:
        for k in itertools.count():
            value = ledger.full(u)
            ledger.check(k, u, value)
            reflected = value if previous is None else 2 * value - previous
            u, previous = ledger.resolve(u - eta * reflected, eta), value
    return ledger.result(eta)


def vr_extragradient(
    operator: FiniteSumOperator,
    u0: np.ndarray | Sequence[float],
    resolvent: Resolvent | None = None,
    *,
    step_size: float | Auto = "auto",
    tol: float = 1e-6,
    max_evals: int | None = None,
    rng: np.random.Generator | int = 0,
    callback: Callback | None = None,
    batch_size: int = 1,
) -> Result:
    r"""Find a zero of F + G by extragradient with variance reduction (loopless, with random snapshots).

    The finite-sum method that is usually compared with :func:`~offprint.methods.optimize.halpern.inexact_vr_halpern`;
    its guarantee is for averages of iterates rather than for the residual of the last one.

    Parameters
    ----------
    operator : FiniteSumOperator
        F, monotone and Lipschitz.
    u0 : array of float, shape (d,)
        Start. Finite.
    resolvent : callable (u, step) -> array of shape (d,), optional
        J_{step G}; none for G = 0.
    step_size : float or "auto"
        $\tau$, > 0; "auto" takes 0.99 √p / L with the average Lipschitz constant L, known or estimated at ``u0``,
        and p the chance of a new snapshot.
    tol : float
        Stop at a residual of at most this, > 0.
    max_evals : int, optional
        Evaluations of single components allowed, ≥ n; 1000 n by default.
    rng : numpy Generator or int
        Draws samples and snapshot times.
    callback : callable (k, u, residual, n_evals) -> bool, optional
        Called at each snapshot; True stops.
    batch_size : int
        Samples of one step, in [1, n]. Larger ones save Python calls where nothing is compiled.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If an argument is outside its range, the automatic step finds L = 0, the operator returns NaN, infinity or
        another shape, or the resolvent changes the shape.
    TypeError
        If ``operator`` is no FiniteSumOperator or a function is not callable.

    Notes
    -----
    2 evaluations a sample, and n for each snapshot, whose residual is then free. With p = b/n, α = 1 - p, snapshot w
    and z̄_t = α z_t + (1 - α) w: the half step is z' = J_{τG}(z̄_t - τ F(w)), and after drawing i,
    z_{t+1} = J_{τG}(z̄_t - τ (F(w) + F_i(z') - F_i(w))). With probability p, w becomes z_{t+1}.

    Examples
    --------
    >>> import numpy as np
    >>> from offprint.methods.optimize.saddle import from_matrix_game
    >>> result = vr_extragradient(from_matrix_game([[1.0]]), np.ones(2), tol=1e-3, max_evals=10_000)
    >>> result.converged, bool(abs(result.u).max() < 2e-3)
    (True, True)

    References
    ----------
    Alacaoglu and Malitsky, *Stochastic variance reduction for variational inequality methods*, arXiv 2102.08352,
    Algorithm 1.
    """
    ledger, z = Ledger.open(operator, u0, resolvent, tol, max_evals, callback)
    b, rng = batch_size_or(batch_size, operator.n, 1), np.random.default_rng(rng)
    p = snapshot_probability(operator.n, b)
    if step_size == "auto":
        tau = 0.99 * math.sqrt(p) / ledger.constants(z).lipschitz_on_average
    else:
        tau = positive("step_size", step_size)
    k = 0
    with ledger:
        while True:
            value = ledger.full(z)
            ledger.check(k, z, value)
            n_steps = int(rng.geometric(p))
            ledger.afford(2 * b * n_steps, z, k)
            k += n_steps
            z = _stretch(ledger, z, value, tau, 1 - p, operator.sample((n_steps, b), rng))
    return ledger.result(tau)


def _stretch(
    ledger: Ledger,
    w: Float[np.ndarray, " d"],
    value: Float[np.ndarray, " d"],
    tau: float,
    alpha: float,
    indices: Int[np.ndarray, "steps batch"],
) -> Float[np.ndarray, " d"]:
    """Make the steps that follow the snapshot ``w``, whose F(w) is ``value``, up to the next one."""
    blocks = compiled_blocks(ledger)
    if blocks is not None and isinstance(ledger.operator, SaddleOperator):
        ledger.n_evals += 2 * indices.size
        arguments = ledger.operator.kernel_arguments
        return np.asarray(extragradient_steps(w, w, value, tau, alpha, indices, blocks, *arguments))
    z = w
    for batch in indices:
        forward = alpha * z + (1 - alpha) * w - tau * value
        half = ledger.resolve(forward, tau)
        z = ledger.resolve(forward - tau * ledger.difference(batch, half, w), tau)
    return z


def _step_size(ledger: Ledger, u: Float[np.ndarray, " d"], step_size: float | Auto, factor: float) -> float:
    """Return the user's step, or ``factor`` over the Lipschitz constant of F for "auto"."""
    if step_size == "auto":
        return factor / ledger.constants(u).lipschitz
    return positive("step_size", step_size)
