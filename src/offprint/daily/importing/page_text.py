"""The plain text of a daily page: header lines, a day heading, then a title line and an abstract per paper."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from offprint.daily.importing.entries import BadEntryError, Entry, Read, Skipped, entry, one_line, skipped
from offprint.daily.importing.files import identity
from offprint.daily.importing.streaming import Source
from offprint.daily.library import title_key
from offprint.store import Listing, Paper

LARGEST = 16 << 20
LONGEST_TITLE = 300

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_HEADING = re.compile(rf"({'|'.join(_MONTHS)})[a-z]*\.? (\d{{1,2}})(?:, (\d{{4}}))?", re.IGNORECASE | re.ASCII)


class PageText(Source):
    """The text of a daily page, read whole: it is as long as a page is.

    Titles are matched to the papers there are, on record or imported, whatever their case, accents and punctuation.
    Papers are listed in the order of the page, and those that the page lacks after them.

    Parameters
    ----------
    path : Path
        The file, UTF-8.
    year : int
        The year of the page, where its day heading (``Aug 20``) leaves it out.

    Raises
    ------
    ValueError
        If the file has no day heading or is larger than any page, or ``year`` is no year.
    """

    def __init__(self, path: Path, year: int) -> None:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path}: larger than {LARGEST >> 20} MiB, which no page is")
        try:
            self.entries, faults = read_page_text(path.read_bytes(), year)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        self.name = f"page-text {identity(path, year)}"
        found: list[Entry | Skipped] = [*self.entries, *faults]
        self._found = sorted(found, key=lambda item: item.line)
        self._done = 0

    def read(self, position: int, line: int) -> Iterator[Read]:
        """Yield each paper and fault after the first ``position`` of them."""
        for number, found in enumerate(self._found[position:], start=position + 1):
            self._done = number
            yield Read(number, found.line, found)

    def done(self) -> tuple[int, int]:
        """Return how many of how many papers and faults were read."""
        return self._done, len(self._found)

    def arrange(self, session: Session) -> None:
        """Put each day in the order of the page."""
        days = dict.fromkeys(item.day for item in self.entries)
        for day in days:
            _place(session, day, [item.key for item in self.entries if item.day == day])


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
                yield from self._paper(day, title, number, self._paragraph(number, line, numbered))
                title = None
        self._lacks_abstract(title)

    def _paper(self, day: datetime.date, title: tuple[int, str], number: int, abstract: str | None) -> Iterator[Entry]:
        if abstract is None:
            return
        try:
            yield entry(title[0], title[1], abstract=abstract, day=day)
        except BadEntryError as error:
            self._skip(number, str(error), abstract)

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
        return " ".join(whole)

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
        self.skipped.append(skipped(line, reason, text))


def _distinct(entries: Iterator[Entry], reader: _Reader) -> list[Entry]:
    found: dict[tuple[datetime.date | None, str], Entry] = {}
    for item in entries:
        if (item.day, item.key) in found:
            before = found[item.day, item.key].line
            reader.skipped.append(skipped(item.line, f"listed before, on line {before}", item.title))
        else:
            found[item.day, item.key] = item
    return list(found.values())


def _place(session: Session, day: datetime.date | None, order: list[str]) -> None:
    """Put a day's papers in the order of the page, and those that the page lacks after them."""
    place = {key: number for number, key in enumerate(order)}
    listed = session.execute(
        select(Listing, Paper.title_key).join(Paper).where(Listing.day == day).order_by(Listing.position, Listing.id)
    ).all()
    for position, (listing, _) in enumerate(sorted(listed, key=lambda row: place.get(row[1], len(place)))):
        listing.position = position


def _clean(line: bytes) -> str | None:
    """Return a line as plain text in one spelling, or ``None`` when it is not valid UTF-8."""
    try:
        return one_line(line.decode("utf-8"))
    except UnicodeDecodeError:
        return None


def _like_a_title(line: str) -> bool:
    """Whether a line after a title is rather the next title: short, and not a sentence."""
    return len(line) <= 250 and not line.endswith((".", "!"))


def _stands_alone(lines: list[str | None], number: int) -> bool:
    """Whether the line after this one is empty; it is not where an abstract is wrapped."""
    return number >= len(lines) or lines[number] == ""
