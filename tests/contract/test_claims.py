"""Every claim runs at smoke scale: it finishes, gives every number that is judged, and its figure can be drawn."""

from __future__ import annotations

import json

import pytest
from checks.catalogue import all_records, bound_claims

from offprint.lab import InProcess, Outcome, claim_figure, draw, judge, plan
from offprint.papers import measured_claims

CLAIMS = [pytest.param(slug, claim, id=f"{slug}/{claim}") for slug, claim in bound_claims()]
PAPERS = [slug for slug, record in all_records().items() if measured_claims(record)]


def measure(slug: str, claim_id: str) -> Outcome:
    tasks = plan([all_records()[slug]], "smoke", claims=[claim_id], seeds=1)
    outcomes = [event for event in InProcess().stream(tasks) if isinstance(event, Outcome)]
    assert len(outcomes) == 1
    return outcomes[0]


@pytest.mark.parametrize(("slug", "claim_id"), CLAIMS)
def test_runs_at_smoke_scale(slug: str, claim_id: str) -> None:
    outcome = measure(slug, claim_id)
    assert outcome.status in ("ok", "skipped"), outcome.message
    if outcome.status == "skipped":
        assert outcome.message, "a skipped claim says what is missing"
        return
    claim = all_records()[slug].claim(claim_id)
    criteria = claim.criteria("smoke")
    assert outcome.value is not None
    assert set(outcome.also) >= {criterion.key for criterion in criteria[1:]}
    for criterion in criteria:
        number = outcome.value if criterion.key is None else outcome.also[criterion.key]
        assert not criterion.expect.holds or number in (0, 1), f"{criterion.metric}: {number} is neither yes nor no"
    json.dumps(outcome.figure, allow_nan=False)
    result = judge(claim, "smoke", [outcome])
    assert result.verdict in ("reproduced", "weaker", "not reproduced")
    figure = claim_figure(result)
    if figure is not None:
        assert draw(figure, "png")


@pytest.mark.parametrize("slug", PAPERS)
def test_same_seed_same_numbers(slug: str) -> None:
    record = all_records()[slug]
    first = next(claim.id for claim in record.claims if claim.id in measured_claims(record))
    once, twice = measure(slug, first), measure(slug, first)
    assert (once.status, once.value, once.also) == (twice.status, twice.value, twice.also)
    assert json.dumps(once.figure) == json.dumps(twice.figure)
