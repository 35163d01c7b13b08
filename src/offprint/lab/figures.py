"""Drawing figures in the house style: legible on light and dark pages, seeds merged into a median and a band."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from offprint.papers import Figure, HeatMap, Level, Panel, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

INK = "#797979"
"""Text and axes: a grey with the same contrast, above 4.2, on white and on near-black."""

COLOURS = ("#3b82c4", "#cc6a1e", "#3a9d6e", "#c2538f", "#8c7ae6", "#a0862a", "#1f93a6", "#c94f4f")
MARKS = ("o", "s", "^", "D")
"""One for each time round the colours."""

LONGEST_TICKS = 40
"""Characters of a panel's bar labels that fit side by side."""

STYLE: Any = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.2,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.fontsize": "small",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "offprint",
    "font.family": "sans-serif",
}


def merge(figures: Sequence[Figure]) -> Figure:
    """Merge the figures of several seeds into one.

    Panels are matched by their place. Series of the same name and ``x`` become their median, with a band from the
    lowest to the highest seed; where ``x`` differs each seed keeps its own. Heat maps become the median of their
    values.
    """
    most = max(figures, key=lambda figure: len(figure.panels))
    places = range(len(most.panels))
    panels = [_merge_panels([figure.panels[i] for figure in figures if i < len(figure.panels)]) for i in places]
    return Figure(panels, most.caption)


