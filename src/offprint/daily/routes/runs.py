"""Run: asking for a paper's claims to be measured, and following how far that is."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from offprint.daily import limits
from offprint.daily.measured import Measured, PaperView
from offprint.daily.rendering import fragment
from offprint.daily.runs import ACTIVE, QueueFullError, Runs, RunsOffError
from offprint.daily.security import FormGuard
from offprint.papers import Record, records
from offprint.store import Database, Job

router = APIRouter(include_in_schema=False)

POLL_SECONDS = 0.3
KEEP_ALIVE_SECONDS = 15.0
LONGEST_STREAM_SECONDS = 900.0
MOST_STREAMS = 200
MOST_STREAMS_OF_ONE = 20
"""Of one visitor, who could else keep all others from following a run."""


@dataclass(frozen=True)
class Block:
    """What the part of a paper's page shows that changes while its claims are measured."""

    view: PaperView
    job: Job | None
    ahead: int
    token: str
    enabled: bool
    """Whether readers may run claims here."""

    @property
    def active(self) -> bool:
        """Whether a run is queued or in progress."""
        return self.job is not None and self.job.status in ACTIVE


def measured_block(request: Request, record: Record, job: Job | None = None) -> Block:
    """Gather what is known of a paper's claims now; of its newest run, unless one is given."""
    runs: Runs = request.app.state.runs
    measured: Measured = request.app.state.measured
    guard: FormGuard = request.app.state.guard
    job = job or runs.newest(record.slug)
    ahead = runs.ahead(job) if job is not None and job.status == "queued" else 0
    return Block(measured.paper(record), job, ahead, guard.token(request), runs.enabled)


@router.post("/papers/{slug}/run")
async def run(request: Request, slug: str) -> Response:
    """Queue a run of a paper's claims; go back to the page, or answer htmx with the part that changes."""
    guard: FormGuard = request.app.state.guard
    runs: Runs = request.app.state.runs
    measured: Measured = request.app.state.measured
    await guard.form(request)
    record = records().get(slug)
    if record is None:
        raise HTTPException(404, "There is no such paper on record.")
    database: Database = request.app.state.database
    await run_in_threadpool(limits.allow, database, "run", limits.visitor_address(request))
    if not await run_in_threadpool(measured.runnable, record):
        raise HTTPException(409, "No claim of this paper can be run yet.")
    try:
        job = await run_in_threadpool(runs.ask, record)
    except RunsOffError:
        raise HTTPException(403, "Runs are switched off on this site.") from None
    except QueueFullError:
        raise HTTPException(429, "Many runs are waiting. Try again in a few minutes.", {"Retry-After": "120"}) from None
    if request.headers.get("hx-request"):
        block = await run_in_threadpool(measured_block, request, record, job)
        return HTMLResponse(fragment("_measured.html", block=block))
    return RedirectResponse(f"/papers/{slug}#measured", 303)


@router.get("/runs/{number}/events")
async def events(request: Request, number: Annotated[int, Path(ge=1, le=2**31 - 1)]) -> Response:
    """Stream how far a run is, as server-sent events that hold the parts of the page to put in place."""
    runs: Runs = request.app.state.runs
    job = await run_in_threadpool(runs.job, number)
    record = records().get(job.paper) if job else None
    if job is None or record is None:
        raise HTTPException(404)
    streams = _streams(request)
    if streams.total() >= MOST_STREAMS or streams[limits.visitor_address(request)] >= MOST_STREAMS_OF_ONE:
        raise HTTPException(503, "Too many readers are following runs. Reload the page to see how far it is.")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_follow(request, record, job.id), media_type="text/event-stream", headers=headers)


async def _follow(request: Request, record: Record, number: int) -> AsyncIterator[str]:
    """Yield every part of the page that has changed since it was last sent, until the run or the server ends."""
    state = request.app.state
    runs: Runs = state.runs
    streams, visitor = _streams(request), limits.visitor_address(request)
    streams[visitor] += 1
    sent: dict[str, str] = {}
    last_seen: object = None
    begun = last_sent = time.monotonic()
    yield "retry: 2000\n\n"
    try:
        while not runs.stopping.is_set() and time.monotonic() - begun < LONGEST_STREAM_SECONDS:
            job = await run_in_threadpool(runs.job, number)
            if job is None:
                break
            ahead = await run_in_threadpool(runs.ahead, job) if job.status == "queued" else 0
            if (seen := (job.status, job.progress, ahead)) != last_seen:
                last_seen = seen
                parts = await run_in_threadpool(_parts, request, record, job)
                for name in (name for name in parts if sent.get(name) != parts[name]):
                    yield _event(name, parts[name])
                sent, last_sent = parts, time.monotonic()
            if job.status not in ACTIVE:
                yield _event("end", job.status)
                break
            if time.monotonic() - last_sent > KEEP_ALIVE_SECONDS:
                last_sent = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(POLL_SECONDS)
    finally:
        streams[visitor] -= 1
        if not streams[visitor]:
            del streams[visitor]


def _streams(request: Request) -> Counter[str]:
    """Return how many streams are open, by whom they are followed."""
    state = request.app.state
    if not hasattr(state, "streams"):
        state.streams = Counter()
    found: Counter[str] = state.streams
    return found


def _parts(request: Request, record: Record, job: Job) -> dict[str, str]:
    """Render the parts of the page that a run changes, by the name of their event."""
    block = measured_block(request, record, job)
    parts = {"run": fragment("_run.html", block=block), "badge": fragment("_badge.html", view=block.view)}
    for claim in block.view.claims:
        parts[f"claim-{claim.claim.id}"] = fragment("_claim.html", block=block, view=claim)
    return parts


def _event(name: str, content: str) -> str:
    lines = "".join(f"data: {line}\n" for line in content.splitlines() if line.strip())
    return f"event: {name}\n{lines}\n"
