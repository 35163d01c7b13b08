"""Noise that makes numbers private: the Laplace mechanism and the Gaussian one, each with a report of what it spent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import log_ndtr


@dataclass(frozen=True)
class PrivacyReport:
    """What a release guarantees and how it was made. Nothing in it depends on the private data.

    Parameters
    ----------
    mechanism : {"laplace", "gaussian"}
        Which noise was added.
    epsilon, delta : float
        The guarantee, (epsilon, delta)-differential privacy.
    scale : float or array
        Scale of the Laplace noise (its mean absolute value), or standard deviation of the Gaussian noise, for each
        released number.
    """

    mechanism: Literal["laplace", "gaussian"]
    epsilon: float
    delta: float
    scale: float | Float[np.ndarray, "..."]

    @property
    def noise_variance(self) -> float | Float[np.ndarray, "..."]:
        """The variance of the noise of each released number."""
        return (2 if self.mechanism == "laplace" else 1) * self.scale**2


def laplace_mechanism(
    values: ArrayLike,
    sensitivity: ArrayLike,
    epsilon: float,
    rng: np.random.Generator | int,
) -> tuple[Float[np.ndarray, "..."], PrivacyReport]:
    """Add Laplace noise to numbers, so that releasing them is epsilon-differentially private.

    Parameters
    ----------
    values : float or array, shape (...)
        The numbers to release, finite.
    sensitivity : float or array of the shape of ``values``
        One number: how far the values can move, summed over all of them, when one person's data change. An array: how
        far each value can move, where **every person bears on a single value** (disjoint groups); the budget then holds
        for all of them together.
    epsilon : float
        Privacy budget, positive.
    rng : numpy.random.Generator or int
        Source of the noise. For a real release pass ``numpy.random.default_rng()``, unseeded: whoever knows the seed
        can take the noise off.

    Returns
    -------
    released : array
        Of the shape of ``values``.
    report : PrivacyReport

    Raises
    ------
    ValueError
        If values are not finite, sensitivity or epsilon are not positive and finite, or shapes do not match.

    Notes
    -----
    O(number of values). The guarantee is that of real arithmetic: doubles leave gaps between the numbers that noise can
    reach, by which an adversary who sees every digit may tell inputs apart. Round what you publish.

    Examples
    --------
    >>> released, report = laplace_mechanism([10.0, 20.0], sensitivity=1.0, epsilon=0.5, rng=0)
    >>> released.round(2).tolist(), report.scale
    ([10.64, 18.77], 2.0)

    References
    ----------
    Dwork and Roth, *The Algorithmic Foundations of Differential Privacy*, section 3.3. Mironov, *On Significance of the
    Least Significant Bits for Differential Privacy*, for the caveat.
    """
    given, scale = _values(values), laplace_scale(sensitivity, epsilon)
    _check_shapes(given, scale)
    noise = np.random.default_rng(rng).laplace(0.0, scale, size=given.shape)
    return given + noise, PrivacyReport("laplace", float(epsilon), 0.0, scale)


def gaussian_mechanism(
    values: ArrayLike,
    sensitivity: ArrayLike,
    epsilon: float,
    delta: float,
    rng: np.random.Generator | int,
) -> tuple[Float[np.ndarray, "..."], PrivacyReport]:
    """Add Gaussian noise to numbers, so that releasing them is (epsilon, delta)-differentially private.

    Parameters
    ----------
    values : float or array, shape (...)
        The numbers to release, finite.
    sensitivity : float or array of the shape of ``values``
        One number: how far the values can move in Euclidean norm when one person's data change. An array: how far each
        value can move, where every person bears on a single value (disjoint groups).
    epsilon : float
        Privacy budget, positive; above 1 is allowed.
    delta : float
        In (0, 1).
    rng : numpy.random.Generator or int
        Source of the noise; unseeded for a real release.

    Returns
    -------
    released : array
        Of the shape of ``values``.
    report : PrivacyReport

    Raises
    ------
    ValueError
        If values are not finite, an argument is out of range, or shapes do not match.

    Notes
    -----
    O(number of values), with the noise calibrated exactly by :func:`gaussian_scale`. The caveat of
    :func:`laplace_mechanism` about digits holds here too.

    Examples
    --------
    >>> released, report = gaussian_mechanism([10.0, 20.0], sensitivity=1.0, epsilon=1.0, delta=1e-5, rng=0)
    >>> round(report.scale, 4)
    3.7306

    References
    ----------
    Balle and Wang, *Improving the Gaussian Mechanism for Differential Privacy*, arXiv:1805.06530.
    """
    given, scale = _values(values), gaussian_scale(sensitivity, epsilon, delta)
    _check_shapes(given, scale)
    noise = np.random.default_rng(rng).normal(0.0, scale, size=given.shape)
    return given + noise, PrivacyReport("gaussian", float(epsilon), float(delta), scale)


def laplace_scale(sensitivity: ArrayLike, epsilon: float) -> float | Float[np.ndarray, "..."]:
    """Return the scale of Laplace noise that a budget asks for: sensitivity / epsilon.

    Parameters
    ----------
    sensitivity : float or array, shape (...)
        How far one person's data can move the released numbers, positive.
    epsilon : float
        Privacy budget, positive.

    Returns
    -------
    float or array

    Raises
    ------
    ValueError
        If either is not positive and finite.

    Examples
    --------
    >>> laplace_scale(1.0, 0.5)
    2.0
    """
    return _positive("sensitivity", sensitivity) / float(_positive("epsilon", epsilon))


def gaussian_scale(sensitivity: ArrayLike, epsilon: float, delta: float) -> float | Float[np.ndarray, "..."]:
    r"""Return the least standard deviation of Gaussian noise that gives (epsilon, delta)-differential privacy.

    Parameters
    ----------
    sensitivity : float or array, shape (...)
        How far one person's data can move the released numbers, in Euclidean norm, positive.
    epsilon : float
        Privacy budget, positive.
    delta : float
        In (0, 1).

    Returns
    -------
    float or array

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Solves :math:`\Phi(\tfrac{1}{2s} - \varepsilon s) - e^\varepsilon \Phi(-\tfrac{1}{2s} - \varepsilon s) = \delta` for
    the noise s at sensitivity 1, on a logarithmic scale, and rounds up: exact for every epsilon, where the textbook
    formula holds below 1 only.

    Examples
    --------
    >>> round(gaussian_scale(1.0, epsilon=1.0, delta=1e-5), 4)
    3.7306

    References
    ----------
    Balle and Wang, *Improving the Gaussian Mechanism for Differential Privacy*, arXiv:1805.06530, theorem 8.
    """
    size, budget = _positive("sensitivity", sensitivity), float(_positive("epsilon", epsilon))
    if not 0 < delta < 1:
        raise ValueError(f"delta must be in (0, 1); got {delta}")

    def excess(log_scale: float) -> float:
        """Return log delta of this noise less log of the delta asked for."""
        scale = math.exp(log_scale)
        first = float(log_ndtr(0.5 / scale - budget * scale))
        second = budget + float(log_ndtr(-0.5 / scale - budget * scale))
        gap = -math.expm1(second - first) if second < first else 0.0
        return first + (math.log(gap) if gap > 0 else -800.0) - math.log(delta)

    low, high = -1.0, 1.0
    while excess(low) < 0:
        low -= 2.0
    while excess(high) > 0:
        high += 2.0
    scale = math.exp(float(brentq(excess, low, high, xtol=1e-14, rtol=1e-14))) * (1 + 1e-12)
    return size * scale


def _values(values: ArrayLike) -> Float[np.ndarray, "..."]:
    given = np.asarray(values, dtype=np.float64)
    if not np.isfinite(given).all():
        raise ValueError("values must be finite; they hold NaN or infinity")
    return given


def _positive(name: str, value: ArrayLike) -> float | Float[np.ndarray, "..."]:
    given = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(given).all() and (given > 0).all()):
        raise ValueError(f"{name} must be positive and finite; got {given}")
    return float(given) if given.ndim == 0 else given


def _check_shapes(values: Float[np.ndarray, "..."], scale: float | Float[np.ndarray, "..."]) -> None:
    if np.ndim(scale) and np.shape(scale) != values.shape:
        raise ValueError(
            f"sensitivity must be one number or of the shape of values, {values.shape}; got {np.shape(scale)}"
        )
