"""New databases for tests: SQLite files, or databases of the PostgreSQL server that ``make test-postgres`` starts."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

import sqlalchemy
from sqlalchemy.engine import URL, make_url

SERVER = os.environ.get("OFFPRINT_TEST_DATABASE_URL", "")
"""The address of the server; empty for SQLite."""


def create(folder: Path, template: str | None = None) -> str:
    """Make a database and return its URL: a copy of another, to which nothing may be connected, or an empty one."""
    name = f"test_{uuid.uuid4().hex}"
    if SERVER:
        _tell(f"CREATE DATABASE {name}" + (f" TEMPLATE {make_url(template).database}" if template else ""))
        return make_url(SERVER).set(database=name).render_as_string(hide_password=False)
    if template:
        shutil.copy(_file(make_url(template)), folder / f"{name}.db")
    return f"sqlite:///{folder / name}.db"


def drop(url: str) -> None:
    """Remove a database, whoever is connected to it. Files go with the folder that they are in."""
    if SERVER:
        _tell(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")


def _file(url: URL) -> str:
    assert url.database
    return url.database


def _tell(statement: str) -> None:
    engine = sqlalchemy.create_engine(SERVER, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
