"""Intervals and tests that verdicts and claims share: bootstrap, paired differences, slopes.

SciPy is imported where it is used: the site and the command line need only the bootstrap, and are to start fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Interval:
    """An estimate with the two ends of its confidence interval at ``level``."""

    estimate: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class PairedTest:
    """The mean of paired differences, its interval, and the two-sided p-value of a sign-flip test."""

    difference: Interval
    p_value: float


def bootstrap_interval(
    values: Sequence[float] | Float[np.ndarray, " n"],
    statistic: Literal["median", "mean"] = "median",
    level: float = 0.95,
    n_resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Return a percentile bootstrap interval for the median or mean of independent values.

    Parameters
    ----------
    values : array of float, shape (n,)
        At least one finite number. A single value gives an interval of no width.
    statistic : {"median", "mean"}
        What is estimated.
    level : float
        Coverage, in (0, 1).
    n_resamples : int
        Bootstrap samples.
    seed : int
        The interval is a deterministic function of values and seed.

    Returns
    -------
    Interval

    Raises
    ------
    ValueError
        If values are empty or not finite, level is outside (0, 1), or another argument has no meaning.

    Notes
    -----
    With n values there are few distinct resamples when n is small; for n = 5 the interval of the median is close to the
    range of the values, which is what five seeds can tell.

    Examples
    --------
    >>> interval = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> interval.estimate, interval.low, interval.high
    (3.0, 1.0, 5.0)

    References
    ----------
    Efron and Tibshirani, *An Introduction to the Bootstrap*, chapter 13.
    """
    data = _finite_vector("values", values, least=1)
    _check_level(level)
    _check_resamples(n_resamples)
    if statistic not in ("median", "mean"):
        raise ValueError(f"statistic must be 'median' or 'mean'; got {statistic!r}")
    reduce = np.median if statistic == "median" else np.mean
    rng = np.random.default_rng(seed)
    resamples = data[rng.integers(data.size, size=(n_resamples, data.size))]
    tail = (1 - level) / 2
    low, high = np.quantile(reduce(resamples, axis=1), [tail, 1 - tail])
    return Interval(float(reduce(data)), float(low), float(high), level)


def paired_test(
    first: Sequence[float] | Float[np.ndarray, " n"],
    second: Sequence[float] | Float[np.ndarray, " n"],
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Compare two methods measured on the same seeds or splits: mean of ``first - second`` and a sign-flip test.

    Parameters
    ----------
    first, second : array of float, shape (n,)
        Paired measurements, n ≥ 2.
    level : float
        Coverage of the bootstrap interval of the mean difference, in (0, 1).
    n_resamples : int
        Bootstrap samples, and random sign patterns where all 2^n would be more than this.
    seed : int
        Determines both.

    Returns
    -------
    PairedTest

    Raises
    ------
    ValueError
        If the lengths differ, fewer than two pairs are given, or a value is not finite.

    Notes
    -----
    The sign-flip test is exact when differences are symmetric about zero under the null hypothesis; the p-value can be
    no smaller than 2 / 2^n.

    Examples
    --------
    >>> test = paired_test([3.0, 4.1, 5.2, 6.1, 7.3, 8.2], [2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    >>> round(test.difference.estimate, 2), test.p_value
    (1.15, 0.03125)

    References
    ----------
    Fisher, *The Design of Experiments*, section 21.
    """
    from scipy import stats

    a, b = _finite_vector("first", first, least=2), _finite_vector("second", second, least=2)
    _check_resamples(n_resamples)
    if a.size != b.size:
        raise ValueError(f"first and second must have the same length; got {a.size} and {b.size}")
    difference = a - b
    outcome = stats.permutation_test(
        (difference, np.zeros_like(difference)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=n_resamples,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    interval = bootstrap_interval(difference, "mean", level, n_resamples, seed)
    return PairedTest(interval, float(outcome.pvalue))


def slope_interval(
    x: Sequence[float] | Float[np.ndarray, " n"],
    y: Sequence[float] | Float[np.ndarray, " n"],
    level: float = 0.95,
    *,
    log_log: bool = False,
) -> Interval:
    """Return the least-squares slope of y on x with its Student interval.

    Parameters
    ----------
    x, y : array of float, shape (n,)
        At least two points with distinct x; positive when ``log_log``.
    level : float
        Coverage, in (0, 1).
    log_log : bool
        Fit log y against log x, so that the slope is the exponent of a power law.

    Returns
    -------
    Interval
        With two points the interval has no finite width and both ends are the slope.

    Raises
    ------
    ValueError
        If lengths differ, a value is not finite, x is constant, or a logarithm is asked of a non-positive value.

    Examples
    --------
    >>> round(slope_interval([1, 2, 4, 8], [3, 12, 48, 192], log_log=True).estimate, 6)
    2.0

    References
    ----------
    Montgomery, Peck and Vining, *Introduction to Linear Regression Analysis*, section 2.4.
    """
    from scipy import stats

    _check_level(level)
    a, b = _finite_vector("x", x, least=2), _finite_vector("y", y, least=2)
    if a.size != b.size:
        raise ValueError(f"x and y must have the same length; got {a.size} and {b.size}")
    if log_log:
        if a.min() <= 0 or b.min() <= 0:
            raise ValueError("x and y must be positive for log_log")
        a, b = np.log(a), np.log(b)
    if np.ptp(a) == 0:
        raise ValueError(f"x must hold at least two distinct values; got only {a[0]:g}")
    fit = stats.linregress(a, b)
    slope = float(fit.slope)
    if a.size == 2:
        return Interval(slope, slope, slope, level)
    # A constant y leaves SciPy's correlation, and with it this error, undefined: the fit is exact.
    error = 0.0 if np.ptp(b) == 0 else float(fit.stderr)
    half = float(stats.t.ppf(0.5 + level / 2, a.size - 2)) * error
    return Interval(slope, slope - half, slope + half, level)


def _check_resamples(n_resamples: int) -> None:
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1; got {n_resamples}")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1); got {level}")


def _finite_vector(name: str, values: Sequence[float] | Float[np.ndarray, " n"], least: int) -> Float[np.ndarray, " n"]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size < least:
        raise ValueError(f"{name} must be a vector of at least {least} numbers; got shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(f"{name} must be finite; entry {int(np.argmin(np.isfinite(vector)))} is not")
    return vector
