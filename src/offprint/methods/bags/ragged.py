"""Ragged bags, rows grouped into bags of any sizes without padding, and reductions over their segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.model_selection import check_cv
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RaggedBags:
    """Rows of many bags in one tensor, bag after bag, with the offsets at which each bag begins.

    Use it to move bags of different sizes through a network at once: apply the network to ``values``, then reduce over
    ``ids`` with :func:`segment_mean` and its siblings. Nothing is padded, and a bag is a view, not a copy.

    Parameters
    ----------
    values : tensor, shape (n, ...)
        Rows, those of one bag side by side. Any dtype and device.
    offsets : int64 tensor, shape (bags + 1,)
        Bag ``a`` holds the rows from ``offsets[a]`` up to ``offsets[a + 1]``: from 0 to n, never decreasing.
        Equal neighbours make an empty bag.

    Raises
    ------
    TypeError
        If values or offsets are no tensors, or offsets are no integers.
    ValueError
        If the offsets do not run from 0 to n without decreasing.

    Notes
    -----
    Making one costs O(bags); reductions over ``ids`` cost O(n) whatever the sizes of the bags.

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.tensor([1.0, 3.0]), torch.tensor([5.0])])
    >>> bags.n_bags, bags.sizes.tolist(), bags.ids.tolist()
    (2, [2, 1], [0, 0, 1])
    >>> segment_mean(bags.values, bags.ids, bags.n_bags)
    tensor([2., 5.])
    >>> bags.take([1, 0]).values
    tensor([5., 1., 3.])
    """

    values: Shaped[Tensor, "n ..."]
    offsets: Int[Tensor, " bounds"]

    def __post_init__(self) -> None:
        _check_tensor("values", self.values)
        _check_tensor("offsets", self.offsets)
        if self.offsets.dtype != torch.int64 or self.offsets.ndim != 1 or len(self.offsets) == 0:
            raise TypeError(
                f"offsets must be an int64 vector of at least one entry; got {self.offsets.dtype} of shape "
                f"{tuple(self.offsets.shape)}"
            )
        ends = (int(self.offsets[0]), int(self.offsets[-1]))
        if ends != (0, len(self.values)) or bool((self.offsets.diff() < 0).any()):
            raise ValueError(f"offsets must rise from 0 to {len(self.values)}, the number of rows; got {self.offsets}")

    @classmethod
    def from_list(cls, bags: Sequence[Shaped[Tensor, "_ ..."]]) -> RaggedBags:
        """Put a list of bags, each a tensor of shape (size, ...), one after the other.

        Raises
        ------
        TypeError
            If a bag is no tensor.
        ValueError
            If there is no bag, or their trailing shapes differ.
        """
        if len(bags) == 0:
            raise ValueError("bags must hold at least one bag; got an empty list")
        for bag in bags:
            _check_tensor("bags", bag)
        if any(bag.ndim == 0 or bag.shape[1:] != bags[0].shape[1:] for bag in bags):
            raise ValueError(f"bags must share their trailing shape; got {sorted({tuple(bag.shape) for bag in bags})}")
        sizes = torch.tensor([len(bag) for bag in bags], device=bags[0].device)
        return cls(torch.cat(list(bags)), _offsets(sizes))

    @classmethod
    def from_ids(cls, values: Shaped[Tensor, "n ..."], bag_ids: Any) -> RaggedBags:
        """Group rows by the bag that each belongs to, as a data frame's ``groupby`` does.

        Parameters
        ----------
        values : tensor, shape (n, ...)
            Rows in any order.
        bag_ids : sequence, array or tensor, shape (n,)
            The bag of each row: integers or strings. Bags come in the order of :attr:`BagIndex.labels`, rows of a bag
            in the order given.

        Raises
        ------
        ValueError
            If there is not one id per row.
        """
        index = BagIndex.of(bag_ids)
        if len(index.ids) != len(values):
            raise ValueError(f"bag_ids must hold one id per row, {len(values)}; got {len(index.ids)}")
        order = torch.as_tensor(np.argsort(index.ids, kind="stable"), device=values.device)
        return cls(values[order], _offsets(torch.as_tensor(index.sizes, device=values.device)))

    @classmethod
    def from_padded(
        cls, rows: Shaped[Tensor, "bags most ..."], mask: Bool[Tensor, "bags most"] | None = None
    ) -> RaggedBags:
        """Keep the rows of padded bags at which a mask, bool of shape (bags, most), is True; by default all.

        Raises
        ------
        ValueError
            If rows have fewer than two dimensions, or the mask is not bool of their first two.

        Examples
        --------
        >>> bags = RaggedBags.from_padded(torch.tensor([[1, 2], [3, 0]]), torch.tensor([[True, True], [True, False]]))
        >>> bags.values.tolist(), bags.sizes.tolist()
        ([1, 2, 3], [2, 1])
        """
        _check_tensor("rows", rows)
        if rows.ndim < 2:
            raise ValueError(f"rows must have the shape (bags, most, ...); got {tuple(rows.shape)}")
        if mask is None:
            sizes = torch.full(rows.shape[:1], rows.shape[1], device=rows.device)
            return cls(rows.flatten(0, 1), _offsets(sizes))
        _check_tensor("mask", mask)
        if mask.dtype != torch.bool or mask.shape != rows.shape[:2]:
            given = f"{mask.dtype} of shape {tuple(mask.shape)}"
            raise ValueError(f"mask must be bool of shape {tuple(rows.shape[:2])}; got {given}")
        return cls(rows[mask], _offsets(mask.sum(1)))

    @property
    def mask(self) -> Bool[Tensor, "bags most"]:
        """True where a bag has a row when bags are put side by side: ``padded[bags.mask] = bags.values``."""
        sizes = self.sizes
        most = int(sizes.max()) if self.n_bags else 0
        return torch.arange(most, device=sizes.device) < sizes[:, None]

    def padded(self) -> tuple[Shaped[Tensor, "bags most ..."], Bool[Tensor, "bags most"]]:
        """Put bags side by side, filled up with zeros to the length of the largest, and return where rows are.

        Examples
        --------
        >>> rows, mask = RaggedBags.from_list([torch.tensor([1.0, 2.0]), torch.tensor([3.0])]).padded()
        >>> rows.tolist(), mask.tolist()
        ([[1.0, 2.0], [3.0, 0.0]], [[True, True], [True, False]])
        """
        mask = self.mask
        rows = self.values.new_zeros((*mask.shape, *self.values.shape[1:]))
        rows[mask] = self.values
        return rows, mask

    @property
    def n_bags(self) -> int:
        """How many bags there are, empty ones included."""
        return len(self.offsets) - 1

    @cached_property
    def sizes(self) -> Int[Tensor, " bags"]:
        """The number of rows of each bag."""
        return self.offsets.diff()

    @cached_property
    def ids(self) -> Int[Tensor, " n"]:
        """The bag of each row, from 0: what the segment reductions ask for."""
        bags = torch.arange(self.n_bags, device=self.offsets.device)
        return bags.repeat_interleave(self.sizes, output_size=len(self.values))

    def __len__(self) -> int:
        return self.n_bags

    def __getitem__(self, bag: int) -> Shaped[Tensor, "_ ..."]:
        if not -self.n_bags <= bag < self.n_bags:
            raise IndexError(f"bag must be in [0, {self.n_bags}); got {bag}")
        bag %= self.n_bags
        return self.values[int(self.offsets[bag]) : int(self.offsets[bag + 1])]

    def __iter__(self) -> Iterator[Shaped[Tensor, "_ ..."]]:
        return iter(torch.split(self.values, self.sizes.tolist()))

    def take(self, bags: Int[Tensor, " chosen"] | Sequence[int]) -> RaggedBags:
        """Return the chosen bags in the order asked for, for example those of a batch; -1 is the last one.

        Raises
        ------
        TypeError
            If bags are no integers: a mask is to be given as ``mask.nonzero()[:, 0]``.
        IndexError
            If there is no such bag.
        """
        chosen = torch.as_tensor(bags, device=self.offsets.device)
        if chosen.ndim != 1 or (len(chosen) and (chosen.is_floating_point() or chosen.dtype == torch.bool)):
            raise TypeError(f"bags must be a vector of integers; got {chosen.dtype} of shape {tuple(chosen.shape)}")
        chosen = chosen.long()
        if bool(((chosen < -self.n_bags) | (chosen >= self.n_bags)).any()):
            given = f"numbers from {int(chosen.min())} to {int(chosen.max())}"
            raise IndexError(f"bags must be in [0, {self.n_bags}); got {given}")
        chosen = torch.where(chosen < 0, chosen + self.n_bags, chosen)
        sizes = self.sizes[chosen]
        offsets = _offsets(sizes)
        # Row i of the answer lies as far behind its bag's start here as it does there.
        shift = (self.offsets[chosen] - offsets[:-1]).repeat_interleave(sizes)
        return RaggedBags(self.values[torch.arange(len(shift), device=shift.device) + shift], offsets)

    def with_values(self, values: Shaped[Tensor, "n ..."]) -> RaggedBags:
        """Return bags of the same sizes that hold other rows, for example what a layer made of these.

        Raises
        ------
        ValueError
            If there are not as many rows.
        """
        made = RaggedBags(values, self.offsets)
        made.__dict__.update(ids=self.ids, sizes=self.sizes)  # so that they are not worked out again
        return made

    def to(self, device: torch.device | str) -> RaggedBags:
        """Return the same bags on another device."""
        return RaggedBags(self.values.to(device), self.offsets.to(device))


@dataclass(frozen=True, eq=False)
class BagIndex:
    """Bags numbered from 0 in the sorted order of their ids.

    Parameters
    ----------
    ids : int64 array, shape (n,)
        The number of each row's bag.
    labels : array, shape (bags,)
        The distinct ids, sorted: ``labels[ids]`` gives back what was passed.
    sizes : int64 array, shape (bags,)
        Rows of each bag, at least 1.
    """

    ids: Int[np.ndarray, " n"]
    labels: Shaped[np.ndarray, " bags"]
    sizes: Int[np.ndarray, " bags"]

    @classmethod
    def of(cls, bag_ids: Any) -> BagIndex:
        """Number the bags of ``bag_ids``, one integer or string per row.

        Raises
        ------
        TypeError
            If ids are neither integers nor strings: equality of floats is no way to say who belongs together.
        ValueError
            If ids are no vector, or empty.

        Examples
        --------
        >>> index = BagIndex.of(["north", "south", "north"])
        >>> index.ids.tolist(), index.labels.tolist(), index.sizes.tolist()
        ([0, 1, 0], ['north', 'south'], [2, 1])
        """
        given = bag_ids.detach().cpu().numpy() if isinstance(bag_ids, Tensor) else np.asarray(bag_ids)
        if given.ndim != 1 or given.size == 0:
            raise ValueError(f"bag_ids must be a vector with one id per row; got shape {given.shape}")
        if given.dtype.kind == "O" and all(isinstance(item, str) for item in given):
            given = given.astype(str)
        if given.dtype.kind not in "iuUS":
            raise TypeError(f"bag_ids must be integers or strings; got dtype {given.dtype}")
        labels, ids, sizes = np.unique(given, return_inverse=True, return_counts=True)
        return cls(ids, labels, sizes)

    def in_order(self, given: Mapping[Any, Any], name: str, what: str) -> list[Any]:
        """Return what a mapping from id holds in the order of :attr:`labels`: one ``what`` for each bag and no other.

        Raises
        ------
        ValueError
            If a bag has none, or one has no rows; ``name`` is what the mapping is called.
        """
        labels = self.labels.tolist()
        if missing := [label for label in labels if label not in given]:
            raise ValueError(f"{name} has no {what} for {len(missing)} of {len(labels)} bags, such as {missing[0]!r}")
        if len(given) > len(labels):
            extra = next(label for label in given if label not in set(labels))
            raise ValueError(f"{name} has a {what} for bag {extra!r}, which has no rows in bag_ids")
        return [given[label] for label in labels]

    def means(self, rows: Any) -> Any:
        """Return the mean row of each bag, for an array or sparse matrix of one row per id; O(size of ``rows``)."""
        weights = (1 / self.sizes[self.ids], (self.ids, np.arange(len(self.ids))))
        return scipy.sparse.csr_array(weights, shape=(len(self.sizes), len(self.ids))) @ rows

    def folds(self, cv: Any) -> Iterator[tuple[BagFold, BagFold]]:
        """Yield (kept, held out) whole bags for each split of an int or scikit-learn splitter over bags."""
        for split in check_cv(cv).split(self.sizes):
            kept, held_out = (np.sort(bags) for bags in split)  # some splitters shuffle; rows come in order of bags
            yield BagFold.of(self, kept), BagFold.of(self, held_out)


@dataclass(frozen=True, eq=False)
class BagFold:
    """Some of the bags: their numbers, in order; which rows are theirs; and the index of those rows.

    Parameters
    ----------
    bags : int64 array, shape (chosen,)
        Rising numbers of bags.
    rows : bool array, shape (n,)
        Which rows belong to them.
    index : BagIndex
        Of those rows; its bag ``a`` is ``bags[a]``.
    """

    bags: Int[np.ndarray, " chosen"]
    rows: Bool[np.ndarray, " n"]
    index: BagIndex

    @classmethod
    def of(cls, index: BagIndex, bags: Int[np.ndarray, " chosen"]) -> BagFold:
        """Pick the rows of these bags."""
        rows = np.isin(index.ids, bags)
        return cls(bags, rows, BagIndex.of(index.ids[rows]))


def shuffled_ranks(bags: RaggedBags, generator: torch.Generator | None = None) -> Int[Tensor, " n"]:
    """Return the place of each row in a random order of its bag, from 0.

    Rows with a place below k are a random k of their bag; places modulo k deal a bag into k parts of like size.

    Parameters
    ----------
    bags : RaggedBags
        Only its offsets matter.
    generator : torch.Generator, optional
        Source of randomness; by default torch's global state.

    Returns
    -------
    int64 tensor, shape (n,)

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.zeros(3), torch.zeros(2)])
    >>> ranks = shuffled_ranks(bags, torch.Generator().manual_seed(0))
    >>> sorted(ranks[:3].tolist()), sorted(ranks[3:].tolist())
    ([0, 1, 2], [0, 1])
    """
    place = bags.offsets.device
    draws = torch.rand(
        len(bags.values),
        generator=generator,
        dtype=torch.float64,
        device=place if generator is None else generator.device,
    )
    order = (bags.ids + draws.to(place)).argsort()  # bag after bag, and at random within each
    counted = torch.arange(len(order), device=place) - bags.offsets[:-1].repeat_interleave(bags.sizes)
    return torch.empty_like(order).index_copy_(0, order, counted)


def all_finite(values: Float[Tensor, "..."]) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity.

    Parameters
    ----------
    values : float tensor
        Any shape.

    Returns
    -------
    bool

    Examples
    --------
    >>> all_finite(torch.ones(3)), all_finite(torch.tensor([1.0, torch.nan])), all_finite(torch.full((9,), 3e38))
    (True, False, True)
    """
    values = values.detach()
    # A sum is finite only if every term is, and costs a fraction; only where it is not, look closer.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def segment_sum(
    values: Shaped[Tensor, "n ..."], segment_ids: Int[Tensor, " n"], n_segments: int
) -> Shaped[Tensor, "segments ..."]:
    """Return the sum of the rows of each segment; an empty segment sums to zero.

    Parameters
    ----------
    values : tensor, shape (n, ...)
        Rows in any order.
    segment_ids : int64 tensor, shape (n,)
        The segment of each row, in [0, n_segments).
    n_segments : int
        Number of segments, at least 1.

    Returns
    -------
    tensor, shape (n_segments, ...)
        Differentiable, of the dtype and on the device of ``values``.

    Raises
    ------
    TypeError
        If ``values`` is no tensor or ``segment_ids`` no int64 tensor.
    ValueError
        If there is not one id per row, or an id is outside [0, n_segments).

    Examples
    --------
    >>> segment_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 0]), 3)
    tensor([5., 0., 2.])
    """
    _check_segments(values, segment_ids, n_segments)
    return _sum(values, segment_ids, n_segments)


