"""Maxima: over windows (max pooling), over axes, and of two tensors; minima by turning the sign.

References
----------
Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.operators.arithmetic import ProductPlane, WeightedSum
from offprint.methods.certify.lirpa.operators.base import (
    Call,
    Interval,
    Layout,
    MixedSamplesError,
    Operator,
    Plane,
    Relaxation,
)
from offprint.methods.certify.lirpa.operators.rectifiers import ReLU


@dataclass
class Pick(Plane):
    """Each output is one element of the input, times a weight that is not negative, plus ``offset``.

    Parameters
    ----------
    n_axes : int
        How many axes at the end of input and output the elements are picked from, as one.
    index : Tensor
        Of the output's shape with those axes made one: where in the input's, made one, the element is.
    weight : Tensor or None
        Of the output's shape; ``None`` is one.
    """

    call: Call
    n_axes: int
    index: Tensor
    weight: Tensor | None = None
    offset: Tensor | None = None

    def transpose(self, rows: Tensor) -> list[Tensor]:
        shape = self.call.inputs[0].shape
        given = rows if self.weight is None else rows * self.weight
        given = given.expand(rows.shape[0], *self.call.shape).flatten(-self.n_axes)
        target = given.new_zeros(rows.shape[0], *shape).flatten(-self.n_axes)
        return [target.scatter_add(-1, self.index.expand_as(given), given).reshape(-1, *shape)]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        flat = first[0].flatten(-self.n_axes)
        picked = flat.gather(-1, self.index.expand(flat.shape[0], *self.index.shape))
        picked = picked.reshape(flat.shape[0], *self.call.shape)
        return picked if self.weight is None else picked * self.weight


class MaxPool(Operator):
    """The maximum over windows of the last axes, with stride, padding, dilation and ceil mode.

    Below: the element whose lower end is the highest. Above: the same element if that end is above all others' upper
    ends, else the highest upper end, a constant.

    Parameters
    ----------
    n_axes : int
        1, 2 or 3: over how many axes the windows extend.
    """

    def __init__(self, n_axes: int = 2) -> None:
        self.n_axes = n_axes

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        return Interval(call.run([intervals[0].lower]), call.run([intervals[0].upper]))

    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        positions, inside = self._windows(call)

        def windows(end: Tensor) -> Tensor:
            flat = end.flatten(-self.n_axes)
            return torch.where(inside, flat[..., positions], -torch.inf)

        lower, upper = (windows(end) for end in intervals[0])
        best = lower.argmax(-1)
        others = upper.scatter(-1, best.unsqueeze(-1), -torch.inf).amax(-1)
        dominates = (lower.amax(-1) >= others).reshape(call.shape)
        index = positions.expand_as(lower).gather(-1, best.unsqueeze(-1)).squeeze(-1)
        constant = torch.where(dominates, 0.0, upper.amax(-1).reshape(call.shape))
        return Relaxation(
            Pick(call, self.n_axes, index), Pick(call, self.n_axes, index, dominates.to(constant.dtype), constant)
        )

    def layout(self, call: Call) -> Layout | None:
        layout = call.inputs[0].layout
        if layout is not None and layout.axis >= len(call.shape) - self.n_axes:
            raise MixedSamplesError(f"{call.name} mixes the samples of the batch")
        return layout

    def _windows(self, call: Call) -> tuple[Tensor, Tensor]:
        """Return where in the input, its axes made one, the elements of each window are, and which are no padding.

        Both are of shape (windows, elements of a window).
        """
        kernel, stride, padding, dilation = (_each(arg, self.n_axes) for arg in call.args[1:5])
        stride = stride or kernel
        position = torch.zeros((), dtype=torch.long, device=call.device)
        inside = torch.ones((), dtype=torch.bool, device=call.device)
        for axis in range(self.n_axes):
            size, count = call.inputs[0].shape[axis - self.n_axes], call.shape[axis - self.n_axes]
            start = torch.arange(count, device=call.device) * stride[axis] - padding[axis]
            along = start[:, None] + torch.arange(kernel[axis], device=call.device) * dilation[axis]
            shape = [1] * (2 * self.n_axes)
            shape[axis], shape[self.n_axes + axis] = along.shape
            along = along.reshape(shape)
            position = position * size + along.clamp(0, size - 1)
            inside = inside & (along >= 0) & (along < size)
        n_elements = math.prod(kernel)
        return position.reshape(-1, n_elements), inside.reshape(-1, n_elements)


@dataclass
class WeightedReduction(Plane):
    """A weighted sum over axes, plus ``offset``: weights as `split` arranges the input, (*kept axes, elements)."""

    call: Call
    weight: Tensor
    offset: Tensor | None = None

    def transpose(self, rows: Tensor) -> list[Tensor]:
        shape, keep = self.call.inputs[0].shape, kept(self.call)
        summed = [axis for axis in range(len(shape)) if axis not in keep]
        sizes = [shape[axis] for axis in [*keep, *summed]]
        spread = rows.reshape(rows.shape[0], *sizes[: len(keep)], 1) * self.weight
        spread = spread.reshape(spread.shape[0], *sizes)
        return [spread.movedim(tuple(range(1, len(sizes) + 1)), tuple(axis + 1 for axis in [*keep, *summed]))]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        keep = [0, *(axis + 1 for axis in kept(self.call))]
        ours, theirs = split(first[0], keep), split(second[0], keep)
        total = (self.weight.clamp(min=0) * ours + self.weight.clamp(max=0) * theirs).sum(-1)
        return total.reshape(-1, *self.call.shape)


def kept(call: Call) -> list[int]:
    """Return the axes of the input that a reduction keeps; its argument after the input names the others, or none."""
    n_axes = len(call.inputs[0].shape)
    named = call.args[1] if len(call.args) > 1 else None
    named = [named] if isinstance(named, int) else named
    summed = {int(axis) % n_axes for axis in named} if named else set(range(n_axes))
    return [axis for axis in range(n_axes) if axis not in summed]


def split(tensor: Tensor, keep: Sequence[int]) -> Tensor:
    """Move the kept axes to the front and make the others one, at the end."""
    return tensor.movedim(tuple(keep), tuple(range(len(keep)))).flatten(len(keep))


def reduced_layout(call: Call) -> Layout | None:
    """Return where the samples are in the output of a reduction.

    Raises
    ------
    MixedSamplesError
        If it is taken over samples.
    """
    layout = call.inputs[0].layout
    if layout is None:
        return None
    keep = kept(call)
    if layout.axis not in keep:
        raise MixedSamplesError(f"{call.name} mixes the samples of the batch")
    axis = layout.axis if len(call.shape) == len(call.inputs[0].shape) else keep.index(layout.axis)
    return Layout(axis, layout.n_samples, layout.outer, layout.inner)


class AMax(Operator):
    """The maximum over axes, by the rule of `MaxPool`."""

    sign = 1

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        lower, upper = (split(end, kept(call)) for end in intervals[0])
        extreme = torch.amax if self.sign > 0 else torch.amin
        return Interval(extreme(lower, -1).reshape(call.shape), extreme(upper, -1).reshape(call.shape))

    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        lower, upper = (split(end, kept(call)) for end in intervals[0])
        if self.sign < 0:
            lower, upper = -upper, -lower
        best = lower.argmax(-1, keepdim=True)
        dominates = lower.gather(-1, best) >= upper.scatter(-1, best, -torch.inf).amax(-1, keepdim=True)
        picked = torch.zeros_like(lower).scatter(-1, best, 1.0)
        constant = torch.where(dominates.squeeze(-1), 0.0, upper.amax(-1)).reshape(call.shape)
        near = WeightedReduction(call, picked)
        far = WeightedReduction(call, picked * dominates, self.sign * constant)
        return Relaxation(near, far) if self.sign > 0 else Relaxation(far, near)

    def layout(self, call: Call) -> Layout | None:
        return reduced_layout(call)


class AMin(AMax):
    """The minimum over axes: the mirror image of `AMax`."""

    sign = -1


class Maximum(Operator):
    """``max(x, y)`` element by element, as ``y + relu(x - y)``; the choice is that of `ReLU`."""

    sign = 1

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        (x_lower, x_upper), (y_lower, y_upper) = self._operands(call, intervals)
        extreme = torch.maximum if self.sign > 0 else torch.minimum
        return Interval(extreme(x_lower, y_lower).expand(call.shape), extreme(x_upper, y_upper).expand(call.shape))

    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        if self.sign < 0 and choice is not None:
            choice = choice.flip(0)
        lines = ReLU().relax(*self._difference(call, intervals), choice)
        if self.sign > 0:
            return Relaxation(
                self._plane(call, lines.lower_slope, 1 - lines.lower_slope, lines.lower_offset),
                self._plane(call, lines.upper_slope, 1 - lines.upper_slope, lines.upper_offset),
            )
        return Relaxation(
            self._plane(call, 1 - lines.upper_slope, lines.upper_slope, -lines.upper_offset),
            self._plane(call, 1 - lines.lower_slope, lines.lower_slope, -lines.lower_offset),
        )

    def default_choice(self, call: Call, intervals: Sequence[Interval]) -> Tensor | None:
        return ReLU().default_choice(*self._difference(call, intervals))

    def _plane(self, call: Call, of_first: Tensor, of_second: Tensor, offset: Tensor) -> Plane:
        if len(call.inputs) == 2:
            return ProductPlane(call, of_first, of_second, offset)
        weights = (of_first, of_second)
        given = call.inputs[0].position
        constant = torch.as_tensor(call.args[1 - given], dtype=call.dtype, device=call.device)
        return WeightedSum(call, [weights[given]], offset + weights[1 - given] * constant)

    def _operands(self, call: Call, intervals: Sequence[Interval]) -> list[tuple[Tensor, Tensor]]:
        ends = []
        for position in (0, 1):
            place = call.find(position)
            if place is None:
                constant = torch.as_tensor(call.args[position], dtype=call.dtype, device=call.device)
                ends.append((constant, constant))
            else:
                ends.append((intervals[place].lower, intervals[place].upper))
        return ends

    def _difference(self, call: Call, intervals: Sequence[Interval]) -> tuple[Tensor, Tensor]:
        (x_lower, x_upper), (y_lower, y_upper) = self._operands(call, intervals)
        return (x_lower - y_upper).expand(call.shape), (x_upper - y_lower).expand(call.shape)


class Minimum(Maximum):
    """``min(x, y)`` element by element, as ``x - relu(x - y)``."""

    sign = -1


def _each(argument: int | Sequence[int], n_axes: int) -> list[int]:
    """Return an argument of a pooling for each axis; empty where it was not given."""
    values = [argument] if isinstance(argument, int) else list(argument)
    return values * n_axes if len(values) == 1 else values
