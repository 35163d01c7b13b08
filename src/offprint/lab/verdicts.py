"""Verdicts: computed from a claim's rule, the median over its seeds and a bootstrap interval. Never typed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from offprint.lab.tasks import Outcome
from offprint.papers import Claim, Criterion, Rule, Scale
from offprint.statistics import bootstrap_interval

Verdict = Literal["reproduced", "weaker", "not reproduced", "error", "skipped", "not yet measured"]

_WORST_FIRST: tuple[Verdict, ...] = (
    "not yet measured",
    "error",
    "skipped",
    "not reproduced",
    "weaker",
    "reproduced",
)


@dataclass(frozen=True)
class Judgement:
    """One number of a claim: what was expected, what was measured over the seeds, and the verdict."""

    criterion: Criterion
    values: tuple[float, ...]
    value: float
    interval: tuple[float, float]
    verdict: Verdict


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its verdict and everything it rests on. ``figure`` is set once drawn."""

    claim: Claim
    scale: Scale
    verdict: Verdict
    judgements: tuple[Judgement, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    message: str = ""

    @property
    def seconds(self) -> float:
        """Time spent measuring, summed over seeds."""
        return sum(outcome.seconds for outcome in self.outcomes)

    @property
    def peak_memory_mb(self) -> float:
        """The most memory any seed held, in MiB."""
        return max((outcome.peak_memory_mb for outcome in self.outcomes), default=0.0)

    @property
    def baseline(self) -> float | None:
        """The baseline's median over seeds."""
        values = [outcome.baseline for outcome in self.outcomes if outcome.baseline is not None]
        return bootstrap_interval(values).estimate if values else None

    @property
    def note(self) -> str:
        """The notes of the seeds, each once."""
        return " ".join(dict.fromkeys(outcome.note for outcome in self.outcomes if outcome.note))


def judge_values(rule: Rule, values: Sequence[float]) -> tuple[float, tuple[float, float], Verdict]:
    """Judge one number measured over seeds.

    The verdict is ``reproduced`` when the judged number satisfies the rule and, where the rule has a weaker band, the
    whole interval lies within that band. It is ``weaker`` when it is not reproduced but the judged number lies in the
    weaker band or, where the rule has none, the interval still reaches the accepted region. Otherwise it is ``not
    reproduced``. A ``holds`` rule is judged on the share of seeds alone.

    Parameters
    ----------
    rule : Rule
    values : sequence of float, shape (n,)
        One finite number a seed, n ≥ 1.

    Returns
    -------
    value, interval, verdict
        The median (or share), the 95 % bootstrap interval of it, and the verdict.

    Examples
    --------
    >>> judge_values(Rule(at_least=4, weaker=1), [4.1, 4.5, 5.0])
    (4.5, (4.1, 5.0), 'reproduced')
    >>> judge_values(Rule(at_least=4, weaker=1), [2.0, 2.5, 3.0])[2]
    'weaker'
    """
    value = rule.summary(values)
    statistic: Literal["mean", "median"] = "mean" if rule.holds else "median"
    found = bootstrap_interval(list(values), statistic)
    interval = (found.low, found.high)
    if rule.accepts(value) and (rule.holds or rule.weaker is None or _inside(interval, rule.region(weaker=True))):
        return value, interval, "reproduced"
    if rule.weaker is not None:
        return value, interval, "weaker" if rule.accepts(value, weaker=True) else "not reproduced"
    low, high = rule.region()
    reaches = not rule.holds and interval[0] <= high and interval[1] >= low
    return value, interval, "weaker" if reaches else "not reproduced"


def judge(claim: Claim, scale: Scale, outcomes: Sequence[Outcome]) -> ClaimResult:
    """Judge a claim from the outcomes of its seeds; its verdict is the worst over its numbers.

    A claim with any seed in error is in error, and one with any seed skipped is skipped: a number over some of the
    seeds would look finer than it is.
    """
    outcomes = tuple(sorted(outcomes, key=lambda outcome: outcome.task.seed))
    if not outcomes:
        return ClaimResult(claim, scale, "not yet measured")
    for status in ("error", "skipped"):
        faulty = [outcome for outcome in outcomes if outcome.status == status]
        if faulty:
            verdict: Verdict = "error" if status == "error" else "skipped"
            return ClaimResult(claim, scale, verdict, outcomes=outcomes, message=faulty[0].message)
    judgements = tuple(_judgement(criterion, outcomes) for criterion in claim.criteria(scale))
    worst = min((judgement.verdict for judgement in judgements), key=_WORST_FIRST.index)
    return ClaimResult(claim, scale, worst, judgements, outcomes)


def badge(verdicts: Sequence[Verdict]) -> str:
    """Return a paper's verdicts as one short line, for example ``3 of 4 claims reproduced``."""
    measured = [verdict for verdict in verdicts if verdict != "not yet measured"]
    if not measured:
        return "not yet measured"
    return f"{measured.count('reproduced')} of {len(verdicts)} claims reproduced"


def _judgement(criterion: Criterion, outcomes: Sequence[Outcome]) -> Judgement:
    values = tuple(_number(outcome, criterion.key) for outcome in outcomes)
    return Judgement(criterion, values, *judge_values(criterion.expect, values))


def _number(outcome: Outcome, key: str | None) -> float:
    number: Any = outcome.value if key is None else outcome.also[key]
    return float(number)


def _inside(interval: tuple[float, float], region: tuple[float, float]) -> bool:
    return region[0] <= interval[0] and interval[1] <= region[1]
