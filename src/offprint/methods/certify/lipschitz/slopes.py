"""A gradient times a set-valued slope: the one operator that a Jacobian's graph needs beyond those of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.operators.base import (
    Call,
    ElementwiseOperator,
    Interval,
    LinesRelaxation,
    Relaxation,
    Scaled,
    register_op,
)
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines


def slope_times(gradient: Tensor, least: Tensor, greatest: Tensor) -> Tensor:
    """Return the middle of all products of a gradient and a slope between ``least`` and ``greatest``."""
    return gradient * (least + greatest) / 2


def slope_times_by_constants(gradient: Tensor, least: Tensor, greatest: Tensor) -> Tensor:
    """Return the same; a target of its own, as RecurJac bounds it in another way."""
    return slope_times(gradient, least, greatest)


class SlopeTimes(Elementwise):
    r""":math:`s g` for any slope :math:`s \in [m, M]`, as a function of the gradient :math:`g`.

    With :math:`s g = m g + (M - m) t g`, :math:`t \in [0, 1]`, the product lies between
    :math:`m g - (M - m) \mathrm{ReLU}(-g)` and :math:`m g + (M - m) \mathrm{ReLU}(g)`, and the lines are the chords of
    these two: the convex hull of all :math:`(g, s g)`. They do not depend on where the slope came from.

    Parameters
    ----------
    least, greatest : Tensor
        m and M of every element.
    """

    def __init__(self, least: Tensor, greatest: Tensor) -> None:
        self.least = least
        self.greatest = greatest

    def value(self, inputs: Tensor) -> Tensor:
        return slope_times(inputs, self.least, self.greatest)

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return products(lower, upper, self.least, self.greatest)

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        freedom = self.greatest - self.least
        positive, negative = upper.clamp(min=0), -lower.clamp(max=0)
        width = positive + negative
        share = positive / torch.where(width > 0, width, 1.0)
        return Lines(
            lower_slope=self.least + freedom * (1 - share),
            lower_offset=-freedom * (1 - share) * positive,
            upper_slope=self.least + freedom * share,
            upper_offset=freedom * share * negative,
        )

    def undecided(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return where slope and sign of the gradient are both open; elsewhere the lines need no interval."""
        return (self.least < self.greatest) & (lower < 0) & (upper > 0)


class SlopeTimesByConstants(SlopeTimes):
    """What RecurJac does: where the gradient's sign is open, the product is between two constants."""

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        lines = super().relax(lower, upper)
        open_sign = (lower < 0) & (upper > 0)
        least, greatest = self.interval(lower, upper)
        return Lines(
            lower_slope=torch.where(open_sign, 0.0, lines.lower_slope),
            lower_offset=torch.where(open_sign, least, lines.lower_offset),
            upper_slope=torch.where(open_sign, 0.0, lines.upper_slope),
            upper_offset=torch.where(open_sign, greatest, lines.upper_offset),
        )

    def undecided(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return where the sign of the gradient is open, whatever the slope."""
        return (lower < 0) & (upper > 0)


def products(lower: Tensor, upper: Tensor, least: Tensor, greatest: Tensor) -> tuple[Tensor, Tensor]:
    """Return the range of the product of a number in [lower, upper] and another in [least, greatest]."""
    corners = torch.stack([lower * least, lower * greatest, upper * least, upper * greatest])
    return corners.amin(0), corners.amax(0)


class SlopeOperator(ElementwiseOperator):
    """The operator made from one of the two, with a word on which intervals are worth sharpening."""

    def undecided(self, call: Call, intervals: Sequence[Interval]) -> list[Tensor | None]:
        function = self.function(call)
        assert isinstance(function, SlopeTimes)
        return [function.undecided(*intervals[0])]


class Watched(Relaxation):
    """Lines that remember the coefficients that last met them: branch and bound asks which unit matters."""

    def __init__(self, lines: LinesRelaxation) -> None:
        self.rows: list[Tensor] = []
        super().__init__(_Watching(lines.lower, self.rows), _Watching(lines.upper, self.rows))

    @property
    def weight(self) -> Tensor:
        """The sum of the coefficients' sizes on both lines, of the node's shape."""
        return torch.stack([rows.abs().sum(0) for rows in self.rows]).sum(0)

    @property
    def intercept(self) -> Tensor:
        """The same with each coefficient times the constant of its line: how far the lines are off, at the origin."""
        offsets = [plane.offset for plane in (self.upper, self.lower) if isinstance(plane, Scaled)]
        terms = [rows * offset for rows, offset in zip(self.rows, offsets, strict=True) if offset is not None]
        return torch.stack([term.abs().sum(0) for term in terms]).sum(0)


class _Watching(Scaled):
    def __init__(self, line: object, rows: list[Tensor]) -> None:
        assert isinstance(line, Scaled)
        super().__init__(line.slope, line.offset)
        self.rows = rows

    def transpose(self, rows: Tensor) -> list[Tensor]:
        self.rows.append(rows)
        return super().transpose(rows)


register_op(slope_times, SlopeOperator(SlopeTimes))
register_op(slope_times_by_constants, SlopeOperator(SlopeTimesByConstants))
