"""What readers do with papers: vote, comment, submit, claim to be an author; and what moderators do."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
