"""Sine and cosine."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.operators.chords import choices, offset_above, offset_below
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines
from offprint.methods.certify.lirpa.operators.s_shaped import SShaped


class _Arch(SShaped):
    """The sine from -pi to pi: convex left of zero, concave right of it."""

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.sin()

    def derivative(self, inputs: Tensor) -> Tensor:
        return inputs.cos()

    def inverse_derivative(self, slope: Tensor) -> Tensor:
        # The gradient of the arc cosine is infinite at its ends, where no tangent is looked for.
        return -slope.clamp(-1 + 1e-12, 1 - 1e-12).acos()


class Wave(Elementwise):
    """``sin(x + phase)``.

    An interval of up to half a period has one inflection near its middle, about which the function is what `SShaped`
    bounds, on its way up or down. On wider ones that reach beyond both neighbours of this inflection the lines are the
    least and the greatest value. All is computed in float64: inputs far from zero lose digits to the period.
    """

    #: In radians.
    phase: float
    _arch = _Arch()

    @abstractmethod
    def value(self, inputs: Tensor) -> Tensor:
        """Return the function of every element."""

    @abstractmethod
    def derivative(self, inputs: Tensor) -> Tensor:
        """Return the derivative."""

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return _range(self.value(lower), self.value(upper), lower.double() + self.phase, upper.double() + self.phase)

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        ahead = self.phase + math.pi / 2
        return _range(self.derivative(lower), self.derivative(upper), lower.double() + ahead, upper.double() + ahead)

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        start, end, _, rises, _ = self._moved(lower, upper)
        below, above = self._arch.default_choice(start, end)
        return choices(
            torch.where(rises, below, above).to(lower.dtype), torch.where(rises, above, below).to(lower.dtype), lower
        )

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        start, end, shift, rises, fits = self._moved(lower, upper)
        below, above = (self.default_choice(lower, upper) if choice is None else choice).double()
        lines = self._arch.relax(
            start, end, torch.stack([torch.where(rises, below, above), torch.where(rises, above, below)])
        )
        least, greatest = self.interval(lower, upper)

        def back(slope: Tensor, offset: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
            return (
                torch.where(fits, slope, 0.0).to(lower.dtype),
                torch.where(fits, offset + slope * shift, flat.double()).to(lower.dtype),
            )

        # On its way down the function is the arch upside down.
        low_slope, low_offset = back(
            torch.where(rises, lines.lower_slope, -lines.upper_slope),
            torch.where(rises, lines.lower_offset, -lines.upper_offset),
            least,
        )
        high_slope, high_offset = back(
            torch.where(rises, lines.upper_slope, -lines.lower_slope),
            torch.where(rises, lines.upper_offset, -lines.lower_offset),
            greatest,
        )
        ends = (self.value, low_slope, lower, upper)
        low_offset = torch.minimum(low_offset, offset_below(*ends))
        ends = (self.value, high_slope, lower, upper)
        return Lines(low_slope, low_offset, high_slope, torch.maximum(high_offset, offset_above(*ends)))

    def _moved(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Move intervals so that the inflection nearest to their middle is at zero.

        Returns the ends, what was added to them, whether the function rises there, and whether the ends are between -pi
        and pi; those that are not are cut off.
        """
        start, end = lower.double() + self.phase, upper.double() + self.phase
        count = torch.round((start + end).detach() / (2 * math.pi))
        shift = self.phase - count * math.pi
        start, end = lower.double() + shift, upper.double() + shift
        fits = (start >= -math.pi) & (end <= math.pi)
        return start.clamp(-math.pi, math.pi), end.clamp(-math.pi, math.pi), shift, count % 2 == 0, fits


class Sine(Wave):
    """``sin(x)``."""

    phase = 0.0

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.sin()

    def derivative(self, inputs: Tensor) -> Tensor:
        return inputs.cos()


class Cosine(Wave):
    """``cos(x)``."""

    phase = math.pi / 2

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.cos()

    def derivative(self, inputs: Tensor) -> Tensor:
        return -inputs.sin()


def _range(at_lower: Tensor, at_upper: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return the range of a sine over angles from ``start`` to ``end``, given its values at both."""
    least, greatest = torch.minimum(at_lower, at_upper), torch.maximum(at_lower, at_upper)
    return (
        torch.where(_meets(start, end, -math.pi / 2), -1.0, least),
        torch.where(_meets(start, end, math.pi / 2), 1.0, greatest),
    )


def _meets(start: Tensor, end: Tensor, point: float) -> Tensor:
    """Return whether intervals hold a point, or one that is whole turns away from it."""
    turn = 2 * math.pi
    return point + turn * torch.ceil((start - point) / turn) <= end
