"""The suite against models written by hand whose verdict is known, and every way of calling a model."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from offprint.methods.bags import mil_unit_tests
from offprint.methods.bags.mil_unit_tests import (
    MINet,
    MonotoneMIL,
    UnitTestReport,
    UnitTestRow,
    assert_respects_mil,
    check,
    judge,
    make_false_frequency,
    make_multi_concept,
    make_single_concept,
    miNet,
    run_unit_test,
    run_unit_tests,
    score,
)
from offprint.methods.bags.ragged import RaggedBags

SMALL = {"n_train": 200, "n_test": 100, "n_epochs": 1, "seeds": 1}
MAKERS = {"single": make_single_concept, "multi": make_multi_concept, "frequency": make_false_frequency}


class ByHand:
    """An estimator that learns nothing: the score of a bag is a function of the mean of each of its rows."""

    def __init__(self, rule):
        self.rule = rule

    def fit(self, bags, y):
        return self

    def decision_function(self, bags):
        return np.array([self.rule(bag.mean(1)) for bag in bags])


def near(rows, value):
    return np.abs(rows - value) < 0.5


def rows_of(rule, test, n=400, **settings):
    report = run_unit_tests(ByHand(rule), [test], n_train=n, n_test=n, seeds=1, scale=False, **settings)
    return report.rows[0]


def test_a_detector_of_poison_is_perfect_in_training_and_wrong_on_every_test_bag():
    row = rows_of(lambda rows: 1.0 - (rows < -5).any(), "single")
    assert (row.train_auc, row.test_auc, row.verdict) == (1.0, 0.0, "FAIL")


def test_a_counter_is_perfect_in_training_and_wrong_on_every_test_bag():
    row = rows_of(lambda rows: float((near(rows, -2) | near(rows, 2)).sum()), "frequency")
    # A mean of 16 background coordinates has a standard deviation of 1/4: hardly one in 10^9 reads as a concept.
    assert row.train_auc > 0.999
    assert row.test_auc == 0.0
    assert row.verdict == "FAIL"


@pytest.mark.parametrize(("test", "first", "second"), [("multi", 2, 3), ("frequency", -2, 2)])
def test_presence_of_both_concepts_passes(test, first, second):
    row = rows_of(lambda rows: float(near(rows, first).any() and near(rows, second).any()), test)
    assert min(row.train_auc, row.test_auc) >= 0.999
    assert row.verdict == "PASS"


def test_random_scores_are_weak():
    source = np.random.default_rng(0)
    for test in MAKERS:
        row = rows_of(lambda rows: source.normal(), test, n=4000)
        # The AUC of noise on 2000 against 2000 bags has a standard deviation of 0.009.
        assert abs(row.train_auc - 0.5) < 0.03
        assert abs(row.test_auc - 0.5) < 0.03
        assert row.verdict == "WEAK"


def test_the_best_that_a_largest_instance_can_do():
    """On test 3 a step for one concept gets 3/4; a continuous score the same in training, and about 1/2 in testing."""
    step = rows_of(lambda rows: float(near(rows, 2).any()), "frequency", n=4000)
    # By hand: positives always have the concept, half of the negatives do, so AUC = 1/2 + 1/4.
    assert abs(step.train_auc - 0.75) < 0.015
    assert abs(step.test_auc - 0.75) < 0.015
    assert step.verdict == "WEAK"
    continuous = rows_of(lambda rows: float(rows.max()), "frequency", n=4000)
    assert abs(continuous.train_auc - 0.75) < 0.015
    assert abs(continuous.test_auc - 0.51) < 0.02
    # On test 2 positives hold more copies: the largest of 2 to 8 rows against the one of a negative.
    several = rows_of(lambda rows: float(rows.max()), "multi", n=4000)
    assert 0.80 < several.train_auc < 0.90
    assert several.verdict in ("WEAK", "PASS")


@pytest.mark.parametrize(
    ("train_auc", "test_auc", "verdict"),
    [
        (0.85, 0.49, "FAIL"),
        (1.0, 0.89, "FAIL"),
        (1.0, 0.90, "PASS"),
        (0.93, 0.83, "PASS"),  # the difference exceeds 0.10 by rounding alone
        (0.84, 0.40, "WEAK"),
        (0.84, 0.39, "FAIL"),
        (0.3, 0.9, "WEAK"),
        (0.85, 0.76, "PASS"),
    ],
)
def test_the_rule_at_its_edges(train_auc, test_auc, verdict):
    assert judge(train_auc, test_auc) == verdict


def test_most_seeds_decide_and_the_worst_test_decides():
    def row(test, seed, verdict):
        return UnitTestRow(test, seed, 1.0, 0.5, 1.0, 0.5, 0.1, verdict)

    rows = [row("single", seed, verdict) for seed, verdict in enumerate(("PASS", "PASS", "FAIL"))]
    rows += [row("multi", seed, verdict) for seed, verdict in enumerate(("WEAK", "PASS"))]
    report = UnitTestReport(tuple(rows))
    assert report.verdicts == {"single": "PASS", "multi": "WEAK"}
    assert report.verdict == "WEAK"
    assert len(report.to_markdown().splitlines()) == 2 + len(rows)
    assert str(report).startswith("WEAK")
    failing = UnitTestReport((*rows, row("frequency", 0, "FAIL")))
    assert failing.verdict == "FAIL"
    assert "MonotoneMIL" in str(failing)


class Padded(nn.Module):
    def __init__(self, n_features):
        super().__init__()
        self.head = nn.Linear(n_features, 1)

    def forward(self, rows, mask):
        return self.head(rows).squeeze(2).masked_fill(~mask, -torch.inf).amax(1), "attention"


class Listed(Padded):
    def forward(self, bags: list[torch.Tensor]):
        return torch.stack([self.head(bag).amax() for bag in bags])


class Ragged(Padded):
    def forward(self, bags: RaggedBags):
        return torch.stack([self.head(bag).amax() for bag in bags])[:, None]


class Single(Padded):
    def forward(self, rows):
        return self.head(rows).amax(0)


def test_one_model_called_in_four_ways_learns_the_same():
    data = [make_single_concept(60, split, 4, generator=0) for split in ("train", "test")]
    found = [run_unit_test(kind, *data, n_epochs=2, seed=3) for kind in (Padded, Listed, Ragged, Single)]
    first = found[0][1].head.weight
    for row, model in found:
        torch.testing.assert_close(model.head.weight, first)
        assert row.train_auc == pytest.approx(found[0][0].train_auc)
    # Given as a module, layers are drawn anew and the module itself is left alone.
    module = Padded(4)
    before = module.head.weight.detach().clone()
    torch.testing.assert_close(run_unit_test(module, *data, n_epochs=2, seed=3)[1].head.weight, first)
    assert torch.equal(module.head.weight, before)


class IgnoresMask(Padded):
    def forward(self, rows, mask):
        return self.head(rows).squeeze(2).mean(1)


class FirstRow(Padded):
    def forward(self, rows):
        return self.head(rows[0])


class Probability(Padded):
    def forward(self, rows):
        return self.head(rows).amax(0).sigmoid()


class TwoLogits(Padded):
    def __init__(self, n_features):
        super().__init__(n_features)
        self.head = nn.Linear(n_features, 2)

    def forward(self, rows):
        return self.head(rows).amax(0)[None]


@pytest.mark.parametrize(
    ("model", "warning"),
    [
        (IgnoresMask, "ignores the mask"),
        (FirstRow, "order of its rows"),
        (Probability, "return logits"),
        (Padded, None),
    ],
)
def test_bad_manners_are_warned_of(model, warning):
    report = check(model, ["multi"], n_train=60, n_test=60, n_epochs=1, seeds=1)
    assert [warning in text for text in report.warnings] == [True] * (warning is not None)
    assert warning is None or warning in str(report)


def test_two_logits_are_refused_unless_turned_into_one():
    settings = {"n_train": 60, "n_test": 60, "n_epochs": 1, "seeds": 1}
    with pytest.raises(ValueError, match=r"one logit per bag, of shape \(1,\)"):
        check(TwoLogits, ["single"], **settings)
    report = check(TwoLogits, ["single"], output=lambda found: found[:, 1] - found[:, 0], **settings)
    assert len(report.rows) == 1


def test_scores_of_a_bag_do_not_depend_on_its_batch():
    data = make_false_frequency(40, "test", generator=0)
    model = Padded(16)
    together, alone = score(model, data.bags), score(model, data.bags, batch_size=1)
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together[7], model.head(data.bags[7]).amax())


def test_the_start_with_the_lowest_training_loss_is_kept():
    data = [make_single_concept(60, split, 4, generator=0) for split in ("train", "test")]
    best = run_unit_test(miNet, *data, n_epochs=1, n_restarts=3, seed=0)[0]
    singles = [run_unit_test(miNet, *data, n_epochs=1, seed=seed)[0].train_loss for seed in range(3)]
    assert best.train_loss == min(singles)


class Likely:
    """An estimator with probabilities only, which are right of every training bag of the first test."""

    def fit(self, bags, y):
        self.drawn = float(torch.rand(()))
        return self

    def predict_proba(self, bags):
        positive = np.array([0.1 if (bag.mean(1) < -5).any() else 0.9 for bag in bags])
        return np.stack([1 - positive, positive], 1)


def test_probabilities_of_estimators_are_split_at_one_half():
    data = [make_single_concept(60, split, 4, generator=0) for split in ("train", "test")]
    row, model = run_unit_test(Likely(), *data, scale=False, seed=3)
    assert (row.train_auc, row.train_balanced_accuracy) == (1.0, 1.0)
    assert (row.test_auc, row.test_balanced_accuracy) == (0.0, 0.0)
    # What an estimator draws from torch while it is fitted follows the seed.
    again, other = (run_unit_test(Likely(), *data, scale=False, seed=seed)[1] for seed in (3, 4))
    assert model.drawn == again.drawn != other.drawn


@pytest.mark.slow
def test_trained_models_that_respect_the_assumption_never_violate_it():
    """The largest instance cannot say "both": weak on test 3, weak or passing on test 2; rules of two pass both."""
    settings = {"n_train": 800, "n_test": 300, "seeds": 1}
    verdicts = check(miNet, n_epochs=6, **settings).verdicts
    assert verdicts["single"] == "PASS"
    assert verdicts["frequency"] == "WEAK"
    assert verdicts["multi"] in ("WEAK", "PASS")
    assert check(MonotoneMIL, n_epochs=8, learning_rate=1e-2, **settings).verdict == "PASS"


def test_the_assertion_shows_the_row_that_fails():
    with pytest.raises(AssertionError, match=r"(?s)FAIL.*\| single \| 0 \|"):
        assert_respects_mil(MINet, ["single"], n_train=300, n_test=100, n_epochs=4, seeds=1)
    with pytest.raises(AssertionError, match="WEAK"):
        assert_respects_mil(ByHand(lambda rows: float(near(rows, 2).any())), ["frequency"], scale=False, **SMALL)
    rule = ByHand(lambda rows: float(near(rows, 2).any()))
    assert assert_respects_mil(rule, ["frequency"], allow_weak=True, scale=False, **SMALL).verdict == "WEAK"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check(MINet, ["fourth"]), "tests"),
        (lambda: check(MINet, n_train=49), "n_train"),
        (lambda: check(MINet, n_test=10), "n_test"),
        (lambda: check(MINet, seeds=0), "seeds"),
        (lambda: check(MINet, seeds=[-1]), "seeds"),
        (lambda: check(MINet, n_epochs=0), "n_epochs"),
        (lambda: check(MINet, learning_rate=float("nan")), "learning_rate"),
        (lambda: check(3), "model"),
        (lambda: check(lambda n_features: "a model", ["single"], **SMALL), "model"),
        (lambda: check(ByHand(lambda rows: np.nan), ["single"], **SMALL), "finite scores"),
        (lambda: check(ByHand(lambda rows: [1.0, 2.0]), ["single"], **SMALL), "one score per bag"),
        (lambda: judge(1.2, 0.5), "train_auc"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_bags_of_one_label_are_refused():
    data = make_single_concept(60, "train", generator=0)
    one = mil_unit_tests.BagDataset(data.bags, torch.zeros_like(data.y), data.instance_tags)
    with pytest.raises(ValueError, match="labels 0 and 1"):
        run_unit_test(miNet, data, one)
    few = mil_unit_tests.BagDataset(data.bags.take(range(20)), data.y[:20], data.instance_tags)
    with pytest.raises(ValueError, match="at least 50"):
        run_unit_test(miNet, few, data)


MODEL = """
import numpy as np

