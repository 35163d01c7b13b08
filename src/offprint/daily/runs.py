"""Runs that readers ask for: queued in the database, performed one task at a time, each in a process of its own.

Several servers may share the database. A run belongs to the server that took it for as long as that renews the run's
heartbeat, and none is taken while another goes on. What a server left behind is marked as interrupted by any other, or
by the next, once its heartbeat is too old.
"""

from __future__ import annotations

import datetime
import logging
import multiprocessing
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Update, and_, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from offprint.daily.measured import HERE, Measured, tally
from offprint.lab.executors import Advance, Event, Executor, ProcessPool
from offprint.lab.ledger import Ledger
from offprint.lab.measure import measure
from offprint.lab.tasks import Outcome, Task
from offprint.papers import Record, record
from offprint.store import Database, Job
from offprint.store.models import now

MINUTES = 5.0
"""Time limit of one task (a claim with one seed)."""

MOST_QUEUED = 8

BEAT_SECONDS = 3.0
STALE_SECONDS = 15.0
"""How old a heartbeat may be; clocks of servers on several machines must agree better than that."""

LOOK_SECONDS = 5.0
"""How often the queue is looked at for what another server was asked for."""
ACTIVE = ("queued", "running")
STOPPED = "The server was stopped during this run. What was measured is kept; press Run to measure the rest."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Told:
    """How far a run is: tasks done of all, and steps within the one being performed (``of`` is 0 when unknown)."""

    done: int = 0
    total: int = 0
    claim: str = ""
    label: str = ""
    steps: float = 0.0
    of: float = 0.0

    @property
    def fraction(self) -> float:
        """How much is done, from 0 to 1."""
        within = min(1.0, self.steps / self.of) if self.of > 0 else 0.0
        return min(1.0, (self.done + within) / self.total) if self.total else 0.0


def told(job: Job) -> Told:
    """Read how far a run is from its row."""
    known = {field.name for field in fields(Told)}
    return Told(**{name: value for name, value in job.progress.items() if name in known})


class QueueFullError(Exception):
    """Too many runs are waiting."""


class RunsOffError(Exception):
    """The operator has switched runs off."""


