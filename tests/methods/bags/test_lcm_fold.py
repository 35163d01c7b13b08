"""Folds and scans against sorting, index_add, scatter and a loop, and how often they call the operator."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config

from offprint.methods.bags.lcm_fold import (
    MaxMonoid,
    MinMonoid,
    SumMonoid,
    TwoSmallestMonoid,
    associative_scan,
    partial_folds,
    tree_fold,
)
from offprint.methods.bags.ragged import RaggedBags


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


class Counting:
    """An operator that counts its calls and the pairs in each."""

    def __init__(self, operator=torch.add) -> None:
        self.operator, self.pairs = operator, []

    def __call__(self, left, right):
        self.pairs.append(len(left))
        return self.operator(left, right)


def sets_of(sizes, n_features=2, seed=0) -> RaggedBags:
    source = torch.Generator().manual_seed(seed)
    rows = torch.randn(sum(sizes), n_features, dtype=torch.float64, generator=source)
    return RaggedBags(rows, torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()]))


def test_the_two_smallest_of_every_size_are_those_of_sorting():
    """Exactly, since nothing is rounded: sizes 1 to 257 are every shape of tree up to nine levels."""
    sets = sets_of(range(1, 258))
    monoid = TwoSmallestMonoid()
    found = tree_fold(monoid, monoid.lift(sets.values), sets.offsets)
    for rows, two in zip(sets, found, strict=True):
        padded = torch.cat([rows, torch.full((1, 2), torch.inf, dtype=torch.float64)])
        assert torch.equal(two, padded.sort(0).values[:2].flatten())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(0, 2**31))
def test_exact_monoids_are_torchs_reductions_even_with_empty_sets(sizes, seed):
    sets = sets_of(sizes, seed=seed)
    empty = torch.zeros(len(sets), 2, dtype=torch.float64)
    # Sums in another order differ by rounding; extremes do not.
    torch.testing.assert_close(
        tree_fold(SumMonoid(), sets.values, sets.offsets), empty.index_add(0, sets.ids, sets.values), atol=1e-10, rtol=0
    )
    places = sets.ids[:, None].expand_as(sets.values)
    for monoid, name, absent in ((MaxMonoid(), "amax", -torch.inf), (MinMonoid(), "amin", torch.inf)):
        wanted = torch.full_like(empty, absent).scatter_reduce(0, places, sets.values, name)
        assert torch.equal(tree_fold(monoid, sets.values, sets.offsets), wanted)


@pytest.mark.parametrize("sizes", [[1], [2], [3], [1, 1], [5, 1, 16, 2], [0, 7, 0, 64, 33, 0]])
def test_one_call_a_level_and_one_pair_for_each_element_but_one(sizes):
    counting, sets = Counting(), sets_of(sizes)
    tree_fold(counting, sets.values, sets.offsets, torch.zeros(2, dtype=torch.float64))
    assert len(counting.pairs) == math.ceil(math.log2(max(sizes)))
    assert sum(counting.pairs) == sum(max(n - 1, 0) for n in sizes)


def test_neighbours_are_combined_in_order_and_a_lone_element_moves_up():
    """Concatenating digits is not commutative, so it shows the order; averages show the shape of the tree."""
    digits = torch.tensor([[1.0, 10.0], [2.0, 10.0], [3.0, 10.0], [4.0, 10.0], [5.0, 10.0]], dtype=torch.float64)

    def concatenate(left, right):
        return torch.stack([left[:, 0] * right[:, 1] + right[:, 0], left[:, 1] * right[:, 1]], 1)

    ptr = torch.tensor([0, 5])
    assert tree_fold(concatenate, digits, ptr)[0, 0].item() == 12345
    halves = tree_fold(lambda a, b: (a + b) / 2, digits[:, :1], ptr)
    assert halves.item() == (((1 + 2) / 2 + (3 + 4) / 2) / 2 + 5) / 2


def test_rows_of_any_shape_and_an_identity_for_empty_sets():
    matrices = torch.eye(2).repeat(4, 1, 1) * torch.tensor([2.0, 3.0, 5.0, 7.0])[:, None, None]
    found = tree_fold(torch.matmul, matrices, torch.tensor([0, 0, 3, 4, 4]), torch.eye(2))
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([1.0, 30.0, 7.0, 1.0]))


def test_partial_folds_are_the_elements_and_every_pair():
    sets = sets_of([3, 0, 4])
    states = partial_folds(torch.add, sets.values, sets.offsets)
    assert len(states) == 7 + 2 + 3
    torch.testing.assert_close(states[-1], sets.values[3:].sum(0))


@pytest.mark.parametrize("reverse", [False, True])
def test_prefixes_of_matrix_products_are_those_of_a_loop(reverse):
    """Matrix products are associative and not commutative. Products of up to 100 keep 1e-5 in float64 by far."""
    source = torch.Generator().manual_seed(0)
    for n in range(1, 101):
        matrices = torch.randn(n, 2, 2, dtype=torch.float64, generator=source) / 1.4
        counting = Counting(torch.matmul)
        found = associative_scan(counting, matrices, reverse=reverse)
        wanted = [matrices[-1 if reverse else 0]]
        for matrix in matrices.flip(0)[1:] if reverse else matrices[1:]:
            wanted.append(matrix @ wanted[-1] if reverse else wanted[-1] @ matrix)
        expected = torch.stack(wanted)
        torch.testing.assert_close(found, expected.flip(0) if reverse else expected, atol=1e-5, rtol=1e-5)
        assert len(counting.pairs) <= 2 * math.ceil(math.log2(n))
        assert sum(counting.pairs) < 2 * n


def test_a_scan_along_another_dimension_is_cumsum():
    x = torch.randn(3, 11, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(associative_scan(torch.add, x, dim=1), x.cumsum(1))
    torch.testing.assert_close(associative_scan(torch.add, x, dim=-1, reverse=True), x.flip(2).cumsum(2).flip(2))


def test_gradients_are_those_of_finite_differences():
    ptr = torch.tensor([0, 5, 5, 8])
    x = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mix = lambda a, b: torch.tanh(a) * b + a  # noqa: E731
    zero = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows, e: tree_fold(mix, rows, ptr, e), (x, zero))
    assert torch.autograd.gradcheck(lambda rows: associative_scan(mix, rows), (x,))


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        (([1.0], torch.tensor([0, 1])), TypeError, "x"),
        ((torch.ones(3), torch.tensor([0.0, 3.0])), TypeError, "ptr"),
        ((torch.ones(3), torch.tensor([0, 2])), ValueError, "ptr"),
        ((torch.ones(3), torch.tensor([0, 3, 2, 3])), ValueError, "ptr"),
        ((torch.ones(3), torch.tensor([0, 3, 3])), ValueError, "identity"),
        ((torch.ones(3, 2), torch.tensor([0, 3, 3]), torch.zeros(3)), ValueError, "identity"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_a_fold_refuses(arguments, error, named):
    with pytest.raises(error, match=named):
        tree_fold(torch.add, *arguments)


@pytest.mark.usefixtures("unchecked")
def test_operators_that_change_shapes_and_empty_scans_are_refused():
    with pytest.raises(ValueError, match="operator"):
        tree_fold(lambda a, b: torch.cat([a, b], 1), torch.ones(2, 2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="x must hold"):
        associative_scan(torch.add, torch.ones(0, 2))
    with pytest.raises(ValueError, match="dim"):
        associative_scan(torch.add, torch.ones(3), dim=1)
