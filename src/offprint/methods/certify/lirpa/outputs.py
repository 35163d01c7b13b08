"""Bounds of an output of a graph: its rows pulled back, or pushed through, and given the output's shape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.backward import Pulled, concretize, extremes, pull, units
from offprint.methods.certify.lirpa.forward import Affine, concretize_affine, push_affine, roots_of
from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.intervals import push, rows_at_once
from offprint.methods.certify.lirpa.optimise import Schedule, optimise
from offprint.methods.certify.lirpa.problem import Problem, join_elements, split_elements

Key = int | str
Coefficients = Tensor | dict[Key, Tensor]


@dataclass(frozen=True)
class Bounds:
    """Bounds of the rows of an output, and where they were asked for the linear functions behind them.

    Parameters
    ----------
    lower, upper : Tensor or None
        Of the output's shape, or (samples, rows) with a specification ``C``. Infinite where numbers overflowed on the
        way: there nothing is known.
    lA, uA : Tensor, dict of Tensor, or None
        Coefficients of the perturbed input, of shape (samples, *rows, *shape of one sample of it): the output is at
        least ``lA . x + lb`` and at most ``uA . x + ub`` in the whole region. A dict of them, with the keys of the
        perturbations, where several were given.
    lb, ub : Tensor or None
        The constants, of the shape of ``lower``.
    """

    lower: Tensor | None
    upper: Tensor | None
    lA: Coefficients | None = None
    uA: Coefficients | None = None
    lb: Tensor | None = None
    ub: Tensor | None = None


def pulled_bounds(
    problem: Problem,
    target: Node,
    rows: Tensor | None,
    sides: tuple[bool, ...],
    return_A: bool,
    memory: int | None,
    schedule: Schedule | None,
) -> Bounds:
    """Pull the rows of the target back, some at once."""
    spread = problem.n_samples if problem.layouts[target] is None else 1
    n_elements = target.shape.numel() // (problem.n_samples if problem.layouts[target] is not None else 1)
    count = n_elements if rows is None else rows.shape[0] // spread
    step = rows_at_once(problem, target, memory, optimised=schedule is not None)
    like = next(iter(problem.intervals.values())).lower
    found: list[list[Tensor]] = []
    linear: list[Pulled] = []
    for start in range(0, count, step):
        stop = min(count, start + step)
        if rows is None:
            part = units(problem, target, like, torch.arange(start, stop, device=like.device).unsqueeze(1))
        else:
            part = rows[start * spread : stop * spread]
        if schedule is not None:
            result = optimise(problem, target, part, sides, schedule)
            ends = result.bounds
            if return_A:
                linear.append(result.pulled)
        elif return_A:
            linear.append(pull(problem, target, part, sides))
            ends = concretize(problem, linear[-1], sides)
        else:
            recompute = bool(found) and found[0][0].requires_grad
            ends, _ = extremes(problem, target, part, sides, recompute=recompute)
        found.append(ends)
    ends = [torch.cat([part[k] for part in found]) for k in range(len(sides))]
    shaped = {upper: _shaped(problem, target, end, rows is not None) for upper, end in zip(sides, ends, strict=True)}
    bounds = Bounds(_known(shaped.get(False), False), _known(shaped.get(True), True))
    return _with_linear(problem, target, bounds, linear, sides, rows is not None) if return_A else bounds


def _known(end: Tensor | None, upper: bool) -> Tensor | None:
    """Return a bound with infinity in place of what has overflowed."""
    return None if end is None else torch.where(end.isnan(), torch.inf if upper else -torch.inf, end)


def best_bounds(first: Bounds, second: Bounds) -> Bounds:
    """Return for each row and sample the better of two bounds, with the linear functions that go with it."""
    best = first
    if first.lower is not None and second.lower is not None:
        better = second.lower > first.lower
        best = replace(
            best,
            lower=_where(better, second.lower, first.lower),
            lA=_where(better, second.lA, first.lA),
            lb=_where(better, second.lb, first.lb),
        )
    if first.upper is not None and second.upper is not None:
        better = second.upper < first.upper
        best = replace(
            best,
            upper=_where(better, second.upper, first.upper),
            uA=_where(better, second.uA, first.uA),
            ub=_where(better, second.ub, first.ub),
        )
    return best


def _where(mask: Tensor, yes: Any, no: Any) -> Any:
    if isinstance(yes, dict):
        return {key: _where(mask, yes[key], no[key]) for key in yes}
    if yes is None:
        return None
    return torch.where(mask.reshape(*mask.shape, *[1] * (yes.ndim - mask.ndim)), yes, no)


def _shaped(problem: Problem, target: Node, bounds: Tensor, specified: bool) -> Tensor:
    """Bring (rows, samples) to (samples, rows), or to the target's shape."""
    if specified:
        return bounds.T
    layout = problem.layouts[target]
    if layout is None:
        return bounds[:, 0].reshape(target.shape)
    return join_elements(bounds.T.unsqueeze(0), target.shape, layout)[0]


def _with_linear(
    problem: Problem,
    target: Node,
    bounds: Bounds,
    linear: list[Pulled],
    sides: tuple[bool, ...],
    specified: bool,
) -> Bounds:
    rows = () if specified or not problem.batched else target.shape[1:]
    for k, upper in enumerate(sides):
        constant = _shaped(problem, target, torch.cat([one.constant[k] for one in linear]), specified)
        coefficients: dict[Key, Tensor] = {}
        for root in linear[0].coefficients:
            matrix = torch.cat([one.coefficients[root][k] for one in linear]).movedim(1, 0)
            if rows:
                matrix = torch.unflatten(matrix, 1, rows)
            coefficients[_key(root)] = matrix
        single = next(iter(coefficients.values())) if len(problem.perturbations) == 1 else coefficients
        bounds = replace(bounds, uA=single, ub=constant) if upper else replace(bounds, lA=single, lb=constant)
    return bounds


