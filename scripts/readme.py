"""Writes the README's table of papers, between its two markers, from records and recorded results.

``python scripts/readme.py`` writes; with ``--check`` it writes nothing and ends with status 1 if the table is stale.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from offprint.lab.results import folder, recorded, recorded_badge
from offprint.papers import Record, records

START, END = "<!-- papers:start -->", "<!-- papers:end -->"
README = Path(__file__).parents[1] / "README.md"


def row(paper: Record, home: Path) -> str:
    """Return a paper's row: title, import line, verdicts, and a figure that leads to its full size."""
    title = f"[{paper.title.replace('|', chr(92) + '|')}]({paper.url})"
    lines = "<br>".join(f"`{line}`" for line in paper.import_lines)
    return f"| {title} | {lines} | {recorded_badge(paper)} | {thumbnail(paper, home)} |"


def thumbnail(paper: Record, home: Path) -> str:
    """Return the first recorded figure as a small picture; empty when there is none."""
    results = recorded(paper) or {"claims": []}
    for claim in results["claims"]:
        if claim["figure"]:
            figure = Path(os.path.relpath(folder(paper) / claim["figure"], home)).as_posix()
            return f'<a href="{figure}"><img src="{figure}" width="160" alt="{claim["id"]}"></a>'
    return ""


def table(home: Path) -> str:
    """Return the table of this project's papers that have a method, and the number of those that have none yet."""
    own = [paper for paper in records().values() if paper.package.startswith("offprint.papers.")]
    built = [paper for paper in own if paper.methods]
    lines = ["| paper | import | verdicts | figure |", "| --- | --- | --- | --- |"]
    lines += [row(paper, home) for paper in sorted(built, key=lambda paper: paper.title.lower())]
    waiting = len(own) - len(built)
    if waiting:
        lines += [
            "",
            f"{waiting} more papers are on record, with their claims and rules fixed; their methods are to come.",
        ]
    return "\n".join(lines)


def insert(text: str, between: str) -> str:
    """Return a README with what stands between the markers replaced.

    Raises
    ------
    ValueError
        Unless both markers are there once, in order.
    """
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"the README must hold {START} and then {END}, once each")
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n\n{between}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with status 1 if the table is stale")
    parser.add_argument("--file", type=Path, default=README, help="the README")
    options = parser.parse_args(arguments)
    text = options.file.read_text(encoding="utf-8")
    try:
        fresh = insert(text, table(options.file.resolve().parent))
    except ValueError as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 1
    if fresh == text:
        return 0
    if options.check:
        print(f"{options.file}: the table of papers is stale; run python scripts/readme.py", file=sys.stderr)
        return 1
    options.file.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
