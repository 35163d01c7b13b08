"""Normalisation layers, dropout and attention in simpler pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.decompositions import register_decomposition, square
from offprint.methods.certify.lirpa.graph import Graph, Node

aten = torch.ops.aten


def _mean(graph: Graph, x: Node, axes: Sequence[int]) -> Node:
    return graph.call(aten.mean.dim, x, list(axes), True, None)


@register_decomposition(aten.var.correction, aten.var.dim)
def variance(graph: Graph, x: Node, axes: Any = None, correction: Any = None, keep: bool = False) -> Node:
    """Return the mean square distance to the mean."""
    axes = axes or list(range(x.meta.ndim))
    count = math.prod(x.shape[axis] for axis in axes)
    centred = graph.call(aten.sub.Tensor, x, _mean(graph, x, axes))
    total = graph.call(aten.sum.dim_IntList, square(graph, centred), list(axes), keep, None)
    return graph.call(aten.mul.Tensor, total, 1 / (count - (1 if correction is None else int(correction))))


def _normalised(graph: Graph, x: Node, axes: Sequence[int], eps: float) -> Node:
    centred = graph.call(aten.sub.Tensor, x, _mean(graph, x, axes))
    return _over_root(graph, centred, axes, eps)


def _over_root(graph: Graph, centred: Node, axes: Sequence[int], eps: float) -> Node:
    spread = graph.call(aten.add.Tensor, _mean(graph, square(graph, centred), axes), eps)
    inverse = graph.call(aten.reciprocal.default, graph.call(aten.sqrt.default, spread))
    return graph.call(aten.mul.Tensor, centred, inverse)


def _affine(graph: Graph, x: Node, weight: Node | None, bias: Node | None, shape: Sequence[int] | None = None) -> Node:
    for target, one in ((aten.mul.Tensor, weight), (aten.add.Tensor, bias)):
        if one is not None:
            if shape is not None:
                one = graph.call(aten.reshape.default, one, list(shape))
            x = graph.call(target, x, one)
    return x


@register_decomposition(aten.layer_norm.default)
def layer_norm(
    graph: Graph, x: Node, shape: Sequence[int], weight: Node | None, bias: Node | None, eps: float, _: Any = None
) -> Node:
    """Mean, difference, square, mean, square root, reciprocal, product, and the affine part."""
    return _affine(graph, _normalised(graph, x, range(-len(shape), 0), eps), weight, bias)


@register_decomposition(aten.rms_norm.default)
def rms_norm(graph: Graph, x: Node, shape: Sequence[int], weight: Node | None, eps: float | None) -> Node:
    """As `layer_norm`, without the mean."""
    eps = torch.finfo(x.meta.dtype).eps if eps is None else eps
    return _affine(graph, _over_root(graph, x, range(-len(shape), 0), eps), weight, None)


@register_decomposition(aten.group_norm.default)
def group_norm(
    graph: Graph, x: Node, groups: int, weight: Node | None, bias: Node | None, eps: float, _: Any = None
) -> Node:
    """As `layer_norm`, over groups of channels."""
    n_samples, n_channels = x.shape[:2]
    grouped = graph.call(aten.reshape.default, x, [n_samples, groups, -1])
    back = graph.call(aten.reshape.default, _normalised(graph, grouped, [-1], eps), list(x.shape))
    return _affine(graph, back, weight, bias, [n_channels, *[1] * (x.meta.ndim - 2)])


@register_decomposition(aten.instance_norm.default)
def instance_norm(
    graph: Graph,
    x: Node,
    weight: Node | None,
    bias: Node | None,
    mean: Node | None,
    var: Node | None,
    own: bool,
    _: float,
    eps: float,
    __: bool,
) -> Node:
    """As `layer_norm`, over the axes after the channels, or with running statistics."""
    if not own and mean is not None and var is not None:
        return _with_statistics(graph, x, weight, bias, mean, var, eps)
    shape = [x.shape[1], *[1] * (x.meta.ndim - 2)]
    return _affine(graph, _normalised(graph, x, range(2, x.meta.ndim), eps), weight, bias, shape)


def _with_statistics(
    graph: Graph, x: Node, weight: Node | None, bias: Node | None, mean: Node, var: Node, eps: float
) -> Node:
    """Normalise with statistics that are constants: ``x * scale + shift``, made of parameters and buffers alone."""
    shape = [-1, *[1] * (x.meta.ndim - 2)]
    scale = graph.call(aten.rsqrt.default, graph.call(aten.add.Tensor, var, eps))
    scale = scale if weight is None else graph.call(aten.mul.Tensor, scale, weight)
    shift = graph.call(aten.neg.default, graph.call(aten.mul.Tensor, mean, scale))
    shift = shift if bias is None else graph.call(aten.add.Tensor, shift, bias)
    scaled = graph.call(aten.mul.Tensor, x, graph.call(aten.reshape.default, scale, shape))
    return graph.call(aten.add.Tensor, scaled, graph.call(aten.reshape.default, shift, shape))


@register_decomposition(aten.batch_norm.default)
def batch_norm(
    graph: Graph,
    x: Node,
    weight: Node | None,
    bias: Node | None,
    mean: Node | None,
    var: Node | None,
    training: bool,
    _: float,
    eps: float,
    __: bool,
) -> Node:
    """An affine function of each channel: of running statistics, or those of the batch where the graph says which.

    Raises
    ------
    ValueError
        In training mode without a choice.
    """
    if not training and mean is not None and var is not None:
        return _with_statistics(graph, x, weight, bias, mean, var, eps)
    if graph.batch_norm is None:
        why = "in training mode" if training and mean is not None else "without running statistics"
        cure = "call eval(), or " if training and mean is not None else ""
        raise ValueError(
            f"module {graph.module!r}: batch norm {why} mixes the samples; {cure}choose batch_norm='forward' "
            "(statistics of the clean batch as constants) or 'ibp' (of the middles of intervals)"
        )
    of_batch = batch_statistics if graph.batch_norm == "forward" else batch_statistics_of_middle
    normalised = graph.call(of_batch, x, eps, name="batch_norm", meta=x.meta)
    return _affine(graph, normalised, weight, bias, [x.shape[1], *[1] * (x.meta.ndim - 2)])


def batch_statistics(x: Tensor, eps: float) -> Tensor:
    """Normalise with the mean and the variance of the batch, which bounds take from its clean values."""
    return torch.nn.functional.batch_norm(x, None, None, training=True, eps=eps)


def batch_statistics_of_middle(x: Tensor, eps: float) -> Tensor:
    """Normalise with the mean and the variance of the batch, which bounds take from the middles of its intervals."""
    return batch_statistics(x, eps)


@register_decomposition(
    aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default, aten.feature_alpha_dropout.default
)
def dropout(graph: Graph, x: Node, probability: float, training: bool) -> Node:
    """Nothing in evaluation mode.

    Raises
    ------
    ValueError
        In training mode without a choice.
    """
    if training and probability > 0 and graph.dropout is None:
        raise ValueError(
            f"module {graph.module!r}: dropout in training mode is random; call eval(), or choose dropout='identity'"
        )
    return x


@register_decomposition(aten.scaled_dot_product_attention.default)
def attention(
    graph: Graph,
    query: Node,
    key: Node,
    value: Node,
    mask: Node | None = None,
    probability: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
    grouped: bool = False,
) -> Node:
    """Products, softmax, products."""
    if grouped:
        # Each head of keys and values serves several of queries.
        key, value = (
            graph.call(aten.repeat_interleave.self_int, one, query.shape[-3] // one.shape[-3], -3)
            for one in (key, value)
        )
    if probability > 0:
        dropout(graph, query, probability, True)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    keys = graph.call(aten.transpose.int, key, -2, -1)
    scores = graph.call(aten.matmul.default, graph.call(aten.mul.Tensor, query, scale), keys)
    if causal:
        allowed = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        mask = graph.constant(allowed, "causal_mask")
    if mask is not None:
        if mask.meta.dtype == torch.bool:
            forbidden = graph.call(aten.logical_not.default, mask)
            scores = graph.call(aten.masked_fill.Scalar, scores, forbidden, -math.inf)
        else:
            scores = graph.call(aten.add.Tensor, scores, mask)
    return graph.call(aten.matmul.default, graph.call(aten.softmax.int, scores, -1, None), value)
