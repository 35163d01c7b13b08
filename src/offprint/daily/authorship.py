"""Authors of papers among the readers: they claim to be one, and a moderator confirms it."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from offprint.store import Account, Authorship, Paper
from offprint.store.inserts import insert
from offprint.store.models import now as present


def claim(session: Session, account: Account, paper: Paper, author: str) -> None:
    """Note that a reader says to be one of a paper's authors. Another name replaces one not yet confirmed.

    Raises
    ------
    ValueError
        If the paper has no such author, or another reader is confirmed to be it.
    """
    if author not in paper.authors:
        raise ValueError("Choose one of the paper's authors.")
    others = Authorship.author == author, Authorship.confirmed_at.is_not(None), Authorship.account_id != account.id
    if session.scalar(select(Authorship.account_id).where(Authorship.paper_id == paper.id, *others)) is not None:
        raise ValueError("Another reader is confirmed to be this author.")
    claimed = {"account_id": account.id, "paper_id": paper.id, "author": author, "claimed_at": present()}
    statement = insert(session, Authorship).values(claimed)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Authorship.account_id, Authorship.paper_id],
            set_={"author": statement.excluded.author, "claimed_at": statement.excluded.claimed_at},
            where=Authorship.confirmed_at.is_(None),
        )
    )


def withdraw(session: Session, account_id: int, paper_id: int) -> None:
    """Remove a claim, confirmed or not: by the reader who made it, or by a moderator."""
    session.execute(delete(Authorship).where(Authorship.account_id == account_id, Authorship.paper_id == paper_id))


def confirm(session: Session, account_id: int, paper_id: int) -> None:
    """Confirm a claim.

    Raises
    ------
    ValueError
        If there is none any more, the paper no longer has this author, or another reader is confirmed to be it.
    """
    paper = session.get(Paper, paper_id, with_for_update={"key_share": True}, populate_existing=True)
    claimed = session.get(Authorship, (account_id, paper_id))
    if claimed is None or paper is None or claimed.author not in paper.authors:
        raise ValueError("This claim is no longer there.")
    if any(known.author == claimed.author and known.account_id != account_id for known in confirmed(session, paper)):
        raise ValueError("Another reader is confirmed to be this author.")
    claimed.confirmed_at = claimed.confirmed_at or present()


def confirmed(session: Session, paper: Paper) -> list[Authorship]:
    """Return the confirmed authors of a paper among the readers."""
    wanted = Authorship.paper_id == paper.id, Authorship.confirmed_at.is_not(None)
    return list(session.scalars(select(Authorship).where(*wanted)))


def pending(session: Session, most: int = 50) -> list[Authorship]:
    """Return the claims that wait for a moderator, oldest first."""
    waiting = select(Authorship).where(Authorship.confirmed_at.is_(None)).order_by(Authorship.claimed_at)
    return list(session.scalars(waiting.limit(most)))
