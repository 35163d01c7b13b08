"""Run: asked for from our own pages only, one at a time, followed live, and never lost."""

from __future__ import annotations

import datetime
import multiprocessing
import re
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import serving
from fastapi.testclient import TestClient
from itsdangerous import BadSignature
from readers import Browser
from sqlalchemy import select, update

from offprint.daily.app import create_app
from offprint.daily.routes import runs as run_routes
from offprint.daily.runs import MOST_QUEUED, Runs, RunsOffError
from offprint.daily.security import COOKIE, FormGuard, kept_secret, signer
from offprint.daily.settings import Settings
from offprint.lab.executors import Advance, Event, InProcess, ProcessPool
from offprint.lab.ledger import Ledger
from offprint.lab.tasks import Task
from offprint.papers import Progress, record
from offprint.store import Database, Job
from offprint.store import Outcome as Row
from offprint.store.models import now

Site = Any
"""The client of ``conftest.py``."""


@dataclass
class Gated:
    """Performs tasks in this process, but only once the gate is open."""

    gate: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    performed: list[str] = field(default_factory=list)
    at_once: int = 0

    def stream(self, tasks: Iterable[Task]) -> Generator[Event, None, None]:
        tasks = list(tasks)
        self.at_once = max(self.at_once, len(tasks))
        for task in tasks:
            yield Advance(task, Progress(1, 4, "counting <b>"))
            self.reached.set()
            assert self.gate.wait(30)
            self.performed.append(task.claim)
            yield from InProcess().stream([task])


@pytest.fixture
def gated(site: Callable[..., Site]) -> Iterable[tuple[Site, Gated]]:
    executor = Gated()
    yield site(executor), executor
    executor.gate.set()


def jobs(database: Database) -> list[Job]:
    with database.session() as session:
        return list(session.scalars(select(Job).order_by(Job.id)))


def test_run_leads_back_to_the_page_and_the_verdict_is_there_on_reload(client: Site) -> None:
    pressed = client.press_run("alpha-method")
    assert (pressed.status_code, pressed.headers["location"]) == (303, "/papers/alpha-method#measured")
    client.follow()
    page = client.get("/papers/alpha-method").text
    verdicts = re.findall(r'<span class="verdict [a-z-]+">([a-z ]+)</span>', page)
    assert verdicts == ["reproduced", "reproduced", "not reproduced", "not yet measured"]
    assert "2 of 4 claims reproduced" in page
    assert "4.55 <small>(4.5 to 4.6 over 2 seeds)</small>" in page
    assert page.count("measured here") == 3
    assert "<code>offprint run alpha-method --scale quick --claim is-small</code>" in page
    assert "Quick scale, 2 seeds" in page
    assert "http-equiv" not in page
    assert "sse-connect" not in page
    assert "Run again" in page


def test_while_it_runs_the_page_shows_how_far_it_is(gated: tuple[Site, Gated]) -> None:
    client, executor = gated
    client.press_run("alpha-method")
    assert executor.reached.wait(30)
    page = client.get("/papers/alpha-method").text
    assert re.search(
        '<noscript><meta http-equiv="refresh" content="2; url=/papers/alpha-method[?]at=[0-9]+#measured">', page
    )
    assert 'sse-connect="/runs/1/events"' in page
    assert "0 of 4 measurements done, now at step 1 of 4 (counting &lt;b&gt;)" in page
    assert '<progress max="1" value="0.062"' in page
    assert "<form" not in page[page.index("<main") :]


def test_events_replace_the_parts_of_the_page_and_end_with_the_run(client: Site) -> None:
    pressed = client.press_run("alpha-method", **{"HX-Request": "true"})
    assert pressed.status_code == 200
    assert 'sse-connect="/runs/1/events" sse-close="end"' in pressed.text
    places = set(re.findall(r'sse-swap="([^"]+)"', pressed.text))
    events = client.follow()
    assert {name for name, _ in events} == places | {"end"}
    assert events[-1] == ("end", "done")
    newest = dict(events)
    assert "2 of 4 claims reproduced" in newest["badge"]
    assert "Run again" in newest["run"]
    assert '<span class="verdict not-reproduced">not reproduced</span>' in newest["claim-is-small"]
    assert "<html" not in "".join(data for _, data in events)


