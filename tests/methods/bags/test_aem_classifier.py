"""Training on bags: against a plain loop of torch, and what it must not depend on."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import nn

from offprint.methods.bags.aem import (
    ACMIL,
    DSMIL,
    DTFDMIL,
    AEMLoss,
    GatedABMIL,
    MaxMIL,
    MeanMIL,
    MILClassifier,
    MultiHeadPoolMIL,
    annealed_weight,
    attention_entropy,
)
from offprint.methods.bags.aem.classifier import score
from offprint.methods.bags.aem.slides import SlideDataset
from offprint.methods.bags.aem.sources import subsampled
from offprint.methods.bags.ragged import RaggedBags


@pytest.fixture
def as_users_call_it(monkeypatch):
    """Switch the checks of annotations off, as they are outside the tests, where trainings are twice as fast."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def drawn(n_bags, seed=0, shift=3.0):
    """Bags of 10 to 30 instances; of positive ones, 5 are shifted."""
    rng, y = np.random.default_rng(seed), np.tile([0, 1], n_bags // 2)
    bags = [rng.normal(size=(rng.integers(10, 31), 8)).astype(np.float32) for _ in y]
    for bag, label in zip(bags, y, strict=True):
        bag[:5] += shift * label
    return bags, y


class Slides(SlideDataset):
    """The same bags, read one by one."""

    def __init__(self, bags, y):
        names = [f"{i:03}" for i in range(len(bags))]
        super().__init__(dict(zip(names, map(int, y), strict=True)), {name: name for name in names})
        self.content = dict(zip(names, bags, strict=True))

    def read(self, slide_id):
        return torch.from_numpy(self.content[slide_id]), None


@pytest.mark.parametrize(("weight", "annealing"), [(0.0, "cosine"), (0.5, "cosine"), (0.5, "constant")])
def test_it_trains_as_a_plain_loop_of_torch_does(weight, annealing):
    """Every bag its own step, AdamW, half a cosine step by step, λ by epoch: written out in a dozen lines."""
    bags, y = drawn(6)
    model = GatedABMIL(8, generator=0)
    twin = copy.deepcopy(model)
    fitted = MILClassifier(model, 1e-2, 3, weight, annealing, batch_size=6, weight_decay=1e-2).fit(bags, y)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    padded = nn.utils.rnn.pad_sequence([torch.from_numpy(bag) for bag in bags], batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones(len(bag), dtype=torch.bool) for bag in bags], batch_first=True)
    for epoch in range(3):
        optimizer.zero_grad()
        output = twin(padded, mask)
        attention = output.attention_logits.softmax(-1).clamp_min(1e-30)
        neg_entropy = (attention * attention.log()).sum(-1).mean()
        loss = nn.functional.cross_entropy(output.logits, torch.from_numpy(y))
        (loss + annealed_weight(weight, epoch, 3, schedule=annealing) * neg_entropy).backward()
        optimizer.step()
        schedule.step()
        assert fitted.entropies_[epoch] == pytest.approx(-neg_entropy.item(), abs=1e-5)
    for (name, found), wanted in zip(model.named_parameters(), twin.parameters(), strict=True):
        if name != "pooling.score.bias":  # which the softmax cancels: its gradient is rounding, scaled up by AdamW
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)  # float32, added up in another order


def test_weights_by_label_are_those_of_the_loss_by_class():
    """Labels are sorted, so that "normal" is class 0. The floor lies between the entropies of bags, ln 13 to ln 30."""
    bags, y = drawn(6)
    names = np.where(y == 1, "tumour", "normal")
    found = []
    for given, weight in ((names, {"tumour": 0.4, "normal": 0.1}), (y, {0: 0.1, 1: 0.4}), (y, {0: 0.4, 1: 0.1})):
        model = GatedABMIL(8, generator=0)
        found.append(
            MILClassifier(model, 1e-2, 2, weight, batch_size=6, floor=3.0).fit(bags, given).predict_proba(bags)
        )
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])
    twin, loss = GatedABMIL(8, generator=0), AEMLoss(weight=(0.1, 0.4), total_epochs=2, floor=3.0)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)
    ragged = RaggedBags.from_list([torch.from_numpy(bag).float() for bag in bags])
    for epoch in range(2):
        optimizer.zero_grad()
        loss(twin(ragged), torch.from_numpy(y), epoch).backward()
        optimizer.step()
        schedule.step()
    expected = twin(ragged).logits.softmax(1).detach()
    np.testing.assert_allclose(found[1], expected, atol=1e-5)  # bags in another order, added up in float32


