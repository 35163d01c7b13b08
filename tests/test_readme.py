"""The README's table of papers is what records and recorded results say."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from offprint.papers import records

ROOT = Path(__file__).parents[1]
EMPTY = "# Title\n\n<!-- papers:start -->\n<!-- papers:end -->\n\nThe end.\n"


Readme = Callable[..., tuple[int, str]]


@pytest.fixture
def readme(capsys: pytest.CaptureFixture[str]) -> Readme:
    """Return a function that runs the script with these options: its exit status, and what it says."""
    main = runpy.run_path(str(ROOT / "scripts" / "readme.py"))["main"]

    def run(*options: str) -> tuple[int, str]:
        return main(options), capsys.readouterr().err

    return run


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a README with an empty table, in a project without recorded results."""
    monkeypatch.setenv("OFFPRINT_RESULTS", str(tmp_path / "results"))
    path = tmp_path / "README.md"
    path.write_text(EMPTY, encoding="utf-8")
    return path


def test_the_readme_is_up_to_date(readme: Readme) -> None:
    assert readme("--check") == (0, "")


def test_the_table_is_written_and_nothing_else_changes(made: Path, readme: Readme) -> None:
    assert readme("--check", "--file", str(made))[0] == 1
    assert made.read_text(encoding="utf-8") == EMPTY
    assert readme("--file", str(made)) == (0, "")
    text = made.read_text(encoding="utf-8")
    assert text.startswith("# Title\n\n<!-- papers:start -->\n")
    assert text.endswith("<!-- papers:end -->\n\nThe end.\n")
    for paper in records().values():
        built = paper.methods and paper.package.startswith("offprint.papers.")
        assert bool(built) == (f"]({paper.url}) |" in text)
    assert readme("--check", "--file", str(made)) == (0, "")


def test_a_result_shows_with_its_figure_and_makes_the_table_stale(made: Path, readme: Readme) -> None:
    assert readme("--file", str(made)) == (0, "")
    paper = next(paper for paper in records().values() if paper.methods)
    first = paper.claims[0].id
    figure = f"figures/{paper.slug}/{first}.svg"
    results = {"claims": [{"id": first, "verdict": "reproduced", "figure": figure}]}
    path = made.parent / "results" / f"{paper.slug}.json"
    path.parent.mkdir()
    path.write_text(json.dumps(results), encoding="utf-8")
    status, said = readme("--check", "--file", str(made))
    assert (status, "stale" in said) == (1, True)
    assert readme("--file", str(made)) == (0, "")
    [row] = [line for line in made.read_text(encoding="utf-8").splitlines() if f"({paper.url})" in line]
    assert f"`{paper.import_lines[0]}`" in row
    assert f"| 1 of {len(paper.claims)} claims reproduced |" in row
    assert f'<a href="results/{figure}"><img src="results/{figure}"' in row


@pytest.mark.parametrize("text", ["no markers", "<!-- papers:end --> <!-- papers:start -->", EMPTY + EMPTY])
def test_missing_markers_are_named(made: Path, readme: Readme, text: str) -> None:
    made.write_text(text, encoding="utf-8")
    status, said = readme("--file", str(made))
    assert status == 1
    assert "must hold <!-- papers:start -->" in said
    assert made.read_text(encoding="utf-8") == text
