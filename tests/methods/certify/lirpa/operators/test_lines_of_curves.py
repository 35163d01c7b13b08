"""Lines, intervals and derivatives of every function of one number, against dense grids of PyTorch's own functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from offprint.methods.certify.lirpa.operators import bumped, convex, elu, powers, rectifiers, s_shaped, waves
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines

INFINITY = float("inf")


@dataclass(frozen=True)
class Curve:
    """A class of the library beside the same function of PyTorch, and where it is defined."""

    name: str
    ours: Elementwise
    theirs: Callable[[Tensor], Tensor]
    domain: tuple[float, float] = (-INFINITY, INFINITY)


ANY = (-INFINITY, INFINITY)
POSITIVE = (1e-3, INFINITY)
FROM_ZERO = (0.0, INFINITY)
NEGATIVE = (-INFINITY, -1e-3)
CURVES = [
    Curve("relu", rectifiers.ReLU(), F.relu),
    Curve("relu_same_slope", rectifiers.ReLU("same-slope"), F.relu),
    Curve("relu_zero", rectifiers.ReLU("zero-lb"), F.relu),
    Curve("relu_one", rectifiers.ReLU("one-lb"), F.relu),
    Curve("leaky_relu", rectifiers.LeakyReLU(0.1), lambda x: F.leaky_relu(x, 0.1)),
    Curve("leaky_relu_falling", rectifiers.LeakyReLU(-0.3), lambda x: F.leaky_relu(x, -0.3)),
    Curve("leaky_relu_concave", rectifiers.LeakyReLU(2.5), lambda x: F.leaky_relu(x, 2.5)),
    Curve("prelu", rectifiers.PReLU(torch.tensor([0.3])), lambda x: F.prelu(x, torch.tensor([0.3]).to(x))),
    Curve("abs", rectifiers.Abs(), torch.abs),
    Curve("hardtanh", rectifiers.Hardtanh(), F.hardtanh),
    Curve("clamp", rectifiers.Clip(-2.0, 5.0), lambda x: x.clamp(-2, 5)),
    Curve("clamp_min", rectifiers.Clip(1.5), lambda x: x.clamp(min=1.5)),
    Curve("clamp_max", rectifiers.Clip(None, 1.5), lambda x: x.clamp(max=1.5)),
    Curve("relu6", rectifiers.ReLU6(), F.relu6),
    Curve("hardsigmoid", rectifiers.Hardsigmoid(), F.hardsigmoid),
    Curve("sigmoid", s_shaped.Sigmoid(), torch.sigmoid),
    Curve("tanh", s_shaped.Tanh(), torch.tanh),
    Curve("arctan", s_shaped.Arctan(), torch.atan),
    Curve("erf", s_shaped.Erf(), torch.erf),
    Curve("softsign", s_shaped.Softsign(), F.softsign),
    Curve("sine", waves.Sine(), torch.sin),
    Curve("cosine", waves.Cosine(), torch.cos),
    Curve("gelu", bumped.GELU(), F.gelu),
    Curve("gelu_tanh", bumped.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")),
    Curve("silu", bumped.SiLU(), F.silu),
    Curve("mish", bumped.Mish(), F.mish),
    Curve("hardswish", bumped.Hardswish(), F.hardswish),
    Curve("exp", convex.Exp(), torch.exp, (-INFINITY, 60.0)),
    Curve("log", convex.Log(), torch.log, POSITIVE),
    Curve("softplus", convex.Softplus(), F.softplus),
    Curve("softplus_sharp", convex.Softplus(3.0), lambda x: F.softplus(x, 3.0)),
    Curve("logsigmoid", convex.LogSigmoid(), F.logsigmoid),
    Curve("square", powers.power(2), torch.square),
    Curve("sixth_power", powers.power(6), lambda x: x**6),
    Curve("identity", powers.power(1), lambda x: x),
    Curve("cube", powers.power(3), lambda x: x**3),
    Curve("fifth_power", powers.power(5), lambda x: x**5),
    Curve("power_2.5", powers.power(2.5), lambda x: x**2.5, FROM_ZERO),
    Curve("sqrt", powers.Sqrt(), torch.sqrt, FROM_ZERO),
    Curve("power_0.3", powers.power(0.3), lambda x: x**0.3, FROM_ZERO),
    Curve("reciprocal", powers.Reciprocal(), torch.reciprocal, POSITIVE),
    Curve("reciprocal_left", powers.power(-1), torch.reciprocal, NEGATIVE),
    Curve("inverse_square", powers.power(-2), lambda x: x**-2, POSITIVE),
    Curve("inverse_square_left", powers.power(-2), lambda x: x**-2, NEGATIVE),
    Curve("rsqrt", powers.Rsqrt(), torch.rsqrt, POSITIVE),
    Curve("elu", elu.ELU(), F.elu),
    Curve("elu_flat", elu.ELU(0.4), lambda x: F.elu(x, 0.4)),
    Curve("elu_steep", elu.ELU(3.0), lambda x: F.elu(x, 3.0)),
    Curve("celu", elu.CELU(2.5), lambda x: F.celu(x, 2.5)),
    Curve("selu", elu.SELU(), F.selu),
]
STRAIGHT = rectifiers.Kink | rectifiers.Clip
SMOOTH = [c for c in CURVES if not isinstance(c.ours, STRAIGHT) and c.name != "identity"]
every_curve = pytest.mark.parametrize("curve", CURVES, ids=lambda c: c.name)


def intervals(curve: Curve, count: int = 200, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return random intervals, wide and narrow, near zero and out to 30, within the domain."""
    generator = torch.Generator().manual_seed(7)
    centre = (2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1) * 30
    centre[::3] /= 10
    centre[1::6] /= 1000
    width = 10 ** (torch.rand(count, generator=generator, dtype=torch.float64) * 7.7 - 6)
    lower, upper = (centre - width / 2).clamp(-30, 30), (centre + width / 2).clamp(-30, 30)
    if curve.domain[0] >= 0:
        lower, upper = lower.abs().minimum(upper.abs()), lower.abs().maximum(upper.abs())
    if curve.domain[1] <= 0:
        lower, upper = -lower.abs().maximum(upper.abs()), -lower.abs().minimum(upper.abs())
    lower, upper = lower.clamp(*curve.domain), upper.clamp(*curve.domain)
    return lower.to(dtype), upper.to(dtype)


