"""Feeds of a day, of the newest papers, of what is trending, of a topic and of a search."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Annotated, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException

from offprint.daily import feeds, lists
from offprint.daily.conditions import unchanged
from offprint.daily.feeds import Editions, Feed
from offprint.daily.kept import share
from offprint.daily.lists import Sheet
from offprint.daily.measured import views
from offprint.daily.origin import base_address
from offprint.daily.periods import Period
from offprint.daily.search import LONGEST_QUERY, matches, papers
from offprint.daily.search import Query as SearchQuery
from offprint.store import Database

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]

Form = Literal["atom", "json"]
PageNumber = Annotated[int, Query(alias="p", ge=1, le=lists.LAST_PAGE)]
WRITERS = {"atom": (feeds.atom, feeds.ATOM), "json": (feeds.json_feed, feeds.JSON_FEED)}
MOST_HITS = 200
"""The best hits of a search, of which a feed holds the newest."""


@router.api_route("/feeds/newest.{form}", methods=READ)
def newest(request: Request, form: Form, number: PageNumber = 1) -> Response:
    """Give the papers of the newest days."""
    with _session(request) as session:
        sheet = lists.newest(session, number, texts=True)
    return _answer(request, form, "offprint: newest papers", "/feeds/newest", "/", sheet)


@router.api_route("/feeds/trending.{form}", methods=READ)
def trending(request: Request, form: Form, number: PageNumber = 1) -> Response:
    """Give what is trending."""
    with _session(request) as session:
        sheet = lists.trending(session, number, texts=True)
    return _answer(request, form, "offprint: trending papers", "/feeds/trending", "/trending", sheet)


@router.api_route("/feeds/day/{name}.{form}", methods=READ)
def day(request: Request, name: str, form: Form, number: PageNumber = 1) -> Response:
    """Give the papers of a day."""
    period = Period.parse("day", name)
    if period is None:
        raise HTTPException(404, "There is no such day.")
    with _session(request) as session:
        sheet = lists.of_period(session, period, "listed", number, texts=True)
    return _answer(request, form, f"offprint: {period.title}", f"/feeds/day/{period.name}", period.path, sheet)


@router.api_route("/feeds/topic/{family}.{form}", methods=READ)
def topic(request: Request, family: str, form: Form, number: PageNumber = 1) -> Response:
    """Give the papers of a topic."""
    with _session(request) as session:
        if family not in lists.families(session):
            raise HTTPException(404, "There is no such topic.")
        sheet = lists.topic(session, family, number, texts=True)
    path = quote(family, safe="")
    return _answer(request, form, f"offprint: {family}", f"/feeds/topic/{path}", f"/topics/{path}", sheet)


@router.api_route("/feeds/search.{form}", methods=READ)
def found(request: Request, form: Form, q: Annotated[str, Query()] = "") -> Response:
    """Give the newest of the papers that a search finds."""
    query = SearchQuery.parse(q)
    with _session(request) as session:
        best = papers(session, matches(session, query).ids[:MOST_HITS])
    newest = sorted(best, key=lambda paper: (paper.added_at, paper.id), reverse=True)[: lists.PAGE]
    asked = "?" + urlencode({"q": q[:LONGEST_QUERY]})
    sheet = Sheet(((None, tuple(newest)),), 1, False)
    return _answer(request, form, f"offprint: search for {q[:LONGEST_QUERY]}", "/feeds/search", "/search", sheet, asked)


def _session(request: Request) -> AbstractContextManager[Session]:
    database: Database = request.app.state.database
    return database.reading()


def _answer(request: Request, form: Form, title: str, path: str, where: str, sheet: Sheet, query: str = "") -> Response:
    if sheet.number > 1 and not sheet.groups:
        raise HTTPException(404, "This feed has fewer pages.")
    if sheet.number > 1:
        query = f"?p={sheet.number}"
    feed = Feed(
        title,
        path,
        where + (query if where == "/search" else ""),
        sheet.papers,
        views(request.app.state.measured, sheet.papers),
        query,
        f"?p={sheet.number + 1}" if sheet.more else "",
    )
    write, kind = WRITERS[form]
    content = write(feed, base_address(request))
    editions: Editions = request.app.state.editions
    headers = editions.headers(f"{request.url}", content)
    share(request)
    if unchanged(request.headers, headers):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)
