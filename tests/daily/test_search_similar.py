"""Similar papers without a model: against overlaps that are known by how the papers were made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import event

from offprint.daily.search import Holders, similar
from offprint.store import Database, Paper

COMMON = "we propose a method for learning models from data and show results"


@pytest.fixture
def groups(new_url: Callable[..., str], migrated_url: str) -> Database:
    """Papers of three subjects, each with rare words of its own, among words that all share."""
    database = Database(new_url(migrated_url))
    subjects = {"games": "halpern monotone inclusion", "bags": "labelproportion aggregate", "cells": "protein folding"}
    with database.session() as session:
        for number in range(12):
            subject = list(subjects)[number % 3]
            words = subjects[subject]
            abstract = f"{COMMON} {words} {words} {COMMON}"
            session.add(Paper(title=f"{words.title()} {number}", title_key=f"{subject}{number}", abstract=abstract))
            session.flush()
    return database


def test_papers_of_the_same_subject_are_similar(groups: Database) -> None:
    with groups.session() as session:
        for number in range(1, 13):
            paper = session.get_one(Paper, number)
            alike = similar(session, paper, limit=3)
            assert paper not in alike
            assert len(alike) == 3
            assert {other.id % 3 for other in alike} == {paper.id % 3}


def test_it_is_stable_and_the_newer_of_equals_comes_first(groups: Database) -> None:
    with groups.session() as session:
        paper = session.get_one(Paper, 1)
        assert [other.id for other in similar(session, paper, limit=3)] == [10, 7, 4]
        assert similar(session, paper) == similar(session, paper)


def test_more_rare_words_in_common_come_first(groups: Database) -> None:
    with groups.session() as session:
        half = Paper(title="Monotone operators", title_key="half", abstract=COMMON)
        session.add(half)
        session.flush()
        alike = similar(session, session.get_one(Paper, 1), limit=5)
    assert [other.id for other in alike][:4] == [10, 7, 4, half.id]


@pytest.mark.parametrize("title", ["", "?!", "a an of", '"; DROP TABLE papers; --', "\u0301", "学習"])
def test_a_paper_that_says_little_has_nothing_similar_or_something(title: str, groups: Database) -> None:
    with groups.session() as session:
        paper = Paper(title=title, title_key="odd")
        session.add(paper)
        session.flush()
        assert paper not in similar(session, paper)


def test_words_that_many_papers_hold_help_where_there_are_no_others(
    groups: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offprint.daily.search.similarity.COMMON", 2)
    with groups.session() as session:
        alike = similar(session, session.get_one(Paper, 2), limit=3)
    assert {other.id % 3 for other in alike} == {2}


@pytest.mark.parametrize("common", [2, 300])
def test_what_is_known_of_words_is_not_asked_again_until_it_is_old(
    common: int, groups: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offprint.daily.search.similarity.COMMON", common)
    now = 0.0
    holders = Holders(60.0, clock=lambda: now)
    asked: list[str] = []

    def listen(_: object, __: object, statement: str, *___: object) -> None:
        asked.append(statement)

    with groups.session() as session:
        paper, other = session.get_one(Paper, 1), session.get_one(Paper, 4)
        afresh = [alike.id for alike in similar(session, paper, limit=3)]
        assert [alike.id for alike in similar(session, paper, limit=3, holders=holders)] == afresh
        event.listen(groups.engine, "before_cursor_execute", listen)
        assert [alike.id for alike in similar(session, other, limit=3, holders=holders)] == [10, 7, 1]
        assert len(asked) == 1  # the papers themselves
        title = paper.title
        session.add(Paper(title=title, title_key="new", abstract=paper.abstract))
        session.flush()
        assert [alike.id for alike in similar(session, paper, limit=3, holders=holders)] == afresh
        now = 60.0
        assert similar(session, paper, limit=3, holders=holders)[0].title == title
        assert similar(session, paper, limit=3, holders=holders)[0].title_key == "new"


def test_only_so_many_words_are_kept(groups: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offprint.daily.search.similarity.MOST_KEPT", 3)
    holders = Holders(60.0)
    with groups.session() as session:
        for words in (["halpern", "protein"], ["aggregate", "folding"]):
            found = holders.anywhere(session, words)
            assert [len(ids or ()) for ids in found] == [4, 4]
        assert len(holders._kept) == 3
        assert [len(ids or ()) for ids in holders.anywhere(session, ["halpern", "halpern"])] == [4, 4]
