"""Who wants which mail: asking for it, confirming that by a mailed link, changing it, and ending it."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadData
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from offprint.daily.inputs import FieldError
from offprint.daily.mail.messages import one_line
from offprint.daily.search import LONGEST_QUERY, Query
from offprint.daily.security import hashed, signer
from offprint.papers.record import FAMILIES
from offprint.store import Subscription

FREQUENCIES = ("daily", "weekly")
SCOPES = ("everything", "topics", "query")
CONFIRM_WITHIN = datetime.timedelta(days=3)


@dataclass(frozen=True)
class Choice:
    """Which mail is wanted: how often, and of which papers; of all when neither topics nor a search are given."""

    frequency: str = "daily"
    topics: tuple[str, ...] = ()
    query: str = ""

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> Choice:
        """Read a form: ``frequency``, ``scope``, a field ``topic-…`` for each topic that is ticked, and ``query``.

        Raises
        ------
        FieldError
            Naming the field.
        """
        frequency, scope = fields.get("frequency", ""), fields.get("scope", "")
        if frequency not in FREQUENCIES:
            raise FieldError("frequency", "Choose daily or weekly.")
        if scope == "everything":
            return cls(frequency)
        if scope == "topics":
            topics = tuple(family for family in FAMILIES if f"topic-{family}" in fields)
            if not topics:
                raise FieldError("topics", "Choose at least one topic.")
            return cls(frequency, topics)
        if scope == "query":
            query = one_line(fields.get("query", ""))
            if len(query) > LONGEST_QUERY:
                raise FieldError("query", f"A search has at most {LONGEST_QUERY} characters.")
            if not Query.parse(query):
                raise FieldError("query", "This search asks for nothing: it needs a word to look for.")
            return cls(frequency, query=query)
        raise FieldError("scope", "Choose what the mails are to hold.")

    @classmethod
    def of(cls, subscription: Subscription) -> Choice:
        """Return what a subscription asks for."""
        return cls(subscription.frequency, tuple(subscription.topics), subscription.query)

    @property
    def scope(self) -> str:
        """The choice that the form offers."""
        return "query" if self.query else "topics" if self.topics else "everything"

    @property
    def about(self) -> str:
        """What the papers have in common.

        Examples
        --------
        >>> Choice(topics=("shift", "stream")).about, Choice(query="drift").about, Choice().about
        ('papers on shift or stream', 'papers found by “drift”', 'all papers')
        """
        if self.query:
            return f"papers found by “{self.query}”"
        return f"papers on {' or '.join(self.topics)}" if self.topics else "all papers"


@dataclass(frozen=True)
class Asked:
    """A subscription that was asked for, with the token of the link that confirms it; none when it is in force."""

    subscription: Subscription
    token: str | None


def ask(session: Session, email: str, choice: Choice, *, now: datetime.datetime) -> Asked:
    """Note that someone wants mail at an address, which only its owner can confirm; once for each choice."""
    forget_unconfirmed(session, now)
    known = _same(session, email, choice)
    if known is not None and known.confirmed_at is not None and known.paused_at is None:
        return Asked(known, None)
    if known is None:
        known = Subscription(
            email=email, frequency=choice.frequency, topics=list(choice.topics), query=choice.query, n_refused=0
        )
        session.add(known)
    token = secrets.token_urlsafe(32)
    known.token_hash, known.asked_at = hashed(token), now
    session.flush()
    return Asked(known, token)


def pending(session: Session, token: str, *, now: datetime.datetime) -> Subscription | None:
    """Return the subscription that a mailed link would confirm; ``None`` once it was used or is too old."""
    within = Subscription.token_hash == hashed(token), Subscription.asked_at > now - CONFIRM_WITHIN
    return session.scalar(select(Subscription).where(*within))


def confirm(session: Session, token: str, *, now: datetime.datetime) -> Subscription | None:
    """Put a subscription in force by its mailed link; ``None`` if the link was used or is too old."""
    found = pending(session, token, now=now)
    if found is None:
        return None
    used = update(Subscription).where(Subscription.id == found.id, Subscription.token_hash == found.token_hash)
    changes: dict[str, Any] = {"token_hash": None, "confirmed_at": now, "paused_at": None, "n_refused": 0}
    if found.confirmed_at is not None:  # it was paused
        changes["last_digest_at"] = now
    if session.execute(used.values(changes)).rowcount == 0:  # type: ignore[attr-defined]
        return None
    session.refresh(found)
    return found


def change(session: Session, subscription: Subscription, choice: Choice) -> Subscription:
    """Change what a subscription asks for, and end its pause. Two that then ask for the same become one."""
    same = _same(session, subscription.email, choice)
    if same is not None and same.id != subscription.id:
        if same.confirmed_at is not None:
            session.delete(subscription)
            return same
        session.delete(same)
    subscription.frequency, subscription.topics, subscription.query = (
        choice.frequency,
        list(choice.topics),
        choice.query,
    )
    subscription.paused_at, subscription.n_refused = None, 0
    return subscription


def forget_unconfirmed(session: Session, now: datetime.datetime) -> None:
    """Remove what nobody confirmed in time."""
    late = Subscription.confirmed_at.is_(None), Subscription.asked_at <= now - CONFIRM_WITHIN
    session.execute(delete(Subscription).where(*late))


class Links:
    """Signed addresses of subscriptions: whoever holds the link, which only mails hold, may change or end it.

    Parameters
    ----------
    secret : str
        The keys, as :func:`offprint.daily.security.signer` takes them.
    """

    def __init__(self, secret: str) -> None:
        self._signer = signer("subscription", secret)

    def path(self, subscription: Subscription) -> str:
        """Return the path of a subscription's page."""
        # A number that a database gives out again must not bring the link of someone else back to life.
        return f"/subscription/{self._signer.dumps([subscription.id, hashed(subscription.email)[:12]])}"

    def valid(self, signed: str) -> bool:
        """Whether we signed this, even if the subscription has ended since."""
        return self._read(signed) is not None

    def find(self, session: Session, signed: str) -> Subscription | None:
        """Return the subscription that a signed name belongs to."""
        read = self._read(signed)
        found = session.get(Subscription, read[0]) if read else None
        return found if read and found and hashed(found.email)[:12] == read[1] else None

    def _read(self, signed: str) -> tuple[int, str] | None:
        try:
            number, owner = self._signer.loads(signed)
        except (BadData, ValueError, TypeError):
            return None
        return number, owner


def _same(session: Session, email: str, choice: Choice) -> Subscription | None:
    """Return the subscription of an address to the same, the one in force first."""
    of_email: Iterable[Subscription] = session.scalars(
        select(Subscription).where(Subscription.email == email).order_by(Subscription.id)
    )
    same = [subscription for subscription in of_email if Choice.of(subscription) == choice]
    return min(same, key=lambda subscription: subscription.confirmed_at is None, default=None)
