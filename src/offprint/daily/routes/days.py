"""The pages that list papers: a day, and the days around it."""

from __future__ import annotations

import datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from offprint.daily import library
from offprint.daily.measured import views
from offprint.daily.rendering import page
from offprint.store import Database

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]


@router.api_route("/", methods=READ)
def front(request: Request) -> Response:
    """Show the newest day."""
    database: Database = request.app.state.database
    with database.session() as session:
        newest = library.newest_day(session)
    return _day_page(request, newest) if newest else page(request, "empty.html")


@router.api_route("/{year:int}-{month:int}-{day:int}", methods=READ)
def day(request: Request, year: int, month: int, day: int) -> Response:
    """Show a day, at its one address."""
    try:
        date = datetime.date(year, month, day)
    except (ValueError, OverflowError):
        raise HTTPException(404) from None
    if request.url.path != f"/{date.isoformat()}":
        raise HTTPException(404)
    return _day_page(request, date)


def _day_page(request: Request, date: datetime.date) -> Response:
    database: Database = request.app.state.database
    with database.session() as session:
        found = library.day(session, date)
    if found is None:
        raise HTTPException(404, "No papers are listed on this day.")
    return page(request, "day.html", day=found, views=views(request.app.state.measured, found.papers))
