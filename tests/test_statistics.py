"""Bootstrap, sign-flip test and slopes against SciPy, enumeration, closed forms and their own coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from offprint.statistics import bootstrap_interval, paired_test, slope_interval

RNG_SEED = 0


def draws(n, seed=RNG_SEED):
    return np.random.default_rng(seed).gamma(2.0, size=n)


@pytest.mark.parametrize("statistic", ["median", "mean"])
@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("n", [8, 40])
def test_bootstrap_agrees_with_scipys_percentile_bootstrap(statistic, level, n):
    values = draws(n)
    ours = bootstrap_interval(values, statistic, level, n_resamples=40_000)
    theirs = scipy.stats.bootstrap(
        (values,), getattr(np, statistic), confidence_level=level, n_resamples=40_000, method="percentile", rng=1
    ).confidence_interval
    assert ours.estimate == getattr(np, statistic)(values)
    assert ours.level == level
    if statistic == "mean":
        # The Monte Carlo error of a 2.5 % quantile of 40,000 near-normal means is below 0.015 of their deviation;
        # 0.1 of it is six times the difference of two such.
        tolerance = 0.1 * values.std() / math.sqrt(n)
        assert ours.low == pytest.approx(theirs.low, abs=tolerance)
        assert ours.high == pytest.approx(theirs.high, abs=tolerance)
    else:
        # Medians lie on few points: both ends are between neighbours of the same order statistic.
        ordered = np.sort(values)
        for mine, scipys in ((ours.low, theirs.low), (ours.high, theirs.high)):
            assert abs(np.searchsorted(ordered, mine) - np.searchsorted(ordered, scipys)) <= 1


@pytest.mark.parametrize("n", [3, 5, 9])
def test_median_interval_of_an_odd_sample_is_the_exact_bootstrap_quantile(n):
    values = np.arange(n, dtype=float)
    # P(median of a resample <= k-th value) = P(Binomial(n, (k+1)/n) > n/2).
    below = scipy.stats.binom.sf(n // 2, n, np.arange(1, n + 1) / n)
    for level in (0.5, 0.8, 0.95):
        tail = (1 - level) / 2
        # No quantile lies within 0.004 of a jump, four standard errors at 200,000 resamples (false alarm 1e-4).
        assert np.abs(below - tail).min() > 0.0045
        interval = bootstrap_interval(values, "median", level, n_resamples=200_000)
        assert interval.low == np.searchsorted(below, tail)
        assert interval.high == np.searchsorted(below, 1 - tail)


def test_bootstrap_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = sum(
        interval.low <= 0 <= interval.high
        for interval in (bootstrap_interval(rng.normal(size=60), "mean", 0.9, 500, seed) for seed in range(600))
    )
    # The bootstrap's normal limit has z where Student has t, and divides by n instead of n - 1. Quantiles of 500
    # resamples cost less than 0.005 more. Four standard errors of 600 trials, false alarm 6e-5.
    covers = 1 - 2 * scipy.stats.t.sf(scipy.stats.norm.ppf(0.95) * math.sqrt(59 / 60), 59)
    assert 0.88 < covers < 0.9
    assert abs(hits / 600 - covers) < 4 * math.sqrt(0.09 / 600) + 0.005


def test_bootstrap_is_determined_by_values_and_seed_and_moves_with_scale_and_shift():
    values = draws(20)
    interval = bootstrap_interval(values, "mean")
    assert interval == bootstrap_interval(values, "mean")
    assert interval != bootstrap_interval(values, "mean", seed=1)
    moved = bootstrap_interval(3 - 2 * values, "mean")
    # Turning values round turns the interval round; the resamples are the same, so only rounding differs.
    assert (moved.low, moved.high) == pytest.approx((3 - 2 * interval.high, 3 - 2 * interval.low), rel=1e-12)
    single = bootstrap_interval([4.0])
    assert (single.estimate, single.low, single.high) == (4, 4, 4)


@pytest.mark.parametrize("n", [2, 6, 10])
def test_sign_flip_p_value_is_the_enumerated_one(n):
    first, second = draws(n), draws(n, 1)
    difference = first - second
    flipped = np.array([np.dot(signs, difference) for signs in itertools.product([-1, 1], repeat=n)])
    expected = np.mean(np.abs(flipped) >= abs(difference.sum()) * (1 - 1e-12))
    test = paired_test(first, second)
    assert test.p_value == pytest.approx(expected, abs=1e-12)
    assert test.difference.estimate == pytest.approx(difference.mean(), rel=1e-14)
    assert paired_test(second, first).p_value == pytest.approx(expected, abs=1e-12)


def test_the_smallest_p_value_is_two_sign_patterns():
    assert paired_test(np.arange(5.0) + 1, np.zeros(5)).p_value == 2 / 2**5
    assert paired_test(np.ones(4), np.ones(4)).p_value == 1


def test_random_sign_patterns_agree_with_students_test_for_normal_differences():
    difference = np.random.default_rng(2).normal(0.2, size=60)
    test = paired_test(difference, np.zeros(60), n_resamples=20_000)
    expected = scipy.stats.ttest_1samp(difference, 0).pvalue
    # The two tests differ by O(1/n) and the Monte Carlo error of p = 0.02 is 0.001.
    assert 0.005 < expected < 0.2
    assert test.p_value == pytest.approx(expected, abs=0.01)
    assert test == paired_test(difference, np.zeros(60), n_resamples=20_000)


def test_sign_flip_rejects_as_often_as_its_level_under_the_null():
    rng = np.random.default_rng(3)
    n_trials = 400
    rejected = sum(
        paired_test(difference, np.zeros(7), n_resamples=200).p_value <= 6 / 128
        for difference in rng.laplace(size=(n_trials, 7))
    )
    # 128 sign patterns give p-values that are multiples of 2/128, each equally likely: P(p <= 6/128) = 6/128 exactly
    # (so n_resamples = 200 is enough to enumerate them). Five standard errors, false alarm 6e-7 and a little more for
    # the skewed binomial.
    expected = 6 / 128
    assert abs(rejected / n_trials - expected) < 5 * math.sqrt(expected * (1 - expected) / n_trials)


def test_slope_interval_is_the_textbook_formula():
    x, y = draws(12), draws(12, 1)
    design = np.stack([np.ones(12), x], 1)
    coefficients, residual, *_ = np.linalg.lstsq(design, y)
    deviation = math.sqrt(residual[0] / 10 * np.linalg.inv(design.T @ design)[1, 1])
    half = scipy.stats.t.ppf(0.95, 10) * deviation
    interval = slope_interval(x, y, 0.9)
    expected = coefficients[1], coefficients[1] - half, coefficients[1] + half
    assert (interval.estimate, interval.low, interval.high) == pytest.approx(expected, rel=1e-10)


def test_slope_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(4)
    x = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    n_trials = 1500
    hits = sum(
        interval.low <= 2 <= interval.high
        for interval in (slope_interval(x, 2 * x + rng.normal(size=5), 0.9) for _ in range(n_trials))
    )
    # Exact for normal errors: four standard errors, false alarm 6e-5.
    assert abs(hits / n_trials - 0.9) < 4 * math.sqrt(0.09 / n_trials)


def test_slope_of_a_power_law_is_its_exponent():
    x = np.array([1.0, 10.0, 50.0, 200.0])
    interval = slope_interval(x, 7 * x**-1.5, log_log=True)
    # Exact up to rounding of logarithms.
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((-1.5, -1.5, -1.5), abs=1e-6)
    two = slope_interval([1.0, 3.0], [5.0, 9.0])
    assert (two.low, two.estimate, two.high) == (2, 2, 2)


NAN = float("nan")


def test_a_constant_y_has_slope_zero_with_certainty():
    interval = slope_interval([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    assert (interval.low, interval.estimate, interval.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bootstrap_interval([]), "values must be a vector of at least 1"),
        (lambda: bootstrap_interval([1.0, NAN]), "values must be finite; entry 1"),
        (lambda: bootstrap_interval([1.0], "mode"), "statistic must be 'median' or 'mean'; got 'mode'"),
        (lambda: bootstrap_interval([1.0], n_resamples=0), "n_resamples must be at least 1; got 0"),
        (lambda: bootstrap_interval([1.0], level=1.0), r"level must be in \(0, 1\); got 1"),
        (lambda: paired_test([1.0, 2.0], [1.0, 2.0, 3.0]), "same length; got 2 and 3"),
        (lambda: paired_test([1.0], [2.0]), "first must be a vector of at least 2"),
        (lambda: paired_test([1.0, 2.0], [1.0, math.inf]), "second must be finite; entry 1"),
        (lambda: paired_test([1.0, 2.0], [1.0, 3.0], level=0.0), "level must be"),
        (lambda: slope_interval([1.0, 2.0], [1.0, 2.0, 3.0]), "same length"),
        (lambda: slope_interval([1.0, 1.0], [1.0, 2.0]), "at least two distinct values; got only 1"),
        (lambda: slope_interval([0.0, 1.0], [1.0, 2.0], log_log=True), "positive for log_log"),
        (lambda: slope_interval([1.0, NAN], [1.0, 2.0]), "x must be finite; entry 1"),
    ],
)
def test_bad_input_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()
