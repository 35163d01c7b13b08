"""Adding very many papers at once, with their words indexed together and not row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, cast

from sqlalchemy import Table, text
from sqlalchemy.orm import Session

from offprint.daily.search.vectors import Lexemes, vector
from offprint.daily.search.words import SEPARATORS, plain
from offprint.store import Paper
from offprint.store.inserts import copy_rows, insert_many

LONGEST = 100_000
"""Of any text, in characters: the index of PostgreSQL keeps no more of one; see migration 0004."""

_COLUMNS = "title, authors, summary, claims, abstract, arxiv, slug"
_WORDS = f"INSERT INTO papers_search (rowid, {_COLUMNS}) SELECT id, {_COLUMNS} FROM papers_text WHERE id >= ?"
_TEXTS = ("title", "names", "arxiv", "slug", "ours", "abstract")
_LEFT = text(
    "INSERT INTO papers_search (paper_id, heading, words) SELECT added.id, vectors.heading, vectors.words"
    f" FROM unnest(CAST(:ids AS integer[]), {', '.join(f'CAST(:{name} AS text[])' for name in _TEXTS)})"
    f" AS added (id, {', '.join(_TEXTS)}), offprint_weighted({', '.join(_TEXTS)}) AS vectors"
)
_TOGETHER = text(
    "SELECT set_config('offprint.papers_indexed_together', :said, true), set_config('work_mem', '64MB', true),"
    " set_config('gin_pending_list_limit', '32MB', true)"
)
"""What is to be sorted into the index waits until all of it is there; see migration 0008."""
_SORT_IN = text(
    "SELECT gin_clean_pending_list(oid) FROM pg_class WHERE pg_has_role(relowner, 'USAGE')"
    " AND oid IN ('papers_search_heading'::regclass, 'papers_search_words'::regclass)"
)
_LEXEMES = Lexemes()
_Texts = tuple[str, str, str, str, str, str]
_PLAIN = lru_cache(maxsize=20_000)(plain)
_COMMON_LENGTH = 40
"""Of words that are remembered."""
_LETTERS = "".join(" " if SEPARATORS.match(sign) else sign.lower() for sign in map(chr, range(128))).encode().ljust(256)
"""What becomes of each sign of ASCII."""


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
        _index(session, ids, [_texts(row) for row in rows])
        session.execute(_SORT_IN)
    else:
        connection.exec_driver_sql("INSERT INTO papers_indexed_together VALUES (1)")
        ids = insert_many(connection, table, rows)
        connection.exec_driver_sql("DELETE FROM papers_indexed_together")
        connection.exec_driver_sql(_WORDS, (ids[0],))
    return ids


def _index(session: Session, ids: Sequence[int], texts: Sequence[_Texts]) -> None:
    """Store the vectors of papers: written here, and by the database where a text holds too much."""
    lexemes = iter(_LEXEMES.of(session, [content for one in texts for content in one]))
    left = []

    def rows() -> Iterator[tuple[int, str, str]]:
        """Yield what can be written here. The database takes in a row while the next is written."""
        for number, one in zip(ids, texts, strict=True):
            title, names, arxiv, slug, ours, abstract = islice(lexemes, len(_TEXTS))
            heading = vector([("A", title), ("B", names), ("C", arxiv), ("D", slug)])
            words = vector([("A", title), ("A", arxiv), ("A", slug), ("B", names), ("C", ours), ("D", abstract)])
            if heading is None or words is None:
                left.append((number, *one))
            else:
                yield number, heading, words

    copy_rows(session.connection(), "papers_search", ("paper_id", "heading", "words"), rows())
    if left:
        session.execute(_LEFT, dict(zip(("ids", *_TEXTS), map(list, zip(*left, strict=True)), strict=True)))


def _texts(row: Mapping[str, Any]) -> _Texts:
    """Return what the index holds of a paper, as ``offprint_plain`` would make it, which takes many times as long."""
    ours = " ".join(said for name in ("summary", "claims_text") if (said := row.get(name)) is not None)
    found = row.get("title"), ", ".join(row.get("authors", ())), row.get("arxiv"), row.get("slug"), ours
    title, names, arxiv, slug, ours, abstract = map(_plain, (*found, row.get("abstract")))
    return title, names, arxiv, slug, ours, abstract


def _plain(content: str | None) -> str:
    content = (content or "")[:LONGEST]
    if not content.isascii():
        content = " ".join(word if word.isascii() else _plain_word(word) for word in content.split())
    return content.encode().translate(_LETTERS).decode() if content.isascii() else plain(content)


def _plain_word(word: str) -> str:
    return _PLAIN(word) if len(word) <= _COMMON_LENGTH else plain(word)
