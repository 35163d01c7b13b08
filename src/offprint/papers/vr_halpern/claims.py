"""What the paper claims, measured: the saving over a deterministic method, the rate, a matrix game and a programme."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float

from offprint.methods.optimize.extragradient import eag, extragradient, optimistic_gradient, vr_extragradient
from offprint.methods.optimize.finite_sum import Constants, FiniteSumOperator, from_affine
from offprint.methods.optimize.halpern import inexact_vr_halpern, vr_halpern
from offprint.methods.optimize.inclusion import InclusionWarning, Result
from offprint.methods.optimize.plain_halpern import halpern, stochastic_halpern
from offprint.methods.optimize.projections import SimplexProduct
from offprint.methods.optimize.saddle import SaddleOperator, from_matrix_game, from_saddle_qp
from offprint.papers.figure import Level, Panel, Series
from offprint.papers.run import Measurement, Run, measures
from offprint.statistics import slope_interval

MULTIPLIERS = (0.5, 1.0, 2.0, 5.0)
"""Of every method's own base step, the same four for all; the best is reported."""

Solver = Callable[[float], Result]
"""A method on a problem, as a function of the multiplier of its base step."""


@measures("gain-grows-like-root-n")
def gain_grows_like_root_n(run: Run) -> Measurement:
    """Count component evaluations to a residual of 1e-2 for growing n, on a family with the same constants at each."""
    sizes = run.pick(smoke=(64, 256), quick=(256, 4096), full=(256, 1024, 4096, 16384))
    plain, reduced = [], []
    for n in run.track(sizes, "evaluations to the tolerance"):
        operator = random_linear_family(n, run.rng(n))
        assert operator.constants is not None
        cost = partial(evaluations_to_tolerance, operator, run)
        lipschitz, on_average = operator.constants.lipschitz, operator.constants.cocoercive_on_average
        plain.append(min(cost(halpern, factor / lipschitz) for factor in (1, 2)))
        reduced.append(min(cost(vr_halpern, factor / on_average) for factor in (1 / 4, 1 / 2, 1)))
    saving = [a / b for a, b in zip(plain, reduced, strict=True)]
    run.figure(
        Panel(
            "number of components n",
            "component evaluations to residual 0.01",
            [Series("deterministic Halpern", sizes, plain, dashed=True), Series("Algorithm 1", sizes, reduced)],
            x_axis="log",
            y_axis="log",
        ),
        Panel(
            "number of components n",
            "evaluations saved (ratio)",
            [
                Series("measured", sizes, saving),
                Series(
                    "proportional to √n", sizes, [saving[-1] * math.sqrt(n / sizes[-1]) for n in sizes], dashed=True
                ),
            ],
            x_axis="log",
            y_axis="log",
            levels=[Level("no saving", 1.0)],
        ),
        where_reduction_does_not_pay(run),
        caption="Left, middle: the saving grows with n where single components are as smooth as their mean. "
        "Right: least squares whose single rows are much rougher than their mean, where it is a loss.",
    )
    note = "savings " + ", ".join(f"{ratio:.2f} at n = {n}" for n, ratio in zip(sizes, saving, strict=True))
    if run.scale in ("smoke", "quick"):
        return Measurement(saving[-1] / saving[0], note=note)
    slope = slope_interval(sizes, saving, log_log=True).estimate
    return Measurement(slope, also={"saving-at-16384": saving[-1]}, note=note)


