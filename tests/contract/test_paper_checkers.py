"""The checks of records and claims can fail: each is shown a paper with exactly the fault that it looks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import test_claims
import test_records

from offprint.papers import Record

MakePaper = Callable[..., Record]
THREE = dict.fromkeys(("one", "two", "three"), "{ at_least = 1 }")
MEASURED = "".join(f"@measures({name!r})\ndef {name}(run): return Measurement(1)\n" for name in THREE)
CHECKS = {name: check for name, check in vars(test_records).items() if getattr(check, "pytestmark", None)}
of_a_record = [name for name, check in CHECKS.items() if check.__code__.co_varnames[:1] == ("record",)]


@pytest.fixture
def paper(make_paper: MakePaper) -> Record:
    """Return a paper without a fault."""
    made = make_paper(THREE, MEASURED)
    (made.folder / "__init__.py").write_text('"""A paper."""\n', encoding="utf-8")
    return made


@pytest.mark.parametrize("check", of_a_record)
def test_a_good_record_passes(paper: Record, check: str) -> None:
    CHECKS[check](paper)


def changed(record: Record, **values: Any) -> Record:
    return record.model_copy(update=values)


@pytest.mark.parametrize(
    ("check", "values"),
    [
        ("test_summary_is_two_to_five_sentences", {"summary": "It has one sentence only."}),
        ("test_summary_is_two_to_five_sentences", {"summary": "One. Two. Three. Four. Five. Six."}),
        ("test_arxiv_id_has_a_month_and_no_later_year_than_the_venue", {"arxiv": "2513.00001"}),
        ("test_arxiv_id_has_a_month_and_no_later_year_than_the_venue", {"arxiv": "2601.00001"}),
        ("test_day_is_after_the_paper_appeared", {"arxiv": "2502.00001"}),
        ("test_no_text_is_left_to_fill_in", {"summary": "It works. TODO: say how."}),
        (
            "test_methods_can_be_imported_and_belong_to_the_family",
            {"methods": ("offprint.papers:nothing",)},
        ),
        (
            "test_methods_can_be_imported_and_belong_to_the_family",
            {"methods": ("offprint.papers.rules:Rule",), "package": "offprint.papers.made_up"},
        ),
    ],
)
def test_a_faulty_record_is_noticed(paper: Record, check: str, values: dict[str, Any]) -> None:
    with pytest.raises((AssertionError, AttributeError)):
        CHECKS[check](changed(paper, **values))


def test_too_few_or_repeated_claims_are_noticed(paper: Record) -> None:
    with pytest.raises(AssertionError):
        test_records.test_at_least_three_claims(changed(paper, claims=paper.claims[:2]))
    twice = (*paper.claims, paper.claims[0])
    with pytest.raises(AssertionError):
        test_records.test_statements_and_metrics_differ_between_claims(changed(paper, claims=twice))


def test_a_claim_without_a_function_is_noticed(make_paper: MakePaper) -> None:
    paper = make_paper({**THREE, "four": "{ holds = true }"}, MEASURED)
    with pytest.raises(AssertionError, match="no function measures four"):
        test_records.test_every_function_measures_a_claim_and_every_claim_has_a_function(paper)


def test_a_package_without_docstring_is_noticed(make_paper: MakePaper) -> None:
    with pytest.raises(AssertionError, match="has no docstring"):
        test_records.test_package_is_a_package_of_its_own(make_paper(THREE, MEASURED))


def measured(body: str) -> str:
    return f"@measures('one')\ndef one(run):\n    {body}\n"


@pytest.mark.parametrize(
    "body",
    [
        "return Measurement(1)",
        "run.figure(Panel('x', 'y', [Series('s', [1], [1])])); return Measurement(1)",
        "run.skip('needs stars')",
    ],
)
def test_a_good_claim_passes(make_paper: MakePaper, body: str) -> None:
    make_paper({"one": "{ holds = true }"}, measured(body))
    test_claims.test_runs_at_smoke_scale("own-paper", "one")
    test_claims.test_same_seed_same_numbers("own-paper")


@pytest.mark.parametrize(
    ("rule", "body", "message"),
    [
        ("{ holds = true }", "return Measurement(1 / 0)", "ZeroDivisionError"),
        ("{ holds = true }", "return Measurement(float('nan'))", "value must be finite"),
        ("{ holds = true }", "return Measurement(0.5)", "neither yes nor no"),
        ("{ holds = true }", "run.skip('')", "says what is missing"),
        (
            ("{ at_least = 1 }", '[[claims.also]]\nkey = "spread"\nmetric = "m"\nexpect = { at_most = 1 }'),
            "return Measurement(1)",
            "lacks spread",
        ),
    ],
)
def test_a_faulty_claim_is_noticed(make_paper: MakePaper, rule: Any, body: str, message: str) -> None:
    make_paper({"one": rule}, measured(body))
    with pytest.raises(AssertionError, match=message):
        test_claims.test_runs_at_smoke_scale("own-paper", "one")


def test_a_figure_that_cannot_be_drawn_is_noticed(make_paper: MakePaper) -> None:
    body = "run.figure(Panel('x', 'y', [Series('s', [1], [1])], y_axis='upwards')); return Measurement(1)"
    make_paper({"one": "{ holds = true }"}, measured(body))
    with pytest.raises(ValueError, match="upwards"):
        test_claims.test_runs_at_smoke_scale("own-paper", "one")


def test_a_claim_that_ignores_its_seed_is_noticed(make_paper: MakePaper) -> None:
    make_paper({"one": "{ at_least = 1 }"}, measured("return Measurement(time.perf_counter())"))
    with pytest.raises(AssertionError):
        test_claims.test_same_seed_same_numbers("own-paper")
