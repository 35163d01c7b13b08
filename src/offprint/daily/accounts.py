"""Readers who sign in: by a link that is mailed to them, and by nothing else."""

from __future__ import annotations

import datetime
import secrets
import string
from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import Request

from offprint.daily import inputs
from offprint.daily.inputs import FieldError
from offprint.daily.limits import forget_expired
from offprint.daily.security import SESSION_COOKIE, cookie_name, hashed
from offprint.store import Account, Database, Listing, SignInLink, WebSession
from offprint.store.models import now as present

LINK_LIFETIME = datetime.timedelta(minutes=15)
SESSION_LIFETIME = datetime.timedelta(days=30)
HANDLE_ALPHABET = string.ascii_lowercase + string.digits


class SignInNeededError(HTTPException):
    """What was asked is for readers who are signed in; they go to sign in and come back.

    Parameters
    ----------
    next_path : str
        Where to go afterwards.
    """

    def __init__(self, next_path: str) -> None:
        self.address = f"/sign-in?next={quote(next_path, safe='/')}"
        super().__init__(303, "Sign in first.", headers={"Location": self.address})


@dataclass(frozen=True)
class Redeemed:
    """A sign-in link that was just used: the new session's token, and where its reader wanted to go."""

    token: str
    next_path: str


def current(request: Request) -> Account | None:
    """Return the account that this request's browser is signed in to, looked up once a request."""
    if not hasattr(request.state, "account"):
        request.state.account = None
        if token := session_token(request):
            database: Database = request.app.state.database
            with database.reading() as session:
                request.state.account = session.scalar(
                    select(Account)
                    .join(WebSession, WebSession.account_id == Account.id)
                    .where(WebSession.token_hash == hashed(token), WebSession.expires_at > present())
                )
    found: Account | None = request.state.account
    return found


def writer(request: Request, next_path: str = "/") -> Account:
    """Return the account on whose behalf this request may change something.

    Raises
    ------
    SignInNeededError
        If the browser is signed in to none.
    HTTPException
        403 if the account is banned.
    """
    account = current(request)
    if account is None:
        raise SignInNeededError(next_path)
    if account.banned:
        raise HTTPException(403, "This account may read, but no longer take part.")
    return account


def session_token(request: Request) -> str:
    """Return the session's token that the browser sent; empty when it sent none that could be ours."""
    token = request.cookies.get(cookie_name(request, SESSION_COOKIE), "")
    return token if 20 <= len(token) <= 100 and token.isascii() else ""


def issue_link(session: Session, email: str, next_path: str, *, now: datetime.datetime | None = None) -> str:
    """Make a link that signs the owner of an address in, and return its token. Only its hash is kept."""
    now = now or present()
    forget_expired(session, SignInLink, now)
    token = secrets.token_urlsafe(32)
    session.add(SignInLink(token_hash=hashed(token), email=email, next_path=next_path, expires_at=now + LINK_LIFETIME))
    return token


def pending_link(session: Session, token: str, *, now: datetime.datetime | None = None) -> SignInLink | None:
    """Return the link with this token while it can be used. Looking does not use it up."""
    link = session.get(SignInLink, hashed(token))
    return link if link is not None and link.used_at is None and link.expires_at > (now or present()) else None


def redeem(session: Session, token: str, *, now: datetime.datetime | None = None) -> Redeemed | None:
    """Use a link up and begin a session for the owner of its address, whose account is made if there is none.

    Of any number of requests with one link, at the same time or not, one is given a session.
    """
    now = now or present()
    used = session.execute(
        update(SignInLink)
        .where(SignInLink.token_hash == hashed(token), SignInLink.used_at.is_(None), SignInLink.expires_at > now)
        .values(used_at=now)
        .returning(SignInLink.email, SignInLink.next_path)
    ).one_or_none()
    if used is None:
        return None
    account = _account_of(session, used.email)
    forget_expired(session, WebSession, now)
    fresh = secrets.token_urlsafe(32)
    session.add(
        WebSession(token_hash=hashed(fresh), account_id=account.id, created_at=now, expires_at=now + SESSION_LIFETIME)
    )
    return Redeemed(fresh, used.next_path)


def end_session(session: Session, token: str) -> None:
    """Sign a browser out."""
    session.execute(delete(WebSession).where(WebSession.token_hash == hashed(token)))


def end_sessions(session: Session, account: Account) -> None:
    """Sign a reader out of every browser."""
    session.execute(delete(WebSession).where(WebSession.account_id == account.id))


def rename(session: Session, account: Account, name: str, handle: str) -> None:
    """Change the name that a reader is shown by and the handle, also where papers say who submitted them.

    Raises
    ------
    FieldError
        If one of them cannot be taken.
    """
    try:
        name = inputs.display_name(name)
    except ValueError as error:
        raise FieldError("name", str(error)) from None
    own = session.get_one(Account, account.id)
    own.name = name
    if handle.strip() == own.handle:  # which may be older than the rules
        return
    try:
        handle = inputs.handle(handle)
    except ValueError as error:
        raise FieldError("handle", str(error)) from None
    # Also one under which papers were imported: it is somebody's elsewhere.
    others = Listing.submitter == handle, Listing.account_id.is_distinct_from(own.id)
    if session.scalar(select(Listing.id).where(*others).limit(1)) is not None:
        raise FieldError("handle", "This handle is taken.")
    own.handle = handle
    try:
        session.flush()
    except IntegrityError:
        raise FieldError("handle", "This handle is taken.") from None
    session.execute(update(Listing).where(Listing.account_id == own.id).values(submitter=handle))


def _account_of(session: Session, email: str) -> Account:
    """Return the account of an address, made if there is none: also by two links that are used at once."""
    mine = select(Account).where(Account.email == email)
    if (account := session.scalar(mine)) is not None:
        return account
    while True:
        # Nothing of the address, which is nobody else's business.
        handle = "reader-" + "".join(secrets.choice(HANDLE_ALPHABET) for _ in range(6))
        try:
            with session.begin_nested():
                account = Account(email=email, handle=handle, name=handle)
                session.add(account)
            return account
        except IntegrityError:
            if (account := session.scalar(mine)) is not None:
                return account
