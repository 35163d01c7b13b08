"""The pages that list papers: a day, a week, a month, the calendar, what is trending, a topic."""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from offprint.daily import library, lists
from offprint.daily.abstracts import has_math
from offprint.daily.accounts import current
from offprint.daily.lists import Order, Sheet
from offprint.daily.measured import views
from offprint.daily.periods import Kind, Period
from offprint.daily.rendering import page
from offprint.daily.votes import voted
from offprint.store import Database

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]

PageNumber = Annotated[int, Query(alias="p", ge=1, le=lists.LAST_PAGE)]
Sort = Annotated[Order | None, Query()]
USUAL: dict[Kind, Order] = {"day": "listed", "week": "votes", "month": "votes"}
"""The order of a list whose address names none."""

WIDER: dict[Kind, tuple[Kind, ...]] = {"day": ("week", "month", "year"), "week": ("month", "year"), "month": ("year",)}


@dataclass(frozen=True)
class Month:
    """A month of the calendar: its weeks, each with its days from Monday on, ``None`` for those of other months."""

    period: Period
    weeks: tuple[tuple[Period, tuple[datetime.date | None, ...]], ...]


@router.api_route("/", methods=READ)
def front(request: Request, sort: Sort = None, number: PageNumber = 1) -> Response:
    """Show the newest day."""
    newest = _newest(request)
    return _listed(request, Period.holding("day", newest), sort, number) if newest else page(request, "empty.html")


@router.api_route("/{year:int}-{month:int}-{day:int}", methods=READ)
def day(request: Request, sort: Sort = None, number: PageNumber = 1) -> Response:
    """Show a day, at its one address."""
    return _listed(request, _parsed("day", request.url.path.removeprefix("/")), sort, number)


@router.api_route("/week/{name}", methods=READ)
def week(request: Request, name: str, sort: Sort = None, number: PageNumber = 1) -> Response:
    """Show a week, Monday to Sunday, by its ISO number."""
    return _listed(request, _parsed("week", name), sort, number)


@router.api_route("/month/{name}", methods=READ)
def month(request: Request, name: str, sort: Sort = None, number: PageNumber = 1) -> Response:
    """Show a month."""
    return _listed(request, _parsed("month", name), sort, number)


@router.api_route("/calendar", methods=READ)
def newest_year(request: Request) -> Response:
    """Show which days of the newest year list papers."""
    newest = _newest(request)
    return _calendar(request, Period.holding("year", newest)) if newest else page(request, "empty.html")


@router.api_route("/calendar/{name}", methods=READ)
def year(request: Request, name: str) -> Response:
    """Show which days of a year list papers."""
    return _calendar(request, _parsed("year", name))


@router.api_route("/trending", methods=READ)
def trending(request: Request, number: PageNumber = 1) -> Response:
    """Show all papers, the hottest first."""
    database: Database = request.app.state.database
    reader = current(request)
    with database.reading() as session:
        sheet = lists.trending(session, number)
        mine = voted(session, reader, sheet.papers)
    return page(request, "trending.html", shared=True, base="/trending", extra="", **shown(request, sheet, mine))


@router.api_route("/topics/{family}", methods=READ)
def topic(request: Request, family: str, number: PageNumber = 1) -> Response:
    """Show the papers of a family, the hottest first."""
    database: Database = request.app.state.database
    reader = current(request)
    with database.reading() as session:
        known = lists.families(session)
        if family not in known:
            raise HTTPException(404, "There is no such topic.")
        sheet = lists.topic(session, family, number)
        mine = voted(session, reader, sheet.papers)
    found = shown(request, sheet, mine)
    return page(
        request, "topic.html", shared=True, base=f"/topics/{family}", extra="", family=family, families=known, **found
    )


def shown(request: Request, sheet: Sheet, mine: Collection[int]) -> dict[str, Any]:
    """Return what templates need to show a page of a list.

    Parameters
    ----------
    request : Request
    sheet : Sheet
    mine : collection of int
        The numbers of the papers that the reader has voted for.

    Raises
    ------
    HTTPException
        404 for a page after the last.
    """
    if sheet.number > 1 and not sheet.groups:
        raise HTTPException(404, "This list has fewer pages.")
    return {
        "sheet": sheet,
        "views": views(request.app.state.measured, sheet.papers),
        "voted_ids": mine,
        "math": any(has_math(paper.title) for paper in sheet.papers),
    }


def _newest(request: Request) -> datetime.date | None:
    database: Database = request.app.state.database
    with database.reading() as session:
        return library.newest_day(session)


def _parsed(kind: Kind, name: str) -> Period:
    period = Period.parse(kind, name)
    if period is None:
        raise HTTPException(404, f"There is no such {kind}.")
    return period


def _listed(request: Request, period: Period, sort: Order | None, number: int) -> Response:
    database: Database = request.app.state.database
    reader = current(request)
    usual = USUAL[period.kind]
    order = sort or usual
    with database.reading() as session:
        sheet = lists.of_period(session, period, order, number)
        about = lists.about(session, period)
        mine = voted(session, reader, sheet.papers)
    return page(
        request,
        "period.html",
        shared=True,
        period=period,
        about=about,
        wider=[period.within(kind) for kind in WIDER[period.kind]],
        order=order,
        usual=usual,
        base=period.path,
        extra="" if order == usual else f"sort={order}&",
        **shown(request, sheet, mine),
    )


def _calendar(request: Request, year: Period) -> Response:
    database: Database = request.app.state.database
    with database.reading() as session:
        listed = lists.days(session, year)
        neighbours = lists.neighbours(session, year)
    months = [_month(first) for first in sorted({day.replace(day=1) for day in listed})]
    return page(request, "calendar.html", shared=True, year=year, months=months, listed=listed, neighbours=neighbours)


def _month(first: datetime.date) -> Month:
    weeks = []
    for numbers in calendar.monthcalendar(first.year, first.month):
        dates = tuple(first.replace(day=number) if number else None for number in numbers)
        weeks.append((Period.holding("week", next(date for date in dates if date)), dates))
    return Month(Period.holding("month", first), tuple(weeks))
