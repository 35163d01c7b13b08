"""Importing the text of a daily page: what it lists, in its order, and every fault with its line."""

from __future__ import annotations

import datetime
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from offprint.daily import lists
from offprint.daily.importing.page_text import PageText, read_page_text
from offprint.daily.importing.streaming import Report, perform
from offprint.daily.library import load_records
from offprint.daily.periods import Period
from offprint.store import Database, Listing, Paper

DAY = datetime.date(2025, 8, 20)

PAGE = """\
new

Get the papers in your inbox!

Aug 20

Gamma Theory of Streams

We study the theory of streams. It has two sentences & a <b>tag</b>.

ALPHA: A <b>method</b> & its "limits" for Grobner bases

We average, and prove that $a<b$ suffices
in every case that was wrapped
over three lines.

A Title That Nobody Wrote Down

The abstract of an unknown paper, which is imported all the same.
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.txt"
    path.write_text(PAGE, encoding="utf-8")
    return path


def import_page_text(path: Path, year: int, database: Database) -> Report:
    return perform(PageText(path, year), database)


def on_day(database: Database, date: datetime.date = DAY) -> list[tuple[str, str | None]]:
    with database.session() as session:
        found = lists.of_period(session, Period.holding("day", date), "listed", texts=True)
    return [(paper.title, paper.abstract) for paper in found.papers]


def rows(database: Database) -> list[tuple[object, ...]]:
    with database.session() as session:
        listed = select(Listing.id, Listing.day, Listing.position, Paper.id, Paper.title, Paper.abstract)
        return [tuple(row) for row in session.execute(listed.join(Paper).order_by(Listing.id))]


def test_titles_are_matched_and_the_order_of_the_page_is_kept(page: Path, database: Database) -> None:
    report = import_page_text(page, 2025, database)
    assert (report.first_day, report.last_day, report.papers, report.on_record, report.new) == (DAY, DAY, 3, 2, 1)
    assert report.skipped == []
    listed = on_day(database)
    assert [title for title, _ in listed[:3]] == [
        "Gamma Theory of Streams",
        'Alpha: a <b>Method</b> & its "Limits" for Gröbner Bases',
        "A Title That Nobody Wrote Down",
    ]
    assert [abstract for _, abstract in listed[:3]] == [
        "We study the theory of streams. It has two sentences & a <b>tag</b>.",
        "We average, and prove that $a<b$ suffices in every case that was wrapped over three lines.",
        "The abstract of an unknown paper, which is imported all the same.",
    ]
    assert len(listed) == 5  # the records that the page lacks come after


def test_importing_twice_changes_nothing(page: Path, database: Database) -> None:
    import_page_text(page, 2025, database)
    before = rows(database)
    report = import_page_text(page, 2025, database)
    assert (report.papers, report.on_record, report.new, report.changed) == (3, 2, 0, 0)
    assert rows(database) == before
    load_records(database)
    assert rows(database) == before


def test_the_records_need_not_be_loaded_first(page: Path, package: Path, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'fresh.db'}")
    assert import_page_text(page, 2025, database).on_record == 2
    database.close()


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_marks_and_line_endings_of_other_systems_do_not_matter(ending: str, page: Path, database: Database) -> None:
    begun_by_its_day = PAGE[PAGE.index("Aug 20") :]
    page.write_bytes(b"\xef\xbb\xbf" + begun_by_its_day.replace("\n", ending).encode())
    assert import_page_text(page, 2025, database).papers == 3


def test_every_fault_is_reported_with_its_line(tmp_path: Path, database: Database) -> None:
    lines = [
        b"header",
        b"Feb 30",
        b"",
        b"No Day Is Known For This",
        b"",
        b"August 20, 2024",
        b"",
        b"A Title Without an Abstract",
        b"",
        b"A Good Title",
        b"",
        b"A good abstract, which ends as a sentence does.",
        b"",
        b"This paragraph follows no title: " + b"long " * 80,
        b"",
        b"Title of an Abstract That Is Not Text",
        b"",
        b"Not \xff\xfe UTF-8 at all.",
        b"",
        b"a good title!",
        b"",
        b"The same paper for the second time.",
        b"",
        b"A Title Before an Endless Abstract",
        b"",
        b"word " * 5000 + b".",
        b"",
        b"---",
        b"",
        b"The Last Title",
    ]
    path = tmp_path / "faults.txt"
    path.write_bytes(b"\n".join(lines))
    report = import_page_text(path, 2025, database)
    assert [(item.line, item.reason) for item in report.skipped] == [
        (2, "no such day"),
        (8, "no abstract after this title"),
        (14, "no title before this text"),
        (18, "not valid UTF-8"),
        (20, "listed before, on line 10"),
        (26, "abstract longer than 20000 characters"),
        (28, "not a title"),
        (30, "no abstract after this title"),
    ]
    assert report.first_day == report.last_day == datetime.date(2024, 8, 20)
    assert on_day(database, datetime.date(2024, 8, 20)) == [
        ("A Good Title", "A good abstract, which ends as a sentence does.")
    ]
    assert str(report).splitlines()[:2] == [
        "1 papers (2024-08-20): 0 on record, 1 new, 0 changed, 8 skipped",
        "line 2: no such day: 'Feb 30'",
    ]


def test_a_file_that_is_no_daily_page_is_refused(tmp_path: Path, database: Database) -> None:
    path = tmp_path / "other.txt"
    path.write_text("A Title\n\nAn abstract.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no day heading"):
        import_page_text(path, 2025, database)
    path.write_text("Aug 20\n", encoding="utf-8")
    with pytest.raises(ValueError, match="year must be"):
        import_page_text(path, 20250, database)


words = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(papers=st.lists(st.tuples(words, words), min_size=1, max_size=5))
def test_whatever_is_written_in_this_layout_is_read_back(papers: list[tuple[str, str]]) -> None:
    """Every paper is read word for word (up to spaces), or reported as one that was listed before."""
    written = [(f"Title {title} x", f"We {abstract} do.") for title, abstract in papers]
    text = "Mar 1\n\n" + "".join(f"{title}\n\n{abstract}\n\n" for title, abstract in written)
    entries, skipped = read_page_text(text.encode(), 2024)
    assert {item.reason.partition(",")[0] for item in skipped} <= {"listed before"}
    lines = {entry.line for entry in entries} | {item.line for item in skipped}
    assert lines == set(range(3, 4 * len(papers) + 3, 4))
    for entry in entries:
        assert entry.day == datetime.date(2024, 3, 1)
        title, abstract = written[(entry.line - 3) // 4]
        assert (entry.title, entry.abstract) == (plain(title), plain(abstract))


def plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
