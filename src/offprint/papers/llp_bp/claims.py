"""What the paper claims about learning from label proportions by belief propagation, measured."""

from __future__ import annotations

import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score

from offprint.methods.bags.llp_bp import LLPBeliefPropagation
from offprint.methods.bags.llp_bp_bags import make_bags, proportions_from
from offprint.methods.bags.llp_bp_baselines import DLLPClassifier, EasyLLPClassifier
from offprint.methods.bags.llp_bp_classifier import LLPBPClassifier
from offprint.methods.bags.llp_bp_network import fit_best, module_probabilities
from offprint.papers.figure import Level, Panel, Series
from offprint.papers.llp_bp.problems import Problem, draw_clusters, problems
from offprint.papers.run import Measurement, Run, measures
from offprint.statistics import slope_interval

LARGE = 128
HIDDEN, PAPER_HIDDEN = (64, 32, 16), (5040, 1280, 320, 128, 64)
BAG_WEIGHTS = (0.1, 1.0, 4.0, 10.0)
Options = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Setting:
    """How much work every arm of a claim is given at one scale."""

    n_rows: int
    n_test: int
    sizes: tuple[int, ...]
    n_epochs: int
    batch_size: int
    rates: tuple[float, ...] = (1e-4, 1e-3)
    similarities: tuple[float, ...] = (1.0, 2.0)
    hidden: tuple[int, ...] = HIDDEN

    @property
    def note(self) -> str:
        """The setting in words."""
        return (
            f"Up to {self.n_rows} training rows, network {_joined(self.hidden, '-')}, at most {self.n_epochs} epochs, "
            f"batches of {self.batch_size} rows or one bag; learning rates {_joined(self.rates)}, chosen by the loss "
            f"on a fifth of the bags, as lambda_s is from {_joined(self.similarities)}"
        )

    @property
    def network(self) -> dict[str, Any]:
        """What all classifiers share."""
        return {"hidden_sizes": self.hidden, "n_epochs": self.n_epochs, "batch_size": self.batch_size}


@measures("beats-baselines-on-large-bags")
def beats_baselines_on_large_bags(run: Run) -> Measurement:
    """Train LLP-BP, DLLP and EasyLLP on bags of every size, and a network on all labels."""
    setting = _setting(run)
    large = run.pick(smoke=8, quick=64, full=LARGE)
    arms: dict[str, tuple[Callable[..., Any], Options]] = {
        "LLP-BP": (LLPBPClassifier, _with_similarity(setting)),
        "DLLP": (DLLPClassifier, [{}]),
        "EasyLLP": (EasyLLPClassifier, [{}]),
    }
    found: dict[str, dict[int, dict[str, float]]] = {}
    supervised: dict[str, float] = {}
    for problem, size in run.track(_cells(run, setting), "bags"):
        if problem.name not in supervised:
            supervised[problem.name] = _supervised(problem, setting, run.seed)
        found.setdefault(problem.name, {})[size] = {
            name: _auc(problem, _tuned(problem, size, setting, run.seed, *arm)) for name, arm in arms.items()
        }
    run.figure(
        *(
            Panel(
                "rows in a bag",
                "test AUC",
                [Series(arm, list(by_size), [by_size[size][arm] for size in by_size]) for arm in arms],
                title=name,
                x_axis="log",
                levels=[Level("all labels known", supervised[name])],
            )
            for name, by_size in found.items()
        ),
        caption="Test AUC by the size of the bags.",
    )
    gains = {
        name: float(np.mean([_gain(by_size[size]) for size in by_size if size >= large]))
        for name, by_size in found.items()
        if max(by_size) >= large
    }
    listed = "; ".join(
        f"{name}, bags of {size}: " + ", ".join(f"{arm} {auc:.3f}" for arm, auc in by_arm.items())
        for name, by_size in found.items()
        for size, by_arm in by_size.items()
    )
    oracle = ", ".join(f"{name} {auc:.3f}" for name, auc in supervised.items())
    return Measurement(
        sorted(gains.values())[-2],
        note=f"{setting.note}. Gains on bags of at least {large}: "
        f"{', '.join(f'{name} {gain:.3f}' for name, gain in gains.items())}. Test AUC: {listed}. With all labels: "
        f"{oracle}.",
    )


