"""Networks on bag means against the exact linear solution, and the search over rho."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, RegressorMixin, clone
from torch import nn

from offprint.methods.bags.aggregate import bag_loss, instance_loss
from offprint.methods.bags.aggregate_linear import AggregateLinearRegression
from offprint.methods.bags.aggregate_net import AggregateNet, RhoSearchCV

SIZES = np.resize([1, 2, 5, 3], 24)


def problem(outputs=(), seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    return rng.normal(size=(len(ids), 3)), ids, rng.normal(size=(len(SIZES), *outputs))


def lbfgs(parameters):
    return torch.optim.LBFGS(
        parameters, max_iter=50, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )


def linear(outputs=1):
    torch.manual_seed(0)
    return nn.Linear(3, outputs).double()


@pytest.mark.parametrize("rho", [0.0, 0.4, 1.0])
def test_a_linear_network_reaches_the_exact_solution(rho):
    X, ids, targets = problem()
    net = AggregateNet(linear(), rho, n_epochs=1, bags_per_batch=None, optimizer=lbfgs).fit(X, ids, targets)
    expected = AggregateLinearRegression(rho).fit(X, ids, targets)
    # L-BFGS stops where its line search meets rounding.
    np.testing.assert_allclose(net.predict(X), expected.predict(X), atol=1e-6)
    assert net.predict(X).dtype == np.float64


def test_several_outputs_are_fitted_at_once():
    X, ids, targets = problem(outputs=(2,))
    net = AggregateNet(linear(2), 0.3, n_epochs=1, bags_per_batch=None, optimizer=lbfgs).fit(X, ids, targets)
    expected = AggregateLinearRegression(0.3).fit(X, ids, targets)
    np.testing.assert_allclose(net.predict(X), expected.predict(X), atol=1e-6)


def test_small_batches_of_whole_bags_come_near_the_solution_of_all():
    X, ids, _ = problem()
    y = X @ [1.0, -2.0, 0.5]
    targets = np.array([y[ids == bag].mean() for bag in range(len(SIZES))])
    net = AggregateNet(linear(), 0.0, n_epochs=40, bags_per_batch=8, learning_rate=0.1).fit(X, ids, targets)
    # Responses without noise: every batch has the same minimiser, so steps of constant size converge.
    np.testing.assert_allclose(net.predict(X), y, atol=1e-2)


def test_log_loss_fits_shares():
    X, ids, _ = problem()
    shares = np.array([(X[ids == bag, 0] > 0).mean() for bag in range(len(SIZES))])
    module = nn.Sequential(linear(), nn.Sigmoid())
    net = AggregateNet(module, 0.0, loss="log", n_epochs=1, bags_per_batch=None, optimizer=lbfgs).fit(X, ids, shares)
    said = net.predict(X) > 0.5
    assert (said == (X[:, 0] > 0)).mean() > 0.9


def test_same_seed_same_network_and_the_given_module_is_untouched():
    X, ids, targets = problem()
    module = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    before = copy.deepcopy(module.state_dict())
    first, again, other = (
        AggregateNet(module, 0.5, n_epochs=3, bags_per_batch=4, random_state=seed).fit(X, ids, targets).predict(X)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_validation_keeps_the_epoch_with_the_lowest_bag_loss_on_held_out_bags():
    X, ids, targets = problem()
    net = AggregateNet(linear(), 1.0, n_epochs=15, learning_rate=0.3, validation_fraction=0.25, patience=5)
    net.fit(X, ids, targets)
    order = torch.randperm(len(SIZES), generator=torch.Generator().manual_seed(0))
    held_out = order[:6].numpy()
    inside = np.isin(ids, held_out)
    numbers = torch.as_tensor([list(held_out).index(bag) for bag in ids[inside]])
    pred, responses = torch.as_tensor(net.predict(X[inside])), torch.as_tensor(targets[held_out])
    best = min(net.history_.validation_losses)
    assert bag_loss(pred, numbers, responses).item() == pytest.approx(best, rel=1e-6)
    assert instance_loss(pred, numbers, responses).item() != pytest.approx(best, rel=1e-3)


def test_integer_rows_reach_the_module_as_they_are():
    module = nn.Sequential(nn.Embedding(5, 1), nn.Flatten())
    X = np.arange(10)[:, None] % 5
    net = AggregateNet(module, 0.0, n_epochs=1, bags_per_batch=None, optimizer=lbfgs)
    net.fit(X, np.arange(10), (X[:, 0] * 2.0))
    np.testing.assert_allclose(net.predict(X), X[:, 0] * 2.0, atol=1e-2)


class Shift(RegressorMixin, BaseEstimator):
    """Predicts ``rho`` for every row: its held-out bag loss is known without fitting."""

    def __init__(self, rho=0.5):
        self.rho = rho

    def fit(self, X, bag_ids, bag_means):
        self.n_bags_ = len(bag_means)
        return self

    def predict(self, X):
        return np.full(len(X), self.rho)


def test_search_scores_by_bag_and_fits_the_best_on_all_bags():
    X, ids, targets = problem()
    targets = targets * 0.1 + 0.58
    search = RhoSearchCV(Shift(), cv=4).fit(X, ids, targets)
    grid = np.linspace(0, 1, 11)
    np.testing.assert_allclose(search.validation_errors_, [np.mean((targets - rho) ** 2) for rho in grid], atol=1e-12)
    assert search.rho_ == grid[np.abs(grid - targets.mean()).argmin()]
    assert search.estimator_.n_bags_ == len(targets)
    assert search.predict(X)[0] == search.rho_
    assert clone(search).get_params()["estimator__rho"] == 0.5


def test_search_chooses_rho_for_a_network_as_for_the_linear_model():
    X, ids, targets = problem()
    net = AggregateNet(linear(), n_epochs=1, bags_per_batch=None, optimizer=lbfgs)
    search = RhoSearchCV(net, rho_grid=[0.0, 0.5, 1.0], cv=2).fit(torch.as_tensor(X), torch.as_tensor(ids), targets)
    exact = AggregateLinearRegression(rho_grid=[0.0, 0.5, 1.0], cv=2).fit(X, ids, targets)
    np.testing.assert_allclose(search.validation_errors_, exact.validation_errors_, rtol=1e-5)
    assert search.rho_ == exact.rho_


@pytest.mark.parametrize(
    ("settings", "change", "named"),
    [
        ({"rho": 1.5}, {}, "rho"),
        ({"module": "net"}, {}, "module"),
        ({"bags_per_batch": 0}, {}, "bags_per_batch"),
        ({"validation_fraction": 1.0}, {}, "validation_fraction"),
        ({"validation_fraction": 0.99}, {}, "validation_fraction"),
        ({"n_epochs": 0}, {}, "n_epochs"),
        ({"learning_rate": -1.0}, {}, "learning_rate"),
        ({"loss": "hinge"}, {}, "loss"),
        ({}, {"X": np.full((SIZES.sum(), 3), np.nan)}, "X"),
        ({}, {"bag_ids": [0]}, "bag_ids"),
        ({}, {"bag_means": [0.0]}, "bag_means"),
    ],
)
def test_bad_input_is_named(settings, change, named):
    X, ids, targets = problem()
    with pytest.raises((ValueError, TypeError), match=named):
        AggregateNet(**{"module": linear(), **settings}).fit(**{"X": X, "bag_ids": ids, "bag_means": targets, **change})


def test_divergence_is_an_error_not_a_network():
    X, ids, targets = problem()
    with pytest.raises((FloatingPointError, ValueError), match=r"loss|finite"):
        AggregateNet(linear(), optimizer=lambda p: torch.optim.SGD(p, lr=1e200)).fit(X, ids, targets)
