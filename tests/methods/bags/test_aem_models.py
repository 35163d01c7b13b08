"""The models: blind to padding, order and duplicates, and against formulas written out for one bag."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import nn

from offprint.methods.bags.aem import (
    ACMIL,
    DSMIL,
    DTFDMIL,
    GatedABMIL,
    MaxMIL,
    MeanMIL,
    MultiHeadPoolMIL,
    attention_entropy,
)
from offprint.methods.bags.ragged import RaggedBags

MODELS = {
    "gated": lambda: GatedABMIL(8, 3, 16, generator=0),
    "plain": lambda: GatedABMIL(8, 3, 16, gated=False, generator=0),
    "DSMIL": lambda: DSMIL(8, 3, generator=0),
    "DSMIL, two layers": lambda: DSMIL(8, 3, 16, nonlinear_query=True, generator=0),
    "heads": lambda: MultiHeadPoolMIL(8, 3, 16, generator=0),
    "ACMIL": lambda: ACMIL(8, 3, 16, generator=0),
    "DTFD-MIL": lambda: DTFDMIL(8, 3, 16, generator=0),
    "mean": lambda: MeanMIL(8, 3, 16, generator=0),
    "max": lambda: MaxMIL(8, 3, 16, generator=0),
}
ROWS = {"gated": 1, "plain": 1, "DSMIL": 3, "DSMIL, two layers": 3, "heads": 8, "ACMIL": 5, "DTFD-MIL": 5}


@pytest.fixture
def as_users_call_it(monkeypatch):
    """Switch the checks of annotations off, as they are outside the tests."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


@pytest.fixture
def bags() -> RaggedBags:
    source = torch.Generator().manual_seed(0)
    return RaggedBags.from_list([torch.randn(size, 8, generator=source) for size in (20, 1, 33, 6)])


@pytest.fixture(params=MODELS)
def kind(request) -> str:
    return request.param


def made(kind):
    model = MODELS[kind]().eval()
    if kind == "heads":  # away from its nearly uniform start
        nn.init.normal_(model.pooling.query, generator=torch.Generator().manual_seed(3))
    return model


