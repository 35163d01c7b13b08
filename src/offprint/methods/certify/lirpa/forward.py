"""Affine functions of the perturbed roots below and above every node, pushed through the network (forward mode)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.intervals import push_one
from offprint.methods.certify.lirpa.operators.base import Interval
from offprint.methods.certify.lirpa.problem import Problem, join_elements, split_elements


@dataclass(frozen=True)
class Affine:
    """Two affine functions of the roots for every element of a node.

    ``lower`` and ``upper`` are of shape (coordinates of the roots + 1, *shape); the last row is the constant.
    """

    lower: Tensor
    upper: Tensor


def push_affine(problem: Problem, targets: Sequence[Node]) -> dict[Node, Affine]:
    """Push affine functions to some nodes, and find intervals of the nodes on the way where they are unknown.

    The intervals are those of the functions, intersected with those that are pushed directly. Takes O(coordinates of
    the roots) times the cost of evaluating the network.
    """
    order = problem.ancestors(*targets)
    roots, starts = roots_of(problem, *targets)
    total = sum(_coordinates(problem, node) for node in roots)
    functions: dict[Node, Affine] = {}
    remaining = dict.fromkeys(order, 0)
    for node in order:
        for one in [] if node in problem.perturbations else problem.inputs(node):
            remaining[one] += 1
    for node in order:
        if node in problem.perturbations:
            functions[node] = _identity(problem, node, starts[node], total)
            problem.intervals.setdefault(node, push_one(problem, node))
            continue
        inputs = problem.inputs(node)
        functions[node] = _through(problem, node, [functions[one] for one in inputs])
        if node not in problem.intervals:
            pushed = push_one(problem, node)
            lower, upper = concretize_affine(problem, functions[node], roots, starts, node)
            lower, upper = torch.maximum(lower, pushed.lower), torch.minimum(upper, pushed.upper)
            problem.intervals[node] = Interval(lower, torch.maximum(lower, upper))
        for one in inputs:
            remaining[one] -= 1
            if remaining[one] == 0 and one not in targets:
                functions.pop(one, None)
    return {node: functions[node] for node in targets}


def roots_of(problem: Problem, *targets: Node) -> tuple[list[Node], dict[Node, int]]:
    """Return the roots that nodes depend on and where the coordinates of each start."""
    roots = [node for node in problem.ancestors(*targets) if node in problem.perturbations]
    starts, start = {}, 0
    for node in roots:
        starts[node] = start
        start += _coordinates(problem, node)
    return roots, starts


def _coordinates(problem: Problem, node: Node) -> int:
    return node.shape.numel() // (problem.n_samples if problem.sampled(node) else 1)


def _identity(problem: Problem, node: Node, start: int, total: int) -> Affine:
    value = problem.value(node)
    size = _coordinates(problem, node)
    layout = problem.layouts[node]
    n_samples = problem.n_samples if layout is not None else 1
    unit = value.new_zeros(total + 1, size)
    unit[start : start + size].diagonal().fill_(1)
    rows = join_elements(unit.unsqueeze(1).expand(-1, n_samples, -1), node.shape, layout)
    return Affine(rows, rows)


def _through(problem: Problem, node: Node, inputs: list[Affine]) -> Affine:
    relaxation = problem.relaxation(node)
    lower, upper = [one.lower for one in inputs], [one.upper for one in inputs]
    if relaxation.is_exact:
        low, high = relaxation.lower.range(lower, upper)
    else:
        low, high = relaxation.lower.push(lower, upper), relaxation.upper.push(upper, lower)
    return Affine(
        _plus_constant(low, relaxation.lower.offset, node), _plus_constant(high, relaxation.upper.offset, node)
    )


def _plus_constant(rows: Tensor, offset: Tensor | None, node: Node) -> Tensor:
    rows = rows.expand(rows.shape[0], *node.shape)
    if offset is None:
        return rows
    return torch.cat([rows[:-1], rows[-1:] + offset])


def concretize_affine(
    problem: Problem, functions: Affine, roots: list[Node], starts: dict[Node, int], node: Node | None
) -> tuple[Tensor, Tensor]:
    """Return the least value of the lower functions and the greatest of the upper ones.

    They are of the node's shape. Without a node functions are (coordinates + 1, samples, rows), they (samples, rows).
    """
    layout = problem.layouts[node] if node is not None else None
    ends = []
    for rows, upper in ((functions.lower, False), (functions.upper, True)):
        parts = (rows if node is None else split_elements(rows, layout)).movedim(
            2, 0
        )  # (elements, coordinates + 1, samples)
        total = parts[:, -1]
        for root in roots:
            if node is not None and layout is None and problem.tracked and problem.sampled(root):
                continue  # a node without samples cannot depend on what has them
            centre, region = problem.value(root), problem.perturbations[root]
            matrix = parts[:, starts[root] : starts[root] + _coordinates(problem, root)].movedim(1, 2)
            extreme = region.maximum if upper else region.minimum
            if problem.sampled(root):
                matrix = matrix.expand(-1, centre.shape[0], -1)
                total = total + extreme(matrix.reshape(*matrix.shape[:2], *centre.shape[1:]), centre)
            else:
                flat = matrix.reshape(-1, 1, *centre.shape)
                total = total + extreme(flat, centre.unsqueeze(0)).reshape(matrix.shape[:2])
        ends.append(total.T if node is None else join_elements(total.T.unsqueeze(0), node.shape, layout)[0])
    return ends[0], ends[1]
