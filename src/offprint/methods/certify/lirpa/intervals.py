"""Intervals of nodes: pushed through the operators, and sharpened by rows of coefficients pulled back from a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.backward import extremes, units
from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.operators.base import ElementwiseOperator, Interval
from offprint.methods.certify.lirpa.operators.shape import Movement
from offprint.methods.certify.lirpa.optimise import Schedule, optimise
from offprint.methods.certify.lirpa.perturbations import LpBall
from offprint.methods.certify.lirpa.problem import Problem, join_elements, split_elements

Sharpen = Callable[[Problem, Node, "Tensor | None"], None]


def push(problem: Problem, target: Node, sharpen: Sharpen | None = None, skip_last: bool = False) -> None:
    """Find intervals of all nodes that a target depends on, itself included.

    Parameters
    ----------
    problem : Problem
        Intervals that are known are left as they are; new ones are added.
    target : Node
    sharpen : callable, optional
        Called with the problem, a node whose interval some relaxation needs, and which of its elements are worth it.
    skip_last : bool
        Leave out the target itself.
    """
    order = problem.ancestors(target)
    if skip_last and target not in problem.perturbations:
        order = order[:-1] if order[-1] is target else order
    readers = _readers(problem, problem.ancestors(target)) if sharpen is not None else {}
    sources = _sources(problem, readers)
    moved = {node for found in sources.values() for node, _ in found}
    for node in order:
        if node in problem.intervals:
            continue
        problem.intervals[node] = push_one(problem, node)
        if node in problem.known:
            problem.intervals[node] = _common(problem.intervals[node], problem.known[node])
        if sharpen is None:
            continue
        if is_sharp(problem, node):
            problem.sharp.add(node)
        elif node in sources or (node in readers and node not in moved):
            wanted = _wanted(problem, node, readers, sources.get(node, []))
            sharpen(problem, node, wanted)
            if wanted is None:
                problem.sharp.add(node)


Sources = dict[Node, list[tuple[Node, list[Node]]]]


def _sources(problem: Problem, readers: Mapping[Node, list[Node]]) -> Sources:
    """Return the nodes whose elements are moved about before something looks at them, and by which nodes on the way.

    Sharpening the source is one pass for all its parts: the gates of a recurrent layer, say.
    """
    sources: Sources = {}
    for node in readers:
        source, chain = node, []
        while _moves(problem, source):
            chain.append(source)
            source = problem.inputs(source)[0]
        if chain:
            sources.setdefault(source, []).append((node, chain))
    return sources


def _moves(problem: Problem, node: Node) -> bool:
    if node in problem.perturbations or node in problem.intervals or len(problem.inputs(node)) != 1:
        return False
    return isinstance(problem.operator(node), Movement) and problem.inputs(node)[0] not in problem.intervals


def _wanted(
    problem: Problem, node: Node, readers: Mapping[Node, list[Node]], moved: list[tuple[Node, list[Node]]]
) -> Tensor | None:
    """Return which elements of a node are worth sharpening, for what looks at it or at where its elements are moved."""
    wanted = worth(problem, node, readers[node]) if node in readers else torch.zeros(node.shape, dtype=torch.bool)
    if wanted is None:
        return None
    wanted = wanted.expand(node.shape).to(problem.device)
    for last, chain in moved:
        rough = {node: problem.intervals[node]}
        for one in reversed(chain):
            rough[one] = problem.operator(one).interval(problem.call(one), [rough[problem.inputs(one)[0]]])
        problem.intervals[last] = rough[last]
        mask = worth(problem, last, readers[last])
        del problem.intervals[last]
        rows = torch.ones(1, *last.shape) if mask is None else mask.expand(last.shape).unsqueeze(0).float()
        rows = rows.to(dtype=node.meta.dtype, device=problem.device)
        for one in chain:
            rows = problem.relaxation(one).lower.transpose(rows)[0]
        wanted = wanted | (rows[0] > 0)
    return None if bool(wanted.all()) else wanted


def _common(first: Interval, second: Interval) -> Interval:
    lower = torch.maximum(first.lower, second.lower)
    # Two sound intervals can miss each other by rounding.
    return Interval(lower, torch.maximum(lower, torch.minimum(first.upper, second.upper)), first.region)


def push_one(problem: Problem, node: Node) -> Interval:
    """Return the interval of a node from those of its inputs."""
    if node in problem.perturbations:
        region = problem.perturbations[node]
        # With a radius for each element of a root that is one sample as a whole, norms of coefficients say nothing:
        # operators would take the radii for those of samples.
        by_element = isinstance(region, LpBall) and torch.as_tensor(region.eps).ndim > 0 and not problem.sampled(node)
        return Interval(*problem.box(node), None if by_element else region)
    return problem.operator(node).interval(problem.call(node), [problem.intervals[i] for i in problem.inputs(node)])


def _readers(problem: Problem, order: list[Node]) -> dict[Node, list[Node]]:
    """Return for each node the nonlinear operators that look at its interval."""
    readers: dict[Node, list[Node]] = {}
    for node in order:
        if node not in problem.perturbations and problem.operator(node).needs_intervals(problem.call(node)):
            for one in problem.inputs(node):
                readers.setdefault(one, []).append(node)
    return readers


def exact_interval(problem: Problem, node: Node) -> bool:
    """Return whether the interval of an operator on a root, a box, is as sharp as can be."""
    inputs = problem.inputs(node)
    if (
        len(inputs) != 1
        or inputs[0] not in problem.perturbations
        or problem.operator(node).needs_intervals(problem.call(node))
    ):
        return False
    return problem.perturbations[inputs[0]].is_box


def is_sharp(problem: Problem, node: Node) -> bool:
    """Return whether pulling rows back from a node cannot improve its interval.

    So it is with a root, an affine operator on a box, and an operator that acts on each element of an input that is
    sharp itself by itself: lines bound it no better than its range does.
    """
    if node in problem.perturbations or exact_interval(problem, node):
        return True
    if not isinstance(problem.operator(node), (ElementwiseOperator, Movement)):
        return False
    return all(one in problem.sharp for one in problem.inputs(node))


def worth(problem: Problem, node: Node, readers: list[Node]) -> Tensor | None:
    """Return which elements of a node some reader wants sharper; ``None`` for all."""
    wanted: Tensor | None = None
    for reader in readers:
        inputs = problem.inputs(reader)
        known = [problem.intervals.get(i) for i in inputs]
        if any(one is None for one in known):
            return None
        masks = problem.operator(reader).undecided(problem.call(reader), [one for one in known if one is not None])
        for one, mask in zip(inputs, masks, strict=True):
            if one is node:
                if mask is None:
                    return None
                wanted = mask if wanted is None else wanted | mask
    return wanted


@dataclass(frozen=True)
class Sharpener:
    """Replaces the interval of a node by its intersection with what backward propagation finds.

    Parameters
    ----------
    memory : int, optional
        About how many bytes the coefficients of one chunk of rows may take; see `rows_at_once`.
    schedule : Schedule, optional
        Optimise slopes for every node.
    """

    memory: int | None = None
    schedule: Schedule | None = None

    def __call__(self, problem: Problem, node: Node, wanted: Tensor | None) -> None:
        """Bound the wanted elements of a node (by default all), and store its interval."""
        layout = problem.layouts[node]
        interval = problem.intervals[node]
        lower, upper = (split_elements(end.unsqueeze(0), layout)[0] for end in interval)
        index = None
        if wanted is not None and (layout is not None or not problem.tracked):
            index = _chosen(split_elements(wanted.expand(node.shape).unsqueeze(0), layout)[0])
            if index is not None and len(index) == 0:
                return
        if index is None:
            index = torch.arange(lower.shape[1], device=lower.device).unsqueeze(1)
        low, high = self._bounds(problem, node, index, lower)
        if index.shape[1] < len(lower):
            lower, upper = torch.maximum(lower, low.T), torch.minimum(upper, high.T)
        else:
            lower = _raised(lower, index.T, low.T, torch.maximum)
            upper = _raised(upper, index.T, high.T, torch.minimum)
        # Two sound bounds can cross by rounding where they meet.
        upper = torch.maximum(lower, upper)
        low, high = (join_elements(end.unsqueeze(0), node.shape, layout)[0] for end in (lower, upper))
        problem.intervals[node] = Interval(low, high)

    def _bounds(self, problem: Problem, node: Node, index: Tensor, like: Tensor) -> list[Tensor]:
        """Return the least and the greatest values of elements ``index[row, sample]``, (rows, samples) each."""
        sides = (False, True)
        chunk = rows_at_once(problem, node, self.memory, optimised=self.schedule is not None)
        parts: list[list[Tensor]] = []
        start = 0
        while start < len(index):
            some = index[start : start + chunk]
            start += chunk
            if self.schedule is not None:
                parts.append(optimise(problem, node, units(problem, node, like, some), sides, self.schedule).bounds)
                continue
            # The first part asks for all relaxations and says whether gradients are wanted.
            recompute = bool(parts) and parts[0][0].requires_grad
            ends, widest = extremes(problem, node, units(problem, node, like, some), sides, recompute=recompute)
            parts.append(ends)
            chunk = max(chunk, _rows_in(self.memory, widest, like))
        return [torch.cat([part[k] for part in parts]) for k in (0, 1)]


def sharpen_by_rows(problem: Problem, node: Node, wanted: Tensor | None, memory: int | None = None) -> None:
    """Sharpen the interval of a node with default slopes; see `Sharpener`."""
    Sharpener(memory)(problem, node, wanted)


def _chosen(mask: Tensor) -> Tensor | None:
    """Return (rows, samples): the elements of a mask (samples, elements); ``None`` where it pays to take all.

    Where a sample has fewer than others, elements that are not in the mask are taken too.
    """
    n_rows = int(mask.sum(1).max())
    if n_rows >= 0.8 * mask.shape[1]:
        return None
    return mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :n_rows].T


def _raised(ends: Tensor, index: Tensor, values: Tensor, better: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return ends.scatter(1, index, better(ends.gather(1, index), values))


def rows_at_once(problem: Problem, target: Node, memory: int | None, *, optimised: bool = False) -> int:
    """Return how many rows can be pulled back together if all of them become dense.

    ``memory`` is about how many bytes they may take, by default 64 MiB on a processor, which is faster there than more,
    and 1 GiB elsewhere. Where slopes are optimised, what gradients need is kept as well.
    """
    widest = max(node.shape.numel() for node in problem.ancestors(target))
    if problem.layouts[target] is None:
        widest *= problem.n_samples
    like = torch.empty(0, dtype=target.meta.dtype, device=problem.device)
    return _rows_in(memory, 2 * widest * (8 if optimised else 1), like)


def _rows_in(memory: int | None, widest: int, like: Tensor) -> int:
    if memory is None:
        memory = 2**26 if like.device.type == "cpu" else 2**30
    return max(1, int(memory // (max(1, widest) * like.element_size() * 4)))
