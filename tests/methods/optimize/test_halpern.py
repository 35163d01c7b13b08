"""Variance-reduced Halpern iteration against closed forms, known limits, scikit-learn and its own published rules."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from offprint.methods.optimize.extragradient import eag
from offprint.methods.optimize.finite_sum import Constants, FiniteSumOperator, from_affine, from_callables
from offprint.methods.optimize.forb import approximate_resolvent
from offprint.methods.optimize.halpern import inexact_vr_halpern, vr_halpern
from offprint.methods.optimize.inclusion import InclusionWarning, Ledger, Result
from offprint.methods.optimize.plain_halpern import halpern, stochastic_halpern
from offprint.methods.optimize.projections import project_simplex, prox_l1
from offprint.methods.optimize.saddle import from_matrix_game


def least_squares(n: int = 100, d: int = 4, seed: int = 0) -> tuple[FiniteSumOperator, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows, targets = rng.standard_normal((n, d)), rng.standard_normal(n)
    operator = FiniteSumOperator(n, lambda i, u: rows[i].T @ (rows[i] @ u - targets[i]) / len(i))
    return operator, rows, targets


def simplices(u: np.ndarray, step: float) -> np.ndarray:
    return project_simplex(u.reshape(2, -1)).ravel()


class Recorder(FiniteSumOperator):
    """Counts every evaluation of a single component, and keeps the points at which differences were asked for."""

    def __init__(self, operator: FiniteSumOperator) -> None:
        self.calls, self.points = 0, []
        self.inner = operator
        super().__init__(operator.n, self._component, self._full, difference=self._difference)

    def _component(self, indices: np.ndarray, u: np.ndarray) -> np.ndarray:
        self.calls += len(indices)
        return self.inner.component(indices, u)

    def _full(self, u: np.ndarray) -> np.ndarray:
        self.points.append((u.copy(), None))
        return self._component(np.arange(self.n), u)

    def _difference(self, indices: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        self.points.append((u.copy(), v.copy()))
        return self._component(indices, u) - self._component(indices, v)


@pytest.mark.parametrize("options", [{"batch_size": 30}, {"full_probability": 1.0}], ids=["b = n", "p = 1"])
@pytest.mark.parametrize("resolvent", [None, simplices], ids=["free", "constrained"])
def test_limit_is_the_deterministic_method(options: dict, resolvent: Callable | None) -> None:
    """With batches of everything, or only full evaluations, Algorithm 1 is deterministic Halpern with λ = 2/(k + 4)."""
    operator, *_ = least_squares(n=30)
    start, eta, n_steps = np.array([0.1, 0.9, 0.5, 0.5]), 0.2, 500
    u, iterates = start, []
    for k in range(n_steps + 1):
        iterates.append(u)
        weight = 2 / (k + 4)
        u = weight * start + (1 - weight) * u - eta * operator.full(u)
        u = u if resolvent is None else resolvent(u, eta)
    seen: dict[int, np.ndarray] = {}
    vr_halpern(
        operator,
        start,
        resolvent,
        step_size=eta,
        tol=1e-300,
        max_evals=10**6,
        callback=lambda k, u, *_: seen.update({k: u}) or k >= n_steps,
        **options,
    )
    assert max(seen) >= n_steps
    for k in sorted(seen)[:n_steps]:
        np.testing.assert_allclose(seen[k], iterates[k] if k <= n_steps else seen[k], atol=1e-12)


def test_estimator_is_unbiased_and_starts_from_the_last_iterate() -> None:
    """Given g_{k-1} = F(u_{k-1}), the mean of g_k over batches is F(u_k); a stale previous point fails this."""
    operator, *_ = least_squares(n=64)
    recorder = Recorder(operator)
    vr_halpern(recorder, np.ones(4), step_size=0.1, tol=1e-300, max_evals=64 * 60, full_probability=0.5)
    after_full = [
        (points, before)
        for (before, was_sampled), points in zip(recorder.points, recorder.points[1:], strict=False)
        if was_sampled is None and points[1] is not None
    ]
    assert len(after_full) > 10
    (u, v), before = after_full[5]
    rng, b = np.random.default_rng(1), 8
    draws = np.array(
        [operator.full(before) + operator.difference(operator.sample_batch(b, rng), u, v) for _ in range(4000)]
    )
    error = draws.mean(axis=0) - operator.full(u)
    # four standard errors in each of four coordinates: a false alarm in about 4000 seeds, and this one is fixed
    assert (np.abs(error) < 4 * draws.std(axis=0) / math.sqrt(len(draws))).all()
    each = np.array([operator.difference(np.array([i]), u, before) for i in range(64)])
    assert draws.var(axis=0).sum() <= np.square(each).sum(axis=1).mean() / b
    for (_, v), before in after_full:
        np.testing.assert_array_equal(v, before)


@pytest.mark.parametrize("angle", [0.01, 0.3, 1.0, 2.0, 3.0])
def test_rotations_meet_the_sharp_bound(angle: float) -> None:
    """||u_k - T u_k|| <= 2 ||u_0 - u*|| / (k + 1) for every nonexpansive T (Lieder), here with T u = u - F(u)."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    operator = from_callables([lambda u: u - turn @ u])
    start = np.array([3.0, 4.0])
    history = halpern(operator, start, step_size=1.0, tol=1e-300, max_evals=1001).history
    assert history.iterations[-1] == 1000
    bound = 2 * 5.0 / (history.iterations + 1)
    assert (history.residuals <= bound * (1 + 1e-12)).all()


