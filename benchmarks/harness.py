"""Side-by-side timing of our code and a named peer: same work, same run, recorded as a ratio."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Comparison:
    """Median seconds of both sides over interleaved repeats, and ``ratio`` = peer / ours (above 1: we are faster)."""

    name: str
    peer: str
    ours_seconds: float
    peer_seconds: float
    ratio: float
    target: float | None
    met: bool | None
    repeats: int
    note: str


def compare(
    name: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    *,
    peer_name: str,
    target: float | None = None,
    repeats: int = 7,
    note: str = "",
) -> Comparison:
    """Time two callables that do the same work, alternating between them after one untimed call of each.

    ``target`` is the least ratio peer / ours that the paper's brief asks for.
    """
    ours(), peer()
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(repeats):
        for side, work in (("ours", ours), ("peer", peer)):
            seconds[side].append(_timed(work))
    our_median, peer_median = statistics.median(seconds["ours"]), statistics.median(seconds["peer"])
    ratio = peer_median / our_median
    met = None if target is None else ratio >= target
    return Comparison(name, peer_name, our_median, peer_median, ratio, target, met, repeats, note)


def within(name: str, work: Callable[[], Any], limit_seconds: float, *, repeats: int = 7, note: str = "") -> Comparison:
    """Time a callable against a limit instead of a peer, after one untimed call: a ratio of 1 or more keeps it."""
    work()
    ours = statistics.median(_timed(work) for _ in range(repeats))
    ratio = limit_seconds / ours
    return Comparison(name, "the limit", ours, limit_seconds, ratio, 1.0, ratio >= 1, repeats, note)


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def record(slug: str, comparisons: Iterable[Comparison]) -> Path:
    """Print each comparison as it comes and write them all to ``benchmarks/results/<slug>.json``."""
    done = []
    for item in comparisons:
        goal = "" if item.target is None else f"  (target ≥ {item.target:g}: {'met' if item.met else 'MISSED'})"
        print(
            f"{slug}: {item.name}: ours {item.ours_seconds:.4g} s, {item.peer} {item.peer_seconds:.4g} s, "
            f"ratio {item.ratio:.3g}{goal}",
            flush=True,
        )
        done.append(asdict(item))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{slug}.json"
    content = {
        "slug": slug,
        "command": f"python benchmarks/run.py {slug}",
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy")}},
        "comparisons": done,
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit("run `python benchmarks/run.py [SLUG ...]`")
