"""Reading a large file in a process of its own, so that one core reads records while another stores them.

The process is told on its standard input what to read, and writes one pickled batch after the other to its standard
output. It is never more than one batch ahead, because a pipe holds only so much, and it ends with whoever reads it.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

from offprint.daily.importing.entries import Read
from offprint.daily.importing.streaming import Source, SourceError, in_batches

WORTH_BYTES = 8 << 20
"""A smaller file is read sooner than the process has started."""


def worth(source: Source) -> bool:
    """Whether a source is a file so large that another process should read it, and there is a core for that."""
    _, size = source.done()
    return source.reopens and size >= WORTH_BYTES and len(os.sched_getaffinity(0)) > 1


def batches(source: Source, position: int, line: int) -> Iterator[tuple[list[Read], tuple[int, int]]]:
    """Yield what :func:`in_batches` yields of a source, read by another process.

    Raises
    ------
    SourceError
        If the process ended without a word; what reading raised there comes as it is.
    """
    command = [sys.executable, "-m", __name__]
    # In a session of its own: Ctrl-C is for the process that stores, which then ends this one.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        try:
            # One that ended before it was told is found out when nothing comes from it.
            with suppress(BrokenPipeError), reader.stdin as told:
                pickle.dump((source, position, line), told)
            while (found := _next(reader.stdout)) is not None:
                if isinstance(found, Exception):
                    raise found
                yield found
        finally:
            reader.kill()


def _next(file: IO[bytes]) -> tuple[list[Read], tuple[int, int]] | Exception | None:
    try:
        found: tuple[list[Read], tuple[int, int]] | Exception | None = pickle.load(file)
    except (EOFError, pickle.UnpicklingError):
        raise SourceError("the process that reads the file ended too early; import it again to go on") from None
    return found


def _serve() -> None:
    """Be that process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # Records form no cycles, and looking for some takes a tenth of the time.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Whatever prints must not end up between the batches.
    try:
        try:
            for batch in in_batches(*pickle.load(sys.stdin.buffer)):
                pickle.dump(batch, answers, protocol=pickle.HIGHEST_PROTOCOL)
                answers.flush()
        except Exception as error:
            pickle.dump(error, answers)
        else:
            pickle.dump(None, answers)
        answers.flush()
    except BrokenPipeError:
        os._exit(1)  # Nobody reads any more.


if __name__ == "__main__":
    _serve()
