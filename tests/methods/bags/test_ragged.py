"""Ragged bags and segment reductions against a Python loop over bags."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config

from offprint.methods.bags.ragged import (
    BagIndex,
    RaggedBags,
    all_finite,
    segment_center,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
    shuffled_ranks,
)

SIZES = [3, 1, 4]


def rows(n, trailing=(), seed=0):
    return torch.randn(n, *trailing, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shuffled_ids(sizes, seed=0):
    ids = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))]


LOOPS = {
    segment_sum: lambda bag: bag.sum(0),
    segment_mean: lambda bag: bag.mean(0),
    segment_max: lambda bag: bag.amax(0),
}


@pytest.mark.parametrize("reduce", LOOPS)
@pytest.mark.parametrize("trailing", [(), (2,), (2, 3)])
def test_reductions_match_a_loop_over_bags(reduce, trailing):
    values, ids = rows(sum(SIZES), trailing), shuffled_ids(SIZES)
    expected = torch.stack([LOOPS[reduce](values[ids == bag]) for bag in range(len(SIZES))])
    # The same few additions in another order: rounding alone.
    torch.testing.assert_close(reduce(values, ids, len(SIZES)), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("trailing", [(), (2,)])
def test_softmax_and_center_match_a_loop_over_bags(trailing):
    values, ids = rows(sum(SIZES), trailing), shuffled_ids(SIZES)
    weights, centered = segment_softmax(values, ids, len(SIZES)), segment_center(values, ids, len(SIZES))
    for bag in range(len(SIZES)):
        mine = values[ids == bag]
        torch.testing.assert_close(weights[ids == bag], mine.softmax(0), rtol=0, atol=1e-14)
        torch.testing.assert_close(centered[ids == bag], mine - mine.mean(0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("reduce", [*LOOPS, segment_softmax, segment_center])
def test_gradients_match_finite_differences(reduce):
    values = rows(sum(SIZES), (2,)).requires_grad_()
    ids = shuffled_ids(SIZES)
    assert torch.autograd.gradcheck(lambda x: reduce(x, ids, len(SIZES)), (values,))


def test_softmax_of_huge_scores_is_finite():
    weights = segment_softmax(torch.tensor([1e30, 1e30, -1e30]), torch.tensor([0, 0, 0]), 1)
    assert weights.tolist() == [0.5, 0.5, 0.0]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_container_gives_back_the_bags_it_was_made_of(sizes, random):
    bags = list(rows(sum(sizes)).split(sizes))
    ragged = RaggedBags.from_list(bags)
    assert ragged.sizes.tolist() == sizes
    assert all(torch.equal(a, b) for a, b in zip(ragged, bags, strict=True))
    assert all(torch.equal(ragged[i], bag) for i, bag in enumerate(bags))
    chosen = [random.randrange(len(bags)) for _ in range(random.randrange(1, 6))]
    taken = ragged.take(chosen)
    assert all(torch.equal(a, bags[i]) for a, i in zip(taken, chosen, strict=True))
    assert taken.ids.tolist() == [place for place, i in enumerate(chosen) for _ in range(sizes[i])]


def test_bags_counted_from_the_end_are_taken_from_there():
    ragged = RaggedBags(rows(8), torch.tensor([0, 3, 4, 8]))
    taken = ragged.take([-1, -3, 1])
    assert all(torch.equal(a, ragged[i]) for a, i in zip(taken, (2, 0, 1), strict=True))
    assert ragged.take(range(2)).n_bags == 2
    assert ragged.take([]).n_bags == 0


def test_rows_of_a_data_frame_are_grouped_by_a_column():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"bag": ["b", "a", "b"], "x": [1.0, 2.0, 3.0]})
    values = torch.as_tensor(frame["x"].to_numpy())
    for names in (frame["bag"], frame["bag"].astype("category"), frame["bag"].astype("string")):
        assert [bag.tolist() for bag in RaggedBags.from_ids(values, names)] == [[2.0], [1.0, 3.0]]


def test_bags_are_views():
    ragged = RaggedBags(rows(5), torch.tensor([0, 2, 5]))
    assert ragged[1].data_ptr() == ragged.values[2:].data_ptr()
    assert torch.equal(ragged[-1], ragged[1])


def test_padded_bags_keep_the_rows_of_their_mask_and_come_back():
    padded, mask = rows(4 * 6, (2,)).view(4, 6, 2), rows(24, seed=1).view(4, 6) > 0
    mask[2] = False
    ragged = RaggedBags.from_padded(padded, mask)
    assert [bag.tolist() for bag in ragged] == [padded[i][mask[i]].tolist() for i in range(4)]
    assert [bag.tolist() for bag in RaggedBags.from_padded(padded)] == padded.tolist()
    side_by_side = torch.zeros(*ragged.mask.shape, 2, dtype=torch.float64)
    side_by_side[ragged.mask] = ragged.values
    for bag, size, filled in zip(ragged, ragged.sizes.tolist(), side_by_side, strict=True):
        assert torch.equal(filled[:size], bag)
        assert not filled[size:].any()


def test_other_rows_keep_their_bags():
    ragged = RaggedBags(rows(8), torch.tensor([0, 3, 4, 8]))
    other = ragged.with_values(rows(8, (2,), seed=1))
    assert torch.equal(other.ids, ragged.ids)
    assert torch.equal(other[2], rows(8, (2,), seed=1)[4:])
    with pytest.raises(ValueError, match="offsets"):
        ragged.with_values(rows(7))


def test_ranks_are_a_random_order_within_each_bag():
    ragged, source = RaggedBags(rows(9), torch.tensor([0, 4, 4, 5, 9])), torch.Generator().manual_seed(0)
    counts = torch.zeros(9, 4)
    for _ in range(400):
        ranks = shuffled_ranks(ragged, source)
        assert [sorted(part.tolist()) for part in ranks.split([4, 1, 4])] == [[0, 1, 2, 3], [0], [0, 1, 2, 3]]
        counts[torch.arange(9), ranks] += 1
    # 32 counts of 400 at a quarter, standard deviation 8.7: one in 10⁵ tests passes 5.5 of them.
    assert (counts[[0, 1, 2, 3, 5, 6, 7, 8]] - 100).abs().max() < 48


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_entry_that_is_not_finite_is_seen_and_a_sum_that_overflows_is_not_one(bad):
    values = torch.full((50, 3), 3e38)
    assert all_finite(values)
    assert all_finite(torch.zeros(0, 3))
    values[17, 2] = bad
    assert not all_finite(values)


@given(st.lists(st.sampled_from(["north", "south", "west"]), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_grouping_by_id_keeps_rows_with_their_bag_and_in_order(ids):
    ragged = RaggedBags.from_ids(torch.arange(len(ids)), ids)
    expected = [[row for row, name in enumerate(ids) if name == label] for label in sorted(set(ids))]
    assert [bag.tolist() for bag in ragged] == expected


def test_index_means_match_a_loop_for_dense_and_sparse_rows():
    from scipy.sparse import csr_array

    ids, dense = shuffled_ids(SIZES).numpy(), rows(8, (3,)).numpy()
    expected = np.stack([dense[ids == bag].mean(0) for bag in range(3)])
    index = BagIndex.of(ids)
    np.testing.assert_allclose(index.means(dense), expected, atol=1e-14)
    np.testing.assert_allclose(index.means(csr_array(dense)).toarray(), expected, atol=1e-14)


def test_folds_keep_bags_whole_and_in_order_whatever_the_splitter():
    from sklearn.model_selection import ShuffleSplit

    index = BagIndex.of(shuffled_ids([2, 3, 1, 4, 2]).numpy())
    for kept, held_out in index.folds(ShuffleSplit(5, test_size=2, random_state=0)):
        assert sorted([*kept.bags, *held_out.bags]) == [0, 1, 2, 3, 4]
        for fold in (kept, held_out):
            np.testing.assert_array_equal(fold.bags[fold.index.ids], index.ids[fold.rows])
            assert set(fold.bags) == set(index.ids[fold.rows])


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (lambda: RaggedBags(rows(3), torch.tensor([0, 2])), ValueError, "offsets"),
        (lambda: RaggedBags(rows(3), torch.tensor([0, 4, 3])), ValueError, "offsets"),
        (lambda: RaggedBags(rows(3), torch.tensor([0.0, 3.0])), TypeError, "offsets"),
        (lambda: RaggedBags.from_list([]), ValueError, "bags"),
        (lambda: RaggedBags.from_padded(rows(3)), (ValueError, TypeError), "rows"),
        (lambda: RaggedBags.from_padded(rows(3, (2,)), torch.ones(3, 3).bool()), (ValueError, TypeError), "mask"),
        (lambda: RaggedBags.from_list([rows(2), rows(2, (1,))]), ValueError, "bags"),
        (lambda: RaggedBags.from_ids(rows(3), [0, 1]), ValueError, "bag_ids"),
        (lambda: BagIndex.of([0.5, 1.5]), TypeError, "bag_ids"),
        (lambda: BagIndex.of([[0, 1]]), ValueError, "bag_ids"),
        (lambda: RaggedBags(rows(3), torch.tensor([0, 3]))[1], IndexError, "bag"),
        (lambda: RaggedBags(rows(3), torch.tensor([0, 3])).take([1]), IndexError, "bags must be in"),
        (lambda: RaggedBags(rows(3), torch.tensor([0, 3])).take([-2]), IndexError, "bags must be in"),
        (lambda: RaggedBags(rows(3), torch.tensor([0, 3])).take(torch.tensor([True])), TypeError, "bags"),
        (lambda: RaggedBags(rows(3), torch.tensor([0, 3])).take([0.5]), TypeError, "bags"),
        (lambda: RaggedBags.from_list([rows(3).numpy()]), TypeError, "bags"),
        (lambda: segment_sum(rows(3), torch.tensor([0, 1]), 2), (ValueError, TypeError), "segment_ids"),
        (lambda: segment_sum(rows(2), torch.tensor([0, 2]), 2), ValueError, "segment_ids"),
        (lambda: segment_sum(rows(2), torch.tensor([0, -1]), 2), ValueError, "segment_ids"),
        (lambda: segment_sum(rows(2), torch.tensor([0, 1], dtype=torch.int32), 2), TypeError, "segment_ids"),
        (lambda: segment_mean(rows(2), torch.tensor([0, 2]), 3), ValueError, "segment 1 of 3 empty"),
        (lambda: segment_max(rows(2), torch.tensor([0, 0]), 2), ValueError, "segment 1 of 2 empty"),
        (lambda: segment_sum(rows(2), torch.tensor([0, 1]), 0), ValueError, "n_segments"),
    ],
)
def test_bad_input_is_named(make, error, named, monkeypatch):
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)  # as it is for users
    with pytest.raises(error, match=named):
        make()
