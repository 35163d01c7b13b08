"""A search from beginning to end: by words and by meaning, fused, and each paper shown with where it matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape
from sqlalchemy import select
from sqlalchemy.orm import Session

from offprint.daily.search import lexical, marking
from offprint.daily.search.lexical import Ranked
from offprint.daily.search.query import Filters, Query
from offprint.daily.search.semantic import Semantic
from offprint.store import Paper
from offprint.store.inserts import any_of

RRF_K = 60
"""The constant of reciprocal rank fusion: the larger, the less the first places count."""


@dataclass(frozen=True)
class Hit:
    """A paper found, with its title and the passage that matches, both safe to show."""

    paper: Paper
    title: Markup
    passage: Markup


@dataclass(frozen=True)
class Found:
    """A stretch of the hits, the best first, and how many papers match in all."""

    hits: tuple[Hit, ...]
    total: int
    more: bool = False
    """Whether more match than ``total`` says: counting ends at 500."""


def search(
    session: Session,
    query: Query,
    limit: int = 50,
    offset: int = 0,
    filters: Filters = Filters(),  # noqa: B008 - frozen
    *,
    semantic: Semantic | None = None,
) -> Found:
    """Find papers by their title, authors, summary, claims, abstract, arXiv id or slug, the best match first.

    All words are wanted; when nothing holds them as typed, words that begin with them count too. Filters without words
    give the newest papers. With a model, papers that are near in meaning are found as well: the score of a paper is
    the sum of 1 / (60 + its place) over the two lists (reciprocal rank fusion). What is quoted, asked of a field or
    left out with a minus holds for them too.

    Parameters
    ----------
    session : Session
    query : Query
    limit : int
        The most hits to return.
    offset : int
        How many of the best to leave out, for the pages after the first.
    filters : Filters
        What papers must be, beside what the query itself asks.
    semantic : Semantic, optional
        The model to search by meaning with.
    """
    ranked = matches(session, query, filters, semantic=semantic)
    shown = ranked.ids[offset : offset + limit]
    return Found(tuple(_hits(session, query, shown, ranked.prefix)), len(ranked.ids), ranked.more)


def matches(
    session: Session,
    query: Query,
    filters: Filters = Filters(),  # noqa: B008 - frozen
    *,
    semantic: Semantic | None = None,
) -> Ranked:
    """Return the ids of what :func:`search` finds, for whoever does not show where they match."""
    if not (query or filters):
        return Ranked()
    ranked = lexical.rank(session, query, filters)
    if semantic is None or not query.wanted:
        return ranked
    near = [number for number, _ in semantic.nearest(session, " ".join(term.text for term in query.wanted))]
    allowed = lexical.satisfying(session, query, filters, near) if near else set()
    return replace(ranked, ids=tuple(fused(ranked.ids, [number for number in near if number in allowed])))


def papers(session: Session, ids: Sequence[int]) -> list[Paper]:
    """Return papers by their ids, in their order, without those that have gone meanwhile."""
    if not ids:
        return []
    rows = session.scalars(select(Paper).where(any_of(session, Paper.id, "ids")), {"ids": [*ids]})
    found = {paper.id: paper for paper in rows}
    return [found[number] for number in ids if number in found]


def fused(*rankings: Sequence[int]) -> list[int]:
    """Fuse rankings by reciprocal rank; ties keep the order of the first ranking, then of the next.

    Examples
    --------
    >>> fused([1, 2, 3], [3, 4])
    [3, 1, 2, 4]
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for place, number in enumerate(ranking, start=1):
            scores[number] = scores.get(number, 0.0) + 1 / (RRF_K + place)
    return sorted(scores, key=lambda number: -scores[number])


def _hits(session: Session, query: Query, ids: Sequence[int], prefix: bool) -> list[Hit]:
    shown, marks = papers(session, ids), {}
    if query.wanted and shown:
        index = lexical.index(session)
        marks = index.marked(session, query, shown, marking.START, marking.END, prefix=prefix)
    return [_hit(paper, *marks.get(paper.id, (None, ()))) for paper in shown]


def _hit(paper: Paper, title: str | None, texts: Sequence[str]) -> Hit:
    if title is None or marking.START not in "".join((title, *texts)):
        # Found by meaning, or by what is not shown here.
        return Hit(paper, escape(paper.title), marking.opening((paper.summary, paper.abstract)))
    return Hit(paper, marking.safe(title), marking.passage(texts))
