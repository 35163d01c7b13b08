"""Files with one record after the other, as sources of entries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from offprint.daily.importing.entries import BadEntryError, Entry, Read, skipped
from offprint.daily.importing.files import Line, SourceFile, identity
from offprint.daily.importing.streaming import Source


class RecordFile(Source):
    """A file of records; a kind of file says how one record is read.

    Parameters
    ----------
    path : Path
        Plain, gzipped or zipped.
    about : object
        What else decides what is read from the file, so that how far an import came counts for this only.

    Raises
    ------
    ValueError
        If the file is packed in a way that is not read.
    """

    reopens = True
    kind: ClassVar[str]

    def __init__(self, path: Path, *about: object) -> None:
        self.path = path
        self.file = SourceFile(path)
        self.name = f"{self.kind} {identity(path, self.kind, *about)}"

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file out of a pickled copy, which opens it anew."""
        return {name: value for name, value in vars(self).items() if name != "file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file anew."""
        vars(self).update(state)
        self.file = SourceFile(self.path)

    @abstractmethod
    def entry(self, line: int, content: bytes) -> Entry | None:
        """Return the entry that a record makes, or ``None`` when it was not asked for.

        Raises
        ------
        BadEntryError
            If it cannot be used.
        """

    def records(self, position: int, line: int) -> Iterator[Line]:
        """Yield the records after a place and a line: one a line, unless the kind of file says otherwise."""
        return self.file.lines(position, line)

    def read(self, position: int, line: int) -> Iterator[Read]:
        """Yield each record after a place and a line."""
        for record in self.records(position, line):
            if not record.fault and not record.content.strip():
                continue
            found: Entry | None = None
            try:
                if record.fault:
                    raise BadEntryError(record.fault)
                found = self.entry(record.begun, record.content)
            except BadEntryError as error:
                text = record.content[:200].decode("utf-8", "replace")
                yield Read(record.position, record.number, skipped(record.begun, error, text))
            else:
                yield Read(record.position, record.number, found)

    def done(self) -> tuple[int, int]:
        """Return how many bytes of how many were read."""
        return self.file.done(), self.file.size

    def close(self) -> None:
        """Close the file."""
        self.file.close()
