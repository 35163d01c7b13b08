"""Serving: one clear line for a port that is taken, and a server process without torch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from offprint.daily.server import _listen, serve


def test_a_taken_port_is_one_line(tmp_path: Path, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as stopped:
            serve(port=port, database_url=f"sqlite:///{tmp_path / 'never.db'}")
    assert stopped.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        captured.err == f"offprint: port {port} on 127.0.0.1 is in use; choose another, for example PORT={port + 1}\n"
    )
    assert not (tmp_path / "never.db").exists()


def test_of_two_servers_that_start_together_one_has_the_port() -> None:
    with _listen("127.0.0.1", 0) as first, pytest.raises(SystemExit):
        _listen("127.0.0.1", first.getsockname()[1])


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("256.0.0.1", 0)])
def test_an_address_that_cannot_be_is_one_line(host: str, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve(host, port, "sqlite://")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_record_that_is_not_valid_is_told_without_a_trace(
    tmp_path: Path, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "beta_test" / "paper.toml").write_text('slug = "beta-test"\n', encoding="utf-8")
    with pytest.raises(SystemExit):
        serve(port=0, database_url=f"sqlite:///{tmp_path / 'site.db'}")
    error = capsys.readouterr().err
    assert "beta_test/paper.toml: title: Field required" in error
    assert "Traceback" not in error


def test_the_server_reads_records_and_shows_them_without_torch(tmp_path: Path) -> None:
    """Torch takes seconds to import: claims import it in processes of their own."""
    program = """
import sys
from fastapi.testclient import TestClient
import offprint.daily.server
from offprint.daily.app import create_app
from offprint.daily.library import load_records
from offprint.papers import records
from offprint.store import Database
database = Database(sys.argv[1])
load_records(database)
client = TestClient(create_app(database))
for path in ("/", "/search?q=learning", f"/papers/{next(iter(records()))}"):
    assert client.get(path).status_code == 200, path
loaded = [name for name in ("torch", "matplotlib.figure", "sklearn") if name in sys.modules]
assert not loaded, loaded
"""
    environment = {**os.environ, "OFFPRINT_SECRET": "only for tests"}
    command = [sys.executable, "-W", "ignore", "-c", program, f"sqlite:///{tmp_path / 'site.db'}"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
