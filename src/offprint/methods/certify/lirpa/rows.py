"""Rows of coefficients that are mostly zero, kept small: single elements, and windows of feature maps.

A row that picks one neuron has one coefficient that is not zero; pulled back through convolutions it has coefficients
in the neuron's receptive field only. Both are kept as just that, as long as operators know how to pull them (see
``transpose_sparse`` of `Plane`), and become dense rows ``(sides, rows, *shape)`` when one does not.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class SparseRows(ABC):
    """Coefficients of a node whose samples are on its first axis, alone.

    Parameters
    ----------
    value : Tensor, shape (sides, rows, samples, ...)
        Sides and samples may have length 1 where all are alike.
    shape : torch.Size
        Of the node.
    """

    value: Tensor
    shape: torch.Size

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the same as ``(sides, rows, *shape)``, or with samples of length 1 where all are alike."""

    @abstractmethod
    def pick(self, tensor: Tensor) -> Tensor:
        """Return the elements of a tensor that broadcasts against the node where ``value`` has coefficients.

        They broadcast against ``value``; zero where that is outside of the node.
        """

    def cleaned(self) -> SparseRows:
        """Return rows without coefficients outside of the node."""
        return self

    def scaled(self, factor: float | Tensor) -> SparseRows:
        """Return the rows times numbers that broadcast against the node."""
        if not isinstance(factor, Tensor):
            return replace(self, value=self.value * factor)
        return replace(self, value=self.value * self.pick(factor))

    def inner(self, tensor: Tensor) -> Tensor:
        """Return the products with a tensor that broadcasts against the node, summed: (sides, rows, samples)."""
        product = self.cleaned().value * self.pick(tensor)
        return product.flatten(3).sum(-1) if product.ndim > 3 else product


