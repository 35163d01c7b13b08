"""Everything that a database holds, for saying that nothing changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from offprint.store import Base, Database

CLOCKS = {"added_at", "changed_at"}
"""Columns that say when a row was written."""


def everything(database: Database, *, clocks: bool = True) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of every table, in the order of their keys; without what the clock decides, if so asked."""
    found = {}
    with database.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            columns = [column for column in table.columns if clocks or column.name not in CLOCKS]
            rows = connection.execute(select(*columns).order_by(*table.primary_key.columns))
            found[table.name] = [tuple(repr(value) for value in row) for row in rows]
    return found
