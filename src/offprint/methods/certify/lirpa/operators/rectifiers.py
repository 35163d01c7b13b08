"""Functions made of straight pieces: ReLU and its family, absolute value, clamp."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from offprint.methods.certify.lirpa.operators.chords import between, choices
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines

_RULES = ("adaptive", "same-slope", "zero-lb", "one-lb")


class Kink(Elementwise):
    """Two straight pieces that meet in the origin: the chord on one side, on the other a line through the origin.

    The choice is where between the slopes of the two pieces that line has its own; 0 is the left piece.
    """

    @abstractmethod
    def slopes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slopes left and right of zero, which broadcast against ``like``."""

    def value(self, inputs: Tensor) -> Tensor:
        left, right = self.slopes(inputs)
        return torch.where(inputs > 0, right, left) * inputs

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        at_lower, at_upper = self.value(lower), self.value(upper)
        least, greatest = torch.minimum(at_lower, at_upper), torch.maximum(at_lower, at_upper)
        inside = (lower <= 0) & (upper >= 0)
        return torch.where(inside, least.clamp(max=0), least), torch.where(inside, greatest.clamp(min=0), greatest)

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        below, above = self.default_choice(lower, upper) if choice is None else choice
        left, right = self.slopes(lower)
        share = _positive_share(lower, upper)
        chord = between(left, right, share)
        height = (right - left) * share * -lower.clamp(max=0)

        def through_origin(where: Tensor) -> Tensor:
            mixed = between(left, right, where)
            return torch.where(lower >= 0, right, torch.where(upper <= 0, left, mixed))

        convex, zero = right >= left, torch.zeros_like(height)
        return Lines(
            lower_slope=torch.where(convex, through_origin(below), chord),
            lower_offset=torch.where(convex, zero, height),
            upper_slope=torch.where(convex, chord, through_origin(above)),
            upper_offset=torch.where(convex, height, zero),
        )

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        wider = (upper > -lower).to(lower.dtype)
        return choices(wider, wider, lower)

    def undecided(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return where the interval has both pieces on it; elsewhere the lines are exact."""
        return (lower < 0) & (upper > 0)

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.slopes(lower)
        first, last = torch.where(lower > 0, right, left), torch.where(upper < 0, left, right)
        return torch.minimum(first, last), torch.maximum(first, last)


class LeakyReLU(Kink):
    """``max(x, 0) + negative_slope * min(x, 0)``.

    Parameters
    ----------
    negative_slope : float
        Any number; with one above 1 the function is concave.
    lower_line : {"adaptive", "same-slope", "zero-lb", "one-lb"}
        Where both signs are possible, the line through the origin has the right slope if the positive part is the
        wider one and the left slope otherwise, the slope of the chord, the left slope, or the right slope.
    """

    def __init__(self, negative_slope: float = 0.01, lower_line: str = "adaptive") -> None:
        if not math.isfinite(negative_slope):
            raise ValueError(f"negative_slope: expected a finite number, got {negative_slope}")
        if lower_line not in _RULES:
            raise ValueError(f"lower_line: expected one of {_RULES}, got {lower_line!r}")
        self.negative_slope = negative_slope
        self.lower_line = lower_line

    def slopes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.negative_slope), like.new_ones(())

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        if self.lower_line == "adaptive":
            return super().default_choice(lower, upper)
        if self.lower_line == "same-slope":
            share = _positive_share(lower, upper)
            return choices(share, share, lower)
        same = float(self.lower_line == "one-lb")
        return choices(same, same, lower)


class ReLU(LeakyReLU):
    """``max(x, 0)``; of the lower lines ``slope * x`` the adaptive one has slope 1 if ``upper > -lower``, else 0.

    Parameters
    ----------
    lower_line : {"adaptive", "same-slope", "zero-lb", "one-lb"}
        See `LeakyReLU`.
    """

    def __init__(self, lower_line: str = "adaptive") -> None:
        super().__init__(0.0, lower_line)

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.relu()

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return lower.relu(), upper.relu()


class PReLU(Kink):
    """`LeakyReLU` with a slope for each channel.

    Parameters
    ----------
    weight : Tensor, shape (channels,) or (1,) or ()
        Slopes left of zero; channels are on axis 1 of the input, as in `torch.nn.functional.prelu`.
    """

    def __init__(self, weight: Tensor) -> None:
        if not bool(torch.isfinite(weight).all()):
            raise ValueError("weight: expected finite slopes")
        self.weight = weight

    def slopes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.weight.to(like)
        if weight.numel() > 1:
            weight = weight.reshape(-1, *[1] * (like.ndim - 2))
        return weight, like.new_ones(())


class Abs(Kink):
    """``|x|``: the lower line is ``-x`` or ``x`` where the sign is known, and zero where it is not."""

    def slopes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(-1.0), like.new_ones(())

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.abs()

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        return choices(0.5, 0.5, lower)


class Clip(Elementwise):
    """``min(max(x, minimum), maximum)``: chords where the function bends once, else lines through one of its corners.

    This is the difference of two ReLUs, and tighter than bounding each of the two. The choice moves the slope of the
    lower line through the lower corner from zero to the steepest that is sound; of the upper line, the same mirrored.

    Parameters
    ----------
    minimum, maximum : float, optional
        ``minimum < maximum``; ``None`` is no limit.
    """

    def __init__(self, minimum: float | None = None, maximum: float | None = None) -> None:
        self.minimum = -math.inf if minimum is None else float(minimum)
        self.maximum = math.inf if maximum is None else float(maximum)
        if not self.minimum < self.maximum:
            raise ValueError(f"minimum, maximum: expected minimum < maximum, got {minimum} and {maximum}")

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.clamp(self.minimum, self.maximum)

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(lower), self.value(upper)

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        below, above = self.default_choice(lower, upper) if choice is None else choice
        lower_slope, lower_offset = _below_clip(lower, upper, self.minimum, self.maximum, below)
        upper_slope, offset = _below_clip(-upper, -lower, -self.maximum, -self.minimum, above)
        return Lines(lower_slope, lower_offset, upper_slope, -offset)

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        below = upper - self.minimum > self.minimum - lower
        above = self.maximum - lower > upper - self.maximum
        return choices(below.to(lower.dtype), above.to(lower.dtype), lower)

    def undecided(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return where the interval reaches over a corner; elsewhere the lines are exact."""
        over_minimum = (lower < self.minimum) & (upper > self.minimum)
        return over_minimum | ((lower < self.maximum) & (upper > self.maximum))

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        least = (lower > self.minimum) & (upper < self.maximum)
        greatest = (upper >= self.minimum) & (lower <= self.maximum)
        return least.to(lower.dtype), greatest.to(lower.dtype)


class Hardtanh(Clip):
    """`Clip` to ``[-1, 1]`` unless told otherwise.

    Parameters
    ----------
    minimum, maximum : float
        ``minimum < maximum``.
    """

    def __init__(self, minimum: float = -1.0, maximum: float = 1.0) -> None:
        super().__init__(minimum, maximum)


class ReLU6(Clip):
    """`Clip` to ``[0, 6]``."""

    def __init__(self) -> None:
        super().__init__(0.0, 6.0)


class Hardsigmoid(Elementwise):
    """``clip(x, -3, 3) / 6 + 1 / 2``: the lines of `Clip`, scaled."""

    _clip = Clip(-3.0, 3.0)

    def value(self, inputs: Tensor) -> Tensor:
        return F.hardsigmoid(inputs)

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(lower), self.value(upper)

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        lines = self._clip.relax(lower, upper, choice)
        return Lines(
            lines.lower_slope / 6, lines.lower_offset / 6 + 0.5, lines.upper_slope / 6, lines.upper_offset / 6 + 0.5
        )

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        return self._clip.default_choice(lower, upper)

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        least, greatest = self._clip.derivative_range(lower, upper)
        return least / 6, greatest / 6


class Step(Elementwise):
    """A function that grows in steps: constants below and above, as no derivative says anything about it.

    Parameters
    ----------
    function : callable
        Such as `torch.sign` or `torch.floor`.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def value(self, inputs: Tensor) -> Tensor:
        return self.function(inputs)

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.function(lower), self.function(upper)

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        flat = torch.zeros_like(lower)
        return Lines(flat, self.function(lower), flat, self.function(upper))


class Sign(Step):
    """``-1``, ``0`` or ``1``."""

    def __init__(self) -> None:
        super().__init__(torch.sign)


def _positive_share(lower: Tensor, upper: Tensor) -> Tensor:
    """Return which share of each interval is above zero; 0 for the interval that is zero alone."""
    positive, negative = upper.clamp(min=0), lower.clamp(max=0)
    width = positive - negative
    return positive / torch.where(width > 0, width, 1.0)


def _below_clip(lower: Tensor, upper: Tensor, minimum: float, maximum: float, choice: Tensor) -> tuple[Tensor, Tensor]:
    """Return slope and offset of a line below the clip function, which is convex left of its maximum and then flat."""
    at_lower, at_upper = lower.clamp(minimum, maximum), upper.clamp(minimum, maximum)
    corner = minimum if math.isfinite(minimum) else 0.0

    # Right of the corner the function is concave: the chord, whose slope is at most 1.
    width = upper - lower
    narrow = width <= 0
    inside = ((lower >= minimum) & (upper <= maximum)).to(lower.dtype)
    chord = torch.where(narrow, inside, (at_upper - at_lower) / torch.where(narrow, 1.0, width))
    chord = torch.where(inside > 0, 1.0, chord)
    chord_offset = torch.minimum(at_lower - chord * lower, at_upper - chord * upper)

    # Left of it and beyond: through the corner, at most as steep as the line from there to the upper end.
    beyond = (upper - corner).clamp(min=0)
    steepest = (at_upper - corner).clamp(min=0) / torch.where(beyond > 0, beyond, 1.0)
    slope = choice * steepest
    bends = lower < minimum
    return torch.where(bends, slope, chord), torch.where(bends, corner * (1 - slope), chord_offset)
