"""What the paper claims of seeing the whole set when a subset is scored, measured."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from offprint.data import load
from offprint.data.subsets import (
    SubsetData,
    class_anomaly_sets,
    cluster_anomaly_sets,
    gaussian_sets,
    registry_sets,
    two_moons_sets,
)
from offprint.papers.figure import Level, Panel, Series
from offprint.papers.inset.arms import Arms, Draw, Setting, arms, chance, distance_to_mean, of_another_set
from offprint.papers.run import Measurement, Run, listed, measures

SMOKE = Setting(n_train=24, n_test=8, n_epochs=1, n_tuning=0, features=8, hidden_features=8)
QUICK = Setting(n_train=500, n_test=200, n_epochs=20, n_tuning=6)
FULL = Setting(n_train=1000, n_test=400, n_epochs=30, n_tuning=8)
PAPER = Setting(n_train=1000, n_test=1000, n_epochs=100, n_tuning=100, features=256, hidden_features=500)


@measures("context-beats-no-context")
def context_beats_no_context(run: Run) -> Measurement:
    """Compare with and without context on small sets of points, beside other methods, sizes and tasks."""
    small = clusters(run, 8)
    gains = {m: small.gain(mc_samples=m) for m in run.track((1, 5), "INSET and EquiVSet")}
    scores = {
        "random": chance(small.task.test.chosen),
        "distance to mean": distance_to_mean(small.task.test),
        **{
            name: small.scorer(name) for name in run.track(("single elements", "DeepSets", "SetTransformer"), "scorers")
        },
    }
    modes = run.pick(smoke=("diffMF", "copula"), quick=("diffMF",), full=("diffMF", "ind", "copula"))
    for mode in run.track(modes, "modes"):
        options = {} if mode == "diffMF" else {"mode": mode}
        scores[f"EquiVSet {mode}"] = small.fit(context=False, mc_samples=1, **options).score
        scores[f"INSET {mode}"] = small.fit(mc_samples=1, **options).score
    roomless = {
        name: without_tuning(run, make).gain(mc_samples=1)
        for name, make in run.track(list(ROOMLESS.items()), "no room")
    }
    by_size = gains_by_size(run)
    run.figure(
        Panel("method", "mean Jaccard index x 100", [Series("M = 1", list(scores), list(scores.values()), "bars")]),
        Panel(
            "elements in a set",
            "gain in points",
            [Series(f"M = {m}", list(found), list(found.values())) for m, found in by_size.items()],
            x_axis="log",
            levels=[Level("no gain", 0.0)],
        ),
        caption="Small cluster-anomaly sets, a quarter of whose elements are to be found.",
    )
    return Measurement(
        gains[1],
        also={"gain-at-five-masks": gains[5]},
        note=f"{described(run)}. At M = 1: {listed(scores, '.1f')}. No room, M = 1: gain {listed(roomless, '.1f')}.",
    )


@measures("context-helps-anomaly-detection")
def context_helps_anomaly_detection(run: Run) -> Measurement:
    """Find the two or three digits of other classes among eight."""
    digits = arms(digit_sets, setting(run), run.seed, run.device)
    gains = {m: digits.gain(mc_samples=m) for m in run.track((1, 5), "digits")}
    scores = {
        f"{name}, M = {m}": digits.fit(mc_samples=m, **options).score
        for m in (1, 5)
        for name, options in (("EquiVSet", {"context": False}), ("INSET", {}))
    }
    run.figure(
        Panel("method", "mean Jaccard index x 100", [Series("digits", list(scores), list(scores.values()), "bars")]),
        caption="Two or three digits of other classes among eight.",
    )
    return Measurement(
        gains[1],
        also={"gain-at-five-masks": gains[5]},
        note=f"{described(run)}. {listed(scores, '.1f')}; random {chance(digits.task.test.chosen):.1f}. Training, "
        "validation and test sets have images of their own.",
    )


@measures("gain-comes-from-the-set-not-from-parameters")
def gain_comes_from_the_set_not_from_parameters(run: Run) -> Measurement:
    """Give EquiVSet as many weights, and INSET the summary of another set."""
    small = clusters(run, 8)
    width = small.widened()
    options: dict[str, dict[str, Any]] = {
        "EquiVSet": {"context": False},
        "EquiVSet, widened": {"context": False, "hidden_features": width},
        "INSET, another set": {"agg": of_another_set},
        "INSET": {},
    }
    scores = {
        name: small.fit(mc_samples=1, **chosen).score for name, chosen in run.track(list(options.items()), "arms")
    }
    run.figure(
        Panel("arm", "mean Jaccard index x 100", [Series("M = 1", list(scores), list(scores.values()), "bars")]),
        caption="Small cluster-anomaly sets.",
    )
    weights = small.n_weights(width, context=False) / small.n_weights(small.setting.hidden_features)
    return Measurement(
        scores["INSET"] - max(scores["EquiVSet, widened"], scores["INSET, another set"]),
        note=f"{described(run)}. {listed(scores, '.1f')}. Widened to {width} hidden units, {100 * weights:.1f}% of "
        "INSET's weights.",
    )


@measures("converges-in-fewer-epochs")
def converges_in_fewer_epochs(run: Run) -> Measurement:
    """Count epochs until the validation sets are as good as 95% of EquiVSet's best."""
    small = clusters(run, 8)
    curves = {
        name: small.fit(mc_samples=1, **options).curve
        for name, options in run.track([("EquiVSet", {"context": False}), ("INSET", {})], "curves")
    }
    wanted = 0.95 * max(curves["EquiVSet"])
    epochs = {
        name: next((epoch for epoch, value in enumerate(curve, 1) if value >= wanted), len(curve))
        for name, curve in curves.items()
    }
    run.figure(
        Panel(
            "epoch",
            "validation mean Jaccard index x 100",
            [
                Series(name, list(range(1, len(curve) + 1)), curve, dashed=name != "INSET")
                for name, curve in curves.items()
            ],
        ),
        caption="Small cluster-anomaly sets, one mask.",
    )
    return Measurement(
        epochs["INSET"] / epochs["EquiVSet"],
        note=f"{described(run)}. Epochs to {wanted:.1f}: EquiVSet {epochs['EquiVSet']}, INSET {epochs['INSET']}.",
    )


