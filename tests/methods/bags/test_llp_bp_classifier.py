"""The classifier against supervised learning, formulas by hand, and what must not depend on what."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import torch
from jaxtyping import config
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC
from torch import nn

from offprint.methods.bags.llp_bp import LLPBeliefPropagation
from offprint.methods.bags.llp_bp_bags import make_bags, proportions_from
from offprint.methods.bags.llp_bp_baselines import DLLPClassifier
from offprint.methods.bags.llp_bp_classifier import LLPBPClassifier, _AggregateLoss
from offprint.methods.bags.llp_bp_graph import neighbor_graph
from offprint.methods.bags.llp_bp_network import BagBatch, EmbeddingNet, fit_best, module_probabilities


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def problem(n=120, size=8, apart=5.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    X = rng.normal(size=(n, 2)) + apart * np.eye(2)[y]
    ids = make_bags(y, size, seed)
    return X, ids, proportions_from(y, ids), y


SMALL = {"hidden_sizes": (16, 8), "n_epochs": 15, "learning_rate": 1e-2}


class Mine(nn.Module):
    """A network of a user, in double precision, one logit per row as a column."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.out = nn.Linear(2, 5).double(), nn.Linear(5, 1).double()

    def embed(self, rows):
        return torch.tanh(self.hidden(rows))

    def forward(self, rows):
        return self.out(self.embed(rows))


@pytest.mark.filterwarnings("ignore:every bag is pure")
def test_bags_of_one_row_are_supervised_learning():
    X, _, _, y = problem(apart=1.0)
    settings = {"propagation": LLPBeliefPropagation(lambda_b=np.inf), "validation_fraction": 0.0}
    model = LLPBPClassifier(LogisticRegression(), **settings).fit(X, np.arange(120), y)
    supervised = LogisticRegression().fit(X, y)
    np.testing.assert_allclose(model.model_.coef_, supervised.coef_)
    np.testing.assert_allclose(model.predict_proba(X), supervised.predict_proba(X))
    assert np.isnan(model.validation_loss_)


@pytest.mark.parametrize("estimator", [None, Mine(), LogisticRegression()])
def test_two_groups_are_told_apart(estimator):
    X, ids, shares, y = problem()
    model = LLPBPClassifier(estimator, **SMALL).fit(X, ids, shares)
    assert (model.predict(X) == y).mean() > 0.95
    assert model.score(X, y) > 0.95
    assert len(model.history_) == (1 if isinstance(estimator, LogisticRegression) else 2)
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)


def test_side_information_reaches_the_rows_that_are_trained_on():
    """Labels as large log-odds, counts and similarity switched off: the pseudo-labels are those labels, every round."""
    X, ids, shares, y = problem()
    settings = LLPBeliefPropagation(lambda_s=0.0, lambda_b=0.0)
    model = LLPBPClassifier(propagation=settings, **SMALL).fit(X, ids, shares, side_information=20.0 * (2 * y - 1))
    assert len(model.history_) == 2
    assert 0 < model.train_rows_.sum() < len(y)
    for step in model.history_:
        np.testing.assert_array_equal(step.propagation.pseudo_labels_, y[model.train_rows_])
    for wrong in (np.zeros(119), np.full(120, np.nan)):
        with pytest.raises(ValueError, match="side_information must"):
            LLPBPClassifier(propagation=settings, **SMALL).fit(X, ids, shares, side_information=wrong)


def test_the_second_graph_is_that_of_the_first_embedding():
    X, ids, shares, _ = problem()
    model = LLPBPClassifier(Mine(), **SMALL).fit(X, ids, shares)
    first, second = model.history_
    kept = torch.as_tensor(X[model.train_rows_])
    for features, step in ((kept, first), (first.model.embed(kept).detach(), second)):
        assert np.array_equal(step.propagation.graph_.edges, neighbor_graph(features.numpy()).edges)
    np.testing.assert_allclose(model.transform(X), model.model_.embed(torch.as_tensor(X)).detach())
    assert model.model_ is second.model


