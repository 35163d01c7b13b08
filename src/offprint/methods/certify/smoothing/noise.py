"""Noise to smooth with: how it is drawn, and what a probability under it says about a radius."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from scipy.special import ndtr, ndtri
from torch import Tensor

NoiseName = Literal["gaussian", "laplace", "uniform"]
Norm = Literal["l2", "l1"]


@dataclass(frozen=True)
class Noise:
    """Independent noise of standard deviation 1 in every coordinate, to be scaled by sigma.

    ``radius`` maps a class's probability p ≥ 1/2 to the largest shift, in ``norm``, after which it is still at least
    1/2 whatever the classifier is; ``probability`` is its inverse. Both are tight.
    """

    norm: Norm
    fill: Callable[[Tensor, torch.Generator], object]
    radius: Callable[[float], float]
    probability: Callable[[float], float]

    def draw(
        self, n: int, x: Float[Tensor, "*input"], sigma: float, generator: torch.Generator
    ) -> Float[Tensor, "n *input"]:
        """Return n noisy copies of x, drawn where the generator lies and returned where x lies."""
        noisy = torch.empty((n, *x.shape), dtype=x.dtype, device=generator.device)
        self.fill(noisy, generator)
        return noisy.to(x.device).mul_(sigma).add_(x)


def _fill_laplace(out: Tensor, generator: torch.Generator) -> None:
    """Fill with the difference of two exponentials, which is Laplace noise of variance 2 / rate²."""
    rate = math.sqrt(2)
    out.exponential_(rate, generator=generator)
    out.sub_(torch.empty_like(out).exponential_(rate, generator=generator))


NOISES: dict[str, Noise] = {
    # Cohen, Rosenfeld and Kolter, theorem 1.
    "gaussian": Noise(
        "l2",
        lambda out, generator: out.normal_(generator=generator),
        lambda p: float(ndtri(p)),
        lambda r: float(ndtr(r)),
    ),
    # The density ratio of two shifted copies is at most exp(shift / scale), with scale 1 / √2 here.
    "laplace": Noise(
        "l1",
        _fill_laplace,
        lambda p: -math.log(2 * (1 - p)) / math.sqrt(2),
        lambda r: 1 - math.exp(-math.sqrt(2) * r) / 2,
    ),
    # Two shifted cubes of side 2√3 have a total variation of at most shift / (2√3).
    "uniform": Noise(
        "l1",
        lambda out, generator: out.uniform_(-math.sqrt(3), math.sqrt(3), generator=generator),
        lambda p: math.sqrt(12) * (p - 0.5),
        lambda r: min(1.0, 0.5 + r / math.sqrt(12)),
    ),
}
