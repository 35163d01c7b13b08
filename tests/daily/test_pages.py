"""The pages: what they show, that nothing on them is live but what we wrote, and that errors are pages."""

from __future__ import annotations

import datetime
import json
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
from offprint.papers import Record, record, records
from offprint.store import Database, Listing, Paper

ALPHA_TITLE = "Alpha: a &lt;b&gt;Method&lt;/b&gt; &amp; its &#34;Limits&#34; for Gröbner Bases"
PAGES = ("/", "/2025-08-20", "/papers/alpha-method", "/papers/gamma-theory", "/search", "/search?q=alpha", "/nothing")


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
    assert '<span class="family">stream</span>' in page.text


def test_days_lead_to_their_neighbours(client: TestClient, database: Database) -> None:
    other = record("beta-test").model_copy(update={"day": datetime.date(2025, 8, 19)})
    load_records(database, [other])
    assert 'rel="prev" href="/2025-08-19"' in client.get("/2025-08-20").text
    earlier = client.get("/2025-08-19").text
    assert 'rel="next" href="/2025-08-20"' in earlier
    assert "1 paper," in earlier


@pytest.mark.parametrize(
    "path",
    ["/2025-08-21", "/2025-8-20", "/2025-02-30", "/0-0-0", "/99999-1-1", "/papers/none", "/papers/",
     "/papers/none/bibtex", "/runs/1/events", "/runs/99999999999999/events", "/runs/x/events", "/%00", "/papers/%00"],
)  # fmt: skip
def test_what_is_not_there_is_a_page_that_says_so(path: str, client: TestClient) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert "<h1>Not Found</h1>" in response.text
    assert "Traceback" not in response.text


def test_a_paper_shows_what_it_claims(client: TestClient) -> None:
    page = client.get("/papers/alpha-method").text
    assert f"<h1>{ALPHA_TITLE}</h1>" in page
    assert "Solves small games by averaging. &lt;script&gt;alert(1)&lt;/script&gt; stays text." in page
    assert "It always &lt;i&gt;holds&lt;/i&gt;." in page
    assert "from offprint.statistics import bootstrap_interval" in page
    for link in ("https://arxiv.org/abs/2501.00001", "https://arxiv.org/pdf/2501.00001", "https://example.org/alpha"):
        assert f'href="{link}"' in page
    for expected in ("≥ 4", "1 ± 0.1", "holds", "≤ 1", "0 to 1"):
        assert f"<dd>{expected}</dd>" in page
    assert page.count('<span class="verdict not-yet-measured">') == 4
    assert "Measures 3 of 4 claims here and now" in page


def test_recorded_results_say_where_they_come_from(recorded_alpha: Path, client: TestClient) -> None:
    content = json.loads((recorded_alpha / "alpha-method.json").read_text(encoding="utf-8"))
    page = client.get("/papers/alpha-method").text
    assert "2 of 4 claims reproduced" in page
    assert "2 of 4 claims reproduced" in client.get("/").text
    verdicts = re.findall(r'<span class="verdict [a-z-]+">([a-z ]+)</span>', page)
    assert verdicts == ["reproduced", "reproduced", "not reproduced", "not yet measured"]
    assert "<strong>4.6 <small>(4.5 to 4.7 over 3 seeds)</small>" in page
    assert "<dt>Baseline</dt><dd>2</dd>" in page
    assert "<dt>Paper reports</dt><dd>4.2</dd>" in page
    assert "Full scale, 3 seeds" in page
    assert f"commit {content['commit'][:7]}" in page
    assert "<code>offprint record alpha-method</code>" in page
    assert content["machine"]["processor"] in page
    assert f"numpy {content['versions']['numpy']}" in page
    assert "Counted by hand." in page


def test_a_new_recording_is_seen_without_a_restart(recorded_alpha: Path, client: TestClient) -> None:
    path = recorded_alpha / "alpha-method.json"
    assert "2 of 4 claims reproduced" in client.get("/").text
    content = json.loads(path.read_text(encoding="utf-8"))
    content["claims"][2]["verdict"] = "reproduced"
    path.write_text(json.dumps(content, indent=3), encoding="utf-8")
    assert "3 of 4 claims reproduced" in client.get("/").text


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"claims": [{"id": "is-large"}]}', '{"claims": 3}'])
def test_a_recording_that_cannot_be_read_is_none(broken: str, recorded_alpha: Path, client: TestClient) -> None:
    (recorded_alpha / "alpha-method.json").write_text(broken, encoding="utf-8")
    assert "not yet measured" in client.get("/papers/alpha-method").text


def test_recorded_figures_are_served(recorded_alpha: Path, client: TestClient) -> None:
    page = client.get("/papers/alpha-method").text
    [address] = re.findall(r'src="(/figures/[^"]+)"', page)
    figure = client.get(address)
    assert figure.status_code == 200
    assert figure.headers["content-type"] == "image/svg+xml"
    assert figure.content == (recorded_alpha / "figures/alpha-method/is-large.svg").read_bytes()
    assert "sandbox" in figure.headers["content-security-policy"]
    assert "immutable" in figure.headers["cache-control"]
    assert client.get("/figures/alpha-method/is-large.png").headers["content-type"] == "image/png"


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


def test_bibtex_is_plain_text(client: TestClient) -> None:
    response = client.get("/papers/alpha-method/bibtex")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == record("alpha-method").bibtex + "\n"


def test_a_paper_has_one_address(client: TestClient, database: Database) -> None:
    with database.session() as session:
        hostile = '<img src=x onerror="alert(1)"> $a<b$'
        session.add(Paper(title=f"Imported {hostile}", title_key="i", abstract=hostile, arxiv="2401.12345"))
        session.add(Paper(title="Unknown", title_key="u", abstract="Only text."))
        session.flush()
        unknown = session.scalars(select(Paper).where(Paper.title == "Unknown")).one()
        unknown.listings.append(Listing(day=datetime.date(2025, 8, 21)))
    assert client.get("/papers/2501.00001").headers["location"] == "/papers/alpha-method"
    imported = client.get("/papers/2401.12345")
    assert "&lt;img src=x onerror=&#34;alert(1)&#34;&gt; $a&lt;b$" in imported.text
    assert "img" not in Page(imported.text).tags
    assert client.get(f"/papers/{unknown.id}").status_code == 200
    assert f'href="/papers/{unknown.id}"' in client.get("/").text
    assert client.get("/papers/2401.12345/bibtex").status_code == 404


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
            assert client.get(link).status_code == 200, link
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
    assert client.get("/healthz").json() == {"status": "ok", "papers": 4}


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
