"""A search from beginning to end: by words and by meaning, fused, and each paper shown with where it matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape
from sqlalchemy import select
from sqlalchemy.orm import Session

from offprint.daily.search import lexical, marking
from offprint.daily.search.query import Filters, Query
from offprint.daily.search.semantic import Semantic
from offprint.store import Paper

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
    if not (query or filters):
        return Found((), 0)
    ranked = lexical.rank(session, query, filters)
    ids: Sequence[int] = ranked.ids
    if semantic is not None and query.wanted:
        near = [number for number, _ in semantic.nearest(session, " ".join(term.text for term in query.wanted))]
        allowed = lexical.satisfying(session, query, filters, near) if near else set()
        ids = fused(ids, [number for number in near if number in allowed])
    shown = ids[offset : offset + limit]
    return Found(tuple(_hits(session, query, shown, ranked.prefix)), len(ids), ranked.more)


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
    if not ids:
        return []
    papers = {paper.id: paper for paper in session.scalars(select(Paper).where(Paper.id.in_(ids)))}
    marks = {}
    if query.wanted:
        index, shown = lexical.index(session), list(papers.values())
        marks = index.marked(session, query, shown, marking.START, marking.END, prefix=prefix)
    return [_hit(papers[number], *marks.get(number, (None, ()))) for number in ids if number in papers]


def _hit(paper: Paper, title: str | None, texts: Sequence[str]) -> Hit:
    if title is None or marking.START not in "".join((title, *texts)):
        # Found by meaning, or by what is not shown here.
        return Hit(paper, escape(paper.title), marking.opening((paper.summary, paper.abstract)))
    return Hit(paper, marking.safe(title), marking.passage(texts))
