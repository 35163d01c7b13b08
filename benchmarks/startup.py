"""How long starting takes: importing the package, and the help of the command line."""

from __future__ import annotations

import subprocess
import sys
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
