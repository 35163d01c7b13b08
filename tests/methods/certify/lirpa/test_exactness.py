"""Where bounds are known exactly: no perturbation, affine networks, tiny ReLU networks, few weights or words."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from small_networks import NETWORKS, captured, mlp
from torch import Tensor, nn

from offprint.methods.certify.lirpa.bounds import METHODS, BoundedModule, perturb_parameters
from offprint.methods.certify.lirpa.operators.base import Interval
from offprint.methods.certify.lirpa.perturbations import LpBall
from offprint.methods.certify.lirpa.substitutions import L0, Synonym

LINEAR_METHODS = [method for method in METHODS if method != "ibp"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_ball_of_radius_zero_has_the_value(name: str) -> None:
    model, x, bounded = captured(name)
    value = model(x).detach()
    methods = ("ibp", "crown-ibp") if name in ("lstm", "gru") else METHODS
    for method in methods:
        bounds = bounded.compute_bounds(x, LpBall(math.inf, 0.0), method, steps=1)
        torch.testing.assert_close(bounds.lower, value, atol=1e-9, rtol=0)
        torch.testing.assert_close(bounds.upper, value, atol=1e-9, rtol=0)


@pytest.mark.parametrize("norm", [1, 2, 3, math.inf])
def test_affine_networks_have_the_exact_range(norm: float) -> None:
    """The range of an affine function on a ball is that of its Jacobian's dual norm, here by autograd."""
    model, x, bounded = captured("affine")
    jacobian = torch.func.vmap(torch.func.jacrev(lambda one: model(one.unsqueeze(0))[0]))(x).flatten(2)
    dual = {1: math.inf, 2: 2, 3: 1.5, math.inf: 1}[norm]
    reach = 0.3 * torch.linalg.vector_norm(jacobian, dual, dim=2)
    for method in LINEAR_METHODS:
        bounds = bounded.compute_bounds(x, LpBall(norm, 0.3), method, steps=1, return_A=True)
        torch.testing.assert_close(bounds.lower, model(x) - reach, atol=1e-10, rtol=0)
        torch.testing.assert_close(bounds.upper, model(x) + reach, atol=1e-10, rtol=0)
        assert isinstance(bounds.lA, Tensor)
        torch.testing.assert_close(bounds.lA.flatten(2), jacobian, atol=1e-10, rtol=0)
        assert bounds.lb is not None
        torch.testing.assert_close(bounds.lb, model(torch.zeros_like(x)), atol=1e-10, rtol=0)


def exact_range(model: nn.Sequential, x: Tensor, eps: float) -> tuple[float, float]:
    """Minimise and maximise over every activation pattern of a network with one hidden layer, by linear programs."""
    first, last = model[0], model[2]
    weight, bias = first.weight.detach().numpy(), first.bias.detach().numpy()
    ends = [math.inf, -math.inf]
    box = [(value - eps, value + eps) for value in x.tolist()]
    for pattern in itertools.product((0, 1), repeat=len(bias)):
        on = np.array(pattern)
        sign = np.where(on, -1.0, 1.0)
        slope = (last.weight.detach().numpy()[0] * on) @ weight
        offset = float((last.weight.detach().numpy()[0] * on) @ bias + last.bias.item())
        for side, factor in ((0, 1.0), (1, -1.0)):
            found = linprog(factor * slope, A_ub=sign[:, None] * weight, b_ub=-sign * bias, bounds=box, method="highs")
            if found.success:
                value = factor * found.fun + offset
                ends[side] = min(ends[side], value) if side == 0 else max(ends[side], value)
    return ends[0], ends[1]


def triangle_lower(model: nn.Sequential, x: Tensor, interval: Interval, eps: float) -> float:
    """Minimise a network with one hidden layer where each ReLU is replaced by its triangle: a linear program."""
    first, last = model[0], model[2]
    weight, bias = first.weight.detach().numpy(), first.bias.detach().numpy()
    low, high = interval.lower[0].detach().numpy(), interval.upper[0].detach().numpy()
    n_inputs, n_hidden = weight.shape[1], len(bias)
    rows, limits = [], []
    for j in range(n_hidden):
        unit = np.eye(n_hidden)[j]
        rows.append(np.concatenate([weight[j], -unit]))
        limits.append(-bias[j])
        share = max(high[j], 0) / (high[j] - low[j]) if low[j] < 0 < high[j] else float(low[j] >= 0)
        start = -share * low[j] if low[j] < 0 < high[j] else 0.0
        rows.append(np.concatenate([-share * weight[j], unit]))
        limits.append(share * bias[j] + start)
    cost = np.concatenate([np.zeros(n_inputs), last.weight.detach().numpy()[0]])
    box = [(value - eps, value + eps) for value in x.tolist()] + [(0, None)] * n_hidden
    return float(linprog(cost, A_ub=np.array(rows), b_ub=limits, bounds=box, method="highs").fun + last.bias.item())


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_tiny_networks_bracket_the_exact_range_and_reach_the_triangle(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = mlp(3, 5, 1).double()
        x, eps = torch.randn(1, 3, dtype=torch.float64), 0.4
    bounded = BoundedModule(model, x)
    low, high = exact_range(model, x[0], eps)
    for method in METHODS:
        bounds = bounded.compute_bounds(x, LpBall(math.inf, eps), method, steps=5)
        assert bounds.lower.item() <= low + 1e-9
        assert bounds.upper.item() >= high - 1e-9
    best = bounded.compute_bounds(x, LpBall(math.inf, eps), "alpha-crown", steps=60, lr=0.1).lower.item()
    optimum = triangle_lower(model, x[0], bounded.interval("linear"), eps)
    assert best <= optimum + 1e-7
    assert optimum - best <= 0.02 * max(abs(optimum), high - low)


def test_weights_of_one_layer_have_the_exact_l2_range() -> None:
    """With a fixed input and the weight in a Frobenius ball, values move by eps |x|."""
    model, x, bounded = captured("mlp")
    bounded.compute_bounds(x, perturb_parameters(model, ["0.weight"], LpBall(2, 0.1)), "ibp")
    hidden, reach = model[0](x), 0.1 * x.norm(dim=1, keepdim=True)
    torch.testing.assert_close(bounded.interval("linear").lower, hidden - reach, atol=1e-12, rtol=0)
    torch.testing.assert_close(bounded.interval("linear").upper, hidden + reach, atol=1e-12, rtol=0)
    last = perturb_parameters(model, ["4.weight", "4.bias"], LpBall(2, 0.1))
    features = nn.Sequential(*list(model)[:-1])(x)
    bounds = bounded.compute_bounds(x, last, "crown")
    reach = 0.1 * features.norm(dim=1, keepdim=True) + 0.1  # each parameter has a ball of its own
    torch.testing.assert_close(bounds.upper, (model(x) + reach).detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_weights_in_a_box_are_enumerated(method: str) -> None:
    """Every corner of the box of four weights of the first layer; the network is monotone between them on pieces."""
    model, x, bounded = captured("mlp")
    weight = model[0].weight.detach()
    eps = torch.zeros_like(weight)
    eps[:2, :2] = 0.3
    bounds = bounded.compute_bounds(x, {"0.weight": LpBall(math.inf, eps.unsqueeze(0))}, method, steps=2)
    values = []
    for signs in itertools.product((-1.0, -0.5, 0.0, 0.5, 1.0), repeat=4):
        moved = weight.clone()
        moved[:2, :2] += 0.3 * torch.tensor(signs, dtype=torch.float64).reshape(2, 2)
        values.append(torch.func.functional_call(model, {"0.weight": moved}, (x,)).detach())
    found = torch.stack(values)
    assert (bounds.lower <= found.amin(0) + 1e-9).all()
    assert (bounds.upper >= found.amax(0) - 1e-9).all()
    # A few weights of the first layer leave little to lose: that the bounds are near says that they see the right ones.
    room = (8 if method == "ibp" else 3) * (found.amax(0) - found.amin(0)) + 1e-3
    assert ((bounds.upper - bounds.lower) <= room).all()


@pytest.mark.parametrize("k", [1, 2])
def test_changed_elements_are_enumerated(k: int) -> None:
    """Of an affine network the range over few changed elements is that over their ends; others must hold it."""
    with torch.random.fork_rng():
        torch.manual_seed(k)
        affine, model = nn.Linear(4, 3).double(), mlp(4, 6, 3).double()
        x = torch.rand(2, 4, dtype=torch.float64)
    points = [x]
    for picked in itertools.combinations(range(4), k):
        for ends in itertools.product((0.0, 1.0), repeat=k):
            changed = x.clone()
            changed[:, list(picked)] = torch.tensor(ends, dtype=torch.float64)
            points.append(changed)
    _hold(affine, model, x, L0(k), torch.stack(points))


@pytest.mark.parametrize("budget", [1, 2])
def test_exchanged_words_are_enumerated(budget: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(budget)
        affine = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double()
        model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)).double()
        x = torch.randn(2, 3, 2, dtype=torch.float64)
        others = x.unsqueeze(2) + 0.5 * torch.randn(2, 3, 2, 2, dtype=torch.float64)
    mask = torch.tensor([[[True, True], [True, False], [False, False]]] * 2)
    points = []
    for picked in itertools.product((-1, 0, 1), (-1, 0), (-1,)):
        if sum(one >= 0 for one in picked) <= budget:
            words = [x[:, i] if one < 0 else others[:, i, one] for i, one in enumerate(picked)]
            points.append(torch.stack(words, 1))
    _hold(affine, model, x, Synonym(others, budget, mask), torch.stack(points))


def _hold(affine: nn.Module, model: nn.Module, x: Tensor, region: L0 | Synonym, points: Tensor) -> None:
    values = torch.stack([affine(one) for one in points]).detach()
    bounded = BoundedModule(affine, x)
    for method in LINEAR_METHODS:
        bounds = bounded.compute_bounds(x, region, method)
        torch.testing.assert_close(bounds.lower, values.amin(0), atol=1e-9, rtol=0)
        torch.testing.assert_close(bounds.upper, values.amax(0), atol=1e-9, rtol=0)
    values = torch.stack([model(one) for one in points]).detach()
    bounded = BoundedModule(model, x)
    for method in METHODS:
        bounds = bounded.compute_bounds(x, region, method, steps=2)
        assert (bounds.lower <= values.amin(0) + 1e-9).all()
        assert (bounds.upper >= values.amax(0) - 1e-9).all()
