"""The JSON API, in the dialect of the Hub's papers API."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException

from offprint.daily import library
from offprint.daily.api import hub
from offprint.daily.api.answers import ReadRoute, as_json, next_page
from offprint.daily.api.document import document, responses
from offprint.daily.api.listed import Asked, Order, newest_listings, page_of
from offprint.daily.api.markdown import markdown
from offprint.daily.api.telling import Teller, names
from offprint.daily.measured import views
from offprint.daily.origin import base_address
from offprint.daily.periods import Period
from offprint.daily.rendering import page
from offprint.daily.search import LONGEST_QUERY, matches, papers
from offprint.daily.search import Query as SearchQuery
from offprint.lab.verdicts import Verdict
from offprint.papers import records
from offprint.papers.record import Family
from offprint.store import Database, Listing, Paper

router = APIRouter(route_class=ReadRoute)

LAST_PAGE = 100_000
YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
"""A year from 0001."""


def _day(written: str | None) -> str | None:
    """Refuse what is no day."""
    if written is not None:
        Period.read("day", written)
    return written


Date = Annotated[
    str | None,
    AfterValidator(_day),
    Query(
        description="The papers listed on this day.",
        json_schema_extra={"format": "date"},
        openapi_examples={"a day": {"value": "2025-08-20"}},
    ),
]
Week = Annotated[
    str | None,
    Query(
        description="The papers listed in this ISO week.",
        pattern=f"^{YEAR}-W(0[1-9]|[1-4][0-9]|5[0-3])$",
        openapi_examples={"a week": {"value": "2025-W34"}},
    ),
]
Month = Annotated[
    str | None,
    Query(
        description="The papers listed in this month.",
        pattern=f"^{YEAR}-(0[1-9]|1[0-2])$",
        openapi_examples={"a month": {"value": "2025-08"}},
    ),
]
By = Annotated[
    str | None,
    Query(
        description="The papers that this reader, given by handle, brought to the page.",
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9._-]+$",
        openapi_examples={"a handle": {"value": "ada"}},
    ),
]
Sort = Annotated[
    Order,
    Query(
        description="`publishedAt`: the newest day first, and each day in the order of its page. "
        "`trending`: what is new, voted for and talked about first."
    ),
]
Page = Annotated[int, Query(ge=0, le=LAST_PAGE, description="The page, from 0.")]
Limit = Annotated[int, Query(ge=1, le=100, description="How many a page has at most.")]
Identifier = Annotated[
    str,
    Path(
        description="The arXiv id, the slug, or the number here of a paper that has neither.",
        openapi_examples={"arXiv id": {"value": "2310.02987"}, "slug": {"value": "vr-halpern"}},
    ),
]


@router.get(
    "/api/daily_papers",
    operation_id="list_daily_papers",
    response_model=list[hub.PaperEntry],
    responses=responses(400, 422, pages=True),
    tags=["the Hub's dialect"],
)
def daily_papers(
    request: Request,
    date: Date = None,
    week: Week = None,
    month: Month = None,
    submitter: By = None,
    sort: Sort = "publishedAt",
    p: Page = 0,
    limit: Limit = 50,
) -> Response:
    """List the papers of the daily page.

    The newest when no days are given. `date`, `week`, `month` and `submitter` narrow each other. A paper that several
    days list appears once, on the newest of those asked for.
    """
    asked = Asked(_periods(date, week, month), submitter)
    with _database(request).reading() as session:
        found, more = page_of(session, asked, sort, p, limit)
        return _entries(request, session, found, p, more=more)


@router.get(
    "/api/papers/search",
    operation_id="list_papers",
    response_model=list[hub.PaperEntry],
    responses=responses(400, pages=True),
    tags=["the Hub's dialect"],
)
def search_papers(
    request: Request,
    q: Annotated[
        str,
        Query(
            max_length=LONGEST_QUERY,
            pattern=r"^[^\u0000]*$",
            description='Words and "quoted phrases" that must occur, and -words that must not; the site\'s search '
            "takes the same. The newest papers when there are none.",
            openapi_examples={"words": {"value": "variance reduction"}, "a phrase": {"value": '"finite sum" -privacy'}},
        ),
    ] = "",
    p: Page = 0,
    limit: Limit = 20,
) -> Response:
    """Search titles, authors, abstracts, summaries and claims; the best match comes first."""
    with _database(request).reading() as session:
        if not q.strip():
            listed, more = page_of(session, Asked(), "publishedAt", p, limit)
            return _entries(request, session, listed, p, more=more)
        found = matches(session, SearchQuery.parse(q), semantic=request.app.state.semantic).ids
        shown = papers(session, found[p * limit : (p + 1) * limit])
        listings = newest_listings(session, shown)
        pairs = [(paper, listings.get(paper.id)) for paper in shown]
        return _entries(request, session, pairs, p, more=len(found) > (p + 1) * limit)


@router.get(
    "/api/papers/{id:path}",
    operation_id="paper_info",
    response_model=hub.PaperDetail,
    responses=responses(404),
    tags=["the Hub's dialect"],
)
def paper_info(request: Request, id: Identifier) -> Response:
    """Tell a paper."""
    with _database(request).reading() as session:
        paper = library.find_or_404(session, id)
        listing = newest_listings(session, [paper]).get(paper.id)
        known = names(session, [listing])
    teller = Teller(base_address(request), views(request.app.state.measured, [paper]), known)
    return as_json(teller.detail(paper, listing))


@router.get(
    "/papers/{id:path}.md",
    operation_id="read_paper",
    response_class=PlainTextResponse,
    responses=responses(404)
    | {200: {"description": "The paper.", "content": {"text/markdown": {"schema": {"type": "string"}}}}},
    tags=["the Hub's dialect"],
)
def read_paper(request: Request, id: Identifier) -> Response:
    """Read a paper as Markdown: title, authors, abstract, our summary, its claims and what was measured."""
    with _database(request).reading() as session:
        paper = library.find_or_404(session, id)
    view = views(request.app.state.measured, [paper]).get(paper.slug or "")
    return Response(markdown(paper, view, base_address(request)), media_type="text/markdown; charset=utf-8")


@router.get(
    "/api/claims",
    operation_id="list_claims",
    response_model=list[hub.ClaimEntry],
    responses=responses(400, pages=True),
    tags=["what was measured"],
)
def list_claims(
    request: Request,
    verdict: Annotated[Verdict | None, Query(description="Claims with this verdict.")] = None,
    family: Annotated[Family | None, Query(description="Claims of papers about this kind of method.")] = None,
    p: Page = 0,
    limit: Limit = 50,
) -> Response:
    """List the claims of the papers on record, paper by paper in the order of their slugs."""
    found = request.app.state.measured.papers(
        {slug: record for slug, record in sorted(records().items()) if family in (None, record.family)}
    )
    claims = [
        (view, claim) for view in found.values() for claim in view.claims if verdict is None or claim.verdict == verdict
    ]
    shown = claims[p * limit : (p + 1) * limit]
    slugs = {view.record.slug for view, _ in shown}
    with _database(request).reading() as session:
        papers = {paper.slug: paper for paper in session.scalars(select(Paper).where(Paper.slug.in_(slugs)))}
    teller = Teller(base_address(request), found)
    response = as_json(
        [
            teller.claim(papers[view.record.slug], view, claim)
            for view, claim in shown
            # A record that was installed while the site runs is in the database after its next start.
            if view.record.slug in papers
        ]
    )
    if len(claims) > (p + 1) * limit:
        response.headers.update(next_page(request, p + 1))
    return response


@router.get("/api/openapi.json", include_in_schema=False)
def describe(request: Request) -> Response:
    """Give the OpenAPI document of the API."""
    return JSONResponse({**_document(), "servers": [{"url": base_address(request)}]})


def overview(request: Request) -> Response:
    """Show people what programs can ask."""
    operations = [(path, found["get"]) for path, found in _document()["paths"].items()]
    return page(request, "api.html", operations=operations, base=base_address(request))


# A page like any other: it may show who is signed in, so nobody else's scripts may read it.
router.add_api_route("/api", overview, methods=["GET", "HEAD"], include_in_schema=False, route_class_override=APIRoute)


@cache
def _document() -> dict[str, Any]:
    return document(router.routes)


def _database(request: Request) -> Database:
    found: Database = request.app.state.database
    return found


def _periods(date: str | None, week: str | None, month: str | None) -> tuple[Period, ...]:
    """Return the periods asked for. Of these, only a week can be spelled well and not be."""
    try:
        found = [Period.read("week", week)] if week is not None else []
    except ValueError as error:
        raise HTTPException(422, f"week: {error}") from None
    found += [Period.read("day", date)] if date is not None else []
    found += [Period.read("month", month)] if month is not None else []
    return tuple(found)


def _entries(
    request: Request, session: Session, found: Sequence[tuple[Paper, Listing | None]], p: int, *, more: bool
) -> Response:
    """Return papers as a list, with the way to the next page."""
    known = names(session, [listing for _, listing in found])
    seen = views(request.app.state.measured, [paper for paper, _ in found])
    teller = Teller(base_address(request), seen, known)
    response = as_json([teller.entry(paper, listing) for paper, listing in found])
    if more and p < LAST_PAGE:
        response.headers.update(next_page(request, p + 1))
    return response
