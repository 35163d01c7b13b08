"""Losses on bags against loops, the identity between them, Jensen's inequality and finite differences."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from offprint.methods.bags.aggregate import align_bags, bag_loss, instance_loss, interpolating_loss

EQUAL, RAGGED = [4, 4, 4, 4, 4], [1, 2, 7, 3, 5]


def problem(sizes, outputs=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    ids = ids[torch.randperm(len(ids), generator=generator)]
    draw = partial(torch.rand, generator=generator, dtype=torch.float64)
    return draw(len(ids), *outputs), ids, draw(len(sizes), *outputs)


def squared(a, b):
    return (a - b) ** 2


def log(a, b):
    return -(b * np.log(a) + (1 - b) * np.log(1 - a))


@pytest.mark.parametrize("sizes", [EQUAL, RAGGED])
@pytest.mark.parametrize(("name", "entry"), [("squared", squared), ("log", log)])
def test_losses_match_a_loop_over_bags(sizes, name, entry):
    pred, ids, targets = problem(sizes)
    f, a, y = pred.numpy(), ids.numpy(), targets.numpy()
    by_bag = np.mean([entry(f[a == bag].mean(), y[bag]) for bag in range(len(sizes))])
    by_row = np.mean([entry(f[i], y[a[i]]) for i in range(len(f))])
    assert bag_loss(pred, ids, targets, name).item() == pytest.approx(by_bag, abs=1e-13)
    assert instance_loss(pred, ids, targets, name).item() == pytest.approx(by_row, abs=1e-13)
    mixed = interpolating_loss(pred, ids, targets, 0.3, name).item()
    assert mixed == pytest.approx(0.7 * by_bag + 0.3 * by_row, abs=1e-13)


@pytest.mark.parametrize("outputs", [(), (3,)])
def test_instance_loss_is_bag_loss_plus_spread_within_equal_bags(outputs):
    pred, ids, targets = problem(EQUAL, outputs)
    pairs = [(pred[ids == bag][:, None] - pred[ids == bag][None]).square().sum() for bag in range(len(EQUAL))]
    m, k = len(EQUAL), EQUAL[0]
    spread = sum(pairs) / (2 * m * k**2) / max(len(outputs) and outputs[0], 1)
    difference = instance_loss(pred, ids, targets) - bag_loss(pred, ids, targets)
    assert abs(difference - spread).item() <= 1e-12


def test_instance_loss_of_ragged_bags_is_bag_loss_weighted_by_size_plus_spread():
    pred, ids, targets = problem(RAGGED)
    total = 0.0
    for bag, size in enumerate(RAGGED):
        mine = pred[ids == bag]
        total += size * (mine.mean() - targets[bag]) ** 2 + (mine - mine.mean()).square().sum()
    assert abs(instance_loss(pred, ids, targets) - total / sum(RAGGED)).item() <= 1e-12


@pytest.mark.parametrize("loss", ["squared", "log", partial(functional.huber_loss, reduction="none", delta=0.1)])
def test_bag_loss_is_at_most_instance_loss(loss):
    for seed in range(20):
        pred, ids, targets = problem(EQUAL, seed=seed)
        assert bag_loss(pred, ids, targets, loss) <= instance_loss(pred, ids, targets, loss) + 1e-12


@pytest.mark.parametrize("loss", ["squared", "log"])
@pytest.mark.parametrize("sizes", [EQUAL, RAGGED])
def test_gradient_matches_finite_differences(sizes, loss):
    pred, ids, targets = problem(sizes)
    pred = (0.1 + 0.8 * pred).requires_grad_()
    # Central differences with step 1e-6 in double precision are good to about 1e-9.
    assert torch.autograd.gradcheck(lambda p: interpolating_loss(p, ids, targets, 0.37, loss), (pred,), atol=1e-6)


def test_bags_of_one_make_every_interpolation_the_ordinary_loss():
    pred, ids, targets = problem([1] * 9)
    expected = functional.mse_loss(pred, targets[ids])
    for rho in (0.0, 0.4, 1.0):
        torch.testing.assert_close(interpolating_loss(pred, ids, targets, rho), expected, rtol=0, atol=1e-14)


def test_order_of_rows_does_not_matter():
    pred, ids, targets = problem(RAGGED)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(9))
    first = interpolating_loss(pred, ids, targets, 0.6)
    torch.testing.assert_close(interpolating_loss(pred[order], ids[order], targets, 0.6), first, rtol=0, atol=1e-14)


def test_keeps_single_precision():
    pred, ids, targets = problem(RAGGED)
    assert interpolating_loss(pred.float(), ids, targets.float(), 0.5).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rho": 1.1}, "rho"),
        ({"rho": -0.1}, "rho"),
        ({"rho": float("nan")}, "rho"),
        ({"pred": torch.tensor([0.0, float("nan"), 1.0])}, "pred"),
        ({"pred": torch.zeros(2)}, "pred"),
        ({"pred": torch.zeros(3, dtype=torch.int64)}, "pred"),
        ({"bag_ids": torch.tensor([0, 1, 2])}, "bag_ids"),
        ({"bag_ids": torch.tensor([0, 0, 0])}, "bag 1 of 2 without rows"),
        ({"bag_ids": torch.tensor([0.0, 1.0, 1.0])}, "bag_ids"),
        ({"bag_targets": torch.tensor([0.0, float("inf")])}, "bag_targets"),
        ({"bag_targets": torch.zeros(2, 1)}, "bag_targets"),
        ({"loss": "absolute"}, "loss"),
        ({"loss": lambda p, t: (p - t).sum()}, "loss"),
        ({"loss": "log", "pred": torch.tensor([0.0, 0.5, 1.5])}, "pred"),
    ],
)
def test_bad_input_is_named(change, named):
    arguments = {
        "pred": torch.zeros(3),
        "bag_ids": torch.tensor([0, 1, 1]),
        "bag_targets": torch.zeros(2),
        "rho": 0.5,
        "loss": "squared",
    }
    with pytest.raises((ValueError, TypeError), match=named):
        interpolating_loss(**{**arguments, **change})


def test_responses_follow_their_bags():
    index, targets = align_bags(["b", "a", "b"], {"b": 2.0, "a": 1.0}, 3)
    assert targets[index.ids].tolist() == [2.0, 1.0, 2.0]
    assert align_bags([7, 3, 7], [10.0, 20.0], 3)[1].tolist() == [10.0, 20.0]
    assert align_bags([7, 3, 7], torch.tensor([10.0, 20.0]), 3)[1].tolist() == [10.0, 20.0]


@pytest.mark.parametrize(
    ("ids", "means", "named"),
    [
        (["a", "b"], {"a": 1.0}, "'b'"),
        (["a", "b"], {"a": 1.0, "b": 2.0, "c": 3.0}, "'c'"),
        ([0, 1], [1.0], "bag_means"),
        ([0, 1], [1.0, float("nan")], "bag_means"),
        ([0, 1, 1], [1.0, 2.0], "bag_ids"),
    ],
)
def test_responses_that_do_not_match_are_refused(ids, means, named):
    with pytest.raises(ValueError, match=named):
        align_bags(ids, means, 2)
