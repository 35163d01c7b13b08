"""What the paper claims about rewarding attention entropy, measured on synthetic slides from an unseen centre."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import bootstrap, pearsonr, spearmanr
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from offprint.methods.bags.aem import (
    ACMIL,
    DSMIL,
    DTFDMIL,
    AEMLoss,
    GatedABMIL,
    MaxMIL,
    MeanMIL,
    MultiHeadPoolMIL,
)
from offprint.papers.aem import camelyon
from offprint.papers.aem.slides import N_FEATURES
from offprint.papers.aem.trainings import WEIGHTS, WIDTH, Arm, Scores, Setting, Splits, Trained, abmil
from offprint.papers.figure import Level, Panel, Series
from offprint.papers.run import Measurement, Run, measures

SWEEP = (0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)
WITNESSES: dict[str, Any] = {"1 to 3 patches": 3, "5 %": (0.05, 0.05), "20 %": (0.2, 0.2)}
FIXED = 0.1
"""The weight of claims that choose none: that of the original's example."""
RATE_NOTE = "Learning rate 0.01 for all."


@measures("improves-accuracy-under-shift")
def improves_accuracy_under_shift(run: Run) -> Measurement:
    """Tune every arm by validation on seen centres, and test on an unseen one; at the paper's scale on its own data."""
    found, note = (camelyon.arms(run), camelyon.NOTE) if run.scale == "paper" else _synthetic_arms(run)
    aucs, f1s = {name: one.auc for name, one in found.items()}, {name: one.f1 for name, one in found.items()}
    run.figure(
        Panel(
            "test AUC of ABMIL",
            "test AUC of AEM",
            [
                Series("one repetition", [aucs["ABMIL"]], [aucs["AEM"]], "dots"),
                Series("no gain", [0.5, 1.0], [0.5, 1.0], dashed=True),
            ],
            title="paired",
        ),
        _bars("test AUC", aucs),
        _bars("test F1 (macro)", f1s),
        caption="Accuracy on slides from an unseen centre; every arm tuned on slides from the seen ones.",
    )
    return Measurement(
        aucs["AEM"] - aucs["ABMIL"],
        baseline=aucs["ABMIL"],
        also={"over-mean-pooling": aucs["AEM"] - aucs["mean"]},
        note=note,
    )


def _synthetic_arms(run: Run) -> tuple[Mapping[str, Scores], str]:
    setting, splits = _drawn(run)
    weights = run.pick(smoke=WEIGHTS[:2], quick=WEIGHTS, full=WEIGHTS)
    arms = {
        "ABMIL": Arm(abmil),
        "AEM": Arm(abmil, weights),
        "mean": Arm(lambda seed: MeanMIL(N_FEATURES, 2, WIDTH, generator=seed)),
    }
    if run.scale == "full":
        arms |= {
            "max": Arm(lambda seed: MaxMIL(N_FEATURES, 2, WIDTH, generator=seed)),
            "ABMIL, not gated": Arm(lambda seed: abmil(seed, gated=False)),
            "ABMIL, dropout": Arm(lambda seed: abmil(seed, dropout=0.25)),
            "ABMIL, weight decay": Arm(abmil, options={"weight_decay": 1e-1}),
            "KL to uniform": Arm(abmil, weights, {"kind": "kl"}),
        }
    found = {name: arm.tuned(splits, setting, run.seed) for name, arm in run.track(list(arms.items()), "arms")}
    note = (
        f"{setting.note} Learning rate 0.01 or 0.03 for every arm, then the weight, by validation. The "
        "baseline is the AUC of ABMIL."
    )
    return found, note


@measures("entropy-goes-with-performance")
def entropy_goes_with_performance(run: Run) -> Measurement:
    """Train plain attention pooling from many initialisations on the same slides."""
    setting, splits = _drawn(run)
    n_models = run.pick(smoke=4, quick=15, full=60, paper=200)
    found = [Arm(abmil).fit(splits, setting, seed) for seed in run.track(range(n_models), "initialisations")]
    entropies = np.array([trained.entropies.mean() for trained in found])
    aucs = np.array([trained.auc for trained in found])
    correlation = _pearson(entropies, aucs)
    interval = bootstrap(
        (entropies, aucs),
        _pearson,
        paired=True,
        vectorized=False,
        n_resamples=run.pick(smoke=50, quick=2000, full=2000),
        method="percentile",
        rng=run.rng(1),
    ).confidence_interval
    run.figure(
        Panel(
            "mean attention entropy on test slides (nats)",
            "test AUC",
            [Series("one initialisation", entropies.tolist(), aucs.tolist(), "dots")],
        ),
        caption="Entropy of attention and accuracy over initialisations of plain attention pooling.",
    )
    spearman = float(spearmanr(entropies, aucs).statistic)
    return Measurement(
        correlation,
        also={"interval-low": float(interval.low)},
        note=f"{setting.note} {n_models} initialisations and orders of slides, the same slides for all. {RATE_NOTE} "
        f"Interval {interval.low:.2f} to {interval.high:.2f}; Spearman {spearman:.2f}.",
    )


