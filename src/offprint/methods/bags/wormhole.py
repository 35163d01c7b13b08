"""Vectors of sample sets trained to be as far apart as the sets are: the direct way to latent transport distances."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from offprint.methods.bags.gde_distances import sinkhorn_divergence
from offprint.methods.bags.gde_encoders import start_for_selu
from offprint.methods.bags.gde_gaussian import check_float
from offprint.methods.bags.gde_sets import Sets, Standardised, as_bags, draw_points
from offprint.models.batches import check_sizes
from offprint.models.mlp import MLP
from offprint.models.randomness import seeded
from offprint.models.training import TrainingHistory, train


class Wormhole(Standardised):
    """Encode sample sets as vectors whose distances are the transport distances of the sets, and decode them.

    Each training step pairs up the sets of a batch, measures the transport distance of each pair, and asks the distance
    of their vectors to equal it; a decoder turns each vector back into a fixed number of points. Use it where distances
    are all that is wanted; :class:`.GDE` learns to generate the distribution instead.

    Parameters
    ----------
    encoder : torch.nn.Module
        From sets of shape (sets, points, features) to vectors of shape (sets, latent), such as
        :class:`.SetTransformerEncoder`, with attributes ``in_features`` and ``latent_features``.
    n_decoded : int
        Points that the decoder gives, at least 2.
    hidden_features : int
        Width of the decoder, at least 1.
    blur : float
        Of the Sinkhorn divergence whose root stands for the transport distance, positive, in units of the spread of all
        points.
    generator : torch.Generator or int, optional
        Source (or seed) of the decoder's initial weights; by default torch's global state.

    Raises
    ------
    TypeError
        If ``encoder`` is no module, or does not tell its widths.
    ValueError
        If a size is out of range.

    Notes
    -----
    O(points²) for each set and step, for the transport.

    Examples
    --------
    >>> from offprint.methods.bags.gde_encoders import MeanPoolEncoder
    >>> sets = torch.randn(16, 10, 2, generator=torch.Generator().manual_seed(0))
    >>> model = Wormhole(MeanPoolEncoder(2, 4, 8, generator=0), 8, generator=0)
    >>> history = model.fit(sets, n_epochs=1, batch_size=8, seed=0)
    >>> model.encode(sets).shape, model.decode(model.encode(sets)).shape
    (torch.Size([16, 4]), torch.Size([16, 8, 2]))

    References
    ----------
    Haviv et al., *Wasserstein Wormhole: Scalable Optimal Transport Distance with Transformers*, arXiv:2404.09411,
    section 3.
    """

    def __init__(
        self,
        encoder: nn.Module,
        n_decoded: int = 32,
        hidden_features: int = 64,
        blur: float = 0.1,
        *,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise TypeError(f"encoder must be a torch.nn.Module; got {type(encoder).__name__}")
        if not (hasattr(encoder, "in_features") and hasattr(encoder, "latent_features")):
            raise TypeError(f"encoder must have in_features and latent_features; {type(encoder).__name__} lacks them")
        check_sizes(n_decoded=n_decoded, hidden_features=hidden_features)
        if n_decoded < 2:
            raise ValueError(f"n_decoded must be at least 2; got {n_decoded}")
        if not 0 < blur < float("inf"):
            raise ValueError(f"blur must be positive and finite; got {blur}")
        self.encoder, self.n_decoded, self.blur = encoder, n_decoded, blur
        self.features = int(encoder.in_features)  # type: ignore[arg-type]
        self.latent_features = int(encoder.latent_features)  # type: ignore[arg-type]
        with seeded(generator):
            width = n_decoded * self.features
            self.decoder = MLP(self.latent_features, [hidden_features] * 2, width, activation=nn.SELU)
            start_for_selu(self.decoder)

    def fit(
        self,
        sets: Sets,
        *,
        n_epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 2e-4,
        n_points: int | None = None,
        seed: int = 0,
        progress: Callable[[float, float, str], None] | None = None,
    ) -> TrainingHistory:
        """Train encoder and decoder; arguments are those of :meth:`.GDE.fit`."""
        bags = as_bags(sets)
        n_points = int(bags.sizes.min()) if n_points is None else n_points
        if len(bags) < 2 or n_points < 2:
            raise ValueError(f"sets must be two or more, of two points or more; got {len(bags)} of {n_points}")
        self._learn_scale(bags)
        standard = self._standard(bags)
        source = torch.Generator(standard.values.device).manual_seed(seed)

        def loss(model: Wormhole, chosen: Int[Tensor, " batch"]) -> Tensor:
            return model.loss(draw_points(standard, chosen, n_points, source))

        numbers = torch.arange(len(bags), device=standard.values.device)
        settings = {"n_epochs": n_epochs, "batch_size": batch_size, "generator": seed, "progress": progress}
        return train(self, loss, numbers, learning_rate=learning_rate, schedule="cosine", **settings)  # type: ignore[arg-type]

    def loss(self, x: Float[Tensor, "sets points features"]) -> Float[Tensor, ""]:
        """Return how far distances of vectors are from those of neighbouring sets, plus the error of decoding."""
        z = self.encoder(x)
        with torch.no_grad():
            apart = sinkhorn_divergence(x, x.roll(1, 0), self.blur, n_iterations=3).value.clamp(min=0).sqrt()
        found = (z - z.roll(1, 0)).square().sum(1).clamp(min=1e-12).sqrt()
        decoded = sinkhorn_divergence(self._decoded(z), x, self.blur, n_iterations=3).value
        total: Tensor = (found - apart).square().mean() + decoded.mean()
        return total

    @torch.no_grad()
    def encode(self, sets: Sets) -> Float[Tensor, "sets latent"]:
        """Return one vector per set, whose distances are transport distances in the units of the data."""
        vectors: list[Tensor] = [self.encoder(one[None]) * self.scale for one in self._standard(as_bags(sets))]
        return torch.cat(vectors)

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "sets latent"]) -> Float[Tensor, "sets points features"]:
        """Return the points that each vector stands for, in the units of the data."""
        check_float("z", z)
        if z.ndim != 2 or z.shape[1] != self.latent_features:
            raise ValueError(f"z must have shape (sets, {self.latent_features}); got {tuple(z.shape)}")
        points: Tensor = self._decoded(z / self.scale) * self.scale + self.shift
        return points

    def _decoded(self, z: Tensor) -> Tensor:
        points: Tensor = self.decoder(z).unflatten(1, (self.n_decoded, self.features))
        return points
