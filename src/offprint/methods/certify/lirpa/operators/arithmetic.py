"""Sums, differences, multiples and products of two tensors, element by element with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.operators.base import (
    AffineOperator,
    Call,
    Interval,
    Operator,
    Plane,
    Relaxation,
)
from offprint.methods.certify.lirpa.operators.call import aligned, finite
from offprint.methods.certify.lirpa.rows import Rows, SparseRows


@dataclass
class WeightedSum(Plane):
    """``sum_i weights[i] * input_i + offset`` with weights that are numbers or broadcast against the output."""

    call: Call
    weights: Sequence[float | Tensor]
    offset: Tensor | None = None

    @property
    def alike(self) -> bool:
        """Whether coefficients that are the same for all samples stay so."""
        layout = self.call.layout
        if layout is None or not layout.plain:
            return False
        same = all(one.shape == self.call.shape and one.layout == layout for one in self.call.inputs)
        return same and all(_same_for_all(w, layout.axis, self.call) for w in self.weights)

    def transpose(self, rows: Tensor) -> list[Tensor]:
        return [
            rows_to(self.call, index, rows if _is_one(weight) else rows * weight)
            for index, weight in enumerate(self.weights)
        ]

    def transpose_sparse(self, rows: SparseRows) -> Sequence[Rows] | None:
        if any(one.shape != self.call.shape or one.layout != self.call.layout for one in self.call.inputs):
            return None
        return [rows if _is_one(weight) else rows.scaled(weight) for weight in self.weights]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        total: Tensor | None = None
        for weight, ours, theirs in zip(self.weights, first, second, strict=True):
            ours, theirs = (aligned(one, len(self.call.shape)) for one in (ours, theirs))
            if isinstance(weight, Tensor):
                part = weight.clamp(min=0) * ours + weight.clamp(max=0) * theirs
            elif _is_one(weight):
                part = ours
            else:
                part = weight * (ours if weight >= 0 else theirs)
            total = part if total is None else total + part
        assert total is not None
        return total.expand(total.shape[0], *self.call.shape)


def rows_to(call: Call, index: int, rows: Tensor) -> Tensor:
    """Sum coefficients to the shape of an input; nothing to do where it is the output's."""
    one = call.inputs[index]
    if one.shape == call.shape and (one.layout is None) == (call.layout is None):
        return rows
    return call.reduce(index, rows)


def _is_one(weight: float | Tensor) -> bool:
    return not isinstance(weight, Tensor) and weight == 1


def _same_for_all(weight: float | Tensor, axis: int, call: Call) -> bool:
    if not isinstance(weight, Tensor):
        return True
    position = axis - len(call.shape) + weight.ndim
    return position < 0 or weight.shape[position] == 1


def _constant(value: Any, call: Call) -> Tensor:
    return torch.as_tensor(value, dtype=call.dtype, device=call.device)


class Add(AffineOperator):
    """``x + alpha * y``; with ``sign=-1`` the difference."""

    def __init__(self, sign: float = 1.0, reversed_: bool = False) -> None:
        self.sign = sign
        self.reversed = reversed_

    def plane(self, call: Call) -> Plane:
        alpha = self.sign * (call.args[2] if len(call.args) > 2 else 1)
        weights = (alpha, 1.0) if self.reversed else (1.0, alpha)
        offset = None
        for position in (0, 1):
            if call.find(position) is None:
                constant = _constant(call.args[position], call)
                offset = finite(constant if weights[position] == 1 else weights[position] * constant)
        return WeightedSum(call, [weights[one.position] for one in call.inputs], offset)


class Negate(AffineOperator):
    """``-x``."""

    def plane(self, call: Call) -> Plane:
        return WeightedSum(call, [-1.0])


@dataclass
class ProductPlane(Plane):
    """``of_first * x + of_second * y + offset``."""

    call: Call
    of_first: Tensor
    of_second: Tensor
    offset: Tensor

    def transpose(self, rows: Tensor) -> list[Tensor]:
        return [rows_to(self.call, 0, rows * self.of_first), rows_to(self.call, 1, rows * self.of_second)]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        return WeightedSum(self.call, [self.of_first, self.of_second]).push(first, second)


class Multiply(Operator):
    r"""``x * y``. With both perturbed the planes are McCormick's.

    Below lies :math:`r (y_l x + x_l y - x_l y_l) + (1 - r)(y_u x + x_u y - x_u y_u)` and above lies
    :math:`r (y_u x + x_l y - x_l y_u) + (1 - r)(y_l x + x_u y - x_u y_l)`, with ``choice`` r = 1 by default.
    """

    def needs_intervals(self, call: Call) -> bool:
        return len(call.inputs) == 2

    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        if len(call.inputs) == 1:
            other = call.args[1 - call.inputs[0].position]
            return Relaxation.exact(WeightedSum(call, [other if isinstance(other, Tensor) else float(other)]))
        (x_l, x_u), (y_l, y_u) = intervals
        if choice is None:
            return Relaxation(ProductPlane(call, y_l, x_l, -(x_l * y_l)), ProductPlane(call, y_u, x_l, -(x_l * y_u)))
        low, high = choice
        return Relaxation(
            ProductPlane(
                call,
                low * y_l + (1 - low) * y_u,
                low * x_l + (1 - low) * x_u,
                -low * x_l * y_l - (1 - low) * x_u * y_u,
            ),
            ProductPlane(
                call,
                high * y_u + (1 - high) * y_l,
                high * x_l + (1 - high) * x_u,
                -high * x_l * y_u - (1 - high) * x_u * y_l,
            ),
        )

    def default_choice(self, call: Call, intervals: Sequence[Interval]) -> Tensor | None:
        if len(call.inputs) == 1:
            return None
        return intervals[0].lower.new_ones(2, *call.shape)

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        if len(intervals) == 1:
            other = _constant(call.args[1 - call.inputs[0].position], call)
            corners = [intervals[0].lower * other, intervals[0].upper * other]
            lower, upper = torch.minimum(*corners), torch.maximum(*corners)
        else:
            (x_l, x_u), (y_l, y_u) = intervals
            corners = [x_l * y_l, x_l * y_u, x_u * y_l, x_u * y_u]
            lower = torch.minimum(torch.minimum(*corners[:2]), torch.minimum(*corners[2:]))
            upper = torch.maximum(torch.maximum(*corners[:2]), torch.maximum(*corners[2:]))
        return Interval(lower.expand(call.shape), upper.expand(call.shape))
