"""Citations: a paper as a BibTeX entry and as a RIS record."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

from offprint.daily.abstracts import plain
from offprint.papers.bibtex import entry
from offprint.store import Paper

SMALL = ("a", "an", "the", "on")
"""Words that a title begins with and a name for it leaves out."""


def bibtex(paper: Paper, address: str = "", most_authors: int | None = None) -> str:
    r"""Return a paper's BibTeX entry, from what is known of it.

    Parameters
    ----------
    paper : Paper
    address : str
        Where it is found, for one that is not on arXiv.
    most_authors : int, optional
        How many authors are named before "and others"; all when left out.

    Examples
    --------
    >>> print(bibtex(Paper(arxiv="2501.00001", title="R&D for 5% of $O(n_1)$", authors=["Ada Lovelace"], year=2025)))
    @misc{lovelace2025r,
      title = {{R\&D for 5\% of $O(n_1)$}},
      author = {Ada Lovelace},
      year = {2025},
      eprint = {2501.00001},
      archivePrefix = {arXiv},
      url = {https://arxiv.org/abs/2501.00001},
    }
    """
    return entry(
        key(paper),
        title=plain(paper.title),
        authors=[name for name in map(plain, paper.authors or ()) if name],
        year=_year(paper),
        arxiv=plain(paper.arxiv),
        category=plain(paper.categories[0]) if paper.categories else "",
        note=plain(paper.venue),
        url=_url(paper, address),
        most_authors=most_authors,
    )


def ris(paper: Paper, address: str = "") -> str:
    """Return a paper's RIS record; ``address`` is as for :func:`bibtex`."""
    fields = [
        ("TY", "GEN"),
        ("TI", plain(paper.title)),
        *(("AU", _family_first(plain(name))) for name in paper.authors or ()),
        ("PY", str(_year(paper) or "")),
        ("T2", plain(paper.venue)),
        ("AB", plain(paper.abstract)),
        ("DO", f"10.48550/arXiv.{plain(paper.arxiv)}" if paper.arxiv else ""),
        ("UR", _url(paper, address)),
    ]
    lines = [f"{tag}  - {value}" for tag, value in fields if value]
    return "\r\n".join([*lines, "ER  - ", ""])


def key(paper: Paper) -> str:
    """Return the name under which a paper is cited: its slug, or its first author, its year and a word of its title."""
    if paper.slug:
        return paper.slug
    first = plain(paper.authors[0]) if paper.authors else ""
    family = _family_first(first).partition(",")[0].split()[-1:]
    words = [word for word in re.findall(r"(?<!\S)[^\W\d_][\w-]*", plain(paper.title)) if word.lower() not in SMALL]
    parts = [*map(_ascii, family), str(_year(paper) or ""), *map(_ascii, words[:1])]
    return "".join(parts) or f"paper{paper.id or ''}"


def _year(paper: Paper) -> int | None:
    if paper.year:
        return paper.year
    if paper.published_at:
        return paper.published_at.year
    # The number of a paper on arXiv begins with its year and month.
    dated = re.match(r"(?:[a-z.-]+/)?([0-9]{2})(?:0[1-9]|1[0-2])", paper.arxiv or "", re.IGNORECASE)
    return int(dated[1]) + (1900 if int(dated[1]) > 90 else 2000) if dated else None


def _url(paper: Paper, address: str) -> str:
    return f"https://arxiv.org/abs/{quote(plain(paper.arxiv))}" if paper.arxiv else address


def _family_first(name: str) -> str:
    """Return a name as family name, comma, given names; small words before the family name belong to it."""
    parts = name.split()
    if len(parts) < 2 or "," in name or " and " in name:
        return name
    start = len(parts) - 1
    while start > 1 and parts[start - 1].islower():
        start -= 1
    return f"{' '.join(parts[start:])}, {' '.join(parts[:start])}"


def _ascii(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", text).casefold())
