"""Similar papers without a model: against overlaps that are known by how the papers were made."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from offprint.daily.search import similar
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