@measures("similarity-and-counts-both-matter")
def similarity_and_counts_both_matter(run: Run) -> Measurement:
    """Train on pseudo-labels from similarity and counts, and from counts alone; look at those from similarity alone."""
    setting = _setting(run, sizes=(32, 512))
    rows: dict[str, list[float]] = {"counts and similarity": [], "counts alone": [], "similarity alone": []}
    names = []
    for problem, size in run.track(_cells(run, setting), "bags"):
        names.append(f"{problem.name}, {size}")
        full = _tuned(problem, size, setting, run.seed, LLPBPClassifier, _with_similarity(setting))
        counts_only = [{"propagation": LLPBeliefPropagation(lambda_s=0.0), "rounds": 1}]
        bare = _tuned(problem, size, setting, run.seed, LLPBPClassifier, counts_only)
        rows["counts and similarity"].append(_auc(problem, full))
        rows["counts alone"].append(_auc(problem, bare))
        rows["similarity alone"].append(_graph_alone(problem, size, run.seed))
    run.figure(
        Panel("data and rows in a bag", "test AUC", [Series(arm, names, auc, "bars") for arm, auc in rows.items()]),
        caption="Test AUC of the network by what its pseudo-labels come from; for similarity alone, their own AUC.",
    )
    together, counts_alone = (float(np.mean(rows[arm])) for arm in ("counts and similarity", "counts alone"))
    listed = "; ".join(
        f"{name}: " + ", ".join(f"{arm} {auc[i]:.3f}" for arm, auc in rows.items()) for i, name in enumerate(names)
    )
    return Measurement(together - counts_alone, note=f"{setting.note}. Test AUC: {listed}.")


@measures("second-round-improves-the-graph")
def second_round_improves_the_graph(run: Run) -> Measurement:
    """Compare graph and network of two rounds."""
    setting = _setting(run, sizes=(32, 512), rates=(1e-3,))
    agreement: dict[str, list[float]] = {}
    auc: dict[str, list[float]] = {}
    for problem, size in run.track(_cells(run, setting), "bags"):
        model = _tuned(problem, size, setting, run.seed, LLPBPClassifier, _with_similarity(setting))
        name, known = f"{problem.name}, {size}", problem.y[model.train_rows_]
        agreement[name] = [step.propagation.graph_.label_agreement(known) for step in model.history_]
        auc[name] = [
            float(roc_auc_score(problem.y_test, module_probabilities(step.model, problem.X_test, None)))
            for step in model.history_
        ]
    run.figure(
        *(
            Panel("round", label, [Series(name, [1, 2], pair) for name, pair in pairs.items()])
            for label, pairs in (("share of edges that join equal labels", agreement), ("test AUC", auc))
        ),
        caption="The graph and the network of the first and second round, by data and rows in a bag.",
    )
    listed = "; ".join(
        f"{name}: agreement {agreement[name][0]:.3f} and {agreement[name][1]:.3f}, AUC {auc[name][0]:.3f} and "
        f"{auc[name][1]:.3f}"
        for name in agreement
    )
    return Measurement(
        float(np.mean([after - before for before, after in agreement.values()])),
        also={"auc-change": float(np.mean([after - before for before, after in auc.values()]))},
        note=f"{setting.note}. {listed}.",
    )


@measures("scales-to-a-million")
def scales_to_a_million(run: Run) -> Measurement:
    """Time the graph and 30 iterations on growing tables."""
    numbers = run.pick(smoke=(1000, 2000, 4000), quick=(20_000, 45_000, 100_000), full=(100_000, 300_000, 1_000_000))
    _timed_propagation(1000, run)  # so that compiling is not timed
    seconds = []
    for n in run.track(numbers, "rows"):
        took, found, X, y, ids = _timed_propagation(n, run)
        seconds.append(took)
    run.figure(
        Panel("rows", "seconds", [Series("graph and 30 iterations", numbers, seconds)], x_axis="log", y_axis="log"),
        caption="Wall time of the neighbour graph and 30 iterations of belief propagation, bags of 32.",
    )
    shares = proportions_from(y, ids)
    gain = roc_auc_score(y, found.marginals_) - roc_auc_score(y, shares[ids])
    start = time.perf_counter()
    DLLPClassifier(hidden_sizes=HIDDEN, n_epochs=1, validation_fraction=0.0).fit(X, ids, shares)
    epoch = time.perf_counter() - start
    slope = slope_interval(list(map(float, numbers)), seconds, log_log=True).estimate
    return Measurement(
        seconds[-1],
        also={"peak-memory-gb": _peak_gigabytes(), "auc-gain-from-similarity": gain, "time-slope": slope},
        note=f"Seconds by rows: {', '.join(f'{n}: {took:.1f}' for n, took in zip(numbers, seconds, strict=True))}; "
        f"{seconds[-1] / epoch:.1f} training epochs of a network {_joined(HIDDEN, '-')}. Neighbours from "
        f"inverted lists with a recall of {found.graph_.recall:.2f}. AUC of pseudo-labels "
        f"{roc_auc_score(y, found.marginals_):.3f}. Without similarity every row's marginal is the share of its bag. "
        "Peak memory is that of the whole process.",
    )


