"""Interval, forward and backward propagation against slow and plain ones of ReLU networks, written with matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from offprint.methods.certify.lirpa.bounds import BoundedModule, margin_spec
from offprint.methods.certify.lirpa.perturbations import LpBall

Matrices = list[tuple[np.ndarray, np.ndarray]]
EPS = 0.8


class ReLUNet(nn.Module):
    """Three layers and a skip: ``a = relu(W1 x + b1)``, ``b = relu(W2 a + b2)``, ``W3 [a; b] + b3``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 6), nn.Linear(6, 5), nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x).relu()
        return self.last(torch.cat([a, self.second(a).relu()], 1))

    def matrices(self) -> Matrices:
        layers = (self.first, self.second, self.last)
        return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]


@pytest.fixture(scope="module")
def case() -> tuple[ReLUNet, Tensor, BoundedModule]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model, x = ReLUNet().double(), torch.randn(3, 3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)  # so that there are enough ReLUs whose sign is not known
    return model, x, BoundedModule(model, x)


def split(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(weight, 0), np.minimum(weight, 0)


def lines(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the lower slope (1 where the interval reaches further up), the upper slope and the upper offset."""
    lower = np.where(low >= 0, 1.0, np.where(high <= 0, 0.0, (high > -low) * 1.0))
    unsure = (low < 0) & (high > 0)
    upper = np.where(unsure, high / np.where(unsure, high - low, 1), (low >= 0) * 1.0)
    return lower, upper, np.where(unsure, -upper * low, 0.0)


def by_hand_intervals(net: Matrices, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return intervals of the pre-activations and of the output, pushed through."""
    low, high = x - EPS, x + EPS
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for i, (weight, bias) in enumerate(net):
        up, down = split(weight)
        if i == 2:
            low, high = (np.concatenate([np.maximum(found[k][side], 0) for k in (0, 1)]) for side in (0, 1))
        low, high = up @ low + down @ high + bias, up @ high + down @ low + bias
        found.append((low, high))
        low, high = np.maximum(low, 0), np.maximum(high, 0)
    return found


def by_hand_forward(net: Matrices, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds by affine functions (coefficients | constant) below and above every layer, pushed through.

    Every interval, of the output too, is the better of the functions' and the one pushed through it.
    """

    def layer(weight, bias, low, high):
        up, down = split(weight)
        below, above = up @ low + down @ high, up @ high + down @ low
        below[:, -1] += bias
        above[:, -1] += bias
        return below, above

    def ends(below, above):
        return (
            below[:, :-1] @ x - EPS * np.abs(below[:, :-1]).sum(1) + below[:, -1],
            above[:, :-1] @ x + EPS * np.abs(above[:, :-1]).sum(1) + above[:, -1],
        )

    low = high = np.concatenate([np.eye(3), np.zeros((3, 1))], 1)
    below_box, above_box = x - EPS, x + EPS
    kept, boxes = [], []
    for weight, bias in net[:2]:
        low, high = layer(weight, bias, low, high)
        up, down = split(weight)
        pushed = up @ below_box + down @ above_box + bias, up @ above_box + down @ below_box + bias
        least, most = ends(low, high)
        least, most = np.maximum(least, pushed[0]), np.minimum(most, pushed[1])
        lower, upper, offset = lines(least, most)
        low, high = lower[:, None] * low, upper[:, None] * high
        high[:, -1] += offset
        own = ends(low, high)
        below_box = np.maximum(np.maximum(least, 0), own[0])
        above_box = np.minimum(np.maximum(most, 0), own[1])
        kept.append((low, high))
        boxes.append((below_box, above_box))
    low, high = (np.concatenate(sides) for sides in zip(*kept, strict=True))
    below_box, above_box = (np.concatenate(sides) for sides in zip(*boxes, strict=True))
    (weight, bias), (up, down) = net[2], split(net[2][0])
    least, most = ends(*layer(weight, bias, low, high))
    return (
        np.maximum(least, up @ below_box + down @ above_box + bias),
        np.minimum(most, up @ above_box + down @ below_box + bias),
    )


def by_hand_backward(net: Matrices, x: np.ndarray, intervals, layer: int, rows: np.ndarray, sign: float) -> np.ndarray:
    """Return lower (sign 1) or upper (sign -1) bounds of ``rows @ layer`` by substitution, one row at a time."""
    result = np.zeros(len(rows))
    for r, row in enumerate(sign * rows):
        constant = 0.0
        parts = [np.zeros(6), np.zeros(5)]
        if layer == 2:
            weight, bias = net[2]
            constant += row @ bias
            coefficients = row @ weight
            parts = [coefficients[:6], coefficients[6:]]
        start = layer if layer < 2 else 1
        pre: np.ndarray | None = row if layer < 2 else None
        for k in range(start, -1, -1):
            if pre is None:
                lower, upper, offset = lines(*intervals[k])
                positive, negative = split(parts[k])
                pre = positive * lower + negative * upper
                constant += negative @ offset
            weight, bias = net[k]
            constant += pre @ bias
            back = pre @ weight
            if k == 0:
                result[r] = back @ x - EPS * np.abs(back).sum() + constant
            else:
                parts[k - 1] = parts[k - 1] + back
            pre = None
    return sign * result


def sharpened(net: Matrices, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return intervals where those of the second layer are the better of two: pushed through and pulled back."""
    intervals = by_hand_intervals(net, x)
    low = by_hand_backward(net, x, intervals, 1, np.eye(5), 1.0)
    high = by_hand_backward(net, x, intervals, 1, np.eye(5), -1.0)
    # Where a ReLU's sign is known anyway its interval is left as it is.
    unsure = (intervals[1][0] < 0) & (intervals[1][1] > 0)
    better = np.maximum(low, intervals[1][0]), np.minimum(high, intervals[1][1])
    intervals[1] = tuple(np.where(unsure, new, old) for new, old in zip(better, intervals[1], strict=True))
    return intervals


def test_intervals(case) -> None:
    model, x, bounded = case
    bounds = bounded.compute_bounds(x, LpBall(math.inf, EPS), "ibp")
    for i, one in enumerate(x.numpy()):
        low, high = by_hand_intervals(model.matrices(), one)[2]
        np.testing.assert_allclose(bounds.lower[i].detach(), low, atol=1e-12)
        np.testing.assert_allclose(bounds.upper[i].detach(), high, atol=1e-12)


def test_forward(case) -> None:
    model, x, bounded = case
    bounds = bounded.compute_bounds(x, LpBall(math.inf, EPS), "forward")
    for i, one in enumerate(x.numpy()):
        low, high = by_hand_forward(model.matrices(), one)
        np.testing.assert_allclose(bounds.lower[i].detach(), low, atol=1e-12)
        np.testing.assert_allclose(bounds.upper[i].detach(), high, atol=1e-12)


@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
def test_backward(case, method: str) -> None:
    model, x, bounded = case
    C = margin_spec(torch.tensor([0, 2, 1]), 3).double()
    plain = bounded.compute_bounds(x, LpBall(math.inf, EPS), method)
    margins = bounded.compute_bounds(x, LpBall(math.inf, EPS), method, C)
    for i, one in enumerate(x.numpy()):
        net = model.matrices()
        intervals = by_hand_intervals(net, one) if method == "crown-ibp" else sharpened(net, one)
        for bounds, rows in ((plain, np.eye(3)), (margins, C[i].numpy())):
            for ends, sign in ((bounds.lower, 1.0), (bounds.upper, -1.0)):
                expected = by_hand_backward(net, one, intervals, 2, rows, sign)
                np.testing.assert_allclose(ends[i].detach(), expected, atol=1e-12)


def relaxed_minimum(net: Matrices, x: np.ndarray, intervals, row: np.ndarray) -> float:
    """Minimise with every ReLU replaced by its triangle on given intervals: what the best slopes reach."""
    n = 3 + 6 + 5
    rows, limits = [], []
    starts, before = (3, 9), (slice(0, 3), slice(3, 9))
    for k in (0, 1):
        weight, bias = net[k]
        low, high = intervals[k]
        for j in range(len(bias)):
            value, pre = np.zeros(n), np.zeros(n)
            value[starts[k] + j] = 1
            pre[before[k]] = weight[j]
            if high[j] <= 0:
                rows += [value]
                limits += [0.0]
                continue
            rows += [pre - value]
            limits += [-bias[j]]
            share = 1.0 if low[j] >= 0 else high[j] / (high[j] - low[j])
            rows += [value - share * pre]
            limits += [share * (bias[j] - min(low[j], 0.0))]
    weight, bias = net[2]
    cost = np.concatenate([np.zeros(3), row @ weight])
    box = [(one - EPS, one + EPS) for one in x] + [(0, None)] * 11
    return float(linprog(cost, A_ub=np.array(rows), b_ub=limits, bounds=box, method="highs").fun + row @ bias)


def test_optimised_slopes_come_near_the_linear_program(case) -> None:
    """Two hidden layers: with intermediate intervals given, the triangles' linear program is the limit."""
    model, x, bounded = case
    net = model.matrices()
    plain = bounded.compute_bounds(x, LpBall(math.inf, EPS), "crown").lower
    best = bounded.compute_bounds(x, LpBall(math.inf, EPS), "alpha-crown", steps=40, lr=0.2).lower
    gaps = []
    for i, one in enumerate(x.numpy()):
        intervals = sharpened(net, one)
        for j in range(3):
            limit = relaxed_minimum(net, one, intervals, np.eye(3)[j])
            assert best[i, j].item() <= limit + 1e-8
            gaps.append((limit - best[i, j].item(), limit - plain[i, j].item()))
    left, before = np.array(gaps).T
    assert before.max() > 0.1  # there was something to gain
    assert left.sum() <= 0.1 * before.sum()
