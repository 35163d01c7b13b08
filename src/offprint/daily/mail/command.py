"""``offprint digest send``: digests once, from a terminal or by cron."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from offprint.daily.mail.digest import Site
from offprint.daily.mail.sending import Report, Sender
from offprint.daily.mail.transport import Folder, outbox
from offprint.daily.settings import Settings
from offprint.store import Database


def send(database: Database, settings: Settings, frequency: str | None, *, dry_run: bool, console: Console) -> int:
    """Send the digests that are due, or show them; return the exit status.

    Parameters
    ----------
    database : Database
    settings : Settings
    frequency : {"daily", "weekly"} or None
        Both for ``None``.
    dry_run : bool
        Show what would go out and change nothing.
    console : rich.console.Console

    Raises
    ------
    ValueError
        If mail cannot be sent with these settings.
    """
    box = outbox(settings)
    sender = Sender(database, box, Site.of(settings))
    if dry_run:
        _show(sender, frequency, console)
        return 0
    with _interruptible() as stop, _bar(console) as progress:
        bar = progress.add_task("digests", total=None)
        report = sender.run(
            frequency,
            stop=stop,
            listen=lambda report, done, total: progress.update(
                bar, completed=done, total=total, description=f"{report.sent} sent"
            ),
        )
    _tell(report, console)
    if isinstance(box, Folder) and report.sent:
        _say(console, f"No mail server is set (OFFPRINT_SMTP_URL): they are in the folder {box.path}")
    return 1 if report.trouble or report.later or report.refused else 130 if report.stopped else 0


def _show(sender: Sender, frequency: str | None, console: Console) -> None:
    count = 0
    for message in sender.preview(frequency):
        count += 1
        _say(console, f"To: {message['To']}\nSubject: {message['Subject']}\n\n{_text(message)}\n{'=' * 78}")
    left = sender.unfinished()
    _say(console, f"{count} would be sent, and {left} that are made already. Nothing was changed.")


def _text(message: EmailMessage) -> str:
    plain = message.get_body(("plain",))
    return str(plain.get_content()) if plain is not None else ""


def _tell(report: Report, console: Console) -> None:
    for line in report.refused:
        _say(console, f"refused: {line}")
    for line in report.later:
        _say(console, f"to be tried again: {line}")
    if report.trouble:
        _say(console, f"stopped: {report.trouble}")
    elif report.stopped:
        _say(console, "stopped; the same command goes on from there")
    _say(console, f"digests: {report}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _bar(console: Console) -> Progress:
    """Return a progress bar, which shows itself on terminals only."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Give what Ctrl-C and SIGTERM set: the mail at hand is still noted as sent. A second one ends at once."""
    stop = threading.Event()
    first = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask_to_stop(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, first[signal.Signals(number)])

    for number in first:
        signal.signal(number, ask_to_stop)
    try:
        yield stop
    finally:
        for number, handler in first.items():
            signal.signal(number, handler)
