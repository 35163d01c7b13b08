"""Where tasks are performed: in this process, or each in a process of its own.

An executor takes tasks and streams what happens. That is the whole interface, so that a cluster can stand behind it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Protocol

import psutil

from offprint.lab.tasks import Outcome, Task
from offprint.lab.worker import failure, perform
from offprint.papers import Progress

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Advance:
    """A task has started, or is further than before."""

    task: Task
    progress: Progress


Event = Advance | Outcome


class Executor(Protocol):
    """Performs tasks and streams events. Closing the generator stops what is still running."""

    def stream(self, tasks: Iterable[Task]) -> Generator[Event, None, None]:
        """Yield an :class:`Advance` whenever a task moves and an :class:`Outcome` when one ends, in any order."""
        ...


class InProcess:
    """Performs tasks one after the other in this process: for debugging and for tests. No limits are enforced."""

    def stream(self, tasks: Iterable[Task]) -> Generator[Event, None, None]:
        """Yield the events of each task in turn. Progress within a task is not reported."""
        for task in tasks:
            yield Advance(task, Progress(0, 0, "running"))
            yield perform(task)


@dataclass
class _Running:
    task: Task
    process: SpawnProcess
    pipe: Connection
    started: float = field(default_factory=time.monotonic)


class ProcessPool:
    """Performs each task in a fresh process, as many at once as the cores allow. This is the default.

    A task that outlives its time, outgrows its memory or takes its process down ends as an error outcome; the others go
    on. Each process gets as many threads as its task needs cores, so that tasks do not fight.

    Parameters
    ----------
    cores : int, optional
        Cores to share out; all of this machine's when left out.
    minutes : float, optional
        Time limit for every task, instead of what each claim's record says.
    poll_seconds : float
        How often limits are looked at.
    """

    def __init__(self, cores: int | None = None, *, minutes: float | None = None, poll_seconds: float = 0.2) -> None:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.cores = available if cores is None else cores
        if self.cores < 1:
            raise ValueError(f"cores must be at least 1; got {cores}")
        self.minutes = minutes
        self.poll_seconds = poll_seconds

    def stream(self, tasks: Iterable[Task]) -> Generator[Event, None, None]:
        """Yield events as the processes send them; close the generator to end every process."""
        waiting = deque(tasks)
        running: list[_Running] = []
        try:
            while waiting or running:
                while waiting and self._fits(waiting[0], running):
                    started = self._start(waiting.popleft())
                    running.append(started)
                    yield Advance(started.task, Progress(0, 0, "starting"))
                wait([item.pipe for item in running], self.poll_seconds)
                for item in list(running):
                    for event in self._events(item):
                        if isinstance(event, Outcome):
                            running.remove(item)
                        yield event
        finally:
            for item in running:
                _end(item)

    def _fits(self, task: Task, running: list[_Running]) -> bool:
        used = sum(min(item.task.needs.cores, self.cores) for item in running)
        return used + min(task.needs.cores, self.cores) <= self.cores

    def _start(self, task: Task) -> _Running:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        threads = min(task.needs.cores, self.cores)
        process = context.Process(target=_child, args=(theirs, task, os.getpid()), name=task.name, daemon=True)
        with _environment(dict.fromkeys(THREAD_VARIABLES, str(threads))):
            process.start()
        theirs.close()
        return _Running(task, process, ours)

    def _events(self, item: _Running) -> Iterator[Event]:
        """Yield what a process has sent, and its end: at most one outcome, last."""
        try:
            while item.pipe.poll():
                event = item.pipe.recv()
                if isinstance(event, Outcome):
                    _end(item, patience=5)
                    yield event
                    return
                yield Advance(item.task, event)
        except (EOFError, OSError):
            item.process.join(5)
            yield self._failed(item, _epitaph(item.process.exitcode))
            return
        excess = self._excess(item)
        if excess:
            yield self._failed(item, excess)

    def _excess(self, item: _Running) -> str:
        minutes = self.minutes or item.task.needs.minutes
        if time.monotonic() - item.started > 60 * minutes:
            return f"exceeded its time limit of {minutes:g} minutes"
        limit = item.task.needs.memory_mb
        if _resident_mb(item.process.pid) > limit:
            return f"exceeded its memory limit of {limit} MB"
        return ""

    def _failed(self, item: _Running, message: str) -> Outcome:
        _end(item)
        return failure(item.task, message, time.monotonic() - item.started)


def _child(pipe: Connection, task: Task, parent: int) -> None:
    """Perform one task in a process of its own; end with the parent, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last > 0.1 or progress.done >= progress.total > 0:
            last = time.monotonic()
            pipe.send(progress)

    with suppress(BrokenPipeError):  # the parent is gone, and nobody waits for the outcome
        pipe.send(perform(task, report))


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _end(item: _Running, patience: float = 0.0) -> None:
    item.process.join(patience)
    if item.process.is_alive():
        item.process.kill()
        item.process.join()
    item.pipe.close()


def _epitaph(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", probably for lack of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with status {exitcode} before it gave a result"


def _resident_mb(pid: int | None) -> float:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(float(member.memory_info().rss) for member in family) / 2**20
    return 0.0


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
