"""Feeds of a day, of what is trending, of a topic and of a search."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
