"""The command line: light to start, clear when something is wrong, and honest in its exit status."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from offprint.cli import app, main

SLOW_MODULES = ("torch", "numpy", "scipy", "sklearn", "matplotlib", "sqlalchemy", "fastapi", "pydantic")


@pytest.fixture(autouse=True)
def _own_database(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFPRINT_DATABASE_URL", f"sqlite:///{tmp_path / 'cli.db'}")
    monkeypatch.setenv("COLUMNS", "160")


def ended(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["offprint", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.mark.parametrize("code", ["import offprint", "import offprint.cli"])
def test_starting_imports_nothing_slow(code: str) -> None:
    program = f"{code}; import sys; print([name for name in {SLOW_MODULES!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_listing_papers_does_not_import_torch() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from offprint.cli import app; "
        "result = CliRunner().invoke(app, ['papers']); assert result.exit_code == 0, result.output; "
        "assert 'vr-halpern' in result.output; print('torch' in sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "False"


def test_every_job_has_a_command() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    for command in ("run", "record", "papers", "new", "serve", "import", "data"):
        assert f"  {command} " in text


def test_a_mistyped_paper_is_named_with_what_it_may_have_meant(capsys, monkeypatch) -> None:
    status, _, err = ended(capsys, monkeypatch, "run", "vr-halpen")
    assert status == 2
    assert err == "offprint: no paper 'vr-halpen' on record; did you mean vr-halpern?\n"


def test_bad_options_are_refused_before_anything_runs(capsys, monkeypatch) -> None:
    assert "no such claim: nothing" in ended(capsys, monkeypatch, "run", "vr-halpern", "--claim", "nothing")[2]
    assert "cores must be at least 1" in ended(capsys, monkeypatch, "run", "vr-halpern", "--cores", "0")[2]
    assert ended(capsys, monkeypatch, "run", "vr-halpern", "--scale", "huge")[0] == 2


def test_exit_status_follows_errors_and_strict_follows_verdicts(capsys, monkeypatch, make_paper, tmp_path) -> None:
    def value(text: str) -> str:
        return f'@measures("c")\ndef c(run):\n    return Measurement({text})\n'

    make_paper({"c": "{ at_least = 1 }"}, value("0"))
    status, out, _ = ended(capsys, monkeypatch, "run", "own-paper", "--scale", "smoke", "--report", str(tmp_path / "r"))
    assert status == 0
    assert "not reproduced" in out
    assert (tmp_path / "r" / "report.html").exists()
    assert ended(capsys, monkeypatch, "run", "own-paper", "--scale", "smoke", "--strict")[0] == 1
    make_paper({"c": "{ at_least = 1 }"}, value("1 / 0"))
    status, out, _ = ended(capsys, monkeypatch, "run", "own-paper", "--scale", "smoke")
    assert status == 1
    assert "ZeroDivisionError" in out
    make_paper({"c": "{ at_least = 1 }"}, value("2"))
    assert ended(capsys, monkeypatch, "run", "own-paper", "--scale", "smoke", "--strict")[0] == 0


def test_recording_writes_results_and_says_where(capsys, monkeypatch, make_paper) -> None:
    paper = make_paper({"c": "{ at_least = 1 }"}, '@measures("c")\ndef c(run):\n    return Measurement(2)\n')
    status, out, _ = ended(capsys, monkeypatch, "record", "own-paper")
    assert status == 0
    assert (paper.folder / "results" / "own-paper.json").exists()
    assert "own-paper.json" in out.replace("\n", "")
