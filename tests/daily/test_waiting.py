"""What waits for servers elsewhere leaves the threads alone that make pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from readers import Browser, Kept, sign_in, token

from offprint.daily.app import THREADS
from offprint.store import Database

PATIENCE = 20.0


class Silent:
    """Stands for a server elsewhere that does not answer before it is told to."""

    def __init__(self, expected: int) -> None:
        self.asked = threading.Semaphore(0)
        self.expected = expected
        self.answers = threading.Event()

    def __call__(self, *_: Any) -> Any:
        self.asked.release()
        self.answers.wait(PATIENCE)
        return []

    def all_asked(self) -> bool:
        """Wait until all who were expected have asked."""
        return all(self.asked.acquire(timeout=PATIENCE) for _ in range(self.expected))


@pytest.fixture
def silent(client: Browser) -> Iterator[Silent]:
    found = Silent(THREADS)
    client.app.state.fetch_papers = found  # type: ignore[attr-defined]
    client.app.state.outbox = outbox = Kept()  # type: ignore[attr-defined]
    outbox.send = found  # type: ignore[method-assign]
    yield found
    found.answers.set()


ACTS: dict[str, Callable[[int], tuple[str, dict[str, str]]]] = {
    "submit": lambda number: ("/submit", {"arxiv": f"2310.0000{number}"}),
    "subscribe": lambda number: (
        "/subscribe",
        {"email": f"r{number}@example.org", "frequency": "daily", "scope": "everything"},
    ),
    "sign in": lambda number: ("/sign-in", {"email": f"r{number}@example.org"}),
}


@pytest.mark.parametrize("act", ACTS)
def test_readers_do_not_wait_for_those_who_wait(act: str, client: Browser, silent: Silent, database: Database) -> None:
    """As many as there are threads for pages wait for a server that is silent, and a page is there all the same."""
    if act == "submit":
        sign_in(client, database)
    own = token(client, "/account" if act == "submit" else "/subscribe")
    statuses: list[int] = []

    def ask(number: int) -> None:
        path, fields = ACTS[act](number)
        statuses.append(client.post(path, data={"token": own, **fields}).status_code)

    waiting = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in waiting:
        thread.start()
    assert silent.all_asked()
    pages: list[int] = []
    reading = threading.Thread(target=lambda: pages.append(client.get("/").status_code))
    reading.start()
    reading.join(PATIENCE / 2)
    assert pages == [200]
    assert not silent.answers.is_set()
    silent.answers.set()
    for thread in [*waiting, reading]:
        thread.join(PATIENCE)
    assert len(statuses) == THREADS
    assert set(statuses) == {422 if act == "submit" else 200}
