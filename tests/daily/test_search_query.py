"""What readers type: read into words, fields and filters, and written back so that it means the same."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offprint.daily.search import LONGEST_QUERY, VERDICTS, Filters, Query, Term
from offprint.daily.search.query import MOST_TERMS
from offprint.papers import FAMILIES

DAY = datetime.date(2025, 8, 20)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("two words", [Term("two"), Term("words")]),
        ('"a  phrase" word', [Term("a phrase", quoted=True), Term("word")]),
        ('"never closed', [Term("never closed", quoted=True)]),
        ("author:Lovelace", [Term("Lovelace", "author")]),
        ('AUTHOR:"Ada Lovelace"', [Term("Ada Lovelace", "author", True)]),
        ("title:halpern", [Term("halpern", "title")]),
        ("arXiv:2310.02987v2", [Term("2310.02987", "arxiv")]),
        ("https://arxiv.org/abs/2310.02987", [Term("2310.02987", "arxiv")]),
        ("https://arxiv.org/pdf/2310.02987v2.pdf more", [Term("2310.02987", "arxiv"), Term("more")]),
        ("foo:bar", [Term("foo:bar")]),  # no such field: words
        (
            "has:cheese is:good year:soon since:ever",
            [Term(word) for word in ["has:cheese", "is:good", "year:soon", "since:ever"]],
        ),
        ("title: x", [Term("title:"), Term("x")]),
        ("-- !? * :", []),
        ("\x00\ud800a\x7f", [Term("a")]),
    ],
)
def test_words_and_fields(typed: str, wanted: list[Term]) -> None:
    assert list(Query.parse(typed).wanted) == wanted


@pytest.mark.parametrize(
    ("typed", "filters"),
    [
        ("family:bags", Filters(families=("bags",))),
        ("topic:bags,sets", Filters(families=("bags", "sets"))),
        ("year:2024", Filters(years=(2024, 2024))),
        ("year:2023-2025", Filters(years=(2023, 2025))),
        ("has:code is:runnable", Filters(has_code=True, runs_here=True)),
        ("since:2025-08-20 until:2025-08-20", Filters(since=DAY, until=DAY)),
        *((f"is:{verdict}", Filters(verdict=verdict)) for verdict in VERDICTS),
    ],
)
def test_filters(typed: str, filters: Filters) -> None:
    query = Query.parse(typed)
    assert (query.filters, query.wanted) == (filters, ())
    assert query


def test_a_minus_before_anything() -> None:
    query = Query.parse('a -b -"c d" -author:e -has:code')
    assert query.unwanted == (Term("b"), Term("c d", None, True), Term("e", "author"))
    assert query.unless == (Filters(has_code=True),)


def test_leaving_out_alone_asks_for_nothing() -> None:
    assert not Query.parse("-a -has:code")


def test_a_query_has_a_limit() -> None:
    assert len(Query.parse("a " * LONGEST_QUERY).wanted) == MOST_TERMS
    assert Query.parse("a" * 10 * LONGEST_QUERY).wanted == (Term("a" * LONGEST_QUERY),)


WORDS = st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True)
TERMS = st.builds(Term, WORDS, st.sampled_from([None, "title", "author"]), st.booleans())
FILTERS = st.builds(
    Filters,
    since=st.none() | st.dates(),
    until=st.none() | st.dates(),
    families=st.lists(st.sampled_from(FAMILIES), max_size=2, unique=True).map(tuple),
    has_code=st.none() | st.just(True),
    runs_here=st.none() | st.just(True),
    verdict=st.none() | st.sampled_from(VERDICTS),
    years=st.none() | st.tuples(st.integers(1990, 2009), st.integers(2010, 2030)),
)


@given(
    wanted=st.lists(TERMS, max_size=3, unique=True),
    unwanted=st.lists(TERMS, max_size=2, unique=True),
    filters=FILTERS,
)
def test_a_query_written_down_reads_the_same(wanted: list[Term], unwanted: list[Term], filters: Filters) -> None:
    query = Query(tuple(wanted), tuple(unwanted))
    typed = query.narrowed(filters)
    if len(typed) <= LONGEST_QUERY:
        assert Query.parse(typed) == Query(query.wanted, query.unwanted, filters)


@given(typed=st.text(max_size=300))
def test_anything_can_be_typed_and_written_back(typed: str) -> None:
    query = Query.parse(typed)
    again = query.narrowed(Filters())
    if len(again) <= LONGEST_QUERY:
        assert len(Query.parse(again).wanted) <= MOST_TERMS
