"""Softmax, its logarithm and log-sum-exp: planes against random points of random boxes, intervals against corners."""

from __future__ import annotations

import itertools

import pytest
import torch
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
from offprint.methods.certify.lirpa.operators.softmax import LogSoftmax, LogSumExp, Softmax

aten = torch.ops.aten
CASES = [
    (Softmax(), aten.softmax.int, lambda x: x.softmax(-1), (-1,)),
    (LogSoftmax(), aten.log_softmax.int, lambda x: x.log_softmax(-1), (-1,)),
    (LogSumExp(), aten.logsumexp.default, lambda x: x.logsumexp(-1), ([-1], False)),
]
every_case = pytest.mark.parametrize(("operator", "target", "function", "args"), CASES, ids=["p", "log_p", "lse"])


def call_of(target: object, like: Tensor, args: tuple[object, ...], shape: torch.Size) -> Call:
    layout = Layout(0, like.shape[0])
    return Call(
        name="it",
        target=target,
        args=(like.to("meta"), *args),
        inputs=(Input(0, 0, like.shape, layout),),
        shape=shape,
        layout=layout,
        dtype=like.dtype,
        device=like.device,
        value=lambda _: like,
    )


def height(plane: Plane, points: Tensor) -> Tensor:
    """Return the plane in points (n, *input shape), by `push` of the points themselves."""
    assert plane.offset is not None
    return plane.push([points], [points]) + plane.offset


def boxes(n_classes: int = 5, count: int = 300) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n_classes)
    centre = torch.randn(count, n_classes, generator=generator, dtype=torch.float64) * 4
    centre[::5] *= 10
    width = 10 ** (torch.rand(count, n_classes, generator=generator, dtype=torch.float64) * 8 - 6.5)
    return centre - width / 2, centre + width / 2


def points_of(lower: Tensor, upper: Tensor) -> Tensor:
    """Return random points of boxes, and all corners."""
    generator = torch.Generator().manual_seed(1)
    inside = torch.rand(300, *lower.shape, generator=generator, dtype=lower.dtype)
    corners = torch.tensor(list(itertools.product([0.0, 1.0], repeat=lower.shape[-1])), dtype=lower.dtype)
    share = torch.cat([inside, corners.unsqueeze(1).expand(-1, *lower.shape)])
    return (lower * (1 - share) + upper * share).clamp(lower, upper)


@every_case
@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_planes_are_sound_in_random_points_and_corners(operator, target, function, args, n_classes) -> None:
    lower, upper = boxes(n_classes)
    call = call_of(target, lower, args, function(lower).shape)
    points = points_of(lower, upper)
    values = function(points)
    generator = torch.Generator().manual_seed(5)
    for choice in (None, torch.rand(2, *lower.shape, generator=generator, dtype=torch.float64)):
        relaxation = operator.relax(call, [Interval(lower, upper)], choice)
        scale = 1 + points.abs().amax((0, -1), keepdim=True).reshape(-1, *[1] * (values.ndim - 2))
        assert ((values - height(relaxation.lower, points)) >= -1e-9 * scale).all()  # rounding of numbers up to 100
        assert ((height(relaxation.upper, points) - values) >= -1e-9 * scale).all()


