"""Branch and bound on a Jacobian: regions are split where an activation is undecided, the worst first."""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from offprint.methods.certify.lipschitz.jacobian import Jacobian, activation_inputs, differentiate, find_intervals
from offprint.methods.certify.lipschitz.pool import Fields, Pool, empty_domains, padded
from offprint.methods.certify.lirpa.backward import pull, selected_rows
from offprint.methods.certify.lirpa.bounds import BoundedModule
from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.intervals import Sharpener
from offprint.methods.certify.lirpa.operators.base import ElementwiseOperator, Interval
from offprint.methods.certify.lirpa.operators.rectifiers import Kink
from offprint.methods.certify.lirpa.perturbations import Perturbation
from offprint.methods.certify.lirpa.problem import Problem

Status = Literal["exact", "tight", "timeout", "max_domains"]


@dataclass(frozen=True)
class Trace:
    """How a bound fell.

    Parameters
    ----------
    bounds : tuple of float
        The certified bound after each round, the first before any split; it never rises.
    seconds : tuple of float
        When each was known, since branching began.
    n_domains : int
        Domains that were bounded.
    n_pruned : int
        Domains dropped because no input is in them.
    status : {"exact", "tight", "timeout", "max_domains"}
        Why it ended: the worst domain has no undecided activation left, the bound reached the sampled lower bound, or a
        limit was met. Where domains are pruned, "exact" is the constant itself, up to the tolerance of a linear
        programme; where they are not, it is the largest norm over all patterns of the undecided activations.
    """

    bounds: tuple[float, ...]
    seconds: tuple[float, ...] = field(compare=False)
    n_domains: int
    n_pruned: int
    status: Status


