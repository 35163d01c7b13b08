"""TeX's accents against the names that Unicode gives the letters, and formulas that must stay as they are."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offprint.daily.importing.accents import decode_accents

NAMES = {
    "'": "ACUTE",
    "`": "GRAVE",
    "^": "CIRCUMFLEX",
    '"': "DIAERESIS",
    "~": "TILDE",
    "=": "MACRON",
    ".": "DOT ABOVE",
    "u": "BREVE",
    "v": "CARON",
    "H": "DOUBLE ACUTE",
    "c": "CEDILLA",
    "k": "OGONEK",
    "r": "RING ABOVE",
    "d": "DOT BELOW",
    "b": "LINE BELOW",
}


def letters() -> list[tuple[str, str, str]]:
    found = []
    for sign, name in NAMES.items():
        for base in "aAeEiIoOuUcCnNsSzZyYlLdDhHkKrRtTgG":
            size = "SMALL" if base.islower() else "CAPITAL"
            try:
                found.append((sign, base, unicodedata.lookup(f"LATIN {size} LETTER {base.upper()} WITH {name}")))
            except KeyError:
                continue
    return found


def test_every_way_to_write_an_accent_gives_the_letter_that_unicode_names() -> None:
    assert len(letters()) > 150
    for sign, base, letter in letters():
        ways = [rf"\{sign}{{{base}}}", rf"{{\{sign}{{{base}}}}}"]
        ways += [rf"{{\{sign} {base}}}"] if sign.isalpha() else [rf"\{sign}{base}", rf"{{\{sign}{base}}}"]
        for written in ways:
            assert decode_accents(f"x{written}y") == f"x{letter}y", written


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"Na\"{\i}ve and na\"\i ve", "Naïve and naïve"),
        (r"\O{}rsted, {\O}rsted, S\o rensen", "Ørsted, Ørsted, Sørensen"),
        (r"Stra\ss e, {\ss}", "Straße, ß"),
        (r"\AE sop and \oe{}uvre", "Æsop and œuvre"),
        (r"R\&D at 5\% with a\_b", "R&D at 5% with a_b"),
        (r"the loss $\'e^{\c c}$ and caf\'e", r"the loss $\'e^{\c c}$ and café"),
        (r"costs \$5 for a caf\'e and \$6", r"costs \$5 for a café and \$6"),
        (r"\textbf{bold} \cite{key} \alpha \left( \over \char", r"\textbf{bold} \cite{key} \alpha \left( \over \char"),
        (r"a trailing \ and \' alone \c", r"a trailing \ and \' alone \c".replace(r"\' a", "á")),
        ("{braces} and {B}ert stay", "{braces} and {B}ert stay"),
    ],
)
def test_what_is_and_what_is_no_accent(written: str, read: str) -> None:
    assert decode_accents(written) == read


@given(st.text(alphabet="\\{}$'\"`^~cvHuio Ae", max_size=60))
def test_no_text_is_too_odd_and_what_lies_between_dollars_stays(text: str) -> None:
    formula = r"$\'e{\c c}$"
    assert decode_accents(text.replace("$", "") + " " + formula).endswith(formula)
    if "\\" not in text:
        assert decode_accents(text) == text
