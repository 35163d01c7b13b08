"""A server that answers as arXiv's API does: Atom with its namespaces, in pages, and badly when told to."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape


@dataclass(frozen=True)
class Preprint:
    """A paper as arXiv has it."""

    id: str
    title: str
    summary: str = "  We study it\nat length.\n"
    authors: tuple[str, ...] = ("Ada Lovelace",)
    published: datetime.datetime = datetime.datetime(2025, 8, 1, 17, 59, 46, tzinfo=datetime.UTC)
    categories: tuple[str, ...] = ("cs.LG",)
    version: int = 1
    comment: str = ""

    def atom(self) -> str:
        """Return its entry."""
        authors = "".join(f"<author>\n      <name>{escape(name)}</name>\n    </author>\n    " for name in self.authors)
        categories = "".join(
            f'<category term="{name}" scheme="http://arxiv.org/schemas/atom"/>\n    ' for name in self.categories
        )
        moment = self.published.strftime("%Y-%m-%dT%H:%M:%SZ")
        comment = f"<arxiv:comment>{escape(self.comment)}</arxiv:comment>\n    " if self.comment else ""
        return f"""  <entry>
    <id>http://arxiv.org/abs/{self.id}v{self.version}</id>
    <title>{escape(self.title)}</title>
    <updated>{moment}</updated>
    <link href="https://arxiv.org/abs/{self.id}v{self.version}" rel="alternate" type="text/html"/>
    <link href="https://arxiv.org/pdf/{self.id}v{self.version}" rel="related" type="application/pdf" title="pdf"/>
    <summary>{escape(self.summary)}</summary>
    {categories}<published>{moment}</published>
    {comment}<arxiv:primary_category term="{self.categories[0]}"/>
    {authors}</entry>
"""


@dataclass
class ArxivServer:
    """What the server has and was asked. ``moods`` holds what it answers before it answers well: status and body."""

    papers: Sequence[Preprint]
    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    moods: list[tuple[int, str, bytes]] = field(default_factory=list)

    def answer(self, query: dict[str, str]) -> tuple[int, str, bytes]:
        """Return the status, the type and the body."""
        self.asked.append(query)
        if self.moods:
            return self.moods.pop(0)
        wanted = [name for name in query.get("id_list", "").split(",") if name]
        matching = [paper for paper in self.papers if not wanted or paper.id in wanted]
        start, size = int(query["start"]), int(query["max_results"])
        return 200, "application/atom+xml; charset=UTF-8", feed(matching[start : start + size], len(matching), start)


def feed(papers: Sequence[Preprint], total: int, start: int = 0) -> bytes:
    """Return a page of an answer."""
    entries = "".join(paper.atom() for paper in papers)
    return f"""<?xml version='1.0' encoding='UTF-8'?>
<feed xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/" xmlns:arxiv="http://arxiv.org/schemas/atom"\
 xmlns="http://www.w3.org/2005/Atom">
  <id>https://arxiv.org/api/cHxbiOdZaP56ODnBPIenZhzg5f8</id>
  <title>arXiv Query: search_query=&amp;id_list=&amp;start={start}</title>
  <updated>2025-08-20T00:00:00Z</updated>
  <link href="https://arxiv.org/api/query?search_query=&amp;start={start}" type="application/atom+xml"/>
  <opensearch:itemsPerPage>{len(papers)}</opensearch:itemsPerPage>
  <opensearch:totalResults>{total}</opensearch:totalResults>
  <opensearch:startIndex>{start}</opensearch:startIndex>
{entries}</feed>
""".encode()


@contextmanager
def arxiv_server(papers: Sequence[Preprint] = ()) -> Iterator[ArxivServer]:
    """Answer on a free port of this machine while the block lasts."""
    state = ArxivServer(papers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            status, kind, body = state.answer(query)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *about: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/api/query"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
