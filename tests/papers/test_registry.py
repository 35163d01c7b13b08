"""Records are found by a scan and by entry points; claims by their decorator."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from offprint.papers import Record, RecordError, claim_functions, measured_claims, record, records, registry

MakePaper = Callable[..., Record]
YES = "{ holds = true }"


def test_papers_of_this_project_are_found() -> None:
    for slug, found in records().items():
        assert found.slug == slug
        assert (found.folder / "paper.toml").exists()
    assert list(records()) == sorted(records())


def test_a_package_takes_part_by_its_entry_point(make_paper: MakePaper) -> None:
    made = make_paper({"one": YES}, "")
    assert records()["own-paper"] == made
    assert made.package == "own_papers.own_paper"
    code = "from offprint.papers import record; print(record('own-paper').title)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "A paper called own-paper\n"


def test_an_unknown_slug_names_the_nearest(make_paper: MakePaper) -> None:
    make_paper({"one": YES}, "")
    with pytest.raises(KeyError, match="no paper 'own-papr' on record; did you mean own-paper"):
        record("own-papr")
    with pytest.raises(KeyError, match=r"no paper 'zzzzzzzz' on record\W*$"):
        record("zzzzzzzz")


def register(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    points = [EntryPoint(f"point{i}", value, registry.ENTRY_POINTS) for i, value in enumerate(values)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    records.cache_clear()


@pytest.mark.parametrize("value", ["no_such_package", "no_such_package.papers", "json.decoder"])
def test_an_entry_point_that_is_no_package_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, value)
    with pytest.raises(RecordError, match=f"entry point 'point0': '{value}' is not a package"):
        records()
    monkeypatch.undo()
    records.cache_clear()


def test_a_slug_of_two_papers_is_refused(make_paper: MakePaper, monkeypatch: pytest.MonkeyPatch) -> None:
    make_paper({"one": YES}, "")
    register(monkeypatch, "own_papers", "own_papers")
    with pytest.raises(RecordError, match="slug: 'own-paper' is already taken by"):
        records()


def test_a_faulty_record_stops_the_scan_with_its_file(make_paper: MakePaper) -> None:
    made = make_paper({"one": YES}, "")
    path = made.folder / "paper.toml"
    path.write_text(path.read_text(encoding="utf-8") + "\ncolour = 1\n", encoding="utf-8")
    records.cache_clear()
    with pytest.raises(RecordError, match=f"{path}: .*colour: unknown key"):
        records()


FUNCTIONS = """
from pathlib import PurePath

@measures("one")
def first(run):
    return Measurement(1)

@measures("two")
def second(run):
    return Measurement(run.seed)

def no_claim(run):
    return Measurement(0)
"""


def test_functions_are_found_by_claim(make_paper: MakePaper) -> None:
    made = make_paper({"one": YES, "two": YES, "three": YES}, FUNCTIONS)
    assert measured_claims(made) == {"one", "two"}
    functions = claim_functions(made)
    assert {claim: function.__name__ for claim, function in functions.items()} == {"one": "first", "two": "second"}


def test_claims_are_counted_without_importing_them(make_paper: MakePaper) -> None:
    made = make_paper({"one": YES}, "raise RuntimeError\n\n@measures('one')\ndef one(run): ...\n")
    assert measured_claims(made) == {"one"}


def test_a_paper_without_claims_file_measures_nothing(make_paper: MakePaper) -> None:
    made = make_paper({"one": YES}, "")
    Path(made.folder / "claims.py").unlink()
    assert measured_claims(made) == frozenset()
    assert claim_functions(made) == {}


def test_a_function_for_a_claim_that_is_not_made_is_refused(make_paper: MakePaper) -> None:
    made = make_paper({"one": YES}, FUNCTIONS)
    with pytest.raises(RecordError, match=r"claims\.py: measures 'two', which own-paper does not claim"):
        claim_functions(made)


def test_two_functions_for_a_claim_are_refused(make_paper: MakePaper) -> None:
    made = make_paper({"one": YES}, FUNCTIONS.replace("two", "one"))
    with pytest.raises(RecordError, match=r"claims\.py: two functions measure 'one'"):
        claim_functions(made)


def test_functions_imported_from_elsewhere_do_not_count(make_paper: MakePaper) -> None:
    shared = "from offprint.papers import measures\n@measures('one')\ndef first(run): ...\n"
    made = make_paper({"one": YES}, "from own_papers.shared import first\n", files={"shared.py": shared})
    assert claim_functions(made) == {}