def grid(lower: Tensor, upper: Tensor, count: int = 2000) -> Tensor:
    share = torch.linspace(0, 1, count, dtype=lower.dtype).unsqueeze(-1)
    return (lower * (1 - share) + upper * share).clamp(lower, upper)


def least(function: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor, first: int = 2000) -> Tensor:
    """Return the least value of a function on each interval: on a grid, then on finer ones about the best point."""
    best = torch.full_like(lower, INFINITY)
    start, end = lower, upper
    for count in (first, 80, 80, 80, 80):
        points = grid(start, end, count)
        values, where = function(points).min(0)
        best = torch.minimum(best, values)
        step = (end - start) / (count - 1)
        point = points.gather(0, where.unsqueeze(0)).squeeze(0)
        start, end = (point - step).maximum(lower), (point + step).minimum(upper)
    return best


def gaps(curve: Curve, lines: Lines, lower: Tensor, upper: Tensor, first: int = 2000) -> tuple[Tensor, Tensor]:
    """Return by how much the curve is above its lower line and below its upper line at least."""
    return (
        least(lambda x: curve.theirs(x) - lines.lower_slope * x - lines.lower_offset, lower, upper, first),
        least(lambda x: lines.upper_slope * x + lines.upper_offset - curve.theirs(x), lower, upper, first),
    )


def size(curve: Curve, lower: Tensor, upper: Tensor) -> Tensor:
    """Return one plus the size of the numbers that go into a line, of which rounding takes its share."""
    ends = torch.stack([lower, upper])
    values = curve.theirs(ends).abs().amax(0)
    slope = (curve.theirs(upper) - curve.theirs(lower)).abs() / (upper - lower).clamp(min=1e-6)
    return 1 + values + slope * ends.abs().amax(0)


@every_curve
def test_lines_are_sound_and_touch_the_curve(curve: Curve) -> None:
    lower, upper = intervals(curve)
    below, above = gaps(curve, curve.ours.relax(lower, upper), lower, upper)
    scale = size(curve, lower, upper)
    # 1e-9 is the soundness that is asked for; a curve of 1e13 is itself known to 1e-3 only, hence the scale.
    assert (below >= -1e-9 * scale).all()
    assert (above >= -1e-9 * scale).all()
    assert (below <= 1e-6 * scale).all()
    assert (above <= 1e-6 * scale).all()


@every_curve
def test_single_precision_lines_are_sound_up_to_rounding(curve: Curve) -> None:
    lower, upper = intervals(curve, dtype=torch.float32)
    lines = curve.ours.relax(lower, upper)
    assert lines.lower_slope.dtype == lines.upper_offset.dtype == torch.float32
    exact = Lines(*(getattr(lines, name).double() for name in Lines.__dataclass_fields__))
    below, above = gaps(curve, exact, lower.double(), upper.double(), 300)
    scale = size(curve, lower.double(), upper.double())
    assert (below >= -8 * torch.finfo(torch.float32).eps * scale).all()  # a few units in the last place
    assert (above >= -8 * torch.finfo(torch.float32).eps * scale).all()


