"""What was measured of a paper, as readers see it: recorded results and runs made here, each with its origin."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from offprint.daily.ruler import Ruler, ruler
from offprint.lab.figures import draw
from offprint.lab.ledger import Ledger
from offprint.lab.measure import result
from offprint.lab.results import claim_figure, claim_json, folder, recorded
from offprint.lab.tasks import Outcome
from offprint.lab.verdicts import ClaimResult, Verdict, badge
from offprint.papers import Claim, Record, Rule, Scale, measured_claims, records
from offprint.store import Database, Paper
from offprint.store import Outcome as Row

HERE: Scale = "quick"
"""The scale of runs that readers ask for."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Number:
    """One judged number: what was expected, what was measured with its interval over the seeds, and the verdict."""

    metric: str
    expected: str
    value: float | None
    interval: tuple[float, float] | None
    verdict: Verdict | None
    ruler: Ruler | None


@dataclass(frozen=True)
class Provenance:
    """Where a number comes from, with the command that repeats it."""

    scale: str
    when: datetime
    commit: str
    machine: str
    versions: str
    command: str


@dataclass(frozen=True)
class Shown:
    """A measured claim."""

    verdict: Verdict
    numbers: tuple[Number, ...]
    baseline: float | None
    reported: float | None
    seeds: int
    seconds: float
    note: str
    message: str
    figure: str | None
    provenance: Provenance


@dataclass(frozen=True)
class ClaimView:
    """A claim with what was recorded of it and what was measured here; either may be missing."""

    claim: Claim
    runnable: bool
    recorded: Shown | None
    here: Shown | None
    seeds_here: int

    @property
    def verdict(self) -> Verdict:
        """The verdict that counts on lists: the recorded one, else that of a run made here."""
        shown = self.recorded or self.here
        return shown.verdict if shown else "not yet measured"

    @property
    def seeds_wanted(self) -> int:
        """How many seeds a run made here measures."""
        return self.claim.n_seeds(HERE)


