"""Stand-ins for ReLU with a dip below zero: GELU, SiLU, Mish, Hardswish."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from offprint.methods.certify.lirpa.operators.chords import (
    between,
    choices,
    chord_slope,
    extremes,
    offset_above,
    offset_below,
)
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines

#: Beyond this the functions here are straight to double precision, and a tangent is not worth looking for.
_FAR = 40.0
_N_STEPS = 24


class Bumped(Elementwise):
    """A function that falls to a dip and then rises: convex between two inflections and concave left and right of them.

    Left of the first inflection it falls and right of the second it rises with a slope of at least 1. Below it: the
    tangent in the middle where it is convex, the chord where it is concave; on intervals of both kinds the tangent
    through the right end of the curve, if that is past the second inflection, otherwise through the left end; the chord
    where there is no such tangent. Above it: the chord where it is convex, the tangent in the middle where it is
    concave, else the tangent at a concave part that passes through the other end, or the chord if there is none. The
    choice moves the point of contact from the leftmost at which the tangent is sound (0) to the rightmost (1).
    """

    #: Where the function has its least value, and its two inflections.
    dip: float
    inflections: tuple[float, float]

    @abstractmethod
    def derivative(self, inputs: Tensor) -> Tensor:
        """Return the derivative."""

    @abstractmethod
    def curvature(self, inputs: Tensor) -> Tensor:
        """Return the second derivative."""

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return extremes(self.value, [self.dip], lower, upper)

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return extremes(self.derivative, self.inflections, lower, upper)

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        first, second = self.inflections
        below = torch.where(upper > second, 1.0, torch.where(lower < first, 0.0, 0.5))
        above = torch.where(upper > second, torch.where(lower < second, 0.0, 0.5), torch.where(upper > first, 1.0, 0.5))
        return choices(below, above, lower)

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        below, above = self.default_choice(lower, upper) if choice is None else choice
        chord = chord_slope(self.value, self.derivative, lower, upper)

        leftmost, rightmost, touches = self._contacts_below(lower, upper)
        point = between(leftmost, rightmost, below)
        lower_slope = torch.where(touches, self.derivative(point), chord)
        lower_offset = offset_below(self.value, lower_slope, lower, upper, torch.where(touches, point, upper))

        leftmost, rightmost, touches = self._contacts_above(lower, upper)
        point = between(leftmost, rightmost, above)
        upper_slope = torch.where(touches, self.derivative(point), chord)
        upper_offset = offset_above(self.value, upper_slope, lower, upper, torch.where(touches, point, upper))
        # A line that is above or below both ends and its point of contact is so everywhere, whatever rounding did.
        return Lines(lower_slope, lower_offset, upper_slope, upper_offset)

    def _contacts_below(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return between which points of the convex part tangents are sound, and whether there are any."""
        first, second = self.inflections
        left, right = lower.clamp(first, second), upper.clamp(first, second)
        bends = (lower < second) & (upper > first)
        from_lower, from_upper = bends & (lower < first), bends & (upper > second)
        leftmost, sound_lower = self._tangent_through(lower, left, right, from_lower, above=False)
        rightmost, sound_upper = self._tangent_through(upper, right, left, from_upper, above=False)
        return leftmost, rightmost, bends & sound_lower & sound_upper & (leftmost <= rightmost)

    def _contacts_above(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return between which points of one of the concave parts tangents are sound, and whether there are any.

        Tangents left are falling and tangents right rise by 1 or more: none of the former is above the right part, and
        the latter need only be above the function at the lower end to be above the left part.
        """
        first, second = self.inflections
        rising, falling = upper > second, (upper <= second) & (lower < first)
        start, end = lower.clamp(min=second), upper.clamp(max=first)
        from_lower, from_upper = rising & (lower < second), falling & (upper > first)
        leftmost, sound_lower = self._tangent_through(lower, start, upper, from_lower, above=True)
        rightmost, sound_upper = self._tangent_through(upper, end, lower, from_upper, above=True)
        return (
            torch.where(rising, leftmost, lower),
            torch.where(rising, upper, rightmost),
            (rising & sound_lower) | (falling & sound_upper),
        )

    def _tangent_through(
        self, end: Tensor, near: Tensor, far: Tensor, wanted: Tensor, above: bool
    ) -> tuple[Tensor, Tensor]:
        """Find between ``near`` and ``far`` where a tangent passes through the curve at ``end``.

        Tangents in points further from the end than that are on the sound side there, below the curve or above it.

        Returns
        -------
        point : Tensor
            ``near`` where nothing is wanted.
        sound : Tensor
            False where even the tangent at ``far`` is not sound.
        """
        sign = -1.0 if above else 1.0

        def excess(point: Tensor, end: Tensor) -> Tensor:
            """Return by how much the tangent in a point is on the wrong side of the curve at the end."""
            return sign * (self.value(point) + self.derivative(point) * (end - point) - self.value(end))

        with torch.no_grad():
            point = near.clone()
            far = far.clamp(-_FAR, _FAR)
            sound = ~wanted | (excess(far, end) <= 0)
            solvable = wanted & sound
            if bool(solvable.any()):
                anchor, wrong, right = end[solvable], near[solvable], far[solvable]
                guess = (wrong + right) / 2
                best, error = guess, torch.full_like(guess, torch.inf)
                enough = 4 * torch.finfo(guess.dtype).eps * (1 + anchor.abs())
                for _ in range(_N_STEPS):  # Newton's method, halving the bracket where it would leave it
                    value = excess(guess, anchor)
                    better = value.abs() < error
                    best, error = torch.where(better, guess, best), torch.where(better, value.abs(), error)
                    if bool((error <= enough).all()):
                        break
                    good = value <= 0
                    right, wrong = torch.where(good, guess, right), torch.where(good, wrong, guess)
                    step = guess - value / (sign * self.curvature(guess) * (anchor - guess))
                    inside = (step > torch.minimum(wrong, right)) & (step < torch.maximum(wrong, right))
                    guess = torch.where(inside, step, (wrong + right) / 2)
                point[solvable] = best
        if not (torch.is_grad_enabled() and end.requires_grad):
            return torch.where(wanted, point, near), sound

        # The derivative of a root: that of the excess in the end, over that in the point.
        pull = excess(point, end)
        steepness = (sign * self.curvature(point) * (end - point)).detach()
        flat = steepness == 0
        moved = point - torch.where(flat, 0.0, pull - pull.detach()) / torch.where(flat, 1.0, steepness)
        return torch.where(wanted, moved, near), sound


class GELU(Bumped):
    """``x`` times the normal distribution function, or its approximation by tanh.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        As in `torch.nn.GELU`.
    """

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"approximate: expected 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate
        if approximate == "none":
            self.dip, self.inflections = -0.7517915246935645, (-math.sqrt(2), math.sqrt(2))
        else:
            self.dip, self.inflections = -0.7524614220710163, (-1.4185040087908284, 1.4185040087908284)

    def value(self, inputs: Tensor) -> Tensor:
        return F.gelu(inputs, approximate=self.approximate)

    def derivative(self, inputs: Tensor) -> Tensor:
        if self.approximate == "tanh":
            share, slope, _ = _tanh_inside(inputs)
            return 0.5 * (1 + share) + 0.5 * inputs * (1 - share.square()) * slope
        below: Tensor = torch.special.ndtr(inputs)
        return below + inputs * _normal_density(inputs)

    def curvature(self, inputs: Tensor) -> Tensor:
        if self.approximate == "tanh":
            share, slope, bend = _tanh_inside(inputs)
            return (1 - share.square()) * (slope + 0.5 * inputs * (bend - 2 * share * slope.square()))
        return (2 - inputs.square()) * _normal_density(inputs)


class SiLU(Bumped):
    """``x * sigmoid(x)``."""

    dip = -1.2784645427610738
    inflections = (-2.3993572805154677, 2.3993572805154677)

    def value(self, inputs: Tensor) -> Tensor:
        return F.silu(inputs)

    def derivative(self, inputs: Tensor) -> Tensor:
        share = inputs.sigmoid()
        return share + inputs * share * (-inputs).sigmoid()

    def curvature(self, inputs: Tensor) -> Tensor:
        share, rest = inputs.sigmoid(), (-inputs).sigmoid()
        return share * rest * (2 + inputs * (rest - share))


class Mish(Bumped):
    """``x * tanh(softplus(x))``."""

    dip = -1.1924312145154952
    inflections = (-2.2563763963607931, 1.4905711794854285)

    def value(self, inputs: Tensor) -> Tensor:
        return F.mish(inputs)

    def derivative(self, inputs: Tensor) -> Tensor:
        gate = F.softplus(inputs).tanh()
        return gate + inputs * (1 - gate.square()) * inputs.sigmoid()

    def curvature(self, inputs: Tensor) -> Tensor:
        gate, share, rest = F.softplus(inputs).tanh(), inputs.sigmoid(), (-inputs).sigmoid()
        return (1 - gate.square()) * share * (2 + inputs * (rest - 2 * gate * share))


class Hardswish(Bumped):
    """``x * clip(x + 3, 0, 6) / 6``: a parabola between two straight pieces, which it meets at an angle."""

    dip = -1.5
    inflections = (-3.0, 3.0)

    def value(self, inputs: Tensor) -> Tensor:
        return F.hardswish(inputs)

    def derivative(self, inputs: Tensor) -> Tensor:
        outside = (inputs > 0).to(inputs.dtype)
        return torch.where(inputs.abs() <= 3, inputs / 3 + 0.5, outside)

    def curvature(self, inputs: Tensor) -> Tensor:
        return (inputs.abs() <= 3).to(inputs.dtype) / 3

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        least, greatest = super().derivative_range(lower, upper)
        for corner, outside in ((-3.0, 0.0), (3.0, 1.0)):
            at = (lower <= corner) & (corner <= upper)
            least = torch.where(at, least.clamp(max=outside), least)
            greatest = torch.where(at, greatest.clamp(min=outside), greatest)
        return least, greatest


def _normal_density(inputs: Tensor) -> Tensor:
    density: Tensor = (-0.5 * inputs.square()).exp() / math.sqrt(2 * math.pi)
    return density


def _tanh_inside(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return tanh of the cubic inside the approximation, and the cubic's first two derivatives."""
    inputs = inputs.clamp(-_FAR, _FAR)  # tanh is 1 far before that
    scale = math.sqrt(2 / math.pi)
    cubic = scale * (inputs + 0.044715 * inputs**3)
    return cubic.tanh(), scale * (1 + 3 * 0.044715 * inputs.square()), scale * 6 * 0.044715 * inputs
