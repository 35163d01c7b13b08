"""Pooling against a Python loop over bags, against torch's own multi-head attention, and under permutations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from offprint.methods.bags.pooling import AttentionPooling, MaxPooling, MeanPooling, QueryPooling, attend
from offprint.methods.bags.ragged import RaggedBags, segment_entropy

SIZES = (3, 1, 7)


@pytest.fixture
def bags() -> RaggedBags:
    source = torch.Generator().manual_seed(0)
    return RaggedBags.from_list([torch.randn(n, 8, generator=source, dtype=torch.float64) for n in SIZES])


POOLINGS = {
    "mean": lambda: MeanPooling(),
    "max": lambda: MaxPooling(),
    "plain": lambda: AttentionPooling(8, 16, generator=0),
    "gated": lambda: AttentionPooling(8, 16, gated=True, n_heads=3, generator=0),
    "query": lambda: QueryPooling(8, 4, generator=0),
}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("n_heads", [1, 3])
def test_attention_is_that_of_each_bag_by_itself(bags, gated, n_heads):
    """The formula of the paper, written out for one bag and head at a time."""
    pooling = AttentionPooling(8, 16, gated=gated, n_heads=n_heads, generator=1).double()
    pooled = pooling(bags)
    for bag, vector, attention in zip(bags, pooled.vectors, pooled.attention(bags).split(SIZES), strict=True):
        hidden = torch.tanh(bag @ pooling.content.weight.T + pooling.content.bias)
        if gated:
            hidden = hidden * torch.sigmoid(bag @ pooling.gate.weight.T + pooling.gate.bias)
        for head in range(n_heads):
            weights = torch.softmax(hidden @ pooling.score.weight[head] + pooling.score.bias[head], 0)
            torch.testing.assert_close(attention[:, head], weights)
            torch.testing.assert_close(vector[8 * head : 8 * (head + 1)], weights @ bag)


def test_a_learned_query_attends_as_multihead_attention_does(bags):
    pooling = QueryPooling(8, 4, generator=0).double()
    nn.init.normal_(pooling.query)
    theirs = nn.MultiheadAttention(8, 4, batch_first=True).double()
    with torch.no_grad():
        parts = pooling.project_query, pooling.keys, pooling.values
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.load_state_dict(pooling.out.state_dict())
    pooled = pooling(bags)
    for bag, vector, attention in zip(bags, pooled.vectors, pooled.attention(bags).split(SIZES), strict=True):
        expected, weights = theirs(pooling.query[None, None], bag[None], bag[None], average_attn_weights=False)
        torch.testing.assert_close(vector, expected[0, 0])
        torch.testing.assert_close(attention.T, weights[0, :, 0])


@pytest.mark.parametrize("kind", POOLINGS)
def test_neither_the_order_of_rows_nor_the_other_bags_matter(bags, kind):
    pooling = POOLINGS[kind]().double()
    vectors = pooling(bags).vectors
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    alone = pooling(RaggedBags.from_list([bags[2][order]]))
    torch.testing.assert_close(alone.vectors[0], vectors[2])
    twice = pooling(RaggedBags.from_list([bags[2].repeat(2, 1)]))
    torch.testing.assert_close(twice.vectors[0], vectors[2])


@pytest.mark.parametrize("kind", ["plain", "gated", "query"])
def test_an_empty_bag_harms_nobody_and_gradients_are_those_of_finite_differences(bags, kind):
    pooling = POOLINGS[kind]().double()
    holed = RaggedBags(bags.values, torch.tensor([0, 3, 3, 4, 11]))
    torch.testing.assert_close(pooling(holed).vectors[[0, 2, 3]], pooling(bags).vectors)

    def pooled(values):
        return pooling(RaggedBags(values, holed.offsets)).vectors

    assert torch.autograd.gradcheck(pooled, bags.values.clone().requires_grad_())


@pytest.mark.parametrize("kind", POOLINGS)
def test_rows_that_are_none_are_refused(bags, kind):
    pooling = POOLINGS[kind]()
    with pytest.raises(ValueError, match="finite"):
        pooling(RaggedBags(torch.full((2, 8), torch.nan), torch.tensor([0, 2])))
    with pytest.raises(ValueError, match="rows of shape"):
        pooling(RaggedBags(torch.zeros(2, 8, 8), torch.tensor([0, 2])))
    with pytest.raises(TypeError, match="floating-point"):
        pooling(RaggedBags(torch.zeros(2, 8, dtype=torch.int64), torch.tensor([0, 2])))


@pytest.mark.parametrize(
    "made",
    [
        lambda: AttentionPooling(0),
        lambda: AttentionPooling(8, dropout=1.0),
        lambda: AttentionPooling(8, n_heads=0),
        lambda: QueryPooling(8, 3),
    ],
)
def test_sizes_that_cannot_be_are_refused(made):
    with pytest.raises(ValueError, match="must"):
        made()


@pytest.mark.parametrize("heads", [1, 3])
def test_averages_by_logits_are_a_loops_for_one_bag_and_for_many(bags, heads):
    logits = torch.randn(11, heads, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rows = torch.randn(11, heads, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    logits[4] = -torch.inf
    for chosen in (bags, RaggedBags.from_list([bags.values])):
        parts = [part.tolist() for part in torch.arange(11).split(chosen.sizes.tolist())]
        weights = [logits[part].softmax(0) for part in parts]
        expected = torch.stack([(w.T @ bags.values[part]).flatten() for w, part in zip(weights, parts, strict=True)])
        torch.testing.assert_close(attend(chosen, logits), expected)
        by_head = [
            torch.cat([w[:, h] @ rows[part, h] for h in range(heads)]) for w, part in zip(weights, parts, strict=True)
        ]
        torch.testing.assert_close(attend(chosen, logits, rows), torch.stack(by_head))


def test_entropy_is_that_of_the_closed_form():
    """By hand, for weights 1/7, 2/7 and 4/7; and log n for n equal logits."""
    logits = torch.tensor([0.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0], dtype=torch.float64).requires_grad_()
    logits.data[1:3] = torch.tensor([2.0, 4.0], dtype=torch.float64).log()
    entropy = segment_entropy(logits, torch.tensor([0, 0, 0, 1, 1, 1, 1]), 3)
    expected = torch.tensor([0.955700, math.log(4), 0.0], dtype=torch.float64)
    torch.testing.assert_close(entropy, expected, atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(entropy[0], logits)
    expected = torch.tensor([0.141459, 0.084875, -0.226334, 0, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_entropy_of_far_apart_logits_is_zero_and_those_left_out_do_not_count(dtype):
    logits = torch.tensor([200.0, 0.0, 0.0, 1.0, 1.0, -torch.inf], dtype=dtype).requires_grad_()
    entropy = segment_entropy(logits, torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    (gradient,) = torch.autograd.grad(entropy.sum(), logits)
    assert entropy[0].item() < 1e-80
    torch.testing.assert_close(entropy[1].double(), torch.tensor(2.0).double().log(), atol=1e-2, rtol=0)
    assert torch.isfinite(gradient).all()
    assert gradient[:3].abs().max().item() < 1e-80
