"""Functions and reductions in simpler pieces: logarithms and powers, norms, deviations, limits that are tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from offprint.methods.certify.lirpa.decompositions import register_decomposition, square
from offprint.methods.certify.lirpa.graph import Graph, Node
from offprint.methods.certify.lirpa.layers import variance

aten = torch.ops.aten


@register_decomposition(aten.log1p.default)
def log1p(graph: Graph, x: Node) -> Node:
    """``log(x + 1)``."""
    return graph.call(aten.log.default, graph.call(aten.add.Tensor, x, 1.0))


@register_decomposition(aten.expm1.default)
def expm1(graph: Graph, x: Node) -> Node:
    """``exp(x) - 1``."""
    return graph.call(aten.sub.Tensor, graph.call(aten.exp.default, x), 1.0)


@register_decomposition(aten.log2.default)
def log2(graph: Graph, x: Node) -> Node:
    """``log(x) / log(2)``."""
    return graph.call(aten.mul.Tensor, graph.call(aten.log.default, x), 1 / math.log(2))


@register_decomposition(aten.log10.default)
def log10(graph: Graph, x: Node) -> Node:
    """``log(x) / log(10)``."""
    return graph.call(aten.mul.Tensor, graph.call(aten.log.default, x), 1 / math.log(10))


@register_decomposition(aten.exp2.default)
def exp2(graph: Graph, x: Node) -> Node:
    """``2 ** x``."""
    return _power_of_number(graph, 2.0, x)


@register_decomposition(aten.pow.Scalar)
def power_of_number(graph: Graph, base: float, x: Node) -> Node:
    """``exp(log(base) * x)``.

    Raises
    ------
    ValueError
        If the base is not positive.
    """
    if not base > 0:
        raise ValueError(f"module {graph.module!r}: powers of {base} are not supported; the base must be positive")
    return _power_of_number(graph, base, x)


def _power_of_number(graph: Graph, base: float, x: Node) -> Node:
    return graph.call(aten.exp.default, graph.call(aten.mul.Tensor, x, math.log(base)))


@register_decomposition(aten.pow.Tensor_Tensor)
def power_of_tensor(graph: Graph, x: Node, y: Node) -> Node:
    """``exp(y * log(x))``, of positive numbers alone."""
    return graph.call(aten.exp.default, graph.call(aten.mul.Tensor, graph.call(aten.log.default, x), y))


@register_decomposition(aten.erfc.default)
def erfc(graph: Graph, x: Node) -> Node:
    """``1 - erf(x)``."""
    return graph.call(aten.rsub.Scalar, graph.call(aten.erf.default, x), 1.0)


@register_decomposition(aten.softshrink.default)
def softshrink(graph: Graph, x: Node, limit: float = 0.5) -> Node:
    """``relu(x - limit) - relu(-x - limit)``."""
    above = graph.call(aten.relu.default, graph.call(aten.sub.Tensor, x, limit))
    below = graph.call(aten.relu.default, graph.call(aten.rsub.Scalar, x, -limit))
    return graph.call(aten.sub.Tensor, above, below)


@register_decomposition(aten.logaddexp.default)
def logaddexp(graph: Graph, x: Node, y: Node) -> Node:
    """``x - log(sigmoid(x - y))``."""
    return graph.call(aten.sub.Tensor, x, graph.call(aten.log_sigmoid.default, graph.call(aten.sub.Tensor, x, y)))


@register_decomposition(aten.clamp.Tensor)
def clamp(graph: Graph, x: Node, least: Node | None = None, greatest: Node | None = None) -> Node:
    """``min(max(x, least), greatest)`` with limits that are tensors."""
    x = x if least is None else graph.call(aten.maximum.default, x, least)
    return x if greatest is None else graph.call(aten.minimum.default, x, greatest)


@register_decomposition(aten.clamp_min.Tensor)
def clamp_min(graph: Graph, x: Node, least: Node) -> Node:
    """``max(x, least)``."""
    return graph.call(aten.maximum.default, x, least)


@register_decomposition(aten.clamp_max.Tensor)
def clamp_max(graph: Graph, x: Node, greatest: Node) -> Node:
    """``min(x, greatest)``."""
    return graph.call(aten.minimum.default, x, greatest)


@register_decomposition(aten.addcmul.default)
def addcmul(graph: Graph, x: Node, y: Node, z: Node, value: float = 1) -> Node:
    """``x + value * y * z``."""
    return _plus_product(graph, x, y, z, value)


def _plus_product(graph: Graph, x: Node, y: Node, z: Node, value: float = 1) -> Node:
    product = square(graph, y) if y is z else graph.call(aten.mul.Tensor, y, z)
    return graph.call(aten.add.Tensor, x, product, value)


@register_decomposition(aten.addcdiv.default)
def addcdiv(graph: Graph, x: Node, y: Node, z: Node, value: float = 1) -> Node:
    """``x + value * y / z``."""
    return _plus_product(graph, x, y, graph.call(aten.reciprocal.default, z), value)


@register_decomposition(aten.lerp.Scalar, aten.lerp.Tensor)
def lerp(graph: Graph, x: Node, y: Node, share: Any) -> Node:
    """``x + share * (y - x)``."""
    if not isinstance(share, Node):
        return graph.call(aten.add.Tensor, graph.call(aten.mul.Tensor, x, 1 - share), y, share)
    return _plus_product(graph, x, share, graph.call(aten.sub.Tensor, y, x))


@register_decomposition(aten.std.correction)
def deviation(graph: Graph, x: Node, axes: Any = None, correction: Any = None, keep: bool = False) -> Node:
    """Take the root of the variance."""
    return graph.call(aten.sqrt.default, variance(graph, x, axes, correction, keep))


@register_decomposition(aten.var_mean.correction)
def variance_and_mean(graph: Graph, x: Node, axes: Any = None, *args: Any) -> tuple[Node, Node]:
    """Return both."""
    return variance(graph, x, axes, *args), _mean(graph, x, axes, *args)


@register_decomposition(aten.std_mean.correction)
def deviation_and_mean(graph: Graph, x: Node, axes: Any = None, *args: Any) -> tuple[Node, Node]:
    """Return both."""
    return deviation(graph, x, axes, *args), _mean(graph, x, axes, *args)


def _mean(graph: Graph, x: Node, axes: Any, correction: Any = None, keep: bool = False) -> Node:
    return graph.call(aten.mean.dim, x, axes or list(range(x.meta.ndim)), keep, None)


@register_decomposition(aten.linalg_vector_norm.default)
def vector_norm(
    graph: Graph, x: Node, order: float = 2, axes: Sequence[int] | None = None, keep: bool = False, *_: Any
) -> Node:
    """Take the root of the sum of powers of sizes, or their maximum."""
    return _norm(graph, x, order, axes, keep)


def _norm(graph: Graph, x: Node, order: float, axes: Sequence[int] | None, keep: bool) -> Node:
    """Add the pieces of a norm.

    Raises
    ------
    ValueError
        If it is no norm.
    """
    axes = list(axes) if axes else list(range(x.meta.ndim))
    if not order >= 1:
        raise ValueError(f"module {graph.module!r}: norms of order {order} are not supported; expected at least 1")
    sizes = graph.call(aten.abs.default, x) if order != 2 else x
    if order == math.inf:
        return graph.call(aten.amax.default, sizes, axes, keep)
    powers = sizes if order == 1 else graph.call(aten.pow.Tensor_Scalar, sizes, order)
    total = graph.call(aten.sum.dim_IntList, powers, axes, keep, None)
    if order == 1:
        return total
    root = (aten.sqrt.default,) if order == 2 else (aten.pow.Tensor_Scalar, 1 / order)
    return graph.call(root[0], total, *root[1:])


@register_decomposition(aten.norm.ScalarOpt_dim)
def norm(graph: Graph, x: Node, order: float | None, axes: Sequence[int], keep: bool = False) -> Node:
    """Do the same under its older name."""
    return _norm(graph, x, 2 if order is None else order, axes, keep)


@register_decomposition(aten.cosine_similarity.default)
def cosine_similarity(graph: Graph, x: Node, y: Node, axis: int = 1, eps: float = 1e-8) -> Node:
    """Multiply, sum, and divide by both norms, or by ``eps`` where one is smaller."""
    axes = [axis]
    total = graph.call(aten.sum.dim_IntList, graph.call(aten.mul.Tensor, x, y), axes, False, None)
    for one in (x, y):
        size = graph.call(aten.clamp_min.default, _norm(graph, one, 2, axes, False), eps)
        total = graph.call(aten.mul.Tensor, total, graph.call(aten.reciprocal.default, size))
    return total


@register_decomposition(aten.cumsum.default)
def running_sum(graph: Graph, x: Node, axis: int, dtype: torch.dtype | None = None) -> Node:
    """Multiply by a triangular matrix of ones."""
    size = x.shape[axis]
    ones = graph.constant(torch.ones(size, size, dtype=x.meta.dtype).tril())
    moved = graph.call(aten.transpose.int, x, axis, -1)
    return graph.call(aten.transpose.int, graph.call(aten.linear.default, moved, ones), axis, -1)


@register_decomposition(*(getattr(aten, f"conv{n}d").padding for n in (1, 2, 3)))
def convolution(
    graph: Graph,
    x: Node,
    weight: Node,
    bias: Node | None,
    stride: Sequence[int],
    padding: str,
    dilation: Sequence[int],
    groups: int,
) -> Node:
    """Pad first where ``padding="same"`` needs one more element at the end than at the start."""
    n_axes = weight.meta.ndim - 2
    steps = list(dilation) * n_axes if len(dilation) == 1 else list(dilation)
    total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(steps, weight.shape[2:], strict=True)]
    packet = getattr(aten, f"conv{n_axes}d")
    if not any(one % 2 for one in total):
        return graph.call(packet.padding, x, weight, bias, stride, padding, dilation, groups)
    widths = [width for one in reversed(total) for width in (one // 2, one - one // 2)]
    padded = graph.call(aten.constant_pad_nd.default, x, widths, 0.0)
    return graph.call(packet.default, padded, weight, bias, stride, [0] * n_axes, dilation, groups)


@register_decomposition(aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default)
def max_pool(graph: Graph, x: Node, *args: Any) -> tuple[Node, None]:
    """Return the values; where they are has no bounds."""
    return graph.call(getattr(aten, f"max_pool{x.meta.ndim - 2}d").default, x, *args), None


@register_decomposition(
    aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default
)
def adaptive_max_pool(graph: Graph, x: Node, sizes: Sequence[int]) -> tuple[Node, None]:
    """Pool over windows of one size.

    Raises
    ------
    ValueError
        If the output's lengths do not divide the input's.
    """
    lengths = x.shape[-len(sizes) :]
    if any(n % m for n, m in zip(lengths, sizes, strict=True)):
        raise ValueError(
            f"module {graph.module!r}: adaptive max pooling from {tuple(lengths)} to {tuple(sizes)} has windows of "
            "several sizes, which is not supported"
        )
    kernel = [n // m for n, m in zip(lengths, sizes, strict=True)]
    return graph.call(getattr(aten, f"max_pool{len(sizes)}d").default, x, kernel), None
