"""The OpenAPI document of the API."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, cast

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from offprint.daily.api.problems import MEDIA_TYPE, Problem

ABOUT = """
The papers of the daily page, in the dialect of the Hub's papers API: `huggingface_hub` and `hf papers` work against
this address unchanged (`HfApi(endpoint=...)`, or the environment variable `HF_ENDPOINT`). What only this site knows of
a paper, its claims and what was measured of them, is under the key `offprint` of each.

Everything is read with GET (or HEAD), without an account, from any origin. Every answer has an `ETag`; a request that
gives it back as `If-None-Match` gets 304 while nothing has changed. Lists come in pages: the header `Link` leads to the
next one as long as there is one. Fields without a value are left out. Errors are problem details (RFC 9457).
""".strip()

ETAG = {"ETag": {"description": "Names this version of the answer.", "schema": {"type": "string"}}}
LINK = {"Link": {"description": 'The next page, as `<address>; rel="next"`.', "schema": {"type": "string"}}}
RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}

_EXPLAINED = {
    400: "A parameter cannot be read; `errors` names it.",
    404: "There is no such paper here.",
    422: "The week can be read, but its year has no such week.",
    429: "Too much was asked at once. The operator sets the limit.",
    500: "Something went wrong on our side.",
}
_FAMILIAR: dict[int | str, dict[str, Any]] = {
    304: {"description": "Nothing has changed since the version that `If-None-Match` names.", "headers": ETAG},
}


def responses(*statuses: int, pages: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return what a route may answer besides its content.

    Parameters
    ----------
    *statuses : int
        The errors of its own; 304, 429 and 500 are every route's.
    pages : bool
        Whether it answers page by page.
    """
    headers: dict[str, Any] = {**ETAG, **(LINK if pages else {})}
    found: dict[int | str, dict[str, Any]] = {200: {"headers": headers}, **_FAMILIAR}
    for status in sorted({*statuses, 429, 500}):
        found[status] = {"model": Problem, "description": _EXPLAINED[status]}
        if status == 429:
            found[status]["headers"] = RETRY
    return found


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Return the document, without the address of the site.

    Parameters
    ----------
    routes : sequence of BaseRoute
        Those of the API. They are described as they answer GET; HEAD and OPTIONS go without saying.
    """
    described = []
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            described.append(copy.copy(route))
            described[-1].methods = {"GET"}
    made = get_openapi(
        title="offprint",
        version=version("offprint"),
        summary="Machine learning papers, what they claim, and what was measured.",
        description=ABOUT,
        routes=described,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    for path in made["paths"].values():
        for operation in path.values():
            _tidy(operation)
    for unused in ("HTTPValidationError", "ValidationError"):
        made["components"]["schemas"].pop(unused, None)
    return cast(dict[str, Any], _never_null(made))


def _tidy(operation: dict[str, Any]) -> None:
    """Say of an operation what the framework does not know: errors are problems."""
    told = operation["responses"]
    if "422" in told and "Problem" not in str(told["422"]):
        del told["422"]
    for status, response in told.items():
        if int(status) >= 400:
            response["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    told["304"].pop("content", None)


def _never_null(part: Any) -> Any:
    """Return a part of the document without the null that every field may be in Python: such fields are left out."""
    if isinstance(part, list):
        return [_never_null(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {key: _never_null(value) for key, value in part.items()}
    if {"type": "null"} in found.get("anyOf", ()):
        [kind] = [kind for kind in found.pop("anyOf") if kind != {"type": "null"}]
        found.update(kind)
    return found
