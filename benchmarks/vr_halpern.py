"""Speed of variance-reduced Halpern iteration: against dense full evaluations, and against loops over samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from harness import Comparison, compare

from offprint.methods.optimize.finite_sum import FiniteSumOperator
from offprint.methods.optimize.halpern import inexact_vr_halpern, vr_halpern
from offprint.methods.optimize.projections import SimplexProduct, project_simplex
from offprint.methods.optimize.saddle import SaddleOperator, from_matrix_game


def comparisons() -> Iterator[Comparison]:
    """Yield one comparison for each speed target of the brief, and one for the compiled inner solver."""
    n = 4096
    rng = np.random.default_rng(0)
    game, strategies = from_matrix_game(rng.standard_normal((n, n))), SimplexProduct(n, n)
    start = strategies.uniform()
    epochs = 6

    def solve(operator: FiniteSumOperator) -> None:
        # two full evaluations begin the run; batches alone follow, with a last full one to check the residual
        vr_halpern(operator, start, strategies, step_size=1e-3, full_probability=0, tol=1e-12, max_evals=epochs * n)

    yield compare(
        f"Algorithm 1 on a {n} x {n} game, {epochs} epochs",
        lambda: solve(game),
        lambda: [game.full(start) for _ in range(epochs)],
        peer_name="as many dense full evaluations",
        target=0.4,
        repeats=5,
        note="at most 2.5 times the dense evaluations, so a ratio of 0.4",
    )

    indices = rng.choice(n, 64, replace=False)
    yield compare(
        "one batch of 64 components",
        lambda: game.component(indices, start),
        lambda: mean_by_loop(game, indices, start),
        peer_name="a Python loop over samples",
        target=20.0,
        repeats=5,
    )

    small, both = from_matrix_game(rng.standard_normal((200, 200))), SimplexProduct(200, 200)

    def project(u: np.ndarray, step: float) -> np.ndarray:
        return project_simplex(u.reshape(2, -1)).ravel()

    yield compare(
        "Algorithm 2 on a 200 x 200 game, 40 epochs, one sample a step",
        lambda: inexact_vr_halpern(small, both.uniform(), both, tol=1e-12, max_evals=40 * 200),
        lambda: inexact_vr_halpern(small, both.uniform(), project, tol=1e-12, max_evals=40 * 200),
        peer_name="the same steps in Python and NumPy",
        target=5.0,
        repeats=5,
    )


def mean_by_loop(game: SaddleOperator, indices: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the mean over a batch as a loop over samples, each with NumPy on its own row and column."""
    n = game.n
    x, y = u[:n], u[n:]
    total = np.zeros_like(u)
    for i in indices:
        total += n * np.concatenate([game.a[i] * y[i], -game.a[:, i] * x[i]])
    return total / len(indices)
