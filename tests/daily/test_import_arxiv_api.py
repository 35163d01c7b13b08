"""arXiv's API, asked over HTTP on this machine: pages, ids, faults, and going on."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from arxiv_server import ArxivServer, Preprint, arxiv_server, feed
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from tables import everything

from offprint.daily.importing import arxiv_api
from offprint.daily.importing.arxiv_api import ArxivApi, fetch
from offprint.daily.importing.streaming import SourceError, perform
from offprint.store import Database, Import, Listing, Paper

SINCE = datetime.date(2025, 8, 1)
PAPERS = [
    Preprint(
        f"2508.{number:05}",
        f'Paper {number} on\n  Gr\\"obner bases & <tags>',
        authors=("Zoë Ångström", f"Author {number}"),
        categories=("cs.LG", "math.AC"),
        published=datetime.datetime(2025, 8, 1 + number // 10, 12, 0, number, tzinfo=datetime.UTC),
        version=1 + number % 3,
    )
    for number in range(25)
]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArxivServer]:
    monkeypatch.setattr(arxiv_api, "PAGE", 10)
    with arxiv_server(PAPERS) as running:
        yield running


def asking(server: ArxivServer, *ids: str, **options: Any) -> ArxivApi:
    return ArxivApi(ids, endpoint=server.url, delay=0.0, **options)


def stored(database: Database) -> list[tuple[Any, ...]]:
    with database.session() as session:
        asked = select(Paper.arxiv, Paper.title, Paper.abstract, Paper.authors, Paper.categories, Paper.published_at)
        found = session.execute(asked.add_columns(Listing.day).join(Listing).where(Paper.slug.is_(None)))
        return sorted(tuple(row) for row in found)


def as_stored(paper: Preprint) -> tuple[Any, ...]:
    title = paper.title.replace("\n ", "").replace('\\"o', "ö")
    facts = paper.id, title, "We study it at length.", list(paper.authors), list(paper.categories)
    return (*facts, paper.published, paper.published.date())


def test_a_category_is_read_page_by_page_oldest_first(server: ArxivServer, database: Database) -> None:
    report = perform(asking(server, category="cs.LG", since=SINCE), database)
    assert (report.papers, report.new, report.n_skipped) == (25, 25, 0)
    assert stored(database) == [as_stored(paper) for paper in PAPERS]
    assert [query["start"] for query in server.asked] == ["0", "10", "20"]
    assert server.asked[0]["search_query"] == "cat:cs.LG AND submittedDate:[202508010000 TO 299912312359]"
    assert {query["sortBy"] + " " + query["sortOrder"] for query in server.asked} == {"submittedDate ascending"}
    before = everything(database, clocks=False)
    perform(asking(server, category="cs.LG", since=SINCE), database)
    assert everything(database, clocks=False) == before


def test_an_import_that_arxiv_cut_off_goes_on_where_it_stopped(
    server: ArxivServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ArxivApi, "batch", 4)
    monkeypatch.setattr(arxiv_api, "RETRIES", 0)
    source = asking(server, category="cs.LG", since=SINCE)

    def break_down(done: int, total: int, records: int) -> None:
        server.moods[:] = [(500, "text/plain", b"no")]

    with pytest.raises(SourceError, match="500"):
        perform(source, database, break_down)
    with database.session() as session:
        assert session.scalars(select(Import.position)).one() == 8  # of the 10 on the page, two batches of four
    server.moods.clear()
    server.asked.clear()
    report = perform(asking(server, category="cs.LG", since=SINCE), database)
    assert (report.papers, report.resumed_after) == (17, 8)
    assert server.asked[0]["start"] == "8"
    assert stored(database) == [as_stored(paper) for paper in PAPERS]


def test_bad_moments_of_the_server_are_waited_out(server: ArxivServer) -> None:
    server.moods[:] = [(503, "text/html", b"busy"), (200, "text/plain", b"Rate exceeded."), (500, "text/xml", b"")]
    with_all = list(asking(server, "2508.00001").read(0, 0))
    assert len(with_all) == 1
    assert len(server.asked) == 4
    server.moods[:] = [(503, "text/html", b"busy")] * 4
    with pytest.raises(SourceError, match="503"):
        list(asking(server, "2508.00001").read(0, 0))


def test_ids_are_answered_in_their_order_and_each_that_fails_is_named(server: ArxivServer, database: Database) -> None:
    withdrawn = Preprint("2508.09999", "Gone", comment="This paper has been withdrawn by the authors")
    server.papers = [*PAPERS, withdrawn]
    ids = ["2508.00003v1", "not-an-id", "arXiv:2508.00001", "2508.77777", "2508.09999"]
    report = perform(asking(server, *ids), database)
    assert (report.papers, report.new) == (2, 2)
    assert [(item.line, item.reason) for item in report.skipped] == [
        (2, "not an arXiv id"),
        (4, "arXiv has no such paper"),
        (5, "withdrawn"),
    ]
    # Without a version: arXiv then gives the newest.
    assert server.asked[0]["id_list"] == "2508.00003,2508.00001,2508.77777,2508.09999"
    assert [row[0] for row in stored(database)] == ["2508.00001", "2508.00003"]


def test_an_error_that_comes_as_an_entry_is_no_paper(server: ArxivServer, database: Database) -> None:
    error = feed([Preprint("x", "Error", "incorrect id format for 1234")], 1).replace(
        b"http://arxiv.org/abs/xv1", b"http://arxiv.org/api/errors#incorrect_id_format_for_1234"
    )
    server.moods[:] = [(200, "application/atom+xml", error)]
    [read] = asking(server, category="cs.LG", since=SINCE).read(0, 0)
    assert "incorrect id format" in str(read.found)
    server.moods[:] = [(200, "application/atom+xml", error)]
    report = perform(asking(server, "2508.00001"), database)
    assert report.unreadable


def test_fetch_is_for_one_reader_who_waits(server: ArxivServer, monkeypatch: pytest.MonkeyPatch) -> None:
    [found] = fetch(["2508.00002v7", "nonsense", "2508.77777"], endpoint=server.url)
    assert (found.arxiv, found.authors) == ("2508.00002", PAPERS[2].authors)
    assert fetch(["nonsense"], endpoint=server.url) == []
    assert len(server.asked) == 1
    monkeypatch.setenv("OFFPRINT_ARXIV_URL", server.url)
    assert [found.arxiv for found in fetch(["2508.00002"])] == ["2508.00002"]


def test_a_server_that_is_not_there_is_an_error_in_words() -> None:
    with arxiv_server() as gone:
        pass
    with pytest.raises(SourceError, match="does not answer"):
        list(ArxivApi(["2508.00001"], endpoint=gone.url, delay=0.0).read(0, 0))


@pytest.mark.parametrize(
    ("ids", "options"),
    [
        ((), {}),
        (("2508.00001",), {"category": "cs.LG", "since": SINCE}),
        ((), {"category": "cs.LG"}),
        ((), {"category": "cs.LG AND all:x", "since": SINCE}),
        (("2508.00001",), {"endpoint": "file:///etc/passwd"}),
        (("2508.00001",), {"endpoint": "http://127.0.0.1/{}"}),
    ],
)
def test_what_cannot_be_asked_is_refused(ids: tuple[str, ...], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"wanted|must"):
        ArxivApi(ids, **options)


FEED = feed(PAPERS[:2], 2)


@settings(max_examples=60, deadline=None)
@given(
    body=st.binary(max_size=200)
    | st.builds(
        lambda place, junk, cut: FEED[:place] + junk + FEED[place + cut :],
        st.integers(0, len(FEED)),
        st.binary(max_size=12),
        st.integers(0, 40),
    )
)
def test_whatever_comes_as_a_feed_is_read_or_refused(body: bytes) -> None:
    """Through the parser of the arxiv package, as the client hands it on; nothing but SourceError comes out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arxiv_api, "RETRIES", 0)
        patch.setattr(arxiv_api._Adapter, "send", lambda self, request, **options: answer(request, body))
        for ids, options in ((("2508.00001", "2508.00000"), {}), ((), {"category": "cs.LG", "since": SINCE})):
            source = ArxivApi(ids, endpoint="http://127.0.0.1/api", delay=0.0, **options)
            try:
                found = [item.found for item in source.read(0, 0)]
            except SourceError:
                continue
            assert len(found) <= 300


def answer(request: Any, body: bytes) -> Any:
    import io

    import requests

    response = requests.Response()
    response.status_code, response.request, response.url = 200, request, request.url
    response.raw = io.BytesIO(body)
    return response
