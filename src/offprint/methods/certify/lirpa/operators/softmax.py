"""Softmax, its logarithm, and log-sum-exp along one axis: exact intervals, and planes that cost O(n) for n classes.

References
----------
Dennis Wei et al., Convex Bounds on the Softmax Function with Applications to Robustness Verification, AISTATS 2023,
arXiv:2303.01713: the lower bound with the exponentials replaced by their chords, the upper bound by the chord of the
exponential of the log-probability.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

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
from offprint.methods.certify.lirpa.operators.chords import between, choices
from offprint.methods.certify.lirpa.operators.convex import exp_chord
from offprint.methods.certify.lirpa.operators.pooling import WeightedReduction, kept, reduced_layout, split


@dataclass
class OwnMinusShared(Plane):
    """``output_k = own_k * input_k - share_k * sum_i weight_i * input_i + offset_k`` along one axis.

    Parameters
    ----------
    axis : int
        Counted from the end.
    own, share, weight : Tensor
        Of the output's shape; ``share`` and ``weight`` are not negative.
    """

    axis: int
    own: Tensor
    share: Tensor
    weight: Tensor
    offset: Tensor | None = None

    def transpose(self, rows: Tensor) -> list[Tensor]:
        return [rows * self.own - (rows * self.share).sum(self.axis, keepdim=True) * self.weight]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        ours, theirs = first[0], second[0]
        others = (self.weight * theirs).sum(self.axis, keepdim=True) - self.weight * theirs
        diagonal = self.own - self.share * self.weight
        return diagonal.clamp(min=0) * ours + diagonal.clamp(max=0) * theirs - self.share * others


class _AlongAxis(Operator):
    """What softmax and its logarithm share. The choice moves the point of contact from the lower ends to the upper."""

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        (lower, upper), axis = intervals[0], _axis(call)
        log_lower, log_upper = _log_probabilities(lower, upper, axis)
        return Interval(*self.of_logarithms(log_lower, log_upper))

    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        (lower, upper), axis = intervals[0], _axis(call)
        below, above = (0.5, 0.5) if choice is None else choice
        return Relaxation(
            self.plane_below(lower, upper, between(lower, upper, below), axis),
            self.plane_above(lower, upper, between(lower, upper, above), axis),
        )

    def default_choice(self, call: Call, intervals: Sequence[Interval]) -> Tensor | None:
        return choices(0.5, 0.5, intervals[0].lower)

    def layout(self, call: Call) -> Layout | None:
        layout = call.inputs[0].layout
        if layout is not None and layout.axis == _axis(call) + len(call.shape):
            raise MixedSamplesError(f"{call.name} mixes the samples of the batch")
        return layout

    @abstractmethod
    def of_logarithms(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Return the interval of the output, given that of the log-probabilities."""

    @abstractmethod
    def plane_below(self, lower: Tensor, upper: Tensor, point: Tensor, axis: int) -> Plane:
        """Return a plane below the output, made at a point."""

    @abstractmethod
    def plane_above(self, lower: Tensor, upper: Tensor, point: Tensor, axis: int) -> Plane:
        """Return a plane above the output, made at a point."""


