from __future__ import annotations

import datetime
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from sqlalchemy import event
from sqlalchemy.orm import Session
from starlette.datastructures import Headers
from tests.daily.conftest import Site

from offprint.daily import trending
from offprint.daily.api.listed import Asked, page_of
from offprint.daily.api.markdown import markdown, plain
from offprint.daily.api.telling import told_number
from offprint.daily.conditions import unchanged
from offprint.daily.library import title_key
from offprint.daily.measured import Number
from offprint.daily.periods import Period
from offprint.daily.routes import api as api_routes
from offprint.store import Account, Database, Listing, Paper

DAY = datetime.date(2024, 12, 25)
UTC = datetime.UTC


@dataclass(frozen=True)
class Known:
    """A listing, as the tests know it."""

    paper: int
    day: datetime.date
    position: int
    submitter: str | None
    hotness: float


def add_paper(session: Session, title: str, **values: object) -> Paper:
    paper = Paper(**{"title": title, "title_key": title_key(title), "authors": ["Ada Lovelace"], **values})
    session.add(paper)
    session.flush()
    return paper


@pytest.fixture
def known(database: Database) -> list[Known]:
    """Sixty papers over the turn of a year, some on several days, in place of those on record."""
    chance = random.Random(1)
    found = []
    with database.session() as session:
        session.query(Listing).delete()
        places: dict[datetime.date, int] = {}
        for number in range(60):
            hotness = round(chance.uniform(0, 5))  # with ties
            paper = add_paper(session, f"Paper {number}", arxiv=f"2412.{number:05}", hotness=hotness)
            for offset in chance.sample(range(14), k=chance.choice([0, 1, 1, 1, 2, 3])):
                day = DAY + datetime.timedelta(days=offset)
                submitter = chance.choice([None, "ada", "Grace-H"])
                place = places[day] = places.get(day, -1) + 1
                listing = Listing(day=day, paper_id=paper.id, position=place, submitter=submitter)
                session.add(listing)
                found.append(Known(paper.id, day, place, submitter, hotness))
    return found


def expected(known: list[Known], sort: str, keep: Callable[[Known], bool]) -> list[int]:
    """Which papers a list holds, worked out one by one."""
    newest: dict[int, Known] = {}
    for listing in filter(keep, known):
        if listing.paper not in newest or listing.day > newest[listing.paper].day:
            newest[listing.paper] = listing
    if sort == "trending":
        return sorted(newest, key=lambda paper: (-newest[paper].hotness, -paper))
    return sorted(newest, key=lambda paper: (-newest[paper].day.toordinal(), newest[paper].position))


def listed(client: Site, address: str) -> list[int]:
    """Follow a list to its end and return the numbers in the titles."""
    found: list[int] = []
    while address:
        response = client.get(address)
        assert response.status_code == 200, response.text
        found += [int(entry["title"].split()[-1]) for entry in response.json()]
        address = response.links.get("next", {}).get("url", "")
    return found


CASES: list[tuple[str, Callable[[Known], bool]]] = [
    ("", lambda listing: True),
    ("date=2024-12-31", lambda listing: listing.day == datetime.date(2024, 12, 31)),
    ("date=2023-12-31", lambda listing: False),
    # The week that holds New Year belongs to 2025, the day before it to 2024.
    ("week=2025-W01", lambda listing: listing.day.isocalendar()[:2] == (2025, 1)),
    ("week=2024-W52", lambda listing: listing.day.isocalendar()[:2] == (2024, 52)),
    ("month=2024-12", lambda listing: (listing.day.year, listing.day.month) == (2024, 12)),
    ("submitter=ada", lambda listing: listing.submitter == "ada"),
    ("submitter=nobody", lambda listing: False),
    (
        "week=2025-W01&month=2024-12&submitter=Grace-H",
        lambda listing: (
            listing.day.isocalendar()[:2] == (2025, 1) and listing.day.year == 2024 and listing.submitter == "Grace-H"
        ),
    ),
]


