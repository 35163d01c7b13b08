"""Bags of rows whose labels are known as counts or proportions: making them, and reading what users give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from offprint.methods.bags.aggregate_privacy import assign_bags
from offprint.methods.bags.ragged import BagIndex

WHOLE = 1e-3
"""How far a proportion times its bag's size may be from a whole number: proportions are often printed rounded."""


def make_bags(
    y: ArrayLike,
    size: int,
    seed: int | np.random.Generator = 0,
    how: Literal["random", "feature"] = "random",
    feature: ArrayLike | None = None,
) -> Int[np.ndarray, " n"]:
    """Put labelled rows into bags, to try out learning from proportions where labels are known.

    Parameters
    ----------
    y : array, shape (n,)
        One label per row; only their number is used.
    size : int
        Rows per bag, from 1 to n. Where it does not divide n, the rows left over make some bags larger, none smaller.
    seed : int or numpy.random.Generator
        Source of randomness.
    how : {"random", "feature"}
        ``"random"`` ignores the data. ``"feature"`` puts rows of similar ``feature`` together (ties in random order),
        as regions and time slots do: bags then differ more in their proportions.
    feature : array of float, shape (n,), optional
        What ``"feature"`` sorts by, finite.

    Returns
    -------
    int64 array, shape (n,)
        The bag of each row, from 0.

    Raises
    ------
    ValueError
        If size is outside 1 to n, ``how`` is unknown, or ``feature`` is missing, of another length or not finite.

    Notes
    -----
    O(n) at random, O(n log n) by feature.

    Examples
    --------
    >>> make_bags([0, 1, 1, 0], 2, seed=0).tolist()
    [0, 0, 1, 1]
    >>> make_bags([0, 1, 1, 0], 2, how="feature", feature=[3.0, 1.0, 2.0, 4.0]).tolist()
    [1, 0, 0, 1]

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, arXiv:2310.08056, the experiments: disjoint random bags.
    """
    n = len(_vector("y", y))
    if not 1 <= size <= n:
        raise ValueError(f"size must be from 1 to the number of rows, {n}; got {size}")
    if how not in ("random", "feature"):
        raise ValueError(f"how must be 'random' or 'feature'; got {how!r}")
    if how == "random":
        return assign_bags(n, size, np.random.default_rng(seed))
    if feature is None:
        raise ValueError("feature must be given where how='feature'")
    values = _vector("feature", feature).astype(np.float64)
    if len(values) != n or not np.isfinite(values).all():
        raise ValueError(f"feature must be {n} finite numbers, one per row; got shape {values.shape}")
    order = np.lexsort((np.random.default_rng(seed).random(n), values))
    bag_ids = np.empty(n, dtype=np.int64)
    bag_ids[order] = np.sort(np.arange(n) % (n // size))
    return bag_ids


def proportions_from(y: ArrayLike, bag_ids: ArrayLike) -> Float[np.ndarray, " bags"]:
    """Return the share of positive labels in each bag.

    Parameters
    ----------
    y : array of int or bool, shape (n,)
        Labels, 0 or 1.
    bag_ids : array of int or str, shape (n,)
        The bag of each row.

    Returns
    -------
    float64 array, shape (bags,)
        In the sorted order of the distinct ids, as every method here takes them.

    Raises
    ------
    ValueError
        If lengths differ or a label is neither 0 nor 1.
    TypeError
        If ids are neither integers nor strings.

    Notes
    -----
    O(n log n).

    Examples
    --------
    >>> proportions_from([0, 1, 1, 1], ["b", "a", "b", "a"]).tolist()
    [1.0, 0.5]

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, arXiv:2310.08056, the set-up.
    """
    labels = _vector("y", y)
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("y must hold labels 0 and 1 only")
    index = BagIndex.of(bag_ids)
    if len(index.ids) != len(labels):
        raise ValueError(f"bag_ids must hold one id per label in y, {len(labels)}; got {len(index.ids)}")
    shares: Float[np.ndarray, " bags"] = np.bincount(index.ids, weights=labels) / index.sizes
    return shares


def align_counts(
    bag_ids: Any, values: Any, n_rows: int | None, name: str
) -> tuple[BagIndex, Float[np.ndarray, " bags"]]:
    """Number the bags of rows from 0 and put one number per bag in that order.

    Parameters
    ----------
    bag_ids : array of int or str, shape (n_rows,)
        The bag of each row.
    values : array of float, shape (bags,), or mapping or pandas Series from id to number
        An array is in the sorted order of the distinct ids.
    n_rows : int, optional
        Rows that the ids must match.
    name : str
        What ``values`` are called in errors.

    Returns
    -------
    index : BagIndex
    values : float64 array, shape (bags,)

    Raises
    ------
    ValueError
        If a bag has no number, a number has no rows, lengths do not match, or a number is not finite.

    Examples
    --------
    >>> index, counts = align_counts(["b", "a", "b"], {"a": 1, "b": 0}, 3, "counts")
    >>> index.sizes.tolist(), counts.tolist()
    ([1, 2], [1.0, 0.0])
    """
    index = BagIndex.of(bag_ids)
    if n_rows is not None and len(index.ids) != n_rows:
        raise ValueError(f"bag_ids must hold one id per row, {n_rows}; got {len(index.ids)}")
    values = by_index(values, name)
    if isinstance(values, Mapping):
        values = index.in_order(values, name, "number")
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != index.sizes.shape:
        raise ValueError(
            f"{name} must hold one number for each of the {len(index.sizes)} bags in bag_ids; got shape {numbers.shape}"
        )
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite; that of bag {_label(index, ~np.isfinite(numbers))} is not")
    return index, numbers


def by_index(values: Any, name: str) -> Any:
    """Return a pandas Series or DataFrame as a mapping from its index, which says whose each entry is; all else as is.

    A ``groupby`` may give its groups in any order, so their places say nothing.

    Raises
    ------
    ValueError
        If the index holds a label twice; ``name`` is what the values are called.

    Examples
    --------
    >>> by_index([1, 2], "counts")
    [1, 2]
    """
    if not (hasattr(values, "to_numpy") and hasattr(values, "index")):
        return values
    labels = values.index.tolist()
    if len(set(labels)) < len(labels):
        raise ValueError(f"{name} must have an index that holds each bag once; it holds one of them twice")
    return dict(zip(labels, values.to_numpy(), strict=True))


def check_counts(counts: Float[np.ndarray, " bags"], index: BagIndex) -> None:
    """Refuse counts that are no whole numbers from 0 to the size of their bag.

    Parameters
    ----------
    counts : float64 array, shape (bags,)
        Positives in each bag.
    index : BagIndex
        Of the rows.

    Returns
    -------
    None

    Raises
    ------
    ValueError
        Naming the first bag at fault.

    Examples
    --------
    >>> check_counts(np.array([2.0]), BagIndex.of([7, 7]))
    """
    if (fault := counts != np.round(counts)).any():
        raise ValueError(
            f"counts must be whole numbers; that of bag {_label(index, fault)} is {counts[fault.argmax()]:g}"
        )
    if (fault := (counts < 0) | (counts > index.sizes)).any():
        raise ValueError(
            f"counts must be from 0 to the size of the bag; that of bag {_label(index, fault)} is "
            f"{counts[fault.argmax()]:g} of {index.sizes[fault.argmax()]}"
        )


def counts_from(proportions: Float[np.ndarray, " bags"], index: BagIndex) -> Float[np.ndarray, " bags"]:
    """Turn proportions into counts.

    Parameters
    ----------
    proportions : float64 array, shape (bags,)
        Shares of positives, in [0, 1].
    index : BagIndex
        Of the rows.

    Returns
    -------
    float64 array, shape (bags,)
        Whole numbers.

    Raises
    ------
    ValueError
        If a proportion is outside [0, 1], or times its bag's size further than 0.001 from a whole number: the bag is
        named.

    Examples
    --------
    >>> counts_from(np.array([0.333333]), BagIndex.of([1, 1, 1])).tolist()
    [1.0]
    """
    if (fault := ~((proportions >= 0) & (proportions <= 1))).any():
        raise ValueError(
            f"proportions must be in [0, 1]; that of bag {_label(index, fault)} is {proportions[fault.argmax()]:g}"
        )
    counts = proportions * index.sizes
    if (fault := np.abs(counts - np.round(counts)) > WHOLE).any():
        at = int(fault.argmax())
        raise ValueError(
            f"proportions times the size of the bag must be whole; that of bag {_label(index, fault)} is "
            f"{proportions[at]:g} of {index.sizes[at]} rows, {counts[at]:g}"
        )
    whole: Float[np.ndarray, " bags"] = np.round(counts)
    return whole


def _label(index: BagIndex, fault: Any) -> str:
    return repr(index.labels[int(np.argmax(fault))].item())


def _vector(name: str, values: ArrayLike) -> Any:
    vector = np.asarray(values)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"{name} must be a vector of at least one entry; got shape {vector.shape}")
    if vector.dtype.kind == "f" and not np.isfinite(vector).all():
        raise ValueError(f"{name} must be finite; it holds NaN or infinity")
    return vector
