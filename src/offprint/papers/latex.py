"""Text with formulas in it: where they are, and the same text for LaTeX."""

from __future__ import annotations

import re

# A dollar opens a formula before what is no space, and closes it after what is no space and before what is no digit,
# so that "$5 and $10" is money. math.js of the daily page reads formulas by the same rule.
FORMULA = re.compile(
    r"\$\$[^$]+\$\$|\\\[(?:[^\\]|\\[^()[\]])+\\\]|\\\((?:[^\\]|\\[^()[\]])+\\\)"
    r"|(?<![\\$])\$(?![\s$])(?:\\.|[^$\\])*?(?<!\s)\$(?![0-9$])",
    re.DOTALL,
)
_DELIMITERS = re.compile(r"^(?:\$\$?|\\[\[(])|(?:\$\$?|\\[\])])$")
_SPECIAL = {character: f"\\{character}" for character in "$&#%_"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    # BibTeX counts even escaped braces when it looks for the end of a field.
    "{": "\\textbraceleft{}",
    "}": "\\textbraceright{}",
}


def formulas(text: str) -> list[tuple[bool, str]]:
    """Cut a text into pieces, each with whether it is a formula; joined they are the text again.

    Examples
    --------
    >>> formulas("an $O(n)$ bound")
    [(False, 'an '), (True, '$O(n)$'), (False, ' bound')]
    """
    pieces, end = [], 0
    for match in FORMULA.finditer(text):
        pieces += [(False, text[end : match.start()]), (True, match[0])]
        end = match.end()
    return [piece for piece in (*pieces, (False, text[end:])) if piece[1]]


def latex(text: str) -> str:
    r"""Write text for LaTeX. Formulas stay as they are, unless they would break the entry or start a comment.

    Examples
    --------
    >>> print(latex("R&D for 5% of $O(n_1)$"))
    R\&D for 5\% of $O(n_1)$
    """
    return "".join(piece if formula and _is_sound(piece) else _escaped(piece) for formula, piece in formulas(text))


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)


def _is_sound(formula: str) -> bool:
    """Whether braces balance within a formula, even to one who counts escaped ones, and no comment begins."""
    inner, depth = _DELIMITERS.sub("", formula), 0
    for character in inner:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0 and not re.search(r"(?<!\\)%|(?<!\\)#|\\(?:input|include|write|openin|openout|catcode)", inner)
