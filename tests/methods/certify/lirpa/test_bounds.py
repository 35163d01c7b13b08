"""Bounds of whole networks: exact where they must be, sound where sampled, ordered, and bad input refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import Tensor, nn

from offprint.methods.certify.lirpa.bounds import METHODS, BoundedModule, bound, margin_spec, perturb_parameters
from offprint.methods.certify.lirpa.operators.base import Interval, Operator, Plane, Relaxation, register_op
from offprint.methods.certify.lirpa.perturbations import Box, LpBall
from offprint.methods.certify.lirpa.problem import UnsupportedOperatorError

LINEAR_METHODS = [method for method in METHODS if method != "ibp"]


class LinearNet(nn.Module):
    """Convolution, batch norm, pooling, a residual and a concatenation: affine from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.pool = nn.AvgPool2d(2)
        self.last = nn.Linear(8 * 4, 3)
        self.norm.running_mean = torch.randn(4)
        self.norm.running_var = torch.rand(4) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.first(x))
        hidden = hidden + self.second(hidden)
        return self.last(torch.cat([self.pool(hidden), self.pool(-hidden)], 1).flatten(1))


class Twice(nn.Module):
    """A node used twice, a shared layer, a dense concatenation and two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.last = nn.Linear(12, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        f = self.shared(x).relu()
        g = x * f + f
        h = self.shared(g).tanh() - y
        return self.last(torch.cat([x, g, h * y], 1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.up = nn.ConvTranspose2d(3, 2, 2, stride=2)
        self.last = nn.Linear(2 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.first(x)), inplace=True)
        other = self.second(hidden)
        other += hidden
        return self.last(F.max_pool2d(self.up(F.relu_(other)), 2).flatten(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.inner = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.last((x + F.gelu(self.inner(x))).mean(1))


class Recurrent(nn.Module):
    def __init__(self, layer: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = layer(2, 3, batch_first=True)
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x)[0][:, -1])


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


NETWORKS = {
    "mlp": (lambda: mlp(4, 8, 8, 3), (4,)),
    "residual": (Residual, (1, 6, 6)),
    "attention": (Attention, (3, 4)),
    "lstm": (lambda: Recurrent(nn.LSTM), (3, 2)),
    "gru": (lambda: Recurrent(nn.GRU), (2, 2)),
    "rnn": (lambda: Recurrent(nn.RNN), (3, 2)),
}


def network(name: str, samples: int = 2) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    return make().double().eval(), torch.randn(samples, *shape, dtype=torch.float64)


def points(norm: float, eps: float, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Half of them inside of the ball, half on its boundary."""
    step = torch.randn(count, *x.shape, dtype=x.dtype, generator=generator)
    flat = step.flatten(2)
    if norm == math.inf:
        flat = torch.rand(flat.shape, dtype=x.dtype, generator=generator) * 2 - 1
        flat[count // 2 :] = flat[count // 2 :].sign()
    else:
        flat = flat / torch.linalg.vector_norm(flat, norm, dim=2, keepdim=True)
        flat[: count // 2] *= torch.rand(count // 2, x.shape[0], 1, dtype=x.dtype, generator=generator)
    return x + eps * flat.reshape(step.shape)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_affine_networks_have_the_exact_range(norm: float) -> None:
    """The range of an affine function on a ball is that of its Jacobian's dual norm, here by autograd."""
    torch.manual_seed(1)
    model, x = LinearNet().double().eval(), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda one: model(one.unsqueeze(0))[0]))(x).flatten(2)
    dual = {1: math.inf, 2: 2, math.inf: 1}[norm]
    reach = 0.3 * torch.linalg.vector_norm(jacobian, dual, dim=2)
    for method in LINEAR_METHODS:
        bounds = BoundedModule(model, x).compute_bounds(x, LpBall(norm, 0.3), method, steps=1)
        torch.testing.assert_close(bounds.lower, model(x) - reach, atol=1e-10, rtol=0)
        torch.testing.assert_close(bounds.upper, model(x) + reach, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_ball_of_radius_zero_has_the_value(name: str) -> None:
    model, x = network(name)
    bounded = BoundedModule(model, x)
    for method in METHODS:
        if name in ("lstm", "gru") and method not in ("ibp", "crown-ibp"):
            continue
        bounds = bounded.compute_bounds(x, LpBall(math.inf, 0.0), method, steps=1)
        torch.testing.assert_close(bounds.lower, model(x), atol=1e-9, rtol=0)
        torch.testing.assert_close(bounds.upper, model(x), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        pytest.param(name, norm, marks=[pytest.mark.slow] if (norm == 2 and name != "mlp") or name == "gru" else [])
        for name in NETWORKS
        for norm in (2, math.inf)
    ],
)
def test_sampled_points_keep_the_bounds_and_the_linear_functions(name: str, norm: float) -> None:
    model, x = network(name)
    bounded, eps = BoundedModule(model, x), 0.05
    sampled = points(norm, eps, x, 200, torch.Generator().manual_seed(2))
    with torch.no_grad():
        values = torch.stack([model(one) for one in sampled])
    for method in METHODS:
        if name in ("lstm", "gru") and method in ("forward", "alpha-crown"):
            continue
        bounds = bounded.compute_bounds(x, LpBall(norm, eps), method, return_A=method != "ibp", steps=1)
        assert (values >= bounds.lower - 1e-9).all()
        assert (values <= bounds.upper + 1e-9).all()
        if method == "ibp":
            continue
        assert isinstance(bounds.lA, Tensor)
        assert isinstance(bounds.uA, Tensor)
        below = torch.einsum("bkn,zbn->zbk", bounds.lA.flatten(2), sampled.flatten(2)) + bounds.lb
        above = torch.einsum("bkn,zbn->zbk", bounds.uA.flatten(2), sampled.flatten(2)) + bounds.ub
        assert (values >= below - 1e-9).all()
        assert (values <= above + 1e-9).all()


