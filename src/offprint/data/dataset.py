"""What a loader returns, and what it raises when files are not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Int, Shaped

if TYPE_CHECKING:
    import torch

Split = Literal["train", "test", "all"]


class MissingDataError(FileNotFoundError):
    """A dataset's files are not on this machine; the message says where they were sought and how to get them."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs with their targets, as NumPy arrays.

    Images are float32 of shape (n, channels, height, width) in [0, 1]. Tables of numbers are float64 of shape
    (n, features) in the units of their source. Tables of mixed columns are structured arrays of shape (n,), one field
    per column. Classes are int64 of shape (n,), counted from 0; real targets are float64 of shape (n,).

    Parameters
    ----------
    inputs : array, shape (n, ...)
        What a model is given.
    targets : array, shape (n,)
        What it is to say.
    name : str
        The dataset's name in the registry.
    split : {"train", "test", "all"}
        Which part this is.
    source : str
        The folder it was read from, or the package it comes with.
    classes : tuple of str
        The name of each class; empty where targets are real.
    features : tuple of str
        The name of each column; empty for images.

    Raises
    ------
    ValueError
        If inputs and targets differ in length.

    Examples
    --------
    >>> data = Dataset(np.zeros((3, 2)), np.array([0, 1, 0]), "toy", "all", "nowhere")
    >>> len(data), len(data.take([0, 2]))
    (3, 2)
    """

    inputs: Shaped[np.ndarray, "n ..."]
    targets: Shaped[np.ndarray, " _"]
    name: str
    split: Split
    source: str
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(
                f"inputs and targets must have the same length; got {len(self.inputs)} and {len(self.targets)}"
            )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.targets)

    def take(self, rows: Sequence[int] | Int[np.ndarray, " m"]) -> Dataset:
        """Return the dataset of these rows, in this order.

        Parameters
        ----------
        rows : sequence of int, shape (m,)
            Row numbers from 0.

        Returns
        -------
        Dataset

        Raises
        ------
        IndexError
            If a row does not exist.

        Examples
        --------
        >>> from offprint.data import load
        >>> data = load("digits")
        >>> zeros_and_ones = data.take(np.flatnonzero(data.targets < 2))
        >>> len(zeros_and_ones)
        360
        """
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(self, inputs=self.inputs[chosen], targets=self.targets[chosen])

    def tensors(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets as torch tensors, real numbers in torch's default dtype, classes in int64.

        Parameters
        ----------
        device : torch.device or str
            Where the tensors are put.

        Returns
        -------
        inputs : tensor, shape (n, ...)
        targets : tensor, shape (n,)
            Neither shares memory with the arrays.

        Raises
        ------
        TypeError
            If the inputs have columns of text.

        Examples
        --------
        >>> from offprint.data import load
        >>> inputs, targets = load("iris").tensors()
        >>> inputs.dtype, inputs.shape, targets.dtype
        (torch.float32, torch.Size([150, 4]), torch.int64)
        """
        import torch

        if self.inputs.dtype.names is not None:
            raise TypeError(f"{self.name} has columns of text, which no tensor holds; load it with encoding='one_hot'")
        real = torch.get_default_dtype()
        inputs, targets = (
            torch.tensor(array, device=device, dtype=real if array.dtype.kind == "f" else None)
            for array in (self.inputs, self.targets)
        )
        return inputs, targets
