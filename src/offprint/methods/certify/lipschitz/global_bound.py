"""The product of the layers' norms: a Lipschitz constant that holds everywhere, and says little about anywhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.operators.base import ElementwiseOperator, Interval
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise
from offprint.methods.certify.lirpa.problem import Problem

FAR = 1e4
"""The derivative of an activation beyond this is what it is here, as far as the usual ones go."""


def product_of_norms(forward: Problem, rows: Tensor) -> Tensor:
    """Return Lipschitz constants in the infinity norm of rows of outputs, (batch, rows).

    The constant of a layer's output is that of its input times the layer's infinity norm, or times the greatest slope
    of an activation; constants of branches that meet add up.
    """
    reach: dict[Node, float] = {}
    output = forward.graph.outputs[0]
    for node in forward.ancestors(output):
        if node in forward.perturbations:
            reach[node] = 1.0
        elif isinstance(operator := forward.operator(node), ElementwiseOperator):
            (one,) = forward.inputs(node)
            function = operator.function(forward.call(node))
            steepest, further = (_steepest(function, far, rows) for far in (FAR, 4 * FAR))
            if not further <= 1.001 * steepest < math.inf:
                raise ValueError(
                    f"method: 'global' knows no norm for node {node!r} of {node.target}, which is steeper than any"
                )
            reach[node] = reach[one] * further
        elif operator.needs_intervals(forward.call(node)):
            raise ValueError(f"method: 'global' knows no norm for node {node!r} of {node.target}")
        else:
            balls = [_ball(one, reach[one], rows) for one in forward.inputs(node)]
            lower, upper = operator.interval(forward.call(node), balls)
            reach[node] = float((upper - lower).detach().max()) / 2
    return rows.abs().sum(-1) * reach[output]


def _steepest(function: Elementwise, far: float, like: Tensor) -> float:
    end = like.new_tensor(far)
    try:
        function.check_domain(-end, end)
    except ValueError:
        return math.inf
    least, greatest = function.derivative_range(-end, end)
    return float(torch.maximum(least.abs(), greatest.abs()).detach().max())


def _ball(node: Node, radius: float, like: Tensor) -> Interval:
    ends = like.new_full(node.shape, radius)
    return Interval(-ends, ends)