@pytest.mark.parametrize("method", METHODS)
def test_two_inputs_and_nodes_used_twice(method: str) -> None:
    torch.manual_seed(3)
    model = Twice().double()
    x, y = torch.randn(2, 2, 4, dtype=torch.float64)
    balls = {0: LpBall(2, 0.1), 1: LpBall(math.inf, 0.05)}
    bounds = bound(model, (x, y), balls, method, return_A=method != "ibp", steps=3)
    generator = torch.Generator().manual_seed(4)
    xs, ys = points(2, 0.1, x, 500, generator), points(math.inf, 0.05, y, 500, generator)
    with torch.no_grad():
        values = torch.stack([model(one, other) for one, other in zip(xs, ys, strict=True)])
    assert (values >= bounds.lower - 1e-9).all()
    assert (values <= bounds.upper + 1e-9).all()
    if method != "ibp":
        assert set(bounds.lA) == {0, 1}
        below = sum(torch.einsum("bkn,zbn->zbk", bounds.lA[i], one) for i, one in ((0, xs), (1, ys))) + bounds.lb
        assert (values >= below - 1e-9).all()


def test_samples_are_bounded_as_if_alone() -> None:
    model, x = network("attention", 3)
    together = bound(model, x, LpBall(math.inf, 0.05))
    for i in range(3):
        alone = bound(model, x[i : i + 1], LpBall(math.inf, 0.05))
        torch.testing.assert_close(together.lower[i : i + 1], alone.lower, atol=1e-9, rtol=0)


def test_a_specification_is_a_last_linear_layer() -> None:
    model, x = network("mlp", 3)
    C = margin_spec(torch.tensor([0, 2, 1]), 3).double()
    for i, row in enumerate(C):
        last = nn.Linear(3, 2, bias=False).double()
        last.weight.data = row
        for method in ("crown", "crown-ibp", "forward+crown"):
            ours = bound(model, x, LpBall(math.inf, 0.1), method, C).lower[i]
            whole = bound(nn.Sequential(model, last), x, LpBall(math.inf, 0.1), method).lower[i]
            torch.testing.assert_close(ours, whole, atol=1e-9, rtol=0)


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


@pytest.mark.parametrize("seed", range(3))
def test_tiny_networks_bracket_the_exact_range_and_reach_the_triangle(seed: int) -> None:
    torch.manual_seed(seed)
    model = mlp(3, 6, 1).double()
    x, eps = torch.randn(1, 3, dtype=torch.float64), 0.4
    bounded = BoundedModule(model, x)
    low, high = exact_range(model, x[0], eps)
    for method in METHODS:
        bounds = bounded.compute_bounds(x, LpBall(math.inf, eps), method)
        assert bounds.lower.item() <= low + 1e-9
        assert bounds.upper.item() >= high - 1e-9
    best = bounded.compute_bounds(x, LpBall(math.inf, eps), "alpha-crown", steps=100, lr=0.1).lower.item()
    optimum = triangle_lower(model, x[0], bounded.interval("linear"), eps)
    assert best <= optimum + 1e-7
    assert optimum - best <= 0.02 * max(abs(optimum), high - low)


