"""Search: against a brute-force scan over words, with every kind of typing, and never a tag that was not ours."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from offprint.daily.search import Query, search
from offprint.store import Database, Paper

VOCABULARY = ("robust", "stream", "halpern", "private", "kernel", "graph")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """Papers whose words are subsets of a small vocabulary: every subset once, spread over the columns."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('search') / 'many.db'}")
    with database.session() as session:
        for bits in range(1, 2 ** len(VOCABULARY)):
            held = [word for place, word in enumerate(VOCABULARY) if bits >> place & 1]
            columns: dict[str, list[str]] = {"title": [], "summary": [], "abstract": [], "authors": []}
            for place, word in enumerate(held):
                columns[list(columns)[(place + bits) % 4]].append(word)
            session.add(
                Paper(
                    title=f"Paper {' '.join(columns['title'])}",
                    title_key=f"paper{bits}",
                    summary=" ".join(columns["summary"]),
                    abstract=" ".join(columns["abstract"]) or None,
                    authors=columns["authors"],
                )
            )
    return database


def found(database: Database, typed: str, **options: bool) -> list[str]:
    with database.session() as session:
        return [hit.paper.title for hit in search(session, Query.parse(typed), **options).hits]


@pytest.mark.parametrize("indexed", [True, False])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=3),
    unwanted=st.lists(st.sampled_from(VOCABULARY), max_size=2),
)
def test_it_finds_what_a_scan_over_words_finds(
    indexed: bool, wanted: list[str], unwanted: list[str], many: Database
) -> None:
    typed = " ".join([*wanted, *(f"-{word}" for word in unwanted)])
    with many.session() as session:
        hits = search(session, Query.parse(typed), limit=100, indexed=indexed)
        expected = set()
        for paper in session.scalars(select(Paper)):
            words = f"{paper.title} {paper.summary} {paper.abstract} {' '.join(paper.authors)}".split()
            if set(wanted) <= set(words) and not set(unwanted) & set(words):
                expected.add(paper.id)
    assert {hit.paper.id for hit in hits.hits} == expected
    assert hits.total == len(expected)


def test_the_best_are_returned_and_all_are_counted(many: Database) -> None:
    with many.session() as session:
        hits = search(session, Query.parse("kernel"), limit=5)
    assert (len(hits.hits), hits.total) == (5, 32)


@pytest.mark.parametrize(
    ("typed", "titles"),
    [
        ("streams", {"Beta Testing of Streams", "Gamma Theory of Streams", "Endless of Streams"}),
        ("stream", {"Beta Testing of Streams", "Gamma Theory of Streams", "Endless of Streams"}),  # by stem
        ("groebner", set()),
        ("grobner", {'Alpha: a <b>Method</b> & its "Limits" for Gröbner Bases'}),  # without its accent
        ("Åström", {'Alpha: a <b>Method</b> & its "Limits" for Gröbner Bases'}),  # an author
        ('"theory of streams"', {"Gamma Theory of Streams"}),
        ('"streams of theory"', set()),
        ("streams -theory -endless", {"Beta Testing of Streams"}),
        ("2501.00003", {"Gamma Theory of Streams"}),
        ("gamma-theory", {"Gamma Theory of Streams"}),
        ("gamm", {"Gamma Theory of Streams"}),  # the beginning of a word, where no word is so
        ("-streams", set()),
        ("", set()),
    ],
)
def test_what_readers_type(typed: str, titles: set[str], database: Database) -> None:
    assert set(found(database, typed)) == titles


def test_a_word_of_the_title_counts_more_than_one_of_the_abstract(database: Database) -> None:
    with database.session() as session:
        session.add(Paper(title="Other", title_key="other", abstract="theory of theory and theory again"))
    assert found(database, "theory")[0] == "Gamma Theory of Streams"


def test_the_index_follows_every_change(database: Database) -> None:
    with database.session() as session:
        session.add(Paper(title="Quixotic Ünicorns", title_key="q", authors=["Zoë Quux"]))
    assert found(database, "quixotic unicorns") == found(database, "zoe") == ["Quixotic Ünicorns"]
    with database.session() as session:
        paper = session.scalars(select(Paper).where(Paper.title_key == "q")).one()
        paper.title, paper.abstract = "Plain Title", "unicorns"
    assert found(database, "quixotic") == []
    assert found(database, "unicorns") == ["Plain Title"]
    with database.session() as session:
        session.delete(session.scalars(select(Paper).where(Paper.title_key == "q")).one())
    assert found(database, "unicorns") == []


@pytest.mark.parametrize("indexed", [True, False])
def test_matches_are_marked_and_everything_else_is_escaped(indexed: bool, database: Database) -> None:
    with database.session() as session:
        hostile = "<script>alert(1)</script> \x02<mark>\x03 needle & <img src=x onerror=alert(1)> \x02\x02 \x03"
        session.add(Paper(title=f"Needle {hostile}", title_key="n", abstract=hostile))
        session.flush()
        [hit] = search(session, Query.parse("needle"), indexed=indexed).hits
    for shown in (hit.title, hit.passage):
        assert set(re.findall(r"<[^>]*>", shown)) == {"<mark>", "</mark>"}
        assert shown.count("<mark>") == shown.count("</mark>") > 0
        assert "\x02" not in shown
        assert "\x03" not in shown
    assert "<mark>Needle</mark>" in hit.title


@pytest.mark.parametrize("indexed", [True, False])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(typed=st.text(st.one_of(st.sampled_from("\"-*()^:+{}~'\\%_ aANDORTx\x00\x02é"), st.characters())))
def test_nothing_that_can_be_typed_is_an_error(indexed: bool, typed: str, many: Database) -> None:
    with many.session() as session:
        search(session, Query.parse(typed), indexed=indexed)


@pytest.mark.parametrize(
    "typed", ["0\ud800", '"', "a AND", "NEAR(a b", "title:x", "a*", "^a", "{a b}:c", "(" * 50, "-" * 300]
)
def test_the_syntax_of_the_index_means_nothing(typed: str, many: Database) -> None:
    with many.session() as session:
        search(session, Query.parse(typed))


def test_percent_signs_match_themselves(many: Database) -> None:
    assert found(many, "r%t", indexed=False) == found(many, "rob_st", indexed=False) == []
