"""Feeds: read by feedparser and against the JSON Feed specification; unchanged where nothing has changed."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

import feedparser
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, update

from offprint.daily.app import create_app
from offprint.daily.conditions import unchanged
from offprint.daily.feeds import Editions, Feed, atom, json_feed
from offprint.daily.settings import Settings
from offprint.store import Database, Listing, Paper

START = datetime.datetime(2025, 8, 20, 9, 30, 15, 250_000, tzinfo=datetime.UTC)
HOSTILE = "A\x00\x08\x0b <b>b</b> & ]]> \ud800\ufffe\U0001fffe \u202e \u2028 ёжик 🦔 ́ \"q\" 'q' &lt;"
FEEDS = (
    "/feeds/newest", "/feeds/trending", "/feeds/day/2025-08-20", "/feeds/day/2020-01-01", "/feeds/topic/stream",
    "/feeds/search?q=streams", "/feeds/search?q=%22%3E%3Cscript%3E%0b%F0%9F", "/feeds/search",
)  # fmt: skip


def form(path: str, suffix: str) -> str:
    """Return the address of a feed in one of its forms."""
    name, mark, query = path.partition("?")
    return f"{name}.{suffix}{mark}{query}"


def read_atom(content: bytes) -> Any:
    """Read a feed as a reader's program does; it must find nothing to complain of."""
    found = feedparser.parse(content)
    assert not found.bozo, found.bozo_exception
    assert found.version == "atom10"
    assert found.feed.id.startswith("tag:")
    assert found.feed.title
    assert found.feed.updated_parsed
    rels = {link.rel: link.href for link in found.feed.links}
    assert {"self", "alternate"} <= set(rels)
    assert all(href.startswith("http://127.0.0.1/") for href in rels.values())
    ids = [entry.id for entry in found.entries]
    assert len(set(ids)) == len(ids)
    for entry in found.entries:
        assert re.fullmatch(r"tag:127\.0\.0\.1,2025:papers/[\w./-]+", entry.id)
        assert entry.title
        assert entry.authors
        assert entry.published_parsed <= entry.updated_parsed <= found.feed.updated_parsed
        assert entry.link.startswith("http://127.0.0.1/papers/")
    return found


def read_json(content: bytes) -> Any:
    """Read a feed by the rules of JSON Feed 1.1: what is required is there, and each part has its type."""
    feed = json.loads(content)
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    assert isinstance(feed["title"], str)
    for name in ("home_page_url", "feed_url"):
        assert feed[name].startswith("http://127.0.0.1/")
    known = {"id", "url", "external_url", "title", "content_html", "date_published", "date_modified", "authors", "tags"}
    for item in feed["items"]:
        assert set(item) - known <= {"_offprint"}  # extensions begin with an underscore
        assert isinstance(item["id"], str)
        assert item["content_html"]
        for name in ("date_published", "date_modified"):
            assert datetime.datetime.fromisoformat(item[name]).tzinfo is not None
        assert all(author["name"] for author in item.get("authors", [{"name": "x"}]))
        assert all(isinstance(tag, str) for tag in item.get("tags", []))
    ids = [item["id"] for item in feed["items"]]
    assert len(set(ids)) == len(ids)
    return feed


@pytest.fixture
def hostile(database: Database) -> Database:
    """The papers, and one whose texts no XML can hold as they are."""
    with database.session() as session:
        safe = HOSTILE.encode("utf-8", "replace").decode().replace("\x00", "")  # what a database can hold
        paper = Paper(title=safe, title_key="h", abstract=safe + "<script>x</script>", authors=[safe, "\x01"])
        paper.listings = [Listing(day=datetime.date(2025, 8, 20), position=9)]
        session.add(paper)
    return database


def test_every_feed_is_valid(hostile: Database, client: TestClient) -> None:
    for path in FEEDS:
        response = client.get(form(path, "atom"))
        assert response.headers["content-type"].startswith("application/atom+xml")
        parsed = read_atom(response.content)
        response = client.get(form(path, "json"))
        assert response.headers["content-type"] == "application/feed+json"
        items = read_json(response.content)["items"]
        assert [item["id"] for item in items] == [entry.id for entry in parsed.entries]
        assert [item["title"] for item in items] == [entry.title_detail.value for entry in parsed.entries]


