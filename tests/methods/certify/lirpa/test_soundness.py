"""Bounds of random networks of all operators over random sets: no point that is sampled or attacked leaves them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from network_regions import ONE_BY_ONE, Found, Scenario, linear_values, n_scenarios, scenario, search, slack
from regions import random_points
from small_networks import NETWORKS, Twice, captured
from torch import Tensor, nn

from offprint.methods.certify.lirpa import decompositions
from offprint.methods.certify.lirpa.bounds import METHODS, BoundedModule, Bounds, bound
from offprint.methods.certify.lirpa.operators import base
from offprint.methods.certify.lirpa.perturbations import LpBall

RADII = (1e-3, 0.05, 0.4)


def hold(bounds: Bounds, found: Found, output: int, dtype: torch.dtype = torch.float64) -> None:
    """Hold bounds against the extremes that were found."""
    assert bounds.lower is not None
    assert bounds.upper is not None
    lower, upper = bounds.lower.double(), bounds.upper.double()
    assert lower.isfinite().all()
    assert upper.isfinite().all()
    room = slack(lower, upper, dtype=dtype)
    assert lower.shape == found.lowest[output].shape
    assert (lower - found.lowest[output]).max() <= room
    assert (found.highest[output] - upper).max() <= room
    if bounds.lA is not None:
        points = {key: value.double() for key, value in found.points.items()}
        below = linear_values(bounds.lA, bounds.lb, points)
        above = linear_values(bounds.uA, bounds.ub, points)
        assert (below - found.values[output]).max() <= room
        assert (found.values[output] - above).max() <= room


def bounded(one: Scenario, captured: bool) -> BoundedModule:
    if captured:
        return BoundedModule(one.program, one.inputs)
    return BoundedModule.from_graph(one.program.graph(one.inputs), one.program)


def hold_all(
    one: Scenario,
    module: BoundedModule,
    eps: float,
    found: Found,
    methods: tuple[str, ...],
    n_outputs: int | None = None,
) -> None:
    for method in methods:
        for output in range(n_outputs or len(found.values)):
            linear = output == 0 and method != "ibp"
            bounds = module.compute_bounds(
                one.inputs, one.regions(eps), method, output=output, steps=2, return_A=linear
            )
            hold(bounds, found, output)


@pytest.mark.parametrize("seed", range(n_scenarios()))
def test_random_networks(seed: int) -> None:
    """Among all of them is every operator of the library; each with one method and one radius."""
    one, eps = scenario(seed), RADII[seed % 3]
    found = search(one, eps, 40, 2, 12)
    hold_all(one, bounded(one, captured=seed % 9 == 0), eps, found, (METHODS[seed * 5 // 3 % 6],), 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(n_scenarios(), n_scenarios() + 80))
def test_eighty_more_random_networks(seed: int) -> None:
    """Every method, three radii, 12 000 points (half of them on the boundary) and 100 steps of an attack."""
    one = scenario(seed)
    module = bounded(one, captured=seed % 4 == 0)
    slow = any(step.target in ONE_BY_ONE for step in one.program.steps)
    for eps in RADII:
        found = search(one, eps, *((300, 10) if slow else (12000, 100)))
        hold_all(one, module, eps, found, METHODS)


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 30))])
def test_random_networks_in_single_precision(seed: int) -> None:
    """Bounds in single precision of what is computed in double precision."""
    one, eps = scenario(seed), RADII[1 + seed % 2]
    single = replace(one, program=one.program.to_dtype(torch.float32), inputs=tuple(x.float() for x in one.inputs))
    double = replace(
        one, program=single.program.to_dtype(torch.float64), inputs=tuple(x.double() for x in single.inputs)
    )
    regions = {
        key: region for key, region in single.regions(eps).items() if single.kinds[key] in ("inf", "2", "1", "3")
    }
    double = replace(double, kinds={key: single.kinds[key] for key in regions})
    if not regions:
        return
    found = search(double, eps * (1 - 1e-4), 100, 4)  # so that rounding of the radius leads no point out of the set
    module = bounded(single, captured=False)
    for method in METHODS:
        for output in range(len(found.values)):
            bounds = module.compute_bounds(single.inputs, regions, method, output=output, steps=1)
            assert bounds.lower.dtype == torch.float32
            hold(bounds, found, output, torch.float32)


# What takes the statistics of the clean batch for constants is tested in test_capture.py; the products with slopes that
# bounds on derivatives register, in lipschitz/test_parts.py.
ELSEWHERE = {"batch_statistics", "batch_statistics_of_middle", "slope_times", "slope_times_by_constants"}
SIMPLE = """
    contiguous clone alias detach lift_fresh_copy positive to _to_copy type_as _unsafe_view reshape_as view_as expand_as
    zeros_like ones_like full_like new_zeros new_ones dropout feature_dropout alpha_dropout feature_alpha_dropout dot
