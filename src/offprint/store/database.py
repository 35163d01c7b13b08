"""Opening the database: SQLite in the user's data folder by default, anything SQLAlchemy speaks by URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

URL_VARIABLE = "OFFPRINT_DATABASE_URL"


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
        parsed = make_url(url or default_url())
        options: dict[str, Any] = {}
        if parsed.get_backend_name() == "sqlite":
            if parsed.database and parsed.database != ":memory:":
                Path(parsed.database).expanduser().parent.mkdir(parents=True, exist_ok=True)
            else:
                options = {"poolclass": sqlalchemy.StaticPool, "connect_args": {"check_same_thread": False}}
        self.engine = sqlalchemy.create_engine(parsed, **options)
        if parsed.get_backend_name() == "sqlite":
            event.listen(self.engine, "connect", _prepare_sqlite)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        self.migrate()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a session that commits at the end of the block, or rolls back if the block raises."""
        with self._sessions.begin() as session:
            yield session

    def migrate(self) -> None:
        """Bring the tables up to the newest revision; does nothing when they are."""
        from alembic import command
        from alembic.config import Config
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                # Taken at once, so that two programs that start together do not both create the tables.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            head = ScriptDirectory.from_config(config).get_current_head()
            if MigrationContext.configure(connection).get_current_revision() != head:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")

    def close(self) -> None:
        """Give every connection back."""
        self.engine.dispose()


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Let readers and one writer work at once, and wait for a lock instead of failing."""
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 10000", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
