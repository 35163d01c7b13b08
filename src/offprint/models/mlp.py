"""A multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.models.randomness import seeded

Normalization = Literal["batch", "layer"]


class MLP(nn.Module):
    """Linear layers with a nonlinearity between them.

    Each hidden layer is linear, normalisation, activation, dropout; a linear ``head`` follows. ``model(x)`` is
    ``model.head(model.features(x))``, so a method that needs the last representation takes ``model.features``.

    Parameters
    ----------
    in_features : int or sequence of int
        Length of the last dimension of the inputs; a shape such as ``(1, 28, 28)`` flattens that many last dimensions.
    hidden_sizes : sequence of int
        Width of each hidden layer, at least 1 each; empty gives a linear model.
    out_features : int
        Length of the last dimension of the outputs, at least 1.
    activation : callable
        Returns a new activation module, such as the class ``torch.nn.ReLU``.
    dropout : float
        Probability of dropping a hidden unit, in [0, 1).
    normalization : {"batch", "layer"}, optional
        Normalisation before each activation. "batch" needs inputs of shape (batch, features).
    bias : bool
        Whether linear layers have a bias.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, dropout is outside [0, 1) or normalization is unknown.

    Notes
    -----
    Weights start as torch's linear layers do. Parameters: the sum over layers of (fan in + 1) · fan out, with biases.

    Examples
    --------
    >>> model = MLP((1, 8, 8), [32, 16], 10, generator=0)
    >>> model(torch.zeros(5, 1, 8, 8)).shape, model.features(torch.zeros(5, 1, 8, 8)).shape
    (torch.Size([5, 10]), torch.Size([5, 16]))

    References
    ----------
    Goodfellow, Bengio and Courville, *Deep Learning* (2016), chapter 6.
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        hidden_sizes: Sequence[int],
        out_features: int,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        dropout: float = 0.0,
        normalization: Normalization | None = None,
        bias: bool = True,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        shape = (in_features,) if isinstance(in_features, int) else tuple(in_features)
        sizes = [math.prod(shape), *hidden_sizes]
        if not shape or min(*shape, *sizes, out_features) < 1:
            raise ValueError(
                f"in_features, hidden_sizes and out_features must be at least 1; "
                f"got {in_features}, {list(hidden_sizes)} and {out_features}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}")
        if normalization not in (None, "batch", "layer"):
            raise ValueError(f"normalization must be 'batch', 'layer' or None; got {normalization!r}")
        layers: list[nn.Module] = [nn.Flatten(-len(shape))] if len(shape) > 1 else []
        with seeded(generator):
            for fan_in, fan_out in pairwise(sizes):
                layers.append(nn.Linear(fan_in, fan_out, bias=bias))
                if normalization is not None:
                    layers.append(nn.BatchNorm1d(fan_out) if normalization == "batch" else nn.LayerNorm(fan_out))
                layers.append(activation())
                if dropout > 0:
                    layers.append(nn.Dropout(dropout))
            self.features = nn.Sequential(*layers)
            self.head = nn.Linear(sizes[-1], out_features, bias=bias)

    def forward(self, inputs: Float[Tensor, "*batch features"]) -> Float[Tensor, "*outputs"]:
        """Return the outputs, of shape (..., out_features)."""
        outputs: Tensor = self.head(self.features(inputs))
        return outputs
