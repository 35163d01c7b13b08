"""Networks over sets: permutations, masks against sets by themselves, and a loop over elements."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import config

from offprint.models.sets import DeepSets, SetTransformer

KINDS = [DeepSets, SetTransformer]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_follow_a_permutation(kind):
    """Float64: 1e-12 is far above rounding."""
    x, order = normal(2, 5, 3), torch.tensor([3, 0, 4, 1, 2])
    whole, each = kind(3, 4, 8, generator=0).double(), kind(3, 4, 8, per_element=True, generator=0).double()
    torch.testing.assert_close(whole(x[:, order]), whole(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(each(x[:, order]), each(x)[:, order], atol=1e-12, rtol=0)
    # The output of an element depends on the others.
    other = torch.cat([x[:, :1], normal(2, 4, 3, seed=1)], 1)
    assert (each(other)[:, 0] - each(x)[:, 0]).abs().min() > 1e-6


@pytest.mark.parametrize("per_element", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_mask_leaves_out_counts_for_nothing(kind, per_element):
    model, x = kind(3, 4, 8, per_element=per_element, generator=0).double(), normal(2, 5, 3)
    padded, mask = torch.cat([x, 7 * normal(2, 2, 3, seed=1)], 1), torch.arange(7).expand(2, 7) < 5
    found = model(padded, mask)
    torch.testing.assert_close(found[:, :5] if per_element else found, model(x), atol=1e-12, rtol=0)


def test_deep_sets_are_the_formula():
    model, x = DeepSets(2, 3, 4, 1, per_element=True, generator=0).double(), normal(1, 3, 2)
    (own,), (told,) = model.own, model.told
    for i in range(3):
        h = (own.weight @ x[0, i] + own.bias + told.weight @ (x[0, 0] + x[0, 1] + x[0, 2]) / 3).relu()
        torch.testing.assert_close(model(x)[0, i], model.head.weight @ h + model.head.bias)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_padding_does_not_matter_and_empty_sets_are_refused(kind):
    model, x, mask = kind(3, 4, 8, generator=0).double(), normal(2, 5, 3), torch.arange(5).expand(2, 5) < 3
    torch.testing.assert_close(model(x.masked_fill(~mask[..., None], torch.nan), mask), model(x, mask))
    with pytest.raises(ValueError, match="mask must leave at least one element"):
        model(x, mask & torch.tensor([[True], [False]]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", [torch.ones(2, 4) > 0, torch.ones(2, 5)])
def test_masks_that_do_not_fit_are_refused(kind, mask, monkeypatch):
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="mask must be bool of shape"):
        kind(3, 4, 8, generator=0)(torch.zeros(2, 5, 3), mask)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_weights(kind):
    one, other, third = (kind(3, 4, 8, generator=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], third[name]) for name in one)


@pytest.mark.parametrize(
    "call", [lambda: DeepSets(0, 1), lambda: SetTransformer(2, 1, 6), lambda: SetTransformer(2, 0)]
)
def test_what_is_refused(call):
    with pytest.raises(ValueError, match=r"features|heads"):
        call()