def test_every_viewer_sees_all_of_it_and_a_late_one_the_end(gated: tuple[Site, Gated]) -> None:
    client, executor = gated
    client.press_run("alpha-method")
    assert executor.reached.wait(30)
    with ThreadPoolExecutor(3) as pool:
        viewers = [pool.submit(client.follow) for _ in range(3)]
        executor.gate.set()
        seen = [viewer.result(60) for viewer in viewers]
    for events in [*seen, client.follow()]:
        assert events[-1] == ("end", "done")
        assert "reproduced" in dict(events)["claim-always-true"]


def test_tasks_are_handed_out_one_at_a_time(gated: tuple[Site, Gated]) -> None:
    client, executor = gated
    executor.gate.set()
    client.press_run("alpha-method")
    client.follow()
    assert executor.at_once == 1
    assert executor.performed == ["is-large", "is-large", "always-true", "is-small"]


def test_figures_of_runs_are_drawn_and_change_with_the_outcome(client: Site, database: Database) -> None:
    client.press_run("alpha-method")
    client.follow()
    [address] = re.findall(r'src="(/figures/[^"]+/here.svg\?v=[0-9a-f]+)"', client.get("/papers/alpha-method").text)
    figure = client.get(address)
    assert figure.headers["content-type"] == "image/svg+xml"
    assert figure.content.startswith(b"<?xml")
    assert client.get(address).content == figure.content
    with database.session() as session:
        for row in session.scalars(select(Row).where(Row.claim == "is-large")):
            row.figure = {**row.figure, "caption": "Counted differently"} if row.figure else None
            row.finished_at = row.finished_at.replace(year=2030)
    [later] = re.findall(r'src="(/figures/[^"]+/here.svg\?v=[0-9a-f]+)"', client.get("/papers/alpha-method").text)
    assert later != address
    assert b"Counted differently" in client.get(later).content


def test_an_error_of_a_claim_is_its_verdict(client: Site) -> None:
    client.press_run("beta-test")
    events = client.follow()
    assert events[-1] == ("end", "done")
    shown = dict(events)["claim-breaks"]
    assert '<span class="verdict error">error</span>' in shown
    assert "ZeroDivisionError: the &lt;denominator&gt; vanished (claims.py, line 7)" in shown


def test_a_run_that_cannot_start_says_why(client: Site, package: Path, database: Database) -> None:
    client.press_run("beta-test")
    client.follow()
    (package / "beta_test" / "claims.py").write_text("@measures('breaks')\ndef broken(:\n", encoding="utf-8")
    page = client.get("/papers/beta-test")
    assert page.status_code == 200
    with database.session() as session:
        session.add(Job(paper="beta-test", scale="quick"))
    client.app.state.runs._asked.set()
    assert client.follow(2)[-1] == ("end", "failed")
    assert "The run failed." in client.app.state.runs.newest("beta-test").message or "SyntaxError" in (
        client.app.state.runs.newest("beta-test").message
    )


def test_running_again_measures_again(gated: tuple[Site, Gated]) -> None:
    client, executor = gated
    executor.gate.set()
    for job in (1, 2):
        client.press_run("alpha-method")
        client.follow(job)
    assert len(executor.performed) == 8


