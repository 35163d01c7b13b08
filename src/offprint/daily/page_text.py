"""Reading the plain text of a daily page: header lines, a day heading, then a title line and an abstract per paper."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from offprint.daily.library import load_records, next_position, title_key
from offprint.store import Database, Listing, Paper

LONGEST_TITLE = 300
LONGEST_ABSTRACT = 20_000

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_HEADING = re.compile(rf"({'|'.join(_MONTHS)})[a-z]*\.? (\d{{1,2}})(?:, (\d{{4}}))?", re.IGNORECASE)


@dataclass(frozen=True)
class Skipped:
    """Something in the file that could not be used, and where it begins."""

    line: int
    reason: str
    text: str

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= 60 else self.text[:59] + "…"
        return f"line {self.line}: {self.reason}: {shown!r}"


@dataclass(frozen=True)
class PageTextReport:
    """What an import found and did."""

    days: tuple[datetime.date, ...] = ()
    papers: int = 0
    matched: int = 0
    new: int = 0
    skipped: tuple[Skipped, ...] = ()

    def __str__(self) -> str:
        days = ", ".join(day.isoformat() for day in self.days)
        first = f"{days}: {self.papers} papers, {self.matched} on record, {self.new} new, {len(self.skipped)} skipped"
        return "\n".join([first, *map(str, self.skipped)])


@dataclass(frozen=True)
class Entry:
    """A paper as the page gives it."""

    line: int
    day: datetime.date
    title: str
    abstract: str


@dataclass
class _Reader:
    """Walks the lines of a page and keeps what cannot be used."""

    year: int
    skipped: list[Skipped] = field(default_factory=list)

    def entries(self, lines: list[str | None]) -> Iterator[Entry]:
        """Yield each paper. ``None`` stands for a line that is not valid text."""
        day: datetime.date | None = None
        title: tuple[int, str] | None = None
        numbered = iter(enumerate(lines, start=1))
        for number, line in numbered:
            if line == "":
                continue
            if line is not None and (heading := _HEADING.fullmatch(line)):
                self._lacks_abstract(title)
                day, title = self._date(number, heading), None
            elif day is None:
                continue  # the header of the page
            elif line is None:
                self._skip(number, "not valid UTF-8", "" if title is None else title[1])
                title = None
            elif title is None or (_like_a_title(line) and _stands_alone(lines, number)):
                self._lacks_abstract(title)
                title = self._title(number, line)
            else:
                abstract = self._paragraph(number, line, numbered)
                if abstract is not None:
                    yield Entry(title[0], day, title[1], abstract)
                title = None
        self._lacks_abstract(title)

    def _title(self, number: int, line: str) -> tuple[int, str] | None:
        if len(line) <= LONGEST_TITLE and title_key(line):
            return number, line
        self._skip(number, "no title before this text" if title_key(line) else "not a title", line)
        return None

    def _paragraph(self, number: int, first: str, rest: Iterator[tuple[int, str | None]]) -> str | None:
        """Read on until the next empty line: abstracts may be wrapped."""
        parts: list[str | None] = [first]
        for _, line in rest:
            if line == "":
                break
            parts.append(line)
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            self._skip(number, "not valid UTF-8", first)
            return None
        abstract = " ".join(whole)
        if len(abstract) > LONGEST_ABSTRACT:
            self._skip(number, f"abstract longer than {LONGEST_ABSTRACT} characters", abstract)
            return None
        return abstract

    def _date(self, number: int, heading: re.Match[str]) -> datetime.date | None:
        month, day, year = heading.groups()
        try:
            return datetime.date(int(year or self.year), _MONTHS.index(month.lower()) + 1, int(day))
        except ValueError:
            self._skip(number, "no such day", heading[0])
            return None

    def _lacks_abstract(self, title: tuple[int, str] | None) -> None:
        if title is not None:
            self._skip(title[0], "no abstract after this title", title[1])

    def _skip(self, line: int, reason: str, text: str) -> None:
        self.skipped.append(Skipped(line, reason, text))


def import_page_text(path: Path, year: int, database: Database) -> PageTextReport:
    """Import the plain text of a daily page: its days, and the title and abstract of each paper.

    Titles are matched to the papers there are, on record or imported, whatever their case, accents and punctuation.
    What cannot be used is skipped and reported with its line. Importing twice changes nothing.

    Parameters
    ----------
    path : Path
        The file, UTF-8.
    year : int
        The year of the page, where its day heading (``Aug 20``) leaves it out.
    database : Database

    Returns
    -------
    PageTextReport

    Raises
    ------
    ValueError
        If the file has no day heading, or ``year`` is no year.
    """
    try:
        entries, skipped = read_page_text(path.read_bytes(), year)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    load_records(database)
    with database.session() as session:
        stored = [_store(session, entry) for entry in entries]
        session.flush()
        for day in dict.fromkeys(entry.day for entry in entries):
            _place(session, day, [title_key(entry.title) for entry in entries if entry.day == day])
    return PageTextReport(
        days=tuple(dict.fromkeys(entry.day for entry in entries)),
        papers=len(stored),
        matched=sum(on_record for on_record, _ in stored),
        new=sum(new for _, new in stored),
        skipped=tuple(skipped),
    )


def read_page_text(content: bytes, year: int) -> tuple[list[Entry], list[Skipped]]:
    """Return the papers of a page, each once a day, and what could not be used, both in the order of the file.

    Raises
    ------
    ValueError
        If there is no day heading, or ``year`` is no year.
    """
    if not datetime.MINYEAR <= year <= datetime.MAXYEAR:
        raise ValueError(f"year must be a year such as 2025; got {year}")
    lines = [_clean(line) for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    if not any(line is not None and _HEADING.fullmatch(line) for line in lines):
        raise ValueError("no day heading such as 'Aug 20'")
    reader = _Reader(year)
    entries = _distinct(reader.entries(lines), reader)
    return entries, sorted(reader.skipped, key=lambda item: item.line)


def _distinct(entries: Iterator[Entry], reader: _Reader) -> list[Entry]:
    found: dict[tuple[datetime.date, str], Entry] = {}
    for entry in entries:
        key = entry.day, title_key(entry.title)
        if key in found:
            reader.skipped.append(Skipped(entry.line, f"listed before, on line {found[key].line}", entry.title))
        else:
            found[key] = entry
    return list(found.values())


def _store(session: Session, entry: Entry) -> tuple[bool, bool]:
    """Store one paper and its place on the day; return whether it is on record, and whether it is new."""
    key = title_key(entry.title)
    known = session.scalars(select(Paper).where(Paper.title_key == key).order_by(Paper.slug.is_(None), Paper.id))
    paper = known.first()
    new = paper is None
    if paper is None:
        paper = Paper(title=entry.title, title_key=key)
        session.add(paper)
    paper.abstract = entry.abstract
    listing = next((listing for listing in paper.listings if listing.day == entry.day), None)
    if listing is None:
        paper.listings.append(Listing(day=entry.day, position=next_position(session, entry.day)))
    session.flush()
    return paper.slug is not None, new


def _place(session: Session, day: datetime.date, order: list[str]) -> None:
    """Put a day's papers in the order of the page, and those that the page lacks after them."""
    place = {key: number for number, key in enumerate(order)}
    listed = session.scalars(select(Listing).where(Listing.day == day).order_by(Listing.position, Listing.id)).all()
    ordered = sorted(listed, key=lambda listing: place.get(listing.paper.title_key, len(place)))
    for position, listing in enumerate(ordered):
        listing.position = position


def _clean(line: bytes) -> str | None:
    """Return a line as plain text in one spelling, or ``None`` when it is not valid UTF-8."""
    try:
        decoded = unicodedata.normalize("NFC", line.decode("utf-8"))
    except UnicodeDecodeError:
        return None
    printable = "".join(" " if unicodedata.category(character) in {"Cc", "Cs"} else character for character in decoded)
    return " ".join(printable.split())


def _like_a_title(line: str) -> bool:
    """Whether a line after a title is rather the next title: short, and not a sentence."""
    return len(line) <= 250 and not line.endswith((".", "!"))


def _stands_alone(lines: list[str | None], number: int) -> bool:
    """Whether the line after this one is empty; it is not where an abstract is wrapped."""
    return number >= len(lines) or lines[number] == ""
