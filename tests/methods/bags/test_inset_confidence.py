"""Expected overlaps against enumeration of all true subsets, the distribution of their sizes, and draws that happen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from jaxtyping import config
from scipy.stats import spearmanr

from offprint.methods.bags.inset import SubsetSelector
from offprint.methods.bags.inset_confidence import expected_jaccard
from offprint.methods.bags.inset_data import jaccard

SOURCE = np.random.default_rng(0)


def by_enumeration(q: np.ndarray, chosen: np.ndarray, same_size: bool) -> float:
    """The mean over all 2^N subsets, each as likely as its elements, of which those of another size may be left out."""
    total = likely = 0.0
    for row in itertools.product([False, True], repeat=len(q)):
        true = np.array(row)
        if same_size and true.sum() != chosen.sum():
            continue
        chance = np.where(true, q, 1 - q).prod()
        either = (true | chosen).sum()
        likely += chance
        total += chance * ((true & chosen).sum() / either if either else 1.0)
    return total / likely


@pytest.mark.parametrize("same_size", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_it_is_the_mean_over_all_subsets(n, same_size):
    """Every size of the selected subset. Both sides are sums of at most 2^9 terms in float64: 1e-10."""
    q = SOURCE.uniform(0.02, 0.98, (n + 1, n))
    chosen = np.arange(n) < np.arange(n + 1)[:, None]
    found = expected_jaccard(torch.tensor(q), torch.tensor(chosen), same_size=same_size)
    wanted = [by_enumeration(a, b, same_size) for a, b in zip(q, chosen, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("same_size", [False, True])
def test_padding_and_certain_elements_are_left_out(same_size):
    q = torch.tensor([[0.3, 0.8, 0.5, 0.0, 1.0]], dtype=torch.float64)
    chosen = torch.tensor([[False, True, False, False, True]])
    wanted = by_enumeration(q[0].numpy(), chosen[0].numpy(), same_size)
    assert expected_jaccard(q, chosen, same_size=same_size).item() == pytest.approx(wanted, abs=1e-9)
    padded, mask = torch.cat([q, 0 * q + 0.9], 1), torch.arange(10)[None] < 5
    more = torch.cat([chosen, torch.zeros(1, 5, dtype=torch.bool)], 1)
    assert expected_jaccard(padded, more, mask, same_size=same_size).item() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("n_chosen", [1, 40, 900])
def test_large_sets_by_the_distribution_of_sizes(n_chosen):
    """Beyond 512 elements quadrature is no longer exact: 1e-8, relative, against the distribution from convolutions."""
    q, chosen = SOURCE.beta(0.5, 2.0, 1800), np.zeros(1800, dtype=bool)
    chosen[np.argsort(-q)[:n_chosen]] = True
    outside = np.array([1.0])
    for chance in q[~chosen]:
        outside = np.convolve(outside, [1 - chance, chance])
    wanted = q[chosen].sum() * (outside / (n_chosen + np.arange(len(outside)))).sum()
    found = expected_jaccard(torch.tensor(q)[None], torch.tensor(chosen)[None]).item()
    assert found == pytest.approx(wanted, rel=1e-8)


def test_with_the_size_known_a_common_factor_of_the_odds_does_not_count():
    """Even one of e^30, where all that counts is very unlikely at first; clamped probabilities keep 1e-3."""
    logits = torch.linspace(-2, 3, 60, dtype=torch.float64)[None]
    chosen = logits > 1
    wanted = expected_jaccard(logits.sigmoid(), chosen, same_size=True).item()
    for factor in (-10.0, 5.0):
        found = expected_jaccard((logits + factor).sigmoid(), chosen, same_size=True).item()
        assert found == pytest.approx(wanted, abs=1e-7)
    assert expected_jaccard((logits + 5).sigmoid(), chosen).item() < wanted - 0.1
    few = torch.zeros(1, 3000, dtype=torch.float64) + 0.7
    one = torch.arange(3000)[None] < 2
    # Two of 3000 that are alike: they share one with probability 2 / 1500, nearly, and then overlap by a third.
    shared = 2 * 2 * 2998 / (3000 * 2999) / 3 + 2 / (3000 * 2999)
    assert expected_jaccard(few, one, same_size=True).item() == pytest.approx(shared, rel=1e-9)


def test_it_ranks_real_selections_by_how_right_they_are():
    """Sets with an odd third and much noise: sure selections overlap more. 0.25 is five standard errors of 400 sets."""
    rng = np.random.default_rng(0)

    def draw(n_sets):
        odd = np.arange(9) < 3
        side = rng.choice([-1, 1], (n_sets, 1))
        noise = rng.uniform(0.2, 1.5, (n_sets, 1, 1)) * rng.standard_normal((n_sets, 9, 1))
        return (np.where(odd, side, -side)[..., None] + noise).astype(np.float32), np.tile(odd, (n_sets, 1))

    selector = SubsetSelector(features=16, hidden_features=32, mode="diffMF", learning_rate=3e-3, n_epochs=15)
    selector.fit(*draw(300))
    sets, true = draw(400)
    for size, same_size in ((3, True), (None, False)):
        selected = selector.select(sets, size)
        believed, real = selector.confidence(sets, selected, same_size=same_size), jaccard(true, selected)
        assert spearmanr(believed, real).statistic > 0.25
        assert ((believed >= 0) & (believed <= 1)).all()


HALF, NONE = torch.full((2, 3), 0.5), torch.zeros(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: expected_jaccard(HALF * torch.nan, NONE), ValueError, "probabilities"),
        (lambda: expected_jaccard(HALF + 1, NONE), ValueError, "probabilities"),
        (lambda: expected_jaccard(HALF[0], NONE), ValueError, "probabilities"),
        (lambda: expected_jaccard(HALF.long(), NONE), TypeError, "probabilities"),
        (lambda: expected_jaccard(HALF, NONE[:, :2]), ValueError, "chosen"),
        (lambda: expected_jaccard(HALF, HALF), TypeError, "chosen"),
        (lambda: expected_jaccard(HALF, NONE, NONE[:1]), ValueError, "mask"),
        (lambda: expected_jaccard(HALF, ~NONE, NONE), ValueError, "chosen"),
    ],
)
def test_what_is_refused(call, error, named, monkeypatch):
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)
    with pytest.raises(error, match=named):
        call()
