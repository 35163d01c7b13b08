"""Operators that move, select and join elements.

Shapes are known for a batch of one. Where a shape written in the model begins with that one, it is taken to be the
batch, so that a model exported for a single sample takes any number of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from offprint.methods.certify.onnx_import.call import IDENTITY, Call, Step, as_dtype, operator


@operator("Flatten")
def flatten(call: Call) -> Step:
    """Translate Flatten: to two axes, split before ``axis``."""
    shape = call.shape()
    axis = call.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return _reshaped(call, [math.prod(shape[:axis]), math.prod(shape[axis:])])


@operator("Reshape")
def reshape(call: Call) -> Step:
    """Translate Reshape: 0 copies an axis and -1 is what is left."""
    target = call.integers(1, "shape")
    if target is None:
        raise call.refuse("the new shape is missing")
    if not call.attribute("allowzero", 0):
        target = [call.shape()[i] if n == 0 else n for i, n in enumerate(target)]
    return _reshaped(call, target)


def _reshaped(call: Call, target: Sequence[int]) -> Step:
    if call.is_constant(0):
        return Step(torch.reshape, keywords={"shape": tuple(target)})
    try:
        result = tuple(call.example().reshape(tuple(target)).shape)
    except RuntimeError as error:
        raise call.refuse(f"shape {call.shape()} cannot become {tuple(target)}") from error
    if result[:1] != (1,) and target[:1] != [-1]:
        return Step(torch.reshape, keywords={"shape": tuple(target)})
    if call.shape()[:1] == (1,) and len(result) == 2 and call.example().ndim > 1:
        return Step(torch.flatten, keywords={"start_dim": 1})
    return Step(torch.reshape, keywords={"shape": (-1, *result[1:])})


@operator("Transpose")
def transpose(call: Call) -> Step:
    """Translate Transpose."""
    return Step(torch.permute, keywords={"dims": call.attribute("perm", tuple(range(call.example().ndim))[::-1])})


@operator("Concat")
def concat(call: Call) -> Step:
    """Translate Concat; a constant for one sample is repeated for every sample."""
    every = call.every_input()
    axis = call.axis(call.attribute("axis", 1), call.example(every[0]).ndim)
    moving = next((k for k, i in enumerate(every) if not call.is_constant(i)), None)
    if axis == 0 or moving is None or len(every) == 1 or not any(call.is_constant(i) for i in every):
        return Step(torch.cat, every, {"dim": axis}, as_list=True)
    fixed = [k for k, i in enumerate(every) if call.is_constant(i)]
    return Step(_concat, every, {"dim": axis, "fixed": fixed, "like": moving}, as_list=True)


def _concat(tensors: Sequence[Tensor], dim: int, fixed: Sequence[int], like: int) -> Tensor:
    n = tensors[like].shape[0]
    return torch.cat([t.expand(n, *t.shape[1:]) if k in fixed else t for k, t in enumerate(tensors)], dim=dim)


@operator("Slice")
def slice_(call: Call) -> Step:
    """Translate Slice: attributes before opset 10, inputs since."""
    starts, ends = call.integers(1, "starts"), call.integers(2, "ends")
    if starts is None or ends is None:
        raise call.refuse("starts or ends are missing")
    axes = call.integers(3, "axes", range(len(starts))) or []
    steps = call.integers(4, "steps", [1] * len(starts)) or []
    cuts = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = call.axis(axis)
        length = call.shape()[axis]
        first, last, stride = slice(start, end, step).indices(length)
        if (first, last, stride) != (0, length, 1):
            cuts.append((axis, first, last, stride))
    return Step(_cut, keywords={"cuts": tuple(cuts)}) if cuts else IDENTITY


def _cut(x: Tensor, cuts: Sequence[tuple[int, int, int, int]]) -> Tensor:
    for axis, start, end, step in cuts:
        if step > 0:
            x = x[(slice(None),) * axis + (slice(start, max(end, start), step),)]
        else:
            # A stride of torch cannot be negative: the same elements from the other end, and then turned around.
            n = len(range(start, end, step))
            x = x[(slice(None),) * axis + (slice(start + (n - 1) * step, start + 1, -step),)].flip(axis)
    return x


@operator("Gather")
def gather(call: Call) -> Step:
    """Translate Gather with constant indices; with computed ones it looks up rows of a constant table."""
    axis = call.axis(call.attribute("axis", 0))
    if not call.is_constant(1):
        if call.is_constant(0) and axis == 0 and call.example(0).ndim == 2:
            return Step(_look_up, (0, 1))
        raise call.refuse("indices depend on the model's inputs; only rows of a constant table can be looked up so")
    length = call.shape()[axis]
    indices = call.value(1).long()
    if bool(((indices < -length) | (indices >= length)).any()):
        raise call.refuse(f"an index is outside of axis {axis} of length {length}")
    indices = torch.where(indices < 0, indices + length, indices)
    if indices.ndim == 0:
        return Step(torch.select, keywords={"dim": axis, "index": int(indices)})
    keywords = {"axis": axis, "shape": list(indices.shape)}
    return Step(_gather, keywords=keywords, tensors={"indices": indices.reshape(-1)})


def _look_up(table: Tensor, indices: Tensor) -> Tensor:
    return F.embedding(indices.long(), table)


def _gather(x: Tensor, axis: int, shape: list[int], indices: Tensor) -> Tensor:
    found = x.index_select(axis, indices)
    return found if len(shape) == 1 else torch.unflatten(found, axis, shape)


@operator("Split")
def split(call: Call) -> Step:
    """Translate Split into given sizes, or into equal ones with a smaller last."""
    axis = call.axis(call.attribute("axis", 0))
    sizes = call.integers(1, "split")
    if sizes is None:
        length, n = call.shape()[axis], call.attribute("num_outputs", call.n_outputs)
        size = -(-length // n)
        sizes = [min(size, length - i * size) for i in range(n)]
    return Step(torch.split, keywords={"split_size_or_sections": sizes, "dim": axis})


@operator("Squeeze")
def squeeze(call: Call) -> Step:
    """Translate Squeeze."""
    axes = call.integers(1, "axes")
    chosen = [i for i, n in enumerate(call.shape()) if n == 1] if axes is None else [call.axis(a) for a in axes]
    return Step(torch.squeeze, keywords={"dim": tuple(chosen)})


@operator("Unsqueeze")
def unsqueeze(call: Call) -> Step:
    """Translate Unsqueeze: the axes are counted in the output."""
    axes = call.integers(1, "axes")
    if axes is None:
        raise call.refuse("axes are missing")
    rank = call.example().ndim + len(axes)
    return Step(_unsqueeze, keywords={"axes": tuple(sorted(call.axis(a, rank) for a in axes))})


def _unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in axes:
        x = x.unsqueeze(axis)
    return x


@operator("Expand")
def expand(call: Call) -> Step:
    """Translate Expand, which broadcasts both ways."""
    target = call.integers(1, "shape") or []
    shape = call.shape()
    rank = max(len(target), len(shape))
    wide = [1] * (rank - len(target)) + target
    old = [1] * (rank - len(shape)) + list(shape)
    return Step(_expand, keywords={"sizes": tuple(-1 if w in (1, o) else w for w, o in zip(wide, old, strict=True))})


def _expand(x: Tensor, sizes: Sequence[int]) -> Tensor:
    x = x.reshape(*[1] * (len(sizes) - x.ndim), *x.shape) if len(sizes) > x.ndim else x
    return x.expand(*sizes)


@operator("Tile")
def tile(call: Call) -> Step:
    """Translate Tile."""
    return Step(torch.tile, keywords={"dims": tuple(call.integers(1, "repeats") or [])})


@operator("Pad")
def pad(call: Call) -> Step:
    """Translate Pad: by a constant, by the edge or by reflection."""
    rank = call.example().ndim
    widths = call.integers(1, "pads") or list(call.attribute("paddings", []))
    axes = [call.axis(a) for a in call.integers(3, "axes", range(rank)) or []]
    if len(widths) != 2 * len(axes):
        raise call.refuse(f"{len(widths)} pads for {len(axes)} axes")
    by_axis = {axis: (widths[i], widths[i + len(axes)]) for i, axis in enumerate(axes)}
    mode = call.attribute("mode", "constant")
    if mode == "constant":
        value = call.number(2) if call.has(2) else call.attribute("value", 0.0)
        flat = [n for axis in reversed(range(rank)) for n in by_axis.get(axis, (0, 0))]
        while flat[-2:] == [0, 0]:
            flat = flat[:-2]
        return Step(F.pad, keywords={"pad": flat, "value": value}) if flat else IDENTITY
    if mode not in ("edge", "reflect"):
        raise call.refuse(f"mode {mode!r} is not supported; supported: constant, edge, reflect")
    lookups = {}
    for axis, (before, after) in by_axis.items():
        last = call.shape()[axis] - 1
        places = range(-before, last + after + 1)
        if mode == "edge":
            found = [min(max(i, 0), last) for i in places]
        else:
            found = [last - abs(last - abs(i)) for i in places]
        if found != list(range(last + 1)):
            lookups[axis] = found
    return lookup(lookups)


def lookup(lookups: Mapping[int, Sequence[int]]) -> Step:
    """Return the step that takes elements along some axes."""
    if not lookups:
        return IDENTITY
    indices = [torch.tensor(places) for places in lookups.values()]
    return Step(look_up_along, keywords={"axes": tuple(lookups)}, tensors={"indices": indices})


def look_up_along(x: Tensor, axes: Sequence[int], indices: Sequence[Tensor]) -> Tensor:
    """Take elements along some axes, one axis after the other."""
    for axis, places in zip(axes, indices, strict=True):
        x = x.index_select(axis, places)
    return x


@operator("Shape", "Size")
def shape_of(call: Call) -> Step:
    """Translate Shape and Size: folded, with a batch of one."""
    shape = call.shape()
    if call.op == "Size":
        return Step(constant, (), {"value": torch.tensor(math.prod(shape))})
    start, end = call.attribute("start", 0), call.attribute("end")
    return Step(constant, (), {"value": torch.tensor(shape[start:end], dtype=torch.int64)})


@operator("Constant")
def constant_node(call: Call) -> Step:
    """Translate Constant: a tensor, a number or a list of numbers."""
    for name, dtype in (
        ("value", None),
        ("value_float", torch.float32),
        ("value_floats", torch.float32),
        ("value_int", torch.int64),
        ("value_ints", torch.int64),
    ):
        if name in call.attributes:
            value = call.attributes[name]
            return Step(constant, (), {"value": value if dtype is None else torch.tensor(value, dtype=dtype)})
    raise call.refuse(f"no value among {sorted(call.attributes)}")


@operator("ConstantOfShape")
def constant_of_shape(call: Call) -> Step:
    """Translate ConstantOfShape."""
    value = call.attribute("value", torch.zeros(1))
    return Step(constant, (), {"value": value.reshape(()).expand(call.integers(0, "") or []).clone()})


@operator("Range")
def range_(call: Call) -> Step:
    """Translate Range between constants."""
    start, limit, delta = (call.value(i) for i in range(3))
    return Step(constant, (), {"value": torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)})


@operator("EyeLike")
def eye_like(call: Call) -> Step:
    """Translate EyeLike."""
    dtype = as_dtype(call.attribute("dtype", 1))
    rows, columns = call.shape()
    value = torch.diag_embed(torch.ones(rows + columns), offset=call.attribute("k", 0))[:rows, :columns]
    return Step(constant, (), {"value": value.to(dtype)})


def constant(value: Tensor) -> Tensor:
    """Return a constant."""
    return value
