"""Lists of papers: of a day, a week or a month, of a topic, of what is trending; each cut into pages."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, Literal

from sqlalchemy import ColumnElement, Date, Integer, Select, bindparam, exists, func, select
from sqlalchemy.orm import Session, load_only

from offprint.daily.periods import Kind, Period
from offprint.papers import records
from offprint.store import Listing, Paper
from offprint.store.inserts import any_of

Order = Literal["listed", "trending", "votes"]

PAGE = 60
"""Papers on one page: with long titles and everybody's forms it stays under 100 kB."""

LAST_PAGE = 100_000
HOTTEST_FIRST = (Paper.hotness.desc(), Paper.id.desc())
ORDERS = {"trending": HOTTEST_FIRST, "votes": (Paper.n_votes.desc(), *HOTTEST_FIRST)}
SHOWN = (Paper.slug, Paper.arxiv, Paper.title, Paper.authors, Paper.family, Paper.n_votes, Paper.n_comments)
"""What cards show; lists load nothing else."""

FIRST, LAST = bindparam("first", type_=Date), bindparam("last", type_=Date)
NEAREST = (
    select(func.max(Listing.day)).where(Listing.day < FIRST).scalar_subquery(),
    select(func.min(Listing.day)).where(Listing.day > LAST).scalar_subquery(),
)
"""The nearest days that list papers, before and after a period."""

_KEPT: dict[tuple[str, bool], Select[Any]] = {}
"""The queries of :func:`about`, by the kind of database and by whether they are of one day."""


@dataclass(frozen=True)
class About:
    """What a period holds in all: papers, and the claims of those that are on record."""

    papers: int
    claims: int
    measured: int
    reproduced: int
    before: Period | None
    after: Period | None
    """The nearest periods of the same kind that list papers."""


@dataclass(frozen=True)
class Sheet:
    """One page of a list: its papers, under the day that lists them where the list goes by days."""

    groups: tuple[tuple[datetime.date | None, tuple[Paper, ...]], ...]
    number: int
    more: bool
    """Whether another page follows."""

    @property
    def papers(self) -> tuple[Paper, ...]:
        """All papers on it."""
        return tuple(paper for _, papers in self.groups for paper in papers)


def of_period(session: Session, period: Period, order: Order, number: int = 1, *, texts: bool = False) -> Sheet:
    """Return a page of what is listed in a period.

    Parameters
    ----------
    session : Session
    period : Period
    order : {"listed", "trending", "votes"}
        As listed means day by day, the newest first, in the order of the day's page. In the other orders each paper
        stands once, however many days of the period list it.
    number : int
        Which page, from 1.
    texts : bool
        Whether to load all of the papers, not only what cards show.
    """
    if order == "listed":
        return _listed(session, period, number, texts)
    return _sheet(session, period_ids(period, order), number, texts)


def trending(session: Session, number: int = 1, *, texts: bool = False) -> Sheet:
    """Return a page of all papers, the hottest first; the index on hotness gives them in this order."""
    return _sheet(session, trending_ids(), number, texts)


def topic(session: Session, family: str, number: int = 1, *, texts: bool = False) -> Sheet:
    """Return a page of the papers of a family, the hottest first."""
    return _sheet(session, topic_ids(family), number, texts)


def newest(session: Session, number: int = 1, *, texts: bool = False) -> Sheet:
    """Return a page of all listings, the newest day first."""
    everything = Period("year", datetime.date.min, datetime.date.max)
    return _listed(session, everything, number, texts)


def trending_ids() -> Select[int]:
    """Return the query for all papers, the hottest first."""
    return select(Paper.id).order_by(*HOTTEST_FIRST)


def topic_ids(family: str) -> Select[int]:
    """Return the query for the papers of a family, the hottest first."""
    return trending_ids().where(Paper.family == family)


def about(session: Session, period: Period) -> About:
    """Return what a period holds, by one query."""
    known = {"first": period.first, "last": period.last, "slugs": list(records())}
    found = session.execute(_about(session, period.kind == "day"), known).one()
    return About(*found[:4], *(_holding(period.kind, day) for day in found[4:]))


