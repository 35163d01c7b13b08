"""Run the comparisons of the papers named on the command line, or of all: ``python benchmarks/run.py [SLUG ...]``.

A paper's file is ``benchmarks/<slug_with_underscores>.py`` and defines ``comparisons()``, which yields
:class:`harness.Comparison` objects. (``daily_load.py`` is run by itself.)
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import harness

HERE = Path(__file__).parent
AVAILABLE = sorted(
    path.stem.replace("_", "-")
    for path in HERE.glob("*.py")
    if "\ndef comparisons(" in path.read_text(encoding="utf-8")
)


def main(slugs: list[str]) -> None:
    """Run and record the comparisons of ``slugs`` (all when empty)."""
    unknown = sorted(set(slugs) - set(AVAILABLE))
    if unknown:
        sys.exit(f"no benchmark for {', '.join(unknown)}; there are {', '.join(AVAILABLE)}")
    for slug in slugs or AVAILABLE:
        module = importlib.import_module(slug.replace("-", "_"))
        print(f"wrote {harness.record(slug, module.comparisons())}")


if __name__ == "__main__":
    main(sys.argv[1:])
