"""Which operator of ATen is bounded by what."""

from __future__ import annotations

from typing import Any

import torch

from offprint.methods.certify.lirpa.decompositions import softsign
from offprint.methods.certify.lirpa.layers import batch_statistics, batch_statistics_of_middle
from offprint.methods.certify.lirpa.operators import (
    bumped,
    convex,
    elu,
    pooling,
    powers,
    rectifiers,
    s_shaped,
    softmax,
    waves,
)
from offprint.methods.certify.lirpa.operators.arithmetic import Add, Multiply, Negate
from offprint.methods.certify.lirpa.operators.base import enter
from offprint.methods.certify.lirpa.operators.convolution import Convolution
from offprint.methods.certify.lirpa.operators.linear import Matmul
from offprint.methods.certify.lirpa.operators.normalization import BatchStatistics
from offprint.methods.certify.lirpa.operators.shape import (
    Concatenate,
    Expand,
    Monotone,
    Movement,
    Permute,
    Reduce,
    Reshape,
    Slice,
)

aten = torch.ops.aten

_ELEMENTWISE: dict[Any, Any] = {
    aten.relu.default: rectifiers.ReLU,
    aten.leaky_relu.default: rectifiers.LeakyReLU,
    aten.prelu.default: rectifiers.PReLU,
    aten.abs.default: rectifiers.Abs,
    aten.clamp.default: rectifiers.Clip,
    aten.clamp_min.default: rectifiers.Clip,
    aten.clamp_max.default: lambda maximum: rectifiers.Clip(None, maximum),
    aten.hardtanh.default: rectifiers.Hardtanh,
    aten.relu6.default: rectifiers.ReLU6,
    aten.hardsigmoid.default: rectifiers.Hardsigmoid,
    aten.sign.default: rectifiers.Sign,
    aten.floor.default: lambda: rectifiers.Step(torch.floor),
    aten.ceil.default: lambda: rectifiers.Step(torch.ceil),
    aten.round.default: lambda: rectifiers.Step(torch.round),
    aten.trunc.default: lambda: rectifiers.Step(torch.trunc),
    aten.sigmoid.default: s_shaped.Sigmoid,
    aten.tanh.default: s_shaped.Tanh,
    aten.atan.default: s_shaped.Arctan,
    aten.erf.default: s_shaped.Erf,
    softsign: s_shaped.Softsign,
    aten.gelu.default: bumped.GELU,
    aten.silu.default: bumped.SiLU,
    aten.mish.default: bumped.Mish,
    aten.hardswish.default: bumped.Hardswish,
    aten.sin.default: waves.Sine,
    aten.cos.default: waves.Cosine,
    aten.exp.default: convex.Exp,
    aten.log.default: convex.Log,
    aten.softplus.default: convex.Softplus,
    aten.log_sigmoid.default: convex.LogSigmoid,
    aten.elu.default: elu.ELU,
    aten.celu.default: elu.CELU,
    aten.selu.default: elu.SELU,
    aten.pow.Tensor_Scalar: powers.power,
    aten.sqrt.default: powers.Sqrt,
    aten.rsqrt.default: powers.Rsqrt,
    aten.reciprocal.default: powers.Reciprocal,
}