@measures("last-iterate-residual-falls-like-one-over-k")
def last_iterate_residual_falls_like_one_over_k(run: Run) -> Measurement:
    """Fit the slope of residual against iteration over the last decade of a long run of Algorithm 1."""
    n = run.pick(smoke=64, quick=1024, full=4096)
    n_iterations = run.pick(smoke=300, quick=2000, full=10_000)
    operator = random_linear_family(n, run.rng(n))
    assert operator.constants is not None

    def long_enough(k: int, u: Float[np.ndarray, " d"], residual: float, n_evals: int) -> bool:
        run.progress(min(k, n_iterations), n_iterations, "iterations")
        return k >= n_iterations

    def solve(solver: Callable[..., Result], constant: float) -> Result:
        return solver(
            operator,
            np.zeros(DIMENSION),
            step_size=1 / constant,
            tol=1e-12,
            max_evals=10 * n * n_iterations,
            rng=run.rng(1),
            callback=long_enough,
        )

    reduced, noisy = (
        solve(solver, operator.constants.cocoercive_on_average) for solver in (vr_halpern, stochastic_halpern)
    )
    full = solve(halpern, operator.constants.lipschitz)
    slopes = [last_decade_slope(result) for result in (reduced, noisy)]
    grid = np.unique(np.geomspace(2, n_iterations, 60).astype(int)).tolist()
    run.figure(
        Panel(
            "iteration k",
            "residual ‖F(u)‖",
            [
                Series("Algorithm 1", grid, on_grid(reduced, grid, "iterations")),
                Series("deterministic Halpern", grid, on_grid(full, grid, "iterations"), dashed=True),
                Series("stochastic Halpern, fixed batch", grid, on_grid(noisy, grid, "iterations"), dashed=True),
            ],
            x_axis="log",
            y_axis="log",
        ),
        caption="The last iterate of Algorithm 1 keeps the rate 1/k of the deterministic method; "
        "plain batches of the same size stall at their noise.",
    )
    return Measurement(slopes[0], slopes[1], note="the baseline is stochastic Halpern with the same batch and step")


@measures("beats-extra-anchored-gradient-on-matrix-game")
def beats_extra_anchored_gradient_on_matrix_game(run: Run) -> Measurement:
    """Compare final residuals at equal epochs, every method with the best of the same four multipliers."""
    sizes = run.pick(smoke=(20,), quick=(100,), full=(200, 500))
    n_epochs = run.pick(smoke=40, quick=400, full=2000, paper=5000)
    ratios, baselines, notes = [], [], []
    for n in sizes:
        matrix = policeman_and_burglar(n, run.rng(n))
        operator, strategies = from_matrix_game(matrix), SimplexProduct(n, n)
        spectral, frobenius = 1 / float(np.linalg.norm(matrix, 2)), 1 / float(np.linalg.norm(matrix))
        solvers = all_solvers(run, operator, strategies.uniform(), strategies, n_epochs, spectral, frobenius)
        best, table = tune(run, solvers, f"n = {n}")
        run.figure(residual_panel(best, n, n_epochs, f"n = {n}"))
        anchored = best["EAG"].residual
        ratios.append(best["Algorithm 1"].residual / anchored)
        baselines.append(min(best[name].residual for name in best if not name.startswith("Algorithm")) / anchored)
        notes.append(f"n = {n}: {table}")
    run.figure(caption="Policeman-and-burglar game, each method with its best step. The operator is not cocoercive: "
               "Algorithm 1 runs outside its theory, as in the authors' experiment.")  # fmt: skip
    worst = int(np.argmax(ratios))
    return Measurement(
        ratios[worst],
        baselines[worst],
        note="Algorithm 1 is outside its theory here. The baseline is the best of all others, over EAG. "
        "Final residuals by step multiplier: " + " | ".join(notes),
    )


@measures("inexact-variant-solves-quadratic-program")
def inexact_variant_solves_quadratic_program(run: Run) -> Measurement:
    """Measure by what factor Algorithm 2 reduces the residual, beside all others at equal epochs."""
    n = run.pick(smoke=20, quick=100, full=200)
    n_epochs = n**2 // 2  # the epochs that first-order methods need on this problem grow like n²
    operator, start = hard_quadratic(n), np.zeros(2 * n)
    spectral, on_average = 1 / operator.constants.lipschitz, 1 / operator.constants.lipschitz_on_average
    solvers = all_solvers(run, operator, start, None, n_epochs, spectral, on_average)
    best, table = tune(run, solvers, f"n = {n}")
    run.figure(
        residual_panel(best, n, n_epochs, f"n = {n}"),
        caption="Lagrangian of a hard quadratic programme, each method with its best step. "
        "Only Algorithm 1 is outside its theory here.",
    )
    first = float(np.linalg.norm(operator.full(start)))
    others = min(best[name].residual for name in best if not name.startswith("Algorithm"))
    return Measurement(
        first / best["Algorithm 2"].residual,
        first / others,
        note=f"{n_epochs} epochs at n = {n}. The baseline is the best of all but Algorithms 1 and 2. "
        f"Final residuals by step multiplier, from {first:.3g}: {table}",
    )


DIMENSION = 20


