"""The pages that readers read: a day, a paper, what a search finds."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from sqlalchemy import func, select
from starlette.exceptions import HTTPException

from offprint.daily import library
from offprint.daily.measured import Measured, PaperView
from offprint.daily.rendering import page
from offprint.daily.routes.runs import measured_block
from offprint.daily.search import LONGEST_QUERY, search
from offprint.daily.search import Query as SearchQuery
from offprint.papers import records
from offprint.store import Database, Paper

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


@router.api_route("/papers/{name}", methods=READ)
def paper(request: Request, name: str) -> Response:
    """Show a paper: what it is, what it claims, and what was measured."""
    found, days = _paper(request, name)
    if library.address(found) != f"/papers/{name}":
        return RedirectResponse(library.address(found), 302)
    record = records().get(found.slug or "")
    block = measured_block(request, record) if record else None
    # Without JavaScript the page loads itself anew while a run goes on; the address must differ for it to be a load.
    now = int(time.time())
    return page(request, "paper.html", paper=found, record=record, block=block, days=days, now=now)


@router.api_route("/papers/{name}/bibtex", methods=READ)
def bibtex(request: Request, name: str) -> Response:
    """Give a paper's BibTeX entry as plain text."""
    found, _ = _paper(request, name)
    record = records().get(found.slug or "")
    if record is None:
        raise HTTPException(404)
    return PlainTextResponse(record.bibtex + "\n")


@router.api_route("/search", methods=READ)
def results(request: Request, q: Annotated[str, Query()] = "") -> Response:
    """Show the papers that hold what was asked for."""
    database: Database = request.app.state.database
    query = SearchQuery.parse(q)
    with database.session() as session:
        found = search(session, query)
    views = _views(request, [hit.paper for hit in found.hits])
    return page(request, "search.html", q=q[:LONGEST_QUERY], query=query, found=found, views=views)


@router.api_route("/healthz", methods=READ)
def health(request: Request) -> dict[str, object]:
    """Say that the site and its database answer."""
    database: Database = request.app.state.database
    with database.session() as session:
        return {"status": "ok", "papers": session.scalar(select(func.count()).select_from(Paper))}


def _day_page(request: Request, date: datetime.date) -> Response:
    database: Database = request.app.state.database
    with database.session() as session:
        found = library.day(session, date)
    if found is None:
        raise HTTPException(404, "No papers are listed on this day.")
    return page(request, "day.html", day=found, views=_views(request, found.papers))


def _views(request: Request, papers: Sequence[Paper]) -> dict[str, PaperView]:
    measured: Measured = request.app.state.measured
    on_record = records()
    return measured.papers({paper.slug: on_record[paper.slug] for paper in papers if paper.slug in on_record})


def _paper(request: Request, name: str) -> tuple[Paper, list[datetime.date]]:
    """Return a paper and the days that list it, newest first."""
    database: Database = request.app.state.database
    with database.session() as session:
        found = library.find(session, name)
        if found is None:
            raise HTTPException(404, "There is no such paper here.")
        return found, sorted((listing.day for listing in found.listings), reverse=True)
