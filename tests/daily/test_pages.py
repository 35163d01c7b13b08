"""The pages: what they show, that nothing on them is live but what we wrote, and that errors are pages."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from offprint.daily.app import create_app
from offprint.daily.library import load_records
from offprint.daily.rendering import duration, number
from offprint.papers import Record, records
from offprint.store import Database, Listing, Paper

ALPHA_TITLE = "Alpha: a &lt;b&gt;Method&lt;/b&gt; &amp; its &#34;Limits&#34; for Gröbner Bases"
PAGES = (
    "/",
    "/2025-08-20",
    "/2025-08-21",
    "/week/2025-W34",
    "/month/2025-08?sort=listed",
    "/calendar",
    "/trending",
    "/topics/stream",
    "/papers/alpha-method",
    "/papers/gamma-theory",
    "/search",
    "/search?q=alpha",
    "/nothing",
)


class Page(HTMLParser):
    """What a strict Content-Security-Policy forbids, and where links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.links: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        if tag == "style" or "style" in given or any(name.startswith(("on", "hx-on")) for name in given):
            self.inline.append(f"{tag} {given}")
        if tag == "script" and not (given.get("src") or "").startswith("/static/"):
            self.inline.append(f"{tag} {given}")
        for name in ("href", "src", "action", "sse-connect"):
            if value := given.get(name):
                self.links.add(value)


@pytest.mark.parametrize(
    "path",
    ["/2025-8-20", "/2025-02-30", "/0-0-0", "/99999-1-1", "/papers/none", "/papers/",
     "/papers/none/bibtex", "/papers/none/ris", "/runs/1/events", "/runs/99999999999999/events", "/runs/x/events",
     "/%00", "/papers/%00"],
)  # fmt: skip
def test_what_is_not_there_is_a_page_that_says_so(path: str, client: TestClient) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert "<h1>Not Found</h1>" in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    "path",
    ["/figures/alpha-method/..%2f..%2falpha-method.json", "/figures/alpha-method/%2e%2e%2fsecret.svg",
     "/figures/..%2f..%2falpha-method/is-large.svg", "/figures/../results/alpha-method.json",
     "/figures/alpha-method/is-large.json", "/figures/alpha-method/unknown.svg", "/figures/none/is-large.svg",
     "/figures/alpha-method/no-function.svg", "/figures/alpha-method/no-function/here.svg",
     "/figures/alpha-method/is-large%00.svg", "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py",
     "/static/none.css"],
)  # fmt: skip
def test_nothing_but_figures_and_static_files_is_served(path: str, recorded_alpha: Path, client: TestClient) -> None:
    (recorded_alpha / "figures" / "secret.svg").write_text("<svg/>", encoding="utf-8")
    assert client.get(path).status_code == 404


def test_a_paper_has_one_address(client: TestClient, database: Database) -> None:
    with database.session() as session:
        hostile = '<img src=x onerror="alert(1)"> $a<b$'
        session.add(Paper(title=f"Imported {hostile}", title_key="i", abstract=hostile, arxiv="2401.12345"))
        session.add(Paper(title="Unknown", title_key="u", abstract="Only text."))
        session.flush()
        unknown = session.scalars(select(Paper).where(Paper.title == "Unknown")).one()
        unknown.listings.append(Listing(day=datetime.date(2025, 8, 21)))
    for name in ("2501.00001", "2501.00001v2", "arXiv:2501.00001"):
        assert client.get(f"/papers/{name}").headers["location"] == "/papers/alpha-method"
    assert client.get("/papers/2401.12345v3").headers["location"] == "/papers/2401.12345"
    imported = client.get("/papers/2401.12345")
    assert "&lt;img src=x onerror=&#34;alert(1)&#34;&gt; $a&lt;b$" in imported.text
    assert "img" not in Page(imported.text).tags
    assert client.get(f"/papers/{unknown.id}").status_code == 200
    assert f'href="/papers/{unknown.id}"' in client.get("/").text
    assert client.get("/papers/2401.12345/bibtex").status_code == 200


