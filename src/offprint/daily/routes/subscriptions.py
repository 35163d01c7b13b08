"""Subscribing to mail, confirming it, and ending it."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
