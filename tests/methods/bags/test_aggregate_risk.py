"""The closed form of the risk against published numbers, mpmath, random matrices and known special cases."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from offprint.methods.bags.aggregate_risk import asymptotic_risk, optimal_bag_size, optimal_rho, release_noise
from offprint.methods.bags.aggregate_signal import estimate_signal

POINTS = [
    # psi, k, rho, sigma2, squared bias, variance
    (5, 2, 0.5, 1, 0.1872751, 0.2059126),
    (5, 2, 1, 1, 0.3125, 0.125),
    (10, 5, 0.7, 2, 0.5792629, 0.0727732),
    (1.5, 3, 0.5, 1, 0.8944272, 0.8944272),
    (8, 2, 0, 1, 0, 1 / 3),
]


@pytest.mark.parametrize(("psi", "k", "rho", "sigma2", "bias2", "variance"), POINTS)
def test_risk_at_known_points(psi, k, rho, sigma2, bias2, variance):
    risk = asymptotic_risk(psi, k, rho, sigma2)
    # The numbers are given to seven digits.
    assert risk.bias2 == pytest.approx(bias2, abs=1e-6)
    assert risk.variance == pytest.approx(variance, abs=1e-6)
    assert risk.total == pytest.approx(bias2 + variance, abs=2e-6)


def independent_risk(psi, k, rho, sigma2, r2):
    """Solve the fixed point with mpmath and use the other closed form, derived for no ridge."""
    psi_1, psi_2 = mpmath.mpf(psi) / k, mpmath.mpf(psi) * (k - 1) / k
    # Times (1 + tau)(1 + rho tau) the equation is quadratic, with one positive root.
    a, b = rho * (psi - 1), psi_1 + rho * psi_2 - 1 - rho
    tau = (-b + mpmath.sqrt(b * b + 4 * a)) / (2 * a)
    f = psi_1 / (1 + tau) ** 2 + psi_2 * rho / (1 + rho * tau) ** 2
    variance = sigma2 * psi_1 * tau / ((1 + tau) ** 2 * f)
    last = rho * psi_1 * psi_2 * tau * (1 - rho * tau**2) / ((1 + rho * tau) ** 2 * (1 + tau) ** 2 * f)
    return r2 * (rho * psi_2 * tau / (1 + rho * tau) - last), variance


def test_risk_matches_the_other_closed_form_on_a_grid():
    rng = np.random.default_rng(0)
    psi, k, rho = rng.uniform(1.05, 12, 200), rng.integers(1, 10, 200), rng.uniform(0.01, 1, 200)
    sigma2, r2 = rng.uniform(0.1, 4, (2, 200))
    risk = asymptotic_risk(psi, k, rho, sigma2, r2)
    expected = [independent_risk(*map(float, point)) for point in zip(psi, k, rho, sigma2, r2, strict=True)]
    bias2, variance = np.array(expected, dtype=np.float64).T
    # Double precision with cancellation of terms of order psi.
    np.testing.assert_allclose(risk.bias2, bias2, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(risk.variance, variance, rtol=1e-8)


def test_special_cases_in_closed_form():
    psi = np.array([2.5, 6.0, 20.0])
    for k in (2, 5):
        bag = asymptotic_risk(psi[psi > k], k, 0.0, 1.7)
        np.testing.assert_allclose(bag.bias2, 0, atol=1e-12)
        np.testing.assert_allclose(bag.variance, 1.7 * k / (psi[psi > k] - k), rtol=1e-10)
        instance = asymptotic_risk(psi, k, 1.0, 1.7, 0.6)
        np.testing.assert_allclose(instance.variance, 1.7 / (k * (psi - 1)), rtol=1e-10)
        np.testing.assert_allclose(instance.bias2, 0.6 * (k - 1) / k**2 * (k - 1 + 1 / (psi - 1)), rtol=1e-10)
    for rho in (0.0, 0.3, 1.0):
        single = asymptotic_risk(psi, 1, rho)
        np.testing.assert_allclose(single.variance, 1 / (psi - 1), rtol=1e-10)
        np.testing.assert_allclose(single.bias2, 0, atol=1e-12)


def wishart_risk(rng, d, psi, k, rho, sigma2, ridge=0.0, n_draws=20):
    """Return bias and variance given the features, averaged over draws of the estimator's own definition."""
    m = round(psi * d / k)
    bias2, variance = [], []
    for _ in range(n_draws):
        z_1, z_2 = rng.normal(size=(m, d)), rng.normal(size=(m * (k - 1), d))
        own = z_1.T @ z_1
        inverse = np.linalg.inv(own + rho * z_2.T @ z_2 + ridge * d * np.eye(d))
        bias2.append(np.linalg.norm(np.eye(d) - inverse @ own) ** 2 / d)
        variance.append(sigma2 * np.trace(inverse @ own @ inverse))
    return np.mean(bias2), np.mean(variance)


