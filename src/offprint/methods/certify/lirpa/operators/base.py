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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.graph import call_operator
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines

if TYPE_CHECKING:
    from offprint.methods.certify.lirpa.perturbations import Perturbation


@dataclass(frozen=True)
class Interval:
    """Every element of a node between two numbers; of a perturbed root also the region itself.

    Parameters
    ----------
    lower, upper : Tensor
        Of the node's shape, ``lower <= upper``.
    region : Perturbation, optional
        Where the node is a perturbed root: what it may be, which a box only encloses.
    """

    lower: Tensor
    upper: Tensor
    region: Perturbation | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.lower, self.upper))


@dataclass(frozen=True)
class Layout:
    """Where the samples of the batch are in a node: ``shape[axis] == outer * n_samples * inner``, in this order."""

    axis: int
    n_samples: int
    outer: int = 1
    inner: int = 1

    @property
    def plain(self) -> bool:
        """Whether the axis holds the samples and nothing else."""
        return self.outer == 1 and self.inner == 1


class MixedSamplesError(ValueError):
    """An operator mixes the samples of the batch."""


@dataclass(frozen=True)
class Input:
    """A perturbed input of a call: the position of its argument, its shape and where the samples are in it.

    In an argument that is a list (of ``cat``, say) ``place`` tells which of them it is.
    """

    position: int
    place: int
    shape: torch.Size
    layout: Layout | None


@dataclass(frozen=True)
class Call:
    """One node as its operator sees it.

    Parameters
    ----------
    name : str
        The node, for messages: its name and the path of the module it comes from.
    target : callable
        The operator of the graph.
    args : tuple
        The arguments in the order of the operator's schema, defaults filled in. A tensor that no perturbation reaches
        is there with its value; a perturbed one as a tensor on the ``meta`` device, which has a shape and no values.
    inputs : tuple of Input
        The perturbed arguments; intervals and coefficients come and go in their order.
    shape : torch.Size
        Of the output.
    layout : Layout or None
        Where the samples are in the output; ``None`` where it has none.
    dtype, device
        Of the output.
    value : callable
        ``value(i)`` is the value of perturbed input ``i`` at the centre of the perturbation, computed when asked for.
    """

    name: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    inputs: tuple[Input, ...]
    shape: torch.Size
    layout: Layout | None
    dtype: torch.dtype
    device: torch.device
    value: Callable[[int], Tensor]

    def find(self, position: int) -> int | None:
        """Return which of the perturbed inputs is the argument at a position, or ``None``."""
        return next((i for i, one in enumerate(self.inputs) if one.position == position), None)

    def run(self, values: Sequence[Tensor], constant: Callable[[Tensor], Tensor] = lambda value: value) -> Tensor:
        """Apply the operator with values in place of the perturbed inputs, and the constant tensors as mapped."""
        given = {(one.position, one.place): value for one, value in zip(self.inputs, values, strict=True)}

        def filled(position: int, arg: Any) -> Any:
            if isinstance(arg, Tensor):
                return given[position, 0] if (position, 0) in given else constant(arg)
            if isinstance(arg, (list, tuple)) and any(isinstance(one, Tensor) for one in arg):
                return [
                    given[position, i] if (position, i) in given else constant(a) if isinstance(a, Tensor) else a
                    for i, a in enumerate(arg)
                ]
            return arg

        result = call_operator(self.target, tuple(filled(i, arg) for i, arg in enumerate(self.args)))
        assert isinstance(result, Tensor)
        return result

    def reduce(self, index: int, rows: Tensor) -> Tensor:
        """Sum coefficients ``(rows, *shape)`` over what an input was broadcast along, to ``(rows', *its shape)``.

        An input without samples (a perturbed parameter) in an output that has them gets rows for each sample: ``rows'``
        is ``rows * n_samples``.
        """
        target = self.inputs[index]
        if self.layout is not None and target.layout is None:
            rows = split_samples(rows, self.layout).flatten(0, 1)
        return sum_to(rows, target.shape)


def split_samples(rows: Tensor, layout: Layout) -> Tensor:
    """Turn ``(rows, *shape)`` into ``(rows, n_samples, *shape)`` where the samples' axis keeps what else it held."""
    axis = layout.axis + 1
    parts = torch.unflatten(rows, axis, (layout.outer, layout.n_samples, layout.inner))
    return parts.movedim(axis + 1, 1).flatten(axis + 1, axis + 2)


