"""Every record is complete and consistent."""

from __future__ import annotations

import ast
import datetime
import re
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from checks.catalogue import all_records, resolve

from offprint.papers import SCALES, Record, claim_functions, measured_claims, records

RECORDS = [pytest.param(record, id=slug) for slug, record in all_records().items()]
every_record = pytest.mark.parametrize("record", RECORDS)


def sentences(text: str) -> int:
    """Count sentences: ends of sentence that are followed by a capital, or by nothing."""
    return len(re.findall(r"[.!?](?=\s+[A-Z0-9(]|\s*$)", text))


def test_every_record_is_valid() -> None:
    assert records(), "no record was found"


@pytest.mark.parametrize("of", ["title", "arxiv"])
def test_no_two_papers_share_a(of: str) -> None:
    counted = Counter(getattr(record, of) for record in all_records().values())
    assert [value for value, count in counted.items() if count > 1] == []


def test_records_are_read_without_torch_or_any_method() -> None:
    code = """
import sys, offprint.papers
offprint.papers.records()
heavy = {"torch", "scipy", "sklearn", "offprint.methods", "offprint.models", "offprint.data"}
print(*sorted(heavy & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr


@every_record
def test_summary_is_two_to_five_sentences(record: Record) -> None:
    assert 2 <= sentences(record.summary) <= 5, record.summary


@every_record
def test_at_least_three_claims(record: Record) -> None:
    assert len(record.claims) >= 3


@every_record
def test_arxiv_id_has_a_month_and_no_later_year_than_the_venue(record: Record) -> None:
    year, month = 2000 + int(record.arxiv[:2]), int(record.arxiv[2:4])
    assert 1 <= month <= 12
    assert year <= record.year, f"arXiv {record.arxiv} appeared after {record.venue} {record.year}"


@every_record
def test_day_is_after_the_paper_appeared(record: Record) -> None:
    assert datetime.date(2000 + int(record.arxiv[:2]), int(record.arxiv[2:4]), 1) <= record.day


@every_record
def test_no_text_is_left_to_fill_in(record: Record) -> None:
    texts = [record.summary]
    for claim in record.claims:
        texts += [claim.statement, claim.source, claim.metric, claim.note]
    assert [text for text in texts if re.search(r"TODO|FIXME|XXX|lorem ipsum", text, re.IGNORECASE)] == []


@every_record
def test_statements_and_metrics_differ_between_claims(record: Record) -> None:
    assert len({claim.statement for claim in record.claims}) == len(record.claims)


@every_record
def test_rules_can_be_missed_and_can_be_met(record: Record) -> None:
    for claim in record.claims:
        for scale in SCALES:
            for criterion in claim.criteria(scale):
                low, high = criterion.expect.region()
                wide_low, wide_high = criterion.expect.region(weaker=True)
                assert wide_low <= low <= high <= wide_high, f"{claim.id}: {criterion.expect.text}"
                assert abs(low) < float("inf") or abs(high) < float("inf"), f"{claim.id}: any number satisfies its rule"


@every_record
def test_package_is_a_package_of_its_own(record: Record) -> None:
    docstring = ast.get_docstring(ast.parse((record.folder / "__init__.py").read_text(encoding="utf-8")))
    assert docstring, f"{record.folder / '__init__.py'} has no docstring"


@every_record
def test_methods_can_be_imported_and_belong_to_the_family(record: Record) -> None:
    for reference in record.methods:
        assert callable(resolve(reference)), reference
    if record.methods and record.package.startswith("offprint."):
        families = {reference.split(":")[0].split(".")[2] for reference in record.methods}
        assert record.family in families, f"family is {record.family}, but its methods are in {families}"


@every_record
def test_every_function_measures_a_claim_and_every_claim_has_a_function(record: Record) -> None:
    functions: dict[str, Any] = claim_functions(record)
    assert measured_claims(record) == functions.keys()
    if functions or record.methods:
        missing = {claim.id for claim in record.claims} - functions.keys()
        assert not missing, f"no function measures {', '.join(sorted(missing))}"