@pytest.mark.slow
@pytest.mark.parametrize(("psi", "k", "rho", "sigma2"), [point[:4] for point in POINTS])
def test_risk_matches_simulation(psi, k, rho, sigma2):
    risk = asymptotic_risk(psi, k, rho, sigma2)
    simulated = wishart_risk(np.random.default_rng(0), 200, psi, k, rho, sigma2)
    # At d = 200 finite-size effects and the error of 20 draws stay below 2 %.
    assert simulated == (pytest.approx(risk.bias2, rel=0.04, abs=1e-8), pytest.approx(risk.variance, rel=0.04))


@pytest.mark.parametrize(("psi", "k", "rho", "ridge"), [(5, 3, 0.4, 0.7), (2, 4, 0.0, 0.5), (0.6, 2, 0.3, 0.2)])
def test_risk_with_ridge_matches_simulation(psi, k, rho, ridge):
    risk = asymptotic_risk(psi, k, rho, 1.5, ridge=ridge)
    simulated = wishart_risk(np.random.default_rng(1), 120, psi, k, rho, 1.5, ridge, n_draws=10)
    assert simulated == (pytest.approx(risk.bias2, rel=0.03), pytest.approx(risk.variance, rel=0.03))


def test_best_ridge_on_bag_means_is_the_known_optimum():
    # Ridge regression with m = psi d / k rows of unit variance: at penalty sigma2 / r2 the risk is sigma2 (d/m) m(-x),
    # with the Stieltjes transform of the Marchenko-Pastur law in closed form.
    psi, k, sigma2, r2 = 5.0, 2, 1.3, 0.8
    gamma = k / psi
    x = gamma * sigma2 / r2
    stieltjes = (-(1 - gamma + x) + np.sqrt((1 - gamma + x) ** 2 + 4 * gamma * x)) / (2 * gamma * x)
    penalties = np.append(sigma2 / r2, np.geomspace(0.01, 100, 200))
    risks = asymptotic_risk(psi, k, 0.0, sigma2, r2, ridge=penalties).total
    assert risks[0] == pytest.approx(sigma2 * gamma * stieltjes, rel=1e-10)
    assert risks.argmin() == 0


@pytest.mark.parametrize(
    ("k", "rho", "total"), [(2, 0.40, 0.39027), (3, 0.35, 0.51414), (4, 0.34, 0.60186), (8, 0.35, 0.77478)]
)
def test_optimal_rho_at_known_points(k, rho, total):
    best = optimal_rho(5, k)
    assert best.rho == pytest.approx(rho, abs=0.02)
    assert best.risk.total == pytest.approx(total, abs=1e-3)


def test_optimal_rho_beats_a_fine_grid_and_arrays_match_scalars():
    psi, k, r2 = np.array([3.0, 5.0, 10.0, 1.4]), np.array([2, 4, 3, 6]), np.array([1.0, 0.3, 2.0, 1.0])
    many = optimal_rho(psi, k, r2=r2)
    grid = np.linspace(0, 1, 2001)
    for i in range(len(psi)):
        risks = asymptotic_risk(psi[i], k[i], grid, r2=r2[i]).total
        assert many.risk.total[i] <= risks.min() + 1e-9
        assert many.rho[i] == optimal_rho(psi[i], k[i], r2=r2[i]).rho


def test_rho_above_one_can_be_better_and_never_worse():
    inside, beyond = optimal_rho(2, 5), optimal_rho(2, 5, rho_max=10)
    assert inside.rho == 1
    assert beyond.rho > 1
    assert beyond.risk.total < inside.risk.total
    simulated = sum(wishart_risk(np.random.default_rng(0), 120, 2, 5, beyond.rho, 1.0, n_draws=10))
    assert simulated == pytest.approx(beyond.risk.total, rel=0.04)


@pytest.mark.parametrize(
    ("epsilon", "k", "risk"), [(0.5, 4, 0.796875), (1.0, 2, 0.5625), (2.0, 1, 0.375), (4.0, 1, 0.28125)]
)
def test_optimal_bag_size_at_known_budgets(epsilon, k, risk):
    plan = optimal_bag_size(5, epsilon=epsilon, sensitivity=1.0)
    assert plan.k == k
    assert plan.risk == pytest.approx(risk, abs=1e-6)
    if k > 1:
        assert plan.rho == 1


def test_bag_loss_makes_singletons_best_under_privacy():
    plan = optimal_bag_size(8, epsilon=0.5, sensitivity=1.0, rho=0.0)
    assert plan.k == 1
    finite = plan.sizes < 8
    np.testing.assert_allclose(plan.risks[finite], (plan.sizes[finite] + 8) / (8 - plan.sizes[finite]), rtol=1e-9)
    assert np.isinf(plan.risks[~finite]).all()


