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
        self.shared, self.takes, self.breaks = True, 0.0, False

        def handle(request: Request) -> Response:
            self.asked += 1
            self.time += self.takes
            if self.breaks:
                raise ZeroDivisionError
            if self.shared:
                share(request)
            return PlainTextResponse(f"answer {self.asked}", **self.answer)

        app = Starlette(routes=[Route("/{rest:path}", handle, methods=["GET", "HEAD", "POST"])])
        app.state.settings = type("Settings", (), {"https": False})()
        self.app = Kept(app, seconds, clock=lambda: self.time)

    def get(self, path: str = "/", headers: dict[str, str] | None = None, method: str = "GET") -> str:
        """Ask and return the body, when all that was begun is done."""
        return asyncio.run(self._all_done(path, headers, method))[0]

    def get_together(self, count: int) -> list[str]:
        """Ask several times at once."""

        async def ask() -> list[list[str]]:
            return await asyncio.gather(*(self._all_done("/", None, "GET") for _ in range(count)))

        return [body for found in asyncio.run(ask()) for body in found]

    async def _all_done(self, path: str, headers: dict[str, str] | None, method: str) -> list[str]:
        body = await self._ask(path, headers, method)
        await asyncio.gather(*self.app._renewing.values())
        return [body]

    async def _ask(self, path: str, headers: dict[str, str] | None, method: str) -> str:
        sent: list[bytes] = []
        where, _, query = path.partition("?")
        lines = [(name.encode(), value.encode()) for name, value in ({"host": "a.example"} | (headers or {})).items()]
        scope = {"type": "http", "method": method, "scheme": "http", "path": where, "query_string": query.encode()}
        scope |= {"headers": lines, "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "app": self.app.app}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message.get("body", b""))

        await self.app(scope, receive, send)
        return b"".join(sent).decode()


def test_an_answer_is_given_again_until_its_time_is_over() -> None:
    site = Site()
    assert [site.get(), site.get()] == ["answer 1", "answer 1"]
    site.time = 0.99
    assert site.get() == "answer 1"
    assert site.asked == 1
    site.time = 2.0
    assert site.get() == "answer 2"


def test_what_is_asked_for_again_is_made_anew_before_its_time_is_over() -> None:
    """Whoever asks in the second half waits for nothing; those after get what was made meanwhile, for its own time."""
    site = Site()
    site.get()
    site.time = 1.99
    assert site.get_together(5) == ["answer 1"] * 5
    assert site.asked == 2
    assert site.get() == "answer 2"
    site.time = 3.98
    assert site.get() == "answer 2"
    assert site.asked == 3
    site.time = 3.98 + 2.0
    assert site.get() == "answer 4"


def test_no_answer_is_older_than_its_time_from_before_it_was_made() -> None:
    site = Site()
    site.takes = 1.5
    assert site.get() == "answer 1"
    site.takes = 0.0
    site.time = 2.0
    assert site.get() == "answer 2"


def test_an_answer_that_cannot_be_made_anew_is_given_no_longer() -> None:
    site = Site()
    site.get()
    site.time, site.breaks = 1.5, True
    assert [site.get(), site.get()] == ["answer 1", "answer 1"]
    site.time = 2.0
    with pytest.raises(ZeroDivisionError):
        site.get()


@pytest.mark.parametrize("headers", [SESSION, {"if-none-match": '"x"'}])
def test_nothing_is_made_anew_for_all_by_who_gets_an_answer_of_their_own(headers: dict[str, str]) -> None:
    site = Site()
    site.get()
    site.time = 1.5
    assert site.get(headers=headers) == "answer 2"
    assert site.asked == 2
    assert site.get() == "answer 1"


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
