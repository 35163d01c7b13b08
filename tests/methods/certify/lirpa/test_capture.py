"""What is captured: modules as people write them, with what is in them, and what is refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offprint.methods.certify.lirpa.bounds import METHODS, BoundedModule, bound
from offprint.methods.certify.lirpa.capture import capture
from offprint.methods.certify.lirpa.graph import Graph
from offprint.methods.certify.lirpa.operators import base
from offprint.methods.certify.lirpa.operators.base import Interval, Operator, Plane, Relaxation, register_op
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines
from offprint.methods.certify.lirpa.perturbations import LpBall
from offprint.methods.certify.lirpa.problem import Problem, UnsupportedOperatorError

INF = math.inf


def seeded(make: type[nn.Module], *args: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*args).double().eval()


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def values_of(graph: Graph, model: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """Run a captured graph."""
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    roots = {}
    for node in graph.nodes:
        if node.target is None:
            roots[node] = (
                inputs[node.key] if node.kind == "input" else node.key if node.kind == "constant" else named[node.key]
            )
    problem = Problem(graph, roots, {}, None)
    return [problem.value(one) for one in graph.outputs]


def agree(model: nn.Module, *inputs: Tensor) -> Graph:
    """Capture a module and hold what the graph computes against what the module does."""
    graph = capture(model, inputs)
    expected = model(*(one.clone() for one in inputs))
    flat = list(expected.values()) if isinstance(expected, dict) else expected
    flat = [flat] if isinstance(flat, Tensor) else list(flat)
    for ours, theirs in zip(values_of(graph, model, *inputs), flat, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    return graph


class SeveralOutputs(nn.Module):
    """Two inputs, a dictionary of outputs, a shared module, a buffer, and arguments by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.register_buffer("scale", torch.tensor([1.0, -2.0, 0.5, 3.0]))

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        hidden = self.shared(input=self.shared(x).relu())
        return {
            "sum": torch.add(hidden * self.scale, y, alpha=2.0),
            "soft": torch.softmax(input=hidden, dim=-1),
            "norm": F.layer_norm(y, normalized_shape=(4,), eps=0.1),
        }


def test_several_inputs_outputs_shared_modules_buffers_and_keywords() -> None:
    model, x, y = seeded(SeveralOutputs), numbers(2, 4), numbers(3, 2, 4)[0]
    graph = agree(model, x, y)
    assert len(graph.outputs) == 3
    assert sorted(node.key for node in graph.nodes if node.kind == "parameter") == ["shared.bias", "shared.weight"]
    assert [node.module for node in graph.nodes if node.name.startswith("linear")] == ["shared", "shared"]
    bounded = BoundedModule(model, (x, y))
    outputs = list(model(x, y).values())
    for i, value in enumerate(outputs):
        for balls in ({0: LpBall(INF, 0.1)}, {1: LpBall(2, 0.1)}, {0: LpBall(INF, 0.1), 1: LpBall(2, 0.1)}):
            bounds = bounded.compute_bounds((x, y), balls, output=i)
            assert (bounds.lower <= value + 1e-12).all()
            assert (bounds.upper >= value - 1e-12).all()
            moves = (bounds.upper - bounds.lower).max() > 1e-6
            assert bool(moves) == ((0 in balls and i != 2) or (1 in balls and i != 1))


def test_buffers_and_parameters_are_read_anew() -> None:
    model, x, y = seeded(SeveralOutputs), numbers(2, 4), numbers(2, 4)
    bounded = BoundedModule(model, (x, y))
    with torch.no_grad():
        model.scale.mul_(-1)
        model.shared.weight.add_(0.3)
    bounds = bounded.compute_bounds((x, y), LpBall(INF, 0.0))
    torch.testing.assert_close(bounds.lower, model(x, y)["sum"], rtol=1e-9, atol=1e-9)


def test_another_batch_and_another_shape_are_captured_when_they_come() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()).double()
    bounded = BoundedModule(model, numbers(2, 1, 4, 4))
    for shape in ((2, 1, 4, 4), (1, 1, 4, 4), (3, 1, 6, 5)):
        x = numbers(*shape)
        bounds = bounded.compute_bounds(x, LpBall(INF, 0.0))
        torch.testing.assert_close(bounds.upper, model(x), rtol=1e-9, atol=1e-9)
    assert bounded.graph(numbers(3, 1, 6, 5)) is bounded.graph(numbers(3, 1, 6, 5))


class InPlace(nn.Module):
    """Changes in place, of copies and of the tensors themselves."""

    def forward(self, x: Tensor) -> Tensor:
        kept = x.clone()
        x = x * 2
        other = x
        x.add_(1).relu_()
        y = kept.sigmoid_() + other
        z = y.clone()
        y *= 3
        return torch.cat([x, y, z], 1)


class OldView(nn.Module):
    """A view is made, then what it looks at is changed."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        view = x.view(-1)
        x.relu_()
        return view.reshape(x.shape) * 2


class ChangedView(nn.Module):
    """A view is changed, then what it looks at is read."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        x.view(-1).relu_()
        return x * 2


