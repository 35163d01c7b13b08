"""Rules mean what a reader takes them to mean."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from offprint.papers import Rule

# Halves are exact in binary, so that an end of a range is hit exactly or missed clearly.
numbers = st.integers(-2000, 2000).map(lambda n: n / 2)
positive = st.integers(1, 2000).map(lambda n: n / 2)
lists = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@given(numbers, numbers)
def test_one_sided_bounds_are_closed(bound: float, value: float) -> None:
    assert Rule(at_least=bound).accepts(value) == (value >= bound)
    assert Rule(at_most=bound).accepts(value) == (value <= bound)


@given(numbers, positive, numbers)
def test_ranges_are_closed(centre: float, half: float, value: float) -> None:
    inside = abs(value - centre) <= half
    assert Rule(between=(centre - half, centre + half)).accepts(value) == inside
    assert Rule(within=(centre, half)).accepts(value) == inside


@given(numbers, positive, positive, numbers)
def test_what_is_accepted_is_accepted_by_the_weaker_band_too(a: float, b: float, extra: float, value: float) -> None:
    rules = [
        Rule(at_least=a, weaker=a - extra),
        Rule(at_most=a, weaker=a + extra),
        Rule(between=(a, a + b), weaker=(a - extra, a + b)),
        Rule(within=(a, b), weaker=b + extra),
    ]
    for rule in rules:
        assert not rule.accepts(value) or rule.accepts(value, weaker=True)
        low, high = rule.region(weaker=True)
        assert rule.accepts(value, weaker=True) == (low <= value <= high)
    assert any(rule.accepts(a - extra, weaker=True) and not rule.accepts(a - extra) for rule in rules)


@given(lists)
def test_the_median_is_judged(values: list[float]) -> None:
    assert Rule(at_least=0).summary(values) == statistics.median(values)


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_holds_means_every_seed(answers: list[bool]) -> None:
    rule = Rule(holds=True, weaker=0.5)
    share = rule.summary([float(answer) for answer in answers])
    assert rule.accepts(share) == all(answers)
    assert rule.accepts(share, weaker=True) == (answers.count(True) * 2 >= len(answers))


@pytest.mark.parametrize(
    "rule", [Rule(at_least=-1), Rule(at_most=1), Rule(between=(-1, 1)), Rule(within=(0, 1)), Rule(holds=True)]
)
def test_nan_never_satisfies_a_rule(rule: Rule) -> None:
    assert not rule.accepts(math.nan)
    assert not rule.accepts(math.nan, weaker=True)


def test_no_values_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="at least one number"):
        Rule(at_least=1).summary([])


@pytest.mark.parametrize(
    ("given", "text", "kind"),
    [
        ({"at_least": 4}, "≥ 4", "at_least"),
        ({"at_most": 0.25}, "≤ 0.25", "at_most"),
        ({"between": [0.35, 0.65]}, "0.35 to 0.65", "between"),
        ({"within": [1, 0.1]}, "1 ± 0.1", "within"),
        ({"holds": True}, "holds", "holds"),
    ],
)
def test_text_is_what_a_reader_sees(given: dict[str, object], text: str, kind: str) -> None:
    rule = Rule.model_validate(given)
    assert (rule.text, rule.kind) == (text, kind)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"weaker": 1},
        {"at_least": 1, "holds": True},
        {"at_least": math.inf},
        {"between": [2, 1]},
        {"between": [1, 2, 3]},
        {"within": [1, 0]},
        {"within": [1, -1]},
        {"holds": False},
        {"at_least": 1, "weaker": 1},
        {"at_least": 1, "weaker": [0, 1]},
        {"at_most": 1, "weaker": 0.5},
        {"between": [1, 2], "weaker": 3},
        {"between": [1, 2], "weaker": [1, 2]},
        {"between": [1, 2], "weaker": [1.5, 3]},
        {"within": [1, 0.5], "weaker": 0.5},
        {"holds": True, "weaker": 1},
        {"holds": True, "weaker": 0},
        {"at_least": 1, "colour": "red"},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Rule.model_validate(given)


@given(numbers, numbers)
def test_a_rule_is_fixed(a: float, b: float) -> None:
    assume(a != b)
    rule = Rule(at_least=a)
    with pytest.raises(ValidationError):
        rule.at_least = b
