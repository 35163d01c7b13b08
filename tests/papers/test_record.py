"""Reading records: what is accepted, and errors that name the file and the key at fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from offprint.papers import FAMILIES, Record, RecordError

VALID = """
slug = "a-paper"
title = "A paper"
arxiv = "2501.00001"
authors = ["Ada Example", "Bob Example"]
year = 2025
venue = "arXiv"
family = "learn"
methods = ["offprint.methods.learn.thing:Thing"]
summary = "It says something. It says more."
day = 2025-01-02

[[claims]]
id = "first"
statement = "One is so"
source = "theorem 1"
metric = "a number"
expect = { at_least = 4, weaker = 2 }
seeds = 5

[[claims.also]]
key = "spread"
metric = "another number"
expect = { at_most = 1 }

[claims.quick]
metric = "a smaller number"
expect = { at_least = 3 }
seeds = 2
also = []

[[claims]]
id = "second"
statement = "Two is so"
source = "theorem 2"
metric = "a yes or no"
expect = { holds = true }
"""


def read(tmp_path: Path, *replaced: tuple[str, str]) -> Record:
    text = VALID
    for old, new in replaced:
        assert old in text, old
        text = text.replace(old, new, 1)
    path = tmp_path / "a_paper" / "paper.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return Record.read(path, package="somewhere.a_paper")


def test_a_valid_record_is_read(tmp_path: Path) -> None:
    record = read(tmp_path)
    assert (record.slug, record.package, record.folder) == ("a-paper", "somewhere.a_paper", tmp_path / "a_paper")
    assert record.authors == ("Ada Example", "Bob Example")
    assert record.family in FAMILIES
    assert [claim.id for claim in record.claims] == ["first", "second"]
    assert record.import_lines == ("from offprint.methods.learn.thing import Thing",)
    assert record.url == "https://arxiv.org/abs/2501.00001"
    assert "author = {Ada Example and Bob Example}" in record.bibtex


def test_what_latex_reads_as_its_own_is_escaped_in_a_citation(tmp_path: Path) -> None:
    record = read(tmp_path, ('title = "A paper"', 'title = "5% of $x_1$ & {more}"'))
    assert r"title = {{5\% of $x_1$ \& \textbraceleft{}more\textbraceright{}}}" in record.bibtex


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('venue = "arXiv"', 'venue = "arXiv"\nvenues = 2', "venues: unknown key"),
        ('venue = "arXiv"', 'venue = "arXiv"\nfolder = "/"', "folder: unknown key"),
        ('venue = "arXiv"', 'venue = "arXiv"\npackage = "os"', "package: unknown key"),
        ('venue = "arXiv"', "", "venue: Field required"),
        ('title = "A paper"', 'title = "  "', "title: "),
        ('arxiv = "2501.00001"', 'arxiv = "arXiv:2501.00001"', "arxiv: "),
        ('family = "learn"', 'family = "cooking"', "family: "),
        ("learn.thing:Thing", "learn.thing.Thing", "methods.0: "),
        ("day = 2025-01-02", 'day = "soon"', "day: "),
        ('id = "second"', 'id = "first"', "claims: claim id 'first' is used twice"),
        ('id = "second"', 'id = "Second one"', "claims.Second one.id: "),
        ("{ holds = true }", "{ holds = false }", "claims.second.expect"),
        ("{ holds = true }", "{ at_least = 1, at_most = 2 }", "claims.second.expect: give exactly one of"),
        ("{ holds = true }", "{ }", "claims.second.expect: give exactly one of"),
        ("{ holds = true }", "{ atleast = 1 }", "claims.second.expect.atleast: unknown key"),
        ("{ holds = true }", "{ at_least = nan }", "claims.second.expect.at_least: "),
        ("weaker = 2", "weaker = 5", "claims.first.expect: weaker = 5.0 does not widen at_least = 4.0"),
        ("seeds = 5", "seeds = 0", "claims.first.seeds: "),
        ("seeds = 5", "repeats = 5", "claims.first.repeats: unknown key"),
        ("also = []", "also = [1]", "claims.first.quick.also.0"),
        ("also = []", "needs = {}", "claims.first.quick.needs: unknown key"),
        ('key = "spread"\n', "", "claims.first.also.0.key: Field required"),
        ('slug = "a-paper"', 'slug = "b-paper"', "slug: 'b-paper' does not match its folder 'a_paper'"),
        ('slug = "a-paper"', "slug = a-paper", "not valid TOML"),
    ],
)
def test_a_fault_is_named_with_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        read(tmp_path, (old, new))
    assert f"{tmp_path / 'a_paper' / 'paper.toml'}: {message}" in str(caught.value)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecordError) as caught:
        read(tmp_path, ("year = 2025", "year = 1066"), ('id = "second"', 'id = "second"\ncolour = 1'))
    lines = str(caught.value).splitlines()
    assert [line.partition("paper.toml: ")[2].partition(":")[0] for line in lines] == ["year", "claims.second.colour"]


def test_the_same_further_number_twice_is_refused(tmp_path: Path) -> None:
    twice = 'key = "spread"\nmetric = "m"\nexpect = { at_most = 1 }\n[[claims.also]]\nkey = "spread"'
    with pytest.raises(RecordError, match=r"claims\.first: also: key 'spread' is used twice"):
        read(tmp_path, ('key = "spread"', twice))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "paper.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecordError, match="not valid TOML"):
        Record.read(path)


def test_what_is_judged_depends_on_the_scale(tmp_path: Path) -> None:
    first, second = read(tmp_path).claims
    for scale in ("smoke", "quick"):
        assert [(c.metric, c.expect.text) for c in first.criteria(scale)] == [("a smaller number", "≥ 3")]
    for scale in ("full", "paper"):
        judged = [(c.key, c.metric, c.expect.text) for c in first.criteria(scale)]
        assert judged == [(None, "a number", "≥ 4"), ("spread", "another number", "≤ 1")]
    assert [first.n_seeds(scale) for scale in ("smoke", "quick", "full", "paper")] == [1, 2, 5, 5]
    assert [second.n_seeds(scale) for scale in ("smoke", "quick", "full", "paper")] == [1, 1, 1, 1]


def test_a_quick_rule_that_says_nothing_of_further_numbers_keeps_them(tmp_path: Path) -> None:
    first = read(tmp_path, ("also = []", "")).claims[0]
    assert [criterion.key for criterion in first.criteria("quick")] == [None, "spread"]


def test_a_claim_is_found_by_its_id(tmp_path: Path) -> None:
    record = read(tmp_path)
    assert record.claim("second").statement == "Two is so"
    with pytest.raises(KeyError, match="a-paper has no claim 'third'; it has first, second"):
        record.claim("third")
