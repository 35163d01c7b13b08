"""Convolutions of one to three axes and their transposes, kept as convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.operators.base import (
    Call,
    Interval,
    Layout,
    MixedSamplesError,
    Operator,
    Plane,
    Relaxation,
    split_samples,
    sum_to,
)
from offprint.methods.certify.lirpa.perturbations import LpBall, dual

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
        if self.transposed:
            extra = (0,) * len(self.stride)
        else:
            extra = tuple(
                n - ((o - 1) * s - 2 * p + d * (k - 1) + 1)
                for n, o, s, p, d, k in zip(
                    shape, rows.shape[2:], self.stride, self.padding, self.dilation, weight.shape[2:], strict=True
                )
            )
        result = aten.convolution.default(
            rows, weight, None, self.stride, self.padding, self.dilation, not self.transposed, extra, self.groups
        )
        assert isinstance(result, Tensor)
        return result


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
        inputs = intervals[x] if x is not None else Interval(call.args[INPUT], call.args[INPUT])
        weights = intervals[w] if w is not None else Interval(call.args[WEIGHT], call.args[WEIGHT])
        middle_x, middle_w = (inputs.lower + inputs.upper) / 2, (weights.lower + weights.upper) / 2
        middle = _run(geometry, middle_x, middle_w)
        radius = torch.zeros_like(middle)
        if x is not None:
            radius = _run(geometry, (inputs.upper - inputs.lower) / 2, middle_w.abs())
        if w is not None:
            largest = torch.maximum(inputs.lower.abs(), inputs.upper.abs())
            radius = radius + _run(geometry, largest, (weights.upper - weights.lower) / 2)
        region = inputs.region
        if w is None and isinstance(region, LpBall) and not region.is_box and x is not None:
            change = self._reach(region, call.value(x), call.args[WEIGHT], geometry, middle)
            if change is not None:
                radius = torch.minimum(radius, change)
        bias = call.args[BIAS]
        lower, upper = middle - radius, middle + radius
        if b is not None:
            lower, upper = lower + self._channels(intervals[b].lower), upper + self._channels(intervals[b].upper)
        elif bias is not None:
            lower, upper = lower + self._channels(bias), upper + self._channels(bias)
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
