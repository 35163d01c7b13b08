"""Operators in simpler pieces: synonyms, divisions, splits, normalisation layers, attention.

A decomposition is a function of the graph and the operator's arguments, in the order of its schema, that adds the
pieces and returns their result. Recurrent layers are in ``recurrent.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.graph import Graph, Node

aten = torch.ops.aten
Decomposition = Callable[..., Any]
_decompositions: dict[Any, Decomposition] = {}


def register_decomposition(*targets: Any) -> Callable[[Decomposition], Decomposition]:
    """Return a decorator that makes a function the decomposition of operators."""

    def register(function: Decomposition) -> Decomposition:
        for target in targets:
            _decompositions[target] = function
        return function

    return register


def decomposition(target: Any) -> Decomposition | None:
    """Return how an operator is taken apart, or ``None`` where it stays as it is."""
    return _decompositions.get(target)


@register_decomposition(
    aten.contiguous.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
    aten.positive.default,
)
def same(graph: Graph, x: Node, *_: Any) -> Node:
    """Return the input of an operator that copies it."""
    return x


@register_decomposition(
    aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten._to_copy.default, aten.type_as.default
)
def cast(graph: Graph, x: Node, *args: Any) -> Node:
    """Drop casts to the dtype that a tensor has anyway."""
    dtypes = [arg for arg in args if isinstance(arg, torch.dtype)]
    dtypes += [arg.meta.dtype for arg in args if isinstance(arg, Node)]
    if not dtypes or dtypes[0] == x.meta.dtype:
        return x
    return graph.call(torch.Tensor.to, x, dtypes[0], name="to")


@register_decomposition(aten.view.default, aten._unsafe_view.default, aten.reshape_as.default, aten.view_as.default)
def reshape(graph: Graph, x: Node, shape: Any) -> Node:
    """Call a view a reshape: values do not tell them apart."""
    return graph.call(aten.reshape.default, x, list(shape.shape) if isinstance(shape, Node) else shape)


@register_decomposition(aten.expand_as.default)
def expand_as(graph: Graph, x: Node, other: Node) -> Node:
    """Expand to a shape."""
    return graph.call(aten.expand.default, x, list(other.shape))


@register_decomposition(aten.zeros_like.default)
def zeros_like(graph: Graph, x: Node, dtype: torch.dtype | None = None, *_: Any) -> Node:
    """Return a constant: only the shape of the input matters."""
    return _full(graph, x.shape, 0.0, dtype or x.meta.dtype)


@register_decomposition(aten.ones_like.default)
def ones_like(graph: Graph, x: Node, dtype: torch.dtype | None = None, *_: Any) -> Node:
    """Return a constant: only the shape of the input matters."""
    return _full(graph, x.shape, 1.0, dtype or x.meta.dtype)


@register_decomposition(aten.full_like.default)
def full_like(graph: Graph, x: Node, value: float, dtype: torch.dtype | None = None, *_: Any) -> Node:
    """Return a constant: only the shape of the input matters."""
    return _full(graph, x.shape, value, dtype or x.meta.dtype)


@register_decomposition(aten.new_zeros.default)
def new_zeros(graph: Graph, x: Node, shape: Sequence[int], dtype: torch.dtype | None = None, *_: Any) -> Node:
    """Return a constant: only the shape of the input matters."""
    return _full(graph, shape, 0.0, dtype or x.meta.dtype)


@register_decomposition(aten.new_ones.default)
def new_ones(graph: Graph, x: Node, shape: Sequence[int], dtype: torch.dtype | None = None, *_: Any) -> Node:
    """Return a constant: only the shape of the input matters."""
    return _full(graph, shape, 1.0, dtype or x.meta.dtype)


def _full(graph: Graph, shape: Sequence[int], value: float, dtype: torch.dtype) -> Node:
    return graph.constant(torch.full(tuple(shape), value, dtype=dtype))


@register_decomposition(aten.div.Tensor, aten.div.Scalar, aten.true_divide.Tensor)
def divide(graph: Graph, x: Any, y: Any) -> Node:
    """Multiply by the reciprocal."""
    if not isinstance(y, Node):
        return graph.call(aten.mul.Tensor, x, 1 / y)
    return _multiply(graph, x, graph.call(aten.reciprocal.default, y))


@register_decomposition(aten.mul.Tensor, aten.mul.Scalar)
def multiply(graph: Graph, x: Any, y: Any) -> Node:
    """Recognise squares, which are bounded better than products of two unrelated tensors."""
    return _multiply(graph, x, y)


def _multiply(graph: Graph, x: Any, y: Any) -> Node:
    return _square(graph, x) if x is y else graph.call(aten.mul.Tensor, x, y)


@register_decomposition(aten.square.default)
def square(graph: Graph, x: Node) -> Node:
    """Raise to the power of two."""
    return _square(graph, x)


def _square(graph: Graph, x: Node) -> Node:
    return graph.call(aten.pow.Tensor_Scalar, x, 2)


@register_decomposition(aten.pow.Tensor_Scalar)
def power(graph: Graph, x: Node, exponent: float) -> Node:
    """Leave out the powers zero and one."""
    if exponent == 1:
        return x
    return ones_like(graph, x) if exponent == 0 else graph.call(aten.pow.Tensor_Scalar, x, exponent)


@register_decomposition(aten.addmm.default, aten.baddbmm.default)
def addmm(graph: Graph, bias: Node, x: Node, y: Node, beta: float = 1, alpha: float = 1) -> Node:
    """Multiply, then add."""
    product = graph.call(aten.matmul.default, x, y)
    product = product if alpha == 1 else graph.call(aten.mul.Tensor, product, alpha)
    bias = bias if beta == 1 else graph.call(aten.mul.Tensor, bias, beta)
    return graph.call(aten.add.Tensor, product, bias)


@register_decomposition(aten.matmul.default, aten.mv.default, aten.dot.default, aten.mm.default, aten.bmm.default)
def matmul(graph: Graph, x: Node, y: Node, *_: Any) -> Node:
    """Give vectors a second axis for the product, and take it away after it."""
    left, right = x, y
    if x.meta.ndim == 1:
        left = graph.call(aten.unsqueeze.default, x, 0)
    if y.meta.ndim == 1:
        right = graph.call(aten.unsqueeze.default, y, -1)
    product = graph.call(aten.matmul.default, left, right)
    if y.meta.ndim == 1:
        product = graph.call(aten.squeeze.dim, product, -1)
    return graph.call(aten.squeeze.dim, product, -1 if y.meta.ndim == 1 else -2) if x.meta.ndim == 1 else product


@register_decomposition(aten.split.Tensor)
def split(graph: Graph, x: Node, size: int, axis: int = 0) -> tuple[Node, ...]:
    """Slice."""
    length = x.shape[axis]
    return _slices(graph, x, [min(size, length - i) for i in range(0, length, size)], axis)


@register_decomposition(aten.split_with_sizes.default, aten.split.sizes)
def split_sizes(graph: Graph, x: Node, sizes: Sequence[int], axis: int = 0) -> tuple[Node, ...]:
    """Slice."""
    return _slices(graph, x, sizes, axis)


def _slices(graph: Graph, x: Node, sizes: Sequence[int], axis: int) -> tuple[Node, ...]:
    parts, start = [], 0
    for size in sizes:
        parts.append(graph.call(aten.slice.Tensor, x, axis, start, start + size, 1))
        start += size
    return tuple(parts)


@register_decomposition(aten.chunk.default)
def chunk(graph: Graph, x: Node, chunks: int, axis: int = 0) -> tuple[Node, ...]:
    """Slice."""
    length = x.shape[axis]
    size = max(1, -(-length // chunks))
    return _slices(graph, x, [min(size, length - i) for i in range(0, length, size)], axis)


@register_decomposition(aten.unbind.int)
def unbind(graph: Graph, x: Node, axis: int = 0) -> tuple[Node, ...]:
    """Select."""
    return tuple(graph.call(aten.select.int, x, axis, i) for i in range(x.shape[axis]))


@register_decomposition(aten.narrow.default)
def narrow(graph: Graph, x: Node, axis: int, start: int, length: int) -> Node:
    """Slice."""
    return graph.call(aten.slice.Tensor, x, axis, start, start + length, 1)


@register_decomposition(aten.stack.default)
def stack(graph: Graph, tensors: Sequence[Node], axis: int = 0) -> Node:
    """Concatenate along a new axis."""
    axis = axis % (tensors[0].meta.ndim + 1)
    return graph.call(aten.cat.default, [graph.call(aten.unsqueeze.default, one, axis) for one in tensors], axis)


@register_decomposition(aten.max.dim)
def max_over_axis(graph: Graph, x: Node, axis: int, keep: bool = False) -> tuple[Node, None]:
    """Return the values; where they are has no bounds."""
    return graph.call(aten.amax.default, x, [axis], keep), None


@register_decomposition(aten.min.dim)
def min_over_axis(graph: Graph, x: Node, axis: int, keep: bool = False) -> tuple[Node, None]:
    """Return the values; where they are has no bounds."""
    return graph.call(aten.amin.default, x, [axis], keep), None


@register_decomposition(aten.max.default)
def max_of_all(graph: Graph, x: Node) -> Node:
    """Reduce over all axes."""
    return graph.call(aten.amax.default, x, list(range(x.meta.ndim)), False)


@register_decomposition(aten.min.default)
def min_of_all(graph: Graph, x: Node) -> Node:
    """Reduce over all axes."""
    return graph.call(aten.amin.default, x, list(range(x.meta.ndim)), False)


def _mean(graph: Graph, x: Node, axes: Sequence[int]) -> Node:
    return graph.call(aten.mean.dim, x, list(axes), True, None)


@register_decomposition(aten.var.correction, aten.var.dim)
def variance(graph: Graph, x: Node, axes: Any = None, correction: Any = None, keep: bool = False) -> Node:
    """Return the mean square distance to the mean."""
    axes = axes or list(range(x.meta.ndim))
    count = math.prod(x.shape[axis] for axis in axes)
    centred = graph.call(aten.sub.Tensor, x, _mean(graph, x, axes))
    total = graph.call(aten.sum.dim_IntList, _square(graph, centred), list(axes), keep, None)
    return graph.call(aten.mul.Tensor, total, 1 / (count - (1 if correction is None else int(correction))))


def _normalised(graph: Graph, x: Node, axes: Sequence[int], eps: float) -> Node:
    centred = graph.call(aten.sub.Tensor, x, _mean(graph, x, axes))
    return _over_root(graph, centred, axes, eps)


def _over_root(graph: Graph, centred: Node, axes: Sequence[int], eps: float) -> Node:
    spread = graph.call(aten.add.Tensor, _mean(graph, _square(graph, centred), axes), eps)
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
        raise ValueError(
            f"module {graph.module!r}: batch norm in training mode mixes the samples; call eval(), or choose "
            "batch_norm='forward' (statistics of the clean batch as constants) or 'ibp' (of the middles of intervals)"
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
        raise ValueError(f"module {graph.module!r}: attention with enable_gqa is not supported; repeat the keys")
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
