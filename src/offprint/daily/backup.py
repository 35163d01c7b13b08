"""A copy of the SQLite database that is whole, whatever is written to it meanwhile."""

from __future__ import annotations

import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from offprint.store import default_url


class BackupError(Exception):
    """Why there is no backup, and what to do."""


def backup(target: Path, database_url: str | None = None) -> int:
    """Write a copy of the database to a file and return its size in bytes.

    The copy is of one moment and holds all that was committed before it. It is checked, and only then takes the place
    of an earlier one: whoever finds the file finds a whole backup. The site may be served all the while.

    Parameters
    ----------
    target : Path
        The file to write; replaced if it exists.
    database_url : str, optional
        The database; that of ``OFFPRINT_DATABASE_URL`` or the data folder when left out.

    Raises
    ------
    BackupError
        If there is no SQLite database to copy, or the copy is damaged or cannot be written.
    """
    url = make_url(database_url or default_url())
    if url.get_backend_name() == "postgresql":
        # Without the password, which other users of the machine would see; pg_dump asks, or reads ~/.pgpass.
        address = URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()
        command = shlex.join(["pg_dump", "--format=custom", f"--file={target}", address])
        raise BackupError(f"this database is PostgreSQL; back it up with: {command}")
    source = Path(url.database or "").expanduser()
    if not source.is_file():
        raise BackupError(f"there is no database at {source}")
    if target.exists() and target.samefile(source):
        raise BackupError(f"{target} is the database itself")
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(source, draft)
        os.replace(draft, target)
        return target.stat().st_size
    except (sqlite3.Error, OSError) as error:
        raise BackupError(f"{target} was not written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def _copy(source: Path, draft: Path) -> None:
    """Copy in one step, which sees one moment of the source, and check the copy."""
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)  # it holds mail addresses
    reading = sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
    with closing(reading) as serving, closing(sqlite3.connect(draft)) as copy:
        serving.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
        [problem] = copy.execute("PRAGMA integrity_check(1)").fetchone()
        if problem != "ok":
            raise sqlite3.DatabaseError(f"the copy is damaged: {problem}")
    descriptor = os.open(draft, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
