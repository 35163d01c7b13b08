"""How often one reader may do what costs us or bothers others, counted in the database and so across restarts.

Each kind of action has a number that is allowed within a window of time, which begins with the first of them. Who acts
is an account, an e-mail address or a visitor's address; only its hash is kept, until the window is over.
"""

from __future__ import annotations

import datetime
import ipaddress
import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, case, delete, select
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import Request

from offprint.daily.security import hashed
from offprint.store import Database, RateLimit, SignInLink, WebSession
from offprint.store.inserts import insert
from offprint.store.models import now as present

MINUTE, HOUR, DAY = 60, 3600, 86400
PURGED_AT_ONCE = 500


@dataclass(frozen=True)
class Limit:
    """How many are allowed within so many seconds, and what they are called."""

    most: int
    seconds: int
    what: str


LIMITS = {
    "sign-in": Limit(20, HOUR, "sign-ins from this address"),
    "sign-in-mail": Limit(5, HOUR, "sign-in links for this e-mail address"),
    "confirm": Limit(30, HOUR, "sign-ins from this address"),
    "subscribe": Limit(20, HOUR, "subscriptions from this address"),
    "subscribe-mail": Limit(5, HOUR, "subscription mails for this e-mail address"),
    "account": Limit(30, HOUR, "changes to this account"),
    "submit": Limit(20, DAY, "papers submitted by this account"),
    "comment": Limit(30, HOUR, "comments by this account"),
    "vote": Limit(200, HOUR, "votes by this account"),
    "authorship": Limit(10, DAY, "authorship claims by this account"),
    "run": Limit(20, 10 * MINUTE, "runs from this address"),
}
"""Every limit there is. The first word says what, and ``what`` says by whom."""


def allow(database: Database, kind: str, who: str, *, now: datetime.datetime | None = None) -> None:
    """Count an action, and refuse it when there were too many.

    Parameters
    ----------
    database : Database
    kind : str
        One of :data:`LIMITS`.
    who : str
        Whose actions are counted together.
    now : datetime, optional
        The present moment when left out.

    Raises
    ------
    HTTPException
        429, with the seconds to wait in ``Retry-After``.

    Examples
    --------
    >>> from offprint.store import Database
    >>> allow(Database("sqlite://"), "vote", "1")
    """
    limit, now = LIMITS[kind], now or present()
    with database.session() as session:
        count, expires_at = _count(session, kind, who, now, limit.seconds)
        if count == 1:
            forget_expired(session, RateLimit, now)
    if count > limit.most:
        wait = max(1, math.ceil((expires_at - now).total_seconds()))
        raise HTTPException(
            429, f"Too many {limit.what}. Try again in {_in_words(wait)}.", headers={"Retry-After": str(wait)}
        )


def visitor_address(request: Request) -> str:
    """Return what a visitor's requests are counted by: the IPv4 address, or the network of an IPv6 address.

    One household or server has a whole /64 network to itself, and could send each request from another address of it.
    """
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def forget_expired(
    session: Session, table: type[RateLimit] | type[SignInLink] | type[WebSession], now: datetime.datetime
) -> None:
    """Remove rows whose time is over, some at a time.

    Rows that another transaction has locked are left to it, so that two of these never wait for one another.
    """
    [key] = table.__mapper__.primary_key
    old = select(key).where(table.expires_at <= now).limit(PURGED_AT_ONCE).with_for_update(skip_locked=True)
    session.execute(delete(table).where(key.in_(old)), execution_options={"synchronize_session": False})


def _count(
    session: Session, kind: str, who: str, now: datetime.datetime, seconds: int
) -> tuple[int, datetime.datetime]:
    """Count one more in the window, or begin a new one, in one statement; return the count and the window's end."""
    key = f"{kind}:{hashed(who)}"
    end = now + datetime.timedelta(seconds=seconds)
    over: ColumnElement[bool] = RateLimit.expires_at <= now
    changes: dict[str, Any] = {
        "count": case((over, 1), else_=RateLimit.count + 1),
        "expires_at": case((over, end), else_=RateLimit.expires_at),
    }
    statement = (
        insert(session, RateLimit)
        .values(key=key, count=1, expires_at=end)
        .on_conflict_do_update(index_elements=[RateLimit.key], set_=changes)
        .returning(RateLimit.count, RateLimit.expires_at)
    )
    count, expires_at = session.execute(statement).one()
    return count, expires_at


def _in_words(seconds: int) -> str:
    for size, unit in ((HOUR, "hour"), (MINUTE, "minute")):
        if seconds > size:
            return f"{math.ceil(seconds / size)} {unit}s"
    return "a minute" if seconds > 1 else "a second"
