"""Lexical search: SQLite's full-text index where there is one, a plain scan on other databases."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup, escape
from sqlalchemy import ColumnElement, Text, and_, cast, func, not_, or_, select, text
from sqlalchemy.orm import Session

from offprint.store import Paper

LONGEST_QUERY = 200
MOST_TERMS = 20
START, END = "\x02", "\x03"
"""Marks about a match, turned into ``<mark>`` once the text is escaped."""

_COUNT = "SELECT count(*) FROM papers_search WHERE papers_search MATCH :query"
_HITS = """
    SELECT rowid,
           highlight(papers_search, 0, :start, :end) AS title,
           snippet(papers_search, 2, :start, :end, '…', 40) AS summary,
           snippet(papers_search, 3, :start, :end, '…', 40) AS abstract
    FROM papers_search WHERE papers_search MATCH :query
    ORDER BY bm25(papers_search, 10, 5, 3, 2, 10, 10), rowid DESC LIMIT :limit
"""


@dataclass(frozen=True)
class Hit:
    """A paper found, with its title and the passage that matches, both safe to show."""

    paper: Paper
    title: Markup
    passage: Markup


@dataclass(frozen=True)
class Found:
    """The best hits, and how many papers match in all."""

    hits: tuple[Hit, ...]
    total: int


@dataclass(frozen=True)
class Query:
    """What a reader typed: words and quoted phrases that must occur, and those that must not (after a minus).

    Examples
    --------
    >>> Query.parse('halpern "finite sum" -privacy')
    Query(wanted=('halpern', 'finite sum'), unwanted=('privacy',))
    """

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]

    @classmethod
    def parse(cls, typed: str) -> Query:
        """Read a query. Nothing a reader can type is an error; what holds no letter or digit is left out."""
        typed = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", " ", typed[:LONGEST_QUERY])
        groups: tuple[list[str], list[str]] = ([], [])
        for minus, phrase, word in re.findall(r'(-?)(?:"([^"]*)"?|([^\s"]+))', typed)[:MOST_TERMS]:
            term = " ".join((phrase or word).split())
            if any(character.isalnum() for character in term):
                groups[bool(minus)].append(term)
        return cls(tuple(groups[0]), tuple(groups[1]))


def search(session: Session, query: Query, limit: int = 50, *, indexed: bool | None = None) -> Found:
    """Find papers by their title, authors, summary, abstract, arXiv id or slug, the best match first.

    When nothing holds the words as typed, words that begin with them count too.

    Parameters
    ----------
    session : Session
    query : Query
    limit : int
        The most hits to return.
    indexed : bool, optional
        Whether to use the full-text index; by default where the database has one.
    """
    if not query.wanted:
        return Found((), 0)
    if indexed is None:
        indexed = session.get_bind().dialect.name == "sqlite"
    if not indexed:
        return _scan(session, query, limit)
    found = _look_up(session, query, limit, prefix="")
    return found if found.total else _look_up(session, query, limit, prefix="*")


def _look_up(session: Session, query: Query, limit: int, *, prefix: str) -> Found:
    def quoted(term: str) -> str:
        return '"' + term.replace('"', '""') + '"' + prefix

    expression = " AND ".join(map(quoted, query.wanted))
    if query.unwanted:
        expression = f"({expression}) NOT ({' OR '.join(map(quoted, query.unwanted))})"
    total = session.scalar(text(_COUNT), {"query": expression}) or 0
    rows = session.execute(text(_HITS), {"query": expression, "start": START, "end": END, "limit": limit}).all()
    papers = {paper.id: paper for paper in session.scalars(select(Paper).where(Paper.id.in_([row[0] for row in rows])))}
    hits = tuple(Hit(papers[row.rowid], _marked(row.title), _passage(row.summary, row.abstract)) for row in rows)
    return Found(hits, total)


def _scan(session: Session, query: Query, limit: int) -> Found:
    columns = (Paper.title, cast(Paper.authors, Text), Paper.summary, Paper.abstract, Paper.arxiv, Paper.slug)

    def occurs(term: str) -> ColumnElement[bool]:
        return or_(*(func.coalesce(column, "").icontains(term, autoescape=True) for column in columns))

    matches = and_(*map(occurs, query.wanted), *(not_(occurs(term)) for term in query.unwanted))
    total = session.scalar(select(func.count()).select_from(Paper).where(matches)) or 0
    in_title = and_(*(Paper.title.icontains(term, autoescape=True) for term in query.wanted))
    papers = session.scalars(select(Paper).where(matches).order_by(in_title.desc(), Paper.id.desc()).limit(limit))
    mark = _marker(query.wanted)
    hits = (Hit(paper, _marked(mark(paper.title)), _passage(*map(_cut, _texts(paper, mark)))) for paper in papers)
    return Found(tuple(hits), total)


def _texts(paper: Paper, mark: Callable[[str], str]) -> tuple[str, str]:
    return mark(paper.summary or ""), mark(paper.abstract or "")


def _marker(terms: tuple[str, ...]) -> Callable[[str], str]:
    pattern = re.compile("|".join(map(re.escape, terms)), re.IGNORECASE)
    return lambda content: pattern.sub(lambda match: f"{START}{match[0]}{END}", content)


def _cut(content: str) -> str:
    """Return the surroundings of the first match."""
    start = max(0, content.find(START) - 100)
    start = content.rfind(" ", 0, start) + 1 if start else 0
    return ("…" if start else "") + content[start : start + 300]


def _passage(summary: str | None, abstract: str | None) -> Markup:
    """Return the passage that holds a match, of the summary where it does; none when only the title does."""
    return next((_marked(passage) for passage in (summary, abstract) if passage and START in passage), Markup())


def _marked(content: str) -> Markup:
    """Escape text, then turn the marks that stand in pairs into ``<mark>``; others vanish."""
    marked = re.sub(f"{START}([^{START}{END}]*){END}", r"<mark>\1</mark>", str(escape(content)))
    return Markup(re.sub(f"[{START}{END}]", "", marked))