@measures("annealing-eases-the-weight")
def annealing_eases_the_weight(run: Run) -> Measurement:
    """Sweep the weight, annealed and constant."""
    setting = Setting.of(run)
    n_repetitions = run.pick(smoke=1, quick=3, full=20)
    sweep = run.pick(smoke=SWEEP[::3], quick=SWEEP, full=SWEEP)
    aucs: dict[str, list[list[float]]] = {"cosine": [], "constant": []}
    for repetition in run.track(range(n_repetitions), "repetitions"):
        splits = Splits.drawn(run.generator(repetition), setting)
        for schedule, rows in aucs.items():
            arm = Arm(abmil, options={"schedule": schedule})
            rows.append([arm.fit(splits, setting, repetition, weight=weight).auc for weight in sweep])
    means = {schedule: np.mean(rows, axis=0) for schedule, rows in aucs.items()}
    spreads = {schedule: float(np.ptp(mean)) for schedule, mean in means.items()}
    run.figure(
        Panel(
            "weight λ at the first epoch",
            "test AUC, mean over repetitions",
            [
                Series("annealed" if schedule == "cosine" else schedule, sweep, mean.tolist())
                for schedule, mean in means.items()
            ],
            x_axis="log",
        ),
        caption="Accuracy on the unseen centre by the weight, annealed to zero and constant.",
    )
    return Measurement(
        spreads["cosine"] / max(spreads["constant"], 1e-6),
        note=f"{setting.note} {RATE_NOTE} {n_repetitions} repetitions. Spread annealed {spreads['cosine']:.4f}, "
        f"constant {spreads['constant']:.4f}.",
    )


@measures("works-across-frameworks")
def works_across_frameworks(run: Run) -> Measurement:
    """Train every framework with and without the term."""
    setting = Setting.of(run)
    n_repetitions = run.pick(smoke=1, quick=3, full=20)
    makes: dict[str, tuple[Callable[[int], nn.Module], dict[str, Any]]] = {
        "DSMIL": (lambda seed: DSMIL(N_FEATURES, 2, WIDTH, generator=seed), {}),
        "multi-head": (lambda seed: MultiHeadPoolMIL(N_FEATURES, 2, WIDTH, generator=seed), {}),
        "ACMIL": (lambda seed: ACMIL(N_FEATURES, 2, WIDTH, WIDTH, generator=seed), {}),
        "DTFD-MIL": (lambda seed: DTFDMIL(N_FEATURES, 2, WIDTH, WIDTH, generator=seed), {}),
        "ABMIL, subsampled": (abmil, {"subsample": 0.8}),
    }
    aucs: dict[str, list[tuple[float, float]]] = {name: [] for name in makes}
    for repetition in run.track(range(n_repetitions), "repetitions"):
        splits = Splits.drawn(run.generator(repetition), setting)
        for name, (make, options) in makes.items():
            arm = Arm(make, options=options)
            pair = [arm.fit(splits, setting, repetition, weight=weight).auc for weight in (0.0, FIXED)]
            aucs[name].append((pair[0], pair[1]))
    means = {name: np.mean(pairs, axis=0) for name, pairs in aucs.items()}
    gains = {name: float(mean[1] - mean[0]) for name, mean in means.items()}
    run.figure(
        Panel(
            "framework",
            "test AUC, mean over repetitions",
            [
                Series(label, list(means), [float(mean[i]) for mean in means.values()], "bars")
                for i, label in enumerate(("without", "with the entropy term"))
            ],
            levels=(Level("chance", 0.5),),
        ),
        caption="Accuracy on the unseen centre without and with the entropy term.",
    )
    listed = ", ".join(f"{name} {gain:+.4f}" for name, gain in gains.items())
    return Measurement(
        statistics.mean(gains.values()),
        also={"frameworks-helped": sum(gain >= 0 for gain in gains.values())},
        note=f"{setting.note} {RATE_NOTE} Weight {FIXED}, annealed; {n_repetitions} repetitions. Gains: {listed}.",
    )


@measures("spreads-attention")
def spreads_attention(run: Run) -> Measurement:
    """Compare where attention lies on the test slides."""
    setting, splits = _drawn(run)
    found = {
        "ABMIL": Arm(abmil).fit(splits, setting, run.seed),
        "AEM": Arm(abmil, (FIXED,)).fit(splits, setting, run.seed),
    }
    edges = np.linspace(0, 1, 21)
    shares = {
        name: np.histogram(one.normalised_entropies.clip(0, 1), edges)[0] / setting.n_test
        for name, one in found.items()
    }
    run.figure(
        Panel(
            "attention entropy over ln n",
            "share of test slides",
            [Series(name, ((edges[1:] + edges[:-1]) / 2).tolist(), share.tolist()) for name, share in shares.items()],
        ),
        Panel(
            "patches",
            "mean attention on them",
            [_mass(name, one) for name, one in found.items()],
        ),
        caption="Attention on test slides: how spread it is, and how much tumour patches and artefacts get.",
    )
    means = {name: float(one.normalised_entropies.mean()) for name, one in found.items()}
    return Measurement(
        means["AEM"] - means["ABMIL"],
        baseline=means["ABMIL"],
        note=f"{setting.note} {RATE_NOTE} Weight {FIXED}, annealed. The baseline is the normalised entropy of ABMIL.",
    )


