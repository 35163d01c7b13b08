"""Which subscriptions are due for a digest, and which papers it holds.

A digest holds what is new since the subscription was last looked at: papers listed on a later day, added here or
brought to a day's page after that moment, listed within the last 7 days (14 for a weekly digest), asked for by the
subscription, and never mailed to the same address before.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Select, exists, func, or_, select
from sqlalchemy.orm import Session

from offprint.daily.periods import Period
from offprint.daily.search import Query, matches
from offprint.store import Delivery, Listing, Paper, Subscription

MOST_PAPERS = 40
DAY = datetime.timedelta(days=1)
FIRST = {"daily": DAY, "weekly": 7 * DAY}
"""How long before it was confirmed a subscription's first digest begins."""

BOUND = {"daily": 7, "weekly": 14}
"""How many days back a paper may be listed."""

OVERLAP = datetime.timedelta(minutes=5)
"""How long a transaction that adds papers may take to be seen."""


@dataclass(frozen=True)
class Selected:
    """The papers of a digest, the hottest first, and how many there are in all."""

    papers: tuple[Paper, ...]
    total: int


def due(session: Session, now: datetime.datetime, frequency: str | None = None) -> list[int]:
    """Return the numbers of the subscriptions that are to be looked at: weekly ones once from Monday on."""
    monday = datetime.datetime.combine(now.date() - now.weekday() * DAY, datetime.time(), datetime.UTC)
    looked_at = func.coalesce(Subscription.last_digest_at, Subscription.confirmed_at)
    is_due = or_(Subscription.frequency == "daily", looked_at < monday)
    wanted = [Subscription.confirmed_at.is_not(None), Subscription.paused_at.is_(None), is_due]
    if frequency is not None:
        wanted.append(Subscription.frequency == frequency)
    return list(session.scalars(select(Subscription.id).where(*wanted).order_by(Subscription.id)))


def period(subscription: Subscription, now: datetime.datetime) -> Period:
    """Return the day or week that a subscription gets one digest for: a weekly one tells of the week before."""
    if subscription.frequency == "weekly":
        return Period.holding("week", now.date() - 7 * DAY)
    return Period.holding("day", now.date())


def select_papers(
    session: Session, subscription: Subscription, now: datetime.datetime, without: Collection[int] = ()
) -> Selected:
    """Return what a subscription's digest holds now.

    Parameters
    ----------
    session : Session
    subscription : Subscription
        In force.
    now : datetime
    without : collection of int
        Papers to leave out.
    """
    frequency = subscription.frequency
    since = subscription.last_digest_at or (subscription.confirmed_at or now) - FIRST[frequency]
    first, last = now.date() - BOUND[frequency] * DAY, now.date()
    wanted = [Paper.id.in_(_listed(since, first, last)), ~_mailed(session, subscription.email)]
    if subscription.topics:
        wanted.append(Paper.family.in_(subscription.topics))
    if subscription.query:
        wanted.append(Paper.id.in_(_found(session, subscription.query, first, last)))
    if without:
        wanted.append(Paper.id.not_in(without))
    papers = select(Paper).where(*wanted).order_by(Paper.hotness.desc(), Paper.id.desc()).limit(MOST_PAPERS)
    shown = tuple(session.scalars(papers))
    if len(shown) < MOST_PAPERS:
        return Selected(shown, len(shown))
    return Selected(shown, session.scalar(select(func.count()).select_from(Paper).where(*wanted)) or 0)


def _listed(since: datetime.datetime, first: datetime.date, last: datetime.date) -> Select[int]:
    """Return the papers of these days that have come since a moment."""
    new = Listing.day > since.date(), Paper.added_at > since - OVERLAP, Listing.submitted_at > since - OVERLAP
    listed = select(Listing.paper_id).join(Paper, Paper.id == Listing.paper_id)
    return listed.where(Listing.day.between(first, last), or_(*new))


def _mailed(session: Session, email: str) -> ColumnElement[bool]:
    """Whether a paper is in a mail to an address, whichever of its subscriptions that was for."""
    # Read first, so that every database looks deliveries up by subscription and paper, of which there is one at most.
    of_reader = list(session.scalars(select(Subscription.id).where(Subscription.email == email)))
    return exists().where(Delivery.subscription_id.in_(of_reader), Delivery.paper_id == Paper.id)


def _found(session: Session, typed: str, first: datetime.date, last: datetime.date) -> list[int]:
    """Return the papers of these days that a saved search finds."""
    query = Query.parse(typed)
    since, until = query.filters.since or first, query.filters.until or last
    filters = replace(query.filters, since=max(since, first), until=min(until, last))
    return list(matches(session, replace(query, filters=filters)).ids)
