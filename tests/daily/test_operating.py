"""What operators ask of the site: whether it lives, whether it is ready, and its figures, for them alone."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from offprint.daily import logs
from offprint.daily.app import create_app
from offprint.daily.settings import Settings
from offprint.store import Database, Job

Site = Any
"""The client of ``conftest.py``."""


def figures(content: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Read figures as Prometheus does, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(content)
        for sample in family.samples
    }


def near(database: Database, **options: Any) -> TestClient:
    """Return a site asked from its own machine."""
    app = create_app(database, settings=Settings(**options))
    return TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50000), raise_server_exceptions=False)


class TestHealth:
    def test_a_site_with_all_it_needs_is_ready(self, client: Site) -> None:
        answer = client.get("/readyz")
        assert answer.status_code == 200
        expected = {"status": "ready", "database": "answers", "tables": "up to date", "runs": "performed"}
        assert answer.json() == expected
        assert answer.headers["cache-control"] == "no-store"

    def test_tables_of_another_version_are_not_ready(self, client: Site, database: Database) -> None:
        with database.session() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["tables"]) == (503, "of another version")

    def test_without_the_database_it_lives_but_is_not_ready(
        self, client: Site, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: object) -> None:
            raise OperationalError("SELECT 1", {}, Exception("password=secret"))

        monkeypatch.setattr(database.engine, "connect", away)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["database"]) == (503, "does not answer")
        assert "secret" not in answer.text
        assert client.get("/healthz").json() == {"status": "ok"}

    def test_without_its_worker_it_is_not_ready(self, client: Site) -> None:
        client.app.state.runs.stop()
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["runs"]) == (503, "not performed")

    def test_where_runs_are_switched_off_no_worker_is_missed(self, database: Database) -> None:
        answer = near(database, runs=False).get("/readyz")
        assert (answer.status_code, answer.json()["runs"]) == (200, "switched off")


class TestFigures:
    def test_answers_are_counted_by_pattern_and_status(self, database: Database) -> None:
        client = near(database)
        for path in ("/papers/alpha-method", "/papers/beta-test", "/papers/none", "/nowhere/1", "/nowhere/2"):
            client.get(path)
        client.request("BREW", "/papers/none")
        found = figures(client.get("/metrics").text)

        def requests(method: str, route: str, status: int) -> float:
            labels = {"method": method, "route": route, "status": str(status)}
            return found["offprint_http_requests_total", frozenset(labels.items())]

        assert requests("GET", "/papers/{name:path}", 200) == 2
        assert requests("GET", "/papers/{name:path}", 404) == 1
        assert requests("GET", "(none)", 404) == 2
        assert requests("(none)", "/papers/{name:path}", 405) == 1
        assert found["offprint_http_request_seconds_count", frozenset({("route", "/papers/{name:path}")})] == 4
        assert found["offprint_papers", frozenset()] == 4

    def test_runs_are_counted_by_their_state(self, database: Database) -> None:
        with database.session() as session:
            states = ("queued", "queued", "done", "failed")
            session.add_all(Job(paper=f"x{place}", scale="quick", status=state) for place, state in enumerate(states))
        found = figures(near(database).get("/metrics").text)
        by_state = {dict(labels)["status"]: value for (name, labels), value in found.items() if name == "offprint_runs"}
        assert by_state == {"queued": 2, "running": 0, "done": 1, "failed": 1, "interrupted": 0}
        assert found["offprint_runs_queued", frozenset()] == 2

    def test_an_answer_that_breaks_counts_as_one(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        client = near(database)
        monkeypatch.setattr("offprint.daily.library.find", lambda *_: 1 / 0)
        assert client.get("/papers/alpha-method").status_code == 500
        labels = {"method": "GET", "route": "/papers/{name:path}", "status": "500"}
        found = figures(client.get("/metrics").text)
        assert found["offprint_http_requests_total", frozenset(labels.items())] == 1

    def test_others_do_not_see_that_there_are_any(self, database: Database) -> None:
        app = create_app(database, settings=Settings())
        for address in ("203.0.113.7", "::ffff:203.0.113.7", "testclient"):
            client = TestClient(app, base_url="http://127.0.0.1", client=(address, 1))
            assert client.get("/metrics").status_code == 404
        assert TestClient(app, base_url="http://127.0.0.1", client=("::1", 1)).get("/metrics").status_code == 200

    @pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
    def test_a_proxy_on_this_machine_does_not_open_them_to_everyone(self, header: str, database: Database) -> None:
        assert near(database).get("/metrics", headers={header: "127.0.0.1"}).status_code == 404

    def test_a_token_opens_them_from_anywhere_and_nothing_else_does(self, database: Database) -> None:
        settings = Settings(metrics_token="sesame")
        client = TestClient(create_app(database, settings=settings), client=("203.0.113.7", 1))
        assert client.get("/metrics", headers={"Authorization": "Bearer sesame"}).status_code == 200
        for wrong in ("Bearer sesam", "sesame", "Bearer ", "bearer é".encode("latin-1")):
            assert client.get("/metrics", headers={"Authorization": wrong}).status_code == 404
        assert near(database, metrics_token="sesame").get("/metrics").status_code == 404


class TestLogs:
    def test_a_line_tells_the_pattern_and_nothing_of_the_reader(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "offprint.requests")
        client = TestClient(create_app(database), base_url="http://127.0.0.1", client=("203.0.113.7", 1))
        client.get("/papers/alpha-method?mail=ada@example.org", headers={"Cookie": "offprint_session=sesame"})
        [line] = (record for record in caplog.records if record.name == "offprint.requests")
        told = json.loads(logs.Json().format(line))
        assert (told["method"], told["route"], told["status"]) == ("GET", "/papers/{name:path}", 200)
        assert told["milliseconds"] > 0
        whole = logs.Json().format(line) + logs.Text().format(line)
        for private in ("ada@", "203.0.113.7", "sesame", "alpha-method"):
            assert private not in whole

    def test_an_error_is_logged_with_its_trace_and_answered_without(
        self, database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("offprint.daily.library.find", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            TestClient(create_app(database), base_url="http://127.0.0.1").get("/papers/x")
        assert "ZeroDivisionError" not in near(database).get("/papers/x").text

    def test_json_lines_hold_traces_and_odd_characters(self) -> None:
        try:
            raise ValueError("line one\nline two \u2028 “odd”")
        except ValueError:
            record = logging.LogRecord("offprint", logging.ERROR, "", 0, "a %s", ("\n",), sys.exc_info())
        line = logs.Json().format(record)
        assert "\n" not in line
        assert json.loads(line)["exception"].startswith("Traceback")
        assert json.loads(line)["level"] == "error"

    def test_statements_in_errors_come_without_what_readers_wrote(self, database: Database) -> None:
        with pytest.raises(Exception, match="no_such") as failed, database.session() as session:
            session.execute(text("SELECT * FROM no_such WHERE email = :email"), {"email": "ada@example.org"})
        assert "ada@" not in str(failed.value)
