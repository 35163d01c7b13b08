r"""What arXiv writes in TeX and readers want in Unicode: accents, letters and quoted signs, but no formula.

arXiv's records spell names and words as their authors typed them: ``Erd\H{o}s``, ``Schr\"odinger``, ``{\O}rsted``.
A table and two patterns suffice, at a fraction of what a TeX parser costs; anything else is left as it stands.
"""

from __future__ import annotations

import re
import unicodedata

_COMBINING = {
    "`": "\u0300",
    "'": "\u0301",
    "^": "\u0302",
    "~": "\u0303",
    "=": "\u0304",
    "u": "\u0306",
    ".": "\u0307",
    '"': "\u0308",
    "r": "\u030a",
    "H": "\u030b",
    "v": "\u030c",
    "d": "\u0323",
    "c": "\u0327",
    "k": "\u0328",
    "b": "\u0331",
}
_LETTERS = {
    "ss": "ß",
    "o": "ø",
    "O": "Ø",
    "l": "ł",
    "L": "Ł",
    "ae": "æ",
    "AE": "Æ",
    "oe": "œ",
    "OE": "Œ",
    "aa": "å",
    "AA": "Å",
    "dh": "ð",
    "DH": "Ð",
    "dj": "đ",
    "DJ": "Đ",
    "ng": "ŋ",
    "NG": "Ŋ",
    "th": "þ",
    "TH": "Þ",
    "i": "ı",
    "j": "ȷ",
}
_FORMULA = re.compile(r"(\$(?<!\\\$)[^$]*\$)")
_BASE = r"(?:\{\s*(\\?[^\W\d_])\s*\}|\\([ij])(?![A-Za-z])(?:\{\}|\s*)|([^\W\d_]))"
# A sign (\'e) may be followed by its letter at once; a command of one letter (\c c) needs a brace or a space before it.
_ACCENT = re.compile(rf"""\\(?:([`'^"~=.])\s*|([uvHcdbkr])(?:\s+|(?=\{{))){_BASE}""")
_LETTER = re.compile(rf"\\({'|'.join(sorted(_LETTERS, key=len, reverse=True))})(?![A-Za-z])(?:\{{\}}|\s+(?=[^\W\d_]))?")
_QUOTED = re.compile(r"\\([&%#_])")
_BRACED = re.compile(r"\{([^\W\d_][\u0300-\u036f]*)\}")


def decode_accents(text: str) -> str:
    r"""Return ``text`` with the accents and letters of TeX as Unicode; formulas between dollars stay as they are.

    Examples
    --------
    >>> decode_accents(r"Erd\H{o}s, Schr\"odinger, {\O}rsted, Na\"{\i}ve, Ha{\v c}ek, $\hat e$")
    'Erdős, Schrödinger, Ørsted, Naïve, Haček, $\\hat e$'
    """
    if "\\" not in text:
        return text
    if "$" not in text:
        return _decode(text)
    parts = _FORMULA.split(text)
    parts[::2] = map(_decode, parts[::2])
    return "".join(parts)


def _decode(text: str) -> str:
    if "\\" not in text:
        return text
    text = _ACCENT.sub(_accent, text)
    text = _LETTER.sub(lambda found: _LETTERS[found[1]], text)
    text = _QUOTED.sub(r"\1", text)
    if "{" not in text:
        return text
    return _BRACED.sub(lambda found: found[0] if found[1].isascii() else found[1], text)


def _accent(found: re.Match[str]) -> str:
    base = (found[3] or found[4] or found[5]).removeprefix("\\")
    return unicodedata.normalize("NFC", base + _COMBINING[found[1] or found[2]])
