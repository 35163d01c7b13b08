"""Filters as conditions on rows."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import ColumnElement, and_, exists, func, not_, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from offprint.daily.search.query import Filters, Query
from offprint.store import Listing, Paper

Identity = ColumnElement[int] | InstrumentedAttribute[int]

OTHER = aliased(Paper)
"""A second look at ``papers``, where the first is what is listed."""


def conditions(
    identity: Identity, query: Query, filters: Filters, *, member: Identity | None = None
) -> list[ColumnElement[bool]]:
    """Return what a query's filters and those chosen beside it ask of the paper with this id.

    Parameters
    ----------
    identity : ColumnElement
        The column with the paper's id: of the table ``papers``, or of an index over it.
    query : Query
    filters : Filters
    member : ColumnElement, optional
        The same, to be looked for in lists of ids; for a database that takes the first form as an invitation to look
        each id of the list up.
    """
    member = identity if member is None else member
    asked = [condition for chosen in (query.filters, filters) for condition in _conditions(identity, member, chosen)]
    return asked + [not_(and_(*_conditions(identity, member, other))) for other in query.unless]


def _conditions(identity: Identity, member: Identity, filters: Filters) -> Iterator[ColumnElement[bool]]:
    listed = []
    if filters.since is not None:
        listed.append(Listing.day >= filters.since)
    if filters.until is not None:
        listed.append(Listing.day <= filters.until)
    if listed:
        yield member.in_(select(Listing.paper_id).where(*listed))
        # Follows from the former, and lets an index that goes by id leave out what is too old or too new.
        if filters.since is not None:
            yield identity >= select(func.min(Listing.paper_id)).where(Listing.day >= filters.since).scalar_subquery()
        if filters.until is not None:
            yield identity <= select(func.max(Listing.paper_id)).where(Listing.day <= filters.until).scalar_subquery()
    for trait in _traits(filters):
        yield member.in_(select(Paper.id).where(trait))
    for trait in _usual_traits(filters):
        yield exists().where(OTHER.id == identity, trait)


def _usual_traits(filters: Filters) -> Iterator[ColumnElement[bool]]:
    """Yield conditions on a row of ``papers`` that most rows meet: quicker to look at than to list."""
    if filters.has_code is False:
        yield OTHER.code.is_(None)
    if filters.runs_here is False:
        yield OTHER.runs_here.is_(False)
    if filters.verdict == "unmeasured":
        yield OTHER.n_reproduced + OTHER.n_weaker + OTHER.n_not_reproduced == 0


def _traits(filters: Filters) -> Iterator[ColumnElement[bool]]:
    """Yield conditions on a row of ``papers`` that an index helps to list."""
    if filters.families:
        yield Paper.family.in_(filters.families)
    if filters.years is not None:
        yield Paper.year.between(*filters.years)
    if filters.has_code:
        yield Paper.code.is_not(None)
    if filters.runs_here:
        yield Paper.runs_here.is_(True)
    if filters.verdict == "reproduced":
        yield and_(Paper.n_claims > 0, Paper.n_reproduced == Paper.n_claims)
    elif filters.verdict == "partly":
        some = Paper.n_reproduced + Paper.n_weaker > 0
        yield and_(Paper.n_claims > 0, some, Paper.n_reproduced < Paper.n_claims)
    elif filters.verdict == "not-reproduced":
        none = Paper.n_reproduced + Paper.n_weaker == 0
        yield and_(Paper.n_claims > 0, none, Paper.n_not_reproduced > 0)
