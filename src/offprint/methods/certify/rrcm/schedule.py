"""What changes over training: how finely noise levels are cut, how slowly the target follows, the learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from offprint.methods.generate.diffusion import karras_times
from offprint.models.batches import check_count


@dataclass(frozen=True)
class KarrasSchedule:
    """Noise levels from the largest (index 0) to the smallest, cut more finely as training goes on.

    Parameters
    ----------
    t_min, t_max : float
        Smallest and largest level, 0 < t_min < t_max.
    rho : float
        Spacing: levels are even in their rho-th root.
    n_first, n_last : int
        Intervals at the start and at most, 1 ≤ n_first ≤ n_last; there is one level more.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> schedule = KarrasSchedule()
    >>> [schedule.n_times(step, 3000) for step in (0, 1000, 3000)]
    [21, 41, 81]
    >>> times = schedule.times(81)
    >>> times[0].item(), times[-1].item(), round(times[schedule.nearest(1.0, 81)].item(), 3)
    (80.0, 0.002, 0.965)
    """

    t_min: float = 0.002
    t_max: float = 80.0
    rho: float = 7.0
    n_first: int = 20
    n_last: int = 80

    def __post_init__(self) -> None:
        check_count("n_first", self.n_first)
        check_count("n_last", self.n_last)
        if self.n_first > self.n_last:
            raise ValueError(f"n_first must be at most n_last; got {self.n_first} and {self.n_last}")
        self.times(2)

    def times(self, n: int) -> Float[Tensor, " n"]:
        """Return n levels in float64, decreasing from t_max to t_min."""
        return karras_times(n, self.t_min, self.t_max, self.rho)

    def n_times(self, step: int, n_steps: int) -> int:
        """Return how many levels there are at a step, counted from 0: the intervals double until there are n_last."""
        check_count("n_steps", n_steps)
        length = math.ceil(n_steps / math.log2(math.ceil(self.n_last / self.n_first) + 1))
        return min(self.n_first << math.ceil(step / length), self.n_last) + 1

    def nearest(self, t: float, n: int) -> int:
        """Return the index of the level, among n, that is nearest to t."""
        if not (math.isfinite(t) and t > 0):
            raise ValueError(f"t must be positive and finite; got {t}")
        times: list[float] = self.times(n).tolist()
        nearest: int = min(range(n), key=lambda i: abs(times[i] - t))
        return nearest


def ema_rate(step: int, n_steps: int, first: float = 0.99, last: float = 0.9999, sharpness: float = 15.0) -> float:
    """Return how much of its old weights the target keeps at a step: from ``first`` to ``last``.

    Parameters
    ----------
    step, n_steps : int
        The step, counted from 0, of how many.
    first, last : float
        In [0, 1), first ≤ last.
    sharpness : float
        Positive: the larger, the sooner the rate is near its end.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> [round(ema_rate(step, 1000), 5) for step in (0, 100, 1000)]
    [0.99, 0.99631, 0.9999]

    References
    ----------
    Lei et al., arXiv:2501.13094, and the authors' code, for the sigmoid of the root of the step.
    """
    check_count("n_steps", n_steps)
    if not 0 <= step <= n_steps:
        raise ValueError(f"step must be from 0 to n_steps={n_steps}; got {step}")
    if not 0 <= first <= last < 1:
        raise ValueError(f"first and last must satisfy 0 <= first <= last < 1; got {first} and {last}")
    if not (math.isfinite(sharpness) and sharpness > 0):
        raise ValueError(f"sharpness must be positive and finite; got {sharpness}")
    if first == last:
        return first
    e = math.sqrt(step / n_steps * (last**2 - first**2) + first**2)
    c = 2 / (1 + math.exp(-sharpness * (e - first) / (last - first))) - 1
    return c * last + (1 - c) * first


def warmup_cosine(optimizer: Optimizer, n_steps: int, n_warmup: int) -> LambdaLR:
    """Return a schedule that raises the learning rate evenly over the first steps and lets it fall as a cosine to 0.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Each of its groups keeps its own largest rate.
    n_steps, n_warmup : int
        In all, and of warming up, which may be 0.

    Returns
    -------
    torch.optim.lr_scheduler.LambdaLR

    Examples
    --------
    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = warmup_cosine(optimizer, 10, 2)
    >>> schedule.get_last_lr()
    [0.5]
    """

    def factor(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / n_warmup
        return (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup))) / 2

    return LambdaLR(optimizer, factor)
