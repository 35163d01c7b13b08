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
FLOORS = ("cli", "pytest_plugin", "daily", "lab", "papers", "methods", "data", "models", "statistics", "store")


def lint(source: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]
    command += ["--config", str(CONTRACTS), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


def test_floors_hold() -> None:
    run = lint(Path(offprint.__file__).parents[1])
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a package with the same floors and nothing on them."""
    package = tmp_path / "offprint"
    for name in FLOORS:
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    return package


def test_empty_floors_hold(package: Path) -> None:
    assert lint(package.parent).returncode == 0


def test_a_new_floor_needs_its_place(package: Path) -> None:
    (package / "attic.py").write_text("")
    run = lint(package.parent)
    assert run.returncode == 1
    assert "offprint.attic" in run.stdout


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
def test_a_step_upward_is_noticed(floor: str, imported: str, package: Path) -> None:
    (package / floor / "astray.py").write_text(f"def late():\n    import offprint.{imported}\n")
    run = lint(package.parent)
    assert run.returncode == 1
    assert f"offprint.{floor}.astray -> offprint.{imported}" in run.stdout
