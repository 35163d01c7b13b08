"""Subscribing to mail, confirming it, changing it, and ending it."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from offprint.daily import limits
from offprint.daily.accounts import current
from offprint.daily.inputs import FieldError, email_address
from offprint.daily.mail import MailError, Outbox, subscriptions
from offprint.daily.mail.digest import Site, confirmation, reminder
from offprint.daily.mail.subscriptions import Choice, Links
from offprint.daily.origin import mailed_address
from offprint.daily.rendering import page
from offprint.daily.search import LONGEST_QUERY
from offprint.daily.security import FormGuard
from offprint.daily.waiting import waiting
from offprint.papers.record import FAMILIES
from offprint.store import Database, Subscription
from offprint.store.models import now

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]
PRIVATE = {"Cache-Control": "no-store", "X-Robots-Tag": "noindex"}
MAIL_FAILED = "The mail could not be sent. Try again in a few minutes."
DONE = {
    "confirmed": "Confirmed: the next new papers come by mail.",
    "saved": "Saved.",
}

Token = Annotated[str, Path(max_length=100)]
Signed = Annotated[str, Path(max_length=300)]

log = logging.getLogger(__name__)


@router.api_route("/subscribe", methods=READ)
def form(
    request: Request, query: Annotated[str, Query()] = "", topic: Annotated[list[str] | None, Query()] = None
) -> Response:
    """Show the form; ``?query=`` fills in a search to save, ``?topic=`` ticks a topic."""
    topics = tuple(family for family in FAMILIES if family in (topic or []))
    chosen = Choice(query=query[:LONGEST_QUERY], topics=topics)
    account = current(request)
    return _form(request, chosen, chosen.scope, account.email if account else "")


@router.post("/subscribe")
async def subscribe(request: Request) -> Response:
    """Mail a link that confirms what was asked for. The answer does not tell who is subscribed."""
    guard: FormGuard = request.app.state.guard
    return await waiting(_subscribe, request, await guard.form(request))


@router.api_route("/subscribe/confirm/{token}", methods=READ)
def confirm_page(request: Request, token: Token) -> Response:
    """Show the button that confirms: programs that open links in mails press none."""
    with _database(request).session() as session:
        found = subscriptions.pending(session, token, now=now())
    if found is None:
        return _private(page(request, "subscribe_used.html", status=410))
    return _private(page(request, "subscribe_confirm.html", choice=Choice.of(found), email=found.email))


@router.post("/subscribe/confirm/{token}")
async def confirm(request: Request, token: Token) -> Response:
    """Put a subscription in force."""
    guard: FormGuard = request.app.state.guard
    await guard.form(request)
    return await run_in_threadpool(_confirm, request, token)


@router.api_route("/subscription/{signed}", methods=READ)
def manage(request: Request, signed: Signed, done: Annotated[str, Query()] = "") -> Response:
    """Show a subscription to whoever holds its link."""
    with _database(request).session() as session:
        found = _find(request, session, signed)
    return _manage(request, found, Choice.of(found), done=DONE.get(done, ""))


@router.post("/subscription/{signed}")
async def change(request: Request, signed: Signed) -> Response:
    """Change a subscription."""
    guard: FormGuard = request.app.state.guard
    return await run_in_threadpool(_change, request, signed, await guard.form(request))


@router.api_route("/subscription/{signed}/unsubscribe", methods=READ)
def end_page(request: Request, signed: Signed) -> Response:
    """Show the button that ends a subscription."""
    links = _links(request)
    with _database(request).session() as session:
        found = links.find(session, signed)
    if found is None:
        return _ended(request, links, signed)
    shown = page(
        request,
        "subscribe_end.html",
        ended=False,
        choice=Choice.of(found),
        email=found.email,
        path=links.path(found),
    )
    return _private(shown)


@router.post("/subscription/{signed}/unsubscribe")
def end(request: Request, signed: Signed) -> Response:
    """End a subscription; by one click in a mail program too (RFC 8058), which sends neither cookie nor form token."""
    links = _links(request)
    with _database(request).session() as session:
        found = links.find(session, signed)
        if found is not None:
            session.delete(found)
    return _ended(request, links, signed)


def _subscribe(request: Request, fields: dict[str, str]) -> Response:
    database = _database(request)
    outbox: Outbox = request.app.state.outbox
    email, wrong = fields.get("email", ""), "email"
    try:
        email = email_address(email)
        choice = Choice.read(fields)
    except ValueError as error:
        wrong = error.field if isinstance(error, FieldError) else "email"
        return _form(request, _typed(fields), fields.get("scope", ""), email, wrong, str(error))
    limits.allow(database, "subscribe", limits.visitor_address(request))
    limits.allow(database, "subscribe-mail", email)
    site = Site.of(request.app.state.settings, mailed_address(request))
    with database.session() as session:
        asked = subscriptions.ask(session, email, choice, now=now())
        mail = (
            confirmation(site, asked.subscription, asked.token) if asked.token else reminder(site, asked.subscription)
        )
    try:
        outbox.send(mail)
    except MailError as error:
        log.error("a confirmation could not be mailed: %s", error)
        raise HTTPException(503, MAIL_FAILED, {"Retry-After": "300"}) from None
    return page(request, "subscribe_asked.html", email=email)


def _confirm(request: Request, token: str) -> Response:
    with _database(request).session() as session:
        found = subscriptions.confirm(session, token, now=now())
        if found is None:
            return _private(page(request, "subscribe_used.html", status=410))
        path = _links(request).path(found)
    return RedirectResponse(f"{path}?done=confirmed", 303)


def _change(request: Request, signed: str, fields: dict[str, str]) -> Response:
    with _database(request).session() as session:
        found = _find(request, session, signed)
        try:
            choice = Choice.read(fields)
        except FieldError as error:
            return _manage(request, found, _typed(fields), fields.get("scope", ""), error.field, str(error))
        path = _links(request).path(subscriptions.change(session, found, choice))
    return RedirectResponse(f"{path}?done=saved", 303)


def _form(request: Request, chosen: Choice, scope: str, email: str, wrong: str = "", explanation: str = "") -> Response:
    context: dict[str, Any] = {"families": FAMILIES, "wrong": wrong, "explanation": explanation}
    status = 422 if wrong else 200
    return page(request, "subscribe.html", status=status, chosen=chosen, scope=scope, email=email, **context)


def _manage(
    request: Request,
    found: Subscription,
    chosen: Choice,
    scope: str | None = None,
    wrong: str = "",
    explanation: str = "",
    done: str = "",
) -> Response:
    shown = page(
        request,
        "subscribe_manage.html",
        status=422 if wrong else 200,
        kept=Choice.of(found),
        chosen=chosen,
        scope=chosen.scope if scope is None else scope,
        families=FAMILIES,
        wrong=wrong,
        explanation=explanation,
        done=done,
        email=found.email,
        paused=found.paused_at is not None,
        path=_links(request).path(found),
    )
    return _private(shown)


def _typed(fields: dict[str, str]) -> Choice:
    """Return what a form that cannot be accepted holds, so that it comes back filled in."""
    topics = tuple(family for family in FAMILIES if f"topic-{family}" in fields)
    return Choice(fields.get("frequency", ""), topics, fields.get("query", "")[:LONGEST_QUERY])


def _find(request: Request, session: Any, signed: str) -> Subscription:
    found = _links(request).find(session, signed)
    if found is None:
        raise HTTPException(404, "This subscription has ended, or its link is not complete.")
    return found


def _ended(request: Request, links: Links, signed: str) -> Response:
    """Say that a subscription has ended, however often that is asked; but only to someone who had its link."""
    if not links.valid(signed):
        raise HTTPException(404)
    return _private(page(request, "subscribe_end.html", ended=True))


def _private(response: Response) -> Response:
    response.headers.update(PRIVATE)
    return response


def _links(request: Request) -> Links:
    return Links(request.app.state.settings.secret)


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database
