"""Functions of one number, applied to every element: what one has to say for its bounds to be propagated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Lines:
    """Two lines per element, below and above a function on an interval: ``slope * x + offset``.

    The four tensors broadcast against the interval they were made for.
    """

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor


class Elementwise(ABC):
    """A function of one number: its value, its range on an interval, and lines below and above it there.

    Everything is vectorised and differentiable in the interval's ends, sound also where both ends agree, and keeps the
    dtype and the device of what comes in. Constants of the function (a negative slope, say) are given to ``__init__``.
    """

    @abstractmethod
    def value(self, inputs: Tensor) -> Tensor:
        """Return the function of every element."""

    @abstractmethod
    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return the exact range of every element on its interval; a function that grows has it at the ends."""

    @abstractmethod
    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        """Return a line below and a line above the function on each interval.

        Parameters
        ----------
        lower, upper : Tensor
            Ends of the intervals, ``lower <= upper``.
        choice : Tensor, shape (2, ...), optional
            Numbers in [0, 1] that pick one of the sound lower lines (the first) and one of the upper lines (the
            second); beyond the first axis it broadcasts against the interval. By default `default_choice` is taken.
            A function without a choice ignores it.
        """

    def default_choice(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Return the choice that `relax` makes by itself, of shape (2, ...), or ``None`` where there is none."""
        return None

    def undecided(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Return where a tighter interval would give other lines; ``None`` where every interval does.

        A ReLU on one side of its kink is a line whatever the interval: its input needs no sharper bounds.
        """
        return None

    def check_domain(self, lower: Tensor, upper: Tensor) -> None:
        """Raise a `ValueError` that names the function where an interval leaves its domain; by default it cannot."""
        return

    def derivative_range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest (Clarke) derivative on each interval, ends included.

        Raises
        ------
        NotImplementedError
            If the function has not said it; bounds of a Jacobian need it, bounds of the values do not.
        """
        raise NotImplementedError(f"{type(self).__name__} has no range of derivatives: define derivative_range in it")
