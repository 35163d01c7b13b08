"""The network under linear relaxation, for batches of domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

import offprint.methods.certify.lirpa.operators.table  # noqa: F401  registers the operators
from offprint.methods.certify.lipschitz.jacobian import find_intervals as find_known_intervals
from offprint.methods.certify.lirpa.backward import concretize, pull
from offprint.methods.certify.lirpa.capture import capture
from offprint.methods.certify.lirpa.graph import Graph, Node
from offprint.methods.certify.lirpa.intervals import Sharpener
from offprint.methods.certify.lirpa.operators.base import Interval
from offprint.methods.certify.lirpa.optimise import Schedule
from offprint.methods.certify.lirpa.perturbations import Box
from offprint.methods.certify.lirpa.problem import Problem
from offprint.methods.certify.verification.task import Task

aten = torch.ops.aten
_KINKS = (aten.relu.default, aten.leaky_relu.default, aten.abs.default)


@dataclass(frozen=True)
class Relaxed:
    """The network's graph for a batch size.

    Parameters
    ----------
    graph : Graph
    input, output : Node
    kinks : list of Node
        Functions of two straight pieces that meet at 0.
    splits : list of Node
        Their inputs, each once: what ReLU splitting splits.
    joined : Node
        The output and then the splits, flattened, beside each other.
    """

    graph: Graph
    input: Node
    output: Node
    kinks: list[Node]
    splits: list[Node]
    joined: Node


class Network:
    """Makes a :class:`.Relaxed` network for each batch size that is asked for, and problems on it."""

    def __init__(self, task: Task, batch: int) -> None:
        self.task = task
        self.batch = batch if task.batched else 1
        self._known: dict[int, Relaxed] = {}

    def size(self, n: int) -> int:
        """Return the size of a batch that ``n`` domains are filled up to: few, as the network is captured for each."""
        size = 1
        while size < n:
            size *= 8
        return min(size, max(self.batch, n))

    def unknown_splits(self) -> Tensor:
        """Return what is known of the splits' intervals at first, (2, n_splits): nothing."""
        n = sum(node.shape.numel() for node in self.relaxed(1).splits)
        ends = torch.full((2, n), torch.inf, dtype=self.task.dtype, device=self.task.device)
        ends[0] = -torch.inf
        return ends

    def relaxed(self, batch: int) -> Relaxed:
        """Return the network for a batch size."""
        if batch not in self._known:
            self._known[batch] = self._capture(batch)
        return self._known[batch]

    def _capture(self, batch: int) -> Relaxed:
        task = self.task
        shape = (batch, *task.sample_shape) if task.batched else task.input_shape
        graph = capture(task.model, [torch.zeros(shape, dtype=task.dtype, device=task.device)])
        (root,) = [node for node in graph.nodes if node.kind == "input"]
        output = graph.outputs[0]
        reached = {root}
        for node in graph.nodes:
            if any(one in reached for one in node.inputs):
                reached.add(node)
        needed = {output}
        for node in reversed(graph.nodes):
            if node in needed:
                needed.update(node.inputs)
        kinks = [node for node in graph.nodes if node.target in _KINKS and node in reached and node in needed]
        splits = list(dict.fromkeys(next(iter(node.inputs)) for node in kinks))
        joined = output
        if splits and task.batched:
            flat = [graph.call(aten.reshape.default, one, [batch, -1]) for one in (output, *splits)]
            joined = graph.call(aten.cat.default, flat, 1)
        return Relaxed(graph, root, output, kinks, splits, joined)

    def problem(self, lower: Tensor, upper: Tensor) -> tuple[Relaxed, Problem]:
        """Return the problem of bounding on boxes (batch, n_inputs), with no intervals known."""
        task = self.task
        relaxed = self.relaxed(len(lower))
        shape = relaxed.input.shape
        lower, upper = lower.reshape(shape), upper.reshape(shape)
        values: dict[Node, Tensor] = {}
        for node in relaxed.graph.nodes:
            if node.kind == "input":
                values[node] = (lower + upper) / 2
            elif node.kind == "parameter":
                values[node] = task.model.get_parameter(node.key)
            elif node.kind == "buffer":
                values[node] = task.model.get_buffer(node.key)
            elif node.kind == "constant":
                values[node] = node.key
        n_samples = len(lower) if task.batched else None
        return relaxed, Problem(relaxed.graph, values, {relaxed.input: Box(lower, upper)}, n_samples)


@dataclass(frozen=True)
class LinearBound:
    """``coefficients @ x + constant`` below each row on each domain, and its least value there.

    Shapes: (rows, domains, n_inputs), (rows, domains), (rows, domains).
    """

    coefficients: Tensor
    constant: Tensor
    least: Tensor


def lower_bound(relaxed: Relaxed, problem: Problem, node: Node, rows: Tensor, side: bool = False) -> LinearBound:
    """Bound rows (rows, domains, elements) of a node from below (or above); intervals must be known."""
    n_rows, n_domains = rows.shape[:2]
    pulled = pull(problem, node, rows.reshape(n_rows, *node.shape), (side,))
    (least,) = concretize(problem, pulled, (side,))
    # Numbers that have overflowed say nothing.
    least = torch.where(least.isnan(), torch.inf if side else -torch.inf, least)
    coefficients = pulled.coefficients.get(relaxed.input)
    if coefficients is None:  # the rows do not depend on the input
        coefficients = rows.new_zeros(1, n_rows, n_domains, relaxed.input.shape.numel() // n_domains)
    flat = coefficients[0].reshape(n_rows, n_domains, -1)
    return LinearBound(flat, pulled.constant[0].expand(n_rows, n_domains), least)


def find_intervals(
    relaxed: Relaxed, problem: Problem, known: Mapping[Node, Interval] | None = None, *, optimise: bool = False
) -> None:
    """Find intervals of everything that the output depends on, by backward propagation.

    What is known is intersected with what is found: a kink that was decided in a larger domain needs no rows of its
    own. With ``optimise`` slopes are optimised for each element that is still open.
    """
    sharpeners = (Sharpener(), Sharpener(schedule=Schedule())) if optimise else (Sharpener(),)
    with torch.no_grad():
        find_known_intervals(problem, relaxed.output, known, sharpeners)


def intervals_of_splits(relaxed: Relaxed, ends: Tensor) -> dict[Node, Interval]:
    """Return ends (domains, 2, n_splits) as the interval of each split."""
    parts = torch.split(ends, [node.shape.numel() // len(ends) for node in relaxed.splits], 2)
    return {
        node: Interval(part[:, 0].reshape(node.shape), part[:, 1].reshape(node.shape))
        for node, part in zip(relaxed.splits, parts, strict=True)
    }


def ends_of_splits(relaxed: Relaxed, problem: Problem, n: int) -> Tensor:
    """Return the ends of the intervals of the splits of ``n`` domains, (domains, 2, n_splits)."""
    parts = [torch.stack([end.reshape(n, -1) for end in problem.intervals[node]][:2], 1) for node in relaxed.splits]
    return torch.cat(parts, 2) if parts else torch.empty(n, 2, 0)


def corners(coefficients: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return where linear functions (..., n_inputs) are least in boxes that broadcast against them."""
    return torch.where(coefficients > 0, lower, upper)