def test_held_out_bags_tell_nothing_before_training_ends():
    X, ids, shares, _ = problem()
    model = LLPBPClassifier(**SMALL, rounds=1).fit(X, ids, shares)
    held_out = np.setdiff1d(np.arange(15), model.train_bags_)
    assert len(held_out) == 3
    swapped = shares.copy()
    swapped[held_out] = (swapped[held_out] + 0.5) % 1
    other = LLPBPClassifier(**SMALL, rounds=1).fit(X, ids, swapped)
    np.testing.assert_array_equal(other.history_[0].propagation.marginals_, model.history_[0].propagation.marginals_)
    assert np.isin(ids, held_out).tolist() == (~model.train_rows_).tolist()


def test_the_loss_of_held_out_bags_is_the_cross_entropy_of_their_means():
    X, ids, shares, _ = problem()
    model = LLPBPClassifier(**SMALL).fit(X, ids, shares)
    means = np.bincount(ids, model.predict_proba(X)[:, 1]) / 8
    entropy = -(shares * np.log(means) + (1 - shares) * np.log(1 - means))
    assert model.bag_loss(X, ids, shares) == pytest.approx(entropy.mean())
    held_out = np.setdiff1d(np.arange(15), model.train_bags_)
    assert model.validation_loss_ == pytest.approx(entropy[held_out].mean())


def test_the_loss_is_that_on_rows_and_that_on_bags():
    network = EmbeddingNet(2, (6, 4), generator=0)
    loss = _AggregateLoss(network, 6, 0.3, 0)
    rows, ids = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 1])
    targets, shares = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0]), torch.tensor([0.5, 0.75])
    logits, embedded = network(rows), network.embed(rows)
    on_rows = -(targets * logits.sigmoid().log() + (1 - targets) * (1 - logits.sigmoid()).log()).mean()
    means = torch.stack([embedded[ids == bag].mean(0) for bag in (0, 1)])
    told = loss.head(means).squeeze(1).sigmoid()
    on_bags = -(shares * told.log() + (1 - shares) * (1 - told).log()).mean()
    torch.testing.assert_close(loss(BagBatch(rows, ids, shares, targets)), on_rows + 0.3 * on_bags)
    assert [layer.out_features for layer in loss.head if isinstance(layer, nn.Linear)] == [64, 1]


def test_rows_in_any_order_and_bags_by_name():
    X, ids, shares, _ = problem(n=119)  # bags of unequal sizes
    names = np.array([f"bag {99 - bag}" for bag in range(len(shares))])
    by_name = dict(zip(names, shares, strict=True))
    order = np.random.default_rng(1).permutation(119)
    found = LLPBPClassifier(**SMALL).fit(X[order], names[ids][order], by_name)
    assert sorted(np.bincount(ids)) == [8] * 7 + [9] * 7
    assert (found.predict(X) == LLPBPClassifier(**SMALL).fit(X, ids, shares).predict(X)).mean() > 0.95


def test_it_follows_its_seed_alone():
    X, ids, shares, _ = problem()
    torch.manual_seed(1)
    first = LLPBPClassifier(**SMALL).fit(X, ids, shares).predict_proba(X)
    torch.manual_seed(2)
    np.testing.assert_array_equal(LLPBPClassifier(**SMALL).fit(X, ids, shares).predict_proba(X), first)
    other = LLPBPClassifier(**SMALL, random_state=1).fit(X, ids, shares).predict_proba(X)
    assert not np.array_equal(other, first)


def test_a_users_module_is_not_changed():
    X, ids, shares, _ = problem()
    mine = Mine()
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    LLPBPClassifier(mine, **SMALL).fit(X, ids, shares)
    assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())


def test_noisy_proportions_may_be_anything():
    X, ids, shares, y = problem()
    noise = scipy.stats.laplace(scale=0.5)
    noisy = shares + noise.rvs(15, random_state=0) / 8
    model = LLPBPClassifier(propagation=LLPBeliefPropagation(count_noise=noise.logpdf), **SMALL).fit(X, ids, noisy)
    assert (model.predict(X) == y).mean() > 0.95
    beyond = np.where(shares > np.median(shares), 1.05, -0.05)  # of held-out bags too
    wide = LLPBeliefPropagation(count_noise=scipy.stats.laplace(scale=3.0).logpdf)
    assert np.isfinite(LLPBPClassifier(propagation=wide, **SMALL).fit(X, ids, beyond).validation_loss_)


