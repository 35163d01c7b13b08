"""What PostgreSQL's index holds of texts, written here: the database is asked for each word once.

``to_tsvector`` parses and stems every word of every text, which takes longer than all else of an import together. A
plain text (:func:`~offprint.daily.search.words.plain`) is words with spaces between them, and the parser looks at each
by itself; so what it made of a word is remembered, and a vector is put together from what is known.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from operator import add

from sqlalchemy import text
from sqlalchemy.orm import Session

MOST_KEPT = 2_000_000
"""Letters of the words that are remembered: 200,000 words, some 40 MB."""

MOST_WORDS, MOST_OF_ONE = 16_000, 250
"""A vector counts no further than 16,383 words, and to 255 places of one: what is near that is left to the database."""

_LEXEMES = text(
    "SELECT word, ARRAY(SELECT lexeme FROM unnest(to_tsvector('offprint', word)) AS known (lexeme, places, labels),"
    " unnest(places) AS place ORDER BY place) FROM unnest(CAST(:words AS text[])) AS word"
)

_PLACES = {label: [f":{place}{label}" for place in range(1, MOST_WORDS + 1)] for label in "ABCD"}

Part = tuple[str, Sequence[str]]


class Lexemes:
    """Remembers what the database makes of words. Its dictionary is the same in every database."""

    def __init__(self) -> None:
        self._usual: dict[str, str] = {}
        """Of nearly every word: the one lexeme that it is, as it is written into a vector."""
        self._others: dict[str, tuple[str, ...]] = {}
        """Words that are none or several to the parser."""
        self._size = 0
        self._lock = threading.Lock()

    def of(self, session: Session, texts: Sequence[str]) -> list[list[str]]:
        """Return, for each of some plain texts, what the index holds of its words, in their order."""
        words = [content.split() for content in texts]
        with self._lock:
            self._learn(session, words)
            return [self._known(some) for some in words]

    def _learn(self, session: Session, words: Sequence[Sequence[str]]) -> None:
        if self._size > MOST_KEPT:
            self._usual.clear()
            self._others.clear()
            self._size = 0
        new = set(chain.from_iterable(words)).difference(self._usual, self._others)
        if not new:
            return
        self._size += sum(map(len, new))
        for word, lexemes in session.execute(_LEXEMES, {"words": [*new]}):
            if len(lexemes) == 1:
                self._usual[word] = _written(lexemes[0])
            else:
                self._others[word] = tuple(map(_written, lexemes))

    def _known(self, words: Sequence[str]) -> list[str]:
        try:
            return [*map(self._usual.__getitem__, words)]
        except KeyError:
            usual, others = self._usual, self._others
            return [part for word in words for part in (others[word] if word in others else (usual[word],))]


def vector(parts: Sequence[Part]) -> str | None:
    """Write lexemes, part by part with its label, as a vector; ``None`` where there are too many.

    The database puts the places of a lexeme together.

    Examples
    --------
    >>> vector([("A", ["fast", "sum"]), ("D", ["sum"])])
    'fast:1A sum:2A sum:3D'
    """
    written: list[str] = []
    for label, lexemes in parts:
        count = len(written)
        written += map(add, lexemes, _PLACES[label][count : count + len(lexemes)])
    if sum(len(lexemes) for _, lexemes in parts) > MOST_OF_ONE and _too_many(parts):
        return None
    return " ".join(written)


def _too_many(parts: Sequence[Part]) -> bool:
    """Whether there are more lexemes, or one of them is there more often, than a vector counts."""
    counts = Counter(lexeme for _, lexemes in parts for lexeme in lexemes)
    return counts.total() > MOST_WORDS or max(counts.values()) > MOST_OF_ONE


def _written(lexeme: str) -> str:
    """Write a lexeme as it stands in a vector."""
    if lexeme.isascii() and lexeme.isalnum():
        return lexeme
    escaped = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
