"""Subscribing on the site: double opt-in, links, the form, unsubscribing by one click, and attacks on all of it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from fastapi.testclient import TestClient as Site
from mailing import Shelf, read, text_of
from sqlalchemy import select

from offprint.daily.mail import MailError, subscriptions
from offprint.daily.mail.digest import Site as Mailing
from offprint.daily.mail.sending import Sender
from offprint.daily.mail.subscriptions import CONFIRM_WITHIN, Links
from offprint.daily.routes import subscriptions as routes
from offprint.store import Database, RateLimit, Subscription
from offprint.store.models import now

ALL = {"frequency": "daily", "scope": "everything"}


@pytest.fixture
def shelf(client: Site) -> Shelf:
    client.app.state.outbox = Shelf()  # type: ignore[attr-defined]
    return client.app.state.outbox  # type: ignore[attr-defined, no-any-return]


def token(client: Site, path: str = "/subscribe") -> str:
    return client.get(path).text.partition('name="token" value="')[2].partition('"')[0]


def ask(client: Site, email: str = "ada@example.org", **fields: str) -> object:
    return client.post("/subscribe", data={"email": email, "token": token(client), **(ALL | fields)})


def link(shelf: Shelf) -> str:
    """Return the path of the link in the newest mail."""
    [found] = re.findall(r"http://127\.0\.0\.1(/subscri\S+)", text_of(shelf.messages[-1]))[:1]
    return str(found)


def confirm(client: Site, shelf: Shelf) -> str:
    """Press the button of the mailed link, and return the path of the subscription's page."""
    where = link(shelf)
    answer = client.post(where, data={"token": token(client, where)})
    assert answer.status_code == 303
    return answer.headers["location"].partition("?")[0]


def rows(database: Database) -> list[Subscription]:
    with database.session() as session:
        return list(session.scalars(select(Subscription).order_by(Subscription.id)))


def test_double_opt_in(client: Site, shelf: Shelf, database: Database) -> None:
    answer = ask(client, "Ada@Example.ORG")
    assert answer.status_code == 200
    assert "ada@example.org" in answer.text
    assert shelf.readers == ["ada@example.org"]
    [row] = rows(database)
    assert row.confirmed_at is None
    where = link(shelf)
    assert where.rpartition("/")[2] not in str(row.token_hash)  # stored hashed
    for _ in range(2):  # programs that open links in mails do not confirm
        assert "Confirm" in client.get(where).text
        client.head(where)
    assert rows(database)[0].confirmed_at is None
    page = confirm(client, shelf)
    [row] = rows(database)
    assert row.confirmed_at is not None
    assert row.token_hash is None
    assert "ada@example.org" in client.get(page).text
    assert client.get(page).headers["cache-control"] == "no-store"
    assert client.get(where).status_code == 410  # once
    assert client.post(where, data={"token": token(client)}).status_code == 410


def test_a_link_ends_after_three_days(
    client: Site, shelf: Shelf, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(client)
    where, form_token = link(shelf), token(client)
    for late, status in ((CONFIRM_WITHIN - datetime.timedelta(minutes=1), 200), (CONFIRM_WITHIN, 410)):
        monkeypatch.setattr(routes, "now", lambda late=late: now() + late)
        assert client.get(where).status_code == status
    assert client.post(where, data={"token": form_token}).status_code == 410
    ask(client, "other@example.org")  # and what nobody confirmed is forgotten
    assert [row.email for row in rows(database)] == ["other@example.org"]


def test_the_answer_does_not_tell_who_is_subscribed(client: Site, shelf: Shelf, database: Database) -> None:
    first = ask(client)
    confirm(client, shelf)
    again = ask(client)
    assert again.text == first.text
    assert again.status_code == first.status_code
    assert len(rows(database)) == 1
    assert shelf.messages[-1]["Subject"] == "You are subscribed already"
    assert client.get(link(shelf)).status_code == 200  # the way to its page


def test_asking_again_before_confirming_ends_the_first_link(client: Site, shelf: Shelf, database: Database) -> None:
    ask(client)
    first = link(shelf)
    ask(client)
    assert len(rows(database)) == 1
    assert client.get(first).status_code == 410
    confirm(client, shelf)


def test_other_choices_are_other_subscriptions(client: Site, shelf: Shelf, database: Database) -> None:
    ask(client)
    ask(client, scope="topics", **{"topic-stream": "on", "topic-bags": "on", "query": "not meant"})
    ask(client, scope="query", query='  drift   -"in vision" ', frequency="weekly")
    kept = [(row.frequency, row.topics, row.query) for row in rows(database)]
    assert kept == [("daily", [], ""), ("daily", ["stream", "bags"], ""), ("weekly", [], 'drift -"in vision"')]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"email": "nobody"}, "not a mail address"),
        ({"email": "ada@example.org\nBcc: eve@example.org"}, "not a mail address"),
        ({"email": "ada@example.org, eve@example.org"}, "not a mail address"),
        ({"email": "<ada@example.org>"}, "not a mail address"),
        ({"frequency": "hourly"}, "daily or weekly"),
        ({"scope": "nothing"}, "what the mails are to hold"),
        ({"scope": "topics"}, "at least one topic"),
        ({"scope": "topics", "topic-cooking": "on"}, "at least one topic"),
        ({"scope": "query", "query": ' "" -- '}, "asks for nothing"),
        ({"scope": "query", "query": "long " * 60}, "at most 200 characters"),
    ],
)
def test_a_form_that_is_not_right_comes_back_filled_in(
    client: Site, shelf: Shelf, database: Database, fields: dict[str, str], told: str
) -> None:
    sent = {"email": "ada@example.org", "topic-shift": "on", **ALL, **fields}
    if fields.get("scope") == "topics":
        del sent["topic-shift"]
    answer = client.post("/subscribe", data={"token": token(client), **sent})
    assert answer.status_code == 422
    assert told in answer.text
    assert f'value="{sent["email"]}"' in unescape(answer.text) or "\n" in sent["email"]
    assert ('name="topic-shift" checked' in answer.text) is ("topic-shift" in sent)
    assert not shelf.mails
    assert not rows(database)