class Softmax(_AlongAxis):
    r"""Probabilities :math:`p_k = e^{x_k} / \sum_i e^{x_i}`.

    Below: with the chord :math:`\kappa_i x_i + \beta_i` over each :math:`e^{x_i}` the ratio
    :math:`e^{x_k} / \sum_i (\kappa_i x_i + \beta_i)` is convex and at most :math:`p_k`; the plane is its tangent.
    Above: :math:`p_k = e^{\log p_k}` is at most the chord of the exponential between the extremes of
    :math:`\log p_k`, which is concave; the plane is its tangent, scaled by the slope of that chord.
    """

    def of_logarithms(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return lower.exp(), upper.exp()

    def plane_below(self, lower: Tensor, upper: Tensor, point: Tensor, axis: int) -> Plane:
        kappa, total, shift = _chord_of_sum(lower, upper, point, axis)
        ratio = (point - shift).exp() / total
        share = ratio / total
        offset = ratio - ratio * point + share * (kappa * point).sum(axis, keepdim=True)
        return OwnMinusShared(axis, ratio, share, kappa, offset)

    def plane_above(self, lower: Tensor, upper: Tensor, point: Tensor, axis: int) -> Plane:
        log_lower, log_upper = _log_probabilities(lower, upper, axis)
        chord = exp_chord(log_lower, log_upper)
        start = torch.maximum(log_lower.exp() - chord * log_lower, log_upper.exp() - chord * log_upper)
        log_there = point.log_softmax(axis)
        there = log_there.exp()
        offset = start + chord * (log_there - point + (there * point).sum(axis, keepdim=True))
        return OwnMinusShared(axis, chord, chord, there, offset)


class LogSoftmax(_AlongAxis):
    """Logarithms of probabilities: concave, so a tangent above; below, `LogSumExp` is bounded from above."""

    def of_logarithms(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return lower, upper

    def plane_below(self, lower: Tensor, upper: Tensor, point: Tensor, axis: int) -> Plane:
        weight, offset = _above_log_sum(lower, upper, point, axis)
        one = torch.ones_like(lower)
        return OwnMinusShared(axis, one, one, weight, -offset)

    def plane_above(self, lower: Tensor, upper: Tensor, point: Tensor, axis: int) -> Plane:
        weight, offset = _below_log_sum(point, axis)
        one = torch.ones_like(lower)
        return OwnMinusShared(axis, one, one, weight, -offset)


class LogSumExp(Operator):
    """``log(sum(exp(x)))`` over axes: convex, so a tangent below; above, that of the logarithm of the sum of chords."""

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        lower, upper = (split(end, kept(call)).logsumexp(-1).reshape(call.shape) for end in intervals[0])
        return Interval(lower, upper)

    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        lower, upper = (split(end, kept(call)) for end in intervals[0])
        point = between(lower, upper, 0.5)
        below, above = _below_log_sum(point, -1), _above_log_sum(lower, upper, point, -1)
        planes = (
            WeightedReduction(call, weight, offset.squeeze(-1).reshape(call.shape)) for weight, offset in (below, above)
        )
        return Relaxation(*planes)

    def layout(self, call: Call) -> Layout | None:
        return reduced_layout(call)


def _axis(call: Call) -> int:
    return int(call.args[1]) % len(call.shape) - len(call.shape)


def _log_probabilities(lower: Tensor, upper: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest logarithm of each probability: all others at one end, itself at the other."""
    return -torch.nn.functional.softplus(_others(upper, axis) - lower), -torch.nn.functional.softplus(
        _others(lower, axis) - upper
    )


def _others(inputs: Tensor, axis: int) -> Tensor:
    """Return for each element the log-sum-exp of all others along the axis, from those before and those after it."""
    none = torch.full_like(inputs.narrow(axis, 0, 1), -torch.inf)
    length = inputs.shape[axis]
    before = torch.cat([none, inputs.logcumsumexp(axis).narrow(axis, 0, length - 1)], axis)
    after = torch.cat([none, inputs.flip(axis).logcumsumexp(axis).narrow(axis, 0, length - 1)], axis).flip(axis)
    return torch.logaddexp(before, after)


def _chord_of_sum(lower: Tensor, upper: Tensor, point: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the chords' slopes of ``exp(x - shift)``, the sum of the chords at a point, and the shift."""
    shift = upper.amax(axis, keepdim=True).detach()
    lower, upper = lower - shift, upper - shift
    kappa = exp_chord(lower, upper)
    return kappa, (lower.exp() + kappa * (point - shift - lower)).sum(axis, keepdim=True), shift


def _below_log_sum(point: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return slope and offset of the tangent of log-sum-exp."""
    weight = point.softmax(axis)
    return weight, point.logsumexp(axis, keepdim=True) - (weight * point).sum(axis, keepdim=True)


def _above_log_sum(lower: Tensor, upper: Tensor, point: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return slope and offset of the tangent of the logarithm of the sum of chords, which is concave and above."""
    kappa, total, shift = _chord_of_sum(lower, upper, point, axis)
    weight = kappa / total
    return weight, shift + total.log() - (weight * point).sum(axis, keepdim=True)