def random_linear_family(n: int, rng: np.random.Generator) -> FiniteSumOperator:
    """Return the mean of F_i(u) = (Q + R K_i R) u - b_i with skew K_i of mean 0, whose constants do not grow with n.

    Q has eigenvalues from 1 down to 1e-3 and R is its square root, so the average cocoercive constant is the largest
    eigenvalue of Q + E[K_iᵀ Q K_i].
    """
    d = DIMENSION
    basis, _ = np.linalg.qr(rng.standard_normal((d, d)))
    eigenvalues = np.logspace(0, -3, d)
    q, root = basis * eigenvalues @ basis.T, basis * np.sqrt(eigenvalues) @ basis.T
    gaussian = rng.standard_normal((n, d, d))
    skew = (gaussian - gaussian.transpose(0, 2, 1)) / (2 * math.sqrt(2 * d))
    skew -= skew.mean(axis=0)
    rooted = (root @ skew).reshape(n * d, d)
    energy = rooted.T @ rooted / n
    on_average = float(np.linalg.eigvalsh(q + energy)[-1])
    lipschitz_on_average = math.sqrt(float(np.linalg.eigvalsh(q @ q + root @ energy @ root)[-1]))
    offsets = rng.standard_normal((n, d))
    offsets += q @ rng.standard_normal(d) - offsets.mean(axis=0)
    return from_affine(q + root @ skew @ root, offsets, Constants(1.0, 1.0, lipschitz_on_average, on_average))


def rough_least_squares(n: int, d: int, rng: np.random.Generator) -> FiniteSumOperator:
    """Return the gradient of a Gaussian least-squares problem, by rows, with its exact constants."""
    rows, targets = rng.standard_normal((n, d)), rng.standard_normal(n)
    covariance = rows.T @ rows / n
    fourth = (rows * np.square(rows).sum(axis=1, keepdims=True)).T @ rows / n
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    lipschitz = float(np.linalg.eigvalsh(covariance)[-1])
    on_average = float(np.linalg.eigvalsh(whitening @ fourth @ whitening.T)[-1])
    return FiniteSumOperator(
        n,
        lambda i, u: rows[i].T @ (rows[i] @ u - targets[i]) / len(i),
        lambda u: covariance @ u - rows.T @ targets / n,
        constants=Constants(lipschitz, lipschitz, math.sqrt(float(np.linalg.eigvalsh(fourth)[-1])), on_average),
    )


def policeman_and_burglar(n: int, rng: np.random.Generator) -> Float[np.ndarray, "n n"]:
    """Return the payoffs w_j (1 - exp(-0.8 |i - j|)) of houses j of random wealth w_j = |N(0, 1)|."""
    wealth, position = np.abs(rng.standard_normal(n)), np.arange(n)
    return np.asarray(wealth * (1 - np.exp(-0.8 * np.abs(position[:, None] - position))))


def hard_quadratic(n: int) -> SaddleOperator:
    """Return the Lagrangian of the programme on which first-order methods are slowest, with H = 2 AᵀA."""
    a = np.fliplr(np.eye(n) - np.eye(n, k=1)) / 4
    h = np.zeros(n)
    h[-1] = 1 / 4
    return from_saddle_qp(2 * a.T @ a, a, np.full(n, 1 / 4), h)


def evaluations_to_tolerance(
    operator: FiniteSumOperator, run: Run, solver: Callable[..., Result], step_size: float
) -> float:
    """Return the component evaluations until the residual is 1e-2, starting at 0."""
    result = solver(
        operator, np.zeros(DIMENSION), step_size=step_size, tol=1e-2, max_evals=5000 * operator.n, rng=run.rng(1)
    )
    return result.n_evals if result.converged else math.inf


def where_reduction_does_not_pay(run: Run) -> Panel:
    """Return a panel of residual against epochs on least squares with L far above L_F."""
    n, n_epochs = run.pick(smoke=(64, 20), quick=(1024, 300), full=(1024, 300))
    operator = rough_least_squares(n, 10, run.rng(0))
    constants, grid = operator.constants, np.linspace(1, n_epochs, 100).tolist()
    assert constants is not None

    def solve(solver: Callable[..., Result], constant: float) -> Result:
        return solver(operator, np.zeros(10), step_size=1 / constant, tol=1e-12, max_evals=n_epochs * n, rng=run.rng(1))

    full, reduced = solve(halpern, constants.lipschitz), solve(vr_halpern, constants.cocoercive_on_average)
    return Panel(
        "epochs of n component evaluations",
        "residual ‖F(u)‖",
        [
            Series("deterministic Halpern", grid, on_grid(full, grid, per=n), dashed=True),
            Series("Algorithm 1", grid, on_grid(reduced, grid, per=n)),
        ],
        title=f"n = {n}, L / L_F = {constants.cocoercive_on_average / constants.lipschitz:.1f}",
        y_axis="log",
    )


