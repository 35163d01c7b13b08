"""Sparse rows (units, windows) against dense ones: the same bounds and gradients, whatever is kept of a row."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from offprint.methods.certify.lirpa import backward
from offprint.methods.certify.lirpa.bounds import BoundedModule, bound
from offprint.methods.certify.lirpa.perturbations import Box, LpBall


class Concatenating(nn.Module):
    """Dense connections, a stride and a dilation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(5, 2, 3, stride=2, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([x, torch.relu(self.first(x))], 1)
        return torch.relu(self.last(joined)).flatten(1)


class Residual(nn.Module):
    """Branches with windows of different sizes, groups, and few input channels under a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.shortcut, self.last = nn.Conv2d(2, 4, 1, 2), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))
        return torch.relu(self.last(y)).flatten(1)


NETWORKS = [
    (Concatenating, (2, 5, 6)),
    (Residual, (2, 7, 5)),
    (lambda: nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.Sigmoid(), nn.Conv1d(3, 2, 5, 2, 3), nn.ReLU()), (2, 7)),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.Tanh(), nn.Flatten()), (2, 3)),
]


@pytest.mark.parametrize("case", range(len(NETWORKS)))
@pytest.mark.parametrize("samples", [1, 2])
def test_sparse_rows_give_what_dense_ones_do(case: int, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are the same sums in another order: float64 rounding apart, also a row at a time."""
    torch.manual_seed(case)
    make, shape = NETWORKS[case]
    model = make().double()
    x = torch.randn(samples, *shape, dtype=torch.float64)
    for region in (LpBall(2, 0.2), Box(x - 0.1, x + 0.05)):
        sparse = [_widths(model, x, region, memory) for memory in (None, 30_000)]
        with monkeypatch.context() as patch:
            patch.setattr(backward, "keeps_sparse", lambda problem, node: False)
            dense = _widths(model, x, region, None)
        for found in sparse:
            for one, other in zip(found, dense, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def _widths(model: nn.Module, x: Tensor, region: LpBall | Box, memory: int | None) -> list[Tensor]:
    """Return bounds and the gradients of their distance."""
    bounds = BoundedModule(model, x).compute_bounds(x, region, memory=memory)
    assert bounds.lower is not None
    assert bounds.upper is not None
    parameters = list(model.parameters())
    gradients = torch.autograd.grad((bounds.upper - bounds.lower).sum(), parameters, materialize_grads=True)
    return [bounds.lower.detach(), bounds.upper.detach(), *gradients]


def test_lines_that_every_row_chooses_above_only() -> None:
    class Roots(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(x).sqrt()

    x = torch.tensor([[-1.0, 0.0, 0.5, 2.0]], dtype=torch.float64)
    found = bound(Roots(), x, LpBall(math.inf, 0.7), "alpha-crown", steps=3)
    ends = (x - 0.7).sigmoid().sqrt(), (x + 0.7).sigmoid().sqrt()  # it grows
    assert bool((found.lower <= ends[0] + 1e-12).all())
    assert bool((found.upper >= ends[1] - 1e-12).all())
    plain = bound(Roots(), x, LpBall(math.inf, 0.7), "crown")
    assert bool((found.upper <= plain.upper + 1e-12).all())
