"""Where files of datasets lie: ``OFFPRINT_DATA`` first, then the user's cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from offprint.data.dataset import MissingDataError

VARIABLE = "OFFPRINT_DATA"


def roots() -> tuple[Path, ...]:
    """Return the folders in which files are sought, in this order.

    Returns
    -------
    tuple of Path
        The folder named by ``OFFPRINT_DATA``, where that is set, and the user's cache.

    Examples
    --------
    >>> roots()[-1].name
    'data'
    """
    named = os.environ.get(VARIABLE)
    cache = Path(platformdirs.user_cache_dir("offprint")) / "data"
    return (Path(named).expanduser(), cache) if named else (cache,)


def find(name: str, layouts: Sequence[Sequence[str]], places: Sequence[Path]) -> list[Path]:
    """Return the files of the first layout that is complete in a root.

    Parameters
    ----------
    name : str
        The dataset, for the error.
    layouts : sequence of sequences of str
        The ways in which the files may lie, best first: for each, the paths below a root.
    places : sequence of Path
        Roots, best first.

    Returns
    -------
    list of Path
        The paths of the chosen layout, in its order.

    Raises
    ------
    MissingDataError
        If no root holds all files of a layout; the message says how to get them and where they were sought.

    Examples
    --------
    >>> find("toy", [["toy.csv"]], [Path("/nowhere")])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    offprint.data.dataset.MissingDataError: toy is not here; get it with `offprint data get toy`. Sought toy.csv ...
    """
    for root in places:
        for layout in layouts:
            paths = [root / path for path in layout]
            if all(path.is_file() for path in paths):
                return paths
    sought = " or ".join(_shortened(layout) for layout in layouts)
    raise MissingDataError(
        f"{name} is not here; get it with `offprint data get {name}`. "
        f"Sought {sought} in {' and '.join(map(str, places)) or 'no folder'}"
    )


def _shortened(layout: Sequence[str]) -> str:
    return layout[0] if len(layout) == 1 else f"{layout[0]} and {len(layout) - 1} more"