def test_titles_and_texts_arrive_as_text(hostile: Database, client: TestClient) -> None:
    [entry] = [entry for entry in read_atom(client.get("/feeds/newest.atom").content).entries if "ёжик" in entry.title]
    assert entry.title_detail.type == "text/plain"
    shown = client.get("/feeds/newest.json").json()["items"]
    [title] = [item["title"] for item in shown if "ёжик" in item["title"]]
    assert title.startswith("A <b>b</b> & ]]> ")
    assert not re.search("[\x00-\x1f\ufffe\u202e]", title)
    [content] = [item["content_html"] for item in shown if "ёжик" in item["title"]]
    assert "&lt;script&gt;" in content
    assert "<script" not in content


@pytest.mark.parametrize("write", [atom, json_feed])
def test_what_a_database_could_hold_breaks_no_feed(write: Callable[..., bytes]) -> None:
    paper = Paper(id=1, title=HOSTILE, abstract=HOSTILE, authors=[HOSTILE], family=None, added_at=START)
    content = write(Feed(HOSTILE, "/feeds/newest", "/", [paper]), "http://127.0.0.1")
    assert (read_atom if write is atom else read_json)(content)


def test_feeds_list_what_pages_list(client: TestClient) -> None:
    for path, page in {
        "/feeds/day/2025-08-20": "/2025-08-20",
        "/feeds/trending": "/trending",
        "/feeds/topic/stream": "/topics/stream",
    }.items():
        listed = re.findall(r'class="title tex"><a href="([^"]+)"', client.get(page).text)
        assert len(listed) >= 3
        assert [
            entry.link.removeprefix("http://127.0.0.1")
            for entry in read_atom(client.get(path + ".atom").content).entries
        ] == listed
        for suffix in ("atom", "json"):
            assert f'href="{path}.{suffix}"' in client.get(page).text


def test_an_entry_says_what_was_measured(recorded_alpha: Path, client: TestClient) -> None:
    [item] = [item for item in client.get("/feeds/newest.json").json()["items"] if "Alpha" in item["title"]]
    assert item["_offprint"]["measured"] == "2 of 4 claims reproduced"
    assert item["_offprint"]["claims"][0] == {"id": "is-large", "verdict": "reproduced"}
    assert "<p>2 of 4 claims reproduced</p><p>Solves small games" in item["content_html"]
    measured = json.loads((recorded_alpha / "alpha-method.json").read_text(encoding="utf-8"))["measured_at"]
    assert datetime.datetime.fromisoformat(item["date_modified"]) >= datetime.datetime.fromisoformat(measured)
    assert item["external_url"] == "https://arxiv.org/abs/2501.00001"


def test_nothing_changes_until_something_does(client: TestClient, database: Database) -> None:
    for path in ("/feeds/newest.atom", "/feeds/newest.json"):
        first, second = client.get(path), client.get(path)
        assert first.content == second.content
        assert [first.headers[name] for name in ("etag", "last-modified")] == [
            second.headers[name] for name in ("etag", "last-modified")
        ]
        etag, since = first.headers["etag"], first.headers["last-modified"]
        for asked in ({"If-None-Match": etag}, {"If-None-Match": f'"x", W/{etag}'}, {"If-Modified-Since": since}):
            response = client.get(path, headers=asked)
            assert (response.status_code, response.content) == (304, b"")
            assert response.headers["etag"] == etag
        with database.session() as session:
            session.execute(update(Paper).where(Paper.slug == "beta-test").values(title=f"Renamed for {path}"))
        for asked in (
            {"If-None-Match": etag},
            {"If-Modified-Since": since},
            {"If-None-Match": etag, "If-Modified-Since": since},
        ):
            response = client.get(path, headers=asked)
            assert response.status_code == 200
            assert parsedate_to_datetime(response.headers["last-modified"]) > parsedate_to_datetime(since)


