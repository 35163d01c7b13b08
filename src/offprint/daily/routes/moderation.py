"""The page of moderators, and what they do from there and from papers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from offprint.daily import authorship, comments, library, moderation
from offprint.daily.accounts import writer
from offprint.daily.rendering import page
from offprint.daily.security import checked_form
from offprint.store import Comment, Database

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]
Form = Annotated[dict[str, str], Depends(checked_form)]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.api_route("/moderation", methods=READ)
def overview(request: Request) -> Response:
    """Show what waits for moderators, and what was said last."""
    _moderator(request)
    database: Database = request.app.state.database
    with database.session() as session:
        claims = [(claim, claim.account, claim.paper) for claim in authorship.pending(session)]
        rows = moderation.newest_comments(session)
        banned = moderation.banned(session)
    shown = [(row.paper, comments.shown(row, None, {}), row.account) for row in rows]
    response = page(request, "moderation.html", claims=claims, comments=shown, banned=banned)
    response.headers["Cache-Control"] = "no-store"
    return response


@router.post("/comments/{number}/hide")
def hide(request: Request, number: Number, fields: Form) -> Response:
    """Hide a comment, or show it again."""
    _moderator(request)
    if (wanted := fields.get("hidden")) not in ("yes", "no"):
        raise HTTPException(400, "A comment is hidden or not: yes or no.")
    database: Database = request.app.state.database
    with database.session() as session:
        comment = session.get(Comment, number)
        if comment is None:
            raise HTTPException(404, "There is no such comment.")
        comments.hide(session, comment, wanted == "yes")
        where = f"{library.address(comment.paper)}#comments"
    return RedirectResponse("/moderation#comments" if fields.get("from") == "moderation" else where, 303)


@router.post("/moderation/authorship")
def decide(request: Request, fields: Form) -> Response:
    """Confirm that a reader is an author, or refuse it."""
    _moderator(request)
    account_id, paper_id = _number(fields, "account"), _number(fields, "paper")
    database: Database = request.app.state.database
    with database.session() as session:
        if fields.get("decision") == "confirm":
            try:
                authorship.confirm(session, account_id, paper_id)
            except ValueError as error:
                raise HTTPException(409, str(error)) from None
        elif fields.get("decision") == "refuse":
            authorship.withdraw(session, account_id, paper_id)
        else:
            raise HTTPException(400, "Confirm or refuse.")
    return RedirectResponse("/moderation", 303)


@router.post("/moderation/ban")
def ban(request: Request, fields: Form) -> Response:
    """Ban an account, or let it take part again."""
    _moderator(request)
    if (wanted := fields.get("banned")) not in ("yes", "no"):
        raise HTTPException(400, "An account is banned or not: yes or no.")
    database: Database = request.app.state.database
    handle = fields.get("handle", "")
    try:
        with database.session() as session:
            if wanted == "yes":
                moderation.ban(session, handle, hide_comments="hide" in fields)
            else:
                moderation.unban(session, handle)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    return RedirectResponse("/moderation#accounts", 303)


def _moderator(request: Request) -> None:
    """Refuse everyone else, as if nothing were there."""
    if not writer(request, "/moderation").moderator:
        raise HTTPException(404)


def _number(fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise HTTPException(400, f"{name} must be a number.")
    return int(text)
