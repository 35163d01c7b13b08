"""Reading in a process of its own gives what reading here gives, and says so when it cannot."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from offprint.daily.importing import ahead
from offprint.daily.importing.arxiv_dump import ArxivDump
from offprint.daily.importing.hub_json import HubJson
from offprint.daily.importing.page_text import PageText
from offprint.daily.importing.record_files import RecordFile
from offprint.daily.importing.streaming import SourceError, in_batches, perform
from offprint.store import Database, Paper


def dump(path: Path, n_records: int) -> Path:
    lines = []
    for number in range(n_records):
        versions = [{"version": "v1", "created": "Mon, 1 Jan 2024 19:18:42 GMT"}]
        names = [["Erd\\H{o}s", "Paul", ""]]
        categories = "cs.LG" if number % 2 else "math.CO"
        record = {"id": f"2401.{number:05}", "title": f"Paper {number}", "categories": categories}
        lines.append(json.dumps(record | {"versions": versions, "authors_parsed": names}) if number % 9 else "{")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def hub(path: Path) -> Path:
    items = [{"paper": {"id": f"2402.{n:05}", "title": f"Hub {n}", "publishedAt": "2024-02-01"}} for n in range(30)]
    path.write_text(json.dumps(items), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["arxiv-dump", "hub-json"])
def test_the_batches_are_those_read_here_from_any_place_on(kind: str, tmp_path: Path) -> None:
    path = dump(tmp_path / "dump", 60) if kind == "arxiv-dump" else hub(tmp_path / "hub")

    def opened() -> RecordFile:
        return ArxivDump(path, ["cs.LG"]) if kind == "arxiv-dump" else HubJson(path)

    ((whole, _),) = in_batches(opened(), 0, 0)
    start = whole[9].position, whole[9].line
    assert list(ahead.batches(opened(), *start)) == [(whole[10:], opened_and_read(opened(), *start))]


def opened_and_read(source: RecordFile, position: int, line: int) -> tuple[int, int]:
    ((_, done),) = in_batches(source, position, line)
    source.close()
    return done


def test_a_large_file_is_read_by_another_process_and_stored_alike(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dump(tmp_path / "dump.json", 60)
    small = ArxivDump(path)
    assert not ahead.worth(small)
    small.close()
    asked = []
    batches = ahead.batches
    monkeypatch.setattr(ahead, "WORTH_BYTES", 1000)
    monkeypatch.setattr(ahead.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(ahead, "batches", lambda *arguments: asked.append(1) or batches(*arguments))
    reports = []
    report = perform(ArxivDump(path), database, lambda *progress: reports.append(progress))
    assert asked == [1]
    assert (report.new, report.n_skipped) == (53, 7)
    assert reports == [(path.stat().st_size, path.stat().st_size, 60)]
    with database.session() as session:
        assert session.query(Paper).filter(Paper.authors.is_not(None), Paper.arxiv.like("2401.%")).count() == 53


def test_a_page_is_read_here_and_so_is_all_where_there_is_one_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "WORTH_BYTES", 0)
    monkeypatch.setattr(ahead.os, "sched_getaffinity", lambda _: {0, 1})
    path = tmp_path / "page.txt"
    path.write_text("Mar 1\n\nA title\n\nWe say this.\n", encoding="utf-8")
    records = ArxivDump(dump(tmp_path / "dump.json", 3))
    assert not ahead.worth(PageText(path, 2024))
    assert ahead.worth(records)
    monkeypatch.setattr(ahead.os, "sched_getaffinity", lambda _: {0})
    assert not ahead.worth(records)
    records.close()


def test_what_goes_wrong_there_is_raised_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dump(tmp_path / "dump.json", 3)
    source = ArxivDump(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"dump\.json"):
        next(ahead.batches(source, 0, 0))
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(SourceError, match="ended too early"):
        next(ahead.batches(source, 0, 0))
    source.close()
