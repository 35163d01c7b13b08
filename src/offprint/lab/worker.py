"""Performing one task: the claim's function is called, and whatever happens becomes an outcome."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from offprint.lab.tasks import Outcome, Status, Task
from offprint.papers import Measurement, Progress, Run, Skip, claim_functions, record

REPORTED_VERSIONS = ("offprint", "torch", "numpy", "scipy", "scikit-learn", "numba")


def perform(task: Task, report: Callable[[Progress], None] = lambda progress: None) -> Outcome:
    """Measure one claim once, in this process. Errors of the claim become an outcome; they are never raised."""
    start = time.perf_counter()
    run = Run(scale=task.scale, seed=task.seed, device=task.device, report=report)
    try:
        paper = record(task.paper)
        measurement = claim_functions(paper)[task.claim](run)
        _check_keys(measurement, {criterion.key for criterion in paper.claim(task.claim).criteria(task.scale)[1:]})
    except Skip as reason:
        return failure(task, str(reason), time.perf_counter() - start, status="skipped")
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
        return failure(task, message, time.perf_counter() - start)
    return Outcome(
        task,
        "ok",
        seconds=time.perf_counter() - start,
        peak_memory_mb=peak_memory_mb(),
        value=measurement.value,
        baseline=measurement.baseline,
        also=dict(measurement.also),
        figure=run.drawn.to_json() if run.drawn.panels else None,
        note=measurement.note,
        versions=versions(),
        machine=machine(task.device),
        commit=commit(),
    )


def failure(task: Task, message: str, seconds: float, *, status: Status = "error") -> Outcome:
    """Return the outcome of a task that measured nothing, saying why."""
    return Outcome(
        task,
        status,
        seconds=seconds,
        peak_memory_mb=peak_memory_mb(),
        message=message,
        versions=versions(),
        machine=machine(task.device),
        commit=commit(),
    )


def _check_keys(measurement: Measurement, expected: set[str | None]) -> None:
    if missing := expected - set(measurement.also):
        raise ValueError(f"the measurement lacks {', '.join(sorted(map(str, missing)))}, which the record judges")


def peak_memory_mb() -> float:
    """Return the most memory this process has held so far, in MiB."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in REPORTED_VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine(device: str = "cpu") -> dict[str, Any]:
    """Describe this machine: processor, cores, memory and system, and the accelerator when ``device`` is one."""
    described: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
    }
    if device.startswith("cuda"):
        import torch

        described["accelerator"] = torch.cuda.get_device_name(device)
    return described


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


@cache
def commit() -> str:
    """Return the commit this code was checked out from, marked ``+`` if source has changed; empty if not a checkout."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--", str(here.parent)) else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
