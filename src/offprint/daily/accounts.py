"""Readers who sign in: by a link that is mailed to them, and by nothing else."""

from __future__ import annotations

from starlette.requests import Request

from offprint.store import Account

SESSION_COOKIE = "offprint_session"


def current(request: Request) -> Account | None:
    """Return the account that this request's browser is signed in to."""
    return None
