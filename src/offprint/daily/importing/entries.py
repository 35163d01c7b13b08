"""What every importer yields: an entry made of plain facts, or what could not be used, with its line and the reason."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from offprint.daily.library import arxiv_name, title_key

LONGEST_TITLE = 500
LONGEST_KEY = 2000
"""Of a title's key, in bytes: an index of PostgreSQL takes little more."""
LONGEST_ABSTRACT = 20_000
LONGEST_NAME = 200
MOST_AUTHORS = 5000
MOST_CATEGORIES = 50
LONGEST_ADDRESS = 500
LONGEST_HANDLE = 64
OLDEST = datetime.date(1900, 1, 1)

# Control characters (PostgreSQL refuses NUL), halves of surrogate pairs, marks that reverse the text around them, and
# what XML cannot hold.
_UNWANTED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]+")
_CATEGORY = re.compile(r"[A-Za-z-]{1,20}(?:\.[A-Za-z-]{1,20})?")
_WITHDRAWN = re.compile(
    r"\W*(?:(?:this|the) [a-z]+ (?:has been|have been|had been|was|is) (?:temporarily )?)?withdrawn\b", re.IGNORECASE
)


class BadEntryError(ValueError):
    """A record that cannot be used; the message says why, without its text."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that could not be used, and the line where it begins."""

    line: int
    reason: str
    text: str

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= 60 else self.text[:59] + "…"
        return f"line {self.line}: {self.reason}: {shown!r}"


class Entry(NamedTuple):
    """A paper as a source gives it, checked and in plain text. Empty or ``None`` where the source does not say.

    ``day`` is the one that lists it; ``key`` is its title as :func:`~offprint.daily.library.title_key` gives it.
    """

    line: int
    title: str
    key: str
    abstract: str | None = None
    authors: tuple[str, ...] = ()
    arxiv: str | None = None
    categories: tuple[str, ...] = ()
    published: datetime.datetime | None = None
    code: str | None = None
    day: datetime.date | None = None
    submitter: str | None = None
    submitted_at: datetime.datetime | None = None


class Read(NamedTuple):
    """One record of a source: the place and the line that the source was read to with it, and what it held.

    ``found`` is ``None`` for a record that was not asked for.
    """

    position: int
    line: int
    found: Entry | Skipped | None


def entry(
    line: int,
    title: object,
    *,
    abstract: object = None,
    authors: Iterable[object] = (),
    arxiv: object = None,
    categories: Iterable[object] = (),
    published: datetime.datetime | None = None,
    code: object = None,
    day: datetime.date | None = None,
    submitter: object = None,
    submitted_at: datetime.datetime | None = None,
) -> Entry:
    """Return the entry that a record makes, cleaned of what no page should hold.

    Raises
    ------
    BadEntryError
        If there is no usable title, an id that is none of arXiv's, a date of another age, or far too much of anything.
    """
    heading = one_line(title)
    if not heading:
        raise BadEntryError("no title")
    if len(heading) > LONGEST_TITLE:
        raise BadEntryError(f"title longer than {LONGEST_TITLE} characters")
    key = title_key(heading)
    if not key:
        raise BadEntryError("not a title")
    if len(key.encode()) > LONGEST_KEY:
        raise BadEntryError("title too long")
    text = one_line(abstract)
    if len(text) > LONGEST_ABSTRACT:
        raise BadEntryError(f"abstract longer than {LONGEST_ABSTRACT} characters")
    names = tuple(name for name in map(one_line, authors) if name)
    if len(names) > MOST_AUTHORS or max(map(len, names), default=0) > LONGEST_NAME:
        raise BadEntryError(f"more than {MOST_AUTHORS} authors, or one with more than {LONGEST_NAME} characters")
    if published is not None:
        _check_day(published.date())
    if day is not None:
        _check_day(day)
    known = [name for name in categories if isinstance(name, str) and _CATEGORY.fullmatch(name)]
    return Entry(
        line=line,
        title=heading,
        key=key,
        abstract=text or None,
        authors=names,
        arxiv=None if arxiv is None else arxiv_id(arxiv),
        categories=tuple(dict.fromkeys(known))[:MOST_CATEGORIES],
        published=published,
        code=_address(code),
        day=day,
        submitter=one_line(submitter)[:LONGEST_HANDLE] or None,
        submitted_at=submitted_at,
    )


def arxiv_id(text: object) -> str:
    """Return an arXiv id without its version.

    Raises
    ------
    BadEntryError
        If it is none.

    Examples
    --------
    >>> arxiv_id("arXiv:2310.02987v2"), arxiv_id("math.GT/0309136")
    ('2310.02987', 'math/0309136')
    """
    found = arxiv_name(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise BadEntryError("not an arXiv id")
    return found


def skipped(line: int, reason: object, text: str) -> Skipped:
    """Return a fault with the start of the text it is about."""
    return Skipped(line, str(reason), one_line(text[:200]))


def one_line(text: object) -> str:
    """Return text in one spelling (NFC) on one line, without control characters; empty for anything but text."""
    if not isinstance(text, str):
        return ""
    line = " ".join(text.split())
    if not line.isascii():
        line = unicodedata.normalize("NFC", line)
    if line.isprintable():
        return line
    return " ".join(_UNWANTED.sub(" ", line).split())


def withdrawn(abstract: object, comments: object = None) -> bool:
    """Whether the authors or arXiv say, in front of the abstract or the comments, that the paper was withdrawn."""
    return any(isinstance(text, str) and _WITHDRAWN.match(text) is not None for text in (abstract, comments))


def _check_day(day: datetime.date) -> None:
    if OLDEST <= day <= _BEGUN:  # nearly every day there is, without a look at the clock
        return
    # A day ahead of every zone's clock would be the newest of the site for ever.
    if not OLDEST <= day <= _today() + datetime.timedelta(days=1):
        raise BadEntryError(f"no paper is of {day.isoformat()}")


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


_BEGUN = _today()
"""The day on which this program began."""


def _address(code: object) -> str | None:
    """Return where the code is, or ``None`` when that is no address of the web."""
    text = one_line(code)
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    good = parts.scheme in ("http", "https") and parts.netloc and len(text) <= LONGEST_ADDRESS and " " not in text
    return text if good else None
