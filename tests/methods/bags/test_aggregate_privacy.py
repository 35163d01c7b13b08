"""Releases of bag means: noise by bag size, an audit of neighbouring labels, and what must be refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import laplace

from offprint.methods.bags.aggregate_linear import AggregateLinearRegression
from offprint.methods.bags.aggregate_privacy import assign_bags, private_bag_means


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_bags_hold_at_least_k_rows_and_differ_by_one_at_most(n, k, seed):
    if k > n:
        return
    sizes = np.bincount(assign_bags(n, k, seed))
    assert sizes.sum() == n
    assert len(sizes) == n // k
    assert sizes.min() >= k
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(assign_bags(n, k, seed), assign_bags(n, k, seed))


def test_every_row_is_as_likely_in_every_bag():
    counts = np.zeros((6, 2))
    rng = np.random.default_rng(0)
    for _ in range(4000):
        counts[np.arange(6), assign_bags(6, 3, rng)] += 1
    # Standard error 0.8 %; twelve counts stay within 4.5 of them with probability above 0.9999.
    np.testing.assert_allclose(counts / 4000, 0.5, atol=0.036)


@pytest.mark.parametrize("k", [1, 4])
def test_mean_absolute_noise_is_range_over_k_epsilon(k):
    n, clip, epsilon = 10**6, 1.5, 0.7
    means, report = private_bag_means(np.zeros(n), np.arange(n) // k, epsilon, clip, rng=0)
    # Mean absolute deviation over n / k draws: standard error at most 0.2 %.
    assert np.abs(means).mean() == pytest.approx(2 * clip / (k * epsilon), rel=0.01)
    np.testing.assert_allclose(report.scale, 2 * clip / (k * epsilon), rtol=1e-12)


@given(st.integers(0, 8), st.floats(0.05, 5.0), st.floats(-5, 5))
@settings(max_examples=60, deadline=None)
def test_audit_of_neighbouring_labels(row, epsilon, other):
    """Flip one label; the densities of the two releases must stay within a factor exp(epsilon) at any outcome."""
    clip, ids = 1.0, np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    y = np.linspace(-2, 2, 9)
    y[row] = clip
    neighbour = y.copy()
    neighbour[row] = -clip if other < 0 else other  # the worst case, and any label at all
    # The same seed draws the same noise, so the difference of two releases is that of their centres.
    (one, report), (two, _) = (private_bag_means(labels, ids, epsilon, clip, rng=3) for labels in (y, neighbour))
    moved = two - one
    assert np.count_nonzero(moved) <= 1
    assert (np.abs(moved) / report.scale).sum() <= epsilon + 1e-9
    outcomes = np.linspace(-20, 20, 41)[:, None]
    ratio = laplace(0, report.scale).logpdf(outcomes) - laplace(moved, report.scale).logpdf(outcomes)
    assert np.abs(ratio.sum(1)).max() <= epsilon + 1e-9


def test_flipping_a_label_end_to_end_spends_the_whole_budget():
    y, ids, epsilon = np.array([1.0, 0.0, 0.0]), np.array([0, 0, 0]), 0.9
    (one, report), (two, _) = (private_bag_means(v, ids, epsilon, 1.0, rng=0) for v in (y, y * [-1, 1, 1]))
    assert abs(one - two)[0] / report.scale[0] == pytest.approx(epsilon, rel=1e-9)


def test_report_says_what_was_done_and_does_not_print_what_is_private():
    y = np.array([0.0, 3.0, 1.0, -9.0, 0.5])
    _, report = private_bag_means(y, ["b", "a", "b", "a", "a"], 2.0, (-1.0, 2.0), rng=0)
    assert report.bag_sizes.tolist() == [3, 2]
    assert report.n_bags == 2
    assert (report.epsilon, report.delta, report.clip, report.n_clipped) == (2.0, 0.0, (-1.0, 2.0), 2)
    np.testing.assert_allclose(report.scale, [3 / (3 * 2.0), 3 / (2 * 2.0)])
    assert "n_clipped" not in repr(report)


def test_large_budget_releases_the_clipped_means_in_order_of_ids():
    y = np.array([0.0, 3.0, 1.0, -9.0])
    means, _ = private_bag_means(y, ["b", "a", "b", "a"], 1e9, 2.0, rng=0)
    np.testing.assert_allclose(means, [0.0, 0.5], atol=1e-7)


def test_gaussian_release_has_its_scale_by_bag():
    means, report = private_bag_means(np.zeros(200000), np.arange(200000) // 2, 1.0, 0.5, rng=0, delta=1e-5)
    assert (report.mechanism, report.delta) == ("gaussian", 1e-5)
    # Analytic Gaussian noise at epsilon 1, delta 1e-5 is 3.7306 times the sensitivity, here 1/2.
    assert means.std() == pytest.approx(3.7306 / 2, rel=0.01)


def test_a_release_can_be_learned_from():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(20000, 2))
    y, ids = X @ [1.0, -0.5], assign_bags(20000, 4, rng)
    means, _ = private_bag_means(y, ids, epsilon=2.0, clip=1.5, rng=rng)
    model = AggregateLinearRegression(rho_grid=np.linspace(0, 1, 5)).fit(X, ids, means)
    # Noise of sd 0.53 on 5000 means of sd 0.29 per feature: standard error 0.026, four of them.
    np.testing.assert_allclose(model.coef_, [1.0, -0.5], atol=0.11)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"clip": 0.0}, "clip"),
        ({"clip": -2.0}, "clip"),
        ({"clip": (1.0, 1.0)}, "clip"),
        ({"clip": float("nan")}, "clip"),
        ({"delta": 1.0}, "delta"),
        ({"y": [0.0, np.nan, 1.0]}, "y"),
        ({"y": [0.0, 1.0]}, "bag_ids"),
        ({"row_ids": ["ann", "bob"]}, "row_ids"),
        ({"row_ids": ["ann", "bob", "ann"]}, "ann appears 2 times"),
        ({"row_ids": ["ann", "ann", "bob"]}, "ann appears 2 times"),
    ],
)
def test_bad_input_is_named(change, named):
    arguments = {"y": [0.0, 1.0, 2.0], "bag_ids": [0, 0, 1], "epsilon": 1.0, "clip": 1.0, "rng": 0}
    with pytest.raises(ValueError, match=named):
        private_bag_means(**{**arguments, **change})


@pytest.mark.parametrize(("n", "k"), [(3, 4), (0, 1), (5, 0), (5, 1.5)])
def test_sizes_that_cannot_be_are_refused(n, k):
    with pytest.raises((ValueError, TypeError), match=r"n|k"):
        assign_bags(n, k, 0)
