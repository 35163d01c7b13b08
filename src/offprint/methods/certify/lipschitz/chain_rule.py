"""The chain rule of each operator of a network, written as operators of the same kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.graph import Graph, Node
from offprint.methods.certify.lirpa.operators.convolution import Convolution
from offprint.methods.certify.lirpa.problem import Problem

aten = torch.ops.aten
Gradient = Tensor | Node
"""A constant for the last layers, behind every activation; a node of the new graph for the others."""


class Tape:
    """Writes the gradient's graph, each operator for all rows at once.

    Parameters
    ----------
    forward : Problem
        The network with values; only what no perturbation reaches (weights) is read from it.
    n_rows : int
        Length of the first axis of all gradients, where the network's tensors have their samples: a multiple of these.
    """

    def __init__(self, forward: Problem, n_rows: int) -> None:
        self.forward = forward
        self.n_rows = n_rows
        self.graph = Graph()
        self.values: dict[Node, Tensor] = {}

    def call(self, target: Callable[..., Any], *args: Any) -> Gradient:
        """Return the output of an operator: at once where all is constant, as a new node otherwise."""
        if not any(isinstance(one, Node) for one in args):
            result = target(*args)
            assert isinstance(result, Tensor)
            return result
        return self.graph.call(target, *(self.given(one) if isinstance(one, Tensor) else one for one in args))

    def given(self, value: Tensor) -> Node:
        """Return a constant as a root; with samples on its first axis where it has as many as there are rows."""
        kind = "input" if value.ndim > 0 and len(value) == self.n_rows else "parameter"
        node = self.graph.root(kind, None, value, "given")  # type: ignore[arg-type]
        self.values[node] = value
        return node

    def constant(self, node: Node) -> Tensor:
        """Return the value of a constant of the network, each sample's once for every row of it."""
        value = self.forward.value(node)
        assert isinstance(value, Tensor)
        return self.by_row(value) if self.forward.layouts[node] is not None else value

    def by_row(self, value: Tensor) -> Tensor:
        """Repeat what each sample has for every row of it."""
        return value.repeat_interleave(self.n_rows // len(value), 0)

    def shape(self, node: Node) -> list[int]:
        """Return the shape of a gradient of a node."""
        return [self.n_rows, *node.shape[1:]]

    def add(self, first: Gradient | None, second: Gradient) -> Gradient:
        """Return the sum: the gradients of several uses of a node add up."""
        return second if first is None else self.call(aten.add.Tensor, first, second)

    def times(self, gradient: Gradient, factor: float | Tensor) -> Gradient:
        """Return a multiple."""
        if not isinstance(factor, Tensor):
            return gradient if factor == 1 else self.call(aten.mul.Tensor, gradient, self._number(gradient, factor))
        return self.call(aten.mul.Tensor, gradient, factor)

    def _number(self, gradient: Gradient, factor: float) -> Tensor:
        like = next(iter(self.forward.values.values()))
        return torch.tensor(factor, dtype=like.dtype, device=like.device)

    def summed(self, gradient: Gradient, shape: Sequence[int]) -> Gradient:
        """Undo broadcasting: sum a gradient to a shape."""
        current = gradient.shape
        if list(current) == list(shape):
            return gradient
        axes = [i for i, (ours, theirs) in enumerate(zip(current, shape, strict=True)) if ours != theirs]
        return self.call(aten.sum.dim_IntList, gradient, axes, True)


Rule = Callable[[Tape, Node, Gradient], list[Gradient]]
_rules: dict[Any, Rule] = {}


def register_chain_rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Return a decorator that makes a function the chain rule of operators.

    Parameters
    ----------
    targets : torch.ops overloads
        As they appear in a captured graph. Functions of one number need no rule: their ``derivative_range`` is enough.

    Returns
    -------
    callable
        It takes ``(tape, node, gradient)``, the gradient with respect to the node's output, and returns the gradients
        with respect to each of its perturbed inputs, made with `Tape.call`.

    Raises
    ------
    TypeError
        If a target is not callable.

    Examples
    --------
    >>> import torch
    >>> @register_chain_rule(torch.ops.aten.alias.default)
    ... def alias(tape, node, gradient):
    ...     return [gradient]
    """
    for target in targets:
        if not callable(target):
            raise TypeError(f"targets: expected operators as in torch.ops.aten, got {target!r}")

    def register(rule: Rule) -> Rule:
        _rules.update(dict.fromkeys(targets, rule))
        return rule

    return register


def chain_rule(target: Any) -> Rule | None:
    """Return the rule of an operator, or ``None``."""
    return _rules.get(target)


def _perturbed(tape: Tape, node: Node, position: int) -> bool:
    return any(place == position and one in tape.forward.perturbed for place, _, one in node.places())


def _refuse_product(tape: Tape, node: Node) -> None:
    if len(tape.forward.inputs(node)) > 1:
        raise ValueError(
            f"model: node {node!r} multiplies two tensors that both depend on the input, not element by element"
        )


@register_chain_rule(aten.linear.default)
def linear(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """Multiply by the weight from the right."""
    _refuse_product(tape, node)
    return [tape.call(aten.matmul.default, gradient, tape.constant(node.args[1]))]


@register_chain_rule(aten.matmul.default)
def matmul(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """Multiply by the transpose of the constant factor."""
    _refuse_product(tape, node)
    left, right = node.args[:2]
    if _perturbed(tape, node, 0):
        return [tape.summed(tape.call(aten.matmul.default, gradient, tape.constant(right).mT), tape.shape(left))]
    return [tape.summed(tape.call(aten.matmul.default, tape.constant(left).mT, gradient), tape.shape(right))]


@register_chain_rule(
    *(getattr(aten, f"conv{n}d").default for n in (1, 2, 3)),
    *(getattr(aten, f"conv{n}d").padding for n in (1, 2, 3)),
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
)
def convolution(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """Convolve the other way, with the padding of the output that restores the shape of the input."""
    _refuse_product(tape, node)
    operator = tape.forward.operator(node)
    assert isinstance(operator, Convolution)
    layout = operator.geometry(tape.forward.call(node))
    weight, size, back = tape.constant(node.args[1]), node.args[0].shape[2:], node.shape[2:]
    if layout.transposed:
        target = getattr(aten, f"conv{len(size)}d").default
        return [
            tape.call(target, gradient, weight, None, layout.stride, layout.padding, layout.dilation, layout.groups)
        ]
    geometry = (layout.stride, layout.padding, layout.dilation, layout.groups)
    return [_transposed(tape, gradient, weight, *geometry, size, back)]


def _transposed(
    tape: Tape,
    gradient: Gradient,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    size: Sequence[int],
    back: Sequence[int],
) -> Gradient:
    extra = [
        n - ((o - 1) * s - 2 * p + d * (k - 1) + 1)
        for n, o, s, p, d, k in zip(size, back, stride, padding, dilation, weight.shape[2:], strict=True)
    ]
    packet = getattr(aten, f"conv_transpose{len(extra)}d")
    target = packet.default if len(extra) == 1 else packet.input
    return tape.call(target, gradient, weight, None, list(stride), list(padding), extra, groups, list(dilation))


@register_chain_rule(*(getattr(aten, f"avg_pool{n}d").default for n in (1, 2, 3)))
def average_pool(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """Spread every mean evenly: a transposed convolution with a constant kernel."""
    ndim = len(node.shape) - 2

    def each(value: Any) -> list[int]:
        values = [value] if isinstance(value, int) else list(value)
        return values * ndim if len(values) == 1 else values

    kernel = each(node.args[1])
    stride, padding = (each(node.args[2]) or kernel), each(node.args[3])
    ceil, with_padding = node.args[4], node.args[5]
    divisor = node.args[6] if len(node.args) > 6 else None
    if ceil or (any(padding) and not with_padding):
        raise ValueError(
            f"model: average pooling {node!r} divides by different counts; use ceil_mode=False and no padding"
        )
    return [_spread(tape, node, gradient, kernel, stride, padding, divisor or math.prod(kernel))]


@register_chain_rule(
    *(getattr(aten, f"adaptive_avg_pool{n}d").default for n in (1, 2, 3)),
    aten._adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool3d.default,
)
def adaptive_average_pool(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """The same, where the output's lengths divide the input's."""
    before, after = node.args[0].shape[2:], node.shape[2:]
    if any(n % m for n, m in zip(before, after, strict=True)):
        raise ValueError(
            f"model: adaptive average pooling {node!r} from {tuple(before)} to {tuple(after)}, which is no divisor"
        )
    kernel = [n // m for n, m in zip(before, after, strict=True)]
    return [_spread(tape, node, gradient, kernel, kernel, [0] * len(kernel), math.prod(kernel))]


def _spread(
    tape: Tape,
    node: Node,
    gradient: Gradient,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    divisor: int,
) -> Gradient:
    like = next(iter(tape.forward.values.values()))
    weight = like.new_full((node.shape[1], 1, *kernel), 1 / divisor)
    size, back = node.args[0].shape[2:], node.shape[2:]
    return _transposed(tape, gradient, weight, stride, padding, [1] * len(kernel), node.shape[1], size, back)


@register_chain_rule(aten.add.Tensor, aten.add.Scalar)
def add(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """The same gradient to both."""
    return _weighted(tape, node, gradient, (1.0, node.args[2]))


@register_chain_rule(aten.sub.Tensor, aten.sub.Scalar)
def subtract(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """The gradient, and its negative."""
    return _weighted(tape, node, gradient, (1.0, -node.args[2]))


@register_chain_rule(aten.rsub.Tensor, aten.rsub.Scalar)
def subtract_from(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """The other way round."""
    return _weighted(tape, node, gradient, (-node.args[2], 1.0))


@register_chain_rule(aten.neg.default)
def negate(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """The negative."""
    return _weighted(tape, node, gradient, (-1.0,))


def _weighted(tape: Tape, node: Node, gradient: Gradient, weights: Sequence[float]) -> list[Gradient]:
    return [
        tape.summed(tape.times(gradient, weights[position]), tape.shape(one))
        for position, _, one in node.places()
        if one in tape.forward.perturbed
    ]


@register_chain_rule(aten.mul.Tensor)
def multiply(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """Multiply by the constant factor; two factors that depend on the input are slopes of each other."""
    (one,) = tape.forward.inputs(node)
    other = node.args[1] if _perturbed(tape, node, 0) else node.args[0]
    factor = tape.constant(other) if isinstance(other, Node) else float(other)
    return [tape.summed(tape.times(gradient, factor), tape.shape(one))]


@register_chain_rule(
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
)
def reshape(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """Back to the shape of the input."""
    return [tape.call(aten.reshape.default, gradient, tape.shape(node.args[0]))]


@register_chain_rule(
    *(aten.permute.default, aten.transpose.int, aten.mT.default, aten.swapaxes.default, aten.swapdims.default),
    *(aten.movedim.int, aten.movedim.intlist, aten.moveaxis.int),
)
def permute(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """The axes back into their order."""
    ndim = len(node.shape)
    shown = torch.empty(tuple(range(1, ndim + 1)), device="meta")
    order = [length - 1 for length in node.target(shown, *node.args[1:]).shape]  # type: ignore[misc]
    return [tape.call(aten.permute.default, gradient, [order.index(axis) for axis in range(ndim)])]


@register_chain_rule(aten.expand.default)
def expand(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """Sum over what was repeated."""
    return [tape.summed(gradient, tape.shape(node.args[0]))]


@register_chain_rule(aten.mean.dim, aten.sum.dim_IntList)
def reduce(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """Repeat what was summed, divided by how many there were."""
    before = node.args[0].shape
    given = node.args[1] if node.args[1] else list(range(len(before)))
    axes = sorted(axis % len(before) for axis in ([given] if isinstance(given, int) else given))
    kept = [1 if i in axes else n for i, n in enumerate(before)]
    gradient = tape.call(aten.reshape.default, gradient, [tape.n_rows, *kept[1:]])
    if node.target is aten.mean.dim:
        gradient = tape.times(gradient, 1 / math.prod(before[axis] for axis in axes))
    return [tape.call(aten.expand.default, gradient, tape.shape(node.args[0]))]


@register_chain_rule(aten.slice.Tensor, aten.select.int)
def cut(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """Zeros around the part that was taken."""
    one, axis = node.args[0], node.args[1] % len(node.args[0].shape)
    length = one.shape[axis]
    if node.target is aten.select.int:
        start = node.args[2] % length
        gradient = tape.call(aten.unsqueeze.default, gradient, axis)
        stop = start + 1
    else:
        start, stop, step = slice(*node.args[2:5]).indices(length)
        if step != 1:
            raise ValueError(f"model: node {node!r} slices with step {step}, which has no chain rule here")
    padding = [0, 0] * (len(one.shape) - axis - 1) + [start, length - stop]
    return [tape.call(aten.constant_pad_nd.default, gradient, padding)]


@register_chain_rule(aten.cat.default, aten.concat.default, aten.concatenate.default)
def concatenate(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """To each its part."""
    axis, start, parts = node.args[1] % len(node.shape), 0, []
    for one in node.args[0]:
        stop = start + one.shape[axis]
        if one in tape.forward.perturbed:
            parts.append(tape.call(aten.slice.Tensor, gradient, axis, start, stop))
        start = stop
    return parts


@register_chain_rule(aten.constant_pad_nd.default, aten.pad.default)
def pad(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    """Without the margins."""
    mode = node.args[2] if node.target is aten.pad.default else "constant"
    if mode != "constant":
        raise ValueError(f"model: node {node!r} pads with mode {mode!r}, which has no chain rule here; use zeros")
    margins = node.args[1]
    for i in range(0, len(margins), 2):
        axis = len(node.shape) - 1 - i // 2
        before, after = margins[i : i + 2]
        if min(before, after) < 0:
            raise ValueError(
                f"model: node {node!r} pads by negative amounts, which has no chain rule here; use a slice"
            )
        gradient = tape.call(aten.slice.Tensor, gradient, axis, before, node.shape[axis] - after)
    return [gradient]