class TestWhoMayAsk:
    """A run is started from a page of ours, by the visitor it was shown to, for claims that are registered."""

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 303),
            ({"Sec-Fetch-Site": "same-origin"}, 303),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Origin": "http://127.0.0.1"}, 303),
            ({"Origin": "http://127.0.0.1:9000"}, 403),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
        ],
    )
    def test_other_sites_are_refused(
        self, headers: dict[str, str], status: int, client: Site, database: Database
    ) -> None:
        assert client.press_run("alpha-method", **headers).status_code == status
        assert len(jobs(database)) == (status == 303)

    @pytest.mark.parametrize("token", [None, "", "x", "InZpc2l0b3Ii.aaaa.bbbb", "é", "a" * 4000])
    def test_a_token_that_we_did_not_sign_is_refused(self, token: str | None, client: Site, database: Database) -> None:
        client.get("/papers/alpha-method")
        response = client.post("/papers/alpha-method/run", data={} if token is None else {"token": token})
        assert response.status_code == 403
        assert "Reload it and try again" in response.text
        assert jobs(database) == []

    def test_a_token_is_good_for_its_visitor_only(self, client: Site, database: Database) -> None:
        token = client.token("alpha-method")
        mine = client.cookies[COOKIE]
        for other in ("f" * 32, None):
            client.cookies.clear()
            if other:
                client.cookies.set(COOKIE, other)
            assert client.post("/papers/alpha-method/run", data={"token": token}).status_code == 403
        client.cookies.set(COOKIE, mine)
        assert client.post("/papers/alpha-method/run", data={"token": token}).status_code == 303

    def test_a_token_of_another_key_is_refused(self, client: Site) -> None:
        client.get("/papers/alpha-method")
        forged = FormGuard("another key")._signer.dumps(client.cookies[COOKIE])
        assert client.post("/papers/alpha-method/run", data={"token": forged}).status_code == 403

    def test_an_old_token_is_refused(self, client: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        token = client.token("alpha-method")
        monkeypatch.setattr("offprint.daily.security.TOKEN_SECONDS", -1)
        assert client.post("/papers/alpha-method/run", data={"token": token}).status_code == 403

    def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(self, client: Site) -> None:
        cookie = client.get("/papers/alpha-method").headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "set-cookie" not in client.get("/papers/alpha-method").headers
        assert "set-cookie" not in client.get("/").headers

    def test_a_large_form_is_refused(self, client: Site) -> None:
        response = client.post("/papers/alpha-method/run", data={"token": "x" * 100_000})
        assert response.status_code == 413

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/papers/none/run", 404),
            ("/papers/gamma-theory/run", 409),
            ("/papers/..%2falpha-method/run", 405),
            ("/papers/os.system/run", 404),
            ("/papers/alpha-method/run/no-function", 405),
        ],
    )
    def test_only_registered_claims_can_be_run(self, path: str, status: int, client: Site, database: Database) -> None:
        token = client.token("alpha-method")
        assert client.post(path, data={"token": token}).status_code == status
        assert jobs(database) == []

    def test_get_does_not_run(self, client: Site, database: Database) -> None:
        assert client.get("/papers/alpha-method/run").status_code in (404, 405)
        assert jobs(database) == []

    def test_htmx_gets_a_notice_instead_of_a_page(self, client: Site) -> None:
        response = client.post("/papers/alpha-method/run", headers={"HX-Request": "true"})
        assert response.status_code == 403
        assert response.text.startswith('<p class="notice"><strong>Forbidden.</strong>')