@dataclass(frozen=True)
class PaperView:
    """A paper's claims with what was measured of them."""

    record: Record
    claims: tuple[ClaimView, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict of each claim."""
        return tuple(claim.verdict for claim in self.claims)

    @property
    def badge(self) -> str:
        """The verdicts as one short line."""
        return badge(self.verdicts)

    @property
    def runnable(self) -> bool:
        """Whether any claim can be run."""
        return any(claim.runnable for claim in self.claims)

    @property
    def scales(self) -> tuple[str, ...]:
        """The scales that the verdicts come from."""
        shown = (claim.recorded or claim.here for claim in self.claims)
        return tuple(dict.fromkeys(item.provenance.scale for item in shown if item))


class Measured:
    """Finds what was measured. What was read or judged is kept until the file or the rows behind it change.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.ledger = Ledger(database)
        self._runnable: dict[str, tuple[Any, frozenset[str]]] = {}
        self._views: dict[str, tuple[Any, PaperView]] = {}
        self._figures: dict[tuple[str, str], tuple[str, bytes | None]] = {}
        self._drawing = threading.Lock()

    def papers(self, found: Mapping[str, Record]) -> dict[str, PaperView]:
        """Return the views of several papers, by slug."""
        if not found:
            return {}
        rows = self._rows()
        return {slug: self._view(record, rows.get(slug)) for slug, record in found.items()}

    def paper(self, record: Record) -> PaperView:
        """Return a paper's view."""
        return self.papers({record.slug: record})[record.slug]

    def runnable(self, record: Record) -> frozenset[str]:
        """Return the ids of the claims that have a function; none while ``claims.py`` cannot be read."""
        stamp = _file_stamp(record.folder / "claims.py")
        kept = self._runnable.get(record.slug)
        if kept is None or kept[0] != stamp:
            try:
                kept = stamp, measured_claims(record)
            except SyntaxError:
                log.warning("%s: claims.py cannot be read", record.slug, exc_info=True)
                kept = stamp, frozenset()
            self._runnable[record.slug] = kept
        return kept[1]

    def figure(self, record: Record, claim_id: str) -> bytes | None:
        """Return the figure of a claim's run made here as SVG, drawn when first asked for; ``None`` without one."""
        outcomes = self.ledger.newest(record.slug, HERE).get(claim_id, [])
        judged = _judged(record, record.claim(claim_id), outcomes)
        if judged is None:
            return None
        key, place = _stamp(outcomes), (record.slug, claim_id)
        with self._drawing:  # matplotlib's style settings are shared by all threads
            kept = self._figures.get(place)
            if kept is None or kept[0] != key:
                drawing = claim_figure(judged)
                kept = key, None if drawing is None else draw(drawing, "svg")
                self._figures[place] = kept
        return kept[1]

    def _view(self, record: Record, rows: Any) -> PaperView:
        path = folder(record) / f"{record.slug}.json"
        claims = record.folder / "claims.py"
        key = (record, rows, _file_stamp(path), _file_stamp(claims))
        kept = self._views.get(record.slug)
        if kept is None or kept[0] != key:
            kept = key, self._read(record)
            self._views[record.slug] = kept
        return kept[1]

    def _read(self, record: Record) -> PaperView:
        recordings = _recordings(record)
        here = self.ledger.newest(record.slug, HERE)
        runnable = self.runnable(record)
        return PaperView(
            record,
            tuple(
                ClaimView(
                    claim,
                    claim.id in runnable,
                    recordings.get(claim.id),
                    _shown_here(record, claim, here.get(claim.id, [])),
                    len(here.get(claim.id, [])),
                )
                for claim in record.claims
            ),
        )

    def _rows(self) -> dict[str, Any]:
        """Return, for each paper that was measured here, something that changes whenever its outcomes do."""
        change = (Row.paper, func.count(), func.max(Row.id), func.max(Row.finished_at))
        with self.database.reading() as session:
            rows = session.execute(select(*change).where(Row.scale == HERE).group_by(Row.paper)).all()
        return {row[0]: tuple(row[1:]) for row in rows}


def views(measured: Measured, papers: Iterable[Paper]) -> dict[str, PaperView]:
    """Return the views of those papers that are on record, by slug."""
    on_record = records()
    return measured.papers({paper.slug: on_record[paper.slug] for paper in papers if paper.slug in on_record})


def tally(measured: Measured, slugs: Iterable[str] | None = None) -> None:
    """Store how many claims of papers are reproduced, which lists are filtered by; of all on record when left out."""
    wanted = list(records() if slugs is None else slugs)
    found = measured.papers({slug: records()[slug] for slug in wanted})
    with measured.database.session() as session:
        for paper in session.scalars(select(Paper).where(Paper.slug.in_(wanted))):
            view = found[paper.slug or ""]
            paper.runs_here, paper.n_claims = view.runnable, len(view.claims)
            paper.n_reproduced, paper.n_weaker, paper.n_not_reproduced = (
                view.verdicts.count(verdict) for verdict in ("reproduced", "weaker", "not reproduced")
            )


def _recordings(record: Record) -> dict[str, Shown]:
    """Return the recorded results by claim. A file that cannot be read is as good as none, and is reported."""
    try:
        content = recorded(record)
        if content is None:
            return {}
        claims = {entry["id"]: entry for entry in content["claims"] if entry["verdict"] != "not yet measured"}
        return {
            claim.id: _shown(
                claim,
                claims[claim.id],
                Provenance(
                    scale=content["scale"],
                    when=datetime.fromisoformat(content["measured_at"]),
                    commit=content["commit"],
                    machine=_machine(content["machine"]),
                    versions=_versions(content["versions"]),
                    command=content["command"],
                ),
                _figure_path(record, claim.id) if claims[claim.id]["figure"] else None,
            )
            for claim in record.claims
            if claim.id in claims
        }
    except (ValueError, KeyError, TypeError, OSError):
        log.warning("%s: the recorded results cannot be read", record.slug, exc_info=True)
        return {}


def _figure_path(record: Record, claim_id: str) -> str:
    size_and_time = _file_stamp(folder(record) / "figures" / record.slug / f"{claim_id}.svg")
    version = hashlib.sha256(repr(size_and_time).encode()).hexdigest()[:12]
    return f"/figures/{record.slug}/{claim_id}.svg?v={version}"


def _shown_here(record: Record, claim: Claim, outcomes: list[Outcome]) -> Shown | None:
    judged = _judged(record, claim, outcomes)
    if judged is None:
        return None
    newest = max(outcomes, key=lambda outcome: outcome.finished_at)
    drawn = any(outcome.figure for outcome in outcomes)
    return _shown(
        claim,
        claim_json(judged),
        Provenance(
            scale=HERE,
            when=newest.finished_at,
            commit=newest.commit,
            machine=_machine(newest.machine),
            versions=_versions(newest.versions),
            command=f"offprint run {record.slug} --scale {HERE} --claim {claim.id}",
        ),
        f"/figures/{record.slug}/{claim.id}/here.svg?v={_stamp(outcomes)}" if drawn else None,
    )


def _judged(record: Record, claim: Claim, outcomes: list[Outcome]) -> ClaimResult | None:
    """Judge a claim, unless seeds are still missing or its outcomes are older than its criteria."""
    measured = [outcome for outcome in outcomes if outcome.status == "ok"]
    if not outcomes or (len(measured) == len(outcomes) < claim.n_seeds(HERE)):
        return None
    try:
        return result(record, HERE, outcomes, [claim.id]).claims[0]
    except KeyError:
        return None


def _shown(claim: Claim, entry: Mapping[str, Any], provenance: Provenance, figure: str | None) -> Shown:
    """Read one claim as :func:`offprint.lab.results.claim_json` writes it."""
    scale: Scale = entry["scale"]
    rules = {criterion.key: criterion.expect for criterion in claim.criteria(scale)}
    return Shown(
        verdict=entry["verdict"],
        numbers=tuple(_number(item, entry, rules.get(item.get("key"))) for item in (entry, *entry["also"])),
        baseline=entry["baseline"],
        reported=entry["reported"],
        seeds=entry["seeds"],
        seconds=entry["seconds"],
        note=entry["note"],
        message=entry["message"],
        figure=figure,
        provenance=provenance,
    )


def _number(item: Mapping[str, Any], entry: Mapping[str, Any], rule: Rule | None) -> Number:
    value, interval = item["value"], tuple(item["interval"] or ()) or None
    if rule is not None and rule.text != item["expected"]:
        rule = None  # the record has changed since; the number was judged by what it says itself
    # A claim's verdict is the worst over its numbers; the recording says that of its own number as well.
    verdict: Verdict | None = item["verdict"] if item is not entry or value is None else entry["own_verdict"]
    drawn = ruler(rule, value, interval) if rule is not None and interval is not None else None
    return Number(item["metric"], item["expected"], value, interval, verdict, drawn)


def _machine(machine: Mapping[str, Any]) -> str:
    if not machine:
        return ""
    parts = [machine.get("accelerator"), machine.get("processor"), f"{machine.get('cores', '?')} cores"]
    return ", ".join(
        [*(part for part in parts if part), f"{machine.get('memory_gb', '?')} GB", machine.get("system", "")]
    )


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _stamp(outcomes: list[Outcome]) -> str:
    """Return a short text that changes when any of the outcomes does."""
    told = [(outcome.task.seed, outcome.task.fingerprint, outcome.finished_at.isoformat()) for outcome in outcomes]
    return hashlib.sha256(json.dumps(sorted(told)).encode()).hexdigest()[:12]


def _file_stamp(path: Any) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
