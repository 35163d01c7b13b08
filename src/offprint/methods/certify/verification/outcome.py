"""What branch and bound has found so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Outcome:
    """Counts of domains, the least proven margin, and a counterexample if there is one."""

    n_domains: int = 0
    n_decided: int = 0
    n_open: int = 0
    bound: float = math.inf
    counterexample: tuple[Tensor, Tensor] | None = None

    def decided(self, bound: float) -> None:
        """Enter a domain that holds no counterexample."""
        self.n_decided += 1
        self.bound = min(self.bound, bound)

    def left_open(self, bound: float) -> None:
        """Enter a domain that could not be decided."""
        self.n_open += 1
        self.bound = min(self.bound, bound)