def segment_mean(
    values: Float[Tensor, "n ..."], segment_ids: Int[Tensor, " n"], n_segments: int
) -> Float[Tensor, "segments ..."]:
    """Return the mean of the rows of each segment.

    Parameters
    ----------
    values : float tensor, shape (n, ...)
        Rows in any order.
    segment_ids : int64 tensor, shape (n,)
        The segment of each row, in [0, n_segments).
    n_segments : int
        Number of segments, at least 1.

    Returns
    -------
    tensor, shape (n_segments, ...)

    Raises
    ------
    TypeError
        If ``values`` is no float tensor or ``segment_ids`` no int64 tensor.
    ValueError
        If there is not one id per row, an id is outside [0, n_segments), or a segment is empty.

    Examples
    --------
    >>> segment_mean(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 0]), 2)
    tensor([2.5000, 2.0000])
    """
    _check_segments(values, segment_ids, n_segments)
    sizes = _sizes(segment_ids, n_segments)
    return _sum(values, segment_ids, n_segments) / _over_rows(sizes, values)


def segment_max(
    values: Float[Tensor, "n ..."], segment_ids: Int[Tensor, " n"], n_segments: int
) -> Float[Tensor, "segments ..."]:
    """Return the largest row of each segment, entry by entry; its gradient is shared among ties.

    Parameters
    ----------
    values : float tensor, shape (n, ...)
        Rows in any order.
    segment_ids : int64 tensor, shape (n,)
        The segment of each row, in [0, n_segments).
    n_segments : int
        Number of segments, at least 1.

    Returns
    -------
    tensor, shape (n_segments, ...)

    Raises
    ------
    TypeError
        If ``values`` is no float tensor or ``segment_ids`` no int64 tensor.
    ValueError
        If there is not one id per row, an id is outside [0, n_segments), or a segment is empty.

    Examples
    --------
    >>> segment_max(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 0]), 2)
    tensor([4., 2.])
    """
    _check_segments(values, segment_ids, n_segments)
    _sizes(segment_ids, n_segments)
    return _max(values, segment_ids, n_segments)


