"""arXiv's API, asked with the ``arxiv`` package: papers by id, or all of a category since a day."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import arxiv  # type: ignore[import-untyped]
import requests
from requests.adapters import HTTPAdapter

from offprint.daily.importing.accents import decode_accents
from offprint.daily.importing.entries import (
    BadEntryError,
    Entry,
    Read,
    Skipped,
    arxiv_id,
    entry,
    one_line,
    skipped,
    withdrawn,
)
from offprint.daily.importing.streaming import Source, SourceError
from offprint.daily.settings import Settings

ENDPOINT = "https://export.arxiv.org/api/query"
DELAY_SECONDS = 3.0
"""Between requests, as arXiv asks for."""
RETRIES = 3
TIMEOUT_SECONDS = 30.0
PAGE = 100
_CATEGORY = re.compile(r"[a-z-]{2,16}(?:\.[A-Za-z-]{2,16})?")
_FAILURES = (arxiv.ArxivError, requests.RequestException, ValueError, OverflowError)


class ArxivApi(Source):
    """Papers that arXiv's API returns, as a source: those with the given ids, or a category's since a day.

    Parameters
    ----------
    ids : sequence of str
    category : str, optional
        Such as ``cs.LG``.
    since : date, optional
        The first day of submission, with ``category``.
    endpoint : str
        Where the API is.
    delay : float
        Seconds between requests.

    Raises
    ------
    ValueError
        If neither or both of ids and category are given, or the endpoint is no address.
    """

    batch = PAGE
    authority = True
    every_day = False

    def __init__(
        self,
        ids: Sequence[str] = (),
        *,
        category: str | None = None,
        since: datetime.date | None = None,
        endpoint: str = ENDPOINT,
        delay: float = DELAY_SECONDS,
    ) -> None:
        if bool(ids) == bool(category) or bool(category) != bool(since):
            raise ValueError("either ids, or a category and the day since which, are wanted")
        if category and not _CATEGORY.fullmatch(category):
            raise ValueError(f"category must be one of arXiv's, such as cs.LG; got {category!r}")
        self.client = _Client(endpoint, delay, RETRIES, TIMEOUT_SECONDS)
        self.ids = list(dict.fromkeys(ids))
        self.category, self.since = category, since
        asked = f"{category} since {since}" if category else ",".join(self.ids)
        self.name = f"arxiv {hashlib.sha256(f'{endpoint} {asked}'.encode()).hexdigest()[:32]}"
        self._done = 0

    def read(self, position: int, line: int) -> Iterator[Read]:
        """Yield each paper after the first ``position`` of the answer."""
        papers = self._listed(position) if self.category else self._named(position)
        for number, found in enumerate(papers, start=position + 1):
            self._done = number
            yield Read(number, number, found)

    def _listed(self, position: int) -> Iterator[Entry | Skipped]:
        """Yield the category's papers, oldest first, so that what comes in meanwhile is added at the end."""
        query = f"cat:{self.category} AND submittedDate:[{self.since:%Y%m%d}0000 TO 299912312359]"
        oldest_first = arxiv.SortCriterion.SubmittedDate, arxiv.SortOrder.Ascending
        search = arxiv.Search(query, max_results=None, sort_by=oldest_first[0], sort_order=oldest_first[1])
        for number, result in enumerate(self.client.answers(search, position), start=position + 1):
            yield _found(number, result)

    def _named(self, position: int) -> Iterator[Entry | Skipped]:
        """Yield the papers with the ids, in the order of the ids."""
        for start in range(position, len(self.ids), PAGE):
            wanted = self.ids[start : start + PAGE]
            results = self.client.named(wanted)
            for number, name in enumerate(wanted, start=start + 1):
                yield _one(number, name, results)

    def done(self) -> tuple[int, int]:
        """Return how many of how many papers were read; arXiv does not say how many a category has."""
        return self._done, len(self.ids)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def fetch(ids: Sequence[str], *, endpoint: str | None = None, timeout: float = 10.0) -> list[Entry]:
    """Return arXiv's papers with some ids, whatever their version, without those that it does not have or give.

    For answering a reader at once: one more try, after a second, and no longer wait. The API is asked where the
    settings say, unless ``endpoint`` does.

    Raises
    ------
    SourceError
        If arXiv does not answer.
    """
    client = _Client(endpoint or Settings().arxiv_url, 1.0, 1, timeout)
    try:
        results = client.named(ids)
        found = [_one(number, name, results) for number, name in enumerate(ids, start=1)]
    finally:
        client.close()
    return [item for item in found if isinstance(item, Entry)]


