"""What the lab does one at a time: a task is one claim at one scale and seed; an outcome is what came of it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from offprint.papers import Claim, Needs, Record, Scale, measured_claims

Status = Literal["ok", "error", "skipped"]


@dataclass(frozen=True)
class Task:
    """One claim of one paper, to be measured once. Plain data: it can be sent to another process or machine."""

    paper: str
    claim: str
    scale: Scale
    seed: int
    fingerprint: str
    device: str = "cpu"
    needs: Needs = field(default_factory=Needs)

    @property
    def name(self) -> str:
        """How the task is shown."""
        return f"{self.paper} {self.claim} (seed {self.seed})"


@dataclass(frozen=True)
class Outcome:
    """What a task measured, or why it did not, with everything needed to say where the number came from."""

    task: Task
    status: Status
    seconds: float
    peak_memory_mb: float
    value: float | None = None
    baseline: float | None = None
    also: Mapping[str, float] = field(default_factory=dict)
    figure: Mapping[str, Any] | None = None
    note: str = ""
    message: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""
    finished_at: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))


def plan(
    papers: Iterable[Record],
    scale: Scale,
    *,
    claims: Sequence[str] | None = None,
    seeds: int | None = None,
    device: str = "cpu",
) -> list[Task]:
    """List the tasks that measure these papers: one for each claim that has a function, and each of its seeds.

    Parameters
    ----------
    papers : iterable of Record
    scale : {"smoke", "quick", "full", "paper"}
    claims : sequence of str, optional
        Only these claim ids.
    seeds : int, optional
        Repetitions of every claim, instead of the number in its record.
    device : str
        A torch device.

    Raises
    ------
    ValueError
        If ``claims`` names one that no paper makes, or ``seeds`` is below one.
    """
    from offprint.lab.fingerprint import fingerprint

    papers = list(papers)
    if seeds is not None and seeds < 1:
        raise ValueError(f"seeds must be at least 1; got {seeds}")
    if unknown := set(claims or ()) - {claim.id for paper in papers for claim in paper.claims}:
        raise ValueError(f"claims: no such claim: {', '.join(sorted(unknown))}")

    def wanted(paper: Record) -> list[Claim]:
        bound = measured_claims(paper)
        return [claim for claim in paper.claims if claim.id in bound and (claims is None or claim.id in claims)]

    return [
        Task(paper.slug, claim.id, scale, seed, version, device, claim.needs)
        for paper in papers
        for claim in wanted(paper)
        for version in [fingerprint(paper, claim.id)]
        for seed in range(seeds or claim.n_seeds(scale))
    ]