def test_inner_solver_converges_to_the_resolvent() -> None:
    """Algorithm 3 on an affine F solves (I + η M) v = center + η q; a frozen snapshot stalls far away."""
    rng, n, d = np.random.default_rng(0), 50, 6
    skew = rng.standard_normal((n, d, d))
    operator = from_affine(skew - skew.transpose(0, 2, 1) + np.eye(d), rng.standard_normal((n, d)))
    matrix = np.array([operator.full(e) - operator.full(0 * e) for e in np.eye(d)]).T
    center, average = np.ones(d), 2 * math.sqrt(2 * d)
    eta = math.sqrt(n) / average
    gamma = math.sqrt((1 - 1 / n) / n) / (eta * average + 1)
    exact = np.linalg.solve(np.eye(d) + eta * matrix, center - eta * operator.full(np.zeros(d)))
    errors = []
    for epochs in (10, 20, 40):
        ledger, u = Ledger.open(operator, center, None, 1e-9, 10**6, None)
        v = approximate_resolvent(ledger, 0, u, ledger.full(u), eta, gamma, epochs * n, 1, np.random.default_rng(1))
        errors.append(float(np.linalg.norm(v - exact)))
    assert errors[2] < 1e-8
    assert errors[1] < errors[0] / 10  # geometric: each doubling of the steps squares the factor
    assert errors[2] < errors[1] / 100


@pytest.mark.parametrize("batch_size", [1, 3])
def test_inner_solver_takes_the_published_steps(batch_size: int) -> None:
    """The loop of Algorithm 3 written out once more, with a new projection, on the same draws."""
    rng, n, d, n_steps = np.random.default_rng(0), 6, 4, 40
    operator = from_affine(rng.standard_normal((n, d, d)), rng.standard_normal((n, d)))
    center, eta, gamma, p = rng.uniform(size=d), 0.7, 0.05, min(batch_size / n, 0.5)

    def shifted(batch: np.ndarray, v: np.ndarray) -> np.ndarray:
        return eta * operator.component(batch, v) + v - center

    draws, everyone = np.random.default_rng(1), np.arange(n)
    refresh = draws.random(n_steps) < p
    v = w = w_previous = center
    batches: list[np.ndarray] = []
    for t in range(n_steps):
        if not batches:  # indices are drawn up to the next snapshot
            stretch = next((s for s in range(t, n_steps) if refresh[s]), n_steps - 1) - t + 1
            batches = list(draws.integers(n, size=(stretch, batch_size)))
        batch = batches.pop(0)
        average = (1 - p) * v + p * w
        direction = shifted(everyone, w) + shifted(batch, v) - shifted(batch, w_previous)
        v = np.clip(average - gamma * direction, 0, 1)
        w_previous, w = w, v if refresh[t] else w
    ledger, u = Ledger.open(operator, center, lambda u, step: np.clip(u, 0, 1), 1e-9, 10**6, None)
    found = approximate_resolvent(
        ledger, 0, u, ledger.full(u), eta, gamma, n_steps, batch_size, np.random.default_rng(1)
    )
    np.testing.assert_allclose(found, v, atol=1e-12)