class ChangedPart(nn.Module):
    """A part is written over."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        x[:, 0] = 0.0
        return x * 2


@pytest.mark.parametrize("make", [InPlace, OldView, ChangedView, ChangedPart])
def test_changes_in_place_are_followed_or_refused(make: type[nn.Module]) -> None:
    """A graph that computes something else than the module would certify something else."""
    model, x = make(), numbers(2, 3)
    try:
        graph = capture(model, [x])
    except ValueError as error:
        assert "in place" in str(error)  # noqa: PT017  either is right
        assert make is not InPlace
        return
    (ours,) = values_of(graph, model, x)
    torch.testing.assert_close(ours, model(x.clone()))


class Pieces(nn.Module):
    """What people write besides layers: einsum, comparisons of shapes, loops, norms, gates, casts."""

    def forward(self, x: Tensor) -> Tensor:
        n, positions, features = x.shape
        scores = torch.einsum("bid,bjd->bij", x, x) / math.sqrt(features)
        if positions > 1:
            scores = scores.masked_fill(torch.ones(positions, positions, dtype=torch.bool).triu(1), -math.inf)
        y = torch.softmax(scores, -1) @ x
        for part in y.unbind(1):
            y = y + 0.1 * part.unsqueeze(1).tanh()
        y = torch.cat([y, y.new_zeros(n, 1, features), torch.zeros_like(y)], 1)
        gate, value = y.chunk(2, dim=-1)
        return (value * gate.sigmoid()).flatten(1).to(x.dtype) + y.mean((1, 2), keepdim=True).flatten(1)


def test_what_people_write_between_layers() -> None:
    x = numbers(2, 3, 4)
    agree(Pieces(), x)
    bounds = bound(Pieces(), x, LpBall(INF, 0.05))
    for sign in (-1, 1):
        value = Pieces()(x + 0.05 * sign * numbers(2, 3, 4).sign())
        assert (bounds.lower <= value + 1e-9).all()
        assert (bounds.upper >= value - 1e-9).all()


class Modes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(self.first(x)).relu()))


def test_layers_in_training_mode_are_refused_or_chosen() -> None:
    model, x = seeded(Modes), numbers(6, 3)
    agree(model, x)
    model.train()
    with pytest.raises(ValueError, match=r"'norm'.*batch norm in training mode"):
        BoundedModule(model, x, dropout="identity")
    with pytest.raises(ValueError, match=r"'drop'.*dropout"):
        BoundedModule(model, x, batch_norm="forward")
    model.drop.eval()
    expected = model(x).detach()
    model.drop.train()
    for choice in ("forward", "ibp"):
        bounded = BoundedModule(model, x, batch_norm=choice, dropout="identity")
        bounds = bounded.compute_bounds(x, LpBall(INF, 0.0))
        torch.testing.assert_close(bounds.lower, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("choice", ["forward", "ibp"])
@pytest.mark.parametrize("method", ["ibp", "forward", "crown"])
def test_batch_statistics_are_those_of_the_clean_batch_or_of_the_middles(choice: str, method: str) -> None:
    """Bounds are those of the same network in evaluation mode with these statistics."""
    model, x = seeded(Modes), numbers(6, 3)
    region = LpBall(INF, 0.2, x_L=x - 0.05, x_U=None)
    middle = x if choice == "forward" else x + (0.2 - 0.05) / 2
    hidden = model.first(middle).detach()
    still = seeded(Modes)
    still.norm.running_mean, still.norm.running_var = hidden.mean(0), hidden.var(0, correction=0)
    expected = bound(still, x, region, method)
    ours = BoundedModule(model.train(), x, batch_norm=choice, dropout="identity").compute_bounds(x, region, method)
    torch.testing.assert_close(ours.lower, expected.lower, atol=1e-9, rtol=0)
    torch.testing.assert_close(ours.upper, expected.upper, atol=1e-9, rtol=0)


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.aten.digamma.default(x)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity(), Inner()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


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


class ConcaveDigamma(Elementwise):
    """The same as a function of one number: a chord below, a tangent above."""

    def value(self, inputs: Tensor) -> Tensor:
        return inputs.digamma()

    def interval(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return lower.digamma(), upper.digamma()

    def relax(self, lower: Tensor, upper: Tensor, choice: Tensor | None = None) -> Lines:
        below = (upper.digamma() - lower.digamma()) / (upper - lower).clamp(min=1e-12)
        middle = (lower + upper) / 2
        above = torch.special.polygamma(1, middle)
        return Lines(below, lower.digamma() - below * lower, above, middle.digamma() - above * middle)


def test_an_operator_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_operators", dict(base._operators))
    model, x = Outer(), numbers(2, 3).abs() + 1
    message = r"aten\.digamma.*'digamma'.*'blocks\.1'.*register_op"
    with pytest.raises(UnsupportedOperatorError, match=message):
        bound(model, x, LpBall(INF, 0.1))
    register_op(torch.ops.aten.digamma.default, Digamma)
    for method in METHODS:
        bounds = bound(model, x, LpBall(INF, 0.1), method, steps=1)
        torch.testing.assert_close(bounds.lower, (x - 0.1).digamma())
        torch.testing.assert_close(bounds.upper, (x + 0.1).digamma())
    register_op(torch.ops.aten.digamma.default, ConcaveDigamma)
    for method in METHODS:
        bounds = bound(model, x, LpBall(INF, 0.1), method, steps=1, return_A=method != "ibp")
        torch.testing.assert_close(bounds.lower, (x - 0.1).digamma())  # a chord meets the curve at the ends
        assert (bounds.upper >= (x + 0.1).digamma() - 1e-12).all()
        if method != "ibp":
            torch.testing.assert_close(bounds.uA.diagonal(dim1=1, dim2=2), torch.special.polygamma(1, x))


def test_operators_that_no_perturbation_reaches_need_no_bounds() -> None:
    class Aside(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x * torch.ops.aten.digamma.default(y).round() + torch.special.gammaln(y)

    x, y = numbers(2, 3), numbers(2, 3).abs() + 1
    bounds = bound(Aside(), (x, y), LpBall(INF, 0.1))
    reach = 0.1 * y.digamma().round().abs()
    torch.testing.assert_close(bounds.lower, Aside()(x, y) - reach)
    with pytest.raises(UnsupportedOperatorError, match="digamma"):
        bound(Aside(), (x, y), {1: LpBall(INF, 0.1)})


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def test_what_cannot_be_captured_is_said() -> None:
    x = numbers(2, 3)
    with pytest.raises(ValueError, match=r"captured.*Control flow"):
        BoundedModule(Branching(), x)
    with pytest.raises(ValueError, match="mixes the samples"):
        bound(Mixing(), x, LpBall(INF, 0.1))
    together = BoundedModule(Mixing(), x, batched=False).compute_bounds(x, LpBall(INF, 0.1))
    torch.testing.assert_close(together.upper, Mixing()(x) + 0.1)  # |1 - 1/2| + |1/2|


class Masked(nn.Module):
    """Attention of tokens to tokens under an additive mask, which is a buffer or given."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.project = nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = self.mask if mask is None else mask
        return torch.softmax(self.project(x) @ x.mT + mask, -1) @ x


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("method", ["ibp", "forward", "crown"])
def test_masks_with_infinities_hide_what_they_mask(given: bool, method: str) -> None:
    """The last token is hidden from the others: whatever happens to it, their outputs stay."""
    mask = torch.zeros(3, 3, dtype=torch.float64)
    mask[:2, 2] = -INF
    model, x = seeded(Masked, torch.zeros_like(mask) if given else mask), numbers(2, 3, 4)
    inputs = (x, mask.expand(2, 3, 3)) if given else (x,)
    radius = torch.zeros(3, 4, dtype=torch.float64)
    radius[2] = 0.3
    bounds = BoundedModule(model, inputs).compute_bounds(inputs, LpBall(INF, radius), method)
    outputs = model(*inputs)
    assert torch.allclose(bounds.lower[:, :2], outputs[:, :2], atol=1e-9)
    assert torch.allclose(bounds.upper[:, :2], outputs[:, :2], atol=1e-9)
    assert bool((bounds.upper[:, 2] > bounds.lower[:, 2] + 1e-3).all())


