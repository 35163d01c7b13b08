"""What is stored of what is read: matched, in bulk, once, and whole after any interruption."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from tables import everything

from offprint.daily import trending
from offprint.daily.importing import streaming
from offprint.daily.importing.arxiv_dump import ArxivDump
from offprint.daily.importing.entries import Entry, Read, entry
from offprint.daily.importing.hub_json import HubJson
from offprint.daily.importing.page_text import PageText
from offprint.daily.importing.streaming import Report, Source, SourceError, perform
from offprint.daily.importing.writer import Writer
from offprint.daily.library import find
from offprint.store import Account, Database, Listing, Paper, Vote

DAY = datetime.date(2025, 8, 20)
ALPHA, BETA = "2501.00001", "2501.00002"  # on record, both listed on DAY
in_files = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Given(Source):
    """Entries that are given, as a source."""

    name = "given"
    batch = 3

    def __init__(self, entries: Sequence[Entry | None], *, authority: bool = True) -> None:
        self.entries = entries
        self.authority, self.every_day = authority, not authority  # type: ignore[misc]

    def read(self, position: int, line: int) -> Iterator[Read]:
        for number, found in enumerate(self.entries[position:], start=position + 1):
            yield Read(number, number, found)

    def done(self) -> tuple[int, int]:
        return 0, len(self.entries)


def paper(number: int, title: str = "", **facts: Any) -> Entry:
    published = datetime.datetime(2024, 5, 1 + number % 28, 8, tzinfo=datetime.UTC)
    said = {"arxiv": f"2405.{number:05}", "published": published, "day": published.date()} | facts
    return entry(number, title or f"Paper number {number}", **said)


def store(database: Database, *entries: Entry, authority: bool = True) -> Report:
    return perform(Given(entries, authority=authority), database)


def found(database: Database, name: str) -> Paper:
    with database.session() as session:
        row = find(session, name)
        assert row is not None
        assert row.listings is not None
        return row


def test_a_paper_is_matched_by_its_id_then_by_its_title_and_what_is_on_record_stays(database: Database) -> None:
    before = found(database, ALPHA)
    said = {"abstract": "New.", "authors": ["Someone Else"], "categories": ["cs.GT"], "code": "https://example.org/x"}
    report = store(
        database,
        paper(1, "Another Title", arxiv=f"{ALPHA}v3", **said),
        paper(2, "beta testing of STREAMS!", arxiv=None, abstract="Of beta."),
        paper(3, "Beta Testing of Streams", abstract="Of another paper with this title."),
    )
    assert (report.on_record, report.new, report.changed) == (2, 1, 2)
    alpha = found(database, ALPHA)
    assert (alpha.abstract, alpha.categories) == ("New.", ["cs.GT"])
    assert alpha.published_at == paper(1).published
    for name in ("title", "title_key", "authors", "code", "year", "venue", "slug", "hotness"):
        assert getattr(alpha, name) == getattr(before, name)
    assert found(database, BETA).abstract == "Of beta."
    assert found(database, "2405.00003").abstract == "Of another paper with this title."
    # arXiv says when a paper was written; that a page lists it is known already.
    assert [listing.day for listing in alpha.listings] == [DAY]


def test_arxiv_replaces_what_others_said_and_others_fill_what_is_missing(database: Database) -> None:
    store(database, paper(1, "Typed by hand", arxiv=None, abstract="Pasted.", published=None), authority=False)
    store(database, paper(1, "Typed by Hand", abstract="Shortened.", authors=["A"]), authority=False)
    filled = found(database, "2405.00001")
    assert (filled.title, filled.abstract, filled.authors) == ("Typed by hand", "Pasted.", ["A"])
    store(database, paper(1, "Typed by hand, at last", abstract="As arXiv has it.", authors=["A", "B"]))
    store(database, paper(1, "Typed by hand", abstract="Pasted.", code="https://example.org/code"), authority=False)
    final = found(database, "2405.00001")
    assert final.id == filled.id
    assert (final.title, final.title_key) == ("Typed by hand, at last", "typedbyhandatlast")
    assert (final.abstract, final.authors, final.code) == ("As arXiv has it.", ["A", "B"], "https://example.org/code")


def test_one_file_may_name_a_paper_twice_in_one_batch_or_two(database: Database) -> None:
    twice = [paper(1, "First"), paper(1, "Second", arxiv="2405.00001v2"), paper(2), paper(1, "Third"), paper(2)]
    report = store(database, *twice)
    assert (report.papers, report.new) == (5, 2)
    assert found(database, "2405.00001").title == "Third"
    with database.session() as session:
        assert session.scalar(select(func.count()).where(Listing.day == paper(1).day)) == 1


def test_days_are_filled_in_the_order_of_the_source_after_what_they_list(database: Database) -> None:
    with database.session() as session:
        before = session.scalar(select(func.max(Listing.position)).where(Listing.day == DAY)) or 0
    entries = [paper(number, day=DAY if number % 2 else datetime.date(2025, 8, 21)) for number in range(1, 9)]
    store(database, *entries, authority=False)
    with database.session() as session:
        listed = select(Paper.arxiv, Listing.position).join(Listing).where(Paper.arxiv.like("2405%"))
        rows = session.execute(listed.where(Listing.day == DAY).order_by(Listing.position)).all()
        assert [tuple(row) for row in rows] == [(f"2405.{n:05}", before + 1 + n // 2) for n in (1, 3, 5, 7)]
        rows = session.execute(listed.where(Listing.day != DAY).order_by(Listing.position)).all()
        assert [tuple(row) for row in rows] == [(f"2405.{n:05}", n // 2 - 1) for n in (2, 4, 6, 8)]


def test_hotness_is_that_of_the_newest_listing_and_votes_count(database: Database) -> None:
    later = datetime.date(2025, 8, 25)
    with database.session() as session:
        alpha = find(session, ALPHA)
        assert alpha is not None
        session.add(Account(id=1, email="a@example.org", handle="a", name="A"))
        session.flush()
        session.add(Vote(account_id=1, paper_id=alpha.id))
        trending.refresh(session, alpha)
    store(database, paper(1, arxiv=ALPHA, day=later), paper(2, arxiv=BETA, day=later), paper(3), authority=False)
    assert found(database, BETA).hotness == trending.listed_hotness(later)
    assert found(database, "2405.00003").hotness == trending.listed_hotness(paper(3).published.date())  # type: ignore[union-attr]
    with database.session() as session:
        alpha = find(session, ALPHA)
        assert alpha is not None
        assert alpha.n_votes == 1
        stored = alpha.hotness
        trending.refresh(session, alpha)
        assert alpha.hotness == stored > trending.listed_hotness(later)


def test_a_paper_that_someone_adds_meanwhile_is_found_on_the_next_attempt(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_batch, calls = Writer.store, []

    def too_late(writer: Writer, session: Any, entries: Sequence[Entry]) -> Any:
        calls.append(len(entries))
        if len(calls) == 1:
            raise IntegrityError("insert", {}, Exception("papers.arxiv"))
        return store_batch(writer, session, entries)

    monkeypatch.setattr(Writer, "store", too_late)
    report = store(database, paper(1), paper(2))
    assert (report.new, calls) == (2, [2, 2])


def test_two_processes_do_not_import_the_same_at_once(database: Database) -> None:
    entries = [paper(number) for number in range(1, 10)]

    def other(*progress: int) -> None:
        perform(Given(entries), database)

    with pytest.raises(SourceError, match="another process"):
        perform(Given(entries), database, other)
    with database.session() as session:
        assert session.scalar(select(func.count()).where(Paper.arxiv.like("2405%"))) == 9


def test_the_report_is_short_however_much_was_wrong(database: Database, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("nonsense\n" * 5000, encoding="utf-8")
    report = perform(ArxivDump(tmp_path / "bad.json"), database)
    assert (report.n_skipped, len(report.skipped), report.unreadable) == (5000, streaming.KEPT, True)
    assert str(report).splitlines()[0] == "0 papers: 0 on record, 0 new, 0 changed, 5000 skipped"
    assert str(report).splitlines()[-1] == "and 4900 more that were skipped"


def dump(path: Path, n_records: int) -> Path:
    """Write a small dump, with some of all that can be wrong, and some papers twice."""
    draw = random.Random(n_records)
    lines = []
    for number in range(n_records):
        record = {
            "id": f"2401.{draw.randrange(n_records):05}",
            "title": f"Paper {draw.randrange(n_records)}",
            "abstract": f"Abstract {number}.",
            "categories": "cs.LG",
            "authors_parsed": [["Erd\\H{o}s", "Paul", ""]],
            "versions": [{"version": "v1", "created": f"Mon, {draw.randint(1, 28)} Jan 2024 19:18:42 GMT"}],
        }
        lines.append(json.dumps(record) if number % 7 else draw.choice(["", "{", "[]", '{"id": "x"}']))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def hub(path: Path, n_records: int) -> Path:
    items = [
        {
            "paper": {
                "id": f"2402.{n % 20:05}",
                "title": f"Hub {n}",
                "submittedOnDailyAt": f"2024-02-0{1 + n % 3}T00:00:00Z",
            }
        }
        for n in range(n_records)
    ]
    path.write_text(json.dumps([*items, {"paper": 1}], indent=1), encoding="utf-8")
    return path


def page(path: Path, n_records: int) -> Path:
    papers = "".join(f"Title {n % 25}\n\nWe say {n}.\n\n" for n in range(n_records))
    path.write_text(f"Mar 1\n\n{papers}Mar 2\n\n{papers}", encoding="utf-8")
    return path


SOURCES: dict[str, Callable[[Path], Source]] = {
    "arxiv-dump": lambda folder: ArxivDump(dump(folder / "dump.json", 60)),
    "hub-json": lambda folder: HubJson(hub(folder / "hub.json", 40)),
    "page-text": lambda folder: PageText(page(folder / "page.txt", 30), 2024),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_an_import_cut_off_anywhere_ends_as_an_undisturbed_one_and_twice_is_once(
    kind: str, tmp_path: Path, new_database: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every table is the same, whether it was cut off after a batch was stored, or just before it was committed."""
    monkeypatch.setattr(Source, "batch", 7)
    whole, cut = new_database(), new_database()
    report = perform(SOURCES[kind](tmp_path), whole)
    assert report.papers > 20
    advance = streaming._advance
    draw = random.Random(7)

    def interrupted(*arguments: Any, **options: Any) -> None:
        advance(*arguments, **options)
        if draw.random() < 0.5:
            raise KeyboardInterrupt

    def stop(done: int, total: int, records: int) -> None:
        if draw.random() < 0.3:
            raise KeyboardInterrupt

    monkeypatch.setattr(streaming, "_advance", interrupted)
    n_cuts = 0
    for _ in range(200):
        try:
            perform(SOURCES[kind](tmp_path), cut, stop)
            break
        except KeyboardInterrupt:
            n_cuts += 1
    monkeypatch.setattr(streaming, "_advance", advance)
    assert n_cuts > 3
    assert everything(cut, clocks=False) == everything(whole, clocks=False)
    again = perform(SOURCES[kind](tmp_path), cut)
    assert (again.papers, again.new) == (report.papers, 0)
    assert everything(cut, clocks=False) == everything(whole, clocks=False)


