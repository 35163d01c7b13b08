"""Files as importers read them: plain, gzipped or zipped, line by line, never more than one line in memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple, cast

LONGEST_LINE = 4 << 20
_ENDS = 1 << 20
_BUFFER = 1 << 16
_DAMAGED = (EOFError, OSError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)


class Line(NamedTuple):
    """A line, or a record over several: the place and the line it ends at, the line it begins at, and its bytes.

    ``fault`` says why the bytes are not all there.
    """

    position: int
    number: int
    begun: int
    content: bytes
    fault: str = ""


class SourceFile:
    """A file to import from, opened; what it is packed in is told by its first bytes, not by its name.

    Raises
    ------
    ValueError
        If it is packed in a way that is not read, or a zip holds several files that might be meant.
    """

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        self.damage = ""
        with ExitStack() as opened:
            self._raw = opened.enter_context(path.open("rb"))
            start = self._raw.read(4)
            self._raw.seek(0)
            self._unpacked: IO[bytes] = self._raw
            if start[:2] == b"\x1f\x8b":
                self._unpacked = cast(IO[bytes], opened.enter_context(gzip.GzipFile(fileobj=self._raw)))
            elif start == b"PK\x03\x04":
                # Buffered, because a zip's own reading of lines is slow.
                self._unpacked = opened.enter_context(io.BufferedReader(_member(self._raw, opened, path), _BUFFER))
            elif start == b"\x28\xb5\x2f\xfd":
                raise ValueError(f"{path} is packed with zstd; unpack it first (gzip and zip are read as they are)")
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def done(self) -> int:
        """Return how many of its ``size`` bytes have been read, for a progress bar."""
        return min(self._raw.tell(), self.size)

    def read(self, size: int) -> bytes:
        """Return the next bytes; none at the end, or where the file is damaged, which ``damage`` then says."""
        try:
            return self._unpacked.read(size)
        except _DAMAGED as error:
            self.damage = f"the file is damaged from here on ({error or type(error).__name__})"
            return b""

    def skip_to(self, position: int) -> None:
        """Go to a place of the unpacked content that was reached before."""
        if self._unpacked is self._raw:
            self._raw.seek(position)
            return
        while position > 0 and (passed := self.read(min(position, _ENDS))):
            position -= len(passed)

    def lines(self, position: int = 0, number: int = 0) -> Iterator[Line]:
        """Yield each line from ``position`` on, after line ``number``; of one that is far too long only its start."""
        self.skip_to(position)
        while content := self._line():
            position += len(content)
            number += 1
            fault = ""
            if len(content) >= LONGEST_LINE and not content.endswith(b"\n"):
                rest = content
                while rest and not rest.endswith(b"\n") and (rest := self._line()):
                    position += len(rest)
                fault = f"line longer than {LONGEST_LINE >> 20} MiB"
            yield Line(position, number, number, content, fault)
        if self.damage:
            yield Line(position, number, number + 1, b"", self.damage)

    def _line(self) -> bytes:
        try:
            return self._unpacked.readline(LONGEST_LINE)
        except _DAMAGED as error:
            self.damage = f"the file is damaged from here on ({error or type(error).__name__})"
            return b""


def identity(path: Path, *about: object) -> str:
    """Return what tells this content, read this way, from any other: its size, its start and its end, not its name."""
    size = path.stat().st_size
    digest = hashlib.sha256(repr((size, *about)).encode())
    with path.open("rb") as file:
        digest.update(file.read(_ENDS))
        file.seek(max(size - _ENDS, 0))
        digest.update(file.read(_ENDS))
    return digest.hexdigest()[:32]


def _member(raw: IO[bytes], opened: ExitStack, path: Path) -> io.RawIOBase:
    """Open the one file of a zip."""
    try:
        archive = opened.enter_context(zipfile.ZipFile(raw))
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise ValueError(f"{path} holds {len(members)} files; one was expected: unpack it and name the one meant")
        return cast(io.RawIOBase, archive.open(members[0]))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is a damaged or locked zip: {error}") from error
