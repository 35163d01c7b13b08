"""The application: its parts put together, and what readers see when something goes wrong."""

from __future__ import annotations

import http
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException

from offprint.daily.accounts import SignInNeededError, current
from offprint.daily.api.problems import problem, speaks, unreadable
from offprint.daily.feeds import Editions
from offprint.daily.kept import Kept
from offprint.daily.mail import outbox
from offprint.daily.measured import Measured, tally
from offprint.daily.metrics import Metrics, Observed
from offprint.daily.rendering import fragment
from offprint.daily.routes import (
    accounts,
    api,
    assets,
    community,
    days,
    feeds,
    moderation,
    operating,
    papers,
    runs,
    search,
    submissions,
    subscriptions,
)
from offprint.daily.runs import Runs
from offprint.daily.search import Holders, Semantic
from offprint.daily.security import Bounds, FormGuard, SecurityHeaders, strict_headers
from offprint.daily.settings import Settings
from offprint.lab.executors import Executor
from offprint.store import Database

EXPLANATIONS = {
    404: "There is nothing at this address.",
    405: "This address does not answer that.",
    500: "Something went wrong on our side. It has been noted.",
}


THREADS = 4
"""Requests that are worked on at once. Python runs one thread at a time: more of them only delay one another. What
waits for servers elsewhere has threads of its own (:mod:`offprint.daily.waiting`)."""

HOLDERS_KEPT = 300.0
"""Seconds after which the papers that hold a word are looked up anew, for what is similar to a paper."""

ROUTES = (
    assets,
    operating,
    api,
    feeds,
    accounts,
    subscriptions,
    community,
    moderation,
    submissions,
    runs,
    search,
    papers,
    days,
)


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
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Runs]]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        tally(app.state.measured)
        app.state.runs.start()
        yield {"runs": app.state.runs}
        app.state.runs.stop()

    app = FastAPI(title="offprint", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.database = database
    app.state.settings = settings
    app.state.measured = Measured(database)
    app.state.runs = Runs(database, executor, app.state.measured, enabled=settings.runs)
    app.state.metrics = Metrics(database)
    app.state.guard = FormGuard(settings.secret)
    app.state.editions = Editions()
    app.state.semantic = Semantic(settings.semantic_model) if settings.semantic_model else None
    app.state.holders = Holders(HOLDERS_KEPT if settings.answers_kept else 0)
    app.state.outbox = outbox(settings)
    app.add_middleware(Kept, seconds=settings.answers_kept)
    app.add_middleware(Bounds, refuse=error_page)
    app.add_middleware(SecurityHeaders, https=settings.https)
    app.add_middleware(Observed, metrics=app.state.metrics)
    app.mount("/static", assets.VersionedFiles())
    for module in ROUTES:
        app.include_router(module.router)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(SignInNeededError, _sign_in_first)
    app.add_exception_handler(RequestValidationError, _not_found)
    app.add_exception_handler(DataError, _unstorable)
    app.add_exception_handler(Exception, _broken)
    return app


def error_page(request: Request, status: int, explanation: str) -> Response:
    """Return an error as a page, as a short notice where htmx asked, or as a problem where programs ask."""
    if speaks(request):
        return problem(request, status, explanation)
    title = http.HTTPStatus(status).phrase
    template = "_notice.html" if request.headers.get("hx-request") else "error.html"
    account = current(request) if status < 500 else None
    known = {"request": request, "account": account, "title": title, "explanation": explanation}
    return HTMLResponse(fragment(template, **known), status)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    standard = http.HTTPStatus(error.status_code).phrase
    explanation = EXPLANATIONS.get(error.status_code, "") if error.detail == standard else error.detail
    response = error_page(request, error.status_code, explanation)
    response.headers.update(error.headers or {})
    return response


async def _sign_in_first(request: Request, error: Exception) -> Response:
    """Lead to where one signs in, also from a part of a page that htmx replaces."""
    assert isinstance(error, SignInNeededError)
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={"HX-Redirect": error.address})
    return RedirectResponse(error.address, 303)


async def _not_found(request: Request, error: Exception) -> Response:
    """Answer an address or a query that cannot be read: nothing can be there."""
    if speaks(request) and isinstance(error, RequestValidationError):
        return unreadable(request, error.errors())
    return error_page(request, 404, EXPLANATIONS[404])


async def _unstorable(request: Request, error: Exception) -> Response:
    """Answer what no database column can hold, such as a zero byte: nothing has such a name, and it cannot be kept."""
    if request.method in ("GET", "HEAD"):
        return await _not_found(request, error)
    return error_page(request, 400, "This holds characters or numbers that cannot be stored.")


async def _broken(request: Request, error: Exception) -> Response:
    """Answer for an error of ours. The server logs the trace; this answer passes no middleware."""
    response = error_page(request, 500, EXPLANATIONS[500])
    settings: Settings = request.app.state.settings
    response.headers.update(strict_headers(settings.https or request.url.scheme == "https"))
    return response
