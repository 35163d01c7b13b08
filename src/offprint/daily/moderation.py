"""What moderators do: hide comments, confirm authors, and ban accounts."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from offprint.daily import comments
from offprint.store import Account, Comment

NEWEST = 30


def newest_comments(session: Session) -> list[Comment]:
    """Return the newest comments of all papers, with their papers and authors."""
    wanted = select(Comment).options(joinedload(Comment.account), joinedload(Comment.paper))
    return list(session.scalars(wanted.order_by(Comment.id.desc()).limit(NEWEST)))


def banned(session: Session) -> list[Account]:
    """Return the accounts that are banned, by handle."""
    return list(session.scalars(select(Account).where(Account.banned).order_by(func.lower(Account.handle))))


def ban(session: Session, handle: str, *, hide_comments: bool = False) -> Account:
    """Ban an account from taking part. It can still sign in, read, and take its data along.

    Parameters
    ----------
    session : Session
    handle : str
    hide_comments : bool
        Whether all its comments are hidden too.

    Raises
    ------
    ValueError
        If there is no such account, or it is a moderator's.
    """
    account = _account(session, handle)
    if account.moderator:
        raise ValueError("Moderators cannot be banned; an operator can take the role away first.")
    account.banned = True
    if hide_comments:
        comments.hide_all(session, account)
    return account


def unban(session: Session, handle: str) -> Account:
    """Let an account take part again; comments that were hidden stay hidden.

    Raises
    ------
    ValueError
        If there is no such account.
    """
    account = _account(session, handle)
    account.banned = False
    return account


def _account(session: Session, handle: str) -> Account:
    account = session.scalar(select(Account).where(Account.handle == handle.strip().lower().removeprefix("@")))
    if account is None:
        raise ValueError("There is no account with this handle.")
    return account