@pytest.mark.parametrize("sort", ["publishedAt", "trending"])
def test_lists_hold_what_is_asked_for_page_after_page(client: Site, known: list[Known], sort: str) -> None:
    with client.app.state.database.session() as session:
        numbers = {paper.id: int(paper.title[6:]) for paper in session.query(Paper) if paper.title[:6] == "Paper "}
    for asked, keep in CASES:
        wanted = [numbers[paper] for paper in expected(known, sort, keep)]
        assert listed(client, f"/api/daily_papers?{asked}&sort={sort}&limit=7") == wanted, asked
        assert listed(client, f"/api/daily_papers?{asked}&sort={sort}&limit=100") == wanted, asked


def test_pages_are_counted_from_zero_and_end(client: Site, known: list[Known]) -> None:
    first, second = (client.get(f"/api/daily_papers?limit=3&p={p}").json() for p in (0, 1))
    both = client.get("/api/daily_papers?limit=6").json()
    assert [*first, *second] == both
    beyond = client.get("/api/daily_papers?limit=3&p=100000")
    assert beyond.json() == []
    assert "link" not in beyond.headers
    link = client.get("/api/daily_papers?sort=trending&limit=3&p=1").headers["link"]
    assert link == '<http://127.0.0.1/api/daily_papers?sort=trending&limit=3&p=2>; rel="next"'


UNREADABLE = [
    ("daily_papers?date=2025-02-30", ["date"]),
    ("daily_papers?date=20250220", ["date"]),
    ("daily_papers?date=1740009600", ["date"]),
    ("daily_papers?date=", ["date"]),
    ("daily_papers?date=%D9%A2025-01-01", ["date"]),
    ("daily_papers?week=2025-W00", ["week"]),
    ("daily_papers?week=2025-W54", ["week"]),
    ("daily_papers?week=2025W01", ["week"]),
    ("daily_papers?month=2025-13", ["month"]),
    ("daily_papers?month=0000-01", ["month"]),
    ("daily_papers?month=2025-01%0A", ["month"]),
    ("daily_papers?submitter=%01", ["submitter"]),
    ("daily_papers?sort=upvotes", ["sort"]),
    ("daily_papers?p=-1", ["p"]),
    ("daily_papers?p=100001", ["p"]),
    ("daily_papers?p=99999999999999999999999999", ["p"]),
    ("daily_papers?limit=0", ["limit"]),
    ("daily_papers?limit=101&p=x&month=1", ["month", "p", "limit"]),
    ("papers/search?q=a&limit=nan", ["limit"]),
    ("papers/search?q=" + "a" * 2000, ["q"]),
    ("claims?verdict=true", ["verdict"]),
    ("claims?family=poetry", ["family"]),
]


def test_parameters_that_cannot_be_read_are_named(client: Site) -> None:
    for asked, names in UNREADABLE:
        response = client.get(f"/api/{asked}")
        told = response.json()
        assert (response.status_code, told["status"], told["title"]) == (400, 400, "Bad Request"), asked
        assert response.headers["content-type"] == "application/problem+json"
        assert [fault["parameter"] for fault in told["errors"]] == names
        assert all(f"{name}: " in told["detail"] for name in names)
        assert told["instance"] == f"/api/{asked.partition('?')[0]}"


def test_weeks_that_a_year_does_not_have(client: Site) -> None:
    assert client.get("/api/daily_papers?week=2020-W53").status_code == 200
    refused = client.get("/api/daily_papers?week=2025-W53")
    assert refused.status_code == 422
    assert refused.json()["detail"] == "week: 2025 has no week 53"


@settings(max_examples=50)
@given(st.dates())
def test_days_weeks_and_months_agree_with_the_calendar(day: datetime.date) -> None:
    year, week, weekday = day.isocalendar()
    if year <= datetime.MAXYEAR:
        of_week = Period.read("week", f"{year:04}-W{week:02}")
        assert of_week.first <= day <= of_week.last
        assert of_week.first.weekday() == 0
        assert (of_week.last - of_week.first).days == 6 or of_week.last == datetime.date.max
        assert weekday == day.isoweekday()
    of_month = Period.read("month", f"{day:%Y-%m}".rjust(7, "0"))
    assert of_month.first.day == 1
    assert of_month.first <= day <= of_month.last
    assert of_month.last == datetime.date.max or (of_month.last + datetime.timedelta(days=1)).day == 1
    assert Period.read("day", day.isoformat()) == Period("day", day, day)


