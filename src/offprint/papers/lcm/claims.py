"""What the paper claims, measured: larger sets, speed, graphs, digits, the trade-off, and the order of elements."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from offprint.methods.bags.lcm import LCMAggregation
from offprint.methods.bags.lcm_aggregators import GRUAggregation
from offprint.methods.bags.lcm_sets import SetAggregation
from offprint.models.evaluation import accuracy, cross_entropy
from offprint.models.training import train
from offprint.papers.figure import Panel, Series
from offprint.papers.lcm.networks import (
    GRAPH_TARGETS,
    NODE_TARGETS,
    GraphNetwork,
    Graphs,
    PixelSets,
    draw_graphs,
    union,
)
from offprint.papers.lcm.second_minimum import (
    AGGREGATORS,
    RATES,
    WEIGHTS,
    Setting,
    Trained,
    build,
    draw,
    equal_width,
    fit,
    second_minimum,
)
from offprint.papers.run import Measurement, Run, listed, measures

SMOKE = Setting(n_sets=64, width=8, n_steps=3, n_tuning=1, n_test=16)
QUICK = Setting(n_sets=2000, width=32, n_steps=200, n_tuning=20, n_test=200)
FULL = Setting(n_sets=20_000, width=32, n_steps=2000, n_tuning=100)
PAPER = Setting(n_sets=20_000, width=64, n_steps=8000, n_tuning=2000, n_test=2000)
FAST_RATES = (1e-3, 3e-3, 1e-2)
"""For graphs and digits, which are trained for fewer steps than the usual rates need."""


@measures("generalises-second-minimum-to-larger-sets")
def generalises_second_minimum_to_larger_sets(run: Run) -> Measurement:
    """Train on sets of 1 to 16 integers and compare errors on sets of up to 256, every aggregator tuned alike."""
    names = ("sum", "mean", "max", "GRU", "GRU regularised", "LCM")
    sizes = run.pick(smoke=(16, 128), quick=(4, 16, 64, 128), full=(4, 16, 32, 64, 128, 256))
    found = {name: tuned(run, name) for name in run.track(names, "second minimum")}
    errors = {
        name: [model.errors(n, setting(run).n_test, run.generator(n)) for n in sizes] for name, model in found.items()
    }
    run.figure(
        *(
            Panel(
                "set size",
                label,
                [
                    Series(name, sizes, [pair[k] for pair in pairs], dashed=name != "LCM")
                    for name, pairs in errors.items()
                ],
                x_axis="log",
                y_axis="log" if k == 0 else "linear",
            )
            for k, label in enumerate(("mean absolute error (of 255)", "share of exact answers"))
        ),
        caption="The second minimum after training on sets of 1 to 16 integers.",
    )
    at_128 = {name: pairs[sizes.index(128)][0] for name, pairs in errors.items()}
    plain = min(at_128[name] for name in ("sum", "mean", "max"))
    gap = found["LCM"].order_gap(64, 50, run.generator(1))
    rates = ", ".join(f"{name} {model.rate:g} (width {model.width})" for name, model in found.items())
    return Measurement(
        at_128["LCM"] / plain,
        at_128["GRU"] / plain,
        also={"over-regularised-gru": at_128["LCM"] / at_128["GRU regularised"]},
        note=f"{described(setting(run))}. Regularisers weigh {WEIGHTS['LCM']:g}. "
        f"Errors at size 128: {listed(at_128)}. Rates chosen: {rates}. "
        f"Permutation gap of LCM at size 64: {gap:.2g}. The baseline is the GRU in random order.",
    )


@measures("tree-fold-is-faster-than-recurrence")
def tree_fold_is_faster_than_recurrence(run: Run) -> Measurement:
    """Time forward plus backward of both aggregators on growing sets, and count the steps that depend on each other."""
    sizes = run.pick(smoke=(16, 64), quick=(16, 64, 256, 512), full=(16, 64, 256, 1024, 4096))
    judged = run.pick(smoke=64, quick=512, full=1024)
    width, n_sets = 64, 8
    models = {
        "LCM": LCMAggregation(width, width, generator=run.generator(1)).to(run.device),
        "GRU": GRUAggregation(width, width, generator=run.generator(1)).to(run.device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for n in run.track(sizes, "timing"):
        x = torch.randn(n_sets * n, width, generator=run.generator(n), device=run.device)
        index = torch.arange(n_sets, device=run.device).repeat_interleave(n)
        works = {name: functools.partial(forward_backward, model, x, index) for name, model in models.items()}
        for name, best in fastest(works, run.pick(smoke=1, quick=5, full=3)).items():
            seconds[name].append(best)
    depth = [math.ceil(math.log2(n)) for n in sizes]
    run.figure(
        Panel(
            "set size",
            "seconds, forward and backward",
            [Series(name, sizes, times) for name, times in seconds.items()],
            x_axis="log",
            y_axis="log",
        ),
        Panel(
            "set size",
            "steps one after the other",
            [Series("LCM", sizes, depth), Series("GRU", sizes, sizes)],
            x_axis="log",
            y_axis="log",
        ),
        caption=f"{n_sets} sets of equal size at once, width {width}; the fastest of several runs.",
    )
    ratios = {n: a / b for n, a, b in zip(sizes, seconds["LCM"], seconds["GRU"], strict=True)}
    return Measurement(
        ratios[judged],
        note=f"{n_sets} sets at once on {run.device}; the fastest of interleaved repeats. LCM over GRU by set size: "
        + ", ".join(f"{n}: {ratio:.2g}" for n, ratio in ratios.items())
        + ". The LCM does twice the arithmetic: both orders of every pair.",
    )


@measures("competitive-on-synthetic-graph-tasks")
def competitive_on_synthetic_graph_tasks(run: Run) -> Measurement:
    """Learn six targets on small random graphs, test on graphs of twice the size."""
    n_graphs, n_test = run.pick(smoke=(8, 4), quick=(300, 60), full=(1000, 200))
    n_steps, n_tuning = run.pick(smoke=(2, 1), quick=(60, 15), full=(160, 30), paper=(10_000, 2500))
    width, n_rounds = run.pick(smoke=(8, 2), quick=(24, 4), full=(24, 4), paper=(64, 12))
    judged = run.pick(smoke=2, quick=2, full=6)
    rng = run.rng(1)
    graphs, held_out = draw_graphs(n_graphs, (15, 25), rng), union(draw_graphs(n_test, (15, 25), rng))
    test = union(draw_graphs(n_test, (25, 50), rng))
    scores: dict[str, list[float]] = {}

    def make(name: str, of_width: int, generator: torch.Generator) -> GraphNetwork:
        return GraphNetwork(AGGREGATORS[name], of_width, n_rounds, generator)

    for name in run.track(("sum", "PNA", "GRU", "LCM"), "graph tasks"):

        def trained(rate: float, n: int, name: str = name) -> GraphNetwork:
            model = make(name, equal_width(name, width, make), torch.Generator().manual_seed(run.seed))
            train_on_graphs(model, graphs, rate, n, judged, run)
            return model

        best = min(FAST_RATES, key=lambda rate: mean_log_error(trained(rate, n_tuning), held_out, judged))
        with torch.no_grad():
            scores[name] = trained(best, n_steps).errors(test)[:judged].log10().tolist()
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    targets = [*NODE_TARGETS, *GRAPH_TARGETS][:judged]
    run.figure(
        Panel(
            "target",
            "log10 mean squared error",
            [Series(name, targets, values, "bars") for name, values in scores.items()],
        ),
        caption="Test graphs have 25 to 50 nodes, training graphs 15 to 25.",
    )
    return Measurement(
        means["LCM"] - min(means["PNA"], means["GRU"]),
        means["sum"] - min(means["PNA"], means["GRU"]),
        also={"gain-over-sum": means["sum"] - means["LCM"]},
        note=f"{n_graphs} graphs, width {width} for the LCM and as many parameters for the others, one layer used "
        f"{n_rounds} times, {n_steps} steps of 32 graphs, each with the best of rates 1e-3, 3e-3 and 1e-2 after "
        f"{n_tuning} steps; LCM without its regulariser. Mean log10 errors: {listed(means)}. "
        "The baseline is sum.",
    )


@measures("competitive-on-real-data")
def competitive_on_real_data(run: Run) -> Measurement:
    """Classify digits as sets of 64 pixels."""
    n_steps, n_tuning = run.pick(smoke=(2, 1), quick=(120, 20), full=(250, 30), paper=(5000, 1000))
    width = run.pick(smoke=8, quick=24, full=32, paper=64)
    images, labels = load_digits(return_X_y=True)
    order = run.rng(1).permutation(len(images))
    pixels = torch.tensor(images[order] / 16, dtype=torch.float32)
    classes = torch.tensor(labels[order], dtype=torch.int64)
    parts = [(pixels[a:b], classes[a:b]) for a, b in ((0, 1000), (1000, 1300), (1300, 1797))]
    scores = {}

    def make(name: str, of_width: int, generator: torch.Generator) -> PixelSets:
        return PixelSets(AGGREGATORS[name], of_width, generator)

    for name in run.track(("sum", "GRU", "LCM"), "digits"):

        def trained(rate: float, n: int, name: str = name) -> nn.Module:
            model = make(name, equal_width(name, width, make), torch.Generator().manual_seed(run.seed)).to(run.device)
            settings = {"batch_size": 64, "schedule": "cosine", "gradient_clip": 1.0, "generator": run.seed}
            train(model, cross_entropy, parts[0], n_steps=n, learning_rate=rate, progress=run.progress, **settings)  # type: ignore[arg-type]
            return model

        best = max(FAST_RATES, key=lambda rate: accuracy(trained(rate, n_tuning), parts[1]))
        scores[name] = 100 * accuracy(trained(best, n_steps), parts[2])
    run.figure(
        Panel("aggregator", "test accuracy (%)", [Series("digits", list(scores), list(scores.values()), "bars")]),
        caption="Digits as sets of 64 pixels, each with its position and intensity.",
    )
    return Measurement(
        scores["LCM"] - max(scores["sum"], scores["GRU"]),
        note=f"8 x 8 digits, 1000 to train on, {n_steps} steps of 64, width {width} for the LCM and as many parameters "
        f"for the others, each with the best of rates 1e-3, 3e-3 and 1e-2 after {n_tuning} steps. Accuracies in %: "
        f"{listed(scores)}. LCM without its regulariser here.",
    )


@measures("favourable-accuracy-and-cost")
def favourable_accuracy_and_cost(run: Run) -> Measurement:
    """Set the error on sets of 64 beside the time of a training step."""
    names = tuple(AGGREGATORS)
    errors = {}
    for name in run.track(names, "accuracy and cost"):
        errors[name] = tuned(run, name).errors(64, setting(run).n_test, run.generator(64))[0]
    seconds = fastest({name: training_step(run, name) for name in names}, run.pick(smoke=1, quick=10, full=20))
    rivals = [name for name in names if name not in ("LCM", "GRU sorted")]
    better = [name for name in rivals if errors[name] < errors["LCM"] and seconds[name] < seconds["LCM"]]
    run.figure(
        Panel(
            "milliseconds a training step",
            "mean absolute error at set size 64",
            [Series(name, [1000 * seconds[name]], [errors[name]], "dots", dashed=name != "LCM") for name in names],
            y_axis="log",
        ),
        caption="Below and to the left is better. The sorted GRU is told the order: an upper bound.",
    )
    return Measurement(
        not better,
        note=f"{described(setting(run))}. Error at size 64: {listed(errors)}. Milliseconds a step: "
        f"{listed({name: 1000 * value for name, value in seconds.items()})}. "
        + (f"Better and faster: {', '.join(better)}." if better else "None is both better and faster."),
    )


@measures("regulariser-closes-the-permutation-gap")
def regulariser_closes_the_permutation_gap(run: Run) -> Measurement:
    """Train with several weights of the regulariser, leaves shuffled or not, and measure gap and error."""
    weights = run.pick(smoke=(0.0, 0.1), quick=(0.0, 0.1), full=(0.0, 0.01, 0.1, 1.0))
    of = replace(setting(run), n_steps=run.pick(smoke=3, quick=200, full=500, paper=8000))
    reductions, notes, panels = [], [], []
    for shuffle in (True, False):
        gaps, errors = [], []
        for weight in run.track(weights, f"shuffle {shuffle}"):
            model = fit("LCM", of, (3e-3,), run.seed, weight=weight, shuffle=shuffle, device=run.device)
            gaps.append(model.order_gap(128, 50, run.generator(1)))
            errors.append(model.errors(128, setting(run).n_test, run.generator(2))[0])
        allowed = [gap for gap, error in zip(gaps[1:], errors[1:], strict=True) if error <= 1.1 * errors[0]]
        reductions.append(gaps[0] / min(allowed) if allowed else 0.0)
        label = "leaves shuffled" if shuffle else "leaves as they come"
        notes.append(f"{label}: gap " + ", ".join(f"{gap:.3g}" for gap in gaps))
        notes.append("error " + ", ".join(f"{error:.3g}" for error in errors))
        panels.append((label, gaps, errors))
    names = [f"{weight:g}" for weight in weights]
    run.figure(
        Panel("weight", "permutation gap", [Series(label, names, gaps, "bars") for label, gaps, _ in panels]),
        Panel("weight", "mean absolute error", [Series(label, names, errors, "bars") for label, _, errors in panels]),
        caption="Sets of 128 after training on sets of 1 to 16, by weight of the regulariser.",
    )
    return Measurement(
        math.sqrt(math.prod(reductions)),
        note=f"{described(of)}; rate 0.003 throughout. Weights {', '.join(names)}: {'; '.join(notes)}.",
    )


def setting(run: Run) -> Setting:
    """Return how much is trained at this run's scale."""
    return run.pick(smoke=SMOKE, quick=QUICK, full=FULL, paper=PAPER)


