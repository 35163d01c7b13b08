"""Operators in simpler pieces: synonyms, divisions, splits.

A decomposition is a function of the graph and the operator's arguments, in the order of its schema, that adds the
pieces and returns their result. Normalisation layers and attention are in ``layers.py``,
recurrent layers in ``recurrent.py``.
"""

from __future__ import annotations

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


def forget_decomposition(target: Any) -> None:
    """Let an operator stay as it is."""
    _decompositions.pop(target, None)


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
    if _is_one_plus_size(y, x):
        return graph.call(softsign, x)
    return _multiply(graph, x, graph.call(aten.reciprocal.default, y))


def softsign(x: Tensor) -> Tensor:
    """Return ``x / (1 + |x|)``, which torch takes apart and bounds are tighter for as one."""
    return x / (1 + x.abs())


def _is_one_plus_size(y: Node, x: Any) -> bool:
    if y.target not in (aten.add.Tensor, aten.add.Scalar):
        return False
    sizes, ones = [one for one in y.args[:2] if isinstance(one, Node)], [one for one in y.args if one == 1]
    return len(sizes) == 1 and len(ones) == 2 and sizes[0].target is aten.abs.default and sizes[0].args[0] is x


@register_decomposition(aten.mul.Tensor, aten.mul.Scalar)
def multiply(graph: Graph, x: Any, y: Any) -> Node:
    """Recognise squares, which are bounded better than products of two unrelated tensors."""
    return _multiply(graph, x, y)


def _multiply(graph: Graph, x: Any, y: Any) -> Node:
    return square(graph, x) if x is y else graph.call(aten.mul.Tensor, x, y)


@register_decomposition(aten.square.default)
def square(graph: Graph, x: Node) -> Node:
    """Raise to the power of two."""
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


@register_decomposition(aten.glu.default)
def gated_linear_unit(graph: Graph, x: Node, axis: int = -1) -> Node:
    """Multiply one half by the sigmoid of the other."""
    value, gate = chunk(graph, x, 2, axis)
    return _multiply(graph, value, graph.call(aten.sigmoid.default, gate))


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
