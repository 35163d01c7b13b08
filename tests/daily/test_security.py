"""The rules that hold everywhere: who may send a form, how large and of what it is, and what every answer says."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from attacks import MARK, PAYLOADS, dangers
from fastapi import FastAPI
from fastapi.routing import APIRoute
from readers import Browser, Kept, send, sign_in, token
from sqlalchemy import func, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from offprint.daily import inputs
from offprint.daily.app import create_app
from offprint.daily.security import COOKIE, LARGEST_BODY, LARGEST_TEXT, SESSION_COOKIE, Bounds
from offprint.daily.settings import Settings
from offprint.store import Account, Authorship, Base, Comment, Database, Paper
from offprint.store.models import now

FORM = "application/x-www-form-urlencoded"
# One click in a mail program unsubscribes: it sends no form of ours, and the signed address is the proof.
WITHOUT_TOKEN = {"/subscription/{signed}/unsubscribe"}


def state(database: Database) -> dict[str, list[Any]]:
    """Return all that is kept, but how often things were tried."""
    with database.session() as session:
        return {
            table.name: sorted(map(str, session.execute(select(table)).all()))
            for table in Base.metadata.sorted_tables
            if table.name != "rate_limits"
        }


def posts(app: FastAPI) -> list[str]:
    """Return every address that takes a form, found from the application, its parts filled with what is there."""
    found = [route for route in _routes(app) if "POST" in (route.methods or ())]
    assert len(found) >= 15
    return [route.path for route in found if route.path not in WITHOUT_TOKEN]


def _routes(app: Any) -> list[APIRoute]:
    found: list[APIRoute] = []
    for route in app.routes:
        if isinstance(route, APIRoute):
            found.append(route)
        elif hasattr(route, "original_router"):
            found += _routes(route.original_router)
        elif hasattr(route, "routes"):
            found += _routes(route)
    return found


async def _reads_all(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


def filled(path: str, comment: int = 1) -> str:
    """Fill the parts of an address with what there is."""
    path = re.sub(r"\{(name|slug)(:path)?\}", "alpha-method", path)
    path = re.sub(r"\{number\}", str(comment), path)
    return re.sub(r"\{[^}]+\}", "x", path)


@pytest.fixture
def moderator(client: Browser, database: Database) -> Browser:
    """A reader who may do everything there is, and has a comment."""
    client.app.state.outbox = Kept()  # type: ignore[attr-defined]
    client.app.state.fetch_papers = lambda ids: []  # type: ignore[attr-defined]
    sign_in(client, database, handle="ada-l", moderator=True)
    send(client, "/papers/alpha-method/comments", body="Hello.")
    return client


FIELDS = {
    "vote": "up", "body": "x", "author": "Ada Lovelace", "hidden": "yes", "handle": "ada-l", "banned": "yes",
    "name": "Another", "email": "eve@example.org", "arxiv": "2310.02987", "link": "x", "decision": "confirm",
    "account": "1", "paper": "1", "frequency": "daily", "scope": "everything", "next": "/",
}  # fmt: skip


class TestForms:
    """Every address that takes a form, found from the application, refuses one that did not come from our pages."""

    def test_another_sites_are_refused_everywhere(self, moderator: Browser, database: Database) -> None:
        before = state(database)
        good = token(moderator)
        for number, path in enumerate(posts(moderator.app)):  # type: ignore[arg-type]
            odd = [
                {"Sec-Fetch-Site": "same-site"},
                {"Origin": "null"},
                {"Origin": "http://127.0.0.1.evil.example"},
                {"Origin": "http://["},
            ]
            for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, odd[number % 4]):
                response = moderator.post(filled(path), data={"token": good, **FIELDS}, headers=headers)
                assert response.status_code == 403, (path, headers)
        assert state(database) == before

    def test_without_ones_own_token_they_are_refused_everywhere(self, moderator: Browser, database: Database) -> None:
        eve = Browser(moderator.app)
        sign_in(eve, database, "eve@example.org")
        of_another = token(eve)
        visitor_only = Browser(moderator.app)
        visitor_only.cookies.set(COOKIE, moderator.cookies[COOKIE])
        of_before = token(visitor_only, "/sign-in")
        assert of_another
        assert of_before
        before = state(database)
        for path in posts(moderator.app):  # type: ignore[arg-type]
            for wrong in (of_another, of_before, of_another[:-1]):
                response = moderator.post(filled(path), data={"token": wrong, **FIELDS})
                assert response.status_code == 403, (path, wrong)
            assert moderator.post(filled(path), data=FIELDS).status_code == 403, path
        assert state(database) == before

    def test_reading_changes_nothing(self, moderator: Browser, database: Database) -> None:
        own = token(moderator)
        before = state(database)
        for path in posts(moderator.app):  # type: ignore[arg-type]
            moderator.get(filled(path), params={**FIELDS, "token": own})
        assert state(database) == before


class TestBodies:
    def test_what_is_not_a_form_is_refused_everywhere(self, moderator: Browser, database: Database) -> None:
        good = token(moderator)
        before = state(database)
        fields = f"token={good}&"
        for number, path in enumerate(posts(moderator.app)):  # type: ignore[arg-type]
            kinds = (
                (fields.encode() + b"body=%ff%fe&name=%ff&handle=%c3%28&email=%e2%82", FORM, 400),
                (fields.encode() + b"body=%ed%a0%80", FORM, 400),
                (fields.encode() + b"body=\xff\xfe", FORM, 400),
                (fields.encode() + b"body=a%00b", FORM, 400),
                (fields.encode() + b"a%00b=x", FORM, 400),
                (fields.encode() + b"&".join(b"f%d=1" % i for i in range(200)), FORM, 400),
                (fields.encode(), "text/plain", 415),
                (b'{"token": "x"}', "application/json", 415),
                (b"--x\r\n", "multipart/form-data; boundary=x", 415),
                (fields.encode(), "x" * 5000, 415),
                (b"a" * 100_000, FORM, 413),
                (b"a" * (LARGEST_BODY + 1), "application/octet-stream", 413),
            )
            # All of them everywhere would take long: each address gets five, and each kind several addresses.
            for body, kind, status in itertools.islice(itertools.cycle(kinds), number, number + 5):
                response = moderator.post(filled(path), content=body, headers={"Content-Type": kind})
                assert response.status_code == status, (path, body[:60], kind)
                assert "Traceback" not in response.text
        assert state(database) == before

    def test_a_body_in_pieces_is_bounded_too(self, moderator: Browser) -> None:
        good = token(moderator)

        def pieces(size: int, sent: list[int]) -> Any:
            yield f"token={good}&body=".encode()
            for _ in range(size // 1000):
                sent.append(1000)
                yield b"a" * 1000

        for size in (LARGEST_TEXT + 1000, 10 * LARGEST_BODY):
            response = moderator.post(
                "/papers/alpha-method/comments", content=pieces(size, []), headers={"Content-Type": FORM}
            )
            assert response.status_code == 413

    def test_a_body_in_pieces_is_bounded_where_no_form_is_read(self) -> None:
        pieces = (b"a" * 1000 for _ in range(10 * LARGEST_BODY // 1000))
        app = Starlette(routes=[Route("/", _reads_all, methods=["POST"])])
        bounded = TestClient(Bounds(app, refuse=lambda request, status, said: PlainTextResponse(said, status)))
        assert bounded.post("/", content=pieces).status_code == 413
        assert bounded.post("/", content=(b"a" * 1000 for _ in range(10))).text == "10000"

    def test_reading_stops_at_the_bound(self, moderator: Browser) -> None:
        """Spoken to below the client, which would send all of it: no more is taken from the connection."""
        taken = 0

        async def receive() -> dict[str, Any]:
            nonlocal taken
            taken += 1
            return {"type": "http.request", "body": b"a" * 1000, "more_body": True}

        answers: list[dict[str, Any]] = []

        async def send_back(message: dict[str, Any]) -> None:
            answers.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/sign-in", "raw_path": b"/sign-in", "query_string": b"",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", FORM.encode())], "scheme": "http",
            "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "http_version": "1.1", "root_path": "",
            "state": {},
        }  # fmt: skip
        asyncio.run(moderator.app(scope, receive, send_back))  # type: ignore[arg-type]
        assert answers[0]["status"] == 413
        assert taken < 20

    @pytest.mark.parametrize("length", ["9999999999999999999999", "-1", "1e3", "²"])
    def test_a_stated_length_is_believed_when_it_is_too_much(self, length: str, client: Browser) -> None:
        headers = {"Content-Type": FORM, "Content-Length": length.encode("latin-1")}
        assert client.post("/sign-in", content=b"", headers=headers).status_code == 413  # type: ignore[arg-type]

    def test_comments_are_as_long_as_they_say(self, moderator: Browser, database: Database) -> None:
        body = "\U0001d54f" * inputs.LONGEST_COMMENT  # four bytes each, twelve characters each in the form
        assert send(moderator, "/papers/alpha-method/comments", body=body).status_code == 303
        with database.session() as session:
            assert session.scalars(select(Comment.body).order_by(Comment.id.desc())).first() == body


class TestAddresses:
    @pytest.mark.parametrize(
        ("path", "status"),
        [("/%00", 404), ("/papers/a%00b", 404), ("/papers/%00/vote", 404), ("/search?q=a%00b", 400), ("/?a%00=1", 400),
         ("/sign-in?next=%00", 400), ("/sign-in/confirm?token=%00", 400), ("/papers/alpha-method?after=%00", 400),
         ("/search?q=%ff%fe", 200), ("/search?q=%ed%a0%80", 200), ("/sign-in?next=%ff", 200),
         ("/sign-in/confirm?token=%ff", 410), ("/papers/%ff%fe", 404), ("/papers/..%2f..%2fetc%2fpasswd", 404),
         ("/static/..%2f..%2fsecurity.py", 404), ("/static/%2e%2e/%2e%2e/security.py", 404),
         ("/papers/' OR 1=1 --", 404), ("/papers/1;DROP TABLE papers", 404), ("/2025-08-20' OR '1'='1", 404),
         ("/sign-in?next=/a&next=//evil.example", 200)],
    )  # fmt: skip
    def test_strange_ones_are_pages_and_never_errors(self, path: str, status: int, client: Browser) -> None:
        response = client.get(path)
        assert response.status_code == status
        assert response.headers["content-type"] == "text/html; charset=utf-8"

    @pytest.mark.parametrize("host", ["[", "a:b:c", "127.0.0.1:99999999", "", "127.0.0.1\\@evil.example", "ü", "a b"])
    def test_strange_hosts_are_answered(self, host: str, client: Browser) -> None:
        for path in ("/", "/sign-in", "/papers/alpha-method"):
            response = client.get(path, headers={"Host": host.encode("latin-1")})  # type: ignore[dict-item]
            assert response.status_code in (200, 302, 400)


class TestHeaders:
    def test_over_tls_browsers_are_told_to_stay_there(self, database: Database) -> None:
        plain, proxied = create_app(database), create_app(database, settings=Settings(base_url="https://a.example"))
        for app, address, told in (
            (plain, "http://127.0.0.1", False),
            (plain, "https://127.0.0.1", True),
            (proxied, "http://127.0.0.1", True),
        ):
            client = Browser(app, address)
            for path in ("/", "/nothing", "/papers/%00", "/sign-in?next=%00", "/static/site.css"):
                headers = client.get(path).headers
                assert ("strict-transport-security" in headers) is told
                if told:
                    found = re.fullmatch(r"max-age=(\d+)", headers["strict-transport-security"])
                    assert found
                    assert int(found[1]) >= 180 * 86400

    def test_every_page_forbids_what_is_inline(self, moderator: Browser) -> None:
        forms = ("/account", "/account/delete", "/moderation", "/submit", "/sign-in/confirm", "/comments/1/edit")
        for path in ("/", "/papers/alpha-method", "/papers/a%00", *forms):
            response = moderator.get(path)
            policy = response.headers["content-security-policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert dangers(response.text) == []
            for inline in re.findall(r"<script[^>]*>([^<]+)</script>|<style", response.text):
                assert not inline.strip()

    def test_other_sites_cannot_read_with_a_readers_cookies(self, moderator: Browser) -> None:
        response = moderator.get("/account/export", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in response.headers
        assert response.headers["cross-origin-resource-policy"] == "same-origin"


EVERY_SEVENTH_AND_ALL = pytest.mark.parametrize(
    "payloads", [PAYLOADS[::7], pytest.param(PAYLOADS, marks=pytest.mark.slow)], ids=["some", "all"]
)


class TestScripts:
    """Payloads through every field that a page shows again; comments have their own tests."""

    def test_the_reading_sees_what_runs(self) -> None:
        """The oracle itself sees payloads that run, where they stand in a page as they are."""
        text_only = ("<scr<script", "<javascript:", "<https://")
        elements = [payload for payload in PAYLOADS if payload.startswith("<") and not payload.startswith(text_only)]
        assert len(elements) >= 40
        for payload in elements:
            assert dangers(f"<div>{payload}</div>"), payload
        for payload in (payload for payload in PAYLOADS if payload.startswith('"')):
            assert dangers(f'<input value="{payload}">'), payload
        for address in (
            f"javascript:{MARK}",
            "java\tscript:x",
            "\x01javascript:x",
            " JAVASCRIPT:x",
            "data:x",
            "vbscript:x",
        ):
            assert dangers(f'<a href="{address}">x</a>'), address
        assert dangers('<a href="https://example.org" title="&lt;script&gt;">&lt;script&gt;</a>') == []

    @EVERY_SEVENTH_AND_ALL
    def test_names(self, payloads: tuple[str, ...], moderator: Browser, database: Database) -> None:
        """Also those that the form would refuse: put into the table as they are, as if by an older version."""
        with database.session() as session:
            moderator_id = session.scalars(select(Account.id)).one()
        for payload in payloads:
            with database.session() as session:
                own = session.get_one(Account, moderator_id)
                own.name, own.handle = payload[:80], payload[:40]
            for path in ("/", "/papers/alpha-method", "/account", "/account/delete", "/moderation"):
                assert dangers(moderator.get(path).text) == [], payload

    @EVERY_SEVENTH_AND_ALL
    def test_fields_that_come_back(
        self, payloads: tuple[str, ...], moderator: Browser, database: Database, no_limits: None
    ) -> None:
        visitor = Browser(moderator.app)
        own, theirs = {"token": token(moderator)}, {"token": token(visitor, "/sign-in")}
        for payload in payloads:
            long = payload + "a" * 5000
            for status, response in (
                (422, moderator.post("/account", data=own | {"name": payload, "handle": payload})),
                (422, moderator.post("/submit", data=own | {"arxiv": payload})),
                (422, moderator.post("/papers/alpha-method/comments", data=own | {"body": long})),
                (422, visitor.post("/sign-in", data=theirs | {"email": payload, "next": payload})),
                (200, visitor.get("/sign-in", params={"next": payload})),
                (410, visitor.get("/sign-in/confirm", params={"token": payload})),
            ):
                assert response.status_code == status, payload
                assert dangers(response.text) == [], payload

    @EVERY_SEVENTH_AND_ALL
    def test_titles_and_authors(self, payloads: tuple[str, ...], moderator: Browser, database: Database) -> None:
        with database.session() as session:
            paper_id = session.query(Paper.id).filter_by(slug="alpha-method").scalar()
            account_id = session.scalars(select(Account.id)).one()
            session.add(Authorship(account_id=account_id, paper_id=paper_id, author="x"))
        for number, payload in enumerate(payloads):
            with database.session() as session:
                paper = session.get_one(Paper, paper_id)
                paper.title, paper.authors = payload, [payload, "b"]
                claim = session.get_one(Authorship, (account_id, paper_id))
                claim.author, claim.confirmed_at = payload, now() if number % 2 else None
            for path in ("/papers/alpha-method", "/moderation", "/comments/1/edit"):
                assert dangers(moderator.get(path).text) == [], payload


@pytest.fixture
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offprint.daily.limits.allow", lambda *arguments, **options: None)


class TestSql:
    def test_metacharacters_are_text(self, moderator: Browser, database: Database, no_limits: None) -> None:
        """Whatever is typed where, rows of others stay as they were, and the answer is never an error."""
        eve = Browser(moderator.app)
        sign_in(eve, database, "eve@example.org", handle="eve")
        texts = ("' OR 1=1 --", "'; DROP TABLE accounts; --", '" OR ""="', "\\'; --", "%", "$$;--")
        theirs, own = {"token": token(eve)}, {"token": token(moderator)}
        for text in texts:
            fields = dict.fromkeys(FIELDS, text)
            for path in ("vote", "comments", "authorship"):
                assert eve.post(f"/papers/alpha-method/{path}", data=theirs | fields).status_code < 500
            for path in ("/moderation/ban", "/moderation/authorship", "/account/delete", "/submit", "/sign-in/confirm"):
                assert moderator.post(path, data=own | fields).status_code in (400, 410, 422), (path, text)
            for path in ("/search", "/sign-in/confirm", "/papers/alpha-method"):
                assert moderator.get(path, params=dict.fromkeys(("q", "token", "after"), text)).status_code < 500
        with database.session() as session:
            assert session.scalar(select(func.count()).select_from(Account)) == 2
            assert not any(session.scalars(select(Account.banned)))
            assert set(session.scalars(select(Comment.body))) == {"Hello.", *texts}


def test_keys_can_be_changed_without_signing_readers_out(
    database: Database, site: Callable[..., Browser], client: Browser
) -> None:
    """The session is in the database; a form of before the change counts while the old key is still named."""
    sign_in(client, database)
    old = token(client)
    cookies = {name: client.cookies[name] for name in (COOKIE, SESSION_COOKIE)}
    for secret, status in (("new,only for tests", 303), ("new", 403)):
        changed = Browser(create_app(database, settings=Settings(secret=secret)))
        for name, value in cookies.items():
            changed.cookies.set(name, value)
        assert changed.get("/account").status_code == 200
        fields = urlencode({"token": old, "vote": "up"})
        response = changed.post("/papers/alpha-method/vote", content=fields, headers={"Content-Type": FORM})
        assert response.status_code == status
