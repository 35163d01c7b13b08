"""Showing where a paper matches: marked text made safe, and the passage that says most."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable

from markupsafe import Markup, escape

START, END = "\x02", "\x03"
"""Marks about a match, turned into ``<mark>`` once the text is escaped."""

LONGEST_PASSAGE = 300
BEFORE = 80


def passage(texts: Iterable[str]) -> Markup:
    """Return the surroundings of most marks in the first text that has any; none when no text has."""
    marked = next((text for text in texts if START in text), None)
    return safe(_cut(marked)) if marked else Markup()


def opening(texts: Iterable[str | None]) -> Markup:
    """Return how the first text that is not empty begins."""
    text = next((text for text in texts if text), "")
    if len(text) <= LONGEST_PASSAGE:
        return escape(text)
    return escape(text[: text.rfind(" ", 0, LONGEST_PASSAGE) + 1 or LONGEST_PASSAGE].rstrip() + " …")


def safe(content: str) -> Markup:
    """Escape text, then turn the marks that stand in pairs into ``<mark>``; others vanish."""
    marked = re.sub(f"{START}([^{START}{END}]*){END}", r"<mark>\1</mark>", str(escape(content)))
    return Markup(re.sub(f"[{START}{END}]", "", marked))


def _cut(content: str) -> str:
    """Cut to the stretch with the most marks, the first of equals."""
    places = [match.start() for match in re.finditer(START, content)]
    inside = [bisect_left(places, place + LONGEST_PASSAGE - BEFORE) - i for i, place in enumerate(places)]
    start = max(0, places[inside.index(max(inside))] - BEFORE)
    start = content.rfind(" ", 0, start) + 1 if start else 0
    end = start + LONGEST_PASSAGE
    if end < len(content):
        end = max(content.rfind(" ", start, end), content.find(END, start) + 1)
    return ("… " if start else "") + content[start:end] + (" …" if end < len(content) else "")
