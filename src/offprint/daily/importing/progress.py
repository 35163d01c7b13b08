"""The progress bar of an import: how much of the source was read, how many records, and how many a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from offprint.daily.importing.streaming import Progress


@contextmanager
def shown() -> Iterator[Progress]:
    """Give what shows the progress, on standard error, while the block lasts."""
    columns = BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
    begun = time.monotonic()
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("0 records", total=None)

        def show(done: int, total: int, records: int) -> None:
            rate = records / max(time.monotonic() - begun, 1e-6)
            told = f"{records:,} records ({rate:,.0f}/s)"
            bars.update(bar, completed=done, total=total or None, description=told)

        yield show
