"""Work that waits for servers elsewhere, in threads of its own.

The threads that make pages are few. Were they to wait for arXiv or for a mail server as well, a handful of readers who
submit or subscribe while one of those is slow would keep all others from reading.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

THREADS = 8
"""Requests that may wait at once; others wait for these."""

_LIMITER: RunVar[CapacityLimiter] = RunVar("threads that wait")

Result = TypeVar("Result")


async def waiting(work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Do work that may wait for a server elsewhere, and return its result."""
    try:
        limiter = _LIMITER.get()
    except LookupError:
        limiter = CapacityLimiter(THREADS)
        _LIMITER.set(limiter)
    return await to_thread.run_sync(partial(work, *arguments, **options), limiter=limiter)
