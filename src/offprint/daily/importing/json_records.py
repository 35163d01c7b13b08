"""JSON as it comes from elsewhere: one record after the other, and every way in which one can be broken."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator

from offprint.daily.importing.entries import BadEntryError
from offprint.daily.importing.files import LONGEST_LINE, Line, SourceFile

_CHUNK = 1 << 16
_TOKEN = re.compile(rb'["\\{}\[\],\n]')
_MARK = b"\xef\xbb\xbf"


def parse(content: bytes) -> object:
    """Return the value that a record is.

    Raises
    ------
    BadEntryError
        If it is not UTF-8, not JSON, or nested deeper than anyone means.
    """
    try:
        text = content.removeprefix(_MARK).decode("utf-8")
    except UnicodeDecodeError:
        raise BadEntryError("not valid UTF-8") from None
    try:
        value: object = json.loads(text)
    except RecursionError:
        raise BadEntryError("nested too deeply") from None
    except ValueError as error:
        raise BadEntryError(f"not JSON: {getattr(error, 'msg', 'a number of too many digits')}") from None
    return value


def moment(value: object) -> datetime.datetime | None:
    """Return the moment (UTC) that an ISO 8601 text names, or ``None``."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.datetime.fromisoformat(value)
        return found.replace(tzinfo=datetime.UTC) if found.tzinfo is None else found.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def array_values(file: SourceFile, position: int = 0, number: int = 0) -> Iterator[Line]:
    """Yield the text of each element of a JSON array, with the line where it begins, without reading the whole.

    Brackets and quotes are counted and nothing else, so a broken element is passed on as any other.

    Parameters
    ----------
    file : SourceFile
    position, number : int
        Where an earlier reading of the file came to: the byte, and the line.
    """
    return _Elements(position, number).read(file)


class _Elements:
    """The walk over an array: how deep it is, and the element it is in."""

    def __init__(self, position: int, number: int) -> None:
        self.position = position
        self.number = max(number, 1)
        self.depth = 0
        self.in_string = False
        self.escaped = -1
        self.value = bytearray()
        self.begun = self.number
        self.too_long = False

    def read(self, file: SourceFile) -> Iterator[Line]:
        if self.position:
            file.skip_to(self.position - 1)
            # What ended the last element tells whether the array goes on.
            self.depth = 0 if file.read(1) == b"]" else 1
        while chunk := file.read(_CHUNK):
            kept = 0
            for token in _TOKEN.finditer(chunk):
                if self._separates(token[0], self.position + token.start()):
                    self._keep(chunk[kept : token.start()])
                    kept = token.end()
                    yield from self._element(self.position + kept)
            self._keep(chunk[kept:])
            self.position += len(chunk)
        yield from self._element(self.position)
        if file.damage:
            yield Line(self.position, self.number, self.number, b"", file.damage)

    def _separates(self, sign: bytes, place: int) -> bool:
        """Follow one sign; return whether an element ends here, or the array begins."""
        if sign == b"\n":
            self.number += 1
        elif self.in_string:
            if place != self.escaped:
                self.in_string = sign != b'"'
                self.escaped = place + 1 if sign == b"\\" else -1
        elif sign == b'"':
            self.in_string = True
        elif sign in b"[{":
            self.depth += 1
            return self.depth == 1 and sign == b"["
        elif sign in b"]}":
            self.depth = max(self.depth - 1, 0)
            return self.depth == 0
        else:
            return sign == b"," and self.depth <= 1
        return False

    def _keep(self, content: bytes) -> None:
        if len(self.value) + len(content) <= LONGEST_LINE:
            self.value += content
        else:
            self.too_long = True

    def _element(self, position: int) -> Iterator[Line]:
        content = bytes(self.value).removeprefix(_MARK)
        leading = len(content) - len(content.lstrip())
        begun = self.begun + content.count(b"\n", 0, leading)
        if content.strip():
            fault = f"record longer than {LONGEST_LINE >> 20} MiB" if self.too_long else ""
            yield Line(position, self.number, begun, content, fault)
        self.value.clear()
        self.begun, self.too_long = self.number, False