def test_the_form_is_prefilled(client: Site) -> None:
    answer = client.get("/subscribe", params={"query": '"><script>alert(1)</script> drift'})
    assert '<input type="radio" name="scope" value="query" checked>' in answer.text
    assert "<script>alert" not in answer.text
    assert "drift" in answer.text
    assert 'name="topic-bags" checked' in client.get("/subscribe?topic=bags&topic=cooking").text
    assert client.head("/subscribe").status_code == 200


def test_forms_of_other_sites_do_nothing(client: Site, shelf: Shelf, database: Database) -> None:
    answer = client.post("/subscribe", data={"email": "ada@example.org", **ALL})
    assert answer.status_code == 403
    other = {"sec-fetch-site": "cross-site"}
    answer = client.post("/subscribe", data={"email": "a@b.org", "token": token(client), **ALL}, headers=other)
    assert answer.status_code == 403
    ask(client)
    assert client.post(link(shelf), data={}).status_code == 403
    assert rows(database)[0].confirmed_at is None


def test_mails_to_one_address_are_limited(client: Site, shelf: Shelf, database: Database) -> None:
    answers = [ask(client).status_code for _ in range(6)]
    assert answers == [200] * 5 + [429]
    assert len(shelf.mails) == 5
    with database.session() as session:
        assert not any("ada" in row.key for row in session.scalars(select(RateLimit)))


def test_a_mail_that_cannot_be_sent_is_told(client: Site, shelf: Shelf) -> None:
    shelf.troubles["ada@example.org"] = MailError("secret of the server")
    answer = ask(client)
    assert answer.status_code == 503
    assert "could not be sent" in answer.text
    assert "secret" not in answer.text


def test_the_page_of_a_subscription_changes_it(client: Site, shelf: Shelf, database: Database) -> None:
    ask(client)
    page = confirm(client, shelf)
    wrong = client.post(page, data={"token": token(client, page), "frequency": "weekly", "scope": "topics"})
    assert wrong.status_code == 422
    assert 'value="weekly" checked' in wrong.text
    fields = {"frequency": "weekly", "scope": "topics", "topic-shift": "on"}
    assert client.post(page, data=fields).status_code == 403
    saved = client.post(page, data={"token": token(client, page), **fields})
    assert saved.status_code == 303
    assert "weekly mail of papers on shift" in client.get(saved.headers["location"]).text
    [row] = rows(database)
    assert (row.frequency, row.topics, row.query) == ("weekly", ["shift"], "")


def test_changing_to_what_one_has_already_leaves_one(client: Site, shelf: Shelf, database: Database) -> None:
    ask(client)
    first = confirm(client, shelf)
    ask(client, frequency="weekly")
    second = confirm(client, shelf)
    saved = client.post(second, data={"token": token(client, second), **ALL})
    assert saved.headers["location"].partition("?")[0].startswith("/subscription/")
    assert [row.frequency for row in rows(database)] == ["daily"]
    assert client.get(first).status_code == 200
    assert client.get(second).status_code == 404


