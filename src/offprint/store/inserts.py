"""Inserting as each database does it best: rows that may be there already, and very many rows at once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    Column,
    ColumnElement,
    Connection,
    Table,
    Text,
    any_,
    bindparam,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from offprint.store.models import Base

_ENCODE = json.JSONEncoder().encode


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


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert rows that all give the same columns, and return the number (``id``) that each was given, in their order.

    Past most of SQLAlchemy, at a fraction of what it costs. The transaction must have written before: SQLite refuses
    one that has only read while another wrote, and gives the numbers out while nobody else can.

    Parameters
    ----------
    connection : Connection
    table : Table
        Its key is ``id``.
    rows : sequence of mapping
        Values by column; a column that is left out gets its default, which must be a plain value.

    Raises
    ------
    IntegrityError
        If a row has a value that may be there only once.
    """
    if not rows:
        return []
    columns = {name: _bound(connection, table.c[name], [row[name] for row in rows]) for name in rows[0]}
    columns |= {
        column.name: [column.default.arg] * len(rows)
        for column in table.c
        if column.name not in columns and isinstance(column.default, ScalarElementColumnDefault)
    }
    fill = _copy if connection.dialect.name == "postgresql" else _stage
    return fill(connection, table, columns)


def copy_rows(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows into a table of PostgreSQL, past all of SQLAlchemy.

    Raises
    ------
    IntegrityError
        If a row has a value that may be there only once.
    """
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
    driver = connection.connection.driver_connection
    assert driver is not None
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except connection.dialect.loaded_dbapi.IntegrityError as error:
        raise IntegrityError(statement, None, error, hide_parameters=True) from error


def one_of(connection: Connection, column: ColumnElement[Any], values: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that a column holds one of so many texts that each as a parameter would take long.

    Examples
    --------
    >>> from offprint.store import Database
    >>> with Database("sqlite://").session() as session:
    ...     bool(session.scalar(select(one_of(session.connection(), literal("b"), ["a", "b"]))))
    True
    """
    if connection.dialect.name == "postgresql":
        return column == any_(literal([*values], ARRAY(Text)))
    return column.in_(select(func.json_each(_ENCODE([*values])).table_valued("value").c.value))


def any_of(session: Session, column: ColumnElement[Any] | InstrumentedAttribute[Any], name: str) -> ColumnElement[bool]:
    """Return the condition that a column holds one of the values of a parameter, which is a list.

    On PostgreSQL the list is one value: its driver takes a millisecond over each fifty parameters.

    Examples
    --------
    >>> from offprint.store import Database, RateLimit
    >>> with Database("sqlite://").session() as session:
    ...     found = select(RateLimit).where(any_of(session, RateLimit.key, "keys"))
    ...     session.scalars(found, {"keys": ["a", "b"]}).all()
    []
    """
    if session.get_bind().dialect.name == "postgresql":
        return column == any_(bindparam(name, type_=ARRAY(column.type)))
    return column.in_(bindparam(name, expanding=True))


def _copy(connection: Connection, table: Table, columns: Mapping[str, Sequence[Any]]) -> list[int]:
    count = len(next(iter(columns.values())))
    given = text(
        "WITH numbers AS MATERIALIZED (SELECT pg_get_serial_sequence(:name, 'id')::regclass AS given)"
        " SELECT nextval(given) FROM numbers, generate_series(1, :count)"
    )
    ids = list(connection.scalars(given, {"name": table.name, "count": count}))
    copy_rows(connection, table.name, ("id", *columns), zip(ids, *columns.values(), strict=True))
    return ids


def _stage(connection: Connection, table: Table, columns: Mapping[str, Sequence[Any]]) -> list[int]:
    """Take rows from a temporary table by one statement.

    Where a table has triggers, SQLite prepares to undo every statement by itself, which takes longer than the row.
    """
    count = len(next(iter(columns.values())))
    first = connection.scalar(select(func.coalesce(func.max(table.c.id), 0) + 1)) or 1
    ids = list(range(first, first + count))
    names = ", ".join(("id", *columns))
    staged = f"incoming_{table.name}"
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS temp.{staged}")  # of one that failed
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {staged} ({names})")
    filled = f"INSERT INTO {staged} ({names}) VALUES ({', '.join('?' * (1 + len(columns)))})"
    connection.exec_driver_sql(filled, [*zip(ids, *columns.values(), strict=True)])
    connection.exec_driver_sql(f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {staged} ORDER BY rowid")
    connection.exec_driver_sql(f"DROP TABLE {staged}")
    return ids


def _bound(connection: Connection, column: Column[Any], values: list[Any]) -> list[Any]:
    """Return values as the driver takes them."""
    if isinstance(column.type, JSON):
        return [*map(_ENCODE, values)]
    process = column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
    if process is None:
        return values
    # Most moments of a batch are one and the same.
    known = {value: process(value) for value in set(values)}
    return [known[value] for value in values]
