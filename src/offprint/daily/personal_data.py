"""A reader's own data: all of it in one document, and its removal."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from offprint.daily.library import address
from offprint.daily.votes import recount
from offprint.store import (
    Account,
    Authorship,
    Base,
    Comment,
    Delivery,
    Listing,
    Paper,
    SignInLink,
    Subscription,
    Vote,
    WebSession,
)

SECRET = frozenset({"token_hash", "id", "account_id", "paper_id", "subscription_id"})
"""Columns that say nothing about the reader: what a token is checked against, and numbers of rows."""


def export(session: Session, account: Account) -> dict[str, Any]:
    """Return all that is kept of a reader, ready for JSON."""
    own = session.get_one(Account, account.id)
    subscriptions = session.scalars(select(Subscription).where(Subscription.email == own.email)).all()
    return {
        "account": _row(own),
        "sessions": _rows(session, select(WebSession).where(WebSession.account_id == own.id)),
        "sign_in_links": _rows(session, select(SignInLink).where(SignInLink.email == own.email)),
        "votes": _about(session, Vote, own),
        "comments": _about(session, Comment, own),
        "authorships": _about(session, Authorship, own),
        "submissions": [
            {"paper": _paper(listing.paper), **_row(listing)}
            for listing in session.scalars(select(Listing).where(Listing.account_id == own.id))
        ],
        "subscriptions": [
            _row(subscription) | {"deliveries": _deliveries(session, subscription)} for subscription in subscriptions
        ],
    }


def delete_account(session: Session, account: Account) -> None:
    """Remove a reader and all that is kept of them; papers they submitted stay, without their name."""
    own = session.get_one(Account, account.id)
    touched = set(session.scalars(select(Vote.paper_id).where(Vote.account_id == own.id)))
    touched |= set(session.scalars(select(Comment.paper_id).where(Comment.account_id == own.id)))
    for table in (Vote, Comment, Authorship, WebSession):
        session.execute(delete(table).where(table.account_id == own.id))
    for mailed in (SignInLink, Subscription):
        session.execute(delete(mailed).where(mailed.email == own.email))
    session.execute(update(Listing).where(Listing.account_id == own.id).values(submitter=None))
    session.delete(own)
    session.flush()
    for paper_id in sorted(touched):
        recount(session, paper_id)


def _about(
    session: Session, table: type[Vote] | type[Comment] | type[Authorship], own: Account
) -> list[dict[str, Any]]:
    """Return what a reader did with papers, each with its paper."""
    rows = session.execute(
        select(table, Paper).join(Paper, Paper.id == table.paper_id).where(table.account_id == own.id)
    )
    return [{"paper": _paper(paper), **_row(row)} for row, paper in rows]


def _deliveries(session: Session, subscription: Subscription) -> list[dict[str, Any]]:
    mine = Delivery.subscription_id == subscription.id
    rows = session.execute(select(Delivery, Paper).join(Paper, Paper.id == Delivery.paper_id).where(mine))
    return [{"paper": _paper(paper), **_row(row)} for row, paper in rows]


def _paper(paper: Paper) -> dict[str, str]:
    return {"address": address(paper), "title": paper.title}


def _rows(session: Session, wanted: Any) -> list[dict[str, Any]]:
    return [_row(row) for row in session.scalars(wanted)]


def _row(row: Base) -> dict[str, Any]:
    """Return a row's columns by their names."""
    columns = [column.key for column in row.__mapper__.column_attrs if column.key not in SECRET]
    return {name: _plain(getattr(row, name)) for name in columns}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.date) else value
