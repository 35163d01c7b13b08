"""Addresses: those that mail goes to, and the one that links in mails begin with."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.requests import Request

from offprint.daily.mail.transport import is_loopback
from offprint.daily.settings import Settings

LONGEST_ADDRESS = 254
LONGEST_LOCAL_PART = 64
LOCAL_PART = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|localhost")


def address(typed: str) -> str:
    """Return a mail address as it is stored and written to: in lower case, its domain in ASCII.

    Raises
    ------
    ValueError
        If mail cannot be sent there, in words for the reader. Quoted names, comments and spaces are refused, so that
        none can add a header or a recipient.

    Examples
    --------
    >>> address(" Ada@Example.ORG "), address("ada@bücher.example")
    ('ada@example.org', 'ada@xn--bcher-kva.example')
    """
    local, at, domain = typed.strip(" ").lower().rpartition("@")
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        domain = ""
    whole = f"{local}@{domain}"
    valid = at and LOCAL_PART.fullmatch(local) and DOMAIN.fullmatch(domain)
    if not valid or len(local) > LONGEST_LOCAL_PART or len(whole) > LONGEST_ADDRESS:
        raise ValueError("This is not a mail address. One looks like ada@example.org.")
    return whole


def site_address(settings: Settings, request: Request) -> str:
    """Return the address that links in mails begin with, without a slash at its end.

    Whoever sends a request chooses its ``Host``, and could have a link that signs someone else in lead to a server of
    their own. So it counts only where it is this server's own address; otherwise the operator has to say.

    Raises
    ------
    HTTPException
        503 if ``OFFPRINT_BASE_URL`` is not set and the request does not name this server by its own address.
    """
    if settings.base_url:
        return settings.base_url
    asked, serving = request.url.hostname or "", (request.scope.get("server") or ("", None))[0]
    if asked == serving or is_loopback(asked):
        return str(request.base_url).rstrip("/")
    raise HTTPException(503, "The operator of this site has to set OFFPRINT_BASE_URL before it can mail links.")
