"""Real browsers and a real server: one of each for a module, or of a test's own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

pytest.importorskip("selenium", reason="pip install 'offprint[e2e]'")

from browsing import browsing

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The real server in a process of its own, on a free port, with a database of its own."""
    environment = {
        **os.environ,
        "OFFPRINT_DATABASE_URL": f"sqlite:///{tmp_path / 'site.db'}",
        "OFFPRINT_RESULTS": str(tmp_path / "results"),  # none recorded: what is shown was measured here
        "OFFPRINT_SECRET": "only for tests",
        "PORT": "0",
    }
    command = [sys.executable, "-c", "from offprint.cli import main; main()", "serve"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "http://" in line)
        [address] = re.findall(r"http://127\.0\.0\.1:\d+", said)
        yield address, psutil.Process(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[..., Chrome]]:
    """Open browsers; at the end of the test none may have complained of anything."""
    opened: list[Chrome] = []
    with ExitStack() as ends:

        def start(*, javascript: bool = True) -> Chrome:
            profile = tmp_path / f"profile-{len(opened)}"
            opened.append(ends.enter_context(browsing(profile, javascript=javascript)))
            return opened[-1]

        yield start
        complaints = [entry for browser in opened for entry in browser.get_log("browser")]
    assert complaints == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser that the tests of a module share."""
    with browsing(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser
