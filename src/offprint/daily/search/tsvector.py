"""The full-text index of PostgreSQL."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import (
    ColumnElement,
    TextClause,
    and_,
    case,
    column,
    exists,
    func,
    literal_column,
    not_,
    select,
    table,
    text,
    true,
)
from sqlalchemy.orm import Session

from offprint.daily.search.query import Match, Query, Term
from offprint.daily.search.words import WEIGHTS, begins, plain, run
from offprint.store import Paper

INDEX = table("papers_search", column("paper_id"), column("heading"), column("words"))
IDENTITY: ColumnElement[int] = INDEX.c.paper_id
MEMBER = IDENTITY
LABELS = {"title": "A", "author": "B", "arxiv": "C"}
"""The labels of the fields in the column ``heading``."""

_BY_LABEL = ", ".join(str(WEIGHTS[name] / 10) for name in ("abstract", "summary", "authors", "title"))
_WEIGHTS: ColumnElement[object] = literal_column(f"'{{{_BY_LABEL}}}'::float4[]")
_LEXEMES = text("SELECT word, ts_lexize('offprint_english', word) FROM unnest(CAST(:words AS text[])) AS word")
_COMMON = text(
    "SELECT known.lexeme FROM pg_stats, pg_class,"
    " unnest(most_common_elems::text::text[], most_common_elem_freqs) AS known (lexeme, share)"
    " WHERE pg_class.oid = 'papers_search'::regclass AND schemaname = pg_class.relnamespace::regnamespace::text"
    " AND tablename = 'papers_search' AND attname = 'words' AND share * reltuples > :most"
)
"""Which lexemes more than so many papers hold, by the statistics that the database keeps."""

COMMON_KEPT = 300.0
"""Seconds after which these are read anew: they change with the statistics, and to read them takes long."""

_ASKED = (
    " FROM unnest(CAST(:words AS text[])) WITH ORDINALITY AS asked (word, place), to_tsquery('offprint', word) AS query"
    " ORDER BY place"
)
_COUNTED = text(
    f"SELECT (SELECT count(*) FROM (SELECT FROM papers_search WHERE words @@ query LIMIT :limit) AS few){_ASKED}"
)
# Ordered by an expression: for rare words, to go through all papers from the newest on would take long.
_HOLDING = text(
    "SELECT ARRAY(SELECT paper_id FROM papers_search WHERE words @@ query ORDER BY paper_id + 0 DESC LIMIT :limit)"
    + _ASKED
)
_TITLED = (
    "ARRAY(SELECT paper_id FROM papers_search WHERE heading @@ to_tsquery('offprint', {})"
    " ORDER BY paper_id DESC LIMIT :limit)"
)

WORD = re.compile(r"[^\W_]+")

_KEPT: WeakKeyDictionary[Any, tuple[float, int, frozenset[str]]] = WeakKeyDictionary()
"""By engine: until when they count, how many papers are many, and the lexemes that more hold."""

MOST_STEMS = 50_000
_STEMS: dict[str, str] = {}
"""What the dictionary, which is the same in every database, makes of words."""


def newest(
    session: Session,
    query: Query,
    allowed: Sequence[ColumnElement[bool]],
    limit: int,
    *,
    heading: bool = False,
    prefix: bool = False,
) -> list[Match]:
    """Return the newest papers that match, the newest first; parameters as for SQLite's index.

    Whether the heading says all is looked at in the same row, which the score is computed from.
    """
    conditions = _conditions(query, heading, prefix)
    order = IDENTITY + 0 if _misjudged(query) else IDENTITY
    ids = select(IDENTITY).where(*conditions, *allowed).order_by(order.desc()).limit(limit)
    says_all = true() if heading else and_(true(), *_conditions(replace(query, unwanted=()), True, prefix))
    found = select(IDENTITY, _score(query, prefix), says_all).where(IDENTITY.in_(ids)).order_by(IDENTITY.desc())
    return [Match(*row) for row in session.execute(found).all()]


def among(session: Session, query: Query, least: int, *, heading: bool = False, prefix: bool = False) -> set[int]:
    """Return the ids, from ``least`` on, of the papers that match, whatever the filters."""
    return set(session.scalars(select(IDENTITY).where(*_conditions(query, heading, prefix), least <= IDENTITY)))


def holding(session: Session, words: Sequence[str], most: int) -> list[list[int] | None]:
    """Return, for each word, the papers that hold it; ``None`` when they are more than ``most``, or seem to be."""
    lexemes = _lexemes(session, set(words))
    common = _common(session, most)
    rare = [word for word in words if lexemes[word] not in common]
    # To count rows that the index names takes a third of the time that it takes to read their numbers.
    counts = _ask(session, _COUNTED, rare, most + 1)
    few = [word for word, count in zip(rare, counts, strict=True) if count <= most]
    found = dict(zip(few, _ask(session, _HOLDING, few, most), strict=True))
    return [found.get(word) for word in words]


def titled(session: Session, words: Sequence[str], limit: int) -> list[list[int]]:
    """Return, for each word, the newest papers that hold it in title, authors or identifiers.

    Such words may be common or rare, so that for each there is another way to go about it.
    """
    if not words:
        return []
    known = {f"word{place}": _written(Term(word)) for place, word in enumerate(words)}
    return list(session.execute(_several(len(words)), known | {"limit": limit}).one())


def _ask(session: Session, question: TextClause, words: Sequence[str], limit: int) -> list[Any]:
    """Return the answer to a question about each of some words that are not common."""
    if not words:
        return []
    return list(session.scalars(question, {"words": [_written(Term(word)) for word in words], "limit": limit}))


def _common(session: Session, most: int) -> frozenset[str]:
    """Return the lexemes that more than so many papers hold, as far as the database knows."""
    bind, present = session.get_bind(), time.monotonic()
    kept = _KEPT.get(bind)
    if kept is None or kept[0] <= present or kept[1] != most:
        kept = _KEPT[bind] = present + COMMON_KEPT, most, frozenset(session.scalars(_COMMON, {"most": most}))
    return kept[2]


@cache
def _several(count: int) -> TextClause:
    """Return the query for so many words. To put it together takes longer than to answer it."""
    return text("SELECT " + ", ".join(_TITLED.format(f":word{place}") for place in range(count)))


def left_out(query: Query) -> list[ColumnElement[bool]]:
    """Return the condition that a paper holds no unwanted term, for searches that want no word."""
    if not query.unwanted:
        return []
    return [not_(exists().where(Paper.id == IDENTITY, _holds_any(query.unwanted)))]


def marked(
    session: Session, query: Query, papers: Sequence[Paper], start: str, end: str, *, prefix: bool = False
) -> dict[int, tuple[str, tuple[str, ...]]]:
    """Return, by id, the title and the texts (summary, claims, abstract) of papers with every match marked.

    PostgreSQL's own way of marking does not know of accents taken off; so the words of the texts are put through the
    same dictionary as the index, in one statement, and compared here.
    """
    rows = [(paper.id, paper.title, paper.summary, paper.claims_text, paper.abstract) for paper in papers]
    wanted = [word for term in query.wanted for word in _tokens(term)]
    occurring = set(WORD.findall("\n".join(content for row in rows for content in row[1:] if content)))
    # Stems keep the letter that words begin with, so that most words need not be looked at.
    initials = {word[0] for word in wanted}
    either = initials | {letter.upper() for letter in initials}
    near = (word for word in occurring if word[0] in either or not word.isascii())
    plainly = {word: simple for word in near if (simple := _simple(word))[:1] in initials}
    lexemes = _lexemes(session, {*plainly.values(), *wanted})
    sought = {lexemes[word] for word in wanted}
    beginnings = tuple(_tokens(term)[-1] for term in query.wanted if prefix and begins(term))
    matching = {word for word, simple in plainly.items() if lexemes[simple] in sought or simple.startswith(beginnings)}

    # Looked for by the words that match, not word by word, as few of a text's words do.
    pattern = re.compile(f"({'|'.join(matching)})(?![^\\W_])" if matching else "(?!)")

    def mark(content: str | None) -> str:
        return pattern.sub(lambda found: found[0] if _in_a_word(found) else f"{start}{found[0]}{end}", content or "")

    return {row[0]: (mark(row[1]), (mark(row[2]), mark(row[3]), mark(row[4]))) for row in rows}


def _in_a_word(found: re.Match[str]) -> bool:
    """Whether something that was found is only the end of a word."""
    return found.start() > 0 and WORD.match(found.string, found.start() - 1) is not None


def _lexemes(session: Session, words: set[str]) -> dict[str, str]:
    """Return what the index keeps of words; of those that were asked for before without a query."""
    known = {word: stem for word in words if (stem := _STEMS.get(word)) is not None}
    if new := sorted(words - known.keys()):
        rows = session.execute(_LEXEMES, {"words": new})
        fresh = {word: lexemes[0] if lexemes else word for word, lexemes in rows}
        if len(_STEMS) + len(fresh) > MOST_STEMS:
            _STEMS.clear()
        _STEMS.update(fresh)
        known |= fresh
    return known


def _conditions(query: Query, heading: bool, prefix: bool) -> list[ColumnElement[bool]]:
    """Return what the words of a query ask of a row of the index."""
    anywhere = [term for term in query.wanted if term.field is None]
    in_fields = [term for term in query.wanted if term.field]
    asked = []
    if anywhere:
        vector = INDEX.c.heading if heading else INDEX.c.words
        asked.append(_matches(vector, " & ".join(_written(term, prefix) for term in anywhere)))
    if in_fields:
        asked.append(_matches(INDEX.c.heading, " & ".join(_written(term, prefix) for term in in_fields)))
    if query.unwanted:
        asked.append(not_(_holds_any(query.unwanted)))
    return asked


def _holds_any(terms: Sequence[Term]) -> ColumnElement[bool]:
    by_vector = {
        INDEX.c.words: [term for term in terms if term.field is None],
        INDEX.c.heading: [term for term in terms if term.field],
    }
    found = [_matches(vector, " | ".join(map(_written, some))) for vector, some in by_vector.items() if some]
    return found[0] if len(found) == 1 else found[0] | found[1]


def _misjudged(query: Query) -> bool:
    """Whether there are fewer matches, or older ones, than the planner thinks.

    It takes words that must be side by side for words that occur in the same paper, and does not know that papers of
    one year are together. It would go through all papers from the newest on; ordered by an expression, it cannot.
    """
    return query.filters.years is not None or any(len(_tokens(term)) > 1 for term in query.wanted)


def _score(query: Query, prefix: bool) -> ColumnElement[float]:
    """Weigh the words by where they are and how near each other; twice as much where they stand side by side."""
    anywhere = [_written(Term(term.text, None, term.quoted), prefix) for term in query.wanted]
    rank = func.ts_rank(
        literal_column(f"'{{{_BY_LABEL}}}'::float4[]"), INDEX.c.words, _tsquery(" & ".join(anywhere)), 1
    )
    if words := run(query):
        together = _matches(INDEX.c.words, _written(Term(" ".join(word.text for word in words)), prefix))
        return rank * case((together, 2.0), else_=1.0)
    return rank


def _matches(vector: ColumnElement[object], expression: str) -> ColumnElement[bool]:
    return vector.op("@@", is_comparison=True)(_tsquery(expression))


def _tsquery(expression: str) -> ColumnElement[object]:
    return func.to_tsquery(literal_column("'offprint'"), expression)


def _written(term: Term, prefix: bool = False) -> str:
    """Write a term in the language of ``to_tsquery``; of what a reader typed only letters and digits are left."""
    label = LABELS[term.field] if term.field else ""
    tokens = [f"'{word}'{label and ':' + label}" for word in _tokens(term)]
    if prefix and begins(term):
        tokens[-1] = f"{tokens[-1]}{'' if label else ':'}*"
    return f"({' <-> '.join(tokens)})"


def _simple(word: str) -> str:
    """Return a word of a text as it is looked up."""
    return (word if word.isascii() else plain(word)).lower().strip()


def _tokens(term: Term) -> list[str]:
    return plain(term.text).lower().split()
