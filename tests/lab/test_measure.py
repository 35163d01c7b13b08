"""Measuring: what has been measured is never lost and never measured again without need."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from offprint.lab import InProcess, Ledger, measure, plan
from offprint.papers import Record
from offprint.store import Database

LOGGED = """
LOG = Path(os.environ["OWN_LOG"])

def work(run, name):
    run.progress(0, 1, "working")
    time.sleep(0.2)
    value = run.rng().normal()
    with LOG.open("a") as log:
        log.write(f"{name} {run.seed}\\n")
    return Measurement(value)

@measures("one")
def one(run):
    return work(run, "one")

@measures("two")
def two(run):
    return work(run, "two")
"""
RULES = dict.fromkeys(("one", "two"), ("{ between = [-9, 9] }", "seeds = 4"))


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("OWN_LOG", str(path))
    return path


@pytest.fixture
def paper(make_paper, log: Path) -> Record:
    return make_paper(RULES, LOGGED)


def performed(log: Path) -> list[str]:
    return sorted(log.read_text(encoding="utf-8").splitlines())


def test_a_second_run_measures_nothing_and_judges_the_same(paper: Record, log: Path, database: Database) -> None:
    first = measure([paper], "quick", ledger=Ledger(database), seeds=2, executor=InProcess())
    assert performed(log) == ["one 0", "one 1", "two 0", "two 1"]
    second = measure([paper], "quick", ledger=Ledger(database), seeds=2, executor=InProcess())
    assert len(performed(log)) == 4
    assert [claim.judgements for claim in second[0].claims] == [claim.judgements for claim in first[0].claims]
    measure([paper], "quick", ledger=Ledger(database), seeds=3, executor=InProcess())
    assert performed(log)[-1] == "two 2"
    assert len(performed(log)) == 6, "only the new seed was missing"
    measure([paper], "quick", ledger=Ledger(database), seeds=1, executor=InProcess(), again=True)
    assert len(performed(log)) == 8, "again means again"


def test_changed_code_is_measured_again_and_errors_are_tried_again(make_paper, log: Path, database: Database) -> None:
    results = []
    for value in ("1 / 0", "1 / 0 ", "0.5", "2"):
        code = f'@measures("c")\ndef c(run):\n    return Measurement({value})\n'
        paper = make_paper({"c": "{ at_least = 1 }"}, code)
        results += measure([paper], "quick", ledger=Ledger(database), executor=InProcess())
    assert [result.verdicts for result in results] == [
        ("error",),
        ("error",),
        ("not reproduced",),
        ("reproduced",),
    ]


def test_claims_without_a_function_are_not_yet_measured(make_paper, database: Database) -> None:
    code = '@measures("done")\ndef done(run):\n    return Measurement(True)\n'
    paper = make_paper({"done": "{ holds = true }", "later": "{ holds = true }"}, code)
    [result] = measure([paper], "smoke", ledger=Ledger(database), executor=InProcess())
    assert result.verdicts == ("reproduced", "not yet measured")
    assert result.badge == "1 of 2 claims reproduced"


def test_what_does_not_exist_is_refused(paper: Record, database: Database) -> None:
    with pytest.raises(ValueError, match="no such claim: three"):
        measure([paper], "quick", ledger=Ledger(database), claims=["three"])
    with pytest.raises(ValueError, match="seeds must be at least 1; got 0"):
        measure([paper], "quick", ledger=Ledger(database), seeds=0)


def test_killed_at_random_moments_it_loses_only_the_tasks_in_flight(paper: Record, log: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'killed.db'}"
    command = [sys.executable, "-m", "offprint.cli", "run", paper.slug, "--scale", "full", "--cores", "2"]
    environment = {**os.environ, "OFFPRINT_DATABASE_URL": url}
    moments = random.Random(3)
    tasks = plan([paper], "full")
    kills = 2
    for _ in range(kills):
        before = len(performed(log))
        program = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        while len(performed(log)) == before and program.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 1.0))
        assert program.poll() is None, "it was killed while it worked"
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
    program = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    program.wait()
    assert program.returncode == 0
    counts = {line: performed(log).count(line) for line in performed(log)}
    assert len(counts) == len(tasks)
    assert sum(counts.values()) <= len(tasks) + 2 * kills, "no more than the two tasks in flight are lost by a kill"
    uninterrupted = measure([paper], "full", ledger=Ledger(Database("sqlite://")), executor=InProcess())
    resumed = Ledger(Database(url)).measured(tasks)
    expected = {o.task.name: o.value for claim in uninterrupted[0].claims for o in claim.outcomes}
    assert {task.name: outcome.value for task, outcome in resumed.items()} == expected