@pytest.fixture
def new_database(package: Path, new_url: Callable[..., str], loaded_url: str) -> Iterator[Callable[[], Database]]:
    """Open databases with the package's papers."""
    opened: list[Database] = []

    def new() -> Database:
        opened.append(Database(new_url(loaded_url)))
        return opened[-1]

    yield new
    for database in opened:
        database.close()


NAMES = ["id", "paper", "title", "abstract", "authors", "authors_parsed", "versions", "created", "publishedAt"]
tokens = st.sampled_from(
    [
        '{"id": "2401.00001", "title": "',
        '"paper": {',
        "}",
        "[",
        "]",
        ",",
        '"',
        "\n",
        "\n\n",
        "\x00",
        "\\ud800",
        "Aug 20",
        "\ufeff",
    ]
)
contents = (
    st.binary(max_size=200)
    | st.lists(tokens | st.text(max_size=6), max_size=25).map(
        lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
    )
    | st.builds(
        lambda items: "\n".join(json.dumps(item) for item in items).encode(),
        st.lists(
            st.recursive(
                st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.just("2401.00001"),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(NAMES),
                        inner,
                        max_size=6,
                    )
                ),
                max_leaves=12,
            ),
            max_size=4,
        ),
    )
)


@in_files
@given(content=contents)
def test_no_file_is_too_broken_for_any_importer(content: bytes, tmp_path: Path, database: Database) -> None:
    """Each reads it to the end and says what it could not use, or refuses the whole with ValueError."""
    path = tmp_path / "file"
    path.write_bytes(content)
    for kind in (ArxivDump, HubJson, lambda path: PageText(path, 2024)):
        try:
            source = kind(path)
        except ValueError:
            continue
        with closing(source):
            read = [item.found for item in source.read(0, 0)]
        assert all(str(item).encode() for item in read)
        if any(isinstance(item, Entry) for item in read):
            report = perform(kind(path), database)
            assert report.papers + report.n_skipped == len(read)


def test_text_that_came_in_can_be_stored_whatever_it_holds(tmp_path: Path, database: Database) -> None:
    odd = "a\x00b\ud800c\udfff\U0001f600 ' \" % ; -- {x} :y \\"
    items = [{"paper": {"id": "2402.00001", "title": odd, "summary": odd, "authors": [{"name": odd}]}}]
    items[0]["paper"]["publishedAt"] = "2024-02-01T00:00:00Z"
    items[0]["submittedBy"] = {"name": odd * 9}
    (tmp_path / "odd.json").write_text(json.dumps(items), encoding="utf-8")
    assert perform(HubJson(tmp_path / "odd.json"), database).papers == 1
    stored = found(database, "2402.00001")
    plain = "a b c \U0001f600 ' \" % ; -- {x} :y \\"
    assert (stored.title, stored.abstract, stored.authors) == (plain, plain, [plain])
    assert len(stored.listings[0].submitter or "") == 64