class Runs:
    """The queue of runs and the one worker that performs them.

    Parameters
    ----------
    database : Database
        An SQLite database in memory will not do: the worker has a connection of its own.
    executor : Executor, optional
        Where tasks are performed; a :class:`~offprint.lab.executors.ProcessPool` with a limit of five minutes when left
        out. It is given one task at a time.
    measured : Measured, optional
        What is asked for the verdicts once a run has ended.
    enabled : bool
        Whether readers may ask for runs; without, none is performed either.
    """

    def __init__(
        self,
        database: Database,
        executor: Executor | None = None,
        measured: Measured | None = None,
        *,
        enabled: bool = True,
    ) -> None:
        self.database = database
        self.enabled = enabled
        self.name = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        self.stopping = threading.Event()
        self._ledger = Ledger(database)
        self._measured = measured or Measured(database)
        self._executor = executor or ProcessPool(minutes=MINUTES)
        self._performing: _OneAtATime | None = None
        self._asked = threading.Event()
        self._asking = threading.Lock()
        self._worker: threading.Thread | None = None

    def start(self) -> None:
        """Mark what servers that are gone left unfinished as interrupted, and begin with what is queued."""
        self._interrupt_abandoned()
        self.stopping.clear()
        if self.enabled:
            self._worker = threading.Thread(target=self._work, name="runs", daemon=True)
            self._worker.start()

    @property
    def alive(self) -> bool:
        """Whether runs that are asked for will be performed; also when there are to be none."""
        return not self.enabled or (self._worker is not None and self._worker.is_alive())

    def stop(self, patience: float = 5.0) -> None:
        """End the run in progress, its process with it, and the worker. Queued runs stay for the next server."""
        self.stopping.set()
        self._asked.set()
        deadline = time.monotonic() + patience
        while self._worker is not None and self._worker.is_alive() and time.monotonic() < deadline:
            performing = self._performing
            if performing is not None:
                performing.kill()
            self._worker.join(0.1)

    def ask(self, paper: Record) -> Job:
        """Queue a run of a paper's claims, or return the one that is queued or running already.

        Raises
        ------
        RunsOffError
            If the operator has switched runs off.
        QueueFullError
            If too many runs are waiting.
        """
        if not self.enabled:
            raise RunsOffError
        try:
            with self._asking, self.database.session() as session:
                job = _active(session, paper)
                if job is None:
                    waiting = session.scalar(select(func.count()).where(Job.status == "queued")) or 0
                    if waiting >= MOST_QUEUED:
                        raise QueueFullError
                    job = Job(paper=paper.slug, scale=HERE)
                    session.add(job)
        except IntegrityError:  # another server was asked at the same moment
            with self.database.session() as session:
                job = _active(session, paper)
            if job is None:
                raise
        self._asked.set()
        return job

    def job(self, number: int) -> Job | None:
        """Return a run by its number."""
        with self.database.reading() as session:
            return session.get(Job, number)

    def newest(self, slug: str) -> Job | None:
        """Return the run of a paper that was asked for last."""
        with self.database.reading() as session:
            return session.scalars(select(Job).where(Job.paper == slug).order_by(Job.id.desc()).limit(1)).first()

    def ahead(self, job: Job) -> int:
        """Return how many runs come before this one."""
        with self.database.reading() as session:
            before = select(func.count()).where(Job.status.in_(ACTIVE), Job.id < job.id)
            return session.scalar(before) or 0

    def _work(self) -> None:
        while not self.stopping.is_set():
            try:
                self._interrupt_abandoned()
                job = self._next()
                if job is None:
                    self._asked.wait(LOOK_SECONDS)
                    self._asked.clear()
                else:
                    self._perform(job)
            except Exception:  # the worker must outlive whatever goes wrong with one run
                log.exception("a run failed")
                self.stopping.wait(1.0)

    def _interrupt_abandoned(self) -> None:
        with self.database.session() as session:
            left = update(Job).where(Job.status == "running", ~_fresh(Job))
            session.execute(left.values(status="interrupted", message=STOPPED, finished_at=now()))

    def _next(self) -> Job | None:
        """Take the first run of the queue, so that no one else does; none while another server performs one."""
        with self.database.session() as session:
            job = session.scalars(select(Job).where(Job.status == "queued").order_by(Job.id).limit(1)).first()
            if job is None:
                return None
            other = aliased(Job)
            busy = select(other.id).where(other.status == "running", _fresh(other)).exists()
            taken = update(Job).where(Job.id == job.id, Job.status == "queued", ~busy)
            moment = now()
            taken = taken.values(status="running", worker=self.name, started_at=moment, heartbeat_at=moment)
            return job if _changes(session, taken) else None

    def _perform(self, job: Job) -> None:
        status, message = "failed", ""
        try:
            paper = record(job.paper)
            with self._heartbeat(job) as lost:
                # What was interrupted or failed goes on where it stopped; what is complete is measured anew.
                if not self._measure(paper, job, lost, again=False):
                    self._measure(paper, job, lost, again=True)
            status = "done"
        except _Stopped:
            status, message = "interrupted", STOPPED
        except Exception as error:  # shown to the reader; the server goes on
            log.exception("the run of %s failed", job.paper)
            message = f"{type(error).__name__}: {error}"
        with self.database.session() as session:
            session.execute(self._own(job).values(status=status, message=message, finished_at=now()))
        tally(self._measured, [job.paper])

    def _own(self, job: Job) -> Update:
        """Return a change of a run that has no effect once it is no longer ours."""
        return update(Job).where(Job.id == job.id, Job.worker == self.name, Job.status == "running")

    @contextmanager
    def _heartbeat(self, job: Job) -> Iterator[threading.Event]:
        """Renew a run's heartbeat during the block; the event given tells that the run is no longer ours.

        It is not when this process stood still for so long (a closed lid) that another took it for gone.
        """
        lost, ended = threading.Event(), threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_SECONDS):
                try:
                    with self.database.session() as session:
                        if not _changes(session, self._own(job).values(heartbeat_at=now())):
                            lost.set()
                except Exception:  # a database that is away for a moment; the next beat may reach it
                    log.warning("the heartbeat of run %s was not written", job.id, exc_info=True)
                if lost.is_set() and (performing := self._performing) is not None:
                    performing.kill()

        heart = threading.Thread(target=beat, name="heartbeat", daemon=True)
        heart.start()
        try:
            yield lost
        finally:
            ended.set()
            heart.join()

    def _measure(self, paper: Record, job: Job, lost: threading.Event, *, again: bool) -> int:
        """Measure a paper's claims and return how many tasks were performed for it."""
        diary = _Diary(self.database, self._own(job))
        self._performing = _OneAtATime(self._executor, lambda: self.stopping.is_set() or lost.is_set(), diary)
        try:
            measure([paper], HERE, ledger=self._ledger, executor=self._performing, again=again, listen=diary.note)
        finally:
            self._performing = None
        return diary.expected


