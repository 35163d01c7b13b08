"""What an operator does from the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from offprint.cli import app
from offprint.daily import admin
from offprint.store import Account, Comment, Database, Paper, WebSession
from offprint.store.models import now


@pytest.fixture
def ada(database: Database) -> Account:
    with database.session() as session:
        paper = session.scalars(select(Paper).where(Paper.slug == "alpha-method")).one()
        account = Account(email="ada@example.org", handle="ada", name="Ada")
        session.add(account)
        session.flush()
        session.add_all(Comment(paper_id=paper.id, account_id=account.id, body=f"No. {number}") for number in (1, 2))
        session.add(WebSession(token_hash="x", account_id=account.id, expires_at=now()))
        paper.n_comments = 2
    return account


@pytest.fixture
def offprint(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run commands on the test's database."""
    monkeypatch.setenv("OFFPRINT_DATABASE_URL", database.url.render_as_string(hide_password=False))
    return lambda *words: CliRunner().invoke(app, ["admin", *words])


def found(database: Database) -> Account:
    with database.session() as session:
        return session.scalars(select(Account)).one()


@pytest.mark.parametrize("who", ["ada@example.org", " ADA@Example.org", "ada", "@ada"])
def test_a_moderator_is_made_and_unmade(
    who: str, ada: Account, database: Database, offprint: Callable[..., Result]
) -> None:
    assert offprint("make-moderator", who).output == "ada is a moderator now\n"
    assert found(database).moderator
    assert offprint("make-moderator", who, "--undo").output == "ada is no moderator now\n"
    assert not found(database).moderator


def test_whoever_is_banned_is_signed_out_and_can_come_back(
    ada: Account, database: Database, offprint: Callable[..., Result]
) -> None:
    assert offprint("ban", "ada").output == "ada may read, but no longer take part\n"
    with database.session() as session:
        assert session.query(WebSession).count() == 0
        assert session.query(Comment).filter(Comment.hidden_at.is_not(None)).count() == 0
    assert found(database).banned
    assert offprint("unban", "ada").exit_code == 0
    assert not found(database).banned


def test_a_ban_can_hide_what_was_written(ada: Account, database: Database, offprint: Callable[..., Result]) -> None:
    offprint("ban", "ada", "--hide-comments")
    with database.session() as session:
        assert session.query(Comment).filter(Comment.hidden_at.is_(None)).count() == 0
        assert session.scalars(select(Paper.n_comments).where(Paper.slug == "alpha-method")).one() == 0


def test_a_comment_is_hidden_and_shown(ada: Account, database: Database, offprint: Callable[..., Result]) -> None:
    with database.session() as session:
        first = session.scalars(select(Comment.id).order_by(Comment.id)).first()
    assert offprint("hide", str(first)).output == f"comment {first} by ada is hidden now\n"
    with database.session() as session:
        shown = session.scalars(select(Comment).where(Comment.hidden_at.is_(None))).all()
        assert [comment.body for comment in shown] == ["No. 2"]
        assert session.scalars(select(Paper.n_comments).where(Paper.slug == "alpha-method")).one() == 1
    offprint("hide", str(first), "--undo")
    with database.session() as session:
        assert session.scalars(select(Paper.n_comments).where(Paper.slug == "alpha-method")).one() == 2


@pytest.mark.parametrize("words", [("ban", "nobody@example.org"), ("make-moderator", "'; --"), ("hide", "99")])
def test_who_or_what_is_unknown_is_one_line(
    words: tuple[str, ...], database: Database, offprint: Callable[..., Result]
) -> None:
    outcome = offprint(*words)
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("offprint: ")
    assert len(outcome.stderr.splitlines()) == 1


def test_stats_count(ada: Account, database: Database, offprint: Callable[..., Result]) -> None:
    with database.session() as session:
        counted = admin.stats(session)
    assert counted["papers"] == 4
    assert (counted["days"], counted["accounts"], counted["comments"], counted["moderators"]) == (1, 1, 2, 0)
    assert "         4 papers\n" in offprint("stats").output
