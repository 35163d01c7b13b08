"""What comes first: the same expectations on either database, and filters against a scan in Python."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from offprint.daily.search import VERDICTS, Filters, Query, fts5, lexical, search, tsvector
from offprint.daily.search.words import plain
from offprint.store import Database, Listing, Paper

FIRST_DAY = datetime.date(2025, 8, 1)
FILLER = "we study a method for many problems and report what it does on several of them in some detail"


@pytest.fixture
def empty(new_url: Callable[..., str], migrated_url: str) -> Database:
    """A database of the test's own, without papers."""
    return Database(new_url(migrated_url))


def paper(name: str, **columns: object) -> Paper:
    """Make a paper; texts that are not given say nothing in particular."""
    texts: dict[str, object] = {"title": f"Untitled {name}", "abstract": FILLER, "authors": ["Nemo Nobody"]}
    return Paper(title_key=name, **(texts | columns))


def order(database: Database, typed: str, filters: Filters = Filters()) -> list[str]:  # noqa: B008
    with database.session() as session:
        return [hit.paper.title_key for hit in search(session, Query.parse(typed), filters=filters).hits]


RANKINGS: list[tuple[str, str, dict[str, dict[str, object]]]] = [
    (
        "the title beats the authors, our words and the abstract",
        "halpern",
        {
            "title": {"title": "The Halpern iteration revisited"},
            "author": {"authors": ["Benjamin Halpern", "Nemo Nobody"]},
            "summary": {"summary": "Uses the halpern iteration where others use an older one, with some success."},
            "abstract": {"abstract": FILLER + " by halpern"},
        },
    ),
    (
        "the title beats an abstract that repeats the word",
        "theory",
        {"title": {"title": "Theory of streams"}, "abstract": {"abstract": "theory of theory and theory again"}},
    ),
    (
        "the heading beats an abstract of a higher score",
        "theory",
        {
            "author": {"authors": ["Ada Theory"], "abstract": " ".join([FILLER] * 30)},
            "abstract": {"title": "It", "authors": [], "abstract": "theory theory theory"},
        },
    ),
    (
        "words side by side beat scattered words",
        "finite sum",
        {
            "phrase": {"abstract": f"{FILLER} the finite sum is split {FILLER} into a few more parts"},
            "scattered": {"abstract": f"{FILLER} the sum is split {FILLER} into finite parts"},
        },
    ),
    (
        "a title with all the words beats a title with one of them",
        "graph kernels",
        {
            "both": {"title": "Kernels for graphs"},
            "one": {"title": "Kernels", "abstract": f"{FILLER} graph"},
        },
    ),
    (
        "what we claim counts more than the abstract",
        "contraction",
        {
            "claim": {"claims_text": "The contraction is linear, which other methods of this kind do not have at all."},
            "abstract": {"abstract": f"{FILLER} contraction"},
        },
    ),
    (
        "a number finds its paper first",
        "2310.02987",
        {"number": {"arxiv": "2310.02987"}, "cites": {"abstract": "as in 2310.02987 and again in 2310.02987"}},
    ),
]


@pytest.mark.parametrize(("typed", "papers"), [case[1:] for case in RANKINGS], ids=[case[0] for case in RANKINGS])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_order(typed: str, papers: dict[str, dict[str, object]], reverse: bool, empty: Database) -> None:
    rows = [paper(name, **columns) for name, columns in papers.items()]
    with empty.session() as session:
        for row in rows[::-1] if reverse else rows:
            session.add(row)
            session.flush()
        session.add(paper("neither"))
    assert order(empty, typed) == list(papers)


def test_of_equals_the_newer_comes_first(empty: Database) -> None:
    with empty.session() as session:
        for name in "abc":
            session.add(paper(name, title="Equal Papers"))
            session.flush()
    assert order(empty, "equal") == ["c", "b", "a"]