def log_log_slope(result: Result) -> float:
    k, residuals = result.history.iterations, result.history.residuals
    late = k >= k[-1] / 10
    return float(np.polyfit(np.log(k[late]), np.log(residuals[late]), 1)[0])


@pytest.mark.parametrize("solver", [eag, inexact_vr_halpern])
def test_free_bilinear_games_are_solved_at_rate_one_over_k(solver: Callable[..., Result]) -> None:
    rng, n = np.random.default_rng(0), 40
    left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    game = from_matrix_game(left * np.logspace(0, -4, n) @ right)  # nearly singular: only the slow rate is left
    result = solver(game, rng.standard_normal(2 * n), tol=1e-12, max_evals=2500 * n)
    assert -1.15 <= log_log_slope(result) <= -0.9


def test_algorithm_1_says_that_a_bilinear_game_is_outside_its_theory() -> None:
    game = from_matrix_game(np.random.default_rng(0).standard_normal((5, 5)))
    with pytest.warns(InclusionWarning, match="cocoercive"):
        result = vr_halpern(game, np.ones(10), max_evals=100)
    assert "inexact_vr_halpern" in result.message


def test_lasso_agrees_with_scikit_learn() -> None:
    operator, rows, targets = least_squares(n=200, d=8)
    result = vr_halpern(
        operator, np.zeros(8), lambda u, step: prox_l1(u, 0.05 * step), tol=1e-6, max_evals=10**6, restart=0.5
    )
    expected = Lasso(alpha=0.05, fit_intercept=False, tol=1e-12).fit(rows, targets).coef_
    assert result.converged
    assert 0 < np.count_nonzero(expected) < 8
    # the objective is 0.7-strongly convex here, so a natural residual of 1e-6 bounds the error by a few 1e-6
    np.testing.assert_allclose(result.u, expected, atol=1e-5)


def test_restarts_make_convergence_linear() -> None:
    operator, rows, targets = least_squares(n=400)
    exact = np.linalg.lstsq(rows, targets)[0]
    options = {"step_size": 0.1, "tol": 1e-10, "max_evals": 400 * 400}
    fast, slow = vr_halpern(operator, np.ones(4), restart=0.5, **options), vr_halpern(operator, np.ones(4), **options)
    assert fast.converged
    assert not slow.converged
    np.testing.assert_allclose(fast.u, exact, atol=1e-9)


def test_automatic_step_recovers_from_a_constant_that_is_too_small() -> None:
    operator, rows, targets = least_squares(n=400)
    wrong = Constants(0.02, 0.02, 0.02, 0.02)
    misled = FiniteSumOperator(operator.n, operator.component, constants=wrong)
    result = vr_halpern(misled, np.ones(4), tol=1e-3, max_evals=10**6)
    assert result.converged
    assert result.step_size <= 25 / 8
    np.testing.assert_allclose(result.u, np.linalg.lstsq(rows, targets)[0], atol=1e-2)
    assert not vr_halpern(operator, np.ones(4), step_size=25.0, tol=1e-3, max_evals=10**5).converged


