"""One node as its operator sees it: its arguments, the intervals of its inputs, and where the samples are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.graph import call_operator

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


def aligned(tensor: Tensor, ndim: int) -> Tensor:
    """Put axes of length 1 behind the rows, so that ``(rows, *shape)`` broadcasts as a shape of ``ndim`` axes does."""
    return tensor.reshape(tensor.shape[0], *[1] * (ndim + 1 - tensor.ndim), *tensor.shape[1:])


def finite(constant: Tensor) -> Tensor:
    """Return a constant with numbers that softmax cannot tell from infinity in its place, so that 0 times it is 0.

    Attention masks are made with it. What is finite stays as it is.
    """
    if bool(torch.isfinite(constant).all()):
        return constant
    return torch.where(constant.isinf(), constant.clamp(-1e6, 1e6), constant)
