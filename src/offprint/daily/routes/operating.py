"""What those who operate the site ask of it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from sqlalchemy import func, select

from offprint.store import Database, Paper

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]


@router.api_route("/healthz", methods=READ)
def health(request: Request) -> dict[str, object]:
    """Say that the site and its database answer."""
    database: Database = request.app.state.database
    with database.session() as session:
        return {"status": "ok", "papers": session.scalar(select(func.count()).select_from(Paper))}