@measures("gain-is-stable-across-settings")
def gain_is_stable_across_settings(run: Run) -> Measurement:
    """Vary masks, steps, pooling and merging one at a time."""
    small = without_tuning(run, cluster_sets)
    options: dict[str, dict[str, Any]] = {"base": {}}
    options |= {f"M = {m}": {"mc_samples": m} for m in run.pick(smoke=(5,), quick=(5,), full=(5, 20))}
    options |= {f"{steps} steps": {"steps": steps} for steps in run.pick(smoke=(2,), quick=(2,), full=(2, 5))}
    options |= {agg: {"agg": agg} for agg in run.pick(smoke=("sum",), quick=("max",), full=("sum", "max", "attention"))}
    options |= {merge: {"merge": merge} for merge in run.pick(smoke=("film",), quick=("sum",), full=("sum", "film"))}
    gains = {
        name: small.gain(**{"mc_samples": 1, **chosen}) for name, chosen in run.track(list(options.items()), "settings")
    }
    run.figure(
        Panel("changed", "gain in points", [Series("gain", list(gains), list(gains.values()), "bars")]),
        caption="Gain over EquiVSet where one thing is changed of: one mask, one step, mean pooling, concatenated.",
    )
    return Measurement(
        float(np.median(list(gains.values()))),
        note=f"{described(run)}, for half as many epochs at rate 1e-3. Gain of each: {listed(gains, '.1f')}.",
    )


