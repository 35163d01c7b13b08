"""Figures survive being written as JSON and read back."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offprint.papers import Figure, HeatMap, Level, Panel, Series


def through_json(figure: Figure) -> Figure:
    return Figure.from_json(json.loads(json.dumps(figure.to_json(), allow_nan=False)))


@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats()), max_size=20))
def test_any_series_survives(points: list[tuple[float, float]]) -> None:
    series = Series("s", [x for x, _ in points], [y for _, y in points], dashed=True)
    back = through_json(Figure([Panel("x", "y", [series], y_axis="log", levels=[Level("limit", 2)])], "caption"))
    [panel] = back.panels
    assert isinstance(panel, Panel)
    assert (panel.y_axis, panel.levels, back.caption) == ("log", [Level("limit", 2)], "caption")
    assert panel.series[0].x == series.x
    # What is not finite has no place in JSON and comes back as a gap.
    expected = [y if math.isfinite(y) else math.nan for y in series.y]
    assert np.array_equal(panel.series[0].y, expected, equal_nan=True)


def test_bars_have_names_and_bands_have_ends() -> None:
    series = Series("s", ["a", "b"], [1, 2], kind="bars", low=[0, 1], high=[2, 3])
    [panel] = through_json(Figure([Panel("x", "y", [series])])).panels
    assert isinstance(panel, Panel)
    assert panel.series[0] == series


def test_a_heat_map_survives() -> None:
    heat_map = HeatMap("x", "y", "v", x=[1, 2], y=["low", "high"], values=np.array([[1, math.nan], [3, 4]]), title="t")
    [back] = through_json(Figure([heat_map])).panels
    assert isinstance(back, HeatMap)
    assert (back.x, back.y, back.title) == ([1.0, 2.0], ["low", "high"], "t")
    assert np.array_equal(back.values, [[1, math.nan], [3, 4]], equal_nan=True)


@pytest.mark.parametrize("number", [np.float32(0.5), np.int64(1), np.float64(2), 3])
def test_numbers_of_numpy_become_plain_ones(number: Any) -> None:
    series = Series("s", [number], [number], low=[number], high=[number])
    panel = Panel("x", "y", [series], levels=[Level("l", number)])
    heat_map = HeatMap("x", "y", "v", [number], [number], [[number]])
    json.dumps(Figure([panel, heat_map]).to_json())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": [1, 2], "y": [1]}, "series 's': 2 x values, 1 y values"),
        ({"x": [1], "y": [1], "low": []}, "series 's': 1 x values, 0 low values"),
        ({"x": [1], "y": [1], "high": [1, 2]}, "series 's': 1 x values, 2 high values"),
    ],
)
def test_a_series_of_unequal_lengths_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Series("s", **given)


@pytest.mark.parametrize("values", [[[1, 2]], [[1], [2]], [[1, 2], [3]]])
def test_a_heat_map_of_the_wrong_shape_is_refused(values: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="heat map 't': values must be 2 rows of 2"):
        HeatMap("x", "y", "v", [1, 2], [1, 2], values, title="t")