def test_optimised_slopes_are_never_worse_and_mean_widths_are_ordered() -> None:
    widths = dict.fromkeys(("ibp", "crown-ibp", "crown"), 0.0)
    for seed in range(4):
        torch.manual_seed(seed)
        model, x = mlp(4, 10, 10, 2).double(), torch.randn(2, 4, dtype=torch.float64)
        bounded = BoundedModule(model, x)
        found = {m: bounded.compute_bounds(x, LpBall(math.inf, 0.1), m) for m in (*widths, "alpha-crown")}
        assert (found["alpha-crown"].lower >= found["crown"].lower).all()
        assert (found["alpha-crown"].upper <= found["crown"].upper).all()
        for method in widths:
            widths[method] += (found[method].upper - found[method].lower).mean().item()
    assert widths["crown"] < widths["crown-ibp"] < widths["ibp"]


def test_perturbed_weights_have_the_exact_l2_range_and_products_are_sound() -> None:
    torch.manual_seed(5)
    model, x = mlp(3, 5, 2).double(), torch.randn(4, 3, dtype=torch.float64)
    ball = LpBall(2, 0.1)
    bounded = BoundedModule(model, x)
    bounded.compute_bounds(x, perturb_parameters(model, ["0.weight"], ball), "ibp")
    hidden, reach = model[0](x), 0.1 * x.norm(dim=1, keepdim=True)
    torch.testing.assert_close(bounded.interval("linear").lower, hidden - reach, atol=1e-12, rtol=0)
    weights = ["0.weight", "0.bias", "2.weight", "2.bias"]
    generator = torch.Generator().manual_seed(6)
    values = []
    for _ in range(300):
        moved = {}
        for name in weights:
            parameter = model.get_parameter(name).detach()
            moved[name] = points(2, 0.1, parameter.reshape(1, -1), 2, generator)[1].reshape(parameter.shape)
        values.append(torch.func.functional_call(model, moved, (x,)).detach())
    for method in METHODS:
        bounds = bounded.compute_bounds(x, perturb_parameters(model, weights, ball), method, steps=2)
        assert (torch.stack(values) >= bounds.lower - 1e-9).all()
        assert (torch.stack(values) <= bounds.upper + 1e-9).all()


def test_bounds_are_differentiable_in_the_weights() -> None:
    model, x = network("mlp")
    bounded = BoundedModule(model, x)
    weight = model[0].weight
    for method in METHODS:
        bounds = bounded.compute_bounds(x, LpBall(math.inf, 0.05), method, steps=0)
        (gradient,) = torch.autograd.grad(bounds.lower.sum(), weight)
        if method == "alpha-crown":
            continue
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                weight[0, 0] += sign * 1e-6
                ends.append(bounded.compute_bounds(x, LpBall(math.inf, 0.05), method, steps=0).lower.sum())
                weight[0, 0] -= sign * 1e-6
        torch.testing.assert_close(gradient[0, 0], (ends[0] - ends[1]) / 2e-6, atol=1e-4, rtol=1e-4)


def test_chunks_of_rows_change_nothing() -> None:
    model, x = network("residual")
    whole = bound(model, x, LpBall(math.inf, 0.05), return_A=True)
    parts = bound(model, x, LpBall(math.inf, 0.05), return_A=True, memory=1)
    for name in ("lower", "upper", "lA", "uA", "lb", "ub"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-10, rtol=0)


def test_given_intervals_are_taken() -> None:
    model, x = network("mlp")
    bounded = BoundedModule(model, x)
    bounded.compute_bounds(x, LpBall(math.inf, 0.5))
    low, high = bounded.interval("linear")
    free = bounded.compute_bounds(x, LpBall(math.inf, 0.5), intervals={"linear": (low, high)})
    # A split: the neuron that is least certain is taken to be active, which the bounds of points where it is must hold.
    neuron = int(torch.minimum(-low, high).amin(0).argmax())
    active = low.clone()
    active[:, neuron] = 0
    split = bounded.compute_bounds(x, LpBall(math.inf, 0.5), intervals={"linear": (active, high)})
    assert torch.equal(bounded.interval("linear").lower, active)
    assert not torch.equal(split.lower, free.lower)
    for one in points(math.inf, 0.5, x, 300, torch.Generator().manual_seed(0)):
        on = model[0](one)[:, neuron] >= 0
        assert (model(one) >= split.lower - 1e-9)[on].all()
        assert (model(one) <= split.upper + 1e-9)[on].all()


