"""Executors: whatever a claim does, it ends as one outcome, and the others go on."""

from __future__ import annotations

from collections.abc import Iterable

import psutil
import pytest

from offprint.lab import Advance, InProcess, Outcome, ProcessPool, plan

ONE = "{ at_least = 1 }"
CODE = """
@measures("fine")
def fine(run):
    for _ in run.track(range(3), "counting"):
        time.sleep(0.15)
    return Measurement(1, also={}, note=os.environ["OMP_NUM_THREADS"])

@measures("raises")
def raises(run):
    raise RuntimeError("no such luck")

@measures("dies")
def dies(run):
    os.kill(os.getpid(), signal.SIGKILL)

@measures("leaves")
def leaves(run):
    os._exit(3)

@measures("grows")
def grows(run):
    held = bytearray(400 * 2**20)
    time.sleep(60)

@measures("lasts")
def lasts(run):
    time.sleep(60)

@measures("lacks")
def lacks(run):
    run.skip("the moon is not full")

@measures("forgets")
def forgets(run):
    return Measurement(1)

@measures("nan")
def nan(run):
    return Measurement(float("nan"))
"""
CLAIMS = {
    "fine": (ONE, "needs = { cores = 2 }"),
    "raises": ONE,
    "dies": ONE,
    "leaves": ONE,
    "grows": (ONE, "needs = { memory_mb = 300 }"),
    "lasts": (ONE, "needs = { minutes = 0.02 }"),
    "lacks": ONE,
    "forgets": (ONE, 'also = [{ key = "more", metric = "m", expect = { at_least = 1 } }]'),
    "nan": ONE,
}


def outcomes(events: Iterable[object]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for event in events:
        if isinstance(event, Outcome):
            assert event.task.claim not in found, "one outcome for each task"
            found[event.task.claim] = event
    return found


def test_every_way_to_fail_is_an_outcome_and_the_others_go_on(make_paper) -> None:
    paper = make_paper(CLAIMS, CODE)
    found = outcomes(ProcessPool(cores=2, poll_seconds=0.05).stream(plan([paper], "smoke")))
    status = {claim: outcome.status for claim, outcome in found.items()}
    assert status == {**dict.fromkeys(CLAIMS, "error"), "fine": "ok", "lacks": "skipped"}
    assert "no such luck (claims.py, line" in found["raises"].message
    assert "SIGKILL" in found["dies"].message
    assert "status 3" in found["leaves"].message
    assert found["grows"].message == "exceeded its memory limit of 300 MB"
    assert found["lasts"].message == "exceeded its time limit of 0.02 minutes"
    assert found["lacks"].message == "the moon is not full"
    assert "lacks more" in found["forgets"].message
    assert "finite" in found["nan"].message
    assert found["fine"].note == "2", "a task that needs two cores may use two threads"
    assert found["fine"].peak_memory_mb > 10
    assert {"python", "torch", "numpy"} <= set(found["fine"].versions)


def test_progress_reaches_the_listener(make_paper) -> None:
    paper = make_paper({"fine": ONE}, CODE[: CODE.index('@measures("raises")')])
    events = list(ProcessPool(poll_seconds=0.05).stream(plan([paper], "smoke")))
    seen = [(e.progress.done, e.progress.total, e.progress.label) for e in events if isinstance(e, Advance)]
    assert seen[0][2] == "starting"
    assert seen[-1] == (3, 3, "counting")


def test_closing_the_stream_ends_its_processes(make_paper) -> None:
    paper = make_paper({"lasts": ONE}, '@measures("lasts")\ndef lasts(run):\n    time.sleep(60)\n')
    events = ProcessPool().stream(plan([paper], "smoke"))
    next(events)
    children = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
    assert children
    events.close()
    assert not any(child.is_running() for child in children)


def test_in_process_and_pool_measure_the_same(make_paper) -> None:
    code = '@measures("random")\ndef random(run):\n    return Measurement(run.rng().normal())\n'
    paper = make_paper({"random": (ONE, "seeds = 3")}, code)
    tasks = plan([paper], "full")
    assert len(tasks) == 3

    def values(events: Iterable[object]) -> dict[int, float | None]:
        return {event.task.seed: event.value for event in events if isinstance(event, Outcome)}

    here = values(InProcess().stream(tasks))
    assert values(ProcessPool().stream(tasks)) == here
    assert len(set(here.values())) == 3


def test_a_pool_without_cores_is_refused() -> None:
    with pytest.raises(ValueError, match="cores must be at least 1; got 0"):
        ProcessPool(cores=0)
