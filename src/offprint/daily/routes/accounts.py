"""Signing in and out, and a reader's own data."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.background import BackgroundTask

from offprint.daily import accounts, inputs, limits, mail, personal_data
from offprint.daily.accounts import current
from offprint.daily.inputs import FieldError
from offprint.daily.origin import mailed_address
from offprint.daily.rendering import page
from offprint.daily.security import (
    SESSION_COOKIE,
    FormGuard,
    checked_form,
    cookie_name,
    over_tls,
    set_cookie,
)
from offprint.daily.waiting import waiting
from offprint.store import Account, Database

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]
Form = Annotated[dict[str, str], Depends(checked_form)]
PRIVATE = {"Cache-Control": "no-store"}

log = logging.getLogger(__name__)


@router.api_route("/sign-in", methods=READ)
def sign_in(request: Request, next: Annotated[str, Query()] = "/") -> Response:
    """Ask for the address that the link goes to."""
    next_path = inputs.local_path(next)
    if current(request) is not None:
        return RedirectResponse(next_path, 303)
    return _page(request, "sign_in.html", next_path=next_path, email="", problem=None)


@router.post("/sign-in")
def ask_for_link(request: Request, fields: Form) -> Response:
    """Mail a link. The answer, and the time it takes, is the same for every address."""
    next_path = inputs.local_path(fields.get("next", "/"))
    typed = fields.get("email", "")
    try:
        email = inputs.email_address(typed)
    except ValueError as error:
        context = {"next_path": next_path, "email": typed[:300], "problem": str(error)}
        return _page(request, "sign_in.html", status=422, **context)
    database: Database = request.app.state.database
    limits.allow(database, "sign-in", limits.visitor_address(request))
    limits.allow(database, "sign-in-mail", email)
    site = mailed_address(request)
    response = _page(request, "sign_in_sent.html", email=email)
    response.background = BackgroundTask(waiting, _mail_link, request, site, email, next_path)
    return response


@router.api_route("/sign-in/confirm", methods=READ)
def confirm(request: Request, token: Annotated[str, Query()] = "") -> Response:
    """Show a button that signs in: programs that open every link in a mail do not press it."""
    database: Database = request.app.state.database
    with database.session() as session:
        link = accounts.pending_link(session, token)
    if link is None:
        return _page(request, "sign_in_old.html", status=410)
    return _page(request, "sign_in_confirm.html", link=token, email=link.email)


@router.post("/sign-in/confirm")
def redeem(request: Request, fields: Form) -> Response:
    """Use the link up, and begin a session that no earlier cookie or form knows of."""
    database: Database = request.app.state.database
    guard: FormGuard = request.app.state.guard
    limits.allow(database, "confirm", limits.visitor_address(request))
    with database.session() as session:
        redeemed = accounts.redeem(session, fields.get("link", ""))
        if redeemed is not None and (former := accounts.session_token(request)):
            accounts.end_session(session, former)
    if redeemed is None:
        return _page(request, "sign_in_old.html", status=410)
    response = RedirectResponse(redeemed.next_path, 303)
    lifetime = int(accounts.SESSION_LIFETIME.total_seconds())
    set_cookie(request, response, SESSION_COOKIE, redeemed.token, lifetime)
    guard.rename(request, response)
    return response


@router.post("/sign-out")
def sign_out(request: Request, fields: Form) -> Response:
    """End this browser's session."""
    database: Database = request.app.state.database
    if token := accounts.session_token(request):
        with database.session() as session:
            accounts.end_session(session, token)
    return _signed_out(request)


@router.post("/account/sign-out")
def sign_out_everywhere(request: Request, fields: Form) -> Response:
    """End all sessions of the account."""
    database: Database = request.app.state.database
    with database.session() as session:
        accounts.end_sessions(session, _owner(request))
    return _signed_out(request)


@router.api_route("/account", methods=READ)
def account(request: Request, saved: Annotated[str, Query()] = "") -> Response:
    """Show the reader's own account."""
    own = _owner(request)
    return _page(
        request,
        "account.html",
        typed_name=own.name,
        typed_handle=own.handle,
        problem=None,
        field=None,
        saved=saved == "yes",
    )


@router.post("/account")
def rename(request: Request, fields: Form) -> Response:
    """Change name and handle."""
    own = _owner(request)
    database: Database = request.app.state.database
    limits.allow(database, "account", str(own.id))
    name, handle = fields.get("name", ""), fields.get("handle", "")
    try:
        with database.session() as session:
            accounts.rename(session, own, name, handle)
    except FieldError as error:
        context = {"typed_name": name[:300], "typed_handle": handle[:300], "problem": str(error), "field": error.field}
        return _page(request, "account.html", status=422, saved=False, **context)
    return RedirectResponse("/account?saved=yes", 303)


@router.api_route("/account/export", methods=READ)
def export(request: Request) -> Response:
    """Give all that is kept of the reader."""
    own = _owner(request)
    database: Database = request.app.state.database
    limits.allow(database, "account", str(own.id))
    with database.session() as session:
        content = personal_data.export(session, own)
    headers = PRIVATE | {"Content-Disposition": 'attachment; filename="offprint-account.json"'}
    return JSONResponse(content, headers=headers)


@router.api_route("/account/delete", methods=READ)
def ask_before_delete(request: Request) -> Response:
    """Say what goes, and ask for the handle to be typed."""
    _owner(request)
    return _page(request, "account_delete.html", problem=None)


@router.post("/account/delete")
def delete(request: Request, fields: Form) -> Response:
    """Remove the account and all that is kept of the reader."""
    own = _owner(request)
    if fields.get("handle", "").strip().lower() != own.handle:
        return _page(request, "account_delete.html", status=422, problem=f"Type {own.handle} to delete the account.")
    database: Database = request.app.state.database
    with database.session() as session:
        personal_data.delete_account(session, own)
    return _signed_out(request)


def _owner(request: Request) -> Account:
    """Return the account whose data the request is about: also a banned one's."""
    own = current(request)
    if own is None:
        raise accounts.SignInNeededError("/account")
    return own


def _page(request: Request, name: str, *, status: int = 200, **context: Any) -> Response:
    """Return a page that nothing keeps a copy of."""
    response = page(request, name, status=status, **context)
    response.headers.update(PRIVATE)
    return response


def _signed_out(request: Request) -> Response:
    response = RedirectResponse("/", 303)
    response.delete_cookie(
        cookie_name(request, SESSION_COOKIE), httponly=True, samesite="lax", secure=over_tls(request)
    )
    return response


def _mail_link(request: Request, site: str, email: str, next_path: str) -> None:
    """Make the link and mail it, after the answer is out."""
    state = request.app.state
    with state.database.session() as session:
        token = accounts.issue_link(session, email, next_path)
    where = f"{site}/sign-in/confirm?token={token}"
    minutes = int(accounts.LINK_LIFETIME.total_seconds() // 60)
    text = (
        f"Someone, probably you, asked to sign in to offprint as {email}.\n\n"
        f"To sign in, open this link within {minutes} minutes and press the button there:\n\n{where}\n\n"
        "The link works once. If you did not ask for it, nothing happens unless you open it.\n"
    )
    try:
        state.outbox.send(mail.compose(state.settings, to=email, subject="Your link to sign in to offprint", text=text))
    except mail.MailError as error:
        log.warning("a sign-in link could not be mailed: %s", error)
