"""Files that go with the pages: styles, scripts, and the figures of measured claims."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from offprint.daily.measured import Measured
from offprint.daily.rendering import STATIC
from offprint.lab.results import folder
from offprint.papers import Record, records

router = APIRouter(include_in_schema=False)

FOREVER = "public, max-age=31536000, immutable"
FIGURE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cache-Control": "no-cache",
}
TYPES = {"svg": "image/svg+xml", "png": "image/png"}


class VersionedFiles(StaticFiles):
    """The static files, kept for good by browsers that ask with a version."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Any) -> Response:
        """Serve a file."""
        response = await super().get_response(path, scope)
        versioned = scope["query_string"].startswith(b"v=")
        response.headers["Cache-Control"] = FOREVER if versioned and response.status_code == 200 else "no-cache"
        return response


@router.api_route("/figures/{slug}/{claim_id}.{suffix}", methods=["GET", "HEAD"])
def recorded_figure(request: Request, slug: str, claim_id: str, suffix: Literal["svg", "png"]) -> Response:
    """Serve a figure from the recorded results. The path is made of names on record, never of what was asked."""
    record = _claiming(slug, claim_id)
    path = folder(record) / "figures" / record.slug / f"{record.claim(claim_id).id}.{suffix}"
    if not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, media_type=TYPES[suffix], headers=_headers(request))


@router.api_route("/figures/{slug}/{claim_id}/here.svg", methods=["GET", "HEAD"])
def figure_here(request: Request, slug: str, claim_id: str) -> Response:
    """Serve the figure of a claim's newest run made here."""
    measured: Measured = request.app.state.measured
    drawing = measured.figure(_claiming(slug, claim_id), claim_id)
    if drawing is None:
        raise HTTPException(404)
    return Response(drawing, media_type=TYPES["svg"], headers=_headers(request))


def _claiming(slug: str, claim_id: str) -> Record:
    record = records().get(slug)
    if record is None or claim_id not in {claim.id for claim in record.claims}:
        raise HTTPException(404)
    return record


def _headers(request: Request) -> dict[str, str]:
    return FIGURE_HEADERS | ({"Cache-Control": FOREVER} if "v" in request.query_params else {})
