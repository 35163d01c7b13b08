"""What must not change bounds, and how they change: chunks, batches, repetition, precision, gradients, chosen rows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from regions import random_points
from small_networks import Attention, Twice, captured, mlp
from torch import Tensor, nn

from offprint.methods.certify.lirpa.bounds import METHODS, BoundedModule, Bounds, bound, margin_spec
from offprint.methods.certify.lirpa.perturbations import Box, LpBall

INF = math.inf
TENSORS = ("lower", "upper", "lA", "uA", "lb", "ub")


def _cases(fast: set[tuple[str, str]], names: tuple[str, ...], methods: tuple[str, ...]) -> list[Any]:
    """Return networks with methods; all but some of them are slow."""
    # Choices that rows or samples share are kept where any of them is better: no pair for attention.
    pairs = [(n, m) for n in names for m in methods if (n, m) != ("attention", "alpha-crown")]
    return [pytest.param(*pair, marks=[] if pair in fast else pytest.mark.slow) for pair in pairs]


@pytest.mark.parametrize(
    ("name", "method"),
    _cases(
        {("residual", "crown-ibp"), ("mlp", "crown"), ("mlp", "alpha-crown")},
        ("mlp", "residual", "attention"),
        ("crown", "alpha-crown", "crown-ibp"),
    ),
)
def test_chunks_of_rows_change_nothing(name: str, method: str) -> None:
    _, x, bounded = captured(name)
    whole, parts = (
        bounded.compute_bounds(x, LpBall(INF, 0.05), method, return_A=True, memory=memory, steps=2)
        for memory in (2**40, 1)
    )
    for one in TENSORS:
        torch.testing.assert_close(getattr(parts, one), getattr(whole, one), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["residual", pytest.param("attention", marks=pytest.mark.slow)])
def test_gradients_through_chunks_are_those_of_the_whole_and_keep_less(name: str) -> None:
    model, x, bounded = captured(name)
    found = []
    for memory in (2**40, 1):
        bytes_kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal bytes_kept
            bytes_kept += tensor.numel() * tensor.element_size()
            return tensor

        model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            bounds = bounded.compute_bounds(x, LpBall(INF, 0.05), memory=memory)
        (bounds.upper - bounds.lower).sum().backward()
        found.append(([parameter.grad for parameter in model.parameters()], bytes_kept))
    (whole, most), (parts, least) = found
    assert all(bool(one.abs().max() > 0) for one in whole[:2])
    torch.testing.assert_close(parts, whole, atol=1e-9, rtol=1e-9)
    assert least < most / 2


@pytest.mark.parametrize(
    ("name", "method"),
    _cases(
        {("residual", "crown"), ("residual", "forward"), *(("mlp", method) for method in METHODS)},
        ("residual", "attention", "mlp"),
        METHODS,
    ),
)
def test_samples_are_bounded_as_if_alone(name: str, method: str) -> None:
    _, x, bounded = captured(name)
    radii = torch.tensor([0.02, 0.06], dtype=torch.float64)
    together = bounded.compute_bounds(x, LpBall(INF, radii), method, steps=2)
    for i in range(len(x)):
        alone = bounded.compute_bounds(x[i : i + 1], LpBall(INF, radii[i].item()), method, steps=2)
        torch.testing.assert_close(together.lower[i : i + 1], alone.lower, atol=1e-9, rtol=0)
        torch.testing.assert_close(together.upper[i : i + 1], alone.upper, atol=1e-9, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_call_has_the_same_bounds(method: str) -> None:
    model, x, bounded = captured("mlp")
    first, second = (bounded.compute_bounds(x, LpBall(2, 0.3), method, steps=3) for _ in range(2))
    fresh = bound(model, x, LpBall(2, 0.3), method, steps=3)
    for other in (second, fresh):
        assert torch.equal(first.lower, other.lower)
        assert torch.equal(first.upper, other.upper)


@pytest.mark.parametrize("method", METHODS)
def test_one_side_is_what_both_sides_have(method: str) -> None:
    _, x, bounded = captured("mlp")
    both = bounded.compute_bounds(x, LpBall(INF, 0.2), method, steps=2)
    below = bounded.compute_bounds(x, LpBall(INF, 0.2), method, upper=False, steps=2)
    above = bounded.compute_bounds(x, LpBall(INF, 0.2), method, lower=False, steps=2)
    assert below.upper is None
    assert above.lower is None
    torch.testing.assert_close(below.lower, both.lower, atol=1e-12, rtol=0)
    torch.testing.assert_close(above.upper, both.upper, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("name", "method"),
    _cases({("attention", "ibp"), *(("mlp", method) for method in METHODS)}, ("mlp", "attention"), METHODS),
)
def test_single_precision_agrees_with_double(name: str, method: str) -> None:
    model, x, bounded = captured(name)
    exact = bounded.compute_bounds(x, LpBall(INF, 0.05), method, steps=1)
    make = Attention if name == "attention" else lambda: mlp(4, 8, 8, 3)
    single = make().eval()
    single.load_state_dict(model.state_dict())
    ours = bound(single, x.float(), LpBall(INF, 0.05), method, steps=1)
    assert ours.lower.dtype == torch.float32
    # A ReLU whose interval ends near zero may be relaxed in another way; everything else differs by rounding.
    torch.testing.assert_close(ours.lower.double(), exact.lower, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.upper.double(), exact.upper, atol=1e-4, rtol=1e-4)


def _directional(function, tensors: list[Tensor], step: float = 1e-6) -> tuple[float, float]:
    """Return the derivative of a function along a random direction: by gradients, and by finite differences."""
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(one.shape, generator=generator, dtype=one.dtype) for one in tensors]
    gradients = torch.autograd.grad(function(), tensors)
    slope = sum((a * b).sum().item() for a, b in zip(gradients, directions, strict=True))
    ends = []
    for move in (step, -2 * step):
        with torch.no_grad():
            for one, direction in zip(tensors, directions, strict=True):
                one.add_(direction, alpha=move)
            ends.append(function().item())
    with torch.no_grad():
        for one, direction in zip(tensors, directions, strict=True):
            one.add_(direction, alpha=step)
    return slope, (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize(
    ("kind", "method"),
    _cases(
        {("two inputs", "crown"), ("attention", "ibp"), *(("relu", method) for method in METHODS)},
        ("relu", "two inputs", "attention"),
        METHODS[:-1],
    ),
)
def test_gradients_of_bounds_are_those_of_finite_differences(kind: str, method: str) -> None:
    """In the weights, the centre and the radius."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = {"relu": lambda: mlp(4, 6, 3), "attention": Attention, "two inputs": Twice}[kind]().double().eval()
        x = torch.randn(2, 2, 4, dtype=torch.float64) if kind == "attention" else torch.randn(2, 4, dtype=torch.float64)
    inputs = (x, x.flip(0).clone()) if kind == "two inputs" else (x,)
    bounded = BoundedModule(model, inputs)
    eps = torch.full((2,), 0.07, dtype=torch.float64, requires_grad=True)
    centre = x.clone().requires_grad_()

    def total() -> Tensor:
        bounds = bounded.compute_bounds((centre, *inputs[1:]), LpBall(INF, eps), method)
        weights = torch.linspace(0.5, 1.5, bounds.lower.numel(), dtype=torch.float64).reshape(bounds.lower.shape)
        return (weights * bounds.lower).sum() + bounds.upper.sin().sum()

    for tensors in ([eps], [centre], list(model.parameters())):
        try:
            slope, change = _directional(total, tensors)
        except RuntimeError as error:  # a parameter that bounds do not depend on
            assert "unused" in str(error) or "not have been used" in str(error)  # noqa: PT017
            tensors = [one for one in tensors if torch.autograd.grad(total(), one, allow_unused=True)[0] is not None]
            slope, change = _directional(total, tensors)
        assert slope == pytest.approx(change, rel=1e-4, abs=1e-6)


