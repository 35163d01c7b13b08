"""A measured number beside what was expected of it, as positions on a line from 0 to 100."""

from __future__ import annotations

import math
from dataclasses import dataclass

from offprint.papers import Rule

SPREAD_FOR_LOGARITHM = 30.0
MARGIN = 0.14


@dataclass(frozen=True)
class Span:
    """A stretch of the line."""

    start: float
    end: float

    @property
    def width(self) -> float:
        """Its length, never too short to be seen."""
        return max(self.end - self.start, 0.6)


@dataclass(frozen=True)
class Ruler:
    """Where the accepted range, the weaker band, the interval and the number lie on the line."""

    accepted: Span
    weaker: Span | None
    interval: Span
    value: float


def ruler(rule: Rule, value: float, interval: tuple[float, float]) -> Ruler | None:
    """Lay a number and its rule out on a line, logarithmic where they span decades; ``None`` for a yes or no.

    Examples
    --------
    >>> ruler(Rule(between=(0, 1)), 0.5, (0.4, 0.6)).value
    50.0
    """
    if rule.holds:
        return None
    accepted = rule.region()
    weaker = rule.region(weaker=True) if rule.weaker is not None else None
    points = [point for point in (*accepted, *(weaker or ()), *interval, value) if math.isfinite(point)]
    logarithmic = min(points) > 0 and max(points) / min(points) > SPREAD_FOR_LOGARITHM
    low, high = (math.log(bound) if logarithmic else bound for bound in (min(points), max(points)))
    spread = (high - low) or abs(high) or 1.0

    def place(point: float) -> float:
        if not math.isfinite(point):
            return 0.0 if point < 0 else 100.0
        if logarithmic and point <= 0:
            return 0.0
        position = ((math.log(point) if logarithmic else point) - low + MARGIN * spread) / spread
        return round(100 * min(max(position / (1 + 2 * MARGIN), 0.0), 1.0), 2)

    def span(ends: tuple[float, float]) -> Span:
        return Span(place(ends[0]), place(ends[1]))

    return Ruler(span(accepted), weaker and span(weaker), span(interval), place(value))
