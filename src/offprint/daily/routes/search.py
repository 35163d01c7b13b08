"""What a search finds."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from offprint.daily.measured import views
from offprint.daily.rendering import page
from offprint.daily.search import LONGEST_QUERY, search
from offprint.daily.search import Query as SearchQuery
from offprint.store import Database

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]


@router.api_route("/search", methods=READ)
def results(request: Request, q: Annotated[str, Query()] = "") -> Response:
    """Show the papers that hold what was asked for."""
    database: Database = request.app.state.database
    query = SearchQuery.parse(q)
    with database.session() as session:
        found = search(session, query)
    shown = views(request.app.state.measured, [hit.paper for hit in found.hits])
    return page(request, "search.html", q=q[:LONGEST_QUERY], query=query, found=found, views=shown)