class _Client(arxiv.Client):
    """The client of the ``arxiv`` package, for any endpoint, and with an end to its patience."""

    def __init__(self, endpoint: str, delay: float, retries: int, timeout: float) -> None:
        if urlsplit(endpoint).scheme not in ("http", "https") or set("{}?#") & set(endpoint):
            raise ValueError(f"the address of arXiv's API must look like {ENDPOINT}; got {endpoint!r}")
        super().__init__(page_size=PAGE, delay_seconds=delay, num_retries=retries)
        self.query_url_format = f"{endpoint}?{{}}"
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(timeout))

    def answers(self, search: arxiv.Search, offset: int = 0) -> Iterator[arxiv.Result]:
        """Yield the results of a search.

        Raises
        ------
        SourceError
            If there is no answer, or none that can be read.
        """
        try:
            yield from self.results(search, offset)
        except _FAILURES as error:
            raise SourceError(f"arXiv's API does not answer as it should: {error}") from error

    def named(self, ids: Iterable[str]) -> dict[str, Entry | Skipped]:
        """Return what arXiv says of each id that is one, by the id without its version."""
        names = list(dict.fromkeys(name for name in map(_name, ids) if name))
        if not names:
            return {}
        found: dict[str, Entry | Skipped] = {}
        for number, result in enumerate(self.answers(arxiv.Search(id_list=names, max_results=len(names))), start=1):
            item = _found(number, result)
            name = item.arxiv if isinstance(item, Entry) else _name(result.get_short_id())
            found[name or ""] = item
        return found

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


class _Adapter(HTTPAdapter):
    """Gives up on a silent server, and lets the client try again after that and after an answer that is no feed."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        super().__init__()

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        """Send a request."""
        options["timeout"] = self.timeout
        try:
            response = super().send(request, **options)
        except requests.Timeout as error:
            raise requests.ConnectionError(str(error)) from error
        if response.ok and "xml" not in response.headers.get("content-type", ""):
            raise requests.ConnectionError("the answer is no feed")
        return response


def _one(number: int, asked: str, results: dict[str, Entry | Skipped]) -> Entry | Skipped:
    """Return what was found for an id that was asked for."""
    name = _name(asked)
    if name is None:
        return skipped(number, "not an arXiv id", asked)
    if name not in results:
        return skipped(number, "arXiv has no such paper", asked)
    found = results[name]
    return found._replace(line=number) if isinstance(found, Entry) else replace(found, line=number)


def _name(text: str) -> str | None:
    try:
        return arxiv_id(text)
    except BadEntryError:
        return None


def _found(number: int, result: arxiv.Result) -> Entry | Skipped:
    """Return the entry that a result makes, or why it makes none. An error comes as a result too, with such an id."""
    try:
        if "/api/errors" in result.entry_id:
            raise BadEntryError(one_line(result.summary) or "an error")
        if withdrawn(result.summary, result.comment):
            raise BadEntryError("withdrawn")
        return entry(
            number,
            decode_accents(result.title),
            abstract=decode_accents(result.summary),
            authors=[decode_accents(author.name) for author in result.authors],
            arxiv=result.entry_id.rpartition("/abs/")[2],
            categories=result.categories,
            published=result.published,
            day=result.published.date(),
        )
    except BadEntryError as error:
        return skipped(number, error, result.title or result.entry_id)
