"""A fingerprint changes when code that a claim reaches changes, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from offprint.lab import fingerprint
from offprint.lab.fingerprint import _locate, _read, _reexported
from offprint.papers import Record

CODE = """
from own_papers import method
from own_papers.family import exported


START = 1
OTHER: float = 2


def twice(x):
    return method.double(x)


@measures("first")
def first(run):
    from own_papers.late import something
    return Measurement(twice(START))


@measures("second")
def second(run):
    return Measurement(OTHER + exported)
"""
FILES = {
    "method.py": "def double(x):\n    '''Twice x.'''\n    return 2 * x\n",
    "late.py": "something = 1\n",
    "unrelated.py": "x = 1\n",
}


@pytest.fixture
def paper(make_paper) -> Record:
    made = make_paper({"first": "{ at_least = 1 }", "second": "{ at_least = 1 }"}, CODE, files=FILES)
    family = made.folder.parent / "family"
    family.mkdir()
    (family / "__init__.py").write_text("import lazy_loader\n", encoding="utf-8")
    (family / "__init__.pyi").write_text("from .deep import exported as exported\nfrom .other import x as x\n")
    (family / "deep.py").write_text("exported = 1\n", encoding="utf-8")
    (family / "other.py").write_text("x = 1\n", encoding="utf-8")
    return made


def changes(paper: Record, file: str, old: str, new: str) -> tuple[bool, bool]:
    """Edit a file of the package; say whether each claim's fingerprint changed."""
    before = [fingerprint(paper, claim) for claim in ("first", "second")]
    path = next(paper.folder.parent.rglob(file)) if "/" not in file else paper.folder.parent / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    _locate.cache_clear()
    _reexported.cache_clear()
    after = [fingerprint(paper, claim) for claim in ("first", "second")]
    return before[0] != after[0], before[1] != after[1]


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("method.py", "2 * x", "x + x", (True, False)),
        ("method.py", "Twice x.", "x, twice.", (False, False)),
        ("method.py", "return", "# a comment\n    return", (False, False)),
        ("method.py", "double(x)", "double(x: int) -> int", (False, False)),
        ("method.py", "double(x)", "double(x=1)", (True, False)),
        ("late.py", "1", "2", (True, False)),
        ("unrelated.py", "1", "2", (False, False)),
        ("claims.py", "Measurement(OTHER", "Measurement(1 + OTHER", (False, True)),
        ("claims.py", "OTHER: float = 2", "OTHER: float = 3", (False, True)),
        ("claims.py", "START = 1", "START = 3", (True, False)),
        ("claims.py", "method.double(x)", "method.double(x) + 1", (True, False)),
        ("family/deep.py", "1", "2", (False, True)),
        ("family/other.py", "1", "2", (False, False)),
    ],
)
def test_only_what_a_claim_reaches_counts(paper, file, old, new, expected) -> None:
    assert changes(paper, file, old, new) == expected


def test_the_code_of_offprint_counts_as_well(paper: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_text

    def patched(self: Path, *args, **kwargs) -> str:
        text = real(self, *args, **kwargs)
        return text + "\nchanged = 1\n" if self.name == "run.py" and self.parent.name == "papers" else text

    before = fingerprint(paper, "first")
    monkeypatch.setattr(Path, "read_text", patched)
    _read.cache_clear()
    changed = fingerprint(paper, "first")
    _read.cache_clear()
    assert changed != before
