"""Backup: whole and of one moment while the database is written to, and never half a file in place of a good one."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from offprint.daily.backup import BackupError, backup
from offprint.store import Database, Job, Paper


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An SQLite database with as many papers as jobs: every transaction of :func:`write` keeps it so."""
    return tmp_path / "site.db"


def url(file: Path) -> str:
    return f"sqlite:///{file}"


def write(database: Database, number: int) -> None:
    with database.session() as session:
        session.add(Paper(title=f"paper {number}", title_key=f"paper{number}", abstract="x" * 2000))
        session.flush()
        session.add(Job(paper=f"paper-{number}", scale="quick", status="done"))


def counts(file: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        [papers] = connection.execute("SELECT count(*) FROM papers").fetchone()
        [jobs] = connection.execute("SELECT count(*) FROM jobs").fetchone()
        return papers, jobs


def test_backups_under_a_busy_writer_are_each_of_one_moment(file: Path, tmp_path: Path) -> None:
    database, ending, written = Database(url(file)), threading.Event(), threading.Event()

    def busy() -> None:
        number = 0
        while not ending.is_set():
            write(database, number)
            number += 1
            if number == 20:
                written.set()

    writer = threading.Thread(target=busy)
    writer.start()
    try:
        assert written.wait(60)
        seen = []
        for number in range(4):
            target = tmp_path / f"backup-{number}.db"
            with database.session() as session:
                committed = len(session.scalars(select(Paper.id)).all())
            assert backup(target, url(file)) == target.stat().st_size
            papers, jobs = counts(target)
            assert papers == jobs >= committed  # nothing that was committed before is missing
            seen.append(papers)
    finally:
        ending.set()
        writer.join()
        database.close()
    assert seen == sorted(seen)


def test_a_restored_backup_is_a_database_that_works(file: Path, tmp_path: Path) -> None:
    database = Database(url(file))
    write(database, 0)
    backup(tmp_path / "kept.db", url(file))
    write(database, 1)
    database.close()
    # As the guide says: stop the site, put the file in place, remove what stood beside the old one.
    for beside in tmp_path.glob("site.db*"):
        beside.unlink()
    (tmp_path / "kept.db").rename(file)
    restored = Database(url(file))
    with restored.session() as session:
        assert [paper.title for paper in session.scalars(select(Paper))] == ["paper 0"]
    write(restored, 2)
    assert restored.at_head()
    restored.close()


def test_a_backup_takes_the_place_of_an_earlier_one_and_leaves_nothing_beside_it(file: Path, tmp_path: Path) -> None:
    database = Database(url(file))
    target = tmp_path / "deep" / "kept.db"
    backup(target, url(file))
    write(database, 0)
    backup(target, url(file))
    database.close()
    assert counts(target) == (1, 1)
    assert [path.name for path in target.parent.iterdir()] == ["kept.db"]
    assert target.stat().st_mode & 0o077 == 0  # it holds mail addresses


def test_a_damaged_database_does_not_replace_a_good_backup(file: Path, tmp_path: Path) -> None:
    database = Database(url(file))
    for number in range(50):
        write(database, number)
    target = tmp_path / "kept.db"
    backup(target, url(file))
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    good = target.read_bytes()
    content = bytearray(file.read_bytes())
    half = len(content) // 2 // 4096 * 4096
    content[half : half + 40960] = b"\xa5" * 40960
    file.write_bytes(content)
    with pytest.raises(BackupError, match="was not written"):
        backup(target, url(file))
    assert target.read_bytes() == good
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*.part"))


def test_what_cannot_be_copied_says_why(file: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"there is no database at .*site\.db"):
        backup(tmp_path / "kept.db", url(file))
    assert not file.exists()
    Database(url(file)).close()
    with pytest.raises(BackupError, match="is the database itself"):
        backup(file, url(file))
    (tmp_path / "folder").mkdir()
    with pytest.raises(BackupError, match="was not written"):
        backup(tmp_path / "folder", url(file))


def test_postgresql_is_left_to_its_own_command(tmp_path: Path) -> None:
    with pytest.raises(BackupError) as told:
        backup(tmp_path / "a b", "postgresql://ada:secret@db.example.org:5433/papers")
    message = str(told.value)
    assert f"pg_dump --format=custom '--file={tmp_path / 'a b'}' postgresql://ada@db.example.org:5433/papers" in message
    assert "secret" not in message
