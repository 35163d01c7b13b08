"""Random networks: graphs of operators with skips, shared weights, several inputs and outputs, made from a seed.

A network is a program of calls of ATen operators. It is an ordinary module, so it can be run and captured; and its
calls can be put into a graph one by one, which needs no capture.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from offprint.methods.certify.lirpa.capture import lower
from offprint.methods.certify.lirpa.graph import Graph, Node, complete

aten = torch.ops.aten


@dataclass(frozen=True)
class Ref:
    """A value of a program: an input or the result of a call, by number; ``part`` of it where it is a tuple."""

    index: int
    part: int | None = None


@dataclass(frozen=True)
class Weight:
    """A parameter of a program, by name."""

    name: str


@dataclass
class Step:
    """One call; its result is the next value of the program."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    keywords: dict[str, Any]


class Program(nn.Module):
    """A network as a list of calls."""

    def __init__(self, n_inputs: int, steps: list[Step], outputs: list[Ref], weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.n_inputs, self.steps, self.outputs = n_inputs, steps, outputs
        for name, value in weights.items():
            self.register_parameter(name, nn.Parameter(value))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.run(inputs, dict(self.named_parameters()))

    def run(self, inputs: Sequence[Tensor], weights: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs for these inputs and weights."""
        values: list[Any] = list(inputs)
        for step in self.steps:
            values.append(step.target(*_filled(step.args, values, weights), **step.keywords))
        return tuple(_filled(one, values, weights) for one in self.outputs)

    def to_dtype(self, dtype: torch.dtype) -> Program:
        """Return the same network with all its floating point numbers in another precision."""
        steps = [Step(step.target, _cast(step.args, dtype), step.keywords) for step in self.steps]
        weights = {name: value.detach().to(dtype) for name, value in self.named_parameters()}
        return Program(self.n_inputs, steps, self.outputs, weights)

    def graph(self, inputs: Sequence[Tensor]) -> Graph:
        """Return the calls as a graph for inputs of these shapes."""
        graph = Graph()
        values: list[Any] = [graph.root("input", i, one, f"input_{i}") for i, one in enumerate(inputs)]
        weights = {name: graph.root("parameter", name, value, name) for name, value in self.named_parameters()}

        def given(arg: Any) -> Any:
            if isinstance(arg, Tensor):
                return graph.constant(arg)
            return [given(one) for one in arg] if isinstance(arg, list | tuple) else arg

        for step in self.steps:
            args = tuple(given(a) for a in _filled(step.args, values, weights))
            values.append(lower(graph, step.target, complete(step.target, args, step.keywords)))
        graph.outputs = [_filled(one, values, weights) for one in self.outputs]
        assert all(isinstance(one, Node) for one in graph.outputs)
        return graph


def _filled(arg: Any, values: Sequence[Any], weights: dict[str, Any]) -> Any:
    if isinstance(arg, Ref):
        return values[arg.index] if arg.part is None else values[arg.index][arg.part]
    if isinstance(arg, Weight):
        return weights[arg.name]
    if isinstance(arg, list | tuple):
        return type(arg)(_filled(one, values, weights) for one in arg)
    return arg


def _cast(arg: Any, dtype: torch.dtype) -> Any:
    if isinstance(arg, Tensor):
        return arg.to(dtype) if arg.is_floating_point() else arg
    if isinstance(arg, list | tuple):
        return type(arg)(_cast(one, dtype) for one in arg)
    return arg


@dataclass
class Builder:
    """Writes a program while it is run on example inputs, so that the shape and the size of every value are known.

    Parameters
    ----------
    seed : int
    inputs : sequence of Tensor
        Samples on the first axis, as many of them in each.
    """

    seed: int
    inputs: Sequence[Tensor]
    steps: list[Step] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.values: list[Any] = list(self.inputs)

    @property
    def n_samples(self) -> int:
        return len(self.inputs[0])

    def value(self, ref: Ref | Weight) -> Tensor:
        """Return what a reference is on the example inputs."""
        found = _filled(ref, self.values, self.weights)
        assert isinstance(found, Tensor)
        return found

    def shape(self, ref: Ref | Weight) -> tuple[int, ...]:
        return tuple(self.value(ref).shape)

    def call(self, target: Callable[..., Any], *args: Any, **keywords: Any) -> Ref:
        """Add a call."""
        self.values.append(target(*_filled(args, self.values, self.weights), **keywords))
        self.steps.append(Step(target, args, keywords))
        return Ref(len(self.values) - 1)

    def part(self, ref: Ref, index: int) -> Ref:
        """Return one of the results of a call that has several."""
        return Ref(ref.index, index)

    def numbers(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Return random numbers, a constant of the program."""
        return scale * torch.randn(shape, dtype=torch.float64, generator=self.generator)

    def weight(self, *shape: int, scale: float | None = None) -> Weight:
        """Return a parameter of a shape: a new one, or one that is there already."""
        same = [name for name, value in self.weights.items() if tuple(value.shape) == shape]
        if same and self.random.random() < 0.4:
            return Weight(self.random.choice(same))
        name = f"w{len(self.weights)}"
        fan = 1
        for length in shape[1:]:
            fan *= length
        self.weights[name] = self.numbers(*shape, scale=scale or 1.2 / fan**0.5)
        return Weight(name)

    def choose(self, *options: Any) -> Any:
        return self.random.choice(options)

    def number(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def flag(self) -> bool:
        return self.random.random() < 0.5

    # --- values in a wanted form --------------------------------------------------------------------------------------

    def shaped(self, x: Ref, *rest: int) -> Ref:
        """Return a value of shape (samples, *rest) made of another: a view, or a linear layer and a view."""
        wanted, size = (self.n_samples, *rest), 1
        for length in rest:
            size *= length
        if self.shape(x) == wanted:
            return x
        flat = x if len(self.shape(x)) == 2 else self.call(aten.reshape.default, x, [self.n_samples, -1])
        if self.shape(flat)[1] != size:
            flat = self.call(aten.linear.default, flat, self.weight(size, self.shape(flat)[1]), None)
        return flat if self.shape(flat) == wanted else self.call(aten.reshape.default, flat, list(wanted))

    def vector(self, x: Ref) -> Ref:
        return self.shaped(x, self.choose(3, 4, 5))

    def sequence(self, x: Ref) -> Ref:
        return self.shaped(x, self.choose(2, 3), self.choose(2, 4))

    def image(self, x: Ref, n_axes: int, channels: int | None = None, size: int | None = None) -> Ref:
        """Return (samples, channels, *lengths), ``n_axes`` of these."""
        size = size or {1: 6, 2: 4, 3: 3}[n_axes]
        lengths = [self.choose(size, size + 1) if n_axes < 3 else size for _ in range(n_axes)]
        return self.shaped(x, channels or self.choose(1, 2), *lengths)

    def small(self, x: Ref) -> Ref:
        """Return values in [-1, 1]."""
        return self.call(self.choose(aten.tanh.default, aten.erf.default), x)

    def positive(self, x: Ref) -> Ref:
        """Return values that are away from zero whatever the input is, as intervals know too."""
        kind = self.choose("square", "abs", "sigmoid", "exp")
        if kind == "exp":
            return self.call(aten.exp.default, self.small(x))
        if kind == "square":
            return self.call(aten.add.Scalar, self.call(aten.pow.Tensor_Scalar, x, 2), self.number(0.3, 1))
        target = aten.abs.default if kind == "abs" else aten.sigmoid.default
        return self.call(aten.add.Scalar, self.call(target, x), self.number(0.3, 1))

    def tamed(self, x: Ref) -> Ref:
        """Return the same, scaled where it has become large and mixed to fewer numbers where they are many."""
        size = self.value(x).abs().max().item()
        if size > 3:
            x = self.call(aten.mul.Tensor, x, 2 / size)
        return self.vector(x) if self.value(x).numel() > 36 * self.n_samples else x


Piece = Callable[[Builder, Ref, Ref], Ref]


def write(seed: int, inputs: Sequence[Tensor], pieces: Sequence[Piece], n_outputs: int = 2) -> Program:
    """Return a program of the given pieces, in this order, joined in random ways.

    A piece takes two values (of any shapes) and returns one. What follows it may read it, add it to what went in,
    concatenate it, or take up something earlier.
    """
    builder = Builder(seed, inputs)
    pool = [Ref(i) for i in range(len(inputs))]
    last = pool[0]
    for piece in pieces:
        other = builder.random.choice(pool)
        result = builder.tamed(piece(builder, last, other))
        join = builder.random.random()
        if join < 0.2:
            result = builder.call(aten.add.Tensor, result, builder.shaped(last, *builder.shape(result)[1:]))
        elif join < 0.35:
            parts = [builder.shaped(one, 2) for one in (result, other, last)]
            result = builder.call(aten.cat.default, parts, 1)
        pool.append(result)
        # The first input is behind every result, so that what comes after it is perturbed where that is.
        last = result if builder.random.random() < 0.8 else builder.random.choice(pool[len(inputs) :])
    # Every input counts, and whatever came last.
    read = [*pool[: len(inputs)], *pool[-2:]]
    joined = builder.call(aten.cat.default, [builder.shaped(one, 3) for one in dict.fromkeys(read)], 1)
    head = builder.call(
        aten.linear.default, joined, builder.weight(3, builder.shape(joined)[1]), builder.weight(3, scale=0.3)
    )
    outputs = [head, *builder.random.sample(pool[len(inputs) :], min(n_outputs - 1, len(pool) - len(inputs)))]
    return Program(len(inputs), builder.steps, outputs, builder.weights)
