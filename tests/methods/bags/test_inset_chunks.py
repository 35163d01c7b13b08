"""Large sets a part at a time: the same numbers as at once, few elements at a time, and no large tensors on the way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from offprint.methods.bags.inset import SubsetSelector
from offprint.methods.bags.inset_mean_field import mean_field
from offprint.methods.bags.inset_recognition import CopulaRecognition
from offprint.methods.bags.inset_search import search_subsets
from offprint.methods.bags.inset_utility import SetUtility

MERGES = ("concat", "sum", "film")
SUMMARIES = ("mean", "sum", "max", "attention")


class Largest(TorchDispatchMode):
    """Note the size of the largest tensor that any operation returns, and where in memory those of this size lay."""

    def __init__(self) -> None:
        super().__init__()
        self.size, self.places = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor):
                # A view, such as an expanded one, has no memory of its own.
                storage = one.untyped_storage()
                size = storage.nbytes() // one.element_size()
                if size > self.size:
                    self.size, self.places = size, set()
                if size == self.size:
                    self.places.add(storage.data_ptr())
        return out


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def steep(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def a_utility(merge: str = "concat", agg: str = "mean", context: bool = True) -> SetUtility:
    return steep(SetUtility(nn.Linear(3, 6), 6, 16, context=context, merge=merge, agg=agg, generator=0).double())


# Two whole sets, and one whose first part is padding throughout.
X, MASK = normal(3, 8, 3), torch.tensor([[True] * 8, [True] * 5 + [False] * 3, [False] * 4 + [True] * 4])
SUBSETS = torch.rand(3, 4, 8, generator=torch.Generator().manual_seed(1)) < 0.5


@pytest.mark.parametrize(
    ("merge", "agg", "context"), [*itertools.product(MERGES, SUMMARIES, [True]), ("sum", "max", False)]
)
@pytest.mark.parametrize("chunk_size", [1, 9])
def test_a_utility_is_the_same_a_part_at_a_time(merge, agg, context, chunk_size):
    """To 1e-10 in float64: sums are of the same terms in another order."""
    utility = a_utility(merge, agg, context)
    whole, cut = utility.prepare(X, MASK), utility.prepare(X, MASK, chunk_size)
    torch.testing.assert_close(cut.elements, whole.elements, atol=1e-10, rtol=0)
    torch.testing.assert_close(cut.offset, whole.offset, atol=1e-10, rtol=0)
    torch.testing.assert_close(cut.values(SUBSETS), whole.values(SUBSETS), atol=1e-10, rtol=0)
    torch.testing.assert_close(cut.gains(SUBSETS), whole.gains(SUBSETS), atol=1e-10, rtol=0)
    torch.testing.assert_close(utility(X, SUBSETS, MASK, chunk_size), whole.values(SUBSETS), atol=1e-10, rtol=0)


@pytest.mark.parametrize("agg", [*SUMMARIES, "one's own"])
def test_gradients_are_the_same_a_part_at_a_time(agg):
    utility = a_utility("film", "mean" if agg == "one's own" else agg)
    if agg == "one's own":
        utility.agg = lambda encoded, mask: encoded.square().sum(1)
    for chunk_size in (None, 6):
        utility.zero_grad()
        utility.prepare(X, MASK, chunk_size).gains(SUBSETS).square().sum().backward()
        gradients = [parameter.grad for parameter in utility.parameters()]
        if chunk_size is None:
            wanted = gradients
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_a_summary_of_ones_own_gets_all_elements_at_once():
    utility = a_utility()
    utility.agg = lambda encoded, mask: encoded[:, 4] + encoded[:, 0]
    torch.testing.assert_close(utility(X, SUBSETS, MASK, 6), utility(X, SUBSETS, MASK))


@pytest.mark.parametrize("agg", ["mean", "sum", "max"])
@pytest.mark.parametrize("context", [True, False])
def test_proposals_are_the_same_a_part_at_a_time(agg, context):
    recognition = steep(CopulaRecognition(nn.Linear(3, 6), 6, 8, 2, context=context, agg=agg).double())
    whole, cut = recognition(X, MASK), recognition(X, MASK, 6)
    for name in ("logits", "deviation", "factors"):
        torch.testing.assert_close(getattr(cut, name), getattr(whole, name), atol=1e-12, rtol=0)


def test_mean_field_steps_are_the_same_a_part_at_a_time():
    half = torch.full((3, 8), 0.5, dtype=torch.float64)
    whole, cut = (mean_field(a_utility(), X, half, 3, 7, MASK, chunk_size=size, generator=0) for size in (None, 6))
    torch.testing.assert_close(cut.probabilities, whole.probabilities, atol=1e-10, rtol=0)


def test_few_elements_are_encoded_at_a_time():
    """Never more than asked for, twice each where there is a summary, and once without or where one part is all."""
    for context, chunk_size, times in ((True, 6, 2), (False, 6, 1), (True, None, 1)):
        utility, seen = a_utility(context=context), []
        utility.encoder.register_forward_hook(lambda module, args, out, seen=seen: seen.append(len(out)))
        utility.prepare(X, MASK, chunk_size)
        assert sum(seen) == times * int(MASK.sum())
        assert max(seen) <= (chunk_size or 24)
    recognition, seen = CopulaRecognition(nn.Linear(3, 6), 6, 8).double(), []
    recognition.encoder.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    recognition(X, MASK, 6)
    assert max(seen) <= 6


@pytest.mark.parametrize("agg", ["mean", "attention"])
def test_memory_for_a_hundred_thousand_elements(agg):
    """The largest tensor of all is the one row per element that is kept: 8 numbers, not 8 for each of 5 draws.

    In float64, since gains are differences of utilities that a sum of so many elements makes large.
    """
    n, hidden, draws = 100_000, 8, 5
    x, half = normal(1, n, 2), torch.full((1, n), 0.5, dtype=torch.float64)
    utility = SetUtility(nn.Linear(2, 4), 4, hidden, merge="film", agg=agg, generator=0).double()
    found = {}
    for chunk_size in (None, 1000):
        with torch.no_grad(), Largest() as largest:
            q = mean_field(utility, x, half, 1, draws, chunk_size=chunk_size, generator=0).probabilities
        found[chunk_size] = q, largest.size
    assert found[1000][1] <= n * hidden
    assert found[None][1] >= n * hidden * draws
    torch.testing.assert_close(found[1000][0], found[None][0], atol=1e-5, rtol=0)


def test_a_search_among_a_hundred_thousand_elements():
    """Greedy, towards five elements: one row per element is kept, and no other tensor is as large."""
    n, hidden = 100_000, 8
    x = torch.randn(1, n, 2, generator=torch.Generator().manual_seed(0))
    utility = SetUtility(nn.Linear(2, 4), 4, hidden, generator=0)
    nothing = torch.zeros(1, n, dtype=torch.bool)
    with Largest() as largest:
        cut = search_subsets(utility, x, nothing, [5], swaps=False, chunk_size=1000)
    assert largest.size == n * hidden
    assert len(largest.places) == 1
    whole = search_subsets(utility, x, nothing, [5], swaps=False)
    torch.testing.assert_close(cut.utility, whole.utility, atol=1e-5, rtol=0)
    assert cut.chosen.sum().item() == 5


def test_a_selector_asks_for_parts_after_training():
    """In float32, to 1e-5, for probabilities, utilities and searches; and its encoder sees few elements at a time."""
    rng = np.random.default_rng(0)
    sets = [rng.standard_normal((n, 2)).astype(np.float32) for n in (12, 7, 9, 12)]
    selector = SubsetSelector(features=4, hidden_features=8, mode="copula", n_epochs=1, agg="attention", batch_size=2)
    selector.fit(sets, [[0, 1]] * 4)
    wanted = (
        selector.predict_proba(sets),
        selector.utility(sets, [[0, 3]] * 4),
        selector.select(sets, 3, search="local"),
    )
    selector.set_params(chunk_size=6)
    seen = []
    for encoder in (selector.model_.utility.encoder, selector.model_.recognition.encoder):
        encoder.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    for one, other in zip(selector.predict_proba(sets), wanted[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(selector.utility(sets, [[0, 3]] * 4), wanted[1], atol=1e-5)
    for one, other in zip(selector.select(sets, 3, search="local"), wanted[2], strict=True):
        assert np.array_equal(one, other)
    assert max(seen) <= 6


@pytest.mark.parametrize("chunk_size", [0, -1, 2.5, True])
def test_what_is_refused(chunk_size, monkeypatch):
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="chunk_size"):
        a_utility().prepare(X, MASK, chunk_size)
    with pytest.raises(ValueError, match="chunk_size"):
        CopulaRecognition(nn.Linear(3, 6), 6).double()(X, MASK, chunk_size)
    with pytest.raises(ValueError, match="chunk_size"):
        # Before it trains.
        SubsetSelector(chunk_size=chunk_size).fit([[[0.0], [1.0]]], [[0]], progress=lambda *_: pytest.fail("trained"))
