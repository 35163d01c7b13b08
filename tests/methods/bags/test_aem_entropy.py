"""Entropy, its annealing and the loss: closed forms by hand, SciPy, limits, and a plain training loop."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy
from torch import nn

from offprint.methods.bags.aem import (
    ACMIL,
    DSMIL,
    DTFDMIL,
    AEMLoss,
    EntropyPenalty,
    GatedABMIL,
    MeanMIL,
    MILOutput,
    annealed_weight,
    attention_entropy,
    divergence_from_uniform,
)
from offprint.methods.bags.ragged import RaggedBags

LOGITS = torch.tensor([0.0, math.log(2), math.log(4)], dtype=torch.float64)


@pytest.fixture
def as_users_call_it(monkeypatch):
    """Switch the checks of annotations off, as they are outside the tests."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def pair(*rows):
    """Attention logits of one bag, with class logits that say nothing."""
    return torch.zeros(1, 2), torch.stack(rows)[None].float()


def test_entropy_and_its_gradient_are_those_of_the_closed_form():
    """By hand: attention 1/7, 2/7, 4/7, and a (ln a + H) for the gradient of the loss."""
    logits = LOGITS.clone().requires_grad_()
    loss = -attention_entropy(logits)
    assert loss.item() == pytest.approx(-0.955700, abs=1e-6)
    loss.backward()
    expected = torch.tensor([-0.141459, -0.084875, 0.226334], dtype=torch.float64)
    torch.testing.assert_close(logits.grad, expected, atol=1e-6, rtol=0)
    assert logits.grad.sum().item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_entropy_of_uniform_logits_is_the_logarithm_of_their_number(dtype):
    entropy = attention_entropy(torch.full((1000,), 3.0, dtype=dtype))
    assert entropy.item() == pytest.approx(6.907755, abs=1e-5)  # a thousand roundings of float32
    assert attention_entropy(torch.zeros(3, 1000, dtype=dtype), normalize=True).tolist() == pytest.approx([1] * 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_entropy_of_one_hot_attention_is_zero_with_a_zero_gradient(dtype):
    logits = torch.zeros(1000, dtype=dtype)
    logits[7] = 200
    logits.requires_grad_()
    entropy = attention_entropy(logits)
    entropy.backward()
    assert entropy.item() == pytest.approx(0, abs=1e-30)
    assert logits.grad.abs().max().item() == pytest.approx(0, abs=1e-30)  # which NaN is not


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_entropy_and_divergence_are_scipys_over_real_instances(seed, n, rows):
    rng = np.random.default_rng(seed)
    logits, mask = rng.normal(scale=5, size=(2, rows, n)), rng.random((2, n)) < 0.7
    mask[:, :2] = True
    found = attention_entropy(torch.tensor(logits), torch.tensor(mask))
    normal = attention_entropy(torch.tensor(logits).mT, torch.tensor(mask), dim=-2, normalize=True)
    away = divergence_from_uniform(torch.tensor(logits), torch.tensor(mask))
    for bag in range(2):
        for row in range(rows):
            real = softmax(logits[bag, row, mask[bag]])
            assert found[bag, row].item() == pytest.approx(scipy_entropy(real), abs=1e-12)
            assert normal[bag, row].item() == pytest.approx(scipy_entropy(real) / math.log(len(real)), abs=1e-12)
            uniform = np.full(len(real), 1 / len(real))
            assert away[bag, row].item() == pytest.approx(scipy_entropy(uniform, real), abs=1e-9)


@pytest.mark.parametrize("hidden", [-1e9, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hidden_instances_do_not_count(hidden, dtype):
    logits = torch.tensor([0.0, hidden, 1.5, hidden, -1.0], dtype=dtype, requires_grad=True)
    entropy = attention_entropy(logits)
    entropy.backward()
    assert entropy.item() == pytest.approx(scipy_entropy(softmax([0.0, 1.5, -1.0])), abs=1e-6)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[[1, 3]].tolist() == [0, 0]


def test_a_row_left_out_whole_and_a_single_instance_are_told_from_a_spread_one():
    logits = torch.tensor([[0.0, 0.0], [-torch.inf, -torch.inf], [2.0, -torch.inf]], requires_grad=True)
    assert attention_entropy(logits).tolist() == pytest.approx([math.log(2), 0, 0])
    assert attention_entropy(logits, normalize=True)[[0, 2]].tolist() == [1, 1]
    EntropyPenalty()(logits).backward()
    assert torch.isfinite(logits.grad).all()
    assert EntropyPenalty()(logits).item() == pytest.approx(-math.log(2) / 2)  # over the two rows that see something
    divergence = divergence_from_uniform(logits)
    assert divergence.tolist() == [0, 0, 0]
    divergence.sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_the_weight_anneals_along_half_a_cosine():
    """Values by hand: 0.05 (1 + cos(pi t / 50))."""
    found = [annealed_weight(0.1, epoch, 50) for epoch in (0, 10, 25, 50, 80)]
    assert found == pytest.approx([0.1, 0.0904508, 0.05, 0, 0], abs=1e-7)
    assert annealed_weight(0.1, 25, 50, weight_end=0.02) == pytest.approx(0.06)
    assert annealed_weight(0.1, 49, 50, schedule="constant") == 0.1


def test_the_loss_is_classification_plus_the_weighted_negative_entropy():
    loss = AEMLoss(weight=0.1, total_epochs=50)
    value = loss(pair(LOGITS), torch.tensor([1]), epoch=10)
    assert value.item() == pytest.approx(math.log(2) - 0.0904508 * 0.955700, abs=1e-6)
    assert (loss.terms.ce.item(), loss.terms.neg_entropy.item()) == pytest.approx((math.log(2), -0.955700), abs=1e-6)
    assert loss.terms.weight == pytest.approx(0.0904508, abs=1e-7)


def test_of_several_rows_the_mean_counts_and_not_the_sum():
    loss = AEMLoss()
    loss(pair(LOGITS, torch.zeros(3)), torch.tensor([0]))
    assert loss.terms.neg_entropy.item() == pytest.approx(-(0.955700 + math.log(3)) / 2, abs=1e-6)
    model, bag = DSMIL(6, 2, generator=0), torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    output = model(bag)
    loss(output, torch.tensor([1]))
    rows = [scipy_entropy(softmax(row)) for row in output.attention_logits[0].detach().double().numpy()]
    assert loss.terms.neg_entropy.item() == pytest.approx(-sum(rows) / 2, abs=1e-6)


def test_of_two_tiers_the_sum_counts():
    torch.manual_seed(0)
    output = DTFDMIL(6, n_parts=3, generator=0)(torch.randn(12, 6))
    loss = AEMLoss()
    loss(output, torch.tensor([1]))
    tiers = [
        [scipy_entropy(softmax(row)) for row in tier[0].detach().double().numpy()]
        for tier in (output.attention_logits, output.stages[0])
    ]
    expected = np.mean(tiers[0]) + tiers[1][0]
    assert loss.terms.neg_entropy.item() == pytest.approx(-expected, abs=1e-5)


def test_entropy_beyond_the_floor_is_not_rewarded():
    for floor, expected in ((0.5, -0.5), (2.0, -0.955700)):
        logits = LOGITS.clone().requires_grad_()
        value = EntropyPenalty(floor=floor)(logits)
        value.backward()
        assert value.item() == pytest.approx(expected, abs=1e-6)
        assert bool(logits.grad.any()) == (floor == 2.0)
    assert EntropyPenalty(normalize=True)(LOGITS).item() == pytest.approx(-0.955700 / math.log(3), abs=1e-6)
    assert EntropyPenalty(kind="kl")(LOGITS).item() == pytest.approx(math.log(7 / 3) - math.log(2), abs=1e-6)


TWO_BAGS = (torch.zeros(2, 2), torch.stack([LOGITS, torch.zeros(3)])[:, None])
"""A bag of entropy 0.955700, and one of ln 3."""


@pytest.mark.parametrize("weight", [(0.1, 0.4), [0.1, 0.4], {1: 0.4, 0: 0.1}])
def test_weights_by_class_go_by_the_bags_label(weight):
    """By hand: the mean over bags of each one's weight times its negative entropy."""
    loss, spread = AEMLoss(weight=weight, total_epochs=50), math.log(3)
    value = loss(TWO_BAGS, torch.tensor([0, 1]))
    assert value.item() == pytest.approx(math.log(2) - (0.1 * 0.955700 + 0.4 * spread) / 2, abs=1e-6)
    assert loss.terms.neg_entropy.item() == pytest.approx(-(0.955700 + spread) / 2, abs=1e-6)
    assert loss.terms.penalty.item() == pytest.approx(-(0.1 * 0.955700 + 0.4 * spread) / 2, abs=1e-6)
    assert loss.terms.weight == pytest.approx(0.25)
    swapped = loss(TWO_BAGS, torch.tensor([1, 0]), epoch=25)  # half of the way, where a cosine is at half
    assert swapped.item() == pytest.approx(math.log(2) - (0.2 * 0.955700 + 0.05 * spread) / 2, abs=1e-6)
    both = loss(TWO_BAGS, torch.tensor([1, 1]))
    assert both.item() == pytest.approx(math.log(2) - 0.4 * (0.955700 + spread) / 2, abs=1e-6)


def test_a_class_of_weight_zero_is_left_alone():
    logits = TWO_BAGS[1].clone().requires_grad_()
    AEMLoss(weight=(0.0, 0.4))((TWO_BAGS[0], logits), torch.tensor([1, 0])).backward()
    # Half of 0.4 times what the closed form says for the first bag, nothing for the second.
    expected = [0.2 * slope for slope in (-0.141459, -0.084875, 0.226334)]
    assert logits.grad[0, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert not logits.grad[1].any()


def test_equal_weights_by_class_are_one_weight():
    """Also for several rows and stages, with rows that see nothing."""
    bag = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    for made in (DSMIL(6, 2, generator=0), DTFDMIL(6, n_parts=3, generator=0)):
        torch.manual_seed(0)
        output, y = made(RaggedBags.from_list([bag, bag[:2]])), torch.tensor([0, 1])  # of two, a third part is empty
        one, by_class = AEMLoss(weight=0.3), AEMLoss(weight=(0.3, 0.3))
        torch.testing.assert_close(by_class(output, y), one(output, y))
        torch.testing.assert_close(by_class.terms.penalty, one.terms.penalty)
        torch.testing.assert_close(one.terms.penalty, 0.3 * one.terms.neg_entropy)


def steps(model, bags, y, loss_of, n_steps):
    """Train by hand and return the parameters after each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    trajectory = []
    for step in range(n_steps):
        optimizer.zero_grad()
        loss_of(model(bags), y, step).backward()
        optimizer.step()
        trajectory.append([parameter.detach().clone() for parameter in model.parameters()])
    return trajectory


@pytest.fixture
def bags():
    source = torch.Generator().manual_seed(0)
    return RaggedBags.from_list([torch.randn(size, 8, generator=source) for size in (20, 7, 13, 30)])


Y = torch.tensor([0, 1, 0, 1])


def test_a_weight_of_zero_trains_exactly_as_without(bags):
    def plain(output, y, step):
        return nn.functional.cross_entropy(output.logits, y)

    model, loss = GatedABMIL(8, generator=0), AEMLoss(weight=0.0)
    expected = steps(copy.deepcopy(model), bags, Y, plain, 10)
    for found, wanted in zip(steps(model, bags, Y, loss, 10), expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert loss.terms.neg_entropy.item() < -1  # which is reported all the same


def test_a_huge_weight_makes_attention_uniform_and_the_model_a_mean(bags, as_users_call_it):
    model = GatedABMIL(8, generator=0)
    steps(model, bags, Y, AEMLoss(weight=1e3, schedule="constant"), 300)
    mean = MeanMIL(8)
    mean.reduce.load_state_dict(model.reduce.state_dict())
    mean.classifier.load_state_dict(model.classifier.state_dict())
    output = model(bags)
    for row, size in zip(output.attention[:, 0], bags.sizes.tolist(), strict=True):
        assert (row[:size] * size - 1).abs().max().item() < 0.01
    torch.testing.assert_close(output.logits, mean(bags).logits, atol=0.01, rtol=0.01)  # attention is off by 1 %


def test_attention_as_probabilities_is_explained():
    probabilities = torch.rand(2, 3, 500, generator=torch.Generator().manual_seed(0)).softmax(-1)
    for given_as in (probabilities, probabilities.bfloat16(), probabilities.double()):
        with pytest.raises(ValueError, match=r"logits.*before its softmax.*probabilities"):
            attention_entropy(given_as)
    with pytest.raises(ValueError, match="probabilities"):
        AEMLoss()((torch.zeros(2, 2), probabilities), torch.tensor([0, 1]))
    # Taken as the message says, they mean what they are.
    expected = scipy_entropy(probabilities.double().numpy(), axis=-1)
    np.testing.assert_allclose(attention_entropy(probabilities.log()), expected, rtol=1e-5)


def test_logits_that_pass_through_a_sum_of_one_in_training_are_not_taken_for_probabilities():
    loss, y = AEMLoss(), torch.tensor([0])
    loss(pair(torch.tensor([0.3, 0.4])), y)
    loss(pair(torch.tensor([0.5, 0.5])), y)
    with pytest.raises(ValueError, match="probabilities"):
        AEMLoss()(pair(torch.tensor([0.5, 0.5])), y)


def test_the_loss_takes_each_frameworks_own():
    y, kinds = torch.tensor([1]), nn.functional.cross_entropy
    bag = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    output = DSMIL(6, generator=0)(bag)
    expected = (kinds(output.aux["max_logits"], y) + kinds(output.aux["bag_logits"], y)) / 2
    torch.testing.assert_close(AEMLoss(weight=0)(output, y), expected)

    output = ACMIL(6, n_branches=2, generator=0).eval()(bag)
    branches, rows = output.aux["branch_logits"][0], output.attention[0]
    expected = (kinds(branches[:1], y) + kinds(branches[1:], y)) / 2 + kinds(output.logits, y)
    expected = expected + nn.functional.cosine_similarity(rows[0], rows[1], dim=0)
    torch.testing.assert_close(AEMLoss(weight=0)(output, y), expected)


@pytest.mark.parametrize(
    ("made", "error", "named"),
    [
        (lambda: attention_entropy(torch.tensor([0.0, torch.nan])), ValueError, "logits"),
        (lambda: attention_entropy(torch.tensor([0.0, torch.inf])), ValueError, "logits"),
        (lambda: attention_entropy(torch.zeros(3, 0)), ValueError, "logits must hold at least one instance"),
        (lambda: attention_entropy(torch.zeros(2, 3), torch.ones(2, 4, dtype=torch.bool)), ValueError, "mask"),
        (lambda: annealed_weight(0.1, -1, 50), ValueError, "epoch"),
        (lambda: annealed_weight(0.1, 0, 0), ValueError, "total_epochs"),
        (lambda: annealed_weight(math.nan, 0, 50), ValueError, "weight"),
        (lambda: AEMLoss(weight=-0.1), ValueError, "weight.*allow_negative=True"),
        (lambda: AEMLoss(total_epochs=0), ValueError, "total_epochs"),
        (lambda: AEMLoss(weight_end=math.inf), ValueError, "weight_end"),
        (lambda: AEMLoss(floor=0.0), ValueError, "floor"),
        (lambda: AEMLoss()(MILOutput(torch.zeros(1, 2)), torch.tensor([0])), ValueError, "no attention"),
        (lambda: AEMLoss()(pair(LOGITS), torch.tensor([0, 1])), ValueError, "target"),
        (lambda: AEMLoss(weight=(0.1, -0.1)), ValueError, "weight.*allow_negative=True"),
        (lambda: AEMLoss(weight=(0.1, math.nan)), ValueError, "weight"),
        (lambda: AEMLoss(weight=()), ValueError, "weight must hold one number per class"),
        (lambda: AEMLoss(weight="0.1"), ValueError, "weight must hold one number per class"),
        (lambda: AEMLoss(weight={0: 0.1, 2: 0.1}), ValueError, "weight must hold every class from 0 on"),
        (lambda: AEMLoss(weight={}), ValueError, "weight must hold every class from 0 on"),
        (lambda: AEMLoss(floor=1.5, normalize=True), ValueError, "floor must be at most 1"),
        (lambda: AEMLoss()(torch.zeros(1, 2), Y[:1]), TypeError, "output must be a MILOutput.*got Tensor"),
        (lambda: AEMLoss()((torch.zeros(1, 2),), Y[:1]), TypeError, "output must be .* pair.*a tuple of 1"),
        # Shape (bags, n): with weights by class it would broadcast to numbers that are wrong.
        (lambda: AEMLoss()((torch.zeros(2, 2), TWO_BAGS[1][:, 0]), Y[:2]), ValueError, r"shape \(2, rows, n\)"),
        (lambda: AEMLoss()((torch.zeros(2, 2), TWO_BAGS[1][:1]), Y[:2]), ValueError, r"shape \(2, rows, n\)"),
        (
            lambda: AEMLoss(weight=(0.1,) * 3)(TWO_BAGS, Y[:2]),
            ValueError,
            "one number for each of the model's 2 classes",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(made, error, named, as_users_call_it):
    with pytest.raises(error, match=named):
        made()


def test_choices_that_do_not_exist_are_refused(as_users_call_it):
    for setting in ({"schedule": "linear"}, {"kind": "entropie"}, {"kind": "kl", "floor": 1.0}):
        with pytest.raises(ValueError, match=r"must be|are of kind"):
            AEMLoss(**setting)
    with pytest.raises(TypeError, match="logits"):
        attention_entropy([0.0, 1.0])
    with pytest.raises(TypeError, match="mask"):
        attention_entropy(torch.zeros(3), torch.ones(3))
    assert AEMLoss(weight=-0.1, allow_negative=True).penalties[0].weight == -0.1
