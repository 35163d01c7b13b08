"""Speed of certified Lipschitz constants: against intervals, a loop over units, and the limits of the brief."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from harness import Comparison, compare, within
from torch import Tensor, nn

from offprint.methods.certify.lipschitz import BranchAndBound, jacobian_bounds, local_lipschitz
from offprint.methods.certify.lipschitz.jacobian import find_intervals
from offprint.methods.certify.lipschitz.slopes import SlopeTimes
from offprint.methods.certify.lirpa.bounds import BoundedModule
from offprint.methods.certify.lirpa.intervals import Sharpener
from offprint.methods.certify.lirpa.perturbations import LpBall


def comparisons() -> Iterator[Comparison]:
    """Yield the comparisons that the brief asks for, and two honest ones in place of a peer that does not run here."""
    torch.manual_seed(0)
    wide = nn.Sequential(
        nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 200), nn.ReLU(), nn.Linear(200, 10)
    ).eval()  # fmt: skip
    x = torch.rand(1, 784)
    bounded = BoundedModule(wide, x)
    eps = 0.02

    yield compare(
        "all Jacobian bounds, 784-100-200-10, one image",
        lambda: jacobian_bounds(bounded, x, eps, forward="crown"),
        lambda: jacobian_by_units(bounded, x, eps),
        peer_name="the same relaxation with a loop over units",
        target=1.0,
        repeats=3,
    )
    yield compare(
        "norm of the Jacobian, 784-100-200-10, one image",
        lambda: local_lipschitz(bounded, x, eps, forward="crown", n_points=0),
        lambda: local_lipschitz(bounded, x, eps, forward="ibp", method="ibp", n_points=0),
        peer_name="interval bounds (IBP) on the same graph",
        repeats=5,
        note="IBP is far looser; the ratio says what tightness costs",
    )
    several = torch.rand(16, 784)
    batched = BoundedModule(wide, several)
    yield compare(
        "norm of the Jacobian, 784-100-200-10, 16 images",
        lambda: local_lipschitz(batched, several, eps, forward="crown", n_points=0),
        lambda: [local_lipschitz(bounded, one[None], eps, forward="crown", n_points=0) for one in several],
        peer_name="one image at a time",
        target=1.0,
        repeats=3,
    )
    torch.manual_seed(0)
    small = nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    ).eval()  # fmt: skip
    point = torch.rand(1, 16)
    bab = BranchAndBound(timeout=600, batch=128, max_domains=200 * 256, tolerance=0.0)
    yield within(
        "200 rounds of branch and bound, 128 domains each, width 32",
        lambda: local_lipschitz(small, point, 1.0, forward="crown", bab=bab, n_points=0),
        60.0,
        repeats=1,
        note="intervals refined after each split, empty domains pruned; 2 x 128 domains are bounded in a round",
    )


@torch.no_grad()
def jacobian_by_units(bounded: BoundedModule, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return bounds of the Jacobian of a network of three linear layers, one unit and one row at a time."""
    problem = bounded.problem(x, LpBall(math.inf, eps))
    find_intervals(problem, problem.graph.outputs[0], None, (Sharpener(),))
    assert bounded.model is not None
    W1, W2, W3 = (layer.weight for layer in bounded.model.children() if isinstance(layer, nn.Linear))
    relus = [node for node in problem.graph.nodes if "relu" in node.name]
    slopes = []
    for relu in relus:
        lower, upper = problem.intervals[next(iter(relu.inputs))]
        slopes.append(((lower[0] > 0).to(x), (upper[0] >= 0).to(x)))
    (least1, greatest1), (least2, greatest2) = slopes
    lows, highs = [], []
    for row in W3:
        a, b = row * least2, row * greatest2
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        gradient = [_extremes(W2[:, j], low, high) for j in range(W2.shape[1])]
        g_low, g_high = (torch.stack([pair[k] for pair in gradient]) for k in (0, 1))
        lines = SlopeTimes(least1, greatest1).relax(g_low, g_high)
        entries = []
        for i in range(W1.shape[1]):
            up, down = W1[:, i].clamp(min=0), W1[:, i].clamp(max=0)
            lowest = _extremes(W2 @ (up * lines.lower_slope + down * lines.upper_slope), low, high)[0]
            highest = _extremes(W2 @ (up * lines.upper_slope + down * lines.lower_slope), low, high)[1]
            lowest = lowest + up @ lines.lower_offset + down @ lines.upper_offset
            highest = highest + up @ lines.upper_offset + down @ lines.lower_offset
            entries.append((lowest, highest))
        lows.append(torch.stack([entry[0] for entry in entries]))
        highs.append(torch.stack([entry[1] for entry in entries]))
    return torch.stack(lows), torch.stack(highs)


def _extremes(row: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    up, down = row.clamp(min=0), row.clamp(max=0)
    return up @ low + down @ high, up @ high + down @ low
