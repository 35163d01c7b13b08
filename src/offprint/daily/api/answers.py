"""What every answer of the API has: an ETag and its 304, how long it keeps, and leave for scripts of any site."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from offprint.daily.conditions import etag, unchanged
from offprint.daily.kept import share
from offprint.daily.origin import base_address

FRESH = "public, max-age=60"
"""Votes and comments may be a minute old."""

SHARED = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "ETag, Link",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
PREFLIGHT = {
    **SHARED,
    "Allow": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "Accept, Authorization, If-None-Match",
    "Access-Control-Max-Age": "86400",
}


class ReadRoute(APIRoute):
    """A route to read from: answers GET, HEAD and OPTIONS, and 304 to who has the answer already."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **{**options, "methods": ["GET", "HEAD", "OPTIONS"]})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        read = super().get_route_handler()

        async def answer(request: Request) -> Response:
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=PREFLIGHT)
            return finish(request, await read(request))

        return answer


def finish(request: Request, response: Response) -> Response:
    """Add to an answer what every answer has, or say that it is known already. (The server sends HEAD no body.)"""
    headers = {"ETag": etag(bytes(response.body)), "Cache-Control": FRESH, **SHARED}
    if response.status_code == 200 and unchanged(request.headers, headers):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    share(request)
    return response


def as_json(content: BaseModel | Sequence[BaseModel]) -> Response:
    """Return models as JSON, without the fields that have no value."""
    body = TypeAdapter(Any).dump_json(content, by_alias=True, exclude_none=True)
    return Response(body, media_type="application/json")


def next_page(request: Request, p: int) -> dict[str, str]:
    """Return the header (RFC 8288) that leads to another page of what was asked for."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "p"]
    query = urlencode([*kept, ("p", p)], errors="replace")
    return {"Link": f'<{base_address(request)}{request.scope["path"]}?{query}>; rel="next"'}
