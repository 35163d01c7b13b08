"""The linear estimator against least squares of scikit-learn and NumPy, a general optimiser, and its own definition."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from offprint.methods.bags.aggregate import interpolating_loss
from offprint.methods.bags.aggregate_linear import AggregateLinearRegression, AggregateRegressor, rho_path
from offprint.methods.bags.aggregate_net import RhoSearchCV

EQUAL, RAGGED = np.full(20, 3), np.resize([1, 2, 5, 3, 4], 20)


def problem(sizes, d=4, outputs=(), seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return rng.normal(size=(len(ids), d)) + 2.0, ids, rng.normal(size=(len(sizes), *outputs))


def means_of(values, ids):
    return np.stack([values[ids == bag].mean(0) for bag in range(ids.max() + 1)])


@pytest.mark.parametrize("solver", ["cholesky", "lsqr"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("sizes", [EQUAL, RAGGED])
def test_extremes_are_ordinary_least_squares(sizes, fit_intercept, solver):
    X, ids, targets = problem(sizes)
    for rho, rows, responses in ((0.0, means_of(X, ids), targets), (1.0, X, targets[ids])):
        expected = LinearRegression(fit_intercept=fit_intercept).fit(rows, responses)
        model = AggregateLinearRegression(rho, fit_intercept=fit_intercept, solver=solver).fit(X, ids, targets)
        np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-8)
        assert model.intercept_ == pytest.approx(expected.intercept_, abs=1e-8)
        np.testing.assert_allclose(model.predict(X), expected.predict(X), atol=1e-8)


def test_bags_of_one_are_ordinary_least_squares_for_every_rho():
    X, ids, targets = problem(np.ones(30, dtype=int))
    expected = LinearRegression().fit(X, targets[ids])
    for rho in (0.0, 0.3, 1.0):
        model = AggregateLinearRegression(rho).fit(X, ids, targets)
        np.testing.assert_allclose([*model.coef_, model.intercept_], [*expected.coef_, expected.intercept_], atol=1e-10)


@pytest.mark.parametrize("rho", [0.0, 0.35, 1.0, 1.6])
def test_equal_bags_give_the_estimator_of_the_paper(rho):
    X, ids, targets = problem(EQUAL)
    k, own = 3, means_of(X, ids)
    z_1, z_2 = np.sqrt(k) * own, X - own[ids]
    expected = np.linalg.solve(z_1.T @ z_1 + rho * z_2.T @ z_2, z_1.T @ (np.sqrt(k) * targets))
    model = AggregateLinearRegression(rho, fit_intercept=False, rho_max=2.0).fit(X, ids, targets)
    np.testing.assert_allclose(model.coef_, expected, atol=1e-10)


@pytest.mark.parametrize("solver", ["cholesky", "lsqr"])
@pytest.mark.parametrize("sizes", [EQUAL, RAGGED])
def test_minimises_the_interpolating_loss(sizes, solver):
    import torch

    X, ids, targets = problem(sizes)
    rows, numbers, responses = torch.as_tensor(X), torch.as_tensor(ids), torch.as_tensor(targets)

    def objective(beta):
        weights = torch.tensor(beta, requires_grad=True)
        value = interpolating_loss(rows @ weights[:-1] + weights[-1], numbers, responses, 0.4)
        value.backward()
        return value.item(), weights.grad.numpy()

    found = minimize(objective, np.zeros(5), jac=True, method="BFGS", options={"gtol": 1e-10})
    model = AggregateLinearRegression(0.4, solver=solver).fit(X, ids, targets)
    np.testing.assert_allclose([*model.coef_, model.intercept_], found.x, atol=1e-6)  # BFGS stops there


@pytest.mark.parametrize("sizes", [EQUAL, RAGGED])
def test_path_is_the_same_as_separate_fits(sizes):
    X, ids, targets = problem(sizes, outputs=(2,))
    rhos = np.linspace(0, 1, 7)
    path = rho_path(X, ids, targets, rhos)
    for position, rho in enumerate(rhos):
        for output in range(2):
            one = AggregateLinearRegression(rho).fit(X, ids, targets[:, output])
            np.testing.assert_allclose(path.coefs[position, output], one.coef_, atol=1e-9)
            assert path.intercepts[position, output] == pytest.approx(one.intercept_, abs=1e-9)
    assert path.ranks.tolist() == [5] * 7


def test_fewer_bags_than_features_give_the_least_norm_at_zero_and_a_unique_fit_above():
    X, ids, targets = problem(np.full(5, 6), d=12)
    path = rho_path(X, ids, targets, [0.0, 0.5], fit_intercept=False)
    np.testing.assert_allclose(path.coefs[0], np.linalg.pinv(means_of(X, ids)) @ targets, atol=1e-8)
    assert path.ranks.tolist() == [5, 12]
    model = AggregateLinearRegression(0.0, fit_intercept=False).fit(X, ids, targets)
    assert model.rank_ == 5
    np.testing.assert_allclose(model.coef_, path.coefs[0], atol=1e-10)


def test_order_of_rows_and_names_of_bags_do_not_matter():
    X, ids, targets = problem(RAGGED)
    model = AggregateLinearRegression(0.3).fit(X, ids, targets)
    order = np.random.default_rng(1).permutation(len(X))
    names = np.array([f"bag {99 - bag}" for bag in range(len(targets))])
    renamed = AggregateLinearRegression(0.3).fit(X[order], names[ids[order]], dict(zip(names, targets, strict=True)))
    np.testing.assert_allclose(renamed.coef_, model.coef_, atol=1e-10)


def test_sparse_rows_give_the_same_fit():
    X, ids, targets = problem(RAGGED)
    X[X < 2] = 0
    dense = AggregateLinearRegression(0.3).fit(X, ids, targets)
    sparse = AggregateLinearRegression(0.3, solver="lsqr").fit(scipy.sparse.csr_array(X), ids, targets)
    np.testing.assert_allclose(sparse.coef_, dense.coef_, atol=1e-8)
    np.testing.assert_allclose(sparse.predict(scipy.sparse.csr_array(X)), dense.predict(X), atol=1e-8)


@pytest.mark.parametrize(
    "cv", [4, KFold(4, shuffle=True, random_state=0), ShuffleSplit(3, test_size=5, random_state=0)]
)
def test_validation_errors_are_those_of_separate_fits_on_whole_bags(cv):
    X, ids, targets = problem(RAGGED)
    grid = [0.0, 0.2, 1.0]
    splitter = KFold(cv) if isinstance(cv, int) else cv
    squares = np.zeros(3)
    n_held_out = 0
    for kept, held_out in splitter.split(targets):
        inside = np.isin(ids, kept)
        for position, rho in enumerate(grid):
            model = AggregateLinearRegression(rho)
            model.fit(X[inside], ids[inside], {int(bag): targets[bag] for bag in kept})
            for bag in held_out:
                squares[position] += (model.predict(X[ids == bag]).mean() - targets[bag]) ** 2
        n_held_out += len(held_out)
    chosen = AggregateLinearRegression(rho_grid=grid, cv=cv).fit(X, ids, targets)
    np.testing.assert_allclose(chosen.validation_errors_, squares / n_held_out, rtol=1e-8)
    assert chosen.rho_ == grid[squares.argmin()]
    search = RhoSearchCV(AggregateLinearRegression(), rho_grid=grid, cv=cv).fit(X, ids, targets)
    np.testing.assert_allclose(search.validation_errors_, squares / n_held_out, rtol=1e-8)
    np.testing.assert_allclose(search.predict(X), chosen.predict(X), atol=1e-10)


def test_is_a_scikit_learn_estimator(monkeypatch):
    monkeypatch.setitem(jaxtyping.config.__dict__, "jaxtyping_disable", True)  # its checks pass arguments of any type
    outcomes = check_estimator(AggregateRegressor(), on_skip=None, on_fail=None)
    assert {o["check_name"]: str(o["exception"]) for o in outcomes if o["status"] == "failed"} == {}


def test_works_in_grid_search_over_a_pipeline():
    X, ids, targets = problem(EQUAL)
    pipeline = make_pipeline(StandardScaler(), AggregateRegressor())
    search = GridSearchCV(pipeline, {"aggregateregressor__rho": [0.0, 0.5, 1.0]}, cv=GroupKFold(4))
    y = targets[ids]
    splits = list(GroupKFold(4).split(X, y, ids))
    scores = []
    for rho in (0.0, 0.5, 1.0):
        model = AggregateRegressor(rho)
        scores.append(np.mean([model.fit(X[a], y[a], groups=ids[a]).score(X[b], y[b]) for a, b in splits]))
    from sklearn import config_context

    with config_context(enable_metadata_routing=True):
        pipeline[-1].set_fit_request(groups=True)
        search.fit(X, y, groups=ids)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], scores, atol=1e-10)


def test_ridge_on_rows_is_not_what_rho_does():
    # A guard on the test data: were features independent of bags' spread, rho and ridge would be hard to tell apart.
    X, ids, targets = problem(RAGGED)
    ridge = Ridge(1.0).fit(means_of(X, ids), targets)
    assert np.abs(AggregateLinearRegression(0.5).fit(X, ids, targets).coef_ - ridge.coef_).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "change", "named"),
    [
        ({"rho": 1.1}, {}, "rho"),
        ({"rho": -0.1}, {}, "rho"),
        ({"rho": 1.5, "rho_max": 2.0, "solver": "lsqr"}, {}, "rho"),
        ({"rho": 8.0, "rho_max": 9.0}, {}, "at most"),
        ({"rho_grid": []}, {}, "rho_grid"),
        ({"rho_grid": [0.5, 1.5]}, {}, "rho_grid"),
        ({"solver": "svd"}, {}, "solver"),
        ({}, {"X": np.full((60, 4), np.nan)}, "X"),
        ({}, {"bag_ids": [0, 1]}, "bag_ids"),
        ({}, {"bag_means": np.zeros(3)}, "bag_means"),
        ({}, {"bag_means": np.full(20, np.inf)}, "bag_means"),
    ],
)
def test_bad_input_is_named(settings, change, named):
    X, ids, targets = problem(RAGGED)
    with pytest.raises(ValueError, match=named):
        AggregateLinearRegression(**settings).fit(**{"X": X, "bag_ids": ids, "bag_means": targets, **change})


def test_rows_of_a_bag_must_agree():
    with pytest.raises(ValueError, match="repeat one value"):
        AggregateRegressor().fit([[0.0], [1.0], [2.0]], [1.0, 2.0, 3.0], groups=[0, 0, 1])
    with pytest.raises(ValueError, match="groups"):
        AggregateRegressor().fit([[0.0], [1.0]], [1.0, 2.0], groups=[0])
