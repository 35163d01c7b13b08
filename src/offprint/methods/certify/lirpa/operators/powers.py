"""Constant powers, each kind with its own shape: squares, cubes, fractional powers, reciprocals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.operators.chords import between, choices, offset_above, offset_below
from offprint.methods.certify.lirpa.operators.convex import Concave, Convex, refuse
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines


def power(exponent: float) -> Elementwise:
    """Return ``x ** exponent`` as a function whose bounds are known.

    Parameters
    ----------
    exponent : float
        Any number but zero. Inputs may be anything if it is a positive whole number, anything of one sign if it is a
        negative one; otherwise they must be positive, or at least not negative if the exponent is positive.
    """
    if not math.isfinite(exponent) or exponent == 0:
        raise ValueError(f"exponent: expected a finite number other than zero, got {exponent}")
    whole = float(exponent).is_integer()
    if exponent < 0:
        return InversePower(-exponent)
    if whole:
        return OddPower(int(exponent)) if exponent % 2 else EvenPower(int(exponent))
    return SteepPower(exponent) if exponent > 1 else FlatPower(exponent)


class EvenPower(Convex):
    """``x ** 2``, ``x ** 4``, ...: convex. The lower line touches it where the interval is nearest to zero.

    A tangent there is nowhere negative on the interval, so that the square root of a mean of squares stays defined.

    Parameters
    ----------
    exponent : int
        Even and positive.
    """

    def __init__(self, exponent: int = 2) -> None:
        self.exponent = exponent

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.pow(self.exponent)

    def derivative(self, inputs: Tensor) -> Tensor:
        return self.exponent * inputs.pow(self.exponent - 1)

    def chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        return _whole_chord(lower, upper, self.exponent)

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        nearest, farthest = torch.zeros_like(lower).clamp(lower, upper), torch.maximum(-lower, upper)
        return self.value(nearest), self.value(farthest)

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        width = upper - lower
        return choices((-lower / torch.where(width > 0, width, 1.0)).clamp(0, 1), 0.5, lower)


class OddPower(Elementwise):
    """``x``, ``x ** 3``, ``x ** 5``, ...: concave left of zero, convex right of it.

    The rules of `SShaped`, turned around: on both sides of zero the lower line is the tangent through the left end,
    whose point of contact is a fixed multiple of that end, or the chord.

    Parameters
    ----------
    exponent : int
        Odd and positive.
    """

    def __init__(self, exponent: int = 3) -> None:
        self.exponent = exponent
        self._reach = _reach_of_tangent(exponent)

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.pow(self.exponent)

    def derivative(self, inputs: Tensor) -> Tensor:
        """Return the derivative."""
        return self.exponent * inputs.pow(self.exponent - 1)

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(lower), self.value(upper)

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        below, above = self.default_choice(lower, upper) if choice is None else choice
        lower_slope, lower_offset = self._line_below(lower, upper, below)
        upper_slope, offset = self._line_below(-upper, -lower, above)
        return Lines(lower_slope, lower_offset, upper_slope, -offset)

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        return choices(torch.where(lower >= 0, 0.5, 0.0), torch.where(upper <= 0, 0.5, 0.0), lower)

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        nearest, farthest = torch.zeros_like(lower).clamp(lower, upper), torch.maximum(-lower, upper)
        return self.derivative(nearest), self.derivative(farthest)

    def _line_below(self, lower: Tensor, upper: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.where(lower >= 0, lower, -self._reach * lower)
        straight = first >= upper
        point = between(torch.minimum(first, upper), upper, choice)
        slope = torch.where(straight, _whole_chord(lower, upper, self.exponent), self.derivative(point))
        return slope, offset_below(self.value, slope, lower, upper, torch.where(straight, upper, point))


class SteepPower(Convex):
    """``x ** exponent`` of numbers from zero on, with an exponent above 1: convex.

    Parameters
    ----------
    exponent : float
        Above 1.
    """

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.pow(self.exponent)

    def derivative(self, inputs: Tensor) -> Tensor:
        return self.exponent * inputs.pow(self.exponent - 1)

    def chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        return _positive_chord(lower, upper, self.exponent)

    def check_domain(self, lower: Tensor, upper: Tensor) -> None:
        refuse(~(lower >= 0), lower, f"x ** {self.exponent:g}", "no negative number")


class FlatPower(Concave):
    """``x ** exponent`` of numbers from zero on, with an exponent below 1, as the square root: concave.

    Tangents are taken no nearer to zero than a thousandth of the upper end: at zero they would be upright.

    Parameters
    ----------
    exponent : float
        Between 0 and 1.
    """

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    def value(self, inputs: Tensor) -> Tensor:
        positive = inputs > 0  # the gradient at zero, which is infinite, is taken to be zero
        return torch.where(positive, torch.where(positive, inputs, 1.0).pow(self.exponent), 0.0)

    def derivative(self, inputs: Tensor) -> Tensor:
        return self.exponent * inputs.pow(self.exponent - 1)

    def chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        return _positive_chord(lower, upper, self.exponent)

    def check_domain(self, lower: Tensor, upper: Tensor) -> None:
        refuse(~(lower >= 0), lower, f"x ** {self.exponent:g}", "no negative number")

    def contact(self, lower: Tensor, upper: Tensor, choice: Tensor) -> Tensor:
        point = torch.maximum(super().contact(lower, upper, choice), upper / 1024)
        return point.clamp(min=torch.finfo(point.dtype).tiny)


class Sqrt(FlatPower):
    """The square root."""

    def __init__(self) -> None:
        super().__init__(0.5)


class InversePower(Elementwise):
    """``x ** -exponent``, as the reciprocal or one over the square root: convex right of zero, and mirrored left of it.

    Lines are those of `Convex`.

    Parameters
    ----------
    exponent : float
        Positive. Unless it is a whole number the input must be positive; it must keep away from zero in any case.
    """

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent
        self._whole = float(exponent).is_integer()
        self._odd = self._whole and exponent % 2 == 1

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.pow(-self.exponent)

    def derivative(self, inputs: Tensor) -> Tensor:
        """Return the derivative."""
        return -self.exponent * inputs.pow(-self.exponent - 1)

    def check_domain(self, lower: Tensor, upper: Tensor) -> None:
        fine = lower > 0
        if self._whole:
            fine = fine | (upper < 0)
        accepted = "numbers of one sign, without zero" if self._whole else "positive numbers"
        refuse(~fine, lower, f"x ** {-self.exponent:g}", accepted)

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        at_lower, at_upper = self.value(lower), self.value(upper)
        return torch.minimum(at_lower, at_upper), torch.maximum(at_lower, at_upper)

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        at_lower, at_upper = self.derivative(lower), self.derivative(upper)
        return torch.minimum(at_lower, at_upper), torch.maximum(at_lower, at_upper)

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        return choices(0.5, 0.5, lower)

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        below, above = self.default_choice(lower, upper) if choice is None else choice
        concave = (upper < 0) & self._odd
        point = between(lower, upper, torch.where(concave, above, below))
        tangent = self.derivative(point)
        left = upper < 0
        chord = _positive_chord(torch.where(left, -upper, lower), torch.where(left, -lower, upper), -self.exponent)
        chord = chord if self._odd else torch.where(left, -chord, chord)
        touching = offset_below(self.value, tangent, point)
        over, under = (offset(self.value, chord, lower, upper) for offset in (offset_above, offset_below))
        return Lines(
            lower_slope=torch.where(concave, chord, tangent),
            lower_offset=torch.where(concave, under, touching),
            upper_slope=torch.where(concave, tangent, chord),
            upper_offset=torch.where(concave, touching, over),
        )


class Reciprocal(InversePower):
    """``1 / x``."""

    def __init__(self) -> None:
        super().__init__(1.0)


class Rsqrt(InversePower):
    """``1 / sqrt(x)``."""

    def __init__(self) -> None:
        super().__init__(0.5)


def _whole_chord(lower: Tensor, upper: Tensor, exponent: int) -> Tensor:
    """Return ``(upper ** n - lower ** n) / (upper - lower)``, multiplied out."""
    total = power_of_lower = torch.ones_like(lower)
    for _ in range(exponent - 1):
        power_of_lower = power_of_lower * lower
        total = total * upper + power_of_lower
    return total


def _positive_chord(lower: Tensor, upper: Tensor, exponent: float) -> Tensor:
    """Return the slope of the chord of any power over intervals of numbers from zero on, without cancellation."""
    near = upper < 2 * lower
    start = torch.where(near, lower, 1.0)
    growth = torch.where(near, upper - lower, 0.0) / start
    small = growth < 1e-4
    ratio = (exponent * torch.where(small, 1.0, growth).log1p()).expm1() / torch.where(small, 1.0, growth)
    series = exponent * (1 + (exponent - 1) / 2 * growth * (1 + (exponent - 2) / 3 * growth))
    close = start.pow(exponent - 1) * torch.where(small, series, ratio)

    apart = ~near & (upper > lower)
    first, last = torch.where(apart, lower, 0.0), torch.where(apart, upper, 1.0)
    if exponent > 0:
        positive = first > 0
        rise = last.pow(exponent) - torch.where(positive, torch.where(positive, first, 1.0).pow(exponent), 0.0)
    else:
        first = torch.where(apart, lower, 0.5)
        rise = last.pow(exponent) - first.pow(exponent)
    return torch.where(near, close, torch.where(apart, rise / (last - first), 0.0))


def _reach_of_tangent(exponent: int) -> float:
    """Return where the tangent of ``x ** n`` passes through the curve at -1, for odd ``n``: by halving."""
    below, beyond = 0.0, 1.0
    for _ in range(100):
        point = (below + beyond) / 2
        if (exponent - 1) * point**exponent + exponent * point ** (exponent - 1) < 1:
            below = point
        else:
            beyond = point
    return beyond
