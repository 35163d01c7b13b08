"""What the paper claims about perturb-then-diagonalize, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from offprint.methods.nn.ptd_ssm import (
    PTD,
    S4D,
    SequenceModel,
    diag_spikes,
    dplr,
    frequency_sensitivity,
    hippo_legs,
    perturb_then_diagonalize,
    transfer_function,
    with_fourier_noise,
)
from offprint.models.evaluation import accuracy, cross_entropy, mean_squared_error, predict
from offprint.papers.figure import Level, Panel, Series
from offprint.papers.ptd_ssm.comparison import (
    LEARNING_RATES,
    Pair,
    Plan,
    Setting,
    Splits,
    best_of,
    builders,
    iterations,
    rates,
    shared_ptd,
    state_space,
)
from offprint.papers.ptd_ssm.tasks import adding, delayed_copy, list_operations, sequential_digits, sinusoids
from offprint.papers.run import Measurement, Run, listed, measures
from offprint.statistics import slope_interval

NOISE = 0.1
"""Amplitude of the disturbance; the inputs lie in [0, 1]."""
ONE_STEP = 2e-3
"""A step size at which the highest spike of 64 states, at ω = 1303, is in the range of a sampled signal."""


@measures("transfer-function-stays-close")
def transfer_function_stays_close(run: Run) -> Measurement:
    """Compare the responses of the full, the diagonal and the perturbed system where the spikes are."""
    sizes = run.pick(smoke=(16, 32, 64), quick=(16, 32, 64), full=(16, 32, 64, 256))
    ratios, notes, panels = {}, [], []
    for n in run.track(sizes, "states"):
        steps = run.pick(smoke=10, quick=500, full=500) if n < 256 else run.pick(smoke=10, quick=10, full=60, paper=500)
        result = perturb_then_diagonalize(hippo_legs(n)[0], 1e-3, max_iter=steps, seed=run.seed)
        shown = _spike_grid(n, run.pick(smoke=100, quick=400, full=400))
        omega = np.union1d(shown, _resonance_grid(result))
        full, diagonal, perturbed = _state_responses(n, result, omega)
        deviation = np.linalg.norm(perturbed - full, axis=1).max()
        ratios[n] = deviation / np.linalg.norm(diagonal - full, axis=1).max()
        largest = np.linalg.norm(full, axis=1).max()
        notes.append(f"n = {n}: ratio {ratios[n]:.3g}, deviation / sup|G| {deviation / largest:.3g}")
        if n in (16, 64):
            C = run.rng(n).standard_normal(n)
            C /= np.linalg.norm(C)
            named = {"HiPPO (DPLR)": full, "diagonal (S4D)": diagonal, "PTD": perturbed}
            lines = [
                Series(name, shown.tolist(), np.abs(states[np.isin(omega, shown)] @ C).tolist(), dashed=states is full)
                for name, states in named.items()
            ]
            panels.append(Panel("frequency ω", "|G(iω)|", lines, title=f"{n} states", x_axis="log", y_axis="log"))
    run.figure(*panels, caption="Gain of the full, the diagonal and the perturbed system for a random read-out.")
    return Measurement(
        max(ratios[16], ratios[32]), baseline=1.0, also={"ratio-at-64": ratios[64]}, note="; ".join(notes)
    )


def _spike_grid(n: int, n_even: int) -> Float[np.ndarray, " frequencies"]:
    """Return frequencies evenly spaced in the logarithm, with a cluster around every spike."""
    clusters = diag_spikes(n)[0][:, None] + np.linspace(-2, 2, 17)
    return np.unique(np.concatenate((np.geomspace(1e-2, 5.0 * n**2, n_even), clusters[clusters > 1e-2])))


def _resonance_grid(result: PTD) -> Float[np.ndarray, " frequencies"]:
    """Return frequencies around every resonance of the perturbed system, where a peak of its own would be."""
    clusters = np.abs(result.Lambda.imag)[:, None] - result.Lambda.real[:, None] * np.linspace(-4, 4, 33)
    return np.unique(clusters[clusters > 1e-2])


def _state_responses(
    n: int, result: PTD, omega: Float[np.ndarray, " frequencies"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the responses from input to state of the full, diagonal and perturbed system, for B of unit norm."""
    (A, B), (A_normal, _) = hippo_legs(n), dplr(n)
    unit = B[:, None] / np.linalg.norm(B)
    full, diagonal, perturbed = (
        transfer_function(matrix, vector, np.eye(n), 0.0, omega)[:, :, 0]
        for matrix, vector in ((A, unit), (A_normal, unit / 2), (A + result.E, unit))
    )
    return full, diagonal, perturbed


