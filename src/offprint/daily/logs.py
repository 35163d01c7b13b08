"""Log lines, as text or as JSON: what was asked by the pattern of its address, never who asked or for what."""

from __future__ import annotations

import datetime
import json
import logging
from typing import Literal

REQUESTS = logging.getLogger("offprint.requests")


class Text(logging.Formatter):
    """One line for a person to read, and the trace of an error below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")


class Json(logging.Formatter):
    """One JSON object a line, for a program to read.

    Examples
    --------
    >>> record = logging.LogRecord("offprint", logging.INFO, "", 0, "%s papers", (3,), None)
    >>> json.loads(Json().format(record))["message"]
    '3 papers'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        line = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(form: Literal["text", "json"], level: str) -> None:
    """Write what this process logs to standard error, from a level on."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # They speak of every statement and connection when asked for more than warnings.
    for talkative in ("sqlalchemy", "alembic", "httpx", "httpx2", "httpcore", "matplotlib", "asyncio"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


def answered(method: str, pattern: str, status: int, seconds: float) -> None:
    """Log one answer."""
    if not REQUESTS.isEnabledFor(logging.INFO):
        return
    fields = {"method": method, "route": pattern, "status": status, "milliseconds": round(1000 * seconds, 1)}
    REQUESTS.info("%s %s %d in %.1f ms", method, pattern, status, 1000 * seconds, extra={"fields": fields})