def _active(session: Session, paper: Record) -> Job | None:
    active = select(Job).where(Job.paper == paper.slug, Job.scale == HERE, Job.status.in_(ACTIVE))
    return session.scalars(active).first()


def _fresh(job: type[Job]) -> ColumnElement[bool]:
    """Return the condition that the server which performs a run is alive."""
    oldest = now() - datetime.timedelta(seconds=STALE_SECONDS)
    return and_(job.heartbeat_at.is_not(None), job.heartbeat_at >= oldest)


def _changes(session: Session, change: Update) -> bool:
    """Whether a change finds a row to change."""
    outcome: Any = session.execute(change)
    return bool(outcome.rowcount)


class _Stopped(Exception):
    """The server is stopping, or the run is no longer its own."""


class _OneAtATime:
    """Hands tasks to another executor one by one, and stops between and within them when told to."""

    def __init__(self, executor: Executor, stopped: Callable[[], bool], diary: _Diary) -> None:
        self.executor = executor
        self.stopped = stopped
        self.diary = diary
        self._current: Task | None = None

    def stream(self, tasks: Iterable[Task]) -> Generator[Event, None, None]:
        """Yield the events of each task in turn."""
        tasks = list(tasks)
        self.diary.expect(len(tasks))
        for task in tasks:
            if self.stopped():
                raise _Stopped
            self._current = task
            with closing(self.executor.stream([task])) as events:
                for event in events:
                    # A task that was killed for the server's sake has no outcome: it must not be stored as an error.
                    if self.stopped():
                        raise _Stopped
                    yield event
            self._current = None

    def kill(self) -> None:
        """End the process of the task that is being performed: its executor then notices."""
        for child in multiprocessing.active_children():
            if self._current is not None and child.name == self._current.name:
                child.kill()


class _Diary:
    """Writes how far a run is to its row, where every viewer of its page reads it."""

    def __init__(self, database: Database, change: Update) -> None:
        self.database = database
        self.change = change
        self.done = 0
        self.expected = 0
        self.total = 0
        self.task: Task | None = None
        self.written = 0.0

    def expect(self, tasks: int) -> None:
        """Note how many tasks are to be performed, after those that were found measured."""
        self.expected = tasks
        self.total = self.done + tasks
        if tasks:
            self._write(None)

    def note(self, event: Event) -> None:
        """Note an event: the start and end of a task, and its progress at most a few times a second."""
        if isinstance(event, Outcome):
            self.done += 1
            if self.expected:  # before that, they come from the ledger
                self._write(None)
        elif event.task != self.task or time.monotonic() - self.written > 0.3:
            self.task = event.task
            self._write(event)

    def _write(self, advance: Advance | None) -> None:
        self.written = time.monotonic()
        now_told = Told(self.done, self.total)
        if advance is not None:
            step = advance.progress
            now_told = Told(self.done, self.total, advance.task.claim, step.label, step.done, step.total)
        with self.database.session() as session:
            session.execute(self.change.values(progress=asdict(now_told)))
