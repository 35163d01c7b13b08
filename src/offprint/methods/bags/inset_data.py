"""Sets in the form that networks take, subsets as masks or positions, and how much two subsets overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from offprint.methods.bags.ragged import RaggedBags

Sets = Sequence[Any] | np.ndarray | Tensor
"""Sets of elements, each of shape (size, ...), of any sizes."""
Subsets = Sequence[Any] | np.ndarray | Tensor
"""For each set a boolean mask of shape (size,), or the positions of the chosen elements."""


@dataclass(frozen=True, eq=False)
class PaddedSets:
    """Sets padded to one size, as float32, with the subset of each where one was given.

    Parameters
    ----------
    x : tensor, shape (sets, points, ...)
        Elements, zero where there is none.
    mask : bool tensor, shape (sets, points)
        Where there is an element.
    chosen : bool tensor, shape (sets, points)
        The elements of the subsets; none where no subsets were given.
    """

    x: Float[Tensor, "sets points ..."]
    mask: Bool[Tensor, "sets points"]
    chosen: Bool[Tensor, "sets points"]


def jaccard(
    true: Sequence[Any] | Bool[np.ndarray, "sets size"] | Bool[Tensor, "sets size"],
    predicted: Sequence[Any] | Bool[np.ndarray, "sets size"] | Bool[Tensor, "sets size"],
) -> Float[np.ndarray, " sets"]:
    """Return the Jaccard index |A ∩ B| / |A ∪ B| of each pair of subsets, 1 where both are empty.

    Parameters
    ----------
    true, predicted : sequence, or bool array of shape (sets, size)
        For each set a boolean mask of shape (size,) or the positions of the chosen elements; the two may be mixed.

    Returns
    -------
    float64 array, shape (sets,)
        In [0, 1].

    Raises
    ------
    ValueError
        If there are not as many of the one as of the other, entries are not finite, or a position is negative or there
        twice.
    TypeError
        If an entry is neither a mask nor positions.

    Notes
    -----
    O(chosen elements).

    Examples
    --------
    >>> jaccard([[1, 2, 3], []], [[2, 3, 4], []]).tolist()
    [0.5, 1.0]
    >>> jaccard([np.array([True, True, False])], [[1]]).tolist()
    [0.5]

    References
    ----------
    Jaccard, *The distribution of the flora in the alpine zone* (1912). Xie et al., arXiv:2402.03139, section 5, for its
    mean as the metric.
    """
    if len(true) != len(predicted):
        raise ValueError(f"true and predicted must be of one length; got {len(true)} and {len(predicted)}")
    found = []
    for one, other in zip(true, predicted, strict=True):
        a, b = set(_positions("true", one).tolist()), set(_positions("predicted", other).tolist())
        found.append(len(a & b) / len(a | b) if a | b else 1.0)
    return np.array(found)


def pad_sets(sets: Sets, subsets: Subsets | None = None) -> PaddedSets:
    """Pad sets to one size, once it is known that they and their subsets can be used.

    Raises
    ------
    ValueError
        If there is no set, a set is empty, elements are not finite or differ in shape, or subsets do not fit.
    TypeError
        If sets hold no numbers, or a subset is neither a mask nor positions.

    Examples
    --------
    >>> padded = pad_sets([[[1.0], [2.0]], [[3.0]]], [[1], [0]])
    >>> padded.mask.tolist(), padded.chosen.tolist()
    ([[True, True], [True, False]], [[False, True], [True, False]])
    """
    rows = [_elements(one) for one in sets]
    if not rows:
        raise ValueError("sets must hold at least one set")
    shapes = {tuple(one.shape[1:]) for one in rows}
    if len(shapes) != 1:
        raise ValueError(f"sets must hold elements of one shape; got {sorted(shapes)}")
    bags = RaggedBags.from_list(rows)
    x, mask = bags.padded()
    chosen = torch.zeros_like(mask)
    if subsets is not None:
        if len(subsets) != len(rows):
            raise ValueError(f"subsets must be as many as sets, {len(rows)}; got {len(subsets)}")
        for row, subset, size in zip(chosen, subsets, bags.sizes.tolist(), strict=True):
            row[_positions("subsets", subset, size)] = True
    return PaddedSets(x, mask, chosen)


def top(
    scores: Float[Tensor, "sets points"], sizes: Shaped[Tensor, " sets"], among: Bool[Tensor, "sets points"]
) -> Bool[Tensor, "sets points"]:
    """Return where the largest scores of each set lie, as many as its size, among those allowed.

    Examples
    --------
    >>> top(torch.tensor([[0.3, 0.9, 0.5]]), torch.tensor([1]), torch.tensor([[True, False, True]])).tolist()
    [[False, False, True]]
    """
    rank = scores.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    within: Tensor = rank < sizes[:, None]
    return within & among


def overlap(a: Bool[Tensor, "sets points"], b: Bool[Tensor, "sets points"]) -> Float[Tensor, " sets"]:
    """Return the Jaccard index of each pair of masks, 1 where both are empty.

    Examples
    --------
    >>> overlap(torch.tensor([[True, True, False]]), torch.tensor([[False, True, True]])).item()
    0.3333333432674408
    """
    union = (a | b).sum(1)
    return torch.where(union == 0, 1.0, (a & b).sum(1) / union.clamp(min=1))


def positions_of(chosen: Bool[Tensor, "sets points"]) -> list[Int64[np.ndarray, " chosen"]]:
    """Return where each mask is true, in rising order.

    Examples
    --------
    >>> positions_of(torch.tensor([[True, False, True]]))
    [array([0, 2])]
    """
    return [row.nonzero()[:, 0].numpy() for row in chosen.cpu()]


def unpadded(
    values: Float[Tensor, "sets points"], mask: Bool[Tensor, "sets points"]
) -> list[Float[np.ndarray, " size"]]:
    """Return the values of each set without those of its padding, which lies behind.

    Examples
    --------
    >>> unpadded(torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]]))
    [array([1.], dtype=float32)]
    """
    return [row[: int(size)].numpy() for row, size in zip(values, mask.sum(1), strict=True)]


def _elements(one: Any) -> Tensor:
    try:
        rows = one.detach().cpu().float() if isinstance(one, Tensor) else torch.as_tensor(np.asarray(one, np.float32))
    except (TypeError, ValueError) as error:
        raise TypeError(f"sets must hold arrays of numbers, one for each set; {error}") from error
    if rows.ndim < 2 or 0 in rows.shape:
        raise ValueError(f"sets must hold arrays of shape (size, ...), none of them 0; got {tuple(rows.shape)}")
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("sets must be finite; one holds NaN or infinity")
    return rows


def _positions(name: str, subset: Any, size: int | None = None) -> np.ndarray:
    """Return the positions that a mask or a list of positions names."""
    given = subset.detach().cpu().numpy() if isinstance(subset, Tensor) else np.asarray(subset)
    if given.dtype == bool:
        if given.ndim != 1 or (size is not None and len(given) != size):
            raise ValueError(f"{name} must hold masks of shape ({size},), as the sets have; got {given.shape}")
        return given.nonzero()[0]
    if given.size == 0:
        return np.zeros(0, dtype=np.int64)
    if given.dtype.kind == "f" and not np.isfinite(given).all():
        raise ValueError(f"{name} must be finite; one holds NaN or infinity")
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise TypeError(
            f"{name} must hold boolean masks or integer positions; got {given.dtype} of shape {given.shape}"
        )
    if given.min() < 0 or (size is not None and given.max() >= size):
        most = "" if size is None else f" and below {size}"
        raise ValueError(f"{name} must hold positions of at least 0{most}; got {given.min()} to {given.max()}")
    if len(np.unique(given)) < len(given):
        raise ValueError(f"{name} must hold each position once; a mask of 0 and 1 must be boolean to be taken as one")
    return given
