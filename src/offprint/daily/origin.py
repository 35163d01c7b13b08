"""Where requests come from, and the address of this site: what may be believed of either."""

from __future__ import annotations

import ipaddress

from starlette.exceptions import HTTPException
from starlette.requests import Request

from offprint.daily.settings import Settings

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers that say that a proxy stands between."""


def is_loopback(host: str) -> bool:
    """Whether a host's address leads to this machine.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("192.0.2.7")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_here(request: Request) -> bool:
    """Whether a request comes from this machine, and not by way of a proxy on it."""
    near = request.client is not None and is_loopback(request.client.host)
    return near and not any(name in request.headers for name in FORWARDED)


def base_address(request: Request) -> str:
    """Return the address of the site, without a slash at its end: as it is set, or else as it was asked for."""
    settings: Settings = request.app.state.settings
    return settings.base_url or str(request.base_url).rstrip("/")


def mailed_address(request: Request) -> str:
    """Return the address of the site that links in mails begin with, without a slash at its end.

    Whoever sends a request chooses its ``Host``, and could have a link that signs someone else in lead to a server of
    their own. So it counts only where it is this server's own address; otherwise the operator has to say.

    Raises
    ------
    HTTPException
        503 if ``OFFPRINT_BASE_URL`` is not set and the request does not name this server by its own address.
    """
    settings: Settings = request.app.state.settings
    asked, serving = request.url.hostname or "", (request.scope.get("server") or ("", None))[0]
    if not settings.base_url and asked != serving and not is_loopback(asked):
        raise HTTPException(503, "The operator of this site has to set OFFPRINT_BASE_URL before it can mail links.")
    return base_address(request)
