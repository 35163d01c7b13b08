"""A paper as Markdown to read: what it is, what it claims, and what was measured."""

from __future__ import annotations

import re

from offprint.daily import library
from offprint.daily.measured import ClaimView, Number, PaperView, Shown
from offprint.daily.rendering import number, short_date
from offprint.store import Paper


def markdown(paper: Paper, view: PaperView | None, base: str) -> str:
    """Write a paper.

    Parameters
    ----------
    paper : Paper
    view : PaperView or None
        What was measured, for a paper on record.
    base : str
        The address of the site.
    """
    return "\n\n".join([*_about(paper, base), *(_measured(view) if view else [])]) + "\n"


def plain(written: str) -> str:
    r"""Return text that others wrote, on one line, so that Markdown finds no heading, HTML or link in it.

    Examples
    --------
    >>> print(plain("# A <b>bold</b> claim:\n0 < x < 1 [here](javascript:alert(1))"))
    \# A \<b>bold\</b> claim: 0 < x < 1 [here]\(javascript:alert(1))
    """
    line = " ".join(written.split())
    line = re.sub(r"<(?=[A-Za-z/!?])", r"\\<", line).replace("](", r"]\(").replace("]:", r"]\:")
    return re.sub(r"^(?=[#>*+=|`~\[-])", r"\\", line)


def _about(paper: Paper, base: str) -> list[str]:
    facts = {
        "Authors": ", ".join(paper.authors),
        "Venue": " ".join(str(part) for part in (paper.venue, _year(paper)) if part),
        "arXiv": f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else "",
        "Code": paper.code or "",
        "Page": f"{base}{library.address(paper)}",
    }
    parts = [f"# {plain(paper.title)}", "\n".join(f"- {name}: {plain(fact)}" for name, fact in facts.items() if fact)]
    for heading, content in (("Abstract", paper.abstract), ("Summary", paper.summary)):
        if content:
            parts += [f"## {heading}", plain(content)]
    return parts


def _year(paper: Paper) -> str:
    year = str(paper.year or "")
    return "" if year in (paper.venue or "") else year


def _measured(view: PaperView) -> list[str]:
    parts = []
    if view.record.import_lines:
        parts += ["## Use it", "\n".join(["```python", *view.record.import_lines, "```"])]
    parts += ["## What it claims, and what was measured", f"{view.badge[:1].upper()}{view.badge[1:]}."]
    for claim in view.claims:
        parts += [f"### {plain(claim.claim.statement)}", "\n".join(_claim(claim))]
    return parts


def _claim(view: ClaimView) -> list[str]:
    shown = view.recorded or view.here
    lines = [f"- Verdict: **{view.verdict}**", f"- Source: {plain(view.claim.source)}"]
    if shown is None:
        expected = ((item.metric, item.expect.text) for item in view.claim.criteria("full"))
        return lines + [f"- {plain(metric)}: expected {rule}" for metric, rule in expected]
    lines += [_number(item) for item in shown.numbers]
    if shown.reported is not None:
        lines.append(f"- Reported in the paper: {number(shown.reported)}")
    if shown.message:
        lines.append(f"- {plain(shown.message)}")
    return [*lines, _origin(shown)]


def _number(item: Number) -> str:
    line = f"- {plain(item.metric)}: expected {item.expected}, measured {number(item.value)}"
    if item.interval:
        line += f" ({number(item.interval[0])} to {number(item.interval[1])})"
    return line


def _origin(shown: Shown) -> str:
    seeds = "1 seed" if shown.seeds == 1 else f"{shown.seeds} seeds"
    when = short_date(shown.provenance.when)
    return f"- Measured at {shown.provenance.scale} scale with {seeds} on {when}: `{shown.provenance.command}`"