def test_noise_of_a_release_is_that_of_the_mechanisms():
    rng = np.random.default_rng(0)
    k, epsilon, sensitivity = 5, 0.8, 3.0
    draws = rng.laplace(0, sensitivity / (k * epsilon), 10**6)
    # Relative standard error of a Laplace variance over 10^6 draws: 0.22 %.
    assert release_noise(k, epsilon, sensitivity) == pytest.approx(k * draws.var(), rel=0.01)
    # Analytic Gaussian noise at epsilon 1, delta 1e-5 and sensitivity 1 is 3.7306.
    assert release_noise(4, 1.0, 1.0, delta=1e-5) == pytest.approx(3.730631**2 / 4, rel=1e-5)


def test_infinite_risk_says_why():
    none = asymptotic_risk(3, 3, 0.0)
    assert none.total == none.variance == np.inf
    assert "psi > k" in none.reason
    assert "psi <= 1" in asymptotic_risk(1.0, 2, 0.5).reason
    some = asymptotic_risk([5.0, 1.0], 2, 0.5)
    assert np.isfinite(some.total).tolist() == [True, False]
    assert some.reason.startswith("1 of 2 points")
    assert asymptotic_risk(5, 2, 0.5).reason == ""
    assert np.isfinite(asymptotic_risk(0.5, 2, 0.0, ridge=0.1).total)


@pytest.mark.parametrize(
    "arguments",
    [
        {"psi": 0.0}, {"psi": np.nan}, {"k": 0.5}, {"rho": 1.2}, {"rho": -0.1}, {"rho": np.nan}, {"sigma2": -1.0},
        {"r2": np.inf}, {"ridge": -0.1}, {"rho_max": np.nan},
    ],
)  # fmt: skip
def test_bad_input_is_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        asymptotic_risk(**{"psi": 5.0, "k": 2, "rho": 0.5, **arguments})


@pytest.mark.parametrize(
    "arguments",
    [
        {"epsilon": 0.0},
        {"sensitivity": -1.0},
        {"k_max": 0},
        {"rho": "best"},
        {"rho": 1.5},
        {"psi": 0.9},
        {"delta": 1.0},
    ],
)
def test_bad_privacy_settings_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        optimal_bag_size(**{"psi": 5.0, "epsilon": 1.0, "sensitivity": 1.0, **arguments})


def bagged(rng, n, d, k, sigma2, r2, offset=3.0):
    mix = rng.normal(size=(d, d)) / np.sqrt(d) + np.eye(d)
    theta = rng.normal(size=d)
    theta *= np.sqrt(r2) / np.linalg.norm(mix.T @ theta)
    X = rng.normal(size=(n, d)) @ mix.T + 1.0
    y = X @ theta + np.sqrt(sigma2) * rng.normal(size=n) + offset
    return X, np.arange(n) // k, y.reshape(-1, k).mean(1)


@pytest.mark.parametrize(("n", "d", "k"), [(3000, 40, 3), (600, 150, 6)])
def test_signal_is_recovered_with_more_and_with_fewer_bags_than_features(n, d, k):
    estimates = [
        estimate_signal(*bagged(np.random.default_rng(seed), n, d, k, sigma2=2.0, r2=3.0)) for seed in range(12)
    ]
    # In the harder setting (100 bags, 150 features) one estimate scatters by about 50 %, the mean of 12 by 15 %.
    assert np.mean([e.sigma2 for e in estimates]) == pytest.approx(2.0, rel=0.35)
    assert np.mean([e.r2 for e in estimates]) == pytest.approx(3.0, rel=0.35)
    assert (estimates[0].psi, estimates[0].k) == (n / d, k)


def test_plug_in_rho_is_nearly_as_good_as_the_best():
    for seed in range(3):
        signal = estimate_signal(*bagged(np.random.default_rng(seed), 1500, 150, 3, sigma2=1.0, r2=1.0))
        rho = optimal_rho(signal.psi, signal.k, signal.sigma2, signal.r2).rho
        # The risk is flat about its minimum; a wrong weight (0 or 1) would cost 50 %.
        assert asymptotic_risk(10, 3, rho).total < 1.1 * optimal_rho(10, 3).risk.total


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"X": np.ones((6, 2))}, "X"),
        ({"X": np.full((6, 2), np.nan)}, "X"),
        ({"X": np.random.default_rng(0).normal(size=(6, 6))}, "X"),
        ({"bag_ids": [0] * 5}, "bag_ids"),
        ({"bag_means": [1.0, 2.0]}, "bag_means"),
    ],
)
def test_signal_refuses_what_it_cannot_use(change, named):
    arguments = {
        "X": np.random.default_rng(0).normal(size=(6, 2)),
        "bag_ids": [0, 0, 1, 1, 2, 2],
        "bag_means": [1.0, 2.0, 4.0],
    }
    with pytest.raises(ValueError, match=named):
        estimate_signal(**{**arguments, **change})
