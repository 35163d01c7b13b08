"""The site served by a process of its own, as an operator starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from offprint.store import Database


@dataclass(frozen=True)
class Served:
    """A server process and its address."""

    process: subprocess.Popen[str]
    address: str


@contextmanager
def served(database: Database, folder: Path, packages: Path | None = None, *options: str) -> Iterator[Served]:
    """Start ``offprint serve`` on a free port; it is ended with the block. ``packages`` holds papers of one's own."""
    environment = {
        **os.environ,
        "OFFPRINT_DATABASE_URL": database.url.render_as_string(hide_password=False),
        "OFFPRINT_SECRET": "only for tests",
        "XDG_DATA_HOME": str(folder / "data"),
        "PYTHONPATH": str(packages or ""),
    }
    command = [sys.executable, "-m", "offprint.cli", "serve", "--port", "0", *options]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            addresses = (re.search(r"http://[^/]+", line) for line in process.stdout)
            address = next((found[0] for found in addresses if found), None)
            assert address is not None, f"the server ended with status {process.wait()}"
            yield Served(process, address)
        finally:
            process.terminate()
