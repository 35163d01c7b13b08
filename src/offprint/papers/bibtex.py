"""BibTeX entries, in which no text of a paper means anything to BibTeX or LaTeX but its formulas."""

from __future__ import annotations

import re
from collections.abc import Sequence

from offprint.papers.latex import latex


def entry(
    key: str,
    *,
    title: str,
    authors: Sequence[str],
    year: int | None = None,
    arxiv: str = "",
    category: str = "",
    note: str = "",
    url: str = "",
    most_authors: int | None = None,
) -> str:
    r"""Return an entry; what is empty is left out.

    Parameters
    ----------
    key : str
        The name under which the paper is cited.
    title : str
    authors : sequence of str
        Given names first.
    year : int, optional
    arxiv : str
        The arXiv id.
    category : str
        The primary category on arXiv.
    note : str
        Such as the venue.
    url : str
        Written as it is.
    most_authors : int, optional
        How many authors are named before "and others"; all when left out.

    Examples
    --------
    >>> print(entry("lovelace2025", title="R&D for $O(n_1)$", authors=["Ada Lovelace", "B", "C"], most_authors=1))
    @misc{lovelace2025,
      title = {{R\&D for $O(n_1)$}},
      author = {Ada Lovelace and others},
    }
    """
    named = [_name(name) for name in authors[:most_authors]]
    if len(named) < len(authors):
        named.append("others")
    fields = {
        # In two pairs of braces, so that no style changes its capitals.
        "title": f"{{{latex(title)}}}",
        "author": " and ".join(named),
        "year": str(year or ""),
        "eprint": latex(arxiv),
        "archivePrefix": "arXiv" if arxiv else "",
        "primaryClass": latex(category) if arxiv else "",
        "note": latex(note),
        "url": url,
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def _name(name: str) -> str:
    """Write a name. One that BibTeX would take apart wrongly, such as that of a team, goes into braces of its own."""
    apart = "," in name or re.search(r"\b(and|others)\b", name, re.IGNORECASE)
    return f"{{{latex(name)}}}" if apart else latex(name)
