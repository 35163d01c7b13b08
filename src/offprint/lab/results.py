"""Recorded results: ``results/<slug>.json`` with its figures, the measured outcome of a paper's full run."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offprint.lab.figures import draw, merge
from offprint.lab.verdicts import ClaimResult, badge
from offprint.papers import Figure, Record

if TYPE_CHECKING:
    from offprint.lab.measure import PaperResult

FOLDER_VARIABLE = "OFFPRINT_RESULTS"


def folder(paper: Record) -> Path:
    """Return where a paper's results are kept.

    For the papers of this project: ``OFFPRINT_RESULTS``, or ``results/`` beside ``src/`` in a checkout, or the copy
    inside an installed package. For a paper of another package: ``results/`` in the paper's own folder.
    """
    if not paper.package.startswith("offprint.papers."):
        return paper.folder / "results"
    configured = os.environ.get(FOLDER_VARIABLE)
    if configured:
        return Path(configured)
    return _own_folder()


@cache
def _own_folder() -> Path:
    package = Path(__file__).parents[1]
    checkout = package.parents[1]
    return checkout / "results" if (checkout / "pyproject.toml").exists() else package / "results"


def recorded(paper: Record) -> dict[str, Any] | None:
    """Return a paper's recorded results as :func:`record_results` wrote them, or ``None`` when there are none."""
    path = folder(paper) / f"{paper.slug}.json"
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def recorded_badge(paper: Record) -> str:
    """Return a paper's recorded verdicts as one short line; claims not in the recording count as not measured."""
    content = recorded(paper)
    verdicts = {claim["id"]: claim["verdict"] for claim in content["claims"]} if content else {}
    return badge([verdicts.get(claim.id, "not yet measured") for claim in paper.claims])


def record_results(result: PaperResult, command: str) -> Path:
    """Write ``results/<slug>.json`` and its figures from a finished run, whole or not at all.

    Parameters
    ----------
    result : PaperResult
    command : str
        What anyone can type to repeat the run.

    Returns
    -------
    Path
        The JSON file.
    """
    home = folder(result.paper)
    outcomes = [outcome for claim in result.claims for outcome in claim.outcomes]
    newest = max(outcomes, key=lambda outcome: outcome.finished_at, default=None)
    content = {
        "slug": result.paper.slug,
        "command": command,
        "commit": newest.commit if newest else "",
        "machine": dict(newest.machine) if newest else {},
        "versions": dict(newest.versions) if newest else {},
        "scale": result.scale,
        "measured_at": (newest.finished_at if newest else datetime.now(UTC)).isoformat(timespec="seconds"),
        "claims": [claim_json(claim, _drawn(result, claim, home)) for claim in result.claims],
    }
    path = home / f"{result.paper.slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".json.part")
    draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def claim_json(claim: ClaimResult, figure: str | None = None) -> dict[str, Any]:
    """Return one claim's result as plain data; ``figure`` is its SVG's path relative to the results folder."""
    first = claim.judgements[0] if claim.judgements else None
    return {
        "id": claim.claim.id,
        "verdict": claim.verdict,
        "metric": claim.claim.criteria(claim.scale)[0].metric,
        "expected": claim.claim.criteria(claim.scale)[0].expect.text,
        "value": first and first.value,
        "interval": first and list(first.interval),
        "own_verdict": first and first.verdict,
        "baseline": claim.baseline,
        "reported": claim.claim.reported,
        "also": [
            {
                "key": judgement.criterion.key,
                "metric": judgement.criterion.metric,
                "expected": judgement.criterion.expect.text,
                "value": judgement.value,
                "interval": list(judgement.interval),
                "verdict": judgement.verdict,
            }
            for judgement in claim.judgements[1:]
        ],
        "seeds": len(claim.outcomes),
        "values": list(first.values) if first else [],
        "scale": claim.scale,
        "seconds": round(claim.seconds, 2),
        "peak_memory_mb": round(claim.peak_memory_mb, 1),
        "figure": figure,
        "note": claim.note,
        "message": claim.message,
    }


def claim_figure(claim: ClaimResult) -> Figure | None:
    """Return a claim's figure with its seeds merged, or ``None`` when it draws none."""
    figures = [Figure.from_json(dict(outcome.figure)) for outcome in claim.outcomes if outcome.figure]
    return merge(figures) if figures else None


def _drawn(result: PaperResult, claim: ClaimResult, home: Path) -> str | None:
    figure = claim_figure(claim)
    if figure is None:
        return None
    stem = Path("figures") / result.paper.slug / claim.claim.id
    (home / stem).parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("svg", "png"):
        (home / stem).with_suffix(f".{suffix}").write_bytes(draw(figure, suffix, title=claim.claim.statement))
    return str(stem.with_suffix(".svg"))
