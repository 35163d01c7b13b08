"""Reports of measured papers as Markdown, HTML and JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from offprint.lab.figures import draw
from offprint.lab.measure import PaperResult
from offprint.lab.results import claim_figure, claim_json
from offprint.lab.verdicts import ClaimResult, Judgement

COLUMNS = ("claim", "expected", "measured", "verdict", "seconds")

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>offprint report</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8885; vertical-align: top; }}
figure {{ margin: 1.5rem 0; }} figure svg {{ max-width: 100%; height: auto; }}
</style>
<h1>offprint report</h1>
{body}
</html>
"""


def rows(claim: ClaimResult) -> list[tuple[str, str, str, str, str]]:
    """Return a claim as table rows: the claim's own number first, then one row for each further number."""
    if not claim.judgements:
        expected = claim.claim.criteria(claim.scale)[0].expect.text
        seconds = f"{claim.seconds:.1f}" if claim.outcomes else ""
        return [(claim.claim.id, expected, claim.message, claim.verdict, seconds)]
    first, *others = claim.judgements
    return [
        (claim.claim.id, first.criterion.expect.text, measured(first), claim.verdict, f"{claim.seconds:.1f}"),
        *(
            (f"↳ {other.criterion.key}", other.criterion.expect.text, measured(other), other.verdict, "")
            for other in others
        ),
    ]


def measured(judgement: Judgement) -> str:
    """Return the judged number and, for several seeds, its interval; for yes-or-no rules the count of seeds."""
    if judgement.criterion.expect.holds:
        return f"{sum(judgement.values):.0f} of {len(judgement.values)} seeds"
    low, high = judgement.interval
    interval = f" [{low:.4g}, {high:.4g}]" if len(judgement.values) > 1 else ""
    return f"{judgement.value:.4g}{interval}"


def report(results: Sequence[PaperResult], folder: Path) -> list[Path]:
    """Write ``report.md``, ``report.html`` and ``report.json``, with the figures beside them.

    Parameters
    ----------
    results : sequence of PaperResult
    folder : Path
        Created when it does not exist.

    Returns
    -------
    list of Path
        The three reports.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "report.md": "# offprint report\n\n" + "\n".join(_markdown(result, folder) for result in results),
        "report.html": _PAGE.format(body="\n".join(_html(result) for result in results)),
        "report.json": json.dumps([_json(result) for result in results], indent=2, ensure_ascii=False) + "\n",
    }
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in written]


def _json(result: PaperResult) -> dict[str, object]:
    claims = [claim_json(claim) for claim in result.claims]
    return {"slug": result.paper.slug, "title": result.paper.title, "scale": result.scale, "claims": claims}


def _markdown(result: PaperResult, folder: Path) -> str:
    lines = [f"## [{result.paper.title}]({result.paper.url})", "", f"{result.badge}, at {result.scale} scale.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---" for _ in COLUMNS) + " |"]
    lines += ["| " + " | ".join(_cell(text) for text in row) + " |" for claim in result.claims for row in rows(claim)]
    for claim in result.claims:
        figure = claim_figure(claim)
        if figure is not None:
            name = f"{result.paper.slug}-{claim.claim.id}"
            for suffix in ("svg", "png"):
                drawn = draw(figure, suffix, title=claim.claim.statement)
                (folder / f"{name}.{suffix}").write_bytes(drawn)
            lines += ["", f"![{claim.claim.statement}]({name}.svg)"]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _html(result: PaperResult) -> str:
    head = "".join(f"<th>{column}</th>" for column in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>"
        for claim in result.claims
        for row in rows(claim)
    )
    figures = "".join(
        f"<figure>{_inline(draw(figure, 'svg', title=claim.claim.statement))}</figure>"
        for claim in result.claims
        if (figure := claim_figure(claim)) is not None
    )
    title = f'<h2><a href="{result.paper.url}">{html.escape(result.paper.title)}</a></h2>'
    summary = f"<p>{html.escape(result.badge)}, at {result.scale} scale.</p>"
    return f"{title}{summary}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{figures}"


def _inline(svg: bytes) -> str:
    text = svg.decode("utf-8")
    return text[text.index("<svg") :]
