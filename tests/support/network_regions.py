"""Random networks with random sets of inputs and weights, and a search for the extremes of their outputs."""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass

import torch
from network_pieces import PIECES
from network_pieces_more import OF_ONE_SAMPLE
from random_networks import Program, write
from regions import best_points, is_convex, random_points
from torch import Tensor

from offprint.methods.certify.lirpa.perturbations import Box, LpBall, Perturbation
from offprint.methods.certify.lirpa.substitutions import L0, Synonym

Key = int | str
Points = dict[Key, Tensor]
PIECES_OF_ONE = 4
aten = torch.ops.aten
# What torch.func.vmap cannot do.
ONE_BY_ONE = {
    aten.lstm.input,
    aten.gru.input,
    aten.rnn_tanh.input,
    aten.rnn_relu.input,
    aten.lstm_cell.default,
    aten.moveaxis.int,
}


@dataclass(frozen=True)
class Scenario:
    """A network, the centre of its inputs, and which of its inputs and weights are perturbed in which way."""

    seed: int
    program: Program
    inputs: tuple[Tensor, ...]
    kinds: dict[Key, str]

    def centre(self, key: Key) -> Tensor:
        """Return a perturbed input, or a weight as the only sample of its set."""
        if isinstance(key, int):
            return self.inputs[key]
        return self.program.get_parameter(key).detach().unsqueeze(0)

    def regions(self, eps: float) -> dict[Key, Perturbation]:
        """Return the perturbations with a radius of about ``eps``."""
        generator = torch.Generator().manual_seed(self.seed)
        return {key: _region(kind, self.centre(key), eps, generator) for key, kind in self.kinds.items()}


