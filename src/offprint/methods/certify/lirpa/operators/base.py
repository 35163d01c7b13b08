"""What an operator has to say about itself, the affine planes it is bounded by, and the table of operators.

A network is a graph of nodes, each the output of one ATen operator. Three things are pushed through it: intervals
(every node between two numbers), affine functions of the perturbed roots (forward), and rows of coefficients
(backward). An `Operator` gives an interval of its output and two affine `Plane` below and above it; everything else
follows from these.

Shapes. A node has the shape it has in the network, the samples of the batch on some axis of it. Coefficients of a node
carry one more axis in front, ``rows``: all samples share the rows, as samples do not interact.

Examples
--------
An operator that the library does not know: ``y = x ** 3`` as an operator of one's own. Functions of one number are
easiest said as an :class:`.Elementwise`; `register_op` accepts its class, and gives it the arguments of the call after
the first::

    register_op(torch.ops.mine.cube.default, Cube)      # class Cube(Elementwise): ...

A general operator is a subclass of `Operator`. Here the sum of pairs, ``y = x[..., :n] + x[..., n:]``, which is exactly
linear; a nonlinear one returns ``Relaxation(below, above)`` with two different planes made from ``intervals[0]``::

    class SumOfHalves(Operator):
        def interval(self, call, intervals):
            lower, upper = (sum(end.chunk(2, -1)) for end in intervals[0])
            return Interval(lower, upper)

        def relax(self, call, intervals, choice=None):
            return Relaxation.exact(Halves())

    class Halves(Plane):                                 # offset is None: no constant part
        def transpose(self, rows):                       # (rows, *output.shape) -> one (rows, *input.shape) per input
            return [torch.cat([rows, rows], -1)]

        def push(self, first, second):                   # positive coefficients meet first, negative ones second
            return sum(first[0].chunk(2, -1))

    register_op(torch.ops.mine.sum_of_halves.default, SumOfHalves())
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor

from offprint.methods.certify.lirpa.decompositions import forget_decomposition
from offprint.methods.certify.lirpa.operators.call import Call, Input, Interval, Layout, MixedSamplesError
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise
from offprint.methods.certify.lirpa.operators.planes import LinesRelaxation, Mixing, Plane, Relaxation, Scaled

__all__ = [
    "AffineOperator",
    "Call",
    "ElementwiseOperator",
    "Handler",
    "Input",
    "Interval",
    "Layout",
    "LinesRelaxation",
    "MixedSamplesError",
    "Mixing",
    "Operator",
    "Plane",
    "Relaxation",
    "Scaled",
    "lookup",
    "register_op",
]


class Operator(ABC):
    """One kind of node: the interval of its output, and planes below and above it."""

    def needs_intervals(self, call: Call) -> bool:
        """Return whether `relax` looks at the intervals of the inputs; where the call is affine it need not."""
        return True

    @abstractmethod
    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        """Return an interval of the output from the intervals of the perturbed inputs."""

    @abstractmethod
    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        """Return planes below and above the output for all inputs in the intervals.

        ``choice``, of shape (2, ...), picks among sound planes as in :meth:`.Elementwise.relax`; it is only given where
        `default_choice` returns one.
        """

    def default_choice(self, call: Call, intervals: Sequence[Interval]) -> Tensor | None:
        """Return the choice `relax` makes by itself, of shape (2, *shape), or ``None`` where it has none to make."""
        return None

    def undecided(self, call: Call, intervals: Sequence[Interval]) -> list[Tensor | None]:
        """Return for each input the elements whose intervals are worth sharpening (``None`` for all of them)."""
        return [None] * len(intervals)

    def layout(self, call: Call) -> Layout | None:
        """Return where the samples are in the output: by default at the same axis from the right as in the inputs.

        Raises
        ------
        MixedSamplesError
            If the output mixes samples.
        """
        found: Layout | None = None
        for one in call.inputs:
            if one.layout is None:
                continue
            axis = one.layout.axis + len(call.shape) - len(one.shape)
            moved = Layout(axis, one.layout.n_samples, one.layout.outer, one.layout.inner)
            if axis < 0 or call.shape[axis] != one.shape[one.layout.axis] or (found is not None and moved != found):
                raise MixedSamplesError(f"{call.name} mixes the samples of the batch")
            found = moved
        return found


class ElementwiseOperator(Operator):
    """An :class:`.Elementwise` function as an operator: ``make(*further arguments of the call)`` is the function."""

    def __init__(self, make: Callable[..., Elementwise]) -> None:
        self.make = make

    def function(self, call: Call) -> Elementwise:
        """Return the function of a call, its constants taken from the call's arguments."""
        if any(one.position > 0 for one in call.inputs):
            raise ValueError(
                f"node {call.name}: a perturbation reaches a constant of {call.target}, not its input alone"
            )
        return self.make(*call.args[1:])

    def _checked(self, call: Call, interval: Interval) -> Elementwise:
        function = self.function(call)
        try:
            function.check_domain(interval.lower, interval.upper)
        except ValueError as error:
            raise ValueError(f"node {call.name}: {error}") from error
        return function

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        return Interval(*self._checked(call, intervals[0]).interval(*intervals[0]))

    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        return LinesRelaxation(self._checked(call, intervals[0]).relax(intervals[0].lower, intervals[0].upper, choice))

    def default_choice(self, call: Call, intervals: Sequence[Interval]) -> Tensor | None:
        return self.function(call).default_choice(*intervals[0])

    def undecided(self, call: Call, intervals: Sequence[Interval]) -> list[Tensor | None]:
        return [self.function(call).undecided(*intervals[0])]


