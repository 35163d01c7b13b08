"""DLLP and EasyLLP against formulas by hand and the properties that define them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import nn
from torch.nn import functional

from offprint.methods.bags.llp_bp_bags import make_bags, proportions_from
from offprint.methods.bags.llp_bp_baselines import DLLPClassifier, EasyLLPClassifier, soft_labels
from offprint.methods.bags.llp_bp_network import BagBatch, EmbeddingNet


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def problem(n=160, size=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    X = rng.normal(size=(n, 2)) + 5 * (np.eye(2)[y] - 0.5)
    ids = make_bags(y, size, seed)
    return X, ids, proportions_from(y, ids), y


def batch(seed=0):
    rows = torch.randn(5, 2, generator=torch.Generator().manual_seed(seed))
    shares = torch.tensor([0.5, 0.75])
    return BagBatch(rows, torch.tensor([0, 1, 0, 1, 1]), shares, torch.tensor([1.4, -0.2, 1.4, -0.2, -0.2]))


def test_the_loss_of_dllp_compares_means_with_shares():
    network, given = EmbeddingNet(2, (6, 4), generator=0), batch()
    means = torch.stack([network(given.rows)[given.ids == bag].sigmoid().mean() for bag in (0, 1)])
    expected = -(given.shares * means.log() + (1 - given.shares) * (1 - means).log()).mean()
    torch.testing.assert_close(DLLPClassifier()._objective(network, given), expected)


def test_the_loss_of_easyllp_is_the_weighted_cross_entropy():
    network, given = EmbeddingNet(2, (6, 4), generator=0), batch()
    positive = network(given.rows).sigmoid()
    expected = -(given.targets * positive.log() + (1 - given.targets) * (1 - positive).log()).mean()
    torch.testing.assert_close(EasyLLPClassifier()._objective(network, given), expected)


def test_bags_of_one_row_have_their_labels():
    y = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(soft_labels(y, np.ones(5, dtype=int)), y)
    network, given = EmbeddingNet(2, (6, 4), generator=0), batch()
    alone = BagBatch(given.rows, torch.arange(5), torch.as_tensor(y).float(), torch.as_tensor(y).float())
    supervised = functional.binary_cross_entropy_with_logits(network(given.rows), alone.targets)
    for arm in (DLLPClassifier(), EasyLLPClassifier()):
        torch.testing.assert_close(arm._objective(network, alone), supervised)


def test_soft_labels_are_right_on_average():
    """E[soft label | y] = y over random bags, which is what makes the loss unbiased."""
    y = np.random.default_rng(0).random(400_000) < 0.3
    ids = make_bags(y, 4, 0)
    soft = soft_labels(proportions_from(y, ids), np.bincount(ids))[ids]
    for label in (0, 1):
        # Standard deviation of a soft label is at most 4 * 0.5; five standard errors of independent bags.
        assert soft[y == label].mean() == pytest.approx(label, abs=5 * 2 / np.sqrt((y == label).sum() / 4))


@pytest.mark.parametrize("arm", [DLLPClassifier, EasyLLPClassifier])
def test_two_groups_are_told_apart(arm):
    X, ids, shares, y = problem()
    model = arm(hidden_sizes=(16, 8), n_epochs=40, learning_rate=1e-2).fit(X, ids, shares)
    assert (model.predict(X) == y).mean() > 0.95
    own = arm(nn.Linear(2, 1), n_epochs=60, learning_rate=3e-2).fit(X, ids, shares)
    assert (own.predict(X) == y).mean() > 0.95


def test_clipping_keeps_soft_labels_in_range():
    X, ids, shares, _ = problem()
    model = EasyLLPClassifier(hidden_sizes=(4, 4), n_epochs=1, clip=True)
    bags, _ = model._start(X, ids, shares)
    soft = soft_labels(bags.shares, bags.index.sizes)[bags.index.ids]
    assert soft.max() > 1 > 0 > soft.min()
    np.testing.assert_array_equal(model._targets(bags), soft.clip(0, 1))
    model.clip = False
    np.testing.assert_array_equal(model._targets(bags), soft)


def test_batches_hold_whole_bags_of_any_size():
    seen = []

    class Watching(nn.Linear):
        def forward(self, rows):
            seen.append(len(rows))
            return super().forward(rows)

    X = np.random.default_rng(0).normal(size=(30, 2))
    ids = np.repeat([0, 1, 2, 3], [2, 4, 8, 16])
    model = DLLPClassifier(Watching(2, 1), n_epochs=1, batch_size=1, validation_fraction=0.0)
    model.fit(X, ids, [0.5, 0.5, 0.5, 0.5])
    assert sorted(seen) == [2, 4, 8, 16]


def test_arms_hold_out_the_same_bags():
    X, ids, shares, _ = problem()
    first, second = (
        arm(hidden_sizes=(4, 4), n_epochs=1).fit(X, ids, shares) for arm in (DLLPClassifier, EasyLLPClassifier)
    )
    np.testing.assert_array_equal(first.train_bags_, second.train_bags_)
    assert len(first.train_bags_) == 32  # of 40


X, IDS, SHARES, _ = problem()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("arm", [DLLPClassifier, EasyLLPClassifier])
@pytest.mark.parametrize(
    ("settings", "given", "error", "named"),
    [
        ({"estimator": 3}, {}, TypeError, "estimator"),
        ({"estimator": nn.Linear(2, 3)}, {}, ValueError, "estimator must return one logit per row"),
        ({"learning_rate": np.inf}, {}, ValueError, "learning_rate"),
        ({"validation_fraction": -0.1}, {}, ValueError, "validation_fraction"),
        ({}, {"X": X * np.inf}, ValueError, "X contains inf"),
        ({}, {"proportions": SHARES - 1}, ValueError, "proportions must be in"),
        ({}, {"bag_ids": IDS[1:]}, ValueError, "bag_ids"),
    ],
)
def test_what_is_refused(arm, settings, given, error, named):
    arguments = {"X": X, "bag_ids": IDS, "proportions": SHARES, **given}
    with pytest.raises(error, match=named):
        arm(**{"n_epochs": 1, **settings}).fit(**arguments)
