"""Serving the site: the records loaded, the address printed, and an end that leaves no process behind."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, NoReturn

import uvicorn

from offprint.daily import logs, settings
from offprint.daily.app import create_app
from offprint.daily.library import load_records
from offprint.daily.mail import outbox
from offprint.daily.mail.digest import Site
from offprint.daily.mail.schedule import Schedule
from offprint.daily.mail.sending import Sender
from offprint.daily.metrics import SHARED_FOLDER
from offprint.daily.settings import Settings
from offprint.lab.results import recorded
from offprint.papers import RecordError, records
from offprint.store import Database

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

GRACE_SECONDS = 3
KEEP_ALIVE_SECONDS = 75
"""Longer than reverse proxies keep their connections by default, so that it is they who close them."""
SWITCH_SECONDS = 0.001
"""How long one thread may run while others wait. Answers that are kept are given out by a single thread, beside those
that make pages: with Python's 5 ms it waits for each of them for as long, several times an answer."""


class _Server(uvicorn.Server):
    """Tells the streams to end before it waits for them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        runs = self.lifespan.state.get("runs")
        if runs is not None:
            runs.stopping.set()
        await super().shutdown(sockets)


def serve(
    host: str = "127.0.0.1",
    port: int = 8000,
    database_url: str | None = None,
    *,
    workers: int = 1,
    with_digest: bool = False,
) -> None:
    """Load the records and serve the site until it is interrupted.

    Parameters
    ----------
    host : str
        The address to listen on.
    port : int
        The port to listen on; 0 takes any that is free.
    database_url : str, optional
        An SQLAlchemy URL; ``OFFPRINT_DATABASE_URL`` or SQLite in the user's data folder when left out.
    workers : int
        Processes that answer. Runs are performed by one of them at a time.
    with_digest : bool
        Send the digests that are due, every day at the hour of the settings.

    Raises
    ------
    SystemExit
        With status 1 after one line on standard error, if the port is taken, or a record or a setting is not valid.
    """
    try:
        chosen = settings.load()
        outbox(chosen)
    except ValueError as error:
        _stop(str(error))
    logs.configure(chosen.log_format, chosen.log_level)
    listening = _listen(host, port)
    try:
        total = load_records(database := Database(database_url))
    except RecordError as error:
        _stop(str(error))
    with_results = sum(recorded_safely(slug) for slug in records())
    print(f"offprint: {total} papers, {with_results} with recorded results")
    if not chosen.smtp_url:
        print(f"offprint: no mail server is set (OFFPRINT_SMTP_URL); mail goes to the folder {chosen.maildir}")
    print(f"offprint: {_address(listening)}/ (Ctrl-C ends it)", flush=True)
    try:
        if workers > 1:
            database.close()  # connections are not for several processes
            _Crew(workers, listening, database_url, with_digest).lead()
        else:
            _answer(listening, database, chosen, with_digest)
    except KeyboardInterrupt:
        pass
    finally:
        database.close()
        listening.close()


def _answer(listening: socket.socket, database: Database, chosen: Settings, with_digest: bool) -> None:
    """Answer requests in this process until it is interrupted."""
    app = create_app(database, settings=chosen)
    site = Site.of(chosen, _address(listening))
    schedule = Schedule(lambda: Sender(database, app.state.outbox, site), chosen.digest_hour)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(chosen.trusted_proxies),
        forwarded_allow_ips=list(chosen.trusted_proxies),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    sys.setswitchinterval(SWITCH_SECONDS)
    # What is there now stays: no request has to wait while the collector goes through all of it.
    gc.collect()
    gc.freeze()
    if with_digest:
        schedule.start()
    try:
        _Server(config).run(sockets=[listening])
    finally:
        schedule.stop()


class _Crew:
    """Processes that answer on the same socket. One that dies is replaced; all of them end with this one."""

    def __init__(self, size: int, listening: socket.socket, database_url: str | None, with_digest: bool) -> None:
        self.size = size
        self.listening = listening
        self.database_url = database_url
        self.with_digest = with_digest
        self.ending = False

    def lead(self) -> None:
        """Keep the crew complete until this process is told to end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)
        with _shared_figures():
            crew = [self._hire(place) for place in range(self.size)]
            while not self.ending:
                wait([member.sentinel for member in crew], timeout=0.5)
                for place, member in enumerate(crew):
                    if member.exitcode is None or self.ending:
                        continue
                    if member.exitcode == uvicorn.config.STARTUP_FAILURE:
                        self.ending = True  # the next would fail as well
                    else:
                        crew[place] = self._hire(place)
            for member in crew:
                member.terminate()
            for member in crew:
                member.join()

    def _hire(self, place: int) -> SpawnProcess:
        context = multiprocessing.get_context("spawn")
        # The digests are one process's work.
        with_digest = self.with_digest and place == 0
        member = context.Process(
            target=_member, args=(self.listening, self.database_url, with_digest, os.getpid()), name=f"server {place}"
        )
        member.start()
        return member

    def _end(self, *_: object) -> None:
        self.ending = True


def _member(listening: socket.socket, database_url: str | None, with_digest: bool, leader: int) -> None:
    """Answer as one of several processes, and for no longer than the one that leads them lives."""
    threading.Thread(target=_follow, args=(leader,), daemon=True).start()
    chosen = settings.load()
    logs.configure(chosen.log_format, chosen.log_level)
    database = Database(database_url)
    try:
        _answer(listening, database, chosen, with_digest)
    except KeyboardInterrupt:
        pass
    finally:
        database.close()


def _follow(leader: int) -> None:
    pause = threading.Event()
    while os.getppid() == leader:
        pause.wait(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _shared_figures() -> Iterator[None]:
    """Name a folder in which the processes started meanwhile add up their metrics."""
    with tempfile.TemporaryDirectory(prefix="offprint-metrics-") as folder:
        os.environ[SHARED_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[SHARED_FOLDER]


def recorded_safely(slug: str) -> bool:
    """Whether a paper has recorded results that can be read."""
    try:
        return recorded(records()[slug]) is not None
    except ValueError:
        return False


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, because asyncio looks at it: it has headers and page leave at once only where it reads TCP. Else the page
    # waits, up to 40 ms, until the reader's side has confirmed the headers.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if sys.platform != "win32":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = (
            "is in use; choose another, for example"
            if taken
            else f"cannot be used ({error}); choose another, for example"
        )
        _stop(f"port {port} on {host} {reason} PORT={(port if 0 < port < 65535 else 8000) + 1}")
    return listening


def _stop(message: str) -> NoReturn:
    print(f"offprint: {message}", file=sys.stderr)
    raise SystemExit(1)
