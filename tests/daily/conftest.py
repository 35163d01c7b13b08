"""A package of papers with cheap claims, registered as anyone's own papers are, and a site that serves them."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import databases
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from offprint.daily.app import create_app
from offprint.daily.library import load_records
from offprint.daily.routes import runs as run_routes
from offprint.lab.executors import Executor, InProcess
from offprint.lab.ledger import Ledger
from offprint.lab.measure import measure
from offprint.lab.results import record_results
from offprint.papers import record, records, registry
from offprint.store import Database

PACKAGE = "pressed_papers"
fingerprints = importlib.import_module("offprint.lab.fingerprint")

ALPHA = """
slug = "alpha-method"
title = "Alpha: a <b>Method</b> & its \\"Limits\\" for Gr\u00f6bner Bases"
arxiv = "2501.00001"
authors = ["Ada Lovelace", "Bj\u00f6rn \u00c5str\u00f6m", "C Third", "D Fourth", "E Fifth"]
year = 2025
venue = "ICLR"
family = "optimize"
methods = ["offprint.statistics:bootstrap_interval"]
summary = "Solves small games by averaging. <script>alert(1)</script> stays text."
day = 2025-08-20
code = "https://example.org/alpha"

[[claims]]
id = "is-large"
statement = "The number is large."
source = "abstract"
metric = "the number"
expect = { at_least = 4.0, weaker = 1.0 }
seeds = 3
reported = 4.2

[[claims.also]]
key = "ratio"
metric = "the ratio of the number to itself"
expect = { within = [1.0, 0.1] }

[claims.quick]
seeds = 2

[[claims]]
id = "always-true"
statement = "It always <i>holds</i>."
source = "theorem"
metric = "whether it holds"
expect = { holds = true }

[[claims]]
id = "is-small"
statement = "The other number is small."
source = "experiments"
metric = "the other number"
expect = { at_most = 1.0 }

[[claims]]
id = "no-function"
statement = "Nobody has written this check."
source = "appendix"
metric = "unknown"
expect = { between = [0.0, 1.0] }
"""

ALPHA_CLAIMS = """
from offprint.papers import Measurement, Panel, Run, Series, measures


@measures("is-large")
def is_large(run: Run) -> Measurement:
    for _ in run.track(range(3), "counting"):
        pass
    line = Series("ours", [1.0, 2.0, 3.0], [1.0, 2.0, 4.0 + run.seed])
    run.figure(Panel("step", "number", [line]), caption="Counting")
    return Measurement(4.5 + 0.1 * run.seed, baseline=2.0, also={"ratio": 1.0}, note="Counted by hand.")


@measures("always-true")
def always_true(run: Run) -> Measurement:
    return Measurement(True)


@measures("is-small")
def is_small(run: Run) -> Measurement:
    return Measurement(3.0)
"""

BETA = """
slug = "beta-test"
title = "Beta Testing of Streams"
arxiv = "2501.00002"
authors = ["Ada Lovelace"]
year = 2025
venue = "ICML"
family = "stream"
summary = "Finds drift in streams."
day = 2025-08-20

[[claims]]
id = "breaks"
statement = "Something goes wrong."
source = "abstract"
metric = "a number"
expect = { at_least = 0.0 }
"""

BETA_CLAIMS = """
from offprint.papers import Measurement, Run, measures


@measures("breaks")
def breaks(run: Run) -> Measurement:
    raise ZeroDivisionError("the <denominator> vanished")
"""

GAMMA = BETA.replace("beta-test", "gamma-theory").replace("Beta Testing", "Gamma Theory").replace("00002", "00003")

ENDLESS = BETA.replace("beta-test", "endless-run").replace("Beta Testing", "Endless").replace("00002", "00004")
ENDLESS_CLAIMS = """
import threading

from offprint.papers import Measurement, Run, measures


@measures("breaks")
def breaks(run: Run) -> Measurement:
    run.progress(1, 10, "waiting for ever")
    threading.Event().wait()
    return Measurement(0.0)
