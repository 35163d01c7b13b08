"""What the paper claims about multiple-instance models and their unit tests, measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from offprint.methods.bags.mil_unit_tests.classical import NSK, SIL, STK, MiSVM
from offprint.methods.bags.mil_unit_tests.generators import BagDataset, make_single_concept
from offprint.methods.bags.mil_unit_tests.models import AttentionMIL, GraphMIL, HopfieldMIL, MINet, TransformerMIL
from offprint.methods.bags.mil_unit_tests.report import UnitTestRow
from offprint.methods.bags.mil_unit_tests.respecting import MonotoneMIL, miNet
from offprint.methods.bags.mil_unit_tests.suite import MAKERS, run_unit_test
from offprint.papers.figure import HeatMap, Level, Panel, Series
from offprint.papers.run import Measurement, Run, measures

N_FEATURES = 16
RESTARTS = 3
DEEP: dict[str, Callable[[int], Any]] = {
    "MI-Net": MINet,
    "attention": AttentionMIL,
    "Transformer": TransformerMIL,
    "graph": GraphMIL,
    "Hopfield": HopfieldMIL,
}
RESPECTING: dict[str, Callable[[int], Any]] = {"mi-Net": miNet, "MonotoneMIL": MonotoneMIL}
MEANS, RATES = (-10.0, -5.0, -3.0, -2.0), (0.0, 0.1, 0.3, 0.5)
MARKS = (Level("chance", 0.5),)


@dataclass(frozen=True)
class Setting:
    """Bags and epochs of every training at one scale."""

    n_train: int
    n_test: int
    n_epochs: int

    @property
    def note(self) -> str:
        """The setting in words."""
        return f"{self.n_train} training and {self.n_test} test bags, {self.n_epochs} epochs of batches of 32"


@measures("every-deep-model-fails-a-test")
def every_deep_model_fails_a_test(run: Run) -> Measurement:
    """Train every model on every test, and count the deep ones that fail one."""
    setting, deep = _setting(run), _deep(run)
    arms = {**deep, "mean": lambda width: MINet(width, pooling="mean"), **RESPECTING}
    rows = _table(run, setting, arms)
    run.figure(
        *(_dumbbells(test, {name: rows[name, test] for name in arms}) for test in MAKERS),
        caption="AUC in training and in testing, by test and model. One that keeps to the assumption has both high.",
    )
    failed = {name: sum(rows[name, test].verdict == "FAIL" for test in MAKERS) for name in arms}
    verdicts = "; ".join(f"{name} {'/'.join(rows[name, test].verdict for test in MAKERS)}" for name in arms)
    note = f"{setting.note}. Verdicts on the three tests: {verdicts}. {_single_bag_run(run, setting)}"
    return Measurement(
        sum(failed[name] > 0 for name in deep),
        baseline=sum(failed[name] > 0 for name in RESPECTING),
        note=note + "The baseline counts those that fail among mi-Net and MonotoneMIL (one start).",
    )


@measures("violators-look-excellent-in-training")
def violators_look_excellent_in_training(run: Run) -> Measurement:
    """Count the deep models that are excellent on the training bags of the first test and below chance in testing."""
    setting, deep = _setting(run), _deep(run)
    arms = {**deep, "MI-Net, no dropout": lambda width: MINet(width, dropout=0.0), "mi-Net": miNet}
    rows = {name: row for (name, _), row in _table(run, setting, arms, ["single"]).items()}
    run.figure(_dumbbells("single", rows), caption="AUC on the first test. Most deep models do the reverse in testing.")

    def is_deceptive(name: str) -> bool:
        return rows[name].train_auc >= 0.95 and rows[name].test_auc < 0.5

    return Measurement(
        sum(map(is_deceptive, deep)),
        baseline=is_deceptive("mi-Net"),
        note=f"{setting.note}. AUC in training/testing: {_aucs(rows)}. The baseline is whether mi-Net is one.",
    )


@measures("a-respecting-model-passes")
def a_respecting_model_passes(run: Run) -> Measurement:
    """Train MonotoneMIL on all tests and mi-Net on the first."""
    setting = _setting(run, respecting=True)
    restarts = run.pick(smoke=1, quick=RESTARTS, full=RESTARTS)
    monotone = _table(run, setting, {"MonotoneMIL": MonotoneMIL}, n_restarts=restarts)
    others = _table(
        run,
        setting,
        {"mi-Net": miNet, "mi-Net, dropout 0.5": lambda width: miNet(width, dropout=0.5), "MI-Net": MINet},
        ["single"],
    )
    solved = {test: row for (_, test), row in monotone.items()}
    alone = {name: row for (name, _), row in others.items()}
    run.figure(
        _dumbbells("MonotoneMIL, by test", solved),
        _dumbbells("single", alone),
        caption="AUC of models that keep to the assumption: MonotoneMIL on all tests, the others on the first.",
    )
    lowest = min(row.test_auc for row in solved.values())
    first = alone["mi-Net"].test_auc
    return Measurement(
        lowest,
        baseline=alone["MI-Net"].test_auc,
        also={"mi-net-single-concept": first, "every-seed": min(lowest, first) >= 0.95},
        note=f"{setting.note}; {restarts} starts of MonotoneMIL. AUC in training/testing: {_aucs(solved)}; on the "
        f"first test {_aucs(alone)}. The baseline is MI-Net on the first test.",
    )


@measures("classical-methods-break-too")
def classical_methods_break_too(run: Run) -> Measurement:
    """Fit the support vector machines, with a linear and with a Gaussian kernel."""
    n_train = run.pick(smoke=60, quick=200, full=300, paper=500)
    setting = Setting(n_train, run.pick(smoke=60, quick=400, full=600), 1)
    kinds = {"mi-SVM": MiSVM, "SIL": SIL, "NSK": NSK, "STK": STK}
    linear = _table(run, setting, {name: _machine(kind, "linear") for name, kind in kinds.items()})
    gaussian = _table(run, setting, {name: _machine(kind, "rbf") for name, kind in kinds.items()})
    run.figure(
        *(_dumbbells(test, {name: linear[name, test] for name in kinds}) for test in MAKERS),
        caption="AUC of the classical methods with a linear kernel.",
    )
    failing = [name for name in kinds if any(linear[name, test].verdict == "FAIL" for test in MAKERS)]
    curved = [name for name in kinds if any(gaussian[name, test].verdict == "FAIL" for test in MAKERS)]
    details = "; ".join(f"{test}: {_aucs({name: linear[name, test] for name in kinds})}" for test in MAKERS)
    return Measurement(
        len(failing),
        baseline=len(curved),
        note=f"{n_train} training bags, C = 1, linear kernel. Failing: {', '.join(failing) or 'none'}. AUC in "
        f"training/testing, {details}. The baseline counts failures with a Gaussian kernel of gamma 0.1: "
        f"{', '.join(curved) or 'none'}.",
    )


@measures("swapped-labels-break-a-respecting-model")
def swapped_labels_break_a_respecting_model(run: Run) -> Measurement:
    """Train on the first test as it is, and with positive and negative swapped."""
    setting = _setting(run, respecting=True)
    restarts = run.pick(smoke=1, quick=RESTARTS, full=RESTARTS)
    pair = _pair(run, setting)
    arms = {"MonotoneMIL": (MonotoneMIL, restarts), "mi-Net": (miNet, 1), "MI-Net": (MINet, 1)}
    found: dict[str, list[float]] = {}
    for name, (model, n_restarts) in run.track(list(arms.items()), "models"):
        for data in (pair, tuple(replace(part, y=1 - part.y) for part in pair)):
            row, _ = run_unit_test(model, *data, n_epochs=setting.n_epochs, n_restarts=n_restarts, seed=run.seed)
            found.setdefault(name, []).append(row.test_auc)
    run.figure(
        Panel(
            "model",
            "test AUC",
            [
                Series(label, list(found), [pair[i] for pair in found.values()], "bars")
                for i, label in enumerate(LABELS)
            ],
            levels=MARKS,
        ),
        caption="Test AUC on the first test, as it is and with positive and negative swapped.",
    )
    gaps = {name: kept - swapped for name, (kept, swapped) in found.items()}
    listed = ", ".join(f"{name} {kept:.3f} and {swapped:.3f}" for name, (kept, swapped) in found.items())
    return Measurement(
        gaps["MonotoneMIL"],
        baseline=gaps["MI-Net"],
        note=f"{setting.note}; {restarts} starts of MonotoneMIL. Test AUC as it is and swapped: {listed}. The baseline "
        "is the gap of MI-Net, which is not bound to the assumption.",
    )


@measures("failure-needs-a-clear-poison")
def failure_needs_a_clear_poison(run: Run) -> Measurement:
    """Make the poison less distinct and rarer as a sign, and see where each model stops failing."""
    setting = run.pick(
        smoke=Setting(200, 60, 4),
        quick=Setting(400, 300, 6),
        full=Setting(400, 400, 6),
        paper=Setting(10_000, 1000, 20),
    )
    deep = {"MI-Net": MINet} if run.scale == "smoke" else _deep(run)
    means, rates = run.pick(smoke=(MEANS[::3], RATES[::3]), quick=(MEANS, RATES), full=(MEANS, RATES))
    found: dict[str, dict[tuple[float, float], UnitTestRow]] = {name: {} for name in deep}
    cells = [(mean, rate) for mean in means for rate in rates]
    for cell in run.track(cells, "poison"):
        pair = _pair(run, setting, *cell)
        for name, model in deep.items():
            found[name][cell], _ = run_unit_test(model, *pair, n_epochs=setting.n_epochs, seed=run.seed)
    plain, faint = (means[0], rates[0]), (means[-1], rates[-1])
    failing = [name for name in deep if found[name][plain].verdict == "FAIL"]
    if not failing:
        run.skip("no model fails the single-concept test at this size, so none can stop failing")
    run.figure(
        *(
            HeatMap(
                "share of positive training bags with poison",
                "mean of the poison",
                "test AUC",
                list(rates),
                list(means),
                [[rows[mean, rate].test_auc for rate in rates] for mean in means],
                title=name,
            )
            for name, rows in found.items()
        ),
        caption="Test AUC on the first test as the poison becomes less distinct and no longer tells negatives alone.",
    )
    gains = {name: found[name][faint].test_auc - found[name][plain].test_auc for name in failing}
    stopped = {name: sum(row.verdict != "FAIL" for row in rows.values()) for name, rows in found.items()}
    listed = "; ".join(f"{name} {stopped[name]} of {len(cells)} cells" for name in deep)
    return Measurement(
        sum(gains.values()) / len(gains),
        note=f"{setting.note}. Failing with a plain poison: {', '.join(failing)}; gains "
        f"{', '.join(f'{name} {gain:.3f}' for name, gain in gains.items())}. No failure in: {listed}.",
    )


LABELS = ("as it is", "swapped")


def _setting(run: Run, *, respecting: bool = False) -> Setting:
    """Models that pass are cheap and learn slowly: at full scale they get more bags, as every arm of their claims."""
    return run.pick(
        smoke=Setting(60, 50, 1),
        quick=Setting(1000, 400, 6),
        full=Setting(2000, 600, 10) if respecting else Setting(1500, 600, 8),
        paper=Setting(10_000, 1000, 20),
    )


def _deep(run: Run) -> dict[str, Callable[[int], Any]]:
    """Return the five deep models, or below full scale the two that the record names."""
    names = list(DEEP) if run.scale in ("full", "paper") else list(DEEP)[:2]
    return {name: DEEP[name] for name in names}


def _pair(
    run: Run, setting: Setting, poison_mean: float = -10.0, poison_rate: float = 0.0
) -> tuple[BagDataset, BagDataset]:
    """Draw the first test, the same noise for every strength of poison."""
    source = run.generator()
    options: dict[str, Any] = {"n_features": N_FEATURES, "poison_mean": poison_mean, "generator": source}
    train = make_single_concept(setting.n_train, "train", poison_rate=poison_rate, **options)
    return train, make_single_concept(setting.n_test, "test", **options)


def _table(
    run: Run,
    setting: Setting,
    arms: Mapping[str, Callable[[int], Any]],
    tests: list[str] | None = None,
    n_restarts: int = 1,
) -> dict[tuple[str, str], UnitTestRow]:
    """Train every model on every test, all on the same bags."""
    found = {}
    for test in run.track(tests or list(MAKERS), "tests"):
        source = run.generator(list(MAKERS).index(test))
        pair = [
            MAKERS[test](n, split, N_FEATURES, generator=source)
            for n, split in ((setting.n_train, "train"), (setting.n_test, "test"))
        ]
        for name, model in arms.items():
            found[name, test], _ = run_unit_test(
                model, *pair, test=test, n_epochs=setting.n_epochs, n_restarts=n_restarts, seed=run.seed
            )
    return found


def _single_bag_run(run: Run, setting: Setting) -> str:
    """Train MI-Net once on one bag a step, as the authors do, to see whether batches change the verdict."""
    if run.scale not in ("full", "paper") or run.seed:
        return ""
    n_epochs = max(1, setting.n_epochs // 4)
    row, _ = run_unit_test(MINet, *_pair(run, setting), n_epochs=n_epochs, batch_size=1, seed=run.seed)
    return (
        f"MI-Net with one bag a step ({n_epochs} epochs) on the first test: {row.train_auc:.3f}/{row.test_auc:.3f}, "
        f"{row.verdict}. "
    )


def _machine(kind: Callable[..., Any], kernel: str) -> Callable[[int], Any]:
    return lambda n_features: kind(kernel=kernel)


def _dumbbells(title: str, rows: Mapping[str, UnitTestRow]) -> Panel:
    names = list(rows)
    return Panel(
        "",
        "AUC",
        [
            Series("training", names, [row.train_auc for row in rows.values()], "bars"),
            Series("testing", names, [row.test_auc for row in rows.values()], "bars"),
        ],
        title=title,
        levels=MARKS,
    )


def _aucs(rows: Mapping[str, UnitTestRow]) -> str:
    return ", ".join(f"{name} {row.train_auc:.3f}/{row.test_auc:.3f}" for name, row in rows.items())
