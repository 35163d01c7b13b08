"""What those who operate the site ask of it: whether it lives, whether it is ready, and its figures."""

from __future__ import annotations

import logging
import secrets

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from offprint.daily.metrics import Metrics
from offprint.daily.origin import is_here
from offprint.daily.runs import Runs
from offprint.daily.settings import Settings
from offprint.store import Database

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]

log = logging.getLogger(__name__)


@router.api_route("/healthz", methods=READ)
async def health() -> dict[str, str]:
    """Say that the process answers; to start it anew would not help with anything else."""
    return {"status": "ok"}


@router.api_route("/readyz", methods=READ)
def ready(request: Request) -> Response:
    """Say whether readers can be sent here: the database answers, its tables are ours, and runs are performed."""
    database: Database = request.app.state.database
    runs: Runs = request.app.state.runs
    checks = {"database": "answers", "tables": "up to date", "runs": "performed" if runs.enabled else "switched off"}
    good = True
    try:
        if not database.at_head():
            checks["tables"], good = "of another version", False
    except SQLAlchemyError:
        log.warning("the database does not answer", exc_info=True)
        checks["database"], checks["tables"], good = "does not answer", "unknown", False
    if not runs.alive:
        checks["runs"], good = "not performed", False
    status = {"status": "ready" if good else "not ready", **checks}
    return JSONResponse(status, 200 if good else 503, {"Cache-Control": "no-store"})


@router.api_route("/metrics", methods=READ)
def metrics(request: Request) -> Response:
    """Give the figures in the format of Prometheus, to whoever has the token or is on this machine."""
    settings: Settings = request.app.state.settings
    measured: Metrics = request.app.state.metrics
    if not (_has_token(request, settings.metrics_token) if settings.metrics_token else is_here(request)):
        # As if there were nothing: not everyone has to know.
        raise HTTPException(404)
    return Response(measured.text(), media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})


def _has_token(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "")
    return secrets.compare_digest(given.encode(), f"Bearer {token}".encode())
