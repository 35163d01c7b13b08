"""Records in the database: joined with what was imported, listed on their day, and nothing twice."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from offprint.daily import lists, trending
from offprint.daily.library import address, find, load_records, newest_day, title_key
from offprint.daily.periods import Period
from offprint.papers import Record, record, records
from offprint.store import (
    Account,
    Authorship,
    Comment,
    Database,
    Delivery,
    Listing,
    Paper,
    Subscription,
    Vote,
)

DAY = datetime.date(2025, 8, 20)


def snapshot(database: Database) -> list[tuple[object, ...]]:
    with database.session() as session:
        papers = [
            tuple(getattr(paper, column.key) for column in Paper.__table__.columns)
            for paper in session.scalars(select(Paper).order_by(Paper.id))
        ]
        listings = [
            (listing.id, listing.day, listing.paper_id, listing.position)
            for listing in session.scalars(select(Listing).order_by(Listing.id))
        ]
    return papers + listings


def changed(paper: Record, **values: object) -> Record:
    return paper.model_copy(update=values)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("PFGM++: Unlocking", "pfgm — unlocking"),
        ("Gröbner  Bases", "GROBNER bases."),
        ("Don't Cheat", "Don’t Cheat"),
        ("Model-agnostic", "Model agnostic"),
        ("ﬁne-tuning", "fine tuning"),
    ],
)
def test_titles_match_whatever_their_spelling(one: str, other: str) -> None:
    assert title_key(one) == title_key(other)
    assert title_key(one) != title_key(other + " 2")


def test_records_are_listed_on_their_day(database: Database) -> None:
    with database.session() as session:
        found = lists.of_period(session, Period.holding("day", DAY), "listed")
        assert newest_day(session) == DAY
        assert lists.neighbours(session, Period.holding("day", DAY)) == (None, None)
    assert [paper.slug for paper in found.papers] == list(records())


def test_loading_twice_changes_nothing(database: Database) -> None:
    before = snapshot(database)
    assert load_records(database) == len(records())
    assert snapshot(database) == before


def test_a_changed_record_updates_its_row(database: Database) -> None:
    paper = changed(record("beta-test"), title="Renamed", authors=("Someone Else",), arxiv="2501.99999")
    load_records(database, [paper])
    with database.session() as session:
        row = find(session, "beta-test")
        assert row is not None
        assert (row.title, row.authors, row.arxiv) == ("Renamed", ["Someone Else"], "2501.99999")
        assert session.query(Paper).count() == len(records())


def test_a_record_takes_over_every_imported_row_of_its_paper(package: object, tmp_path: object) -> None:
    database = Database(f"sqlite:///{tmp_path}/joined.db")
    paper = record("alpha-method")
    elsewhere = datetime.date(2025, 1, 1)
    with database.session() as session:
        by_title = Paper(title="alpha", title_key=title_key(paper.title), abstract="An abstract.")
        by_title.listings = [Listing(day=elsewhere, position=3), Listing(day=DAY, position=7)]
        by_arxiv = Paper(title="other title", title_key="othertitle", arxiv=paper.arxiv)
        by_arxiv.listings = [Listing(day=DAY, position=5)]
        session.add_all([by_title, by_arxiv])
    for _ in range(2):
        load_records(database, [paper])
        with database.session() as session:
            [row] = session.scalars(select(Paper)).all()
            assert (row.slug, row.arxiv, row.title) == ("alpha-method", paper.arxiv, paper.title)
            assert row.abstract == "An abstract."
            assert sorted((listing.day, listing.position) for listing in row.listings) == [(elsewhere, 3), (DAY, 5)]
    database.close()


@pytest.fixture
def empty(package: object, new_url: Callable[..., str], migrated_url: str) -> Iterator[Database]:
    """A database of the test's own, without papers."""
    database = Database(new_url(migrated_url))
    yield database
    database.close()


