"""Importing as a stream: in batches, each stored together with how far the source was read."""

from __future__ import annotations

import datetime
import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, cast

from sqlalchemy import CursorResult, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from offprint.daily.importing.entries import Entry, Read, Skipped
from offprint.daily.importing.writer import Stored, Writer
from offprint.daily.library import load_records
from offprint.store import Database, Import
from offprint.store.models import now

BATCH_BYTES = 16 << 20
KEPT = 100
"""How many of the skipped records a report spells out."""
_ATTEMPTS = 3
_BUSY = "another process is importing the same; let it finish"

Progress = Callable[[int, int, int], None]
"""Called after each batch with how much of how much of the source was read, and how many records."""


class SourceError(Exception):
    """A source that cannot be read now; what was stored before stays, and the next import goes on from there."""


class Source(ABC):
    """Something to import from, opened."""

    batch: ClassVar[int] = 4000
    """How many records are stored at once."""
    authority: ClassVar[bool] = False
    every_day: ClassVar[bool] = True
    """As :class:`~offprint.daily.importing.writer.Writer` has them."""

    reopens: ClassVar[bool] = False
    """Whether another process can open the same by a pickled copy."""

    name: str
    """The kind of source and what identifies its content; two imports of one source share how far they came."""

    @abstractmethod
    def read(self, position: int, line: int) -> Iterator[Read]:
        """Yield each record after a place and a line."""

    @abstractmethod
    def done(self) -> tuple[int, int]:
        """Return how much of how much was read; the latter 0 when it is not known."""

    def arrange(self, session: Session) -> None:
        """Do what remains when all is stored: nothing, for most."""
        return

    def close(self) -> None:
        """Give back what was opened."""
        return


@dataclass
class Report:
    """What an import found and did."""

    papers: int = 0
    on_record: int = 0
    new: int = 0
    changed: int = 0
    left_out: int = 0
    n_skipped: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    first_day: datetime.date | None = None
    last_day: datetime.date | None = None
    resumed_after: int = 0
    """The line after which it went on; 0 when it began at the start."""

    @property
    def unreadable(self) -> bool:
        """Whether there was nothing that could be used, this time or before."""
        return not (self.papers or self.left_out or self.resumed_after)

    def __str__(self) -> str:
        days = " to ".join(dict.fromkeys(str(day) for day in (self.first_day, self.last_day) if day))
        counts = [
            f"{self.papers} papers{f' ({days})' if days else ''}: {self.on_record} on record",
            f"{self.new} new",
            f"{self.changed} changed",
            *([f"{self.left_out} left out"] if self.left_out else []),
            f"{self.n_skipped} skipped",
        ]
        lines = [", ".join(counts), *map(str, self.skipped)]
        if self.resumed_after:
            lines.insert(0, f"went on after line {self.resumed_after}, where the last import of this stopped")
        if self.n_skipped > len(self.skipped):
            lines.append(f"and {self.n_skipped - len(self.skipped)} more that were skipped")
        return "\n".join(lines)

    def count(self, batch: Iterable[Read], stored: Stored) -> None:
        """Add what a batch held and what became of it."""
        self.new, self.changed = self.new + stored.new, self.changed + stored.changed
        self.on_record += stored.on_record
        for item in batch:
            if item.found is None:
                self.left_out += 1
            elif isinstance(item.found, Skipped):
                self.n_skipped += 1
                if len(self.skipped) < KEPT:
                    self.skipped.append(item.found)
            else:
                self.papers += 1
                if day := item.found.day:
                    self.first_day = min(self.first_day or day, day)
                    self.last_day = max(self.last_day or day, day)


def perform(source: Source, database: Database, progress: Progress | None = None) -> Report:
    """Import a source, from where the last import of it was interrupted, or anew when that one was finished.

    Each batch is stored in one transaction with the place that the source was read to, so that an import that is
    killed at any moment goes on without a gap and without a paper twice. The papers on record are loaded first.

    Parameters
    ----------
    source : Source
        Closed at the end.
    database : Database
    progress : callable, optional
        Called after each batch.

    Returns
    -------
    Report

    Raises
    ------
    SourceError
        If the source fails, or if another process imports the same.
    """
    from offprint.daily.importing import ahead

    load_records(database)
    report = Report()
    writer = Writer(authority=source.authority, every_day=source.every_day)
    with closing(source), _collecting_by_hand() as collect:
        position, line = _begin(database, source.name)
        report.resumed_after = line
        read = ahead.batches if ahead.worth(source) else in_batches
        for batch, done in read(source, position, line):
            reached = batch[-1].position, batch[-1].line
            stored = _store(database, writer, source.name, position, reached, batch)
            report.count(batch, stored)
            position = reached[0]
            collect()
            if progress is not None:
                progress(*done, report.papers + report.left_out + report.n_skipped)
        with database.session() as session:
            source.arrange(session)
            _advance(session, source.name, position, finished=True)
    return report


@contextmanager
def _collecting_by_hand() -> Iterator[Callable[[], object]]:
    """Look for garbage in cycles once a batch: thousands of rows at a time make the collector look far too often."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield partial(gc.collect, 1) if enabled else lambda: None
    finally:
        if enabled:
            gc.enable()


def _begin(database: Database, name: str) -> tuple[int, int]:
    """Return where to go on."""
    try:
        with database.session() as session:
            progress = session.get(Import, name)
            if progress is None:
                progress = Import(source=name, position=0, line=0, finished=False)
                session.add(progress)
            if progress.finished:
                progress.position, progress.line, progress.finished = 0, 0, False
            return progress.position, progress.line
    except IntegrityError as error:
        raise SourceError(_BUSY) from error


def in_batches(source: Source, position: int, line: int) -> Iterator[tuple[list[Read], tuple[int, int]]]:
    """Yield batches of what a source reads, each with how much of how much was then read."""
    batch: list[Read] = []
    for item in source.read(position, line):
        batch.append(item)
        if len(batch) >= source.batch or item.position - position >= BATCH_BYTES:
            yield batch, source.done()
            position, batch = item.position, []
    if batch:
        yield batch, source.done()


def _store(
    database: Database, writer: Writer, name: str, position: int, reached: tuple[int, int], batch: Iterable[Read]
) -> Stored:
    """Store a batch; anew when someone stored one of its papers in between."""
    entries = [item.found for item in batch if isinstance(item.found, Entry)]
    for attempt in range(_ATTEMPTS):
        try:
            with database.session() as session:
                _make_room(session)
                _advance(session, name, position, reached)
                return writer.store(session, entries)
        except IntegrityError:
            writer.forget_places()
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _make_room(session: Session) -> None:
    """Let SQLite keep more of its indexes in memory than suffices for reading pages, and move them home less often."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA cache_size = -65536")
        connection.exec_driver_sql("PRAGMA wal_autocheckpoint = 32768")


def _advance(
    session: Session, name: str, position: int, reached: tuple[int, int] | None = None, *, finished: bool = False
) -> None:
    """Note how far the source was read. As the first write it also keeps every other writer of SQLite waiting."""
    values = {"finished": finished, "changed_at": now()}
    if reached is not None:
        values |= {"position": reached[0], "line": reached[1]}
    here = update(Import).where(Import.source == name, Import.position == position, Import.finished.is_(False))
    if cast(CursorResult[Any], session.execute(here.values(values))).rowcount != 1:
        raise SourceError(_BUSY)
