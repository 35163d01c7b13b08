"""The database: migrations give the tables that the models describe, and moments keep their zone."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Integer, Table
from sqlalchemy.exc import IntegrityError, StatementError

from offprint.store import Base, Database, Job, Listing, Outcome, default_url, inserts
from offprint.store import Paper as PaperRow
from offprint.store import database as store_database
from offprint.store.database import MIGRATIONS, _alembic, _head


def ours(name: str | None, kind: str, *_: object) -> bool:
    """Leave out what is no model's: the index that search keeps for itself."""
    return not (kind == "table" and name is not None and name not in Base.metadata.tables)


def test_migrations_build_exactly_the_models(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": ours})
        assert compare_metadata(context, Base.metadata) == []


def test_the_newest_revision_is_the_one_that_alembic_knows(database: Database) -> None:
    assert _head() == ScriptDirectory(str(MIGRATIONS)).get_current_head()
    assert database.at_head()


def test_tables_of_an_older_version_are_brought_up_to_date(new_url: Callable[..., str]) -> None:
    url = new_url()
    brought_back(url, "0001")
    opened = Database(url)
    assert opened.at_head()
    with opened.session() as session:
        assert session.query(Job).count() == 0
    opened.close()


def brought_back(url: str, revision: str, *statements: str) -> None:
    """Make a database of an older version, and do something with it."""
    Database(url).close()
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        config = _alembic()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_listings_go_to_the_account_that_has_their_handle(new_url: Callable[..., str]) -> None:
    """As they did before they knew an account."""
    url = new_url()
    brought_back(
        url,
        "0008",
        "INSERT INTO accounts (id, email, handle, name, moderator, banned, created_at)"
        " VALUES (7, 'a@example.org', 'ada', 'Ada', false, false, '2025-08-20 00:00:00')",
        "INSERT INTO papers (id, title, title_key, authors, added_at)"
        " VALUES (1, 'x', 'x', '[]', '2025-08-20 00:00:00')",
        *(
            f"INSERT INTO listings (day, paper_id, position, submitter) VALUES ('2025-08-2{day}', 1, 0, {submitter})"
            for day, submitter in enumerate(("'ada'", "'eve'", "NULL"))
        ),
    )
    opened = Database(url)
    with opened.session() as session:
        found = session.scalars(sqlalchemy.select(Listing).order_by(Listing.day)).all()
        assert [(listing.submitter, listing.account_id) for listing in found] == [
            ("ada", 7),
            ("eve", None),
            (None, None),
        ]
    opened.close()


def test_a_folder_is_made_for_a_file(tmp_path: Path) -> None:
    Database(f"sqlite:///{tmp_path / 'deep' / 'new.db'}").close()
    assert (tmp_path / "deep" / "new.db").exists()


def test_programs_can_create_the_same_database_at_once(new_url: Callable[..., str]) -> None:
    code = "import sys; from offprint.store import Database; Database(sys.argv[1])"
    url = new_url()
    programs = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(3)]
    errors = [program.communicate()[1].decode() for program in programs]
    assert [program.returncode for program in programs] == [0, 0, 0], errors


def test_moments_come_back_as_the_same_instant_in_utc(database: Database) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=5))
    asked = datetime.datetime(2025, 8, 20, 3, 30, tzinfo=zone)
    with database.session() as session:
        session.add(Job(paper="a", scale="quick", asked_at=asked))
    with database.session() as session:
        found = session.query(Job).one().asked_at
    assert found == asked
    assert found.utcoffset() == datetime.timedelta(0)


def test_a_moment_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="time zone"), database.session() as session:  # noqa: PT012
        session.add(Job(paper="a", scale="quick", asked_at=datetime.datetime(2025, 8, 20)))
        session.flush()


def test_a_session_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.session() as session:  # noqa: PT012
        session.add(PaperRow(title="x", title_key="x"))
        session.flush()
        raise RuntimeError
    with database.session() as session:
        assert session.query(PaperRow).count() == 0


def test_one_outcome_for_each_task_and_version_of_code(database: Database) -> None:
    def row() -> Outcome:
        task = {"paper": "p", "claim": "c", "scale": "quick", "seed": 0, "device": "cpu", "fingerprint": "f"}
        return Outcome(**task, status="ok", seconds=1.0, peak_memory_mb=1.0)

    with pytest.raises(IntegrityError), database.session() as session:
        session.add_all([row(), row()])


def test_a_session_to_read_with_sees_what_is_there_and_begins_nothing(database: Database) -> None:
    with database.session() as session:
        session.add(Job(paper="a", scale="quick"))
    with database.reading() as session:
        assert session.query(Job).count() == 1
        with database.session() as other:
            other.add(Job(paper="b", scale="quick"))
        assert session.query(Job).count() == 2
        driver = session.connection().connection.driver_connection
        assert database.sqlite or driver.autocommit  # type: ignore[union-attr]
    with database.session() as session:
        driver = session.connection().connection.driver_connection
        assert database.sqlite or not driver.autocommit  # type: ignore[union-attr]


def test_the_url_comes_from_the_environment_or_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFPRINT_DATABASE_URL", "sqlite:////somewhere/else.db")
    assert default_url() == "sqlite:////somewhere/else.db"
    monkeypatch.delenv("OFFPRINT_DATABASE_URL")
    monkeypatch.setenv("XDG_DATA_HOME", "/data/home")
    assert default_url().endswith("offprint/offprint.db")


