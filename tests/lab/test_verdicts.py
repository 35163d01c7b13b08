"""Verdicts follow from rules, medians and intervals by the definition that readers are given."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offprint.lab import Outcome, Task, badge, judge, judge_values
from offprint.papers import Claim, Rule

CLAIM = Claim.model_validate(
    {
        "id": "a",
        "statement": "s",
        "source": "t",
        "metric": "m",
        "expect": {"at_least": 4, "weaker": 1},
        "also": [{"key": "b", "metric": "n", "expect": {"at_most": 0}}],
    }
)


def outcome(value: float | None, b: float = 0.0, status: str = "ok", seed: int = 0, message: str = "") -> Outcome:
    task = Task("p", "a", "full", seed, "f")
    return Outcome(task, status, 1.5, 10.0 + seed, value, baseline=2.0 * seed, also={"b": b}, message=message)


@pytest.mark.parametrize(
    ("rule", "values", "verdict"),
    [
        (Rule(at_least=4), [4.0], "reproduced"),
        (Rule(at_least=4), [3.999], "not reproduced"),
        (Rule(at_least=4), [1, 5, 6], "reproduced"),
        (Rule(at_least=4), [1, 2, 6], "weaker"),
        (Rule(at_least=4), [1, 2, 3], "not reproduced"),
        (Rule(at_least=4, weaker=1), [2.0], "weaker"),
        (Rule(at_least=4, weaker=1), [0.5, 5, 6], "weaker"),
        (Rule(at_least=4, weaker=1), [0.9], "not reproduced"),
        (Rule(at_most=0.5, weaker=1), [0.7], "weaker"),
        (Rule(at_most=0.5), [0.5], "reproduced"),
        (Rule(between=(0.35, 0.65)), [0.35, 0.5, 0.65], "reproduced"),
        (Rule(between=(0.35, 0.65), weaker=(0.2, 0.8)), [0.7], "weaker"),
        (Rule(within=(1.0, 0.1)), [1.1], "reproduced"),
        (Rule(within=(1.0, 0.1), weaker=0.3), [1.25], "weaker"),
        (Rule(within=(1.0, 0.1), weaker=0.3), [1.35], "not reproduced"),
        (Rule(holds=True), [1, 1, 1], "reproduced"),
        (Rule(holds=True), [1, 0, 1], "not reproduced"),
        (Rule(holds=True, weaker=0.6), [1, 0, 1], "weaker"),
    ],
)
def test_each_kind_of_rule(rule: Rule, values: list[float], verdict: str) -> None:
    assert judge_values(rule, values)[2] == verdict


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=9), st.floats(-100, 100))
def test_improving_every_seed_never_worsens_the_verdict(values: list[float], threshold: float) -> None:
    order = ["not reproduced", "weaker", "reproduced"]
    for rule in (Rule(at_least=threshold), Rule(at_least=threshold, weaker=threshold - 3)):
        before = judge_values(rule, values)[2]
        after = judge_values(rule, [value + 1 for value in values])[2]
        assert order.index(after) >= order.index(before)


def test_a_claim_is_as_good_as_its_worst_number() -> None:
    assert judge(CLAIM, "full", [outcome(5.0, b=0.0)]).verdict == "reproduced"
    worst = judge(CLAIM, "full", [outcome(5.0, b=0.1)])
    assert worst.verdict == "not reproduced"
    assert [judgement.verdict for judgement in worst.judgements] == ["reproduced", "not reproduced"]


def test_one_failed_or_skipped_seed_is_not_hidden_by_the_others() -> None:
    failed = outcome(None, status="error", seed=1, message="boom")
    skipped = outcome(None, status="skipped", seed=2, message="no data")
    assert judge(CLAIM, "full", [outcome(5.0), failed, skipped]).verdict == "error"
    assert judge(CLAIM, "full", [outcome(5.0), failed, skipped]).message == "boom"
    assert judge(CLAIM, "full", [outcome(5.0), skipped]).verdict == "skipped"
    assert judge(CLAIM, "full", []).verdict == "not yet measured"


def test_a_result_sums_time_and_takes_the_highest_memory_and_median_baseline() -> None:
    result = judge(CLAIM, "full", [outcome(5.0, seed=seed) for seed in (2, 0, 1)])
    assert (result.seconds, result.peak_memory_mb, result.baseline) == (4.5, 12.0, 2.0)
    assert [o.task.seed for o in result.outcomes] == [0, 1, 2]


def test_the_badge_counts_claims() -> None:
    assert badge(["reproduced", "weaker", "not yet measured"]) == "1 of 3 claims reproduced"
    assert badge(["not yet measured"] * 3) == "not yet measured"
