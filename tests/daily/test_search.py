"""Search: against a brute-force scan over words, with every kind of typing, and never a tag that was not ours."""

from __future__ import annotations

import re
from collections.abc import Iterator

import databases
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from offprint.daily.search import Query, search
from offprint.store import Database, Paper

VOCABULARY = ("robust", "stream", "halpern", "private", "kernel", "graph")


@pytest.fixture(scope="module")
def many(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Papers whose words are subsets of a small vocabulary: every subset once, spread over the columns."""
    url = databases.create(tmp_path_factory.mktemp("search"), migrated_url)
    database = Database(url)
    with database.session() as session:
        for bits in range(1, 2 ** len(VOCABULARY)):
            held = [word for place, word in enumerate(VOCABULARY) if bits >> place & 1]
            columns: dict[str, list[str]] = {name: [] for name in ("title", "summary", "abstract", "authors", "claims")}
            for place, word in enumerate(held):
                columns[list(columns)[(place + bits) % 5]].append(word)
            session.add(
                Paper(
                    title=f"Paper {' '.join(columns['title'])}",
                    title_key=f"paper{bits}",
                    summary=" ".join(columns["summary"]),
                    abstract=" ".join(columns["abstract"]) or None,
                    claims_text=" ".join(columns["claims"]) or None,
                    authors=columns["authors"],
                )
            )
    yield database
    database.close()
    databases.drop(url)


def found(database: Database, typed: str) -> list[str]:
    with database.session() as session:
        return [hit.paper.title for hit in search(session, Query.parse(typed)).hits]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=3),
    unwanted=st.lists(st.sampled_from(VOCABULARY), max_size=2),
)
def test_it_finds_what_a_scan_over_words_finds(wanted: list[str], unwanted: list[str], many: Database) -> None:
    typed = " ".join([*wanted, *(f"-{word}" for word in unwanted)])
    with many.session() as session:
        hits = search(session, Query.parse(typed), limit=100)
        expected = set()
        for paper in session.scalars(select(Paper)):
            texts = paper.title, paper.summary, paper.abstract, paper.claims_text, *paper.authors
            words = " ".join(text or "" for text in texts).split()
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


def test_matches_are_marked_and_everything_else_is_escaped(database: Database) -> None:
    with database.session() as session:
        hostile = "<script>alert(1)</script> \x02<mark>\x03 needle & <img src=x onerror=alert(1)> \x02\x02 \x03"
        session.add(Paper(title=f"Needle {hostile}", title_key="n", abstract=hostile))
        session.flush()
        [hit] = search(session, Query.parse("needle")).hits
    for shown in (hit.title, hit.passage):
        assert set(re.findall(r"<[^>]*>", shown)) == {"<mark>", "</mark>"}
        assert shown.count("<mark>") == shown.count("</mark>") > 0
        assert "\x02" not in shown
        assert "\x03" not in shown
    assert "<mark>Needle</mark>" in hit.title


def test_whole_words_are_marked_whatever_they_are_beside(database: Database) -> None:
    """Their forms too, in any case, without accents; not the beginning or the end of another."""
    title = "Subnet NET, nets_work planet_Net nétwork netting nét internet networks' (net)net9 9net"
    with database.session() as session:
        session.add(Paper(title=title, title_key="n", abstract="net."))
        session.flush()
        [hit] = search(session, Query.parse("net")).hits
        session.add(Paper(title="Études of été", title_key="e"))
        session.flush()
        [accented] = search(session, Query.parse("etude")).hits
    assert accented.title == "<mark>Études</mark> of été"
    marked = re.findall(r"(\S*)<mark>(.*?)</mark>(\S*)", hit.title)
    assert marked == [
        ("", "NET", ","),
        ("", "nets", "_work"),
        ("planet_", "Net", ""),
        ("", "netting", ""),
        ("", "nét", ""),
        ("(", "net", ")net9"),
    ]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(typed=st.text(st.one_of(st.sampled_from("\"-*()^:+{}~'\\%_ aANDORTx\x00\x02é"), st.characters())))
def test_nothing_that_can_be_typed_is_an_error(typed: str, many: Database) -> None:
    with many.session() as session:
        search(session, Query.parse(typed))


@pytest.mark.parametrize(
    "typed", ["0\ud800", '"', "a AND", "NEAR(a b", "title:x", "a*", "^a", "{a b}:c", "(" * 50, "-" * 300]
)
def test_the_syntax_of_the_index_means_nothing(typed: str, many: Database) -> None:
    with many.session() as session:
        search(session, Query.parse(typed))


def test_percent_signs_match_themselves(many: Database) -> None:
    assert found(many, "r%t") == found(many, "rob_st") == []
