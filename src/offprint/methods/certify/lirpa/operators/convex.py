"""Functions that bend one way: exponential, logarithm, softplus. Powers and ELU have files of their own."""

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
    offset_above,
    offset_below,
)
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines


class Convex(Elementwise):
    """A convex function: a tangent below it, by default in the middle of the interval, and the chord above.

    The choice moves the point of contact from the left end (0) to the right end (1). The rules are those of
    arXiv:2002.12920, appendix A.
    """

    @abstractmethod
    def derivative(self, inputs: Tensor) -> Tensor:
        """Return the derivative, which grows."""

    def chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return the slope of the chord, accurate also on narrow intervals."""
        return chord_slope(self.value, self.derivative, lower, upper)

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(lower), self.value(upper)

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        below, _ = self.default_choice(lower, upper) if choice is None else choice
        point = self.contact(lower, upper, below)
        slope, chord = self.derivative(point), self.chord(lower, upper)
        return Lines(
            lower_slope=slope,
            lower_offset=offset_below(self.value, slope, point),
            upper_slope=chord,
            upper_offset=offset_above(self.value, chord, lower, upper),
        )

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        return choices(0.5, 0.5, lower)

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.derivative(lower), self.derivative(upper)

    def contact(self, lower: Tensor, upper: Tensor, choice: Tensor) -> Tensor:
        """Return the point of contact of the tangent."""
        return between(lower, upper, choice)


class Concave(Convex):
    """A concave function: what `Convex` says, the other way up; the derivative falls."""

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        _, above = self.default_choice(lower, upper) if choice is None else choice
        point = self.contact(lower, upper, above)
        slope, chord = self.derivative(point), self.chord(lower, upper)
        return Lines(
            lower_slope=chord,
            lower_offset=offset_below(self.value, chord, lower, upper),
            upper_slope=slope,
            upper_offset=offset_above(self.value, slope, point),
        )

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return self.derivative(upper), self.derivative(lower)


class Exp(Convex):
    """``exp(x)``; tangents in ``[lower, lower + 0.99]`` alone, which stay positive, so that a reciprocal may follow."""

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.exp()

    def derivative(self, inputs: Tensor) -> Tensor:
        return inputs.exp()

    def chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        return exp_chord(lower, upper)

    def check_domain(self, lower: Tensor, upper: Tensor) -> None:
        largest = math.log(torch.finfo(upper.dtype).max)
        refuse(upper > largest, upper, "Exp", f"numbers up to {largest:.1f}, where {upper.dtype} ends")

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor:
        width = upper - lower
        return choices((width / 2 / width.clamp(1e-6, 0.99)).clamp(max=1).where(width > 0.99, 0.5), 0.5, lower)

    def contact(self, lower: Tensor, upper: Tensor, choice: Tensor) -> Tensor:
        return between(lower, torch.minimum(upper, lower + 0.99), choice)


class Log(Concave):
    """``log(x)`` of positive numbers."""

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.log()

    def derivative(self, inputs: Tensor) -> Tensor:
        return 1 / inputs

    def chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        return _log1p_ratio((upper - lower) / lower) / lower

    def check_domain(self, lower: Tensor, upper: Tensor) -> None:
        refuse(~(lower > 0), lower, "Log", "positive numbers")


class Softplus(Convex):
    """``log(1 + exp(beta * x)) / beta``.

    Parameters
    ----------
    beta : float
        Positive.
    threshold : float
        `torch.nn.functional.softplus` returns ``x`` itself where ``beta * x`` is above it. That is a little less than
        the function; the lower line makes room for it on intervals that reach over the threshold.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        if not (beta > 0 and math.isfinite(beta)):
            raise ValueError(f"beta: expected a positive number, got {beta}")
        self.beta = beta
        self.threshold = threshold
        self._jump = math.log1p(math.exp(-threshold)) / beta if threshold > -700 else -threshold / beta

    def value(self, inputs: Tensor) -> Tensor:
        return F.softplus(inputs, self.beta, self.threshold)

    def derivative(self, inputs: Tensor) -> Tensor:
        return (self.beta * inputs).sigmoid()

    def chord(self, lower: Tensor, upper: Tensor) -> Tensor:
        return chord_slope(self._curve, self.derivative, lower, upper, scale=self.beta)

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        least, greatest = self.value(lower), self.value(upper)
        step = torch.full_like(lower, self.threshold / self.beta)
        crosses = (self.beta * lower <= self.threshold) & (self.beta * upper > self.threshold)
        return (
            torch.where(crosses, least.minimum(step), least),
            torch.where(crosses, greatest.maximum(self._curve(step)), greatest),
        )

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        least, greatest = self.derivative(lower), self.derivative(upper)
        return torch.where(self.beta * lower > self.threshold, 1.0, least), torch.where(
            self.beta * upper > self.threshold, 1.0, greatest
        )

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        below, _ = self.default_choice(lower, upper) if choice is None else choice
        point, chord = self.contact(lower, upper, below), self.chord(lower, upper)
        slope = self.derivative(point)
        straight = self.beta * lower > self.threshold
        room = torch.where(self.beta * upper > self.threshold, self._jump, 0.0)
        return Lines(
            lower_slope=torch.where(straight, 1.0, slope),
            lower_offset=torch.where(straight, 0.0, offset_below(self._curve, slope, point) - room),
            upper_slope=torch.where(straight, 1.0, chord),
            upper_offset=torch.where(straight, 0.0, offset_above(self._curve, chord, lower, upper)),
        )

    def _curve(self, inputs: Tensor) -> Tensor:
        scaled = self.beta * inputs
        return torch.logaddexp(scaled, torch.zeros_like(scaled)) / self.beta


class LogSigmoid(Concave):
    """``log(sigmoid(x))``."""

    def value(self, inputs: Tensor) -> Tensor:
        return F.logsigmoid(inputs)

    def derivative(self, inputs: Tensor) -> Tensor:
        return (-inputs).sigmoid()


def refuse(bad: Tensor, numbers: Tensor, name: str, accepted: str) -> None:
    """Raise a `ValueError` that says what a function takes and shows the first number outside of it."""
    if bool(bad.any()):
        raise ValueError(f"{name} takes {accepted}; its input may be {numbers[bad].flatten()[0].item():g}")


def exp_chord(lower: Tensor, upper: Tensor) -> Tensor:
    """Return the slope of the chord of the exponential, without cancellation on narrow intervals."""
    width = upper - lower
    narrow, tiny = width < 1, width < 1e-4
    within = torch.where(narrow & ~tiny, width, 1.0)
    ratio = torch.where(tiny, 1 + width / 2 * (1 + width / 3), within.expm1() / within)
    return torch.where(narrow, lower.exp() * ratio, (upper.exp() - lower.exp()) / width.clamp(min=1))


def _log1p_ratio(number: Tensor) -> Tensor:
    """Return ``log(1 + x) / x`` of numbers from zero on."""
    small = number < 1e-4
    ratio = torch.where(small, 1.0, number).log1p() / torch.where(small, 1.0, number)
    return torch.where(small, 1 - number * (1 / 2 - number / 3), ratio)
