"""The parts of Lipschitz bounds: set-valued slopes, the chain rule of single operators, emptiness, certificates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from offprint.methods.certify.lipschitz import BranchAndBound, local_lipschitz, monotonicity
from offprint.methods.certify.lipschitz.pool import empty_domains
from offprint.methods.certify.lipschitz.slopes import SlopeTimes, SlopeTimesByConstants
from offprint.methods.certify.lirpa.bounds import BoundedModule
from offprint.methods.certify.lirpa.operators.base import Interval
from offprint.methods.certify.lirpa.perturbations import Box

ends = st.floats(-3, 3, allow_subnormal=False)


@given(ends, ends, ends, ends, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_lines_enclose_every_product_and_are_the_hull(
    a: float, b: float, c: float, d: float, t: float, u: float
) -> None:
    lower, upper, least, greatest = (torch.tensor(v, dtype=torch.float64) for v in (*sorted((a, b)), *sorted((c, d))))
    g, s = lower + t * (upper - lower), least + u * (greatest - least)
    for kind in (SlopeTimes, SlopeTimesByConstants):
        function = kind(least, greatest)
        lines = function.relax(lower, upper)
        low, high = function.interval(lower, upper)
        slack = 1e-12  # rounding of numbers below 10
        assert lines.lower_slope * g + lines.lower_offset <= s * g + slack
        assert lines.upper_slope * g + lines.upper_offset >= s * g - slack
        assert low - slack <= s * g <= high + slack
    # The hull: at both ends of g the upper line is the largest product there, and the lower line the smallest.
    lines = SlopeTimes(least, greatest).relax(lower, upper)
    for end in (lower, upper):
        products = torch.stack([end * least, end * greatest])
        assert float(lines.upper_slope * end + lines.upper_offset) == pytest.approx(float(products.max()), abs=1e-9)
        assert float(lines.lower_slope * end + lines.lower_offset) == pytest.approx(float(products.min()), abs=1e-9)


class Function(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).flatten(1)


WEIGHT = torch.randn(3, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
F = nn.functional
OPERATORS = {
    "convolution": lambda x: F.conv2d(x, WEIGHT, stride=2, padding=1, dilation=1),
    "grouped convolution": lambda x: F.conv2d(x, WEIGHT[:2, :1], groups=2, stride=3),
    "same convolution": lambda x: F.conv2d(x, WEIGHT, padding="same"),
    "transposed convolution": lambda x: F.conv_transpose2d(x, WEIGHT.transpose(0, 1), stride=2, output_padding=1),
    "convolution of lines": lambda x: F.conv1d(x.flatten(2), WEIGHT[..., 0], stride=2),
    "average pooling": lambda x: F.avg_pool2d(x, 3, stride=2, padding=1),
    "average pooling of lines": lambda x: F.avg_pool1d(x.flatten(2), 3),
    "adaptive pooling": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    "global mean": lambda x: x.mean((2, 3)),
    "sum": lambda x: x.sum(1, keepdim=True),
    "sums and differences": lambda x: 2 - (x + x[:, :1]) - 0.5 * x.sum(3, keepdim=True),
    "negative and quotient": lambda x: -x / 3,
    "multiple of weights": lambda x: x * WEIGHT[0, :, :1, :1],
    "axes": lambda x: x.permute(0, 3, 1, 2).transpose(1, 2),
    "slices": lambda x: torch.cat([x[:, :, 1:4].flatten(1), x[:, 1, 2]], 1),
    "padding": lambda x: F.pad(x, (1, 0, 2, 1)),
    "matrix products": lambda x: WEIGHT[0].reshape(3, 6) @ (x @ WEIGHT[0].reshape(6, 3)),
    "expansion": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "product of two": lambda x: x[:, :1] * x[:, 1:] * torch.sigmoid(x[:, :1]),
    "layer norm": lambda x: F.layer_norm(x, (6,)),
    "stack": lambda x: torch.stack([x, 2 * x], 1),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_chain_rule_is_torchs_and_sound_around_it(name: str) -> None:
    model = Function(OPERATORS[name]).eval()
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    bounded, n_outputs = BoundedModule(model, x), model(x).shape[1]
    generator = torch.Generator().manual_seed(2)
    C = torch.randn(3, n_outputs, dtype=torch.float64, generator=generator)
    for eps in (0.0, 0.05):
        found = local_lipschitz(bounded, x, eps, C=C, forward="ibp", n_points=0)
        point = (x + eps * (2 * torch.rand(x.shape, dtype=x.dtype, generator=generator) - 1)).requires_grad_()
        rows = [
            torch.autograd.grad(model(point) @ one, point, torch.ones(2).double(), retain_graph=True)[0] for one in C
        ]
        expected = torch.stack(rows, 1)
        assert (found.jacobian_lower <= expected + 1e-9).all()
        assert (found.jacobian_upper >= expected - 1e-9).all()
        assert (found.per_output >= expected.flatten(2).abs().sum(2) - 1e-9).all()
        if eps == 0:
            torch.testing.assert_close(found.jacobian_lower, expected, rtol=0, atol=1e-9)
            torch.testing.assert_close(found.jacobian_upper, expected, rtol=0, atol=1e-9)


def test_emptiness_is_proved_where_a_corner_search_finds_it() -> None:
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(60, 3, 2, generator=generator, dtype=torch.float64)
    constants = 0.6 * torch.randn(60, 3, generator=generator, dtype=torch.float64)
    x = torch.zeros(1, 2, dtype=torch.float64)
    line = torch.linspace(-1, 1, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    smallest = (slopes @ grid.T + constants[..., None]).amin(1).amax(1)
    for n_steps in (1, 50):
        empty = empty_domains(slopes, constants, Box(x - 1, x + 1), x, n_steps)
        # Between two points of the grid a row changes by less than 0.03.
        assert not empty[smallest >= 0].any()
        assert empty[smallest < -0.03].all()
    assert 5 < int(empty.sum()) < 55


def test_a_certificate_holds_and_a_forged_one_does_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 2)).double().eval()
    certificate = local_lipschitz(model, torch.zeros(2, 4).double(), 0.3, forward="crown").certificate
    assert certificate.check(10).holds
    assert not replace(certificate, bounds=0.5 * certificate.bounds).check(10).holds
    product = certificate.jacobian.products[-1]
    narrow = Interval(*(0.1 * end for end in certificate.forward.intervals[product.inputs]))
    certificate.forward.intervals[product.inputs] = narrow
    assert certificate.check(10).excess["inputs"] > 0.01
    forged = replace(product, least=0.5 * product.least + 0.5 * product.greatest)
    certificate.jacobian.products[-1] = forged
    assert certificate.check(10).excess["slopes"] > 0.01


def test_monotonicity_is_proved_where_it_holds_and_nowhere_else() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1)).double().eval()
    with torch.no_grad():
        model[0].weight[:, 0].abs_()
        model[0].weight[:, 1].abs_().neg_()
        model[0].weight[:, 2] += 0.2
        model[2].weight.abs_()
        model[4].weight.abs_()
    X = torch.rand(20, 3, dtype=torch.float64)
    bounded = BoundedModule(model, X)
    assert set(monotonicity(bounded, X, 0, forward="crown")) == {"increasing"}
    assert set(monotonicity(bounded, X, 1, forward="crown")) == {"decreasing"}
    labels = monotonicity(bounded, X, 2)
    points = X.repeat_interleave(200, 0)
    points[:, 2] = torch.linspace(0, 1, 200, dtype=torch.float64).repeat(20)
    with torch.no_grad():
        change = model(points).reshape(20, 200).diff(dim=1).numpy()
    assert not (change < -1e-12)[labels == "increasing"].any()
    # The function turns in some samples and grows in others, so that there is something to prove and something not to.
    turns = (change > 1e-9).any(1) & (change < -1e-9).any(1)
    assert np.all(labels[turns] == "unknown")
    assert 0 < turns.sum() < 20
    assert (labels == "increasing").sum() > 0


def test_more_pieces_prove_more_monotonicity() -> None:
    # relu(x - 0.55) - relu(x - 0.65) grows, but on all of [0, 1] at once both slopes are open.
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double().eval()
    with torch.no_grad():
        model[0].weight[:] = 1.0
        model[0].bias[:] = torch.tensor([-0.55, -0.65])
        model[2].weight[:] = torch.tensor([1.0, -1.0])
    X = torch.zeros(1, 1, dtype=torch.float64)
    assert monotonicity(model, X, 0).tolist() == ["unknown"]
    assert monotonicity(model, X, 0, pieces=16).tolist() == ["increasing"]
    with torch.no_grad():
        model[2].weight[:] = torch.tensor([1.0, -2.0])  # grows, then falls
    assert monotonicity(model, X, 0, pieces=16).tolist() == ["unknown"]


def test_smooth_activations_are_split_in_the_middle() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double().eval()
    x = torch.ones(1, 2).double()
    plain = local_lipschitz(model, x, 1.0, forward="crown", n_points=500)
    bab = BranchAndBound(timeout=60, max_domains=120)
    found = local_lipschitz(model, x, 1.0, forward="crown", n_points=500, bab=bab)
    assert float(found.lower_sampled) <= float(found.upper) < 0.98 * float(plain.upper)
    assert found.trace[0].status == "max_domains"
