"""Branch and bound that decides on which side of its kink each ReLU is."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import replace

import torch
from torch import Tensor

from offprint.methods.certify.verification.inputs import Progress
from offprint.methods.certify.verification.leaves import decide
from offprint.methods.certify.verification.multipliers import Domains, Root
from offprint.methods.certify.verification.outcome import Outcome
from offprint.methods.certify.verification.relaxed import Network, corners, find_intervals
from offprint.methods.certify.verification.task import Clock, Target, Task

STEPS_AT_ROOT = 50
STEPS_IN_DOMAINS = 15
N_TRIED = 20
"""How many kinks are tried before one of them is split."""


def make_root(network: Network, target: Target, *, optimise: bool = False) -> Root:
    """Find the intervals of a target's box; they hold in all domains, so that optimising them pays."""
    relaxed, problem = network.problem(target.lower[None], target.upper[None])
    find_intervals(relaxed, problem, optimise=optimise)
    intervals = {node.name: (one.lower.detach(), one.upper.detach()) for node, one in problem.intervals.items()}
    return Root(network, target, intervals)


def split_kinks(
    task: Task, root: Root, *, batch: int, optimise: bool, clock: Clock, progress: Progress | None
) -> Outcome:
    """Decide a target by splitting kinks until bounds decide every domain; when all are split, by a linear program."""
    ids = itertools.count()
    outcome = Outcome(n_domains=1)
    open_domains: list[tuple[float, int, Domains]] = [(-torch.inf, next(ids), root.whole())]
    while open_domains and not clock.is_over:
        taken = [heapq.heappop(open_domains) for _ in range(min(batch, len(open_domains)))]
        domains = Domains.join([one[2] for one in taken])
        n_steps = (STEPS_AT_ROOT if outcome.n_domains == 1 else STEPS_IN_DOMAINS) if optimise else 0
        bounded, domains = root.bound(domains, n_steps, task.slack)
        undecided = (~(bounded.least > task.slack)).nonzero().flatten()
        points = corners(bounded.coefficients[undecided], root.target.lower, root.target.upper)
        outcome.counterexample = task.counterexample(points) if len(points) else None
        if outcome.counterexample is not None:
            return outcome
        least = torch.maximum(bounded.least, bounded.least.new_tensor([one[0] for one in taken])).tolist()
        chosen = _choose(root, domains.pick(undecided), bounded.least[undecided], bounded.cost[undecided], batch)
        splits = dict(zip(undecided.tolist(), chosen, strict=True))
        for i in range(len(domains)):
            if i not in splits:
                outcome.decided(least[i])
            elif bool(torch.isfinite(bounded.cost[i].amax())):
                outcome.n_domains += 1
                for half in _halves(domains.pick([i]), splits[i]):
                    heapq.heappush(open_domains, (least[i], next(ids), half))
            elif _leaf(task, root, domains.pick([i]), least[i], outcome):
                return outcome
        if progress is not None:
            progress(outcome.n_decided, len(open_domains), open_domains[0][0] if open_domains else outcome.bound)
    for bound, _, _ in open_domains:
        outcome.left_open(bound)
    return outcome


def _choose(root: Root, domains: Domains, least: Tensor, cost: Tensor, batch: int) -> list[int]:
    """Return which kink to split in each domain: of those that cost most, the one whose halves have the best bounds.

    The halves are bounded with the lines and multipliers of the whole, a single pass for each; ``least`` is the bound
    of the whole, which they have in any case.
    """
    if not len(domains):
        return []
    n_tried = min(N_TRIED, cost.shape[1])
    tried = cost.topk(n_tried, dim=1)
    index = torch.arange(len(domains)).repeat_interleave(2 * n_tried)
    split = tried.indices.repeat_interleave(2, 1).flatten()
    found = []
    for part in torch.split(torch.arange(len(index)), batch):
        halves = domains.pick(index[part])
        signs = halves.signs.clone()
        signs[torch.arange(len(part)), split[part]] = 1.0 - 2.0 * (part % 2).to(signs)
        found.append(root.least(replace(halves, signs=signs)))
    both = torch.maximum(torch.cat(found).reshape(len(domains), n_tried, 2), least[:, None, None])
    # What is above 0 is decided: how far above does not matter.
    score = both.amin(2) + 0.1 * both.amax(2).clamp(max=0)
    best = torch.where(tried.values.isfinite(), score, -torch.inf).argmax(1, keepdim=True)
    return [int(k) for k in tried.indices.gather(1, best)]


def _halves(domain: Domains, split: int) -> list[Domains]:
    halves = []
    for sign in (1.0, -1.0):
        signs = domain.signs.clone()
        signs[0, split] = sign
        halves.append(replace(domain, signs=signs))
    return halves


def _leaf(task: Task, root: Root, domain: Domains, least: float, outcome: Outcome) -> bool:
    """Decide a domain with nothing left to split; return whether it holds a counterexample."""
    leaf = decide(root, domain, task.slack)
    if leaf.margin is None:
        outcome.left_open(least)
    elif leaf.margin > task.slack:
        outcome.decided(leaf.margin)
    else:
        assert leaf.point is not None
        outcome.counterexample = task.counterexample(leaf.point[None])
        if outcome.counterexample is not None:
            return True
        outcome.left_open(leaf.margin)
    return False