def draw(figure: Figure, suffix: Literal["svg", "png"], *, title: str = "") -> bytes:
    """Draw a figure, panels side by side (three a row at most), on a transparent ground.

    Parameters
    ----------
    figure : Figure
    suffix : {"svg", "png"}
        The format.
    title : str
        Shown above the panels.

    Returns
    -------
    bytes
        The file. The same figure gives the same bytes.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    columns = min(3, len(figure.panels))
    rows = -(-len(figure.panels) // columns)
    with mpl.rc_context(STYLE):
        entries = [_entries(panel) for panel in figure.panels]
        # Panels of a row with the same entries share the legend of the last of them.
        explained = [
            len(entries[i]) > 1 and ((i + 1) % columns == 0 or entries[i + 1 : i + 2] != [entries[i]])
            for i in range(len(entries))
        ]
        asides = max(sum(explained[i : i + columns]) for i in range(0, len(entries), columns))
        size = (max(5.6, 4.4 * columns + 1.6 * asides), 3.6 * rows + 0.5)
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasAgg(canvas)
        for place, panel in enumerate(figure.panels, start=1):
            axes = canvas.add_subplot(rows, columns, place)
            if isinstance(panel, HeatMap):
                _draw_heat_map(canvas, axes, panel)
            else:
                _draw_panel(axes, panel)
                if explained[place - 1]:
                    _explain(axes)
        if title:
            canvas.suptitle(textwrap.fill(title, 36 * columns + 30), fontsize="medium", color=INK)
        if figure.caption:
            canvas.supxlabel(textwrap.fill(figure.caption, 40 * columns + 40), fontsize="small", color=INK)
        file = io.BytesIO()
        metadata = {"Date": None} if suffix == "svg" else {"Software": None}
        canvas.savefig(file, format=suffix, dpi=160, metadata=metadata)
    return file.getvalue()


def _merge_panels(panels: Sequence[Panel | HeatMap]) -> Panel | HeatMap:
    first = panels[0]
    if isinstance(first, HeatMap):
        alike = [p.values for p in panels if isinstance(p, HeatMap) and (p.x, p.y) == (first.x, first.y)]
        return replace(first, values=_median(np.asarray(alike)).tolist())
    merged: list[Series] = []
    drawn = [series for panel in panels if isinstance(panel, Panel) for series in panel.series]
    for name in dict.fromkeys(series.name for series in drawn):
        named = [series for series in drawn if series.name == name]
        if len(named) > 1 and all(series.x == named[0].x for series in named):
            y = np.asarray([series.y for series in named])
            low, high = _extremes(y)
            merged.append(replace(named[0], y=_median(y).tolist(), low=low.tolist(), high=high.tolist()))
        else:
            merged += named
    return replace(first, series=merged)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.set_xscale(panel.x_axis)
    axes.set_yscale(panel.y_axis)
    names = list(dict.fromkeys(series.name for series in panel.series))
    bars = [series.name for series in panel.series if series.kind == "bars"]
    for series in panel.series:
        rounds, place = divmod(names.index(series.name), len(COLOURS))
        colour, mark = COLOURS[place], MARKS[rounds % len(MARKS)]
        if series.kind == "bars":
            _draw_bars(axes, series, colour, bars.index(series.name), len(bars))
        else:
            _draw_points(axes, series, colour, mark)
    for level in panel.levels:
        _draw_level(axes, level)
    _label(axes, panel)
    _thin_log_ticks(axes)
    if bars:
        axes.grid(False, axis="x")


def _entries(panel: Panel | HeatMap) -> list[tuple[str, str]]:
    """Return what a legend of the panel has to explain: names in the order of their colours, and their kinds."""
    if isinstance(panel, HeatMap):
        return []
    named = {series.name: series.kind for series in panel.series} | {level.label: "level" for level in panel.levels}
    return list(named.items())


def _explain(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    # Within the axes it would cover what it explains.
    axes.legend(unique.values(), unique.keys(), loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _thin_log_ticks(axes: Axes) -> None:
    """Label only the powers of ten where a logarithmic axis spans one or more of them: the rest would overlap."""
    from matplotlib.ticker import NullFormatter

    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if axis.get_scale() == "log" and low > 0 and math.floor(math.log10(high)) > math.floor(math.log10(low)):
            axis.set_minor_formatter(NullFormatter())


def _draw_points(axes: Axes, series: Series, colour: str, mark: str) -> None:
    x, y = np.asarray(series.x), np.asarray(series.y)
    if series.kind == "dots":
        error = None if series.low is None else np.abs(np.asarray([series.low, series.high]) - y)
        axes.errorbar(x, y, error, fmt=mark, ms=4, color=colour, label=series.name, elinewidth=1)
        return
    shown = mark if len(x) <= 20 and not series.dashed else None
    axes.plot(x, y, color=colour, ls="--" if series.dashed else "-", lw=1.6, marker=shown, ms=3.5, label=series.name)
    if series.low is not None and series.high is not None:
        axes.fill_between(x, series.low, series.high, color=colour, alpha=0.2, lw=0)


def _draw_bars(axes: Axes, series: Series, colour: str, place: int, count: int) -> None:
    width = 0.8 / count
    positions = np.arange(len(series.x)) + (place - (count - 1) / 2) * width
    y = np.asarray(series.y)
    error = None if series.low is None else np.abs(np.asarray([series.low, series.high]) - y)
    axes.bar(positions, y, width * 0.9, color=colour, label=series.name, yerr=error, ecolor=INK, capsize=2)
    labels = [_tick(value) for value in series.x]
    slanted: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(np.arange(len(labels)), labels, **(slanted if len("  ".join(labels)) > LONGEST_TICKS else {}))


def _draw_level(axes: Axes, level: Level) -> None:
    line = axes.axvline if level.vertical else axes.axhline
    line(level.value, color=INK, ls=":", lw=1.2, label=level.label)


def _draw_heat_map(canvas: Canvas, axes: Axes, panel: HeatMap) -> None:
    image = axes.imshow(np.asarray(panel.values), origin="lower", aspect="auto", cmap="viridis")
    axes.grid(False)
    for set_ticks, ticks in ((axes.set_xticks, panel.x), (axes.set_yticks, panel.y)):
        step = max(1, len(ticks) // 8)
        set_ticks(range(0, len(ticks), step), [_tick(value) for value in ticks[::step]])
    bar = canvas.colorbar(image, ax=axes, label=panel.value_label)
    bar.outline.set_visible(False)
    _label(axes, panel)


def _label(axes: Axes, panel: Panel | HeatMap) -> None:
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.set_title(panel.title)


def _tick(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _median(values: Float[np.ndarray, "seeds *shape"]) -> Float[np.ndarray, "*shape"]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        middle: Float[np.ndarray, "*shape"] = np.nanmedian(values, axis=0)
    return middle


def _extremes(values: Float[np.ndarray, "seeds n"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    return np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
