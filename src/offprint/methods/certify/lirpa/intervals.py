"""Intervals of nodes: pushed through the operators, and sharpened by rows of coefficients pulled back from a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.backward import concretize, pull, selected_rows, unit_rows
from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.operators.base import ElementwiseOperator, Interval
from offprint.methods.certify.lirpa.operators.shape import Movement
from offprint.methods.certify.lirpa.optimise import Schedule, optimise
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
    for node in order:
        if node in problem.intervals:
            continue
        problem.intervals[node] = push_one(problem, node)
        if sharpen is None:
            continue
        if is_sharp(problem, node):
            problem.sharp.add(node)
        elif node in readers:
            wanted = worth(problem, node, readers[node])
            sharpen(problem, node, wanted)
            if wanted is None:
                problem.sharp.add(node)


def push_one(problem: Problem, node: Node) -> Interval:
    """Return the interval of a node from those of its inputs."""
    if node in problem.perturbations:
        return Interval(*_root_box(problem, node), problem.perturbations[node])
    return problem.operator(node).interval(problem.call(node), [problem.intervals[i] for i in problem.inputs(node)])


def _root_box(problem: Problem, node: Node) -> tuple[Tensor, Tensor]:
    centre = problem.value(node)
    if problem.sampled(node):
        return problem.perturbations[node].box(centre)
    lower, upper = problem.perturbations[node].box(centre.unsqueeze(0))
    return lower.squeeze(0), upper.squeeze(0)


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
    memory : int
        About how many bytes the coefficients of one chunk of rows may take.
    schedule : Schedule, optional
        Optimise slopes for every node.
    """

    memory: int = 2**30
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
        chunk = rows_at_once(problem, node, self.memory if self.schedule is None else self.memory // 8)
        if index is not None:
            for start in range(0, len(index), chunk):
                part = index[start : start + chunk]
                low, high = self._bounds(problem, node, selected_rows(problem, node, part, lower))
                lower = _raised(lower, part.T, low.T, torch.maximum)
                upper = _raised(upper, part.T, high.T, torch.minimum)
        else:
            parts = [
                self._bounds(problem, node, unit_rows(problem, node, lower, start, start + chunk))
                for start in range(0, lower.shape[1], chunk)
            ]
            low, high = (torch.cat([part[k] for part in parts])[:, : lower.shape[0]] for k in (0, 1))
            lower, upper = torch.maximum(lower, low.T), torch.minimum(upper, high.T)
        # Two sound bounds can cross by rounding where they meet.
        upper = torch.maximum(lower, upper)
        low, high = (join_elements(end.unsqueeze(0), node.shape, layout)[0] for end in (lower, upper))
        problem.intervals[node] = Interval(low, high)

    def _bounds(self, problem: Problem, node: Node, rows: Tensor) -> list[Tensor]:
        sides = (False, True)
        if self.schedule is not None:
            return optimise(problem, node, rows, sides, self.schedule).bounds
        return concretize(problem, pull(problem, node, rows, sides), sides)


def sharpen_by_rows(problem: Problem, node: Node, wanted: Tensor | None, memory: int = 2**30) -> None:
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


def rows_at_once(problem: Problem, target: Node, memory: int) -> int:
    """Return how many rows can be pulled back together."""
    widest = max(node.shape.numel() for node in problem.ancestors(target))
    if problem.layouts[target] is None:
        widest *= problem.n_samples
    return max(1, int(memory // (widest * target.meta.element_size() * 8)))
