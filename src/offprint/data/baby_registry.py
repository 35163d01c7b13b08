"""Amazon baby registries: items of one category that parents wished for, among others that resemble them least."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64

from offprint.data.dataset import MissingDataError
from offprint.data.pickles import read_pickle
from offprint.data.subsets import SubsetData

Part = Literal["train", "validation", "test"]


def amazon_registry(
    path: Path | str,
    category: str,
    split: Part | str = "train",
    *,
    size: int = 30,
    least: int = 3,
    random_state: int = 0,
) -> SubsetData:
    """Read baby registries of one category: the subset are the items of a registry, the rest the least similar ones.

    Each set holds the items of one registry, and as many others as make it ``size``: those with the least cosine
    similarity to the mean of the registry's items. All are in random order.

    Parameters
    ----------
    path : Path or str
        A folder with two files for each category, such as ``toys``, ``feeding`` or ``safety``:

        - ``<category>.csv``, a registry a line: the numbers of its items, from 1, separated by commas;
        - ``<category>``, a pickled dict from 1, 2, ... to the features of each item (768 of its description, as
          published with EquiVSet), or ``<category>.npy``, an array of shape (items, features).
    category : str
        Which.
    split : {"train", "validation", "test"}
        A third of the registries that fit each, in the order of the file.
    size : int
        Items of a set, no more than there are.
    least : int
        Registries with fewer items than this are left out, and so are those with ``size`` or more.
    random_state : int
        Seed of the order of items.

    Returns
    -------
    SubsetData
        Sets of shape (registries, size, features), float32.

    Raises
    ------
    MissingDataError
        If a file is not there.
    ValueError
        If a file is malformed, the message naming file, line and fault; if a number is out of range, or a third holds
        no registry.

    Notes
    -----
    O(registries · items · features). A pickle is read without running any code that it might ask for.

    Examples
    --------
    >>> amazon_registry("/nowhere", "toys")
    Traceback (most recent call last):
    offprint.data.dataset.MissingDataError: amazon_registry needs toys.csv in /nowhere

    References
    ----------
    Gillenwater et al., *Expectation-Maximization for Learning Determinantal Point Processes* (2014), for the
    registries. Ou et al., *Learning Neural Set Functions Under the Optimal Subset Oracle*, arXiv:2203.01693, for the
    features and the sets.
    """
    if split not in get_args(Part):
        raise ValueError(f"split must be one of {', '.join(get_args(Part))}; got {split!r}")
    if not 1 <= least < size:
        raise ValueError(f"least must be between 1 and one less than size, {size}; got {least}")
    registries_at = Path(path) / f"{category}.csv"
    if not registries_at.is_file():
        raise MissingDataError(f"amazon_registry needs {registries_at.name} in {path}")
    items = _read_items(Path(path), category)
    if len(items) < size:
        raise ValueError(f"size must be at most the number of items of {category}, {len(items)}; got {size}")
    fitting = [one for one in _read_registries(registries_at, len(items)) if least <= len(one) < size]
    third = get_args(Part).index(split)
    kept = fitting[third * len(fitting) // 3 : (third + 1) * len(fitting) // 3]
    if not kept:
        raise ValueError(
            f"{registries_at} must hold registries of {least} to {size - 1} items for {split}; {len(fitting)} do in all"
        )
    # One order for each registry that fits, so that those of a split do not depend on which is asked for.
    orders = np.random.default_rng(random_state).random((len(fitting), size)).argsort(1)
    orders = orders[third * len(fitting) // 3 :][: len(kept)]
    members = np.stack([_ground_set(items, one, size)[order] for one, order in zip(kept, orders, strict=True)])
    chosen = np.stack([order < len(one) for one, order in zip(kept, orders, strict=True)])
    return SubsetData(torch.from_numpy(items[members]), torch.from_numpy(chosen))


def _ground_set(
    items: Float32[np.ndarray, "n features"], registry: Int64[np.ndarray, " k"], size: int
) -> Int64[np.ndarray, " size"]:
    """Return the items of a registry, then those least similar to their mean."""
    similarity = items @ items[registry].mean(0) / np.linalg.norm(items, axis=1).clip(min=1e-12)
    similarity[registry] = np.inf
    return np.concatenate([registry, similarity.argsort(kind="stable")[: size - len(registry)]])


def _read_registries(path: Path, n_items: int) -> list[Int64[np.ndarray, " k"]]:
    found = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        for cells in reader:
            numbers = [_whole(cell) for cell in cells if cell.strip()]
            if not all(1 <= number <= n_items for number in numbers) or len(set(numbers)) < len(numbers):
                raise ValueError(
                    f"{path}, line {reader.line_num} must hold numbers of items from 1 to {n_items}, each once; "
                    f"it holds {','.join(cells)}"
                )
            found.append(np.array(numbers, dtype=np.int64) - 1)
    return found


def _whole(cell: str) -> int:
    """Return a whole number, be it written as 12 or 12.0, and 0, which no item has, for anything else."""
    try:
        number = float(cell)
    except ValueError:
        return 0
    return int(number) if number.is_integer() else 0


def _read_items(folder: Path, category: str) -> Float32[np.ndarray, "n features"]:
    array, pickled = folder / f"{category}.npy", folder / category
    if array.is_file():
        try:
            items = np.load(array, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{array} is not a readable array: {error}") from error
        return _checked(items, array)
    if pickled.is_file():
        return _checked(_stacked(pickled), pickled)
    raise MissingDataError(f"amazon_registry needs {category} or {category}.npy in {folder}")


def _checked(items: Any, path: Path) -> Float32[np.ndarray, "n features"]:
    if items.ndim != 2 or 0 in items.shape or items.dtype.kind not in "fiu" or not np.isfinite(items).all():
        raise ValueError(
            f"{path} must hold finite features of shape (items, features); got {items.dtype} {items.shape}"
        )
    features: Float[np.ndarray, "n features"] = items.astype(np.float32)
    return features


def _stacked(path: Path) -> np.ndarray:
    """Read a pickled dict from 1, 2, ... to features."""
    by_number = read_pickle(path.read_bytes(), f"{path} is not a readable pickle of features")
    if not isinstance(by_number, Mapping) or set(by_number) != set(range(1, len(by_number) + 1)):
        raise ValueError(f"{path} must hold a dict from 1, 2, ... to the features of each item")
    rows = [np.asarray(by_number[number]) for number in range(1, len(by_number) + 1)]
    if len({row.shape for row in rows}) != 1:
        raise ValueError(f"{path} must hold as many features of each item; got {sorted({row.shape for row in rows})}")
    return np.stack(rows)