class Rule:
    def __init__(self, size): self.size = size
    def fit(self, bags, y): return self
    def decision_function(self, bags):
        return np.array([self.size * bag.mean(1).min() for bag in bags])

def weak(n_features): return Rule(0)
def wrong(n_features): return Rule(1)  # the lowest row is the poison
"""
TEST = """
import rules_by_hand

def test_mine(assert_respects_mil):
    assert assert_respects_mil(rules_by_hand.weak, ["multi"], n_train=200, n_test=100, seeds=1, allow_weak=True).rows
"""
PLUGIN = ("-q", "-p", "offprint.pytest_plugin", "-p", "no:cacheprovider")


def test_the_plugin_loads_nothing_heavy_where_it_is_not_used(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it():\n    pass\n")
    code = "import sys, pytest; done = pytest.main(sys.argv[1:]); print('torch' in sys.modules); sys.exit(done)"
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", code, *PLUGIN]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "False"


def test_the_plugin_gives_a_fixture_and_tests_from_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "rules_by_hand.py").write_text(MODEL)
    (tmp_path / "test_by_hand.py").write_text(TEST)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ["--mil-model=rules_by_hand:wrong", "--mil-bags=200", "--mil-seeds=1"]
    done = pytest.main([*PLUGIN, f"--rootdir={tmp_path}", "-c", str(tmp_path / "pytest.ini"), str(tmp_path), *options])
    shown = capsys.readouterr().out
    assert done == 1
    assert "3 failed, 1 passed" in shown
    assert "rules_by_hand:wrong[single]" in shown
    assert "FAIL: " in shown
