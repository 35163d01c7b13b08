"""Batch norm in training mode, its statistics taken as constants."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.operators.arithmetic import WeightedSum
from offprint.methods.certify.lirpa.operators.base import Call, Interval, Layout, Operator, Relaxation


class BatchStatistics(Operator):
    """``(x - mean) / sqrt(var + eps)`` of each channel, with the statistics of one batch held fixed.

    Parameters
    ----------
    of_intervals : bool
        Whether the batch is that of the intervals' middles, else the clean one.
    """

    def __init__(self, of_intervals: bool) -> None:
        self.of_intervals = of_intervals

    def needs_intervals(self, call: Call) -> bool:
        return self.of_intervals

    def undecided(self, call: Call, intervals: Sequence[Interval]) -> list[Tensor | None]:
        # Sharper intervals would change the statistics, that is the function that is bounded.
        return [torch.zeros_like(intervals[0].lower, dtype=torch.bool)]

    def _plane(self, call: Call, intervals: Sequence[Interval]) -> WeightedSum:
        batch = (intervals[0].lower + intervals[0].upper) / 2 if self.of_intervals else call.value(0)
        axes = [axis for axis in range(batch.ndim) if axis != 1]
        mean = batch.mean(axes, keepdim=True)
        scale = (batch.var(axes, correction=0, keepdim=True) + call.args[1]).rsqrt()
        return WeightedSum(call, [scale], -mean * scale)

    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        return Relaxation.exact(self._plane(call, intervals))

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        plane = self._plane(call, intervals)
        scale, shift = plane.weights[0], plane.offset
        assert shift is not None
        return Interval(intervals[0].lower * scale + shift, intervals[0].upper * scale + shift)

    def layout(self, call: Call) -> Layout | None:
        return call.inputs[0].layout
