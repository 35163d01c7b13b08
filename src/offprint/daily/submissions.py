"""Papers that readers submit by arXiv id: fetched, stored and listed on the day."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from offprint.daily.importing.entries import Entry
from offprint.daily.importing.writer import Writer
from offprint.store import Account, Database, Listing, Paper
from offprint.store.models import now as present

Fetch = Callable[[Sequence[str]], list[Entry]]


class UnknownPaperError(Exception):
    """ArXiv has no such paper, or none that could be listed."""


def listed(database: Database, arxiv: str) -> Paper | None:
    """Return the paper with an arXiv id that some day lists already."""
    known = select(Paper).where(Paper.arxiv == arxiv, select(Listing.id).where(Listing.paper_id == Paper.id).exists())
    with database.session() as session:
        return session.scalar(known)


def submit(
    database: Database, account: Account, arxiv: str, fetch: Fetch, *, now: datetime.datetime | None = None
) -> Paper:
    """List a paper on the present day (UTC), with the account's handle, and return it.

    Parameters
    ----------
    database : Database
    account : Account
    arxiv : str
        The id without a version.
    fetch : callable
        Returns what arXiv says of papers, by their ids.
    now : datetime, optional
        The present moment when left out.

    Raises
    ------
    UnknownPaperError
        If arXiv does not have it.
    SourceError
        If arXiv does not answer.
    """
    found = [entry for entry in fetch([arxiv]) if entry.arxiv == arxiv]
    if not found:
        raise UnknownPaperError(arxiv)
    now = now or present()
    entry = found[0]._replace(day=now.date(), submitter=account.handle, submitted_at=now)
    try:
        with database.session() as session:
            stored = Writer(authority=True, every_day=False).store(session, [entry])
            own = Listing.paper_id.in_(stored.papers), Listing.submitter == account.handle, Listing.submitted_at == now
            session.execute(update(Listing).where(*own).values(account_id=account.id))
    except IntegrityError:  # another reader submitted it in the same moment
        if (paper := listed(database, arxiv)) is None:
            raise
        return paper
    with database.session() as session:
        return session.scalars(select(Paper).where(Paper.arxiv == arxiv)).one()
