"""Local Lipschitz constants against closed forms, enumeration, sampling and attacks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn

from offprint.methods.certify.lipschitz import BranchAndBound, jacobian_bounds, jvp_bounds, local_lipschitz
from offprint.methods.certify.lirpa.bounds import BoundedModule
from offprint.papers.local_lipschitz.exact import exact_constant

RAISED = 1e-9
"""What rounding in float64 may add to a bound of size about 1."""


@pytest.fixture(autouse=True)
def _unchecked() -> Iterator[None]:
    """Without jaxtyping's checks of every small function, which take as long as the work; test_parts has them."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


def mlp(*sizes: int, seed: int = 0, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(fan_in, fan_out)] + ([activation()] if i < len(sizes) - 2 else [])
    return nn.Sequential(*layers).double().eval()


class Residual(nn.Module):
    """Convolutions with stride, running statistics, a skip connection, two activations, pooling, concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.normalise = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(32, 3)
        self.slope = nn.PReLU(4)
        nn.init.normal_(self.normalise.running_mean)
        nn.init.uniform_(self.normalise.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.normalise(self.first(x)))
        h = h + self.slope(self.second(h))
        pooled = nn.functional.avg_pool2d(h, 2)
        return self.head(torch.cat([pooled.flatten(1), -nn.functional.gelu(pooled).transpose(2, 3).flatten(1)], 1))


def residual() -> nn.Module:
    torch.manual_seed(0)
    return Residual().double().eval()


MODELS = {
    "relu": (lambda: mlp(5, 9, 7, 3), (5,)),
    "leaky": (lambda: mlp(5, 9, 7, 3, activation=nn.LeakyReLU), (5,)),
    "tanh": (lambda: mlp(5, 9, 7, 3, activation=nn.Tanh), (5,)),
    "sigmoid": (lambda: mlp(5, 9, 7, 3, activation=nn.Sigmoid), (5,)),
    "gelu": (lambda: mlp(5, 9, 7, 3, activation=nn.GELU), (5,)),
    "silu": (lambda: mlp(5, 9, 7, 3, activation=nn.SiLU), (5,)),
    "residual": (residual, (2, 8, 8)),
}
every_model = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ("leaky", "sigmoid", "silu") else ()) for name in MODELS],
)


def inputs(name: str, n: int = 2) -> tuple[nn.Module, Tensor]:
    make, shape = MODELS[name]
    return make(), torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@cache
def captured(name: str, n: int = 2) -> BoundedModule:
    """The same model as a graph; capturing takes longer than bounding it."""
    return BoundedModule(*inputs(name, n))


def jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """The Jacobian of every sample, (batch, outputs, *input), by torch."""
    return torch.stack([torch.autograd.functional.jacobian(lambda one: model(one[None])[0], one) for one in x])


def layers(model: nn.Sequential) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in model if isinstance(m, nn.Linear)]


def test_a_linear_model_has_the_norm_of_its_matrix() -> None:
    first, last, x = mlp(4, 6), mlp(6, 3, seed=1), torch.zeros(2, 4).double()
    matrix = last[0].weight @ first[0].weight
    bounded = BoundedModule(nn.Sequential(first, last), x)
    for eps in (0.0, 0.1, 10.0):
        for method in ("bound-propagation", "recurjac", "ibp"):
            found = local_lipschitz(bounded, x, eps, method=method, n_points=0)
            torch.testing.assert_close(found.upper, matrix.abs().sum(1).max().expand(2), rtol=0, atol=1e-10)
            torch.testing.assert_close(found.per_output[0], matrix.abs().sum(1), rtol=0, atol=1e-10)


@every_model
def test_without_a_radius_it_is_the_norm_of_the_jacobian_there(name: str) -> None:
    model, x = inputs(name)
    expected = jacobians(model, x)
    found = local_lipschitz(captured(name), x, 0.0, forward="crown", n_points=1)
    # Rounding alone: both sides are sums of products of the same numbers.
    torch.testing.assert_close(found.per_output, expected.flatten(2).abs().sum(2), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.lower_sampled, found.upper, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.jacobian_lower, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.jacobian_upper, expected, rtol=0, atol=1e-9)


def test_entries_of_one_undecided_layer_are_the_closed_form() -> None:
    model = mlp(4, 8, 3)
    W1, W2 = model[0].weight.detach(), model[2].weight.detach()
    lower, upper = jacobian_bounds(model, torch.zeros(1, 4).double(), 100.0)
    terms = W2[:, :, None] * W1[None]  # (outputs, hidden, inputs), each times its own slope in [0, 1]
    torch.testing.assert_close(upper[0], terms.clamp(min=0).sum(1), rtol=0, atol=1e-9)
    torch.testing.assert_close(lower[0], terms.clamp(max=0).sum(1), rtol=0, atol=1e-9)


@every_model
def test_nothing_sampled_exceeds_the_bounds(name: str) -> None:
    model, x = inputs(name)
    eps, generator = 0.15, torch.Generator().manual_seed(2)
    bounded = captured(name)
    result = local_lipschitz(bounded, x, eps, forward="crown", n_points=100)
    assert (result.lower_sampled <= result.upper + RAISED).all()
    points = x + eps * (2 * torch.rand(60, *x.shape, generator=generator, dtype=x.dtype) - 1)
    sampled = jacobians(model, points[:20].flatten(0, 1)).unflatten(0, (20, len(x)))
    assert (sampled <= result.jacobian_upper + RAISED).all()
    assert (sampled >= result.jacobian_lower - RAISED).all()
    outputs = model(points.flatten(0, 1)).unflatten(0, (60, len(x)))
    change = (outputs[:30] - outputs[30:]).abs().amax(2)
    distance = (points[:30] - points[30:]).flatten(2).abs().amax(2)
    assert (change <= distance * (result.upper + RAISED)).all()
    v = torch.randn(x.shape[1:], dtype=x.dtype, generator=generator)
    low, high = jvp_bounds(bounded, x, v, eps, forward="crown")
    along = (sampled * v).flatten(3).sum(3)
    assert (along <= high + RAISED).all()
    assert (along >= low - RAISED).all()


@pytest.mark.parametrize("corner", [-1.0, 1.0])
def test_a_unit_that_is_zero_at_a_corner_counts_as_undecided(corner: float) -> None:
    # The unit is 0 at one corner and of one sign elsewhere: the Clarke Jacobian there has both slopes.
    model = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1)).double().eval()
    with torch.no_grad():
        model[0].weight[:] = 1.0
        model[0].bias[:] = corner
        model[2].weight[:] = 3.0
    low, high = jacobian_bounds(model, torch.zeros(1, 2).double(), 0.5)
    assert low.flatten().tolist() == [0.0, 0.0]
    assert high.flatten().tolist() == [3.0, 3.0]


def product_of_intervals(model: nn.Sequential, x: np.ndarray, eps: float) -> tuple[float, float]:
    """The interval Jacobian, layer by layer in NumPy, and the share of units that may switch."""
    lower, upper = x - eps, x + eps
    network, slopes = layers(model), []
    for weight, bias in network[:-1]:
        positive, negative = weight.clip(min=0), weight.clip(max=0)
        lower, upper = positive @ lower + negative @ upper + bias, positive @ upper + negative @ lower + bias
        slopes.append(((lower > 0).astype(float), (upper >= 0).astype(float)))
        lower, upper = lower.clip(min=0), upper.clip(min=0)
    low = high = network[-1][0]
    for (least, greatest), (weight, _) in zip(reversed(slopes), reversed(network[:-1]), strict=True):
        corners = np.stack([low * least, low * greatest, high * least, high * greatest])
        low, high = corners.min(0), corners.max(0)
        positive, negative = weight.clip(min=0), weight.clip(max=0)
        low, high = low @ positive + high @ negative, high @ positive + low @ negative
    share = np.mean(np.concatenate([least != greatest for least, greatest in slopes]))
    return float(np.maximum(np.abs(low), np.abs(high)).sum(1).max()), float(share)


def test_it_is_far_below_interval_products() -> None:
    ratios = []
    bounded = BoundedModule(mlp(5, 12, 10, 3), torch.zeros(1, 5).double())
    for seed in range(20):
        model = mlp(5, 12, 10, 3, seed=seed)
        bounded.model.load_state_dict(model.state_dict())
        x = torch.randn(1, 5, dtype=torch.float64)
        for eps in np.geomspace(0.02, 1.0, 40):
            interval, share = product_of_intervals(model, x[0].numpy(), float(eps))
            if share >= 0.3:
                break
        assert 0.25 <= share <= 0.5
        ours = local_lipschitz(bounded, x, float(eps), forward="crown", n_points=0)
        theirs = local_lipschitz(bounded, x, float(eps), forward="ibp", method="ibp", n_points=0)
        assert float(theirs.upper.detach()) == pytest.approx(interval, rel=1e-9)
        ratios.append(float(ours.upper.detach()) / interval)
    assert np.exp(np.mean(np.log(ratios))) <= 0.65


def relaxed_by_hand(model: nn.Sequential, result: object, constants: bool) -> np.ndarray:
    """The bound of each row for two hidden layers, in NumPy, from the slopes that the forward bounds leave open."""
    W1, W2, W3 = (weight for weight, _ in layers(model))
    first, second = (
        (p.least[0].numpy(), p.greatest[0].numpy()) for p in reversed(result.certificate.jacobian.products)
    )
    bounds = []
    for row in W3:
        corners = np.stack([row * second[0], row * second[1]])
        low, high = corners.min(0), corners.max(0)  # the product of gradient and slope at the second layer: a box
        g_low, g_high = extremes(W2.T, low, high)
        lower_slope, lower_offset, upper_slope, upper_offset = (np.zeros(len(g_low)) for _ in range(4))
        for j, (g, h, least, greatest) in enumerate(zip(g_low, g_high, *first, strict=True)):
            ends = np.array([[g * least, g * greatest], [h * least, h * greatest]])
            if constants and g < 0 < h:  # RecurJac
                lower_offset[j], upper_offset[j] = ends.min(), ends.max()
                continue
            below, above = ends.min(1), ends.max(1)  # at both ends of the gradient; the lines join them
            lower_slope[j], upper_slope[j] = (below[1] - below[0]) / (h - g), (above[1] - above[0]) / (h - g)
            lower_offset[j], upper_offset[j] = below[0] - lower_slope[j] * g, above[0] - upper_slope[j] * g
        up, down = W1.T.clip(min=0), W1.T.clip(max=0)
        above = ((up * upper_slope + down * lower_slope) @ W2.T, up @ upper_offset + down @ lower_offset)
        below = ((up * lower_slope + down * upper_slope) @ W2.T, up @ lower_offset + down @ upper_offset)
        e_high, e_low = extremes(above[0], low, high)[1] + above[1], extremes(below[0], low, high)[0] + below[1]
        chord = np.where(e_low >= 0, 1.0, np.where(e_high <= 0, -1.0, (e_high + e_low) / (e_high - e_low)))
        offset = np.where((e_low < 0) & (e_high > 0), -chord * e_low - e_low, 0.0)
        # The sum of all chords is one function of the gradient at the first layer, bounded there by its lines.
        total = chord @ W1.T
        slope = np.where(total > 0, upper_slope, lower_slope) * total
        constant = (np.where(total > 0, upper_offset, lower_offset) * total).sum() + offset.sum()
        linear = extremes((slope @ W2.T)[None], low, high)[1][0] + constant
        bounds.append(min(linear, np.maximum(np.abs(e_low), np.abs(e_high)).sum()))
    return np.array(bounds)


def extremes(matrix: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    up, down = matrix.clip(min=0), matrix.clip(max=0)
    return up @ low + down @ high, up @ high + down @ low


@pytest.mark.parametrize("method", ["bound-propagation", "recurjac"])
def test_two_hidden_layers_are_bounded_as_by_hand(method: str) -> None:
    model, x = mlp(6, 12, 10, 3, seed=5), torch.zeros(1, 6).double()
    bounded = BoundedModule(model, x)
    found = [local_lipschitz(bounded, x, eps, method=method, forward="ibp", n_points=0) for eps in (0.1, 0.3, 2.0)]
    for result in found:
        by_hand = relaxed_by_hand(model, result, constants=method == "recurjac")
        np.testing.assert_allclose(result.per_output[0].detach(), by_hand, rtol=1e-9)


def check_order(n_networks: int) -> None:
    ordered = 0
    bounded = BoundedModule(mlp(3, 6, 5, 2), torch.zeros(1, 3).double())
    for seed in range(n_networks):
        model = mlp(3, 6, 5, 2, seed=seed)
        bounded.model.load_state_dict(model.state_dict())
        x = torch.randn(1, 3, dtype=torch.float64)
        eps = 0.2
        exact = exact_constant(layers(model), (x[0] - eps).numpy(), (x[0] + eps).numpy()).value
        bounds = [
            float(local_lipschitz(bounded, x, eps, method=method, forward="crown", n_points=0).upper.detach())
            for method in ("bound-propagation", "recurjac", "ibp", "global")
        ]
        assert min(bounds) >= exact - RAISED
        ordered += bounds[0] <= bounds[1] + RAISED <= bounds[2] + 2 * RAISED <= bounds[3] + 3 * RAISED
    assert ordered >= 0.95 * n_networks


def test_every_method_is_above_the_exact_value_and_ours_is_lowest() -> None:
    check_order(5)


@pytest.mark.slow
def test_the_order_holds_on_a_hundred_networks() -> None:
    check_order(100)


def test_enumeration_finds_what_a_fine_grid_finds() -> None:
    model = mlp(2, 5, 4, 2, seed=3)
    exact = exact_constant(layers(model), np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
    line = torch.linspace(-1, 1, 120, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line).requires_grad_()
    rows = [torch.autograd.grad(model(grid)[:, k].sum(), grid)[0] for k in range(2)]
    largest = torch.stack(rows, 1).abs().sum(2).max()
    # Regions smaller than a cell of the grid could be missed by it; here there are none that matter.
    assert exact.value == pytest.approx(float(largest), abs=1e-12)
    first = model[0](grid)
    patterns = torch.cat([first > 0, model[2](first.relu()) > 0], 1).unique(dim=0)
    assert len(patterns) <= exact.n_regions <= len(patterns) + 3


def test_margins_certify_a_radius_that_an_attack_respects() -> None:
    model, eps = mlp(5, 16, 12, 3, seed=4), 0.4
    x = torch.randn(6, 5, dtype=torch.float64)
    with torch.no_grad():
        outputs = model(x)
    y = outputs.argmax(1)
    identity = torch.eye(3, dtype=torch.float64)
    C = torch.stack([torch.stack([identity[a] - identity[k] for k in range(3) if k != a]) for a in y.tolist()])
    result = local_lipschitz(model, x, eps, C=C)
    margins = (C @ outputs[..., None])[..., 0]
    certified = (margins / result.per_output).amin(1).clamp(max=eps)
    for radius in torch.linspace(0.02, eps, 12, dtype=torch.float64):
        point = x.clone()
        for _ in range(30):
            point.requires_grad_()
            (gradient,) = torch.autograd.grad((C @ model(point)[..., None])[..., 0].amin(1).sum(), point)
            point = (point - 0.2 * radius * gradient.sign()).detach().clamp(x - radius, x + radius)
        broken = model(point).argmax(1) != y
        assert (certified[broken] <= radius).all()


@pytest.mark.parametrize("seed", [9, pytest.param(3, marks=pytest.mark.slow)])
def test_branching_ends_at_the_largest_of_all_patterns_or_at_the_exact_value(seed: int) -> None:
    model, eps = mlp(3, 6, 4, 2, seed=seed), 0.5
    x = torch.randn(1, 3, dtype=torch.float64)
    bounded = BoundedModule(model, x)
    plain = local_lipschitz(bounded, x, eps, forward="crown", n_points=0)
    patterns = largest_pattern(model, plain.certificate)
    all_patterns = BranchAndBound(timeout=60, refine=False, prune=False)
    found = local_lipschitz(bounded, x, eps, forward="crown", bab=all_patterns, n_points=0)
    assert found.trace[0].status == "exact"
    assert float(found.upper) == pytest.approx(patterns, abs=1e-9)
    exact = exact_constant(layers(model), (x[0] - eps).numpy(), (x[0] + eps).numpy()).value
    assert exact < patterns - 1e-3  # so that the two can be told apart
    for heuristic, candidates in (("area", 1),) if seed == 9 else (("area", 1), ("babsr", 2)):
        bab = BranchAndBound(timeout=60, heuristic=heuristic, candidates=candidates)
        found = local_lipschitz(bounded, x, eps, forward="crown", bab=bab, n_points=0)
        assert found.trace[0].status == "exact"
        # The linear programmes prove emptiness beyond their tolerance only.
        assert float(found.upper) == pytest.approx(exact, abs=1e-6)
        assert list(found.trace[0].bounds) == sorted(found.trace[0].bounds, reverse=True)
        assert float(found.upper) <= float(plain.upper.detach())


def largest_pattern(model: nn.Sequential, certificate: object) -> float:
    """Brute force: the largest norm over all patterns of the units that the intervals leave undecided."""
    first, second = ((p.least[0], p.greatest[0]) for p in reversed(certificate.jacobian.products))
    W1, W2, W3 = (torch.as_tensor(weight) for weight, _ in layers(model))
    least, greatest = torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
    undecided = (least < greatest).nonzero()[:, 0]
    assert 2 <= len(undecided) <= 12
    best = 0.0
    for code in range(2 ** len(undecided)):
        slopes = least.clone()
        slopes[undecided] = torch.tensor([float(code >> i & 1) for i in range(len(undecided))], dtype=slopes.dtype)
        matrix = (W3 * slopes[6:]) @ (W2 * slopes[:6]) @ W1
        best = max(best, float(matrix.abs().sum(1).max()))
    return best


def test_very_large_regions_make_recurjac_the_interval_bound_and_ours_stays_below() -> None:
    x = torch.zeros(1, 5).double()
    bounded = BoundedModule(mlp(5, 40, 40, 40, 3), x)  # so wide that nearly every gradient's sign is open
    ours, recurjac, ibp = (
        float(local_lipschitz(bounded, x, 1e3, method=method, forward="ibp", n_points=0).upper.detach())
        for method in ("bound-propagation", "recurjac", "ibp")
    )
    # They are equal where every sign is open; two or three units that are left make the difference.
    assert recurjac == pytest.approx(ibp, rel=0.01)
    assert ours < 0.9 * ibp


def test_the_l2_constant_is_above_sampled_spectral_norms_and_exact_for_a_linear_row() -> None:
    model, x = inputs("relu")
    result = local_lipschitz(captured("relu"), x, 0.3, norm=2, n_points=100, forward="crown")
    assert (result.lower_sampled <= result.upper).all()
    row = mlp(5, 1)
    found = local_lipschitz(row, x, 0.3, norm=2)
    torch.testing.assert_close(found.upper, row[0].weight.norm().expand(2), rtol=0, atol=1e-10)
    sphere = torch.randn(200, *x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    points = x + 0.3 * sphere / sphere.norm(dim=2, keepdim=True)
    change = (model(points[:100].flatten(0, 1)) - model(points[100:].flatten(0, 1))).norm(dim=1)
    distance = (points[:100] - points[100:]).flatten(0, 1).norm(dim=1)
    assert (change <= distance * result.upper.repeat(100) + RAISED).all()


def test_samples_and_rows_do_not_influence_each_other() -> None:
    _, x = inputs("residual", 2)
    eps = torch.tensor([0.05, 0.2], dtype=torch.float64)
    together = local_lipschitz(captured("residual"), x, eps, forward="crown", n_points=0)
    for i in range(2):
        C = torch.eye(3, dtype=torch.float64)[[1]]
        alone = local_lipschitz(captured("residual", 1), x[i : i + 1], eps[i], C=C, forward="crown", n_points=0)
        torch.testing.assert_close(alone.per_output[0, 0], together.per_output[i, 1], rtol=0, atol=1e-10)


def test_clipping_makes_the_region_smaller() -> None:
    model, x = inputs("relu", 1)
    x = x.clamp(0, 1)
    bounded = captured("relu", 1)
    clipped = local_lipschitz(bounded, x, 0.5, clip=(0.0, 1.0), forward="crown")
    boxed = local_lipschitz(bounded, x, 0.5, forward="crown")
    assert float(clipped.upper) < float(boxed.upper)
    points = (x + 0.5 * (2 * torch.rand(200, 5, dtype=x.dtype) - 1)).clamp(0, 1)
    assert (jacobians(model, points).abs().sum(2) <= clipped.per_output + RAISED).all()


def test_the_bound_can_be_differentiated_with_respect_to_the_weights() -> None:
    model, x = inputs("tanh", 2)
    weight = model[0].weight
    bounded = BoundedModule(model, x)
    bound = local_lipschitz(bounded, x, 0.1, forward="crown", n_points=0).upper.sum()
    (gradient,) = torch.autograd.grad(bound, weight)
    direction = torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(3))
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            weight += step * direction
            values.append(float(local_lipschitz(bounded, x, 0.1, forward="crown", n_points=0).upper.sum()))
            weight -= step * direction
    # A central difference of a function that is smooth here: its error is of second order in the step.
    assert float((gradient * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_float32_is_kept_and_agrees() -> None:
    model, x = inputs("residual")
    double = local_lipschitz(captured("residual"), x, 0.05, forward="crown", n_points=2)
    single = local_lipschitz(model.float(), x.float(), 0.05, forward="crown", n_points=2)
    assert single.upper.dtype == torch.float32
    # About a thousand single-precision sums.
    torch.testing.assert_close(single.upper, double.upper.float(), rtol=1e-4, atol=0)