class TestTheQueue:
    def test_a_paper_is_queued_once(self, gated: tuple[Site, Gated], database: Database) -> None:
        client, executor = gated
        token = client.token("alpha-method")  # of a page that was opened before anyone pressed Run
        for _ in range(3):
            assert client.post("/papers/alpha-method/run", data={"token": token}).status_code == 303
        assert executor.reached.wait(30)
        assert client.post("/papers/alpha-method/run", data={"token": token}).status_code == 303
        assert [job.status for job in jobs(database)] == ["running"]

    def test_the_next_waits_and_says_so(self, gated: tuple[Site, Gated], database: Database) -> None:
        client, executor = gated
        client.press_run("alpha-method")
        assert executor.reached.wait(30)
        client.press_run("beta-test")
        assert [job.status for job in jobs(database)] == ["running", "queued"]
        assert "Waiting: 1 run comes first." in client.get("/papers/beta-test").text
        executor.gate.set()
        assert client.follow(2)[-1] == ("end", "done")
        first, second = jobs(database)
        assert first.finished_at is not None
        assert second.started_at is not None
        assert first.finished_at <= second.started_at

    def test_it_is_bounded(self, gated: tuple[Site, Gated], database: Database) -> None:
        client, executor = gated
        client.press_run("alpha-method")
        assert executor.reached.wait(30)
        with database.session() as session:
            session.add_all(Job(paper=f"other-{number}", scale="quick") for number in range(MOST_QUEUED))
        response = client.press_run("beta-test")
        assert response.status_code == 429
        assert "Many runs are waiting" in response.text
        with database.session() as session:
            session.query(Job).filter(Job.paper.startswith("other")).delete()