def all_solvers(
    run: Run,
    operator: SaddleOperator,
    start: Float[np.ndarray, " d"],
    strategies: SimplexProduct | None,
    n_epochs: int,
    full_step: float,
    sampled_step: float,
) -> dict[str, Solver]:
    """Return every method on one problem: multipliers are of 1/L_F where it evaluates in full, else of 1/L.

    Two have a theory of their own. Variance-reduced extragradient has the base 1/(√n L). Algorithm 2 takes η = √n / L
    and 0.05 n log(k + 2) inner steps, as its authors do, and multiplies the longest inner step.
    """
    n = operator.n
    inner_step = math.sqrt((1 - 1 / n) / n) / (math.sqrt(n) + 1)

    def on_problem(solver: Callable[..., Result], base: float) -> Solver:
        return lambda multiplier: solver(
            operator, start, strategies, step_size=multiplier * base, tol=1e-12, max_evals=n_epochs * n, rng=run.rng(1)
        )

    def algorithm_2(multiplier: float) -> Result:
        return inexact_vr_halpern(
            operator,
            start,
            strategies,
            step_size=math.sqrt(n) * sampled_step,
            inner_step_size=multiplier * inner_step,
            inner_epochs=0.05,
            tol=1e-12,
            max_evals=n_epochs * n,
            rng=run.rng(1),
        )

    return {
        "Algorithm 1": on_problem(vr_halpern, sampled_step),
        "Algorithm 2": algorithm_2,
        "EAG": on_problem(eag, full_step),
        "extragradient": on_problem(extragradient, full_step),
        "optimistic gradient": on_problem(optimistic_gradient, full_step),
        "VR extragradient": on_problem(vr_extragradient, sampled_step / math.sqrt(n)),
        "stochastic Halpern": on_problem(stochastic_halpern, sampled_step),
    }


def tune(run: Run, solvers: Mapping[str, Solver], label: str) -> tuple[dict[str, Result], str]:
    """Run every method with every multiplier; return the best run of each and all final residuals as a line of text."""
    best: dict[str, Result] = {}
    found: dict[str, list[str]] = {name: [] for name in solvers}
    trials = [(name, multiplier) for name in solvers for multiplier in MULTIPLIERS]
    for name, multiplier in run.track(trials, label):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InclusionWarning)  # steps that are too large belong to the grid
            result = solvers[name](multiplier)
        found[name].append(f"{multiplier:g}: {result.residual:.3g}")
        if name not in best or result.residual < best[name].residual:
            best[name] = result
    return best, "; ".join(f"{name} " + ", ".join(values) for name, values in found.items())


def residual_panel(best: Mapping[str, Result], n: int, n_epochs: int, title: str) -> Panel:
    """Return a panel of residual against epochs, baselines dashed."""
    grid = np.unique(np.geomspace(1, n_epochs, 80).astype(int)).tolist()
    series = [
        Series(name, grid, on_grid(result, grid, per=n), dashed=not name.startswith("Algorithm"))
        for name, result in best.items()
    ]
    return Panel("epochs of n component evaluations", "residual", series, title, x_axis="log", y_axis="log")


def on_grid(result: Result, grid: Sequence[float], by: str = "evals", per: int = 1) -> list[float]:
    """Return the last residual known at each point of a grid of evaluations (or ``by``), NaN before the first."""
    where = np.searchsorted(getattr(result.history, by) / per, grid, side="right") - 1
    return [float(result.history.residuals[i]) if i >= 0 else math.nan for i in where]


def last_decade_slope(result: Result) -> float:
    """Return the exponent of the residual in the iteration, over the last factor of ten of iterations."""
    iterations, residuals = result.history.iterations, result.history.residuals
    late = iterations >= iterations[-1] / 10
    return slope_interval(iterations[late].astype(float), residuals[late], log_log=True).estimate
