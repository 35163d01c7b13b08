"""Answers kept for a moment: given to readers who are not signed in, and never more than that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from offprint.daily.kept import MOST_KEPT, Kept, share

SESSION = {"cookie": "offprint_session=anything"}


class Site:
    """A site of one handler that counts how often it is asked, and a clock that stands until it is moved."""

    def __init__(self, seconds: float = 2.0, **answer: Any) -> None:
        self.asked, self.time, self.answer = 0, 0.0, answer
        self.shared = True

        def handle(request: Request) -> Response:
            self.asked += 1
            if self.shared:
                share(request)
            return PlainTextResponse(f"answer {self.asked}", **self.answer)

        app = Starlette(routes=[Route("/{rest:path}", handle, methods=["GET", "HEAD", "POST"])])
        app.state.settings = type("Settings", (), {"https": False})()
        self.app = Kept(app, seconds, clock=lambda: self.time)

    def get(self, path: str = "/", headers: dict[str, str] | None = None, method: str = "GET") -> str:
        """Ask and return the body."""
        sent: list[bytes] = []
        where, _, query = path.partition("?")
        lines = [(name.encode(), value.encode()) for name, value in ({"host": "a.example"} | (headers or {})).items()]
        scope = {"type": "http", "method": method, "scheme": "http", "path": where, "query_string": query.encode()}
        scope |= {"headers": lines, "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "app": self.app.app}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message.get("body", b""))

        asyncio.run(self.app(scope, receive, send))
        return b"".join(sent).decode()


def test_an_answer_is_given_again_until_its_time_is_over() -> None:
    site = Site()
    assert [site.get(), site.get()] == ["answer 1", "answer 1"]
    site.time = 1.99
    assert site.get() == "answer 1"
    site.time = 2.0
    assert site.get() == "answer 2"


@pytest.mark.parametrize("other", [{"path": "/b"}, {"path": "/?p=2"}, {"headers": {"host": "b.example"}}])
def test_another_address_has_an_answer_of_its_own(other: dict[str, Any]) -> None:
    site = Site()
    site.get()
    assert site.get(**other) == "answer 2"


@pytest.mark.parametrize("headers", [SESSION, {"if-none-match": '"x"'}, {"if-modified-since": "x"}, {"range": "x"}])
def test_who_is_signed_in_or_asks_on_conditions_gets_an_answer_of_their_own(headers: dict[str, str]) -> None:
    site = Site()
    site.get()
    assert site.get(headers=headers) == "answer 2"


def test_what_is_for_one_who_is_signed_in_is_not_kept() -> None:
    site = Site()
    site.get(headers=SESSION)
    assert site.get() == "answer 2"


@pytest.mark.parametrize("answer", [{"headers": {"Set-Cookie": "a=b"}}, {"status_code": 404}])
def test_no_answer_with_a_cookie_and_no_failure_is_kept(answer: dict[str, Any]) -> None:
    site = Site(**answer)
    assert [site.get(), site.get()] == ["answer 1", "answer 2"]


def test_what_no_handler_shares_is_not_kept() -> None:
    site = Site()
    site.shared = False
    assert [site.get(), site.get()] == ["answer 1", "answer 2"]


def test_only_reading_is_answered_from_memory() -> None:
    site = Site()
    site.get()
    assert site.get(method="POST") == "answer 2"


def test_nothing_is_kept_where_the_operator_says_so() -> None:
    site = Site(seconds=0)
    assert [site.get(), site.get()] == ["answer 1", "answer 2"]


def test_no_more_is_kept_than_fits() -> None:
    site = Site()
    for place in range(MOST_KEPT + 1):
        site.get(f"/{place}")
    assert site.get("/1") == "answer 2"
    assert site.get("/0") == f"answer {MOST_KEPT + 2}"
