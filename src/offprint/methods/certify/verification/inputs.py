"""Branch and bound that halves the box of inputs."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from offprint.methods.certify.verification.multipliers import onto_simplex
from offprint.methods.certify.verification.outcome import Outcome
from offprint.methods.certify.verification.relaxed import (
    LinearBound,
    Network,
    corners,
    ends_of_splits,
    find_intervals,
    intervals_of_splits,
    lower_bound,
)
from offprint.methods.certify.verification.task import Clock, Target, Task

Progress = Callable[[int, int, float], None]


def split_inputs(
    task: Task, network: Network, targets: Sequence[Target], *, batch: int, clock: Clock, progress: Progress | None
) -> Outcome:
    """Decide targets by halving their boxes until the bounds decide every part.

    The side that is halved is the one along which the linear bound of the margin falls most. The parts with the lowest
    bounds come first.
    """
    ids = itertools.count()
    unknown = network.unknown_splits()
    open_parts: list[tuple[float, int, int, Tensor, Tensor, Tensor]] = [
        (-torch.inf, next(ids), k, target.lower, target.upper, unknown) for k, target in enumerate(targets)
    ]
    outcome = Outcome(n_domains=len(open_parts))
    batch = batch if task.batched else 1
    while open_parts and not clock.is_over:
        parts = [heapq.heappop(open_parts) for _ in range(min(batch, len(open_parts)))]
        lower, upper = torch.stack([p[3] for p in parts]), torch.stack([p[4] for p in parts])
        chosen = [targets[p[2]] for p in parts]
        bound, steepness, splits = _bound(network, lower, upper, chosen, torch.stack([p[5] for p in parts]))
        least = bound.least[0].tolist()
        example, hopeless = _try(task, bound, lower, upper, chosen)
        if example is not None:
            outcome.counterexample = example
            return outcome
        halves = _halves(steepness, lower, upper)
        for i, part in enumerate(parts):
            if least[i] > task.slack:
                outcome.decided(least[i])
            elif hopeless[i] or halves[i] is None:
                outcome.left_open(least[i])
            else:
                outcome.n_domains += 1
                for low, high in halves[i] or ():
                    heapq.heappush(open_parts, (max(least[i], part[0]), next(ids), part[2], low, high, splits[i]))
        if progress is not None:
            progress(outcome.n_decided, len(open_parts), open_parts[0][0] if open_parts else outcome.bound)
    for part in open_parts:
        outcome.left_open(part[0])
    return outcome


def _bound(
    network: Network, lower: Tensor, upper: Tensor, chosen: Sequence[Target], known: Tensor
) -> tuple[LinearBound, Tensor, Tensor]:
    """Bound the margin of each part; also return how steep its rows are along each input, and the splits' intervals.

    What is ``known`` of the splits (parts, 2, n_splits), from the part that each was cut from, holds in it as well.
    """
    n = len(lower)
    filled = [*range(n), *[0] * (network.size(n) - n)]
    relaxed, problem = network.problem(lower[filled], upper[filled])
    find_intervals(relaxed, problem, intervals_of_splits(relaxed, known[filled]))
    n_rows = max(len(target.bound) for target in chosen)
    # Targets with fewer rows repeat their last one, which leaves the greatest of them as it is.
    matrix = torch.stack([_repeated(target.matrix, n_rows) for target in chosen], 1)[:, filled]
    offset = torch.stack([_repeated(target.bound, n_rows) for target in chosen], 1)[:, filled]
    bound = lower_bound(relaxed, problem, relaxed.output, matrix)
    coefficients, constant = bound.coefficients[:, :n], (bound.constant - offset)[:, :n]
    bound, weights = _mixed(coefficients, constant, lower, upper)
    # The slopes of rows that are mixed may cancel, and then say nothing about where the bound is loose.
    return bound, (weights[..., None] * coefficients.abs()).sum(0), ends_of_splits(relaxed, problem, len(filled))[:n]


def _mixed(
    coefficients: Tensor, constant: Tensor, lower: Tensor, upper: Tensor, n_steps: int = 20
) -> tuple[LinearBound, Tensor]:
    """Return the mixture of each part's rows whose least value is greatest, found by projected subgradient steps.

    A mixture of the linear bounds of rows is below the largest of them. Where rows are equal at the worst input, one
    of them alone would be far below.
    """
    n_rows = len(coefficients)
    least = _least(coefficients, constant, lower, upper)
    weights = torch.nn.functional.one_hot(least.argmax(0), n_rows).T.to(least)
    best, kept = least.amax(0), weights
    for step in range(n_steps if n_rows > 1 else 0):
        mixture = (weights[..., None] * coefficients).sum(0)
        values = (coefficients * corners(mixture, lower, upper)).sum(-1) + constant
        ascent = values - values.mean(0)
        ascent = ascent / ascent.norm(dim=0).clamp(min=torch.finfo(ascent.dtype).tiny)
        weights = onto_simplex((weights + ascent * 0.5 / (1 + step)).T).T
        reached = _least((weights[..., None] * coefficients).sum(0), (weights * constant).sum(0), lower, upper)
        kept = torch.where(reached > best, weights, kept)
        best = torch.maximum(best, reached)
    mixture = (kept[..., None] * coefficients).sum(0)
    return LinearBound(mixture[None], (kept * constant).sum(0)[None], best[None]), kept


def _least(coefficients: Tensor, constant: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    least = (coefficients * corners(coefficients, lower, upper)).sum(-1) + constant
    # Numbers that have overflowed say nothing.
    return torch.where(least.isnan(), -torch.inf, least)


def _repeated(rows: Tensor, n: int) -> Tensor:
    return torch.cat([rows, rows[-1:].expand(n - len(rows), *rows.shape[1:])])


def _try(
    task: Task, bound: LinearBound, lower: Tensor, upper: Tensor, chosen: Sequence[Target]
) -> tuple[tuple[Tensor, Tensor] | None, Tensor]:
    """Run the network where the bounds are least, and at the centres; also return which parts cannot be decided.

    There the margin is 0 to the precision: no lower than that by the bound, no higher by the network.
    """
    undecided = (bound.least[0] <= task.slack).nonzero().flatten()
    hopeless = torch.zeros(len(lower), dtype=torch.bool, device=lower.device)
    if not len(undecided):
        return None, hopeless
    points = corners(bound.coefficients[0], lower, upper)[undecided]
    outputs = task.run(points)
    for i, k in enumerate(undecided.tolist()):
        if float(bound.least[0, k]) >= -task.slack:
            hopeless[k] = float(chosen[k].margin(outputs[i : i + 1])) <= task.slack
    return task.counterexample(torch.cat([points, ((lower + upper) / 2)[undecided]])), hopeless


def _halves(steepness: Tensor, lower: Tensor, upper: Tensor) -> list[list[tuple[Tensor, Tensor]] | None]:
    """Return for each part its two halves, or ``None`` where no number lies between the ends."""
    width = upper - lower
    middle = lower + width / 2
    can = (middle > lower) & (middle < upper)
    # A side that the bound ignores may still matter to the network, once the others are small.
    gain = (steepness + 0.05 * steepness.mean(1, keepdim=True) + 1e-12) * width
    side = torch.where(can, gain, -torch.inf).argmax(1)
    halves: list[list[tuple[Tensor, Tensor]] | None] = []
    for i, k in enumerate(side.tolist()):
        if not bool(can[i, k]):
            halves.append(None)
            continue
        first_upper, second_lower = upper[i].clone(), lower[i].clone()
        first_upper[k] = second_lower[k] = middle[i, k]
        halves.append([(lower[i], first_upper), (second_lower, upper[i])])
    return halves
