"""Very many papers added at once are found as if each had come alone, or are not there at all."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from offprint.daily.search import adding, vectors
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
    wrong: dict[str, Any] = {"_WORDS": "SELECT ? FROM nowhere", "_SORT_IN": text("SELECT 1 FROM nowhere")}
    name = "_WORDS" if database.sqlite else "_SORT_IN"
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


LONG = {
    "many words": "graph of a sum " * 5000,
    "many times one word": "graph " * 300,
    "as many as a vector holds of one": "graph " * 255,
    "a word longer than any": "a" * 3000 + " graph",
    "many authors": "Ada Graph, " * 400,
}


@pytest.mark.parametrize("content", LONG.values(), ids=LONG)
def test_however_long_a_text_is_its_words_are_those_that_the_trigger_finds(
    content: str, two: tuple[Database, Database]
) -> None:
    """Beyond what a vector counts, in words and in places of one, the database decides what stays."""
    said = {"title": "Graphs", "title_key": "k", "authors": [content[:4000]], "abstract": content, "added_at": MOMENT}
    database, alone = two
    with database.session() as session:
        add_papers(session, [said, papers(0, 1)[0] | {"authors": []}])
    with alone.session() as session:
        session.add_all([Paper(**said), Paper(**papers(0, 1)[0] | {"authors": []})])
    assert index(database) == index(alone)


def test_words_are_asked_about_once(two: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when they come again in another batch; when too many are known, from the beginning."""
    if two[0].sqlite:
        pytest.skip("SQLite looks at words by itself")
    monkeypatch.setattr(adding, "_LEXEMES", vectors.Lexemes())
    asked: list[list[str]] = []
    for database in two:
        event.listen(
            database.engine,
            "before_cursor_execute",
            lambda c, cursor, sql, values, *_: asked.append(sorted(values["words"])) if "unnest(to_ts" in sql else None,
        )
    one, other = ({"title": title, "title_key": title, "authors": [], "added_at": MOMENT} for title in ("A b", "B c"))
    for database in two:
        for paper in (one, other):
            with database.session() as session:
                add_papers(session, [paper])
    assert asked == [["a", "b"], ["c"]]
    monkeypatch.setattr(vectors, "MOST_KEPT", 2)
    with two[0].session() as session:
        add_papers(session, [one])
    assert asked[2:] == [["a", "b"]]


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
