"""One node of an ONNX graph as the functions that translate it see it, and the table of these functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class OnnxError(ValueError):
    """A model that cannot be turned into a torch module; the message names the node."""


@dataclass(frozen=True)
class Step:
    """A function of torch applied to some inputs of a node: ``function(*inputs, **keywords)``.

    Parameters
    ----------
    function : callable
        Importable by name, so that modules can be pickled.
    inputs : tuple of int
        Which of the node's inputs are passed, in order.
    keywords : dict
        Constants, found when the model was read.
    tensors : dict
        Further keywords that are tensors, or lists of them; they become buffers of the module.
    as_list : bool
        Whether the function takes the inputs as one list.
    statistics : tuple of int
        Constant inputs that are not trained, such as recorded means: they become buffers instead of parameters.
    """

    function: Callable[..., Any]
    inputs: tuple[int, ...] = (0,)
    keywords: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor | list[Tensor]] = field(default_factory=dict)
    as_list: bool = False
    statistics: tuple[int, ...] = ()

    def arguments(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Return what the function is called with, given all inputs of the node."""
        chosen = [inputs[i] for i in self.inputs]
        return (chosen,) if self.as_list else tuple(chosen)


@dataclass(frozen=True)
class Call:
    """A node: its attributes, and its inputs as they are for a batch of one.

    Parameters
    ----------
    op, name : str
        The operator and what to call the node in messages.
    opset : int
        Version of the standard operators that the model was written for.
    attributes : dict
        As ``onnx.helper.get_attribute_value`` returns them, tensors as `Tensor`.
    inputs : tuple of Tensor or None
        Example values; of constants the value itself. ``None`` where an optional input is left out.
    constant : tuple of bool
        Which inputs do not depend on the inputs of the model.
    n_outputs : int
    """

    op: str
    name: str
    opset: int
    attributes: dict[str, Any]
    inputs: tuple[Tensor | None, ...]
    constant: tuple[bool, ...]
    n_outputs: int

    def refuse(self, reason: str) -> OnnxError:
        """Return an error that names the node."""
        return OnnxError(f"node {self.name!r} ({self.op}, opset {self.opset}): {reason}")

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute, strings decoded."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def has(self, index: int) -> bool:
        """Return whether an input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def example(self, index: int = 0) -> Tensor:
        """Return an input as it is for a batch of one."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise self.refuse(f"input {index} is missing")
        return value

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Return an input's shape for a batch of one."""
        return tuple(self.example(index).shape)

    def is_constant(self, index: int) -> bool:
        """Return whether an input is given and constant."""
        return self.has(index) and self.constant[index]

    def value(self, index: int) -> Tensor:
        """Return a constant input.

        Raises
        ------
        OnnxError
            If it depends on the model's inputs.
        """
        value = self.example(index)
        if not self.constant[index]:
            raise self.refuse(f"input {index} depends on the model's inputs; only a constant is supported there")
        return value

    def number(self, index: int) -> float:
        """Return a constant input of one element."""
        value = self.value(index)
        if value.numel() != 1:
            raise self.refuse(f"input {index} must be one number, has shape {tuple(value.shape)}")
        return float(value.reshape(()).item())

    def is_number(self, index: int) -> bool:
        """Return whether an input is a constant that does not raise the rank of what it meets: one number."""
        return self.is_constant(index) and self.example(index).numel() == 1 and self.example(index).ndim <= 1

    def integers(self, index: int, attribute: str, default: Sequence[int] | None = None) -> list[int] | None:
        """Return a list of integers that older opsets give as an attribute and newer ones as an input."""
        if self.has(index):
            return [int(i) for i in self.value(index).reshape(-1).tolist()]
        given = self.attributes.get(attribute, default)
        return None if given is None else [int(i) for i in given]

    def axis(self, axis: int, rank: int | None = None) -> int:
        """Return an axis counted from the front.

        Raises
        ------
        OnnxError
            If there is no such axis.
        """
        rank = self.example().ndim if rank is None else rank
        if not -rank <= axis < max(rank, 1):
            raise self.refuse(f"axis {axis} of an input with {rank} axes")
        return axis % rank if rank else 0

    def every_input(self) -> tuple[int, ...]:
        """Return the indices of all inputs that are given."""
        return tuple(i for i in range(len(self.inputs)) if self.has(i))


Translator = Callable[[Call], Step]
translators: dict[str, Translator] = {}


def operator(*names: str) -> Callable[[Translator], Translator]:
    """Enter a function in the table as the translation of these ONNX operators."""

    def enter(translator: Translator) -> Translator:
        for name in names:
            translators[name] = translator
        return translator

    return enter


def same(x: Tensor) -> Tensor:
    """Return what is given."""
    return x


IDENTITY = Step(same)


def as_dtype(number: int) -> torch.dtype:
    """Return the torch dtype of an ONNX element type, such as 1 for float32."""
    known = {
        1: torch.float32,
        2: torch.uint8,
        3: torch.int8,
        5: torch.int16,
        6: torch.int32,
        7: torch.int64,
        9: torch.bool,
        10: torch.float16,
        11: torch.float64,
        16: torch.bfloat16,
    }
    if number not in known:
        raise OnnxError(f"element type {number} is not supported")
    return known[number]
