"""Which of the sound lines of curves with inflections is taken, against slopes found by brute force."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from offprint.methods.certify.lirpa.operators.bumped import GELU, Bumped, Mish, SiLU
from offprint.methods.certify.lirpa.operators.elu import ELU, SELU
from offprint.methods.certify.lirpa.operators.powers import OddPower
from offprint.methods.certify.lirpa.operators.s_shaped import Arctan, Erf, Sigmoid, Softsign, SShaped, Tanh


def intervals() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ends = torch.randn(250, 2, generator=generator, dtype=torch.float64) * 3
    ends[::4] *= 4
    return ends.amin(-1), ends.amax(-1)


def slope_through(function: Callable[[Tensor], Tensor], end: Tensor, other: Tensor, steepest: bool) -> Tensor:
    """Return the greatest (or least) slope of chords from one end of the curve to its points up to the other end."""
    share = torch.linspace(0, 1, 401, dtype=torch.float64)[1:, None]
    start, stop = end, other
    for _ in range(3):
        points = start * (1 - share) + stop * share
        slopes = (function(points) - function(end)) / (points - end)
        at = slopes.argmax(0) if steepest else slopes.argmin(0)
        best, step = points.gather(0, at[None])[0], (stop - start) / 400
        low, high = torch.minimum(best - step, best + step), torch.maximum(best - step, best + step)
        nearest = end + (other - end) * 1e-6  # the chord to the end itself has no slope
        least, greatest = torch.minimum(nearest, other), torch.maximum(nearest, other)
        start, stop = low.clamp(least, greatest), high.clamp(least, greatest)
    return slopes.amax(0) if steepest else slopes.amin(0)


def hold(found: Tensor, expected: Tensor, where: Tensor) -> None:
    assert where.sum() > 10
    # The finest grid has steps below 1e-6, and the slope is stationary at its best point or that is an end.
    torch.testing.assert_close(found[where], expected[where], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [Sigmoid(), Tanh(), Arctan(), Erf(), Softsign()], ids=lambda f: type(f).__name__)
def test_s_shaped_lines_pass_through_the_far_end_or_touch_in_the_middle(function: SShaped) -> None:
    lower, upper = intervals()
    lines, middle = function.relax(lower, upper), function.derivative((lower + upper) / 2)
    chord = (function.value(upper) - function.value(lower)) / (upper - lower)
    mixed = (lower < 0) & (upper > 0)
    hold(lines.lower_slope, slope_through(function.value, upper, lower, True), mixed)
    hold(lines.upper_slope, slope_through(function.value, lower, upper, True), mixed)
    hold(lines.lower_slope, middle, upper <= 0)
    hold(lines.upper_slope, chord, upper <= 0)
    hold(lines.upper_slope, middle, lower >= 0)
    hold(lines.lower_slope, chord, lower >= 0)


@pytest.mark.parametrize("function", [GELU(), GELU("tanh"), SiLU(), Mish()], ids=["gelu", "gelu_tanh", "silu", "mish"])
def test_bumped_lines_pass_through_an_end_or_touch_in_the_middle(function: Bumped) -> None:
    lower, upper = intervals()
    first, second = function.inflections
    lines, middle = function.relax(lower, upper), function.derivative((lower + upper) / 2)
    chord = (function.value(upper) - function.value(lower)) / (upper - lower)
    curved_up = (lower >= first) & (upper <= second)
    curved_down = (upper <= first) | (lower >= second)
    hold(lines.lower_slope, middle, curved_up)
    hold(lines.upper_slope, chord, curved_up)
    hold(lines.upper_slope, middle, curved_down)
    hold(lines.lower_slope, chord, curved_down)
    hold(lines.lower_slope, slope_through(function.value, upper, lower, True), (lower < second) & (upper > second))
    left = (lower < first) & (upper > first) & (upper <= second)
    hold(lines.lower_slope, slope_through(function.value, lower, upper, False), left)
    hold(lines.upper_slope, slope_through(function.value, lower, upper, True), (lower < second) & (upper > second))
    hold(lines.upper_slope, slope_through(function.value, upper, lower, False), left)


@pytest.mark.parametrize("exponent", [3, 5])
def test_odd_powers_pass_through_the_near_end(exponent: int) -> None:
    lower, upper = intervals()
    function = OddPower(exponent)
    lines = function.relax(lower / 3, upper / 3)
    mixed = (lower < 0) & (upper > 0)
    hold(lines.lower_slope, slope_through(function.value, lower / 3, upper / 3, False), mixed)
    hold(lines.upper_slope, slope_through(function.value, upper / 3, lower / 3, False), mixed)


@pytest.mark.parametrize("function", [SELU(), ELU(3.0)], ids=["selu", "elu_steep"])
def test_elu_that_is_not_convex_passes_through_the_right_end_and_the_origin(function: ELU) -> None:
    lower, upper = intervals()
    lines = function.relax(lower, upper)
    mixed = (lower < 0) & (upper > 0)
    hold(lines.lower_slope, slope_through(function.value, upper, lower, True), mixed)
    hold(lines.lower_slope, function.derivative((lower + upper) / 2), upper <= 0)
    chord = (function.value(upper) - function.value(lower)) / (upper - lower)
    hold(lines.upper_slope, chord, mixed)
    hold(lines.upper_offset, (function.value(lower) - chord * lower).clamp(min=0), mixed)
