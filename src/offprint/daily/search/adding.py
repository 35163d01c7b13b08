"""Adding very many papers at once, with their words indexed by one statement and not row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Table, text
from sqlalchemy.orm import Session

from offprint.daily.search.words import SEPARATORS, plain
from offprint.store import Paper
from offprint.store.inserts import insert_many

LONGEST = 100_000
"""Of any text, in characters: the index of PostgreSQL keeps no more of one; see migration 0004."""

_COLUMNS = "title, authors, summary, claims, abstract, arxiv, slug"
_WORDS = f"INSERT INTO papers_search (rowid, {_COLUMNS}) SELECT id, {_COLUMNS} FROM papers_text WHERE id >= ?"
_TEXTS = ("title", "names", "arxiv", "slug", "ours", "abstract")
_VECTORS = text(
    "INSERT INTO papers_search (paper_id, heading, words) SELECT added.id, vectors.heading, vectors.words"
    f" FROM unnest(CAST(:ids AS integer[]), {', '.join(f'CAST(:{name} AS text[])' for name in _TEXTS)})"
    f" AS added (id, {', '.join(_TEXTS)}), offprint_weighted({', '.join(_TEXTS)}) AS vectors"
)
_TOGETHER = text("SELECT set_config('offprint.papers_indexed_together', :said, true)")
_SPACES = {number: " " for number in range(128) if SEPARATORS.match(chr(number))}


def add_papers(session: Session, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert papers, index them for search, and return their numbers, in their order.

    The trigger that would index each by itself waits meanwhile; see migration 0007. Papers and words are of one
    transaction, which must have written before, and so there together or not at all.

    Parameters
    ----------
    session : Session
    rows : sequence of mapping
        Values by column, the same columns in each; see :func:`~offprint.store.inserts.insert_many`.
    """
    if not rows:
        return []
    connection, table = session.connection(), cast(Table, Paper.__table__)
    if connection.dialect.name == "postgresql":
        session.execute(_TOGETHER, {"said": "on"})
        ids = insert_many(connection, table, rows)
        session.execute(_TOGETHER, {"said": "off"})
        texts = zip(*map(_texts, rows), strict=True)
        session.execute(_VECTORS, {"ids": ids} | dict(zip(_TEXTS, map(list, texts), strict=True)))
    else:
        connection.exec_driver_sql("INSERT INTO papers_indexed_together VALUES (1)")
        ids = insert_many(connection, table, rows)
        connection.exec_driver_sql("DELETE FROM papers_indexed_together")
        connection.exec_driver_sql(_WORDS, (ids[0],))
    return ids


def _texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the index holds of a paper, as ``offprint_plain`` would make it, which takes many times as long."""
    ours = " ".join(said for name in ("summary", "claims_text") if (said := row.get(name)) is not None)
    found = row.get("title"), ", ".join(row.get("authors", ())), row.get("arxiv"), row.get("slug"), ours
    return tuple(map(_plain, (*found, row.get("abstract"))))


def _plain(content: str | None) -> str:
    content = (content or "")[:LONGEST]
    return content.translate(_SPACES) if content.isascii() else plain(content)
