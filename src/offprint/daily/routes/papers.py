"""A paper's page, and the forms in which it can be cited."""

from __future__ import annotations

import datetime
import time

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from offprint.daily import library
from offprint.daily.rendering import page
from offprint.daily.routes.runs import measured_block
from offprint.papers import records
from offprint.store import Database, Paper

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]


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


def _paper(request: Request, name: str) -> tuple[Paper, list[datetime.date]]:
    """Return a paper and the days that list it, newest first."""
    database: Database = request.app.state.database
    with database.session() as session:
        found = library.find(session, name)
        if found is None:
            raise HTTPException(404, "There is no such paper here.")
        return found, sorted((listing.day for listing in found.listings), reverse=True)
