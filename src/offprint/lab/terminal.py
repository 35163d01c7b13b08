"""The lab in a terminal: a progress bar for each running task, and a table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from offprint.lab.executors import Advance, Event
from offprint.lab.measure import PaperResult
from offprint.lab.report import COLUMNS, rows
from offprint.lab.tasks import Task

VERDICT_STYLES = {
    "reproduced": "green",
    "weaker": "yellow",
    "not reproduced": "red",
    "error": "bold red",
    "skipped": "dim",
    "not yet measured": "dim",
}


class Bars:
    """Shows the events of a run: one bar for the whole, one for each running task. Used as a context.

    Parameters
    ----------
    console : rich.console.Console
    n_tasks : int
        How many tasks the whole run has.
    """

    def __init__(self, console: Console, n_tasks: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[label]}"),
            console=console,
            transient=True,
        )
        self._whole = self._progress.add_task("measured", total=n_tasks, label="")
        self._bars: dict[Task, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        task = event.task
        if isinstance(event, Advance):
            if task not in self._bars:
                self._bars[task] = self._progress.add_task(task.name, total=None, label="")
            total = event.progress.total or None
            self._progress.update(
                self._bars[task], completed=int(event.progress.done), total=total, label=event.progress.label
            )
            return
        if task in self._bars:
            self._progress.remove_task(self._bars.pop(task))
        self._progress.advance(self._whole)


def table(results: Sequence[PaperResult]) -> Table:
    """Return the table of claims: expected, measured with interval, verdict, seconds."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        drawn.add_column(column, justify="right" if column == "seconds" else "left", overflow="fold")
    for result in results:
        drawn.add_row(f"[bold]{result.paper.slug}[/bold]", "", "", result.badge, "", style="default")
        for claim in result.claims:
            for name, expected, found, verdict, seconds in rows(claim):
                style = VERDICT_STYLES[verdict]
                drawn.add_row(f"  {name}", expected, _plain(found), f"[{style}]{verdict}[/{style}]", seconds)
    return drawn


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
