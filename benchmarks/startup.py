"""How long starting takes: importing the package, the help of the command line, and the site up to its first page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import harness


def comparisons() -> Iterator[harness.Comparison]:
    """Yield the start-up times against their limits, each in a fresh process."""
    command = Path(sys.executable).with_name("offprint")
    jobs = {
        "python -c 'import offprint'": ([sys.executable, "-c", "import offprint"], 0.3),
        "offprint --help": ([str(command), "--help"], 0.5),
        "offprint papers": ([str(command), "papers"], 1.5),
    }
    for name, (arguments, limit) in jobs.items():
        start = partial(subprocess.run, arguments, check=True, stdout=subprocess.DEVNULL)
        yield harness.within(name, start, limit, note="the interpreter's own start included")
    with tempfile.TemporaryDirectory() as folder:
        note = "from the start of the process to the end of the first page, with a database that is there already"
        yield harness.within("offprint serve", partial(_first_page, command, folder), 3.0, note=note)


def _first_page(command: Path, folder: str) -> None:
    """Serve the site, ask for its first page, and end it."""
    environment = {**os.environ, "XDG_DATA_HOME": folder, "OFFPRINT_DATABASE_URL": f"sqlite:///{folder}/site.db"}
    arguments = [str(command), "serve", "--port", "0"]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as server:
        addresses = (re.search(r"http://[^ ]+", line) for line in server.stdout or ())
        address = next(found[0] for found in addresses if found)
        with urllib.request.urlopen(address) as page:
            page.read()
        server.kill()
