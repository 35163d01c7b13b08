r"""Trending: what is new, voted for and talked about, each counting half as much after three days.

At time :math:`t` a paper's heat is

.. math:: \sum_i w_i \, 2^{-(t - t_i) / 3\,\text{days}}

over its events :math:`i`: its newest listing (:math:`w = 2`, at noon of that day), each vote (:math:`w = 1`, one per
reader), and each reader who has commented (:math:`w = 1/2`, at their first comment that is shown). Passing time
multiplies every paper's heat alike, so the order does not depend on when one looks: the logarithm of the heat at a
fixed moment, the *hotness*, is stored with the paper, changes only with its events, and is what an index sorts by.
Ties go to the paper with the larger number, which was added last.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from functools import lru_cache

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from offprint.store import Comment, Listing, Paper, Vote

HALF_LIFE_DAYS = 3.0
LISTED, VOTED, COMMENTED = 2.0, 1.0, 0.5
EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
"""The fixed moment."""

NOON = datetime.time(12, tzinfo=datetime.UTC)


def hotness(events: Iterable[tuple[float, datetime.datetime]]) -> float:
    """Return the logarithm (base 2) of the heat of weighted events at the fixed moment; 0 when there are none.

    Examples
    --------
    >>> day = EPOCH + datetime.timedelta(days=6)
    >>> hotness([(1.0, day)]), hotness([(1.0, day), (1.0, day)])
    (2.0, 3.0)
    """
    day = datetime.timedelta(days=1)
    terms = [math.log2(weight) + (when - EPOCH) / day / HALF_LIFE_DAYS for weight, when in events]
    if not terms:
        return 0.0
    largest = max(terms)
    return largest + math.log2(math.fsum(2 ** (term - largest) for term in terms))


@lru_cache(maxsize=1024)
def listed_hotness(day: datetime.date) -> float:
    """Return the hotness of a paper that is listed on a day and has neither votes nor comments."""
    return hotness([(LISTED, datetime.datetime.combine(day, NOON))])


def refresh(session: Session, paper: Paper) -> None:
    """Count a paper's votes and comments anew and store its hotness. Call it after any of them has changed."""
    session.flush()
    newest = session.scalar(select(func.max(Listing.day)).where(Listing.paper_id == paper.id))
    votes = session.scalars(select(Vote.voted_at).where(Vote.paper_id == paper.id)).all()
    shown = Comment.paper_id == paper.id, Comment.hidden_at.is_(None)
    first = select(func.min(Comment.created_at)).where(*shown).group_by(Comment.account_id)
    events = [(VOTED, when) for when in votes]
    events += [(COMMENTED, when) for when in session.scalars(first)]
    if newest is not None:
        events.append((LISTED, datetime.datetime.combine(newest, NOON)))
    paper.n_votes = len(votes)
    paper.n_comments = session.scalar(select(func.count()).select_from(Comment).where(*shown)) or 0
    paper.hotness = hotness(events)
