"""Where bounds are easily believed and wrong: tied weights, masks by large numbers, overflow, radii of parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import config
from torch import Tensor, nn

from offprint.methods.certify.lirpa import decompositions
from offprint.methods.certify.lirpa.bounds import METHODS, BoundedModule, bound, perturb_parameters
from offprint.methods.certify.lirpa.capture import capture
from offprint.methods.certify.lirpa.operators import base
from offprint.methods.certify.lirpa.operators.convex import Convex
from offprint.methods.certify.lirpa.perturbations import LpBall

INF = math.inf
F64 = torch.float64
BALL = LpBall(INF, 0.1)


@pytest.fixture(autouse=True)
def as_users_call_it() -> Iterator[None]:
    """Without the shape checks of the test run, so that what refuses bad input is the code itself."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


class Apply(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Tied(nn.Module):
    """Encodes and decodes with the same matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(3, 3, bias=False, dtype=F64), nn.Linear(3, 3, bias=False, dtype=F64)
        self.encode.weight.data = numbers(3, 3)
        self.decode.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(torch.relu(self.encode(x)))


@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_tied_weights_change_together_under_either_name(method: str) -> None:
    model, x, ball = Tied(), numbers(2, 3, seed=1), LpBall(INF, 0.1)
    found = [bound(model, x, {f"{name}.weight": ball}, method) for name in ("encode", "decode")]
    found.append(bound(model, x, perturb_parameters(model, None, ball), method))
    found.append(bound(model, x, perturb_parameters(model, ["decode.weight"], ball), method))
    for one in found[1:]:
        assert torch.equal(one.lower, found[0].lower)
        assert torch.equal(one.upper, found[0].upper)
    centre, generator = model.encode.weight.data.clone(), torch.Generator().manual_seed(2)
    for _ in range(200):
        model.encode.weight.data = centre + 0.1 * torch.randn(3, 3, generator=generator, dtype=F64).sign()
        outputs = model(x)
        assert bool((found[0].lower <= outputs + 1e-12).all())
        assert bool((outputs <= found[0].upper + 1e-12).all())
    assert bool((found[0].upper - found[0].lower > 0.1).all())


class Product(nn.Module):
    """A square parameter times a constant: what one radius for each sample could be mistaken in."""

    def __init__(self, left: bool) -> None:
        super().__init__()
        self.weight, self.left = nn.Parameter(torch.zeros(3, 3, dtype=F64)), left
        self.register_buffer("constant", numbers(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        product = self.weight @ self.constant if self.left else self.constant @ self.weight
        return product.reshape(1, 9) + 0 * x.sum()


@pytest.mark.parametrize("left", [True, False])
def test_one_radius_for_each_element_of_a_parameter(left: bool) -> None:
    """``{c + eps * u: ||u|| <= 1}``: a row of coefficients moves by the norm of itself times the radii."""
    model, radii = Product(left), torch.tensor([0.1, 0.2, 0.9], dtype=F64)
    constant = model.constant
    # Radii go with the columns of the weight: on the left those are summed over.
    moved = (constant * radii[:, None]).norm(dim=0).expand(3, 3)
    exact = moved if left else constant.norm(dim=1)[:, None] * radii
    for method in ("ibp", "forward", "crown"):
        upper = bound(model, torch.zeros(1, 1, dtype=F64), {"weight": LpBall(2, radii)}, method).upper.reshape(3, 3)
        assert bool((upper >= exact - 1e-12).all())
        if method == "crown":
            torch.testing.assert_close(upper, exact)


def test_radii_from_a_list_or_an_array_are_those_of_a_tensor() -> None:
    layer, x = nn.Linear(3, 2, dtype=F64), numbers(3, 3)
    layer.requires_grad_(False)
    expected = bound(layer, x, LpBall(2, torch.tensor([0.1, 0.2, 0.9], dtype=F64)))
    for radii in ([0.1, 0.2, 0.9], np.array([0.1, 0.2, 0.9])):
        ours = bound(layer, x, LpBall(2, radii))
        torch.testing.assert_close(ours.upper, expected.upper, atol=1e-6, rtol=0)  # a list is float32 at first
    assert not torch.allclose(expected.upper, bound(layer, x, LpBall(2, 0.2)).upper)


@pytest.mark.parametrize("method", METHODS)
def test_numbers_beside_a_mask_stay_as_they_are(method: str) -> None:
    x = torch.tensor([[3e6, -2e6, 1.0]], dtype=F64)
    mask = torch.tensor([False, False, True])
    bounds = bound(Apply(lambda x: 2 * x.masked_fill(mask, -INF)), x, LpBall(INF, 1.0), method, steps=1)
    torch.testing.assert_close(bounds.lower[:, :2], 2 * x[:, :2] - 2)
    torch.testing.assert_close(bounds.upper[:, :2], 2 * x[:, :2] + 2)


@pytest.mark.parametrize("method", METHODS)
def test_what_overflows_has_no_bounds_and_harms_no_other_sample(method: str) -> None:
    layers = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    for layer in (layers[0], layers[2]):
        layer.weight.data = layer.weight.data.sign() * 10
    x = numbers(2, 2)
    bounds = bound(layers, x, LpBall(INF, torch.tensor([0.1, 1e308], dtype=F64)), method, steps=1)
    alone = bound(layers, x[:1], LpBall(INF, 0.1), method, steps=1)
    torch.testing.assert_close(bounds.lower[:1], alone.lower)
    torch.testing.assert_close(bounds.upper[:1], alone.upper)
    assert bounds.lower[1].tolist() == [-INF]
    assert bounds.upper[1].tolist() == [INF]


def test_heads_of_keys_that_serve_several_of_queries() -> None:
    x = numbers(2, 4, 3, 2)

    def grouped(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x[:, :2], x[:, 2:], enable_gqa=True)

    def repeated(x: Tensor) -> Tensor:
        keys, values = (x[:, part].repeat_interleave(2, 1) for part in (slice(0, 2), slice(2, 4)))
        return F.scaled_dot_product_attention(x, keys, values)

    ours, theirs = (bound(Apply(one), x, LpBall(INF, 0.02)) for one in (grouped, repeated))
    torch.testing.assert_close(ours.lower, theirs.lower)
    torch.testing.assert_close(ours.upper, theirs.upper)


class Prelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.PReLU(dtype=F64)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


@pytest.mark.parametrize(
    ("match", "call"),
    [
        (
            "module '': aten.rand.default draws random numbers",
            lambda x: bound(Apply(lambda x: x + torch.rand(3)), x, BALL),
        ),
        ("inputs: expected at least one sample", lambda x: bound(nn.Tanh(), x[:0], BALL)),
        ("inputs: expected at least one sample", lambda x: bound(nn.Tanh(), x[0, 0], BALL)),
        ("inputs: expected inputs and parameters of one", lambda x: bound(nn.Linear(3, 2), x, BALL)),
        ("C: expected shape", lambda x: bound(nn.Tanh(), x, BALL, C=torch.ones(0, 3))),
        ("node 'prelu'.*a perturbation reaches a constant", lambda x: bound(Prelu(), x, {"act.weight": LpBall(2, 1)})),
        ("batch norm without running statistics", lambda x: bound(unnormalised(), x, BALL)),
        ("adaptive max pooling from", lambda x: bound(nn.AdaptiveMaxPool1d(2), x[None], BALL)),
        ("powers of -2.0 are not", lambda x: bound(Apply(lambda x: (-2.0) ** x), x, BALL)),
        ("norms of order 0.5", lambda x: bound(Apply(lambda x: x.norm(0.5, dim=1)), x, BALL)),
    ],
)
def test_refusals_say_what_is_wrong(match: str, call: Callable[[Tensor], object]) -> None:
    with pytest.raises(ValueError, match=match):
        call(numbers(2, 3))


def unnormalised() -> nn.Module:
    return nn.BatchNorm1d(3, track_running_stats=False, dtype=F64).eval()


def test_an_operator_of_ones_own_comes_before_what_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines for the whole of ``log(1 + exp(-x))`` next to those of its pieces, say; here for ``exp2``."""
    monkeypatch.setattr(base, "_operators", dict(base._operators))
    monkeypatch.setattr(decompositions, "_decompositions", dict(decompositions._decompositions))
    x = numbers(2, 3)
    assert [node.target for node in capture(Apply(torch.exp2), [x]).nodes[1:]][-1] is torch.ops.aten.exp.default
    base.register_op(torch.ops.aten.exp2.default, Exp2)
    assert [node.target for node in capture(Apply(torch.exp2), [x]).nodes[1:]] == [torch.ops.aten.exp2.default]
    torch.testing.assert_close(bound(Apply(torch.exp2), x, BALL).upper, (x + 0.1).exp2())


class Exp2(Convex):
    def value(self, inputs: Tensor) -> Tensor:
        return inputs.exp2()

    def derivative(self, inputs: Tensor) -> Tensor:
        return math.log(2) * inputs.exp2()


EVEN = numbers(3, 1, 1, 4, seed=4)
FUNCTIONS = {
    "log1p": lambda x: torch.log1p(x * x),
    "log2": lambda x: torch.log2(x * x + 1),
    "log10": lambda x: torch.log10(x * x + 1),
    "expm1": torch.expm1,
    "exp2": torch.exp2,
    "power of a number": lambda x: 0.3**x + 1**x,
    "power of a tensor": lambda x: (x * x + 1) ** x,
    "erfc": torch.erfc,
    "softshrink": lambda x: F.softshrink(x, 0.3),
    "logaddexp": lambda x: torch.logaddexp(x, 2 * x.flip(1)),
    "limits": lambda x: torch.clamp(x, x.flip(1) - 1, torch.full_like(x, 0.5)),
    "upper limit": lambda x: x.clamp_max(x.flip(1)),
    "sum of products": lambda x: torch.addcmul(x, x, x.flip(1), value=-0.5),
    "squares added": lambda x: torch.addcmul(x, x, x, value=2),
    "quotients added": lambda x: torch.addcdiv(x, x, x * x + 1, value=0.5),
    "between": lambda x: torch.lerp(x, x.flip(1), 0.3) + torch.lerp(x, x.flip(1), x.sigmoid()),
    "deviation": lambda x: x.std(1, keepdim=True) + x.std(1, unbiased=False, keepdim=True),
    "moments": lambda x: sum(torch.var_mean(x, 1)) + sum(torch.std_mean(x, 1, correction=0)),
    "norms": lambda x: sum(torch.linalg.vector_norm(x, p, dim=1) for p in (1, 2, 3, INF)),
    "old norm": lambda x: F.pairwise_distance(x, x.flip(1)),
    "unit length": lambda x: F.normalize(x, dim=1),
    "cosine": lambda x: F.cosine_similarity(x, x.flip(1) + 1, dim=1),
    "running sum": lambda x: x.cumsum(1),
    "adaptive maxima": lambda x: F.adaptive_max_pool1d(x[:, None], 2)[:, 0],
    "maxima with places": lambda x: F.max_pool2d(x.reshape(2, 1, 2, 2), 2, return_indices=True)[0],
    "steps": lambda x: x.floor() + 2 * x.ceil() - x.round() + x.trunc() * x,
    "even kernels": lambda x: F.conv1d(x[:, None], EVEN[:, :, 0], EVEN[:, 0, 0, 0], padding="same", dilation=3).flatten(
        1
    ),
    "even kernels of two axes": lambda x: F.conv2d(x.reshape(2, 1, 2, 2), EVEN, padding="same").flatten(1),
    "waves": lambda x: torch.sin(3 * x) * torch.cos(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_in_pieces_are_what_they_were(name: str) -> None:
    """At radius 0 bounds are the values that PyTorch gives, so that the pieces make up the same function."""
    model, x = Apply(FUNCTIONS[name]), numbers(2, 4, seed=3)
    assert capture(model, [x]).outputs[0].shape == model(x).shape
    for method in ("ibp", "crown"):
        bounds = BoundedModule(model, x).compute_bounds(x, LpBall(INF, 0.0), method)
        torch.testing.assert_close(bounds.lower, model(x), atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(bounds.upper, model(x), atol=1e-9, rtol=1e-9)
