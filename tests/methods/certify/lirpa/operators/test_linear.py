"""Linear layers, matrix products and convolutions of every geometry against matrices that are built by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from random_networks import Program, Ref, Step, Weight
from torch import Tensor

from offprint.methods.certify.lirpa.bounds import METHODS, BoundedModule
from offprint.methods.certify.lirpa.operators.base import lookup
from offprint.methods.certify.lirpa.perturbations import LpBall

aten = torch.ops.aten


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix_of_convolution(weight: Tensor, lengths: tuple[int, ...], stride, padding, dilation, groups: int) -> Tensor:
    """Return what a convolution multiplies a flattened input by, entry by entry from its definition."""
    n_out, per_group, *kernel = weight.shape
    n_in = per_group * groups
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(lengths, padding, dilation, kernel, stride, strict=True)
    ]
    matrix = torch.zeros(n_out, *out, n_in, *lengths, dtype=weight.dtype)
    for o in range(n_out):
        first = o // (n_out // groups) * per_group
        for at in itertools.product(*map(range, out)):
            for i, *offset in itertools.product(range(per_group), *map(range, kernel)):
                read = [a * s - p + f * d for a, s, p, f, d in zip(at, stride, padding, offset, dilation, strict=True)]
                if all(0 <= r < n for r, n in zip(read, lengths, strict=True)):
                    matrix[(o, *at, first + i, *read)] += weight[(o, i, *offset)]
    return matrix.reshape(n_out * math.prod(out), -1)


def one_call(target, *args, weights: dict[str, Tensor] | None = None) -> Program:
    return Program(1, [Step(target, (Ref(0), *args), {})], [Ref(1)], weights or {})


def hold(program: Program, x: Tensor, matrix: Tensor, offset: Tensor, methods=METHODS) -> None:
    """Hold bounds over a ball and a box, and the coefficients, against ``matrix @ x + offset``."""
    middle = x.flatten(1) @ matrix.T + offset
    bounded = BoundedModule.from_graph(program.graph([x]), program)
    for norm, dual in ((math.inf, 1), (2, 2)):
        reach = 0.3 * torch.linalg.vector_norm(matrix, dual, dim=1)
        for method in methods:
            bounds = bounded.compute_bounds(x, LpBall(norm, 0.3), method, return_A=method != "ibp", steps=0)
            # Right behind a root, intervals are exact for these as well.
            exact = method != "ibp" or norm == math.inf
            assert (bounds.lower.flatten(1) <= middle - reach + 1e-10).all()
            if exact:
                torch.testing.assert_close(bounds.lower.flatten(1), middle - reach, atol=1e-10, rtol=0)
                torch.testing.assert_close(bounds.upper.flatten(1), middle + reach, atol=1e-10, rtol=0)
            if method != "ibp":
                found = bounds.lA.reshape(len(x), *matrix.shape)
                torch.testing.assert_close(found, matrix.expand(found.shape), atol=1e-10, rtol=0)


# kernel, stride, padding, dilation, groups, input channels, output channels
GEOMETRIES = [
    (3, 1, 1, 1, 1, 2, 3),
    (3, 2, 1, 1, 1, 1, 2),
    (2, 2, 0, 1, 2, 4, 2),
    (3, 2, 2, 2, 1, 2, 2),
    (1, 3, 0, 1, 3, 3, 3),
    (4, 3, 2, 1, 1, 3, 1),
    (5, 4, 3, 1, 1, 1, 4),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("n_axes", [1, 2])
def test_convolutions(n_axes: int, geometry: tuple[int, ...]) -> None:
    kernel, stride, padding, dilation, groups, n_in, n_out = geometry
    lengths = (7, 5)[:n_axes]
    kernels = (kernel, max(1, kernel - 1))[:n_axes]
    if n_axes == 2 and kernel == 5:
        kernels = (5, 5)
    weight = numbers(n_out, n_in // groups, *kernels)
    settings = [[one] * n_axes for one in (stride, padding, dilation)]
    matrix = matrix_of_convolution(weight, lengths, *settings, groups)
    bias = numbers(n_out, seed=1)
    target = getattr(aten, f"conv{n_axes}d").default
    program = one_call(target, Weight("w"), Weight("b"), *settings, groups, weights={"w": weight, "b": bias})
    offset = bias.repeat_interleave(len(matrix) // n_out)
    hold(program, numbers(2, n_in, *lengths, seed=2), matrix, offset, ("ibp", "forward", "crown"))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("n_axes", [1, 2])
def test_transposed_convolutions(n_axes: int, geometry: tuple[int, ...]) -> None:
    """Their matrix is the transpose of a convolution's, that of the outputs' lengths."""
    kernel, stride, padding, dilation, groups, n_out, n_in = geometry
    if padding > dilation * (kernel - 1):
        return
    lengths, extra = (4, 3)[:n_axes], max(stride, dilation) - 1
    weight = numbers(n_in, n_out // groups, *[kernel] * n_axes)
    settings = [[one] * n_axes for one in (stride, padding, dilation)]
    out = tuple((n - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1 for n in lengths)
    full = matrix_of_convolution(weight, out, *settings, groups).T
    # A convolution of the outputs may have more values than the input when the padding added is large.
    per_axis = [(n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for n in out]
    full = full.reshape(len(full), n_in, *per_axis)
    matrix = full[(..., *(slice(n) for n in lengths))].flatten(1)
    target = aten.conv_transpose1d.default if n_axes == 1 else aten.conv_transpose2d.input
    bias = numbers(n_out, seed=1)
    args = (Weight("w"), Weight("b"), settings[0], settings[1], [extra] * n_axes, groups, settings[2])
    program = one_call(target, *args, weights={"w": weight, "b": bias})
    offset = bias.repeat_interleave(len(matrix) // n_out)
    hold(program, numbers(2, n_in, *lengths, seed=2), matrix, offset, ("ibp", "forward", "crown"))


@pytest.mark.parametrize("transposed", [False, True])
def test_three_axes_agree_with_torch(transposed: bool) -> None:
    x, weight = numbers(2, 2, 3, 3, 2), numbers(2, 2, 2, 2, 2, seed=1)
    target = aten.conv_transpose3d.input if transposed else aten.conv3d.default
    args = ([2, 1, 1], [0, 1, 0], [0, 0, 0], 1, [1, 1, 1]) if transposed else ([2, 1, 1], [0, 1, 0], [1, 1, 1], 1)
    program = one_call(target, Weight("w"), None, *args, weights={"w": weight})
    jacobian = torch.func.jacrev(lambda one: program(one.unsqueeze(0))[0][0])(x[0])
    matrix = jacobian.flatten(-4).flatten(0, -2).detach()
    hold(program, x, matrix, torch.zeros(len(matrix), dtype=torch.float64), ("ibp", "forward", "crown"))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(padding: str) -> None:
    x, weight = numbers(2, 2, 6), numbers(3, 2, 3, seed=1)
    program = one_call(aten.conv1d.padding, Weight("w"), None, [1], padding, [2], 1, weights={"w": weight})
    matrix = matrix_of_convolution(weight, (6,), [1], [2 if padding == "same" else 0], [2], 1)
    hold(program, x, matrix, torch.zeros(len(matrix), dtype=torch.float64))


def test_linear_layers_and_products_with_constants() -> None:
    x, weight, bias = numbers(2, 3, 4), numbers(5, 4, seed=1), numbers(5, seed=2)
    unit = torch.eye(3, dtype=torch.float64)
    program = one_call(aten.linear.default, Weight("w"), Weight("b"), weights={"w": weight, "b": bias})
    hold(program, x, torch.kron(unit, weight), bias.repeat(3))
    hold(one_call(aten.matmul.default, weight.T.contiguous()), x, torch.kron(unit, weight), torch.zeros(15).double())
    left = numbers(2, 3, seed=3)
    program = Program(1, [Step(aten.matmul.default, (left, Ref(0)), {})], [Ref(1)], {})
    hold(program, x, torch.kron(left, torch.eye(4, dtype=torch.float64)), torch.zeros(8).double())


def test_products_of_two_perturbed_tensors_hold_every_corner() -> None:
    """A product is extreme at corners; bounds of each entry are those of McCormick's planes, summed."""
    x, y = numbers(2, 1, 2), numbers(2, 2, 1, seed=1)
    program = Program(2, [Step(aten.matmul.default, (Ref(0), Ref(1)), {})], [Ref(2)], {})
    bounded = BoundedModule.from_graph(program.graph([x, y]), program)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)), dtype=torch.float64)
    corners = torch.stack([(x + 0.3 * s[:2]) @ (y + 0.2 * s[2:, None]) for s in signs])
    for method in METHODS:
        bounds = bounded.compute_bounds((x, y), {0: LpBall(math.inf, 0.3), 1: LpBall(math.inf, 0.2)}, method)
        assert (bounds.lower <= corners.amin(0) + 1e-12).all()
        assert (bounds.upper >= corners.amax(0) - 1e-12).all()
        if method == "ibp":
            torch.testing.assert_close(bounds.lower, corners.amin(0))
            torch.testing.assert_close(bounds.upper, corners.amax(0))
        if method == "crown":
            expected = _mccormick(x, y, 0.3, 0.2)
            torch.testing.assert_close(bounds.lower.flatten(), expected)


def _mccormick(x: Tensor, y: Tensor, a: float, b: float) -> Tensor:
    """Return the minimum over a box of ``sum_k y_l x + x_l y - x_l y_l``."""
    x, y = x.flatten(1), y.flatten(1)
    x_l, y_l = x - a, y - b
    middle = (y_l * x + x_l * y - x_l * y_l).sum(1)
    return middle - (y_l.abs() * a + x_l.abs() * b).sum(1)


def test_they_are_registered() -> None:
    for target in (aten.linear.default, aten.matmul.default, aten.conv3d.padding, aten.conv_transpose1d.default):
        assert lookup(target) is not None