class TestStopping:
    def test_what_an_earlier_server_left_is_interrupted_and_its_queue_goes_on(
        self, database: Database, site: Callable[..., Site]
    ) -> None:
        with database.session() as session:
            session.add(Job(paper="alpha-method", scale="quick", status="running", progress={"done": 1, "total": 4}))
            session.add(Job(paper="beta-test", scale="quick"))
        client = site()
        assert client.follow(1)[-1] == ("end", "interrupted")
        assert "press Run to measure the rest" in client.get("/papers/alpha-method").text
        assert client.follow(2)[-1] == ("end", "done")

    def test_pressing_run_again_measures_only_the_rest(self, database: Database, gated: tuple[Site, Gated]) -> None:
        client, executor = gated
        executor.gate.set()
        client.press_run("alpha-method")
        client.follow()
        with database.session() as session:
            session.query(Row).filter(Row.claim == "is-large", Row.seed == 1).delete()
            session.query(Row).filter(Row.claim == "is-small").delete()
        page = client.get("/papers/alpha-method").text
        assert "1 of 2 seeds so far" in page
        executor.performed.clear()
        client.press_run("alpha-method")
        client.follow(2)
        assert executor.performed == ["is-large", "is-small"]

    def test_a_server_that_ends_takes_its_process_along(self, database: Database) -> None:
        """With real processes: the run is interrupted, its process is gone, and no error is stored as an outcome."""
        app = create_app(database, executor=ProcessPool(poll_seconds=0.05))
        runs, ledger = app.state.runs, Ledger(database)
        runs.start()
        job = runs.ask(record("endless-run"))
        started = _until(lambda: runs.job(job.id).progress.get("label") == "waiting for ever")
        children = [child for child in multiprocessing.active_children() if "endless-run" in child.name]
        runs.stop()
        assert started
        assert len(children) == 1
        assert not children[0].is_alive()
        ended = runs.job(job.id)
        assert ended.status == "interrupted"
        assert "The server was stopped" in ended.message
        assert ledger.newest("endless-run", "quick") == {}

    def test_streams_end_with_the_server(self, gated: tuple[Site, Gated]) -> None:
        client, executor = gated
        client.press_run("alpha-method")
        assert executor.reached.wait(30)
        with ThreadPoolExecutor(1) as pool:
            viewer = pool.submit(client.follow)
            client.app.state.runs.stopping.set()
            events = viewer.result(30)
        assert "end" not in dict(events)

    def test_nobody_holds_all_streams(self, gated: tuple[Site, Gated], monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a visitor's streams so many are open at once, and one that has ended makes room for another."""
        monkeypatch.setattr(run_routes, "MOST_STREAMS_OF_ONE", 1)
        client, executor = gated
        client.press_run("alpha-method")
        assert executor.reached.wait(30)
        other = Browser(client.app)
        other._transport.client = ("192.0.2.7", 1)  # type: ignore[attr-defined]
        with ThreadPoolExecutor(2) as pool:
            viewer = pool.submit(client.follow)
            while not client.app.state.__dict__["_state"].get("streams"):
                threading.Event().wait(0.01)
            assert client.get("/runs/1/events").status_code == 503
            beside = pool.submit(other.get, "/runs/1/events")
            executor.gate.set()
            assert dict(viewer.result(30))["end"] == "done"
            assert beside.result(30).status_code == 200
        assert dict(client.follow())["end"] == "done"
        assert not client.app.state.streams


class TestSeveralServers:
    """On one database: a run is its server's while the heartbeat is fresh, and one is performed at a time."""

    def test_the_run_of_a_server_that_lives_is_left_alone_and_the_queue_waits_for_it(
        self, database: Database, site: Callable[..., Site]
    ) -> None:
        with database.session() as session:
            running = Job(paper="alpha-method", scale="quick", status="running", worker="other", heartbeat_at=now())
            session.add(running)
            session.flush()
            session.add(Job(paper="beta-test", scale="quick"))
        client = site()
        assert client.app.state.runs._next() is None
        assert [job.status for job in jobs(database)] == ["running", "queued"]
        with database.session() as session:
            session.execute(update(Job).where(Job.worker == "other").values(status="done"))
        client.app.state.runs._asked.set()
        assert client.follow(2)[-1] == ("end", "done")

    @pytest.mark.parametrize(("seconds", "status"), [(10, "running"), (20, "interrupted")])
    def test_a_heartbeat_counts_for_fifteen_seconds(self, seconds: int, status: str, database: Database) -> None:
        beat = now() - datetime.timedelta(seconds=seconds)
        with database.session() as session:
            session.add(Job(paper="x", scale="quick", status="running", worker="other", heartbeat_at=beat))
        Runs(database)._interrupt_abandoned()
        assert [job.status for job in jobs(database)] == [status]

    def test_while_a_server_performs_it_is_heard_of(
        self, database: Database, gated: tuple[Site, Gated], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("offprint.daily.runs.BEAT_SECONDS", 0.02)
        client, executor = gated
        client.press_run("alpha-method")
        assert executor.reached.wait(30)
        [first] = jobs(database)
        assert first.worker == client.app.state.runs.name
        assert _until(lambda: jobs(database)[0].heartbeat_at > first.heartbeat_at)

    def test_a_run_that_was_taken_for_lost_is_given_up(
        self, database: Database, gated: tuple[Site, Gated], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("offprint.daily.runs.BEAT_SECONDS", 0.02)
        client, executor = gated
        lost = threading.Event()
        monkeypatch.setattr("offprint.daily.runs._OneAtATime.kill", lambda performing: lost.set())
        client.press_run("alpha-method")
        assert executor.reached.wait(30)
        with database.session() as session:
            session.execute(update(Job).values(status="interrupted", message="by another"))
        assert lost.wait(30)
        executor.gate.set()
        heart = next(thread for thread in threading.enumerate() if thread.name == "heartbeat")
        heart.join(30)
        client.app.state.runs.stop()  # once all that the worker writes is written
        [job] = jobs(database)
        assert (job.status, job.message) == ("interrupted", "by another")
        assert executor.performed == ["is-large"]

    def test_of_several_servers_one_takes_a_run(self, database: Database) -> None:
        with database.session() as session:
            session.add_all(Job(paper=f"paper-{number}", scale="quick") for number in range(3))
        servers = [Runs(database) for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            taken = [job for job in pool.map(lambda server: server._next(), servers) if job is not None]
        assert len(taken) == 1
        assert sorted(job.status for job in jobs(database)) == ["queued", "queued", "running"]

    def test_servers_that_are_asked_at_once_queue_a_paper_once(self, database: Database) -> None:
        servers = [Runs(database) for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            asked = list(pool.map(lambda server: server.ask(record("alpha-method")).id, servers))
        assert len(set(asked)) == len(jobs(database)) == 1

    def test_a_server_that_is_killed_loses_nothing_and_doubles_nothing(
        self, database: Database, package: Path, tmp_path: Path, site: Callable[..., Site]
    ) -> None:
        """With real processes: one server is killed in mid-run, and another finds what it left."""
        with serving.served(database, tmp_path, package.parent) as server:
            with httpx.Client(base_url=server.address, follow_redirects=True) as reader:
                press(reader, "alpha-method")
                assert _until(lambda: jobs(database)[0].status == "done")
                measured = outcomes(database)
                assert len(measured) == 4
                press(reader, "endless-run")
                assert _until(lambda: jobs(database)[1].progress.get("label") == "waiting for ever")
                press(reader, "beta-test")
            server.process.kill()
            server.process.wait()
        client = site()
        assert client.app.state.runs._next() is None  # it might still live
        assert [job.status for job in jobs(database)] == ["done", "running", "queued"]
        with database.session() as session:
            long_ago = now() - datetime.timedelta(seconds=16)
            session.execute(update(Job).where(Job.paper == "endless-run").values(heartbeat_at=long_ago))
        client.app.state.runs._asked.set()
        assert client.follow(2)[-1] == ("end", "interrupted")
        assert client.follow(3)[-1] == ("end", "done")
        kept = outcomes(database)
        assert [entry for entry in kept if entry[0] != "beta-test"] == measured
        assert len(kept) == len(measured) + 1


def test_where_runs_are_switched_off_nothing_is_asked_for_or_performed(database: Database) -> None:
    with database.session() as session:
        session.add(Job(paper="beta-test", scale="quick"))
    app = create_app(database, settings=Settings(runs=False))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        page = client.get("/papers/alpha-method").text
        assert "Runs are switched off on this site." in page
        assert "/papers/alpha-method/run" not in page
        assert app.state.runs._worker is None
        assert app.state.runs.alive
        with pytest.raises(RunsOffError):
            app.state.runs.ask(record("alpha-method"))
    assert [job.status for job in jobs(database)] == ["queued"]


def outcomes(database: Database) -> list[tuple[str, str, int]]:
    with database.session() as session:
        return sorted((row.paper, row.claim, row.seed) for row in session.scalars(select(Row)))


def press(reader: httpx.Client, slug: str) -> None:
    """Open a paper's page and press Run, as a browser does."""
    _, _, rest = reader.get(f"/papers/{slug}").text.partition(f'action="/papers/{slug}/run"')
    _, _, rest = rest.partition('name="token" value="')
    assert reader.post(f"/papers/{slug}/run", data={"token": rest.partition('"')[0]}).status_code == 200


def _until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait for what another process does."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return True
        pause.wait(0.05)
    return False


class TestTheKey:
    def test_it_is_made_once_and_kept_to_its_owner(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OFFPRINT_SECRET", raising=False)
        monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / name))
        key = kept_secret()
        assert len(key) >= 32
        assert kept_secret() == key
        [path] = (tmp_path / "offprint").iterdir()
        assert path.stat().st_mode & 0o077 == 0

    def test_the_environment_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / name))
        key = kept_secret()
        monkeypatch.setenv("OFFPRINT_SECRET", "from outside")
        assert Settings().secret == "from outside"
        signed = signer("form", Settings().secret).dumps("visitor")
        assert signer("form", "from outside").loads(signed) == "visitor"
        with pytest.raises(BadSignature):
            signer("form", key).loads(signed)

    def test_what_an_older_key_signed_still_counts_and_a_dropped_one_does_not(self) -> None:
        signed = signer("form", "old").dumps("visitor")
        assert signer("form", "new, old").loads(signed) == "visitor"
        with pytest.raises(BadSignature):
            signer("form", "new").loads(signed)

    def test_the_first_key_signs(self) -> None:
        assert signer("form", "new").loads(signer("form", "new,old").dumps("visitor")) == "visitor"

    def test_what_is_signed_for_one_purpose_does_not_count_for_another(self) -> None:
        with pytest.raises(BadSignature):
            signer("other", "key").loads(signer("form", "key").dumps("visitor"))
