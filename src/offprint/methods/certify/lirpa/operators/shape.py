"""Operators that move elements or sum them with weights that are not negative: views, slices, padding, means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from offprint.methods.certify.lirpa.operators.base import (
    AffineOperator,
    Call,
    Interval,
    Layout,
    MixedSamplesError,
    Plane,
)
from offprint.methods.certify.lirpa.operators.call import finite
from offprint.methods.certify.lirpa.rows import Rows, SparseRows, Units, Windows


class MonotonePlane(Plane):
    """Any linear function without negative coefficients; its transpose is torch's vector-Jacobian product.

    Parameters
    ----------
    call : Call
    constant_part : bool
        Whether the output may hold something else than the inputs: the constant tensors of a concatenation, say.
    """

    def __init__(self, call: Call, constant_part: bool) -> None:
        self.call = call
        self.offset = None
        self.blank: Tensor | None = None
        if constant_part:
            zeros = [self._zeros(i) for i in range(len(call.inputs))]
            offset = call.run(zeros)
            self.blank = call.run(zeros, _zero_floats)
            self.offset = finite(offset)

    def _zeros(self, index: int) -> Tensor:
        return torch.zeros(self.call.inputs[index].shape, dtype=self.call.dtype, device=self.call.device)

    def _linear(self, *inputs: Tensor) -> Tensor:
        result = self.call.run(inputs, _zero_floats)
        # What a scalar argument puts in (the value of a padding) is no part of the linear function.
        return result if self.blank is None else torch.where(torch.isfinite(self.blank), result - self.blank, 0.0)

    def transpose(self, rows: Tensor) -> list[Tensor]:
        pull = torch.func.vjp(self._linear, *(self._zeros(i) for i in range(len(self.call.inputs))))[1]
        layout = self.call.layout
        mixed = [layout is not None and one.layout is None for one in self.call.inputs]
        pulled = list(torch.func.vmap(pull)(rows)) if not all(mixed) else [rows] * len(mixed)
        if any(mixed):
            # An input without samples gets rows for each sample: those of the sample alone, the others being zero.
            assert layout is not None
            alone = _alone(rows, layout)
            separate = torch.func.vmap(pull)(alone.flatten(0, 1))
            pulled = [separate[i] if mixed[i] else pulled[i] for i in range(len(mixed))]
        return pulled

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        result = torch.func.vmap(self._linear)(*first)
        assert isinstance(result, Tensor)
        return result


def _zero_floats(constant: Tensor) -> Tensor:
    return torch.zeros_like(constant) if constant.is_floating_point() else constant


def _alone(rows: Tensor, layout: Layout) -> Tensor:
    """Return (rows, n_samples, *shape): the coefficients of one sample at a time."""
    axis = layout.axis + 1
    parts = torch.unflatten(rows, axis, (layout.outer, layout.n_samples, layout.inner))
    one_hot = torch.eye(layout.n_samples, dtype=rows.dtype, device=rows.device)
    mask = one_hot.reshape(1, layout.n_samples, *[1] * axis, layout.n_samples, *[1] * (parts.ndim - axis - 2))
    return (parts.unsqueeze(1) * mask).flatten(axis + 1, axis + 3)


class Monotone(AffineOperator):
    """An operator that is linear without negative coefficients, its other arguments constant.

    The samples stay on their axis.

    Parameters
    ----------
    constant_part : bool
        Whether the output may hold something else than the perturbed inputs.
    """

    def __init__(self, constant_part: bool = False) -> None:
        self.constant_part = constant_part

    def plane(self, call: Call) -> Plane:
        return MonotonePlane(call, self.constant_part)

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        ends = [call.run([one.lower for one in intervals]), call.run([one.upper for one in intervals])]
        if self.constant_part:
            ends = [finite(end) for end in ends]
        return Interval(ends[0], ends[1])


class Movement(Monotone):
    """An operator that copies elements elsewhere; where the samples go is found by moving their numbers."""

    def layout(self, call: Call) -> Layout | None:
        laid = [one for one in call.inputs if one.layout is not None]
        if not laid:
            return None
        numbers = [_numbers(one.shape, one.layout) for one in call.inputs]
        moved = call.run(numbers, _unlabelled)
        # Numbers that a scalar argument puts in are no sample's: they do not change with the inputs.
        blank = call.run([torch.zeros_like(one) for one in numbers], _unlabelled)
        moved = torch.where(moved == blank, 0.0, moved)
        first = laid[0]
        assert first.layout is not None
        # What stays where it is needs no search, in which a sample that is masked out as a whole could not be found.
        if moved.shape == first.shape and bool(((moved == 0) | (moved == _numbers(first.shape, first.layout))).all()):
            return first.layout
        found = _find_layout(moved.expand(call.shape), first.layout.n_samples)
        if found is None:
            raise MixedSamplesError(f"{call.name} mixes the samples of the batch")
        return found


def _numbers(shape: torch.Size, layout: Layout | None) -> Tensor:
    """Number every element by its sample, from 1; 0 where there is none."""
    if layout is None:
        return torch.zeros(shape)
    numbers = torch.arange(1.0, layout.n_samples + 1).repeat_interleave(layout.inner).repeat(layout.outer)
    return numbers.reshape(-1, *[1] * (len(shape) - layout.axis - 1)).expand(shape)


def _unlabelled(constant: Tensor) -> Tensor:
    return torch.zeros_like(constant, device="cpu") if constant.is_floating_point() else constant.cpu()


def _find_layout(numbers: Tensor, n_samples: int) -> Layout | None:
    """Return the layout of elements numbered from 1 to n_samples, 0 being anyone's."""
    for axis, length in enumerate(numbers.shape):
        if length % n_samples:
            continue
        lines = numbers.movedim(axis, 0).reshape(length, -1)
        largest = lines.amax(1)
        if not bool(((lines == largest[:, None]) | (lines == 0)).all()) or not bool((largest > 0).all()):
            continue
        inner = int((largest == largest[0]).int().cumprod(0).sum())
        if length % (inner * n_samples):
            continue
        layout = Layout(axis, n_samples, length // (inner * n_samples), inner)
        if torch.equal(largest, _numbers(torch.Size([length]), Layout(0, n_samples, layout.outer, inner))):
            return layout
    return None


class ReshapePlane(Plane):
    """The same elements in the same order under another shape."""

    def __init__(self, call: Call) -> None:
        self.call = call

    @property
    def alike(self) -> bool:
        ours, theirs = self.call.layout, self.call.inputs[0].layout
        return ours is not None and theirs is not None and ours == theirs and ours.plain and ours.axis == 0

    def transpose(self, rows: Tensor) -> list[Tensor]:
        shape = self.call.inputs[0].shape
        if rows.shape[1:] != self.call.shape:
            return [rows.reshape(rows.shape[0], 1, *shape[1:])]
        return [rows.reshape(rows.shape[0], *shape)]

    def transpose_sparse(self, rows: SparseRows) -> Sequence[Rows] | None:
        one = self.call.inputs[0]
        same = one.layout == self.call.layout and one.shape[:1] == self.call.shape[:1]
        return [rows.reshaped(one.shape)] if same and isinstance(rows, Units) else None

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        return first[0].reshape(first[0].shape[0], *self.call.shape)


class Reshape(Movement):
    """Views of another shape: reshape, flatten, unflatten, squeeze, unsqueeze."""

    def plane(self, call: Call) -> Plane:
        return ReshapePlane(call)


class PermutePlane(Plane):
    """Axes in another order: axis ``order[i]`` of the input is axis i of the output."""

    def __init__(self, order: Sequence[int]) -> None:
        self.order = [0] + [one + 1 for one in order]
        self.inverse = sorted(range(len(self.order)), key=self.order.__getitem__)

    def transpose(self, rows: Tensor) -> list[Tensor]:
        return [rows.permute(self.inverse)]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        return first[0].permute(self.order)


class Permute(Movement):
    """permute, transpose and their relatives."""

    def plane(self, call: Call) -> Plane:
        ndim = len(call.inputs[0].shape)
        # Which axis went where shows on a tensor whose axes have different lengths.
        shown = call.run([torch.empty(tuple(range(1, ndim + 1)), device="meta")])
        return PermutePlane([length - 1 for length in shown.shape])


class SlicePlane(Plane):
    """A stretch of one axis, ``start`` to ``start + length``, by its place; ``drop`` takes the axis away (select)."""

    def __init__(self, call: Call, axis: int, start: int, length: int, drop: bool) -> None:
        self.axis, self.start, self.length, self.drop = axis + 1, start, length, drop
        self.after = call.inputs[0].shape[axis] - start - length

    def transpose(self, rows: Tensor) -> list[Tensor]:
        if self.drop:
            rows = rows.unsqueeze(self.axis)
        return [F.pad(rows, [0, 0] * (rows.ndim - self.axis - 1) + [self.start, self.after])]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        part = first[0].narrow(self.axis, self.start, self.length)
        return part.squeeze(self.axis) if self.drop else part


class Slice(Movement):
    """``x[start:stop]`` and ``x[i]`` along one axis."""

    def __init__(self, select: bool = False) -> None:
        super().__init__()
        self.select = select

    def plane(self, call: Call) -> Plane:
        axis = call.args[1] % len(call.inputs[0].shape)
        length = call.inputs[0].shape[axis]
        if self.select:
            return SlicePlane(call, axis, call.args[2] % length, 1, True)
        start, stop, step = slice(*call.args[2:5]).indices(length)
        if step != 1:
            return MonotonePlane(call, False)
        return SlicePlane(call, axis, start, max(0, stop - start), False)


class ExpandPlane(Plane):
    """Broadcasting."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def transpose(self, rows: Tensor) -> list[Tensor]:
        return [self.call.reduce(0, rows)]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        ndim = len(self.call.shape)
        part = first[0]
        part = part.reshape(part.shape[0], *[1] * (ndim + 1 - part.ndim), *part.shape[1:])
        return part.expand(part.shape[0], *self.call.shape)


class Expand(Movement):
    """expand."""

    def plane(self, call: Call) -> Plane:
        return ExpandPlane(call)


class ConcatenatePlane(Plane):
    """Tensors behind one another along an axis, the constant ones in ``offset``."""

    def __init__(self, call: Call, axis: int) -> None:
        self.axis = axis + 1
        self.lengths = [one.shape[axis] for one in call.args[0]]
        self.places = [one.place for one in call.inputs]
        self.shapes = [one.shape for one in call.args[0]]
        if len(self.places) < len(self.lengths):
            self.offset = call.run([torch.zeros(i.shape, dtype=call.dtype, device=call.device) for i in call.inputs])

    def transpose(self, rows: Tensor) -> list[Tensor]:
        parts = torch.split(rows, self.lengths, self.axis)
        return [parts[place] for place in self.places]

    def transpose_sparse(self, rows: SparseRows) -> Sequence[Rows] | None:
        if isinstance(rows, Units) and len(rows.shape) > 2:
            rows = rows.windows()
        if self.axis != 2 or not isinstance(rows, Windows):
            return None
        parts = torch.split(rows.value, self.lengths, 3)
        return [replace(rows, value=parts[place], shape=self.shapes[place]) for place in self.places]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        given = dict(zip(self.places, first, strict=True))
        rows = first[0].shape[0]
        parts = [given[i] if i in given else first[0].new_zeros(rows, *shape) for i, shape in enumerate(self.shapes)]
        return torch.cat(parts, self.axis)


class Concatenate(Movement):
    """cat along an axis."""

    def plane(self, call: Call) -> Plane:
        if any((call.layout is None) != (one.layout is None) for one in call.inputs):
            return MonotonePlane(call, True)
        return ConcatenatePlane(call, call.args[1] % len(call.shape))


class ReducePlane(Plane):
    """Sums over axes, times a scale."""

    def __init__(self, call: Call, axes: Sequence[int], keep: bool, scale: float) -> None:
        self.call, self.keep, self.scale = call, keep, scale
        self.axes = sorted(axis + 1 for axis in axes)

    def transpose(self, rows: Tensor) -> list[Tensor]:
        if not self.keep:
            for axis in self.axes:
                rows = rows.unsqueeze(axis)
        return [(rows * self.scale).expand(rows.shape[0], *self.call.inputs[0].shape)]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        return first[0].sum(self.axes, keepdim=self.keep) * self.scale


class Reduce(AffineOperator):
    """sum and mean over some axes or all."""

    def __init__(self, mean: bool) -> None:
        self.mean = mean

    def _axes(self, call: Call) -> list[int]:
        ndim = len(call.inputs[0].shape)
        # The overload without axes has the dtype in their place.
        given: Any = call.args[1] if len(call.args) > 2 else None
        if given is None or given == []:
            return list(range(ndim))
        return [axis % ndim for axis in ([given] if isinstance(given, int) else given)]

    def plane(self, call: Call) -> Plane:
        axes = self._axes(call)
        keep = len(call.shape) == len(call.inputs[0].shape)
        count = 1
        for axis in axes:
            count *= call.inputs[0].shape[axis]
        return ReducePlane(call, axes, keep, 1 / count if self.mean else 1.0)

    def layout(self, call: Call) -> Layout | None:
        one = call.inputs[0]
        if one.layout is None:
            return None
        axes = self._axes(call)
        if one.layout.axis in axes:
            raise MixedSamplesError(f"{call.name} mixes the samples of the batch")
        keep = len(call.shape) == len(one.shape)
        axis = one.layout.axis - (0 if keep else sum(a < one.layout.axis for a in axes))
        return Layout(axis, one.layout.n_samples, one.layout.outer, one.layout.inner)
