"""arXiv's metadata dump: a JSON object per line, as ``arxiv-metadata-oai-snapshot.json`` holds millions of them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from pathlib import Path

from offprint.daily.importing.accents import decode_accents
from offprint.daily.importing.entries import BadEntryError, Entry, entry, withdrawn
from offprint.daily.importing.json_records import parse
from offprint.daily.importing.record_files import RecordFile

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CREATED = re.compile(r"\w{3}, {1,2}(\d{1,2}) (\w{3}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)
_PARENTHESES = re.compile(r"\([^()]*\)")


class ArxivDump(RecordFile):
    """arXiv's dump, plain or in the zip it comes in; each paper is listed on the day of its first version.

    Parameters
    ----------
    path : Path
    categories : iterable of str
        Only papers in one of these, such as ``cs.LG``; all when empty.
    """

    kind = "arxiv-dump"
    authority = True
    every_day = False

    def __init__(self, path: Path, categories: Iterable[str] = ()) -> None:
        self.categories = frozenset(categories)
        super().__init__(path, sorted(self.categories))

    def entry(self, line: int, content: bytes) -> Entry | None:
        """Return the entry of a line, or ``None`` when it is of another category."""
        record = parse(content)
        if not isinstance(record, dict):
            raise BadEntryError("not a JSON object")
        categories = record.get("categories")
        # The dump has them in one text; copies of it have been seen with a list.
        names = (
            categories.split() if isinstance(categories, str) else categories if isinstance(categories, list) else []
        )
        if self.categories and not any(name in self.categories for name in names if isinstance(name, str)):
            return None
        if record.get("id") is None:
            raise BadEntryError("no id")
        if withdrawn(record.get("abstract"), record.get("comments")):
            raise BadEntryError("withdrawn")
        published = _first_version(record.get("versions")) or _day(record.get("update_date"))
        if published is None:
            raise BadEntryError("no date")
        return entry(
            line,
            _text(record.get("title")),
            abstract=_text(record.get("abstract")),
            authors=_authors(record),
            arxiv=record["id"],
            categories=names,
            published=published,
            day=published.date(),
        )


def _text(value: object) -> object:
    return decode_accents(value) if isinstance(value, str) else value


def _authors(record: dict[str, object]) -> Iterable[str]:
    """Return the names, given name first: from the list of their parts, or else from the one text of all."""
    parsed = record.get("authors_parsed")
    if isinstance(parsed, list) and parsed:
        return [decode_accents(name) for name in map(_name, parsed) if name]
    written = record.get("authors")
    if isinstance(written, str):
        without_places = _PARENTHESES.sub("", decode_accents(written))
        return re.split(r",\s*(?:and\s+)?|\s+and\s+", without_places)
    return ()


def _name(parts: object) -> str:
    """Return a name from its parts: family name, given name, and what follows both; empty when it is none."""
    try:
        return " ".join((*parts[1::-1], *parts[2:3])) if isinstance(parts, list) else ""
    except TypeError:  # not a text
        return ""


def _first_version(versions: object) -> datetime.datetime | None:
    first = versions[0] if isinstance(versions, list) and versions else None
    created = first.get("created") if isinstance(first, dict) else None
    found = _CREATED.fullmatch(created) if isinstance(created, str) else None
    if found is None or found[2] not in _MONTHS:
        return None
    day, month, *rest = found.groups()
    year, hour, minute, second = map(int, rest)
    try:
        return datetime.datetime(year, _MONTHS.index(month) + 1, int(day), hour, minute, second, tzinfo=datetime.UTC)
    except ValueError:
        return None


def _day(value: object) -> datetime.datetime | None:
    try:
        day = datetime.date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        return None
    return datetime.datetime.combine(day, datetime.time(), datetime.UTC)