"""


class Site(TestClient):
    """The site, with what a browser does on it."""

    def __init__(self, app: FastAPI, **options: Any) -> None:
        super().__init__(app, base_url="http://127.0.0.1", follow_redirects=False, **options)

    def token(self, slug: str) -> str:
        """Open a paper's page and return the token of its form; empty when it has none."""
        _, _, rest = self.get(f"/papers/{slug}").text.partition('name="token" value="')
        return rest.partition('"')[0]

    def press_run(self, slug: str, **headers: str) -> Response:
        """Open a paper's page and press Run."""
        return self.post(f"/papers/{slug}/run", data={"token": self.token(slug)}, headers=headers)

    def follow(self, job: int = 1) -> list[tuple[str, str]]:
        """Read a run's events to their end, as (name, data)."""
        events = []
        for block in self.get(f"/runs/{job}/events").text.split("\n\n"):
            fields = [line.partition(": ") for line in block.splitlines()]
            name = "".join(value for key, _, value in fields if key == "event")
            if name:
                events.append((name, "\n".join(value for key, _, value in fields if key == "data")))
        return events


def write_package(folder: Path) -> None:
    """Write the package as an installed distribution with an entry point, so that other processes find it too."""
    papers = {
        "alpha_method": (ALPHA, ALPHA_CLAIMS),
        "beta_test": (BETA, BETA_CLAIMS),
        "gamma_theory": (GAMMA, ""),
        "endless_run": (ENDLESS, ENDLESS_CLAIMS),
    }
    for name, (toml, claims) in papers.items():
        home = folder / PACKAGE / name
        home.mkdir(parents=True)
        (home / "__init__.py").touch()
        (home / "paper.toml").write_text(toml, encoding="utf-8")
        if claims:
            (home / "claims.py").write_text(claims, encoding="utf-8")
    (folder / PACKAGE / "__init__.py").touch()
    about = folder / f"{PACKAGE}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\npressed = {PACKAGE}\n", encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put the package, and nothing else, on record."""
    monkeypatch.setenv("OFFPRINT_SECRET", "only for tests")
    monkeypatch.setenv("OFFPRINT_ANSWERS_KEPT", "0")
    monkeypatch.setattr(run_routes, "POLL_SECONDS", 0.05)
    yield install(tmp_path / "installed", monkeypatch)
    _forget()


def install(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Write the package to a folder and put it on record."""
    write_package(folder)
    patch.syspath_prepend(folder)
    patch.setattr(registry, "_sources", lambda: [(PACKAGE, folder / PACKAGE)])
    # Fingerprints read every source file that a claim reaches; the site needs only that they stay the same.
    patch.setattr(fingerprints, "fingerprint", lambda paper, claim_id: f"{len(claim_id)}")
    _forget()
    return folder / PACKAGE


def _forget() -> None:
    """Let the next look find the package anew."""
    records.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture(scope="session")
def loaded_url(tmp_path_factory: pytest.TempPathFactory, migrated_url: str) -> Iterator[str]:
    """The URL of a database with the package's papers: copied, it saves every test the loading."""
    root = tmp_path_factory.mktemp("loaded")
    url = databases.create(root, migrated_url)
    with pytest.MonkeyPatch.context() as patch:
        install(root / "installed", patch)
        database = Database(url)
        load_records(database)
        database.close()
    _forget()
    yield url
    databases.drop(url)


@pytest.fixture
def database(package: Path, new_url: Callable[..., str], loaded_url: str) -> Iterator[Database]:
    """A database with the package's papers."""
    database = Database(new_url(loaded_url))
    yield database
    database.close()


@pytest.fixture
def site(database: Database) -> Iterator[Callable[..., Site]]:
    """Start sites on the database; ended with the test."""
    started: list[Site] = []

    def start(executor: Executor | None = None, **options: Any) -> Site:
        site = Site(create_app(database, executor=executor or InProcess()), **options)
        site.__enter__()
        started.append(site)
        return site

    yield start
    for opened in started:
        opened.__exit__(None, None, None)


@pytest.fixture
def client(site: Callable[..., Site]) -> Site:
    """A site whose runs are performed in this process."""
    return site()


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a full run of the first paper, recorded once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("recorded")
        folder = install(root / "installed", patch)
        database = Database(f"sqlite:///{root / 'scratch.db'}")
        [result] = measure([record("alpha-method")], "full", ledger=Ledger(database), executor=InProcess())
        database.close()
        recorded = record_results(result, "offprint record alpha-method").parent
    assert recorded.is_relative_to(folder)
    return recorded


@pytest.fixture
def recorded_alpha(recordings: Path, package: Path) -> Path:
    """The package with the recorded results of its first paper; returns their folder."""
    return Path(shutil.copytree(recordings, package / "alpha_method" / "results"))