@every_case
def test_intervals_are_those_of_the_corners(operator, target, function, args) -> None:
    lower, upper = boxes()
    call = call_of(target, lower, args, function(lower).shape)
    low, high = operator.interval(call, [Interval(lower, upper)])
    values = function(points_of(lower, upper)[300:])  # each is monotone in every input, so a corner is extreme
    torch.testing.assert_close(low, values.amin(0), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(high, values.amax(0), rtol=1e-9, atol=1e-15)


@every_case
def test_points_have_exact_planes_and_extreme_boxes_finite_ones(operator, target, function, args) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
        point = torch.tensor([[0.3, -2.0, 1.0], [-1e6, 0.0, 3.0], [30.0, -30.0, 29.0]], dtype=dtype)
        call = call_of(target, point, args, function(point).shape)
        relaxation = operator.relax(call, [Interval(point, point)])
        for plane in (relaxation.lower, relaxation.upper):
            torch.testing.assert_close(
                height(plane, point.unsqueeze(0))[0], function(point), rtol=tolerance, atol=tolerance
            )
        lower = torch.tensor([[-1e4, -1.0, 0.0], [-1e4, -1e4, -1e4], [-1e6, 3.0, -1e-12]], dtype=dtype)
        upper = torch.tensor([[1e4, 1.0, 0.0], [1e4, 1e4, 1e4], [-1e6, 1e4, 1e-12]], dtype=dtype)
        lower.requires_grad_()
        upper.requires_grad_()
        relaxation = operator.relax(call, [Interval(lower, upper)])
        outputs = [height(plane, lower.detach().unsqueeze(0)) for plane in (relaxation.lower, relaxation.upper)]
        outputs += list(operator.interval(call, [Interval(lower, upper)]))
        for output in outputs:
            assert output.isfinite().all()
            for gradient in torch.autograd.grad(output.sum(), (lower, upper), retain_graph=True, allow_unused=True):
                assert gradient is None or gradient.isfinite().all()


def jacobian(plane: Plane, point: Tensor) -> Tensor:
    """Return the coefficients of a plane for one sample, from how it moves points."""
    return torch.func.jacrev(lambda x: height(plane, x.unsqueeze(0))[0])(point)


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("operator", [Softmax(), LogSoftmax()], ids=["p", "log_p"])
def test_transpose_and_push_say_the_same_plane(operator: Operator, axis: int) -> None:
    generator = torch.Generator().manual_seed(2)
    lower = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    upper = lower + torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    call = call_of(aten.softmax.int, lower, (axis,), lower.shape)
    relaxation = operator.relax(call, [Interval(lower, upper)])
    for plane in (relaxation.lower, relaxation.upper):
        matrix = jacobian(plane, lower).reshape(24, 24)
        rows = torch.eye(24, dtype=torch.float64).reshape(24, 2, 3, 4)
        torch.testing.assert_close(plane.transpose(rows)[0].reshape(24, 24), matrix)
        pushed = plane.push([lower.unsqueeze(0)], [upper.unsqueeze(0)]).flatten()
        dense = matrix.clamp(min=0) @ lower.flatten() + matrix.clamp(max=0) @ upper.flatten()
        torch.testing.assert_close(pushed, dense)


@pytest.mark.parametrize(("dims", "keepdim"), [([1], False), ([2], True), ([1, 3], False), ([-1, -2], True)])
def test_log_sum_exp_over_any_axes(dims: list[int], keepdim: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    lower = torch.randn(2, 3, 4, 2, generator=generator, dtype=torch.float64)
    upper = lower + torch.rand(2, 3, 4, 2, generator=generator, dtype=torch.float64)
    value = lower.logsumexp(dims, keepdim)
    call = call_of(aten.logsumexp.default, lower, (dims, keepdim), value.shape)
    operator = LogSumExp()
    low, high = operator.interval(call, [Interval(lower, upper)])
    torch.testing.assert_close(low, value)
    torch.testing.assert_close(high, upper.logsumexp(dims, keepdim))
    relaxation = operator.relax(call, [Interval(lower, upper)])
    share = torch.rand(50, *lower.shape, generator=generator, dtype=torch.float64)
    points = lower * (1 - share) + upper * share
    values = points.logsumexp([d % 4 + 1 for d in dims], keepdim)
    assert (height(relaxation.lower, points) <= values + 1e-12).all()
    assert (height(relaxation.upper, points) >= values - 1e-12).all()
    for plane in (relaxation.lower, relaxation.upper):
        matrix = jacobian(plane, lower).reshape(value.numel(), -1)
        rows = torch.eye(value.numel(), dtype=torch.float64).reshape(-1, *value.shape)
        torch.testing.assert_close(plane.transpose(rows)[0].reshape(value.numel(), -1), matrix)


def test_single_class_is_certain_and_softmax_over_samples_is_refused() -> None:
    lower, upper = torch.tensor([[-1.0]]), torch.tensor([[2.0]])
    call = call_of(aten.softmax.int, lower, (-1,), lower.shape)
    low, high = Softmax().interval(call, [Interval(lower, upper)])
    assert low.item() == high.item() == 1
    lower, upper = lower.requires_grad_(), upper.requires_grad_()
    relaxation = Softmax().relax(call, [Interval(lower, upper)])
    for output in (*Softmax().interval(call, [Interval(lower, upper)]), relaxation.upper.offset):
        for gradient in torch.autograd.grad(output.sum(), (lower, upper), retain_graph=True, allow_unused=True):
            assert gradient is None or gradient.item() == 0
    with pytest.raises(MixedSamplesError):
        Softmax().layout(call_of(aten.softmax.int, torch.zeros(3, 2), (0,), torch.Size([3, 2])))
