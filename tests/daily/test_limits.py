"""Limits: against a count kept by the test, across restarts, threads and windows."""

from __future__ import annotations

import datetime
import threading
from types import SimpleNamespace

import pytest
from readers import Browser, Kept, send, sign_in, token
from sqlalchemy import select
from starlette.exceptions import HTTPException

from offprint.daily import limits
from offprint.daily.app import create_app
from offprint.daily.limits import LIMITS, Limit, allow, visitor_address
from offprint.daily.settings import Settings
from offprint.store import Comment, Database, RateLimit, Vote
from offprint.store.models import now

SECOND = datetime.timedelta(seconds=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIMITS", {kind: Limit(3, 100, f"{kind} things") for kind in LIMITS})


def refused(database: Database, kind: str, who: str, at: datetime.datetime) -> HTTPException | None:
    try:
        allow(database, kind, who, now=at)
    except HTTPException as error:
        return error
    return None


def test_so_many_are_allowed_within_a_window(database: Database, small: None) -> None:
    begun = now()
    assert [refused(database, "vote", "1", begun + i * SECOND) for i in range(3)] == [None] * 3
    error = refused(database, "vote", "1", begun + 40 * SECOND)
    assert error is not None
    assert error.status_code == 429
    assert error.headers == {"Retry-After": "60"}
    assert "Too many vote things" in error.detail
    assert refused(database, "vote", "1", begun + 99 * SECOND)
    # The next window begins when the first is over, and not later for those who kept trying.
    assert [refused(database, "vote", "1", begun + 100 * SECOND) for _ in range(3)] == [None] * 3
    assert refused(database, "vote", "1", begun + 101 * SECOND)


def test_each_is_counted_alone(database: Database, small: None) -> None:
    at = now()
    for _ in range(3):
        allow(database, "vote", "1", now=at)
    assert refused(database, "vote", "1", at)
    assert refused(database, "vote", "2", at) is None
    assert refused(database, "comment", "1", at) is None
    assert refused(database, "sign-in-mail", "vote:1", at) is None


def test_it_survives_a_restart(database: Database, small: None) -> None:
    at = now()
    for _ in range(3):
        allow(database, "vote", "1", now=at)
    url = database.url
    database.close()
    again = Database(url.render_as_string(hide_password=False))
    assert refused(again, "vote", "1", at)
    again.close()


def test_none_slips_through_side_by_side(database: Database, small: None) -> None:
    at, together, outcomes = now(), threading.Barrier(6), []

    def act() -> None:
        together.wait(10)
        outcomes.extend(refused(database, "vote", "1", at) for _ in range(3))

    threads = [threading.Thread(target=act) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 18
    assert sum(outcome is None for outcome in outcomes) == 3


def test_what_is_over_is_removed(database: Database, small: None) -> None:
    begun = now()
    for number in range(5):
        allow(database, "vote", str(number), now=begun)
    allow(database, "vote", "late", now=begun + 50 * SECOND)
    allow(database, "vote", "later", now=begun + 120 * SECOND)
    with database.session() as session:
        assert len(session.scalars(select(RateLimit)).all()) == 2


@pytest.mark.parametrize("who", ["", "a" * 10_000, "ada@example.org", "\x00", "\ud800", "' OR 1=1 --"])
def test_anyone_can_be_counted_and_nobody_is_named(who: str, database: Database) -> None:
    allow(database, "sign-in-mail", who)
    with database.session() as session:
        [row] = session.scalars(select(RateLimit)).all()
    assert len(row.key) <= 200
    assert not who or who not in row.key


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_a_network_counts_as_one_visitor(host: str, counted: str) -> None:
    assert visitor_address(SimpleNamespace(client=SimpleNamespace(host=host))) == counted  # type: ignore[arg-type]
    assert visitor_address(SimpleNamespace(client=None)) == ""  # type: ignore[arg-type]


def test_every_limit_is_one_that_readers_can_live_with() -> None:
    for limit in LIMITS.values():
        assert limit.most >= 5
        assert limit.seconds <= 86400


class TestOnTheSite:
    def test_each_kind_is_refused_with_a_page_that_says_when(
        self, client: Browser, database: Database, small: None
    ) -> None:
        client.app.state.outbox = Kept()  # type: ignore[attr-defined]
        client.app.state.fetch_papers = lambda ids: []  # type: ignore[attr-defined]
        signed = Browser(client.app)
        sign_in(signed, database)
        acts = {
            "sign-in": lambda i: send(client, "/sign-in", email=f"a{i}@example.org"),
            "confirm": lambda i: send(client, "/sign-in/confirm", link="x"),
            "vote": lambda i: send(signed, "/papers/alpha-method/vote", vote="up"),
            "comment": lambda i: send(signed, "/papers/alpha-method/comments", body=f"number {i}"),
            "authorship": lambda i: send(signed, "/papers/alpha-method/authorship", author="Ada Lovelace"),
            "submit": lambda i: send(signed, "/submit", arxiv=f"2310.0000{i}"),
            "account": lambda i: send(signed, "/account", name="Ada", handle=f"ada-{i}"),
            "run": lambda i: send(client, "/papers/beta-test/run"),
        }
        for kind, act in acts.items():
            statuses = [act(i).status_code for i in range(3)]
            assert 429 not in statuses, kind
            response = act(3)
            assert response.status_code == 429, kind
            assert 1 <= int(response.headers["retry-after"]) <= 100
            assert "Try again in" in response.text
        with database.session() as session:
            assert len(session.scalars(select(Comment)).all()) == 3
            assert len(session.scalars(select(Vote)).all()) == 1

    def test_one_mailbox_is_not_flooded_from_many_addresses(
        self, client: Browser, database: Database, small: None
    ) -> None:
        client.app.state.outbox = kept = Kept()  # type: ignore[attr-defined]
        for number in range(5):
            visitor = Browser(client.app)
            visitor._transport.client = (f"192.0.2.{number}", 1234)  # type: ignore[attr-defined]
            response = send(visitor, "/sign-in", email=" ADA@example.org")
            assert response.status_code == (200 if number < 3 else 429)
        assert len(kept.messages) == 3

    def test_what_a_visitor_says_of_the_address_does_not_count(self, client: Browser, small: None) -> None:
        """Headers of proxies are the server's business; here they are as anyone may send them."""
        client.app.state.outbox = Kept()  # type: ignore[attr-defined]
        statuses = []
        for number in range(4):
            fields = {"token": token(client, "/sign-in"), "email": f"a{number}@example.org"}
            headers = {"X-Forwarded-For": f"192.0.2.{number}", "Forwarded": f"for=192.0.2.{number}"}
            statuses.append(client.post("/sign-in", data=fields, headers=headers).status_code)
        assert statuses == [200, 200, 200, 429]

    def test_runs_can_be_switched_off(self, database: Database) -> None:
        client = Browser(create_app(database, settings=Settings(runs=False)))
        page = client.get("/papers/alpha-method").text
        assert "Runs are switched off" in page
        assert 'action="/papers/alpha-method/run"' not in page
        assert send(client, "/papers/alpha-method/run").status_code == 403
