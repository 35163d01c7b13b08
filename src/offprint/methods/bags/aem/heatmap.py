"""Heat maps of attention as files that viewers of slides read: CSV, and GeoJSON with a square per patch."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.stats import rankdata
from torch import Tensor

Format = Literal["csv", "geojson"]
ENDINGS: dict[str, Format] = {".csv": "csv", ".geojson": "geojson", ".json": "geojson"}
COLUMNS = ("x", "y", "patch_size", "attention", "rank", "percentile")
CHUNK = 4096
"""Patches that are turned into Python numbers at a time."""


class Patch(NamedTuple):
    """One line of a heat map, in the order of :data:`COLUMNS`."""

    x: int
    y: int
    patch_size: int
    attention: float
    rank: int
    percentile: float


def export_heat_map(
    path: str | Path,
    coords: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."],
    attention: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."],
    patch_size: int,
    *,
    file_format: Format | None = None,
) -> int:
    """Write the attention on the patches of a slide to a file that a viewer can lay over the slide.

    GeoJSON is read by QuPath, where patches become detections with measurements to colour them by, and by geopandas,
    where properties become columns. CSV is for everything else.

    Parameters
    ----------
    path : str or Path
        Where to. What is there already is replaced once the new file is complete.
    coords : int array or tensor, shape (n, 2)
        Upper left corners x, y of the patches, in pixels of the highest resolution, as in ``Slide.coords``.
    attention : float array or tensor, shape (n,) or (rows, n)
        At least 0, in the order of ``coords``: what ``MILClassifier.instance_weights`` or ``attention`` return. Of
        several rows the mean of those that see any patch is written; for one of them pass ``attention[row]``.
    patch_size : int
        Side of a patch in pixels of the highest resolution, at least 1: for patches of 256 pixels that were cut at a
        resolution four times lower, 1024.
    file_format : {"csv", "geojson"}, optional
        By default that of the ending of ``path``: .csv, .geojson or .json.

    Returns
    -------
    int
        Number of patches written.

    Raises
    ------
    ValueError
        If shapes do not match, there is no patch, a number is NaN, infinite or out of range, or the format is unknown.
    TypeError
        If coordinates or the size are no whole numbers, or attention holds no floating-point numbers.

    Notes
    -----
    Patches are written in the order given, with their attention as it is, their rank (1 is the most attention, equals
    share the best) and their percentile (rank from below as a share of n in percent, equals share the mean). Lines are
    written as they are made: beside a few arrays the memory is that of some thousand patches. O(n log n) time.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "slide.csv"
    >>> export_heat_map(path, np.array([[0, 0], [256, 0]]), np.array([0.25, 0.75]), 256)
    2
    >>> print(path.read_text().strip())
    x,y,patch_size,attention,rank,percentile
    0,0,256,0.25,2,50.0
    256,0,256,0.75,1,100.0

    References
    ----------
    Butler et al., *The GeoJSON Format*, RFC 7946, section 3. Zhang et al., arXiv:2406.15303, for what attention is.
    """
    target = Path(path)
    chosen = _format(target, file_format)
    corners, weights = _corners(coords), _weights(attention)
    if len(corners) != len(weights):
        raise ValueError(f"attention must hold one number per row of coords, {len(corners)}; got {len(weights)}")
    if isinstance(patch_size, bool) or not isinstance(patch_size, int | np.integer):
        raise TypeError(f"patch_size must be a whole number; got {patch_size!r}")
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1; got {patch_size}")
    unfinished = target.with_name(target.name + ".part")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            write = _write_csv if chosen == "csv" else _write_geojson
            write(file, _patches(corners, weights, int(patch_size)))
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(corners)


def _patches(corners: Int[np.ndarray, "n 2"], weights: Float[np.ndarray, " n"], patch_size: int) -> Iterator[Patch]:
    ranks = rankdata(-weights, method="min")
    percentiles = rankdata(weights, method="average") * (100 / len(weights))
    for start in range(0, len(weights), CHUNK):
        part = slice(start, start + CHUNK)
        columns = (corners[part, 0], corners[part, 1], weights[part], ranks[part], percentiles[part])
        for x, y, weight, rank, percentile in zip(*(column.tolist() for column in columns), strict=True):
            yield Patch(x, y, patch_size, weight, int(rank), percentile)


def _write_csv(file: TextIO, patches: Iterator[Patch]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(patches)


def _write_geojson(file: TextIO, patches: Iterator[Patch]) -> None:
    file.write('{"type": "FeatureCollection", "features": [')
    for number, patch in enumerate(patches):
        file.write(",\n" if number else "\n")
        file.write(json.dumps(_feature(patch)))
    file.write("\n]}\n")


def _feature(patch: Patch) -> dict[str, Any]:
    left, top, right, bottom = patch.x, patch.y, patch.x + patch.patch_size, patch.y + patch.patch_size
    # RFC 7946 wants outer rings counterclockwise in x, y, and the first corner again at the end.
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    numbers = {"attention": patch.attention, "rank": patch.rank, "percentile": patch.percentile}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        # QuPath shows what is under "measurements"; geopandas makes columns of what is directly here.
        "properties": {"objectType": "detection", **numbers, "measurements": numbers},
    }


def _format(path: Path, given: Format | None) -> Format:
    if given is not None:
        if given not in ("csv", "geojson"):
            raise ValueError(f"file_format must be 'csv' or 'geojson'; got {given!r}")
        return given
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"path must end in {', '.join(ENDINGS)}, or file_format be given; got {path.name!r}")
    return ENDINGS[path.suffix.lower()]


def _corners(coords: Any) -> Int[np.ndarray, "n 2"]:
    found = _array(coords)
    if found.dtype.kind not in "iu":
        raise TypeError(f"coords must be whole numbers of pixels; got {found.dtype}")
    if found.ndim != 2 or found.shape[1] != 2 or len(found) == 0:
        raise ValueError(f"coords must be of shape (n, 2), n at least 1; got {found.shape}")
    return found


def _weights(attention: Any) -> Float[np.ndarray, " n"]:
    """Return one finite number per patch: the mean over the rows of attention that see anything."""
    found = _array(attention)
    if found.dtype.kind != "f":
        raise TypeError(f"attention must be floating-point numbers; got {found.dtype}")
    if found.ndim not in (1, 2) or found.size == 0:
        raise ValueError(f"attention must be of shape (n,) or (rows, n), n at least 1; got {found.shape}")
    rows = np.atleast_2d(found.astype(np.float64))
    if not np.isfinite(rows).all():
        raise ValueError("attention must be finite; it holds NaN or infinity")
    if (rows < 0).any():
        raise ValueError(f"attention must be at least 0, so taken after the softmax; its least is {rows.min():.3g}")
    seeing = rows.any(axis=1)
    if not seeing.any():
        raise ValueError("attention must be above 0 somewhere; it is 0 on every patch")
    weights: Float[np.ndarray, " n"] = rows[seeing].mean(axis=0)
    return weights


def _array(values: Any) -> Shaped[np.ndarray, "..."]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
