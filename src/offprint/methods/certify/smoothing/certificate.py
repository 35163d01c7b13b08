"""Certificates of a smoothed classifier: the exact binomial bound, one input's certificate, and a test set of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.special import betaincinv
from scipy.stats import binom

from offprint.methods.certify.smoothing.noise import NOISES, NoiseName, Norm


@dataclass(frozen=True)
class Certificate:
    """What was certified for one input, and the counts that it rests on.

    Parameters
    ----------
    label : int
        The certified class, or the abstention mark, with radius 0.
    radius : float
        No perturbation smaller than this, in ``norm``, changes the smoothed class; true with probability at least
        1 - alpha for this input.
    p_lower : float
        Lower confidence bound of the probability of ``candidate`` under noise.
    counts : tuple of int
        How often each class was seen among the n copies used for estimation.
    candidate : int
        The class that the separate selection copies chose.
    sigma, alpha : float
        Standard deviation of the noise, and the chance of error that was allowed.
    noise : {"gaussian", "laplace", "uniform"}
        Its kind.
    n_stages : int
        How many looks at the counts the error was shared between; 1 where n was fixed in advance.

    Raises
    ------
    ValueError
        If the counts do not hold the candidate.

    Examples
    --------
    >>> certificate = Certificate(0, 0.456, 0.976, (990, 10), candidate=0, sigma=0.25, alpha=0.001)
    >>> certificate.n, certificate.norm, certificate.abstained
    (1000, 'l2', False)
    """

    label: int
    radius: float
    p_lower: float
    counts: tuple[int, ...]
    candidate: int
    sigma: float
    alpha: float
    noise: NoiseName = "gaussian"
    n_stages: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", tuple(int(count) for count in self.counts))
        if not 0 <= self.candidate < len(self.counts):
            raise ValueError(f"candidate must be a class below {len(self.counts)}; got {self.candidate}")

    @property
    def n(self) -> int:
        """How many noisy copies the estimate rests on."""
        return sum(self.counts)

    @property
    def norm(self) -> Norm:
        """The norm in which the radius is measured."""
        return NOISES[self.noise].norm

    @property
    def abstained(self) -> bool:
        """Whether nothing was certified."""
        return self.label != self.candidate

    def p_value(self, radius: float) -> float:
        """Return how likely counts at least this high are if the candidate does *not* hold within ``radius``.

        Parameters
        ----------
        radius : float
            In ``norm``, at least 0.

        Returns
        -------
        float
            The exact one-sided binomial p-value, times the number of looks where n was adaptive.
        """
        if not (math.isfinite(radius) and radius >= 0):
            raise ValueError(f"radius must be finite and at least 0; got {radius}")
        needed = NOISES[self.noise].probability(radius / self.sigma)
        return min(1.0, self.n_stages * float(binom.sf(self.counts[self.candidate] - 1, self.n, needed)))


def clopper_pearson_lower(k: ArrayLike, n: ArrayLike, alpha: float) -> float | Float[np.ndarray, "..."]:
    """Return the exact lower confidence bound of a probability that was met k times in n.

    It is below the true probability with a chance of at least 1 - alpha, for every n; no approximation is made.

    Parameters
    ----------
    k : int or array of int, shape (...)
        Successes, 0 to n.
    n : int or array of int, shape (...)
        Independent trials, at least 1.
    alpha : float
        Allowed chance of error, in (0, 1/2).

    Returns
    -------
    float or array
        In [0, 1); 0 where k is 0.

    Raises
    ------
    ValueError
        If counts are not whole numbers with 0 ≤ k ≤ n and n ≥ 1, or alpha is outside (0, 1/2).

    Notes
    -----
    The alpha-quantile of the beta distribution with parameters k and n - k + 1: the lower end of the two-sided
    Clopper-Pearson interval at level 1 - 2 alpha. O(1) per bound.

    Examples
    --------
    >>> round(clopper_pearson_lower(990, 1000, alpha=0.001), 6)
    0.976036

    References
    ----------
    Clopper and Pearson, *The use of confidence or fiducial limits illustrated in the case of the binomial* (1934).
    Cohen, Rosenfeld and Kolter, *Certified Adversarial Robustness via Randomized Smoothing*, arXiv:1902.02918,
    section 3.2.2, LowerConfBound.
    """
    check_level(alpha)
    successes, trials = _whole("k", k), _whole("n", n)
    if (trials < 1).any():
        raise ValueError(f"n must be at least 1; got {n!r}")
    if (successes < 0).any() or (successes > trials).any():
        raise ValueError(f"k must be from 0 to n; got k = {k!r} and n = {n!r}")
    bound = np.where(successes == 0, 0.0, betaincinv(np.maximum(successes, 1), trials - successes + 1, alpha))
    return float(bound) if bound.ndim == 0 else bound


def certified_accuracy(
    certificates: Sequence[Certificate],
    y: ArrayLike,
    radii: ArrayLike,
    *,
    familywise: float | None = None,
) -> Float[np.ndarray, " radii"]:
    """Return the share of inputs that are certified to be classified correctly at each radius.

    Correct class *and* certified radius above r; abstentions count as wrong.

    Parameters
    ----------
    certificates : sequence of Certificate
        One per input, at least one, all in the same norm.
    y : sequence of int, shape (n,)
        The true classes.
    radii : sequence of float, shape (radii,)
        In the norm of the certificates, at least 0.
    familywise : float, optional
        Count only what :func:`certified_together` certifies at this level: then, at each radius, *all* counted inputs
        are right together with a chance of at least 1 - ``familywise``. By default each certificate stands alone.

    Returns
    -------
    array, shape (radii,)
        In [0, 1], falling with the radius.

    Raises
    ------
    ValueError
        If there is no certificate, lengths differ, norms are mixed, or a radius is negative or not finite.

    Notes
    -----
    O(n · radii). A table over noise levels usually takes, for each radius, the best sigma: say so where you do.

    Examples
    --------
    >>> first = Certificate(0, 0.456, 0.976, (990, 10), candidate=0, sigma=0.25, alpha=0.001)
    >>> second = Certificate(-1, 0.0, 0.45, (480, 520), candidate=1, sigma=0.25, alpha=0.001)
    >>> certified_accuracy([first, second], [0, 1], [0.0, 0.4, 0.5]).tolist()
    [0.5, 0.5, 0.0]

    References
    ----------
    Cohen, Rosenfeld and Kolter, *Certified Adversarial Robustness via Randomized Smoothing*, arXiv:1902.02918,
    section 4. Holm, *A Simple Sequentially Rejective Multiple Test Procedure* (1979), for ``familywise``.
    """
    _check_certificates(certificates)
    truth = _whole("y", y)
    if truth.shape != (len(certificates),):
        raise ValueError(f"y must hold one class per certificate, {len(certificates)}; got shape {truth.shape}")
    levels = np.asarray(radii, dtype=np.float64)
    if levels.ndim != 1 or not np.isfinite(levels).all() or (levels < 0).any():
        raise ValueError(f"radii must be a list of finite numbers of at least 0; got {radii!r}")
    if familywise is not None:
        check_level(familywise, "familywise")
        candidates = np.array([certificate.candidate for certificate in certificates])
        sure = [certified_together(certificates, float(level), familywise) for level in levels]
        return np.array([np.mean(mask & (candidates == truth)) for mask in sure])
    correct = np.array([not c.abstained and c.label == label for c, label in zip(certificates, truth, strict=True)])
    reach = np.array([certificate.radius for certificate in certificates])
    return np.array([np.mean(correct & (reach > level)) for level in levels])


def certified_together(
    certificates: Sequence[Certificate], radius: float, alpha: float
) -> Bool[np.ndarray, " certificates"]:
    """Return which inputs are certified at a radius so that all of them hold *together* with a chance of 1 - alpha.

    A single certificate may err with chance alpha, so among a thousand of them some probably do. Holm's procedure
    tests the exact binomial p-values against alpha shared over the whole set, and certifies at least as much as
    dividing alpha by their number.

    Parameters
    ----------
    certificates : sequence of Certificate
        At least one; they may rest on the same noise.
    radius : float
        In the norm of the certificates, at least 0.
    alpha : float
        Allowed chance that any of the marked inputs is not robust at ``radius``, in (0, 1/2).

    Returns
    -------
    array of bool, shape (certificates,)
        The marked inputs keep the class ``candidate`` within ``radius``.

    Raises
    ------
    ValueError
        If there is no certificate, radius is negative, or alpha is outside (0, 1/2).

    Notes
    -----
    O(n log n). Needs more copies than single certificates do: with n copies no p-value is below p(radius)ⁿ.

    Examples
    --------
    >>> good = Certificate(0, 0.456, 0.976, (990, 10), candidate=0, sigma=0.25, alpha=0.001)
    >>> fair = Certificate(0, 0.02, 0.53, (570, 430), candidate=0, sigma=0.25, alpha=0.05)
    >>> certified_together([good, fair], 0.25, alpha=0.001).tolist()
    [True, False]

    References
    ----------
    Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, Scandinavian Journal of Statistics 6 (1979).
    """
    _check_certificates(certificates)
    check_level(alpha)
    p_values = np.array([certificate.p_value(radius) for certificate in certificates])
    order = np.argsort(p_values, kind="stable")
    passed = p_values[order] <= alpha / np.arange(len(order), 0, -1)
    n_rejected = len(order) if passed.all() else int(np.argmin(passed))
    together = np.zeros(len(order), dtype=bool)
    together[order[:n_rejected]] = True
    return together


def check_level(alpha: float, name: str = "alpha") -> None:
    """Refuse a chance of error outside (0, 1/2)."""
    if not 0 < alpha < 0.5:
        raise ValueError(f"{name} must be in (0, 1/2); got {alpha}")


def _check_certificates(certificates: Sequence[Certificate]) -> None:
    if not certificates:
        raise ValueError("certificates must hold at least one certificate")
    norms = {certificate.norm for certificate in certificates}
    if len(norms) > 1:
        raise ValueError(f"certificates must share one norm; got {sorted(norms)}")


def _whole(name: str, value: ArrayLike) -> np.ndarray:
    given = np.asarray(value)
    if given.dtype.kind not in "iu" and not (given.dtype.kind == "f" and (given == np.floor(given)).all()):
        raise ValueError(f"{name} must hold whole numbers; got {value!r}")
    return given
