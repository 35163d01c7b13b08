"""What an operator does from the command line: moderators, comments, bans, and how much there is of everything."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from offprint.daily import comments
from offprint.daily.accounts import end_sessions
from offprint.store import (
    Account,
    Authorship,
    Base,
    Comment,
    Delivery,
    Job,
    Listing,
    Outcome,
    Paper,
    Subscription,
    Vote,
)


class UnknownError(ValueError):
    """There is no such account or comment."""


def account(session: Session, who: str) -> Account:
    """Return an account by its mail address or its handle.

    Raises
    ------
    UnknownError
        If there is none.
    """
    named = who.strip().lower()
    found = session.scalar(select(Account).where(or_(Account.email == named, Account.handle == named.lstrip("@"))))
    if found is None:
        raise UnknownError(f"nobody has signed in as {who!r} yet")
    return found


def set_moderator(session: Session, who: str, moderator: bool) -> str:
    """Let an account moderate, or no longer, and say so."""
    found = account(session, who)
    found.moderator = moderator
    return f"{found.handle} is {'a moderator' if moderator else 'no moderator'} now"


def set_banned(session: Session, who: str, banned: bool, *, hide_comments: bool = False) -> str:
    """Keep an account from taking part, or let it again, and say so. Whoever is banned is signed out everywhere."""
    found = account(session, who)
    found.banned = banned
    if banned:
        end_sessions(session, found)
    if hide_comments:
        comments.hide_all(session, found)
    return f"{found.handle} {'may read, but no longer take part' if banned else 'may take part again'}"


def set_hidden(session: Session, number: int, hidden: bool) -> str:
    """Hide a comment from all but moderators and its author, or show it again, and say so.

    Raises
    ------
    UnknownError
        If there is no comment with this number.
    """
    found = session.get(Comment, number)
    if found is None:
        raise UnknownError(f"there is no comment {number}")
    comments.hide(session, found, hidden)
    return f"comment {number} by {found.account.handle} is {'hidden' if hidden else 'shown'} now"


def stats(session: Session) -> dict[str, int]:
    """Return how much there is of everything, by what it is called."""

    def count(table: type[Base], *conditions: ColumnElement[bool]) -> int:
        return session.scalar(select(func.count()).select_from(table).where(*conditions)) or 0

    return {
        "papers": count(Paper),
        "papers with claims": count(Paper, Paper.n_claims > 0),
        "days": session.scalar(select(func.count(Listing.day.distinct()))) or 0,
        "accounts": count(Account),
        "moderators": count(Account, Account.moderator.is_(True)),
        "banned accounts": count(Account, Account.banned.is_(True)),
        "votes": count(Vote),
        "comments": count(Comment),
        "hidden comments": count(Comment, Comment.hidden_at.is_not(None)),
        "authors to confirm": count(Authorship, Authorship.confirmed_at.is_(None)),
        "subscriptions": count(Subscription, Subscription.confirmed_at.is_not(None)),
        "papers mailed": count(Delivery, Delivery.sent_at.is_not(None)),
        "outcomes measured": count(Outcome),
        "runs asked for": count(Job),
        "runs waiting": count(Job, Job.status == "queued"),
    }
