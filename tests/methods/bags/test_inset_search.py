"""Searches against enumeration of all subsets, of all sizes or of one, and against every single move by direct F."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from torch import nn

from offprint.methods.bags.inset_search import SubsetSearch, search_subsets
from offprint.methods.bags.inset_utility import PreparedSets, SetUtility


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def a_utility(seed: int = 0) -> SetUtility:
    """Steep enough for local optima that are not global ones."""
    utility = SetUtility(nn.Linear(3, 6), 6, 16, merge="film", generator=0).double()
    torch.manual_seed(seed)
    for parameter in utility.parameters():
        nn.init.normal_(parameter, std=0.5)
    return utility


def modular(x: torch.Tensor, subsets: torch.Tensor) -> torch.Tensor:
    return (subsets * x[:, None, :, 0]).sum(2)


def random_start(n_sets: int, n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n_sets, n, generator=torch.Generator().manual_seed(seed)) < 0.4


def neighbours(chosen: torch.Tensor, there: torch.Tensor, flips: bool) -> list[torch.Tensor]:
    """All subsets one move away from a subset of one set."""
    places = there.nonzero()[:, 0].tolist()
    pairs = [(i, j) for i, j in itertools.product(places, places) if chosen[i] and not chosen[j]]
    found = []
    for changed in pairs + ([(i,) for i in places] if flips else []):
        other = chosen.clone()
        other[list(changed)] ^= True
        found.append(other)
    return found


def every(subset_size: int | None, n: int) -> torch.Tensor:
    rows = torch.tensor(list(itertools.product([False, True], repeat=n)))
    return rows if subset_size is None else rows[rows.sum(1) == subset_size]


def assert_no_move_helps(found: SubsetSearch, utility: SetUtility, x, mask, flips: bool) -> None:
    """F in full for every neighbour, in float64: 1e-9 is far above rounding."""
    for k, chosen in enumerate(found.chosen):
        others = torch.stack([chosen, *neighbours(chosen, mask[k], flips)])
        values = utility(x[k : k + 1], others[None], mask[k : k + 1])[0]
        torch.testing.assert_close(values[0], found.utility[k], atol=1e-9, rtol=0)
        assert values[0] >= values.max() - 1e-9


@pytest.mark.parametrize("sized", [True, False])
def test_no_single_move_improves_what_was_found_and_nothing_was_lost(sized):
    """Sets of nine and of six elements, from starts at random."""
    utility, x, start = a_utility(), normal(12, 9, 3), random_start(12, 9)
    mask = torch.arange(9) < torch.tensor([[9], [6]]).repeat(6, 1)
    start &= mask
    found = search_subsets(utility, x, start, start.sum(1) if sized else None, mask)
    assert found.converged.all()
    assert not (found.chosen & ~mask).any()
    if sized:
        assert torch.equal(found.chosen.sum(1), start.sum(1))
    assert_no_move_helps(found, utility, x, mask, flips=not sized)
    before = utility(x, start[:, None], mask)[:, 0]
    torch.testing.assert_close(found.start_utility, before, atol=1e-9, rtol=0)
    assert (found.utility >= before).all()
    assert torch.equal(found.n_moves > 0, (found.chosen != start).any(1))
    assert (found.n_moves > 1).any()


def test_often_it_is_the_best_of_all_subsets_and_never_better():
    """In 12 of 20 sets at least; a subset drawn at random would be in one of 256, or of 56."""
    utility, x = a_utility(), normal(20, 8, 3)
    found = search_subsets(utility, x, torch.zeros(20, 8, dtype=torch.bool))
    best = utility(x, every(None, 8).expand(20, -1, -1)).amax(1)
    assert (found.utility <= best + 1e-9).all()
    assert (found.utility > best - 1e-9).sum() >= 12
    of_three = search_subsets(utility, x, torch.zeros(20, 8, dtype=torch.bool), [3] * 20)
    best = utility(x, every(3, 8).expand(20, -1, -1)).amax(1)
    assert (of_three.utility <= best + 1e-9).all()
    assert (of_three.utility > best - 1e-9).sum() >= 12


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=7),
    st.integers(0, 2**31),
    st.booleans(),
    st.booleans(),
)
def test_for_a_sum_over_elements_it_is_the_best_of_all(weights, seed, sized, swaps):
    """Enumerated. Whole numbers are exact, so ties are ties."""
    n, x = len(weights), torch.tensor(weights, dtype=torch.float64)[None, :, None]
    start = random_start(1, n, seed)
    size = seed % (n + 1) if sized else None
    if sized and not swaps:
        start = torch.zeros_like(start)  # without swaps only the greedy algorithm reaches it
    found = search_subsets(modular, x, start, [size] if sized else None, swaps=swaps)
    assert found.utility.item() == modular(x, every(size, n)[None]).max()
    assert found.converged.item()


def test_ties_stay_as_they_are_and_go_to_the_first():
    """Equal elements are not exchanged; of those to be added the first is."""
    x = torch.ones(1, 5, 1)
    start = torch.tensor([[False, True, False, True, False]])
    same = search_subsets(modular, x, start, [2])
    assert torch.equal(same.chosen, start)
    assert same.n_moves.item() == 0
    more = search_subsets(modular, x, start, [3])
    assert more.chosen.tolist() == [[True, True, False, True, False]]
    fewer = search_subsets(modular, x, start, [1])
    assert fewer.chosen.tolist() == [[False, False, False, True, False]]
    better = search_subsets(modular, torch.tensor([[[1.0], [1.0], [5.0], [5.0], [0.0]]]), start, max_moves=1)
    assert better.chosen.tolist() == [[False, True, True, True, False]]  # an addition comes before any swap
    pair = torch.tensor([[True, True, False, False, False]])
    swapped = search_subsets(modular, torch.tensor([[[1.0], [1.0], [5.0], [5.0], [0.0]]]), pair, [2], max_moves=1)
    assert swapped.chosen.tolist() == [[False, True, True, False, False]]
    nothing = search_subsets(modular, 0 * x, start)
    assert torch.equal(nothing.chosen, start)
    # In float32, sums of the same elements in another order differ; that is no reason to move.
    utility = SetUtility(nn.Linear(1, 4), 4, 16, generator=0)
    alike = search_subsets(utility, x.expand(1, 5, 1), start, [2])
    assert torch.equal(alike.chosen, start)


def test_moves_are_bounded_and_the_size_is_reached_all_the_same():
    x = torch.arange(6.0)[None, :, None]
    start = torch.tensor([[True, True, True, False, False, False]])
    found = search_subsets(modular, x, start, [3], max_moves=1)
    assert (found.n_moves.item(), found.converged.item()) == (1, False)
    assert (found.start_utility.item(), found.utility.item()) == (3.0, 8.0)  # 0 made way for 5
    found = search_subsets(modular, x, ~start & start, [4], max_moves=1)
    assert found.chosen.tolist() == [[False, False, True, True, True, True]]
    assert found.converged.item()


def test_a_set_is_searched_as_if_alone():
    utility, x, start = a_utility(), normal(6, 7, 3), random_start(6, 7)
    together = search_subsets(utility, x, start)
    for k in range(6):
        alone = search_subsets(utility, x[k : k + 1], start[k : k + 1])
        assert torch.equal(alone.chosen[0], together.chosen[k])
        assert alone.n_moves[0] == together.n_moves[k]


def test_sums_are_changed_by_one_element_and_elements_encoded_once(monkeypatch):
    """Nothing but the last layers sees a candidate, and the encoder sees each element once in a whole search."""
    utility, x, start = a_utility(), normal(2, 7, 3), random_start(2, 7)
    seen, asked = [], []
    utility.encoder.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    gains = PreparedSets.gains
    monkeypatch.setattr(PreparedSets, "gains", lambda self, subsets: asked.append(1) or gains(self, subsets))
    found = search_subsets(utility, x, start)
    assert seen == [14]
    assert len(asked) > found.n_moves.max()


@pytest.mark.parametrize("chunk_size", [1, 5, 1000])
def test_chunks_change_nothing(chunk_size):
    utility, x, start = a_utility(), normal(3, 7, 3), random_start(3, 7)
    whole, cut = search_subsets(utility, x, start), search_subsets(utility, x, start, chunk_size=chunk_size)
    assert torch.equal(whole.chosen, cut.chosen)
    torch.testing.assert_close(whole.utility, cut.utility, atol=1e-12, rtol=0)


X, NONE = torch.zeros(2, 3, 1), torch.zeros(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: search_subsets(modular, X * torch.nan, NONE), ValueError, "x"),
        (lambda: search_subsets(modular, X, NONE.float()), TypeError, "start"),
        (lambda: search_subsets(modular, X, NONE[:, :2]), ValueError, "start"),
        (lambda: search_subsets(modular, X, ~NONE, mask=torch.tensor([[True, True, False]] * 2)), ValueError, "start"),
        (lambda: search_subsets(modular, X, NONE, [1, 4]), ValueError, "sizes"),
        (lambda: search_subsets(modular, X, NONE, [1, -1]), ValueError, "sizes"),
        (lambda: search_subsets(modular, X, NONE, [1]), ValueError, "sizes"),
        (lambda: search_subsets(modular, X, NONE, torch.tensor([1.0, torch.nan])), ValueError, "sizes"),
        (lambda: search_subsets(modular, X, NONE, max_moves=0), ValueError, "max_moves"),
        (lambda: search_subsets(lambda x, s: modular(x, s) - torch.inf, X, NONE), ValueError, "utility must be finite"),
        (lambda: search_subsets(lambda x, s: modular(x, s).sum(1), X, NONE), ValueError, "utility must return shape"),
        (lambda: search_subsets(SetUtility(nn.Linear(1, 2), 2), X, NONE, chunk_size=0), ValueError, "chunk_size"),
    ],
)
def test_what_is_refused(call, error, named, monkeypatch):
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)
    with pytest.raises(error, match=named):
        call()
