"""The bags of the unit tests, by their counts and by scores that are the best there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm
from sklearn.metrics import roc_auc_score

from offprint.methods.bags.mil_unit_tests import (
    BACKGROUND,
    CONCEPT_A,
    CONCEPT_B,
    POISON,
    POSITIVE,
    make_false_frequency,
    make_multi_concept,
    make_single_concept,
)
from offprint.methods.bags.ragged import segment_max

MAKERS = {"single": make_single_concept, "multi": make_multi_concept, "frequency": make_false_frequency}


def is_uniform(counts: torch.Tensor, low: int, high: int) -> bool:
    """Chi-square of counts against uniform on low..high; a false alarm once in a thousand."""
    seen = torch.bincount(counts, minlength=high + 1)
    outside = int(seen[:low].sum() + seen[high + 1 :].sum())
    return outside == 0 and chisquare(seen[low : high + 1].numpy()).pvalue > 1e-3


def best_scores(data, variant: str) -> torch.Tensor:
    """Log-likelihood ratio of a positive item against background by SciPy, poison forced down, largest of the bag."""
    rows = data.bags.values.double().numpy()
    parts = [norm.logpdf(rows, 0, 3).sum(1), norm.logpdf(rows, 1, 1).sum(1)]
    positive = np.logaddexp(*parts) - np.log(2) if variant == "paper" else parts[0]
    ratio = torch.as_tensor(positive - norm.logpdf(rows).sum(1))
    ratio[rows.mean(1) < -5] = -50
    return segment_max(ratio, data.bags.ids, data.bags.n_bags)


def test_counts_of_the_first_test_are_those_of_the_paper():
    train, test = (make_single_concept(20_000, split, 1, generator=1) for split in ("train", "test"))
    positive = train.y == 1
    assert positive.sum() == 10_000
    assert (train.counts(POISON) == (~positive).long()).all()
    assert (test.counts(POISON) == test.y).all()
    assert ((train.counts(POSITIVE) > 0) == positive).all()
    for data in (train, test):
        chosen = data.y == 1
        assert is_uniform(data.counts(POSITIVE)[chosen], 1, 3)
        assert is_uniform(data.counts(BACKGROUND)[chosen], 1, 4)
        assert is_uniform(data.counts(BACKGROUND)[~chosen], 1, 9)
    sizes = train.bags.sizes
    assert (sizes[~positive].min(), sizes[~positive].max()) == (2, 10)
    assert (sizes[positive].min(), sizes[positive].max()) == (2, 7)


def test_counts_of_the_second_test_are_those_of_the_paper():
    train, test = (make_multi_concept(20_000, split, 1, generator=1) for split in ("train", "test"))
    for data in (train, test):
        chosen = data.y == 1
        first, second = data.counts(CONCEPT_A), data.counts(CONCEPT_B)
        assert is_uniform(first[chosen], 1, 4)
        assert is_uniform(second[chosen], 1, 4)
        assert (first + second)[~chosen].eq(1).all()
        assert is_uniform(first[~chosen], 0, 1)
        assert is_uniform(data.counts(BACKGROUND), 1, 4)
    assert train.counts(POISON)[train.y == 0].eq(1).all()
    # 10,000 draws of probability 0.1 have a standard deviation of 0.003: four of them.
    assert abs(train.counts(POISON)[train.y == 1].double().mean() - 0.1) < 0.012
    assert (test.counts(POISON) == test.y).all()
    version = make_multi_concept(20_000, "train", 1, with_neither=True, generator=1)
    kind = (version.counts(CONCEPT_A) + 2 * version.counts(CONCEPT_B))[version.y == 0]
    assert is_uniform(kind, 0, 2)


def test_counts_of_the_third_test_are_those_of_the_paper():
    train, test = (make_false_frequency(20_000, split, 1, generator=1) for split in ("train", "test"))
    for data in (train, test):
        chosen = data.y == 1
        assert data.counts(CONCEPT_A)[chosen].eq(1).all()
        assert data.counts(CONCEPT_B)[chosen].eq(1).all()
        assert is_uniform(data.counts(BACKGROUND), 1, 9)
    alone = (train.counts(CONCEPT_A) + train.counts(CONCEPT_B))[train.y == 0]
    assert alone.eq(1).all()
    first, second = test.counts(CONCEPT_A)[test.y == 0], test.counts(CONCEPT_B)[test.y == 0]
    assert (first * second).eq(0).all()
    assert is_uniform(first + second, 35, 39)
    assert is_uniform((first > 0).long(), 0, 1)


def test_rows_have_the_moments_of_their_kind():
    """Mean and standard deviation of each kind within five standard errors."""
    expected = {BACKGROUND: (0, 1), CONCEPT_A: (2, 0.1), CONCEPT_B: (3, 0.1), POISON: (-10, 0.1)}
    single, multi = make_single_concept(4000, "train", generator=2), make_multi_concept(4000, "train", generator=2)
    notebook = make_single_concept(4000, "train", variant="notebook", generator=2)
    frequency = make_false_frequency(4000, "train", concept_means=(2.0, 3.0), generator=2)
    # A mixture of N(0, 3) and N(1, 1) by item: mean 1/2, variance (9 + 1) / 2 + 1/4.
    for data, kinds in (
        (single, {BACKGROUND: (0, 1), POISON: (-10, 0.1), POSITIVE: (0.5, 5.25**0.5)}),
        (notebook, {POSITIVE: (0, 3)}),
        (multi, expected),
        (frequency, {CONCEPT_A: (2, 0.1), CONCEPT_B: (3, 0.1)}),
    ):
        for tag, (mean, deviation) in kinds.items():
            rows = data.bags.values[data.instance_tags == tag].double()
            # Coordinates of one positive item share its kind, so that items count and not coordinates.
            error = 5 * deviation / len(rows) ** 0.5
            assert abs(rows.mean() - mean) < error
            assert abs(rows.std() - deviation) < error


@pytest.mark.parametrize(("variant", "expected"), [("paper", 0.998), ("notebook", 0.9998)])
def test_the_likelihood_ratio_solves_the_first_test(variant, expected):
    for split in ("train", "test"):
        data = make_single_concept(8000, split, variant=variant, generator=3)
        assert abs(roc_auc_score(data.y, best_scores(data, variant)) - expected) < 0.002


@pytest.mark.parametrize("kind", MAKERS)
def test_sizes_rows_and_order_tell_what_they_should(kind):
    make = MAKERS[kind]
    filled = make(500, "test", min_size=45, generator=4)
    assert filled.bags.sizes.min() == 45 or kind == "frequency"
    assert filled.bags.sizes.min() >= 45
    assert filled.bags.values.dtype == torch.float32
    assert len(filled.instance_tags) == len(filled.bags.values)
    # The first row of a bag is as often background as any: positions tell nothing.
    first = (filled.instance_tags[filled.bags.offsets[:-1]] == BACKGROUND).double()
    share = filled.counts(BACKGROUND) / filled.bags.sizes
    assert abs(first.mean() - share.mean()) < 5 * 0.5 / 500**0.5
    again = make(500, "test", min_size=45, generator=4)
    assert torch.equal(again.bags.values, filled.bags.values)
    assert not torch.equal(make(500, "test", generator=5).y, make(500, "test", generator=6).y)


def test_poison_is_as_strong_and_as_frequent_as_asked():
    data = make_single_concept(10_000, "train", 2, poison_mean=-3.0, poison_rate=0.3, generator=7)
    assert abs(data.bags.values[data.instance_tags == POISON].mean() + 3) < 0.01
    assert abs(data.counts(POISON)[data.y == 1].double().mean() - 0.3) < 4 * (0.3 * 0.7 / 5000) ** 0.5


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: make_single_concept(1, "train"), "n_bags"),
        (lambda: make_single_concept(10, "valid"), "split"),
        (lambda: make_single_concept(10, "train", 0), "n_features"),
        (lambda: make_single_concept(10, "train", variant="other"), "variant"),
        (lambda: make_single_concept(10, "train", min_size=3), "min_size"),
        (lambda: make_multi_concept(10, "train", min_size=8), "min_size"),
        (lambda: make_false_frequency(10, "train", min_size=38), "min_size"),
        (lambda: make_single_concept(10, "train", poison_mean=float("inf")), "poison_mean"),
        (lambda: make_single_concept(10, "train", poison_rate=1.5), "poison_rate"),
        (lambda: make_false_frequency(10, "train", concept_means=(0.0, float("nan"))), "concept_means"),
    ],
)
def test_what_cannot_be_is_refused(make, argument):
    with pytest.raises((ValueError, TypeError), match=argument):
        make()
