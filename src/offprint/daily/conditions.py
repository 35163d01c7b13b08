"""Conditional requests (RFC 9110, section 13): what names a version of an answer, and who has that version already."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def etag(content: bytes) -> str:
    """Return the ``ETag`` of an answer.

    Examples
    --------
    >>> etag(b"content") == etag(b"content"), etag(b"content") == etag(b"other")
    (True, False)
    """
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def unchanged(asked: Mapping[str, str], headers: Mapping[str, str]) -> bool:
    """Whether a client has this version of an answer already. Its ETags count before its date.

    Parameters
    ----------
    asked : mapping
        The headers of the request.
    headers : mapping
        Those of the answer: ``ETag``, and ``Last-Modified`` where its date is known.

    Examples
    --------
    >>> unchanged({"if-none-match": 'W/"a", "b"'}, {"ETag": '"b"'})
    True
    """
    known = [value for name, value in asked.items() if name.lower() == "if-none-match"]
    if known:
        versions = ",".join(known)
        return versions.strip() == "*" or headers["ETag"] in re.findall(r'"[^"]*"', versions)
    try:
        seen = parsedate_to_datetime(asked.get("if-modified-since", ""))
        changed = parsedate_to_datetime(headers.get("Last-Modified", ""))
        return changed <= seen.replace(tzinfo=seen.tzinfo or datetime.UTC)
    except (ValueError, OverflowError, TypeError):
        return False
