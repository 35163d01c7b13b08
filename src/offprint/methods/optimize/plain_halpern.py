"""Halpern iteration for 0 ∈ F(u) + G(u) without variance reduction: on full evaluations, and on plain batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from offprint.methods.optimize.finite_sum import FiniteSumOperator
from offprint.methods.optimize.halpern import StepSize
from offprint.methods.optimize.inclusion import Callback, Ledger, Resolvent, Result, batch_size_or, positive

Auto = Literal["auto"]


def halpern(
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
    r"""Find a zero of F + G by deterministic Halpern iteration.

    For a cocoercive F that is cheap to evaluate in full; the baseline that
    :func:`~offprint.methods.optimize.halpern.vr_halpern` improves on.

    Parameters
    ----------
    operator : FiniteSumOperator
        F.
    u0 : array of float, shape (d,)
        Start, to which the iteration stays anchored. Finite.
    resolvent : callable (u, step) -> array of shape (d,), optional
        J_{step G}; none for G = 0.
    step_size : float or "auto"
        $\eta$, > 0; theory allows up to 2/L_F. "auto" takes 1/L_F, known or estimated at ``u0``, where L_F is the
        cocoercive constant of F, or twice its Lipschitz constant if it has none.
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
        If an argument is outside its range, the automatic step finds L_F = 0, the operator returns NaN, infinity or
        another shape, or the resolvent changes the shape.
    TypeError
        If ``operator`` is no FiniteSumOperator or a function is not callable.

    Notes
    -----
    n evaluations an iteration, O(n L_F/ε) to a residual ε. u_{k+1} = λ_k u_0 + (1 - λ_k) T u_k with λ_k = 1/(k + 2) and
    T u = J_{ηG}(u - η F(u)), which is nonexpansive, so that ||u_k - T u_k|| <= 2 ||u_0 - u*|| / (k + 1).

    Examples
    --------
    >>> import numpy as np
    >>> from offprint.methods.optimize.finite_sum import from_callables
    >>> result = halpern(from_callables([lambda u: u - 1, lambda u: u + 3]), np.zeros(2), tol=1e-2)
    >>> result.converged, result.u.round(1)
    (True, array([-1., -1.]))

    References
    ----------
    Halpern, *Fixed points of nonexpanding maps*, 1967; Lieder, *On the convergence rate of the Halpern-iteration*,
    Optimization Letters, 2021.
    """
    ledger, u = Ledger.open(operator, u0, resolvent, tol, max_evals, callback)
    if step_size == "auto":
        known = ledger.constants(u)
        eta = 1 / (known.cocoercive if math.isfinite(known.cocoercive) else 2 * known.lipschitz)
    else:
        eta = positive("step_size", step_size)
    anchor = u
    with ledger:
        for k in itertools.count():
            value = ledger.full(u)
            ledger.check(k, u, value)
            weight = 1 / (k + 2)
            u = weight * anchor + (1 - weight) * ledger.resolve(u - eta * value, eta)
    return ledger.result(eta)


def stochastic_halpern(
    operator: FiniteSumOperator,
    u0: np.ndarray | Sequence[float],
    resolvent: Resolvent | None = None,
    *,
    step_size: float | Auto = "auto",
    tol: float = 1e-6,
    max_evals: int | None = None,
    rng: np.random.Generator | int = 0,
    callback: Callback | None = None,
    batch_size: int | None = None,
) -> Result:
    r"""Run Halpern iteration on plain batches, without variance reduction.

    A baseline: with a fixed batch the residual stalls at the level of the sampling noise. The residual is checked at
    every ⌈n/b⌉ iterations, at the cost of a full evaluation that is used for nothing else.

    Parameters
    ----------
    operator : FiniteSumOperator
        F, as a mean of n components.
    u0 : array of float, shape (d,)
        Start, to which the iteration stays anchored. Finite.
    resolvent : callable (u, step) -> array of shape (d,), optional
        J_{step G}; none for G = 0.
    step_size : float or "auto"
        $\eta$, > 0; "auto" takes 1/(2L) with the L known or estimated at ``u0``.
    tol : float
        Stop at a residual of at most this, > 0.
    max_evals : int, optional
        Evaluations of single components allowed, ≥ n; 1000 n by default.
    rng : numpy Generator or int
        Draws batches.
    callback : callable (k, u, residual, n_evals) -> bool, optional
        Called whenever a residual is known; True stops.
    batch_size : int, optional
        b, in [1, n]; ⌈√n⌉ by default.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        As for :func:`~offprint.methods.optimize.halpern.vr_halpern`.
    TypeError
        As for :func:`~offprint.methods.optimize.halpern.vr_halpern`.

    Notes
    -----
    b evaluations an iteration. u_{k+1} = J_{ηG}(λ_k u_0 + (1 - λ_k) u_k - η F_S(u_k)), λ_k = 2/(k + 4).

    Examples
    --------
    >>> import numpy as np
    >>> from offprint.methods.optimize.finite_sum import from_callables
    >>> result = stochastic_halpern(from_callables([lambda u: u - 1, lambda u: u + 3]), np.zeros(2), batch_size=1)
    >>> result.converged
    False

    References
    ----------
    Cai, Song, Guzmán and Diakonikolas, *Stochastic Halpern Iteration with Variance Reduction for Stochastic Monotone
    Inclusions*, arXiv 2203.09436, for the setting.
    """
    ledger, u = Ledger.open(operator, u0, resolvent, tol, max_evals, callback)
    n, rng = operator.n, np.random.default_rng(rng)
    b = batch_size_or(batch_size, n, math.ceil(math.sqrt(n)))
    eta = StepSize.on_average(ledger, u, step_size).size
    anchor, period = u, math.ceil(n / b)
    with ledger:
        for k in itertools.count():
            if k % period == 0:
                ledger.check(k, u, ledger.full(u))
            ledger.afford(b, u, k)
            weight = 2 / (k + 4)
            g = ledger.batch(operator.sample_batch(b, rng), u)
            u = ledger.resolve(weight * anchor + (1 - weight) * u - eta * g, eta)
    return ledger.result(eta)