def test_an_entry_keeps_its_id_and_its_times(client: TestClient, database: Database) -> None:
    def told() -> dict[str, tuple[str, str]]:
        entries = read_atom(client.get("/feeds/newest.atom").content).entries
        return {entry.link: (entry.id, entry.updated) for entry in entries}

    before = told()
    with database.session() as session:
        session.add(paper := Paper(title="New", title_key="n"))
        paper.listings = [Listing(day=datetime.date(2025, 8, 21))]
        session.execute(update(Paper).where(Paper.slug == "beta-test").values(n_votes=3, hotness=1e9))
    after = told()
    assert len(after) == len(before) + 1
    assert {link: after[link] for link in before} == before
    assert next(iter(told())) == "http://127.0.0.1/papers/" + str(paper.id)


def test_feeds_carry_the_operators_address(database: Database) -> None:
    settings = Settings(base_url="https://papers.example.org", secret="only for tests")
    found = feedparser.parse(TestClient(create_app(database, settings=settings)).get("/feeds/newest.atom").content)
    assert found.entries[0].link.startswith("https://papers.example.org/papers/")
    assert found.entries[0].id.startswith("tag:papers.example.org,2025:papers/")


def test_a_long_day_comes_in_pages(database: Database, client: TestClient) -> None:
    with database.session() as session:
        session.execute(insert(Paper), [{"id": 1000 + n, "title": f"{n}", "title_key": f"{n}"} for n in range(150)])
        day = datetime.date(2025, 9, 9)
        session.execute(insert(Listing), [{"day": day, "paper_id": 1000 + n, "position": n} for n in range(150)])
    for suffix, read in (("atom", read_atom), ("json", read_json)):
        address, titles = f"/feeds/day/2025-09-09.{suffix}", []
        while address and len(titles) < 200:
            feed = read(client.get(address).content)
            titles += [entry["title"] for entry in (feed.entries if suffix == "atom" else feed["items"])]
            if suffix == "atom":
                address = next((link.href for link in feed.feed.links if link.rel == "next"), "")
            else:
                address = feed.get("next_url", "")
        assert titles == [f"{n}" for n in range(150)]


def test_what_is_no_feed_is_not_found(client: TestClient) -> None:
    for path in ("/feeds/newest.rss", "/feeds/newest", "/feeds/day/2025-02-30.atom", "/feeds/topic/none.json",
                 "/feeds/trending.atom?p=2", "/feeds/trending.atom?p=0",
                 "/feeds/.atom", "/feeds/day/.json"):  # fmt: skip
        assert client.get(path).status_code == 404, path


def test_head_is_answered_like_get(client: TestClient) -> None:
    head, get = client.head("/feeds/newest.atom"), client.get("/feeds/newest.atom")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == get.headers["etag"]


def test_editions_differ_by_a_whole_second() -> None:
    editions = Editions(clock=lambda: START)
    dates = [
        parsedate_to_datetime(editions.headers("feed", content)["Last-Modified"])
        for content in (b"a", b"a", b"b", b"a")
    ]
    second = datetime.timedelta(seconds=1)
    begun = START.replace(microsecond=0)
    assert dates == [begun, begun, begun + second, begun + 2 * second]


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({}, False),
        ({"if-none-match": '"e"'}, True),
        ({"if-none-match": 'W/"e"'}, True),
        ({"if-none-match": '"a", "e"'}, True),
        ({"if-none-match": "*"}, True),
        ({"if-none-match": '"a"'}, False),
        ({"if-none-match": ""}, False),
        ({"if-none-match": '"a"', "if-modified-since": format_datetime(START, usegmt=True)}, False),  # RFC 9110, 13.1.3
        ({"if-modified-since": format_datetime(START, usegmt=True)}, True),
        ({"if-modified-since": format_datetime(START - datetime.timedelta(seconds=1), usegmt=True)}, False),
        ({"if-modified-since": "Wed, 20 Aug 2025 09:30:15"}, True),
        ({"if-modified-since": "yesterday"}, False),
        ({"if-modified-since": "Wed, 20 Aug 99999 09:30:15 GMT"}, False),
    ],
)
def test_conditions(asked: dict[str, str], answer: bool) -> None:
    headers = {"ETag": '"e"', "Last-Modified": format_datetime(START, usegmt=True)}
    assert unchanged(asked, headers) is answer