MATCHES = {
    "all words are needed": ("graph kernels", True, {"title": "Graph", "abstract": "kernels"}),
    "one word is not enough": ("graph kernels", False, {"title": "Graph"}),
    "a stem": ("stream", True, {"title": "Streaming"}),
    "a compound is its words side by side": ("finite sum", True, {"title": "Finite-sum problems"}),
    "and the other way round": ("finite-sum", True, {"title": "Finite sum problems"}),
    "but not scattered": ("finite-sum", False, {"title": "Sum of finite parts"}),
    "quotes": ('"finite sum"', False, {"abstract": "a sum that is finite"}),
    "a phrase with a little word": ('"theory of streams"', True, {"title": "A theory of streams"}),
    "in which the little word counts": ('"theory of streams"', False, {"title": "A theory on streams"}),
    "little words alone": ('"to be or not"', True, {"title": "To be or not to be"}),
    "no accents needed": ("grobner", True, {"title": "Gröbner bases"}),
    "nor harmful": ("gröbner", True, {"title": "Grobner bases"}),
    "an author by field": ("author:åström", True, {"authors": ["Björn Åström"]}),
    "who is not the title": ("author:graph", False, {"title": "Graph"}),
    "a full name": ('author:"Ada Lovelace"', True, {"authors": ["Ada Lovelace", "C D"]}),
    "in its order": ('author:"Lovelace Ada"', False, {"authors": ["Ada Lovelace", "C D"]}),
    "a title by field": ("title:graph", False, {"abstract": "graph"}),
    "a number by field": ("arxiv:2310.02987", True, {"arxiv": "2310.02987"}),
    "a minus": ("graph -kernel", False, {"title": "Graph", "abstract": "kernels"}),
    "a minus with a field": ("graph -title:kernel", True, {"title": "Graph", "abstract": "kernels"}),
    "a minus with the same field": ("graph -title:kernel", False, {"title": "Graph kernels"}),
    "the beginning of a word": ("diffeo", True, {"title": "Diffeomorphisms"}),
    "of each word": ("diffeo mani", True, {"title": "Diffeomorphisms of manifolds"}),
    "but not of a quoted one": ('"diffeo"', False, {"title": "Diffeomorphisms"}),
    "in a claim": ("contraction", True, {"claims_text": "The contraction\nholds."}),
    "an address in the abstract": ("example", True, {"abstract": "see https://example.org/code_base."}),
    "a Greek letter": ("λ", True, {"title": "λ-calculus"}),
    "another script": ("学習", True, {"title": "学習 理論"}),
}


@pytest.mark.parametrize(("typed", "matches", "columns"), MATCHES.values(), ids=MATCHES)
def test_what_matches(typed: str, matches: bool, columns: dict[str, object], empty: Database) -> None:
    with empty.session() as session:
        session.add(paper("it", **columns))
    assert order(empty, typed) == (["it"] if matches else [])


def test_a_beginning_counts_only_where_nothing_holds_the_word(empty: Database) -> None:
    with empty.session() as session:
        session.add_all([paper("word", title="Norm"), paper("longer", title="Normalising flows")])
    assert order(empty, "norm") == ["word"]
    assert order(empty, "norm family:bags") == []
    assert order(empty, "normal") == ["longer"]


def test_of_many_the_newest_and_those_that_say_it_in_the_title_are_ranked(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical, "MOST_RANKED", 5)
    with empty.session() as session:
        for number in range(20):
            titled = number == 3
            session.add(paper(str(number), title="Graph" if titled else "Untitled", abstract=f"graph {number}"))
            session.flush()
    with empty.session() as session:
        found = search(session, Query.parse("graph"), limit=3)
        rest = search(session, Query.parse("graph"), limit=3, offset=3)
    assert [hit.paper.title_key for hit in (*found.hits, *rest.hits)] == ["3", "19", "18", "17", "16"]
    assert (found.total, found.more) == (5, True)


def test_pages_continue_each_other(empty: Database) -> None:
    with empty.session() as session:
        session.add_all(paper(str(number), abstract=f"graph {'graph ' * (number % 4)}") for number in range(23))
    with empty.session() as session:
        whole = [hit.paper.id for hit in search(session, Query.parse("graph"), limit=50).hits]
        pages = [search(session, Query.parse("graph"), limit=5, offset=start).hits for start in range(0, 25, 5)]
    assert [hit.paper.id for page in pages for hit in page] == whole
    assert len(whole) == 23


