"""Operators that slide a window: convolutions, pooling, resizing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from offprint.methods.certify.onnx_import.call import Call, Step, operator
from offprint.methods.certify.onnx_import.operators.shape import look_up_along, lookup

_CONVOLUTIONS = {1: "conv1d", 2: "conv2d", 3: "conv3d"}
_TRANSPOSED = {1: "conv_transpose1d", 2: "conv_transpose2d", 3: "conv_transpose3d"}
_MAXIMA = {1: "max_pool1d", 2: "max_pool2d", 3: "max_pool3d"}
_AVERAGES = {1: "avg_pool1d", 2: "avg_pool2d", 3: "avg_pool3d"}


def _functional(name: str) -> Callable[..., Any]:
    """Return a function of torch by name: graphs of torch.fx hold names, but no functions, as arguments."""
    return getattr(F, name)  # type: ignore[no-any-return]


class _Window:
    """Kernel, strides, dilations and padding of a node, for each spatial axis."""

    def __init__(self, call: Call, kernel: Sequence[int]) -> None:
        self.kernel = list(kernel)
        n = len(self.kernel)
        if call.example().ndim != n + 2 or n not in _CONVOLUTIONS:
            raise call.refuse(f"a window of shape {tuple(kernel)} over an input of shape {call.shape()}")
        self.strides = list(call.attribute("strides", [1] * n))
        self.dilations = list(call.attribute("dilations", [1] * n))
        self.sizes = call.shape()[2:]
        self.extents = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        pads = list(call.attribute("pads", [0] * 2 * n))
        self.before, self.after = pads[:n], pads[n:]
        self.auto = call.attribute("auto_pad", "NOTSET")
        if self.auto == "VALID":
            self.before, self.after = [0] * n, [0] * n

    def pad_same(self) -> None:
        """Resolve ``auto_pad = SAME_*``: as many outputs as strides fit into the input."""
        if not self.auto.startswith("SAME"):
            return
        for i, (size, stride, extent) in enumerate(zip(self.sizes, self.strides, self.extents, strict=True)):
            self.share(i, max((-(-size // stride) - 1) * stride + extent - size, 0))

    def share(self, axis: int, total: int) -> None:
        """Split padding between both ends; an odd rest goes to the end that ``auto_pad`` names."""
        small, large = total // 2, total - total // 2
        self.before[axis], self.after[axis] = (large, small) if self.auto == "SAME_LOWER" else (small, large)

    @property
    def symmetric(self) -> bool:
        return self.before == self.after

    def padding(self) -> list[int]:
        """Return the padding as ``torch.nn.functional.pad`` takes it: the last axis first."""
        return [n for pair in zip(reversed(self.before), reversed(self.after), strict=True) for n in pair]


@operator("Conv")
def convolution(call: Call) -> Step:
    """Translate Conv over one, two or three axes."""
    window = _Window(call, call.shape(1)[2:])
    window.pad_same()
    keywords: dict[str, Any] = {
        "stride": window.strides,
        "dilation": window.dilations,
        "groups": call.attribute("group", 1),
    }
    inputs = (0, 1, 2) if call.has(2) else (0, 1)
    function = _CONVOLUTIONS[len(window.kernel)]
    if window.symmetric:
        return Step(_functional(function), inputs, {**keywords, "padding": window.before})
    return Step(_padded, inputs, {**keywords, "function": function, "pad": window.padding()})


def _padded(x: Tensor, *others: Tensor, function: str, pad: list[int], **keywords: Any) -> Tensor:
    result: Tensor = _functional(function)(F.pad(x, pad), *others, **keywords)
    return result


@operator("ConvTranspose")
def transposed_convolution(call: Call) -> Step:
    """Translate ConvTranspose: the full result, and then what its pads cut off."""
    window = _Window(call, call.shape(1)[2:])
    n = len(window.kernel)
    extra = list(call.attribute("output_padding", [0] * n))
    full = [
        (size - 1) * stride + extent + more
        for size, stride, extent, more in zip(window.sizes, window.strides, window.extents, extra, strict=True)
    ]
    asked = call.attribute("output_shape")
    if asked is None and window.auto.startswith("SAME"):
        asked = [size * stride for size, stride in zip(window.sizes, window.strides, strict=True)]
    for i in range(n) if asked else ():
        total = full[i] - list(asked)[-n:][i]
        if total < 0:
            extra[i], full[i], total = extra[i] - total, full[i] - total, 0
        # Here the standard puts the odd rest in front but for SAME_UPPER: the other way round than for Conv.
        small, large = total // 2, total - total // 2
        window.before[i], window.after[i] = (small, large) if window.auto == "SAME_UPPER" else (large, small)
    keywords = {"stride": window.strides, "dilation": window.dilations, "groups": call.attribute("group", 1)}
    inputs = (0, 1, 2) if call.has(2) else (0, 1)
    function = _TRANSPOSED[n]
    if all(more < max(s, d) for more, s, d in zip(extra, window.strides, window.dilations, strict=True)):
        if window.symmetric:
            return Step(_functional(function), inputs, {**keywords, "padding": window.before, "output_padding": extra})
        missing = [0] * n
    else:
        missing, extra = extra, [0] * n
    cuts = [(b, size - a) for b, a, size in zip(window.before, window.after, full, strict=True)]
    keywords = {**keywords, "output_padding": extra}
    return Step(_cropped, inputs, {"function": function, "missing": missing, "cuts": cuts, **keywords})


def _cropped(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    function: str,
    missing: list[int],
    cuts: Sequence[tuple[int, int]],
    **keywords: Any,
) -> Tensor:
    full: Tensor = _functional(function)(x, weight, **keywords)
    if any(missing):
        full = F.pad(full, [n for more in reversed(missing) for n in (0, more)])
    for axis, (start, end) in enumerate(cuts, start=2):
        full = full.narrow(axis, start, end - start)
    return full if bias is None else full + bias.reshape(-1, *[1] * len(cuts))


@operator("MaxPool")
def max_pool(call: Call) -> Step:
    """Translate MaxPool.

    Uneven padding repeats the edge, which never changes a maximum: a window that reaches beyond the edge holds it.
    """
    if call.n_outputs > 1:
        raise call.refuse("indices as a second output are not supported")
    window = _Window(call, call.attribute("kernel_shape"))
    window.pad_same()
    ceil_mode = bool(call.attribute("ceil_mode", 0))
    keywords: dict[str, Any] = {"kernel_size": window.kernel, "stride": window.strides, "dilation": window.dilations}
    function = _MAXIMA[len(window.kernel)]
    fits = all(2 * b <= k for b, k in zip(window.before, window.kernel, strict=True))
    if window.symmetric and fits:
        return Step(_functional(function), keywords={**keywords, "padding": window.before, "ceil_mode": ceil_mode})
    if any(d != 1 for d in window.dilations):
        raise call.refuse("dilated windows with uneven padding are not supported")
    lookups = {}
    for axis in range(len(window.kernel)):
        last = window.sizes[axis] - 1
        n = _n_windows(window, axis, ceil_mode)
        reach = (n - 1) * window.strides[axis] + window.extents[axis] - window.before[axis]
        lookups[axis + 2] = [min(max(i, 0), last) for i in range(-window.before[axis], reach)]
    looked_up = lookup(lookups)
    return Step(_edged, keywords={"function": function, **looked_up.keywords, **keywords}, tensors=looked_up.tensors)


def _edged(x: Tensor, function: str, axes: Sequence[int], indices: Sequence[Tensor], **keywords: Any) -> Tensor:
    result: Tensor = _functional(function)(look_up_along(x, axes, indices), **keywords)
    return result


def _n_windows(window: _Window, axis: int, ceil_mode: bool) -> int:
    """Return how many windows there are; none begins in the padding after the end."""
    before, size, stride = int(window.before[axis]), int(window.sizes[axis]), int(window.strides[axis])
    room = size + before + window.after[axis] - window.extents[axis]
    n = int(-(-room // stride) if ceil_mode else room // stride) + 1
    return n - 1 if ceil_mode and (n - 1) * stride >= size + before else n


@operator("AveragePool")
def average_pool(call: Call) -> Step:
    """Translate AveragePool; where windows count unequally many elements, sums are divided one by one."""
    window = _Window(call, call.attribute("kernel_shape"))
    window.pad_same()
    n_axes = len(window.kernel)
    ceil_mode = bool(call.attribute("ceil_mode", 0))
    include = bool(call.attribute("count_include_pad", 0))
    dilated = any(d != 1 for d in window.dilations)
    if dilated:
        raise call.refuse("dilations are not supported")
    function = _AVERAGES[n_axes]
    keywords: dict[str, Any] = {"kernel_size": window.kernel, "stride": window.strides}
    unpadded = not any(window.before) and not any(window.after)
    if not ceil_mode and (unpadded or (include and window.symmetric and _fits(window))):
        return Step(_functional(function), keywords={**keywords, "padding": window.before})
    extra = []
    for axis in range(n_axes):
        reach = (_n_windows(window, axis, ceil_mode) - 1) * window.strides[axis] + window.extents[axis]
        extra.append(max(reach - window.before[axis] - window.sizes[axis] - window.after[axis], 0))
    ones = torch.ones(1, 1, *window.sizes, dtype=torch.float64)
    counted = F.pad(ones, window.padding(), value=1.0 if include else 0.0)
    beyond = [n for more in reversed(extra) for n in (0, more)]
    shares = _functional(function)(F.pad(counted, beyond), **keywords)
    pad = [a + b for a, b in zip(window.padding(), beyond, strict=True)]
    factors = (1 / shares).to(call.example().dtype)
    return Step(_average, keywords={**keywords, "pad": pad, "function": function}, tensors={"factors": factors})


def _fits(window: _Window) -> bool:
    return all(2 * b <= k for b, k in zip(window.before, window.kernel, strict=True))


def _average(x: Tensor, function: str, pad: list[int], factors: Tensor, **keywords: Any) -> Tensor:
    means: Tensor = _functional(function)(F.pad(x, pad), **keywords)
    return means * factors


@operator("GlobalAveragePool")
def global_average_pool(call: Call) -> Step:
    """Translate GlobalAveragePool."""
    return Step(torch.mean, keywords={"dim": list(range(2, call.example().ndim)), "keepdim": True})


@operator("GlobalMaxPool")
def global_max_pool(call: Call) -> Step:
    """Translate GlobalMaxPool."""
    return Step(torch.amax, keywords={"dim": list(range(2, call.example().ndim)), "keepdim": True})


@operator("Upsample", "Resize")
def resize(call: Call) -> Step:
    """Translate Upsample and Resize to the nearest element."""
    mode = call.attribute("mode", "nearest")
    if mode != "nearest":
        raise call.refuse(f"mode {mode!r} is not supported; supported: nearest")
    sizes, scales = _resized(call)
    # Before opset 11 there was one way to find the nearest element, which later got these names.
    modern = call.op == "Resize" and call.opset >= 11
    place = call.attribute("coordinate_transformation_mode", "half_pixel") if modern else "asymmetric"
    rounding = call.attribute("nearest_mode", "round_prefer_floor") if modern else "floor"
    if place not in _PLACES or rounding not in _ROUNDINGS:
        raise call.refuse(f"{place!r} with {rounding!r} is not supported")
    lookups = {}
    for axis, (old, new, scale) in enumerate(zip(call.shape(), sizes, scales, strict=True)):
        if new == old and scale == 1:
            continue
        found = [_ROUNDINGS[rounding](_PLACES[place](i, scale, old, new)) for i in range(new)]
        lookups[axis] = [min(max(i, 0), old - 1) for i in found]
    return lookup(lookups)


def _resized(call: Call) -> tuple[list[int], list[float]]:
    """Return the size and the scale of every axis."""
    shape = call.shape()
    if "axes" in call.attributes or call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refuse("axes and keep_aspect_ratio_policy are not supported")
    if call.has(3):
        sizes = [int(n) for n in call.value(3).tolist()]
        return sizes, [new / old for new, old in zip(sizes, shape, strict=True)]
    at = 2 if call.op == "Resize" and call.opset >= 11 else 1
    scales = call.value(at).tolist() if call.has(at) else list(call.attribute("scales", []))
    if len(scales) != len(shape):
        raise call.refuse(f"{len(scales)} scales for an input of shape {shape}")
    return [math.floor(old * scale) for old, scale in zip(shape, scales, strict=True)], scales


_PLACES: dict[str, Callable[[int, float, int, int], float]] = {
    "asymmetric": lambda i, scale, old, new: i / scale,
    "half_pixel": lambda i, scale, old, new: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale, old, new: (i + 0.5) / scale - 0.5 if new > 1 else 0.0,
    "align_corners": lambda i, scale, old, new: i * (old - 1) / (new - 1) if new > 1 else 0.0,
}
_ROUNDINGS: dict[str, Callable[[float], int]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda x: math.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: math.floor(x + 0.5),
}
