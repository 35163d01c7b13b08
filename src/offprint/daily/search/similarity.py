"""Papers like a paper: near in meaning where there are vectors, else those that share its rare words."""

from __future__ import annotations

import re
import threading
import time
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

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

MOST_KEPT = 4096
"""Words whose papers are kept in memory: 10 MB, if all are as common as they may be."""

WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{2,}")

Numbers = Sequence[int]


class Holders:
    """Which papers hold a word, kept for a while: the words of one paper are those of many.

    Parameters
    ----------
    seconds : float
        How long what was read is taken to be so; 0 reads everything anew.
    clock : callable
        Returns seconds that only grow.
    """

    def __init__(self, seconds: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.clock = clock
        self._kept: OrderedDict[tuple[str, str], tuple[float, Numbers | None]] = OrderedDict()
        self._lock = threading.Lock()

    def anywhere(self, session: Session, words: Sequence[str]) -> list[Numbers | None]:
        """Return, for each word, the papers that hold it; ``None`` where it is common."""
        return self._read("anywhere", words, lambda new: lexical.index(session).holding(session, new, COMMON))

    def in_heading(self, session: Session, words: Sequence[str]) -> list[Numbers]:
        """Return, for each word, the newest papers with it in title, authors or identifiers."""
        found = self._read("heading", words, lambda new: lexical.index(session).titled(session, new, NEWEST))
        return [ids for ids in found if ids is not None]

    def _read(
        self, where: str, words: Sequence[str], read: Callable[[list[str]], Sequence[list[int] | None]]
    ) -> list[Numbers | None]:
        now = self.clock()
        with self._lock:
            known = {word: kept[1] for word in words if (kept := self._kept.get((where, word))) and now < kept[0]}
        new = [word for word in dict.fromkeys(words) if word not in known]
        if new:
            fresh: dict[str, Numbers | None] = dict(
                zip(new, (None if ids is None else array("q", ids) for ids in read(new)), strict=True)
            )
            known |= fresh
            if self.seconds:
                self._keep(where, fresh, now + self.seconds)
        return [known[word] for word in words]

    def _keep(self, where: str, fresh: dict[str, Numbers | None], until: float) -> None:
        with self._lock:
            for word, ids in fresh.items():
                self._kept[where, word] = until, ids
                self._kept.move_to_end((where, word))
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)


def similar(
    session: Session,
    paper: Paper,
    limit: int = 5,
    *,
    semantic: Semantic | None = None,
    holders: Holders | None = None,
) -> list[Paper]:
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
    holders : Holders, optional
        What is known of words already.
    """
    ids = semantic.like(session, paper.id, limit) if semantic is not None else []
    if not ids:
        ids = _sharing_words(session, paper, limit, holders or Holders())
    found = {other.id: other for other in session.scalars(select(Paper).where(Paper.id.in_(ids)))}
    return [found[number] for number in ids if number in found]


def candidates(paper: Paper) -> list[str]:
    """Return the words of a paper that may set it apart: of its title, then what its text repeats, most often first."""
    text = " ".join(part for part in (paper.summary, paper.abstract) if part)
    counts = Counter(word.lower() for word in WORD.findall(plain(text)))
    repeated = [word for word, count in counts.most_common() if count > 1]
    title = [word.lower() for word in WORD.findall(plain(paper.title))]
    return list(dict.fromkeys([*title, *repeated]))[:MOST_CANDIDATES]


def _sharing_words(session: Session, paper: Paper, limit: int, known: Holders) -> list[int]:
    words = candidates(paper)
    holders = known.anywhere(session, words)
    telling = sorted((ids for ids in holders if ids and len(ids) > 1), key=len)
    if len(telling) < ENOUGH_TERMS:
        common = [word for word, ids in zip(words, holders, strict=True) if ids is None]
        telling += known.in_heading(session, common[:MOST_TERMS])
    scores: dict[int, float] = {}
    for ids in telling[:MOST_TERMS]:
        for number in ids:
            scores[number] = scores.get(number, 0.0) + 1 / len(ids)
    scores.pop(paper.id, None)
    return sorted(scores, key=lambda number: (-scores[number], -number))[:limit]
