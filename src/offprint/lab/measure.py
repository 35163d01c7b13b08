"""Measuring papers: plan the tasks, perform those not yet measured, store each outcome at once, judge the claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from offprint.lab.executors import Event, Executor, ProcessPool
from offprint.lab.ledger import Ledger
from offprint.lab.tasks import Outcome, Task, plan
from offprint.lab.verdicts import ClaimResult, Verdict, badge, judge
from offprint.papers import Record, Scale


@dataclass(frozen=True)
class PaperResult:
    """A paper with the results of its claims, in the order of its record."""

    paper: Record
    scale: Scale
    claims: tuple[ClaimResult, ...]

    @property
    def badge(self) -> str:
        """The verdicts as one short line."""
        return badge(self.verdicts)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict of each claim."""
        return tuple(claim.verdict for claim in self.claims)


def measure(
    papers: Sequence[Record],
    scale: Scale = "quick",
    *,
    ledger: Ledger,
    claims: Sequence[str] | None = None,
    seeds: int | None = None,
    executor: Executor | None = None,
    device: str = "cpu",
    again: bool = False,
    listen: Callable[[Event], None] = lambda event: None,
) -> list[PaperResult]:
    """Measure the claims of papers and judge them.

    Each outcome is stored the moment it exists, so that a run that is stopped, however roughly, loses no more than the
    tasks in flight; measuring again performs only the tasks that have no outcome yet for the code as it is.

    Parameters
    ----------
    papers : sequence of Record
    scale : {"smoke", "quick", "full", "paper"}
    ledger : Ledger
        Where outcomes are kept.
    claims : sequence of str, optional
        Only these claim ids.
    seeds : int, optional
        Repetitions of every claim, instead of the number in its record.
    executor : Executor, optional
        A :class:`ProcessPool` when left out.
    device : str
        A torch device.
    again : bool
        Measure also what has been measured before.
    listen : callable
        Receives every event, and first every outcome that was found in the ledger.

    Returns
    -------
    list of PaperResult

    Raises
    ------
    ValueError
        If a claim is named that no paper makes, or ``seeds`` is below one.
    """
    tasks = plan(papers, scale, claims=claims, seeds=seeds, device=device)
    outcomes: dict[Task, Outcome] = {} if again else ledger.measured(tasks)
    for outcome in outcomes.values():
        listen(outcome)
    with closing((executor or ProcessPool()).stream([task for task in tasks if task not in outcomes])) as events:
        for event in events:
            if isinstance(event, Outcome):
                ledger.add(event)
                outcomes[event.task] = event
            listen(event)
    return [result(paper, scale, list(outcomes.values()), claims) for paper in papers]


def result(
    paper: Record, scale: Scale, outcomes: Sequence[Outcome], claims: Sequence[str] | None = None
) -> PaperResult:
    """Judge a paper's claims (all, or those named) from outcomes."""
    judged = (
        judge(claim, scale, [o for o in outcomes if (o.task.paper, o.task.claim) == (paper.slug, claim.id)])
        for claim in paper.claims
        if claims is None or claim.id in claims
    )
    return PaperResult(paper, scale, tuple(judged))
