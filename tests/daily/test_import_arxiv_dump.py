"""arXiv's dump: what a line says against what was written into it, what is left out, and what is done with faults."""

from __future__ import annotations

import json
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from offprint.daily.importing.arxiv_dump import ArxivDump
from offprint.daily.importing.entries import Entry, Skipped

RECORD: dict[str, Any] = {
    "id": "0704.0001",
    "submitter": "Pavel Nadolsky",
    "authors": "C. Bal\\'azs, E. L. Berger (Argonne), P. M. Nadolsky, Jr. and C.-P. Yuan",
    "title": 'Calculation of diphoton production cross sections at Tevatron and\n  LHC energies of Schr\\"odinger',
    "comments": "37 pages, 15 figures; published version",
    "journal-ref": "Phys.Rev.D76:013009,2007",
    "doi": "10.1103/PhysRevD.76.013009",
    "report-no": "ANL-HEP-PR-07-12",
    "categories": "hep-ph cs.LG",
    "license": None,
    "abstract": "  A fully differential calculation in $\\alpha_s$ is\npresented for Poincar\\'e's\nsake.\n",
    "versions": [
        {"version": "v1", "created": "Mon, 2 Apr 2007 19:18:42 GMT"},
        {"version": "v2", "created": "Tue, 24 Jul 2007 20:10:27 GMT"},
    ],
    "update_date": "2008-11-26",
    "authors_parsed": [["Bal\\'azs", "C.", ""], ["Berger", "E. L.", "", "Argonne"], ["Nadolsky", "P. M.", "Jr."]],
}


def read(tmp_path: Path, *records: object, categories: tuple[str, ...] = ()) -> list[Entry | Skipped | None]:
    path = tmp_path / "dump.json"
    written = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in records]
    path.write_bytes(b"\n".join(written) + b"\n")
    with closing(ArxivDump(path, categories)) as source:
        return [item.found for item in source.read(0, 0)]


def test_a_line_is_read_as_it_is_meant(tmp_path: Path) -> None:
    [found] = read(tmp_path, RECORD)
    assert isinstance(found, Entry)
    assert found.title.endswith("at Tevatron and LHC energies of Schrödinger")
    assert found.abstract == "A fully differential calculation in $\\alpha_s$ is presented for Poincaré's sake."
    assert found.authors == ("C. Balázs", "E. L. Berger", "P. M. Nadolsky Jr.")
    assert (found.arxiv, found.categories) == ("0704.0001", ("hep-ph", "cs.LG"))
    first = parsedate_to_datetime(RECORD["versions"][0]["created"])
    assert (found.published, found.day) == (first, first.date())


def test_less_common_forms_are_read_too(tmp_path: Path) -> None:
    spelled = {**RECORD, "authors_parsed": [], "versions": [], "categories": ["math.GT"], "id": "math.GT/0309136v2"}
    [found] = read(tmp_path, spelled)
    assert isinstance(found, Entry)
    assert found.authors == ("C. Balázs", "E. L. Berger", "P. M. Nadolsky", "Jr.", "C.-P. Yuan")
    assert str(found.day) == RECORD["update_date"]
    assert (found.arxiv, found.categories) == ("math/0309136", ("math.GT",))


def test_other_categories_are_left_out_and_not_reported(tmp_path: Path) -> None:
    found = read(tmp_path, RECORD, {**RECORD, "categories": "hep-th"}, {"id": None}, categories=("cs.LG", "cs.CL"))
    assert isinstance(found[0], Entry)
    assert found[1:] == [None, None]
    with (
        closing(ArxivDump(tmp_path / "dump.json")) as everything,
        closing(ArxivDump(tmp_path / "dump.json", ["cs.LG"])) as some,
    ):
        assert everything.name != some.name


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"id": "0704.0001", ', "not JSON: Expecting property name enclosed in double quotes"),
        (b"\xff\xfe{}", "not valid UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b"9" * 5000, "not JSON: a number of too many digits"),
        ([RECORD], "not a JSON object"),
        ({**RECORD, "id": None}, "no id"),
        ({**RECORD, "id": "../../etc/passwd"}, "not an arXiv id"),
        ({**RECORD, "id": 704.0001}, "not an arXiv id"),
        ({**RECORD, "title": " \n"}, "no title"),
        ({**RECORD, "title": "—!"}, "not a title"),
        ({**RECORD, "title": "word " * 101}, "title longer than 500 characters"),
        ({**RECORD, "title": "\ufdfa" * 100}, "title too long"),
        ({**RECORD, "abstract": "word " * 5000}, "abstract longer than 20000 characters"),
        ({**RECORD, "authors_parsed": [["A", "B", ""]] * 5001}, "more than 5000 authors"),
        ({**RECORD, "versions": [], "update_date": "soon"}, "no date"),
        ({**RECORD, "versions": [{"created": "Mon, 30 Feb 2007 19:18:42 GMT"}], "update_date": None}, "no date"),
        ({**RECORD, "versions": [{"created": "Mon, 2 Apr 9999 19:18:42 GMT"}]}, "no paper is of 9999-04-02"),
        ({**RECORD, "abstract": "  This paper has been withdrawn by the author due to an error."}, "withdrawn"),
        ({**RECORD, "comments": "Withdrawn; equation 3 is wrong"}, "withdrawn"),
    ],
)
def test_a_bad_record_is_passed_by_with_its_line_and_the_reason(record: object, reason: str, tmp_path: Path) -> None:
    before, found, after = read(tmp_path, RECORD, record, RECORD)
    assert isinstance(before, Entry)
    assert isinstance(after, Entry)
    assert isinstance(found, Skipped)
    assert (found.line, found.reason.startswith(reason)) == (2, True), found.reason
    assert len(str(found)) < 250


def test_what_no_page_or_database_can_hold_is_taken_out(tmp_path: Path) -> None:
    odd = {
        **RECORD,
        "title": "A\x00 title\ud800 of \u202eodd\u2066 signs\uffff",
        "abstract": "x\x00\ud83dy\x1b[0m",
        "doi": "\x00",
    }
    [found] = read(tmp_path, odd)
    assert isinstance(found, Entry)
    assert (found.title, found.abstract) == ("A title of odd signs", "x y [0m")


def test_a_paper_that_speaks_of_withdrawal_is_not_withdrawn(tmp_path: Path) -> None:
    [found] = read(tmp_path, {**RECORD, "abstract": "We study patients who have withdrawn. The drug was withdrawn."})
    assert isinstance(found, Entry)
