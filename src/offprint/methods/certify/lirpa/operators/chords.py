"""Chords, and the heights at which lines stay below or above a function: what the relaxations of curves share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def chord_slope(function: Function, derivative: Function, lower: Tensor, upper: Tensor, scale: float = 1.0) -> Tensor:
    """Return the slope of the chord over each interval, and of the tangent in the middle where rounding would eat it.

    The two agree up to the square of the width. ``scale`` is how fast the function bends: that of ``f(3 * x)`` is 3.
    """
    width = upper - lower
    narrow = width * scale < torch.finfo(width.dtype).eps ** (1 / 3)
    ratio = (function(upper) - function(lower)) / torch.where(narrow, 1.0, width)
    return torch.where(narrow, derivative(middle(lower, upper)), ratio)


def middle(lower: Tensor, upper: Tensor) -> Tensor:
    """Return the middle of each interval."""
    return between(lower, upper, 0.5)


def between(lower: Tensor, upper: Tensor, share: Tensor | float) -> Tensor:
    """Return the point a share of the way from ``lower`` to ``upper``; exactly the ends for shares 0 and 1."""
    return (1 - share) * lower + share * upper


def offset_below(function: Function, slope: Tensor, *points: Tensor) -> Tensor:
    """Return the largest offset that keeps lines of the given slope at or below the function in every point."""
    first, *others = (function(point) - slope * point for point in points)
    for other in others:
        first = torch.minimum(first, other)
    return first


def offset_above(function: Function, slope: Tensor, *points: Tensor) -> Tensor:
    """Return the smallest offset that keeps lines of the given slope at or above the function in every point."""
    first, *others = (function(point) - slope * point for point in points)
    for other in others:
        first = torch.maximum(first, other)
    return first


def extremes(function: Function, turns: Sequence[float], lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest value of a function that goes up or down between its ``turns``."""
    at_lower, at_upper = function(lower), function(upper)
    least, greatest = torch.minimum(at_lower, at_upper), torch.maximum(at_lower, at_upper)
    for turn in turns:
        inside = (lower <= turn) & (turn <= upper)
        there = function(torch.full((), turn, dtype=lower.dtype, device=lower.device))
        least = torch.where(inside, torch.minimum(least, there), least)
        greatest = torch.where(inside, torch.maximum(greatest, there), greatest)
    return least, greatest


def choices(below: Tensor | float, above: Tensor | float, like: Tensor) -> Tensor:
    """Return a choice for the lower lines and one for the upper lines as one tensor, ``(2, *like.shape)``."""
    pair = (torch.as_tensor(choice, dtype=like.dtype, device=like.device) for choice in (below, above))
    return torch.stack([choice.expand_as(like) for choice in pair])
