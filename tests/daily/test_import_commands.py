"""The commands, as an operator types them; and killed as an operator's machine kills them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from arxiv_server import Preprint, arxiv_server
from sqlalchemy import func, select
from tables import everything
from typer.testing import CliRunner, Result

from offprint import cli
from offprint.store import Database, Import, Paper


def record(number: int) -> dict[str, object]:
    return {
        "id": f"3401.{number:05}",
        "title": f"Paper {number} of a dump",
        "abstract": f"Abstract of number {number}. " * 20,
        "authors_parsed": [["Lovelace", "Ada", ""]],
        "categories": "cs.LG" if number % 2 else "math.OC",
        "versions": [{"version": "v1", "created": f"Mon, {1 + number % 28} Jan 2024 19:18:42 GMT"}],
    }


@pytest.fixture
def offprint(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    url = database.engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("OFFPRINT_DATABASE_URL", url)
    return lambda *arguments: CliRunner().invoke(cli.app, ["import", *map(str, arguments)])


def test_a_dump_with_a_bad_line_is_no_failure(offprint: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "dump.json"
    path.write_text(f"{json.dumps(record(1))}\nnonsense\n{json.dumps(record(2))}\n", encoding="utf-8")
    result = offprint("arxiv-dump", path, "--category", "cs.LG")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "1 papers (2024-01-02): 0 on record, 1 new, 0 changed, 1 left out, 1 skipped",
        "line 2: not JSON: Expecting value: 'nonsense'",
    ]
    assert offprint("arxiv-dump", path).stdout.startswith("2 papers (2024-01-02 to 2024-01-03): 0 on record, 1 new")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"nonsense\n", b"\x1f\x8b\x08 no gzip after all"])
@pytest.mark.parametrize("command", [["arxiv-dump"], ["hub-json"], ["page-text", "--year", "2025"]])
def test_a_file_of_which_nothing_can_be_read_is_a_failure(
    command: list[str], content: bytes, offprint: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(content)
    result = offprint(*command, tmp_path / "file")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("offprint: ")


def test_arxiv_is_asked_where_the_setting_says(
    offprint: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    with arxiv_server([Preprint("2508.00001", "A Paper")]) as server:
        monkeypatch.setenv("OFFPRINT_ARXIV_URL", server.url)
        result = offprint("arxiv", "2508.00001", "2508.00002", "--delay", "0")
        assert result.stdout.startswith("1 papers (2025-08-01): 0 on record, 1 new, 0 changed, 1 skipped")
        result = offprint("arxiv", "--category", "cs.LG", "--since", "2025-08-01", "--delay", "0")
        assert result.stdout.startswith("1 papers (2025-08-01): 0 on record, 0 new, 0 changed, 0 skipped")
    for wrong in ([], ["--category", "cs.LG"], ["--category", "cs.LG", "--since", "yesterday"]):
        assert offprint("arxiv", *wrong).exit_code == 2


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_an_undisturbed_one(
    tmp_path: Path, migrated_url: str, new_url: Callable[..., str]
) -> None:
    """SIGKILL to the real command at random moments after random amounts; every table is the same in the end."""
    path = tmp_path / "dump.json"
    lines = [json.dumps(record(number % 25_000)) if number % 50 else "broken" for number in range(28_000)]
    path.write_text("\n".join(lines), encoding="utf-8")
    cut, whole = new_url(migrated_url), new_url(migrated_url)
    assert start(path, whole).wait() == 0
    draw = random.Random(1)
    database = Database(cut)
    reached = [0]
    for _ in range(12):
        process = start(path, cut)
        target = draw.uniform(0, path.stat().st_size / 3)
        while process.poll() is None and position(database) < reached[-1] + target:
            wait(process, 0.01)
        wait(process, draw.uniform(0, 0.3))
        process.kill()
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
        reached.append(position(database))
    assert len(set(reached)) > 3  # it was killed between its first batch and its last, more than once
    assert start(path, cut).wait() == 0
    undisturbed = Database(whole)
    assert everything(database, clocks=False) == everything(undisturbed, clocks=False)
    with database.session() as session:
        assert session.scalar(select(func.count()).where(Paper.arxiv.like("3401.%"))) == 24_500
    database.close()
    undisturbed.close()


def start(path: Path, url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "offprint.cli", "import", "arxiv-dump", str(path)]
    return subprocess.Popen(
        command, env=os.environ | {"OFFPRINT_DATABASE_URL": url}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def position(database: Database) -> int:
    with database.session() as session:
        return session.scalar(select(func.max(Import.position))) or 0