WEIRD = st.text(max_size=40) | st.from_regex(r"\A-?[0-9]{1,6}-?(W|w)?[0-9]{1,3}(-[0-9]{1,3})?\Z")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["date", "week", "month", "submitter", "sort", "p", "limit", "q", "verdict"]),
    path=st.sampled_from(["/api/daily_papers", "/api/papers/search", "/api/claims"]),
    value=WEIRD,
)
def test_whatever_is_typed_gets_an_answer_that_can_be_read(client: Site, name: str, path: str, value: str) -> None:
    response = client.get(path, params={name: value})
    assert response.status_code in (200, 400, 422)
    assert isinstance(response.json(), list if response.status_code == 200 else dict)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=60))
def test_whatever_name_a_paper_is_asked_by(client: Site, name: str) -> None:
    for address in (f"/api/papers/{quote(name, safe='')}", f"/papers/{quote(name, safe='')}.md"):
        response = client.get(address)
        assert response.status_code in (200, 404) or name in (".", "..")
        if response.status_code == 404:
            assert response.headers["content-type"] == "application/problem+json"


def test_papers_have_the_names_that_they_have(client: Site, database: Database) -> None:
    with database.session() as session:
        old = add_paper(session, "Of old", arxiv="hep-th/9901001")
        bare = add_paper(session, "Of none")
    for name in ("2501.00001", "2501.00001v3", "alpha-method"):
        assert client.get(f"/api/papers/{name}").json()["id"] == "2501.00001"
    assert client.get("/api/papers/hep-th/9901001").json()["title"] == old.title
    assert client.get("/papers/hep-th/9901001.md").text.startswith("# Of old\n")
    assert client.get(f"/api/papers/{bare.id}").json()["id"] == str(bare.id)
    for name in ("2501.00001v", "v1", "2501", "alpha-method/", "0", "99999999999", "%00", "%ED%A0%80"):
        refused = client.get(f"/api/papers/{name}")
        assert refused.status_code == 404, name
        assert refused.headers["content-type"] == "application/problem+json"


def test_a_paper_tells_all_there_is(client: Site, database: Database, recorded_alpha: object) -> None:
    with database.session() as session:
        ada = Account(email="ada@example.org", handle="ada", name="Ada L.")
        session.add(ada)
        session.flush()
        paper = session.query(Paper).filter_by(slug="alpha-method").one()
        paper.abstract, paper.n_votes, paper.n_comments = "An abstract.", 7, 2
        paper.published_at = datetime.datetime(2025, 1, 1, 17, 30, 1, 250_000, tzinfo=UTC)
        paper.listings[0].submitter, paper.listings[0].account_id = "ada", ada.id
        paper.listings[0].submitted_at = datetime.datetime(2025, 8, 20, 9, tzinfo=UTC)
    told = client.get("/api/papers/2501.00001").json()
    assert {key: told[key] for key in ("id", "summary", "upvotes", "numComments", "publishedAt")} == {
        "id": "2501.00001",
        "summary": "An abstract.",
        "upvotes": 7,
        "numComments": 2,
        "publishedAt": "2025-01-01T17:30:01.250Z",
    }
    assert [author["name"] for author in told["authors"]][:2] == ["Ada Lovelace", "Björn Åström"]
    assert told["submittedOnDailyAt"] == "2025-08-20T09:00:00.000Z"
    assert (told["submittedOnDailyBy"]["user"], told["submittedOnDailyBy"]["fullname"]) == ("ada", "Ada L.")
    assert told["projectPage"] == "https://example.org/alpha"
    ours = told["offprint"]
    assert ours["badge"] == "2 of 4 claims reproduced"
    assert ours["page"] == "http://127.0.0.1/papers/alpha-method"
    assert ours["importLines"] == ["from offprint.statistics import bootstrap_interval"]
    large, _, small, unknown = ours["claims"]
    # The claim measures 4.5 + 0.1 * seed over the seeds 0, 1 and 2.
    assert (large["value"], large["interval"], large["seeds"]) == (4.6, [4.5, 4.7], 3)
    assert (large["rule"], large["verdict"], large["reported"], large["scale"]) == ("≥ 4", "reproduced", 4.2, "full")
    assert large["also"][0]["value"] == 1.0
    assert (small["verdict"], small["value"]) == ("not reproduced", 3.0)
    assert (unknown["verdict"], unknown["rule"]) == ("not yet measured", "0 to 1")
    assert "value" not in unknown
    # The same on a list, where the Hub's client reads some of it beside the paper.
    [entry] = [entry for entry in client.get("/api/daily_papers").json() if entry["paper"]["id"] == "2501.00001"]
    assert entry["offprint"] == ours
    assert entry["paper"] == {key: value for key, value in told.items() if key != "offprint"}
    with database.session() as session:  # brought there elsewhere, by someone of the same handle
        session.query(Listing).update({"account_id": None})
    namesake = client.get("/api/papers/2501.00001").json()["submittedOnDailyBy"]
    assert (namesake["user"], namesake["fullname"]) == ("ada", "ada")


