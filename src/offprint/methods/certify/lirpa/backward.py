"""Rows of coefficients pulled from a node back to the perturbed roots (CROWN)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.operators.base import LinesRelaxation, Plane, Relaxation
from offprint.methods.certify.lirpa.problem import Problem, join_elements, split_elements
from offprint.methods.certify.lirpa.rows import Rows, SparseRows, Units, dense, plus, size


@dataclass(frozen=True)
class Pulled:
    """Linear bounds of rows: coefficients of each perturbed root and a constant.

    ``coefficients[root]`` is of shape (sides, rows, samples, *shape of the root without its samples), ``constant``
    of shape (sides, rows, samples). In ``sparse`` are the roots whose coefficients were left as they came; ``widest``
    is how many coefficients there were at most for each row, at any node on the way.
    """

    coefficients: dict[Node, Tensor]
    constant: Tensor
    sparse: Mapping[Node, SparseRows] = field(default_factory=dict)
    widest: int = 0


def pull(
    problem: Problem,
    target: Node,
    rows: Rows,
    sides: Sequence[bool],
    relaxations: Mapping[Node, Relaxation] | None = None,
    *,
    until_nonlinear: bool = False,
    keep_sparse: bool = False,
) -> Pulled:
    """Pull rows of coefficients of a node back to the roots.

    Parameters
    ----------
    problem : Problem
        The intervals that relaxations need must be known.
    target : Node
    rows : Tensor of shape (rows, *shape of the node), or sparse rows
        The samples' axis may have length 1 where the rows are the same for all samples. Of a node without samples
        there are rows for each sample: (rows * n_samples, *shape).
    sides : sequence of bool
        Which bounds are wanted, in order: ``False`` for a lower one, ``True`` for an upper one.
    relaxations : mapping of Node to Relaxation, optional
        To use in place of the problem's own.
    until_nonlinear : bool
        Stop at operators that look at intervals, as if they were roots; their coefficients are left as they are,
        (1, rows, *shape), which is all that is needed as both sides agree.
    keep_sparse : bool
        Leave coefficients of roots sparse where they are, for `concretize`.

    Notes
    -----
    Coefficients carry the sides in front: (sides, rows, *shape), or (1, rows, *shape) as long as both are the same.
    """
    start = rows.value if isinstance(rows, SparseRows) else rows.unsqueeze(0)
    n_rows = start.shape[1] if problem.layouts[target] is not None else start.shape[1] // problem.n_samples
    pending: dict[Node, Rows] = {target: rows if isinstance(rows, SparseRows) else start}
    constant = start.new_zeros(1, 1, 1)
    coefficients: dict[Node, Tensor] = {}
    sparse: dict[Node, SparseRows] = {}
    widest = 0
    for node in reversed(problem.ancestors(target)):
        matrix = pending.pop(node, None)
        if matrix is None:
            continue
        if until_nonlinear and _is_end(problem, node):
            matrix = dense(matrix)
            coefficients[node] = matrix.expand(*matrix.shape[:2], *node.shape)
            continue
        if node in problem.perturbations:
            if keep_sparse and isinstance(matrix, SparseRows):
                sparse[node] = matrix.cleaned()
            else:
                coefficients[node] = _at_root(problem, node, dense(matrix), len(sides))
            continue
        relaxation = relaxations[node] if relaxations and node in relaxations else problem.relaxation(node)
        pulled, bias = _through(problem, node, relaxation, matrix, sides)
        if bias is not None:
            constant = constant + bias
        for one, coefficient in zip(problem.inputs(node), pulled, strict=True):
            pending[one] = plus(pending.get(one), coefficient)
            widest = max(widest, size(pending[one]))
    return Pulled(
        coefficients, constant.expand(len(sides), n_rows, problem.n_samples), sparse, widest // max(1, n_rows)
    )


def _is_end(problem: Problem, node: Node) -> bool:
    return node in problem.perturbations or problem.operator(node).needs_intervals(problem.call(node))


def _at_root(problem: Problem, node: Node, matrix: Tensor, n_sides: int) -> Tensor:
    if problem.layouts[node] is not None:
        matrix = matrix.expand(*matrix.shape[:2], *node.shape)
    elif not problem.sampled(node):
        matrix = torch.unflatten(matrix, 1, (-1, problem.n_samples))
    return matrix.expand(n_sides, *matrix.shape[1:])


def _through(
    problem: Problem, node: Node, relaxation: Relaxation, matrix: Rows, sides: Sequence[bool]
) -> tuple[Sequence[Rows], Tensor | None]:
    """Pull coefficients of a node to its inputs; also return what the constants of its planes add to the bounds."""
    if isinstance(matrix, SparseRows):
        found = _through_sparse(node, relaxation, matrix, sides)
        if found is not None:
            return found
        matrix = matrix.dense()
    matrix = _spread(matrix, node, relaxation)
    if relaxation.is_exact:
        return _transposed(relaxation.lower, matrix), _inner(problem, node, matrix, relaxation.lower.offset)
    far = crossing(matrix, sides)
    if isinstance(relaxation, LinesRelaxation):
        return [torch.addcmul(matrix * relaxation.slope, far, relaxation.gap)], _sum(
            _inner(problem, node, matrix, relaxation.offset), _inner(problem, node, far, relaxation.gap_offset)
        )
    return _across(relaxation, matrix, far), _sum(
        _inner(problem, node, far, relaxation.upper.offset),
        _inner(problem, node, matrix - far, relaxation.lower.offset),
    )


def _spread(matrix: Tensor, node: Node, relaxation: Relaxation) -> Tensor:
    """Give every sample its own copy of the coefficients where the operator needs that."""
    if matrix.shape[2:] == node.shape or (relaxation.is_exact and getattr(relaxation.lower, "alike", False)):
        return matrix
    return matrix.expand(*matrix.shape[:2], *node.shape)


def crossing(matrix: Tensor, sides: Sequence[bool]) -> Tensor:
    """Return the coefficients (sides, ...) that meet the upper plane, the negative ones of a lower bound; 0 elsewhere.

    What is left of the matrix without them meets the lower plane.
    """
    if len(sides) == 1:
        return matrix.clamp(min=0) if sides[0] else matrix.clamp(max=0)
    if matrix.requires_grad:
        parts = [matrix[k % len(matrix)] for k in range(len(sides))]
        return torch.stack([one.clamp(min=0) if up else one.clamp(max=0) for one, up in zip(parts, sides, strict=True)])
    far = matrix.new_empty(len(sides), *matrix.shape[1:])
    for k, up in enumerate(sides):
        torch.clamp(matrix[k % len(matrix)], min=0 if up else None, max=None if up else 0, out=far[k])
    return far


def _through_sparse(
    node: Node, relaxation: Relaxation, rows: SparseRows, sides: Sequence[bool]
) -> tuple[Sequence[Rows], Tensor | None] | None:
    """Do the same with sparse rows; ``None`` where the operator cannot."""
    if relaxation.is_exact:
        pulled = relaxation.lower.transpose_sparse(rows)
        offset = relaxation.lower.offset
        return None if pulled is None else (pulled, None if offset is None else rows.inner(offset))
    if not isinstance(relaxation, LinesRelaxation):
        return None
    # Where every row chose lines of its own, for the lower or the upper one, there is nothing to pick from.
    if max(relaxation.slope.ndim, relaxation.gap.ndim) > len(node.shape):
        return None
    far = replace(rows, value=crossing(rows.value, sides))
    value = torch.addcmul(rows.value * rows.pick(relaxation.slope), far.value, rows.pick(relaxation.gap))
    bias = _sum(
        None if relaxation.offset is None else rows.inner(relaxation.offset),
        None if relaxation.gap_offset is None else far.inner(relaxation.gap_offset),
    )
    return [replace(rows, value=value)], bias


def _transposed(plane: Plane, matrix: Tensor) -> list[Tensor]:
    pulled = plane.transpose(matrix.flatten(0, 1))
    return [torch.unflatten(one, 0, (matrix.shape[0], -1)) for one in pulled]


def _across(relaxation: Relaxation, matrix: Tensor, far: Tensor) -> list[Tensor]:
    """Return the coefficients of the inputs where ``far`` meets the upper plane and the rest the lower one."""
    differences = relaxation.transpose_gap(far.flatten(0, 1))
    if differences is None:
        above = _transposed(relaxation.upper, far)
        return [a + b for a, b in zip(above, _transposed(relaxation.lower, matrix - far), strict=True)]
    pulled = _transposed(relaxation.lower, matrix)
    return [
        one if more is None else one + torch.unflatten(more, 0, (far.shape[0], -1))
        for one, more in zip(pulled, differences, strict=True)
    ]


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _inner(problem: Problem, node: Node, matrix: Tensor, offset: Tensor | None) -> Tensor | None:
    """Return the products of coefficients and a constant, summed within each sample: (sides, rows, samples).

    The constant broadcasts against the node; it may have (sides, rows) in front.
    """
    if offset is None:
        return None
    layout = problem.layouts[node]
    if offset.ndim > len(node.shape):
        product = (matrix * offset).expand(-1, -1, *node.shape)
        if layout is None:
            return torch.unflatten(product.reshape(*product.shape[:2], -1).sum(-1), 1, (-1, problem.n_samples))
        return torch.unflatten(split_elements(product.flatten(0, 1), layout).sum(-1), 0, product.shape[:2])
    if layout is None:
        product = matrix.reshape(*matrix.shape[:2], -1) @ offset.expand(node.shape).reshape(-1)
        return torch.unflatten(product, 1, (-1, problem.n_samples))
    if layout.axis == 0 and layout.plain:
        offset = offset.reshape((1,) * (len(node.shape) - offset.ndim) + offset.shape)
        theirs = offset.expand(offset.shape[0], *node.shape[1:]).reshape(offset.shape[0], -1)
        if len(theirs) == 1:
            return matrix.reshape(*matrix.shape[:3], -1) @ theirs[0]
        ours = matrix.expand(*matrix.shape[:2], *node.shape).reshape(-1, node.shape[0], theirs.shape[1])
    else:
        ours = split_elements(matrix.expand(*matrix.shape[:2], *node.shape).flatten(0, 1), layout)
        theirs = split_elements(offset.expand(node.shape).unsqueeze(0), layout)[0]
    summed = (ours.transpose(0, 1) @ theirs.unsqueeze(-1)).squeeze(-1).T
    return torch.unflatten(summed, 0, matrix.shape[:2])


def concretize(problem: Problem, pulled: Pulled, sides: Sequence[bool]) -> list[Tensor]:
    """Return the extremes of linear bounds over all perturbations: for each side a tensor (rows, samples)."""
    bounds = list(pulled.constant)
    for root, rows in pulled.sparse.items():
        bounds = [one + more for one, more in zip(bounds, _sparse_extremes(problem, root, rows, sides), strict=True)]
    for root, matrix in pulled.coefficients.items():
        bounds = [one + more for one, more in zip(bounds, _extremes(problem, root, matrix, sides), strict=True)]
    return bounds


def extremes(
    problem: Problem, target: Node, rows: Rows, sides: Sequence[bool], *, recompute: bool
) -> tuple[list[Tensor], int]:
    """Pull rows back and return the extremes of what they become, and ``widest`` of `Pulled`.

    With ``recompute`` nothing is kept for gradients: `backward` pulls the rows once more. The relaxations on the way
    must have been asked for before.
    """

    def found() -> tuple[list[Tensor], int]:
        pulled = pull(problem, target, rows, sides, keep_sparse=True)
        return concretize(problem, pulled, sides), pulled.widest

    if not recompute:
        return found()
    kept: tuple[list[Tensor], int] = checkpoint(found, use_reentrant=False, preserve_rng_state=False)
    return kept


def _extremes(problem: Problem, root: Node, matrix: Tensor, sides: Sequence[bool]) -> list[Tensor]:
    region, centre = problem.perturbations[root], problem.value(root)
    found = []
    for rows, upper in zip(matrix, sides, strict=True):
        extreme = region.maximum if upper else region.minimum
        if problem.sampled(root):
            found.append(extreme(rows, centre))
        else:
            one_by_one = extreme(rows.flatten(0, 1).unsqueeze(1), centre.unsqueeze(0))
            found.append(one_by_one.reshape(rows.shape[:2]))
    return found


def _sparse_extremes(problem: Problem, root: Node, rows: SparseRows, sides: Sequence[bool]) -> list[Tensor]:
    """Do the same with sparse rows; dense ones where the region is no box, as coefficients then come together."""
    if not problem.perturbations[root].is_box:
        return _extremes(problem, root, _at_root(problem, root, rows.dense(), len(sides)), sides)
    lower, upper = problem.box(root)
    middle = rows.inner((lower + upper) / 2)
    reach = replace(rows, value=rows.value.abs()).inner((upper - lower) / 2)
    return [
        (middle + reach if up else middle - reach)[k % len(reach)].expand(-1, problem.n_samples)
        for k, up in enumerate(sides)
    ]


def keeps_sparse(problem: Problem, node: Node) -> bool:
    """Return whether rows of a node may be sparse: its samples are on the first axis, alone."""
    layout = problem.layouts[node]
    if layout is None:
        return not problem.tracked and len(node.shape) > 0 and node.shape[0] == 1
    return layout.axis == 0 and layout.plain


def units(problem: Problem, target: Node, like: Tensor, index: Tensor) -> Rows:
    """Return rows that pick element ``index[row, sample]`` of each sample (or ``index[row, 0]`` of all of them)."""
    if keeps_sparse(problem, target):
        return Units(like.new_ones(1, len(index), 1), target.shape, index)
    if problem.layouts[target] is None:
        unit = like.new_zeros(len(index), target.shape.numel()).scatter_(1, index[:, :1], 1)
        return unit.repeat_interleave(problem.n_samples, 0).reshape(-1, *target.shape)
    return selected_rows(problem, target, index.expand(-1, problem.n_samples), like)


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
