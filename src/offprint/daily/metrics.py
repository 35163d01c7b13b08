"""Figures for whoever operates the site, in the format of Prometheus: requests, runs, the queue, papers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import func, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offprint.daily import logs
from offprint.store import Database, Job, Paper

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder in which several processes of one site add up their figures."""

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
UNKNOWN = "(none)"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """What is counted of one site.

    Parameters
    ----------
    database : Database
        Asked for the state of runs and papers whenever the figures are read, so that all servers on it tell the same.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "offprint_http_requests", "Answers given.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "offprint_http_request_seconds",
            "Seconds from a request to the end of its answer; a stream of events lasts as long as it is followed.",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def answered(self, method: str, pattern: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self.requests.labels(method if method in METHODS else UNKNOWN, pattern, str(status)).inc()
        self.seconds.labels(pattern).observe(seconds)

    def text(self) -> bytes:
        """Return all figures as Prometheus reads them; those of every process of the site."""
        registry = self.registry
        if os.environ.get(SHARED_FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        stored = CollectorRegistry()
        stored.register(_Stored(self.database))
        return generate_latest(registry) + generate_latest(stored)


class _Stored:
    """What the database knows."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        with self.database.session() as session:
            n_papers = session.scalar(select(func.count()).select_from(Paper)) or 0
            counted = session.execute(select(Job.status, func.count()).group_by(Job.status))
            by_status = {row[0]: row[1] for row in counted}
        yield GaugeMetricFamily("offprint_papers", "Papers in the database.", n_papers)
        yield GaugeMetricFamily("offprint_runs_queued", "Runs that wait.", by_status.get("queued", 0))
        runs = GaugeMetricFamily("offprint_runs", "Runs that were ever asked for.", labels=["status"])
        for status in ("queued", "running", "done", "failed", "interrupted"):
            runs.add_metric([status], by_status.get(status, 0))
        yield runs


class Observed:
    """Counts and logs every answer, by the pattern of its address and not by the address itself.

    Parameters
    ----------
    app : ASGI application
    metrics : Metrics
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and note what came of it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status = 500  # of an answer that never begins

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begun = time.perf_counter()
        try:
            await self.app(scope, receive, send_noted)
        finally:
            seconds = time.perf_counter() - begun
            pattern = _pattern(scope)
            self.metrics.answered(scope["method"], pattern, status, seconds)
            logs.answered(scope["method"], pattern, status, seconds)


def _pattern(scope: Scope) -> str:
    """Return the pattern that a request's address matched: as many as there are routes, whatever is asked."""
    pattern = getattr(scope.get("route"), "path", None)
    if pattern is not None:
        return str(pattern)
    return "/static" if scope["path"].startswith("/static/") else UNKNOWN
