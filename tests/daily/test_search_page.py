"""The page with what a search finds: its form, its pages, and what it links to."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offprint.daily.search import VERDICTS, Query
from offprint.store import Database, Paper

ALPHA = 'Alpha: a <b>Method</b> & its "Limits" for Gröbner Bases'


def titles(text: str) -> list[str]:
    return [unescape(re.sub("<[^>]*>", "", title)) for title in re.findall(r"<h2 class=.title.*?>(.*?)</h2>", text)]


def link(text: str, label: str) -> str:
    [address] = re.findall(rf'<a [^>]*href="([^"]*)"[^>]*>{label}</a>', text)
    return unescape(address)


def test_filters_narrow_what_is_found(client: TestClient) -> None:
    assert len(titles(client.get("/search?q=streams").text)) == 3
    assert titles(client.get("/search?q=streams&runs=1").text) == ["Endless of Streams", "Beta Testing of Streams"]
    assert titles(client.get("/search?family=optimize").text) == [
        'Alpha: a <b>Method</b> & its "Limits" for Gröbner Bases'
    ]
    assert titles(client.get("/search?code=1").text) == [ALPHA]
    assert titles(client.get("/search?q=streams&since=2025-08-21").text) == []
    assert len(titles(client.get("/search?since=2025-08-20&until=2025-08-20").text)) == 4
    assert titles(client.get("/search?verdict=reproduced").text) == []
    assert len(titles(client.get("/search?verdict=unmeasured").text)) == 4


def test_the_form_comes_back_as_it_was_filled_in(client: TestClient) -> None:
    asked = {"q": '"two words"', "since": "2025-08-01", "until": "2025-08-31", "family": "stream", "code": "1"}
    text = client.get("/search", params=asked | {"verdict": "partly"}).text
    for shown in ('value="&#34;two words&#34;"', 'value="2025-08-01"', 'value="2025-08-31"', "<option selected>stream"):
        assert shown in text
    assert '<option value="partly" selected>' in text
    assert 'name="code" value="1" checked' in text
    assert 'name="runs" value="1">' in text


def test_a_day_that_cannot_be_read_is_named_and_the_rest_counts(client: TestClient) -> None:
    text = client.get("/search?q=theory&since=20+August&verdict=great").text
    assert 'role="alert">The first day is left out' in text
    assert "The verdict is left out" in text
    assert 'value="20 August"' in text
    assert titles(text) == ["Gamma Theory of Streams"]


def test_pages_follow_each_other(client: TestClient, database: Database) -> None:
    with database.session() as session:
        session.add_all(Paper(title=f"Needle {number:02}", title_key=str(number)) for number in range(45))
    seen: list[str] = []
    address: str | None = "/search?q=needle&code="
    while address:
        text = client.get(address).text
        assert "<h1>45 papers</h1>" in text
        seen += titles(text)
        address = link(text, "Next page →") if "Next page" in text else None
    assert seen == [f"Needle {number:02}" for number in reversed(range(45))]
    assert link(text, "← Previous page") == "/search?q=needle&p=2"
    assert "There are fewer pages" in client.get("/search?q=needle&p=9").text


def test_feed_and_mail_take_the_filters_along_but_not_the_days(client: TestClient) -> None:
    text = client.get("/search?q=streams+-x&family=stream&runs=1&since=2025-08-01").text
    feed, mail = urlsplit(link(text, "Feed")), urlsplit(link(text, "Mail me this search"))
    assert (feed.path, mail.path) == ("/feeds/search.atom", "/subscribe")
    [typed] = parse_qs(feed.query)["q"]
    assert parse_qs(mail.query)["query"] == [typed]
    assert Query.parse(typed) == Query.parse("streams -x family:stream is:runnable")
    assert client.get(link(text, "Feed")).status_code == 200


def test_nothing_asked_for_shows_how_to_ask(client: TestClient) -> None:
    text = client.get("/search").text
    assert "<h1>Search</h1>" in text
    for verdict in VERDICTS:
        assert f"is:{verdict}" in text
    assert "Mail me" not in text


def test_what_was_typed_is_text(client: TestClient) -> None:
    evil = '"><script>alert(1)</script>'
    text = client.get("/search", params=dict.fromkeys(("q", "since", "until", "family", "verdict", "code"), evil)).text
    assert "<script>alert" not in text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(
        st.sampled_from(["q", "since", "until", "family", "code", "runs", "verdict", "p"]),
        st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(["2025-08-20", "0001-01-01", "1", "-1"]),
    )
)
def test_no_address_is_an_error(client: TestClient, values: dict[str, str]) -> None:
    assert client.get("/search", params=values).status_code in (200, 400, 404)


@pytest.mark.parametrize("path", ["/search", "/search?q=streams"])
def test_head_is_answered(client: TestClient, path: str) -> None:
    assert client.head(path).status_code == 200
