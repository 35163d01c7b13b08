"""Linear layers and matrix products, with the perturbation on one side of them or on both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.operators.base import (
    Call,
    Interval,
    Layout,
    MixedSamplesError,
    Operator,
    Plane,
    Relaxation,
)
from offprint.methods.certify.lirpa.operators.call import aligned, split_samples, sum_to
from offprint.methods.certify.lirpa.perturbations import LpBall, dual, lp_norm
from offprint.methods.certify.lirpa.rows import Rows, SparseRows, Units

LEFT, RIGHT, BIAS = 0, 1, 2


class WeightPlane(Plane):
    """``x @ weight.T + offset`` with a constant matrix."""

    #: Coefficients that are the same for all samples stay the same.
    alike = True

    def __init__(self, weight: Tensor, offset: Tensor | None) -> None:
        self.weight = weight
        self.offset = offset

    def transpose(self, rows: Tensor) -> list[Tensor]:
        return [rows @ self.weight]

    def transpose_sparse(self, rows: SparseRows) -> Sequence[Rows] | None:
        if not isinstance(rows, Units):
            return None
        return [rows.along_last(self.weight, torch.Size([*rows.shape[:-1], self.weight.shape[1]]))]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        middle, radius = (first[0] + second[0]) / 2, (first[0] - second[0]) / 2
        return middle @ self.weight.mT + radius @ self.weight.abs().mT

    def range(self, lower: Sequence[Tensor], upper: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        middle = (upper[0] + lower[0]) / 2 @ self.weight.mT
        radius = (upper[0] - lower[0]) / 2 @ self.weight.abs().mT
        return middle - radius, middle + radius


@dataclass
class ProductPlane(Plane):
    """``left @ a + b @ right + bias + offset``, with ``a`` and ``b`` in place of the other side.

    Parameters
    ----------
    call : Call
        Tells which sides are perturbed: positions 0 (left), 1 (right) and 2 (bias).
    of_left, of_right : Tensor or None
        ``a`` and ``b``; ``None`` where that side is constant.
    offset : Tensor or None
    swapped : bool
        Whether the right side itself is kept transposed, as in a linear layer.
    """

    call: Call
    of_left: Tensor | None
    of_right: Tensor | None
    offset: Tensor | None = None
    swapped: bool = False

    def transpose(self, rows: Tensor) -> list[Tensor]:
        sides = {LEFT: self.to_left, RIGHT: self._to_right, BIAS: self.call.reduce}
        return [sides[one.position](index, rows) for index, one in enumerate(self.call.inputs)]

    def to_left(self, index: int, rows: Tensor) -> Tensor:
        assert self.of_left is not None
        pulled = rows @ self.of_left.mT
        one = self.call.inputs[index]
        if self.call.layout is not None and one.layout is None:
            pulled = split_samples(pulled, self.call.layout).flatten(0, 1)
        return sum_to(pulled, one.shape)

    def _to_right(self, index: int, rows: Tensor) -> Tensor:
        assert self.of_right is not None
        one, layout = self.call.inputs[index], self.call.layout
        if layout is not None and one.layout is None:
            left = self.of_right.expand(*self.call.shape[:-1], self.of_right.shape[-1]).unsqueeze(0)
            pulled = (split_samples(left, layout).mT @ split_samples(rows, layout)).flatten(0, 1)
        else:
            pulled = self.of_right.mT @ rows
        return sum_to(pulled.mT if self.swapped else pulled, one.shape)

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        total: Tensor | float = 0.0
        for one, ours, theirs in zip(self.call.inputs, first, second, strict=True):
            ours, theirs = (aligned(end, len(self.call.shape)) for end in (ours, theirs))
            if one.position == LEFT:
                assert self.of_left is not None
                total = total + ours @ self.of_left.clamp(min=0) + theirs @ self.of_left.clamp(max=0)
            elif one.position == RIGHT:
                assert self.of_right is not None
                if self.swapped:
                    ours, theirs = ours.mT, theirs.mT
                total = total + self.of_right.clamp(min=0) @ ours + self.of_right.clamp(max=0) @ theirs
            else:
                total = total + ours
        assert isinstance(total, Tensor)
        return total


class ProductRelaxation(Relaxation):
    """Two planes that multiply the right side, and add the bias, alike."""

    def __init__(self, lower: ProductPlane, upper: ProductPlane) -> None:
        super().__init__(lower, upper)
        assert lower.of_left is not None
        assert upper.of_left is not None
        self.gap = replace(lower, of_left=upper.of_left - lower.of_left)

    def transpose_gap(self, rows: Tensor) -> list[Tensor | None] | None:
        inputs = enumerate(self.gap.call.inputs)
        return [self.gap.to_left(index, rows) if one.position == LEFT else None for index, one in inputs]


class Matmul(Operator):
    """``left @ right`` of at least two axes each, or with ``layer=True`` the linear layer ``left @ right.T + bias``.

    Where both sides are perturbed, each product of two numbers lies above ``y_l x + x_l y - x_l y_l`` and below
    ``y_u x + x_l y - x_l y_u`` (McCormick), so the planes are matrix products too.
    """

    def __init__(self, layer: bool = False) -> None:
        self.layer = layer

    def needs_intervals(self, call: Call) -> bool:
        return call.find(LEFT) is not None and call.find(RIGHT) is not None

    def _right(self, right: Tensor) -> Tensor:
        return right.mT if self.layer else right

    def _bias(self, call: Call) -> Tensor | None:
        if not self.layer or call.find(BIAS) is not None:
            return None
        bias: Tensor | None = call.args[BIAS]
        return bias

    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        bias = self._bias(call)
        left, right = call.find(LEFT), call.find(RIGHT)
        if left is not None and right is not None:
            return self._relax_product(call, intervals[left], intervals[right], bias)
        if left is not None:
            if len(call.inputs) == 1 and call.args[RIGHT].ndim == 2:
                weight = call.args[RIGHT] if self.layer else call.args[RIGHT].mT
                return Relaxation.exact(WeightPlane(weight, bias))
            return Relaxation.exact(ProductPlane(call, self._right(call.args[RIGHT]), None, bias, self.layer))
        if right is not None:
            return Relaxation.exact(ProductPlane(call, None, call.args[LEFT], bias, self.layer))
        product = call.args[LEFT] @ self._right(call.args[RIGHT])
        return Relaxation.exact(ProductPlane(call, None, None, product, self.layer))

    def _relax_product(self, call: Call, x: Interval, y: Interval, bias: Tensor | None) -> Relaxation:
        y_lower, y_upper = self._right(y.lower), self._right(y.upper)
        below, above = -(x.lower @ y_lower), -(x.lower @ y_upper)
        if bias is not None:
            below, above = below + bias, above + bias
        return ProductRelaxation(
            ProductPlane(call, y_lower, x.lower, below, self.layer),
            ProductPlane(call, y_upper, x.lower, above, self.layer),
        )

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        left, right = call.find(LEFT), call.find(RIGHT)
        if left is not None and right is not None:
            x, y = intervals[left], intervals[right]
            lower, upper = _product_range(x.lower, x.upper, self._right(y.lower), self._right(y.upper))
            sharper = self._ball(x, y)
            if sharper is not None:
                lower, upper = torch.maximum(lower, sharper[0]), torch.minimum(upper, sharper[1])
        elif left is not None:
            x, constant = intervals[left], self._right(call.args[RIGHT])
            lower, upper = _constant_range(x.lower, x.upper, constant)
            region = x.region
            if isinstance(region, LpBall) and not region.is_box and constant.ndim == 2:
                change = region.reach(call.value(left), lp_norm(constant.mT, dual(region.norm)), constant)
                if change is not None:
                    middle = call.value(left) @ constant
                    lower, upper = torch.maximum(lower, middle - change), torch.minimum(upper, middle + change)
        elif right is not None:
            y, constant = intervals[right], call.args[LEFT]
            lower, upper = _constant_range(self._right(y.lower).mT, self._right(y.upper).mT, constant.mT)
            lower, upper = lower.mT, upper.mT
            sharper = self._ball(Interval(constant, constant), y)
            if sharper is not None:
                lower, upper = torch.maximum(lower, sharper[0]), torch.minimum(upper, sharper[1])
        else:
            lower = upper = call.args[LEFT] @ self._right(call.args[RIGHT])
        if self.layer:
            index, bias = call.find(BIAS), call.args[BIAS]
            if index is not None:
                lower, upper = lower + intervals[index].lower, upper + intervals[index].upper
            elif bias is not None:
                lower, upper = lower + bias, upper + bias
        return Interval(lower.expand(call.shape), upper.expand(call.shape))

    def _ball(self, x: Interval, y: Interval) -> tuple[Tensor, Tensor] | None:
        """Return the range of ``x @ y``, y in an lp ball: x times the centre, give or take eps times its dual norm."""
        region = y.region
        if not isinstance(region, LpBall) or region.is_box or (isinstance(region.eps, Tensor) and region.eps.ndim):
            return None
        if y.lower.ndim != 2:
            return None
        centre = self._right((y.lower + y.upper) / 2)
        if region.x_L is not None or region.x_U is not None:
            return None
        lower, upper = _constant_range(x.lower, x.upper, centre)
        largest = torch.maximum(x.lower.abs(), x.upper.abs())
        change = region.eps * lp_norm(largest, dual(region.norm)).unsqueeze(-1)
        return lower - change, upper + change

    def layout(self, call: Call) -> Layout | None:
        found: Layout | None = None
        for one in call.inputs:
            if one.layout is None:
                continue
            axis = one.layout.axis + len(call.shape) - len(one.shape)
            contracted = len(call.shape) - (1 if one.position == LEFT else 2)
            if self.layer and one.position == RIGHT:
                raise MixedSamplesError(f"{call.name}: the weight of a linear layer holds the samples of the batch")
            if axis == contracted and one.position != BIAS:
                raise MixedSamplesError(f"{call.name} mixes the samples of the batch")
            moved = Layout(axis, one.layout.n_samples, one.layout.outer, one.layout.inner)
            if found is not None and moved != found:
                raise MixedSamplesError(f"{call.name} mixes the samples of the batch")
            found = moved
        return found


def _constant_range(lower: Tensor, upper: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
    middle = (lower + upper) / 2 @ constant
    radius = (upper - lower) / 2 @ constant.abs()
    return middle - radius, middle + radius


def _product_range(
    x_lower: Tensor, x_upper: Tensor, y_lower: Tensor, y_upper: Tensor, largest: int = 2**18
) -> tuple[Tensor, Tensor]:
    """Sum over k the least and the greatest of the four corners of each product ``x[i, k] y[k, j]``, some k at once."""
    terms = x_lower.shape[-1]
    batch = max(math.prod(x_lower.shape[:-2]), math.prod(y_lower.shape[:-2]))
    size = batch * x_lower.shape[-2] * y_lower.shape[-1]
    step = max(1, largest // max(1, size))
    lower = upper = x_lower.new_zeros(())
    for start in range(0, terms, step):
        part = slice(start, start + step)
        xs = [x[..., :, part].unsqueeze(-1) for x in (x_lower, x_upper)]
        ys = [y[..., part, :].unsqueeze(-3) for y in (y_lower, y_upper)]
        corners = [x * y for x in xs for y in ys]
        first, second = torch.minimum(corners[0], corners[1]), torch.minimum(corners[2], corners[3])
        lower = lower + torch.minimum(first, second).sum(-2)
        first, second = torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3])
        upper = upper + torch.maximum(first, second).sum(-2)
    return lower, upper
