"""A paper's page, and the forms in which it can be cited."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response

from offprint.daily import citations, community, library
from offprint.daily.abstracts import abstract, has_math
from offprint.daily.accounts import current
from offprint.daily.measured import views
from offprint.daily.origin import base_address
from offprint.daily.rendering import page
from offprint.daily.routes.runs import measured_block
from offprint.daily.search import similar
from offprint.daily.votes import voted
from offprint.papers import records
from offprint.store import Database, Paper

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]
SIMILAR = 5
NAMED = 30
"""Authors that the BibTeX entry on the page names; the one to save names all."""


@router.api_route("/papers/{name:path}/bibtex", methods=READ)
def bibtex(request: Request, name: str) -> Response:
    """Give a paper's BibTeX entry as plain text."""
    found = _cited(request, name)
    return PlainTextResponse(citations.bibtex(found, _address(request, found)) + "\n")


@router.api_route("/papers/{name:path}/ris", methods=READ)
def ris(request: Request, name: str) -> Response:
    """Give a paper's RIS record, as a file that reference managers open."""
    found = _cited(request, name)
    headers = {"Content-Disposition": f'attachment; filename="{citations.key(found)}.ris"'}
    record = citations.ris(found, _address(request, found))
    return Response(record, media_type="application/x-research-info-systems; charset=utf-8", headers=headers)


@router.api_route("/papers/{name:path}", methods=READ)
def paper(request: Request, name: str) -> Response:
    """Show a paper: what it is, what it claims, what was measured, and what readers say of it."""
    database: Database = request.app.state.database
    reader = current(request)
    with database.reading() as session:
        found = library.find_or_404(session, name)
        if library.address(found) != f"/papers/{name}":
            return RedirectResponse(library.address(found), 302)
        state = request.app.state
        alike = similar(session, found, limit=SIMILAR, semantic=state.semantic, holders=state.holders)
        mine = voted(session, reader, [found, *alike])
        days = sorted((listing.day for listing in found.listings), reverse=True)
    record = records().get(found.slug or "")
    return page(
        request,
        "paper.html",
        paper=found,
        days=days,
        abstract=abstract(found.abstract),
        math=has_math(found.title, found.summary, found.abstract, *(other.title for other in alike)),
        code=library.code_address(found),
        bibtex=citations.bibtex(found, _address(request, found), NAMED),
        record=record,
        block=measured_block(request, record) if record else None,
        community=community.view(request, found),
        similar=alike,
        views=views(request.app.state.measured, alike),
        voted_ids=mine,
        # Without JavaScript the page loads itself anew while a run goes on; to be a load, the address must differ.
        now=int(time.time()),
    )


def _cited(request: Request, name: str) -> Paper:
    database: Database = request.app.state.database
    with database.reading() as session:
        return library.find_or_404(session, name)


def _address(request: Request, found: Paper) -> str:
    return base_address(request) + library.address(found)
