"""Trending: the order that the formula gives, whatever the moment one looks."""

from __future__ import annotations

import datetime
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from offprint.daily import trending
from offprint.store import Account, Comment, Database, Paper, Vote

DAY = datetime.timedelta(days=1)
START = datetime.datetime(2025, 8, 20, 12, tzinfo=datetime.UTC)
EVENTS = st.lists(
    st.tuples(st.sampled_from([0.5, 1.0, 2.0]), st.floats(0, 400).map(lambda days: START + days * DAY)),
    min_size=1,
    max_size=30,
)


def heat(events: list[tuple[float, datetime.datetime]], when: datetime.datetime) -> float:
    """Return the sum of the documentation, at one moment."""
    return math.fsum(weight * 2 ** (-((when - at) / DAY) / 3.0) for weight, at in events)


@given(EVENTS, EVENTS, st.floats(0, 60))
def test_hotness_orders_papers_as_their_heat_does_at_any_moment(one, other, days) -> None:  # type: ignore[no-untyped-def]
    when = START + (400 + days) * DAY
    difference = trending.hotness(one) - trending.hotness(other)
    # Twelve digits of a number near 3,200 remain of double precision.
    assert difference == pytest.approx(math.log2(heat(one, when) / heat(other, when)), abs=1e-8)


def test_half_as_much_after_three_days() -> None:
    later = trending.hotness([(1.0, START + 3 * DAY)])
    assert later - trending.hotness([(1.0, START)]) == pytest.approx(1.0)


def test_a_list_place_counts_as_two_votes_of_its_noon() -> None:
    votes = trending.hotness([(1.0, START), (1.0, START)])
    assert trending.listed_hotness(START.date()) == pytest.approx(votes)


@pytest.fixture
def paper(database: Database) -> int:
    """Return a paper's number, with three accounts in the database."""
    with database.session() as session:
        session.add_all(Account(email=f"{name}@example.org", handle=name, name=name) for name in ("ada", "bob", "eve"))
        return session.scalars(select(Paper)).first().id


def hotness_after(database: Database, paper: int, *things: Vote | Comment) -> float:
    with database.session() as session:
        session.add_all(things)
        found = session.get(Paper, paper)
        trending.refresh(session, found)
        return found.hotness


def test_votes_and_comments_heat_a_paper(database: Database, paper: int) -> None:
    bare = hotness_after(database, paper)
    vote = Vote(account_id=1, paper_id=paper, voted_at=START)
    voted = hotness_after(database, paper, vote)
    said = Comment(account_id=2, paper_id=paper, body="So.", created_at=START)
    both = hotness_after(database, paper, said)
    assert [2 ** (voted - bare), 2 ** (both - bare)] == pytest.approx([3 / 2, 3.5 / 2])


def test_only_the_first_comment_of_a_reader_counts_and_none_that_is_hidden(database: Database, paper: int) -> None:
    said = Comment(account_id=2, paper_id=paper, body="So.", created_at=START)
    once = hotness_after(database, paper, said)
    again = Comment(account_id=2, paper_id=paper, body="So!", created_at=START + DAY)
    hidden = Comment(account_id=3, paper_id=paper, body="Spam", created_at=START, hidden_at=START)
    assert hotness_after(database, paper, again, hidden) == once
    with database.session() as session:
        assert session.get(Paper, paper).n_comments == 2
