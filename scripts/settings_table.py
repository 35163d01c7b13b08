"""Writes the table of settings into the guide for operators, between its two markers.

``python scripts/settings_table.py``
"""

from __future__ import annotations

from pathlib import Path

from offprint.daily import settings

START, END = "<!-- settings:start -->", "<!-- settings:end -->"
GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "operating.md"


def main() -> None:
    """Write the table."""
    before, _, rest = GUIDE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    GUIDE.write_text(f"{before}{START}\n\n{settings.table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
