"""Serving the site: the records loaded, the address printed, and an end that leaves no process behind."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any, NoReturn

import uvicorn

from offprint.daily.app import create_app
from offprint.daily.library import load_records
from offprint.lab.results import recorded
from offprint.papers import RecordError, records
from offprint.store import Database

GRACE_SECONDS = 3


class _Server(uvicorn.Server):
    """Tells the streams to end before it waits for them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        app: Any = self.config.app
        app.state.runs.stopping.set()
        await super().shutdown(sockets)


def serve(host: str = "127.0.0.1", port: int = 8000, database_url: str | None = None) -> None:
    """Load the records and serve the site until it is interrupted.

    Parameters
    ----------
    host : str
        The address to listen on.
    port : int
        The port to listen on; 0 takes any that is free.
    database_url : str, optional
        An SQLAlchemy URL; ``OFFPRINT_DATABASE_URL`` or SQLite in the user's data folder when left out.

    Raises
    ------
    SystemExit
        With status 1 after one line on standard error, if the port is taken or a record is not valid.
    """
    listening = _listen(host, port)
    try:
        total = load_records(database := Database(database_url))
    except RecordError as error:
        _stop(str(error))
    with_results = sum(recorded_safely(slug) for slug in records())
    host_shown = f"[{host}]" if ":" in host else host
    print(f"offprint: {total} papers, {with_results} with recorded results")
    print(f"offprint: http://{host_shown}:{listening.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
    config = uvicorn.Config(
        create_app(database),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    try:
        _Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        database.close()


def recorded_safely(slug: str) -> bool:
    """Whether a paper has recorded results that can be read."""
    try:
        return recorded(records()[slug]) is not None
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
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
