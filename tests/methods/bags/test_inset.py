"""The selector on sets whose answer only the whole set tells, against chance by formula, and its boundaries."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import nn

from offprint.methods.bags.inset import SubsetSelector
from offprint.methods.bags.inset_data import jaccard, pad_sets, top
from offprint.methods.bags.inset_mean_field import MeanField
from offprint.methods.bags.inset_networks import SubsetNetworks, subset_loss
from offprint.methods.bags.inset_recognition import CopulaRecognition
from offprint.methods.bags.inset_utility import SetUtility

QUICK = {"features": 8, "hidden_features": 16, "learning_rate": 0.01, "n_epochs": 15, "batch_size": 32}


def minority_sets(
    n_sets: int, size: int = 10, rare: int = 3, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sets of two values, which of the two is the rarer drawn for each: it is the subset."""
    rng = np.random.default_rng(seed)
    sets, chosen = [], []
    for _ in range(n_sets):
        mask = rng.permutation(size) < rare
        sign = 1 if rng.random() < 0.5 else -1
        sets.append(np.where(mask, sign, -sign)[:, None].astype(np.float32))
        chosen.append(mask)
    return sets, chosen


def test_the_whole_set_tells_what_single_elements_cannot():
    """What is odd is a fair coin for each set, so a scorer of single elements picks the odd one in half of the sets.

    Told the whole set, every selection is right.
    """
    sets, chosen = minority_sets(120, rare=1)
    test = minority_sets(60, rare=1, seed=1)
    selector = SubsetSelector(mode="diffMF", mc_samples=1, **{**QUICK, "n_epochs": 30}).fit(sets, chosen)
    assert selector.score(*test) == 1.0
    one_kind = [np.flatnonzero(elements[:, 0] == elements.max())[:1] for elements in test[0]]
    assert jaccard(test[1], one_kind).mean() < 0.7
    assert np.mean(jaccard(test[1], selector.select(test[0]))) == 1.0  # by the calibrated threshold


@pytest.mark.parametrize("mode", ["ind", "copula"])
def test_a_recognition_network_is_trained_beside_the_utility(mode):
    sets, chosen = minority_sets(96)
    settings = {**QUICK, "n_epochs": 14, "learning_rate": 0.03}
    selector = SubsetSelector(mode=mode, mc_samples=2, **settings).fit(sets, chosen)
    assert selector.score(*minority_sets(40, seed=1)) > 0.95
    untrained = SubsetSelector(mode=mode, **{**QUICK, "n_epochs": 1, "learning_rate": 1e-12}).fit(sets, chosen)
    before, after = (s.model_.recognition.state_dict() for s in (untrained, selector))
    assert all((before[name] - after[name]).abs().max() > 1e-3 for name in before)


def test_the_utility_does_not_train_the_recognition_network():
    """In the second half of a step mean-field starts from proposals as they are."""
    sets, chosen = minority_sets(8)
    selector = SubsetSelector(mode="ind", **{**QUICK, "n_epochs": 1}).fit(sets, chosen)
    data, model = pad_sets(sets, chosen), selector.model_
    model.zero_grad()
    subset_loss(model.infer(data.x, data.mask, 1, 5), data.mask, data.chosen, 1.0).backward()
    assert all(parameter.grad is None for parameter in model.recognition.parameters())
    assert all(parameter.grad is not None for parameter in model.utility.parameters())


