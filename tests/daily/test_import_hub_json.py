"""The Hub's daily papers, read by us and by the Hub's own client."""

from __future__ import annotations

import copy
import datetime
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.hf_api import PaperInfo
from sqlalchemy import select

from offprint.daily.importing.entries import Entry, Skipped
from offprint.daily.importing.hub_json import HubJson
from offprint.daily.importing.streaming import perform
from offprint.store import Database, Listing, Paper

ITEM: dict[str, Any] = {
    "paper": {
        "id": "2508.13001",
        "authors": [
            {"_id": "64a", "name": "Zoë Ångström", "hidden": False},
            {"_id": "64b", "user": {"user": "kofi", "fullname": "Kofi"}, "name": "Kofi Mensah", "hidden": False},
        ],
        "publishedAt": "2025-08-18T14:10:30.000Z",
        "submittedOnDailyAt": "2025-08-19T23:59:59.123Z",
        "title": "Widening the Road: a Study",
        "submittedOnDailyBy": {"_id": "5f1", "fullname": "A Reader", "user": "a-reader", "type": "user"},
        "summary": "We widen the road\nby $2\\times$.",
        "upvotes": 41,
        "discussionId": "68a",
        "githubRepo": "https://github.com/example/road",
        "ai_summary": "A road is widened.",
        "ai_keywords": ["roads"],
        "githubStars": 12,
    },
    "publishedAt": "2025-08-18T10:10:30.000Z",
    "title": "Widening the Road: a Study",
    "summary": "We widen the road\nby $2\\times$.",
    "thumbnail": "https://cdn-thumbnails.example.org/2508.13001.png",
    "numComments": 2,
    "submittedBy": {"_id": "5f1", "fullname": "A Reader", "name": "a-reader", "user": "a-reader", "type": "user"},
    "isAuthorParticipating": False,
}


def another(number: int, **changes: Any) -> dict[str, Any]:
    item = copy.deepcopy(ITEM)
    item["paper"] |= {"id": f"2508.{number:05}", "title": f"Paper {number}"} | changes
    return item


def read(path: Path) -> list[Entry | Skipped | None]:
    with closing(HubJson(path)) as source:
        return [item.found for item in source.read(0, 0)]


def test_an_item_says_what_the_clients_own_class_reads_in_it(tmp_path: Path) -> None:
    (tmp_path / "daily.json").write_text(json.dumps([ITEM]), encoding="utf-8")
    [found] = read(tmp_path / "daily.json")
    theirs = PaperInfo(**copy.deepcopy(ITEM))
    assert isinstance(found, Entry)
    assert theirs.authors is not None
    assert theirs.submitted_by is not None
    assert (found.arxiv, found.title) == (theirs.id, theirs.title)
    assert list(found.authors) == [author.name for author in theirs.authors]
    assert found.abstract == (theirs.summary or "").replace("\n", " ")
    assert found.published == theirs.published_at
    assert found.submitter == theirs.submitted_by.username
    assert found.code == ITEM["paper"]["githubRepo"]
    # The client knows the day only from what it asked for; the paper says when it was put on the page.
    assert found.day == datetime.date(2025, 8, 19)


@pytest.mark.parametrize("layout", ["array", "indented", "lines", "bare papers"])
def test_a_list_and_lines_hold_the_same_papers(layout: str, tmp_path: Path) -> None:
    items = [another(1), {"paper": {"id": "x"}}, another(2)]
    text = {
        "array": json.dumps(items),
        "indented": "\ufeff" + json.dumps(items, indent=1, ensure_ascii=False),
        "lines": "\n".join(map(json.dumps, items)),
        "bare papers": json.dumps([item["paper"] for item in items]),
    }[layout]
    (tmp_path / "daily.json").write_text(text, encoding="utf-8")
    first, bad, last = read(tmp_path / "daily.json")
    assert isinstance(first, Entry)
    assert isinstance(last, Entry)
    assert (first.arxiv, last.arxiv, first.authors) == ("2508.00001", "2508.00002", ("Zoë Ångström", "Kofi Mensah"))
    assert isinstance(bad, Skipped)
    begun = {"array": 1, "indented": text[: text.find('"x"')].count("\n") - 1, "lines": 2, "bare papers": 1}
    assert bad.line == begun[layout]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (17, "not a JSON object"),
        ({"title": "No paper"}, "no paper with an id"),
        ({"paper": ["id"]}, "no paper with an id"),
        (another(1, id="javascript:alert(1)"), "not an arXiv id"),
        ({"paper": {"id": "2508.00001", "title": "No day"}}, "no date"),
        (another(1, submittedOnDailyAt="9999-12-31T23:59:59-23:00", publishedAt="no")["paper"], "no date"),
        (another(1, submittedOnDailyAt="2999-01-01T00:00:00Z"), "no paper is of 2999-01-01"),
    ],
)
def test_a_bad_item_is_passed_by(item: object, reason: str, tmp_path: Path) -> None:
    (tmp_path / "daily.json").write_text(json.dumps([item, another(2)]), encoding="utf-8")
    bad, good = read(tmp_path / "daily.json")
    assert isinstance(good, Entry)
    assert isinstance(bad, Skipped)
    assert bad.reason == reason


@pytest.mark.parametrize("code", ["javascript:alert(1)", "http://[", "ftp://example.org/x", "https://e.org/ x", 7, {}])
def test_an_address_that_no_reader_should_follow_is_not_kept(code: object, tmp_path: Path) -> None:
    (tmp_path / "daily.json").write_text(json.dumps([another(1, githubRepo=code)]), encoding="utf-8")
    [found] = read(tmp_path / "daily.json")
    assert isinstance(found, Entry)
    assert found.code is None


def test_papers_are_listed_on_the_day_they_had_there_and_votes_stay_there(tmp_path: Path, database: Database) -> None:
    (tmp_path / "daily.json").write_text(json.dumps([another(7), another(6)]), encoding="utf-8")
    report = perform(HubJson(tmp_path / "daily.json"), database)
    assert (report.papers, report.new, report.n_skipped) == (2, 2, 0)
    with database.session() as session:
        asked = select(Paper.arxiv, Paper.n_votes, Listing.position, Listing.submitter, Listing.submitted_at)
        rows = session.execute(
            asked.join(Listing).where(Listing.day == datetime.date(2025, 8, 19)).order_by(Listing.id)
        )
        submitted = datetime.datetime(2025, 8, 19, 23, 59, 59, 123000, datetime.UTC)
        assert [tuple(row) for row in rows] == [
            ("2508.00007", 0, 0, "a-reader", submitted),
            ("2508.00006", 0, 1, "a-reader", submitted),
        ]