def test_a_specification_is_a_last_linear_layer() -> None:
    model, x, bounded = captured("mlp")
    C = margin_spec(torch.tensor([0, 2]), 3).double()
    for i, row in enumerate(C):
        last = nn.Linear(3, 2, bias=False).double()
        last.weight.data = row
        whole = BoundedModule(nn.Sequential(model, last), x)
        for method in ("ibp", "crown", "crown-ibp", "forward", "forward+crown"):
            ours = bounded.compute_bounds(x, LpBall(INF, 0.1), method, C).lower[i]
            theirs = whole.compute_bounds(x, LpBall(INF, 0.1), method).lower[i]
            if method in ("ibp", "forward"):  # these pull a specification through the last layer, which is better
                assert (ours >= theirs - 1e-9).all()
                assert method == "forward" or (ours > theirs + 1e-6).any()
            else:
                torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


def test_larger_sets_have_wider_bounds_of_intervals() -> None:
    _, x, bounded = captured("residual")
    before: Bounds | None = None
    for eps in (0.0, 0.01, 0.1, 0.3):
        bounds = bounded.compute_bounds(x, LpBall(INF, eps), "ibp")
        if before is not None:
            assert (bounds.lower <= before.lower).all()
            assert (bounds.upper >= before.upper).all()
        before = bounds


def test_a_box_is_the_ball_of_its_radius() -> None:
    _, x, bounded = captured("mlp")
    for method in METHODS:
        ball = bounded.compute_bounds(x, LpBall(INF, 0.2), method, steps=1)
        box = bounded.compute_bounds(x, Box(x - 0.2, x + 0.2), method, steps=1)
        torch.testing.assert_close(box.lower, ball.lower, atol=1e-12, rtol=0)


def test_given_intervals_are_taken() -> None:
    model, x, bounded = captured("mlp")
    bounded.compute_bounds(x, LpBall(INF, 0.5))
    low, high = bounded.interval("linear")
    free = bounded.compute_bounds(x, LpBall(INF, 0.5), intervals={"linear": (low, high)})
    # A split: the neuron that is least certain is taken to be active, which the bounds of points where it is must hold.
    neuron = int(torch.minimum(-low, high).amin(0).argmax())
    active = low.clone()
    active[:, neuron] = 0
    split = bounded.compute_bounds(x, LpBall(INF, 0.5), intervals={"linear": (active, high)})
    assert torch.equal(bounded.interval("linear").lower, active)
    assert not torch.equal(split.lower, free.lower)
    for one in random_points(LpBall(INF, 0.5), x, 100, torch.Generator().manual_seed(0)):
        on = model[0](one)[:, neuron] >= 0
        assert (model(one) >= split.lower - 1e-9)[on].all()
        assert (model(one) <= split.upper + 1e-9)[on].all()
