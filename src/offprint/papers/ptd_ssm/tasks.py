"""The data that the claims are measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from offprint.models.evaluation import cross_entropy, mean_squared_error
from offprint.papers.ptd_ssm.comparison import Pair, Plan, Setting, Splits, rates
from offprint.papers.run import Run


def sinusoids(run: Run, n: int, low: float, high: float, stream: int) -> Pair:
    """Return sine and cosine waves over one unit of time, 256 samples, and their amplitudes in [0.5, 1.5]."""
    rng = run.rng(stream)
    omega, amplitude, phase = rng.uniform(low, high, n), rng.uniform(0.5, 1.5, n), rng.choice([0, np.pi / 2], n)
    waves = amplitude[:, None] * np.sin(omega[:, None] * np.arange(256) / 256 + phase[:, None])
    return torch.from_numpy(waves[..., None]).float(), torch.from_numpy(amplitude[:, None]).float()


def sequential_digits(run: Run) -> Splits:
    """Return 8 x 8 digits as sequences: pixels in reading order, each held for four steps, 256 steps in all."""
    digits = run.data("digits")
    pixels = torch.from_numpy(digits.inputs).float().reshape(-1, 64).repeat_interleave(4, dim=1)[..., None]
    classes = torch.from_numpy(digits.targets).long()
    order = torch.from_numpy(run.rng(5).permutation(len(classes)))
    n_train = run.pick(smoke=60, quick=1100, full=1100)
    rows = order[:n_train], order[1100:1300], order[1300 : run.pick(smoke=1340, quick=1797, full=1797)]
    return Splits(*((pixels[part], classes[part]) for part in rows))


@dataclass(frozen=True)
class Task:
    """A synthetic task: its data, the shape of its model, its training, and the share of correct predictions."""

    splits: Splits
    setting: Setting
    plan: Plan
    score: Callable[[Tensor, Tensor], float]


def _task(run: Run, draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]], **rest: Any) -> Task:
    sizes = run.pick(smoke=(40, 20, 40), quick=(1000, 250, 500), full=(1500, 500, 1000))
    pairs = (draw(run.rng(20 + stream), size) for stream, size in enumerate(sizes))
    return Task(Splits(*((torch.from_numpy(x).float(), torch.from_numpy(y)) for x, y in pairs)), **rest)


def delayed_copy(run: Run) -> Task:
    """Say at each step which of four symbols came 64 steps before, in sequences of 128."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        symbols = rng.integers(4, size=(n, 128))
        return np.eye(4)[symbols], symbols[:, :64]

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        return functional.cross_entropy(model(batch[0])[:, 64:].transpose(1, 2), batch[1])

    def score(outputs: Tensor, symbols: Tensor) -> float:
        return float((outputs[:, 64:].argmax(-1) == symbols).float().mean())

    n_epochs = run.pick(smoke=1, quick=6, full=8)
    plan = Plan(loss, n_epochs=n_epochs, batch_size=32, rates=rates(run))
    return _task(run, draw, setting=Setting(4, 4, pooling="none"), plan=plan, score=score)


def list_operations(run: Run) -> Task:
    """Evaluate nested minimum, maximum and sum modulo 10 over digits: up to 48 tokens, ten classes."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        expressions = [_expression(rng, depth=2) for _ in range(n)]
        tokens = np.full((n, 48), 14)
        for row, (expression, _) in zip(tokens, expressions, strict=True):
            row[48 - len(expression) :] = expression
        return np.eye(15)[tokens], np.array([value for _, value in expressions])

    def score(outputs: Tensor, values: Tensor) -> float:
        return float((outputs.argmax(-1) == values).float().mean())

    plan = Plan(cross_entropy, n_epochs=run.pick(smoke=1, quick=6, full=8), batch_size=32, rates=rates(run))
    return _task(run, draw, setting=Setting(15, 10), plan=plan, score=score)


def _expression(rng: np.random.Generator, depth: int) -> tuple[list[int], int]:
    """Return the tokens of a random expression and its value; 10 to 12 are the operations, 13 closes a list."""
    if depth == 0 or rng.random() < 0.2:
        digit = int(rng.integers(10))
        return [digit], digit
    operation = int(rng.integers(3))
    parts = [_expression(rng, depth - 1) for _ in range(rng.integers(2, 5))]
    values = [value for _, value in parts]
    value = (min(values), max(values), sum(values) % 10)[operation]
    return [10 + operation, *(token for tokens, _ in parts for token in tokens), 13], value


def adding(run: Run) -> Task:
    """Add the two numbers of a random sequence that are marked; within 0.04 counts as correct."""
    length = run.pick(smoke=100, quick=1000, full=1000)

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        values, marks = rng.random((n, length)), np.zeros((n, length))
        halves = rng.integers(length // 2, size=n), rng.integers(length // 2, length, size=n)
        for half in halves:
            marks[np.arange(n), half] = 1
        return np.stack((values, marks), -1), (values * marks).sum(1, keepdims=True).astype(np.float32)

    def score(outputs: Tensor, sums: Tensor) -> float:
        return float(((outputs - sums).abs() <= 0.04).float().mean())

    n_epochs = run.pick(smoke=1, quick=4, full=6)
    plan = Plan(mean_squared_error, n_epochs=n_epochs, batch_size=32, rates=rates(run))
    return _task(run, draw, setting=Setting(2, 1, pooling="last"), plan=plan, score=score)