@measures("extrapolates-in-frequency")
def extrapolates_in_frequency(run: Run) -> Measurement:
    """Learn the amplitude of slow sinusoids and predict that of fast ones."""
    n = run.pick(smoke=60, quick=1000, full=1000)
    splits = Splits(sinusoids(run, n, 0, 60, 1), sinusoids(run, n // 5, 0, 60, 2), sinusoids(run, n, 60, 120, 3))
    # One sample is 1/256 of a unit of time, so that the layers' frequencies and those of the waves are the same thing.
    step = (1 / 256, 1 / 256)
    if run.scale in ("smoke", "quick"):
        n_state = run.pick(smoke=16, quick=64, full=64)
        inits: dict[str, PTD | Literal["legs"]] = {
            "S4-PTD": shared_ptd(n_state, iterations(run)),
            "S4D": "legs",
        }
        layers = {
            name: S4D(64, n_state, init=init, delta_range=step, generator=run.generator(4))
            for name, init in inits.items()
        }
        predictions = {name: _ridge(layer, splits) for name, layer in layers.items()}
        note = "fixed dynamics, ridge read-out of the root mean square of 64 outputs"
    else:
        setting = Setting(1, 1, n_layers=1, norm="none", delta_range=step)
        plan = Plan(mean_squared_error, n_epochs=15)
        models = {name: best_of(run, name, build, splits, plan) for name, build in builders(setting).items()}
        predictions = {name: predict(model, splits.test[0]) for name, model in models.items()}
        note = "one block of width 16, trained end to end"
    truth = splits.test[1]
    errors = {name: float((values - truth).abs().mean()) for name, values in predictions.items()}
    run.figure(
        Panel(
            "method",
            "mean absolute error on 60 < ω < 120",
            [Series("error", list(errors), list(errors.values()), "bars")],
        ),
        _by_frequency(run, splits.test, {name: predictions[name] for name in ("S4-PTD", "S4D")}),
        caption="Predicting the amplitude of sinusoids faster than any that was seen in training.",
    )
    return Measurement(errors["S4-PTD"] / errors["S4D"], 1.0, note=f"{note}; mean absolute errors {listed(errors)}")


def _by_frequency(run: Run, test: Pair, predictions: Mapping[str, Tensor]) -> Panel:
    """Show the mean ratio of predicted to true amplitude in bins of frequency."""
    omega = run.rng(3).uniform(60, 120, len(test[0]))  # the first thing that this stream drew in sinusoids
    edges, centres = np.linspace(60, 120, 13), np.linspace(62.5, 117.5, 12).tolist()
    bins = np.digitize(omega, edges[1:-1])
    lines = []
    for name, values in predictions.items():
        ratio = (values / test[1])[:, 0].numpy()
        lines.append(Series(name, centres, [ratio[bins == b].mean() for b in range(12)]))
    return Panel("frequency ω", "predicted / true amplitude", lines, levels=[Level("truth", 1.0)])


@torch.no_grad()
def _ridge(layer: S4D, splits: Splits) -> Tensor:
    """Fit a ridge regression on the outputs' root mean squares, its penalty chosen on validation data, and predict."""
    layer.D.zero_()

    def features(inputs: Tensor) -> Tensor:
        responses = layer(inputs.expand(-1, -1, layer.d_model)).double()
        return torch.cat((responses.square().mean(1).sqrt(), torch.ones(len(inputs), 1)), 1)

    train_features, validation_features, test_features = (features(pair[0]) for pair in splits)
    targets, held_out = splits.train[1].double(), splits.validation[1].double()
    gram, moment = train_features.T @ train_features, train_features.T @ targets
    identity = torch.eye(len(gram), dtype=gram.dtype)
    weights = [torch.linalg.solve(gram + penalty * identity, moment) for penalty in np.geomspace(1e-8, 1e2, 11)]
    best = min(weights, key=lambda w: float((validation_features @ w - held_out).square().mean()))
    predictions: Tensor = (test_features @ best).float()
    return predictions


@measures("robust-to-fourier-mode-noise")
def robust_to_fourier_mode_noise(run: Run) -> Measurement:
    """Train on sequential digits, then add a sinusoid where the diagonal initialisation has its strongest spike."""
    splits = sequential_digits(run)
    n_state = run.pick(smoke=16, quick=64, full=64)
    plan = Plan(cross_entropy, n_epochs=run.pick(smoke=1, quick=12, full=12), batch_size=20, rates=rates(run))
    setting = Setting(1, 10, n_state=n_state, n_layers=run.pick(smoke=1, quick=2, full=2), max_iter=iterations(run))
    # Beside the usual range of step sizes: one for all features, which puts their highest spikes on one frequency.
    one_step = replace(setting, delta_range=(ONE_STEP, ONE_STEP))
    names = ("S4-PTD", "S4D")
    chosen = {name: builders(setting)[name] for name in names}
    if run.scale in ("full", "paper"):
        chosen |= {name: builders(setting)[name] for name in ("S4D-Lin", "S4D-Inv")}
        chosen |= {f"{name}, one Δ": builders(one_step)[name] for name in names}
    drops, controls, clean = {}, {}, {}
    for name, build in chosen.items():
        model = best_of(run, name, build, splits, plan)
        spikes = _spike_frequencies(model, n_state)
        harm = frequency_sensitivity(
            model, splits.validation[0][: run.pick(smoke=10, quick=100, full=100)], spikes, NOISE
        )
        clean[name] = accuracy(model, splits.test)
        drops[name] = clean[name] - _noisy_accuracy(model, splits.test, spikes[int(harm.argmax())])
        controls[name] = clean[name] - _noisy_accuracy(model, splits.test, _far_from(spikes, run.rng(7)))
    run.figure(
        Panel(
            "method",
            "drop of test accuracy (points)",
            [_bars("at the strongest spike", drops), _bars("at a random other frequency", controls)],
        ),
        Panel("method", "test accuracy (%)", [_bars("without noise", clean)]),
        caption="Accuracy lost to a sinusoid of 10% of the input range, added to every test sequence.",
    )
    ratios = {
        f"ratio{suffix}": _ratio_of_drops(drops[f"S4-PTD{suffix}"], drops[f"S4D{suffix}"])
        for suffix in ("", ", one Δ")
        if f"S4D{suffix}" in drops
    }
    return Measurement(
        ratios["ratio"],
        1.0,
        note=f"{setting.n_layers} blocks of width {setting.d_model}; {listed(ratios)}; drops {listed(drops)}; at "
        f"another frequency {listed(controls)}; accuracies {listed(clean)}",
    )


def _ratio_of_drops(perturbed: float, diagonal: float) -> float:
    return perturbed / diagonal if diagonal > 0 else 2.0


def _bars(name: str, shares: Mapping[str, float]) -> Series:
    return Series(name, list(shares), [100 * share for share in shares.values()], "bars")


def _spike_frequencies(model: SequenceModel, n_state: int) -> list[float]:
    """Return where the three highest spikes of the diagonal initialisation lie for the step sizes as trained."""
    steps = [step for block in model.blocks if isinstance(block.layer, S4D) for step in block.layer.delta.tolist()]
    omega = np.outer(steps, diag_spikes(n_state, 3)[0]).ravel()
    return sorted(float(value) for value in omega if value < np.pi)


def _noisy_accuracy(model: SequenceModel, test: Pair, omega: float) -> float:
    phases = 2 * np.pi * np.arange(4) / 4
    noisy = [with_fourier_noise(test[0], omega, NOISE, phase) for phase in phases]
    return float(np.mean([accuracy(model, (inputs, test[1])) for inputs in noisy]))


def _far_from(spikes: list[float], rng: np.random.Generator) -> float:
    """Return a random frequency that is as far from every spike as one of twenty draws can be."""
    draws = rng.uniform(0.3, 3.0, 20)
    return float(max(draws, key=lambda omega: np.abs(omega - np.array(spikes)).min()))


@measures("long-range-accuracy-not-worse")
def long_range_accuracy_not_worse(run: Run) -> Measurement:
    """Compare test accuracies on three synthetic tasks that need a long memory."""
    tasks = {"delayed copy": delayed_copy, "ListOps-like": list_operations, "adding": adding}
    scores: dict[str, dict[str, float]] = {}
    for task_name, make in tasks.items():
        task = make(run)
        chosen = builders(replace(task.setting, n_layers=run.pick(smoke=1, quick=2, full=2), max_iter=iterations(run)))
        # At length 1,000 the scans of S5 would cost more than all the rest.
        with_s5 = run.scale == "paper" or (run.scale == "full" and task_name != "adding")
        for name in ("S4-PTD", "S4D", "S5-PTD", "S5") if with_s5 else ("S4-PTD", "S4D"):
            model = best_of(run, f"{task_name}, {name}", chosen[name], task.splits, task.plan)
            scores.setdefault(name, {})[task_name] = 100 * task.score(
                predict(model, task.splits.test[0]), task.splits.test[1]
            )
    run.figure(
        Panel(
            "task",
            "test accuracy (%)",
            [
                Series(name, list(tasks), [values.get(task, np.nan) for task in tasks], "bars")
                for name, values in scores.items()
            ],
        ),
        caption="Accuracy on three synthetic long-range tasks.",
    )
    differences = [scores["S4-PTD"][task] - scores["S4D"][task] for task in tasks]
    accuracies = "; ".join(f"{name}: {listed(values)}" for name, values in scores.items())
    return Measurement(min(differences), 0.0, note=f"accuracies in %: {accuracies}")


@measures("conditioning-trades-against-perturbation-size")
def conditioning_trades_against_perturbation_size(run: Run) -> Measurement:
    """Measure the condition number and the accuracy over the size of the perturbation, optimised and random."""
    n = run.pick(smoke=16, quick=64, full=64)
    sizes = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    A = hippo_legs(n)[0]
    optimised = [
        perturb_then_diagonalize(A, size, max_iter=iterations(run), seed=run.seed)
        for size in run.track(sizes, "optimising E of relative size")
    ]
    # The descent may end below the size it is allowed; the random E gets exactly the size that the descent used.
    norms = [result.norm_ratio for result in optimised]
    random = [perturb_then_diagonalize(A, norm, method="ginibre", seed=run.seed) for norm in norms]
    ratios = [best.cond / control.cond for best, control in zip(optimised, random, strict=True)]
    conditions = [result.cond for result in optimised]
    panels = [
        Panel(
            "‖E‖ / ‖A‖",
            "condition number of the eigenvectors",
            [
                Series("optimised", sizes, conditions),
                Series("random, same norm", sizes, [control.cond for control in random], dashed=True),
            ],
            x_axis="log",
            y_axis="log",
        )
    ]
    if run.scale not in ("smoke", "quick"):
        panels.append(_accuracy_over_size(run, dict(zip(sizes, optimised, strict=True))))
    run.figure(*panels, caption="A larger perturbation is better conditioned, and further from HiPPO.")
    slope = slope_interval(norms, conditions, log_log=True).estimate
    return Measurement(slope, also={"optimised-over-random": float(np.median(ratios))}, note=f"{n} states")


def _accuracy_over_size(run: Run, results: dict[float, PTD]) -> Panel:
    splits, plan = sequential_digits(run), Plan(cross_entropy, n_epochs=12, batch_size=20, rates=LEARNING_RATES[1:])
    scores = []
    for size, result in results.items():
        model = best_of(run, f"size {size:g}", state_space(Setting(1, 10), "s4d", init=result), splits, plan)
        scores.append(100 * accuracy(model, splits.test))
    lines = [Series("S4-PTD", list(results), scores)]
    return Panel("‖E‖ / ‖A‖", "test accuracy on sequential digits (%)", lines, x_axis="log")