"""


def test_every_operator_is_in_some_random_network() -> None:
    """An operator that is registered and in no network would be believed, not tested: add a piece that calls it."""
    reached = set()
    for seed in range(n_scenarios()):
        one = scenario(seed)
        graph = one.program.graph(one.inputs)
        perturbed = {node for node in graph.nodes if node.kind is not None and node.key in one.kinds}
        for node in graph.nodes:
            if node.target is not None and any(i in perturbed for i in node.inputs):
                perturbed.add(node)
                reached.add(node.target)
    missing = [str(target) for target in set(base._operators) - reached if target.__name__ not in ELSEWHERE]
    assert not missing


def test_every_decomposition_is_in_some_random_network() -> None:
    """But for those that copy a tensor, read its shape, or are tested elsewhere."""
    called = {step.target for seed in range(n_scenarios()) for step in scenario(seed).program.steps}
    rest = set(decompositions._decompositions) - called
    missing = [str(one) for one in rest if one.__name__.split(".")[0] not in SIMPLE.split()]
    assert not missing


@pytest.mark.parametrize("method", METHODS)
def test_two_inputs_and_nodes_used_twice(method: str) -> None:
    """What a walk from layer to layer gets wrong: ``x f(x) + f(x)``, a shared layer, a concatenation, two inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Twice().double()
        x, y = torch.randn(2, 2, 4, dtype=torch.float64)
    regions = {0: LpBall(2, 0.1), 1: LpBall(math.inf, 0.05)}
    bounds = bound(model, (x, y), regions, method, return_A=method != "ibp", steps=3)
    generator = torch.Generator().manual_seed(4)
    points = {key: random_points(region, (x, y)[key], 200, generator) for key, region in regions.items()}
    with torch.no_grad():
        values = torch.func.vmap(model)(points[0], points[1])
    hold(bounds, Found(points, (values,), (values.amin(0),), (values.amax(0),)), 0)


USUAL = [("residual", "crown"), ("attention", "crown"), ("lstm", "crown-ibp"), ("gru", "ibp"), ("rnn", "forward+crown")]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param(name, method, marks=[] if (name, method) in USUAL else pytest.mark.slow)
        for name in NETWORKS
        for method in METHODS
        if not (name in ("lstm", "gru") and method in ("forward", "alpha-crown"))
    ],
)
def test_usual_networks(name: str, method: str) -> None:
    model, x, module = captured(name)
    for norm in (2, math.inf):
        points = random_points(LpBall(norm, 0.05), x, 200, torch.Generator().manual_seed(2))
        with torch.no_grad():
            values = torch.stack([model(one) for one in points])
        bounds = module.compute_bounds(x, LpBall(norm, 0.05), method, return_A=method != "ibp", steps=1)
        hold(bounds, Found({0: points}, (values,), (values.amin(0),), (values.amax(0),)), 0)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_an_encoder_layer_as_it_is(method: str) -> None:
    """``nn.TransformerEncoderLayer`` with a mask, three samples, every output."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True).double().eval()
        x = torch.randn(3, 3, 4, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64)

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, src_mask=mask)

    for model in (layer, Masked()):
        module = BoundedModule(model, x)
        for eps in (0.0, 0.02):
            points = random_points(LpBall(math.inf, eps), x, 100, torch.Generator().manual_seed(2))
            with torch.no_grad():
                values = torch.stack([model(one) for one in points])
            bounds = module.compute_bounds(x, LpBall(math.inf, eps), method, steps=1)
            hold(bounds, Found({0: points}, (values,), (values.amin(0),), (values.amax(0),)), 0)
