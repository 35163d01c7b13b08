"""Privacy mechanisms against their densities: scale, likelihood ratios, and delta by numerical integration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest, laplace, norm

from offprint.methods.privacy.mechanisms import gaussian_mechanism, gaussian_scale, laplace_mechanism, laplace_scale


def test_laplace_noise_has_the_scale_of_its_report():
    zeros = np.zeros(10**6)
    released, report = laplace_mechanism(zeros, sensitivity=1.5, epsilon=0.6, rng=0)
    assert report.scale == 2.5
    # The mean absolute value of Laplace noise is its scale; over 10^6 draws its standard error is 0.1 %.
    assert np.abs(released).mean() == pytest.approx(2.5, rel=0.01)
    assert report.noise_variance == pytest.approx(released.var(), rel=0.01)
    # A false alarm has probability 1e-3, and the seed is fixed.
    assert kstest(released[:20000], laplace(scale=2.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
def test_laplace_likelihood_ratio_is_within_the_budget(epsilon):
    scale = laplace_scale(2.0, epsilon)
    outcomes = np.linspace(-30, 30, 2001)
    ratio = laplace(0, scale).logpdf(outcomes) - laplace(2.0, scale).logpdf(outcomes)
    assert np.abs(ratio).max() <= epsilon + 1e-9
    assert np.abs(ratio).max() == pytest.approx(epsilon, rel=1e-9)  # and none of it is wasted


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-3), (1.0, 1e-5), (3.0, 0.05), (20.0, 1e-8)])
def test_gaussian_noise_spends_exactly_delta(epsilon, delta):
    scale = gaussian_scale(1.0, epsilon, delta)

    # Delta is the mass by which one density exceeds exp(epsilon) times the other.
    def excess(x):
        return max(norm(1.0, scale).pdf(x) - np.exp(epsilon) * norm(0.0, scale).pdf(x), 0.0)

    start = 0.5 + epsilon * scale**2  # below it there is no excess
    spent, _ = quad(excess, start, start + 40 * scale, points=[start, 1.0 + 8 * scale], epsabs=1e-16, limit=500)
    assert spent == pytest.approx(delta, rel=1e-5)


def test_gaussian_noise_has_the_scale_of_its_report():
    released, report = gaussian_mechanism(np.zeros(10**5), 2.0, epsilon=1.0, delta=1e-5, rng=0)
    assert report.scale == 2 * gaussian_scale(1.0, 1.0, 1e-5)
    # Relative standard error of a standard deviation over 10^5 draws: 0.22 %.
    assert released.std() == pytest.approx(report.scale, rel=0.01)
    assert (report.mechanism, report.epsilon, report.delta) == ("gaussian", 1.0, 1e-5)
    assert report.noise_variance == report.scale**2


def test_noise_follows_the_generator_and_each_sensitivity():
    values, sensitivity = np.zeros((2, 50000)), np.array([[1.0], [3.0]]) * np.ones((2, 50000))
    released, report = laplace_mechanism(values, sensitivity, 1.0, rng=np.random.default_rng(5))
    again, _ = laplace_mechanism(values, sensitivity, 1.0, rng=5)
    np.testing.assert_array_equal(released, again)
    assert report.scale.shape == values.shape
    assert np.abs(released).mean(1) == pytest.approx([1.0, 3.0], rel=0.03)


@pytest.mark.parametrize(
    "change",
    [
        {"values": [0.0, np.nan]},
        {"sensitivity": 0.0},
        {"sensitivity": [1.0, 1.0, 1.0]},
        {"epsilon": 0.0},
        {"epsilon": np.inf},
        {"delta": 0.0},
        {"delta": 1.0},
    ],
)
def test_bad_input_is_named(change):
    arguments = {"values": [0.0, 1.0], "sensitivity": 1.0, "epsilon": 1.0, "delta": 1e-5, "rng": 0, **change}
    named = next(iter(change))
    with pytest.raises(ValueError, match=named):
        gaussian_mechanism(**arguments)
    if named != "delta":
        arguments.pop("delta")
        with pytest.raises(ValueError, match=named):
            laplace_mechanism(**arguments)
