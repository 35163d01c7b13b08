"""Encoders that are told the noise level of what they see: ``encoder(x, t)`` returns (projection, features)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.models.randomness import seeded
from offprint.models.transformer import TransformerEncoder


def noise_features(t: Float[Tensor, " batch"], width: int) -> Float[Tensor, "batch width"]:
    """Return sines and cosines of 250 ln t at frequencies that fall from 1 to 1/10,000.

    Parameters
    ----------
    t : tensor, shape (batch,)
        Noise levels, positive.
    width : int
        Even.

    Returns
    -------
    tensor, shape (batch, width)

    Examples
    --------
    >>> noise_features(torch.tensor([1.0]), 4)
    tensor([[1., 1., 0., 0.]])
    """
    steps = torch.arange(width // 2, device=t.device, dtype=t.dtype) / (width // 2)
    angles = 250 * t.log()[:, None] * torch.exp(-math.log(10_000) * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Encoder(nn.Module):
    """What this method asks of an encoder; a module of one's own need only have the same ``forward``.

    Inputs are scaled to unit size and ``t``, of shape (batch,), says how noisy they were. A method ``features`` is used
    where there is one, to spare the projection; a list ``layers`` from input to output, for layer-wise learning rates.

    Parameters
    ----------
    width, projection_width : int
        Length of the features and of the projection.
    projection_hidden : int
        Width of the projection's two hidden layers.
    """

    def __init__(self, width: int, projection_width: int, projection_hidden: int) -> None:
        super().__init__()
        self.width = width
        self.projection = nn.Sequential(
            nn.Linear(width, projection_hidden),
            nn.ReLU(),
            nn.Linear(projection_hidden, projection_hidden),
            nn.ReLU(),
            nn.Linear(projection_hidden, projection_width),
        )

    def features(self, x: Float[Tensor, "batch *input"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Return the features of inputs x at noise levels t."""
        raise NotImplementedError

    def forward(
        self, x: Float[Tensor, "batch *input"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch projection"], Float[Tensor, "batch width"]]:
        """Return (projection, features) of inputs x at noise levels t."""
        features = self.features(x, t)
        return self.projection(features), features


class ResidualEncoder(Encoder):
    """Residual layers over a flat input, with the noise level added to each: small and fast, for vectors or digits.

    Parameters
    ----------
    in_features : int or sequence of int
        Length or shape of one input.
    width, n_layers : int
        Of the features, even, and how many residual layers.
    projection_width, projection_hidden : int
        Of the projection.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1 or width is odd.

    Examples
    --------
    >>> encoder = ResidualEncoder((1, 8, 8), width=32, generator=0)
    >>> projection, features = encoder(torch.zeros(5, 1, 8, 8), torch.ones(5))
    >>> projection.shape, features.shape
    (torch.Size([5, 64]), torch.Size([5, 32]))
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        width: int = 256,
        n_layers: int = 2,
        *,
        projection_width: int = 64,
        projection_hidden: int = 128,
        generator: torch.Generator | int | None = None,
    ) -> None:
        shape = (in_features,) if isinstance(in_features, int) else tuple(in_features)
        _check_sizes(*shape, width, n_layers, projection_width, projection_hidden)
        _check_even(width)
        with seeded(generator):
            super().__init__(width, projection_width, projection_hidden)
            self.embedding = nn.Linear(math.prod(shape), width)
            self.layers = nn.ModuleList(_ResidualLayer(width) for _ in range(n_layers))
            self.norm = nn.LayerNorm(width)

    def features(self, x: Float[Tensor, "batch *input"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Return the features of inputs x at noise levels t."""
        hidden = self.embedding(x.flatten(1))
        code = noise_features(t.to(hidden.dtype), self.width)
        for layer in self.layers:
            hidden = layer(hidden, code)
        outputs: Tensor = self.norm(hidden)
        return outputs


class _ResidualLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.activation = nn.LayerNorm(width), nn.ReLU()
        self.level = nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, hidden: Float[Tensor, "batch width"], code: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch width"]:
        inner = self.activation(self.inner(self.norm(hidden)) + self.level(code))
        outputs: Tensor = hidden + self.outer(inner)
        return outputs


class PatchEncoder(Encoder):
    """A vision transformer whose tokens are a class token, the noise level and the patches of an image.

    Parameters
    ----------
    in_channels, image_size, patch_size : int
        Of square images; the patch size divides the image size.
    width, n_layers, n_heads : int
        Of the transformer; width is even and a multiple of n_heads.
    projection_width, projection_hidden : int
        Of the projection.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, width is odd, or patches do not fill the image.

    Examples
    --------
    >>> encoder = PatchEncoder(1, 8, 4, width=32, n_layers=1, n_heads=4, generator=0)
    >>> projection, features = encoder(torch.zeros(5, 1, 8, 8), torch.ones(5))
    >>> projection.shape, features.shape
    (torch.Size([5, 64]), torch.Size([5, 32]))
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        patch_size: int,
        *,
        width: int = 64,
        n_layers: int = 4,
        n_heads: int = 4,
        projection_width: int = 64,
        projection_hidden: int = 128,
        generator: torch.Generator | int | None = None,
    ) -> None:
        _check_sizes(in_channels, image_size, patch_size, width, n_layers, n_heads, projection_width, projection_hidden)
        _check_even(width)
        if image_size % patch_size:
            raise ValueError(f"patch_size must divide image_size; got {patch_size} and {image_size}")
        n_patches = (image_size // patch_size) ** 2
        with seeded(generator):
            super().__init__(width, projection_width, projection_hidden)
            self.patches = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)
            self.level = nn.Linear(width, width)
            self.class_token = nn.Parameter(0.02 * torch.randn(width))
            self.transformer = TransformerEncoder(
                width, n_layers, n_heads, in_features=width, positions="learned", max_length=n_patches + 2
            )

    @property
    def layers(self) -> list[nn.Module]:
        """What a layer-wise learning rate counts, from input to output."""
        return list(self.transformer.layers)

    def features(self, x: Float[Tensor, "batch *input"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Return the output at the class token for images x at noise levels t."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        level = self.level(noise_features(t.to(patches.dtype), self.width))
        tokens = torch.cat([self.class_token.expand(len(x), 1, -1), level[:, None], patches], dim=1)
        outputs: Tensor = self.transformer(tokens)[:, 0]
        return outputs


def _check_sizes(*sizes: int) -> None:
    if min(sizes) < 1:
        raise ValueError(f"sizes must be at least 1; got {list(sizes)}")


def _check_even(width: int) -> None:
    if width % 2:
        raise ValueError(f"width must be even, for pairs of sine and cosine; got {width}")
