"""Measure a model on data: mean loss, outputs, accuracy; and the two losses that fit most models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from offprint.models.batches import Batches, Data, move, n_rows

Model = TypeVar("Model", bound=nn.Module)
Loss = Callable[[Model, Any], Tensor]


def evaluate(
    model: Model,
    loss: Loss[Model],
    data: Data,
    *,
    batch_size: int | None = 512,
    device: torch.device | str | None = None,
) -> float:
    """Return the mean of a loss over data, in evaluation mode and without gradients.

    Parameters
    ----------
    model : torch.nn.Module
        Its training mode is restored afterwards.
    loss : callable
        ``loss(model, batch)``, a scalar mean over the batch. One that itself differentiates needs
        ``torch.enable_grad()`` inside.
    data : tensor, tuple of tensors, Dataset or DataLoader
        As for :func:`train`.
    batch_size : int or None
        Rows per batch, at least 1; ``None`` takes all rows at once.
    device : torch.device or str, optional
        Where batches are moved; by default where the model is.

    Returns
    -------
    float
        The mean over batches, weighted by their numbers of rows.

    Raises
    ------
    ValueError
        If data are empty, of unequal lengths or not finite, or the loss is not a scalar.

    Examples
    --------
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.ones_(model.weight)
    >>> evaluate(model, mean_squared_error, (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[3.0], [5.0]])))
    2.0
    """
    place = device_of(model) if device is None else torch.device(device)
    mean = RunningMean()
    with evaluating(model), torch.no_grad():
        for batch in Batches("data", data, batch_size).in_order():
            mean.add(scalar(loss(model, move(batch, place))).item(), n_rows(batch))
    if mean.weight == 0:
        raise ValueError("data yielded no batch")
    return mean.mean


def predict(
    model: nn.Module,
    inputs: Shaped[Tensor, "n ..."] | Shaped[np.ndarray, "n ..."],
    *,
    batch_size: int | None = 512,
    device: torch.device | str | None = None,
) -> Shaped[Tensor, "n ..."]:
    """Return a model's outputs for many inputs, in evaluation mode, without gradients and batch by batch.

    Parameters
    ----------
    model : torch.nn.Module
        Its training mode is restored afterwards.
    inputs : tensor or array, shape (n, ...)
        At least one row, finite.
    batch_size : int or None
        Rows per batch, at least 1.
    device : torch.device or str, optional
        Where batches are moved, and where the outputs lie; by default where the model is.

    Returns
    -------
    tensor, shape (n, ...)

    Raises
    ------
    ValueError
        If inputs are empty or not finite, or batch_size is below 1.

    Examples
    --------
    >>> predict(nn.Identity(), torch.arange(3.0))
    tensor([0., 1., 2.])
    """
    place = device_of(model) if device is None else torch.device(device)
    with evaluating(model), torch.no_grad():
        rows = Batches("inputs", inputs, batch_size).in_order()
        return torch.cat([model(batch.to(place)) for batch in rows])


def accuracy(
    model: nn.Module,
    data: Data,
    *,
    batch_size: int | None = 512,
    device: torch.device | str | None = None,
) -> float:
    """Return the share of rows whose largest output is at the target class.

    Parameters
    ----------
    model : torch.nn.Module
        From inputs to logits of shape (batch, classes), or of shape (batch,) or (batch, 1) for two classes, where a
        positive logit says class 1.
    data : tuple of tensors, Dataset or DataLoader
        Inputs and integer classes of shape (n,).
    batch_size : int or None
        Rows per batch, at least 1.
    device : torch.device or str, optional
        Where batches are moved; by default where the model is.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If data are empty, of unequal lengths or not finite, or targets are not one class per row.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]])
    >>> round(accuracy(nn.Identity(), (logits, torch.tensor([0, 1, 1]))), 3)
    0.667
    """

    def share(network: nn.Module, batch: Any) -> Tensor:
        inputs, targets = _pair(batch)
        outputs = network(inputs)
        if targets.ndim != 1 or len(targets) != len(outputs):
            raise ValueError(f"data must hold one class per row; got targets {tuple(targets.shape)}")
        single = outputs.ndim == 1 or outputs.shape[1] == 1
        said = (outputs.reshape(-1) > 0).to(targets.dtype) if single else outputs.argmax(1)
        return torch.mean((said == targets).double())

    return evaluate(model, share, data, batch_size=batch_size, device=device)


def cross_entropy(model: nn.Module, batch: Any) -> Float[Tensor, ""]:
    """Return the mean cross entropy of a model's logits on ``batch = (inputs, classes)``.

    Parameters
    ----------
    model : torch.nn.Module
        From inputs to logits of shape (batch, classes, ...), or of shape (batch,) or (batch, 1) for two classes.
    batch : pair of tensors
        Inputs and classes: integers of shape (batch, ...), or probabilities of the shape of the logits. For two
        classes with one logit, 0 or 1 (or a probability of 1) of shape (batch,) or (batch, 1).

    Returns
    -------
    tensor, shape ()

    Raises
    ------
    ValueError
        If the batch is not a pair.

    Examples
    --------
    >>> logits, classes = torch.zeros(3, 4), torch.tensor([0, 1, 2])
    >>> round(cross_entropy(nn.Identity(), (logits, classes)).item(), 4)  # log 4
    1.3863
    """
    inputs, targets = _pair(batch)
    outputs = model(inputs)
    if outputs.ndim == 1 or outputs.shape[1:] == (1,):
        flat = outputs.reshape(-1)
        return functional.binary_cross_entropy_with_logits(flat, targets.reshape(-1).to(flat.dtype))
    return functional.cross_entropy(outputs, targets)


def mean_squared_error(model: nn.Module, batch: Any) -> Float[Tensor, ""]:
    """Return the mean squared error of a model's outputs on ``batch = (inputs, targets)``.

    Parameters
    ----------
    model : torch.nn.Module
        From inputs to outputs of shape (batch, ...).
    batch : pair of tensors
        Inputs and real targets of the shape of the outputs; targets of shape (batch,) match outputs of (batch, 1).

    Returns
    -------
    tensor, shape ()

    Raises
    ------
    ValueError
        If the batch is not a pair, or outputs and targets differ in shape.

    Examples
    --------
    >>> mean_squared_error(nn.Identity(), (torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0])))
    tensor(2.)
    """
    inputs, targets = _pair(batch)
    outputs = model(inputs)
    if outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1:
        outputs = outputs.squeeze(-1)
    if outputs.shape != targets.shape:
        raise ValueError(
            f"targets must have the shape of the outputs, {tuple(outputs.shape)}; got {tuple(targets.shape)}"
        )
    return functional.mse_loss(outputs, targets.to(outputs.dtype))


@dataclass
class RunningMean:
    """A weighted mean of the values added so far."""

    total: float = 0.0
    weight: int = 0

    def add(self, value: float, weight: int = 1) -> None:
        """Count one more value."""
        self.total += value * weight
        self.weight += weight

    @property
    def mean(self) -> float:
        """The mean; at least one value must have been added."""
        return self.total / self.weight


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, then restore the mode module by module, since parts may have been frozen."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer, or the CPU where it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(f"batch must be a pair of inputs and targets; got {type(batch).__name__}")
    return batch[0], batch[1]


def scalar(value: Any) -> Tensor:
    """Return what a loss returned, or refuse it unless it is a scalar tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"loss must return a tensor; got {type(value).__name__}")
    if value.ndim != 0:
        raise ValueError(f"loss must return a scalar; got shape {tuple(value.shape)}")
    return value
