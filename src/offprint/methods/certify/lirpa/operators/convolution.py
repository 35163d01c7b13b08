"""Convolutions of one to three axes and their transposes, kept as convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from offprint.methods.certify.lirpa.operators.base import (
    Call,
    Interval,
    Layout,
    MixedSamplesError,
    Operator,
    Plane,
    Relaxation,
)
from offprint.methods.certify.lirpa.operators.call import split_samples, sum_to
from offprint.methods.certify.lirpa.perturbations import LpBall, dual
from offprint.methods.certify.lirpa.rows import Rows, SparseRows, Units, Windows

aten = torch.ops.aten
INPUT, WEIGHT, BIAS = 0, 1, 2


@dataclass(frozen=True)
class Geometry:
    """How a convolution is laid out; ``transposed`` for what ``conv_transpose`` does."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool
    output_padding: tuple[int, ...]

    def run(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """Convolve (n, channels, *spatial)."""
        result = aten.convolution.default(
            inputs,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
        )
        assert isinstance(result, Tensor)
        return result

    def run_transposed(self, rows: Tensor, weight: Tensor, shape: Sequence[int]) -> Tensor:
        """Return for coefficients of outputs (n, channels, *spatial) those of inputs with these spatial lengths."""
        extra: tuple[int, ...] = (0,) * len(self.stride)
        if not self.transposed:
            extra = tuple(
                n - ((o - 1) * s - 2 * p + d * (k - 1) + 1)
                for n, o, s, p, d, k in zip(
                    shape, rows.shape[2:], self.stride, self.padding, self.dilation, weight.shape[2:], strict=True
                )
            )
        if self._few_channels(weight):
            whole = _by_shuffling(rows, weight, self.stride[0])
            ends = [p + n for p, n in zip(self.padding, shape, strict=True)]
            missing = [max(0, end - have) for end, have in zip(ends, whole.shape[2:], strict=True)]
            whole = F.pad(whole, [0, missing[1], 0, missing[0]]) if any(missing) else whole
            return whole[:, :, self.padding[0] : ends[0], self.padding[1] : ends[1]]
        result = aten.convolution.default(
            rows, weight, None, self.stride, self.padding, self.dilation, not self.transposed, extra, self.groups
        )
        assert isinstance(result, Tensor)
        # A transposed convolution with much output padding has outputs that no input reaches.
        for axis, length in enumerate(shape):
            result = result if result.shape[axis + 2] == length else result.narrow(axis + 2, 0, length)
        return result

    def widen(self, windows: Tensor, weight: Tensor) -> Tensor:
        """Return the coefficients of all that windows (n, channels, *window) of the output are computed from."""
        if self._few_channels(weight):
            return _by_shuffling(windows, weight, self.stride[0])
        none = (0,) * len(self.stride)
        result = aten.convolution.default(
            windows, weight, None, self.stride, none, self.dilation, True, none, self.groups
        )
        assert isinstance(result, Tensor)
        return result

    def _few_channels(self, weight: Tensor) -> bool:
        """Return whether coefficients go back to an image, say: a case in which transposed convolutions are slow."""
        plain = not self.transposed and self.groups == 1 and max(self.dilation) == 1 and len(self.stride) == 2
        return plain and weight.shape[1] <= 4 and self.stride[0] == self.stride[1] > 1 and weight.device.type == "cpu"


def _by_shuffling(rows: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Transpose a convolution by an ordinary one with ``stride ** 2`` times the channels, which are then shuffled."""
    n_out, n_in, *kernel = weight.shape
    steps = [-(-length // stride) for length in kernel]
    extra = [step * stride - length for step, length in zip(steps, kernel, strict=True)]
    blocks = F.pad(weight, [0, extra[1], 0, extra[0]]).reshape(n_out, n_in, steps[0], stride, steps[1], stride)
    blocks = blocks.flip(2, 4).permute(1, 3, 5, 0, 2, 4).reshape(n_in * stride**2, n_out, *steps)
    shuffled = F.pixel_shuffle(F.conv2d(rows, blocks, padding=[step - 1 for step in steps]), stride)
    lengths = [(n - 1) * stride + length for n, length in zip(rows.shape[2:], kernel, strict=True)]
    return shuffled[:, :, : lengths[0], : lengths[1]]


@dataclass
class ConvolutionPlane(Plane):
    """``conv(x, w) + conv(z, W) + bias + offset`` for a perturbed input x, a perturbed weight W, or both.

    Parameters
    ----------
    call : Call
    geometry : Geometry
    of_input : Tensor or None
        w; ``None`` where the input is constant.
    of_weight : Tensor or None
        z; ``None`` where the weight is constant.
    offset : Tensor or None
    """

    call: Call
    geometry: Geometry
    of_input: Tensor | None
    of_weight: Tensor | None
    offset: Tensor | None

    @property
    def alike(self) -> bool:
        """Whether coefficients that are the same for all samples stay so."""
        return len(self.call.inputs) == 1 and self.of_weight is None and self.call.layout is not None

    @property
    def _ndim(self) -> int:
        return len(self.geometry.stride) + 2

    def transpose(self, rows: Tensor) -> list[Tensor]:
        to = {INPUT: self._to_input, WEIGHT: self._to_weight, BIAS: self._to_bias}
        return [to[one.position](index, rows) for index, one in enumerate(self.call.inputs)]

    def _to_input(self, index: int, rows: Tensor) -> Tensor:
        assert self.of_input is not None
        one = self.call.inputs[index]
        flat = rows.flatten(0, 1) if rows.ndim > self._ndim else rows
        pulled = self.geometry.run_transposed(flat, self.of_input, one.shape[-len(self.geometry.stride) :])
        return torch.unflatten(pulled, 0, rows.shape[:2]) if rows.ndim > self._ndim else pulled

    def transpose_sparse(self, rows: SparseRows) -> Sequence[Rows] | None:
        one = self.call.inputs[0]
        if self.of_input is None or self.of_weight is not None or len(self.call.inputs) > 1:
            return None
        if self.geometry.transposed or len(self.call.shape) != self._ndim:
            return None
        if isinstance(rows, Units):
            if max(self.geometry.dilation) == 1:
                return [self._start(rows, one.shape)]
            rows = rows.windows()
        if not isinstance(rows, Windows):
            return None
        rows = rows.cleaned()
        pulled = self.geometry.widen(rows.value.flatten(0, 2), self.of_input)
        pulled = torch.unflatten(pulled, 0, rows.value.shape[:3])
        return [self._moved(pulled, one.shape, rows.place, rows.grid, rows.stride, rows.shift)]

    def _start(self, rows: Units, shape: torch.Size) -> Rows:
        """Return the part of the kernel that each unit was made with, as a window."""
        assert self.of_input is not None
        place, grid, stride, shift = rows.start()
        channel = rows.index // math.prod(grid)
        kernels = self.of_input
        groups = self.geometry.groups
        if groups > 1:
            spread = kernels.new_zeros(len(kernels), groups, *kernels.shape[1:])
            each = torch.arange(len(kernels), device=kernels.device)
            spread[each, each // (len(kernels) // groups)] = kernels
            kernels = spread.flatten(1, 2)
        value = rows.value.reshape(*rows.value.shape, *[1] * (self._ndim - 1))
        return self._moved(value * kernels[channel], shape, place, grid, stride, shift)

    def _moved(
        self,
        value: Tensor,
        shape: torch.Size,
        place: Tensor,
        grid: tuple[int, ...],
        stride: tuple[int, ...],
        shift: tuple[int, ...],
    ) -> Rows:
        """Return windows of the input; dense rows where they have become as large as it is."""
        g = self.geometry
        inner_shift = tuple(a * s - p for a, s, p in zip(shift, g.stride, g.padding, strict=True))
        inner_stride = tuple(a * s for a, s in zip(stride, g.stride, strict=True))
        windows = Windows(value, shape, place, grid, inner_stride, inner_shift, clean=not any(g.padding))
        return windows.dense() if windows.is_wide else windows

    def _to_weight(self, index: int, rows: Tensor) -> Tensor:
        """Coefficients of the weight, for each sample and row: the gradient of a convolution of a single input."""
        assert self.of_weight is not None
        one, layout = self.call.inputs[index], self.call.layout
        inputs = self.of_weight
        batched = inputs.ndim == self._ndim
        if not batched:
            inputs, rows = inputs.unsqueeze(0), rows.unsqueeze(1)
        zero = torch.zeros(one.shape, dtype=rows.dtype, device=rows.device)

        def gradient(single: Tensor, row: Tensor) -> Tensor:
            pull = torch.func.vjp(lambda w: self.geometry.run(single.unsqueeze(0), w), zero)[1]
            result = pull(row.unsqueeze(0))[0]
            assert isinstance(result, Tensor)
            return result

        inputs = inputs.expand(rows.shape[1], *inputs.shape[1:])
        per_sample: Callable[..., Tensor] = torch.func.vmap(torch.func.vmap(gradient), in_dims=(None, 0))
        pulled = per_sample(inputs, rows)
        if layout is not None:
            return pulled.flatten(0, 1)
        return pulled.sum(1)

    def _to_bias(self, index: int, rows: Tensor) -> Tensor:
        layout = self.call.layout
        if layout is not None:
            rows = split_samples(rows, layout).flatten(0, 1)
        rows = rows.flatten(-len(self.geometry.stride)).sum(-1)
        return sum_to(rows, self.call.inputs[index].shape)

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        total: Tensor | None = None
        for one, ours, theirs in zip(self.call.inputs, first, second, strict=True):
            if one.position == INPUT:
                assert self.of_input is not None
                middle, radius = (ours + theirs) / 2, (ours - theirs) / 2
                part = self._run(middle, self.of_input) + self._run(radius, self.of_input.abs())
            elif one.position == WEIGHT:
                assert self.of_weight is not None
                part = torch.func.vmap(self._of_weight)(ours, theirs)
            else:
                part = ours.reshape(*ours.shape, *[1] * len(self.geometry.stride))
                part = part.unsqueeze(1) if len(self.call.shape) == self._ndim else part
            total = part if total is None else total + part
        assert total is not None
        return total.expand(total.shape[0], *self.call.shape)

    def range(self, lower: Sequence[Tensor], upper: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        if not (len(lower) == 1 and self.of_weight is None and self.of_input is not None):
            return super().range(lower, upper)
        middle = self._run((lower[0] + upper[0]) / 2, self.of_input)
        radius = self._run((upper[0] - lower[0]) / 2, self.of_input.abs())
        return middle - radius, middle + radius

    def _run(self, rows: Tensor, weight: Tensor) -> Tensor:
        flat = rows.flatten(0, 1) if rows.ndim > self._ndim else rows
        result = self.geometry.run(flat, weight)
        return torch.unflatten(result, 0, rows.shape[:2]) if rows.ndim > self._ndim else result

    def _of_weight(self, first: Tensor, second: Tensor) -> Tensor:
        assert self.of_weight is not None
        z = self.of_weight if self.of_weight.ndim == self._ndim else self.of_weight.unsqueeze(0)
        result = self.geometry.run(z.clamp(min=0), first) + self.geometry.run(z.clamp(max=0), second)
        return result if self.of_weight.ndim == self._ndim else result.squeeze(0)


class Convolution(Operator):
    """A convolution whose input, weight or bias is perturbed; with both input and weight the planes are McCormick's."""

    def __init__(self, ndim: int, transposed: bool = False) -> None:
        self.ndim = ndim
        self.transposed = transposed

    def needs_intervals(self, call: Call) -> bool:
        return call.find(INPUT) is not None and call.find(WEIGHT) is not None

    def geometry(self, call: Call) -> Geometry:
        """Return the layout that the arguments say."""

        def each(value: Any) -> tuple[int, ...]:
            values = (value,) if isinstance(value, int) else tuple(value)
            return values * self.ndim if len(values) == 1 else values

        if self.transposed:
            _, _, _, stride, padding, output_padding, groups, dilation = call.args
        else:
            _, _, _, stride, padding, dilation, groups = call.args
            output_padding = 0
            if isinstance(padding, str):
                padding = self._named_padding(call, padding, each(dilation))
        return Geometry(each(stride), each(padding), each(dilation), groups, self.transposed, each(output_padding))

    def _named_padding(self, call: Call, padding: str, dilation: tuple[int, ...]) -> tuple[int, ...]:
        total = [
            d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, call.args[WEIGHT].shape[2:], strict=True)
        ]
        if any(one % 2 for one in total):
            raise ValueError(f"node {call.name}: padding='same' with a kernel of even length is not supported")
        return tuple(one // 2 for one in total)

    def _channels(self, bias: Tensor) -> Tensor:
        return bias.reshape(-1, *[1] * self.ndim)

    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        geometry = self.geometry(call)
        bias = self._channels(call.args[BIAS]) if call.args[BIAS] is not None and call.find(BIAS) is None else None
        x, w = call.find(INPUT), call.find(WEIGHT)
        if x is not None and w is not None:
            return self._relax_product(call, geometry, intervals[x], intervals[w], bias)
        if x is None and w is None:
            product = _run(geometry, call.args[INPUT], call.args[WEIGHT])
            return Relaxation.exact(ConvolutionPlane(call, geometry, None, None, product))
        of_input = call.args[WEIGHT] if x is not None else None
        of_weight = call.args[INPUT] if w is not None else None
        return Relaxation.exact(ConvolutionPlane(call, geometry, of_input, of_weight, bias))

    def _relax_product(
        self, call: Call, geometry: Geometry, x: Interval, w: Interval, bias: Tensor | None
    ) -> Relaxation:
        planes = []
        for weight in (w.lower, w.upper):
            offset = -_run(geometry, x.lower, weight)
            offset = offset if bias is None else offset + bias
            planes.append(ConvolutionPlane(call, geometry, weight, x.lower, offset))
        return Relaxation(*planes)

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        geometry = self.geometry(call)
        x, w, b = call.find(INPUT), call.find(WEIGHT), call.find(BIAS)
        inputs = intervals[x] if x is not None else None
        weights = intervals[w] if w is not None else None
        middle_x = call.args[INPUT] if inputs is None else (inputs.lower + inputs.upper) / 2
        middle_w = call.args[WEIGHT] if weights is None else (weights.lower + weights.upper) / 2
        middle = _run(geometry, middle_x, middle_w)
        radius = torch.zeros_like(middle)
        if inputs is not None:
            radius = _run(geometry, (inputs.upper - inputs.lower) / 2, middle_w.abs())
        if weights is not None:
            largest = (
                call.args[INPUT].abs() if inputs is None else torch.maximum(inputs.lower.abs(), inputs.upper.abs())
            )
            radius = radius + _run(geometry, largest, (weights.upper - weights.lower) / 2)
        elif x is not None and inputs is not None and isinstance(inputs.region, LpBall) and not inputs.region.is_box:
            change = self._reach(inputs.region, call.value(x), call.args[WEIGHT], geometry, middle)
            if change is not None:
                radius = torch.minimum(radius, change)
        bias = call.args[BIAS]
        if b is None and bias is not None:
            middle = middle + self._channels(bias)
        lower, upper = middle - radius, middle + radius
        if b is not None:
            lower, upper = lower + self._channels(intervals[b].lower), upper + self._channels(intervals[b].upper)
        return Interval(lower, upper)

    def _reach(self, region: LpBall, x: Tensor, weight: Tensor, geometry: Geometry, like: Tensor) -> Tensor | None:
        """How far outputs move in an lp ball: the dual norm of the coefficients that are not in the padding."""
        order = dual(region.norm)
        if geometry.transposed or x.ndim != self.ndim + 2:
            return None
        powers = weight.abs() if order == float("inf") else weight.abs() ** order
        ones = torch.ones_like(x[:1])
        if order == float("inf"):
            norms = powers.flatten(1).amax(1).reshape(1, -1, *[1] * self.ndim).expand(1, *like.shape[1:])
        else:
            norms = geometry.run(ones, powers) ** (1 / order)
        return region.reach(x, norms, like)

    def layout(self, call: Call) -> Layout | None:
        for one in call.inputs:
            if one.layout is not None:
                if one.position != INPUT or one.layout.axis != 0 or len(call.shape) != self.ndim + 2:
                    raise MixedSamplesError(f"{call.name} mixes the samples of the batch")
                return one.layout
        return None


def _run(geometry: Geometry, inputs: Tensor, weight: Tensor) -> Tensor:
    if inputs.ndim == len(geometry.stride) + 1:
        return geometry.run(inputs.unsqueeze(0), weight).squeeze(0)
    return geometry.run(inputs, weight)
