"""Storing entries in batches: matched to the papers there are, new ones inserted in bulk, each listed on its day."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Table, bindparam, func, or_, select, update
from sqlalchemy.orm import Session

from offprint.daily import trending
from offprint.daily.importing.entries import Entry
from offprint.daily.search.adding import add_papers
from offprint.store import Listing, Paper
from offprint.store.inserts import insert_many, one_of
from offprint.store.models import now

_PAPERS = cast(Table, Paper.__table__)
_LISTINGS = cast(Table, Listing.__table__)
_FACTS = ("arxiv", "title", "title_key", "authors", "abstract", "year", "code", "categories", "published_at", "hotness")
_ON_RECORD = {"abstract", "authors", "categories", "published_at"}
"""What an import may tell of a paper on record; the authors only where the record names none."""


@dataclass(frozen=True)
class Stored:
    """What became of some entries: how many were new, on record, and changed, and the paper of each, in order."""

    new: int
    on_record: int
    changed: int
    papers: tuple[int, ...]


@dataclass(eq=False, slots=True)
class _Row:
    """A paper while a batch is applied to it."""

    id: int | None
    slug: str | None
    facts: dict[str, Any]
    reacted: bool = False
    """Whether it has votes or comments, which count in its hotness."""
    days: set[datetime.date] = field(default_factory=set)
    listings: list[dict[str, Any]] = field(default_factory=list)
    changed: bool = False


class Writer:
    """Stores batches of one source.

    Parameters
    ----------
    authority : bool
        Whether the source is where papers come from (arXiv): what it says then replaces what was known of a paper
        that is not on record. What any other source says fills only what is missing.
    every_day : bool
        Whether a paper is listed on the entry's day even when another day lists it: the page of a day says which
        papers it had, while arXiv says when a paper was written.
    """

    def __init__(self, *, authority: bool, every_day: bool) -> None:
        self.authority = authority
        self.every_day = every_day
        self._places: dict[datetime.date, int] = {}

    def forget_places(self) -> None:
        """Read the last place of each day anew, after a batch that was rolled back."""
        self._places.clear()

    def store(self, session: Session, entries: Sequence[Entry]) -> Stored:
        """Store a batch in the session's transaction. Storing it again changes nothing."""
        rows = _Rows(session, entries)
        touched = [self._apply(rows, entry) for entry in entries]
        distinct = list(dict.fromkeys(touched))
        new = [row for row in distinct if row.id is None]
        changed = [row for row in distinct if row.changed and row.id is not None]
        self._insert(session, new)
        _update(session, changed)
        self._list(session, distinct)
        return Stored(
            new=len(new),
            on_record=sum(row.slug is not None for row in touched),
            changed=len(changed),
            papers=tuple(row.id for row in touched if row.id is not None),
        )

    def _apply(self, rows: _Rows, entry: Entry) -> _Row:
        row = rows.matching(entry)
        if row is None:
            row = rows.add(entry)
        else:
            self._tell(row, entry)
            if row.facts["title_key"] == entry.key:
                rows.know(row)
        if entry.day is not None and entry.day not in row.days and (self.every_day or not row.days):
            row.days.add(entry.day)
            row.listings.append({"day": entry.day, "submitter": entry.submitter, "submitted_at": entry.submitted_at})
            hotness = trending.listed_hotness(max(row.days))
            if not row.reacted and row.facts["hotness"] != hotness:
                row.facts["hotness"], row.changed = hotness, True
        return row

    def _tell(self, row: _Row, entry: Entry) -> None:
        """Let a paper know what an entry says and it may take from it."""
        for name, value in _said(entry).items():
            if not value:
                continue
            known = row.facts[name]
            allowed = row.slug is None or name in _ON_RECORD
            replaces = self.authority and not (row.slug and name == "authors")
            if allowed and known != value and (replaces or not known):
                row.facts[name], row.changed = value, True

    def _insert(self, session: Session, new: Sequence[_Row]) -> None:
        if not new:
            return
        added = {"added_at": now()}
        ids = add_papers(session, [row.facts | added for row in new])
        for row, number in zip(new, ids, strict=True):
            row.id = number

    def _list(self, session: Session, rows: Iterable[_Row]) -> None:
        wanted = [(row, listing) for row in rows for listing in row.listings]
        if not wanted:
            return
        unknown = {listing["day"] for _, listing in wanted} - self._places.keys()
        if unknown:
            last = select(Listing.day, func.max(Listing.position)).where(Listing.day.in_(unknown)).group_by(Listing.day)
            self._places |= dict.fromkeys(unknown, 0)
            self._places |= {day: position + 1 for day, position in session.execute(last)}
        listed = []
        for row, listing in wanted:
            listed.append(listing | {"paper_id": row.id, "position": self._places[listing["day"]]})
            self._places[listing["day"]] += 1
        insert_many(session.connection(), _LISTINGS, listed)
        for row in dict.fromkeys(row for row, _ in wanted if row.reacted):
            paper = session.get(Paper, row.id)
            if paper is not None:
                session.refresh(paper)
                trending.refresh(session, paper)
        session.flush()


