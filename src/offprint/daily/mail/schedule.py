"""The built-in schedule: digests once a day at a set hour, and every minute what is left to be sent."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable

from offprint.daily.mail.sending import Report, Sender

SECONDS_BETWEEN = 60.0

log = logging.getLogger(__name__)


class Schedule:
    """A thread that sends digests. Several servers may each have one: a mail is only ever one sender's at a time.

    Parameters
    ----------
    sender : Callable[[], Sender]
        Makes the sender, in the thread.
    hour : int
        The hour (UTC) from which the day's digests go out.
    """

    def __init__(self, sender: Callable[[], Sender], hour: int) -> None:
        self._make = sender
        self._hour = hour
        self._sender: Sender | None = None
        self._finished: datetime.date | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; what a server that was stopped left is sent first."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._work, name="digests", daemon=True)
        self._thread.start()

    def stop(self, patience: float = 5.0) -> None:
        """End after the mail at hand."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(patience)

    def tick(self) -> Report | None:
        """Do what is to be done now; whatever goes wrong is logged, and the next tick tries again."""
        try:
            if self._sender is None:
                self._sender = self._make()
            return self._send(self._sender)
        except Exception:  # the thread must outlive whatever goes wrong with one run
            log.exception("sending digests failed")
            return None

    def _send(self, sender: Sender) -> Report:
        now = sender.clock()
        if now.hour < self._hour or self._finished == now.date():
            report = sender.finish(stop=self._stopping)
        else:
            report = sender.run(stop=self._stopping)
            if not report.stopped and not report.trouble:
                self._finished = now.date()
        for line in (*report.refused, *report.later):
            log.warning("digest: %s", line)
        if report.trouble:
            log.error("no digest can be sent: %s", report.trouble)
        if report.sent:
            log.info("digests: %s", report)
        return report

    def _work(self) -> None:
        while not self._stopping.is_set():
            self.tick()
            self._stopping.wait(SECONDS_BETWEEN)