COUNTS = [(0, 0, 0, 0), (2, 2, 0, 0), (2, 1, 0, 1), (2, 0, 1, 1), (2, 0, 0, 1), (2, 1, 0, 0), (2, 0, 0, 0)]
ORACLE: dict[str, Callable[[Paper], bool]] = {
    "reproduced": lambda it: it.n_claims > 0 and it.n_reproduced == it.n_claims,
    "partly": lambda it: it.n_reproduced + it.n_weaker > 0 and it.n_reproduced < it.n_claims,
    "not-reproduced": lambda it: it.n_reproduced + it.n_weaker == 0 and it.n_not_reproduced > 0,
    "unmeasured": lambda it: it.n_reproduced + it.n_weaker + it.n_not_reproduced == 0,
}


@pytest.fixture(scope="module")
def varied(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """Papers with every combination of what filters ask for; some are listed on no day, some on two."""
    import databases

    database = Database(databases.create(tmp_path_factory.mktemp("varied"), migrated_url))
    with database.session() as session:
        combinations = itertools.product((None, "bags", "sets"), (None, "https://x"), (False, True), COUNTS)
        for number, (family, code, runs_here, counts) in enumerate(combinations):
            row = paper(str(number), family=family, code=code, runs_here=runs_here, year=2020 + number % 3 or None)
            row.title = "Graph" if number % 2 else "Kernel"
            row.n_claims, row.n_reproduced, row.n_weaker, row.n_not_reproduced = counts
            days = [FIRST_DAY + datetime.timedelta(days=number % 11 + 3 * again) for again in range(number % 3)]
            row.listings = [Listing(day=day) for day in days]
            session.add(row)
            session.flush()
    return database


DAYS = st.none() | st.integers(0, 14).map(lambda days: FIRST_DAY + datetime.timedelta(days=days))
CHOICES = st.builds(
    Filters,
    since=DAYS,
    until=DAYS,
    families=st.lists(st.sampled_from(["bags", "sets", "none"]), max_size=2, unique=True).map(tuple),
    has_code=st.sampled_from([None, True, False]),
    runs_here=st.sampled_from([None, True, False]),
    verdict=st.none() | st.sampled_from(VERDICTS),
    years=st.none() | st.sampled_from([(2020, 2020), (2021, 2022)]),
)


def lets_through(it: Paper, filters: Filters) -> bool:
    days = [listing.day for listing in it.listings]
    dated = filters.since is not None or filters.until is not None
    first, last = filters.since or datetime.date.min, filters.until or datetime.date.max
    return (
        (not dated or any(first <= day <= last for day in days))
        and (not filters.families or it.family in filters.families)
        and filters.has_code in (None, it.code is not None)
        and filters.runs_here in (None, it.runs_here)
        and (filters.verdict is None or ORACLE[filters.verdict](it))
        and (filters.years is None or (it.year is not None and filters.years[0] <= it.year <= filters.years[1]))
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(beside=CHOICES, within=CHOICES, unless=st.lists(CHOICES.filter(bool), max_size=1), word=st.booleans())
def test_filters_let_through_what_a_scan_lets_through(
    varied: Database, beside: Filters, within: Filters, unless: list[Filters], word: bool
) -> None:
    query = Query((Query.parse("graph").wanted if word else ()), (), within, tuple(unless))
    with varied.session() as session:
        every = session.scalars(select(Paper)).all()
        expected = {
            it.id
            for it in every
            if lets_through(it, beside)
            and lets_through(it, within)
            and not any(lets_through(it, other) for other in unless)
            and (not word or it.title == "Graph")
        }
        found = search(session, query, limit=500, filters=beside)
    if query or beside:
        assert {hit.paper.id for hit in found.hits} == expected
        assert found.total == len(expected)
        if not word:
            ids = [hit.paper.id for hit in found.hits]
            assert ids == sorted(ids, reverse=True)


def test_words_are_left_out_of_what_filters_list(empty: Database) -> None:
    with empty.session() as session:
        session.add_all(
            [paper("a", family="bags", title="Graph"), paper("b", family="bags"), paper("c", family="sets")]
        )
    assert order(empty, "family:bags -graph") == ["b"]
    assert order(empty, "-graph", Filters(families=("bags",))) == ["b"]
    assert order(empty, "family:bags -title:graph") == ["b"]


def test_both_indexes_offer_the_same() -> None:
    offered = {"IDENTITY", "MEMBER", "newest", "among", "holding", "titled", "left_out", "marked"}
    assert offered <= set(vars(fts5))
    assert offered <= set(vars(tsvector))


@given(content=st.text())
def test_what_is_plain_stays(content: str) -> None:
    assert plain(plain(content)) == plain(content)
