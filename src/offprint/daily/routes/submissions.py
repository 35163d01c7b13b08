"""Submitting a paper by its arXiv id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from offprint.daily import inputs, library, limits, submissions
from offprint.daily.accounts import writer
from offprint.daily.importing.entries import Entry
from offprint.daily.importing.streaming import SourceError
from offprint.daily.rendering import page
from offprint.daily.security import checked_form
from offprint.daily.waiting import waiting
from offprint.store import Database

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]
Form = Annotated[dict[str, str], Depends(checked_form)]


@router.api_route("/submit", methods=READ)
def form(request: Request) -> Response:
    """Ask for the id."""
    writer(request, "/submit")
    return page(request, "submit.html", typed="", problem=None)


@router.post("/submit")
async def submit(request: Request, fields: Form) -> Response:
    """List the paper today and go to it; go to it at once when some day lists it already."""
    return await waiting(_submit, request, fields)


def _submit(request: Request, fields: dict[str, str]) -> Response:
    reader = writer(request, "/submit")
    database: Database = request.app.state.database
    typed = fields.get("arxiv", "")
    try:
        arxiv = inputs.arxiv_id(typed)
    except ValueError as error:
        return _again(request, typed, 422, str(error))
    if (paper := submissions.listed(database, arxiv)) is None:
        limits.allow(database, "submit", str(reader.id))
        fetch = getattr(request.app.state, "fetch_papers", None) or _ask_arxiv
        try:
            paper = submissions.submit(database, reader, arxiv, fetch)
        except submissions.UnknownPaperError:
            return _again(request, typed, 422, f"arXiv has no paper {arxiv}, or its authors have withdrawn it.")
        except SourceError:
            return _again(request, typed, 503, "arXiv does not answer now. Try again in a few minutes.")
    return RedirectResponse(library.address(paper), 303)


def _again(request: Request, typed: str, status: int, problem: str) -> Response:
    return page(request, "submit.html", status=status, typed=typed[:300], problem=problem)


def _ask_arxiv(ids: Sequence[str]) -> list[Entry]:
    # Here, not above: what it imports takes a while, and few readers submit papers.
    from offprint.daily.importing import arxiv_api

    return arxiv_api.fetch(ids)
