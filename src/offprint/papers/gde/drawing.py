"""Panels that several claims draw."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from offprint.papers.figure import HeatMap, Panel, Series


def scatter(z: Tensor, chosen: tuple[np.ndarray, np.ndarray], wanted: np.ndarray, title: str) -> Panel:
    """Draw up to 500 pairs."""
    found = (z[chosen[0]] - z[chosen[1]]).norm(dim=1).numpy()
    shown = slice(0, 500)
    dots = Series("pairs of test sets", wanted[shown].tolist(), found[shown].tolist(), "dots")
    return Panel("Wasserstein distance", "latent distance", [dots], title=title)


def ternary(distance: Tensor, grid: Tensor, label: str) -> HeatMap:
    """Draw a value for every point of the simplex grid, by the shares of two classes."""
    steps = round(1 / float(grid[grid > 0].min()))
    values = np.full((steps + 1, steps + 1), np.nan)
    for share, value in zip(grid, distance, strict=True):
        values[round(float(share[1]) * steps), round(float(share[0]) * steps)] = float(value)
    ticks = [f"{k / steps:.1f}" for k in range(steps + 1)]
    return HeatMap("share of class 1", "share of class 2", label, ticks, ticks, values.tolist())
