"""Pieces that random networks are made of: between them they call every operator that bounds are known for.

A piece takes two earlier values of any shape, brings them to what it needs, and returns one value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from random_networks import Builder, Piece, Ref

aten = torch.ops.aten
PIECES: dict[str, Piece] = {}


def piece(function: Piece) -> Piece:
    """Add a function to the pieces under its name."""
    PIECES[function.__name__] = function
    return function


def many(*pieces: tuple[str, Piece]) -> None:
    PIECES.update(pieces)


# --- functions of one number ------------------------------------------------------------------------------------------


def _curve(target: Any, *args: Any, of: str = "any") -> Piece:
    """Return a piece that applies a function of one number where it is defined."""

    def apply(b: Builder, x: Ref, _: Ref) -> Ref:
        x = b.positive(x) if of == "positive" else b.small(x) if of == "small" else x
        return b.call(target, x, *(one(b) if callable(one) else one for one in args))

    return apply


def _between(low: float, high: float) -> Callable[[Builder], float]:
    return lambda b: b.number(low, high)


many(
    ("relu", _curve(aten.relu.default)),
    ("leaky_relu", _curve(aten.leaky_relu.default, _between(-0.3, 1.5))),
    ("abs", _curve(aten.abs.default)),
    ("clamp", _curve(aten.clamp.default, _between(-0.8, 0), _between(0.1, 0.7))),
    ("clamp_min", _curve(aten.clamp_min.default, _between(-0.3, 0.3))),
    ("clamp_max", _curve(aten.clamp_max.default, _between(-0.3, 0.3))),
    ("hardtanh", _curve(aten.hardtanh.default, -0.6, 0.8)),
    ("relu6", _curve(aten.relu6.default)),
    ("hardsigmoid", _curve(aten.hardsigmoid.default)),
    ("sign", _curve(aten.sign.default)),
    ("floor", _curve(aten.floor.default)),
    ("ceil", _curve(aten.ceil.default)),
    ("round", _curve(aten.round.default)),
    ("trunc", _curve(aten.trunc.default)),
    ("sigmoid", _curve(aten.sigmoid.default)),
    ("tanh", _curve(aten.tanh.default)),
    ("atan", _curve(aten.atan.default)),
    ("erf", _curve(aten.erf.default)),
    ("gelu", _curve(aten.gelu.default)),
    ("gelu_tanh", lambda b, x, _: b.call(aten.gelu.default, x, approximate="tanh")),
    ("silu", _curve(aten.silu.default)),
    ("mish", _curve(aten.mish.default)),
    ("hardswish", _curve(aten.hardswish.default)),
    ("exp", _curve(aten.exp.default, of="small")),
    ("log", _curve(aten.log.default, of="positive")),
    ("softplus", _curve(aten.softplus.default, _between(0.5, 3), _between(2, 20))),
    ("log_sigmoid", _curve(aten.log_sigmoid.default)),
    ("elu", _curve(aten.elu.default, _between(0.3, 2.5))),
    ("celu", _curve(aten.celu.default, _between(0.5, 2))),
    ("selu", _curve(aten.selu.default)),
    ("sqrt", _curve(aten.sqrt.default, of="positive")),
    ("rsqrt", _curve(aten.rsqrt.default, of="positive")),
    ("reciprocal", _curve(aten.reciprocal.default, of="positive")),
    ("power_whole", _curve(aten.pow.Tensor_Scalar, lambda b: b.choose(1, 2, 3), of="small")),
    ("power", _curve(aten.pow.Tensor_Scalar, lambda b: b.choose(0.5, 1.5, -1, -2, -0.5), of="positive")),
    ("square", _curve(aten.square.default, of="small")),
    ("sin", _curve(aten.sin.default)),
    ("cos", _curve(aten.cos.default)),
    ("log1p", _curve(aten.log1p.default, of="positive")),
    ("expm1", _curve(aten.expm1.default, of="small")),
    ("log2", _curve(aten.log2.default, of="positive")),
    ("log10", _curve(aten.log10.default, of="positive")),
    ("exp2", _curve(aten.exp2.default, of="small")),
    ("power_of_number", lambda b, x, _: b.call(aten.pow.Scalar, b.number(0.3, 3), b.small(x))),
    ("erfc", _curve(aten.erfc.default)),
    ("softshrink", _curve(aten.softshrink.default, _between(0.1, 0.6))),
    ("neg", _curve(aten.neg.default)),
    ("add_scalar", _curve(aten.add.Scalar, _between(-1, 1), _between(-1, 2))),
    ("sub_scalar", _curve(aten.sub.Scalar, _between(-1, 1), 2)),
    ("rsub_scalar", _curve(aten.rsub.Scalar, _between(-1, 1), _between(-1, 2))),
    ("mul_scalar", _curve(aten.mul.Scalar, _between(-2, 2))),
    ("div_scalar", _curve(aten.div.Scalar, _between(0.5, 2))),
)


@piece
def prelu(b: Builder, x: Ref, _: Ref) -> Ref:
    x = b.image(x, b.choose(1, 2))
    return b.call(aten.prelu.default, x, b.numbers(b.choose(1, b.shape(x)[1]), scale=0.5))


# --- two operands -----------------------------------------------------------------------------------------------------


def _pair(b: Builder, x: Ref, y: Ref) -> tuple[Ref, Any]:
    """Return two operands that broadcast: another value, a row of one, a constant or a parameter."""
    x = b.sequence(x)
    n, positions, features = b.shape(x)
    kind = b.choose("other", "row", "column", "constant", "parameter", "same")
    if kind == "constant":
        return x, b.numbers(*b.choose((features,), (1, positions, 1), (n, positions, features)))
    if kind == "parameter":
        return x, b.weight(*b.choose((features,), (positions, features)), scale=0.7)
    shape = {"row": (1, features), "column": (positions, 1)}.get(kind, (positions, features))
    return x, x if kind == "same" else b.shaped(y, *shape)


def _binary(target: Any) -> Piece:
    def apply(b: Builder, x: Ref, y: Ref) -> Ref:
        first, second = _pair(b, x, y)
        if b.flag():
            first, second = second, first
        return b.call(target, first, second)

    return apply


many(
    ("mul", _binary(aten.mul.Tensor)),
    ("maximum", _binary(aten.maximum.default)),
    ("max_other", _binary(aten.max.other)),
    ("minimum", _binary(aten.minimum.default)),
    ("min_other", _binary(aten.min.other)),
)


def _sum(target: Any) -> Piece:
    def apply(b: Builder, x: Ref, y: Ref) -> Ref:
        first, second = _pair(b, x, y)
        if b.flag():
            first, second = second, first
        return b.call(target, first, second, alpha=b.number(-1.5, 1.5))

    return apply


many(
    ("add", _sum(aten.add.Tensor)),
    ("sub", _sum(aten.sub.Tensor)),
    ("rsub", _sum(aten.rsub.Tensor)),
)


@piece
def div(b: Builder, x: Ref, y: Ref) -> Ref:
    x = b.sequence(x)
    other = b.positive(b.shaped(y, *b.shape(x)[1:]))
    return b.call(aten.div.Tensor, b.call(aten.true_divide.Tensor, x, other), b.number(0.5, 2))


def _limits(b: Builder, x: Ref) -> Any:
    """Return a limit for every element of a sample: a constant, or a parameter."""
    shape = b.shape(x)[1:]
    return b.choose(b.numbers, b.weight)(*shape, scale=0.5)


many(
    ("clamp_tensors", lambda b, x, _: b.call(aten.clamp.Tensor, x, _limits(b, x), b.choose(None, b.numbers()))),
    ("clamp_min_tensor", lambda b, x, _: b.call(aten.clamp_min.Tensor, x, _limits(b, x))),
    ("clamp_max_tensor", lambda b, x, _: b.call(aten.clamp_max.Tensor, x, _limits(b, x))),
    ("logaddexp", lambda b, x, y: b.call(aten.logaddexp.default, b.shaped(x, 3), b.shaped(y, 3))),
)


@piece
def interpolated(b: Builder, x: Ref, y: Ref) -> Ref:
    """Between two values, by a number and by a tensor; then products and quotients added."""
    x = b.sequence(x)
    y = b.shaped(y, *b.shape(x)[1:])
    mixed = b.call(aten.lerp.Scalar, x, y, b.number(-0.5, 1.5))
    mixed = b.call(aten.lerp.Tensor, mixed, y, b.call(aten.sigmoid.default, x))
    sum_ = b.call(aten.addcmul.default, mixed, x, b.choose(x, y), value=0.5)
    return b.call(aten.addcdiv.default, sum_, x, b.positive(y), value=b.number(-0.5, 0.5))


@piece
def power_of_tensor(b: Builder, x: Ref, y: Ref) -> Ref:
    x = b.positive(b.vector(x))
    return b.call(aten.pow.Tensor_Tensor, x, b.small(b.shaped(y, *b.shape(x)[1:])))


@piece
def cosine(b: Builder, x: Ref, y: Ref) -> Ref:
    x, y = b.positive(b.shaped(x, 3)), b.positive(b.shaped(y, 3))
    return b.call(aten.cosine_similarity.default, x, y, b.choose(1, -1))


@piece
def softsign(b: Builder, x: Ref, _: Ref) -> Ref:
    return b.call(aten.div.Tensor, x, b.call(aten.add.Scalar, b.call(aten.abs.default, x), 1))


@piece
def matmul(b: Builder, x: Ref, y: Ref) -> Ref:
    """Of two values: a product with a column, a matrix, or many at once."""
    n, inner = b.choose(2, 3), b.choose(2, 3)
    left = b.small(b.shaped(x, n, inner))
    right = b.small(b.shaped(y, inner, b.choose(1, 2)))
    return b.call(
        aten.bmm.default, b.call(aten.matmul.default, left, right), b.numbers(b.n_samples, b.shape(right)[2], 2)
    )


@piece
def matmul_constant(b: Builder, x: Ref, _: Ref) -> Ref:
    x = b.sequence(x)
    n, positions, features = b.shape(x)
    kind = b.choose("left", "right", "left_per_sample", "heads")
    if kind == "left":
        return b.call(aten.matmul.default, b.numbers(3, positions), x)
    if kind == "left_per_sample":
        return b.call(aten.matmul.default, b.numbers(n, 2, positions), x)
    if kind == "heads":
        wide = b.call(aten.unsqueeze.default, x, 1)
        return b.call(aten.matmul.default, wide, b.weight(2, features, 2))
    return b.call(aten.matmul.default, x, b.weight(features, 3))


@piece
def mv(b: Builder, x: Ref, _: Ref) -> Ref:
    x = b.vector(x)
    return b.call(aten.mv.default, x, b.weight(b.shape(x)[1], scale=0.6))


@piece
def linear(b: Builder, x: Ref, _: Ref) -> Ref:
    x = b.choose(b.vector, b.sequence)(x)
    size = b.choose(3, 4)
    bias = b.weight(size, scale=0.3) if b.flag() else None
    return b.call(aten.linear.default, x, b.weight(size, b.shape(x)[-1]), bias)


@piece
def addmm(b: Builder, x: Ref, y: Ref) -> Ref:
    x = b.vector(x)
    product = b.call(aten.mm.default, x, b.weight(b.shape(x)[1], 3))
    return b.call(aten.addmm.default, product, b.shaped(y, 3), b.weight(3, 3))


@piece
def baddbmm(b: Builder, x: Ref, y: Ref) -> Ref:
    x, y = b.small(b.shaped(x, 2, 3)), b.small(b.shaped(y, 3, 2))
    return b.call(aten.baddbmm.default, b.shaped(x, 2, 2), x, y)


@piece
def attention(b: Builder, x: Ref, y: Ref) -> Ref:
    """Scaled products, softmax, products; with and without masks, in heads or not."""
    positions, features = b.choose(2, 3), 2
    shape = (2, positions, features) if b.flag() else (positions, features)
    query, key, value = (b.shaped(one, *shape) for one in (x, y, x))
    mask = None
    if b.flag():
        mask = torch.rand(positions, positions, generator=b.generator) < 0.6
        mask |= torch.eye(positions, dtype=torch.bool)
        if b.flag():
            mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -math.inf)
    causal = mask is None and b.flag()
    return b.call(aten.scaled_dot_product_attention.default, query, key, value, mask, 0.0, causal)


# --- convolutions and pools -------------------------------------------------------------------------------------------


def _lengths(b: Builder, n_axes: int, *options: int) -> list[int]:
    return [b.choose(*options) for _ in range(n_axes)]


def _convolution(n_axes: int, named: bool) -> Piece:
    packet = getattr(aten, f"conv{n_axes}d")

    def apply(b: Builder, x: Ref, _: Ref) -> Ref:
        groups = b.choose(1, 2)
        x = b.image(x, n_axes, channels=groups * b.choose(1, 2) if n_axes < 3 else groups)
        weight = b.weight(2 * groups, b.shape(x)[1] // groups, *_lengths(b, n_axes, *((1, 3) if named else (1, 2, 3))))
        bias = b.weight(2 * groups, scale=0.3) if b.flag() else None
        if named:
            where = b.choose("same", "valid") if n_axes < 3 else "same"
            return b.call(packet.padding, x, weight, bias, [1] * n_axes, where, [1] * n_axes, groups)
        stride, padding = _lengths(b, n_axes, 1, 2), _lengths(b, n_axes, 0, 1)
        dilation = _lengths(b, n_axes, 1, 2) if n_axes < 3 else [1] * n_axes
        padding = [max(p, 2 if d == 2 else 0) for p, d in zip(padding, dilation, strict=True)]
        return b.call(packet.default, x, weight, bias, stride, padding, dilation, groups)

    return apply


def _transposed(n_axes: int) -> Piece:
    packet = getattr(aten, f"conv_transpose{n_axes}d")
    target = packet.default if n_axes == 1 else packet.input

    def apply(b: Builder, x: Ref, _: Ref) -> Ref:
        groups = b.choose(1, 2)
        x = b.image(x, n_axes, channels=groups, size={1: 3, 2: 2, 3: 2}[n_axes])
        weight = b.weight(groups, 1, *_lengths(b, n_axes, 2, 3), scale=0.7)
        bias = b.weight(groups, scale=0.3) if b.flag() else None
        stride, padding = _lengths(b, n_axes, 1, 2), _lengths(b, n_axes, 0, 1)
        dilation = _lengths(b, n_axes, 1, 2)
        extra = [b.choose(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True)]
        return b.call(target, x, weight, bias, stride, padding, extra, groups, dilation)

    return apply


def _max_pool(n_axes: int) -> Piece:
    target = getattr(aten, f"max_pool{n_axes}d").default

    def apply(b: Builder, x: Ref, _: Ref) -> Ref:
        x = b.image(x, n_axes)
        kernel = _lengths(b, n_axes, 2, 3) if n_axes < 3 else [2] * 3
        padding = [b.choose(0, k // 2) for k in kernel]
        return b.call(target, x, kernel, _lengths(b, n_axes, 1, 2), padding, [1] * n_axes, b.flag())

    return apply


def _avg_pool(n_axes: int) -> Piece:
    target = getattr(aten, f"avg_pool{n_axes}d").default

    def apply(b: Builder, x: Ref, _: Ref) -> Ref:
        x = b.image(x, n_axes)
        return b.call(target, x, [2] * n_axes, _lengths(b, n_axes, 1, 2), _lengths(b, n_axes, 0, 1), b.flag(), b.flag())

    return apply


def _to_image(n_axes: int, target: Any, *args: Any, channels: int | None = None, size: int | None = None) -> Piece:
    """Return a piece that calls an operator on images with fixed further arguments."""

    def apply(b: Builder, x: Ref, _: Ref) -> Ref:
        return b.call(target, b.image(x, n_axes, channels, size), *args)

    return apply


for _n in (1, 2, 3):
    many(
        (f"conv{_n}d", _convolution(_n, False)),
        (f"conv{_n}d_padding", _convolution(_n, True)),
        (f"conv_transpose{_n}d", _transposed(_n)),
        (f"max_pool{_n}d", _max_pool(_n)),
        (f"avg_pool{_n}d", _avg_pool(_n)),
        (f"adaptive_avg_pool{_n}d", _to_image(_n, getattr(aten, f"adaptive_avg_pool{_n}d").default, [2] * _n)),
        (
            f"upsample_nearest{_n}d",
            _to_image(_n, getattr(aten, f"upsample_nearest{_n}d").vec, None, [1.5] * _n, size=2),
        ),
        (f"reflection_pad{_n}d", _to_image(_n, getattr(aten, f"reflection_pad{_n}d").default, [1, 0] * _n, size=2)),
        (f"replication_pad{_n}d", _to_image(_n, getattr(aten, f"replication_pad{_n}d").default, [0, 1] * _n, size=2)),
    )
many(
    ("own_adaptive_pool2d", _to_image(2, aten._adaptive_avg_pool2d.default, [3, 2])),
    ("own_adaptive_pool3d", _to_image(3, aten._adaptive_avg_pool3d.default, [2, 1, 2])),
    ("upsample_linear", _to_image(1, aten.upsample_linear1d.vec, [5], True, None, size=3)),
    ("upsample_bilinear", _to_image(2, aten.upsample_bilinear2d.vec, None, False, [2.0, 1.5], size=2)),
    ("upsample_trilinear", _to_image(3, aten.upsample_trilinear3d.vec, [2, 3, 2], False, None, channels=1, size=2)),
    ("im2col", _to_image(2, aten.im2col.default, [2, 2], [1, 1], [1, 0], [2, 1], size=3)),
    ("pixel_shuffle", _to_image(2, aten.pixel_shuffle.default, 2, channels=4, size=2)),
    ("channel_shuffle", _to_image(2, aten.channel_shuffle.default, 2, channels=4, size=2)),
)


@piece
def pixel_unshuffle(b: Builder, x: Ref, _: Ref) -> Ref:
    return b.call(aten.pixel_unshuffle.default, b.shaped(x, 1, 4, 2), 2)


@piece
def residual_block(b: Builder, x: Ref, _: Ref) -> Ref:
    """Two convolutions and a skip by a third one, and a pool behind them."""
    x = b.shaped(x, 2, 5, 5)
    first, stride, groups = b.weight(4, 2, 3, 3), b.choose(1, 2), b.choose(1, 2)
    hidden = b.call(aten.relu.default, b.call(aten.conv2d.default, x, first, None, [stride] * 2, [1, 1], [1, 1], 1))
    second = b.weight(4, 4 // groups, 3, 3)
    hidden = b.call(aten.conv2d.default, hidden, second, b.weight(4, scale=0.3), [1, 1], [1, 1], [1, 1], groups)
    skip = b.call(aten.conv2d.default, x, b.weight(4, 2, 1, 1), None, [stride] * 2, [0, 0], [1, 1], 1)
    hidden = b.call(b.choose(aten.relu.default, aten.tanh.default), b.call(aten.add.Tensor, hidden, skip))
    pool = b.choose(aten.max_pool2d.default, aten.avg_pool2d.default)
    return b.call(aten.sum.dim_IntList, b.call(pool, hidden, [2, 2], [2, 2]), [1])


@piece
def dense_block(b: Builder, x: Ref, _: Ref) -> Ref:
    """What went in beside what a convolution made of it, twice, and a step down."""
    x = b.shaped(x, 1, 4, 4)
    for channels in (1, 2):
        weight = b.weight(1, channels, 3, 3)
        hidden = b.call(aten.conv2d.default, b.call(aten.relu.default, x), weight, None, [1, 1], [1, 1], [1, 1], 1)
        x = b.call(aten.cat.default, [x, hidden], 1)
    return b.call(
        aten.conv2d.default, b.call(aten.relu.default, x), b.weight(2, 3, 2, 2), None, [2, 2], [0, 0], [1, 1], 1
    )