def test_a_graph_of_ones_own_is_used_in_the_first_round():
    X, ids, shares, y = problem()
    same = (y[:, None] == y[None, :]).astype(float)  # an oracle's graph: every pair of equal labels, evenly
    settings = {"propagation": LLPBeliefPropagation(lambda_s=0.05)}
    model = LLPBPClassifier(**SMALL, **settings).fit(X, ids, shares, graph=same)
    first, second = (step.propagation.graph_ for step in model.history_)
    known = y[model.train_rows_]
    assert first.label_agreement(known) == 1.0
    assert len(first.edges) == (known[:, None] == known[None, :]).sum() // 2 - len(known) // 2
    assert len(second.edges) < len(first.edges)


def test_a_graph_object_of_ones_own_is_its_matrix():
    X, ids, shares, _ = problem()
    graph = neighbor_graph(X)
    matrix = scipy.sparse.coo_array((graph.weights, tuple(graph.edges.T)), shape=(120, 120))
    one, other = (LLPBPClassifier(**SMALL, rounds=1).fit(X, ids, shares, graph=given) for given in (graph, matrix))
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    inside = one.train_rows_[graph.edges].all(axis=1)
    assert 0 < inside.sum() < len(inside)
    assert len(one.history_[0].propagation.graph_.edges) == inside.sum()


def test_an_oracle_stops_by_the_area_under_the_curve_of_held_out_rows():
    """As the authors' code does; without it labels are not looked at, and training stops by bags."""
    X, ids, shares, y = problem(apart=0.7)
    settings = {**SMALL, "n_epochs": 6, "rounds": 1}
    told, untold = (LLPBPClassifier(**settings).fit(X, ids, shares, oracle_labels=labels) for labels in (y, None))
    away = ~told.train_rows_
    best = roc_auc_score(y[away], told.predict_proba(X[away])[:, 1])
    losses = told.history_[0].training.validation_losses
    assert min(losses) == pytest.approx(-best)
    assert all(-1 <= loss < 0 for loss in losses)
    assert all(loss > 0 for loss in untold.history_[0].training.validation_losses)
    assert told.validation_loss_ > 0  # what candidates are compared by stays the loss on bags
    assert told.history_[0].training.best_epoch != untold.history_[0].training.best_epoch


def test_the_best_by_held_out_bags_is_kept():
    X, ids, shares, _ = problem()
    candidates = [LLPBPClassifier(**{**SMALL, "learning_rate": rate, "n_epochs": 5}) for rate in (1e-6, 1e-2, 1e-7)]
    best = fit_best(candidates, X, ids, shares)
    losses = [one.validation_loss_ for one in candidates]
    assert len(set(losses)) == 3
    assert best is candidates[int(np.argmin(losses))]


def test_a_network_without_embedding_has_none():
    X, ids, shares, _ = problem()
    model = LLPBPClassifier(LogisticRegression()).fit(X, ids, shares)
    with pytest.raises(TypeError, match="estimator must have an embedding"):
        model.transform(X)


class Dead(Mine):
    """Half of the rows have an embedding of zeros."""

    def embed(self, rows):
        return super().embed(rows) * (rows[:, :1] > rows[:, 1:])


def test_embeddings_of_zero_are_alike():
    X, ids, shares, _ = problem()
    model = LLPBPClassifier(Dead(), **SMALL).fit(X, ids, shares)
    zero = (X[:, 0] <= X[:, 1])[model.train_rows_]
    edges = model.history_[1].propagation.graph_.edges
    assert 0 < zero.sum() < len(zero)
    assert (zero[edges[:, 0]] == zero[edges[:, 1]]).all()


class Wide(Mine):
    def forward(self, rows):
        return self.embed(rows)


class Flat(Mine):
    def embed(self, rows):
        return rows[:, 0]


