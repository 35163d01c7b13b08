"""One set of bounds to find: a graph with values at its roots, which roots are perturbed, and what is known so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.graph import Graph, Node, call_operator
from offprint.methods.certify.lirpa.operators.base import (
    Call,
    Input,
    Interval,
    Layout,
    MixedSamplesError,
    Operator,
    Relaxation,
    lookup,
)
from offprint.methods.certify.lirpa.perturbations import Perturbation


class UnsupportedOperatorError(NotImplementedError):
    """A perturbation reaches an operator that the library does not know."""


# Where perturbed nodes stand among the arguments of a call, and what its operator is told of them.
Places = list[tuple[Node, Input]]


@dataclass
class Plan:
    """What is known of a graph from which nodes are perturbed and how many samples there are, whatever the values."""

    perturbed: set[Node] = field(default_factory=set)
    layouts: dict[Node, Layout | None] = field(default_factory=dict)
    ancestors: dict[tuple[Node, ...], list[Node]] = field(default_factory=dict)
    inputs: dict[Node, list[Node]] = field(default_factory=dict)
    places: dict[Node, Places] = field(default_factory=dict)


def _layouts_depend_on_values(graph: Graph) -> bool:
    """Return whether operators take indices that are not part of the graph and may move samples."""
    outside = {node for node in graph.nodes if node.kind in ("input", "parameter", "buffer")}
    return any(one in outside and not one.meta.is_floating_point() for node in graph.nodes for one in node.inputs)


class Problem:
    """Values, layouts, intervals and relaxations of a graph's nodes under given perturbations, each found once.

    Parameters
    ----------
    graph : Graph
    values : mapping of Node to Tensor
        Of every root; the centre where it is perturbed.
    perturbations : mapping of Node to Perturbation
        Of the perturbed roots.
    n_samples : int or None
        Length of the first axis of the inputs; ``None`` where all is one sample.
    """

    def __init__(
        self,
        graph: Graph,
        values: Mapping[Node, Tensor],
        perturbations: Mapping[Node, Perturbation],
        n_samples: int | None,
    ) -> None:
        self.graph = graph
        self.perturbations = dict(perturbations)
        self.batched = n_samples is not None
        self.n_samples = n_samples or 1
        # A single sample needs no bookkeeping: all elements are its own.
        self.tracked = self.n_samples > 1
        self.values: dict[Node, Any] = dict(values)
        tensors = (value for value in values.values() if isinstance(value, Tensor))
        self.device = next((one.device for one in tensors), torch.device("cpu"))
        self.intervals: dict[Node, Interval] = {}
        self.known: Mapping[Node, Interval] = {}
        self.sharp: set[Node] = set()
        self.relaxations: dict[Node, Relaxation] = {}
        self._calls: dict[Node, Call] = {}
        self._boxes: dict[Node, tuple[Tensor, Tensor]] = {}
        key = (frozenset(self.perturbations), n_samples, len(graph.nodes))
        known = graph.plans.get(key)
        self._plan = Plan() if known is None else known
        self.perturbed = self._plan.perturbed
        self.layouts = self._plan.layouts
        if known is None:
            self._lay_out()
            if not _layouts_depend_on_values(graph):
                graph.plans[key] = self._plan

    def again(self, given: Mapping[Node, Interval]) -> Problem:
        """Return the same problem with these intervals given; those found here are to be intersected with new ones."""
        fresh = Problem(self.graph, self.values, self.perturbations, self.n_samples if self.batched else None)
        fresh.intervals.update(given)
        fresh.known = self.intervals
        return fresh

    def _lay_out(self) -> None:
        for node in self.graph.nodes:
            if node in self.perturbations or any(one in self.perturbed for one in node.inputs):
                self.perturbed.add(node)
        for node in self.graph.nodes:
            self.layouts[node] = self._layout(node)

    def value(self, node: Node) -> Any:
        """Return the value of a node at the centre, computed when first asked for."""
        stack = [node]
        while stack:
            one = stack[-1]
            missing = [i for i in one.inputs if i not in self.values]
            if one in self.values:
                stack.pop()
            elif missing:
                stack.extend(missing)
            else:
                assert one.target is not None
                self.values[one] = call_operator(one.target, tuple(self._resolved(a) for a in one.args))
                stack.pop()
        return self.values[node]

    def _resolved(self, arg: Any) -> Any:
        if isinstance(arg, Node):
            return self.values[arg]
        if isinstance(arg, (list, tuple)):
            return type(arg)(self._resolved(a) for a in arg)
        return arg

    def box(self, root: Node) -> tuple[Tensor, Tensor]:
        """Return the least and the greatest value of each element of a perturbed root."""
        if root not in self._boxes:
            region, centre = self.perturbations[root], self.value(root)
            if self.sampled(root):
                self._boxes[root] = region.box(centre)
            else:
                lower, upper = region.box(centre.unsqueeze(0))
                self._boxes[root] = lower.squeeze(0), upper.squeeze(0)
        return self._boxes[root]

    def sampled(self, node: Node) -> bool:
        """Return whether a root holds samples on its first axis: inputs and inner nodes do, parameters do not."""
        return self.batched and node.kind in ("input", None)

    def ancestors(self, *targets: Node) -> list[Node]:
        """Return the perturbed nodes that nodes depend on, themselves included, in an order of evaluation."""
        if targets not in self._plan.ancestors:
            found = set(targets)
            stack = list(targets)
            while stack:
                node = stack.pop()
                for one in () if node in self.perturbations else self.inputs(node):
                    if one not in found:
                        found.add(one)
                        stack.append(one)
            self._plan.ancestors[targets] = [node for node in self.graph.nodes if node in found]
        return self._plan.ancestors[targets]

    def operator(self, node: Node) -> Operator:
        """Return the operator of a perturbed node.

        Raises
        ------
        UnsupportedOperatorError
            If there is none.
        """
        assert node.target is not None
        operator = lookup(node.target)
        if operator is None:
            raise UnsupportedOperatorError(
                f"operator {node.target} of node {node!r} is not supported where a perturbation reaches it; "
                "teach it with offprint.methods.certify.lirpa.register_op(target, handler)"
            )
        return operator

    def call(self, node: Node) -> Call:
        """Return a perturbed node as its operator sees it."""
        if node not in self._calls:
            if node not in self._plan.places:
                self._plan.places[node] = self._places(node, self.perturbed)
            self._calls[node] = self._make_call(node, self._plan.places[node])
        return self._calls[node]

    def inputs(self, node: Node) -> list[Node]:
        """Return the perturbed inputs of a node, in the order of its call."""
        if node not in self._plan.inputs:
            self._plan.inputs[node] = [one for one in node.inputs if one in self.perturbed]
        return self._plan.inputs[node]

    def relaxation(self, node: Node) -> Relaxation:
        """Return the planes below and above a node on the intervals of its inputs, which must be known by now."""
        if node not in self.relaxations:
            operator = self.operator(node)
            intervals = (
                [self.intervals[i] for i in self.inputs(node)] if operator.needs_intervals(self.call(node)) else []
            )
            self.relaxations[node] = operator.relax(self.call(node), intervals)
        return self.relaxations[node]

    def _places(self, node: Node, inputs: set[Node]) -> Places:
        return [(one, Input(i, j, one.shape, self.layouts[one])) for i, j, one in node.places() if one in inputs]

    def _make_call(self, node: Node, places: Places) -> Call:
        assert node.target is not None

        def shown(arg: Any) -> Any:
            if isinstance(arg, Node):
                return arg.meta if arg in self.perturbed else self.value(arg)
            if isinstance(arg, (list, tuple)):
                return type(arg)(shown(a) for a in arg)
            return arg

        return Call(
            name=repr(node),
            target=node.target,
            args=tuple(shown(a) for a in node.args),
            inputs=tuple(one for _, one in places),
            shape=node.shape,
            layout=self.layouts.get(node),
            dtype=node.meta.dtype,
            device=self.device,
            value=lambda i: self.value(places[i][0]),
        )

    def _layout(self, node: Node) -> Layout | None:
        if not self.tracked:
            return None
        if node.target is None or node in self.perturbations:
            ours = self.sampled(node) and node.shape[:1] == (self.n_samples,)
            return Layout(0, self.n_samples) if ours else None
        laid = {one for one in node.inputs if self.layouts[one] is not None}
        if not laid:
            return None
        if node not in self.perturbed:
            # Constants may be labelled as one likes: what matters is only which of them meets which sample.
            operator = lookup(node.target)
            try:
                if operator is not None:
                    return operator.layout(self._make_call(node, self._places(node, laid)))
            except (MixedSamplesError, ValueError, RuntimeError):
                pass
            return Layout(0, self.n_samples) if node.shape[:1] == (self.n_samples,) else None
        operator = self.operator(node)
        try:
            return operator.layout(self._make_call(node, self._places(node, laid | self.perturbed)))
        except MixedSamplesError:
            return operator.layout(self._make_call(node, self._places(node, self.perturbed)))


def split_elements(tensor: Tensor, layout: Layout | None) -> Tensor:
    """Turn ``(rows, *shape)`` into ``(rows, samples, elements of a sample)``; without a layout all is one sample."""
    if layout is None:
        return tensor.reshape(tensor.shape[0], 1, -1)
    parts = torch.unflatten(tensor, layout.axis + 1, (layout.outer, layout.n_samples, layout.inner))
    return parts.movedim(layout.axis + 2, 1).flatten(2)


def join_elements(tensor: Tensor, shape: torch.Size, layout: Layout | None) -> Tensor:
    """Undo `split_elements`: from ``(rows, samples, elements)`` to ``(rows, *shape)``."""
    rows = tensor.shape[0]
    if layout is None:
        return tensor.reshape(rows, *shape)
    axis = layout.axis
    parts = tensor.reshape(rows, layout.n_samples, *shape[:axis], layout.outer, layout.inner, *shape[axis + 1 :])
    return parts.movedim(1, axis + 2).reshape(rows, *shape)