@measures("negligible-cost")
def negligible_cost(run: Run) -> Measurement:
    """Time training steps with and without the term, one of each in turn, and compare what inference does."""
    n_patches, n_pairs = run.pick(smoke=(200, 2), quick=(10_000, 10), full=(10_000, 16))
    bag = torch.randn(n_patches, 384, generator=run.generator())
    model = GatedABMIL(384, 2, generator=run.seed)
    n_parameters = _n_parameters(model)
    before = _inference(model, bag)
    plain, rewarding, target = nn.CrossEntropyLoss(), AEMLoss(weight=0.1), torch.tensor([1])
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for pair in run.track(range(n_pairs + 1), "steps"):
        for kind in list(seconds)[:: 1 if pair % 2 else -1]:
            model.zero_grad()
            start = time.perf_counter()
            output = model(bag)
            loss = rewarding(output, target) if kind == "with" else plain(output.logits, target)
            loss.backward()
            if pair:  # the first of each pays for memory and is not counted
                seconds[kind].append(time.perf_counter() - start)
    after = _inference(model, bag)
    same = before[0] == after[0] and torch.equal(before[1], after[1])
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    run.figure(
        Panel(
            "training step",
            "median time (s)",
            [Series(f"{n_patches} patches of width 384", list(medians), list(medians.values()), "bars")],
        ),
        caption="Forward and backward pass with and without the entropy term.",
    )
    return Measurement(
        medians["with"] / medians["without"],
        also={
            "extra-parameters": _n_parameters(model) + _n_parameters(rewarding) - n_parameters,
            "same-inference": same,
        },
        note=f"{n_pairs} steps of each, in turn; forward and backward pass of a slide of {n_patches} patches.",
    )


@measures("hurts-when-evidence-is-rare")
def hurts_when_evidence_is_rare(run: Run) -> Measurement:
    """Sweep the weight for slides with few, some and many tumour patches."""
    setting = Setting.of(run)
    aucs: dict[str, dict[float, float]] = {}
    for stream, (name, witness) in enumerate(run.track(list(WITNESSES.items()), "shares of tumour")):
        splits = Splits.drawn(run.generator(stream), setting, witness=witness)
        weights = (0.0, 0.01, 0.1, 1.0) if witness == 3 else (0.0, 1.0)
        aucs[name] = {weight: Arm(abmil).fit(splits, setting, run.seed, weight=weight).auc for weight in weights}
    rare = aucs["1 to 3 patches"]
    run.figure(
        Panel(
            "weight λ at the first epoch",
            "test AUC",
            [_curve(name, curve) for name, curve in aucs.items()],
            x_axis="log",
            title="AUC",
        ),
        Panel(
            "weight λ at the first epoch",
            "test AUC less that at weight 0",
            [_curve(name, {weight: auc - curve[0.0] for weight, auc in curve.items()}) for name, curve in aucs.items()],
            x_axis="log",
            title="gain",
            levels=(Level("no gain", 0.0),),
        ),
        caption="Where a gain falls below zero, the term hurts: by weight and by tumour patches per positive slide.",
    )
    return Measurement(
        rare[1.0] - rare[0.0],
        baseline=rare[0.0],
        note=f"{setting.note} {RATE_NOTE} With slides this small 1 to 3 patches are 1 to 2 %, not 0.5 %. The baseline "
        "is the AUC at weight 0.",
    )


def _drawn(run: Run) -> tuple[Setting, Splits]:
    setting = Setting.of(run)
    return setting, Splits.drawn(run.generator(), setting)


def _bars(label: str, values: Mapping[str, float]) -> Panel:
    return Panel("", label, [Series("test", list(values), list(values.values()), "bars")], title=label)


def _curve(name: str, values: Mapping[float, float]) -> Series:
    """Draw values by weight; weight 0 has no place on a logarithmic axis."""
    placed = {weight: value for weight, value in values.items() if weight > 0}
    return Series(name, list(placed), list(placed.values()))


def _mass(name: str, trained: Trained) -> Series:
    marks = {"tumour": trained.test.tumour, "artefact": trained.test.artefact}
    return Series(name, list(marks), [trained.attention_on(mark) for mark in marks.values()], "bars")


def _pearson(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Correlate; a resample in which all are alike has no correlation, and counts as 0."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(pearsonr(x, y).statistic)


def _n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Take down what torch is asked to do, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.called: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called.append(str(function))
        return function(*args, **(kwargs or {}))


def _inference(model: nn.Module, bag: Tensor) -> tuple[list[str], Tensor]:
    """Return what inference asks of torch, and its logits."""
    with torch.no_grad(), _Operations() as operations:
        logits = model(bag).logits
    return operations.called, logits
