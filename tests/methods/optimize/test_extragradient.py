"""Extragradient methods against solutions in closed form and against what is proved of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from offprint.methods.optimize.extragradient import eag, extragradient, optimistic_gradient, vr_extragradient
from offprint.methods.optimize.finite_sum import FiniteSumOperator, from_affine
from offprint.methods.optimize.inclusion import Result
from offprint.methods.optimize.projections import SimplexProduct
from offprint.methods.optimize.saddle import from_matrix_game, from_saddle_qp

SOLVERS = [eag, extragradient, optimistic_gradient, vr_extragradient]
EACH = pytest.mark.parametrize("solver", SOLVERS)
RNG = np.random.default_rng(0)


@EACH
def test_quadratic_programme_is_solved(solver: Callable[..., Result]) -> None:
    """The saddle point solves [[H, -Aᵀ], [A, 0]] (x, y) = (h, b)."""
    rng = np.random.default_rng(1)
    root, a = rng.standard_normal((4, 4)), rng.standard_normal((2, 4))
    hessian, b, h = root @ root.T / 4 + np.eye(4), rng.standard_normal(2), rng.standard_normal(4)
    matrix = np.block([[hessian, -a.T], [a, np.zeros((2, 2))]])
    exact = np.linalg.solve(matrix, np.r_[h, b])
    result = solver(from_saddle_qp(hessian, a, b, h), np.zeros(6), tol=3e-2, max_evals=10**5)
    assert result.converged, result.message
    # a residual r leaves an error of at most r / σ with the smallest singular value σ
    assert np.linalg.norm(result.u - exact) <= 3e-2 / np.linalg.norm(matrix, -2) * (1 + 1e-9)


@EACH
def test_constrained_game_is_solved(solver: Callable[..., Result]) -> None:
    """The 2 x 2 game [[2, -1], [-1, 1]] has the equilibrium (0.4, 0.6) for both."""
    strategies = SimplexProduct(2, 2)
    game = from_matrix_game([[2.0, -1.0], [-1.0, 1.0]])
    result = solver(game, strategies.uniform(), strategies, tol=1e-3, max_evals=10**5)
    assert result.converged, result.message
    np.testing.assert_allclose(result.u, [0.4, 0.6, 0.4, 0.6], atol=2e-3)


@EACH
def test_first_steps_are_those_of_the_formula(solver: Callable[..., Result]) -> None:
    """On one component nothing is random but the snapshots, each step being followed by one with probability 1/2."""
    m, q, eta, start = RNG.standard_normal((3, 3)), RNG.standard_normal(3), 0.1, np.ones(3)
    m = m - m.T + np.eye(3)

    def value(u: np.ndarray) -> np.ndarray:
        return m @ u - q

    u1_half = start - eta * value(start)
    if solver is eag:
        u1 = start - eta * value(u1_half)
        center = start / 3 + 2 * u1 / 3
        u2 = center - eta * value(center - eta * value(u1))
    elif solver is extragradient:
        u1 = start - eta * value(u1_half)
        u2 = u1 - eta * value(u1 - eta * value(u1))
    elif solver is optimistic_gradient:
        u1 = u1_half
        u2 = u1 - eta * (2 * value(u1) - value(start))
    else:  # z̄ = z/2 + w/2, with w the start until the first snapshot
        u1 = start - eta * value(u1_half)
        middle = (u1 + start) / 2
        u2 = middle - eta * value(middle - eta * value(start))
    seen: dict[int, np.ndarray] = {}
    result = None
    for seed in range(20):  # some seed takes its first snapshot at step 1, some at step 2
        seen = {}
        result = solver(
            from_affine(m[None], q[None]), start, step_size=eta, tol=1e-300, max_evals=20, rng=seed,
            callback=lambda k, u, *_, seen=seen: seen.update({k: u}),
        )  # fmt: skip
        if 1 in seen:
            np.testing.assert_allclose(seen[1], u1, atol=1e-12)
        if 2 in seen and (solver is not vr_extragradient or 1 not in seen):
            np.testing.assert_allclose(seen[2], u2, atol=1e-12)
            break
    else:
        pytest.fail("no seed reached step 2")
    assert result is not None


@EACH
def test_evaluations_are_counted_exactly(solver: Callable[..., Result]) -> None:
    operator = from_affine(RNG.standard_normal((20, 3, 3)) + 4 * np.eye(3), RNG.standard_normal((20, 3)))
    calls = 0

    def component(indices: np.ndarray, u: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += len(indices)
        return operator.component(indices, u)

    for step_size in ("auto", 0.01):
        calls = 0
        counted = FiniteSumOperator(20, component)
        result = solver(counted, np.ones(3), step_size=step_size, tol=1e-300, max_evals=999)
        assert calls == result.n_evals <= 999


@EACH
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": -1.0}, "step_size"),
        ({"u0": [np.inf, 1.0]}, "u0"),
        ({"tol": -1.0}, "tol"),
        ({"max_evals": 0}, "max_evals"),
    ],
)
def test_bad_input_is_named(solver: Callable[..., Result], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solver(**{"operator": from_matrix_game([[1.0]]), "u0": np.ones(2), **options})
