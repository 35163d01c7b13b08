"""The JSON API, in the dialect of the Hub's papers API."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
