"""Recorded results and reports: their layout, their figures, and the words that readers see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offprint.lab import InProcess, Ledger, PaperResult, measure, record_results, recorded, recorded_badge, report
from offprint.lab.report import rows
from offprint.lab.results import folder
from offprint.papers import Record, record
from offprint.store import Database

CODE = """
@measures("shown")
def shown(run):
    run.figure(Panel("n", "y | (m)", [Series("ours", [1, 2], [run.seed, 1])]), caption="c")
    return Measurement(run.seed, baseline=10, also={"extra": 1}, note="shrunk")

@measures("yes")
def yes(run):
    return Measurement(run.seed < 2)

@measures("bad")
def bad(run):
    raise ValueError("a | b <script>")
"""
CLAIMS = {
    "shown": (
        "{ at_least = 1 }",
        'seeds = 3\\nreported = 2.5\\nalso = [{ key = "extra", metric = "e", expect = { between = [0, 2] } }]',
    ),
    "yes": ("{ holds = true, weaker = 0.5 }", "seeds = 3"),
    "bad": ("{ at_most = 1 }", ""),
}


@pytest.fixture
def measured(make_paper, database: Database) -> PaperResult:
    paper: Record = make_paper({name: (rule, rest.replace("\\n", "\n")) for name, (rule, rest) in CLAIMS.items()}, CODE)
    return measure([paper], "full", ledger=Ledger(database), executor=InProcess())[0]


def test_a_recording_says_all_that_the_project_promises(measured: PaperResult) -> None:
    assert recorded(measured.paper) is None
    assert recorded_badge(measured.paper) == "not yet measured"
    path = record_results(measured, "offprint record own-paper")
    assert path == measured.paper.folder / "results" / "own-paper.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert {"slug", "command", "commit", "machine", "versions", "scale"} <= set(content)
    assert content["command"] == "offprint record own-paper"
    shown, yes, bad = content["claims"]
    assert shown["id"] == "shown"
    assert (shown["verdict"], shown["value"], shown["baseline"], shown["reported"]) == ("reproduced", 1.0, 10.0, 2.5)
    assert shown["interval"] == [0.0, 2.0]
    assert shown["values"] == [0.0, 1.0, 2.0]
    assert (shown["seeds"], shown["scale"], shown["note"]) == (3, "full", "shrunk")
    assert shown["seconds"] >= 0
    assert shown["peak_memory_mb"] > 1
    assert shown["also"][0]["verdict"] == "reproduced"
    assert (yes["verdict"], round(yes["value"], 3)) == ("weaker", 0.667)
    assert (bad["verdict"], bad["value"], bad["interval"]) == ("error", None, None)
    assert "a | b <script>" in bad["message"]
    for suffix in (".svg", ".png"):
        assert (path.parent / shown["figure"]).with_suffix(suffix).stat().st_size > 1000
    assert yes["figure"] is None
    assert recorded(measured.paper) == content
    assert recorded_badge(measured.paper) == "1 of 3 claims reproduced"


def test_rows_show_numbers_intervals_and_counts(measured: PaperResult) -> None:
    shown, yes, bad = (rows(claim) for claim in measured.claims)
    assert shown[0][:4] == ("shown", "≥ 1", "1 [0, 2]", "reproduced")
    assert shown[1] == ("↳ extra", "0 to 2", "1 [1, 1]", "reproduced", "")
    assert yes[0][1:4] == ("holds", "2 of 3 seeds", "weaker")
    assert "ValueError" in bad[0][2]


def test_reports_carry_the_table_and_escape_what_claims_say(measured: PaperResult, tmp_path: Path) -> None:
    markdown, page, data = (path.read_text(encoding="utf-8") for path in report([measured], tmp_path / "out"))
    assert "| shown | ≥ 1 | 1 [0, 2] | reproduced |" in markdown
    assert "a \\| b" in markdown
    assert "own-paper-shown.svg" in markdown
    assert (tmp_path / "out" / "own-paper-shown.png").exists()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<svg" in page
    assert json.loads(data)[0]["claims"][0]["verdict"] == "reproduced"


def test_results_of_this_project_live_in_the_checkout_or_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFPRINT_RESULTS", raising=False)
    assert (folder(record("vr-halpern")).parent / "pyproject.toml").exists()
    monkeypatch.setenv("OFFPRINT_RESULTS", "/elsewhere")
    assert folder(record("vr-halpern")) == Path("/elsewhere")
