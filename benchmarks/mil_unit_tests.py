"""Unit tests for multiple-instance models: bags without loops, and trainings within their time limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import harness
import numpy as np

from offprint.methods.bags.mil_unit_tests import MINet, TransformerMIL, make_single_concept, run_unit_test


def comparisons() -> Iterator[harness.Comparison]:
    """Yield the comparisons that the paper's targets name."""
    yield harness.within("10,000 bags of the first test", lambda: make_single_concept(10_000, "train"), 2.0, repeats=5)
    yield harness.compare(
        "10,000 bags of the first test",
        lambda: make_single_concept(10_000, "train"),
        lambda: _bags_by_loops(10_000),
        peer_name="a loop over items",
        target=10.0,
        repeats=3,
        note="the peer draws item by item in NumPy, as published code does",
    )
    yield harness.within("MI-Net, 10,000 bags, 20 epochs", _training(MINet), 90.0, repeats=1)
    yield harness.within("Transformer, 10,000 bags, 20 epochs", _training(TransformerMIL), 360.0, repeats=1)


def _bags_by_loops(n_bags: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    bags = []
    for bag in range(n_bags):
        positive = bag % 2 == 1
        rows = [_positive_item(rng) for _ in range(rng.integers(1, 4) if positive else 0)]
        rows += [rng.normal(-10, 0.1, 16)] * (not positive)
        rows += [rng.normal(0, 1, 16) for _ in range(rng.integers(1, 5 if positive else 10))]
        bags.append(np.stack(rows).astype(np.float32))
    return bags


def _positive_item(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 3, 16) if rng.random() < 0.5 else rng.normal(1, 1, 16)


def _training(model: Callable[[int], object]) -> Callable[[], object]:
    pair = [make_single_concept(n, split) for n, split in ((10_000, "train"), (1000, "test"))]
    return lambda: run_unit_test(model, *pair, n_epochs=20)
