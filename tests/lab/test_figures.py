"""Figures: seeds merge as readers are told, and what is drawn is a file that a browser shows on any ground."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from offprint.lab import draw
from offprint.lab.figures import COLOURS, INK, merge
from offprint.papers import Figure, HeatMap, Level, Panel, Series


def panel(y: list[float], x: list[float] | None = None, **options: object) -> Figure:
    return Figure([Panel("x (s)", "y (m)", [Series("ours", x or [1, 2, 3], y, **options)], levels=[Level("paper", 2)])])


def test_seeds_become_a_median_with_a_band_from_lowest_to_highest() -> None:
    merged = merge([panel([1, 5, 9]), panel([2, 4, math.nan]), panel([6, 0, 3])])
    [series] = merged.panels[0].series
    assert series.y == [2, 4, 6]
    assert series.low == [1, 0, 3]
    assert series.high == [6, 5, 9]


def test_seeds_with_other_positions_keep_their_own_line() -> None:
    merged = merge([panel([1, 2, 3]), panel([4, 5], x=[1, 7])])
    assert [series.y for series in merged.panels[0].series] == [[1, 2, 3], [4, 5]]


def test_heat_maps_become_their_median() -> None:
    maps = [Figure([HeatMap("x", "y", "v", [1, 2], ["a"], [[value, 2 * value]])]) for value in (1, 5, 3)]
    assert merge(maps).panels[0].values == [[3, 6]]


def test_a_figure_survives_json() -> None:
    figure = Figure(
        [*panel([1, math.nan, 3], kind="dots").panels, HeatMap("x", "y", "v", [1], ["a"], [[math.nan]])], "what it is"
    )
    data = figure.to_json()
    assert data["panels"][0]["series"][0]["y"] == [1, None, 3]
    again = Figure.from_json(data)
    assert again.to_json() == data
    assert math.isnan(again.panels[0].series[0].y[1])


def everything() -> Figure:
    bars = Panel("method", "error", [Series(name, ["first", "second"], [1, 2], kind="bars") for name in ("p", "q")])
    lines = Panel("n", "cost", [Series("fit", [1, 10, 100], [1, 3, 9], dashed=True)], x_axis="log", y_axis="log")
    heat = HeatMap("k", "rho", "risk", [1, 2, 3], ["low", "high"], [[1, 2, 3], [4, 5, 6]])
    return Figure([bars, lines, heat, *panel([1, 2, 3], kind="dots").panels], "A caption.")


def test_svg_is_well_formed_transparent_and_shows_every_label() -> None:
    drawn = draw(everything(), "svg", title="Every kind of panel")
    text = "".join(ET.fromstring(drawn).itertext())
    for label in (
        "x (s)",
        "y (m)",
        "cost",
        "risk",
        "method",
        "paper",
        "A caption.",
        "first",
        "second",
        "Every kind of panel",
        "high",
    ):
        assert label in text
    assert b"fill: #ffffff" not in drawn


def test_the_same_figure_gives_the_same_bytes() -> None:
    for suffix in ("svg", "png"):
        assert draw(everything(), suffix) == draw(everything(), suffix)
    assert draw(everything(), "png").startswith(b"\x89PNG")


def test_more_series_than_colours_can_still_be_told_apart() -> None:
    series = [Series(str(i), [1.0], [float(i)], kind="dots") for i in range(len(COLOURS) + 1)]
    drawing = draw(Figure([Panel("x", "y", series)]), "svg").decode()
    marks = re.findall(rf'<path id="\w+" d="([^"]*)" style="stroke: {COLOURS[0]}', drawing)
    assert len(set(marks)) == 2


@pytest.mark.parametrize("ground", ["#ffffff", "#121212"])
def test_text_and_lines_are_legible_on_light_and_dark(ground: str) -> None:
    """No grey has more than 4.35 on both grounds; graphics need 3 by the web content guidelines."""

    def luminance(colour: str) -> float:
        channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(colour: str) -> float:
        light, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    assert contrast(INK) >= 4.2
    assert min(contrast(colour) for colour in COLOURS) >= 3.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Series("s", [1, 2], [1]), "2 x values, 1 y values"),
        (lambda: Series("s", [1], [1], low=[1, 2]), "1 x values, 2 low values"),
        (lambda: HeatMap("x", "y", "v", [1, 2], [1], [[1]]), "must be 1 rows of 2"),
    ],
)
def test_what_does_not_fit_together_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("names", "slanted"), [(["first", "second"], False), ([f"a long name {i}" for i in range(6)], True)]
)
def test_bar_labels_that_would_overlap_are_slanted(names: list[str], slanted: bool) -> None:
    bars = Panel("method", "error", [Series("p", names, list(range(len(names))), kind="bars")])
    assert (b"rotate(-30 " in draw(Figure([bars]), "svg")) == slanted