def test_addresses_that_do_not_lead_to_the_web_are_not_told(client: Site, database: Database) -> None:
    with database.session() as session:
        paper = add_paper(session, "Sly", code="javascript:alert(1)")
        other = add_paper(session, "Open", code="https://github.com/ada/engine")
    assert "javascript" not in client.get(f"/api/papers/{paper.id}").text
    assert client.get(f"/api/papers/{other.id}").json()["githubRepo"] == "https://github.com/ada/engine"


def test_what_is_not_finite_has_no_place_in_json() -> None:
    for odd in (math.inf, -math.inf, math.nan):
        told = told_number(Number("the number", "≥ 1", odd, (0.0, odd), "reproduced", None))
        assert (told.value, told.interval) == (None, None)
    assert told_number(Number("the number", "≥ 1", 2.0, (1.0, 3.0), "reproduced", None)).interval == (1.0, 3.0)


def test_search_finds_and_pages(client: Site, database: Database) -> None:
    with database.session() as session:
        for number in range(5):
            add_paper(session, f"Zebra crossings, part {number}", abstract="Stripes of paint.")
    found = client.get("/api/papers/search?q=zebra&limit=2")
    assert len(found.json()) == 2
    titles = [entry["title"] for entry in found.json()]
    while "next" in found.links:
        found = client.get(found.links["next"]["url"])
        titles += [entry["title"] for entry in found.json()]
    assert sorted(titles) == [f"Zebra crossings, part {number}" for number in range(5)]
    assert client.get("/api/papers/search?q=zebra -paint").json() == []
    assert client.get("/api/papers/search?q=!!!").json() == []
    # Without words: the newest.
    assert client.get("/api/papers/search").json() == client.get("/api/daily_papers?limit=20").json()