@pytest.mark.parametrize("mode", ["ind", "copula"])
def test_the_recognition_network_climbs_its_bound_and_moves_nothing_else(mode):
    """Towards log Σ exp F over all 2^6 subsets. Of 20,000 draws of independent noise the bound has an error of 0.03."""
    torch.manual_seed(0)
    utility = SetUtility(nn.Linear(2, 4), 4, 8, generator=0)
    for parameter in utility.parameters():
        nn.init.normal_(parameter)
    model = SubsetNetworks(utility, CopulaRecognition(nn.Linear(2, 4), 4, 16, generator=1), (2,))
    x, mask = torch.randn(3, 6, 2), torch.ones(3, 6, dtype=torch.bool)
    every = torch.tensor(list(itertools.product([False, True], repeat=6))).expand(3, -1, -1)
    with torch.no_grad():
        log_z = utility(x, every).logsumexp(1).mean().item()
    fixed = [parameter.clone() for parameter in utility.parameters()]

    def bound() -> float:
        with torch.no_grad():
            return model.bound(x, mask, 20_000, 0.1, "ind").item()

    before = bound()
    selector = SubsetSelector(mode=mode, mc_samples=16, temperature=0.3)
    optimizer = torch.optim.Adam(model.recognition.parameters(), 0.02)
    for _ in range(100):
        selector._recognise(model, x, mask, optimizer)
    after = bound()
    assert before + 1 < after
    assert log_z - 0.5 < after <= log_z + 0.1
    assert all(torch.equal(a, b) for a, b in zip(fixed, utility.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in utility.parameters())


def test_the_loss_counts_the_subset_and_as_many_others_as_asked_for():
    """Where all logits are 0 each element that counts adds log 2. Of sets of 5 and of 3 elements, padded to 6."""
    mask = torch.arange(6) < torch.tensor([[5], [3]])
    chosen = torch.tensor([[True, True, False, False, False, False], [False, True, False, False, False, False]])
    nothing = MeanField(torch.full((2, 6), 0.5), torch.zeros(2, 6), 1, 0.0)
    for ratio, others in ((1.0, (2, 1)), (1.5, (3, 2)), (0.1, (1, 1)), (9.0, (3, 2))):
        wanted = math.log(2) * (2 + others[0] + 1 + others[1]) / 2
        assert subset_loss(nothing, mask, chosen, ratio).item() == pytest.approx(wanted)
    empty = subset_loss(nothing, mask, chosen & ~chosen, 1.0).item()  # one other says that there is nothing
    assert empty == pytest.approx(math.log(2))
    # Which others count is drawn: of 5 elements with 2 inside, each of 3 with probability 2 / 3. Of these
    # logits the loss of an element outside is the logit itself. 600 draws have a standard error of 0.02.
    logits = torch.tensor([[0.0, 0.0, 20.0, 200.0, 2000.0, 20000.0]])
    found = MeanField(logits.sigmoid(), logits, 1, 0.0)
    torch.manual_seed(0)
    drawn = [subset_loss(found, mask[:1], chosen[:1], 1.0).item() - 2 * math.log(2) for _ in range(600)]
    seen, counts = np.unique(np.round(drawn), return_counts=True)
    assert seen.tolist() == [220.0, 2020.0, 2200.0]
    assert (abs(counts / 600 - 1 / 3) < 0.1).all()


@pytest.mark.parametrize(("context", "in_q"), [(True, False), (False, True), (True, None), (False, None)])
def test_the_proposals_may_see_the_set_or_not_whatever_the_utility_does(context, in_q):
    sets, chosen = minority_sets(8)
    model = SubsetSelector(context=context, context_in_q=in_q, **{**QUICK, "n_epochs": 1}).fit(sets, chosen).model_
    assert (model.utility.context is not None) == context
    assert (model.recognition.told is not None) == (context if in_q is None else in_q)


def test_only_with_context_does_the_utility_depend_on_the_rest_of_the_set():
    one, other = np.array([[1.0], [1.0], [-1.0]]), np.array([[1.0], [1.0], [1.0]])
    sets, chosen = minority_sets(64)
    for context in (True, False):
        selector = SubsetSelector(context=context, mode="ind", **{**QUICK, "n_epochs": 3}).fit(sets, chosen)
        gap = abs(selector.utility([one], [[0, 1]]) - selector.utility([other], [[0, 1]])).item()
        assert gap > 1e-3 if context else gap < 1e-6
        assert (selector.model_.recognition.told is not None) == context


def test_sets_of_unequal_sizes_are_as_if_alone():
    """To 1e-5 in float32, with elements that add up to one: one draw more or less would show."""
    sets, chosen = minority_sets(40, 6, 2)
    more, more_chosen = minority_sets(40, 9, 2)
    selector = SubsetSelector(mode="copula", **{**QUICK, "n_epochs": 2}).fit([*sets, *more], [*chosen, *more_chosen])
    together = selector.utility([sets[0], more[0]], [chosen[0], more_chosen[0]])
    alone = [selector.utility([sets[0]], [chosen[0]])[0], selector.utility([more[0]], [more_chosen[0]])[0]]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert [len(p) for p in selector.predict_proba([sets[0], more[0]])] == [6, 9]


def test_an_encoder_of_ones_own_for_images():
    images = np.random.default_rng(0).standard_normal((20, 5, 1, 4, 4)).astype(np.float32)
    bright = images.mean((2, 3, 4)).argsort(1)[:, -2:]
    encoder = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
    before = [parameter.clone() for parameter in encoder.parameters()]
    selector = SubsetSelector(encoder, mode="copula", hidden_features=8, n_epochs=2).fit(images, bright)
    assert [len(chosen) for chosen in selector.select(images, 2)] == [2] * 20
    assert [len(chosen) for chosen in selector.select(images[:2], [1, 4])] == [1, 4]
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))


