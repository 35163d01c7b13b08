"""Rows of coefficients pulled from a node back to the perturbed roots (CROWN)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.operators.base import LinesRelaxation, Relaxation
from offprint.methods.certify.lirpa.problem import Problem, join_elements, split_elements


@dataclass(frozen=True)
class Pulled:
    """Linear bounds of rows: coefficients of each perturbed root and a constant.

    ``coefficients[root]`` is of shape (sides, rows, samples, *shape of the root without its samples), ``constant``
    of shape (sides, rows, samples).
    """

    coefficients: dict[Node, Tensor]
    constant: Tensor


def pull(
    problem: Problem,
    target: Node,
    rows: Tensor,
    sides: Sequence[bool],
    relaxations: Mapping[Node, Relaxation] | None = None,
    *,
    until_nonlinear: bool = False,
) -> Pulled:
    """Pull rows of coefficients of a node back to the roots.

    Parameters
    ----------
    problem : Problem
        The intervals that relaxations need must be known.
    target : Node
    rows : Tensor, shape (rows, *shape of the node)
        The samples' axis may have length 1 where the rows are the same for all samples. Of a node without samples
        there are rows for each sample: (rows * n_samples, *shape).
    sides : sequence of bool
        Which bounds are wanted, in order: ``False`` for a lower one, ``True`` for an upper one.
    relaxations : mapping of Node to Relaxation, optional
        To use in place of the problem's own.
    until_nonlinear : bool
        Stop at operators that look at intervals, as if they were roots; their coefficients are left as they are,
        (1, rows, *shape), which is all that is needed as both sides agree.

    Notes
    -----
    Coefficients carry the sides in front: (sides, rows, *shape), or (1, rows, *shape) as long as both are the same.
    """
    pending: dict[Node, Tensor] = {target: rows.unsqueeze(0)}
    constant = rows.new_zeros(1, 1, 1)
    coefficients: dict[Node, Tensor] = {}
    for node in reversed(problem.ancestors(target)):
        matrix = pending.pop(node, None)
        if matrix is None:
            continue
        if until_nonlinear and _is_end(problem, node):
            coefficients[node] = matrix.expand(*matrix.shape[:2], *node.shape)
            continue
        if node in problem.perturbations:
            coefficients[node] = _at_root(problem, node, matrix, len(sides))
            continue
        relaxation = relaxations[node] if relaxations and node in relaxations else problem.relaxation(node)
        matrix = _spread(matrix, node, relaxation)
        pulled, bias = _through(problem, node, relaxation, matrix, sides)
        if bias is not None:
            constant = constant + bias
        for one, coefficient in zip(problem.inputs(node), pulled, strict=True):
            pending[one] = _plus(pending.get(one), coefficient)
    n_rows = rows.shape[0]
    if problem.layouts[target] is None:
        n_rows //= problem.n_samples
    return Pulled(coefficients, constant.expand(len(sides), n_rows, problem.n_samples))


def _is_end(problem: Problem, node: Node) -> bool:
    return node in problem.perturbations or problem.operator(node).needs_intervals(problem.call(node))


def _plus(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else first + second


def _spread(matrix: Tensor, node: Node, relaxation: Relaxation) -> Tensor:
    """Give every sample its own copy of the coefficients where the operator needs that."""
    if matrix.shape[2:] == node.shape or (relaxation.is_exact and getattr(relaxation.lower, "alike", False)):
        return matrix
    return matrix.expand(*matrix.shape[:2], *node.shape)


def _at_root(problem: Problem, node: Node, matrix: Tensor, n_sides: int) -> Tensor:
    if problem.layouts[node] is not None:
        matrix = matrix.expand(*matrix.shape[:2], *node.shape)
    elif not problem.sampled(node):
        matrix = torch.unflatten(matrix, 1, (-1, problem.n_samples))
    return matrix.expand(n_sides, *matrix.shape[1:])


def _through(
    problem: Problem, node: Node, relaxation: Relaxation, matrix: Tensor, sides: Sequence[bool]
) -> tuple[list[Tensor], Tensor | None]:
    if relaxation.is_exact:
        bias = _inner(problem, node, matrix, relaxation.lower.offset)
        pulled = relaxation.lower.transpose(matrix.flatten(0, 1))
        return [torch.unflatten(one, 0, (matrix.shape[0], -1)) for one in pulled], bias
    if isinstance(relaxation, LinesRelaxation):
        return _through_lines(problem, node, relaxation, matrix, sides)
    if matrix.shape[0] == 1 and len(sides) > 1:
        matrix = matrix.expand(len(sides), *matrix.shape[1:])
    parts = [_through_planes(problem, node, relaxation, one, upper) for one, upper in zip(matrix, sides, strict=True)]
    n_inputs = len(parts[0][0])
    pulled = [torch.cat([inputs[i] for inputs, _ in parts]) for i in range(n_inputs)]
    biases = [bias for _, bias in parts]
    return [torch.unflatten(one, 0, (len(sides), -1)) for one in pulled], torch.cat(biases)


def _through_planes(
    problem: Problem, node: Node, relaxation: Relaxation, rows: Tensor, upper: bool
) -> tuple[list[Tensor], Tensor]:
    total: list[Tensor] = []
    bias: Tensor = rows.new_zeros(1, 1, 1)
    positive, negative = relaxation.lower, relaxation.upper
    if upper:
        positive, negative = negative, positive
    for plane, part in ((positive, rows.clamp(min=0)), (negative, rows.clamp(max=0))):
        pulled = plane.transpose(part)
        total = [a + b for a, b in zip(total, pulled, strict=True)] if total else pulled
        more = _inner(problem, node, part.unsqueeze(0), plane.offset)
        bias = bias if more is None else bias + more
    n_rows = rows.shape[0] if problem.layouts[node] is not None else rows.shape[0] // problem.n_samples
    return total, bias.expand(1, n_rows, problem.n_samples)


def _through_lines(
    problem: Problem, node: Node, relaxation: LinesRelaxation, matrix: Tensor, sides: Sequence[bool]
) -> tuple[list[Tensor], Tensor | None]:
    """For each side ``A -> A s + min(A, 0) (t - s)`` with the slope s of the line that positive coefficients meet."""
    lines = relaxation.lines
    negative = matrix.clamp(max=0)
    slope, other = _by_side(lines.lower_slope, lines.upper_slope, sides, len(node.shape))
    offset, other_offset = _by_side(lines.lower_offset, lines.upper_offset, sides, len(node.shape))
    pulled = torch.addcmul(matrix * slope, negative, other - slope)
    bias = _inner_sides(problem, node, matrix, offset)
    more = _inner_sides(problem, node, negative, other_offset - offset)
    if bias is None or more is None:
        return [pulled], more if bias is None else bias
    return [pulled], bias + more


def _by_side(lower: Tensor, upper: Tensor, sides: Sequence[bool], ndim: int) -> tuple[Tensor, Tensor]:
    """Return what positive and what negative coefficients meet, of shape (sides, rows or 1, *shape)."""
    if lower.shape != upper.shape:
        shape = max(lower.shape, upper.shape, key=lambda one: (len(one), one.numel()))
        lower, upper = lower.expand(shape), upper.expand(shape)
    if lower.ndim > ndim:
        # Lines of each side and row.
        first = [(upper if side else lower)[k] for k, side in enumerate(sides)]
        second = [(lower if side else upper)[k] for k, side in enumerate(sides)]
        return torch.stack(first), torch.stack(second)
    first = [upper if side else lower for side in sides]
    second = [lower if side else upper for side in sides]
    return torch.stack(first).unsqueeze(1), torch.stack(second).unsqueeze(1)


def _inner(problem: Problem, node: Node, matrix: Tensor, offset: Tensor | None) -> Tensor | None:
    """Return the products of coefficients and a constant, summed within each sample: (sides, rows, samples)."""
    if offset is None:
        return None
    return _inner_sides(problem, node, matrix, offset[(None,) * (matrix.ndim - offset.ndim)])


def _inner_sides(problem: Problem, node: Node, matrix: Tensor, offset: Tensor) -> Tensor | None:
    """The same with an offset that has (sides, 1 or rows) in front."""
    if not offset.requires_grad and not bool(offset.any()):
        return None
    layout = problem.layouts[node]
    if layout is None:
        product = (matrix.flatten(2) @ _flat(offset, node)) if offset.shape[:2] == (1, 1) else None
        if product is None:
            product = (matrix * offset).flatten(2).sum(-1)
        return torch.unflatten(product, 1, (-1, problem.n_samples))
    axis = layout.axis + 2
    if offset.shape[axis] == 1 and offset.shape[:2] == (1, 1) and layout.axis == 0 and layout.plain:
        return matrix.flatten(3) @ _flat(offset, node, 1) if matrix.ndim > 3 else matrix @ _flat(offset, node, 1)
    sides = max(matrix.shape[0], offset.shape[0])
    wide = matrix.expand(*matrix.shape[:2], *node.shape)
    offset = offset.expand(*offset.shape[:2], *node.shape)
    if offset.shape[1] == 1:
        ours = torch.unflatten(split_elements(wide.flatten(0, 1), layout), 0, matrix.shape[:2])
        theirs = split_elements(offset.flatten(0, 1), layout)
        ours = ours.expand(sides, *ours.shape[1:])
        theirs = theirs.expand(sides, *theirs.shape[1:])
        return torch.einsum("krbn,kbn->krb", ours, theirs)
    product = wide * offset
    return torch.unflatten(split_elements(product.flatten(0, 1), layout).sum(-1), 0, product.shape[:2])


def _flat(offset: Tensor, node: Node, skip: int = 0) -> Tensor:
    shape = node.shape[skip:]
    return offset[(0,) * (2 + skip)].expand(shape).reshape(-1)


def concretize(problem: Problem, pulled: Pulled, sides: Sequence[bool]) -> list[Tensor]:
    """Return the extremes of linear bounds over all perturbations: for each side a tensor (rows, samples)."""
    bounds = []
    for k, upper in enumerate(sides):
        total = pulled.constant[k]
        for root, matrix in pulled.coefficients.items():
            region, centre = problem.perturbations[root], problem.value(root)
            rows = matrix[k]
            if not problem.sampled(root):
                n_rows, n_samples = rows.shape[:2]
                rows = rows.flatten(0, 1).unsqueeze(1)
                extreme = (region.maximum if upper else region.minimum)(rows, centre.unsqueeze(0))
                extreme = extreme.reshape(n_rows, n_samples)
            else:
                extreme = (region.maximum if upper else region.minimum)(rows, centre)
            total = total + extreme
        bounds.append(total)
    return bounds


def unit_rows(problem: Problem, target: Node, like: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
    """Return rows that pick the elements ``start`` to ``stop`` of each sample, one after the other."""
    layout = problem.layouts[target]
    n_samples = problem.n_samples if layout is not None else 1
    n_elements = target.shape.numel() // n_samples
    stop = n_elements if stop is None else min(stop, n_elements)
    if layout is not None and layout.axis == 0 and layout.plain:
        unit = like.new_zeros(stop - start, n_elements)
        unit.diagonal(start).fill_(1)
        return unit.reshape(stop - start, 1, *target.shape[1:])
    if layout is not None:
        unit = like.new_zeros(stop - start, 1, n_elements)
        unit[:, 0].diagonal(start).fill_(1)
        return join_elements(unit.expand(-1, n_samples, -1), target.shape, layout)
    unit = like.new_zeros(stop - start, n_elements)
    unit.diagonal(start).fill_(1)
    return unit.repeat_interleave(problem.n_samples, 0).reshape(-1, *target.shape)


def selected_rows(problem: Problem, target: Node, index: Tensor, like: Tensor) -> Tensor:
    """Return rows that pick element ``index[row, sample]`` of each sample."""
    layout = problem.layouts[target]
    assert layout is not None or problem.n_samples == 1
    n_elements = target.shape.numel() // problem.n_samples
    unit = like.new_zeros(*index.shape, n_elements).scatter_(2, index.unsqueeze(-1), 1)
    return join_elements(unit, target.shape, layout)
