"""The site under load: 100,000 papers, 50 requests a second for two minutes, on SQLite and on PostgreSQL.

``python benchmarks/daily_load.py`` fills a database of each kind, serves it, has locust ask for pages as readers do
(each of 50 of them once a second), and writes what was measured to ``results/daily_load.json``, with the plan of each
query that the pages make. ``--seconds`` and ``--papers`` make it smaller. The server, PostgreSQL and locust share the
machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
READERS = 50
"""Each asks once a second."""

SHARES = {"front": 25, "day": 15, "paper": 20, "search": 15, "trending": 10, "api day": 7, "api search": 5, "feed": 3}
TARGETS = {"front": 50.0, "search": 150.0}
"""The 95th percentile, in milliseconds, that a kind of page must keep under."""

SAMPLE = "OFFPRINT_LOAD_SAMPLE"
TIMES = "OFFPRINT_LOAD_TIMES"


def paths(sample: dict[str, Any], rng: random.Random) -> dict[str, str]:
    """Return an address of each kind, from a sample of days, papers and words (the most frequent first)."""
    words = [sample["words"][int(len(sample["words"]) * rng.random() ** 3)] for _ in range(3)]
    query = rng.choice([words[0], "%20".join(words[:2]), f"%22{words[0]}%20{words[1]}%22", f"{words[0]}%20-{words[2]}"])
    return {
        "front": "/",
        "day": f"/{rng.choice(sample['days'])}",
        "paper": f"/papers/{rng.choice(sample['papers'])}",
        "search": f"/search?q={query}",
        "trending": "/trending",
        "api day": f"/api/daily_papers?date={rng.choice(sample['days'])}",
        "api search": f"/api/papers/search?q={query}",
        "feed": "/feeds/trending.atom",
    }


def sampled(url: str) -> dict[str, Any]:
    """Return days, papers and words to ask for."""
    from daily_papers import vocabulary
    from sqlalchemy import select

    from offprint.store import Database, Listing, Paper

    database = Database(url)
    with database.session() as session:
        days = [str(day) for day in session.scalars(select(Listing.day).distinct().order_by(Listing.day.desc()))]
        recent = select(Paper.slug, Paper.arxiv, Paper.id).order_by(Paper.id.desc()).limit(5000)
        papers = [slug or arxiv or number for slug, arxiv, number in session.execute(recent)]
    database.close()
    return {"days": days, "papers": papers, "words": vocabulary()[:5000]}


@contextmanager
def served(url: str, folder: Path, workers: int) -> Iterator[str]:
    """Serve a database and give the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OFFPRINT_DATABASE_URL": url, "XDG_DATA_HOME": str(folder), "OFFPRINT_RUNS": "false"}
    command = [Path(sys.executable).with_name("offprint"), "serve", "--port", str(port), "--workers", str(workers)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(server, address)
            yield address
        finally:
            server.terminate()


def _wait(server: subprocess.Popen[bytes], address: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=10):
                return
        except (OSError, urllib.error.HTTPError):
            try:
                sys.exit(f"the server ended with status {server.wait(0.2)}")
            except subprocess.TimeoutExpired:
                continue
    sys.exit("the server did not start")


def load(address: str, sample: dict[str, Any], seconds: int, folder: Path) -> dict[str, Any]:
    """Ask for pages, and return how long each kind took."""
    (folder / "sample.json").write_text(json.dumps(sample), encoding="utf-8")
    environment = {**os.environ, SAMPLE: str(folder / "sample.json"), TIMES: str(folder / "times.json")}
    command = [sys.executable, "-m", "locust", "-f", __file__, "--headless", "--only-summary", "--host", address]
    command += ["-u", str(READERS), "-r", str(READERS), "-t", f"{seconds}s", "--exit-code-on-error", "0"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    times: dict[str, Any] = json.loads((folder / "times.json").read_text(encoding="utf-8"))
    return {kind: _summary(kind, *times[kind]) for kind in SHARES if kind in times}


def _summary(kind: str, times: list[float], errors: list[str], largest: int) -> dict[str, Any]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    summary: dict[str, Any] = {
        "requests": len(times),
        "errors": len(errors),
        "largest_kilobytes": round(largest / 1000, 1),
    }
    summary |= {f"p{part}_ms": round(cuts[part - 1], 1) for part in (50, 95, 99)} | {"max_ms": round(max(times), 1)}
    if errors:
        summary["first_errors"] = sorted(set(errors))[:3]
    if kind in TARGETS:
        summary |= {"target_p95_ms": TARGETS[kind], "met": cuts[94] < TARGETS[kind] and not errors}
    return summary


def plans(url: str, sample: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Return the queries that each kind of page makes, with the database's plan of each."""
    from sqlalchemy import event
    from starlette.testclient import TestClient

    from offprint.daily.app import create_app
    from offprint.daily.settings import Settings
    from offprint.store import Database

    database = Database(url)
    explain = "EXPLAIN QUERY PLAN " if database.sqlite else "EXPLAIN "
    made: list[tuple[str, Any]] = []
    event.listen(
        database.engine, "before_cursor_execute", lambda c, cursor, sql, values, *_: made.append((sql, values))
    )
    found = {}
    client = TestClient(
        create_app(database, settings=Settings(secret="x", answers_kept=0)), base_url="http://127.0.0.1"
    )
    for kind, path in paths(sample, random.Random(1)).items():
        client.get(path)  # what the first page of a process looks up is not asked for again
        made.clear()
        client.get(path)
        queries = [entry for entry in dict(made).items() if entry[0].lstrip().startswith(("SELECT", "WITH"))]
        found[kind] = []
        for sql, values in queries:
            with database.engine.connect() as connection:
                rows = connection.exec_driver_sql(explain + sql, values).all()
            found[kind].append({"query": " ".join(sql.split()), "plan": "\n".join(str(row[-1]) for row in rows)})
    database.close()
    return found


def measure(kind: str, url: str, seconds: int, n_papers: int, workers: int) -> dict[str, Any]:
    """Measure one database, filled first unless it is."""
    from daily_papers import fill

    from offprint.daily import admin
    from offprint.daily.library import load_records
    from offprint.store import Database

    database = Database(url)
    load_records(database)  # before the rest, whose end brings the planner's statistics up to date
    with database.session() as session:
        missing = n_papers - admin.stats(session)["papers"]
    if missing > 0:
        fill(database, missing)
    database.close()
    sample = sampled(url)
    with tempfile.TemporaryDirectory(prefix="offprint-load-") as name, served(url, Path(name), workers) as address:
        load(address, sample, min(5, seconds), Path(name))  # what is kept in memory is there before anyone looks
        pages = load(address, sample, seconds, Path(name))
    for page, summary in pages.items():
        verdict = "" if "met" not in summary else "  met" if summary["met"] else "  MISSED"
        print(
            f"{kind:10} {page:10} {summary['requests']:5} requests  p95 {summary['p95_ms']:7.1f} ms{verdict}",
            flush=True,
        )
    return {"pages": pages, "plans": plans(url, sample)}


def main() -> None:
    """Measure both databases and write the results."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=120)
    options.add_argument("--papers", type=int, default=100_000)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--sqlite", type=Path, help="keep the SQLite file here, and use it again")
    options.add_argument("--postgresql", help="use this database, by URL, and not a server of the benchmark's own")
    options.add_argument("--only", choices=["sqlite", "postgresql"])
    options.add_argument("--output", type=Path, default=HERE / "results" / "daily_load.json")
    chosen = options.parse_args()
    sys.path.insert(0, str(HERE.parent / "scripts"))
    import postgres

    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        file = chosen.sqlite or Path(folder, "load.db")
        for kind in [chosen.only] if chosen.only else ["sqlite", "postgresql"]:
            known = f"sqlite:///{file.absolute()}" if kind == "sqlite" else chosen.postgresql
            with nullcontext(known) if known else postgres.server() as url:
                measured[kind] = measure(kind, url, chosen.seconds, chosen.papers, chosen.workers)
    content = {
        "command": "python benchmarks/daily_load.py",
        "papers": chosen.papers,
        "requests_per_second": READERS,
        "seconds": chosen.seconds,
        "server_processes": chosen.workers,
        "cores": os.cpu_count(),
        "databases": measured,
    }
    chosen.output.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
elif SAMPLE in os.environ:
    from gevent import sleep
    from locust import FastHttpUser, events, task

    _sample = json.loads(Path(os.environ[SAMPLE]).read_text(encoding="utf-8"))
    _readers = itertools.count()
    _times: dict[str, tuple[list[float], list[str], list[int]]] = defaultdict(lambda: ([], [], [0]))

    class Reader(FastHttpUser):
        """Asks for one page a second on average, at random moments: together they arrive as a Poisson process."""

        def on_start(self) -> None:
            """Read on from a place and a moment of one's own."""
            self.rng = random.Random(next(_readers))
            self.due = time.monotonic()
            sleep(self.wait_time())

        def wait_time(self) -> float:
            """Return the seconds until the next page, however long the last one took."""
            self.due += self.rng.expovariate(1)
            return max(0.0, self.due - time.monotonic())

        @task
        def read(self) -> None:
            """Ask for a page."""
            [kind] = self.rng.choices(list(SHARES), list(SHARES.values()))
            self.client.get(paths(_sample, self.rng)[kind], name=kind)

    @events.request.add_listener
    def _note(name: str, response_time: float, exception: Any, response_length: int, **_: Any) -> None:
        times, errors, largest = _times[name]
        times.append(response_time)
        if exception is not None:
            errors.append(str(exception))
        largest[0] = max(largest[0], response_length or 0)

    @events.quitting.add_listener
    def _write(**_: Any) -> None:
        content = {kind: (times, errors, largest[0]) for kind, (times, errors, largest) in _times.items()}
        Path(os.environ[TIMES]).write_text(json.dumps(content), encoding="utf-8")
