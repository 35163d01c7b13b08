"""Search by words: in the full-text index of SQLite or PostgreSQL, with one rule for the order of what is found.

Papers that hold all the words in their title, authors or identifiers come first. Among these, and among the rest, the
order is by score: BM25 on SQLite, ``ts_rank`` on PostgreSQL, with the same weights (a word counts 10 in the title and
the identifiers, 5 in the authors, 3 in our summary and in the claims, 2 in the abstract), and higher where the words
stand side by side. Ties go to the newer paper, the one with the larger number.

The work is bounded: of more than 500 papers that hold the words, the newest 500 are ranked, and the newest 500 that
hold them in title, authors or identifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from sqlalchemy import select
from sqlalchemy.orm import Session

from offprint.daily.search import fts5, tsvector
from offprint.daily.search.filters import conditions
from offprint.daily.search.query import Filters, Query
from offprint.store import Paper

MOST_RANKED = 500


@dataclass(frozen=True)
class Ranked:
    """The ids of papers that match, the best first."""

    ids: tuple[int, ...] = ()
    more: bool = False
    """Whether more papers match than were ranked."""
    prefix: bool = False
    """Whether words that begin with the wanted ones were counted, as nothing holds the words as typed."""


def index(session: Session) -> ModuleType:
    """Return the module for the index of a session's database."""
    return tsvector if session.get_bind().dialect.name == "postgresql" else fts5


def rank(session: Session, query: Query, filters: Filters) -> Ranked:
    """Return the papers that hold what was asked for; when none at all does, those with words that begin so."""
    if not query.wanted:
        return newest(session, query, filters)
    ranked = _rank(session, query, filters, prefix=False)
    if ranked.ids or (_filtered(query, filters) and _rank(session, query.unfiltered, Filters(), prefix=False).ids):
        return ranked
    return _rank(session, query, filters, prefix=True)


def newest(session: Session, query: Query, filters: Filters) -> Ranked:
    """Return the papers that filters let through, the newest first."""
    asked = conditions(Paper.id, query, filters) + index(session).left_out(query)
    ids = session.scalars(select(Paper.id).where(*asked).order_by(Paper.id.desc()).limit(MOST_RANKED + 1)).all()
    return Ranked(tuple(ids[:MOST_RANKED]), len(ids) > MOST_RANKED)


def satisfying(session: Session, query: Query, filters: Filters, ids: Sequence[int]) -> set[int]:
    """Return those of the papers that filters let through, and in which quotes, fields and minuses hold."""
    strict = Query(
        tuple(term for term in query.wanted if term.quoted or term.field), query.unwanted, query.filters, query.unless
    )
    here = index(session)
    if strict.wanted:
        allowed = [here.MEMBER.in_(ids), *conditions(here.IDENTITY, query, filters, member=here.MEMBER)]
        return {found.id for found in here.newest(session, strict, allowed, len(ids))}
    allowed = [Paper.id.in_(ids), *conditions(Paper.id, query, filters), *here.left_out(query)]
    return set(session.scalars(select(Paper.id).where(*allowed)))


def _filtered(query: Query, filters: Filters) -> bool:
    return bool(query.filters or query.unless or filters)


def _rank(session: Session, query: Query, filters: Filters, prefix: bool) -> Ranked:
    here = index(session)
    allowed = conditions(here.IDENTITY, query, filters, member=here.MEMBER)
    found = here.newest(session, query, allowed, MOST_RANKED + 1, prefix=prefix)
    if not found:
        return Ranked()
    more = len(found) > MOST_RANKED
    if more:
        heading = here.newest(session, query, allowed, MOST_RANKED, heading=True, prefix=prefix)
        first = {match.id: match.score for match in heading}
    elif found[0].heading is None:
        named = here.among(session, query, found[-1].id, heading=True, prefix=prefix)
        first = {match.id: match.score for match in found if match.id in named}
    else:
        first = {match.id: match.score for match in found if match.heading}
    rest = {match.id: match.score for match in found[:MOST_RANKED] if match.id not in first}
    return Ranked((*_by_score(first), *_by_score(rest))[:MOST_RANKED], more, prefix)


def _by_score(scores: dict[int, float]) -> list[int]:
    return sorted(scores, key=lambda number: (-scores[number], -number))