_MOVEMENTS = """
    repeat.default tile.default flip.default roll.default index_select.default gather.default index.Tensor
    repeat_interleave.self_int diagonal.default diag_embed.default im2col.default unfold.default
    pixel_shuffle.default pixel_unshuffle.default channel_shuffle.default upsample_nearest1d.vec upsample_nearest2d.vec
    upsample_nearest3d.vec reflection_pad1d.default reflection_pad2d.default reflection_pad3d.default
    replication_pad1d.default replication_pad2d.default replication_pad3d.default
"""
_MOVEMENTS_AND_CONSTANTS = """
    pad.default constant_pad_nd.default masked_fill.Scalar masked_fill.Tensor where.self where.ScalarOther
    where.ScalarSelf tril.default triu.default slice_scatter.default select_scatter.default
"""
_SUMS = """
    avg_pool1d.default avg_pool2d.default avg_pool3d.default adaptive_avg_pool1d.default adaptive_avg_pool2d.default
    adaptive_avg_pool3d.default _adaptive_avg_pool2d.default _adaptive_avg_pool3d.default
    upsample_bilinear2d.vec upsample_linear1d.vec upsample_trilinear3d.vec
"""
_RESHAPES = """
    reshape.default flatten.using_ints unflatten.int squeeze.default squeeze.dim squeeze.dims unsqueeze.default
"""
_PERMUTATIONS = """
    permute.default transpose.int t.default numpy_T.default mT.default swapaxes.default movedim.int movedim.intlist
    moveaxis.int swapdims.default
"""


def _overloads(names: str) -> list[Any]:
    found = []
    for name in names.split():
        packet, overload = name.split(".")
        found.append(getattr(getattr(aten, packet), overload))
    return found


def register_all() -> None:
    """Register the library's operators."""
    for target, make in _ELEMENTWISE.items():
        enter(target, make)
    for target in (aten.add.Tensor, aten.add.Scalar):
        enter(target, Add())
    for target in (aten.sub.Tensor, aten.sub.Scalar):
        enter(target, Add(-1.0))
    for target in (aten.rsub.Scalar, aten.rsub.Tensor):
        enter(target, Add(-1.0, reversed_=True))
    enter(aten.neg.default, Negate())
    enter(aten.mul.Tensor, Multiply())
    enter(aten.linear.default, Matmul(layer=True))
    enter(aten.matmul.default, Matmul())
    for ndim in (1, 2, 3):
        enter(getattr(aten, f"conv{ndim}d").default, Convolution(ndim))
        enter(getattr(aten, f"conv{ndim}d").padding, Convolution(ndim))
        transposed = getattr(aten, f"conv_transpose{ndim}d")
        enter(transposed.default if ndim == 1 else transposed.input, Convolution(ndim, transposed=True))
        enter(getattr(aten, f"max_pool{ndim}d").default, pooling.MaxPool(ndim))
    enter(aten.maximum.default, pooling.Maximum())
    enter(aten.max.other, pooling.Maximum())
    enter(aten.minimum.default, pooling.Minimum())
    enter(aten.min.other, pooling.Minimum())
    enter(aten.amax.default, pooling.AMax())
    enter(aten.amin.default, pooling.AMin())
    enter(aten.softmax.int, softmax.Softmax())
    enter(aten._softmax.default, softmax.Softmax())
    enter(aten.log_softmax.int, softmax.LogSoftmax())
    enter(aten._log_softmax.default, softmax.LogSoftmax())
    enter(aten.logsumexp.default, softmax.LogSumExp())
    enter(batch_statistics, BatchStatistics(of_intervals=False))
    enter(batch_statistics_of_middle, BatchStatistics(of_intervals=True))
    for target in (aten.mean.default, aten.mean.dim):
        enter(target, Reduce(mean=True))
    for target in (aten.sum.default, aten.sum.dim_IntList):
        enter(target, Reduce(mean=False))
    enter(aten.expand.default, Expand())
    enter(aten.slice.Tensor, Slice())
    enter(aten.select.int, Slice(select=True))
    for target in (aten.cat.default, aten.concat.default, aten.concatenate.default):
        enter(target, Concatenate())
    for target in _overloads(_RESHAPES):
        enter(target, Reshape())
    for target in _overloads(_PERMUTATIONS):
        enter(target, Permute())
    for target in _overloads(_MOVEMENTS):
        enter(target, Movement())
    for target in _overloads(_MOVEMENTS_AND_CONSTANTS):
        enter(target, Movement(constant_part=True))
    for target in _overloads(_SUMS):
        enter(target, Monotone())


register_all()