@dataclass(frozen=True)
class Units(SparseRows):
    """Rows with one coefficient each.

    Parameters
    ----------
    value : Tensor, shape (sides, rows, samples)
    index : Tensor of int, shape (rows, samples)
        Which element of a sample, its axes made one; samples may have length 1.
    """

    index: Tensor

    def dense(self) -> Tensor:
        sides, rows, samples = len(self.value), len(self.index), max(self.value.shape[2], self.index.shape[1])
        n_elements = self.shape[1:].numel()
        empty = self.value.new_zeros(sides, rows, samples, n_elements)
        index = self.index.unsqueeze(-1).expand(sides, rows, samples, 1)
        filled = empty.scatter(3, index, self.value.expand(sides, rows, samples).unsqueeze(-1))
        return filled.reshape(sides, rows, samples, *self.shape[1:])

    def pick(self, tensor: Tensor) -> Tensor:
        tensor = tensor.reshape((1,) * (len(self.shape) - tensor.ndim) + tensor.shape)
        flat = tensor.expand(tensor.shape[0], *self.shape[1:]).reshape(tensor.shape[0], -1)
        if flat.shape[0] == 1:
            return flat[0][self.index].unsqueeze(0)
        index = self.index.expand(-1, flat.shape[0])
        return flat.T.gather(0, index).unsqueeze(0)

    def reshaped(self, shape: torch.Size) -> Units:
        """Return rows of the same elements under another shape."""
        return replace(self, shape=shape)

    def along_last(self, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return dense rows pulled back through ``x @ weight.T``: those of the weight that the units pick."""
        size = self.shape[-1]
        picked = weight[self.index % size] * self.value.unsqueeze(-1)
        if len(shape) == 2:
            return picked
        sides, rows, samples = picked.shape[:3]
        places = shape[1:-1].numel()
        index = (self.index // size)[None, ..., None, None].expand(sides, rows, samples, 1, picked.shape[-1])
        spread = picked.new_zeros(sides, rows, samples, places, picked.shape[-1])
        return spread.scatter(3, index, picked.unsqueeze(3)).reshape(sides, rows, samples, *shape[1:])

    def windows(self) -> Windows:
        """Return windows of length 1 along the axes after the channels."""
        n_channels, *lengths = self.shape[1:]
        places = math.prod(lengths)
        channel = torch.arange(n_channels, device=self.index.device)
        value = self.value.unsqueeze(-1) * (self.index.unsqueeze(-1) // places == channel)
        value = value.reshape(*value.shape, *[1] * len(lengths))
        return Windows(value, self.shape, *self.start())

    def start(self) -> tuple[Tensor, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Return where windows of length 1 are: ``place``, ``grid``, ``stride`` and ``shift`` of `Windows`."""
        lengths = tuple(self.shape[2:])
        return self.index % math.prod(lengths), lengths, (1,) * len(lengths), (0,) * len(lengths)


@dataclass(frozen=True)
class Windows(SparseRows):
    """Rows with coefficients in a window of all channels.

    Parameters
    ----------
    value : Tensor, shape (sides, rows, samples, channels, *window)
    place : Tensor of int, shape (rows, samples)
        Where on a grid each row started, the grid's axes made one.
    grid, stride, shift : tuple of int
        Lengths of the grid; the window of place i along an axis begins at ``i * stride + shift``, which may be outside.
    clean : bool
        Whether all coefficients outside of the node are zero.
    """

    place: Tensor
    grid: tuple[int, ...]
    stride: tuple[int, ...]
    shift: tuple[int, ...]
    clean: bool = True

    @property
    def window(self) -> torch.Size:
        return self.value.shape[4:]

    @property
    def is_wide(self) -> bool:
        """Whether windows are no smaller than the node, so that dense rows are better."""
        return self.window.numel() >= self.shape[2:].numel()

    def dense(self) -> Tensor:
        index = torch.zeros((), dtype=torch.long, device=self.place.device)
        inside = torch.ones((), dtype=torch.bool, device=self.place.device)
        for axis, length in enumerate(self.shape[2:]):
            along = self._positions(axis)
            index = index * length + along.clamp(0, length - 1)
            inside = inside & (along >= 0) & (along < length)
        n_places = self.shape[2:].numel()
        sides, _, samples, channels = self.value.shape[:4]
        rows, places = self.place.shape
        samples = max(samples, places)
        index = torch.where(inside, index, n_places).reshape(1, rows, places, 1, -1)
        value = self.value.flatten(4).expand(sides, rows, samples, channels, -1)
        # What is outside goes to a place of its own, behind the last one.
        full = value.new_zeros(sides, rows, samples, channels, n_places + 1)
        full = full.scatter(4, index.expand(value.shape), value)[..., :-1]
        return full.reshape(sides, rows, samples, channels, *self.shape[2:])

    def _positions(self, axis: int) -> Tensor:
        """Return the positions of windows along an axis, (rows, samples, *1s, length of the window there, *1s)."""
        behind = math.prod(self.grid[axis + 1 :])
        begin = self.place // behind % self.grid[axis] * self.stride[axis] + self.shift[axis]
        ones = [1] * len(self.grid)
        along = torch.arange(self.window[axis], device=self.place.device)
        shape = [*ones[:axis], -1, *ones[axis + 1 :]]
        return begin.reshape(*begin.shape, *ones) + along.reshape(shape)

    def pick(self, tensor: Tensor) -> Tensor:
        n_axes = len(self.grid)
        tensor = tensor.reshape((1,) * (n_axes + 2 - tensor.ndim) + tensor.shape)
        if tensor.shape[2:].numel() == 1:
            return tensor[None, None]
        return self._table(tensor.expand(*tensor.shape[:2], *self.shape[2:]))

    def _table(self, tensor: Tensor) -> Tensor:
        """Cut a tensor (samples, channels, *lengths) into the windows of all places, and return those of the rows."""
        samples, channels = tensor.shape[:2]
        padding: list[int] = []
        for axis, length in reversed(list(enumerate(self.shape[2:]))):
            last = (self.grid[axis] - 1) * self.stride[axis] + self.shift[axis] + self.window[axis]
            padding += [max(0, -self.shift[axis]), max(0, last - length)]
        cut = F.pad(tensor, padding) if any(padding) else tensor
        for axis, (grid, stride, shift, size) in enumerate(
            zip(self.grid, self.stride, self.shift, self.window, strict=True)
        ):
            start = max(0, shift)
            cut = cut.narrow(axis + 2, start, (grid - 1) * stride + size).unfold(axis + 2, size, stride)
        # (samples, channels, *grid, *window) to (samples * places, channels * window)
        n_axes = len(self.grid)
        order = [0, *range(2, 2 + n_axes), 1, *range(2 + n_axes, 2 + 2 * n_axes)]
        places = math.prod(self.grid)
        rows, laid = self.place.shape
        place = self.place.expand(-1, samples) if laid == 1 else self.place
        if samples > 1:
            place = place + places * torch.arange(samples, device=place.device)
        table = cut.permute(order).reshape(samples * places, -1)
        picked = table.index_select(0, place.reshape(-1))
        return picked.reshape(1, rows, place.shape[1], channels, *self.window)

    def cleaned(self) -> Windows:
        if self.clean:
            return self
        inside = self.value.new_ones(1, 1, *self.shape[2:])
        return replace(self, value=self.value * self._table(inside), clean=True)

    def widened(self, shift: Sequence[int], window: Sequence[int]) -> Windows:
        """Return the same with windows that begin earlier and are longer."""
        padding: list[int] = []
        for axis in reversed(range(len(self.grid))):
            before = self.shift[axis] - shift[axis]
            padding += [before, window[axis] - self.window[axis] - before]
        if not any(padding):
            return self
        return replace(self, value=F.pad(self.value, padding), shift=tuple(shift))

    def matches(self, other: Windows) -> bool:
        """Return whether windows of the same row are at the same places, give or take a shift."""
        same = self.place is other.place or torch.equal(self.place, other.place)
        return same and self.grid == other.grid and self.stride == other.stride

    def plus(self, other: Windows) -> Windows:
        """Return the sum with rows that match."""
        axes = range(len(self.grid))
        shift = [min(self.shift[i], other.shift[i]) for i in axes]
        end = [max(one.shift[i] + one.window[i] for one in (self, other)) for i in axes]
        window = [end[i] - shift[i] for i in axes]
        first, second = self.widened(shift, window), other.widened(shift, window)
        return replace(first, value=first.value + second.value, clean=self.clean and other.clean)


Rows = Tensor | SparseRows


def dense(rows: Rows) -> Tensor:
    """Return rows as ``(sides, rows, *shape)``."""
    return rows.dense() if isinstance(rows, SparseRows) else rows


def count(rows: Rows) -> int:
    """Return how many rows there are; dense ones without sides in front."""
    return rows.value.shape[1] if isinstance(rows, SparseRows) else rows.shape[0]


def size(rows: Rows) -> int:
    """Return how many coefficients are held."""
    return rows.value.numel() if isinstance(rows, SparseRows) else rows.numel()


def plus(first: Rows | None, second: Rows) -> Rows:
    """Return the sum of two lots of coefficients of one node."""
    if first is None:
        return second
    if isinstance(first, Units) and isinstance(second, Units) and first.index is second.index:
        return replace(first, value=first.value + second.value)
    if isinstance(first, SparseRows) and isinstance(second, SparseRows):
        ours, theirs = (
            one.windows() if isinstance(one, Units) and len(one.shape) > 2 else one for one in (first, second)
        )
        if isinstance(ours, Windows) and isinstance(theirs, Windows) and ours.matches(theirs):
            return ours.plus(theirs)
    return dense(first) + dense(second)
