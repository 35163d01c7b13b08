"""The full-text index of SQLite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from sqlalchemy import ColumnElement, TextClause, bindparam, column, literal_column, select, table, text
from sqlalchemy.orm import Session

from offprint.daily.search.query import Match, Query, Term
from offprint.daily.search.words import WEIGHTS, begins, run
from offprint.store import Paper

COLUMNS = ("title", "authors", "summary", "claims", "abstract", "arxiv", "slug")
HEADING = "{title authors arxiv slug}"
FIELDS = {"title": "title", "author": "authors", "arxiv": "arxiv"}

INDEX = table("papers_search", column("rowid"))
IDENTITY: ColumnElement[int] = INDEX.c.rowid
MEMBER: ColumnElement[int] = literal_column("+papers_search.rowid")
"""The same, but never a reason to run the search anew for each id of a list."""

_MATCH = text("papers_search MATCH :match")
_WEIGHTS = ", ".join(str(WEIGHTS[name]) for name in COLUMNS)
_SCORE: ColumnElement[float] = literal_column(f"-bm25(papers_search, {_WEIGHTS})")
_MARKED = text(
    "SELECT rowid AS id, highlight(papers_search, 0, :start, :end) AS title,"
    " highlight(papers_search, 2, :start, :end) AS summary, highlight(papers_search, 3, :start, :end) AS claims,"
    " highlight(papers_search, 4, :start, :end) AS abstract"
    " FROM papers_search WHERE papers_search MATCH :match AND rowid IN :ids"
).bindparams(bindparam("ids", expanding=True))


def newest(
    session: Session,
    query: Query,
    allowed: Sequence[ColumnElement[bool]],
    limit: int,
    *,
    heading: bool = False,
    prefix: bool = False,
) -> list[Match]:
    """Return the newest papers that match, the newest first.

    FTS5 keeps its lists in the order of ids, so it reads no more of them than it must and ranks only what it returns.

    Parameters
    ----------
    session : Session
    query : Query
    allowed : sequence of ColumnElement
        Conditions on :data:`IDENTITY`.
    limit : int
    heading : bool
        Whether all wanted terms must be in the title, the authors or the identifiers.
    prefix : bool
        Whether words that begin with the wanted ones count too.
    """
    found = select(IDENTITY, _SCORE).where(_MATCH, *allowed).order_by(IDENTITY.desc()).limit(limit)
    rows = session.execute(found, {"match": _expression(query, heading, prefix)}).all()
    return [Match(row[0], row[1]) for row in rows]


def among(session: Session, query: Query, least: int, *, heading: bool = False, prefix: bool = False) -> set[int]:
    """Return the ids, from ``least`` on, of the papers that match, whatever the filters."""
    found = select(IDENTITY).where(_MATCH, least <= IDENTITY)
    return set(session.scalars(found, {"match": _expression(query, heading, prefix)}).all())


def holding(session: Session, words: Sequence[str], most: int) -> list[list[int] | None]:
    """Return, for each word, the papers that hold it; ``None`` when they are more than ``most``."""
    found = _newest_ids(session, [f'"{word}"' for word in words], most + 1)
    return [ids if len(ids) <= most else None for ids in found]


def titled(session: Session, words: Sequence[str], limit: int) -> list[list[int]]:
    """Return, for each word, the newest papers that hold it in title, authors or identifiers."""
    return _newest_ids(session, [f'{HEADING} : "{word}"' for word in words], limit)


def _newest_ids(session: Session, expressions: Sequence[str], limit: int) -> list[list[int]]:
    """Answer several questions in one row: rows for so many ids take longer to fetch than to find."""
    if not expressions:
        return []
    known = {f"match{place}": expression for place, expression in enumerate(expressions)}
    return [json.loads(ids) for ids in session.execute(_several(len(expressions)), known | {"limit": limit}).one()]


@cache
def _several(count: int) -> TextClause:
    """Return the query for the newest papers of so many matches. To put it together takes longer than to answer it."""
    one = (
        "(SELECT json_group_array(rowid) FROM (SELECT rowid FROM papers_search WHERE papers_search MATCH :match{}"
        " ORDER BY rowid DESC LIMIT :limit))"
    )
    return text("SELECT " + ", ".join(one.format(place) for place in range(count)))


def left_out(query: Query) -> list[ColumnElement[bool]]:
    """Return the condition that a paper holds no unwanted term, for searches that want no word."""
    if not query.unwanted:
        return []
    unwanted = text("papers_search MATCH :unwanted").bindparams(unwanted=_any(query.unwanted))
    return [Paper.id.not_in(select(IDENTITY).where(unwanted))]


def marked(
    session: Session, query: Query, papers: Sequence[Paper], start: str, end: str, *, prefix: bool = False
) -> dict[int, tuple[str, tuple[str, ...]]]:
    """Return, by id, the title and the texts (summary, claims, abstract) of papers with every match marked."""
    asked = {"match": _any(query.wanted, prefix), "ids": [paper.id for paper in papers], "start": start, "end": end}
    rows = session.execute(_MARKED, asked)
    return {row.id: (row.title, (row.summary or "", row.claims or "", row.abstract or "")) for row in rows}


def _expression(query: Query, heading: bool, prefix: bool) -> str:
    """Write a query in the language of FTS5. Every term is quoted, so that nothing a reader typed is part of it."""
    words = () if prefix else run(query)
    parts = [_quoted(term, prefix) for term in query.wanted if term not in words]
    if words:
        bare = " AND ".join(_quoted(word, prefix) for word in words)
        # Whoever holds the words side by side holds them all: this finds no other papers, but ranks these higher.
        parts.append(f"(({bare}) OR {_quoted(Term(' '.join(word.text for word in words)), prefix)})")
    expression = f"({' AND '.join(parts)})"
    if heading:
        expression = f"{HEADING} : {expression}"
    return f"{expression} NOT {_any(query.unwanted)}" if query.unwanted else expression


def _any(terms: Sequence[Term], prefix: bool = False) -> str:
    return f"({' OR '.join(_quoted(term, prefix) for term in terms)})"


def _quoted(term: Term, prefix: bool) -> str:
    text = '"' + term.text.replace('"', '""') + '"'
    if prefix and begins(term):
        text += " *"
    return f"{FIELDS[term.field]} : {text}" if term.field else text
