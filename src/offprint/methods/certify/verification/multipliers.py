"""Optimised bounds of domains whose kinks are partly decided: slopes, multipliers of the decisions, mixed rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.operators.base import Interval, LinesRelaxation
from offprint.methods.certify.lirpa.operators.elementwise import Lines
from offprint.methods.certify.lirpa.problem import Problem
from offprint.methods.certify.verification.relaxed import (
    LinearBound,
    Network,
    Relaxed,
    ends_of_splits,
    find_intervals,
    intervals_of_splits,
    lower_bound,
)
from offprint.methods.certify.verification.task import Target


@dataclass
class Domains:
    """Domains of one target, row by row.

    Parameters
    ----------
    signs : Tensor, shape (domains, n_splits)
        1 where a kink's input is taken to be at least 0, -1 where at most 0, 0 where that is open.
    slopes : Tensor, shape (domains, n_kinks)
        Choices of the lower lines, in [0, 1].
    multipliers : Tensor, shape (domains, n_splits)
        Of the decisions, at least 0.
    mixture : Tensor, shape (domains, rows)
        Weights of the target's rows, at least 0 with sum 1.
    ends : Tensor, shape (domains, 2, n_splits)
        Intervals of what is split, as far as they are known; those of the domain that this one was cut from, say.
    """

    signs: Tensor
    slopes: Tensor
    multipliers: Tensor
    mixture: Tensor
    ends: Tensor

    def __len__(self) -> int:
        return len(self.signs)

    def pick(self, index: Sequence[int] | Tensor) -> Domains:
        """Return some of the domains."""
        chosen = torch.as_tensor(index, device=self.signs.device)
        return Domains(*(getattr(self, one.name)[chosen] for one in fields(self)))

    @staticmethod
    def join(parts: Sequence[Domains]) -> Domains:
        """Return domains one after the other."""
        return Domains(*(torch.cat([getattr(part, one.name) for part in parts]) for one in fields(Domains)))

    def clamped(self) -> Tensor:
        """Return the intervals of what is split, (domains, 2, n_splits), under the decisions."""
        lower, upper = self.ends.unbind(1)
        lower = torch.where(self.signs > 0, lower.clamp(min=0), lower)
        upper = torch.where(self.signs < 0, upper.clamp(max=0), upper)
        return torch.stack([lower, torch.maximum(lower, upper)], 1)


@dataclass(frozen=True)
class Bounded:
    """Lower bounds of the margin, the linear bounds they are the least values of, and what each kink costs."""

    least: Tensor
    coefficients: Tensor
    cost: Tensor


class Root:
    """A target's box: the intervals of all nodes on it, which hold in every domain cut from it."""

    def __init__(self, network: Network, target: Target, intervals: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.network, self.target, self.intervals = network, target, intervals
        relaxed = network.relaxed(1)
        self.lower = torch.cat([intervals[node.name][0].reshape(-1) for node in relaxed.splits])
        self.upper = torch.cat([intervals[node.name][1].reshape(-1) for node in relaxed.splits])
        self.split_sizes = [node.shape.numel() for node in relaxed.splits]
        self.kink_sizes = [node.shape.numel() for node in relaxed.kinks]

    def whole(self) -> Domains:
        """Return the box as one domain, its slopes those of plain backward propagation."""
        relaxed = self.network.relaxed(1)
        slopes = []
        for node in relaxed.kinks:
            low, high = self.intervals[next(iter(node.inputs)).name]
            slopes.append((high > -low).to(low.dtype).reshape(-1))
        n_rows = len(self.target.bound)
        return Domains(
            self.lower.new_zeros(1, len(self.lower)),
            torch.cat(slopes)[None],
            self.lower.new_zeros(1, len(self.lower)),
            self.lower.new_full((1, n_rows), 1 / n_rows),
            torch.stack([self.lower, self.upper])[None],
        )

    def problem(self, domains: Domains, *, refine: bool) -> tuple[Relaxed, Problem]:
        """Return the problem of domains with its intervals: those of the whole box, or found anew in each domain."""
        n, target = len(domains), self.target
        relaxed, problem = self.network.problem(target.lower.expand(n, -1), target.upper.expand(n, -1))
        known = {}
        for node in relaxed.graph.nodes:
            if node.name in self.intervals and node not in problem.perturbations:
                low, high = self.intervals[node.name]
                known[node] = Interval(low.expand(node.shape), high.expand(node.shape))
        known.update(intervals_of_splits(relaxed, domains.clamped()))
        if refine:
            find_intervals(relaxed, problem, known)
        else:
            problem.intervals.update(known)
        return relaxed, problem

    def bound(self, domains: Domains, n_steps: int, stop_above: float) -> tuple[Bounded, Domains]:
        """Maximise the lower bounds over slopes, multipliers and mixtures; also return where they were best.

        A domain whose decisions exclude each other has an unbounded maximum: its bound soon is above any number.
        """
        size = self.network.size(len(domains))
        filled = domains.pick([*range(len(domains)), *[0] * (size - len(domains))])
        relaxed, problem = self.problem(filled, refine=True)
        filled = replace(filled, ends=ends_of_splits(relaxed, problem, size))
        free = [filled.slopes.clone(), filled.multipliers.clone(), filled.mixture.clone()]
        for one in free:
            one.requires_grad_(True)
        moves = torch.optim.Adam(
            [{"params": free[:1], "lr": 0.1}, {"params": free[1:2], "lr": 0.1}, {"params": free[2:], "lr": 0.1}]
        )
        best: LinearBound | None = None
        kept = filled
        for step in range(n_steps + 1):
            bound, _ = self._evaluate(relaxed, problem, filled.signs, free[0], free[1], free[2], None)
            slopes, multipliers, mixture = (one.detach().clone() for one in free)
            now = Domains(filled.signs, slopes, multipliers, mixture, filled.ends)
            best, kept = _keep_best(best, bound, kept, now)
            if step == n_steps or bool((best.least > stop_above).all()):
                break
            moves.zero_grad()
            torch.autograd.backward(-bound.least.sum())
            moves.step()
            with torch.no_grad():
                free[0].clamp_(0, 1)
                free[1].clamp_(min=0)
                free[2].copy_(onto_simplex(free[2]))
            for group in moves.param_groups:
                group["lr"] *= 0.95
        assert best is not None
        cost = self._cost(relaxed, problem, kept)
        n = len(domains)
        return Bounded(best.least[0, :n], best.coefficients[0, :n], cost[:n]), kept.pick(range(n))

    @torch.no_grad()
    def least(self, domains: Domains) -> Tensor:
        """Return lower bounds of the margin where the domains' slopes, multipliers and mixtures are as they are."""
        size = self.network.size(len(domains))
        filled = domains.pick([*range(len(domains)), *[0] * (size - len(domains))])
        relaxed, problem = self.problem(filled, refine=False)
        bound, _ = self._evaluate(
            relaxed, problem, filled.signs, filled.slopes, filled.multipliers, filled.mixture, None
        )
        return bound.least[0, : len(domains)]

    def _cost(self, relaxed: Relaxed, problem: Problem, at: Domains) -> Tensor:
        """Return for each open kink about how much deciding it would raise the bound, (domains, n_splits).

        The gradient of the bound in the offsets of a kink's lines is the coefficient that meets the line. A negative
        one meets the chord, whose offset vanishes once the kink is decided; a positive one meets the line below,
        which is off by up to the smaller end.
        """
        lower, upper = at.clamped().unbind(1)
        nudge = torch.zeros(2, *at.slopes.shape, dtype=lower.dtype, device=lower.device, requires_grad=True)
        bound, offsets = self._evaluate(relaxed, problem, at.signs, at.slopes, at.multipliers, at.mixture, nudge)
        below, above = torch.autograd.grad(bound.least.sum(), nudge)[0]
        cost = lower.new_zeros(lower.shape)
        place = dict(zip(relaxed.splits, torch.split(torch.arange(lower.shape[1]), self.split_sizes), strict=True))
        parts = zip(
            relaxed.kinks,
            torch.split(below, self.kink_sizes, 1),
            torch.split(above, self.kink_sizes, 1),
            offsets,
            strict=True,
        )
        for node, low, high, offset in parts:
            where = place[next(iter(node.inputs))].to(lower.device)
            share = torch.minimum(-lower[:, where], upper[:, where])
            cost[:, where] += high.abs() * offset.abs() + 0.5 * low.abs() * share
        is_open = (lower < 0) & (upper > 0) & (at.signs == 0)
        return torch.where(is_open, cost.detach() + 1e-12, torch.full_like(cost, -torch.inf))

    def _evaluate(
        self,
        relaxed: Relaxed,
        problem: Problem,
        signs: Tensor,
        slopes: Tensor,
        multipliers: Tensor,
        mixture: Tensor,
        nudge: Tensor | None,
    ) -> tuple[LinearBound, list[Tensor]]:
        """Bound ``mixture . (matrix @ y - bound) - multipliers . (signs * splits)`` from below."""
        offsets = []
        at = 0
        for node, size in zip(relaxed.kinks, self.kink_sizes, strict=True):
            interval = problem.intervals[next(iter(node.inputs))]
            choice = slopes[:, at : at + size].reshape(node.shape)
            relaxation = problem.operator(node).relax(problem.call(node), [interval], torch.stack([choice, choice]))
            assert isinstance(relaxation, LinesRelaxation)
            lines = relaxation.lines
            offsets.append(lines.upper_offset.detach().expand(node.shape).reshape(len(signs), -1))
            if nudge is not None:
                lines = _nudged(lines, nudge[:, :, at : at + size].reshape(2, *node.shape), node)
            problem.relaxations[node] = LinesRelaxation(lines)
            at += size
        rows = torch.cat([mixture @ self.target.matrix, -multipliers * signs], 1)
        bound = lower_bound(relaxed, problem, relaxed.joined, rows[None])
        offset = mixture @ self.target.bound
        return LinearBound(bound.coefficients, bound.constant - offset, bound.least - offset), offsets


def _nudged(lines: Lines, nudge: Tensor, node: Node) -> Lines:
    return Lines(
        lines.lower_slope,
        lines.lower_offset.expand(node.shape) + nudge[0],
        lines.upper_slope,
        lines.upper_offset.expand(node.shape) + nudge[1],
    )


def _keep_best(
    best: LinearBound | None, bound: LinearBound, kept: Domains, now: Domains
) -> tuple[LinearBound, Domains]:
    detached = LinearBound(bound.coefficients.detach(), bound.constant.detach(), bound.least.detach())
    if best is None:
        return detached, now
    better = (detached.least > best.least)[0]
    wide = better[:, None]
    return LinearBound(
        torch.where(wide, detached.coefficients, best.coefficients),
        torch.where(better, detached.constant, best.constant),
        torch.where(better, detached.least, best.least),
    ), Domains(
        kept.signs,
        torch.where(wide, now.slopes, kept.slopes),
        torch.where(wide, now.multipliers, kept.multipliers),
        torch.where(wide, now.mixture, kept.mixture),
        now.ends,
    )


def onto_simplex(weights: Tensor) -> Tensor:
    """Project rows onto non-negative weights with sum 1 (Duchi et al., 2008)."""
    descending = weights.sort(1, descending=True).values
    counts = torch.arange(1, weights.shape[1] + 1, dtype=weights.dtype, device=weights.device)
    excess = descending.cumsum(1) - 1
    n_kept = (descending * counts > excess).sum(1, keepdim=True).clamp(min=1)
    return (weights - excess.gather(1, n_kept - 1) / n_kept).clamp(min=0)
