"""The linear path against refits, the vectorised theory against a scalar root finder, the losses against a loop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from harness import Comparison, compare, within
from scipy.optimize import brentq
from sklearn.linear_model import LinearRegression

from offprint.methods.bags.aggregate import interpolating_loss
from offprint.methods.bags.aggregate_linear import AggregateLinearRegression, rho_path
from offprint.methods.bags.aggregate_risk import asymptotic_risk


def comparisons() -> Iterator[Comparison]:
    """Yield the comparisons of this paper."""
    yield from path()
    yield from theory()
    yield from losses()


def path() -> Iterator[Comparison]:
    """Fit 100 interpolations to 5000 rows of 500 features."""
    rng = np.random.default_rng(0)
    n, d, k = 5000, 500, 5
    X, bag_ids = rng.normal(size=(n, d)), np.repeat(np.arange(n // k), k)
    means = X.reshape(-1, k, d).mean(1)
    targets = means @ rng.normal(size=d) + rng.normal(size=n // k)
    rhos = np.linspace(0, 1, 100)

    def refits() -> None:
        for rho in rhos:
            AggregateLinearRegression(rho).fit(X, bag_ids, targets)

    def weighted_least_squares() -> None:
        rows, responses = np.vstack([means, X]), np.append(targets, targets[bag_ids])
        for rho in rhos[:10]:
            weights = np.append(np.full(n // k, (1 - rho) * k / n), np.full(n, rho / n))
            LinearRegression().fit(rows, responses, sample_weight=weights)

    def ours() -> None:
        rho_path(X, bag_ids, targets, rhos)

    name = "path of 100 values of rho, n = 5000, d = 500"
    yield compare(name, ours, refits, peer_name="100 separate fits", target=20, repeats=3)
    yield compare(
        name,
        ours,
        weighted_least_squares,
        peer_name="scikit-learn LinearRegression on bag means and rows, weighted, 10 of the 100",
        repeats=3,
        note="The peer does a tenth of the work: SVD least squares at each rho.",
    )


def theory() -> Iterator[Comparison]:
    """Evaluate the risk at 10,000 points."""
    rng = np.random.default_rng(0)
    psi, k, rho = rng.uniform(1.1, 10, 10**4), rng.integers(1, 10, 10**4), rng.uniform(0.01, 1, 10**4)

    def root(psi: float, k: int, rho: float) -> float:
        first, second = psi / k, psi * (k - 1) / k

        def excess(log_tau: float) -> float:
            tau = np.exp(log_tau)
            return first * tau / (1 + tau) + second * rho * tau / (1 + rho * tau) - 1

        return brentq(excess, -50, 50)

    def loop() -> None:
        for point in zip(psi.tolist(), k.tolist(), rho.tolist(), strict=True):
            root(*point)

    name = "risk at 10,000 points"
    yield compare(name, lambda: asymptotic_risk(psi, k, rho), loop, peer_name="scipy brentq, point by point", repeats=3)
    yield within(name, lambda: asymptotic_risk(psi, k, rho), 1.0)


def losses() -> Iterator[Comparison]:
    """Take the interpolating loss and its gradient of a million rows in 125,000 bags."""
    n, k = 10**6, 8
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(n, generator=generator, requires_grad=True)
    ids = torch.arange(n).remainder(n // k)[torch.randperm(n, generator=generator)]
    targets = torch.randn(n // k, generator=generator)

    def loop() -> None:
        order = ids.argsort()
        bags = pred[order].split(k)
        total = sum((bag.mean() - target).square() for bag, target in zip(bags[:2000], targets, strict=False))
        (total / 2000).backward()

    name = "interpolating loss of 10^6 rows"
    yield within(name, lambda: interpolating_loss(pred, ids, targets, 0.5), 0.1)
    yield compare(
        f"{name}, with gradient",
        lambda: interpolating_loss(pred, ids, targets, 0.5).backward(),
        loop,
        peer_name="Python loop over 2000 of the 125,000 bags",
        repeats=3,
        note="The peer does a sixtieth of the work.",
    )