class AffineOperator(Operator):
    """An operator that is affine in its perturbed inputs: `plane` says it all."""

    def needs_intervals(self, call: Call) -> bool:
        return False

    @abstractmethod
    def plane(self, call: Call) -> Plane:
        """Return the operator as an affine function of its perturbed inputs."""

    def interval(self, call: Call, intervals: Sequence[Interval]) -> Interval:
        plane = self.plane(call)
        lower, upper = plane.range([i.lower.unsqueeze(0) for i in intervals], [i.upper.unsqueeze(0) for i in intervals])
        lower, upper = lower.squeeze(0), upper.squeeze(0)
        if plane.offset is not None:
            lower, upper = lower + plane.offset, upper + plane.offset
        return Interval(lower.expand(call.shape), upper.expand(call.shape))

    def relax(self, call: Call, intervals: Sequence[Interval], choice: Tensor | None = None) -> Relaxation:
        return Relaxation.exact(self.plane(call))


Handler = Operator | type[Operator] | type[Elementwise] | Callable[..., Elementwise]
_operators: dict[Any, Operator] = {}


def register_op(target: Callable[..., Any], handler: Handler) -> None:
    """Teach the library an operator; what was known of it before is replaced.

    Parameters
    ----------
    target : torch.ops overload
        As it appears in the captured graph, say ``torch.ops.aten.relu.default`` or an operator of one's own made with
        ``torch.library.custom_op``.
    handler : Operator, or class or factory of Elementwise
        An `Operator` (or its class, made without arguments), or a callable that returns an :class:`.Elementwise` when
        given the arguments of the call after the first.

    Returns
    -------
    None
        The operator is known from now on.

    Raises
    ------
    TypeError
        If ``target`` is not callable or ``handler`` is none of these.

    Notes
    -----
    The table is global to the process. The module's docstring shows how an operator is written.

    Examples
    --------
    >>> import torch
    >>> from offprint.methods.certify.lirpa.operators.base import lookup
    >>> from offprint.methods.certify.lirpa.operators.rectifiers import ReLU
    >>> register_op(torch.ops.aten.relu.default, ReLU)
    >>> type(lookup(torch.ops.aten.relu.default)).__name__
    'ElementwiseOperator'

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920.
    """
    enter(target, handler)
    forget_decomposition(target)


def enter(target: Callable[..., Any], handler: Handler) -> None:
    """Enter an operator in the table; where it is also taken apart when it is captured, that stays so."""
    if not callable(target):
        raise TypeError(f"target: expected an operator as in torch.ops.aten, got {target!r}")
    if isinstance(handler, Operator):
        _operators[target] = handler
    elif isinstance(handler, type) and issubclass(handler, Operator):
        _operators[target] = handler()
    elif callable(handler):
        _operators[target] = ElementwiseOperator(cast(Callable[..., Elementwise], handler))
    else:
        raise TypeError(f"handler: expected an Operator or something that makes an Elementwise, got {handler!r}")


def lookup(target: Callable[..., Any]) -> Operator | None:
    """Return the operator registered for a target, or ``None``."""
    return _operators.get(target)
