"""Games and quadratic saddle points against dense linear algebra, and compiled steps against plain ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import scipy.optimize

from offprint.methods.optimize.extragradient import vr_extragradient
from offprint.methods.optimize.halpern import inexact_vr_halpern
from offprint.methods.optimize.projections import SimplexProduct
from offprint.methods.optimize.saddle import SaddleOperator, from_matrix_game, from_saddle_qp

RNG = np.random.default_rng(0)
A = RNG.standard_normal((4, 6))
ROOT = RNG.standard_normal((6, 6))
H, B, h = ROOT @ ROOT.T, RNG.standard_normal(4), RNG.standard_normal(6)


def game_matrix(a: np.ndarray) -> np.ndarray:
    m, d = a.shape
    return np.block([[np.zeros((d, d)), a.T], [-a, np.zeros((m, m))]])


PROBLEMS: dict[str, tuple[Callable[..., SaddleOperator], np.ndarray, np.ndarray]] = {
    "game": (partial(from_matrix_game, A), game_matrix(A), np.zeros(10)),
    "tall game": (partial(from_matrix_game, A.T), game_matrix(A.T), np.zeros(10)),
    "programme": (partial(from_saddle_qp, H, A, B, h), game_matrix(-A) + np.pad(H, (0, 4)), np.r_[h, B]),
}
EACH = pytest.mark.parametrize("name", PROBLEMS)
SAMPLING = pytest.mark.parametrize("sampling", ["uniform", "norms"])


@EACH
@SAMPLING
def test_operator_is_the_mean_of_its_components(name: str, sampling: str) -> None:
    make, matrix, offset = PROBLEMS[name]
    operator, (u, v) = make(sampling=sampling), RNG.standard_normal((2, 10))
    weights = np.full(6, 1 / 6) if operator.probabilities is None else operator.probabilities
    each = np.array([operator.component(np.array([i]), u) for i in range(6)])
    np.testing.assert_allclose(operator.full(u), matrix @ u - offset, atol=1e-12)
    np.testing.assert_allclose(weights @ each, matrix @ u - offset, atol=1e-12)
    batch = np.array([0, 5, 3, 3])
    np.testing.assert_allclose(operator.component(batch, u), each[batch].mean(axis=0), atol=1e-12)
    change = operator.component(batch, u) - operator.component(batch, v)
    np.testing.assert_allclose(operator.difference(batch, u, v), change, atol=1e-12)


@EACH
@SAMPLING
def test_constants_are_exact(name: str, sampling: str) -> None:
    make, matrix, _ = PROBLEMS[name]
    operator = make(sampling=sampling)
    weights = np.full(6, 1 / 6) if operator.probabilities is None else operator.probabilities
    linear = [
        np.stack(
            [operator.component(np.array([i]), e) - operator.component(np.array([i]), 0 * e) for e in np.eye(10)], 1
        )
        for i in range(6)
    ]
    second = sum(w * m.T @ m for w, m in zip(weights, linear, strict=True))
    assert operator.constants.lipschitz == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-9)
    assert operator.constants.lipschitz_on_average == pytest.approx(math.sqrt(np.linalg.norm(second, 2)), rel=1e-9)
    assert operator.constants.cocoercive_on_average == math.inf


@EACH
def test_importance_sampling_lowers_the_average_constant(name: str) -> None:
    make = PROBLEMS[name][0]
    assert make(sampling="norms").constants.lipschitz_on_average < make().constants.lipschitz_on_average


@pytest.mark.parametrize("solver", [inexact_vr_halpern, vr_extragradient])
@pytest.mark.parametrize("batch_size", [1, 3])
@SAMPLING
@EACH
def test_compiled_steps_equal_plain_ones(solver: Callable, batch_size: int, sampling: str, name: str) -> None:
    """A resolvent that is not recognised takes the plain path: the same draws must give the same iterates and count."""
    operator = PROBLEMS[name][0](sampling=sampling)
    simplices = SimplexProduct(*((6, 4) if name != "tall game" else (4, 6)))
    start = RNG.standard_normal(10)
    for resolvent, plain in ((simplices, lambda u, step: simplices(u)), (None, lambda u, step: u)):
        results = [
            solver(operator, start, r, tol=1e-9, max_evals=600, batch_size=batch_size, rng=3)
            for r in (resolvent, plain)
        ]
        # the same arithmetic in another order over some hundred steps
        np.testing.assert_allclose(results[0].u, results[1].u, atol=1e-10)
        assert results[0].n_evals == results[1].n_evals
        assert results[0].n_iterations == results[1].n_iterations > 0


def test_residual_of_a_solved_game_is_zero() -> None:
    """Both optimal strategies from linear programming, scipy's HiGHS being exact to about 1e-9."""
    payoff = RNG.uniform(0, 1, (7, 5))
    minimise = scipy.optimize.linprog(
        np.r_[np.zeros(5), 1], A_ub=np.c_[payoff, -np.ones(7)], b_ub=np.zeros(7), A_eq=[[1] * 5 + [0]], b_eq=[1]
    )
    maximise = scipy.optimize.linprog(
        np.r_[np.zeros(7), -1], A_ub=np.c_[-payoff.T, np.ones(5)], b_ub=np.zeros(5), A_eq=[[1] * 7 + [0]], b_eq=[1]
    )
    assert minimise.fun == pytest.approx(-maximise.fun, abs=1e-9)
    solution, strategies = np.r_[minimise.x[:5], maximise.x[:7]], SimplexProduct(5, 7)
    operator = from_matrix_game(payoff)
    for wrong, accepted in ((0.0, True), (0.05, False)):
        u = strategies(solution + wrong * np.arange(12))
        result = inexact_vr_halpern(operator, u, strategies, tol=1e-8, max_evals=operator.n)
        assert result.converged is accepted, result.message
        assert result.n_evals == operator.n


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: from_matrix_game(np.ones(2)), "A must be a matrix"),
        (lambda: from_matrix_game([[np.inf]]), "A must be finite"),
        (lambda: from_matrix_game([[1.0]], sampling="best"), "sampling"),
        (lambda: from_saddle_qp(np.eye(3), A, B, h), "H must have shape"),
        (lambda: from_saddle_qp(-H, A, B, h), "H must be positive semidefinite"),
        (lambda: from_saddle_qp(H, A, B[:2], h), "b must have shape"),
        (lambda: from_saddle_qp(H, A, B, h * np.nan), "h must be finite"),
    ],
)
def test_bad_input_is_named(call: Callable, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()
