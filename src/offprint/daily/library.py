"""The papers that readers find: records brought into the database, and the days that list them."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased
from starlette.exceptions import HTTPException

from offprint.daily import trending
from offprint.papers import Record, records
from offprint.store import Authorship, Comment, Database, Delivery, Listing, Paper, Vote

BATCH = 200

_ARXIV = re.compile(
    r"(?:arxiv:)?(\d{4}\.\d{4,5}|[a-z][a-z-]{1,15}(?:\.[a-z]{2})?/\d{7})(?:v\d{1,4})?", re.IGNORECASE | re.ASCII
)


def title_key(title: str) -> str:
    """Return what two spellings of a title share: its letters and digits, without case or accents.

    Examples
    --------
    >>> title_key("PFGM++: Unlocking the Potential") == title_key("Pfgm++ — unlocking  the potential")
    True
    """
    plain = unicodedata.normalize("NFKD", title).casefold()
    return re.sub(r"[\W_]+", "", plain)


def arxiv_name(text: str) -> str | None:
    """Return the arXiv id that a text is, in its usual spelling and without a version; ``None`` when it is none.

    Examples
    --------
    >>> arxiv_name("arXiv:2310.02987v2"), arxiv_name("math.GT/0309136"), arxiv_name("2310")
    ('2310.02987', 'math/0309136', None)
    """
    found = _ARXIV.fullmatch(text)
    if found is None:
        return None
    archive, slash, number = found[1].lower().partition("/")
    # arXiv names an old paper by its archive alone; the subject class after the dot is decoration.
    return f"{archive.partition('.')[0]}/{number}" if slash else archive


def load_records(database: Database, found: Iterable[Record] | None = None) -> int:
    """Bring records into the database, each listed on its day, and return how many there are. Twice changes nothing.

    A record takes over the row that an import may have made of its paper: the one with its arXiv id, its slug, or its
    title. What only an import knows (the abstract, the place on the page of the day) stays, and so does what readers
    did with any of these rows.

    Parameters
    ----------
    database : Database
    found : iterable of Record, optional
        All on record when left out.
    """
    waiting = iter(records().values() if found is None else found)
    total = 0
    with database.session() as session:
        while batch := list(islice(waiting, BATCH)):
            total += len(batch)
            known = _Known(session, batch)
            for record in batch:
                paper = known.paper(record)
                _update(paper, record)
                new_there = all(listing.day != record.day for listing in paper.listings)
                if new_there:
                    paper.listings.append(Listing(day=record.day, position=next_position(session, record.day)))
                session.flush()
                if new_there or paper in known.joined:
                    trending.refresh(session, paper)
    return total


def newest_day(session: Session) -> datetime.date | None:
    """Return the last day that lists a paper, or ``None`` when there is none."""
    return session.scalar(select(func.max(Listing.day)))


def find(session: Session, name: str) -> Paper | None:
    """Return the paper that an address names: by slug, by arXiv id, or by number for one that has neither.

    Of an arXiv id any version and any spelling will do.
    """
    if not name.isprintable():
        return None
    arxiv = arxiv_name(name)
    # One after the other: SQLite's planner may read the whole table for either of two.
    for column, wanted in ((Paper.arxiv, arxiv), (Paper.slug, name), (Paper.arxiv, name)):
        if wanted and (paper := session.scalar(select(Paper).where(column == wanted))) is not None:
            return paper
    return session.get(Paper, int(name)) if re.fullmatch(r"[1-9]\d{0,8}", name) else None


def find_or_404(session: Session, name: str) -> Paper:
    """Return the paper that an address names.

    Raises
    ------
    HTTPException
        404 if there is none.
    """
    if (found := find(session, name)) is None:
        raise HTTPException(404, "There is no such paper here.")
    return found


def address(paper: Paper) -> str:
    """Return the path of a paper's page: the shortest name it has."""
    return f"/papers/{paper.slug or paper.arxiv or paper.id}"


def code_address(paper: Paper) -> str | None:
    """Return where the authors' code is on the web; other addresses, which an import may hold, lead nowhere."""
    return paper.code if paper.code and paper.code.startswith(("https://", "http://")) else None


def next_position(session: Session, date: datetime.date) -> int:
    """Return the place after the last on a day's list."""
    last = session.scalar(select(func.max(Listing.position)).where(Listing.day == date))
    return 0 if last is None else last + 1


class _Known:
    """The rows that a batch of records may be about, found with one query."""

    def __init__(self, session: Session, batch: Sequence[Record]) -> None:
        self.session = session
        wanted = or_(
            Paper.arxiv.in_([record.arxiv for record in batch]),
            Paper.slug.in_([record.slug for record in batch]),
            Paper.title_key.in_([title_key(record.title) for record in batch]),
        )
        self.rows = list(session.scalars(select(Paper).where(wanted).order_by(Paper.id)))
        self.joined: set[Paper] = set()
        """Those that others were merged into."""

    def paper(self, record: Record) -> Paper:
        """Return the record's row, with every other row about the same paper merged into it, or a new one."""
        matches = list(dict.fromkeys(self._matches(record)))
        if not matches:
            paper = Paper()
            self.session.add(paper)
            self.rows.append(paper)
            return paper
        first, *others = matches
        for other in others:
            _absorb(self.session, first, other)
            self.session.delete(other)
            self.rows.remove(other)
            self.joined.add(first)
        # Before the slug and arXiv id are written, so that none is taken twice.
        self.session.flush()
        return first

    def _matches(self, record: Record) -> Iterator[Paper]:
        key = title_key(record.title)
        yield from (row for row in self.rows if row.slug == record.slug)
        yield from (row for row in self.rows if row.arxiv == record.arxiv and row.slug is None)
        yield from (row for row in self.rows if row.title_key == key and row.arxiv is None and row.slug is None)


def _update(paper: Paper, record: Record) -> None:
    """Write what the record says. SQLAlchemy sends only what differs."""
    paper.slug, paper.arxiv, paper.title, paper.title_key = (
        record.slug,
        record.arxiv,
        record.title,
        title_key(record.title),
    )
    paper.summary, paper.family, paper.year, paper.venue = record.summary, record.family, record.year, record.venue
    paper.code = record.code
    paper.claims_text = "\n".join(claim.statement for claim in record.claims)
    if paper.authors != list(record.authors):
        paper.authors = list(record.authors)


def _absorb(session: Session, kept: Paper, other: Paper) -> None:
    """Move what only ``other`` has to ``kept``: what was imported, what readers did, and what was mailed to them."""
    kept.abstract = kept.abstract or other.abstract
    kept.published_at = kept.published_at or other.published_at
    kept.categories = kept.categories or other.categories
    days = {listing.day for listing in kept.listings}
    kept.listings.extend([listing for listing in list(other.listings) if listing.day not in days])
    session.flush()
    session.execute(update(Comment).where(Comment.paper_id == other.id).values(paper_id=kept.id))
    tables: tuple[type[Vote | Authorship | Delivery], ...] = (Vote, Authorship, Delivery)
    for table in tables:
        # One for each reader: what they have of both stays as it is with the row that is kept.
        whose = "subscription_id" if table is Delivery else "account_id"
        known = aliased(table)
        both = exists().where(known.paper_id == kept.id, getattr(known, whose) == getattr(table, whose))
        moved = update(table).where(table.paper_id == other.id, ~both).values(paper_id=kept.id)
        session.execute(moved, execution_options={"synchronize_session": False})