def segment_softmax(
    values: Float[Tensor, "n ..."], segment_ids: Int[Tensor, " n"], n_segments: int
) -> Float[Tensor, "n ..."]:
    """Return weights over rows that are positive and add up to one within each segment.

    Parameters
    ----------
    values : float tensor, shape (n, ...)
        Scores, for example one per row and attention head.
    segment_ids : int64 tensor, shape (n,)
        The segment of each row, in [0, n_segments).
    n_segments : int
        Number of segments, at least 1; empty ones have no rows to weigh and do no harm.

    Returns
    -------
    tensor, shape (n, ...)
        One weight per row, in the rows' own order. Large scores do not overflow.

    Raises
    ------
    TypeError
        If ``values`` is no float tensor or ``segment_ids`` no int64 tensor.
    ValueError
        If there is not one id per row, or an id is outside [0, n_segments).

    Examples
    --------
    >>> segment_softmax(torch.tensor([1000.0, 0.0, 1000.0]), torch.tensor([0, 1, 0]), 2)
    tensor([0.5000, 1.0000, 0.5000])
    """
    _check_segments(values, segment_ids, n_segments)
    # Weights do not depend on what is subtracted, so the largest score needs no gradient.
    largest = _max(values.detach(), segment_ids, n_segments)
    weights = (values - largest[segment_ids]).exp()
    return weights / _sum(weights, segment_ids, n_segments)[segment_ids]


