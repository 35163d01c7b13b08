"""Maxima and minima: planes against torch's own pooling and reductions in random points, and by brute force."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from offprint.methods.certify.lirpa.operators.base import (
    Call,
    Input,
    Interval,
    Layout,
    MixedSamplesError,
    Operator,
    Plane,
)
from offprint.methods.certify.lirpa.operators.pooling import AMax, AMin, Maximum, MaxPool, Minimum

aten = torch.ops.aten


def call_of(target: object, args: tuple[object, ...], shape: torch.Size) -> Call:
    """Return a call with every tensor among its arguments perturbed, samples first."""
    tensors = [(i, a) for i, a in enumerate(args) if isinstance(a, Tensor)]
    inputs = tuple(Input(i, 0, a.shape, Layout(0, a.shape[0])) for i, a in tensors)
    given = tuple(a.to("meta") if isinstance(a, Tensor) else a for a in args)
    like = tensors[0][1]
    layout = Layout(0, shape[0])
    return Call("it", target, given, inputs, shape, layout, like.dtype, like.device, lambda i: tensors[i][1])


def boxes(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return boxes among which some have an element above all others."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(shape, generator=generator, dtype=torch.float64)
    width = torch.rand(shape, generator=generator, dtype=torch.float64) ** 3 * 1.5
    return centre - width, centre + width


def height(plane: Plane, *points: Tensor) -> Tensor:
    base = plane.push(list(points), list(points))
    return base if plane.offset is None else base + plane.offset


def check(operator: Operator, call: Call, intervals: list[Interval], function, choice: Tensor | None = None) -> None:
    """Hold interval and planes against the function in random points, and the two forms of the planes together."""
    generator = torch.Generator().manual_seed(3)
    points = []
    for lower, upper in intervals:
        share = torch.rand(40, *lower.shape, generator=generator, dtype=torch.float64)
        points.append(lower * (1 - share) + upper * share)
    values = torch.stack([function(*(p[i] for p in points)) for i in range(40)])
    low, high = operator.interval(call, intervals)
    torch.testing.assert_close(low, _best(function, intervals, 0), rtol=0, atol=0)
    torch.testing.assert_close(high, _best(function, intervals, 1), rtol=0, atol=0)
    relaxation = operator.relax(call, intervals, choice)
    assert (height(relaxation.lower, *points) <= values + 1e-12).all()
    assert (height(relaxation.upper, *points) >= values - 1e-12).all()
    n = values[0].numel()
    rows = torch.eye(n, dtype=torch.float64).reshape(n, *call.shape)
    for plane in (relaxation.lower, relaxation.upper):
        pulled = plane.transpose(rows)
        assert [p.shape for p in pulled] == [(n, *i.lower.shape) for i in intervals]
        linear = sum(p.flatten(1) @ i.upper.flatten() for p, i in zip(pulled, intervals, strict=True))
        ups = [i.upper.unsqueeze(0) for i in intervals]
        torch.testing.assert_close(linear, plane.push(ups, ups).flatten())


def _best(function, intervals: list[Interval], end: int) -> Tensor:
    return function(*((i.lower, i.upper)[end] for i in intervals))  # maxima and minima grow in every input


SETTINGS = [
    ([2], [], [0], [1], False),
    ([3], [2], [1], [1], False),
    ([3], [1], [0], [2], False),
    ([3], [2], [1], [1], True),
    ([2], [3], [0], [1], True),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("n_axes", [1, 2, 3])
def test_max_pool_agrees_with_torch(n_axes: int, setting: tuple) -> None:
    kernel, stride, padding, dilation, ceil = setting
    if n_axes == 3 and dilation == [2]:
        kernel, dilation = [2], [2]
    kernel, stride, padding, dilation = (list(x) * n_axes for x in (kernel, stride, padding, dilation))
    lower, upper = boxes(2, 2, *[8, 7, 5][:n_axes])
    pool, target = {
        1: (F.max_pool1d, aten.max_pool1d.default),
        2: (F.max_pool2d, aten.max_pool2d.default),
        3: (F.max_pool3d, aten.max_pool3d.default),
    }[n_axes]

    def function(x: Tensor) -> Tensor:
        return pool(x, kernel, stride or None, padding, dilation, ceil)

    call = call_of(target, (lower, kernel, stride, padding, dilation, ceil), function(lower).shape)
    check(MaxPool(n_axes), call, [Interval(lower, upper)], function)


def test_max_pool_planes_are_the_rule_by_brute_force() -> None:
    lower, upper = boxes(1, 1, 6, 6, seed=4)
    settings = ([3, 2], [2, 1], [1, 1], [2, 1], False)
    call = call_of(aten.max_pool2d.default, (lower, *settings), F.max_pool2d(lower, *settings).shape)
    n_rows, n_columns = call.shape[2:]
    n = n_rows * n_columns
    relaxation = MaxPool(2).relax(call, [Interval(lower, upper)])
    rows = torch.eye(n, dtype=torch.float64).reshape(n, *call.shape)
    below, above = relaxation.lower.transpose(rows)[0][:, 0, 0], relaxation.upper.transpose(rows)[0][:, 0, 0]
    low, high, offset = lower[0, 0], upper[0, 0], relaxation.upper.offset
    assert offset is not None
    n_clear = 0
    for i in range(n_rows):
        for j in range(n_columns):
            window = [(2 * i - 1 + 2 * a, j - 1 + b) for a in range(3) for b in range(2)]
            window = [(a, b) for a, b in window if 0 <= a < 6 and 0 <= b < 6]
            best = max(window, key=lambda at: low[at].item())
            clear = low[best] >= max(high[at] for at in window if at != best)
            unit = torch.zeros(6, 6, dtype=torch.float64)
            unit[best] = 1
            torch.testing.assert_close(below[n_columns * i + j], unit)
            torch.testing.assert_close(above[n_columns * i + j], unit * clear)
            assert offset[0, 0, i, j] == (0 if clear else max(high[at] for at in window))
            n_clear += int(clear)
    assert 0 < n_clear < n


@pytest.mark.parametrize(("operator", "function"), [(AMax(), torch.amax), (AMin(), torch.amin)], ids=["max", "min"])
@pytest.mark.parametrize(("dims", "keepdim"), [([1], False), ([2], True), ([1, 3], False), ([-1, -2], True)])
def test_extremes_over_axes(operator: Operator, function, dims: list[int], keepdim: bool) -> None:
    lower, upper = boxes(2, 3, 4, 2, seed=5)

    def over(x: Tensor) -> Tensor:
        return function(x, dims, keepdim)

    call = call_of(aten.amax.default, (lower, dims, keepdim), over(lower).shape)
    check(operator, call, [Interval(lower, upper)], over)
    layout = operator.layout(call)
    assert layout is not None
    assert layout.axis == 0
    with pytest.raises(MixedSamplesError):
        operator.layout(call_of(aten.amax.default, (lower, [0], False), lower[0].shape))


@pytest.mark.parametrize(
    ("operator", "function"), [(Maximum(), torch.maximum), (Minimum(), torch.minimum)], ids=["max", "min"]
)
def test_extremes_of_two(operator: Operator, function) -> None:
    x, y = boxes(2, 3, 4, seed=6), boxes(2, 1, 4, seed=7)
    generator = torch.Generator().manual_seed(8)
    call = call_of(aten.maximum.default, (x[0], y[0]), torch.Size([2, 3, 4]))
    intervals = [Interval(*x), Interval(*y)]
    for choice in (None, torch.rand(2, 2, 3, 4, generator=generator, dtype=torch.float64)):
        check(operator, call, intervals, function, choice)
    default = operator.default_choice(call, intervals)
    assert default is not None
    chosen = operator.relax(call, intervals, default)
    torch.testing.assert_close(chosen.lower.offset, operator.relax(call, intervals).lower.offset)

    constant = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    one = Call(
        "it", aten.maximum.default, (constant, x[0].to("meta")), (Input(1, 0, x[0].shape, Layout(0, 2)),),
        x[0].shape, Layout(0, 2), x[0].dtype, x[0].device, lambda _: x[0],
    )  # fmt: skip
    check(operator, one, [Interval(*x)], lambda v: function(constant, v))


def test_maximum_is_tight_where_the_order_is_known() -> None:
    x = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 3.0]])
    y = torch.tensor([[3.0, -1.0]]), torch.tensor([[4.0, 0.0]])
    call = call_of(aten.maximum.default, (x[0], y[0]), torch.Size([1, 2]))
    relaxation = Maximum().relax(call, [Interval(*x), Interval(*y)])
    for plane in (relaxation.lower, relaxation.upper):
        of_x, of_y = plane.transpose(torch.ones(1, 1, 2))
        assert of_x.tolist() == [[[0, 1]]]
        assert of_y.tolist() == [[[1, 0]]]
        assert plane.offset.tolist() == [[0, 0]]
