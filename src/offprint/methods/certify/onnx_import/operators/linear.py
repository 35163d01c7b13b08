"""Products with matrices, normalisation, sums and means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from offprint.methods.certify.onnx_import.call import IDENTITY, Call, Step, operator


@operator("Gemm")
def gemm(call: Call) -> Step:
    """Translate Gemm: ``alpha A' B' + beta C``, as a linear layer."""
    keywords = {
        "transpose_a": bool(call.attribute("transA", 0)),
        "transpose_b": bool(call.attribute("transB", 0)),
        "alpha": call.attribute("alpha", 1.0),
        "beta": call.attribute("beta", 1.0),
    }
    return Step(_gemm, (0, 1, 2) if call.has(2) else (0, 1), keywords)


def _gemm(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, transpose_a: bool, transpose_b: bool, alpha: float, beta: float
) -> Tensor:
    a = a.t() if transpose_a else a
    b = b if transpose_b else b.t()
    if alpha != 1:
        b = b * alpha
    if c is None:
        return F.linear(a, b)
    if beta != 1:
        c = c * beta
    if c.ndim == 2 and c.shape[0] == 1 and c.shape[1] == b.shape[0]:
        c = c[0]
    if c.shape == b.shape[:1]:
        return F.linear(a, b, c)
    return F.linear(a, b) + c


@operator("MatMul")
def matmul(call: Call) -> Step:
    """Translate MatMul; with a constant matrix on the right it is a linear layer."""
    if call.is_constant(1) and call.example(1).ndim == 2 and not call.is_constant(0):
        return Step(_linear, (0, 1))
    return Step(torch.matmul, (0, 1))


def _linear(x: Tensor, matrix: Tensor) -> Tensor:
    return F.linear(x, matrix.t())


@operator("BatchNormalization")
def batch_normalization(call: Call) -> Step:
    """Translate BatchNormalization with its recorded statistics."""
    if call.opset >= 14 and call.attribute("training_mode", 0):
        raise call.refuse("training_mode is set; export the model for inference")
    if call.opset < 9 and not call.attribute("spatial", 1):
        raise call.refuse("spatial = 0 is not supported")
    return Step(_batch_normalization, (0, 1, 2, 3, 4), {"eps": call.attribute("epsilon", 1e-5)}, statistics=(3, 4))


def _batch_normalization(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, *, eps: float) -> Tensor:
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=eps)


@operator("LayerNormalization")
def layer_normalization(call: Call) -> Step:
    """Translate LayerNormalization over the axes from ``axis`` on."""
    if call.n_outputs > 1:
        raise call.refuse("mean and inverse deviation as outputs are not supported")
    axis = call.axis(call.attribute("axis", -1))
    keywords = {"axes": call.example().ndim - axis, "eps": call.attribute("epsilon", 1e-5)}
    return Step(_layer_normalization, (0, 1, 2) if call.has(2) else (0, 1), keywords)


def _layer_normalization(x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axes: int, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-axes:], scale, bias, eps)


@operator("InstanceNormalization")
def instance_normalization(call: Call) -> Step:
    """Translate InstanceNormalization."""
    return Step(_instance_normalization, (0, 1, 2), {"eps": call.attribute("epsilon", 1e-5)})


def _instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=eps)


@operator("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare")
def reduce(call: Call) -> Step:
    """Translate reductions: their axes are an attribute in older opsets and an input in newer ones."""
    rank = call.example().ndim
    axes = call.integers(1, "axes")
    if not axes:
        if call.attribute("noop_with_empty_axes", 0):
            return IDENTITY
        axes = list(range(rank))
    keywords = {"axes": [call.axis(a) for a in axes], "keepdim": bool(call.attribute("keepdims", 1))}
    return Step(_REDUCTIONS[call.op], keywords=keywords)


def _sum(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return x.sum(dim=axes, keepdim=keepdim)


def _mean(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return x.mean(dim=axes, keepdim=keepdim)


def _max(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return x.amax(dim=axes, keepdim=keepdim)


def _min(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return x.amin(dim=axes, keepdim=keepdim)


def _product(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(dim=axis, keepdim=keepdim)
    return x


def _sum_of_squares(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return x.pow(2).sum(dim=axes, keepdim=keepdim)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceMax": _max,
    "ReduceMin": _min,
    "ReduceProd": _product,
    "ReduceSumSquare": _sum_of_squares,
}