def segment_entropy(
    logits: Float[Tensor, "n ..."], segment_ids: Int[Tensor, " n"], n_segments: int
) -> Float[Tensor, "segments ..."]:
    """Return the entropy, in nats, of the softmax of each segment's logits.

    From the logits, so that weights which underflow do no harm: of scores that are far apart it is 0 with a gradient
    of 0, never NaN.

    Parameters
    ----------
    logits : float tensor, shape (n, ...)
        Scores before the softmax; -inf leaves a row out.
    segment_ids : int64 tensor, shape (n,)
        The segment of each row, in [0, n_segments).
    n_segments : int
        Number of segments, at least 1.

    Returns
    -------
    tensor, shape (n_segments, ...)
        Between 0 and the logarithm of the segment's size; 0 for an empty segment.

    Raises
    ------
    TypeError
        If ``logits`` is no float tensor or ``segment_ids`` no int64 tensor.
    ValueError
        If there is not one id per row, or an id is outside [0, n_segments).

    Examples
    --------
    >>> segment_entropy(torch.tensor([0.0, 3.0, 0.0]), torch.tensor([0, 1, 0]), 2)
    tensor([0.6931, 0.0000])
    """
    _check_segments(logits, segment_ids, n_segments)
    left_out = logits == -torch.inf
    shifted = (logits - _max(logits.detach(), segment_ids, n_segments)[segment_ids]).masked_fill(left_out, 0.0)
    weights = shifted.exp().masked_fill(left_out, 0.0)
    totals = _sum(weights, segment_ids, n_segments)
    mean = _sum(weights * shifted, segment_ids, n_segments) / totals.clamp(min=1.0)
    # The largest logit weighs 1, so that only an empty segment, or one left out whole, has less.
    return (totals.clamp(min=1.0).log() - mean).clamp(min=0.0)


