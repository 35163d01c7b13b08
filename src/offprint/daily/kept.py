"""Answers that are the same for every reader, kept for a moment: many readers who come at once cost what one does.

What is asked for again and again is made anew before its moment is over, beside the requests, so that nobody waits.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offprint.daily.security import SESSION_COOKIE, cookie_name

MOST_KEPT = 256
LARGEST_KEPT = 200_000
RENEWED_AFTER = 0.75
"""The share of its time after which an answer that is still asked for is made anew."""
SHARED = "offprint.shared"
CONDITIONS = ("if-none-match", "if-modified-since", "range")

Key = tuple[str, str, bytes, bytes]


def share(request: Request) -> None:
    """Say that the answer to this request holds nothing of whoever asked, so that others may be given it too."""
    request.scope[SHARED] = True


@dataclass(frozen=True)
class _Answer:
    renewed_from: float
    until: float
    messages: tuple[Message, ...]
    route: Any
    """What matched the address, for those who count answers."""


class Kept:
    """Gives readers who are not signed in an answer that was made a moment ago.

    What is kept is what a handler has marked by :func:`share`: never an answer that sets a cookie or is no success, and
    never one to a reader who is signed in or asks on conditions. The oldest are forgotten first. Who asks in the last
    quarter of an answer's time is given it, and has it made anew for those who come after.

    Parameters
    ----------
    app : ASGI application
    seconds : float
        How long an answer is given again; 0 keeps none.
    clock : callable
        Returns seconds that only grow.
    """

    def __init__(self, app: ASGIApp, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.app = app
        self.seconds = seconds
        self.clock = clock
        self._answers: OrderedDict[Key, _Answer] = OrderedDict()
        self._renewing: dict[Key, asyncio.Task[None]] = {}
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with what is kept, or pass the request on and keep what may be kept."""
        if not self.seconds or scope["type"] != "http" or not _plain(request := Request(scope)):
            return await self.app(scope, receive, send)
        key = (scope["scheme"], request.headers.get("host", ""), scope["path"].encode(), scope["query_string"])
        if answer := self._find(key):
            if self.clock() >= answer.renewed_from and key not in self._renewing:
                self._begin_to_renew(key, scope)
            scope["route"] = answer.route
            for message in answer.messages:
                await send(message)
            return None
        await self._make(key, scope, receive, send)
        return None

    async def _make(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered, and keep the answer if it may be kept, for as long from before it was made."""
        messages: list[Message] = []
        begun = self.clock()

        async def send_noted(message: Message) -> None:
            messages.append(message)
            await send(message)

        await self.app(scope, receive, send_noted)
        if scope.get(SHARED) and _may_be_kept(messages):
            times = begun + RENEWED_AFTER * self.seconds, begun + self.seconds
            self._keep(key, _Answer(*times, tuple(messages), scope.get("route")))

    def _begin_to_renew(self, key: Key, scope: Scope) -> None:
        """Ask for the same again, as the reader did who may be given what others were given."""
        state = dict(scope.get("state", {}))
        task = asyncio.get_running_loop().create_task(self._renew(key, {**scope, "state": state}))
        self._renewing[key] = task
        task.add_done_callback(lambda _: self._renewing.pop(key))

    async def _renew(self, key: Key, scope: Scope) -> None:
        """Make an answer anew though nobody waits for it; what goes wrong is met again by whoever asks next."""

        async def nothing(_: Message) -> None:
            return

        with suppress(Exception):
            await self._make(key, scope, _nothing_more, nothing)

    def _find(self, key: Key) -> _Answer | None:
        with self._lock:
            answer = self._answers.get(key)
        return answer if answer is not None and self.clock() < answer.until else None

    def _keep(self, key: Key, answer: _Answer) -> None:
        with self._lock:
            self._answers.pop(key, None)
            self._answers[key] = answer
            if len(self._answers) > MOST_KEPT:
                self._answers.popitem(last=False)


async def _nothing_more() -> Message:
    """Give what a request without a body sends."""
    return {"type": "http.request", "body": b"", "more_body": False}


def _plain(request: Request) -> bool:
    """Whether a request is one that anybody might have sent."""
    return (
        request.method == "GET"
        and cookie_name(request, SESSION_COOKIE) not in request.cookies
        and not any(name in request.headers for name in CONDITIONS)
    )


def _may_be_kept(messages: list[Message]) -> bool:
    start, *bodies = messages
    size = sum(len(message.get("body", b"")) for message in bodies)
    names = {name.lower() for name, _ in start.get("headers", ())}
    return start.get("status") == 200 and b"set-cookie" not in names and size <= LARGEST_KEPT
