"""Papers like a paper: near in meaning where there are vectors, else those that share its rare words."""

from __future__ import annotations

import re
from collections import Counter

from sqlalchemy import select
from sqlalchemy.orm import Session

from offprint.daily.search import lexical
from offprint.daily.search.semantic import Semantic
from offprint.daily.search.words import plain
from offprint.store import Paper

MOST_CANDIDATES = 16
MOST_TERMS = 8
ENOUGH_TERMS = 3
COMMON = 300
"""A word that this many papers hold says little about any of them, and its list is long to read."""

NEWEST = 200
"""How many papers with a common word in the heading are looked at."""

WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{2,}")


def similar(session: Session, paper: Paper, limit: int = 5, *, semantic: Semantic | None = None) -> list[Paper]:
    """Return the papers most like a paper, the nearest first; never the paper itself.

    Without vectors, the words of its title, and those that its summary or abstract repeats, are looked up in the index;
    the rarest eight that other papers hold count, the rarer the more. Of words that are common, where there are too few
    others, the newest papers with them in the heading count. Ties go to the newer paper.

    Parameters
    ----------
    session : Session
    paper : Paper
    limit : int
        The most papers to return.
    semantic : Semantic, optional
        The model whose vectors tell what is near.
    """
    ids = semantic.like(session, paper.id, limit) if semantic is not None else []
    if not ids:
        ids = _sharing_words(session, paper, limit)
    found = {other.id: other for other in session.scalars(select(Paper).where(Paper.id.in_(ids)))}
    return [found[number] for number in ids if number in found]


def candidates(paper: Paper) -> list[str]:
    """Return the words of a paper that may set it apart: of its title, then what its text repeats, most often first."""
    text = " ".join(part for part in (paper.summary, paper.abstract) if part)
    counts = Counter(word.lower() for word in WORD.findall(plain(text)))
    repeated = [word for word, count in counts.most_common() if count > 1]
    title = [word.lower() for word in WORD.findall(plain(paper.title))]
    return list(dict.fromkeys([*title, *repeated]))[:MOST_CANDIDATES]


def _sharing_words(session: Session, paper: Paper, limit: int) -> list[int]:
    index, words = lexical.index(session), candidates(paper)
    holders: list[list[int] | None] = index.holding(session, words, COMMON)
    telling = sorted((ids for ids in holders if ids and len(ids) > 1), key=len)
    if len(telling) < ENOUGH_TERMS:
        common = [word for word, ids in zip(words, holders, strict=True) if ids is None]
        telling += index.titled(session, common[:MOST_TERMS], NEWEST)
    scores: dict[int, float] = {}
    for ids in telling[:MOST_TERMS]:
        for number in ids:
            scores[number] = scores.get(number, 0.0) + 1 / len(ids)
    scores.pop(paper.id, None)
    return sorted(scores, key=lambda number: (-scores[number], -number))[:limit]
