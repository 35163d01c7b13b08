"""Cut data in any accepted form into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


@runtime_checkable
class Labelled(Protocol):
    """Anything with rows of ``inputs`` and ``targets``, such as :class:`offprint.data.Dataset`."""

    @property
    def inputs(self) -> Any:
        """The rows that the model is given."""
        ...

    @property
    def targets(self) -> Any:
        """What it is to say about each."""
        ...


Data = Tensor | np.ndarray | tuple[Any, ...] | Labelled | Iterable[Any]


class Batches:
    """Batches of data in any accepted form, in an order drawn from a generator or as they lie.

    Parameters
    ----------
    name : str
        What the data are called in errors.
    data : tensor, tuple of tensors, object with ``inputs`` and ``targets``, or iterable of batches
        Tensors or arrays share their first length and give batches of the same form: a tensor gives tensors, the rest
        tuples. Any other iterable (a DataLoader, a list) yields ready batches and is iterated anew each time.
    batch_size : int or None
        Rows per batch; ``None`` takes all at once.
    drop_last : bool
        Leave out a last batch that is short; never the only one.

    Raises
    ------
    ValueError
        If arrays are empty, of unequal lengths or not finite, or batch_size is below 1.
    TypeError
        If data are of no accepted form.

    Examples
    --------
    >>> batches = Batches("data", (torch.arange(5), torch.arange(5)), 2)
    >>> len(batches), [rows.tolist() for rows, _ in batches.in_order()]
    (3, [[0, 1], [2, 3], [4]])
    """

    def __init__(self, name: str, data: Any, batch_size: int | None, drop_last: bool = False) -> None:
        check_count("batch_size", batch_size)
        self.ready: Iterable[Any] | None = None
        self.arrays: tuple[Tensor, ...] = ()
        self.bare = isinstance(data, Tensor | np.ndarray)
        if self.bare:
            data = (data,)
        elif isinstance(data, Labelled):
            data = (data.inputs, data.targets)
        if isinstance(data, tuple):
            self.arrays = tuple(_tensor(name, array) for array in data)
            lengths = {len(array) for array in self.arrays}
            if len(lengths) != 1 or 0 in lengths:
                shapes = [tuple(array.shape) for array in self.arrays]
                raise ValueError(f"{name} must hold arrays of one common length, at least 1; got shapes {shapes}")
            self.n_rows = lengths.pop()
            self.batch_size = self.n_rows if batch_size is None else min(batch_size, self.n_rows)
            self.drop_last = drop_last
        elif isinstance(data, Iterable) and not isinstance(data, Iterator | str | dict):
            self.ready = data
        else:
            raise TypeError(
                f"{name} must be tensors, a tuple of tensors, an object with inputs and targets, or an iterable of "
                f"batches that can be iterated anew (a DataLoader); got {type(data).__name__}"
            )

    def __len__(self) -> int:
        """Return the number of batches, or 0 where it is unknown."""
        if self.ready is not None:
            return len(self.ready) if isinstance(self.ready, Sized) else 0
        return self.n_rows // self.batch_size if self.drop_last else -(-self.n_rows // self.batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[Any]:
        """Yield every batch once, rows in an order drawn from ``generator``."""
        if self.ready is not None:
            yield from self.ready
        elif len(self) == 1 and self.batch_size == self.n_rows:
            yield self._batch(slice(None))
        else:
            order = torch.randperm(self.n_rows, generator=generator, device=generator.device)
            orders = {array.device: order.to(array.device) for array in self.arrays}
            for start in range(0, len(self) * self.batch_size, self.batch_size):
                rows = slice(start, start + self.batch_size)
                yield self._form(tuple(array[orders[array.device][rows]] for array in self.arrays))

    def in_order(self) -> Iterator[Any]:
        """Yield every batch once, rows in the order in which they lie, the short last one too."""
        if self.ready is not None:
            yield from self.ready
            return
        for start in range(0, self.n_rows, self.batch_size):
            yield self._batch(slice(start, start + self.batch_size))

    def _batch(self, rows: slice) -> Any:
        return self._form(tuple(array[rows] for array in self.arrays))

    def _form(self, arrays: tuple[Tensor, ...]) -> Any:
        return arrays[0] if self.bare else arrays


def _tensor(name: str, array: Any) -> Tensor:
    if isinstance(array, np.ndarray) and array.dtype.kind not in "biufc":
        raise TypeError(f"{name} must hold numbers; got an array of dtype {array.dtype}")
    if not isinstance(array, Tensor | np.ndarray):
        raise TypeError(f"{name} must hold tensors or arrays; got {type(array).__name__}")
    tensor = torch.as_tensor(array)
    if tensor.ndim == 0:
        raise ValueError(f"{name} must hold arrays with at least one dimension; got a scalar")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} must be finite; it holds NaN or infinity")
    return tensor


def move(batch: Any, device: torch.device) -> Any:
    """Return a batch with every tensor in it on this device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(move(value, device) for value in batch)
    return batch


def n_rows(batch: Any) -> int:
    """Return the number of rows of a batch: the length of its first tensor, or 1 where it has none."""
    if isinstance(batch, Tensor):
        return len(batch)
    if isinstance(batch, dict):
        batch = list(batch.values())
    return n_rows(batch[0]) if isinstance(batch, tuple | list) and batch else 1


def check_count(name: str, number: object) -> None:
    """Refuse what is neither ``None`` nor an integer of at least 1."""
    if number is not None and (not isinstance(number, Integral) or isinstance(number, bool) or number < 1):
        raise ValueError(f"{name} must be an integer of at least 1; got {number!r}")


def check_sizes(**sizes: object) -> None:
    """Refuse what is no ``int`` of at least 1, naming the argument."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be an integer of at least 1; got {size!r}")