def test_batch_norm_in_training_mode_is_chosen() -> None:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double().train()
    x = torch.randn(6, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="batch norm in training mode"):
        BoundedModule(model, x)
    for choice in ("forward", "ibp"):
        bounds = BoundedModule(model, x, batch_norm=choice).compute_bounds(x, LpBall(math.inf, 0.0))
        torch.testing.assert_close(bounds.lower, model(x), atol=1e-9, rtol=0)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


def test_bad_input_is_refused() -> None:
    model, x = mlp(3, 4, 2), torch.zeros(2, 3)
    ball = LpBall(math.inf, 0.1)
    bounded = BoundedModule(model, x)
    with pytest.raises(ValueError, match="eps"):
        LpBall(2, -0.1)
    with pytest.raises(ValueError, match="norm"):
        LpBall(0.5, 0.1)
    with pytest.raises(ValueError, match="x_L"):
        LpBall(2, 0.1, x_L=1.0, x_U=0.0)
    with pytest.raises(ValueError, match="lower"):
        Box(torch.ones(2), torch.zeros(2))
    with pytest.raises(ValueError, match="C:"):
        bounded.compute_bounds(x, ball, C=torch.ones(2, 1, 5))
    with pytest.raises(ValueError, match="method"):
        bounded.compute_bounds(x, ball, "magic")
    with pytest.raises(ValueError, match="input 0 is not finite"):
        bounded.compute_bounds(x * math.nan, ball)
    with pytest.raises(ValueError, match="return_A"):
        bounded.compute_bounds(x, ball, "ibp", return_A=True)
    with pytest.raises(ValueError, match="captured"):
        BoundedModule(Branching(), x)
    with pytest.raises(ValueError, match="dropout"):
        BoundedModule(nn.Sequential(nn.Dropout(), nn.Linear(3, 2)).train(), x)
    with pytest.raises(TypeError, match="float32 or float64"):
        bound(model.half(), x.half(), ball)
    with pytest.raises(TypeError, match="floating point"):
        bound(nn.Embedding(5, 2), torch.zeros(2, 3, dtype=torch.long), ball)
    broken = mlp(3, 4, 2)
    broken[0].weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"0\.weight"):
        bound(broken, x, ball)
    with pytest.raises(ValueError, match="mixes the samples"):
        bound(Mixing(), x, ball)


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Cosine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wave = Wave()

    def forward(self, x: Tensor) -> Tensor:
        return self.wave(x)


class Wave(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.aten.digamma.default(x)


class FlatLine(Plane):
    def __init__(self, offset: Tensor) -> None:
        self.offset = offset

    def transpose(self, rows: Tensor) -> list[Tensor]:
        return [torch.zeros_like(rows)]

    def push(self, first, second):
        return torch.zeros_like(first[0])


class Digamma(Operator):
    """It grows on positive numbers."""

    def interval(self, call, intervals):
        return Interval(intervals[0].lower.digamma(), intervals[0].upper.digamma())

    def relax(self, call, intervals, choice=None):
        low, high = self.interval(call, intervals)
        return Relaxation(FlatLine(low), FlatLine(high))


def test_an_operator_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from offprint.methods.certify.lirpa.operators import base

    monkeypatch.setattr(base, "_operators", dict(base._operators))
    x = torch.ones(2, 3) * 2
    with pytest.raises(UnsupportedOperatorError, match=r"digamma.*'wave'.*register_op"):
        bound(Cosine(), x, LpBall(math.inf, 0.1))
    register_op(torch.ops.aten.digamma.default, Digamma)
    for method in METHODS:
        bounds = bound(Cosine(), x, LpBall(math.inf, 0.1), method)
        torch.testing.assert_close(bounds.lower, (x - 0.1).digamma())
        torch.testing.assert_close(bounds.upper, (x + 0.1).digamma())
