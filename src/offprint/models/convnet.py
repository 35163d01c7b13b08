"""A small convolutional network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.models.randomness import seeded


class ConvNet(nn.Module):
    """Convolutions with normalisation, activation and max-pooling, then an average over the image and a linear head.

    Each block is a convolution that keeps the image's size, normalisation, activation and, but for the last block,
    max-pooling that halves the size (rounded up, so that images of any size fit). ``model(x)`` is
    ``model.head(model.features(x))``.

    Parameters
    ----------
    in_channels : int
        Channels of the images, at least 1.
    channels : sequence of int
        Output channels of each block, at least one block and 1 channel each.
    out_features : int
        Length of the output, at least 1.
    kernel_size : int
        Side of the convolutions, odd.
    normalization : {"batch", "group"}, optional
        "group" normalises over the largest number of groups, up to 8, that divides the channels, and so does not
        depend on the batch. With a normalisation, convolutions have no bias.
    activation : callable
        Returns a new activation module, such as the class ``torch.nn.ReLU``.
    dropout : float
        Probability of dropping a feature before the head, in [0, 1).
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range or normalization is unknown.

    Notes
    -----
    Weights start as torch's convolutions do. A block from a to b channels has a·b·kernel_size² weights, and b biases or
    2b parameters of normalisation.

    Examples
    --------
    >>> model = ConvNet(1, [16, 32], 10, generator=0)
    >>> model(torch.zeros(5, 1, 8, 8)).shape, model(torch.zeros(5, 1, 28, 28)).shape
    (torch.Size([5, 10]), torch.Size([5, 10]))

    References
    ----------
    LeCun, Bottou, Bengio and Haffner, *Gradient-Based Learning Applied to Document Recognition* (1998), section II.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        out_features: int,
        *,
        kernel_size: int = 3,
        normalization: Literal["batch", "group"] | None = "batch",
        activation: Callable[[], nn.Module] = nn.ReLU,
        dropout: float = 0.0,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if not channels or min(in_channels, *channels, out_features) < 1:
            raise ValueError(
                "in_channels, channels and out_features must be at least 1, and channels not empty; "
                f"got {in_channels}, {list(channels)} and {out_features}"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 1; got {kernel_size}")
        if normalization not in (None, "batch", "group"):
            raise ValueError(f"normalization must be 'batch', 'group' or None; got {normalization!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}")
        layers: list[nn.Module] = []
        with seeded(generator):
            for fan_in, fan_out in zip([in_channels, *channels], channels, strict=False):
                bias = normalization is None
                layers.append(nn.Conv2d(fan_in, fan_out, kernel_size, padding=kernel_size // 2, bias=bias))
                if normalization is not None:
                    layers.append(nn.BatchNorm2d(fan_out) if normalization == "batch" else _group_norm(fan_out))
                layers += [activation(), nn.MaxPool2d(2, ceil_mode=True)]
            layers[-1:] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            self.features = nn.Sequential(*layers)
            self.head = nn.Linear(channels[-1], out_features)

    def forward(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out"]:
        """Return the outputs, of shape (batch, out_features)."""
        outputs: Tensor = self.head(self.features(inputs))
        return outputs


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(groups for groups in range(1, 9) if channels % groups == 0), channels)
