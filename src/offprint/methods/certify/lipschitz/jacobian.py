"""The graph of a network's Jacobian over a region, and bounds on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from offprint.methods.certify.lipschitz.chain_rule import Gradient, Tape, chain_rule
from offprint.methods.certify.lipschitz.slopes import (
    Watched,
    products,
    slope_times,
    slope_times_by_constants,
)
from offprint.methods.certify.lirpa.backward import Pulled, concretize, pull, unit_rows
from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.intervals import Sharpen, Sharpener, exact_interval, push_one, worth
from offprint.methods.certify.lirpa.operators.base import ElementwiseOperator, Interval, LinesRelaxation
from offprint.methods.certify.lirpa.operators.pooling import AMax, Maximum, MaxPool
from offprint.methods.certify.lirpa.perturbations import Box, Perturbation
from offprint.methods.certify.lirpa.problem import Problem

aten = torch.ops.aten
Relaxing = Literal["hull", "constants", "intervals"]
Known = Mapping[Node, Interval]


def find_intervals(
    problem: Problem, target: Node, known: Known | None = None, sharpeners: Sequence[Sharpen] = ()
) -> None:
    """Find intervals of all that a node depends on, sharper ones where a relaxation looks at them.

    What is ``known`` of a node (from the domain that a smaller one was split off, say) is intersected with what is
    found. Sharpeners come one after the other, each for the elements that are still worth it.
    """
    known = known or {}
    order = problem.ancestors(target)
    readers: dict[Node, list[Node]] = {}
    for node in order:
        if node not in problem.perturbations and problem.operator(node).needs_intervals(problem.call(node)):
            for one in problem.inputs(node):
                readers.setdefault(one, []).append(node)
    for node in order:
        if node in problem.intervals:
            continue
        problem.intervals[node] = push_one(problem, node)
        if node in known:
            problem.intervals[node] = intersection(problem.intervals[node], known[node])
        if node in readers and node not in problem.perturbations and not exact_interval(problem, node):
            for sharpen in sharpeners:
                sharpen(problem, node, worth(problem, node, readers[node]))


def intersection(first: Interval, second: Interval) -> Interval:
    """Return what two intervals have in common; where rounding leaves nothing, the point where they meet."""
    lower = torch.maximum(first.lower, second.lower)
    return Interval(lower, torch.maximum(lower, torch.minimum(first.upper, second.upper)))


@dataclass(frozen=True)
class Product:
    """One activation in the gradient's graph.

    Parameters
    ----------
    activation : Node
        In the network's graph.
    inputs : Node
        Its input there, whose sign (or value) decides the slope.
    node : Node
        In the gradient's graph: gradient times slope.
    least, greatest : Tensor
        Range of the slopes, for each row.
    gradient : Tensor or Node
        What is multiplied; a constant where no activation comes after this one.
    """

    activation: Node
    inputs: Node
    node: Node
    least: Tensor
    greatest: Tensor
    gradient: Gradient


@dataclass
class Jacobian:
    """The gradient of rows of outputs with respect to the input, as a graph with bounds.

    Parameters
    ----------
    problem : Problem
        Of the gradient's graph; each row is a sample of it.
    node : Tensor or Node
        The gradient with respect to the input, of shape (rows, *input); a constant for a linear model.
    total : Tensor or Node
        The l1 norm of each row, or the square of its l2 norm.
    products : list of Product
        From the last activation to the first.
    linear : bool
        Whether linear bounds are pulled back; otherwise intervals are pushed forward and that is all.
    sharpeners : sequence of callable
        How intervals are made sharper than what is pushed forward.
    known : dict of Node to Interval
        What is known already.
    pulled : Pulled, optional
        What `norm` pulled back to the roots.
    """

    problem: Problem
    node: Gradient
    total: Gradient
    products: list[Product]
    linear: bool
    sharpeners: Sequence[Sharpen]
    known: dict[Node, Interval] = field(default_factory=dict)
    pulled: Pulled | None = None

    def entries(self) -> Interval:
        """Return bounds of every entry, (rows, *input)."""
        if isinstance(self.node, Tensor):
            return Interval(self.node, self.node)
        find_intervals(self.problem, self.node, self.known, self.sharpeners)
        if not exact_interval(self.problem, self.node):
            for sharpen in self.sharpeners:
                sharpen(self.problem, self.node, None)
        return self.problem.intervals[self.node]

    def dot(self, vector: Tensor) -> Interval:
        """Return bounds of the products of every row with a vector (rows, *input)."""
        if isinstance(self.node, Tensor):
            exact = (self.node * vector).flatten(1).sum(1)
            return Interval(exact, exact)
        find_intervals(self.problem, self.node, self.known, self.sharpeners)
        interval = self.problem.intervals[self.node]
        lower, upper = (end.flatten(1).sum(1) for end in products(interval.lower, interval.upper, vector, vector))
        if not self.linear:
            return Interval(lower, upper)
        pulled = pull(self.problem, self.node, vector.unsqueeze(0), (False, True))
        below, above = concretize(self.problem, pulled, (False, True))
        return intersection(Interval(lower, upper), Interval(below[0], above[0]))

    def norm(self, watch: bool = False) -> Tensor:
        """Return upper bounds of the l1 norm of each row, or of the square of its l2 norm.

        With ``watch`` the relaxations of the products know afterwards which coefficients met them.
        """
        if isinstance(self.total, Tensor):
            return self.total
        find_intervals(self.problem, self.total, self.known, self.sharpeners)
        bound = self.problem.intervals[self.total].upper
        if not self.linear:
            return bound
        if watch:
            self._watch()
        self.pulled = pull(self.problem, self.total, unit_rows(self.problem, self.total, bound), (True,))
        return torch.minimum(bound, concretize(self.problem, self.pulled, (True,))[0][0])

    def _watch(self) -> None:
        for product in self.products:
            if product.node not in self.problem.perturbations:
                relaxation = self.problem.relaxation(product.node)
                if isinstance(relaxation, LinesRelaxation):
                    self.problem.relaxations[product.node] = Watched(relaxation)

    def weight(self, product: Product) -> Tensor:
        """Return the size of the coefficients at a product, (rows, *its shape), after `norm` has watched."""
        if product.node in self.problem.perturbations:
            return self._at_root(product.node).abs()
        relaxation = self.problem.relaxations[product.node]
        assert isinstance(relaxation, Watched)
        return relaxation.weight

    def _at_root(self, node: Node) -> Tensor:
        assert self.pulled is not None
        rows = self.pulled.coefficients.get(node)
        return torch.zeros_like(self.problem.values[node]) if rows is None else rows[0, 0]

    def intercept(self, product: Product) -> Tensor:
        """Return the coefficients times the constants of the lines that they met, after `norm` has watched."""
        if product.node in self.problem.perturbations:
            assert isinstance(product.gradient, Tensor)
            lower, upper = products(product.gradient, product.gradient, product.least, product.greatest)
            return self._at_root(product.node).abs() * (upper - lower)
        relaxation = self.problem.relaxations[product.node]
        assert isinstance(relaxation, Watched)
        return relaxation.intercept

    def gradient_range(self, product: Product) -> Interval:
        """Return the interval of the gradient that a product multiplies."""
        if isinstance(product.gradient, Tensor):
            return Interval(product.gradient, product.gradient)
        return self.problem.intervals[product.gradient]


def differentiate(
    forward: Problem, rows: Tensor, order: int, relaxing: Relaxing = "hull", memory: int = 2**30
) -> Jacobian:
    """Return the Jacobian of a network on a region.

    Parameters
    ----------
    forward : Problem
        The network; the intervals of the inputs of its activations must be known.
    rows : Tensor, shape (samples * rows, outputs)
        What multiplies the Jacobian from the left, the rows of a sample next to each other.
    order : {1, 2}
        Which norm of the rows is bounded.
    relaxing : {"hull", "constants", "intervals"}
        The convex hull of gradient times slope, RecurJac's constants where the gradient's sign is open, or intervals.
    memory : int
        About how many bytes the coefficients of one chunk of rows may take.

    Notes
    -----
    The gradient starts as a constant. Where it first meets an activation their product is known exactly, a box; these
    boxes are what the rest of the graph depends on, and the input itself no longer is.
    """
    tape = Tape(forward, len(rows))
    output = forward.graph.outputs[0]
    pending: dict[Node, Gradient] = {output: rows}
    found: list[Product] = []
    perturbations: dict[Node, Perturbation] = {}
    target = slope_times_by_constants if relaxing == "constants" else slope_times
    for node in reversed(forward.ancestors(output)):
        gradient = pending.pop(node, None)
        if gradient is None or node in forward.perturbations:
            if gradient is not None:
                pending[node] = gradient
            continue
        parts: list[Gradient] = []
        for one, least, greatest in _slopes(forward, node):
            least, greatest = tape.by_row(least), tape.by_row(greatest)
            if isinstance(gradient, Tensor):
                product = _boxed(tape, gradient.expand(least.shape), least, greatest, perturbations)
            else:
                made = tape.call(target, gradient, least, greatest)
                assert isinstance(made, Node)
                product = made
            found.append(Product(node, one, product, least, greatest, gradient))
            parts.append(tape.summed(product, tape.shape(one)))
        if not parts:
            parts = _by_rule(tape, node, gradient)
        for one, part in zip(forward.inputs(node), parts, strict=True):
            pending[one] = tape.add(pending.get(one), part)
    (root,) = forward.perturbations
    last = pending.get(root, rows.new_zeros(len(rows), *root.shape[1:]))
    total = _total(tape, last, order)
    problem = Problem(tape.graph, tape.values, perturbations, len(rows))
    linear = relaxing != "intervals"
    return Jacobian(problem, last, total, found, linear, (Sharpener(memory),) if linear else ())


def _total(tape: Tape, gradient: Gradient, order: int) -> Gradient:
    sizes = tape.call(aten.abs.default, gradient) if order == 1 else tape.call(aten.pow.Tensor_Scalar, gradient, 2)
    return tape.call(aten.sum.dim_IntList, sizes, list(range(1, len(sizes.shape))))


def _boxed(
    tape: Tape, gradient: Tensor, least: Tensor, greatest: Tensor, perturbations: dict[Node, Perturbation]
) -> Node:
    lower, upper = products(gradient, gradient, least, greatest)
    if not bool(torch.isfinite(lower).all()) or not bool(torch.isfinite(upper).all()):
        raise ValueError("eps: the bounds overflow in a region this large; expected a smaller one")
    node = tape.graph.root("input", None, lower, "product")
    tape.values[node] = (lower + upper) / 2
    perturbations[node] = Box(lower, upper)
    return node


def activation_inputs(forward: Problem) -> list[Node]:
    """Return the nodes whose intervals decide slopes, from the last to the first."""
    output = forward.graph.outputs[0]
    return list(dict.fromkeys(one for node in reversed(forward.ancestors(output)) for one in _deciding(forward, node)))


def _deciding(forward: Problem, node: Node) -> list[Node]:
    if node in forward.perturbations:
        return []
    inputs = forward.inputs(node)
    both = node.target is aten.mul.Tensor and len(inputs) == 2
    return inputs if both or isinstance(forward.operator(node), ElementwiseOperator) else []


def _slopes(forward: Problem, node: Node) -> list[tuple[Node, Tensor, Tensor]]:
    """Return for each input of a function that works element by element the range of its derivative."""
    inputs = _deciding(forward, node)
    if len(inputs) == 2:
        return [
            (one, forward.intervals[other].lower.expand(node.shape), forward.intervals[other].upper.expand(node.shape))
            for one, other in zip(inputs, reversed(inputs), strict=True)
        ]
    if not inputs:
        return []
    operator = forward.operator(node)
    assert isinstance(operator, ElementwiseOperator)
    function = operator.function(forward.call(node))
    try:
        least, greatest = function.derivative_range(*forward.intervals[inputs[0]])
    except NotImplementedError as error:
        raise ValueError(f"model: node {node!r}: {error}") from error
    return [(inputs[0], least, greatest)]


def _by_rule(tape: Tape, node: Node, gradient: Gradient) -> list[Gradient]:
    rule = chain_rule(node.target)
    if isinstance(tape.forward.operator(node), (MaxPool, AMax, Maximum)):
        raise ValueError(
            f"model: node {node!r}: maxima are not supported, as their Clarke Jacobian selects inputs; use average "
            "pooling or a strided convolution, or write max(a, b) as a + relu(b - a)"
        )
    if rule is None:
        raise ValueError(
            f"model: node {node!r}: {node.target} has no chain rule here; teach it with "
            "offprint.methods.certify.lipschitz.register_chain_rule"
        )
    layout = tape.forward.layouts[node]
    if layout is not None and not (layout.axis == 0 and layout.plain):
        raise ValueError(f"model: node {node!r} moves the samples off the first axis, which is not supported")
    return rule(tape, node, gradient)
