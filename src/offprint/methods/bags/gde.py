"""Generative distribution embeddings: one vector per sample set, from which its distribution can be generated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from offprint.methods.bags.gde_gaussian import check_float, gaussian_w2
from offprint.methods.bags.gde_sets import (
    DirichletMixer,
    Sets,
    Standardised,
    Weights,
    as_bags,
    draw_points,
    fitted_gaussians,
    flat_weights,
)
from offprint.methods.bags.ragged import RaggedBags
from offprint.models.batches import check_sizes
from offprint.models.randomness import seeded
from offprint.models.training import TrainingHistory, train

Conditions = Float[Tensor, "sets conditions"]
"""What is known of each set, such as the batch it was measured in."""


class PointGenerator(Protocol):
    """What :class:`GDE` asks of a generator, which is also a ``torch.nn.Module``."""

    def loss(self, x: Float[Tensor, "sets points features"], z: Float[Tensor, "sets latent"]) -> Float[Tensor, ""]:
        """Return how badly points generated from ``z`` match ``x``."""
        ...

    def sample(self, z: Float[Tensor, "sets latent"], n: int) -> Float[Tensor, "sets n features"]:
        """Generate ``n`` points for each vector."""
        ...


class GDE(Standardised):
    """Encode sample sets as vectors from which a conditional generator reproduces their distributions.

    For data whose every item is itself a sample: the cells of a patient, the pixels of a region, runs of a simulation.
    Encoder and generator are trained together so that points generated from a set's vector are distributed as the set.
    Distances between vectors then follow Wasserstein distances, and straight lines transport paths.

    Parameters
    ----------
    encoder : torch.nn.Module
        From sets of shape (sets, points, features) to vectors of shape (sets, latent), such as
        :class:`.MeanPoolEncoder`; check one of your own with :func:`.check_distributional_invariance`.
    generator : torch.nn.Module
        With ``loss(x, z)`` and ``sample(z, n)``, such as :class:`.DirectGenerator`.

    Raises
    ------
    TypeError
        If an argument is no module, or the generator lacks a method.

    Notes
    -----
    Sets are a tensor of shape (sets, points, features), a list of tensors of shape (points, features), or
    :class:`.RaggedBags`. Those of unequal sizes are encoded as they are, those of one size together, and drawn from in
    training. Points are shifted and scaled by one number each, from the training sets, so that distances keep their
    proportions; samples come back in the units of the data.

    Points may weigh differently (an encoder of one's own must then take ``weights``). What is known of a set, such as
    the batch in which it was measured, may be told to the generator, whose ``latent_features`` are then those of the
    encoder and of the condition together: sets can be generated as another batch would show them, though nothing
    forces the encoder to leave out of its vectors what the condition says.

    Examples
    --------
    >>> from offprint.methods.bags.gde_encoders import MeanPoolEncoder
    >>> from offprint.methods.bags.gde_generators import DirectGenerator
    >>> sets = torch.randn(32, 20, 2, generator=torch.Generator().manual_seed(0)) + torch.arange(32.0)[:, None, None]
    >>> model = GDE(MeanPoolEncoder(2, 4, 16, generator=0), DirectGenerator(2, 4, 16, generator=0))
    >>> history = model.fit(sets, n_epochs=2, batch_size=16, seed=0)
    >>> z = model.encode(sets)
    >>> z.shape, model.sample(z, 5, seed=0).shape, history.n_steps
    (torch.Size([32, 4]), torch.Size([32, 5, 2]), 4)

    References
    ----------
    Fishman, Gowri, Yin, Gootenberg and Abudayyeh, *Generative Distribution Embeddings*, arXiv:2505.18150. Encoding one
    half of a set to match the other is a choice made here.
    """

    def __init__(self, encoder: nn.Module, generator: nn.Module) -> None:
        super().__init__()
        for name, module in (("encoder", encoder), ("generator", generator)):
            if not isinstance(module, nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module; got {type(module).__name__}")
        if not callable(getattr(generator, "loss", None)) or not callable(getattr(generator, "sample", None)):
            raise TypeError("generator must have the methods loss(x, z) and sample(z, n)")
        self.encoder, self.generator = encoder, generator

    def fit(
        self,
        sets: Sets,
        *,
        n_epochs: int = 100,
        batch_size: int = 256,
        learning_rate: float = 2e-4,
        split: bool = True,
        n_points: int | None = None,
        mixer: DirichletMixer | None = None,
        weights: Weights | None = None,
        conditions: Conditions | None = None,
        seed: int = 0,
        progress: Callable[[float, float, str], None] | None = None,
    ) -> TrainingHistory:
        """Train encoder and generator together.

        Parameters
        ----------
        sets : tensor, list of tensors or RaggedBags
            Training sets of at least two points each.
        n_epochs, batch_size : int
            Passes over the sets, and sets a step, at least 1.
        learning_rate : float
            Of Adam at the start, positive; it falls to 0 along half a cosine.
        split : bool
            Encode one half of each set and match the other, so that the noise of a sample cannot be copied. With
            ``False`` the same points are encoded and matched, as in the paper. Halves of a few dozen points tell
            little: there compare both on held-out sets.
        n_points : int, optional
            Points drawn from each set at each step, at least 2; by default the size of the smallest set. A set that has
            fewer repeats its own, with ``split`` each half its own half.
        mixer : DirichletMixer, optional
            Replaces each batch by mixtures of its sets; without weights and conditions only.
        weights : tensor or list of tensors, optional
            Weight of each point, at least 0.
        conditions : tensor, shape (sets, conditions), optional
            What the generator is told beside the vector of each set.
        seed : int
            The only source of randomness.
        progress : callable, optional
            As for :func:`offprint.models.train`.

        Returns
        -------
        TrainingHistory
        """
        bags = as_bags(sets)
        if mixer is not None and not (weights is None and conditions is None):
            raise ValueError("mixer must be None where weights or conditions are given")
        if mixer is not None and len(bags) < mixer.n_sources:
            raise ValueError(f"sets must be at least as many as the mixer mixes, {mixer.n_sources}; got {len(bags)}")
        if conditions is not None:
            _check_conditions(conditions, len(bags))
        shares = None if weights is None else flat_weights(weights, bags).to(self.shift)
        least = int(bags.sizes.min())
        n_points = least if n_points is None else n_points
        if least < 2 or n_points < 2:
            raise ValueError(f"sets and n_points must be at least 2 points; got {least} and {n_points}")
        self._learn_scale(bags)
        standard = self._standard(bags)
        source = torch.Generator(standard.values.device).manual_seed(seed)

        def loss(model: GDE, chosen: Int[Tensor, " batch"]) -> Tensor:
            if mixer is None:
                drawn = draw_points(standard, chosen, n_points, source, shares, halves=split)
            else:  # a last batch too short to mix is made of all sets
                among = standard.take(chosen) if len(chosen) >= mixer.n_sources else standard
                drawn = mixer.mix(among, len(chosen), n_points, generator=source)
            half = n_points // 2
            shown, matched = (drawn[:, :half], drawn[:, half:]) if split else (drawn, drawn)
            told = _told(model.encoder(shown), None if conditions is None else conditions.to(chosen.device)[chosen])
            value: Tensor = model.generator.loss(matched, told)  # type: ignore[operator]
            return value

        numbers = torch.arange(len(bags), device=standard.values.device)
        settings = {"n_epochs": n_epochs, "batch_size": batch_size, "generator": seed, "progress": progress}
        return train(self, loss, numbers, learning_rate=learning_rate, schedule="cosine", **settings)  # type: ignore[arg-type]

    @torch.no_grad()
    def encode(self, sets: Sets, weights: Weights | None = None) -> Float[Tensor, "sets latent"]:
        """Return one vector per set; sets of one size are encoded together."""
        bags = as_bags(sets)
        standard = self._standard(bags)
        shares = None if weights is None else RaggedBags(flat_weights(weights, bags).to(self.shift), standard.offsets)
        vectors: list[Tensor] = []
        numbers: list[Tensor] = []
        for size in sorted(set(standard.sizes.tolist())):
            of_size = (standard.sizes == size).nonzero()[:, 0]
            for chosen in of_size.split(256):
                points = standard.take(chosen).values.reshape(len(chosen), size, -1)
                given = {} if shares is None else {"weights": shares.take(chosen).values.reshape(len(chosen), size)}
                vectors.append(self.encoder(points, **given))
                numbers.append(chosen)
        return torch.cat(vectors)[torch.cat(numbers).argsort()]

    @torch.no_grad()
    def sample(
        self,
        z: Float[Tensor, "*batch latent"],
        n: int,
        *,
        conditions: Float[Tensor, "*batch conditions"] | None = None,
        seed: int = 0,
    ) -> Float[Tensor, "*batch n features"]:
        """Generate ``n`` points for each vector, in the units of the data."""
        check_float("z", z)
        check_sizes(n=n)
        told = _told(z, conditions)
        with seeded(seed, z.device):
            made: Tensor = self.generator.sample(told.reshape(-1, told.shape[-1]), n)  # type: ignore[operator]
        if made.ndim != 3 or made.shape[:2] != (z.shape[:-1].numel(), n):
            raise ValueError(f"generator must return {n} points a vector; it returned shape {tuple(made.shape)}")
        points: Tensor = (made * self.scale + self.shift).reshape(*z.shape[:-1], n, made.shape[-1])
        return points

    def reconstruct(
        self,
        points: Float[Tensor, "points features"],
        n: int,
        *,
        condition: Float[Tensor, " conditions"] | None = None,
        seed: int = 0,
    ) -> Float[Tensor, "n features"]:
        """Generate ``n`` points distributed as one set."""
        return self.sample(self.encode([points])[0], n, conditions=condition, seed=seed)

    def interpolate(
        self,
        z0: Float[Tensor, " latent"],
        z1: Float[Tensor, " latent"],
        n_steps: int,
        n: int,
        *,
        condition: Float[Tensor, " conditions"] | None = None,
        seed: int = 0,
    ) -> Float[Tensor, "steps n features"]:
        """Generate ``n`` points at ``n_steps`` places on the straight line between two vectors, ends included."""
        check_sizes(n_steps=n_steps)
        if z0.shape != z1.shape or z0.ndim != 1:
            raise ValueError(f"z0 and z1 must be vectors of one length; got {tuple(z0.shape)} and {tuple(z1.shape)}")
        t = torch.linspace(0, 1, n_steps, dtype=z0.dtype, device=z0.device)[:, None]
        told = None if condition is None else condition.expand(n_steps, *condition.shape)
        return self.sample((1 - t) * z0 + t * z1, n, conditions=told, seed=seed)

    def distance(self, sets_a: Sets, sets_b: Sets) -> Float[Tensor, " sets"]:
        """Return the distance between the vectors of each set and its partner: unitless, see :meth:`calibrate`."""
        a, b = self.encode(sets_a), self.encode(sets_b)
        if len(a) != len(b):
            raise ValueError(f"sets_b must hold as many sets as sets_a, {len(a)}; got {len(b)}")
        found: Tensor = (a - b).norm(dim=1)
        return found

    def calibrate(self, sets_a: Sets, sets_b: Sets) -> float:
        """Return the factor from latent distances to W₂, by least squares against Gaussians fitted to the sets."""
        found = self.distance(sets_a, sets_b)
        if not bool((found > 0).any()):
            raise ValueError("sets_a and sets_b must differ: all pairs are at distance 0")
        wanted = gaussian_w2(*fitted_gaussians(sets_a), *fitted_gaussians(sets_b)).to(found)
        return float((found * wanted).sum() / found.square().sum())

    def reconstruction_error(
        self, sets: Sets, n: int = 1000, *, conditions: Conditions | None = None, seed: int = 0
    ) -> Float[Tensor, " sets"]:
        """Return W₂ between Gaussians fitted to each set and to ``n`` points generated from it: high for outliers."""
        made = self.sample(self.encode(sets), n, conditions=conditions, seed=seed)
        given = fitted_gaussians(sets)
        return gaussian_w2(*given, *fitted_gaussians(made.to(given[0])))


def _check_conditions(conditions: Tensor, n_sets: int) -> None:
    check_float("conditions", conditions)
    if conditions.ndim != 2 or len(conditions) != n_sets:
        raise ValueError(f"conditions must have shape ({n_sets}, conditions); got {tuple(conditions.shape)}")


def _told(z: Tensor, conditions: Tensor | None) -> Tensor:
    """Return what the generator is told of each set."""
    if conditions is None:
        return z
    check_float("conditions", conditions)
    if conditions.ndim == 0 or conditions.shape[:-1] != z.shape[:-1]:
        raise ValueError(f"conditions must have shape {(*z.shape[:-1], 'conditions')}; got {tuple(conditions.shape)}")
    return torch.cat([z, conditions.to(z)], -1)
