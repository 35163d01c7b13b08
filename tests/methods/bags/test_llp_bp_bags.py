"""Bags and proportions: made, read and refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config

from offprint.methods.bags.llp_bp_bags import align_counts, counts_from, make_bags, proportions_from
from offprint.methods.bags.llp_bp_multiclass import align_class_counts
from offprint.methods.bags.ragged import BagIndex


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


@settings(deadline=None)
@given(n=st.integers(1, 60), size=st.integers(1, 60), how=st.sampled_from(["random", "feature"]))
def test_bags_are_whole(n, size, how):
    size = min(size, n)
    feature = np.random.default_rng(0).normal(size=n)
    sizes = np.bincount(make_bags(np.zeros(n), size, 0, how, feature))
    assert sizes.sum() == n
    assert len(sizes) == n // size
    assert sizes.min() >= size


def test_bags_by_feature_are_intervals():
    feature = np.random.default_rng(0).normal(size=100)
    ids = make_bags(np.zeros(100), 10, how="feature", feature=feature)
    ends = [(feature[ids == bag].min(), feature[ids == bag].max()) for bag in range(10)]
    assert all(high < low for (_, high), (low, _) in itertools.pairwise(ends))


def test_bags_at_random_follow_their_seed():
    first, again, other = (make_bags(np.zeros(100), 10, seed).tolist() for seed in (0, 0, 1))
    assert first == again != other


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=50))
def test_proportions_come_back_as_counts(rows):
    y, ids = (np.array(column) for column in zip(*rows, strict=True))
    index = BagIndex.of(ids)
    counts = counts_from(proportions_from(y, ids).round(5), index)  # as printed
    assert counts.tolist() == [y[ids == label].sum() for label in np.unique(ids)]


def test_a_series_is_taken_by_its_index():
    """Groups in the order in which they come first, as ``groupby(..., sort=False)`` gives them."""
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"bag": ["south", "north", "south", "east"], "y": [1, 0, 1, 1]})
    counts = table.groupby("bag", sort=False)["y"].sum()
    assert counts.tolist() == [2, 0, 1]
    index, found = align_counts(table["bag"], counts, 4, "counts")
    assert (index.labels.tolist(), found.tolist()) == (["east", "north", "south"], [1.0, 0.0, 2.0])
    assert align_counts(table["bag"], [1, 0, 2], 4, "counts")[1].tolist() == found.tolist()
    by_class = pandas.crosstab(table["bag"], table["y"]).loc[["south", "east", "north"]]
    assert align_class_counts(table["bag"], by_class)[1].tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]]
    with pytest.raises(ValueError, match="counts has no number for 1 of 3 bags, such as 'north'"):
        align_counts(table["bag"], counts.drop("north"), 4, "counts")
    with pytest.raises(ValueError, match="counts must have an index that holds each bag once"):
        align_counts(table["bag"], pandas.concat([counts, counts]), 4, "counts")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: make_bags([0, 1], 3), "size"),
        (lambda: make_bags([0, 1], 0), "size"),
        (lambda: make_bags([[0, 1]], 1), "y must be a vector"),
        (lambda: make_bags([0.0, np.nan], 1), "y must be finite"),
        (lambda: make_bags([0, 1], 1, how="sorted"), "how"),
        (lambda: make_bags([0, 1], 1, how="feature"), "feature must be given"),
        (lambda: make_bags([0, 1], 1, how="feature", feature=[0.0, np.nan]), "feature"),
        (lambda: make_bags([0, 1], 1, how="feature", feature=[0.0]), "feature"),
        (lambda: proportions_from([0, 2], [0, 0]), "y must hold labels 0 and 1"),
        (lambda: proportions_from([0, 1, 1], [0, 0]), "bag_ids must hold one id per label"),
        (lambda: counts_from(np.array([0.4]), BagIndex.of([7, 7])), "bag 7 is 0.4 of 2 rows, 0.8"),
        (lambda: counts_from(np.array([1.5]), BagIndex.of([7, 7])), "proportions must be in"),
        (lambda: counts_from(np.array([np.nan]), BagIndex.of([7, 7])), "proportions must be in"),
    ],
)
def test_what_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