def test_plain_batches_stall_where_variance_reduction_does_not() -> None:
    operator, *_ = least_squares(n=400)
    options = {"step_size": 0.2, "tol": 1e-9, "max_evals": 400 * 600}
    plain, reduced = stochastic_halpern(operator, np.ones(4), **options), vr_halpern(operator, np.ones(4), **options)
    residuals = plain.history.residuals
    floor = np.median(residuals[len(residuals) // 2 :])
    assert floor > 0.5 * np.median(residuals[len(residuals) // 10 : len(residuals) // 5])
    assert reduced.residual < floor / 3


SOLVERS = [vr_halpern, inexact_vr_halpern, halpern, stochastic_halpern]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("step_size", ["auto", 0.2])
@pytest.mark.parametrize("max_evals", [500, 777, 5000])
def test_evaluations_are_counted_exactly_and_bounded(solver: Callable, step_size: object, max_evals: int) -> None:
    recorder = Recorder(least_squares(n=30)[0])
    result = solver(recorder, np.ones(4), step_size=step_size, tol=1e-300, max_evals=max_evals)
    assert recorder.calls == result.n_evals <= max_evals
    assert result.n_evals == result.history.evals[-1]
    assert not result.converged
    assert result.residual == pytest.approx(np.linalg.norm(recorder.inner.full(result.u)), rel=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_result_is_the_same_for_the_same_seed(solver: Callable) -> None:
    operator, *_ = least_squares()
    runs = [solver(operator, np.ones(4), rng=seed, tol=1e-4, max_evals=5000) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0].u, runs[1].u)
    assert runs[0].n_evals == runs[1].n_evals
    if solver is not halpern:
        assert not np.array_equal(runs[0].u, runs[2].u)


def test_callback_sees_every_check_and_stops() -> None:
    seen = []
    operator, *_ = least_squares()
    result = halpern(operator, np.ones(4), callback=lambda k, u, r, e: seen.append((k, r, e)) or k == 3)
    assert [k for k, *_ in seen] == [0, 1, 2, 3]
    assert result.n_iterations == 3
    assert "callback" in result.message


def test_component_that_fails_is_named() -> None:
    broken = from_callables([lambda u: u, lambda u: u * np.nan, lambda u: u])
    for solver in SOLVERS:
        with pytest.raises(ValueError, match="component 1 returned NaN"):
            solver(broken, np.ones(2), step_size=0.1)


def test_divergence_and_growth_are_reported() -> None:
    operator, *_ = least_squares()
    with pytest.warns(InclusionWarning, match="grew at 10 checks"):
        result = halpern(operator, np.ones(4), step_size=2.5, max_evals=10**5)
    assert not result.converged
    assert result.message.startswith("diverged")
    assert result.residual < 1e15  # stopped soon after passing 1e12 times the first residual
    assert "smaller step_size" in result.message


@pytest.mark.filterwarnings("ignore:the residual grew")
def test_an_operator_that_is_not_monotone_is_noticed() -> None:
    with pytest.warns(InclusionWarning, match="not monotone"):
        result = halpern(from_callables([lambda u: -u]), np.ones(2), step_size=0.1, max_evals=20)
    assert "not monotone" in result.message


SUM = least_squares()[0]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"operator": "F"}, TypeError, "operator"),
        ({"u0": np.full(4, np.nan)}, ValueError, "u0 must be finite"),
        ({"u0": np.ones((2, 2))}, ValueError, "u0 must be a vector"),
        ({"u0": np.ones(3)}, ValueError, "mismatch|shape"),
        ({"resolvent": lambda u, step: u[:2], "step_size": 0.1}, ValueError, "resolvent must keep the shape"),
        ({"resolvent": 1.0}, TypeError, "resolvent"),
        ({"step_size": 0.0}, ValueError, "step_size"),
        ({"step_size": -1.0}, ValueError, "step_size"),
        ({"step_size": math.nan}, ValueError, "step_size"),
        ({"step_size": "fast"}, ValueError, "step_size"),
        ({"tol": 0.0}, ValueError, "tol"),
        ({"max_evals": 99}, ValueError, "max_evals"),
        ({"operator": from_callables([lambda u: 0 * u])}, ValueError, "step_size must be a number here"),
    ],
)
def test_bad_input_is_named(solver: Callable, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises((error, TypeError), match=message if error is ValueError else None):
        solver(**{"operator": SUM, "u0": np.ones(4), **options})


@pytest.mark.parametrize(
    ("solver", "options", "message"),
    [
        (vr_halpern, {"batch_size": 0}, "batch_size"),
        (vr_halpern, {"batch_size": 101}, "batch_size"),
        (vr_halpern, {"full_probability": 1.5}, "full_probability"),
        (vr_halpern, {"restart": 1.0}, "restart"),
        (inexact_vr_halpern, {"inner_epochs": 0.0}, "inner_epochs"),
        (inexact_vr_halpern, {"inner_step_size": -1.0}, "inner_step_size"),
        (stochastic_halpern, {"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_options_are_named(solver: Callable, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solver(SUM, np.ones(4), **options)