class _Rows:
    """The papers that a batch may be about, found with two queries."""

    def __init__(self, session: Session, entries: Sequence[Entry]) -> None:
        self.by_arxiv: dict[str, _Row] = {}
        self.by_key: defaultdict[str, list[_Row]] = defaultdict(list)
        connection = session.connection()
        wanted = or_(
            one_of(connection, _PAPERS.c.arxiv, {entry.arxiv for entry in entries if entry.arxiv}),
            one_of(connection, _PAPERS.c.title_key, {entry.key for entry in entries}),
        )
        columns = [_PAPERS.c[name] for name in ("id", "slug", "n_votes", "n_comments", *_FACTS)]
        found: dict[int, _Row] = {}
        for number, slug, votes, comments, *facts in session.execute(select(*columns).where(wanted).order_by(Paper.id)):
            row = _Row(number, slug, dict(zip(_FACTS, facts, strict=True)), bool(votes or comments))
            found[number] = row
            self.know(row)
        if found:
            days = select(Listing.paper_id, Listing.day).where(Listing.paper_id.in_(found))
            for number, day in session.execute(days):
                found[number].days.add(day)

    def know(self, row: _Row) -> None:
        """Let a row be found by what it is called now."""
        if row.facts["arxiv"]:
            self.by_arxiv[row.facts["arxiv"]] = row
        if row not in self.by_key[row.facts["title_key"]]:
            self.by_key[row.facts["title_key"]].append(row)

    def matching(self, entry: Entry) -> _Row | None:
        """Return the row that is about the same paper: by arXiv id, then by title, one on record before others."""
        if entry.arxiv in self.by_arxiv:
            return self.by_arxiv[entry.arxiv]
        # A paper that has an arXiv id is no other one that shares its title.
        same = [row for row in self.by_key.get(entry.key, ()) if not (entry.arxiv and row.facts["arxiv"])]
        return min(same, key=lambda row: (row.slug is None, row.id is None, row.id or 0), default=None)

    def add(self, entry: Entry) -> _Row:
        """Make the row of a paper that is new."""
        row = _Row(None, None, _said(entry) | {"hotness": 0.0})
        self.know(row)
        return row


def _said(entry: Entry) -> dict[str, Any]:
    """Return what the entry says, under the names of the columns; empty or ``None`` where it says nothing."""
    return {
        "arxiv": entry.arxiv,
        "title": entry.title,
        "title_key": entry.key,
        "authors": list(entry.authors),
        "abstract": entry.abstract,
        "year": entry.published.year if entry.published else None,
        "code": entry.code,
        "categories": list(entry.categories),
        "published_at": entry.published,
    }


def _update(session: Session, rows: Sequence[_Row]) -> None:
    if not rows:
        return
    statement = update(_PAPERS).where(_PAPERS.c.id == bindparam("row"))
    values = statement.values({name: bindparam(name) for name in _FACTS})
    session.connection().execute(values, [row.facts | {"row": row.id} for row in rows])
