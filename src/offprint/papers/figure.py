"""Figures as data: a claim says what to show, the lab draws it in the house style and merges its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Axis = Literal["linear", "log"]


@dataclass(frozen=True)
class Series:
    """One named line, set of dots or set of bars. Seeds with the same name and ``x`` become a median with a band.

    Parameters
    ----------
    name : str
        Shown in the legend.
    x : sequence of float or of str
        Positions, or names of categories for bars.
    y : sequence of float
        Values, as many as ``x``; NaN leaves a gap.
    kind : {"line", "dots", "bars"}
        How it is drawn.
    dashed : bool
        For theory, references and baselines drawn beside what was measured.
    low, high : sequence of float, optional
        Ends of a band or of error bars about ``y``. Left out by claims that measure one seed at a time.
    """

    name: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float]
    kind: Literal["line", "dots", "bars"] = "line"
    dashed: bool = False
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", [value if isinstance(value, str) else float(value) for value in self.x])
        for name in ("y", "low", "high"):
            values = getattr(self, name)
            if values is None:
                continue
            object.__setattr__(self, name, [_number(value) for value in values])
            if len(values) != len(self.x):
                raise ValueError(f"series {self.name!r}: {len(self.x)} x values, {len(values)} {name} values")


@dataclass(frozen=True)
class Level:
    """A horizontal (or vertical) line at a named value: the paper's reported number, a threshold, a theory limit."""

    label: str
    value: float
    vertical: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _number(self.value))


@dataclass(frozen=True)
class Panel:
    """One set of axes with its series. Axis labels carry their units."""

    x_label: str
    y_label: str
    series: Sequence[Series]
    title: str = ""
    x_axis: Axis = "linear"
    y_axis: Axis = "linear"
    levels: Sequence[Level] = ()
    kind: Literal["panel"] = "panel"


@dataclass(frozen=True)
class HeatMap:
    """A table of values as colours: ``values[i][j]`` belongs to ``y[i]`` and ``x[j]``."""

    x_label: str
    y_label: str
    value_label: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float] | Sequence[str]
    values: Sequence[Sequence[float]]
    title: str = ""
    kind: Literal["heatmap"] = "heatmap"

    def __post_init__(self) -> None:
        rows = [[_number(value) for value in row] for row in self.values]
        object.__setattr__(self, "values", rows)
        for name in ("x", "y"):
            ticks = [value if isinstance(value, str) else float(value) for value in getattr(self, name)]
            object.__setattr__(self, name, ticks)
        if len(rows) != len(self.y) or any(len(row) != len(self.x) for row in rows):
            raise ValueError(f"heat map {self.title!r}: values must be {len(self.y)} rows of {len(self.x)}")


@dataclass(frozen=True)
class Figure:
    """What a claim shows: panels side by side under one caption."""

    panels: Sequence[Panel | HeatMap] = field(default_factory=list)
    caption: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain data, with ``None`` where a value is not finite, so that it is valid JSON."""
        plain: dict[str, Any] = _finite(asdict(self))
        return plain

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Figure:
        """Read back what :meth:`to_json` wrote."""
        return cls([_panel(panel) for panel in data["panels"]], data["caption"])


def _panel(data: dict[str, Any]) -> Panel | HeatMap:
    if data["kind"] == "heatmap":
        return HeatMap(**data)
    series = [Series(**item) for item in data["series"]]
    return Panel(**{**data, "series": series, "levels": [Level(**item) for item in data["levels"]]})


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