def test_what_readers_did_with_any_row_of_a_paper_stays(empty: Database) -> None:
    """The row that goes takes no vote, no comment, no claim and no note of what was mailed with it."""
    paper = record("alpha-method")
    noon = datetime.datetime(2025, 8, 19, 12, tzinfo=datetime.UTC)
    with empty.session() as session:
        by_title = Paper(title=paper.title, title_key=title_key(paper.title), listings=[Listing(day=DAY)])
        by_arxiv = Paper(title="other title", title_key="othertitle", arxiv=paper.arxiv)
        both, one = (Account(email=f"{name}@example.org", handle=name, name=name) for name in ("both", "one"))
        mailed, again = (Subscription(email=f"{name}@example.org", frequency="daily") for name in ("both", "one"))
        session.add_all([by_title, by_arxiv, both, one, mailed, again])
        session.flush()
        for row, account in ((by_title, both), (by_arxiv, both), (by_title, one)):
            session.add(Vote(account_id=account.id, paper_id=row.id, voted_at=noon))
            session.add(Authorship(account_id=account.id, paper_id=row.id, author=paper.authors[0], confirmed_at=noon))
        session.add(Comment(account_id=one.id, paper_id=by_title.id, body="Hello.", created_at=noon))
        session.add(Delivery(subscription_id=mailed.id, paper_id=by_title.id, message_id="<1@x>", sent_at=noon))
        session.add(Delivery(subscription_id=mailed.id, paper_id=by_arxiv.id, message_id="<2@x>", sent_at=noon))
        session.add(Delivery(subscription_id=again.id, paper_id=by_title.id, message_id="<3@x>", sent_at=noon))
    load_records(empty, [paper])
    with empty.session() as session:
        [row] = session.scalars(select(Paper)).all()
        assert {vote.account.handle for vote in _all(session, Authorship)} == {"both", "one"}
        assert {(vote.account_id, vote.paper_id) for vote in _all(session, Vote)} == {(1, row.id), (2, row.id)}
        assert [comment.paper_id for comment in _all(session, Comment)] == [row.id]
        assert [delivery.subscription_id for delivery in _all(session, Delivery)] == [1, 2]
        assert (row.n_votes, row.n_comments) == (2, 1)
        assert row.hotness == pytest.approx(
            trending.hotness([(2.0, noon + datetime.timedelta(days=1)), (1.0, noon), (1.0, noon), (0.5, noon)])
        )


def _all(session: Session, table: type[Any]) -> list[Any]:
    return list(session.scalars(select(table).order_by(*table.__mapper__.primary_key)))


def test_a_record_that_lists_an_older_paper_anew_makes_it_as_hot_as_that_day(empty: Database) -> None:
    paper = record("alpha-method")
    written = datetime.date(2023, 10, 4)
    with empty.session() as session:
        old = Paper(title="x", title_key="x", arxiv=paper.arxiv, hotness=trending.listed_hotness(written))
        old.listings = [Listing(day=written)]
        session.add(old)
    load_records(empty, [paper])
    with empty.session() as session:
        assert session.scalars(select(Paper.hotness)).one() == trending.listed_hotness(DAY)


def test_days_know_their_neighbours(database: Database) -> None:
    paper = record("beta-test")
    for date in ("2025-08-01", "2025-08-18", "2025-08-29", "2025-09-30"):
        load_records(database, [changed(paper, day=datetime.date.fromisoformat(date))])
    with database.session() as session:
        before, after = lists.neighbours(session, Period.holding("day", DAY))
        assert before is not None
        assert after is not None
        assert (before.first, after.first) == (datetime.date(2025, 8, 18), datetime.date(2025, 8, 29))
        assert lists.of_period(session, Period.holding("day", datetime.date(2025, 8, 2)), "listed").papers == ()


def test_papers_are_found_by_every_name_they_have(database: Database) -> None:
    with database.session() as session:
        session.add(Paper(title="Imported", title_key="imported"))
        session.flush()
        imported = session.scalars(select(Paper).where(Paper.title == "Imported")).one()
        assert address(imported) == f"/papers/{imported.id}"
        assert find(session, str(imported.id)) is imported
        assert find(session, "2501.00002") is find(session, "beta-test")
        for name in ("", "0", "-1", "99999999999999999999", "no-such-paper", "1.0", "2501.00002v", "2501.00009v1"):
            assert find(session, name) is None


def test_of_an_arxiv_id_any_version_and_spelling_will_do(database: Database) -> None:
    with database.session() as session:
        old = Paper(title="Of old", title_key="ofold", arxiv="math/0309136")
        session.add(old)
        session.flush()
        for name in ("2501.00002v1", "2501.00002v12", "arXiv:2501.00002", "arxiv:2501.00002v3"):
            assert find(session, name) is find(session, "beta-test")
        for name in ("math/0309136v2", "math.GT/0309136", "MATH/0309136", "arXiv:math.GT/0309136v1"):
            assert find(session, name) is old