def n_scenarios() -> int:
    """Return how many scenarios it takes until every piece was used."""
    return -(-len(PIECES) // PIECES_OF_ONE)


@functools.cache
def scenario(seed: int) -> Scenario:
    """Return a scenario; the pieces are dealt like cards, so that a full round of seeds uses all of them."""
    per_round = n_scenarios()
    deck = sorted(PIECES)
    random.Random(seed // per_round).shuffle(deck)
    place = seed % per_round * PIECES_OF_ONE
    names = deck[place : place + PIECES_OF_ONE]
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    n_samples = 1 if OF_ONE_SAMPLE & set(names) else chance.choice([1, 2, 2, 3])
    shapes = [chance.choice([(4,), (2, 3), (1, 3, 3)]) for _ in range(chance.choice([1, 1, 2, 3]))]
    kinds: dict[Key, str] = {}
    for i, shape in enumerate(shapes):
        options = ["inf", "2", "1", "3", "pixels", "limited", "samples", "elements", "box", "l0"]
        options += ["synonym"] * 3 if shape == (2, 3) else []
        if i == 0 or chance.random() < 0.7:
            kinds[i] = chance.choice(options)
    inputs = tuple(torch.randn(n_samples, *s, dtype=torch.float64, generator=generator).clamp(-2, 2) for s in shapes)
    program = write(seed, inputs, [PIECES[name] for name in names])
    if chance.random() < 0.3:
        weights = [name for name, _ in program.named_parameters()]
        for name in chance.sample(weights, min(len(weights), 2)):
            kinds[name] = chance.choice(["inf", "2", "1", "box"])
    return Scenario(seed, program, inputs, kinds)


def _region(kind: str, x: Tensor, eps: float, generator: torch.Generator) -> Perturbation:
    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=x.dtype, generator=generator)

    if kind == "pixels":
        return LpBall(math.inf, eps, -2.0, x.abs() + 0.01)
    if kind == "limited":
        return LpBall(2, 2 * eps, x - eps, 2.0)
    if kind == "samples":
        return LpBall(math.inf, eps * uniform(len(x)))
    if kind == "elements":
        radii = eps * uniform(*x.shape)
        return LpBall(2, torch.where(uniform(*x.shape) < 0.3, torch.zeros_like(x), radii))
    if kind == "box":
        lower, upper = x - eps * uniform(*x.shape), x + eps * uniform(*x.shape)
        return Box(lower[0], upper[0]) if len(x) == 1 else Box(lower, upper)
    if kind == "l0":
        return L0(1 if eps < 0.1 else 2, -2.0, 2.0)
    if kind == "synonym":
        n, positions, features = x.shape
        candidates = x.unsqueeze(2) + 3 * eps * (uniform(n, positions, 3, features) - 0.5)
        return Synonym(candidates, 1 if eps < 0.1 else 2, uniform(n, positions, 3) < 0.7)
    return LpBall(math.inf if kind == "inf" else float(kind), eps)


def evaluate(one: Scenario, points: Points) -> tuple[Tensor, ...]:
    """Return the outputs at many points of the perturbed roots, which have these on an axis in front."""
    weights = {name: value.detach() for name, value in one.program.named_parameters()}

    def at(moved: Points) -> tuple[Tensor, ...]:
        inputs = [moved.get(i, x) for i, x in enumerate(one.inputs)]
        ours = {name: moved[name][0] if name in moved else value for name, value in weights.items()}
        return one.program.run(inputs, ours)

    if any(step.target in ONE_BY_ONE for step in one.program.steps):
        count = len(next(iter(points.values())))
        found = [at({key: value[i] for key, value in points.items()}) for i in range(count)]
        return tuple(torch.stack(values) for values in zip(*found, strict=True))
    return torch.func.vmap(at)(points)


@dataclass(frozen=True)
class Found:
    """What a search found: points, the outputs there, and the least and the greatest of each output seen at all."""

    points: Points
    values: tuple[Tensor, ...]
    lowest: tuple[Tensor, ...]
    highest: tuple[Tensor, ...]


def search(one: Scenario, eps: float, count: int, steps: int, n_attacks: int = 32) -> Found:
    """Sample the set, and climb from some of the points towards the extremes of single outputs and of sums of them."""
    generator = torch.Generator().manual_seed(one.seed + 1)
    regions = one.regions(eps)
    points = {key: random_points(region, one.centre(key), count, generator) for key, region in regions.items()}
    with torch.no_grad():
        values = evaluate(one, points)
    lowest, highest = [v.amin(0) for v in values], [v.amax(0) for v in values]
    climbing = {key: value[:n_attacks] for key, value in points.items()}
    goals = [_goals(value[:n_attacks], generator) for value in values]
    for step in range(steps):
        moving = {key: value.detach().requires_grad_() for key, value in climbing.items()}
        outputs = evaluate(one, moving)
        for i, output in enumerate(outputs):
            lowest[i] = torch.minimum(lowest[i], output.detach().amin(0))
            highest[i] = torch.maximum(highest[i], output.detach().amax(0))
        height = sum((output * goal).sum() for output, goal in zip(outputs, goals, strict=True))
        assert isinstance(height, Tensor)
        slopes = torch.autograd.grad(height, list(moving.values()), allow_unused=True)
        for (key, value), slope in zip(list(climbing.items()), slopes, strict=True):
            if slope is None:
                continue
            best = best_points(regions[key], one.centre(key), slope.nan_to_num(0.0))
            pace = 1.0 if not is_convex(regions[key]) else 2 / (step + 2)
            climbing[key] = value + pace * (best - value)
    with torch.no_grad():
        final = evaluate(one, climbing)
    lowest = [torch.minimum(a, b.amin(0)) for a, b in zip(lowest, final, strict=True)]
    highest = [torch.maximum(a, b.amax(0)) for a, b in zip(highest, final, strict=True)]
    points = {key: torch.cat([value, climbing[key]]) for key, value in points.items()}
    both = tuple(torch.cat(pair) for pair in zip(values, final, strict=True))
    return Found(points, both, tuple(lowest), tuple(highest))


def _goals(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return for each attack and sample one output with a sign, or for every fourth attack all with random signs."""
    flat = values.reshape(len(values), -1)
    goals = torch.zeros_like(flat)
    signs = torch.randint(0, 2, flat.shape, generator=generator).to(flat) * 2 - 1
    which = torch.arange(len(flat)) % flat.shape[1]
    goals.scatter_(1, which[:, None], signs)
    goals[::4] = signs[::4]
    return goals.reshape(values.shape)


def linear_values(coefficients: Tensor | dict[Key, Tensor], constant: Tensor, points: Points) -> Tensor:
    """Return linear functions of the roots, (samples, rows, ...), at the points: (points, samples, rows)."""
    given = coefficients if isinstance(coefficients, dict) else {next(iter(points)): coefficients}
    total = constant.unsqueeze(0)
    for key, matrix in given.items():
        total = total + torch.einsum("bkn,zbn->zbk", matrix.flatten(2), _expanded(points[key], len(matrix)))
    return total


def _expanded(points: Tensor, n_samples: int) -> Tensor:
    return points.flatten(2).expand(-1, n_samples, -1)


def slack(*bounds: Tensor, dtype: torch.dtype = torch.float64) -> float:
    """Return what rounding may add to bounds of these sizes, in a network of some dozen operators."""
    largest = max([1.0, *(one.abs().max().item() for one in bounds)])
    return largest * (1e-9 if dtype == torch.float64 else 1e-4)
