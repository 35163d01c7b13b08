"""Which papers a list holds: those of a day, a week or a month, by whom, in which order, and page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session, aliased

from offprint.daily.periods import Period
from offprint.store import Listing, Paper
from offprint.store.inserts import any_of

Order = Literal["publishedAt", "trending"]
Listed = list[tuple[Paper, Listing]]


@dataclass(frozen=True)
class Asked:
    """What a list is asked to hold: papers listed in all of the periods given, and by the submitter if one is given."""

    periods: tuple[Period, ...] = ()
    submitter: str | None = None

    def conditions(self, listing: type[Listing]) -> list[ColumnElement[bool]]:
        """Return what a listing must satisfy."""
        found: list[ColumnElement[bool]] = [listing.day.between(period.first, period.last) for period in self.periods]
        if self.submitter is not None:
            found.append(listing.submitter == self.submitter)
        return found


def page_of(session: Session, asked: Asked, order: Order, p: int, limit: int) -> tuple[Listed, bool]:
    """Return one page of a list, and whether there is another after it. Each paper is listed once, at its newest.

    Parameters
    ----------
    session : Session
    asked : Asked
        Which papers.
    order : str
        ``publishedAt``: the newest day first, and within a day in the order of its page. ``trending``: by hotness.
    p : int
        Which page, from 0.
    limit : int
        How many papers a page has.
    """
    find = _hottest if order == "trending" else _newest
    found = find(session, asked, p * limit, limit + 1)
    return found[:limit], len(found) > limit


def newest_listings(session: Session, papers: Sequence[Paper], asked: Asked | None = None) -> dict[int, Listing]:
    """Return the newest listing of each of some papers, by the paper's number."""
    mine = select(Listing).where(any_of(session, Listing.paper_id, "ids"), *(asked or Asked()).conditions(Listing))
    found = session.scalars(mine.order_by(Listing.day), {"ids": [paper.id for paper in papers]})
    return {listing.paper_id: listing for listing in found}


def _newest(session: Session, asked: Asked, offset: int, count: int) -> Listed:
    later = aliased(Listing)
    again = select(later.id).where(later.paper_id == Listing.paper_id, later.day > Listing.day)
    listings = session.scalars(
        select(Listing)
        .where(*asked.conditions(Listing), ~exists(again.where(*asked.conditions(later))))
        .order_by(Listing.day.desc(), Listing.position, Listing.id)
        .offset(offset)
        .limit(count)
    ).all()
    papers = _papers(session, [listing.paper_id for listing in listings])
    return [(papers[listing.paper_id], listing) for listing in listings if listing.paper_id in papers]


def _hottest(session: Session, asked: Asked, offset: int, count: int) -> Listed:
    conditions = asked.conditions(Listing)
    # Few papers are found from their listings; all of them are walked in the order of the index.
    among = (
        Paper.id.in_(select(Listing.paper_id).where(*conditions))
        if conditions
        else exists(select(Listing.id).where(Listing.paper_id == Paper.id))
    )
    hottest = select(Paper.id).where(among).order_by(Paper.hotness.desc(), Paper.id.desc()).offset(offset).limit(count)
    found = session.scalars(hottest).all()
    papers = _papers(session, found)
    listings = newest_listings(session, list(papers.values()), asked)
    return [(papers[number], listings[number]) for number in found if number in papers and number in listings]


def _papers(session: Session, numbers: Sequence[int]) -> dict[int, Paper]:
    """Return papers by number, without those that have gone meanwhile; read once it is known which a page shows."""
    found = session.scalars(select(Paper).where(any_of(session, Paper.id, "ids")), {"ids": [*numbers]})
    return {paper.id: paper for paper in found}