def segment_center(
    values: Float[Tensor, "n ..."], segment_ids: Int[Tensor, " n"], n_segments: int
) -> Float[Tensor, "n ..."]:
    """Return each row less the mean of its segment.

    Parameters
    ----------
    values : float tensor, shape (n, ...)
        Rows in any order.
    segment_ids : int64 tensor, shape (n,)
        The segment of each row, in [0, n_segments).
    n_segments : int
        Number of segments, at least 1.

    Returns
    -------
    tensor, shape (n, ...)

    Raises
    ------
    TypeError
        If ``values`` is no float tensor or ``segment_ids`` no int64 tensor.
    ValueError
        If there is not one id per row, an id is outside [0, n_segments), or a segment is empty.

    Examples
    --------
    >>> segment_center(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 1, 0]), 2)
    tensor([-1.5000,  0.0000,  1.5000])
    """
    return values - segment_mean(values, segment_ids, n_segments)[segment_ids]


def _sum(values: Tensor, segment_ids: Tensor, n_segments: int) -> Tensor:
    return values.new_zeros((n_segments, *values.shape[1:])).index_add(0, segment_ids, values)


def _max(values: Tensor, segment_ids: Tensor, n_segments: int) -> Tensor:
    lowest = values.new_full((n_segments, *values.shape[1:]), -torch.inf)
    places = _over_rows(segment_ids, values).expand_as(values)
    return lowest.scatter_reduce(0, places, values, "amax", include_self=False)


