"""A transformer over sequences of vectors or tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from offprint.models.randomness import seeded

Positions = Literal["learned", "sinusoidal", "rotary"]
WAVELENGTH = 10_000.0  # of the slowest position feature, in units of 2π positions


class TransformerEncoder(nn.Module):
    """Layers of self-attention and feed-forward networks over a sequence, causal or not, then a linear head.

    Without positions it treats its inputs as a set. ``model(x)`` is ``model.head(model.features(x))``.

    Parameters
    ----------
    width : int
        Length of each position's representation, a multiple of ``n_heads``.
    n_layers, n_heads : int
        At least 1.
    out_features : int, optional
        Length of the output; by default there is no head and the output is the representation.
    in_features, n_tokens : int, optional
        Exactly one of the two: the length of the input vectors, or the number of different tokens.
    feedforward : int, optional
        Width of the feed-forward networks; by default four times ``width``.
    causal : bool
        Let each position attend only to itself and those before it.
    positions : {"learned", "sinusoidal", "rotary"}, optional
        How positions are told apart: a learned vector added for each, fixed waves added, or queries and keys rotated
        by an angle that grows with position. By default not at all.
    max_length : int
        Longest sequence that learned positions allow.
    pooling : {"mean", "last"}, optional
        Average positions, or take the last one, before the head; by default the output has every position.
    norm_first : bool
        Normalise before each part (and once at the end), which trains more easily, rather than after it.
    dropout : float
        Probability of dropping a unit after attention weights, parts and hidden units, in [0, 1).
    activation : callable
        Returns a new activation module for the feed-forward networks.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range, an option is unknown, or not one of ``in_features`` and ``n_tokens`` is given.

    Notes
    -----
    For sequences of length T, time is O(T² width + T width²) per layer. A layer has 4 width² + 2 width feedforward
    weights, 9 width + feedforward biases and normalisation parameters. Embeddings start with standard deviation 0.02.

    Examples
    --------
    >>> tokens = torch.randint(0, 50, (2, 7))
    >>> model = TransformerEncoder(32, 2, 4, 50, n_tokens=50, causal=True, positions="rotary", generator=0)
    >>> model(tokens).shape
    torch.Size([2, 7, 50])

    References
    ----------
    Vaswani et al., *Attention Is All You Need*, arXiv:1706.03762, section 3.
    Su et al., *RoFormer*, arXiv:2104.09864, section 3.2.2, for rotary positions.
    Xiong et al., *On Layer Normalization in the Transformer Architecture*, arXiv:2002.04745, for norm_first.
    """

    def __init__(
        self,
        width: int,
        n_layers: int,
        n_heads: int,
        out_features: int | None = None,
        *,
        in_features: int | None = None,
        n_tokens: int | None = None,
        feedforward: int | None = None,
        causal: bool = False,
        positions: Positions | None = None,
        max_length: int = 512,
        pooling: Literal["mean", "last"] | None = None,
        norm_first: bool = True,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.GELU,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if (in_features is None) == (n_tokens is None):
            raise ValueError(f"give exactly one of in_features and n_tokens; got {in_features} and {n_tokens}")
        hidden = 4 * width if feedforward is None else feedforward
        sizes = [width, n_layers, n_heads, out_features or 1, in_features or n_tokens or 0, hidden, max_length]
        if min(sizes) < 1 or out_features == 0:
            raise ValueError(f"sizes must be at least 1; got {sizes}")
        if width % n_heads:
            raise ValueError(f"width must be a multiple of n_heads; got {width} and {n_heads}")
        if positions not in (None, "learned", "sinusoidal", "rotary"):
            raise ValueError(f"positions must be 'learned', 'sinusoidal', 'rotary' or None; got {positions!r}")
        if (positions == "rotary" and (width // n_heads) % 2) or (positions == "sinusoidal" and width % 2):
            raise ValueError(f"{positions} positions need an even width (per head); got {width} and {n_heads} heads")
        if pooling not in (None, "mean", "last"):
            raise ValueError(f"pooling must be 'mean', 'last' or None; got {pooling!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}")
        self.causal, self.positions, self.pooling, self.max_length = causal, positions, pooling, max_length
        with seeded(generator):
            self.embedding: nn.Module
            if n_tokens is not None:
                self.embedding = _embedding(n_tokens, width)
            else:
                self.embedding = nn.Linear(in_features or 0, width)
            self.position = _embedding(max_length, width) if positions == "learned" else None
            self.dropout = nn.Dropout(dropout)
            rotary = positions == "rotary"
            self.layers = nn.ModuleList(
                _Layer(width, n_heads, hidden, rotary, norm_first, dropout, activation) for _ in range(n_layers)
            )
            self.norm: nn.Module = nn.LayerNorm(width) if norm_first else nn.Identity()
            self.head: nn.Module = nn.Identity() if out_features is None else nn.Linear(width, out_features)

    def forward(
        self,
        inputs: Float[Tensor, "batch length features"] | Int[Tensor, "batch length"],
        mask: Shaped[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch *outputs"]:
        """Return the outputs, of shape (batch, length, out_features), or (batch, out_features) with pooling.

        Parameters
        ----------
        inputs : tensor, shape (batch, length, in_features) or (batch, length)
            Vectors, or tokens in [0, n_tokens).
        mask : bool tensor, shape (batch, length), optional
            True where there is an input, False where there is padding, which no position attends to or pools.

        Returns
        -------
        tensor

        Raises
        ------
        ValueError
            If the sequence is empty, longer than learned positions allow, or the mask has another shape.
        """
        outputs: Tensor = self.head(self.features(inputs, mask))
        return outputs

    def features(
        self,
        inputs: Float[Tensor, "batch length features"] | Int[Tensor, "batch length"],
        mask: Shaped[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch *outputs"]:
        """Return what the head is given, of shape (batch, length, width), or (batch, width) with pooling."""
        self._check(inputs, mask)
        hidden = self.embedding(inputs)
        hidden = self.dropout(hidden + self._added_positions(hidden))
        allowed = _allowed(mask, self.causal)
        for layer in self.layers:
            hidden = layer(hidden, allowed, self.causal and mask is None)
        return _pooled(self.norm(hidden), mask, self.pooling)

    def _check(self, inputs: Tensor, mask: Tensor | None) -> None:
        if inputs.ndim < 2 or inputs.shape[1] == 0:
            raise ValueError(f"inputs must hold sequences of at least one position; got shape {tuple(inputs.shape)}")
        if self.positions == "learned" and inputs.shape[1] > self.max_length:
            raise ValueError(f"inputs must be at most max_length={self.max_length} long; got {inputs.shape[1]}")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != inputs.shape[:2]):
            raise ValueError(
                f"mask must be bool of shape {tuple(inputs.shape[:2])}; got {mask.dtype} of {tuple(mask.shape)}"
            )

    def _added_positions(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "length width"] | float:
        length, width = hidden.shape[1:]
        if self.position is not None:
            table: Tensor = self.position.weight[:length]
            return table
        if self.positions == "sinusoidal":
            angles = _angles(length, width, hidden)
            return torch.cat([angles.sin(), angles.cos()], dim=-1)
        return 0.0


class _Layer(nn.Module):
    def __init__(
        self,
        width: int,
        n_heads: int,
        hidden: int,
        rotary: bool,
        norm_first: bool,
        dropout: float,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = _Attention(width, n_heads, rotary, dropout)
        self.feedforward = nn.Sequential(
            nn.Linear(width, hidden), activation(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        hidden: Float[Tensor, "batch length width"],
        allowed: Bool[Tensor, "batch 1 length length"] | None,
        causal: bool,
    ) -> Float[Tensor, "batch length width"]:
        if self.norm_first:
            hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), allowed, causal))
            hidden = hidden + self.dropout(self.feedforward(self.feedforward_norm(hidden)))
        else:
            hidden = self.attention_norm(hidden + self.dropout(self.attention(hidden, allowed, causal)))
            hidden = self.feedforward_norm(hidden + self.dropout(self.feedforward(hidden)))
        return hidden


class _Attention(nn.Module):
    def __init__(self, width: int, n_heads: int, rotary: bool, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.rotary, self.dropout = n_heads, rotary, dropout
        self.inner = nn.Linear(width, 3 * width)
        self.outer = nn.Linear(width, width)

    def forward(
        self,
        hidden: Float[Tensor, "batch length width"],
        allowed: Bool[Tensor, "batch 1 length length"] | None,
        causal: bool,
    ) -> Float[Tensor, "batch length width"]:
        query, key, value = self.inner(hidden).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.rotary:
            angles = _angles(query.shape[-2], query.shape[-1], query)
            query, key = _rotated(query, angles), _rotated(key, angles)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed, dropout_p=self.dropout if self.training else 0.0, is_causal=causal
        )
        outputs: Tensor = self.outer(mixed.transpose(1, 2).flatten(-2))
        return outputs


def _embedding(n: int, width: int) -> nn.Embedding:
    table = nn.Embedding(n, width)
    nn.init.normal_(table.weight, std=0.02)
    return table


def _angles(length: int, width: int, like: Tensor) -> Float[Tensor, "length half"]:
    """Return position times frequency; frequencies fall geometrically from 1 (arXiv:1706.03762, section 3.5)."""
    steps = torch.arange(width // 2, device=like.device, dtype=like.dtype) * (-2 * math.log(WAVELENGTH) / width)
    return torch.arange(length, device=like.device, dtype=like.dtype)[:, None] * steps.exp()


def _rotated(
    vectors: Float[Tensor, "batch heads length size"], angles: Float[Tensor, "length half"]
) -> Float[Tensor, "batch heads length size"]:
    """Rotate the plane of coordinates i and i + size/2 by the position's angle (arXiv:2104.09864, eq. 15)."""
    first, second = vectors.chunk(2, dim=-1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def _allowed(mask: Bool[Tensor, "batch length"] | None, causal: bool) -> Bool[Tensor, "batch 1 length length"] | None:
    """Say which position may attend to which; padding attends to itself alone, since softmax needs something."""
    if mask is None:
        return None
    square = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device)
    allowed = mask[:, None, None, :] & (square.tril() if causal else square)
    return allowed | torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)


def _pooled(
    hidden: Float[Tensor, "batch length width"],
    mask: Bool[Tensor, "batch length"] | None,
    pooling: Literal["mean", "last"] | None,
) -> Float[Tensor, "batch *outputs"]:
    if pooling is None:
        return hidden
    if mask is None:
        return hidden.mean(1) if pooling == "mean" else hidden[:, -1]
    if pooling == "mean":
        weights = mask.to(hidden.dtype)[:, :, None]
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    places = torch.arange(mask.shape[1], device=mask.device)
    last = (places * mask).amax(1)
    return hidden[torch.arange(len(hidden), device=mask.device), last]
