"""What a claim is given when it is measured, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from offprint.papers.figure import Figure, HeatMap, Panel
from offprint.papers.scales import SCALES, Scale

if TYPE_CHECKING:
    import numpy
    import torch

T = TypeVar("T")


class Skip(Exception):
    """Raised by :meth:`Run.skip`: the claim cannot be measured here, and the message says what is missing."""


@dataclass(frozen=True)
class Progress:
    """How far a task is: ``done`` of ``total`` steps (``total`` is 0 when unknown), doing ``label``."""

    done: float
    total: float
    label: str = ""


@dataclass(frozen=True)
class Measurement:
    """What one seed of a claim measured.

    Parameters
    ----------
    value : float or bool
        The claim's metric; ``True``/``False`` for a ``holds`` rule.
    baseline : float, optional
        The same metric for the strongest baseline.
    also : mapping of str to float or bool
        The claim's further numbers, by the ``key`` in its record.
    note : str
        Anything a reader needs to understand the number (what was tuned, what was shrunk).
    """

    value: float
    baseline: float | None = None
    also: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        object.__setattr__(self, "baseline", None if self.baseline is None else float(self.baseline))
        object.__setattr__(self, "also", {key: float(value) for key, value in self.also.items()})
        for name, number in (("value", self.value), ("baseline", self.baseline), *self.also.items()):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{name} must be finite; the claim measured {number}")


@dataclass
class Run:
    """The setting of one measurement: scale, seed and device, with access to data, progress and figures.

    Parameters
    ----------
    scale : {"smoke", "quick", "full", "paper"}
        How much work to do; use :meth:`pick` for anything that depends on it.
    seed : int
        The only source of randomness a claim uses, through :meth:`rng` and :meth:`generator`.
    device : str
        A torch device.
    report : callable
        Receives each :class:`Progress`.
    """

    scale: Scale = "quick"
    seed: int = 0
    device: str = "cpu"
    report: Callable[[Progress], None] = lambda progress: None
    drawn: Figure = field(default_factory=Figure)

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}; got {self.scale!r}")

    def pick(self, *, smoke: T, quick: T, full: T, paper: T | None = None) -> T:
        """Return the setting for this run's scale; ``paper`` falls back to ``full``."""
        by_scale = {"smoke": smoke, "quick": quick, "full": full, "paper": full if paper is None else paper}
        return by_scale[self.scale]

    def rng(self, stream: int = 0) -> numpy.random.Generator:
        """Return a new NumPy generator; each ``stream`` of a seed is independent of the others."""
        import numpy

        return numpy.random.default_rng([self.seed, stream])

    def generator(self, stream: int = 0) -> torch.Generator:
        """Return a new torch generator on this run's device; each ``stream`` of a seed is independent."""
        import torch

        state = int(self.rng(stream).integers(2**63 - 1))
        return torch.Generator(device=self.device).manual_seed(state)

    def data(self, name: str, **options: Any) -> Any:
        """Load a dataset by name (see :func:`offprint.data.load`), or skip the claim saying how to get it."""
        from offprint.data import MissingDataError, load

        try:
            return load(name, **options)
        except MissingDataError as error:
            raise Skip(str(error)) from error

    def skip(self, reason: str) -> NoReturn:
        """Stop here: this claim cannot be measured on this machine, because of ``reason``."""
        raise Skip(reason)

    def progress(self, done: float, total: float = 0, label: str = "") -> None:
        """Report how far the measurement is."""
        self.report(Progress(done, total, label))

    def track(self, items: Iterable[T], label: str = "", total: int | None = None) -> Iterator[T]:
        """Yield from ``items``, reporting progress before each and at the end."""
        if total is None:
            total = len(items) if isinstance(items, Sized) else 0
        done = 0
        for done, item in enumerate(items):
            self.progress(done, total, label)
            yield item
        self.progress(total or done + 1, total, label)

    def figure(self, *panels: Panel | HeatMap, caption: str = "") -> None:
        """Add panels to this claim's figure. The lab draws it and merges the seeds."""
        self.drawn = Figure([*self.drawn.panels, *panels], caption or self.drawn.caption)


def listed(values: Mapping[str, float], digits: str = ".3g") -> str:
    """Return named numbers in a row, for a measurement's note; ``digits`` is how each is formatted."""
    return ", ".join(f"{name} {value:{digits}}" for name, value in values.items())


ClaimFunction = Callable[[Run], Measurement]
F = TypeVar("F", bound=ClaimFunction)


def measures(claim_id: str) -> Callable[[F], F]:
    """Bind a function to the claim of its paper's record with this id."""

    def bind(function: F) -> F:
        function.__claim__ = claim_id  # type: ignore[attr-defined]
        return function

    return bind
