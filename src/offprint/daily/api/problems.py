"""Errors of the API as problem details (RFC 9457), which the Hub's client can read too."""

from __future__ import annotations

import http
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from offprint.daily.api.answers import SHARED

MEDIA_TYPE = "application/problem+json"
LONGEST_ECHO = 80


class BadParameter(BaseModel):
    """What is wrong with one parameter."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    parameter: str = Field(description="The parameter's name.")
    detail: str = Field(description="What is wrong with it, and what was given.")


class Problem(BaseModel):
    """An error, as RFC 9457 writes it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Bad Request",
                "status": 400,
                "detail": "limit: Input should be less than or equal to 100; got '500'",
                "instance": "/api/daily_papers",
                "error": "limit: Input should be less than or equal to 100; got '500'",
                "errors": [
                    {"parameter": "limit", "detail": "Input should be less than or equal to 100; got '500'"},
                ],
            }
        }
    )

    type: str = Field(description="Always `about:blank`: the status says what kind of problem it is.")
    title: str = Field(description="The status in words.")
    status: int = Field(ge=400, le=599, description="The status code.")
    detail: str = Field(description="What went wrong, as a sentence for a person.")
    instance: str = Field(description="The path that was asked for.", json_schema_extra={"format": "uri-reference"})
    error: str = Field(description="The same as `detail`, where the Hub's clients look for it.")
    errors: list[BadParameter] | None = Field(
        default=None, description="One entry for each parameter that cannot be used."
    )


def speaks(request: Request) -> bool:
    """Whether errors at this address are problems rather than pages: programs ask here, not people."""
    path: str = request.scope["path"]
    return path.startswith("/api/") or (path.startswith("/papers/") and path.endswith(".md"))


def problem(
    request: Request,
    status: int,
    detail: str,
    *,
    errors: Iterable[BadParameter] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an error as a problem.

    Parameters
    ----------
    request : Request
        What was asked.
    status : int
        The status code.
    detail : str
        A sentence for the reader; the status in words when empty.
    errors : iterable of BadParameter
        What is wrong with which parameter.
    headers : mapping, optional
        Further headers, such as ``Allow`` or ``Retry-After``.
    """
    title = http.HTTPStatus(status).phrase
    told = Problem(
        type="about:blank",
        title=title,
        status=status,
        detail=detail or title,
        instance=quote(request.scope["path"].encode("utf-8", "replace")),
        error=detail or title,
        errors=list(errors) or None,
    )
    # Escaped to ASCII, so that no text that was sent to us can make it invalid.
    body = json.dumps(told.model_dump(exclude_none=True))
    headers = {**SHARED, "Cache-Control": "no-store", **(headers or {})}
    return Response(body, status, headers, media_type=MEDIA_TYPE)


def unreadable(request: Request, faults: Iterable[Mapping[str, Any]]) -> Response:
    """Return the answer to parameters that cannot be read, naming each.

    Parameters
    ----------
    request : Request
        What was asked.
    faults : iterable of mapping
        As :meth:`fastapi.exceptions.RequestValidationError.errors` gives them.
    """
    found = [
        BadParameter(
            parameter=str(fault["loc"][-1]),
            detail=f"{fault['msg'].removeprefix('Value error, ')}; got {_echo(fault.get('input'))}",
        )
        for fault in faults
    ]
    return problem(request, 400, "; ".join(f"{fault.parameter}: {fault.detail}" for fault in found), errors=found)


def _echo(given: object) -> str:
    shown = ascii(given)
    return shown if len(shown) <= LONGEST_ECHO else f"{shown[:LONGEST_ECHO]}…"
