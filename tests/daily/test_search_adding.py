"""Very many papers added at once are found as if each had come alone, or are not there at all."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from offprint.daily.search import adding
from offprint.daily.search.adding import add_papers
from offprint.store import Database, Paper

MOMENT = datetime.datetime(2025, 8, 20, 1, 2, 3, tzinfo=datetime.UTC)
CHECK = text("INSERT INTO papers_search (papers_search) VALUES ('integrity-check')")
FOUND = text(
    "SELECT rowid, round(bm25(papers_search), 9) FROM papers_search"
    " WHERE papers_search MATCH 'ada OR graphs' ORDER BY rowid"
)
VECTORS = text("SELECT paper_id, heading::text, words::text FROM papers_search ORDER BY paper_id")
letters = st.sampled_from("aZ09 -_.,/@:'\\é\u0301ßΣ漢∀½ ")
contents = st.text(letters, max_size=30) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
in_one_database = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def papers(start: int, count: int) -> list[dict[str, Any]]:
    """Make papers, with and without abstracts and authors."""
    authors = [["Ada"], [], ["Émile", 'with " and \\ and \t']]
    return [
        {
            "title": f"Word{n} é\t{n}",
            "title_key": f"{n}",
            "authors": authors[n % 3],
            "abstract": "of graphs\\n" if n % 2 else None,
            "added_at": MOMENT,
        }
        for n in range(start, start + count)
    ]


@pytest.fixture
def two(migrated_url: str, new_url: Callable[..., str]) -> Iterator[tuple[Database, Database]]:
    """Two databases without papers."""
    both = Database(new_url(migrated_url)), Database(new_url(migrated_url))
    yield both
    for database in both:
        database.close()


def index(database: Database) -> list[tuple[Any, ...]]:
    """Return what the index holds; SQLite compares it with the papers by itself, and its scores count every entry."""
    with database.session() as session:
        if database.sqlite:
            session.execute(CHECK)
        return [tuple(row) for row in session.execute(FOUND if database.sqlite else VECTORS)]


def test_many_are_indexed_as_if_each_came_alone_and_what_comes_after_too(two: tuple[Database, Database]) -> None:
    """The triggers, which follow every paper by itself, say what the index should hold."""
    for database, together in zip(two, (True, False), strict=True):
        for start in (0, 30):
            with database.session() as session:
                if together:
                    assert add_papers(session, papers(start, 29)) == list(range(start + 1, start + 30))
                else:
                    session.add_all([Paper(**values) for values in papers(start, 29)])
                session.add(Paper(**papers(start + 29, 1)[0]))
        with database.session() as session:
            changed, gone = session.scalars(select(Paper).order_by(Paper.id).limit(2))
            changed.title = "Ada anew"
            session.delete(gone)
            assert add_papers(session, []) == []
    together, alone = map(index, two)
    assert together == alone
    assert len(together) > 25


def test_papers_whose_words_could_not_be_indexed_are_not_there(
    two: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that dies between the two leaves neither, and the index goes on following single papers."""
    database, other = two
    wrong: dict[str, Any] = {"_WORDS": "SELECT ? FROM nowhere", "_VECTORS": text("SELECT 1 FROM nowhere")}
    name = "_WORDS" if database.sqlite else "_VECTORS"
    with monkeypatch.context() as patch:
        patch.setattr(adding, name, wrong[name])
        with pytest.raises(DatabaseError, match="nowhere"), database.session() as session:
            add_papers(session, papers(0, 9))
    for each in two:
        with each.session() as session:
            assert session.query(Paper).count() == 0
            session.add_all([Paper(id=number, **values) for number, values in enumerate(papers(0, 5), start=1)])
    assert index(database) == index(other)
    assert len(index(database)) > 2


@in_one_database
@given(title=contents, authors=st.lists(contents, max_size=3), abstract=st.none() | contents, ours=contents)
def test_whatever_a_text_holds_its_words_are_those_that_the_trigger_finds(
    title: str, authors: list[str], abstract: str | None, ours: str, database: Database
) -> None:
    said = {"title": title, "title_key": "k", "authors": authors, "abstract": abstract, "added_at": MOMENT}
    said |= {"arxiv": "2401.00001", "slug": "a-b", "summary": ours, "claims_text": title}
    with Session(database.engine) as session:
        session.execute(text("UPDATE papers SET n_votes = 0 WHERE id = 0"))  # what imports do before: they write
        [number] = add_papers(session, [said])
        if database.sqlite:
            session.execute(CHECK)
        else:
            found = text("SELECT heading::text, words::text FROM papers_search WHERE paper_id = :id")
            together = session.execute(found, {"id": number}).one()
            session.execute(text("UPDATE papers SET title = title WHERE id = :id"), {"id": number})
            assert session.execute(found, {"id": number}).one() == together
        session.rollback()