def test_a_paused_subscription_is_resumed_on_its_page(client: Site, shelf: Shelf, database: Database) -> None:
    ask(client)
    page = confirm(client, shelf)
    with database.session() as session:
        session.scalars(select(Subscription)).one().paused_at = now()
    assert "It is paused" in client.get(page).text
    client.post(page, data={"token": token(client, page), **ALL})
    assert rows(database)[0].paused_at is None


def test_one_click_as_a_mail_program_does_it(client: Site, shelf: Shelf, database: Database) -> None:
    """RFC 8058: the address and the body come from the headers of the mail; no cookie, no form token, no browser."""
    ask(client)
    confirm(client, shelf)
    with database.session() as session:
        session.scalars(select(Subscription)).one().confirmed_at = datetime.datetime(2025, 8, 20, tzinfo=datetime.UTC)
    site = Mailing.of(client.app.state.settings, "http://127.0.0.1")  # type: ignore[attr-defined]
    moment = datetime.datetime(2025, 8, 20, 23, tzinfo=datetime.UTC)
    assert Sender(database, shelf, site, lambda: moment).run().sent == 1
    message = shelf.messages[-1]
    where = re.fullmatch(r"<http://127\.0\.0\.1(/\S+)>", message["List-Unsubscribe"])
    assert where is not None
    name, _, value = message["List-Unsubscribe-Post"].partition("=")
    assert (name, value) == ("List-Unsubscribe", "One-Click")
    client.cookies.clear()
    assert "Unsubscribe" in client.get(where[1]).text
    assert len(rows(database)) == 1
    client.cookies.clear()
    for _ in range(2):
        answer = client.post(where[1], data={name: value})
        assert answer.status_code == 200
        assert "You are unsubscribed" in answer.text
    assert not rows(database)
    assert "You are unsubscribed" in client.get(where[1]).text


def test_links_are_signed_and_bound_to_their_reader(client: Site, shelf: Shelf, database: Database) -> None:
    ask(client)
    page = confirm(client, shelf)
    forged = [
        page[:-5] + ("A" if page[-5] != "A" else "B") + page[-4:],  # the last character holds bits that do not count
        "/subscription/1",
        "/subscription/" + "x" * 400,
        "/subscription/é",
        "/subscription/..%2f..%2fetc%2fpasswd",
        "/subscription/" + Links("another key").path(rows(database)[0]).rpartition("/")[2],
    ]
    for path in forged:
        assert client.get(path).status_code == 404, path
        assert client.get(f"{path}/unsubscribe").status_code == 404, path
        assert client.post(f"{path}/unsubscribe", data={}).status_code == 404, path
    assert len(rows(database)) == 1
    with database.session() as session:  # the number is given to someone else
        session.delete(session.scalars(select(Subscription)).one())
    with database.session() as session:
        session.add(Subscription(id=1, email="eve@example.org", frequency="daily", confirmed_at=now()))
    assert client.get(page).status_code == 404
    client.post(f"{page}/unsubscribe", data={})
    assert [row.email for row in rows(database)] == ["eve@example.org"]


@pytest.mark.parametrize("strange", ["%00", "%ff%fe", "'%20OR%201=1--", "../../x", "%F0%9F%8E%89", "a" * 300])
def test_strange_tokens_are_no_errors(client: Site, strange: str) -> None:
    assert client.get(f"/subscribe/confirm/{strange}").status_code in (404, 410)


def test_links_lead_where_the_operator_says_and_not_where_a_request_does(
    client: Site, shelf: Shelf, database: Database
) -> None:
    fields = {"email": "ada@example.org", "token": token(client), **ALL}
    answer = client.post("/subscribe", data=fields, headers={"host": "evil.example"})
    assert answer.status_code == 503
    assert not shelf.mails


def test_the_operator_is_told_of_the_folder(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OFFPRINT_MAILDIR", str(tmp_path / "mail"))
    here, elsewhere = site(client=("127.0.0.1", 1)), site(client=("192.0.2.7", 1))
    assert str(tmp_path / "mail") in here.get("/subscribe").text
    assert str(tmp_path / "mail") not in elsewhere.get("/subscribe").text
    ask(here)
    [file] = (tmp_path / "mail" / "new").iterdir()
    assert read(file.read_bytes())["To"] == "ada@example.org"


def test_two_who_confirm_at_once(database: Database) -> None:
    """Of two presses of the button, one counts."""
    with database.session() as session:
        asked = subscriptions.ask(session, "ada@example.org", subscriptions.Choice(), now=now())
    assert asked.token is not None
    for expected in (True, False):
        with database.session() as session:
            assert (subscriptions.confirm(session, asked.token, now=now()) is not None) is expected
