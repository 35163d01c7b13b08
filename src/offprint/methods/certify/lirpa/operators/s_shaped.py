"""Functions that bend up left of zero and down right of it: sigmoid, tanh and their like."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.operators.chords import (
    between,
    choices,
    chord_slope,
    extremes,
    offset_below,
)
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines

#: The tangent through a given point of the curve is found up to rounding in this many steps, each squaring the error.
_N_STEPS = 5


class SShaped(Elementwise):
    """A growing function, convex left of zero, concave right of it, and point-symmetric about its value at zero.

    Below it: the tangent in the middle where it is convex, the chord where it is concave, and where it is both the
    tangent through the right end of the curve, or the chord if there is no such tangent. Above it: the same turned
    around. The choice moves the point of the lower tangent from the left end (0) to the last one at which it is sound
    (1); for the upper tangent from the right end to the left.

    References
    ----------
    Huan Zhang et al., Efficient Neural Network Robustness Certification with General Activation Functions,
    arXiv:1811.00866, section 3.3.
    """

    #: Twice the value at zero.
    twice_centre: float = 0.0

    @abstractmethod
    def derivative(self, inputs: Tensor) -> Tensor:
        """Return the derivative, an even function that falls away from zero."""

    @abstractmethod
    def inverse_derivative(self, slope: Tensor) -> Tensor:
        """Return the point left of zero with the given slope; zero if it is steeper than any."""

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(lower), self.value(upper)

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        below, above = self.default_choice(lower, upper) if choice is None else choice
        lower_slope, lower_offset = self._line_below(lower, upper, below)
        upper_slope, offset = self._line_below(-upper, -lower, above)
        return Lines(lower_slope, lower_offset, upper_slope, self.twice_centre - offset)

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        return choices(torch.where(upper <= 0, 0.5, 1.0), torch.where(lower >= 0, 0.5, 1.0), lower)

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return extremes(self.derivative, [0.0], lower, upper)

    def _line_below(self, lower: Tensor, upper: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
        last = torch.where(upper > 0, self._tangent_through(upper.clamp(min=0)), upper)
        straight = last <= lower
        point = between(lower, torch.maximum(last, lower), choice)
        chord = chord_slope(self.value, self.derivative, lower, upper)
        slope = torch.where(straight, chord, self.derivative(point))
        # Whatever rounding did to slope and point, a line below both ends and the point of contact is below the curve.
        return slope, offset_below(self.value, slope, lower, upper, torch.where(straight, upper, point))

    def _tangent_through(self, end: Tensor) -> Tensor:
        """Return the point left of zero whose tangent meets the curve in ``end``, which is right of zero.

        Among the chords from the end to points left of zero the steepest is the tangent. As the slope is flat there,
        the point with the slope of a chord is off by the square of what the chord's point was, and never beyond the
        tangent's. The last step is taken with gradients, which for the same reason need no others.
        """
        with torch.no_grad():
            point = -end / 2
            for _ in range(_N_STEPS - 1):
                point = self.inverse_derivative(chord_slope(self.value, self.derivative, point, end))
        return self.inverse_derivative(chord_slope(self.value, self.derivative, point, end))


class Sigmoid(SShaped):
    """``1 / (1 + exp(-x))``."""

    twice_centre = 1.0

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.sigmoid()

    def derivative(self, inputs: Tensor) -> Tensor:
        return inputs.sigmoid() * (-inputs).sigmoid()

    def inverse_derivative(self, slope: Tensor) -> Tensor:
        return torch.log(_positive(4 * slope) / (1 + _root(1 - 4 * slope)).square()).clamp(max=0)


class Tanh(SShaped):
    """The hyperbolic tangent, ``2 * sigmoid(2 * x) - 1``."""

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.tanh()

    def derivative(self, inputs: Tensor) -> Tensor:
        return 4 * (2 * inputs).sigmoid() * (-2 * inputs).sigmoid()

    def inverse_derivative(self, slope: Tensor) -> Tensor:
        return 0.5 * torch.log(_positive(slope) / (1 + _root(1 - slope)).square()).clamp(max=0)


class Arctan(SShaped):
    """The arc tangent."""

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.atan()

    def derivative(self, inputs: Tensor) -> Tensor:
        return 1 / (1 + inputs.square())

    def inverse_derivative(self, slope: Tensor) -> Tensor:
        return -_root(1 / _positive(slope) - 1)


class Erf(SShaped):
    """The error function."""

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.erf()

    def derivative(self, inputs: Tensor) -> Tensor:
        return 2 / math.sqrt(math.pi) * torch.exp(-inputs.square())

    def inverse_derivative(self, slope: Tensor) -> Tensor:
        return -_root(-torch.log(_positive(slope) * (math.sqrt(math.pi) / 2)))


class Softsign(SShaped):
    """``x / (1 + |x|)``."""

    def value(self, inputs: Tensor) -> Tensor:
        return inputs / (1 + inputs.abs())

    def derivative(self, inputs: Tensor) -> Tensor:
        return 1 / (1 + inputs.abs()).square()

    def inverse_derivative(self, slope: Tensor) -> Tensor:
        return (1 - 1 / _positive(slope).sqrt()).clamp(max=0)


def _positive(number: Tensor) -> Tensor:
    return number.clamp(min=torch.finfo(number.dtype).tiny)


def _root(number: Tensor) -> Tensor:
    """Return the square root, and zero with a zero gradient where there is none."""
    positive = number > 0
    return torch.where(positive, torch.where(positive, number, 1.0).sqrt(), 0.0)