def _sizes(segment_ids: Tensor, n_segments: int) -> Tensor:
    sizes = torch.bincount(segment_ids, minlength=n_segments)
    if bool((sizes == 0).any()):
        raise ValueError(f"segment_ids leaves segment {int((sizes == 0).int().argmax())} of {n_segments} empty")
    return sizes


def _over_rows(numbers: Tensor, values: Tensor) -> Tensor:
    """Give a vector of one number per row the trailing dimensions of ``values``, so that it broadcasts."""
    return numbers.reshape(-1, *[1] * (values.ndim - 1))


def _offsets(sizes: Tensor) -> Tensor:
    return torch.nn.functional.pad(sizes.cumsum(0), (1, 0))


def _check_segments(values: Tensor, segment_ids: Tensor, n_segments: int) -> None:
    _check_tensor("values", values)
    _check_tensor("segment_ids", segment_ids)
    if segment_ids.dtype != torch.int64:
        raise TypeError(f"segment_ids must be int64; got {segment_ids.dtype}")
    if values.ndim == 0 or segment_ids.shape != values.shape[:1]:
        raise ValueError(
            f"segment_ids must hold one id per row; got shapes {tuple(segment_ids.shape)} and {tuple(values.shape)}"
        )
    if n_segments < 1:
        raise ValueError(f"n_segments must be at least 1; got {n_segments}")
    if len(segment_ids) and not (int(segment_ids.min()) >= 0 and int(segment_ids.max()) < n_segments):
        raise ValueError(
            f"segment_ids must be in [0, {n_segments}); got ids from {int(segment_ids.min())} "
            f"to {int(segment_ids.max())}"
        )


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor; got {type(value).__name__}")
