"""Lists: what the database has to do for a page of them."""

from __future__ import annotations

import datetime

import pytest
from sqlalchemy import Select, event, insert, text

from offprint.daily import lists
from offprint.daily.periods import Period
from offprint.store import Database, Listing, Paper

DAY = datetime.date(2025, 9, 9)


@pytest.fixture
def many(database: Database) -> Database:
    """Enough papers that an index is worth using, on two days."""
    with database.session() as session:
        session.execute(
            insert(Paper),
            [
                {"id": 100 + n, "title": f"{n}", "title_key": f"{n}", "hotness": (7919 * n) % 3000, "n_votes": n % 7}
                for n in range(3000)
            ],
        )
        session.execute(
            insert(Listing),
            [{"day": DAY.replace(day=9 + n % 2), "paper_id": 100 + n, "position": n} for n in range(3000)],
        )
        session.execute(text("ANALYZE"))
    return database


def plan(database: Database, statement: Select[int]) -> str:
    """Return how the database would answer."""
    engine = database.engine
    asked = statement.compile(engine, compile_kwargs={"literal_binds": True})
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        return "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {asked}"))


def test_trending_reads_its_index_in_order_and_sorts_nothing(many: Database) -> None:
    found = plan(many, lists.trending_ids().limit(61).offset(120))
    assert "papers_by_hotness" in found
    assert "TEMP B-TREE" not in found
    assert "Sort" not in found


def test_a_day_is_found_by_an_index(many: Database) -> None:
    found = plan(many, lists.period_ids(Period.holding("day", DAY), "votes").limit(61))
    assert "SCAN listings" not in found
    assert "Seq Scan on listings" not in found or many.engine.dialect.name == "postgresql"


def test_pages_of_a_list_are_the_list(many: Database) -> None:
    by_heat = sorted(range(3000), key=lambda n: (-((7919 * n) % 3000), -n))
    by_votes = sorted(range(3000), key=lambda n: (-(n % 7), -((7919 * n) % 3000), -n))
    with many.session() as session:
        day = Period.holding("day", DAY)
        month = Period.holding("month", DAY)
        assert lists.about(session, day).papers == 1500
        assert lists.about(session, month).papers == 3000
        page = lists.of_period(session, month, "votes", 3)
        assert [paper.id - 100 for paper in page.papers] == by_votes[120:180]
        page = lists.of_period(session, day, "trending", 2)
        assert [paper.id - 100 for paper in page.papers] == [n for n in by_heat if n % 2 == 0][60:120]
        page = lists.of_period(session, month, "listed", 25)  # the last of the newest day is the 1500th
        assert [paper.id - 100 for paper in page.papers] == list(range(2881, 3000, 2))
        assert page.more
        page = lists.of_period(session, month, "listed", 50)
        assert not page.more
        assert [day for day, _ in page.groups] == [DAY]
        assert lists.of_period(session, month, "listed", 51).groups == ()


def test_a_page_costs_few_queries_and_loads_no_abstract(many: Database) -> None:
    asked: list[str] = []
    event.listen(many.engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    with many.session() as session:
        for order in ("listed", "votes", "trending"):
            lists.of_period(session, Period.holding("day", DAY), order)
        lists.trending(session)
    assert len(asked) == 8
    assert not any("abstract" in statement for statement in asked)
