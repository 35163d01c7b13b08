"""Days, weeks, months, the calendar, trending and topics: what they list, in which order, and where they lead."""

from __future__ import annotations

import datetime
import html
import re

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert

from offprint.daily import trending
from offprint.daily.library import load_records
from offprint.papers import record, records
from offprint.store import Account, Database, Listing, Paper, Vote

ALPHA_TITLE = "Alpha: a &lt;b&gt;Method&lt;/b&gt; &amp; its &#34;Limits&#34; for Gröbner Bases"


def test_the_day_lists_its_papers(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.text == client.get("/2025-08-20").text
    assert "Wednesday, 20 August 2025" in page.text
    places = [page.text.index(f'href="/papers/{slug}"') for slug in records()]
    assert places == sorted(places)
    assert ALPHA_TITLE in page.text
    assert "Ada Lovelace, Björn Åström, C Third and 2 others" in page.text
    assert page.text.count("not yet measured") == 4
    assert '<a class="family" href="/topics/stream">stream</a>' in page.text


def test_days_lead_to_their_neighbours(client: TestClient, database: Database) -> None:
    other = record("beta-test").model_copy(update={"day": datetime.date(2025, 8, 19)})
    load_records(database, [other])
    assert 'rel="prev" href="/2025-08-19"' in client.get("/2025-08-20").text
    earlier = client.get("/2025-08-19").text
    assert 'rel="next" href="/2025-08-20"' in earlier
    assert "1 paper," in earlier


def titles(page: str) -> list[str]:
    return re.findall(r'<h[23] class="title tex"><a href="[^"]+">([^<]+)</a>', page)


def linked(page: str, said: str) -> str | None:
    """Return where the link that says something leads."""
    found = re.findall(rf'<a [^>]*href="([^"]+)">[^<]*{said}', page)
    return html.unescape(found[0]) if found else None


@pytest.fixture
def listed(database: Database) -> Database:
    """The papers A to E on days about two months' ends, where A is listed on two days."""
    days = {"A": [(8, 29), (9, 1)], "B": [(8, 29)], "C": [(8, 31)], "D": [(9, 1)], "E": [(9, 30)]}
    votes = {"A": 1, "B": 5, "C": 5, "D": 0, "E": 2}
    with database.session() as session:
        for place, (title, dates) in enumerate(days.items()):
            paper = Paper(title=title, title_key=title, n_votes=votes[title])
            paper.listings = [Listing(day=datetime.date(2025, *date), position=place) for date in dates]
            paper.hotness = trending.listed_hotness(max(listing.day for listing in paper.listings))
            session.add(paper)
    return database


ORDERS = {
    "/2025-08-29": "AB",
    "/2025-08-29?sort=votes": "BA",
    "/2025-08-29?sort=trending": "AB",
    "/2025-09-01": "AD",
    "/2025-09-01?sort=trending": "DA",  # as hot: the one added last comes first
    "/week/2025-W35": "CBA",  # 25 to 31 August, by votes, then hotness
    "/week/2025-W35?sort=listed": "CAB",
    "/week/2025-W35?sort=trending": "ACB",
    "/week/2025-W36": "AD",
    "/month/2025-09?sort=listed": "EAD",
    "/month/2025-09": "EAD",
    "/month/2025-09?sort=trending": "EDA",
    "/trending": "EDACB",
}


def test_lists_are_in_their_order(listed: Database, client: TestClient) -> None:
    found = {path: "".join(title for title in titles(client.get(path).text) if len(title) == 1) for path in ORDERS}
    assert found == ORDERS


def test_a_list_by_days_names_them(listed: Database, client: TestClient) -> None:
    page = client.get("/month/2025-09?sort=listed").text
    assert re.findall(r'<h2 class="when"><a href="/([\d-]+)">', page) == ["2025-09-30", "2025-09-01"]
    assert page.count('<h3 class="title') == 3
    assert "3 papers" in page


NEAREST = {
    "/2025-08-30": ("Saturday, 30 August 2025", "/2025-08-29", "/2025-08-31"),
    "/2024-01-01": ("Monday, 1 January 2024", None, "/2025-08-20"),
    "/2030-01-01": ("Tuesday, 1 January 2030", "/2025-09-30", None),
    "/week/2025-W36": ("1 to 7 September 2025", "/week/2025-W35", "/week/2025-W40"),
    "/week/2025-W37": ("8 to 14 September 2025", "/week/2025-W36", "/week/2025-W40"),
    "/week/2026-W01": ("29 December 2025 to 4 January 2026", "/week/2025-W40", None),
    "/month/2025-08": ("August 2025", None, "/month/2025-09"),
    "/month/2025-12": ("December 2025", "/month/2025-09", None),
    "/calendar/2024": ("2024", None, "/calendar/2025"),
    "/0001-01-01": ("Monday, 1 January 1", None, "/2025-08-20"),
    "/9999-12-31": ("Friday, 31 December 9999", "/2025-09-30", None),
    "/week/9999-W52": ("27 to 31 December 9999", "/week/2025-W40", None),
}


def test_periods_lead_to_the_nearest_with_papers(listed: Database, client: TestClient) -> None:
    for path, (title, before, after) in NEAREST.items():
        response = client.get(path)
        assert response.status_code == 200, path
        [heading] = re.findall(r"<h1>(.*)</h1>", response.text)
        assert re.sub(r"<[^>]+>", "", heading) == title
        found = [re.findall(rf'rel="{name}" href="([^"]+)"', response.text) for name in ("prev", "next")]
        assert found == [[before] if before else [], [after] if after else []], path


WIDER = {
    "/2024-12-30": ["/week/2025-W01", "/month/2024-12", "/calendar/2024"],
    "/2025-08-31": ["/week/2025-W35", "/month/2025-08", "/calendar/2025"],
    # A week is of the month and year of its Thursday, as its own name says.
    "/week/2025-W01": ["/month/2025-01", "/calendar/2025"],
    "/week/2020-W53": ["/month/2020-12", "/calendar/2020"],
    "/week/2021-W52": ["/month/2021-12", "/calendar/2021"],
    "/week/9999-W52": ["/month/9999-12", "/calendar/9999"],
    "/month/2025-08": ["/calendar/2025"],
}


def test_periods_lead_to_the_larger_ones_that_they_are_of(client: TestClient) -> None:
    for path, wider in WIDER.items():
        [links] = re.findall(r'<span class="wider">(.*?)</span>', client.get(path).text)
        assert re.findall(r'href="([^"]+)"', links) == wider, path


def test_an_empty_period_says_so(listed: Database, client: TestClient) -> None:
    for path in ("/2025-08-30", "/week/2025-W38", "/month/2025-12", "/calendar/2024"):
        response = client.get(path)
        assert response.status_code == 200
        assert "No papers are listed" in response.text
        assert '<meta name="robots" content="noindex">' in response.text
        assert "<article" not in response.text


IMPOSSIBLE = (
    "/week/2025-W54", "/week/2025-W00", "/week/2025-w34", "/week/2025-34", "/week/25-W34", "/month/2025-13",
    "/month/2025-8",
    "/month/0000-01", "/month/2025-08-20", "/calendar/0000", "/calendar/20255", "/calendar/x", "/topics/none",
    "/topics/",    "/2025-08-20?sort=best", "/2025-08-20?p=0", "/2025-08-20?p=2", "/2025-08-20?p=x",
    "/2025-08-20?p=99999999999999999999",
    "/trending?p=2", "/trending?p=-1", "/week/٢٠٢٥-W34",
)  # fmt: skip


def test_what_cannot_be_is_not_found(client: TestClient) -> None:
    for path in IMPOSSIBLE:
        response = client.get(path)
        assert response.status_code == 404, path
        assert "<h1>Not Found</h1>" in response.text


def test_the_calendar_leads_to_what_has_papers(listed: Database, client: TestClient) -> None:
    page = client.get("/calendar").text
    assert page == client.get("/calendar/2025").text
    days = re.findall(r'<td><a href="/([\d-]+)" title="(\d+) papers?">(\d+)</a>', page)
    assert days == [
        ("2025-08-20", "4", "20"), ("2025-08-29", "2", "29"), ("2025-08-31", "1", "31"),
        ("2025-09-01", "2", "1"), ("2025-09-30", "1", "30"),
    ]  # fmt: skip
    assert re.findall(r'<caption><a href="([^"]+)">', page) == ["/month/2025-08", "/month/2025-09"]
    weeks = re.findall(r'scope="row"><a href="/week/(2025-W\d+)"', page)
    assert weeks == ["2025-W34", "2025-W35", "2025-W36", "2025-W40"]


def test_a_topic_lists_its_papers(client: TestClient) -> None:
    page = client.get("/topics/stream").text
    assert titles(page) == ["Gamma Theory of Streams", "Endless of Streams", "Beta Testing of Streams"]
    assert 'href="/topics/optimize"' in page


def test_trending_says_how_it_is_computed(client: TestClient) -> None:
    page = client.get("/trending").text
    assert f"half as much after every {['', 'one', 'two', 'three'][int(trending.HALF_LIFE_DAYS)]} days" in " ".join(
        page.split()
    )
    assert (trending.VOTED, trending.LISTED, trending.COMMENTED) == (1, 2, 0.5)
    assert "A vote counts 1, being listed on a day 2, a reader who comments ½" in " ".join(page.split())


@pytest.fixture
def crowded(database: Database) -> Database:
    """A day with 150 papers whose titles are long."""
    day = datetime.date(2025, 9, 9)
    with database.session() as session:
        long = " ".join(["Characterization"] * 17)
        rows = [
            {"id": 1000 + n, "title": f"{n:03} {long}", "title_key": f"c{n}", "hotness": 9e9 - n,
             "n_votes": n, "n_comments": 9, "family": "optimize",
             "authors": ["Maximiliane Featherstonehaugh-Cholmondeley"] * 9}
            for n in range(150)
        ]  # fmt: skip
        session.execute(insert(Paper), rows)
        session.execute(insert(Listing), [{"day": day, "paper_id": 1000 + n, "position": n} for n in range(150)])
    return database


@pytest.mark.parametrize("path", ["/2025-09-09", "/week/2025-W37?sort=listed", "/trending", "/topics/optimize"])
def test_long_lists_come_in_small_pages(path: str, crowded: Database, client: TestClient) -> None:
    found: list[str] = []
    address, before = path, None
    while address:
        assert len(found) < 200
        page = client.get(address)
        assert len(page.content) < 100_000
        assert linked(page.text, "Previous page") == before
        found += titles(page.text)
        address, before = linked(page.text, "Next page"), address
    numbers = [int(title[:3]) for title in found if title[:3].isdigit()]
    assert numbers == list(range(150))


def test_pages_keep_the_order_that_was_asked_for(crowded: Database, client: TestClient) -> None:
    page = client.get("/2025-09-09?sort=votes").text
    assert titles(page)[0].startswith("149")
    assert linked(page, "Next page") == "/2025-09-09?sort=votes&p=2"
    second = client.get("/2025-09-09?sort=votes&p=2").text
    assert linked(second, "Previous page") == "/2025-09-09?sort=votes"
    assert titles(second)[0].startswith("089")


def test_readers_see_their_own_votes_and_pages_stay_small(
    crowded: Database, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with crowded.session() as session:
        session.add(reader := Account(email="ada@example.org", handle="ada", name="Ada <b>"))
        session.flush()
        session.add_all(Vote(account_id=reader.id, paper_id=number) for number in (1000, 1003))
    for module in ("routes.days", "rendering"):
        monkeypatch.setattr(f"offprint.daily.{module}.current", lambda request: reader)
    page = client.get("/2025-09-09").text
    assert len(page.encode()) < 100_000
    assert page.count('aria-pressed="true"') == 2
    assert page.count('aria-pressed="false"') == 58
    assert ">Ada &lt;b&gt;</a>" in page
    assert "/sign-in" not in page


def test_who_is_not_signed_in_is_led_there_and_back(client: TestClient) -> None:
    page = client.get("/").text
    assert 'href="/sign-in?next=/papers/alpha-method"' in page
    assert '<a class="who" href="/sign-in">Sign in</a>' in page
    assert '<form class="vote"' not in page


def test_comments_are_counted_where_there_are_any(database: Database, client: TestClient) -> None:
    with database.session() as session:
        session.query(Paper).filter(Paper.slug == "beta-test").update({"n_comments": 1})
    page = client.get("/").text
    assert re.findall(r'<a class="comments" href="([^"]+)">([^<]+)</a>', page) == [
        ("/papers/beta-test#comments", "1 comment")
    ]
