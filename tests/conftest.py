"""Fixtures that tests of several floors share: a paper of one's own in a package of its own, and a fresh database."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import databases
import pytest

from offprint.lab.fingerprint import _locate, _reexported
from offprint.papers import Record, record, records
from offprint.store import Database

RECORD = """
slug = "{slug}"
title = "A paper called {slug}"
arxiv = "{arxiv}"
authors = ["Ada Example"]
year = 2025
venue = "nowhere"
family = "theory"
summary = "It exists for the tests. It claims what the tests need."
day = 2025-01-02
"""

CLAIM = """
[[claims]]
id = "{id}"
statement = "{id} is so"
source = "theorem 1"
metric = "the number of {id}"
expect = {expect}
{rest}
"""

MakePaper = Callable[..., Record]


@pytest.fixture
def make_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePaper]:
    """Return a function that writes a paper into an installed-looking package; child processes find it as well.

    ``claims`` maps a claim's id to its rule in TOML, or to (rule, further TOML lines); ``code`` is the body of
    ``claims.py`` after its imports; ``files`` are further modules of the package.
    """
    root = tmp_path / "site"
    package = root / "own_papers"

    def make(
        claims: dict[str, str | tuple[str, str]],
        code: str,
        slug: str = "own-paper",
        arxiv: str = "2501.00001",
        files: dict[str, str] | None = None,
    ) -> Record:
        folder = package / slug.replace("-", "_")
        folder.mkdir(parents=True, exist_ok=True)
        for place in (package, folder):
            (place / "__init__.py").touch()
        rules = {name: rule if isinstance(rule, tuple) else (rule, "") for name, rule in claims.items()}
        toml = RECORD.format(slug=slug, arxiv=arxiv) + "".join(
            CLAIM.format(id=name, expect=expect, rest=rest) for name, (expect, rest) in rules.items()
        )
        (folder / "paper.toml").write_text(toml, encoding="utf-8")
        header = "import os, signal, time\nfrom pathlib import Path\nfrom offprint.papers import *\n"
        (folder / "claims.py").write_text(header + textwrap.dedent(code), encoding="utf-8")
        for name, text in (files or {}).items():
            (package / name).write_text(textwrap.dedent(text), encoding="utf-8")
        _forget("own_papers")
        return record(slug)

    metadata = root / "own_papers-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-papers\nVersion: 1\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[offprint.papers]\nown = own_papers\n", encoding="utf-8")
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setenv("PYTHONPATH", str(root))
    records.cache_clear()
    yield make
    _forget("own_papers")


def _forget(package: str) -> None:
    """Let the next import and the next fingerprint read the package anew."""
    records.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]
    importlib.invalidate_caches()
    _locate.cache_clear()
    _reexported.cache_clear()


@pytest.fixture
def new_url(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that makes an empty database, or a copy of one, and returns its URL."""
    made: list[str] = []

    def make(template: str | None = None) -> str:
        made.append(databases.create(tmp_path, template))
        return made[-1]

    yield make
    for url in made:
        databases.drop(url)


@pytest.fixture(scope="session")
def migrated_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a database with every table and no row: copied, it saves every test the migrations."""
    url = databases.create(tmp_path_factory.mktemp("migrated"))
    Database(url).close()
    yield url
    databases.drop(url)


@pytest.fixture
def database(new_url: Callable[..., str], migrated_url: str) -> Iterator[Database]:
    """Return an empty database of the test's own: SQLite, or PostgreSQL where a server is named."""
    opened = Database(new_url(migrated_url))
    yield opened
    opened.close()