def sum_to(rows: Tensor, shape: torch.Size) -> Tensor:
    """Undo broadcasting: sum ``(rows, *larger)`` to ``(rows, *shape)``."""
    extra = rows.ndim - 1 - len(shape)
    if extra:
        rows = rows.sum(dim=tuple(range(1, 1 + extra)))
    axes = tuple(i + 1 for i, n in enumerate(shape) if n == 1 and rows.shape[i + 1] != 1)
    return rows.sum(dim=axes, keepdim=True) if axes else rows


class Plane(ABC):
    """An affine function of the perturbed inputs: a linear part, given by how it pulls and pushes, plus ``offset``.

    Parameters
    ----------
    offset : Tensor or None
        The constant part, which broadcasts to the output's shape; ``None`` is zero.
    """

    offset: Tensor | None = None

    @abstractmethod
    def transpose(self, rows: Tensor) -> list[Tensor]:
        """Return for coefficients of the output those of every perturbed input.

        Parameters
        ----------
        rows : Tensor, shape (rows, *output shape)

        Returns
        -------
        list of Tensor
            One per perturbed input, of shape (rows, *its shape); see `Call.reduce` for inputs without samples.
        """

    @abstractmethod
    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """Return the linear part where positive coefficients meet ``first`` and negative ones ``second``.

        With the lower ends first it is the least value the linear part takes, with the upper ends first the greatest.

        Parameters
        ----------
        first, second : sequence of Tensor, shape (rows, *shape of the input)
            One of each per perturbed input.

        Returns
        -------
        Tensor, shape (rows, *output shape)
        """

    def range(self, lower: Sequence[Tensor], upper: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the least and the greatest value of the linear part: `push` both ways."""
        return self.push(lower, upper), self.push(upper, lower)

    def row_norms(self, order: float) -> Tensor | None:
        """Return the norm of the coefficients of each output element (or more), or ``None`` where that is not known.

        With it, intervals right behind a root in an lp ball are exact.
        """
        return None


@dataclass
class Scaled(Plane):
    """One input, every element times a slope of its own, which broadcasts."""

    slope: Tensor
    offset: Tensor | None = None

    def transpose(self, rows: Tensor) -> list[Tensor]:
        return [rows * self.slope]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        return self.slope.clamp(min=0) * first[0] + self.slope.clamp(max=0) * second[0]


@dataclass
class Mixing(Plane):
    """One input, mixed along its last axis: ``output[k] = sum_i slope[..., k, i] * input[i] + offset[k]``."""

    slope: Tensor
    offset: Tensor | None = None

    def transpose(self, rows: Tensor) -> list[Tensor]:
        return [(rows.unsqueeze(-2) @ self.slope).squeeze(-2)]

    def push(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        up, down = self.slope.clamp(min=0), self.slope.clamp(max=0)
        return (up @ first[0].unsqueeze(-1) + down @ second[0].unsqueeze(-1)).squeeze(-1)


class Relaxation:
    """A plane below and a plane above an operator, on the intervals of its inputs.

    Parameters
    ----------
    lower, upper : Plane
        The same object where the operator is affine, see `exact`.
    """

    def __init__(self, lower: Plane, upper: Plane) -> None:
        self.lower = lower
        self.upper = upper

    @classmethod
    def exact(cls, plane: Plane) -> Relaxation:
        """Return the relaxation of an operator that is affine: the plane is below and above it."""
        return cls(plane, plane)

    @property
    def is_exact(self) -> bool:
        """Whether the two planes are one."""
        return self.lower is self.upper


class LinesRelaxation(Relaxation):
    """Lines below and above each element. Slopes may carry (sides, rows) in front, where every row chose its own."""

    def __init__(self, lines: Lines) -> None:
        super().__init__(Scaled(lines.lower_slope, lines.lower_offset), Scaled(lines.upper_slope, lines.upper_offset))
        self.lines = lines


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
    """Teach the library an operator; what was registered for it before is replaced.

    Parameters
    ----------
    target : torch.ops overload
        As it appears in the captured graph, say ``torch.ops.aten.relu.default`` or an operator of one's own made with
        ``torch.library.custom_op``.
    handler : Operator, or class or factory of Elementwise
        An `Operator` (or its class, made without arguments), or a callable that returns an :class:`.Elementwise` when
        given the arguments of the call after the first.

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
