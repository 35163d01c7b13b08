"""Which method is tighter than which: optimised slopes in every entry, others in the mean over a hundred networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from offprint.methods.certify.lirpa.bounds import BoundedModule, Bounds
from offprint.methods.certify.lirpa.perturbations import LpBall

N_NETWORKS = 100


class Networks(nn.Module):
    """A ReLU network for each sample: the weights are inputs, too, so that a hundred networks are one call."""

    def forward(self, x: Tensor, first: Tensor, second: Tensor, last: Tensor) -> Tensor:
        hidden = (x.unsqueeze(1) @ first).relu()
        return ((hidden @ second + 0.1).relu() @ last).squeeze(1)


@pytest.fixture(scope="module")
def networks() -> tuple[BoundedModule, tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        scale = shape[0] ** -0.5 if len(shape) == 2 else 1.0
        return torch.randn(N_NETWORKS, *shape, generator=generator, dtype=torch.float64) * scale

    inputs = (numbers(4), numbers(4, 10), numbers(10, 10), numbers(10, 2))
    return BoundedModule(Networks(), inputs), inputs


def width(bounds: Bounds) -> float:
    assert bounds.lower is not None
    assert bounds.upper is not None
    assert (bounds.lower <= bounds.upper).all()
    return (bounds.upper - bounds.lower).mean().item()


@pytest.mark.parametrize(("eps", "gains"), [(0.05, (0.5, 0.96)), (0.2, (0.6, 0.9))])
def test_mean_widths_of_a_hundred_networks(networks, eps: float, gains: tuple[float, float]) -> None:
    """Per entry none of this holds: a tighter interval can give a slope that is worse for one output."""
    bounded, inputs = networks
    ibp, mixed, crown = (
        width(bounded.compute_bounds(inputs, LpBall(math.inf, eps), method)) for method in ("ibp", "crown-ibp", "crown")
    )
    # Methods that are secretly the same, or lines that are sound and bad, do not gain as much.
    assert mixed < gains[0] * ibp
    assert crown < gains[1] * mixed


def test_optimised_slopes_are_at_least_as_tight_in_every_entry(networks) -> None:
    bounded, inputs = networks
    ball = LpBall(math.inf, 0.2)
    plain = bounded.compute_bounds(inputs, ball, "crown")
    # A learning rate as large as this overshoots: it is keeping the best that makes it so.
    best = bounded.compute_bounds(inputs, ball, "alpha-crown", steps=6, lr=1.0, lr_decay=1.0)
    assert (best.lower >= plain.lower).all()
    assert (best.upper <= plain.upper).all()
    assert width(best) < 0.95 * width(plain)


def test_optimised_intermediate_intervals_gain_more_in_the_mean(networks) -> None:
    inputs, ball = tuple(x[:10] for x in networks[1]), LpBall(math.inf, 0.2)
    few = BoundedModule(Networks(), inputs)
    widths = [
        width(few.compute_bounds(inputs, ball, "alpha-crown", steps=6, lr=0.3, optimize_intermediate=inner))
        for inner in (False, True)
    ]
    assert widths[1] < 0.99 * widths[0]
