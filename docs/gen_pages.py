"""Writes the pages that come from data: one for each paper, the reference, and the project's own files."""

from __future__ import annotations

import ast
import html
import importlib
import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import mkdocs_gen_files

from offprint.lab.results import folder, recorded, recorded_badge
from offprint.papers import FAMILIES, Claim, Record, records

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PROJECT_FILES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
BENCHMARKS = re.compile(r"<!-- benchmarks: ([a-z -]+) -->")
"""Where a guide wants the table of the benchmarks of the papers that are named."""
LEFT_OUT = ("migrations", "templates")
"""Folders of the source that hold nothing to import."""


def write(path: str, text: str) -> None:
    """Add one page to the site."""
    with mkdocs_gen_files.open(path, "w") as page:
        page.write(text)


def plain(text: str) -> str:
    """Return text that means nothing to Markdown, so that formulas stay as they are."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"&#{ord(letter)};" if letter in "|*_[]`~\\" else letter for letter in escaped)


def number(value: float | None) -> str:
    """Return a number as the tables show it."""
    return "" if value is None else f"{value:.4g}"


def paper_page(paper: Record) -> str:
    """Return the page of one paper."""
    results = recorded(paper)
    measured = {claim["id"]: claim for claim in results["claims"]} if results else {}
    lines = [f"# {plain(paper.title)}", "", plain(", ".join(paper.authors)), ""]
    links = [f"[arXiv {paper.arxiv}]({paper.url})", plain(f"{paper.venue} {paper.year}"), f"family *{paper.family}*"]
    lines += [" · ".join([*links, *([f"[authors' code]({paper.code})"] if paper.code else [])]), ""]
    lines += [plain(paper.summary), ""]
    lines += ["## Use it", ""]
    if paper.methods:
        lines += ["```python", *paper.import_lines, "```", ""]
        lines += ["Reference: " + ", ".join(reference_link(method) for method in paper.methods), ""]
    else:
        lines += ["The method is not built yet. What it will be judged by is fixed below.", ""]
    lines += ["## Claims", "", f"{recorded_badge(paper)[:1].upper()}{recorded_badge(paper)[1:]}.", ""]
    lines += ["| claim | expected | measured | verdict |", "| --- | --- | --- | --- |"]
    for claim in paper.claims:
        lines += claim_rows(claim, measured.get(claim.id))
    lines += ["", *repeat(paper, results), "", "## Details", ""]
    for claim in paper.claims:
        lines += claim_section(paper, claim, measured.get(claim.id))
    lines += ["## Cite the paper", "", "```bibtex", paper.bibtex, "```"]
    return "\n".join(lines) + "\n"


def claim_rows(claim: Claim, measured: dict[str, Any] | None) -> list[str]:
    """Return the rows of a claim: its own number first, then its further ones."""
    if measured is None:
        first, *others = claim.criteria("full")
        rows = [f"| [{plain(claim.statement)}](#{claim.id}) | {first.expect.text} | | not yet measured |"]
        return rows + [f"| ↳ {plain(other.key or '')} | {other.expect.text} | | |" for other in others]
    found = [f"| [{plain(claim.statement)}](#{claim.id}) | {measured['expected']} | {value_of(measured)} "]
    found[0] += f"| **{measured['verdict']}** |"
    return found + [
        f"| ↳ {plain(other['key'])} | {other['expected']} | {value_of(other)} | {other['verdict']} |"
        for other in measured["also"]
    ]


def value_of(measured: dict[str, Any]) -> str:
    """Return a measured number with its interval, where there is one."""
    if measured["value"] is None:
        return plain(measured.get("message", ""))
    low, high = measured["interval"]
    return number(measured["value"]) + ("" if low == high else f" ({number(low)} to {number(high)})")


def claim_section(paper: Record, claim: Claim, measured: dict[str, Any] | None) -> list[str]:
    """Return what there is to know about one claim, with its figure."""
    rows = [("source", claim.source), ("metric", claim.metric), ("expected", claim.expect.text)]
    rows += [(f"also {other.key}", f"{other.metric}: {other.expect.text}") for other in claim.also]
    rows += [("reported by the paper", number(claim.reported)), ("note", claim.note)]
    if measured is not None and measured["values"]:
        seeds = ", ".join(number(value) for value in measured["values"])
        rows += [("measured, by seed", seeds), ("baseline", number(measured["baseline"]))]
        rows += [("how", measured["note"]), ("seconds", number(measured["seconds"]))]
    lines = [f"### {plain(claim.statement)} {{ #{claim.id} }}", ""]
    if measured is not None and measured["figure"]:
        target = f"figures/{paper.slug}/{claim.id}.svg"
        with mkdocs_gen_files.open(f"papers/{target}", "wb") as copy:
            copy.write((folder(paper) / measured["figure"]).read_bytes())
        lines += [f"![{plain(claim.statement)}]({target})", ""]
    lines += [f"- **{name}**: {plain(value)}" for name, value in rows if value]
    return [*lines, ""]


def repeat(paper: Record, results: dict[str, Any] | None) -> list[str]:
    """Return how to repeat the measurement, and what it was made with."""
    command = results["command"] if results else f"offprint run {paper.slug}"
    lines = ["```console", f"$ {command}", "```"]
    if results:
        machine, versions = results["machine"], results["versions"]
        made_with = ", ".join(f"{name} {version}" for name, version in versions.items())
        lines += ["", f"Measured at {results['scale']} scale on {results['measured_at'][:10]}, "]
        lines[-1] += f"{plain(str(machine.get('processor', '')))} with {machine.get('cores', '?')} cores, "
        lines[-1] += f"{made_with}, commit `{results['commit'][:12]}`."
    return lines


def reference_link(method: str) -> str:
    """Return a link to where the reference documents a method, when it is part of this project."""
    module, _, name = method.partition(":")
    defined_in = getattr(importlib.import_module(module), name).__module__
    if not defined_in.startswith("offprint."):
        return f"`{name}`"
    return f"[`{name}`](../reference/{defined_in}.md#{defined_in}.{name})"


def benchmarks(slugs: list[str]) -> str:
    """Return what was timed for these papers side by side with others, as one table."""
    lines = ["| what | ours | against | theirs | theirs / ours | asked for |", "| --- | --- | --- | --- | --- | --- |"]
    for slug in slugs:
        file = ROOT / "benchmarks" / "results" / f"{slug}.json"
        if not file.exists():
            lines.append(f"| not recorded yet: `python benchmarks/run.py {slug}` | | | | | |")
            continue
        for one in json.loads(file.read_text(encoding="utf-8"))["comparisons"]:
            asked = "" if one["target"] is None else f"{one['target']:g}: {'met' if one['met'] else 'missed'}"
            cells = [plain(one["name"]), duration(one["ours_seconds"]), plain(one["peer"])]
            cells += [duration(one["peer_seconds"]), f"{one['ratio']:.3g}", asked]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def papers_index() -> str:
    """Return the list of all papers, by family."""
    lines = ["# Papers", "", "Each with its claims, what was expected and what was measured.", ""]
    by_family = sorted(records().values(), key=lambda paper: (FAMILIES.index(paper.family), paper.title.lower()))
    for family, papers in groupby(by_family, key=lambda paper: paper.family):
        lines += [f"## {family}", "", "| paper | arXiv | verdicts |", "| --- | --- | --- |"]
        for paper in papers:
            title = f"[{plain(paper.title)}]({paper.slug}.md)"
            lines.append(f"| {title} | [{paper.arxiv}]({paper.url}) | {recorded_badge(paper)} |")
        lines.append("")
    return "\n".join(lines)


def public_modules() -> Iterator[tuple[str, str]]:
    """Yield every public module that defines something public, with the first line of its docstring."""
    for path in sorted((SOURCE / "offprint").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        claims_of_a_paper = parts[:2] == ("offprint", "papers") and len(parts) > 3
        if claims_of_a_paper or any(part.startswith("_") or part in LEFT_OUT for part in parts):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_" for node in tree.body):
            yield ".".join(parts), (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " ")


def main() -> None:
    """Write all pages."""
    for paper in records().values():
        write(f"papers/{paper.slug}.md", paper_page(paper))
    write("papers/index.md", papers_index())
    lines = ["# Reference", "", "| module | what it holds |", "| --- | --- |"]
    for module, summary in public_modules():
        lines.append(f"| [`{module}`]({module}.md) | {plain(summary)} |")
        write(f"reference/{module}.md", f"# `{module}`\n\n::: {module}\n")
    write("reference/index.md", "\n".join(lines) + "\n")
    for guide in sorted((ROOT / "docs" / "guide").glob("*.md")):
        text = guide.read_text(encoding="utf-8")
        filled = BENCHMARKS.sub(lambda found: benchmarks(found[1].split()), text)
        if filled != text:
            write(f"guide/{guide.name}", filled)
    for page, file in PROJECT_FILES.items():
        write(page, (ROOT / file).read_text(encoding="utf-8"))


main()
