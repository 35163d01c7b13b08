"""Runs a command beside a PostgreSQL server of its own, which is gone afterwards.

The server listens on a free port of this machine and keeps its files in a temporary folder. The command finds it by
``OFFPRINT_TEST_DATABASE_URL``::

    python scripts/postgres.py pytest tests/store
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VARIABLE = "OFFPRINT_TEST_DATABASE_URL"
USER = "postgres"
SECONDS_TO_START = 60
# Nothing of it outlives the command, so nothing has to reach the disk.
OPTIONS = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=300",
    "listen_addresses=127.0.0.1",
)


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs, of its newest version."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(installed[-1]) if installed else shutil.which(name)
    if found is None:
        sys.exit(f"{name} was not found: install PostgreSQL (on Debian: apt-get install postgresql)")
    return found


@contextmanager
def server() -> Iterator[str]:
    """Start a server and give its address; stop it at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="offprint-postgres-") as folder:
        identity = _not_root(folder)
        data = f"{folder}/data"
        initialise = [program("initdb"), "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
        subprocess.run(initialise, check=True, stdout=subprocess.DEVNULL, cwd=folder, **identity)
        port = _free_port()
        settings = [part for option in OPTIONS for part in ("-c", option)]
        command = [program("postgres"), "-D", data, "-p", str(port), "-k", folder, *settings]
        with Path(folder, "log").open("wb") as log:
            # A group of its own: Ctrl-C in a terminal reaches the command first, and the server ends after it.
            running = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True, **identity)
            try:
                _wait(running, port, Path(folder, "log"))
                yield f"postgresql+psycopg://{USER}@127.0.0.1:{port}/postgres"
            finally:
                running.send_signal(signal.SIGINT)  # its fast shutdown
                running.wait()


def _not_root(folder: str) -> dict[str, Any]:
    """Return whose processes the server's are: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        sys.exit(f"PostgreSQL does not run as root, and there is no user {USER!r}")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(running: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ask = [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    for _ in range(SECONDS_TO_START * 10):
        if running.poll() is not None:
            break
        if subprocess.run(ask, check=False).returncode == 0:
            return
        try:
            running.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    sys.exit(f"PostgreSQL did not start:\n{log.read_text(errors='replace')}")


def main() -> int:
    """Run the command that is named on the command line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python scripts/postgres.py COMMAND [ARGUMENT ...]")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with server() as url:
        return subprocess.run(sys.argv[1:], check=False, env={**os.environ, VARIABLE: url}).returncode


if __name__ == "__main__":
    sys.exit(main())