def test_the_same_seed_gives_the_same_model_and_leaves_torchs_state_alone(as_users_call_it):
    bags, y = drawn(8)
    found = []
    for state in (0, 1):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        model = ACMIL(8, dropout=0.2, generator=0)
        MILClassifier(model, 1e-2, 2, subsample=0.5, seed=5).fit(bags, y)
        assert torch.equal(torch.get_rng_state(), before)
        found.append(model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    other = ACMIL(8, dropout=0.2, generator=0)
    MILClassifier(other, 1e-2, 2, subsample=0.5, seed=6).fit(bags, y)
    assert not torch.equal(other.state_dict()["classifier.weight"], found[0]["classifier.weight"])


def test_lists_ragged_bags_and_slides_read_one_by_one_are_the_same():
    bags, y = drawn(8)
    ragged = RaggedBags.from_list([torch.from_numpy(bag) for bag in bags])
    found = []
    for given in (
        (bags, y),
        (ragged, torch.from_numpy(y)),
        ([bag.astype(np.float64) for bag in bags], list(y)),
        (Slides(bags, y), None),
    ):
        classifier = MILClassifier(GatedABMIL(8, generator=0), 1e-2, 2, batch_size=3).fit(
            *given, val=given if given[1] is not None else given[0]
        )
        found.append(classifier.predict_proba(given[0]))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@pytest.mark.parametrize(
    "made",
    [
        lambda: GatedABMIL(8, reduced_features=16, generator=0),
        lambda: DSMIL(8, generator=0),
        lambda: MultiHeadPoolMIL(8, reduced_features=16, generator=0),
        lambda: ACMIL(8, reduced_features=16, generator=0),
        lambda: DTFDMIL(8, reduced_features=16, generator=0),
        lambda: MeanMIL(8, reduced_features=16, generator=0),
        lambda: MaxMIL(8, reduced_features=16, generator=0),
    ],
)
def test_every_model_learns_an_easy_problem(made, as_users_call_it):
    (bags, y), (test_bags, test_y) = drawn(40, shift=5.0), drawn(20, seed=1, shift=5.0)
    model = made()
    weight = 0.0 if isinstance(model, MeanMIL) else 0.01
    classifier = MILClassifier(model, 2e-2, 10, weight, batch_size=8, validate_every=5).fit(
        bags, y, val=drawn(10, seed=2, shift=5.0)
    )
    probabilities = classifier.predict_proba(test_bags)
    assert (probabilities.argmax(1) == test_y).mean() >= 0.95
    assert probabilities.sum(1) == pytest.approx(np.ones(20))


def test_the_entropy_term_spreads_attention(as_users_call_it):
    bags, y = drawn(20)
    spread = {}
    for weight in (0.0, 1.0):
        model = GatedABMIL(8, generator=0)
        nn.init.normal_(model.pooling.score.weight, std=3.0, generator=torch.Generator().manual_seed(0))
        classifier = MILClassifier(model, 1e-2, 20, weight, "constant", batch_size=20, normalize=True).fit(bags, y)
        rows = [classifier.attention(bag)[0] for bag in bags]
        spread[weight] = np.mean([-(row * np.log(np.maximum(row, 1e-30))).sum() / math.log(len(row)) for row in rows])
        assert classifier.instance_weights(bags[0]) == pytest.approx(rows[0], abs=1e-6)
    assert spread[1.0] > spread[0.0] + 0.1


def test_the_best_epoch_on_validation_is_kept(as_users_call_it):
    """Labels of the validation bags are turned round, so that learning makes it worse and an early epoch is best."""
    (bags, y), (val_bags, val_y) = drawn(20), drawn(20, seed=1)
    model = GatedABMIL(8, generator=0)
    classifier = MILClassifier(model, 1e-2, 6, 0.0, batch_size=4).fit(bags, y, val=(val_bags, 1 - val_y))
    scores = [-value for value in classifier.history_.validation_losses]
    assert scores.index(max(scores)) + 1 == classifier.history_.best_epoch < 6
    assert score(1 - val_y, classifier.predict_proba(val_bags)) == pytest.approx(max(scores))


def test_the_score_is_scikit_learns():
    from sklearn.metrics import f1_score, roc_auc_score

    rng = np.random.default_rng(0)
    probabilities, y = rng.dirichlet(np.ones(3), 50), rng.integers(3, size=50)
    expected = f1_score(y, probabilities.argmax(1), average="macro") + roc_auc_score(
        y, probabilities, multi_class="ovr"
    )
    assert score(y, probabilities) == pytest.approx(expected)
    assert score(np.zeros(50, int), probabilities) <= 1  # one class alone has no AUC


def test_subsampling_keeps_a_share_of_each_bag_evenly():
    bags = RaggedBags(torch.arange(31.0), torch.tensor([0, 20, 21, 31]))
    source, counts = torch.Generator().manual_seed(0), torch.zeros(31)
    for _ in range(100):
        kept = subsampled(bags, 0.5, source)
        assert kept.sizes.tolist() == [10, 1, 5]
        assert all(set(few.tolist()) <= set(all_.tolist()) for few, all_ in zip(kept, bags, strict=True))
        counts[kept.values.long()] += 1
    assert counts[20] == 100
    # A standard error of 5 %: 5 of them are passed by one in 50,000 such tests.
    assert (counts[counts < 100] / 100 - 0.5).abs().max() < 0.25


def test_labels_of_any_kind_come_back(as_users_call_it):
    bags, y = drawn(20)
    names = np.array(["normal", "tumour"])[y]
    model = GatedABMIL(8, reduced_features=16, generator=0)
    classifier = MILClassifier(model, 2e-2, 5, 0.01, batch_size=5).fit(bags, names)
    assert classifier.classes_.tolist() == ["normal", "tumour"]
    assert (classifier.predict(bags) == names).mean() >= 0.95


BAGS, Y = drawn(4)


@pytest.mark.parametrize(
    ("settings", "given", "named"),
    [
        ({"learning_rate": 0.0}, (BAGS, Y), "learning_rate"),
        ({"epochs": 0}, (BAGS, Y), "epochs"),
        ({"aem_weight": -0.1}, (BAGS, Y), "aem_weight"),
        ({"aem_weight": {0: 0.1}}, (BAGS, Y), "aem_weight must hold each label"),
        ({"aem_weight": {0: 0.1, 1: -0.1}}, (BAGS, Y), "aem_weight must be at least 0"),
        ({"floor": -1.0}, (BAGS, Y), "floor"),
        ({"schedule": "linear"}, (BAGS, Y), "schedule"),
        ({"subsample": 0.0}, (BAGS, Y), "subsample"),
        ({"batch_size": 0}, (BAGS, Y), "batch_size"),
        ({"weight_decay": -1.0}, (BAGS, Y), "weight_decay"),
        ({}, ([], []), "bags must be"),
        ({}, ([BAGS[0], np.zeros((0, 8))], [0, 1]), "bag 1"),
        ({}, ([BAGS[0], np.zeros((3, 7))], [0, 1]), "bag 1"),
        ({}, ([BAGS[0], np.full((3, 8), np.nan)], [0, 1]), "bags must be finite; bag 1"),
        ({}, (RaggedBags(torch.zeros(3, 8), torch.tensor([0, 3, 3])), [0, 1]), "bags must be .*bag 1 is empty"),
        ({}, (RaggedBags(torch.zeros(3), torch.tensor([0, 1, 3])), [0, 1]), r"bags must hold .*got shape \(3,\)"),
        ({}, (RaggedBags(torch.zeros(3, 8).long(), torch.tensor([0, 1, 3])), [0, 1]), "bags must hold floating"),
        ({}, (BAGS, Y[:3]), "y must hold one label"),
        ({}, (BAGS, [0, 0, 0, 0]), "two classes"),
        ({}, (BAGS, [0, 1, 2, 0]), "3 classes, but the model has 2"),
        ({}, (BAGS, None), "y must hold labels"),
        ({}, (BAGS, Y, (BAGS, [0, 1, 2, 0])), "val.*unknown: \\[2\\]"),
        ({}, (BAGS, Y, ([np.full((3, 8), np.inf)], [0])), "val must be finite"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(settings, given, named, as_users_call_it):
    with pytest.raises(ValueError, match=named):
        MILClassifier(GatedABMIL(8, generator=0), **{"epochs": 1, **settings}).fit(*given)


def test_models_that_are_none_and_calls_too_early_are_refused(as_users_call_it):
    with pytest.raises(TypeError, match="model must be a torch"):
        MILClassifier(None).fit(BAGS, Y)
    with pytest.raises(TypeError, match=r"MILOutput.*AEMRegularizer\.attach"):
        MILClassifier(Plain(), epochs=1).fit(BAGS, Y)
    with pytest.raises(ValueError, match="no attention logits"):
        MILClassifier(MeanMIL(8), epochs=1).fit(BAGS, Y)
    with pytest.raises(ValueError, match="not fitted"):
        MILClassifier(GatedABMIL(8)).predict(BAGS)
    fitted = MILClassifier(GatedABMIL(8, generator=0), epochs=1).fit(BAGS, Y)
    with pytest.raises(ValueError, match="8 features; got 5"):
        fitted.predict([np.zeros((3, 5))])


class Plain(nn.Module):
    """A model that returns a tensor."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 2)

    def forward(self, bags):
        return self.layer(bags.values)[:1]


def test_bags_of_one_instance_have_an_entropy_of_nothing():
    classifier = MILClassifier(GatedABMIL(8, generator=0), epochs=1).fit([bag[:1] for bag in BAGS], Y)
    assert classifier.entropies_ == (0.0,)
    assert attention_entropy(torch.zeros(1)).item() == 0