@measures("cardinality-factor-keeps-the-counts")
def cardinality_factor_keeps_the_counts(run: Run) -> Measurement:
    """Strengthen the counts step by step under both forms of the same model."""
    n = run.pick(smoke=128, quick=2048, full=8192)
    X, y = draw_clusters(n, run.rng(1))
    ids = make_bags(y, 32, run.seed)
    counts = np.bincount(ids, weights=y)
    found: dict[str, list[LLPBeliefPropagation]] = {"cardinality": [], "pairwise": []}
    for weight in run.track(BAG_WEIGHTS, "bag weights"):
        for factor, fits in found.items():
            settings: dict[str, Any] = {"lambda_b": weight, "bag_factor": factor}
            with _unconverged_allowed():
                fits.append(LLPBeliefPropagation(**settings).fit(X, ids, counts))
    errors = {factor: [fit.bag_sum_error_ for fit in fits] for factor, fits in found.items()}
    auc = {factor: [float(roc_auc_score(y, fit.marginals_)) for fit in fits] for factor, fits in found.items()}
    run.figure(
        *(
            Panel("weight of the counts", label, [Series(name, BAG_WEIGHTS, y) for name, y in by.items()], x_axis="log")
            for label, by in (("error of a bag's sum, over its size", errors), ("AUC of the marginals", auc))
        ),
        caption="One factor per bag, and the same energy in pairs, as counts weigh more. Bags of 32.",
    )
    listed = "; ".join(
        f"{factor} at {weight:g}: error {fit.bag_sum_error_:.4f}, {'converged' if fit.converged_ else 'not converged'}"
        for factor, fits in found.items()
        for weight, fit in zip(BAG_WEIGHTS, fits, strict=True)
    )
    strong = [fit for weight, fit in zip(BAG_WEIGHTS, found["pairwise"], strict=True) if weight >= 4]
    return Measurement(
        max(errors["cardinality"]),
        baseline=max(errors["pairwise"]),
        also={"pairwise-diverges": not any(fit.converged_ for fit in strong)},
        note=f"{n} rows of two clusters, lambda_s = 1, at most 100 iterations. {listed}.",
    )


def _setting(run: Run, **full: Any) -> Setting:
    """Full scale has fewer rows and narrower networks than the paper, so that it is affordable.

    Batches shrink with the rows, so that an epoch has about as many steps.
    """
    smoke = Setting(320, 100, (8,), 2, 64, (1e-3,), (1.0,))
    quick = Setting(2000, 1000, (8, 64), 30, 64, (1e-3,))
    sizes = full.pop("sizes", (8, 32, LARGE, 512, 1024, 2048))
    return run.pick(
        smoke=smoke,
        quick=quick,
        full=Setting(8192, 4000, sizes, 20, 256, **full),
        paper=Setting(20_480, 8000, sizes, 100, 1024, hidden=PAPER_HIDDEN, **full),
    )


def _cells(run: Run, setting: Setting) -> list[tuple[Problem, int]]:
    """Return every problem with every size of bag of which it has four at least."""
    found = problems(run, setting.n_rows, setting.n_test)
    return [(problem, size) for problem in found for size in setting.sizes if len(problem.y) // size >= 4]


def _tuned(
    problem: Problem, size: int, setting: Setting, seed: int, arm: Callable[..., Any], options: Options = ({},)
) -> Any:
    """Fit one arm with every learning rate and option on the same bags, and return the best by held-out bags."""
    ids = make_bags(problem.y, size, seed)
    candidates = [
        arm(**setting.network, learning_rate=rate, random_state=seed, **option)
        for option in options
        for rate in setting.rates
    ]
    with _unconverged_allowed():
        return fit_best(candidates, problem.X, ids, proportions_from(problem.y, ids))


def _with_similarity(setting: Setting) -> Options:
    """Return the settings of LLP-BP that are tuned along with the learning rate."""
    return [{"propagation": LLPBeliefPropagation(lambda_s=weight)} for weight in setting.similarities]


def _supervised(problem: Problem, setting: Setting, seed: int) -> float:
    """Return the test AUC of the network where every row is a bag of its own."""
    return _auc(problem, _tuned(problem, 1, setting, seed, DLLPClassifier))


def _auc(problem: Problem, model: Any) -> float:
    return float(roc_auc_score(problem.y_test, model.predict_proba(problem.X_test)[:, 1]))


def _gain(by_arm: Mapping[str, float]) -> float:
    return by_arm["LLP-BP"] - max(by_arm["DLLP"], by_arm["EasyLLP"])


def _graph_alone(problem: Problem, size: int, seed: int) -> float:
    """Return the AUC of marginals without counts: all are one half, but for rounding."""
    ids = make_bags(problem.y, size, seed)
    found = LLPBeliefPropagation(lambda_b=0.0).fit(problem.X, ids, np.bincount(ids, weights=problem.y))
    return float(roc_auc_score(problem.y, found.marginals_.round(3)))


def _joined(numbers: Sequence[float], by: str = ", ") -> str:
    return by.join(f"{number:g}" for number in numbers)


def _timed_propagation(n: int, run: Run) -> tuple[float, LLPBeliefPropagation, Any, Any, Any]:
    X, y = draw_clusters(n, run.rng(n))
    ids = make_bags(y, 32, run.seed)
    counts = np.bincount(ids, weights=y)
    model = LLPBeliefPropagation(max_iter=30, tol=0.0, neighbors="ivf", random_state=run.seed)
    start = time.perf_counter()
    with _unconverged_allowed():
        model.fit(X, ids, counts)
    return time.perf_counter() - start, model, X, y, ids


def _peak_gigabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


@contextmanager
def _unconverged_allowed() -> Iterator[None]:
    """Where belief propagation stops early or does not converge, the claims report what came of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
