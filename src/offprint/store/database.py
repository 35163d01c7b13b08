"""Opening the database: SQLite in the user's data folder by default, PostgreSQL by URL."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import InvalidatePoolError, OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

if TYPE_CHECKING:
    from alembic.config import Config

URL_VARIABLE = "OFFPRINT_DATABASE_URL"

MIGRATIONS = Path(__file__).parent / "migrations"

CONNECTIONS = 20
"""Connections kept open; as many again are opened for a while when all are busy."""

TRUSTED_SECONDS = 2.0
"""A connection to a server that was used so short a time ago is not tried out before it is used again."""
_IDLE_SINCE = "idle since"

MIGRATION_LOCK = 5_203_841_690_447
"""The number under which PostgreSQL knows the lock that a program holds while it migrates."""


def default_url() -> str:
    """Return ``OFFPRINT_DATABASE_URL``, or SQLite in the user's data folder."""
    configured = os.environ.get(URL_VARIABLE)
    if configured:
        return configured
    return f"sqlite:///{Path(platformdirs.user_data_dir('offprint')) / 'offprint.db'}"


class Database:
    """An engine whose tables are up to date, and sessions on it.

    Parameters
    ----------
    url : str, optional
        An SQLAlchemy URL; :func:`default_url` when left out. The folder of an SQLite file is created.

    Examples
    --------
    >>> from offprint.store import Outcome
    >>> database = Database("sqlite://")
    >>> with database.session() as session:
    ...     session.query(Outcome).count()
    0
    """

    def __init__(self, url: str | None = None) -> None:
        self.url = _driver(make_url(url or default_url()))
        options: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": CONNECTIONS}
        if self.sqlite and self.file is None:
            options = {"poolclass": sqlalchemy.StaticPool, "connect_args": {"check_same_thread": False}}
        elif self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        else:
            options["connect_args"] = {"connect_timeout": self.url.query.get("connect_timeout", 5)}
        # Parameters hold what readers wrote, and the addresses of subscribers: none of that belongs into a log.
        self.engine = sqlalchemy.create_engine(self.url, hide_parameters=True, **options)
        if self.sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
        else:
            event.listen(self.engine, "connect", _prepare_postgresql)
            event.listen(self.engine, "checkin", _note_when)
            event.listen(self.engine, "checkout", partial(_try_out, self.engine))
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        reading = self.engine if self.sqlite else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._readers = sessionmaker(reading, expire_on_commit=False)
        self.migrate()

    @property
    def sqlite(self) -> bool:
        """Whether it is SQLite."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; ``None`` in memory and on a server."""
        if not self.sqlite or self.url.database in (None, "", ":memory:"):
            return None
        return Path(str(self.url.database)).expanduser()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session that commits at the end of the block, or rolls back if the block raises."""
        with self._sessions.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session to read with. On a server each of its statements is by itself.

        As they are in a transaction of PostgreSQL, which by default sees at each statement what is there then; but
        without the two statements more that begin and end it, which on most pages are as many as the others.
        """
        with self._readers.begin() as session:
            yield session

    def migrate(self) -> None:
        """Bring the tables up to the newest revision; does nothing when they are."""
        with self.engine.begin() as connection:
            # Taken at once, so that two programs that start together do not both create the tables.
            if self.sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            elif connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
            if not _at_head(connection):
                from alembic import command

                config = _alembic()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")

    def at_head(self) -> bool:
        """Whether the tables are those of this version of the program."""
        with self.engine.connect() as connection:
            return _at_head(connection)

    def close(self) -> None:
        """Give every connection back, and let SQLite see to its statistics where they have grown old."""
        if self.sqlite:
            with suppress(OperationalError), self.engine.connect() as connection:  # not while another program writes
                connection.exec_driver_sql("PRAGMA busy_timeout = 100")
                connection.exec_driver_sql("PRAGMA optimize")
        self.engine.dispose()


def _driver(url: URL) -> URL:
    """Choose the driver that the extra ``postgres`` brings, unless the address names one."""
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def _alembic() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _at_head(connection: Connection) -> bool:
    """Whether the newest migration was applied. Asked at every start, so without Alembic, which is slow to load."""
    if not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return False
    applied = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
    return list(applied) == [_head()]


@cache
def _head() -> str:
    """Return the newest revision, which the name of its file begins with."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _note_when(_: Any, record: ConnectionPoolEntry) -> None:
    record.info[_IDLE_SINCE] = time.monotonic()


def _try_out(engine: Engine, connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    """Find out whether the server still knows a connection, unless it did a moment ago: to ask costs as a query does.

    A server that was started anew has forgotten its connections; the pool then opens others.
    """
    if time.monotonic() - record.info.get(_IDLE_SINCE, time.monotonic()) < TRUSTED_SECONDS:
        return
    try:
        alive = engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error:
        alive = False
    if not alive:
        # Whatever else is in the pool was opened before, and is no better.
        raise InvalidatePoolError


def _prepare_postgresql(connection: Any, _: Any) -> None:
    """Let the planner know better.

    Which plan is good depends on how common words are, so that one for all will not do; to look into a row's words
    costs more than the planner thinks, for whom it is like comparing two numbers; and disks no longer turn.
    """
    with connection.cursor() as cursor:
        for setting in ("plan_cache_mode = force_custom_plan", "cpu_operator_cost = 0.05", "random_page_cost = 1.1"):
            cursor.execute(f"SET {setting}")
    connection.commit()


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Let readers and one writer work at once, and wait for a lock instead of failing."""
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 10000", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
