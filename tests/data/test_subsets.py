"""Sets and subsets against what is known of how they are drawn."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import config
from sklearn.datasets import make_moons

from offprint.data.subsets import (
    class_anomaly_sets,
    cluster_anomaly_sets,
    gaussian_sets,
    registry_sets,
    two_moons_sets,
)


def test_moons_are_those_of_scikit_learn():
    """Without noise every point lies on a half circle; scikit-learn's, moved alike, show where they are."""
    data = two_moons_sets(4, 50, 5, noise=0.0)
    theirs, which = make_moons(4000, random_state=0)
    moons = 2 * torch.tensor(theirs, dtype=torch.float32) + torch.tensor([-1.0, -0.2])
    nearest = torch.cdist(data.sets, moons.expand(4, -1, -1)).min(2)
    assert nearest.values.max() < 0.01
    kinds = torch.tensor(which)[nearest.indices]
    for kind, chosen in zip(kinds, data.chosen, strict=True):
        assert len(kind[chosen].unique()) == len(kind[~chosen].unique()) == 1
        assert kind[chosen][0] != kind[~chosen][0]


def test_either_kind_is_the_odd_one():
    """Of 200 sets about 100 have their odd points up right: outside 50 to 150 with probability below 1e-12."""
    data = gaussian_sets(200, 20, 3)
    odd, rest = (
        torch.stack([s[c].mean(0) for s, c in zip(data.sets, which, strict=True)])
        for which in (data.chosen, ~data.chosen)
    )
    assert 50 < (odd.sum(1) > 0).sum() < 150
    assert ((odd.sum(1) > 0) != (rest.sum(1) > 0)).float().mean() > 0.95
    assert rest.norm(dim=1).mean().item() == pytest.approx(1, abs=0.05)


def test_clusters_are_close_and_anomalies_far():
    """Without noise, normal points coincide and anomalies do not."""
    data = cluster_anomaly_sets(50, noise=0.0)
    for elements, chosen in zip(data.sets, data.chosen, strict=True):
        assert len(elements[~chosen].unique(dim=0)) == 1
        assert (elements[chosen] != elements[~chosen][0]).any(1).all()
    assert len(data.sets.flatten(0, 1).unique(dim=0)) == 10


def test_inputs_of_one_class_and_some_of_others():
    labels = torch.tensor([3, 5, 3, 9, 5, 9, 9])
    data = class_anomaly_sets(labels[:, None].float(), labels, 300, 6, (1, 2))
    assert set(data.chosen.sum(1).tolist()) == {1, 2}
    normal = set()
    for elements, chosen in zip(data.sets[..., 0], data.chosen, strict=True):
        assert len(elements[~chosen].unique()) == 1
        assert (elements[chosen] != elements[~chosen][0]).all()
        normal.add(elements[~chosen][0].item())
    assert normal == {3.0, 5.0, 9.0}


def test_wanted_items_lie_together():
    """Almost without noise the wanted ones are of two categories that no other item has."""
    data = registry_sets(40, noise=1e-3)
    for items, chosen in zip(data.sets, data.chosen, strict=True):
        together = torch.cdist(items, items) < 1
        assert torch.equal(together[chosen].any(0), chosen)
        assert len(torch.unique(together[chosen], dim=0)) <= 2


@pytest.mark.parametrize("make", [two_moons_sets, gaussian_sets, cluster_anomaly_sets, registry_sets])
def test_the_same_seed_draws_the_same_sets(make):
    one, other = make(5, 30), make(5, 30)
    assert torch.equal(one.sets, other.sets)
    assert torch.equal(one.part(2, 4).chosen, other.chosen[2:4])
    assert not torch.equal(one.sets, make(5, 30, generator=1).sets)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: gaussian_sets(0), "n_sets"),
        (lambda: gaussian_sets(2, 5, 5), "size"),
        (lambda: cluster_anomaly_sets(2, n_clusters=1), "two classes"),
        (lambda: class_anomaly_sets(torch.zeros(3, 1), torch.tensor([0, 1]), 2), "labels"),
        (lambda: class_anomaly_sets(torch.zeros(3, 1), torch.tensor([0, 0, 0]), 2), "two classes"),
        (lambda: class_anomaly_sets(torch.zeros(3, 1), torch.tensor([0, 1, 0]), 2, n_anomalies=(0, 2)), "subset"),
        (lambda: class_anomaly_sets(torch.zeros(3, 1), torch.tensor([0, 1, 0]), 2, n_anomalies=(3, 2)), "subset"),
        (lambda: class_anomaly_sets(torch.zeros(3, 1), torch.tensor([0, 1, 0]), 0), "n_sets"),
        (lambda: registry_sets(2, 10), "size"),
        (lambda: registry_sets(2, n_wanted=(16, 10)), "subset"),
        (lambda: registry_sets(2, noise=-1.0), "noise"),
        (lambda: registry_sets(2, n_features=0), "n_features"),
        (lambda: two_moons_sets(2, noise=float("nan")), "noise"),
        (lambda: cluster_anomaly_sets(2, noise=float("inf")), "noise"),
        (lambda: cluster_anomaly_sets(2, n_features=0), "n_features"),
    ],
)
def test_what_is_refused(call, named, monkeypatch):
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=named):
        call()
