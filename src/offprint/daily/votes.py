"""Votes: one for each paper and reader, counted where they change."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from offprint.daily import trending
from offprint.store import Account, Paper, Vote
from offprint.store.inserts import insert
from offprint.store.models import now as present


def vote(session: Session, account: Account, paper: Paper, up: bool) -> Paper:
    """Set whether a reader votes for a paper, and return the paper with its votes counted. Twice changes nothing."""
    if up:
        statement = insert(session, Vote).values(account_id=account.id, paper_id=paper.id, voted_at=present())
        session.execute(statement.on_conflict_do_nothing())
    else:
        session.execute(delete(Vote).where(Vote.account_id == account.id, Vote.paper_id == paper.id))
    return recount(session, paper.id)


def voted(session: Session, account: Account | None, papers: Iterable[Paper]) -> set[int]:
    """Return the numbers of those papers that a reader has voted for."""
    if account is None:
        return set()
    ids = [paper.id for paper in papers]
    return set(session.scalars(select(Vote.paper_id).where(Vote.account_id == account.id, Vote.paper_id.in_(ids))))


def recount(session: Session, paper_id: int) -> Paper:
    """Count a paper's votes and comments after one has changed, one transaction after the other.

    The row is locked and read anew: counted from what two transactions see side by side, one change would be lost. The
    lock is one that new votes and comments (whose foreign keys lock the row too) do not have to wait for.
    """
    session.flush()
    paper = session.get_one(Paper, paper_id, with_for_update={"key_share": True}, populate_existing=True)
    trending.refresh(session, paper)
    return paper