def test_claims_by_verdict_and_family(client: Site, recorded_alpha: object) -> None:
    every = client.get("/api/claims").json()
    assert [(entry["paperId"], entry["claim"]["id"]) for entry in every] == [
        ("2501.00001", "is-large"),
        ("2501.00001", "always-true"),
        ("2501.00001", "is-small"),
        ("2501.00001", "no-function"),
        ("2501.00002", "breaks"),
        ("2501.00004", "breaks"),
        ("2501.00003", "breaks"),
    ]
    failed = client.get("/api/claims?verdict=not reproduced").json()
    assert [entry["claim"]["id"] for entry in failed] == ["is-small"]
    assert failed[0]["page"] == "http://127.0.0.1/papers/alpha-method#is-small"
    assert {entry["family"] for entry in client.get("/api/claims?family=stream").json()} == {"stream"}
    pages, address = [], "/api/claims?limit=3"
    while address:
        response = client.get(address)
        pages.append(response.json())
        address = response.links.get("next", {}).get("url", "")
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [entry for page in pages for entry in page] == every


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    """The statements that the database is sent."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(database.engine, "before_cursor_execute", note)


@pytest.mark.parametrize("asked", ["daily_papers?", "daily_papers?sort=trending", "papers/search?q=paper"])
def test_a_longer_list_takes_no_more_queries(
    client: Site, known: list[Known], statements: list[str], asked: str
) -> None:
    counts = []
    for limit in (1, 5, 50):
        client.get("/api/daily_papers?limit=100")  # what is kept between requests is kept
        statements.clear()
        assert client.get(f"/api/{asked}&limit={limit}").status_code == 200
        counts.append(len(statements))
    assert counts[1] == counts[2] <= 8, statements


def test_etags_change_with_the_answer_and_only_then(client: Site, database: Database) -> None:
    first = client.get("/api/daily_papers")
    etag = first.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)  # strong: no W/
    assert client.get("/api/daily_papers").headers["etag"] == etag
    for sent in (etag, f'"other", W/{etag}', "*"):
        same = client.get("/api/daily_papers", headers={"If-None-Match": sent})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        assert same.headers["cache-control"] == "public, max-age=60"
    assert client.get("/api/daily_papers", headers={"If-None-Match": '"other"'}).status_code == 200
    with database.session() as session:
        paper = session.query(Paper).filter_by(slug="alpha-method").one()
        paper.n_votes += 1
    changed = client.get("/api/daily_papers", headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag
    # What is not there has no version.
    assert client.get("/api/papers/none", headers={"If-None-Match": "*"}).status_code == 404


@settings(max_examples=50)
@given(st.lists(st.from_regex(r'\A(W/)?"[0-9a-f]{0,4}"\Z'), max_size=4))
def test_if_none_match_lists_versions(tags: list[str]) -> None:
    headers = Headers({"If-None-Match": ", ".join(tags)})
    assert unchanged(headers, {"ETag": '"ab"'}) == any(tag in ('"ab"', 'W/"ab"') for tag in tags)


READABLE = ["/api/daily_papers", "/api/papers/search?q=a", "/api/papers/2501.00001", "/papers/alpha-method.md",
            "/api/claims", "/api/openapi.json"]  # fmt: skip


@pytest.mark.parametrize("address", READABLE)
def test_every_address_answers_programs_everywhere(client: Site, address: str) -> None:
    client.cookies.set("offprint_visitor", "0" * 32)
    got = client.get(address, headers={"Origin": "https://elsewhere.example"})
    head = client.head(address)
    assert head.content == b""
    assert head.headers == {**got.headers}
    assert head.headers["content-length"] == str(len(got.content))
    assert got.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in got.headers
    assert "set-cookie" not in got.headers
    assert got.headers["x-content-type-options"] == "nosniff"
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET",
             "Access-Control-Request-Headers": "if-none-match"}  # fmt: skip
    leave = client.options(address, headers=asked)
    assert leave.status_code == 204
    assert "If-None-Match" in leave.headers["access-control-allow-headers"]
    assert leave.headers["access-control-allow-methods"] == "GET, HEAD"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        refused = client.request(method, address)
        assert refused.status_code == 405
        assert refused.headers["content-type"] == "application/problem+json"
        assert {"GET", "HEAD"} <= set(refused.headers["allow"].split(", "))


def test_scripts_of_other_sites_read_the_api_only(client: Site) -> None:
    for address in ("/", "/api", "/papers/alpha-method", "/search?q=a", "/nowhere", "/healthz"):
        response = client.get(address)
        assert "access-control-allow-origin" not in response.headers, address
    for address in ("/", "/nowhere", "/papers/none"):
        assert client.get(address).headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("address", ["/api/nothing", "/api/papers/", "/papers/none.md", "/api/%C3%BC%00"])
def test_addresses_that_are_none(client: Site, address: str) -> None:
    response = client.get(address)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    told = response.json()
    assert (told["type"], told["title"], told["status"], told["instance"]) == ("about:blank", "Not Found", 404, address)


def test_errors_of_ours_are_problems_without_a_trace(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret inner state")

    monkeypatch.setattr(api_routes, "page_of", fail)
    response = site(raise_server_exceptions=False).get("/api/daily_papers")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["access-control-allow-origin"] == "*"
    assert "secret" not in response.text
    assert response.json()["title"] == "Internal Server Error"


def test_bodies_that_are_too_large_are_problems(client: Site) -> None:
    response = client.post("/api/daily_papers", content=b"x" * 5_000_000)
    assert response.status_code in (405, 413)
    assert response.headers["content-type"] == "application/problem+json"


def test_the_page_about_the_api_shows_every_operation(client: Site) -> None:
    page = client.get("/api").text
    for path, operations in client.get("/api/openapi.json").json()["paths"].items():
        assert f"<code>{path}</code>" in page
        assert all(f"<code>{item['name']}</code>" in page for item in operations["get"]["parameters"])
    assert client.head("/api").status_code == 200


def test_markdown_tells_what_was_measured(client: Site, recorded_alpha: object) -> None:
    response = client.get("/papers/alpha-method.md")
    assert response.headers["content-type"] == "text/markdown; charset=utf-8"
    tokens = MarkdownIt("commonmark", {"html": True}).parse(response.text)
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[1:] == [
        "Summary",
        "Use it",
        "What it claims, and what was measured",
        "The number is large.",
        r"It always \<i>holds\</i>.",
        "The other number is small.",
        "Nobody has written this check.",
    ]
    for part in ("Ada Lovelace, Björn Åström", "2 of 4 claims reproduced", "measured 4.6 (4.5 to 4.7)", "≤ 1"):
        assert part in response.text
    assert "**not reproduced**" in response.text


ATTACKS = [
    "<script>alert(1)</script>",
    "# Heading",
    "text\n# Heading\n\n- item",
    "[here](javascript:alert(1))",
    "[x]: javascript:alert(1) 'y'",
    "<javascript:alert(1)>",
    "![x](https://evil.example/x.png)",
    "---\n<img src=x onerror=alert(1)>",
    "> quote",
    "```\ncode",
    "<!-- hidden -->",
    "a\u2028# b\x85# c",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_markdown_that_others_wrote_stays_text(attack: str) -> None:
    paper = Paper(id=1, title=attack, authors=[attack], abstract=attack, venue=attack)
    tokens = MarkdownIt("commonmark", {"html": True}).parse(markdown(paper, None, "https://example.org"))
    flat = [*tokens, *(child for token in tokens for child in token.children or ())]
    found = {token.type for token in flat}
    assert not found & {"html_block", "html_inline", "link_open", "image", "fence", "blockquote_open", "hr"}
    assert sum(token.type == "heading_open" for token in tokens) == 2


@given(st.text(alphabet="ab <>#[]()!`*_-\n\r\t:&/\\=|~+", max_size=60))
def test_markdown_finds_no_html_heading_or_link_in_text(written: str) -> None:
    tokens = MarkdownIt("commonmark", {"html": True}).parse(plain(written))
    flat = [*tokens, *(child for token in tokens for child in token.children or ())]
    assert not {token.type for token in flat} & {"html_block", "html_inline", "link_open", "image", "heading_open"}


def test_a_million_pages_on_is_still_an_answer(database: Database, known: list[Known]) -> None:
    with database.session() as session:
        for order in ("publishedAt", "trending"):
            assert page_of(session, Asked(), order, 100_000, 100) == ([], False)


def test_trending_is_what_the_formula_says(client: Site, database: Database) -> None:
    with database.session() as session:
        old, new = (
            add_paper(session, title, hotness=trending.listed_hotness(day), listings=[Listing(day=day)])
            for title, day in (("Old 0", datetime.date(2030, 1, 1)), ("New 1", datetime.date(2030, 1, 2)))
        )
        assert old.hotness < new.hotness
    assert listed(client, "/api/daily_papers?sort=trending&month=2030-01") == [1, 0]
