"""The Hub's own client, as it is installed, against a server of ours."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from huggingface_hub import HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from offprint.daily.app import create_app
from offprint.daily.library import title_key
from offprint.lab.executors import InProcess
from offprint.store import Account, Database, Listing, Paper

UTC = datetime.UTC


@pytest.fixture
def address(database: Database) -> Iterator[str]:
    """A server on a free port."""
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: object = None) -> None:
            await super().startup(sockets)  # type: ignore[arg-type]
            started.set()

    app = create_app(database, executor=InProcess())
    server = Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(60)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def api(address: str, database: Database, recorded_alpha: Path) -> HfApi:
    """The client, pointed at a site with a paper of each kind."""
    with database.session() as session:
        grace = Account(email="grace@example.org", handle="grace", name="Grace Hopper")
        session.add(grace)
        session.flush()
        alpha = session.query(Paper).filter_by(slug="alpha-method").one()
        alpha.abstract, alpha.n_votes, alpha.n_comments, alpha.hotness = "The abstract.", 5, 2, 9999.0
        alpha.published_at = datetime.datetime(2025, 1, 1, 12, 30, tzinfo=UTC)
        for title, arxiv, day, submitter in (
            ("Imported", "2512.00001", datetime.date(2025, 12, 29), "grace"),
            ("Of old", "hep-th/9901001", datetime.date(2026, 1, 4), None),
            ("Nameless", None, datetime.date(2026, 1, 5), "hub-user"),
        ):
            paper = Paper(
                title=title,
                title_key=title_key(title),
                arxiv=arxiv,
                authors=["Ada Lovelace"],
                abstract=f"About {title}.",
            )
            session.add(paper)
            account = grace.id if submitter == "grace" else None
            paper.listings.append(Listing(day=day, submitter=submitter, account_id=account))
    return HfApi(endpoint=address, token=False)


def test_list_daily_papers(api: HfApi) -> None:
    papers = list(api.list_daily_papers())
    assert [paper.title for paper in papers[:4]] == ["Nameless", "Of old", "Imported", papers[3].title]
    assert len(papers) == 7
    assert [paper.title for paper in api.list_daily_papers(date="2025-12-29")] == ["Imported"]
    assert [paper.title for paper in api.list_daily_papers(week="2026-W01")] == ["Of old", "Imported"]
    assert [paper.title for paper in api.list_daily_papers(month="2026-01")] == ["Nameless", "Of old"]
    assert [paper.title for paper in api.list_daily_papers(submitter="grace")] == ["Imported"]
    assert next(iter(api.list_daily_papers(sort="trending"))).id == "2501.00001"
    pages = [paper.title for p in range(4) for paper in api.list_daily_papers(p=p, limit=2, sort="publishedAt")]
    assert pages == [paper.title for paper in papers]
    assert list(api.list_daily_papers(date="2024-01-01")) == []


def test_what_the_client_reads_of_a_paper_on_a_list(api: HfApi) -> None:
    [alpha, *_] = api.list_daily_papers(sort="trending")
    assert alpha.title.startswith("Alpha: a <b>Method</b>")
    assert [author.name for author in alpha.authors][1] == "Björn Åström"
    assert (alpha.summary, alpha.upvotes, alpha.comments) == ("The abstract.", 5, 2)
    assert alpha.published_at == datetime.datetime(2025, 1, 1, 12, 30, tzinfo=UTC)
    assert alpha.submitted_at == datetime.datetime(2025, 8, 20, tzinfo=UTC)
    assert alpha.project_page == "https://example.org/alpha"
    assert alpha.offprint["badge"] == "2 of 4 claims reproduced"
    [imported] = api.list_daily_papers(submitter="grace")
    # Where a paper's own date is unknown, that of its list is not taken for it; no votes are 0 votes.
    assert (imported.published_at, imported.upvotes) == (None, 0)
    assert imported.submitted_at == datetime.datetime(2025, 12, 29, tzinfo=UTC)
    assert (imported.submitted_by.username, imported.submitted_by.fullname) == ("grace", "Grace Hopper")
    [nameless] = api.list_daily_papers(submitter="hub-user")
    assert nameless.submitted_by.fullname == "hub-user"


def test_list_papers(api: HfApi) -> None:
    assert [paper.title for paper in api.list_papers(query="imported")] == ["Imported"]
    assert len(list(api.list_papers(query="streams", limit=2))) == 2
    assert list(api.list_papers(query="nothing of the kind")) == []
    assert next(iter(api.list_papers())).title == "Nameless"


def test_paper_info(api: HfApi) -> None:
    for name in ("2501.00001", "alpha-method"):
        alpha = api.paper_info(name)
        assert alpha.id == "2501.00001"
        assert (alpha.upvotes, alpha.comments, alpha.summary) == (5, 2, "The abstract.")
        assert alpha.published_at == datetime.datetime(2025, 1, 1, 12, 30, tzinfo=UTC)
        assert alpha.submitted_at is not None
        assert alpha.offprint["claims"][0]["verdict"] == "reproduced"
        assert alpha.offprint["importLines"] == ["from offprint.statistics import bootstrap_interval"]
    assert api.paper_info("hep-th/9901001").title == "Of old"
    # Every paper on a list can be asked for by the id that the list gives it.
    for paper in api.list_daily_papers():
        assert api.paper_info(paper.id).title == paper.title
        assert api.read_paper(paper.id).startswith("# ")


def test_read_paper(api: HfApi) -> None:
    read = api.read_paper("2501.00001")
    assert read.startswith("# Alpha: a ")
    for part in ("Ada Lovelace", "The abstract.", "Solves small games", "The number is large.", "**reproduced**"):
        assert part in read
    assert api.read_paper("hep-th/9901001").startswith("# Of old\n")


def test_errors_that_the_client_raises(api: HfApi) -> None:
    for ask in (api.paper_info, api.read_paper):
        with pytest.raises(HfHubHTTPError, match=r"There is no such paper here\.") as raised:
            ask("2999.99999")
        assert raised.value.response.status_code == 404
    with pytest.raises(BadRequestError, match="date: should be a day that there is"):
        list(api.list_daily_papers(date="2025-02-30"))
    with pytest.raises(BadRequestError, match="limit: "):
        list(api.list_papers(query="a", limit=1000))
    with pytest.raises(HfHubHTTPError, match="2025 has no week 53"):
        list(api.list_daily_papers(week="2025-W53"))


@pytest.mark.slow
def test_the_hf_command(api: HfApi, tmp_path: Path) -> None:
    def hf(*words: str, ends: int = 0) -> str:
        surroundings = {
            **os.environ,
            "HF_ENDPOINT": api.endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "NO_COLOR": "1",
        }
        command = Path(sys.executable).with_name("hf")
        ended = subprocess.run(
            [command, "papers", *words], env=surroundings, capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.returncode == ends, ended.stderr
        return ended.stdout if not ends else ended.stderr

    listed = hf("ls", "--limit", "3")
    assert all(part in listed for part in ("Nameless", "Of old", "Imported", "Grace Hopper"))
    assert "Nameless" not in hf("list", "--date", "2025-12-29")
    assert "Imported" in hf("ls", "--week", "2026-W01", "--submitter", "grace")
    trending = json.loads(hf("ls", "--sort", "trending", "--month", "2025-08", "--format", "json"))
    assert (trending[0]["id"], trending[0]["upvotes"]) == ("2501.00001", 5)
    [found] = json.loads(hf("search", "imported", "--limit", "5", "--format", "json"))
    assert (found["id"], found["summary"]) == ("2512.00001", "About Imported.")
    assert json.loads(hf("info", "2501.00001"))["comments"] == 2
    assert hf("read", "hep-th/9901001").startswith("# Of old\n")
    assert "Paper '2999.99999' not found" in hf("info", "2999.99999", ends=1)
    assert "not found" in hf("read", "2999.99999", ends=1)
