"""Comments on papers: written, edited and deleted by their authors, hidden by moderators."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from markupsafe import Markup
from sqlalchemy import ColumnElement, false, func, or_, select, true, update
from sqlalchemy.orm import Session, joinedload

from offprint.daily import inputs, markdown
from offprint.daily.votes import recount
from offprint.store import Account, Comment, Paper
from offprint.store.models import now as present

AT_ONCE = 20
MOST_HTML = 40_000
"""Of the comments shown at once, in bytes, so that the page stays small."""

SAME = datetime.timedelta(minutes=10)
"""A reader's same words within this time are one comment, sent twice."""


@dataclass(frozen=True)
class Shown:
    """A comment as one reader sees it."""

    id: int
    name: str
    handle: str
    author: str | None
    """Which of the paper's authors wrote it, where a moderator has confirmed that."""
    body: Markup
    created_at: datetime.datetime
    edited: bool
    hidden: bool
    own: bool
    can_hide: bool


@dataclass(frozen=True)
class Part:
    """Some of a paper's comments, oldest first."""

    comments: tuple[Shown, ...]
    after: int | None
    """The comment after which the next part begins; ``None`` when this is the last."""


def add(session: Session, account: Account, paper: Paper, text: str) -> Comment:
    """Add a comment to a paper.

    Raises
    ------
    ValueError
        If it is empty or too long.
    """
    body, moment = inputs.comment_body(text), present()
    mine = Comment.account_id == account.id, Comment.paper_id == paper.id, Comment.created_at > moment - SAME
    last = session.scalar(select(Comment).where(*mine).order_by(Comment.id.desc()).limit(1))
    if last is not None and last.body == body:
        return last
    comment = Comment(paper_id=paper.id, account_id=account.id, body=body, created_at=moment)
    session.add(comment)
    recount(session, paper.id)
    return comment


def edit(session: Session, comment: Comment, text: str) -> None:
    """Replace a comment's text.

    Raises
    ------
    ValueError
        If it is empty or too long.
    """
    body = inputs.comment_body(text)
    if body != comment.body:
        comment.body, comment.edited_at = body, present()


def remove(session: Session, comment: Comment) -> None:
    """Delete a comment."""
    session.delete(comment)
    recount(session, comment.paper_id)


def hide(session: Session, comment: Comment, hidden: bool) -> None:
    """Set whether a comment is hidden from all but moderators and its author."""
    if hidden != (comment.hidden_at is not None):
        comment.hidden_at = present() if hidden else None
        recount(session, comment.paper_id)


def hide_all(session: Session, account: Account) -> None:
    """Hide all comments of an account."""
    shown = Comment.account_id == account.id, Comment.hidden_at.is_(None)
    papers = sorted(set(session.scalars(select(Comment.paper_id).where(*shown))))
    session.execute(update(Comment).where(*shown).values(hidden_at=present()))
    for paper_id in papers:
        recount(session, paper_id)


def part(session: Session, paper: Paper, reader: Account | None, authors: dict[int, str], after: int = 0) -> Part:
    """Return a paper's comments as a reader sees them, as many as fit on a page.

    Parameters
    ----------
    session : Session
    paper : Paper
    reader : Account or None
    authors : dict
        The confirmed authors of the paper, by account.
    after : int
        The comment after which to begin.
    """
    wanted = select(Comment).where(Comment.paper_id == paper.id, Comment.id > after, _seen_by(reader))
    rows = session.scalars(wanted.options(joinedload(Comment.account)).order_by(Comment.id).limit(AT_ONCE + 1)).all()
    found: list[Shown] = []
    size = 0
    for row in rows[:AT_ONCE]:
        item = shown(row, reader, authors)
        size += len(item.body.encode())
        if found and size > MOST_HTML:
            break
        found.append(item)
    return Part(tuple(found), found[-1].id if len(found) < len(rows) else None)


def shown(comment: Comment, reader: Account | None, authors: dict[int, str]) -> Shown:
    """Return a comment as a reader sees it."""
    return Shown(
        id=comment.id,
        name=comment.account.name,
        handle=comment.account.handle,
        author=authors.get(comment.account_id),
        body=markdown.rendered(comment.body),
        created_at=comment.created_at,
        edited=comment.edited_at is not None,
        hidden=comment.hidden_at is not None,
        own=reader is not None and reader.id == comment.account_id and not reader.banned,
        can_hide=reader is not None and reader.moderator and not reader.banned,
    )


def place(session: Session, comment: Comment) -> int:
    """Return the comment after which the part that begins with this one begins; 0 when it is among the first."""
    before = Comment.paper_id == comment.paper_id, Comment.id < comment.id
    if (session.scalar(select(func.count()).select_from(Comment).where(*before)) or 0) < AT_ONCE // 2:
        return 0
    return comment.id - 1


def _seen_by(reader: Account | None) -> ColumnElement[bool]:
    if reader is not None and reader.moderator and not reader.banned:
        return true()
    own = false() if reader is None else Comment.account_id == reader.id
    return or_(Comment.hidden_at.is_(None), own)
