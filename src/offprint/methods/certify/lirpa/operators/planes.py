"""Affine functions that bound operators: how coefficients are pulled back and functions pushed forward through them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from offprint.methods.certify.lirpa.operators.elementwise import Lines
from offprint.methods.certify.lirpa.rows import Rows, SparseRows


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

    def transpose_sparse(self, rows: SparseRows) -> Sequence[Rows] | None:
        """Return the same for rows that are mostly zero, sparse again if possible; ``None`` to get dense ones."""
        return None

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

    def transpose_gap(self, rows: Tensor) -> list[Tensor | None] | None:
        """Return `Plane.transpose` of the upper plane minus the lower one, ``None`` for inputs where they agree.

        Where it costs less than transposing both, it is said here; ``None`` where it does not.
        """
        return None


class LinesRelaxation(Relaxation):
    """Lines below and above each element. Slopes may carry (sides, rows) in front, where every row chose its own.

    For rows that are pulled back it has them as the lower line, and the upper one minus the lower: ``slope`` and
    ``gap``, ``offset`` and ``gap_offset``. Offsets that are all zero are ``None``.
    """

    def __init__(self, lines: Lines) -> None:
        super().__init__(Scaled(lines.lower_slope, lines.lower_offset), Scaled(lines.upper_slope, lines.upper_offset))
        self.lines = lines

    @property
    def slope(self) -> Tensor:
        return self.lines.lower_slope

    @cached_property
    def gap(self) -> Tensor:
        return self.lines.upper_slope - self.lines.lower_slope

    @cached_property
    def offset(self) -> Tensor | None:
        return _unless_zero(self.lines.lower_offset)

    @cached_property
    def gap_offset(self) -> Tensor | None:
        return _unless_zero(self.lines.upper_offset - self.lines.lower_offset)


def _unless_zero(offset: Tensor) -> Tensor | None:
    return offset if offset.requires_grad or bool(offset.any()) else None