def _key(root: Node) -> Key:
    return cast(Key, root.key) if root.kind in ("input", "parameter", "buffer") else root.name


def pushed_bounds(
    problem: Problem, target: Node, rows: Tensor | None, sides: tuple[bool, ...], method: str, return_A: bool
) -> Bounds:
    """Bounds of what was pushed through; a specification is first pulled back through the last affine operators."""
    functions: Affine | None = None
    if rows is None and method == "ibp":
        push(problem, target)
        ends = list(problem.intervals[target])
    elif rows is None:
        functions = push_affine(problem, [target])[target]
        ends = list(problem.intervals[target])
    else:
        pulled = pull(problem, target, rows, (False,), until_nonlinear=True)
        if method == "ibp":
            ends = _concretized_rows(problem, target, pulled)
        else:
            pushed = push_affine(problem, list(pulled.coefficients))
            functions = _mixed(problem, target, pulled, pushed)
            ends = list(concretize_affine(problem, functions, *roots_of(problem, target), None))
    bounds = Bounds(*(_known(end, bool(side)) if side in sides else None for side, end in enumerate(ends)))
    if return_A:
        assert functions is not None
        bounds = _linear_of(problem, target, functions, bounds, sides, rows is not None)
    return bounds


def _concretized_rows(problem: Problem, target: Node, pulled: Pulled) -> list[Tensor]:
    """Return the extremes of linear functions of nodes over their intervals, of shape (samples, rows)."""
    low = high = pulled.constant[0].T
    for node, (matrix,) in pulled.coefficients.items():
        push(problem, node)
        interval = problem.intervals[node]
        rows = _per_sample(problem, target, node, matrix)
        ends = [split_elements(end.unsqueeze(0), problem.layouts[node]) for end in interval]
        middle, radius = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
        value, reach = (
            torch.einsum("rbn,bn->br", a, b[0].expand(a.shape[1], -1))
            for a, b in ((rows, middle), (rows.abs(), radius))
        )
        low, high = low + value - reach, high + value + reach
    return [low, high]


def _per_sample(problem: Problem, target: Node, node: Node, matrix: Tensor) -> Tensor:
    """Return coefficients of a node as (rows, samples, elements of a sample)."""
    if problem.layouts[node] is None and problem.tracked:
        return torch.unflatten(matrix, 0, (-1, problem.n_samples)).flatten(2)
    return split_elements(matrix, problem.layouts[node])


def _mixed(problem: Problem, target: Node, pulled: Pulled, pushed: dict[Node, Affine]) -> Affine:
    """Return functions of the roots for rows of nodes, of shape (coordinates + 1, samples, rows)."""
    total_low: Tensor | None = None
    total_high: Tensor | None = None
    for node, (matrix,) in pulled.coefficients.items():
        rows = _per_sample(problem, target, node, matrix)
        lower, upper = (split_elements(one, problem.layouts[node]) for one in (pushed[node].lower, pushed[node].upper))
        up, down = rows.clamp(min=0), rows.clamp(max=0)
        lower, upper = (one.expand(-1, rows.shape[1], -1) for one in (lower, upper))
        low = torch.einsum("rbe,nbe->nbr", up, lower) + torch.einsum("rbe,nbe->nbr", down, upper)
        high = torch.einsum("rbe,nbe->nbr", up, upper) + torch.einsum("rbe,nbe->nbr", down, lower)
        total_low = low if total_low is None else total_low + low
        total_high = high if total_high is None else total_high + high
    assert total_low is not None
    assert total_high is not None
    constant = pulled.constant[0].T
    return Affine(*(torch.cat([one[:-1], one[-1:] + constant]) for one in (total_low, total_high)))


def _linear_of(
    problem: Problem, target: Node, functions: Affine, bounds: Bounds, sides: tuple[bool, ...], specified: bool
) -> Bounds:
    """Add the functions of forward mode to bounds, arranged as backward mode does."""
    roots, starts = roots_of(problem, target)
    layout = problem.layouts[target]
    for upper in sides:
        rows = functions.upper if upper else functions.lower
        parts = rows if specified else split_elements(rows, layout)  # (coordinates + 1, samples, rows)
        coefficients: dict[Key, Tensor] = {}
        for root in roots:
            shape = problem.value(root).shape[1:] if problem.sampled(root) else root.shape
            matrix = parts[starts[root] : starts[root] + shape.numel()].movedim(0, 2)
            if not specified and problem.batched:
                matrix = (
                    torch.unflatten(matrix, 1, target.shape[1:])
                    if layout is not None or not problem.tracked
                    else matrix
                )
            coefficients[_key(root)] = torch.unflatten(matrix, -1, shape) if len(shape) else matrix.squeeze(-1)
        constant = parts[-1] if specified else rows[-1]
        single = next(iter(coefficients.values())) if len(problem.perturbations) == 1 else coefficients
        bounds = replace(bounds, uA=single, ub=constant) if upper else replace(bounds, lA=single, lb=constant)
    return bounds


def constant_bounds(problem: Problem, target: Node, rows: Tensor | None, lower: bool, upper: bool) -> Bounds:
    """Bounds of an output that no perturbation reaches: its value."""
    value = problem.value(target)
    if rows is not None:
        value = split_elements(rows * value, problem.layouts[target]).sum(-1).T
    return Bounds(value if lower else None, value if upper else None)
