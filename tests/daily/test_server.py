"""Serving: one clear line for a port that is taken, and a server process without torch."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest
import serving

from offprint.daily.server import _listen, serve
from offprint.store import Database


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


def test_headers_and_page_leave_at_once() -> None:
    """Nagle's algorithm is off where a page is answered: with it the page waits for the reader's side, up to 40 ms."""

    async def ask(listening: socket.socket) -> int:
        answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            answered.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        server = await asyncio.start_server(answer, sock=listening)
        _, writer = await asyncio.open_connection(*listening.getsockname())
        found = await answered
        writer.close()
        server.close()
        return found

    with _listen("127.0.0.1", 0) as listening:
        assert asyncio.run(ask(listening)) != 0


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


@pytest.mark.parametrize(
    ("name", "value"), [("OFFPRINT_DIGEST_HOUR", "99"), ("OFFPRINT_SMTP_URL", "ftp://user:secret@host")]
)
def test_a_setting_that_cannot_be_read_is_one_line(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        serve(port=0, database_url=f"sqlite:///{tmp_path / 'never.db'}")
    assert stopped.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"offprint: {name}")
    assert "secret" not in line
    assert not (tmp_path / "never.db").exists()


@pytest.mark.slow
def test_several_processes_are_one_site(database: Database, package: Path, tmp_path: Path) -> None:
    """One that is killed is replaced; all add up their figures, know each other's forms, and end together."""
    with serving.served(database, tmp_path, package.parent, "--workers", "2") as server:
        leader = psutil.Process(server.process.pid)
        httpx.get(f"{server.address}/readyz", timeout=60)
        crew = _serving(leader)
        assert len(crew) == 2
        with httpx.Client(base_url=server.address) as reader:
            assert [reader.get("/search?q=x").status_code for _ in range(20)] == [200] * 20
        found = httpx.get(f"{server.address}/metrics").text
        assert 'offprint_http_requests_total{method="GET",route="/search",status="200"} 20.0' in found
        crew[0].kill()
        crew[0].wait()
        for _ in range(10):
            assert httpx.get(f"{server.address}/readyz", timeout=60).status_code == 200
        assert len(_serving(leader)) == 2
        everyone = leader.children(recursive=True)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        _, alive = psutil.wait_procs(everyone, 30)
        assert not alive


@pytest.mark.slow
def test_processes_do_not_outlive_a_leader_that_is_killed(database: Database, package: Path, tmp_path: Path) -> None:
    with serving.served(database, tmp_path, package.parent, "--workers", "2") as server:
        httpx.get(f"{server.address}/readyz", timeout=60)
        crew = _serving(psutil.Process(server.process.pid))
        server.process.kill()
        gone, alive = psutil.wait_procs(crew, 30)
        assert (len(gone), alive) == (2, [])


@pytest.mark.slow
def test_forwarded_addresses_count_from_trusted_proxies_only(
    database: Database, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the scheme that cookies follow: over TLS, as far as the proxy says, they are marked as secure."""
    asked = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    cookies = {}
    for trusted in ("127.0.0.1", "192.0.2.1"):
        monkeypatch.setenv("OFFPRINT_TRUSTED_PROXIES", trusted)
        with serving.served(database, tmp_path, package.parent) as server:
            answer = httpx.get(f"{server.address}/papers/alpha-method", headers=asked, timeout=60)
            cookies[trusted] = answer.headers["set-cookie"].lower()
    assert "; secure" in cookies["127.0.0.1"]
    assert "; secure" not in cookies["192.0.2.1"]


def _serving(leader: psutil.Process) -> list[psutil.Process]:
    return [child for child in leader.children() if "multiprocessing.spawn" in " ".join(child.cmdline())]