def test_perturbed_roots_are_finite_and_nothing_is_not_a_number() -> None:
    model, x = seeded(Masked, torch.zeros(3, 3, dtype=torch.float64)), numbers(2, 3, 4)
    mask = torch.full((2, 3, 3), -INF, dtype=torch.float64)
    bounded = BoundedModule(model, (x, mask.zero_()))
    mask[0, 0, 0] = -INF
    with pytest.raises(ValueError, match="input 1 is not finite"):
        bounded.compute_bounds((x, mask), {1: LpBall(INF, 0.1)})
    with pytest.raises(ValueError, match="buffer 'mask' has NaN"):
        BoundedModule(seeded(Masked, mask[0] * 0), x).compute_bounds(x, LpBall(INF, 0.1))


class Nested(nn.Module):
    """A container that ends in a shortcut of its own, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.twice, self.last = Shortcut(), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.twice(self.twice(self.block(x))))


class Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.act = nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.inner(x))


def test_the_output_of_a_module_by_its_path() -> None:
    model, x, ball = seeded(Nested), numbers(3, 4), LpBall(INF, 0.1)
    bounded = BoundedModule(model, x)
    rest = nn.Sequential(model.twice, model.twice, model.last)
    for path in ("block", "block.act"):
        ours = bounded.compute_bounds(x, {path: ball}, "crown")
        theirs = bound(rest, model.block(x).detach(), ball, "crown")
        assert torch.allclose(ours.lower, theirs.lower, atol=1e-12)
        assert torch.allclose(ours.upper, theirs.upper, atol=1e-12)
    for path in ("twice", "twice.1"):
        with pytest.raises(
            ValueError, match=rf"module '{path}' has several outputs or is called again.*tanh_1.*tanh_2"
        ):
            bounded.compute_bounds(x, {path: ball}, "crown")
