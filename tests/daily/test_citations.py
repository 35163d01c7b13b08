"""Citations: checked by hand-written cases, and by readers that follow the rules of BibTeX and of RIS."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offprint.daily.citations import bibtex, key, ris
from offprint.store import Paper

UNESCAPED = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^",
             r"\textbraceleft{}": "{", r"\textbraceright{}": "}"}  # fmt: skip


def read_bibtex(entry: str) -> dict[str, str]:
    """Read an entry as BibTeX does: a field ends at the brace that closes its first, counting every brace."""
    head, _, rest = entry.partition(",")
    assert head.startswith("@misc{")
    fields = {"key": head[6:]}
    while rest.strip() != "}":
        name, _, rest = rest.partition(" = {")
        depth, end = 1, 0
        while depth:
            depth += {"{": 1, "}": -1}.get(rest[end], 0)
            end += 1
        fields[name.strip()] = rest[: end - 1]
        assert rest[end] == ","
        rest = rest[end + 1 :]
    return fields


def typeset(latex: str) -> str:
    """Return what LaTeX sets for text without formulas; fails on a character that means something to it."""
    shown, place = "", 0
    while place < len(latex):
        command = next((name for name in UNESCAPED if latex.startswith(name, place)), None)
        if command:
            shown, place = shown + UNESCAPED[command], place + len(command)
        elif latex[place] == "\\":
            assert latex[place + 1] in "$&#%_"
            shown, place = shown + latex[place + 1], place + 2
        else:
            assert latex[place] not in "$&#%_{}~^"
            shown, place = shown + latex[place], place + 1
    return shown


def bare(name: str) -> str:
    """Take away the braces that keep a name whole."""
    return name[1:-1] if name.startswith("{") else name


SPECIAL = st.sampled_from('{}\\%&#_~^" ,')
TEXT = st.text(alphabet=st.characters(categories=["L", "N", "P", "S"], exclude_characters="$([;") | SPECIAL).filter(
    lambda text: " and " not in text  # told apart below, in a case of its own
)


@settings(deadline=None)
@given(TEXT, st.lists(TEXT, max_size=3))
def test_what_is_cited_is_what_is_shown(title: str, authors: list[str]) -> None:
    fields = read_bibtex(bibtex(Paper(id=1, title=title, authors=authors, categories=[], arxiv="2501.00001")))
    assert typeset(fields.get("title", "{}")[1:-1]) == " ".join(title.split())
    names = [bare(name) for name in fields.get("author", "").split(" and ") if name]
    assert [typeset(name) for name in names] == [name for name in (" ".join(name.split()) for name in authors) if name]
    assert (fields["year"], fields["eprint"]) == ("2025", "2501.00001")


@pytest.mark.parametrize(
    ("title", "latex"),
    [
        ("R&D at 5% of #1_x", r"R\&D at 5\% of \#1\_x"),
        ("Costs $5 to $6", r"Costs \$5 to \$6"),
        ("An $O(n_1)$ bound", r"An $O(n_1)$ bound"),
        (r"A $\{x\}$ set", r"A $\{x\}$ set"),
        (r"A $\left\{x$ half", r"A \$\textbackslash{}left\textbackslash{}\textbraceleft{}x\$ half"),
        ("A $x}$ trap", r"A \$x\textbraceright{}\$ trap"),
        ("A $x%$ trap", r"A \$x\%\$ trap"),
        (r"$\input{secret}$", r"\$\textbackslash{}input\textbraceleft{}secret\textbraceright{}\$"),
        ("Gröbner “bases”", "Gröbner “bases”"),
        ("x &lt; y\x00\n z", "x < y z"),
    ],
)
def test_titles_in_latex(title: str, latex: str) -> None:
    assert read_bibtex(bibtex(Paper(title=title, authors=["Ada"], arxiv="2501.00001")))["title"] == f"{{{latex}}}"


def test_names_that_bibtex_would_take_apart_are_kept_whole() -> None:
    paper = Paper(title="T", authors=["Ada Lovelace", "Team and Partners", "King, Jr.", "Ludwig van Beethoven", ""])
    fields = read_bibtex(bibtex(paper, "https://papers.example.org/papers/1"))
    assert fields["author"] == "Ada Lovelace and {Team and Partners} and {King, Jr.} and Ludwig van Beethoven"
    assert fields["url"] == "https://papers.example.org/papers/1"
    assert "eprint" not in fields
    assert "year" not in fields


def test_many_authors_become_others_where_asked() -> None:
    paper = Paper(title="T", authors=["A B", "C D", "E F"], arxiv="2501.00001")
    assert read_bibtex(bibtex(paper, most_authors=2))["author"] == "A B and C D and others"
    assert read_bibtex(bibtex(paper, most_authors=3))["author"] == "A B and C D and E F"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"slug": "vr-halpern", "authors": ["X Y"]}, "vr-halpern"),
        ({"authors": ["Björn Åström"], "year": 2024}, "astrom2024great"),
        ({"authors": ["Ludwig van Beethoven"], "arxiv": "math/9912345"}, "beethoven1999great"),
        ({"authors": ["Plato"], "published_at": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)}, "plato2020great"),
        ({"authors": ["张 三"], "title": "大", "id": 7}, "paper7"),
        ({"authors": [], "title": "$x$ is", "id": 7}, "is"),
    ],
)
def test_keys_are_names_that_can_be_typed(values: dict[str, object], expected: str) -> None:
    assert key(Paper(**{"title": "The Great “Idea”", **values})) == expected


def read_ris(record: str) -> list[tuple[str, str]]:
    lines = record.split("\r\n")
    assert lines.pop() == ""
    assert all(line[2:6] == "  - " and line[:2].isalnum() and line[:2].isupper() for line in lines)
    return [(line[:2], line[6:]) for line in lines]


def test_a_ris_record() -> None:
    paper = Paper(
        title="A &lt; B\nand C", abstract="One.\r\nER  - \r\nTwo.", arxiv="2501.00001", year=2025, venue="ICLR",
        authors=["Ada Lovelace", "Ludwig van Beethoven", "Plato", "King, Jr.", "Juan de la Cruz"],
    )  # fmt: skip
    assert read_ris(ris(paper)) == [
        ("TY", "GEN"), ("TI", "A < B and C"), ("AU", "Lovelace, Ada"), ("AU", "van Beethoven, Ludwig"), ("AU", "Plato"),
        ("AU", "King, Jr."), ("AU", "de la Cruz, Juan"), ("PY", "2025"), ("T2", "ICLR"), ("AB", "One. ER - Two."),
        ("DO", "10.48550/arXiv.2501.00001"), ("UR", "https://arxiv.org/abs/2501.00001"), ("ER", ""),
    ]  # fmt: skip


@settings(deadline=None)
@given(st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_no_text_breaks_a_ris_record(title: str, text: str, authors: list[str]) -> None:
    tags = [tag for tag, _ in read_ris(ris(Paper(title=title, abstract=text, venue=text, authors=authors)))]
    assert (tags[0], tags[-1], tags.count("ER"), tags.count("TY")) == ("TY", "ER", 1, 1)