def described(s: Setting) -> str:
    """Say what is trained."""
    return (
        f"{s.n_sets} training sets, width {s.width} for the LCM and as many parameters for the others, {s.n_steps} "
        f"steps of {s.batch_size} sets for each, best of rates 3e-4, 1e-3 and 3e-3 after {s.n_tuning} steps"
    )


def tuned(run: Run, name: str) -> Trained:
    """Return an aggregator tuned and trained on the second minimum, once for all claims measured in one process."""
    return _tuned(name, setting(run), run.seed, run.device)


@functools.lru_cache(maxsize=64)
def _tuned(name: str, of: Setting, seed: int, device: str) -> Trained:
    return fit(name, of, RATES, seed, device=device)


def train_on_graphs(
    model: GraphNetwork, graphs: list[Graphs], rate: float, n_steps: int, judged: int, run: Run
) -> None:
    """Train on the mean of the judged targets' errors, 32 graphs a step."""
    by_graph = torch.arange(len(graphs))

    def loss(network: GraphNetwork, chosen: Tensor) -> Tensor:
        return network.errors(union([graphs[i] for i in chosen.tolist()]))[:judged].mean()

    settings = {"batch_size": 32, "schedule": "cosine", "gradient_clip": 1.0, "generator": run.seed}
    train(model, loss, by_graph, n_steps=n_steps, learning_rate=rate, progress=run.progress, **settings)  # type: ignore[arg-type]


@torch.no_grad()
def mean_log_error(model: GraphNetwork, batch: Graphs, judged: int) -> float:
    """Return the mean log10 squared error over the judged targets."""
    return float(model.errors(batch)[:judged].log10().mean())


def forward_backward(model: SetAggregation, x: Tensor, index: Tensor) -> None:
    """Aggregate and differentiate."""
    model.zero_grad()
    model(x, index).sum().backward()


def training_step(run: Run, name: str) -> Callable[[], None]:
    """Return a training step of one aggregator on a batch of the second minimum."""
    of = setting(run)
    model = build(name, equal_width(name, of.width), run.generator(3))
    sets = draw(of.batch_size, (1, of.most), run.generator(4))
    target = second_minimum(sets)

    def step() -> None:
        value = nn.functional.l1_loss(model(sets), target)
        if name in WEIGHTS:
            value = value + sum(model.aggregation.regularisation(*model.elements(sets)).values())  # type: ignore[operator]
        model.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]

    return step


def fastest(works: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the least seconds of each, runs interleaved: what else the machine does only ever adds."""
    best = dict.fromkeys(works, math.inf)
    for _ in range(repeats):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start)
    return best