def test_validation_stops_and_keeps_the_best_epoch():
    sets, chosen = minority_sets(64)
    held_out = minority_sets(40, seed=2)
    settings = {**QUICK, "n_epochs": 40, "patience": 3}
    selector = SubsetSelector(mode="diffMF", **settings).fit(sets, chosen, validation=held_out)
    history = selector.history_
    assert history.stopped_early
    assert selector.score(*held_out) == pytest.approx(-min(history.validation_losses))


def test_the_same_seed_learns_and_selects_the_same():
    sets, chosen = minority_sets(32)
    one, other, third = (
        SubsetSelector(random_state=seed, **{**QUICK, "n_epochs": 1}).fit(sets, chosen) for seed in (0, 0, 1)
    )
    for a, b, c in zip(*(s.predict_proba(sets[:3]) for s in (one, other, third)), strict=True):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)
    assert np.array_equal(one.predict_proba(sets[:3])[0], one.predict_proba(sets[:3])[0])


def test_a_search_raises_the_utility_of_what_is_selected():
    """Of the given sizes, or of those that the utility itself prefers."""
    sets, chosen = minority_sets(32)
    more, sizes = [*minority_sets(20, seed=1)[0], *minority_sets(20, 7, 2, seed=2)[0]], [3] * 20 + [2] * 20
    selector = SubsetSelector(mode="diffMF", **{**QUICK, "batch_size": 16}).fit(sets, chosen)
    plain = selector.select(more, sizes)
    for method in ("local", "greedy"):
        searched = selector.select(more, sizes, search=method)
        assert [len(one) for one in searched] == sizes
        if method == "local":
            assert (selector.utility(more, searched) >= selector.utility(more, plain) - 1e-5).all()
    report = selector.search(more, sizes)
    assert report.converged.all()
    assert report.chosen.shape == (40, 10)
    np.testing.assert_allclose(
        report.utility, selector.utility(more, selector.select(more, sizes, search="local")), atol=1e-5
    )
    np.testing.assert_allclose(report.start_utility, selector.utility(more, plain), atol=1e-5)
    assert (TRAINED.search(np.random.default_rng(0).standard_normal((20, 10, 1)), 3).n_moves > 0).any()
    unsized = selector.search(more, method="local")
    assert (unsized.utility >= selector.search(more, [int(n) for n in unsized.chosen.sum(1)]).utility - 1e-4).all()
    nothing = selector.search(more, method="greedy").start_utility
    np.testing.assert_allclose(nothing, selector.utility(more, [[]] * 40), atol=1e-5)


def test_overlap_of_known_subsets():
    found = jaccard([[1, 2, 3], [], [0], [False, False, True]], [[2, 3, 4], [], [], np.array([True, False, True])])
    assert found.tolist() == [0.5, 1.0, 0.0, 0.5]
    assert jaccard([[False, False, True]], [[2]]).tolist() == [1.0]


def test_random_selections_overlap_as_the_formula_says():
    """The overlap of k of n with k others is hypergeometric. 0.05 is far above the standard error of 4000 draws."""
    n, k, rng = 10, 3, np.random.default_rng(0)
    wanted = sum(math.comb(k, i) * math.comb(n - k, k - i) / math.comb(n, k) * i / (2 * k - i) for i in range(k + 1))
    pairs = [(rng.permutation(n)[:k], rng.permutation(n)[:k]) for _ in range(4000)]
    assert jaccard(*zip(*pairs, strict=True)).mean() == pytest.approx(wanted, abs=0.02)


