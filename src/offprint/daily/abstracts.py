"""Abstracts and titles as they come: plain text with LaTeX in it, at times with entities and a few HTML tags."""

from __future__ import annotations

import html
import re
from html.entities import html5

import nh3
from markupsafe import Markup, escape

from offprint.papers.latex import FORMULA, formulas

TAGS = frozenset({"b", "br", "em", "i", "p", "strong", "sub", "sup"})
"""Tags that stay where they stand bare; anything else that looks like a tag is text, as is all of a formula."""

LONGEST = 20_000
"""Characters that are shown of one abstract."""

_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_BARE_TAG = re.compile(rf"&lt;(/?)({'|'.join(sorted(TAGS))}) ?/?&gt;", re.IGNORECASE)
# What XML forbids, what controls a terminal, and what turns the direction of the text around it.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0x10000, 0x110000, 0x10000))
    + "]"
)


def has_math(*texts: str | None) -> bool:
    """Whether any text holds a formula.

    Examples
    --------
    >>> has_math("an $O(n^2)$ bound"), has_math("from $5 to $10", None)
    (True, False)
    """
    return any(text and FORMULA.search(text[:LONGEST]) for text in texts)


def plain(text: str | None) -> str:
    r"""Return what a text says: entities read once, nothing that cannot be printed, single spaces, one line.

    Examples
    --------
    >>> plain("a &lt; b &amp; c\n\x00d")
    'a < b & c d'
    """
    if text and text.isascii() and text.isprintable() and "&" not in text:
        return " ".join(text.split())  # nearly every title and name
    return " ".join(_readable(text).split())


def abstract(text: str | None) -> Markup:
    """Return an abstract as safe HTML: its paragraphs, with the few tags that may occur and formulas as they are.

    Examples
    --------
    >>> abstract("<i>Fast</i> for $a<b$ &amp; <script>")
    Markup('<p><i>Fast</i> for $a&lt;b$ &amp; &lt;script&gt;</p>')
    """
    readable = _readable(text)
    if len(readable) > LONGEST:
        readable = readable[:LONGEST].rsplit(maxsplit=1)[0] + " …"
    blocks = (" ".join(block.split()) for block in re.split(r"\n\s*\n", readable))
    return Markup("").join(Markup("<p>%s</p>") % _inline(block) for block in blocks if block)


def _readable(text: str | None) -> str:
    decoded = _ENTITY.sub(_decoded, text or "")
    return _UNPRINTABLE.sub("", decoded)


def _decoded(entity: re.Match[str]) -> str:
    """Read an entity; one that there is not stays, where :func:`html.unescape` would read its beginning."""
    known = entity[0].startswith("&#") or entity[0][1:] in html5
    return html.unescape(entity[0]) if known else entity[0]


def _inline(block: str) -> Markup:
    escaped = "".join(
        str(escape(piece)) if formula else _BARE_TAG.sub(lambda tag: f"<{tag[1]}{tag[2]}>", str(escape(piece)))
        for formula, piece in formulas(block)
    )
    # It closes what is left open and takes out what would reach beyond the paragraph.
    return Markup(nh3.clean(escaped, tags=set(TAGS - {"p"}), attributes={}))
