"""Feeds: a list of papers as Atom and as JSON Feed, for programs that follow the page for their readers."""

from __future__ import annotations

import datetime
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

from feedgen.feed import FeedGenerator
from markupsafe import Markup

from offprint.daily.abstracts import abstract, plain
from offprint.daily.conditions import etag
from offprint.daily.library import address
from offprint.daily.measured import PaperView
from offprint.store import Paper
from offprint.store.models import now

BEGINNING = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
"""When a feed without entries was updated."""

ATOM, JSON_FEED = "application/atom+xml", "application/feed+json"
MOST_KEPT = 1024


@dataclass(frozen=True)
class Feed:
    """A list of papers with what a feed says of itself. Paths are those of this site, without its address."""

    title: str
    path: str
    """Of the feed, without the suffix that names its form."""
    page: str
    """Of the page with the same list."""
    papers: Sequence[Paper]
    views: Mapping[str, PaperView] = field(default_factory=dict)
    query: str = ""
    """What follows the path, with its question mark."""
    next: str = ""
    """The same for the page of the feed that follows this one; empty on the last."""


def atom(feed: Feed, base: str) -> bytes:
    """Write a feed as Atom.

    Parameters
    ----------
    feed : Feed
    base : str
        The address of the site, without a slash at its end. Its host stands in the ids of entries.
    """
    made = FeedGenerator()
    made.id(tag(base, feed.path.strip("/") + feed.query))
    made.title(plain(feed.title))
    made.generator("offprint")
    made.author({"name": "offprint"})
    made.language("en")
    made.link(href=base + feed.page, rel="alternate", type="text/html")
    made.link(href=f"{base}{feed.path}.atom{feed.query}", rel="self", type=ATOM)
    if feed.next:
        made.link(href=f"{base}{feed.path}.atom{feed.next}", rel="next", type=ATOM)
    made.updated(max((_updated(paper, feed) for paper in feed.papers), default=BEGINNING))
    for paper in feed.papers:
        entry = made.add_entry(order="append")
        entry.id(_id(paper, base))
        entry.title(_title(paper))
        entry.link(href=base + address(paper), rel="alternate", type="text/html")
        entry.author([{"name": name} for name in _authors(paper)] or {"name": "unknown"})
        entry.published(_published(paper))
        entry.updated(_updated(paper, feed))
        if paper.family:
            entry.category(term=paper.family)
        entry.content(str(_content(paper, feed, base)), type="html")
    return bytes(made.atom_str(pretty=True))


def json_feed(feed: Feed, base: str) -> bytes:
    """Write a feed as JSON Feed 1.1; takes what :func:`atom` takes."""
    made: dict[str, Any] = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": plain(feed.title),
        "home_page_url": base + feed.page,
        "feed_url": f"{base}{feed.path}.json{feed.query}",
        "language": "en",
    }
    if feed.next:
        made["next_url"] = f"{base}{feed.path}.json{feed.next}"
    made["items"] = [_item(paper, feed, base) for paper in feed.papers]
    return json.dumps(made, ensure_ascii=False, indent=1).encode()


def tag(base: str, name: str) -> str:
    """Return a name that stays the same wherever a thing moves, as RFC 4151 has it.

    Examples
    --------
    >>> tag("https://papers.example.org", "papers/12")
    'tag:papers.example.org,2025:papers/12'
    """
    host = urlsplit(base).hostname or "localhost"
    return f"tag:{'localhost' if ':' in host else host},2025:{name}"


class Editions:
    """Remembers since when each feed has said what it says. The oldest asked for are forgotten first.

    Parameters
    ----------
    clock : callable
        Returns the present moment.
    """

    def __init__(self, clock: Callable[[], datetime.datetime] = now) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, tuple[str, datetime.datetime]] = OrderedDict()
        self._lock = threading.Lock()

    def headers(self, name: str, content: bytes) -> dict[str, str]:
        """Return the headers by which a client can later ask whether a feed has changed."""
        version = etag(content)
        with self._lock:
            known = self._kept.pop(name, None)
            since = known[1] if known and known[0] == version else self._moment(known)
            self._kept[name] = version, since
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return {"ETag": version, "Last-Modified": format_datetime(since, usegmt=True), "Cache-Control": "no-cache"}

    def _moment(self, known: tuple[str, datetime.datetime] | None) -> datetime.datetime:
        """Return the present second; one later than that of the last edition, since dates carry whole seconds."""
        present = self._clock().replace(microsecond=0)
        return max(present, known[1] + datetime.timedelta(seconds=1)) if known else present


def _item(paper: Paper, feed: Feed, base: str) -> dict[str, Any]:
    view = feed.views.get(paper.slug or "")
    item: dict[str, Any] = {
        "id": _id(paper, base),
        "url": base + address(paper),
        "title": _title(paper),
        "content_html": str(_content(paper, feed, base)),
        "date_published": _published(paper).isoformat(),
        "date_modified": _updated(paper, feed).isoformat(),
    }
    if paper.arxiv:
        item["external_url"] = f"https://arxiv.org/abs/{plain(paper.arxiv)}"
    if authors := _authors(paper):
        item["authors"] = [{"name": name} for name in authors]
    if paper.family:
        item["tags"] = [paper.family]
    if view:
        claims = [{"id": claim.claim.id, "verdict": claim.verdict} for claim in view.claims]
        item["_offprint"] = {"measured": view.badge, "claims": claims}
    return item


def _content(paper: Paper, feed: Feed, base: str) -> Markup:
    """Return what an entry shows: what was measured, our summary, else the abstract, and where to read on."""
    view = feed.views.get(paper.slug or "")
    parts = [Markup("<p>%s</p>") % view.badge] if view else []
    parts.append(abstract(paper.summary or paper.abstract))
    links = [Markup('<a href="%s">Claims, measurements, discussion</a>') % (base + address(paper))]
    if paper.arxiv:
        links.append(Markup('<a href="https://arxiv.org/abs/%s">arXiv %s</a>') % (paper.arxiv, plain(paper.arxiv)))
    parts.append(Markup("<p>%s</p>") % Markup(" · ").join(links))
    return Markup("").join(parts)


def _title(paper: Paper) -> str:
    return plain(paper.title) or "Untitled"


def _authors(paper: Paper) -> list[str]:
    return [name for name in map(plain, paper.authors) if name]


def _id(paper: Paper, base: str) -> str:
    return tag(base, f"papers/{plain(paper.arxiv) or paper.id}")


def _published(paper: Paper) -> datetime.datetime:
    """Return when a paper came out: elsewhere, as far as is known, or here."""
    return min(paper.published_at or paper.added_at, paper.added_at)


def _updated(paper: Paper, feed: Feed) -> datetime.datetime:
    """Return when a paper came to the site or, if that is later, when what is shown of its claims was measured."""
    view = feed.views.get(paper.slug or "")
    shown = [claim.recorded or claim.here for claim in view.claims] if view else []
    return max([paper.added_at, *(item.provenance.when for item in shown if item)])