def days(session: Session, period: Period) -> dict[datetime.date, int]:
    """Return the days of a period that list papers, with how many."""
    counted = select(Listing.day, func.count()).where(_within(period)).group_by(Listing.day).order_by(Listing.day)
    return {row[0]: row[1] for row in session.execute(counted)}


def neighbours(session: Session, period: Period) -> tuple[Period | None, Period | None]:
    """Return the nearest periods of the same kind that list papers, before and after this one."""
    before, after = session.execute(select(*NEAREST), {"first": period.first, "last": period.last}).one()
    return _holding(period.kind, before), _holding(period.kind, after)


def families(session: Session) -> list[str]:
    """Return the families that have papers."""
    return [family for family in session.scalars(select(Paper.family).distinct().order_by(Paper.family)) if family]


def _about(session: Session, one_day: bool) -> Select[Any]:
    """Return the query of :func:`about`. Putting it together takes longer than the database needs for its answer."""
    dialect = session.get_bind().dialect.name
    if (dialect, one_day) not in _KEPT:
        _KEPT[dialect, one_day] = _counting(one_day, any_of(session, Paper.slug, "slugs"))
    return _KEPT[dialect, one_day]


def _counting(one_day: bool, on_record: ColumnElement[bool]) -> Select[Any]:
    within = Listing.day == FIRST if one_day else Listing.day.between(FIRST, LAST)
    numbers = Listing.paper_id if one_day else Listing.paper_id.distinct()
    measured = Paper.n_reproduced + Paper.n_weaker + Paper.n_not_reproduced
    sums = (func.coalesce(func.sum(column), 0) for column in (Paper.n_claims, measured, Paper.n_reproduced))
    listed = exists().where(Listing.paper_id == Paper.id, within)
    claims = select(*sums).where(on_record, listed).subquery()
    return select(select(func.count(numbers)).where(within).scalar_subquery(), *claims.columns, *NEAREST)


@cache
def _places(one_day: bool) -> Select[datetime.date, int]:
    """Return the query for a page of what is listed, put together once."""
    within = Listing.day == FIRST if one_day else Listing.day.between(FIRST, LAST)
    newest_first = Listing.day.desc(), Listing.position, Listing.id
    page = select(Listing.day, Listing.paper_id).where(within).order_by(*newest_first)
    return page.limit(PAGE + 1).offset(bindparam("skipped", type_=Integer))


def _within(period: Period) -> Any:
    if period.first == period.last:
        return Listing.day == period.first
    return Listing.day.between(period.first, period.last)


def _holding(kind: Kind, day: datetime.date | None) -> Period | None:
    return None if day is None else Period.holding(kind, day)


def period_ids(period: Period, order: str) -> Select[int]:
    """Return the query for a period's papers. It reads indexes alone; the rows of one page are fetched after it."""
    listed = select(Listing.paper_id).where(_within(period))
    return select(Paper.id).where(Paper.id.in_(listed)).order_by(*ORDERS[order])


def _listed(session: Session, period: Period, number: int, texts: bool) -> Sheet:
    known = {"first": period.first, "last": period.last, "skipped": (number - 1) * PAGE}
    places = session.execute(_places(period.first == period.last), known).all()
    papers = _papers(session, [place.paper_id for place in places[:PAGE]], texts)
    groups = tuple(
        (day, tuple(papers[place.paper_id] for place in listed))
        for day, listed in groupby(places[:PAGE], key=lambda place: place.day)
    )
    return Sheet(groups, number, len(places) > PAGE)


def _sheet(session: Session, ids: Select[int], number: int, texts: bool) -> Sheet:
    found = session.scalars(ids.limit(PAGE + 1).offset((number - 1) * PAGE)).all()
    papers = _papers(session, found[:PAGE], texts)
    shown = tuple(papers[number] for number in found[:PAGE])
    return Sheet(((None, shown),) if shown else (), number, len(found) > PAGE)


def _papers(session: Session, ids: Sequence[int], texts: bool) -> dict[int, Paper]:
    found = select(Paper).where(any_of(session, Paper.id, "ids"))
    wanted = found if texts else found.options(load_only(*SHOWN))
    return {paper.id: paper for paper in session.scalars(wanted, {"ids": ids})}
