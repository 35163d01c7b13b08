"""Halpern iteration with variance reduction for 0 ∈ F(u) + G(u), F being a finite sum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from offprint.methods.optimize.finite_sum import FiniteSumOperator
from offprint.methods.optimize.forb import approximate_resolvent, snapshot_probability
from offprint.methods.optimize.inclusion import Callback, Ledger, Resolvent, Result, batch_size_or, positive

__all__ = ["FiniteSumOperator", "inexact_vr_halpern", "vr_halpern"]

Auto = Literal["auto"]


def vr_halpern(
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
    full_probability: float | None = None,
    restart: float | None = None,
) -> Result:
    r"""Find a zero of F + G by Halpern iteration with a recursive variance-reduced estimate of F (Algorithm 1).

    Made for an F that is cocoercive on average over its n components: gradients of convex functions, and operators
    whose skew part is weak beside their symmetric one. It pays over deterministic Halpern iteration
    (:func:`~offprint.methods.optimize.plain_halpern.halpern`) when n is large and the average constant L is not far
    above that of F. For bilinear games and Lagrangians, which are not cocoercive, :func:`inexact_vr_halpern` and
    :func:`~offprint.methods.optimize.extragradient.eag` are covered by theory.

    Parameters
    ----------
    operator : FiniteSumOperator
        F, as a mean of n components.
    u0 : array of float, shape (d,)
        Start, to which the iteration stays anchored. Finite.
    resolvent : callable (u, step) -> array of shape (d,), optional
        J_{step G}, such as a projection that ignores the step; none for G = 0.
    step_size : float or "auto"
        $\eta$, > 0. Theory asks for at most 1/(4L). "auto" begins at 1/(2L) with the L known or estimated at ``u0``,
        and halves the step (anchoring anew) whenever differences that it sees contradict that L.
    tol : float
        Stop at a residual of at most this, > 0.
    max_evals : int, optional
        Evaluations of single components allowed, ≥ n; 1000 n by default.
    rng : numpy Generator or int
        Draws batches and coins.
    callback : callable (k, u, residual, n_evals) -> bool, optional
        Called whenever a residual is known; True stops.
    batch_size : int, optional
        b, in [1, n]; ⌈√n⌉ by default.
    full_probability : float, optional
        Chance in [0, 1] of a full evaluation, instead of the default 4 / (min(k, √n) + 5).
    restart : float, optional
        In (0, 1): anchor anew at the current iterate once the residual is this fraction of what it was at the anchor.
        Makes convergence linear for strongly monotone problems (take 0.5); off by default.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If an argument is outside its range, the automatic step finds L = 0, a component returns NaN or infinity (it is
        named) or another shape, or the resolvent changes the shape.
    TypeError
        If ``operator`` is no FiniteSumOperator or a function is not callable.

    Notes
    -----
    Õ(n + √n L/ε) component evaluations to a residual ε, against O(n L_F/ε) for the deterministic method; O(d) memory.
    With g_k the estimate of F(u_k) and λ_k = 2/(k + 4),

    u_{k+1} = J_{ηG}(λ_k u_0 + (1 - λ_k) u_k - η g_k).

    g_k is F(u_k) with probability p_k, else g_{k-1} + mean over a batch of F_i(u_k) - F_i(u_{k-1}). Whenever g_k is
    full the residual is known for free. One is forced where ⌈n/b⌉ iterations passed without.

    Examples
    --------
    >>> import numpy as np
    >>> a, b = np.random.default_rng(0).standard_normal((2, 400, 3))
    >>> rows = FiniteSumOperator(400, lambda i, u: a[i].T @ (a[i] @ u - b[i, 0]) / len(i))
    >>> result = vr_halpern(rows, np.zeros(3), tol=1e-3)
    >>> result.converged, bool(np.allclose(result.u, np.linalg.lstsq(a, b[:, 0])[0], atol=2e-3))
    (True, True)

    References
    ----------
    Cai, Alacaoglu and Diakonikolas, *Variance Reduced Halpern Iteration for Finite-Sum Monotone Inclusions*,
    arXiv 2310.02987, Algorithm 1.
    """
    ledger, u = Ledger.open(operator, u0, resolvent, tol, max_evals, callback)
    n, rng = operator.n, np.random.default_rng(rng)
    b = batch_size_or(batch_size, n, math.ceil(math.sqrt(n)))
    if full_probability is not None and not 0 <= full_probability <= 1:
        raise ValueError(f"full_probability must be in [0, 1]; got {full_probability}")
    _check_restart(restart)
    step = StepSize.on_average(ledger, u, step_size)
    anchor, anchored_at, anchor_residual = u, 0, math.inf
    g, previous = u, u
    unchecked, longest = 0, math.ceil(n / b)
    with ledger:
        for k in itertools.count():
            age = k - anchored_at
            if _wants_full(age, n, full_probability, rng) or unchecked >= longest:
                previous_g, g, unchecked = g, ledger.full(u), 0
                residual = ledger.check(k, u, g)
                if age == 0:
                    anchor_residual = residual
                elif age == 1 and step.is_refuted_by(g - previous_g, u - previous, ledger):
                    u, anchored_at = anchor, k + 1
                    continue
                elif restart is not None and residual <= restart * anchor_residual:
                    anchor, anchored_at, age, anchor_residual = u, k, 0, residual
            else:
                ledger.afford(2 * b, u, k)
                change = ledger.difference(operator.sample_batch(b, rng), u, previous)
                g, unchecked = g + change, unchecked + 1
                if step.is_contradicted_by(change, u - previous, ledger):
                    anchor, anchored_at, age, anchor_residual = u, k, 0, math.inf
            weight = 2 / (age + 4)
            previous = u  # at every iteration, also after a full evaluation: the next difference starts from here
            u = ledger.resolve(weight * anchor + (1 - weight) * u - step.size * g, step.size)
    return ledger.result(step.size)


def inexact_vr_halpern(
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
    inner_step_size: float | Auto = "auto",
    inner_epochs: float = 0.25,
    restart: float | None = None,
) -> Result:
    r"""Find a zero of F + G by Halpern iteration on its resolvent, each computed inexactly (Algorithms 2 and 3).

    Needs F only monotone, and Lipschitz on average over its n components: bilinear games, Lagrangians and min-max
    problems in general. Where F is cocoercive, :func:`vr_halpern` is simpler and cheaper.

    Parameters
    ----------
    operator : FiniteSumOperator
        F, as a mean of n components.
    u0 : array of float, shape (d,)
        Start, to which the iteration stays anchored. Finite.
    resolvent : callable (u, step) -> array of shape (d,), optional
        J_{step G}; none for G = 0. For games and quadratic saddle points, ``None`` and
        :class:`~offprint.methods.optimize.projections.SimplexProduct` run in compiled code.
    step_size : float or "auto"
        $\eta$ of the resolvent of F + G, > 0; √n / L by default, with L the average Lipschitz constant, known or
        estimated at ``u0``.
    tol : float
        Stop at a residual of at most this, > 0.
    max_evals : int, optional
        Evaluations of single components allowed, ≥ n; 1000 n by default.
    rng : numpy Generator or int
        Draws samples and coins.
    callback : callable (k, u, residual, n_evals) -> bool, optional
        Called at each outer iteration; True stops.
    batch_size : int
        Samples of one inner step, in [1, n]. Larger ones save Python calls where nothing is compiled.
    inner_step_size : float or "auto"
        $\gamma$, > 0; by default √(p(1 - p)) / (η L + 1), p being the chance of a new snapshot. Proofs ask for half of
        that or less.
    inner_epochs : float
        > 0. Outer iteration k makes ``inner_epochs * n / batch_size * log(k + 2)`` inner steps, rounded up.
    restart : float, optional
        In (0, 1): anchor anew at the current iterate once the residual is this fraction of what it was at the anchor;
        for strongly monotone problems (take 0.5); off by default.

    Returns
    -------
    Result
        Its ``step_size`` is that of the resolvent.

    Raises
    ------
    ValueError
        If an argument is outside its range, an automatic step finds L = 0, a component returns NaN or infinity (it is
        named) or another shape, or the resolvent changes the shape.
    TypeError
        If ``operator`` is no FiniteSumOperator or a function is not callable.

    Notes
    -----
    Õ(n + √n L/ε) component evaluations to a residual ε; O(d) memory. With λ_k = 1/(k + 2),
    u_{k+1} = λ_k u_0 + (1 - λ_k) J̃_k with J̃_k close to J_{η(F+G)}(u_k). An outer iteration costs one full
    evaluation, which also gives the residual, two evaluations a sample, and n for each snapshot.

    Examples
    --------
    Matching pennies with a biased coin; at the solution the first player mixes 0.4 to 0.6:

    >>> import numpy as np
    >>> from offprint.methods.optimize import SimplexProduct, from_matrix_game
    >>> game, strategies = from_matrix_game([[2.0, -1.0], [-1.0, 1.0]]), SimplexProduct(2, 2)
    >>> result = inexact_vr_halpern(game, strategies.uniform(), strategies, tol=1e-3, max_evals=20_000)
    >>> result.converged, result.u.round(2)
    (True, array([0.4, 0.6, 0.4, 0.6]))

    References
    ----------
    Cai, Alacaoglu and Diakonikolas, *Variance Reduced Halpern Iteration for Finite-Sum Monotone Inclusions*,
    arXiv 2310.02987, Algorithms 2 and 3.
    """
    ledger, u = Ledger.open(operator, u0, resolvent, tol, max_evals, callback)
    n, rng = operator.n, np.random.default_rng(rng)
    b = batch_size_or(batch_size, n, math.ceil(math.sqrt(n)))
    epochs = positive("inner_epochs", inner_epochs)
    _check_restart(restart)
    on_average = math.nan
    if "auto" in (step_size, inner_step_size):
        on_average = ledger.constants(u).lipschitz_on_average
    eta = math.sqrt(n) / on_average if step_size == "auto" else positive("step_size", step_size)
    p = snapshot_probability(n, b)
    if inner_step_size == "auto":
        gamma = math.sqrt(p * (1 - p)) / (eta * on_average + 1)
    else:
        gamma = positive("inner_step_size", inner_step_size)
    anchor, anchored_at, anchor_residual = u, 0, math.inf
    with ledger:
        for k in itertools.count():
            value = ledger.full(u)
            residual = ledger.check(k, u, value)
            if k == 0 or (restart is not None and residual <= restart * anchor_residual):
                anchor, anchored_at, anchor_residual = u, k, residual
            n_steps = math.ceil(epochs * n / b * math.log(k + 2))
            weight = 1 / (k - anchored_at + 2)
            inner = approximate_resolvent(ledger, k, u, value, eta, gamma, n_steps, b, rng)
            u = weight * anchor + (1 - weight) * inner
    return ledger.result(eta)


@dataclass
class StepSize:
    """A step size, and the means to notice that the constant it was taken from is too small."""

    size: float
    bound: float = math.inf
    energy: float = 0.0
    product: float = 0.0
    n_seen: int = 0
    n_halved: int = 0

    @classmethod
    def on_average(cls, ledger: Ledger, u: Float[np.ndarray, " d"], step_size: float | Auto) -> StepSize:
        """Return the user's step, or 1/(2L) for "auto" with the cocoercive constant L, or else the Lipschitz one."""
        if step_size != "auto":
            return cls(positive("step_size", step_size))
        known = ledger.constants(u)
        if math.isfinite(known.cocoercive_on_average):
            return cls(0.5 / known.cocoercive_on_average, known.cocoercive_on_average)
        ledger.warn(_NOT_COCOERCIVE)
        return cls(0.5 / known.lipschitz_on_average)

    def is_refuted_by(self, change: np.ndarray, moved: np.ndarray, ledger: Ledger) -> bool:
        """Halve the step as often as ``||F u - F v||^2 <= L <F u - F v, u - v>`` needs, and say whether it did."""
        energy, product = float(change @ change), float(change @ moved)
        before = self.n_halved
        while math.isfinite(self.bound) and energy > self.bound * product * (1 + 1e-9):
            self._halve(ledger)
        return self.n_halved > before

    def is_contradicted_by(self, change: np.ndarray, moved: np.ndarray, ledger: Ledger) -> bool:
        """Halve the step if recent batches S break ``||F_S u - F_S v||^2 <= L <F_S u - F_S v, u - v>`` in their mean.

        By Jensen's inequality that mean obeys every L that the components obey on average, so a breach shows L to be
        too small. Sums that forget with a memory of ten batches keep the noise of single ones out.
        """
        self.energy = 0.9 * self.energy + float(change @ change)
        self.product = 0.9 * self.product + float(change @ moved)
        self.n_seen += 1
        if not math.isfinite(self.bound) or self.n_seen < 10 or self.energy <= self.bound * self.product:
            return False
        self._halve(ledger)
        return True

    def _halve(self, ledger: Ledger) -> None:
        self.size, self.bound, self.n_halved = self.size / 2, 2 * self.bound, self.n_halved + 1
        self.energy, self.product, self.n_seen = 0.0, 0.0, 0
        if self.n_halved == 20:
            ledger.warn(_NOT_COCOERCIVE)
            self.bound = math.inf


_NOT_COCOERCIVE = (
    "the operator does not look cocoercive, which vr_halpern needs in theory: inexact_vr_halpern and eag do without"
)


def _wants_full(age: int, n: int, probability: float | None, rng: np.random.Generator) -> bool:
    """Whether to evaluate in full, ``age`` iterations after the anchor was set: at first, then ever more rarely."""
    if age <= 1:
        return True
    return rng.random() < (4 / (min(age, math.sqrt(n)) + 5) if probability is None else probability)


def _check_restart(restart: float | None) -> None:
    if restart is not None and not 0 < restart < 1:
        raise ValueError(f"restart must be in (0, 1); got {restart}")
