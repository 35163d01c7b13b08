"""Encoders of sets that depend on the empirical distribution alone, and the sums to compare them with."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.methods.bags.gde_gaussian import check_float
from offprint.models.batches import check_sizes
from offprint.models.mlp import MLP
from offprint.models.randomness import seeded

Shares = Float[Tensor, "sets points"] | None
"""What each point of a set weighs, adding up to 1; ``None`` where all weigh the same."""


class _SetEncoder(nn.Module):
    """What the encoders share: the shape of their input, and weights of points."""

    def __init__(self, in_features: int, latent_features: int) -> None:
        super().__init__()
        check_sizes(in_features=in_features, latent_features=latent_features)
        self.in_features, self.latent_features = in_features, latent_features

    def forward(
        self, x: Float[Tensor, "sets points features"], weights: Float[Tensor, "sets points"] | None = None
    ) -> Float[Tensor, "sets latent"]:
        """Encode sets of equal size, of shape (sets, points, in_features); a weight of 2 counts as two such points."""
        if x.ndim != 3 or x.shape[2] != self.in_features or x.shape[1] == 0:
            raise ValueError(f"x must have shape (sets, points, {self.in_features}); got {tuple(x.shape)}")
        check_float("x", x)
        if weights is None:
            return self.encode(x, None)
        check_float("weights", weights)
        if weights.shape != x.shape[:2] or bool((weights < 0).any()) or bool((weights.sum(1) <= 0).any()):
            raise ValueError(f"weights must be at least 0, a positive sum for each set, of shape {tuple(x.shape[:2])}")
        return self.encode(x, weights / weights.sum(1, keepdim=True))

    def encode(self, x: Float[Tensor, "sets points features"], shares: Shares) -> Float[Tensor, "sets latent"]:
        """Encode sets whose shape has been checked."""
        raise NotImplementedError


class _ToldLayer(nn.Module):
    """Two linear layers over points that are told a vector of their set: MLP([x_i; told]) without copying it."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.own = nn.Linear(features, features)
        self.told = nn.Linear(features, features, bias=False)
        self.out = nn.Linear(features, features)

    def forward(self, h: Tensor, told: Tensor) -> Tensor:
        hidden = nn.functional.selu(self.own(h) + self.told(told)[:, None])
        return nn.functional.selu(self.out(hidden))


