"""The ledger: outcomes are written to the database the moment they exist, and found again by their fingerprint."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, delete, select

from offprint.lab.tasks import Outcome, Task
from offprint.papers import Scale
from offprint.store import Database
from offprint.store import Outcome as Row


class Ledger:
    """Stores outcomes of tasks and gives them back.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, outcome: Outcome) -> None:
        """Store an outcome, in place of an earlier one of the same task and code."""
        task = outcome.task
        with self.database.session() as session:
            session.execute(delete(Row).where(*_same(task)))
            session.add(
                Row(
                    paper=task.paper,
                    claim=task.claim,
                    scale=task.scale,
                    seed=task.seed,
                    device=task.device,
                    fingerprint=task.fingerprint,
                    status=outcome.status,
                    value=outcome.value,
                    baseline=outcome.baseline,
                    also=dict(outcome.also),
                    figure=None if outcome.figure is None else dict(outcome.figure),
                    note=outcome.note,
                    message=outcome.message,
                    seconds=outcome.seconds,
                    peak_memory_mb=outcome.peak_memory_mb,
                    versions=dict(outcome.versions),
                    machine=dict(outcome.machine),
                    commit=outcome.commit,
                    finished_at=outcome.finished_at,
                )
            )

    def measured(self, tasks: Iterable[Task]) -> dict[Task, Outcome]:
        """Return the stored outcomes of those tasks that were measured with the code as it is now.

        Errors and skips are not given back, so that they are tried again.
        """
        found: dict[Task, Outcome] = {}
        with self.database.session() as session:
            for task in tasks:
                row = session.scalars(select(Row).where(*_same(task), Row.status == "ok")).one_or_none()
                if row is not None:
                    found[task] = _outcome(row, task)
        return found

    def newest(self, paper: str, scale: Scale) -> dict[str, list[Outcome]]:
        """Return a paper's latest outcomes at a scale by claim: those of the code version measured last."""
        with self.database.session() as session:
            rows = session.scalars(
                select(Row)
                .where(Row.paper == paper, Row.scale == scale)
                .order_by(Row.finished_at.desc(), Row.id.desc())
            ).all()
        version: dict[str, tuple[str, str]] = {}
        newest: dict[str, list[Outcome]] = {}
        for row in rows:
            if version.setdefault(row.claim, (row.fingerprint, row.device)) == (row.fingerprint, row.device):
                task = Task(row.paper, row.claim, scale, row.seed, row.fingerprint, row.device)
                newest.setdefault(row.claim, []).append(_outcome(row, task))
        return newest


def _same(task: Task) -> tuple[ColumnElement[bool], ...]:
    names = ("paper", "claim", "scale", "seed", "device", "fingerprint")
    return tuple(getattr(Row, name) == getattr(task, name) for name in names)


def _outcome(row: Row, task: Task) -> Outcome:
    copied = ("status", "seconds", "peak_memory_mb", "value", "baseline", "also", "figure", "note", "message")
    kept = ("versions", "machine", "commit", "finished_at")
    return Outcome(task, **{name: getattr(row, name) for name in (*copied, *kept)})
