"""The Hub's daily papers: the JSON list that its API returns, or one such paper per line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from offprint.daily.importing.entries import BadEntryError, Entry, entry
from offprint.daily.importing.files import Line, SourceFile
from offprint.daily.importing.json_records import array_values, moment, parse
from offprint.daily.importing.record_files import RecordFile


class HubJson(RecordFile):
    """Daily papers as the Hub's API has them. Upvotes and comments stay there: a vote here is a reader's own.

    Parameters
    ----------
    path : Path
    """

    kind = "hub-json"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with closing(SourceFile(path)) as file:
            self.is_list = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")

    def records(self, position: int, line: int) -> Iterator[Line]:
        """Yield the elements of the list, or the lines."""
        return array_values(self.file, position, line) if self.is_list else super().records(position, line)

    def entry(self, line: int, content: bytes) -> Entry:
        """Return the entry of a daily paper."""
        return hub_entry(line, parse(content))


def hub_entry(line: int, item: object) -> Entry:
    """Return the entry of one item of the Hub's list: a paper, or a paper with what the day's page adds to it.

    Raises
    ------
    BadEntryError
        If it is none.
    """
    if not isinstance(item, dict):
        raise BadEntryError("not a JSON object")
    paper = item.get("paper", item)
    if not isinstance(paper, dict) or paper.get("id") is None:
        raise BadEntryError("no paper with an id")

    def said(*names: str) -> Any:
        """Return the first of the facts that is there, on the paper or on the item."""
        return next((found for name in names for found in (paper.get(name), item.get(name)) if found), None)

    submitted = moment(said("submittedOnDailyAt"))
    published = moment(paper.get("publishedAt"))
    listed = submitted or moment(item.get("publishedAt")) or published
    if listed is None:
        raise BadEntryError("no date")
    submitter = said("submittedOnDailyBy", "submittedBy")
    written = paper.get("authors")
    authors = written if isinstance(written, list) else []
    return entry(
        line,
        said("title"),
        abstract=said("summary"),
        authors=[author.get("name") for author in authors if isinstance(author, dict)],
        arxiv=paper["id"],
        published=published,
        code=said("githubRepo"),
        day=listed.date(),
        submitter=(submitter.get("name") or submitter.get("user")) if isinstance(submitter, dict) else None,
        submitted_at=submitted,
    )
