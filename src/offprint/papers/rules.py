"""The rule by which a claim is judged, fixed before anything is run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Finite = Annotated[float, Field(allow_inf_nan=False)]
"""A number of a rule: never NaN, never infinite."""


class Rule(BaseModel):
    """What a measured number must satisfy for a claim to count as reproduced.

    Exactly one of the five kinds is given. ``weaker`` widens it to a band in which the claim has the right direction
    but falls short of its threshold.

    Parameters
    ----------
    at_least, at_most : float, optional
        One-sided bound. ``weaker`` is the looser bound.
    between : (float, float), optional
        Closed range. ``weaker`` is the wider range.
    within : (float, float), optional
        A target and a tolerance about it. ``weaker`` is the larger tolerance.
    holds : True, optional
        A yes or no per seed: every seed must say yes. ``weaker`` is the share of seeds that is enough, in (0, 1).

    Examples
    --------
    >>> rule = Rule(at_least=4.0, weaker=2.0)
    >>> rule.accepts(4.2), rule.accepts(3.0), rule.accepts(3.0, weaker=True)
    (True, False, True)
    >>> rule.text
    '≥ 4'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_least: Finite | None = None
    at_most: Finite | None = None
    between: tuple[Finite, Finite] | None = None
    within: tuple[Finite, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    holds: Literal[True] | None = None
    weaker: Finite | tuple[Finite, Finite] | None = None

    @model_validator(mode="after")
    def _check(self) -> Rule:
        kinds = [name for name in _KINDS if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"give exactly one of {', '.join(_KINDS)}; got {', '.join(kinds) or 'none'}")
        if self.between is not None and self.between[0] > self.between[1]:
            raise ValueError(f"between must be [low, high]; got {list(self.between)}")
        if self.weaker is not None and not self._is_looser(self.weaker):
            raise ValueError(f"weaker = {self.weaker} does not widen {kinds[0]} = {getattr(self, kinds[0])}")
        return self

    def _is_looser(self, weaker: float | tuple[float, float]) -> bool:
        if self.between is not None:
            low, high = self.between
            return isinstance(weaker, tuple) and weaker[0] <= low and weaker[1] >= high and weaker != self.between
        if isinstance(weaker, tuple):
            return False
        if self.at_least is not None:
            return weaker < self.at_least
        if self.at_most is not None:
            return weaker > self.at_most
        if self.within is not None:
            return weaker > self.within[1]
        return 0 < weaker < 1

    @property
    def kind(self) -> str:
        """Which of the five kinds this rule is."""
        return next(name for name in _KINDS if getattr(self, name) is not None)

    def region(self, *, weaker: bool = False) -> tuple[float, float]:
        """Return the closed range of accepted values; ``holds`` accepts 1 and, when weaker, a share of seeds."""
        band = self.weaker if weaker else None
        if self.between is not None:
            return band if isinstance(band, tuple) else self.between
        loose = band if isinstance(band, float) else None
        if self.at_least is not None:
            return (self.at_least if loose is None else loose), math.inf
        if self.at_most is not None:
            return -math.inf, (self.at_most if loose is None else loose)
        if self.within is not None:
            target, tolerance = self.within
            tolerance = tolerance if loose is None else loose
            # Rounded, so that 0.8 lies within 0.1 of 0.7 although 0.7 + 0.1 falls short of it in binary.
            return round(target - tolerance, 12), round(target + tolerance, 12)
        return (1.0 if loose is None else loose), 1.0

    def accepts(self, value: float, *, weaker: bool = False) -> bool:
        """Whether one number satisfies the rule (or, with ``weaker``, its wider band). NaN never does."""
        low, high = self.region(weaker=weaker)
        return low <= value <= high

    def summary(self, values: Sequence[float]) -> float:
        """Return the number that is judged: the share of seeds that hold for ``holds``, else the median."""
        ordered = sorted(values)
        if not ordered:
            raise ValueError("values must hold at least one number")
        if self.holds:
            return sum(ordered) / len(ordered)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    @property
    def text(self) -> str:
        """The rule as a reader sees it, for example ``≥ 4`` or ``0.35 to 0.65``."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        if self.between is not None:
            return f"{self.between[0]:g} to {self.between[1]:g}"
        if self.within is not None:
            return f"{self.within[0]:g} ± {self.within[1]:g}"
        return "holds"


_KINDS = ("at_least", "at_most", "between", "within", "holds")
