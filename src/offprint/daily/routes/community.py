"""What readers do with papers: vote, comment, claim to be an author."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException

from offprint.daily import authorship, comments, library, limits, votes
from offprint.daily.accounts import SignInNeededError, current, writer
from offprint.daily.inputs import local_path
from offprint.daily.rendering import fragment, page
from offprint.daily.security import FormGuard, checked_form, checked_text
from offprint.store import Account, Comment, Database, Paper

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]
Form = Annotated[dict[str, str], Depends(checked_form)]
Text = Annotated[dict[str, str], Depends(checked_text)]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.post("/papers/{name:path}/vote")
def vote(request: Request, name: str, fields: Form) -> Response:
    """Set whether the reader votes for a paper; go back to where the form was, or answer htmx with the new count."""
    if (wanted := fields.get("vote")) not in ("up", "none"):
        raise HTTPException(400, "A vote is up or none.")
    database: Database = request.app.state.database
    guard: FormGuard = request.app.state.guard
    with database.session() as session:
        paper = library.find_or_404(session, name)
    reader = writer(request, library.address(paper))
    limits.allow(database, "vote", str(reader.id))
    with database.session() as session:
        paper = votes.vote(session, reader, paper, wanted == "up")
    if request.headers.get("hx-request"):
        shown = {"paper": paper, "voted": wanted == "up", "account": reader}
        return HTMLResponse(fragment("_vote.html", form_token=partial(guard.token, request), **shown))
    return RedirectResponse(_back(request) or library.address(paper), 303)


@router.post("/papers/{name:path}/comments")
def add_comment(request: Request, name: str, fields: Text) -> Response:
    """Add a comment."""
    database: Database = request.app.state.database
    with database.session() as session:
        paper = library.find_or_404(session, name)
    reader = writer(request, library.address(paper))
    limits.allow(database, "comment", str(reader.id))
    body = fields.get("body", "")
    try:
        with database.session() as session:
            comment = comments.add(session, reader, paper, body)
            after = comments.place(session, comment)
    except ValueError as error:
        where = f"{library.address(paper)}/comments"
        return page(
            request, "comment.html", status=422, paper=paper, action=where, body=body, problem=str(error), edits=False
        )
    return RedirectResponse(_anchor(paper, comment.id, after), 303)


@router.api_route("/comments/{number}/edit", methods=READ)
def edit_form(request: Request, number: Number) -> Response:
    """Show a comment's text for editing."""
    database: Database = request.app.state.database
    with database.session() as session:
        comment = _own_comment(request, session, number)
        paper = comment.paper
    action = f"/comments/{number}/edit"
    return page(request, "comment.html", paper=paper, action=action, body=comment.body, problem=None, edits=True)


@router.post("/comments/{number}/edit")
def edit(request: Request, number: Number, fields: Text) -> Response:
    """Replace a comment's text."""
    database: Database = request.app.state.database
    reader = writer(request, f"/comments/{number}/edit")
    limits.allow(database, "comment", str(reader.id))
    body = fields.get("body", "")
    with database.session() as session:
        paper = _own_comment(request, session, number).paper
    try:
        with database.session() as session:
            comment = _own_comment(request, session, number)
            comments.edit(session, comment, body)
            after = comments.place(session, comment)
    except ValueError as error:
        action = f"/comments/{number}/edit"
        return page(
            request, "comment.html", status=422, paper=paper, action=action, body=body, problem=str(error), edits=True
        )
    return RedirectResponse(_anchor(paper, number, after), 303)


@router.post("/comments/{number}/delete")
def delete(request: Request, number: Number, fields: Form) -> Response:
    """Delete a comment."""
    database: Database = request.app.state.database
    with database.session() as session:
        comment = _own_comment(request, session, number)
        paper = comment.paper
        comments.remove(session, comment)
    return RedirectResponse(f"{library.address(paper)}#comments", 303)


@router.post("/papers/{name:path}/authorship")
def claim(request: Request, name: str, fields: Text) -> Response:
    """Note that the reader says to be one of the paper's authors, or no longer does."""
    database: Database = request.app.state.database
    with database.session() as session:
        paper = library.find_or_404(session, name)
    where = f"{library.address(paper)}#authors-here"
    reader = writer(request, library.address(paper))
    limits.allow(database, "authorship", str(reader.id))
    try:
        with database.session() as session:
            if fields.get("withdraw"):
                authorship.withdraw(session, reader.id, paper.id)
            else:
                authorship.claim(session, reader, paper, fields.get("author", ""))
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    return RedirectResponse(where, 303)


def _back(request: Request) -> str | None:
    """Return the page of ours that the reader was on, where the browser says so."""
    try:
        was = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return None
    if not was.path or was.netloc != request.headers.get("host"):
        return None
    return local_path(f"{was.path}?{was.query}" if was.query else was.path)


def _own_comment(request: Request, session: Session, number: int) -> Comment:
    """Return a comment of the reader's own."""
    reader: Account | None = current(request)
    if reader is None:
        raise SignInNeededError(f"/comments/{number}/edit")
    comment = session.get(Comment, number)
    if comment is None or comment.account_id != writer(request).id:
        raise HTTPException(404, "You have no such comment.")
    return comment


def _anchor(paper: Paper, number: int, after: int) -> str:
    return f"{library.address(paper)}{f'?after={after}' if after else ''}#comment-{number}"