def test_search_shows_what_matches(client: TestClient) -> None:
    page = client.get("/search", params={"q": "gröbner <needle>"}).text
    assert "<h1>No papers</h1>" in page
    page = client.get("/search", params={"q": "GRÖBNER"}).text
    assert "<h1>1 paper</h1>" in page
    assert "for <mark>Gröbner</mark> Bases" in page
    assert 'value="GRÖBNER"' in page
    page = client.get("/search", params={"q": '"><script>alert(1)</script>'}).text
    assert "<script>alert" not in page
    assert client.get("/search", params={"q": "x" * 5000}).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_pages_hold_nothing_inline_and_lead_somewhere(path: str, recorded_alpha: Path, client: TestClient) -> None:
    page = Page(client.get(path).text)
    assert page.inline == []
    assert not {"iframe", "object", "embed", "base", "i" if path == "/nothing" else "iframe"} & page.tags
    for link in page.links:
        if link.startswith("/") and not link.endswith("/run"):
            answer = client.get(link)
            to_sign_in = answer.headers.get("location", "").startswith("/sign-in?next=")
            assert answer.status_code == 200 or to_sign_in, link
        else:
            assert link.startswith(("https://", "#", "/papers/")), link


@pytest.mark.parametrize(
    "path", [*PAGES, "/static/site.css", "/healthz", "/papers/alpha-method/bibtex", "/papers/2501.00001"]
)
def test_every_answer_is_strict(path: str, client: TestClient) -> None:
    headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy.pop("default-src") == policy.pop("base-uri") == policy.pop("frame-ancestors") == "'none'"
    assert set(policy.values()) == {"'self'"}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


def test_an_error_of_ours_is_a_page_without_a_trace(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(database)
    monkeypatch.setattr(app.state.measured, "papers", lambda found: 1 / 0)
    response = TestClient(app, raise_server_exceptions=False).get("/")
    assert response.status_code == 500
    assert "division" not in response.text
    assert "Something went wrong on our side" in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/papers/alpha-method", "/search?q=a", "/healthz", "/static/site.css"])
def test_head_is_answered_like_get(path: str, client: TestClient) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_other_methods_are_refused_with_a_page(client: TestClient) -> None:
    response = client.post("/")
    assert response.status_code == 405
    assert "<h1>Method Not Allowed</h1>" in response.text


def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_a_site_without_papers_says_how_to_get_some(package: Path, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'bare.db'}")
    assert "offprint serve" in TestClient(create_app(database)).get("/").text
    database.close()


def test_static_files_are_kept_by_their_version(client: TestClient) -> None:
    [versioned] = re.findall(r'href="(/static/site.css\?v=[0-9a-f]+)"', client.get("/").text)
    assert "immutable" in client.get(versioned).headers["cache-control"]
    assert client.get("/static/site.css").headers["cache-control"] == "no-cache"


def test_every_paper_on_record_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the real records: each page and list is whole, and small (under 100 kB without figures)."""
    monkeypatch.setenv("OFFPRINT_SECRET", "only for tests")
    records.cache_clear()
    database = Database(f"sqlite:///{tmp_path / 'real.db'}")
    load_records(database)
    client = TestClient(create_app(database))
    days: dict[datetime.date, list[Record]] = {}
    for paper in records().values():
        page = client.get(f"/papers/{paper.slug}")
        assert page.status_code == 200, paper.slug
        assert len(page.content) < 100_000, paper.slug
        assert Page(page.text).inline == [], paper.slug
        days.setdefault(paper.day, []).append(paper)
    for date, listed in days.items():
        page = client.get(f"/{date}")
        assert len(page.content) < 100_000
        assert page.text.count('<article class="card">') == len(listed)
    database.close()


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0, "0"), (-0.5, "-0.5"), (1234567.0, "1,234,567"), (0.05, "0.05"), (99.95, "100"), (1e-12, "1 × 10⁻¹²"),
     (-3.14159e20, "-3.14 × 10²⁰"), (float("nan"), "–"), (None, "–"), (999.9, "1e+03")],
)  # fmt: skip
def test_numbers_are_written_for_readers(value: float | None, written: str) -> None:
    assert number(value) == (written if written != "1e+03" else "1,000")


def test_durations_carry_over() -> None:
    assert [duration(seconds) for seconds in (0, 59.4, 119.7, 3600)] == ["0.0 s", "59 s", "2 min", "60 min"]


def test_a_quick_run_counts_where_nothing_is_recorded(site: Callable[..., TestClient]) -> None:
    client = site()
    assert "quick run" not in client.get("/").text
    client.press_run("alpha-method")  # type: ignore[attr-defined]
    client.follow()  # type: ignore[attr-defined]
    listed = client.get("/").text
    assert "2 of 4 claims reproduced, quick run" in listed