def test_the_largest_of_those_allowed():
    scores, among = torch.tensor([[5.0, 1.0, 3.0, 2.0]]), torch.tensor([[False, True, True, True]])
    assert top(scores, torch.tensor([2]), among).tolist() == [[False, False, True, True]]
    assert top(scores, torch.tensor([4]), among).tolist() == among.tolist()


SETS, CHOSEN = minority_sets(4)
TRAINED = SubsetSelector(mode="diffMF", **{**QUICK, "n_epochs": 1}).fit(SETS, CHOSEN)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: SubsetSelector().fit([], []), ValueError, "sets"),
        (lambda: SubsetSelector().fit(SETS, CHOSEN[:3]), ValueError, "subsets"),
        (lambda: SubsetSelector().fit(SETS, [*CHOSEN[:3], [10]]), ValueError, "subsets"),
        (lambda: SubsetSelector().fit(SETS, [*CHOSEN[:3], [-1]]), ValueError, "subsets"),
        (lambda: SubsetSelector().fit(SETS, [*CHOSEN[:3], [True, False]]), ValueError, "subsets"),
        (lambda: SubsetSelector().fit(SETS, [*CHOSEN[:3], [0.5]]), TypeError, "subsets"),
        (lambda: SubsetSelector().fit(SETS, [c.astype(int) for c in CHOSEN]), ValueError, "subsets .* must be boolean"),
        (lambda: SubsetSelector().fit(SETS, [*CHOSEN[:3], [2, 2]]), ValueError, "subsets must hold each position once"),
        (lambda: SubsetSelector().fit(SETS, [*CHOSEN[:3], [np.nan]]), ValueError, "subsets"),
        (lambda: SubsetSelector().fit([*SETS[:3], SETS[3] * np.nan], CHOSEN), ValueError, "sets"),
        (lambda: SubsetSelector().fit([*SETS[:3], np.ones((10, 2))], CHOSEN), ValueError, "sets"),
        (lambda: SubsetSelector().fit([*SETS[:3], SETS[3][:, 0]], CHOSEN), ValueError, "sets"),
        (lambda: SubsetSelector().fit([*SETS[:3], [["a"]]], CHOSEN), TypeError, "sets"),
        (lambda: SubsetSelector().fit([np.ones((3, 1, 4, 4))], [[0]]), ValueError, "encoder"),
        (lambda: SubsetSelector(mode="both").fit(SETS, CHOSEN), ValueError, "mode"),
        (lambda: SubsetSelector(merge="both").fit(SETS, CHOSEN), ValueError, "merge"),
        (lambda: SubsetSelector(temperature=0).fit(SETS, CHOSEN), ValueError, "temperature"),
        (lambda: SubsetSelector(mc_samples=0).fit(SETS, CHOSEN), ValueError, "mc_samples"),
        (lambda: TRAINED.select(SETS, 11), ValueError, "size"),
        (lambda: TRAINED.select(SETS, [1, 2]), ValueError, "size"),
        (lambda: TRAINED.select(SETS, 1.5), ValueError, "size"),
        (lambda: TRAINED.select(SETS, search="none"), ValueError, "search"),
        (lambda: TRAINED.search(SETS, method="none"), ValueError, "method"),
        (lambda: TRAINED.search(SETS, max_moves=0), ValueError, "max_moves"),
        (lambda: TRAINED.confidence(SETS, CHOSEN[:2]), ValueError, "subsets"),
        (lambda: TRAINED.predict_proba([np.ones((3, 2))]), ValueError, "sets"),
        (lambda: jaccard([[1]], [[1], [2]]), ValueError, "true"),
        (lambda: jaccard([[1]], [[0, 1, 0]]), ValueError, "predicted .* must be boolean"),
        (lambda: jaccard([[-1]], [[0]]), ValueError, "true must hold positions of at least 0; got -1"),
    ],
)
def test_what_is_refused(call, error, named, monkeypatch):
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)
    with pytest.raises(error, match=named):
        call()


def test_subsets_of_one_kind_are_warned_of():
    with pytest.warns(UserWarning, match="2 subsets"):
        SubsetSelector(mode="diffMF", **{**QUICK, "n_epochs": 1}).fit([SETS[0], SETS[1][:1]], [[], [0]])