class _AttentionLayer(nn.Module):
    """Self-attention and a small network over points, each added and followed by a layer norm."""

    def __init__(self, features: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(features, 3 * features)
        self.merge = nn.Linear(features, features)
        self.net = MLP(features, [2 * features], features)
        self.norms = nn.ModuleList([nn.LayerNorm(features) for _ in range(2)])

    def forward(self, h: Tensor, shares: Shares) -> Tensor:
        queries, keys, values = self.project(h).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        # A point that counts twice is attended to as two points would be.
        bias = None if shares is None else shares.log()[:, None, None]
        seen = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        h = self.norms[0](h + self.merge(seen.transpose(1, 2).flatten(2)))
        out: Tensor = self.norms[1](h + self.net(h))
        return out


class MeanPoolEncoder(_SetEncoder):
    """A small network over points that tells each the mean of all, layer by layer, then takes the mean.

    An embedding of points, then layers x_i ← MLP([x_i; mean of x]), then the mean over points and a linear layer.

    Parameters
    ----------
    in_features, latent_features : int
        Length of a point and of the latent vector, at least 1.
    hidden_features : int
        Width, at least 1.
    n_layers : int
        Layers that see the mean, at least 1.
    linear_latent : bool
        Leave out the last SELU, which floors latent coordinates at −1.758 and so bends distances.
    pooling : {"mean", "sum"}
        How points become one vector at the end. A sum grows with the size of the set: it is there to compare with.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, pooling is unknown, or points of another length are given.

    Notes
    -----
    O(points · hidden_features² · n_layers) a set.

    Examples
    --------
    >>> encoder = MeanPoolEncoder(2, 4, 16, generator=0)
    >>> x = torch.arange(12.0).reshape(2, 3, 2)
    >>> encoder(x).shape, torch.allclose(encoder(x), encoder(x.repeat(1, 2, 1)), atol=1e-5)
    (torch.Size([2, 4]), True)

    References
    ----------
    Fishman et al., *Generative Distribution Embeddings*, arXiv:2505.18150, the graph-style encoder.
    """

    def __init__(
        self,
        in_features: int,
        latent_features: int,
        hidden_features: int = 64,
        n_layers: int = 2,
        linear_latent: bool = True,
        pooling: Literal["mean", "sum"] = "mean",
        *,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__(in_features, latent_features)
        check_sizes(hidden_features=hidden_features, n_layers=n_layers)
        if pooling not in ("mean", "sum"):
            raise ValueError(f"pooling must be 'mean' or 'sum'; got {pooling!r}")
        h, self.pooling = hidden_features, pooling
        with seeded(generator):
            self.embed = MLP(in_features, [h], h, activation=nn.SELU)
            self.layers = nn.ModuleList([_ToldLayer(h) for _ in range(n_layers)])
            self.out = nn.Linear(h, latent_features)
            start_for_selu(self)
        self.last = nn.Identity() if linear_latent else nn.SELU()

    def encode(self, x: Float[Tensor, "sets points features"], shares: Shares) -> Float[Tensor, "sets latent"]:
        """Encode sets whose shape has been checked."""
        h = nn.functional.selu(self.embed(x))
        for layer in self.layers:
            h = layer(h, _mean(h, shares))
        pooled = _mean(h, shares)
        latent: Tensor = self.last(self.out(pooled if self.pooling == "mean" else pooled * x.shape[1]))
        return latent


class ResNetSetEncoder(_SetEncoder):
    """Layers that see the mean (or median) of the set, each added to the last and to a linear map of the raw points.

    Parameters
    ----------
    in_features, latent_features : int
        Length of a point and of the latent vector, at least 1.
    hidden_features : int
        Width, at least 1.
    n_layers : int
        Residual layers, at least 1.
    pooling : {"mean", "median"}
        What layers are told of the set, and how points become one vector at the end.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, pooling is unknown, or points of another length are given.

    Notes
    -----
    O(points · hidden_features² · n_layers) a set. Each layer ends in a layer norm of single points.

    Examples
    --------
    >>> ResNetSetEncoder(2, 4, 16, generator=0)(torch.zeros(3, 5, 2)).shape
    torch.Size([3, 4])

    References
    ----------
    Fishman et al., *Generative Distribution Embeddings*, arXiv:2505.18150, the residual encoder.
    """

    def __init__(
        self,
        in_features: int,
        latent_features: int,
        hidden_features: int = 64,
        n_layers: int = 2,
        pooling: Literal["mean", "median"] = "mean",
        *,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__(in_features, latent_features)
        check_sizes(hidden_features=hidden_features, n_layers=n_layers)
        if pooling not in ("mean", "median"):
            raise ValueError(f"pooling must be 'mean' or 'median'; got {pooling!r}")
        h, self.pool = hidden_features, _mean if pooling == "mean" else _median
        with seeded(generator):
            self.embed = nn.Linear(in_features, h)
            self.layers = nn.ModuleList([_ToldLayer(h) for _ in range(n_layers)])
            self.raw = nn.ModuleList([nn.Linear(in_features, h) for _ in range(n_layers)])
            self.norms = nn.ModuleList([nn.LayerNorm(h) for _ in range(n_layers)])
            self.out = nn.Linear(h, latent_features)
            start_for_selu(self)

    def encode(self, x: Float[Tensor, "sets points features"], shares: Shares) -> Float[Tensor, "sets latent"]:
        """Encode sets whose shape has been checked."""
        h = nn.functional.selu(self.embed(x))
        for layer, raw, norm in zip(self.layers, self.raw, self.norms, strict=True):
            h = norm(h + layer(h, self.pool(h, shares)) + raw(x))
        latent: Tensor = self.out(self.pool(h, shares))
        return latent


class SetTransformerEncoder(_SetEncoder):
    """Self-attention between the points of a set, then their mean.

    Parameters
    ----------
    in_features, latent_features : int
        Length of a point and of the latent vector, at least 1.
    hidden_features : int
        Width, a multiple of ``n_heads``.
    n_layers, n_heads : int
        Attention layers and heads of each, at least 1.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, heads do not divide the width, or points of another length are given.

    Notes
    -----
    O(points² · hidden_features · n_layers) a set. Softmax attention is an average, so replicating points changes
    nothing.

    Examples
    --------
    >>> SetTransformerEncoder(2, 4, 16, generator=0)(torch.zeros(3, 5, 2)).shape
    torch.Size([3, 4])

    References
    ----------
    Lee et al., *Set Transformer*, arXiv:1810.00825, section 3.1.
    """

    def __init__(
        self,
        in_features: int,
        latent_features: int,
        hidden_features: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        *,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__(in_features, latent_features)
        check_sizes(hidden_features=hidden_features, n_layers=n_layers, n_heads=n_heads)
        if hidden_features % n_heads:
            raise ValueError(f"n_heads must divide hidden_features, {hidden_features}; got {n_heads}")
        h = hidden_features
        with seeded(generator):
            self.embed = nn.Linear(in_features, h)
            self.layers = nn.ModuleList([_AttentionLayer(h, n_heads) for _ in range(n_layers)])
            self.out = nn.Linear(h, latent_features)

    def encode(self, x: Float[Tensor, "sets points features"], shares: Shares) -> Float[Tensor, "sets latent"]:
        """Encode sets whose shape has been checked."""
        h = nn.functional.selu(self.embed(x))
        for layer in self.layers:
            h = layer(h, shares)
        latent: Tensor = self.out(_mean(h, shares))
        return latent


class KernelMeanEmbedding(_SetEncoder):
    """The mean of random cosine and sine features: nothing is learned.

    Parameters
    ----------
    in_features : int
        Length of a point, at least 1.
    latent_features : int
        Length of the embedding, even.
    bandwidth : float
        Length scale γ of the Gaussian kernel, positive: frequencies are normal with standard deviation 1 / γ.
    generator : torch.Generator or int, optional
        Source (or seed) of the frequencies; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range, bandwidth is not positive, or points of another length are given.

    Notes
    -----
    O(points · in_features · latent_features) a set. Choose the bandwidth on data: a wrong one is a poor baseline.

    Examples
    --------
    >>> KernelMeanEmbedding(2, 4, 1.0, generator=0)(torch.zeros(1, 5, 2)).tolist()
    [[1.0, 1.0, 0.0, 0.0]]

    References
    ----------
    Rahimi and Recht, *Random Features for Large-Scale Kernel Machines* (2007), section 3.
    """

    def __init__(
        self,
        in_features: int,
        latent_features: int,
        bandwidth: float = 0.1,
        *,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__(in_features, latent_features)
        if latent_features % 2:
            raise ValueError(f"latent_features must be even; got {latent_features}")
        if not 0 < bandwidth < math.inf:
            raise ValueError(f"bandwidth must be positive and finite; got {bandwidth}")
        with seeded(generator):
            self.register_buffer("frequencies", torch.randn(in_features, latent_features // 2) / bandwidth)

    def encode(self, x: Float[Tensor, "sets points features"], shares: Shares) -> Float[Tensor, "sets latent"]:
        """Encode sets whose shape has been checked."""
        phases = x @ self.get_buffer("frequencies")
        return _mean(torch.cat([phases.cos(), phases.sin()], 2), shares)


class MeanEncoder(_SetEncoder):
    """A fixed linear projection of the sample mean: the baseline that any claim about distances must beat.

    The projection is random; :meth:`principal` takes principal components instead.

    Parameters
    ----------
    in_features, latent_features : int
        Length of a point and of the latent vector, at least 1.
    generator : torch.Generator or int, optional
        Source (or seed) of the projection; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, or points of another length are given.

    Notes
    -----
    O(points · in_features) a set. The projection keeps distances between means where ``latent_features`` is at least
    ``in_features``.

    Examples
    --------
    >>> MeanEncoder(2, 4, generator=0)(torch.zeros(3, 5, 2)).shape
    torch.Size([3, 4])

    References
    ----------
    Fishman et al., *Generative Distribution Embeddings*, arXiv:2505.18150, among the fixed encoders.
    """

    def __init__(
        self, in_features: int, latent_features: int, *, generator: torch.Generator | int | None = None
    ) -> None:
        super().__init__(in_features, latent_features)
        with seeded(generator):
            longer, shorter = max(in_features, latent_features), min(in_features, latent_features)
            basis = torch.linalg.qr(torch.randn(longer, shorter))[0]
        self.centre: Tensor
        self.projection: Tensor
        self.register_buffer("centre", torch.zeros(in_features))
        self.register_buffer("projection", basis.mT if latent_features >= in_features else basis)

    def encode(self, x: Float[Tensor, "sets points features"], shares: Shares) -> Float[Tensor, "sets latent"]:
        """Encode sets whose shape has been checked."""
        return (_mean(x, shares) - self.centre) @ self.projection

    @classmethod
    def principal(cls, points: Float[Tensor, "points features"], latent_features: int) -> MeanEncoder:
        """Return the encoder that projects the mean on the principal components of ``points``, at least as many."""
        check_float("points", points)
        if points.ndim != 2 or not 1 <= latent_features <= min(points.shape):
            raise ValueError(
                f"points must have shape (points, features), both at least latent_features, {latent_features}; "
                f"got {tuple(points.shape)}"
            )
        encoder = cls(points.shape[1], latent_features, generator=0)
        encoder.centre = points.mean(0)
        encoder.projection = torch.linalg.svd(points - encoder.centre, full_matrices=False)[2][:latent_features].mT
        return encoder


def _mean(h: Tensor, shares: Shares) -> Tensor:
    """Return the mean over the points of each set."""
    return h.mean(1) if shares is None else (shares[:, :, None] * h).sum(1)


def _median(h: Tensor, shares: Shares) -> Tensor:
    """Return the median over the points of each set, midway between two where they halve it."""
    ordered, order = h.sort(1)
    if shares is None:
        return (ordered[:, (h.shape[1] - 1) // 2] + ordered[:, h.shape[1] // 2]) / 2
    below = shares[:, :, None].expand_as(h).gather(1, order).cumsum(1)
    ends = [(below < 0.5 + slack).sum(1, keepdim=True).clamp(max=h.shape[1] - 1) for slack in (-1e-5, 1e-5)]
    return sum((ordered.gather(1, end) for end in ends), torch.zeros(()).to(h)).squeeze(1) / 2


def start_for_selu(module: nn.Module) -> None:
    """Draw the weights of linear layers with variance 1 / fan in, from torch's global state; biases start at 0.

    That is what SELU is made for. Torch's own start, three times smaller in variance, lets the differences between sets
    fade from layer to layer, and training takes many times longer to find them.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.

    Examples
    --------
    >>> layer = nn.Linear(400, 50)
    >>> start_for_selu(layer)
    >>> round(layer.weight.std().item(), 2), layer.bias.abs().max().item()
    (0.05, 0.0)
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, layer.in_features**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
