"""Slopes of relaxations found by gradient ascent on the bounds (alpha-CROWN)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.backward import Pulled, concretize, pull
from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.operators.base import ElementwiseOperator, Relaxation
from offprint.methods.certify.lirpa.problem import Problem, join_elements
from offprint.methods.certify.lirpa.rows import Rows, count


@dataclass(frozen=True)
class Schedule:
    """How slopes are optimised: Adam with a learning rate that decays at every step."""

    steps: int = 20
    lr: float = 0.5
    lr_decay: float = 0.98


@dataclass(frozen=True)
class Optimised:
    """The best bounds seen, (rows, samples) for each side, and the linear bounds that gave each of them."""

    bounds: list[Tensor]
    pulled: Pulled


def optimise(problem: Problem, target: Node, rows: Rows, sides: Sequence[bool], schedule: Schedule) -> Optimised:
    """Return bounds of rows of a node with choices of slopes that make them tight.

    Every element of every function of one number has a choice for each row, sample and side; other operators with a
    choice share it among rows. The default choice comes first and the best bound of each row and sample is kept, so
    the result is never worse than that of the default. Gradients of the result are those of the bounds found at the
    choices that were found, these being constants.
    """
    best = pull(problem, target, rows, sides)
    bounds = concretize(problem, best, sides)
    choices = _initial(problem, target, count(rows), len(sides))
    if not choices:
        return Optimised(bounds, best)
    parameters = list(choices.values())
    optimizer = torch.optim.Adam(parameters, lr=schedule.lr)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, schedule.lr_decay)
    kept = [choice.detach().clone() for choice in parameters]
    record = [bound.detach() for bound in bounds]
    for step in range(schedule.steps + 1):
        with torch.enable_grad():
            found = concretize(problem, pull(problem, target, rows, sides, _relaxations(problem, choices)), sides)
            loss = torch.stack(
                [end.sum() if upper else -end.sum() for end, upper in zip(found, sides, strict=True)]
            ).sum()
        better = [_is_better(new, old, upper) for new, old, upper in zip(found, record, sides, strict=True)]
        record = [torch.where(yes, new.detach(), old) for yes, new, old in zip(better, found, record, strict=True)]
        _keep(problem, list(choices), kept, parameters, better)
        if step == schedule.steps:
            break
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        decay.step()
        with torch.no_grad():
            for parameter in parameters:
                parameter.clamp_(0, 1)
    final = dict(zip(choices, kept, strict=True))
    pulled = pull(problem, target, rows, sides, _relaxations(problem, final))
    return Optimised(*_best_of(best, bounds, pulled, concretize(problem, pulled, sides), sides))


def _initial(problem: Problem, target: Node, n_rows: int, n_sides: int) -> dict[Node, Tensor]:
    choices = {}
    for node in problem.ancestors(target):
        if node in problem.perturbations or not problem.operator(node).needs_intervals(problem.call(node)):
            continue
        intervals = [problem.intervals[one] for one in problem.inputs(node)]
        default = problem.operator(node).default_choice(problem.call(node), intervals)
        if default is None:
            continue
        default = default.detach().expand(2, *node.shape)
        if isinstance(problem.operator(node), ElementwiseOperator):
            # Rows of a node without samples are those of each sample.
            rows = n_rows
            if problem.layouts[node] is None and problem.layouts[target] is not None:
                rows = n_rows * problem.n_samples
            default = default[:, None, None].expand(2, n_sides, rows, *node.shape)
        choices[node] = default.clone().requires_grad_()
    return choices


def _relaxations(problem: Problem, choices: dict[Node, Tensor]) -> dict[Node, Relaxation]:
    return {
        node: problem.operator(node).relax(
            problem.call(node), [problem.intervals[one] for one in problem.inputs(node)], choice
        )
        for node, choice in choices.items()
    }


def _is_better(new: Tensor, old: Tensor, upper: bool) -> Tensor:
    return new.detach() < old if upper else new.detach() > old


def _keep(problem: Problem, nodes: list[Node], kept: list[Tensor], now: list[Tensor], better: Sequence[Tensor]) -> None:
    """Remember the choices of the rows and samples that have become better; a shared choice where any has."""
    mask = torch.stack(list(better))  # (sides, rows, samples)
    for i, node in enumerate(nodes):
        if not isinstance(problem.operator(node), ElementwiseOperator):
            kept[i] = now[i].detach().clone() if bool(mask.any()) else kept[i]
            continue
        layout = problem.layouts[node]
        if layout is None:
            where = mask.flatten(1).reshape(*mask.shape[:1], -1, *[1] * len(node.shape))
        else:
            flat = mask.flatten(0, 1).unsqueeze(-1)
            elements = node.shape.numel() // problem.n_samples
            where = torch.unflatten(join_elements(flat.expand(-1, -1, elements), node.shape, layout), 0, mask.shape[:2])
        kept[i] = torch.where(where, now[i].detach(), kept[i])


def _best_of(
    first: Pulled, bounds: list[Tensor], second: Pulled, others: list[Tensor], sides: Sequence[bool]
) -> tuple[list[Tensor], Pulled]:
    """Take for each side, row and sample the better of two linear bounds."""
    better = [_is_better(new, old.detach(), upper) for new, old, upper in zip(others, bounds, sides, strict=True)]
    mask = torch.stack(better)
    coefficients = {}
    for root, matrix in first.coefficients.items():
        where = mask.reshape(*mask.shape, *[1] * (matrix.ndim - 3))
        coefficients[root] = torch.where(where, second.coefficients[root], matrix)
    chosen = [torch.where(yes, new, old) for yes, new, old in zip(better, others, bounds, strict=True)]
    return chosen, Pulled(coefficients, torch.where(mask, second.constant, first.constant))