X, IDS, SHARES, _ = problem()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "given", "error", "named"),
    [
        ({"estimator": nn.Linear(2, 1)}, {}, TypeError, "estimator must have a method embed"),
        ({"estimator": LinearSVC()}, {}, TypeError, "estimator"),
        ({"estimator": Wide()}, {}, ValueError, "estimator must return one logit per row"),
        ({"estimator": Flat()}, {}, ValueError, "estimator.embed must return one row per row"),
        ({"propagation": 3}, {}, TypeError, "propagation"),
        ({"rounds": 0}, {}, ValueError, "rounds"),
        ({"threshold": 0.0}, {}, ValueError, "threshold"),
        ({"threshold": 1 - 1e-12}, {}, ValueError, "threshold=.* makes every pseudo-label 0"),
        ({"agg_weight": -1.0}, {}, ValueError, "agg_weight"),
        ({"agg_weight": np.nan}, {}, ValueError, "agg_weight"),
        ({"hidden_sizes": (8,)}, {}, ValueError, "hidden_sizes"),
        ({"batch_size": 0}, {}, ValueError, "batch_size"),
        ({"learning_rate": np.nan}, {}, ValueError, "learning_rate"),
        ({"weight_decay": -1.0}, {}, ValueError, "weight_decay"),
        ({"validation_fraction": 1.0}, {}, ValueError, "validation_fraction"),
        ({}, {"X": X * np.nan}, ValueError, "X contains NaN"),
        ({}, {"bag_ids": IDS[:-1]}, ValueError, "bag_ids"),
        ({}, {"proportions": SHARES + 0.01}, ValueError, "proportions"),
        (
            {},
            {"proportions": SHARES * 0 + 0.3},
            ValueError,
            "proportions times the size .* bag 0 is 0.3 of 8 rows, 2.4",
        ),
        ({}, {"proportions": SHARES[:-1]}, ValueError, "proportions must hold one number for each of the 15 bags"),
        ({}, {"graph": np.eye(3)}, ValueError, "graph must be of shape"),
        ({}, {"oracle_labels": np.zeros(119)}, ValueError, "oracle_labels must be 0 or 1"),
        ({}, {"oracle_labels": np.full(120, 2)}, ValueError, "oracle_labels must be 0 or 1"),
        ({}, {"oracle_labels": np.ones(120)}, ValueError, "oracle_labels of the held-out rows are all 1"),
        ({"validation_fraction": 0.0}, {"oracle_labels": np.ones(120)}, ValueError, "oracle_labels need bags"),
        ({"estimator": LogisticRegression()}, {"oracle_labels": np.ones(120)}, ValueError, "oracle_labels are for"),
    ],
)
def test_what_is_refused(settings, given, error, named):
    arguments = {"X": X, "bag_ids": IDS, "proportions": SHARES, **given}
    model = LLPBPClassifier(**{"hidden_sizes": (8, 8), "n_epochs": 1, **settings})
    with pytest.raises(error, match=named):
        model.fit(**arguments)


@pytest.mark.usefixtures("unchecked")
def test_rows_of_another_width_are_refused_in_prediction():
    model = LLPBPClassifier(hidden_sizes=(8, 8), n_epochs=1).fit(X, IDS, SHARES)
    for call in (model.predict, model.predict_proba, model.transform):
        with pytest.raises(ValueError, match="X must have 2 features, as in fit; got 1"):
            call(X[:, :1])
    with pytest.raises(ValueError, match="candidates"):
        fit_best([LLPBPClassifier(), LLPBPClassifier(random_state=1)], X, IDS, SHARES)
    with pytest.raises(ValueError, match="candidates must hold out bags"):
        fit_best([LLPBPClassifier(validation_fraction=0.0)], X, IDS, SHARES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a single bag says little
        with pytest.raises(ValueError, match="bag_ids must hold at least two bags"):
            fit_best([DLLPClassifier(hidden_sizes=(4, 4), n_epochs=1)], X, IDS * 0, [0.5])


def test_probabilities_of_a_module_are_sigmoids():
    mine = Mine()
    logits = mine(torch.as_tensor(X)).detach().numpy()[:, 0]
    np.testing.assert_allclose(module_probabilities(mine, X, None), 1 / (1 + np.exp(-logits)))
