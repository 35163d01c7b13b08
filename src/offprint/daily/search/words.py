"""What counts as a word, and as adjacent words."""

from __future__ import annotations

import re
import unicodedata

from offprint.daily.search.query import Query, Term

ACCENTS = re.compile("[\u0300-\u036f]")
SEPARATORS = re.compile("[\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\xbf\xd7\xf7\u2000-\u206f\u3000-\u303f\ud800-\udfff]+")
LONGEST_RUN = 6
SHORTEST_BEGINNING = 3
"""A shorter beginning stands for so many words that putting their lists together takes long."""

WEIGHTS = {"title": 10, "arxiv": 10, "slug": 10, "authors": 5, "summary": 3, "claims": 3, "abstract": 2}
"""How much a word counts by where it occurs; PostgreSQL's four labels stand for 10, 5, 3 and 2."""


def plain(content: str) -> str:
    """Return text without accents, with spaces between words; as the migration's ``offprint_plain`` does.

    Examples
    --------
    >>> plain("Gröbner bases: finite-sum")
    'Grobner bases finite sum'
    """
    return SEPARATORS.sub(" ", ACCENTS.sub("", unicodedata.normalize("NFKD", content)))


def run(query: Query) -> tuple[Term, ...]:
    """Return the bare words of a query that would be a phrase if quoted: two to six of them, else none.

    Examples
    --------
    >>> [term.text for term in run(Query.parse("finite sum author:cai"))]
    ['finite', 'sum']
    """
    words = tuple(term for term in query.wanted if term.field is None and not term.quoted)
    return words if 2 <= len(words) <= LONGEST_RUN else ()


def begins(term: Term) -> bool:
    """Whether a term may stand for words that begin with it."""
    return not term.quoted and len(plain(term.text).split()[-1]) >= SHORTEST_BEGINNING