def test_padding_changes_nothing_for_any_model(kind, bags):
    """Each bag alone against all of them padded to twice the longest, real instances scattered among rubbish."""
    model, source = made(kind), torch.Generator().manual_seed(1)
    rows, mask = torch.full((4, 66, 8), torch.nan), torch.zeros(4, 66, dtype=torch.bool)
    for bag, part in enumerate(bags):
        mask[bag, torch.randperm(66, generator=source)[: len(part)]] = True
        rows[bag, mask[bag]] = part
    together, ragged = model(rows, mask), model(bags)
    for bag, part in enumerate(bags):
        alone = model(part)
        torch.testing.assert_close(together.logits[bag], alone.logits[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(ragged.logits[bag], alone.logits[0], atol=1e-6, rtol=0)
        if kind in ROWS:
            assert alone.attention_logits.shape == (1, ROWS[kind], len(part))
            given = together.attention_logits[bag][:, mask[bag]]
            torch.testing.assert_close(given, alone.attention_logits[0], atol=1e-6, rtol=0)
            assert (together.attention_logits[bag][:, ~mask[bag]] == -torch.inf).all()
            expected = attention_entropy(alone.attention_logits)[0]
            torch.testing.assert_close(attention_entropy(together.attention_logits)[bag], expected, atol=1e-6, rtol=0)
            torch.testing.assert_close(ragged.instance_weights[bag].sum(), torch.tensor(1.0))


def test_a_model_that_ignored_the_mask_would_fail(bags):
    """The padding of the test before is not without effect: zeros as instances move the mean."""
    model, padded = made("mean"), torch.cat([bags[0], torch.zeros(20, 8)])
    assert (model(padded).logits - model(bags[0]).logits).abs().max() > 0.01


def test_order_does_not_matter_and_attention_moves_along(kind, bags):
    model, order = made(kind), torch.randperm(33, generator=torch.Generator().manual_seed(2))
    before, after = model(bags[2]), model(bags[2][order])
    torch.testing.assert_close(after.logits, before.logits, atol=1e-5, rtol=0)
    if kind in ROWS:
        torch.testing.assert_close(after.attention_logits, before.attention_logits[:, :, order], atol=1e-5, rtol=0)


def test_a_bag_twice_over_is_the_same_bag_with_more_entropy(kind, bags):
    model = made(kind)
    once, twice = model(bags[2]), model(bags[2].repeat(2, 1))
    torch.testing.assert_close(twice.logits, once.logits, atol=1e-5, rtol=0)
    if kind in ROWS:
        gain = attention_entropy(twice.attention_logits) - attention_entropy(once.attention_logits)
        torch.testing.assert_close(gain, torch.full_like(gain, math.log(2)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["gated", "plain"])
def test_attention_pooling_is_its_formula(kind, bags):
    model, bag = made(kind), bags[0]
    z = torch.relu(bag @ model.reduce.linear.weight.T)
    hidden = torch.tanh(z @ model.pooling.content.weight.T + model.pooling.content.bias)
    if kind == "gated":
        hidden = hidden * torch.sigmoid(z @ model.pooling.gate.weight.T + model.pooling.gate.bias)
    e = hidden @ model.pooling.score.weight[0] + model.pooling.score.bias[0]
    output = model(bag)
    torch.testing.assert_close(output.attention_logits[0, 0], e)
    torch.testing.assert_close(output.logits[0], model.classifier(e.softmax(0) @ z))


def test_dsmil_is_its_formula(bags):
    model, bag = made("DSMIL"), bags[0]
    scores, queries = model.score(bag), model.query(bag)
    critical = [int(scores[:, c].argmax()) for c in range(3)]
    rows = [queries @ queries[critical[c]] / math.sqrt(128) for c in range(3)]
    pooled = torch.cat([row.softmax(0) @ bag for row in rows])
    expected = 0.5 * scores.amax(0).softmax(0) + 0.5 * model.classifier(pooled).softmax(0)
    output = model(bag)
    torch.testing.assert_close(output.logits[0].softmax(0), expected)
    torch.testing.assert_close(output.attention_logits[0], torch.stack(rows))


def test_a_query_pools_as_torchs_attention_does(bags):
    model, bag = made("heads"), bags[0]
    theirs = nn.MultiheadAttention(16, 8, batch_first=True)
    pooling = model.pooling
    with torch.no_grad():
        parts = pooling.project_query, pooling.keys, pooling.values
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.load_state_dict(pooling.out.state_dict())
    z = torch.relu(bag @ model.reduce.linear.weight.T)[None]
    pooled, weights = theirs(pooling.query[None, None], z, z, average_attn_weights=False)
    output = model(bag)
    torch.testing.assert_close(output.logits[0], model.classifier(model.norm(pooled[0, 0])))
    torch.testing.assert_close(output.attention[0], weights[0, :, 0])


def test_acmil_attends_by_the_mean_of_its_branches(bags):
    model, bag = made("ACMIL"), bags[0]
    output = model(bag)
    z = torch.relu(bag @ model.reduce.linear.weight.T)
    torch.testing.assert_close(output.logits[0], model.classifier(output.attention[0].mean(0) @ z))
    for branch, row in enumerate(output.attention[0]):
        torch.testing.assert_close(output.aux["branch_logits"][0, branch], model.branches[branch](row @ z))
    cosines = [
        nn.functional.cosine_similarity(output.attention[0, i], output.attention[0, j], dim=0)
        for i in range(5)
        for j in range(i)
    ]
    torch.testing.assert_close(output.penalty, torch.stack(cosines).mean())


def test_acmil_hides_six_of_ten_favourites_in_training(bags):
    model = MODELS["ACMIL"]()
    plain = model.eval()(bags[2]).attention_logits[0]
    model.train()
    hidden = torch.zeros(60, 5, 33, dtype=torch.bool)
    torch.manual_seed(0)
    for trial in range(60):
        output = model(bags[2])
        hidden[trial] = output.attention_logits[0] == -torch.inf
        visible = [plain[branch][~hidden[trial, branch]] for branch in range(5)]
        expected = torch.stack([attention_entropy(row) for row in visible])
        torch.testing.assert_close(attention_entropy(output.attention_logits)[0], expected)
    assert (hidden.sum(2) == 6).all()
    for branch, row in enumerate(plain):
        favourites = torch.zeros(33, dtype=torch.bool)
        favourites[row.topk(10).indices] = True
        assert not hidden[:, branch, ~favourites].any()
        # Each is hidden in 60 % of 60 trials; 5 standard errors of 6.3 % make a false alarm about one in 10⁴.
        assert (hidden[:, branch, favourites].float().mean(0) - 0.6).abs().max() < 0.316


@pytest.mark.parametrize("size", [1, 2, 3])
def test_acmil_leaves_something_of_tiny_bags(size):
    model = MODELS["ACMIL"]()
    torch.manual_seed(0)
    output = model(torch.ones(size, 8))
    assert output.attention_logits.isfinite().any(2).all()
    assert torch.isfinite(output.logits).all()


def test_dtfd_deals_equal_parts_at_random_and_trains_both_tiers(bags):
    model = MODELS["DTFD-MIL"]()
    torch.manual_seed(0)
    first, second = model(bags), model(bags)
    seen = first.attention_logits.isfinite()
    assert sorted(seen[2].sum(1).tolist()) == [6, 6, 7, 7, 7]
    assert seen[1].sum().item() == 1  # a bag of one instance has one part
    assert (seen.sum(1) <= 1).all()  # and each instance lies in one
    assert not torch.equal(seen, second.attention_logits.isfinite())
    assert first.heads[0].bags.tolist() == [0] * 5 + [1] + [2] * 5 + [3] * 5
    assert first.stages[0].isfinite().sum((1, 2)).tolist() == [5, 1, 5, 5]


def test_dtfd_is_its_formula(bags):
    model, bag = made("DTFD-MIL"), bags[2]
    output = model(bag)
    z = torch.relu(bag @ model.reduce.linear.weight.T)
    parts = [row.isfinite() for row in output.attention_logits[0]]
    # A part without instances would have no row of its own; of 33 instances none of five parts is without.
    vectors = torch.stack([model.pooling.logits(z[part])[:, 0].softmax(0) @ z[part] for part in parts])
    second = model.part_pooling.logits(vectors)[:, 0]
    torch.testing.assert_close(output.stages[0][0, 0], second)
    torch.testing.assert_close(output.logits[0], model.classifier(second.softmax(0) @ vectors))
    torch.testing.assert_close(output.heads[0].logits, model.part_classifier(vectors))
    instance = output.instance_weights[0] @ z
    torch.testing.assert_close(model.classifier(instance), output.logits[0])


def test_dtfds_parts_in_evaluation_are_about_equal():
    """A checksum that deals 5000 instances evenly: each part within 5 standard deviations (28) of 1000."""
    model = MODELS["DTFD-MIL"]().eval()
    for features in (
        torch.randn(5000, 8, generator=torch.Generator().manual_seed(0)),
        torch.arange(40000.0).view(-1, 8),
        torch.arange(40000.0).view(-1, 8) * (torch.arange(8) > 0),  # alike in their first feature
        torch.arange(40000.0).view(-1, 8) * (torch.arange(8) < 1),  # and in all the others
    ):
        sizes = model(features).attention_logits.isfinite().sum(2)[0]
        assert (sizes - 1000).abs().max() < 141


def test_gradients_are_those_of_finite_differences(kind, bags):
    model = made(kind).double()
    values = bags.values.double()[:8].clone().requires_grad_()

    def outputs(rows, offsets):
        output = model(RaggedBags(rows, torch.tensor(offsets)))
        return output.logits, *(
            () if output.attention_logits is None else (attention_entropy(output.attention_logits),)
        )

    if kind != "DTFD-MIL":  # whose parts follow from the bits that a finite difference moves
        for offsets in ([0, 5, 8], [0, 8]):  # a single bag goes another way
            assert torch.autograd.gradcheck(lambda rows, at=offsets: outputs(rows, at), values, fast_mode=True)


def test_rows_of_attention_add_up_to_one(kind, bags):
    output = made(kind)(bags)
    if kind not in ROWS:
        with pytest.raises(ValueError, match="no attention"):
            _ = output.attention
        return
    sums = output.attention.sum(2)
    present = output.attention_logits.isfinite().any(2)
    np.testing.assert_allclose(sums.detach()[present], 1, atol=1e-6)
    assert (sums[~present] == 0).all()


@pytest.mark.parametrize(
    ("bags", "mask", "named"),
    [
        (torch.zeros(0, 8), None, "bags.*bag 0 is empty"),
        (torch.zeros(2, 3, 8), torch.tensor([[True, True, True], [False, False, False]]), "bags.*bag 1 is empty"),
        (torch.zeros(3, 7), None, "bags must hold instances of 8"),
        (torch.zeros(2, 2, 3, 8), None, "bags must be"),
        (torch.zeros(2, 3, 8), torch.ones(2, 4, dtype=torch.bool), "mask"),
        (RaggedBags.from_list([torch.zeros(2, 8), torch.full((3, 8), torch.inf)]), None, "bag 1 holds NaN"),
        (torch.zeros(3, 8).index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(torch.nan)), None, "instance 1"),
    ],
)
def test_what_are_no_bags_is_refused_by_name(kind, bags, mask, named, as_users_call_it):
    with pytest.raises(ValueError, match=named):
        made(kind)(bags, mask)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: GatedABMIL(0), "in_features"),
        (lambda: GatedABMIL(8, 1), "n_classes"),
        (lambda: GatedABMIL(8, dropout=1.0), "dropout"),
        (lambda: GatedABMIL(8, reduced_features=0), "reduced_features"),
        (lambda: MultiHeadPoolMIL(8, dropout=-0.1), "dropout"),
        (lambda: MultiHeadPoolMIL(8, reduced_features=12), "n_heads"),
        (lambda: ACMIL(8, hidden_share=1.0), "hidden_share"),
        (lambda: ACMIL(8, n_branches=0), "n_branches"),
        (lambda: DTFDMIL(8, n_parts=0), "n_parts"),
        (lambda: DSMIL(8, query_features=0), "query_features"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_widths_follow_the_paper():
    assert [GatedABMIL(width).reduce.width for width in (384, 512, 768, 1)] == [128, 256, 384, 1]