@every_curve
def test_any_choice_is_sound_and_the_default_is_one(curve: Curve) -> None:
    lower, upper = intervals(curve, 60)
    generator = torch.Generator().manual_seed(3)
    choice = torch.rand(2, 5, 60, generator=generator, dtype=torch.float64)
    choice[:, 0], choice[:, 1] = 0.0, 1.0
    lines = curve.ours.relax(lower, upper, choice)
    scale = 1e-9 * size(curve, lower, upper)
    for row in range(5):
        one = Lines(*(getattr(lines, n).broadcast_to(5, 60)[row] for n in Lines.__dataclass_fields__))
        below, above = gaps(curve, one, lower, upper, 200)
        # Steep tangents of a curve that leaves an end upright are worth 1e-9 of what they multiply.
        assert (below >= -scale * (1 + one.lower_slope.abs())).all()
        assert (above >= -scale * (1 + one.upper_slope.abs())).all()
    default = curve.ours.default_choice(lower, upper)
    assert default is not None
    assert default.shape == (2, 60)
    same, plain = curve.ours.relax(lower, upper, default), curve.ours.relax(lower, upper)
    for name in Lines.__dataclass_fields__:
        assert torch.equal(getattr(same, name), getattr(plain, name))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from([c for c in CURVES if c.domain == ANY]),
    st.floats(-30, 30),
    st.floats(0, 60),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_lines_are_sound_wherever_one_looks(
    curve: Curve, lower: float, width: float, first: float, second: float
) -> None:
    low = torch.tensor([lower], dtype=torch.float64)
    high = low + width
    choice = torch.tensor([[first], [second]], dtype=torch.float64)
    scale = size(curve, low, high)
    for lines in (curve.ours.relax(low, high, choice), curve.ours.relax(low, high)):
        below, above = gaps(curve, lines, low, high, 200)
        assert below >= -1e-9 * scale
        assert above >= -1e-9 * scale


@pytest.mark.parametrize("curve", [c for c in CURVES if c.name != "identity"], ids=lambda c: c.name)
def test_choice_moves_a_line_and_has_a_gradient(curve: Curve) -> None:
    lower, upper = intervals(curve, 60)
    choice = torch.full((2, 60), 0.4, dtype=torch.float64, requires_grad=True)
    lines = curve.ours.relax(lower, upper, choice)
    slopes = torch.stack([lines.lower_slope, lines.upper_slope])
    (gradient,) = torch.autograd.grad(slopes.sum(), choice)
    assert gradient.isfinite().all()
    moved = curve.ours.relax(lower, upper, choice.detach() + 1e-6)
    change = (torch.stack([moved.lower_slope, moved.upper_slope]) - slopes.detach()) / 1e-6
    torch.testing.assert_close(gradient, change, rtol=1e-3, atol=1e-3 * (1 + gradient.abs().max().item()))
    assert gradient.any()


@every_curve
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_are_derivatives_of_the_curve_even_on_the_narrowest_intervals(curve: Curve, dtype: torch.dtype) -> None:
    lower, upper = intervals(curve, dtype=dtype)
    shrunk = 10 ** torch.linspace(-12, 0, 200, dtype=dtype)
    upper = torch.minimum(upper, lower + shrunk * (1 + lower.abs()))
    low, high = (end.double() for end in curve.ours.derivative_range(lower, upper))
    # By the mean value theorem. What rounding may add to a chord: the last place of its ends over the smallest width.
    room = 40 * torch.finfo(dtype).eps ** (2 / 3) * size(curve, lower.double(), upper.double())
    room = torch.where(torch.isfinite(high), room, torch.inf)
    lines = curve.ours.relax(lower, upper)
    for slope in (lines.lower_slope, lines.upper_slope):
        assert (slope >= low - room).all()
        assert (slope <= high + room).all()


@every_curve
def test_value_and_interval_are_exact(curve: Curve) -> None:
    lower, upper = intervals(curve)
    low, high = curve.ours.interval(lower, upper)
    scale = 1 + curve.theirs(torch.stack([lower, upper])).abs().amax(0)
    torch.testing.assert_close(curve.ours.value(lower), curve.theirs(lower), rtol=1e-14, atol=1e-14)
    # The finest grid has steps below 1e-8, which is how near it comes to a corner inside.
    assert ((low - least(curve.theirs, lower, upper, 300)).abs() <= 1e-8 * scale).all()
    assert ((high + least(lambda x: -curve.theirs(x), lower, upper, 300)).abs() <= 1e-8 * scale).all()


