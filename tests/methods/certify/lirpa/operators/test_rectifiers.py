"""Straight pieces: the rules by hand, and the derivatives that count where two pieces meet."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from offprint.methods.certify.lirpa.operators.bumped import Hardswish
from offprint.methods.certify.lirpa.operators.elu import ELU
from offprint.methods.certify.lirpa.operators.rectifiers import (
    Abs,
    Clip,
    Hardsigmoid,
    LeakyReLU,
    PReLU,
    ReLU,
    Sign,
)


def tensor(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


LOWER, UPPER = tensor(1, -3, -1, -3, -2), tensor(2, -1, 3, 1, 2)


@pytest.mark.parametrize(
    ("rule", "slopes"),
    [
        ("adaptive", [1, 0, 1, 0, 0]),
        ("same-slope", [1, 0, 0.75, 0.25, 0.5]),
        ("zero-lb", [1, 0, 0, 0, 0]),
        ("one-lb", [1, 0, 1, 1, 1]),
    ],
)
def test_relu_has_the_lower_slope_of_its_rule_and_the_chord_above(rule: str, slopes: list[float]) -> None:
    lines = ReLU(rule).relax(LOWER, UPPER)
    torch.testing.assert_close(lines.lower_slope, tensor(*slopes))
    torch.testing.assert_close(lines.lower_offset, torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(lines.upper_slope, tensor(1, 0, 0.75, 0.25, 0.5))
    torch.testing.assert_close(lines.upper_offset, tensor(0, 0, 0.75, 0.75, 1))


def test_lower_line_of_abs_is_zero_where_the_sign_is_unknown() -> None:
    lines = Abs().relax(LOWER, UPPER)
    torch.testing.assert_close(lines.lower_slope, tensor(1, -1, 0, 0, 0))
    torch.testing.assert_close(lines.upper_slope * UPPER + lines.upper_offset, UPPER.abs())


def test_prelu_has_a_slope_for_each_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([0.1, -0.5, 1.5])
    lower = torch.randn(2, 3, 4, 5, generator=generator)
    upper = lower + 2 * torch.rand(2, 3, 4, 5, generator=generator)
    lines, prelu = PReLU(weight).relax(lower, upper), PReLU(weight)
    torch.testing.assert_close(prelu.value(lower), F.prelu(lower, weight))
    for channel in range(3):
        one = LeakyReLU(weight[channel].item()).relax(lower[:, channel], upper[:, channel])
        torch.testing.assert_close(lines.lower_slope[:, channel], one.lower_slope)
        torch.testing.assert_close(lines.upper_offset[:, channel], one.upper_offset)
    flat = PReLU(weight).relax(lower[..., 0, 0], upper[..., 0, 0])
    torch.testing.assert_close(flat.lower_slope, lines.lower_slope[..., 0, 0])


@pytest.mark.parametrize(
    ("function", "lower", "upper", "derivatives"),
    [
        (ReLU(), 0.0, 1.0, (0, 1)),
        (ReLU(), -1.0, 0.0, (0, 1)),
        (ReLU(), 0.0, 0.0, (0, 1)),
        (ReLU(), 1e-9, 1.0, (1, 1)),
        (ReLU(), -1.0, -1e-9, (0, 0)),
        (Abs(), 0.0, 1.0, (-1, 1)),
        (Abs(), -2.0, -1.0, (-1, -1)),
        (LeakyReLU(3.0), 0.0, 1.0, (1, 3)),
        (Clip(-1.0, 1.0), -1.0, 0.5, (0, 1)),
        (Clip(-1.0, 1.0), -0.5, 0.5, (1, 1)),
        (Clip(-1.0, 1.0), 1.0, 2.0, (0, 1)),
        (Clip(-1.0, 1.0), 1.5, 2.0, (0, 0)),
        (Hardsigmoid(), 3.0, 4.0, (0, 1 / 6)),
        (Hardswish(), -4.0, -3.0, (-0.5, 0)),
        (Hardswish(), -3.0, -2.7, (-0.5, 0)),
        (Hardswish(), 3.0, 3.5, (1, 1.5)),
        (ELU(0.5), 0.0, 1.0, (0.5, 1)),
        (ELU(2.0), 0.0, 1.0, (1, 2)),
    ],
)
def test_both_derivatives_count_where_two_pieces_meet(function, lower, upper, derivatives) -> None:
    least, greatest = function.derivative_range(tensor(lower), tensor(upper))
    assert (least.item(), greatest.item()) == pytest.approx(derivatives)


def test_undecided_elements_are_those_that_reach_over_a_corner() -> None:
    assert ReLU().undecided(LOWER, UPPER).tolist() == [False, False, True, True, True]
    lower, upper = tensor(-3, -2, -1, 0, 1, -3), tensor(-1, 0, 1, 2, 2, 3)
    assert Clip(-1.0, 1.0).undecided(lower, upper).tolist() == [False, True, False, True, False, True]
    lines = Clip(-1.0, 1.0).relax(lower, upper)
    decided = ~Clip(-1.0, 1.0).undecided(lower, upper)
    torch.testing.assert_close(lines.lower_slope[decided], lines.upper_slope[decided])
    torch.testing.assert_close(lines.lower_offset[decided], lines.upper_offset[decided])


def test_sign_is_bounded_by_constants() -> None:
    lower, upper = tensor(-2, -1, 0, 0.5), tensor(-1, 1, 0, 2)
    lines = Sign().relax(lower, upper)
    assert not lines.lower_slope.any()
    assert not lines.upper_slope.any()
    assert lines.lower_offset.tolist() == [-1, -1, 0, 1]
    assert lines.upper_offset.tolist() == [-1, 1, 0, 1]
    with pytest.raises(NotImplementedError, match="Sign"):
        Sign().derivative_range(lower, upper)


def test_bad_constants_are_refused() -> None:
    with pytest.raises(ValueError, match="negative_slope"):
        LeakyReLU(float("nan"))
    with pytest.raises(ValueError, match="lower_line"):
        ReLU("steepest")
    with pytest.raises(ValueError, match="weight"):
        PReLU(torch.tensor([float("inf")]))
    with pytest.raises(ValueError, match="minimum"):
        Clip(2.0, 1.0)
