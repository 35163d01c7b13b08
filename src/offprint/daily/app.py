"""The application: its parts put together, and what readers see when something goes wrong."""

from __future__ import annotations

import http
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from offprint.daily.measured import Measured, tally
from offprint.daily.rendering import fragment
from offprint.daily.routes import (
    accounts,
    api,
    assets,
    community,
    days,
    feeds,
    operating,
    papers,
    runs,
    search,
    subscriptions,
)
from offprint.daily.runs import Runs
from offprint.daily.security import HEADERS, FormGuard, SecurityHeaders
from offprint.daily.settings import Settings
from offprint.lab.executors import Executor
from offprint.store import Database

EXPLANATIONS = {
    404: "There is nothing at this address.",
    405: "This address does not answer that.",
    500: "Something went wrong on our side. It has been noted.",
}


ROUTES = (assets, operating, api, feeds, accounts, subscriptions, community, runs, search, papers, days)


def create_app(database: Database, *, executor: Executor | None = None, settings: Settings | None = None) -> FastAPI:
    """Return the site.

    Parameters
    ----------
    database : Database
        With its papers loaded (:func:`offprint.daily.library.load_records`). Not in memory: several threads use it.
    executor : Executor, optional
        Where runs are performed; each task in a process of its own when left out.
    settings : Settings, optional
        Read from the environment when left out.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tally(app.state.measured)
        app.state.runs.start()
        yield
        app.state.runs.stop()

    app = FastAPI(title="offprint", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.database = database
    app.state.settings = settings
    app.state.measured = Measured(database)
    app.state.runs = Runs(database, executor, app.state.measured)
    app.state.guard = FormGuard(settings.secret)
    app.add_middleware(SecurityHeaders)
    app.mount("/static", assets.VersionedFiles())
    for module in ROUTES:
        app.include_router(module.router)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_found)
    app.add_exception_handler(Exception, _broken)
    return app


def error_page(request: Request, status: int, explanation: str) -> Response:
    """Return an error as a page, or as a short notice where htmx asked."""
    title = http.HTTPStatus(status).phrase
    template = "_notice.html" if request.headers.get("hx-request") else "error.html"
    return HTMLResponse(fragment(template, request=request, title=title, explanation=explanation), status)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    standard = http.HTTPStatus(error.status_code).phrase
    explanation = EXPLANATIONS.get(error.status_code, "") if error.detail == standard else error.detail
    response = error_page(request, error.status_code, explanation)
    response.headers.update(error.headers or {})
    return response


async def _not_found(request: Request, error: Exception) -> Response:
    """Answer an address or a query that cannot be read: nothing can be there."""
    return error_page(request, 404, EXPLANATIONS[404])


async def _broken(request: Request, error: Exception) -> Response:
    """Answer for an error of ours. The server logs the trace; this answer passes no middleware."""
    response = error_page(request, 500, EXPLANATIONS[500])
    response.headers.update(HEADERS)
    return response