@dataclass(frozen=True)
class BranchAndBound:
    """Tightens the bounds of `local_lipschitz` until time runs out: what it returns is valid whenever it stops.

    Open domains, each a part of the region on which some activations are decided, wait in a heap with the worst on top.
    Every round takes the worst ones, splits each at one undecided activation and bounds both halves.

    Parameters
    ----------
    timeout : float
        Seconds for each sample, positive.
    batch : int
        Domains that are split in a round, at least 1.
    max_domains : int
        Domains that may be bounded for each sample.
    heuristic : {"area", "babsr"}
        Which activation is split: the one whose relaxation covers the largest area, or has the largest intercept, each
        weighted with the coefficients that meet it.
    candidates : int
        With more than 1, so many of the best by the heuristic are tried with the parent's intervals, and the one with
        the lowest worst half is split.
    refine : bool
        Bound the network anew on each half. Without it (as in the paper's code) only the slopes that were split change.
    prune : bool
        Drop domains that a linear programme proves empty.
    tolerance : float
        Relative distance to the sampled lower bound at which to stop.

    Raises
    ------
    ValueError
        If a number is out of its range, NaN, or ``heuristic`` is unknown.

    Notes
    -----
    A round costs about one backward bound propagation for each layer, for 2 ``batch`` domains at once. The linear
    programmes have one variable for each input; a domain is only dropped if the multipliers, checked outside of the
    solver, prove it empty.

    Examples
    --------
    >>> import torch
    >>> from offprint.methods.certify.lipschitz import local_lipschitz
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch._C.Generator object at ...>
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).double()
    >>> x = torch.zeros(1, 2, dtype=torch.float64)
    >>> plain = local_lipschitz(model, x, 0.5)
    >>> result = local_lipschitz(model, x, 0.5, bab=BranchAndBound(timeout=10))
    >>> result.trace[0].status in ("exact", "tight"), bool(result.upper <= plain.upper)
    (True, True)

    References
    ----------
    Zhouxing Shi, Yihan Wang, Huan Zhang, J. Zico Kolter, Cho-Jui Hsieh, Efficiently Computing Local Lipschitz Constants
    of Neural Networks via Bound Propagation, arXiv:2210.07394, section on branch and bound.
    """

    timeout: float = 60.0
    batch: int = 128
    max_domains: int = 200_000
    heuristic: Literal["area", "babsr"] = "area"
    candidates: int = 1
    refine: bool = True
    prune: bool = True
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise ValueError(f"timeout: expected a positive number of seconds, got {self.timeout}")
        for name in ("batch", "max_domains", "candidates"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.heuristic not in ("area", "babsr"):
            raise ValueError(f"heuristic: expected 'area' or 'babsr', got {self.heuristic!r}")
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance: expected a finite number of at least 0, got {self.tolerance}")


class Branching:
    """The domains of one sample.

    Parameters
    ----------
    settings : BranchAndBound
    network : BoundedModule
    x : Tensor, shape (1, *input)
    region : Perturbation
        Of this sample.
    rows : Tensor, shape (rows, outputs)
    order : {1, 2}
        As in `differentiate`: bounds are of the l1 norm, or of the squared l2 norm.
    start : Fields
        Intervals "lower 0", "upper 0", ... of the inputs of the activations, from the last to the first, (1, *shape).
    """

    def __init__(
        self,
        settings: BranchAndBound,
        network: BoundedModule,
        x: Tensor,
        region: Perturbation,
        rows: Tensor,
        order: int,
        start: Fields,
        memory: int = 2**30,
    ) -> None:
        self.settings = settings
        self.network = network
        self.x = x
        self.region = region
        self.rows = rows
        self.order = order
        self.memory = memory
        self.pool = Pool()
        self.heap: list[tuple[float, int, int]] = []
        self.n_bounded = self.n_pruned = self.count = 0
        self.closed = np.full(len(rows), -math.inf)
        self.n_layers = sum(name.startswith("lower") for name in start)
        first = {name: value.expand(len(rows), *value.shape[1:]) for name, value in start.items()}
        for i in range(self.n_layers):
            first[f"split {i}"] = torch.zeros_like(first[f"lower {i}"], dtype=torch.bool)
        first["row"] = torch.arange(len(rows), device=x.device)
        self.first = first

    def run(self, known: Tensor, reached: float, started: float) -> Trace:
        """Split until nothing is left to gain or a limit is met.

        ``known`` are bounds of the rows to start from, ``reached`` is a norm that is known to occur.
        """
        settings = self.settings
        self.first["bound"] = known.detach()
        self._push(self._bounded(self.first))
        bounds, seconds = [self.worst()], [time.monotonic() - started]
        status: Status = "timeout"
        while True:
            if self.worst() <= reached * (1 + settings.tolerance):
                status = "tight"
                break
            if self.n_bounded >= settings.max_domains:
                status = "max_domains"
                break
            if seconds[-1] > settings.timeout:
                break
            domains = self._pop()
            if domains is None:
                status = "exact"
            else:
                self._push(self._bounded(self._split(domains)))
            bounds.append(min(bounds[-1], self.worst()))
            seconds.append(time.monotonic() - started)
            if domains is None:
                break
        return Trace(tuple(bounds), tuple(seconds), self.n_bounded, self.n_pruned, status)

    def worst(self) -> float:
        """Return the certified bound: the largest of all open domains and of those that cannot be split further."""
        top = -self.heap[0][0] if self.heap else -math.inf
        return max(top, float(self.closed.max()), 0.0)

    def per_row(self) -> np.ndarray:
        """Return the same for each row."""
        best = self.closed.copy()
        for bound, _, place in self.heap:
            row = int(self.pool.fields["row"][place])
            best[row] = max(best[row], -bound)
        positive: np.ndarray = np.maximum(best, 0.0)
        return positive

    def _push(self, domains: Fields) -> None:
        for bound, place in zip(domains["bound"].tolist(), self.pool.add(domains), strict=True):
            self.count += 1
            heapq.heappush(self.heap, (-bound, self.count, place))

    def _pop(self) -> Fields | None:
        """Return the worst domains that can be split; ``None`` if the very worst one cannot be, and is not empty."""
        while self.heap and -self.heap[0][0] > self.closed.max():
            n = min(self.settings.batch, len(self.heap))
            domains = self.pool.take([heapq.heappop(self.heap)[2] for _ in range(n)], self.x.device)
            if self.settings.prune:
                empty = self._empty(domains)
                self.n_pruned += int(empty.sum())
                domains = {name: value[~empty] for name, value in domains.items()}
            finished = (domains["score"] <= 0).all(1)
            for row, bound in zip(domains["row"][finished].tolist(), domains["bound"][finished].tolist(), strict=True):
                self.closed[row] = max(self.closed[row], bound)
            if bool((~finished).any()):
                return {name: value[~finished] for name, value in domains.items()}
        return None

    def _split(self, domains: Fields) -> Fields:
        """Return both halves of each domain, split where the score says."""
        n_tried = min(self.settings.candidates, domains["score"].shape[1])
        choices = domains["score"].topk(n_tried, dim=1).indices
        if n_tried == 1:
            return self._halves(domains, choices[:, 0])
        worst = []
        for k in range(n_tried):
            halves = self._bounded(self._halves(domains, choices[:, k]), quick=True)["bound"]
            worst.append(halves.reshape(2, -1).amax(0))
        best = torch.stack(worst).argmin(0)
        return self._halves(domains, choices.gather(1, best[:, None])[:, 0])

    def _halves(self, domains: Fields, choice: Tensor) -> Fields:
        n = len(choice)
        halves = {name: torch.cat([value, value]) for name, value in domains.items()}
        both = torch.cat([choice, choice])
        upwards = torch.arange(2 * n, device=choice.device) < n
        start = 0
        for i in range(self.n_layers):
            lower, upper, split = (halves[f"{name} {i}"].flatten(1).clone() for name in ("lower", "upper", "split"))
            point = halves[f"point {i}"].flatten(1)
            here = (both >= start) & (both < start + lower.shape[1])
            index = (both - start).clamp(0, lower.shape[1] - 1)[:, None]
            at = point.gather(1, index)
            # At zero itself the Clarke set has both slopes; each half keeps one, as the norm is largest at one of them.
            tiny = torch.finfo(at.dtype).tiny
            raised = torch.maximum(lower.gather(1, index), torch.where(at == 0, tiny, at))
            lowered = torch.minimum(upper.gather(1, index), torch.where(at == 0, -tiny, at))
            lower.scatter_(1, index, torch.where((here & upwards)[:, None], raised, lower.gather(1, index)))
            upper.scatter_(1, index, torch.where((here & ~upwards)[:, None], lowered, upper.gather(1, index)))
            split.scatter_(1, index, split.gather(1, index) | here[:, None])
            for name, value in (("lower", lower), ("upper", upper), ("split", split)):
                halves[f"{name} {i}"] = value.reshape(halves[f"{name} {i}"].shape)
            start += lower.shape[1]
        return halves

    def _bounded(self, domains: Fields, quick: bool = False) -> Fields:
        """Return domains with bounds, with intervals that are sharper, and with scores for the next split."""
        n = len(domains["bound"])
        whole = {name: padded(value) for name, value in domains.items()}
        forward, inputs = self._forward(whole, refine=self.settings.refine and not quick)
        jacobian = differentiate(forward, self.rows[whole["row"]], self.order, memory=self.memory)
        nodes = [product.gradient for product in jacobian.products] + [jacobian.node]
        for i, node in enumerate(nodes):
            if isinstance(node, Node) and f"from {i}" in whole:
                jacobian.known[node] = Interval(whole[f"from {i}"], whole[f"to {i}"])
        if quick:
            jacobian.sharpeners = ()
        bound = torch.minimum(jacobian.norm(watch=True), whole["bound"])
        if quick:
            return {"bound": bound[:n]}
        self.n_bounded += n
        result = {"row": whole["row"], "bound": bound}
        for i, node in enumerate(inputs):
            result[f"lower {i}"], result[f"upper {i}"] = forward.intervals[node]
            result[f"split {i}"] = whole[f"split {i}"]
            result[f"point {i}"] = _split_point(forward, node)
        for i, node in enumerate(nodes):
            if isinstance(node, Node):
                result[f"from {i}"], result[f"to {i}"] = jacobian.problem.intervals[node]
        result["score"] = self._score(jacobian, inputs)
        return {name: value[:n] for name, value in result.items()}

    def _forward(self, domains: Fields, refine: bool) -> tuple[Problem, list[Node]]:
        n = len(domains["bound"])
        x = self.x.expand(n, *self.x.shape[1:])
        forward = self.network.problem(x, self.region)
        inputs = activation_inputs(forward)
        known = {node: Interval(domains[f"lower {i}"], domains[f"upper {i}"]) for i, node in enumerate(inputs)}
        if refine:
            find_intervals(forward, forward.graph.outputs[0], known, (Sharpener(self.memory),))
        else:
            forward.intervals.update(known)
        return forward, inputs

    def _score(self, jacobian: Jacobian, inputs: list[Node]) -> Tensor:
        """Return how much each activation's split is worth, (domains, activations); 0 where nothing is open."""
        scores: dict[Node, Tensor] = {}
        for product in jacobian.products:
            undecided = product.least < product.greatest
            if self.settings.heuristic == "area":
                lower, upper = jacobian.gradient_range(product)
                area = upper * upper.abs() - lower * lower.abs()
                value = area * jacobian.weight(product) + 1
            else:
                value = jacobian.intercept(product) + torch.finfo(self.x.dtype).eps
            value = torch.where(undecided, value.expand(undecided.shape), 0.0)
            known = scores.get(product.inputs)
            scores[product.inputs] = value if known is None else known + value
        return torch.cat([scores[node].flatten(1) for node in inputs], 1)

    def _empty(self, domains: Fields) -> Tensor:
        """Return which domains a linear programme proves to have no input in them."""
        n = len(domains["bound"])
        splits = [domains[f"split {i}"].flatten(1) for i in range(self.n_layers)]
        if not any(bool(split.any()) for split in splits):
            return torch.zeros(n, dtype=torch.bool)
        whole = {name: padded(value) for name, value in domains.items()}
        forward, inputs = self._forward(whole, refine=False)
        find_intervals(forward, forward.graph.outputs[0])
        (root,) = forward.perturbations
        slopes, constants = [], []
        for i, node in enumerate(inputs):
            n_rows = int(splits[i].sum(1).max())
            if n_rows == 0:
                continue
            # Where a domain has fewer splits than others, elements that were not split say nothing new, but hold too.
            index = padded(splits[i].to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :n_rows])
            pulled = pull(forward, node, selected_rows(forward, node, index.T, self.x), (False, True))
            slope = pulled.coefficients[root].flatten(3)
            lower, upper = (whole[f"{end} {i}"].flatten(1).gather(1, index).T for end in ("lower", "upper"))
            # The function above must reach the lower end, and the one below must stay under the upper end.
            slopes += [slope[1], -slope[0]]
            constants += [pulled.constant[1] - lower, upper - pulled.constant[0]]
        slope, constant = torch.cat(slopes).transpose(0, 1), torch.cat(constants).T
        return empty_domains(slope[:n], constant[:n], self.region, self.x)


def _split_point(forward: Problem, node: Node) -> Tensor:
    """Return where each element is split: where a kink is, in the middle otherwise."""
    lower, upper = forward.intervals[node]
    middle = (lower + upper) / 2
    for reader in forward.perturbed:
        operator = forward.operator(reader) if reader not in forward.perturbations else None
        if not isinstance(operator, ElementwiseOperator) or node not in forward.inputs(reader):
            continue
        if isinstance(operator.function(forward.call(reader)), Kink):
            return torch.where((lower <= 0) & (upper >= 0), 0.0, middle)
    return middle