def test_the_full_text_index_follows_every_change_of_a_paper(migrated_url: str, new_url: Callable[..., str]) -> None:
    """FTS5 compares what it has indexed with what the papers say now."""
    database = Database(new_url(migrated_url))
    if not database.sqlite:
        pytest.skip("PostgreSQL keeps no index without its text")
    check = sqlalchemy.text("INSERT INTO papers_search (papers_search) VALUES ('integrity-check')")
    found = sqlalchemy.text("SELECT rowid FROM papers_search WHERE papers_search MATCH :words")
    with database.session() as session:
        first = PaperRow(title="Erdős numbers", title_key="a", authors=["Ada Lovelace", "Émilie du Châtelet"])
        session.add_all(
            [first, PaperRow(title="Another", title_key="b", abstract="of a graph"), PaperRow(title="C", title_key="c")]
        )
        session.flush()
        session.execute(check)
        first.authors, first.abstract = ["Grace Hopper"], "now on compilers"
        session.flush()
        session.execute(check)
        assert session.scalars(found, {"words": "hopper compilers"}).all() == [first.id]
        assert session.scalars(found, {"words": "lovelace"}).all() == []
        session.delete(first)
        session.flush()
        session.execute(check)
        assert session.scalars(found, {"words": "hopper"}).all() == []
    database.close()


MOMENT = datetime.datetime(2025, 8, 20, 1, 2, 3, tzinfo=datetime.UTC)


def many(start: int, count: int) -> list[dict[str, Any]]:
    authors = [["Ada"], [], ["Émile", 'with " and \\ and \t']]
    return [
        {
            "title": f"Word{n} é\t{n}",
            "title_key": f"{n}",
            "authors": authors[n % 3],
            "abstract": "of graphs\\n" if n % 2 else None,
            "published_at": MOMENT if n % 5 else None,
            "added_at": MOMENT,
        }
        for n in range(start, start + count)
    ]


def without_ids(database: Database) -> list[dict[str, Any]]:
    with database.session() as session:
        rows = session.scalars(sqlalchemy.select(PaperRow).order_by(PaperRow.id)).all()
        return [{k: v for k, v in vars(row).items() if k not in ("_sa_instance_state", "id")} for row in rows]


@pytest.fixture
def two(migrated_url: str, new_url: Callable[..., str]) -> Iterator[tuple[Database, Database]]:
    both = Database(new_url(migrated_url)), Database(new_url(migrated_url))
    yield both
    for database in both:
        database.close()


def test_many_rows_are_inserted_as_sqlalchemy_inserts_them(two: tuple[Database, Database]) -> None:
    """Every value and every default, in the order that was given; also among rows that are there."""
    ours, theirs = two
    table = cast(Table, PaperRow.__table__)
    ids = []
    for part in (many(0, 40), many(40, 1), [], many(41, 9)):
        with ours.session() as session:
            session.execute(sqlalchemy.delete(PaperRow).where(PaperRow.title_key == "0"))
            ids += inserts.insert_many(session.connection(), table, part)
        with theirs.session() as session:
            session.execute(sqlalchemy.delete(PaperRow).where(PaperRow.title_key == "0"))
            session.add_all([PaperRow(**values) for values in part])
    assert without_ids(ours) == without_ids(theirs)
    with ours.session() as session:
        assert (
            list(session.scalars(sqlalchemy.select(PaperRow.id).order_by(PaperRow.title_key.cast(Integer)))) == ids[1:]
        )


def test_one_of_very_many_values(database: Database) -> None:
    """More than a database takes as parameters, whatever they hold."""
    odd = ["plain", 'with " and \\', "é, {}", "NULL"]
    with database.session() as session:
        session.add_all([PaperRow(title=title, title_key=title) for title in (*odd, "other")])
        session.flush()
        asked = [*odd, *map(str, range(100_000))]
        held = inserts.one_of(session.connection(), PaperRow.__table__.c.title_key, asked)
        assert set(session.scalars(sqlalchemy.select(PaperRow.title).where(held))) == set(odd)
        none = inserts.one_of(session.connection(), PaperRow.__table__.c.title_key, [])
        assert session.scalars(sqlalchemy.select(PaperRow.title).where(none)).all() == []


def test_what_may_be_there_only_once_is_refused_as_sqlalchemy_refuses_it(database: Database) -> None:
    """Whoever inserts may try again: the error is no driver's own."""
    rows = [row | {"arxiv": f"2401.{n % 2:05}"} for n, row in enumerate(many(0, 3))]
    with pytest.raises(IntegrityError), database.session() as session:
        inserts.insert_many(session.connection(), cast(Table, PaperRow.__table__), rows)
    with database.session() as session:
        assert len(inserts.insert_many(session.connection(), cast(Table, PaperRow.__table__), rows[:2])) == 2


def test_a_connection_is_tried_out_only_after_a_while_and_the_dead_are_replaced(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.sqlite:
        pytest.skip("a file forgets nobody")
    tried = []
    ping = type(database.engine.dialect).do_ping
    monkeypatch.setattr(
        type(database.engine.dialect), "do_ping", lambda dialect, held: tried.append(1) or ping(dialect, held)
    )
    whoever = sqlalchemy.text("SELECT pg_backend_pid()")
    others = sqlalchemy.text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    def ask() -> int:
        with database.session() as session:
            return session.execute(whoever).scalar_one()

    first = ask()
    assert [ask(), ask(), tried] == [first, first, []]
    monkeypatch.setattr(store_database, "TRUSTED_SECONDS", 0.0)
    assert [ask(), tried] == [first, [1]]
    engine = sqlalchemy.create_engine(database.url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        assert connection.execute(others).scalar_one() >= 1
    assert ask() != first
