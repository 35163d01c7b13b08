"""The data on which the claims about label proportions are measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.decomposition import PCA

from offprint.data import MissingDataError, load
from offprint.papers.run import Run

Rows = Float[np.ndarray, "n d"]
Labels = Int[np.ndarray, " n"]
N_FEATURES = 16
SEPARATION = 1.81
"""Distance of two normal clouds at which the best score has an AUC of 0.9: Φ(1.81 / √2)."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Labelled rows to train on (their labels shown as counts only) and to test on, on one scale."""

    name: str
    X: Rows
    y: Labels
    X_test: Rows
    y_test: Labels

    @classmethod
    def of(cls, name: str, X: Rows, y: Labels, n_train: int, n_test: int, rng: np.random.Generator) -> Problem:
        """Split at random and standardise by the training rows."""
        order = rng.permutation(len(y))
        train, test = order[:n_train], order[n_train : n_train + n_test]
        center, scale = X[train].mean(axis=0), X[train].std(axis=0)
        scaled = ((X - center) / np.where(scale > 0, scale, 1)).astype(np.float32)
        return cls(name, scaled[train], y[train], scaled[test], y[test])


def draw_clusters(n: int, rng: np.random.Generator) -> tuple[Rows, Labels]:
    """Draw rows of two normal clouds of equal weight in 16 dimensions."""
    y = rng.integers(0, 2, n)
    X = rng.standard_normal((n, N_FEATURES), dtype=np.float32)
    X += ((y - 0.5) * SEPARATION / N_FEATURES**0.5).astype(np.float32)[:, None]
    return X, y


def problems(run: Run, n_clusters: int, n_test: int) -> list[Problem]:
    """Return clusters, odd against even digits, and from full scale on Adult or else MNIST, where it is present."""
    X, y = draw_clusters(n_clusters + n_test, run.rng(1))
    digits = load("digits")
    images = digits.inputs.reshape(len(digits), -1)
    n_digits = min(n_clusters, 1437)  # four of five
    found = [
        Problem.of("clusters", X, y, n_clusters, n_test, run.rng(2)),
        Problem.of("digits", images, digits.targets % 2, n_digits, min(n_test, 360), run.rng(3)),
    ]
    if run.scale in ("full", "paper") and (table := _real_table()) is not None:
        found.append(Problem.of(*table, n_clusters, n_test, run.rng(4)))
    return found


def _real_table() -> tuple[str, Rows, Labels] | None:
    try:
        adult = load("adult", "all", encoding="one_hot")
        return "Adult", np.asarray(adult.inputs, dtype=np.float64), adult.targets
    except MissingDataError:
        pass
    try:
        mnist = load("mnist")
    except MissingDataError:
        return None
    reduced = PCA(50, random_state=0).fit_transform(mnist.inputs.reshape(len(mnist), -1))
    return "MNIST", reduced, mnist.targets % 2
