"""How much work a run does. Apart from the records, so that a change of theirs leaves what was measured valid."""

from __future__ import annotations

from typing import Literal, get_args

Scale = Literal["smoke", "quick", "full", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)
