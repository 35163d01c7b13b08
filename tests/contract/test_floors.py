"""The floors of ``.importlinter`` hold, and a step upward is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import offprint

ROOT = Path(__file__).parents[2]
CONTRACTS = ROOT / ".importlinter"
FLOORS = ("cli", "daily", "lab", "papers", "methods", "data", "models", "statistics", "store")


def lint(source: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]
    command += ["--config", str(CONTRACTS), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


def test_floors_hold() -> None:
    run = lint(Path(offprint.__file__).parents[1])
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("floor", "imported"),
    [
        ("methods", "papers"),
        ("methods", "lab"),
        ("methods", "daily"),
        ("methods", "data"),
        ("methods", "store"),
        ("statistics", "models"),
        ("papers", "lab"),
        ("papers", "store"),
        ("lab", "daily"),
        ("daily", "cli"),
        ("store", "statistics"),
    ],
)
def test_a_step_upward_is_noticed(floor: str, imported: str, tmp_path: Path) -> None:
    package = tmp_path / "offprint"
    for name in FLOORS:
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    assert lint(tmp_path).returncode == 0
    (package / floor / "astray.py").write_text(f"def late():\n    import offprint.{imported}\n")
    run = lint(tmp_path)
    assert run.returncode == 1
    assert f"offprint.{floor}.astray -> offprint.{imported}" in run.stdout
