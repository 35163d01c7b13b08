"""Inserting as each database does it best: rows that may be there already, and very many rows at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Insert, MetaData, Row, Table, delete, literal, select, text
from sqlalchemy import insert as insert_into
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from offprint.store.models import Base

WORTH_STAGING = 100


def insert(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """Return an ``INSERT`` that takes ``on_conflict_do_nothing`` and ``on_conflict_do_update``, alike in both.

    Examples
    --------
    >>> from offprint.store import Database, RateLimit
    >>> with Database("sqlite://").session() as session:
    ...     str(insert(session, RateLimit).on_conflict_do_nothing())[-22:]
    'ON CONFLICT DO NOTHING'
    """
    postgres = session.get_bind().dialect.name == "postgresql"
    return postgresql.insert(table) if postgres else sqlite.insert(table)


def insert_many(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], returning: Sequence[str]
) -> Sequence[Row[Any]]:
    """Insert rows that all give the same columns, and return some columns of each, in no particular order.

    SQLite takes them from a temporary table by one statement: what has to be done once per statement, as the full-text
    index has to be written out, is then done once, and each row costs a fraction of what it costs as bound parameters.
    The transaction must have written before: SQLite refuses one that has only read while another wrote.

    Parameters
    ----------
    connection : Connection
    table : Table
    rows : sequence of mapping
        Values by column; a column that is left out gets its default, which must be a plain value.
    returning : sequence of str
        Names of columns.
    """
    columns = [table.c[name] for name in returning]
    if connection.dialect.name != "sqlite" or len(rows) < WORTH_STAGING:
        return connection.execute(insert_into(table).returning(*columns), [*rows]).all() if rows else []
    staged = _stage(connection, table, rows)
    return connection.execute(staged.returning(*columns)).all()


def _stage(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> Insert:
    """Put rows into a temporary table and return the statement that takes them from there."""
    names = list(rows[0])
    defaults = {
        c.name: literal(c.default.arg, c.type)
        for c in table.c
        if c.name not in rows[0] and isinstance(c.default, ScalarElementColumnDefault)
    }
    incoming = Table(f"incoming_{table.name}", MetaData(), *(Column(name, table.c[name].type) for name in names))
    quoted = ", ".join(names)
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE IF NOT EXISTS {incoming.name} ({quoted})")
    connection.execute(delete(incoming))
    columns = [_bound(connection, table.c[name], [row[name] for row in rows]) for name in names]
    places = ", ".join("?" * len(names))
    filled = f"INSERT INTO {incoming.name} ({quoted}) VALUES ({places})"
    connection.exec_driver_sql(filled, [*zip(*columns, strict=True)])
    taken = select(*incoming.c, *defaults.values()).order_by(text("rowid"))
    return insert_into(table).from_select([*names, *defaults], taken, include_defaults=False)


def _bound(connection: Connection, column: Column[Any], values: list[Any]) -> list[Any]:
    """Return values as the driver takes them."""
    process = column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
    return values if process is None else [process(value) for value in values]