@every_curve
def test_derivative_range_is_sound_and_tight(curve: Curve) -> None:
    lower, upper = intervals(curve)
    if curve.name in ("sqrt", "power_0.3"):
        lower = lower.clamp(min=1e-3)
        upper = upper.maximum(lower)

    def derivative(points: Tensor) -> Tensor:
        points = points.detach().requires_grad_()
        return torch.autograd.grad(curve.theirs(points).sum(), points)[0]

    low, high = curve.ours.derivative_range(lower, upper)
    scale = 1 + low.abs().maximum(high.abs())
    smallest = least(derivative, lower, upper, 300)
    greatest = -least(lambda x: -derivative(x), lower, upper, 300)
    # PyTorch's own derivative of hardsigmoid is 1/6 in single precision, whatever the input's.
    assert (low <= smallest + 1e-8 * scale).all()
    assert (high >= greatest - 1e-8 * scale).all()
    reached = upper - lower > 1e-4  # in narrower ones the grid may miss a corner, whose derivatives still count
    assert (low - smallest)[reached].abs().le(1e-6 * scale[reached]).all()
    assert (high - greatest)[reached].abs().le(1e-6 * scale[reached]).all()


@every_curve
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_and_extreme_intervals_give_finite_lines_and_gradients(curve: Curve, dtype: torch.dtype) -> None:
    marks = torch.tensor([-1e4, -30, -3, -1, -1e-6, -1e-12, 0, 1e-12, 1e-6, 1, 2, 30, 1e4], dtype=dtype)
    lower, upper = torch.cartesian_prod(marks, marks).unbind(-1)
    lower, upper = torch.cat([lower, marks, marks]), torch.cat([upper, marks + 1e-12, marks + 1e-6])
    fits = (lower <= upper) & (lower >= curve.domain[0]) & (upper <= curve.domain[1])
    lower, upper = lower[fits].requires_grad_(), upper[fits].requires_grad_()
    lines = curve.ours.relax(lower, upper)
    outputs = [*(getattr(lines, name) for name in Lines.__dataclass_fields__), *curve.ours.interval(lower, upper)]
    for output in outputs:
        assert output.isfinite().all()
        for gradient in torch.autograd.grad(output.sum(), (lower, upper), retain_graph=True, allow_unused=True):
            assert gradient is None or gradient.isfinite().all()
    point = lower == upper
    at = lower.detach()
    value = curve.theirs(at.double())
    tolerance = (1e-9 if dtype == torch.float64 else 1e-6) * (1 + value.abs())
    for slope, offset in ((lines.lower_slope, lines.lower_offset), (lines.upper_slope, lines.upper_offset)):
        error = (slope.double() * at.double() + offset.double() - value).abs()
        assert (error <= tolerance * (1 + (slope.double() * at / (1 + value.abs())).abs()))[point].all()


@pytest.mark.parametrize("curve", SMOOTH, ids=lambda c: c.name)
def test_gradients_of_lines_agree_with_finite_differences(curve: Curve) -> None:
    generator = torch.Generator().manual_seed(11)
    ends = (torch.rand(80, 2, generator=generator, dtype=torch.float64) * 8 - 4).sort(-1).values
    if curve.domain[0] >= 0:
        ends = ends.abs().sort(-1).values + 0.1
    if curve.domain[1] <= 0:
        ends = -(ends.abs().sort(-1, descending=True).values + 0.1)
    lower, upper = ends[:, 0].contiguous().requires_grad_(), ends[:, 1].contiguous().requires_grad_()

    def lines(low: Tensor, high: Tensor) -> Tensor:
        found = curve.ours.relax(low, high)
        return torch.stack([found.lower_slope, found.lower_offset, found.upper_slope, found.upper_offset])

    found = lines(lower, upper)
    step = 1e-6
    with torch.no_grad():
        numeric = (
            (lines(lower + step, upper) - lines(lower - step, upper)) / (2 * step),
            (lines(lower, upper + step) - lines(lower, upper - step)) / (2 * step),
        )
    for i in range(4):
        exact = torch.autograd.grad(found[i].sum(), (lower, upper), retain_graph=True)
        for gradient, difference in zip(exact, numeric, strict=True):
            torch.testing.assert_close(gradient, difference[i], rtol=1e-4, atol=1e-5)