@measures("context-helps-recommendation")
def context_helps_recommendation(run: Run) -> Measurement:
    """Recommend from synthetic catalogues of 30 items."""
    shop = arms(registries, replace(setting(run), n_tuning=0), run.seed, run.device)
    found = {
        name: shop.fit(mc_samples=1, **options)
        for name, options in run.track([("EquiVSet", {"context": False}), ("INSET", {})], "catalogues")
    }
    scores = {name: arm.score for name, arm in found.items()}
    f1 = {name: arm.f1(shop.task.test) for name, arm in found.items()}
    run.figure(
        Panel(
            "method",
            "score x 100",
            [
                Series("Jaccard, size given", list(scores), list(scores.values()), "bars"),
                Series("F1, size not given", list(f1), list(f1.values()), "bars"),
            ],
        ),
        caption="Items that somebody wants who mixes two of ten categories.",
    )
    return Measurement(
        scores["INSET"] - scores["EquiVSet"],
        note=f"{described(run)}, all at rate 1e-3 here, one mask. {listed(scores, '.1f')}. F1 where the size is "
        f"not given: {listed(f1, '.1f')}; random of the right size {chance(shop.task.test.chosen):.1f}.",
    )


def cluster_sets(s: Setting, seed: int, size: int = 8) -> SubsetData:
    """Draw the small sets of points, a quarter of them anomalies."""
    return cluster_anomaly_sets(s.n_sets, size, max(1, size // 4), generator=seed)


def registries(s: Setting, seed: int) -> SubsetData:
    """Draw catalogues of 30 items."""
    return registry_sets(s.n_sets, generator=seed)


def digit_sets(s: Setting, seed: int) -> SubsetData:
    """Draw sets of digits for training, validation and test, each from images of their own."""
    train, rest = load("digits", split="train"), load("digits", split="test")
    half = len(rest.inputs) // 2
    parts = (
        (train.inputs, train.targets, s.n_train),
        (rest.inputs[:half], rest.targets[:half], s.n_test),
        (rest.inputs[half:], rest.targets[half:], s.n_test),
    )
    drawn = [class_anomaly_sets(torch.as_tensor(x), torch.as_tensor(y), n, generator=seed) for x, y, n in parts]
    return SubsetData(torch.cat([data.sets for data in drawn]), torch.cat([data.chosen for data in drawn]))


def no_room(make: Callable[..., SubsetData], s: Setting, seed: int) -> SubsetData:
    """Draw sets of 50 points, 5 of them anomalies."""
    return make(s.n_sets, 50, 5, generator=seed)


ROOMLESS: Mapping[str, Draw] = {
    "Gaussian": functools.partial(no_room, gaussian_sets),
    "two moons": functools.partial(no_room, two_moons_sets),
}
SIZES: Mapping[int, Draw] = {size: functools.partial(cluster_sets, size=size) for size in (4, 16, 32, 64)} | {
    8: cluster_sets
}


def setting(run: Run) -> Setting:
    """Return how much is trained at this run's scale."""
    return run.pick(smoke=SMOKE, quick=QUICK, full=FULL, paper=PAPER)


def clusters(run: Run, size: int) -> Arms:
    """Return the arms on sets of points."""
    return arms(SIZES[size], setting(run), run.seed, run.device)


def without_tuning(run: Run, make: Draw) -> Arms:
    """Return arms that are trained for half as many epochs at the larger rate, where there are many."""
    half = replace(setting(run), n_epochs=max(1, setting(run).n_epochs // 2), n_tuning=0)
    return arms(make, half, run.seed, run.device)


def gains_by_size(run: Run) -> dict[int, dict[int, float]]:
    """Return the gain for each number of masks and size of sets."""
    sizes = run.pick(smoke=(4,), quick=(4, 8, 16), full=(4, 8, 16, 32), paper=(4, 8, 16, 32, 64))
    masks = run.pick(smoke=(1,), quick=(1,), full=(1, 5), paper=(1, 5, 20))
    return {
        m: {size: without_tuning(run, SIZES[size]).gain(mc_samples=m) for size in run.track(sizes, f"sizes, M = {m}")}
        for m in masks
    }


def described(run: Run) -> str:
    """Say what is trained."""
    s = setting(run)
    return (
        f"{s.n_train} training sets, {s.n_epochs} epochs, an encoder to {s.features} features for all, "
        f"{s.hidden_features} hidden units, mode diffMF, best of rates 1e-4 and 1e-3 after {s.n_tuning} epochs"
    )
