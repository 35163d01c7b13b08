"""ELU and its relatives: straight right of zero, an exponential left of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.operators.chords import between, choices, offset_above, offset_below
from offprint.methods.certify.lirpa.operators.convex import exp_chord
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines

#: As in `SShaped`: each step squares the error.
_N_STEPS = 6


class ELU(Elementwise):
    """``scale * x`` right of zero and ``scale * alpha * (exp(input_scale * x) - 1)`` left of it.

    Convex unless it arrives in zero steeper than it leaves: then (as in SELU) the lower line on both sides of zero is
    the tangent through the right end, or the chord, and the upper line is the chord, moved up to the origin if it
    passes below. The choice moves the point of contact of the lower line as in `SShaped`.

    Parameters
    ----------
    alpha, scale, input_scale : float
        Positive.
    """

    def __init__(self, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> None:
        for name, number in (("alpha", alpha), ("scale", scale), ("input_scale", input_scale)):
            if not (number > 0 and math.isfinite(number)):
                raise ValueError(f"{name}: expected a positive number, got {number}")
        self.alpha, self.scale, self.input_scale = alpha, scale, input_scale
        self._steepest_left = scale * alpha * input_scale
        self._convex = self._steepest_left <= scale

    def value(self, inputs: Tensor) -> Tensor:
        left = self.alpha * (self.input_scale * inputs.clamp(max=0)).expm1()
        return self.scale * (inputs.clamp(min=0) + left)

    def derivative(self, inputs: Tensor) -> Tensor:
        """Return the derivative; in zero the one from the left."""
        left = self._steepest_left * (self.input_scale * inputs.clamp(max=0)).exp()
        return torch.where(inputs > 0, self.scale, left)

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(lower), self.value(upper)

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        at_lower, at_upper = self.derivative(lower), self.derivative(upper)
        least, greatest = torch.minimum(at_lower, at_upper), torch.maximum(at_lower, at_upper)
        corner = (lower <= 0) & (upper >= 0)
        steep = max(self.scale, self._steepest_left)
        least = torch.where(corner, least.clamp(max=self.scale), least)
        return least, torch.where(corner, steep, greatest)

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        inside = torch.full_like(lower, 0.5)
        return choices(inside if self._convex else torch.where(upper > 0, 1.0, inside), 0.5, lower)

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        below, _ = self.default_choice(lower, upper) if choice is None else choice
        chord = self._chord(lower, upper)
        last = upper if self._convex else torch.where(upper > 0, self._tangent_through(upper.clamp(min=0)), upper)
        straight = (last <= lower) & (upper > 0)
        point = between(lower, torch.maximum(last, lower), below)
        lower_slope = torch.where(straight, chord, self.derivative(point))
        lower_offset = offset_below(self.value, lower_slope, lower, upper, torch.where(straight, upper, point))

        # Where the curve bends down in the origin the chord may cut it off; lifted to it, it touches there.
        origin = torch.zeros_like(lower).clamp(lower, upper)
        return Lines(lower_slope, lower_offset, chord, offset_above(self.value, chord, lower, upper, origin))

    def _chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        left_end, left_start = upper.clamp(max=0), lower.clamp(max=0)
        bend = self.input_scale * exp_chord(self.input_scale * left_start, self.input_scale * left_end)
        width = upper - lower
        inside = width > 0
        share_right = (upper.clamp(min=0) - lower.clamp(min=0)) / torch.where(inside, width, 1.0)
        share_left = (left_end - left_start) / torch.where(inside, width, 1.0)
        mixed = self.scale * (share_right + self.alpha * bend * share_left)
        return torch.where(inside, mixed, self.derivative(lower))

    def _tangent_through(self, end: Tensor) -> Tensor:
        """Return the point left of zero whose tangent meets the curve in ``end``, right of zero: see `SShaped`."""
        with torch.no_grad():
            point = -end
            for _ in range(_N_STEPS - 1):
                point = self._left_point(self._chord(point, end))
        return self._left_point(self._chord(point, end))

    def _left_point(self, slope: Tensor) -> Tensor:
        return ((slope / self._steepest_left).log() / self.input_scale).clamp(max=0)


class CELU(ELU):
    """``max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1)``, which is convex.

    Parameters
    ----------
    alpha : float
        Positive.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        if not (alpha > 0 and math.isfinite(alpha)):
            raise ValueError(f"alpha: expected a positive number, got {alpha}")
        super().__init__(alpha, 1.0, 1.0 / alpha)


class SELU(ELU):
    """`ELU` with the constants of self-normalising networks, arXiv:1706.02515."""

    def __init__(self) -> None:
        super().__init__(1.6732632423543772, 1.0507009873554805)
