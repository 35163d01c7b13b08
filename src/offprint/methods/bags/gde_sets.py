"""Sets of points in the forms that users have them: draws from them, mixtures of them, Gaussians fitted to them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from offprint.methods.bags.gde_gaussian import check_float
from offprint.methods.bags.ragged import RaggedBags
from offprint.models.batches import check_sizes
from offprint.models.randomness import as_generator

Sets = Float[Tensor, "sets points features"] | Sequence[Float[Tensor, "_ features"]] | RaggedBags
Weights = Float[Tensor, "sets points"] | Sequence[Float[Tensor, " _"]]
"""What each point of each set weighs, in the form of the sets."""
LARGEST = 2**22
"""Numbers held at a time in sums of products."""


class Standardised(nn.Module):
    """A model that sees sets shifted and scaled by one number each, learned from the training sets.

    Buffers ``shift`` and ``scale`` are saved with it; until they are learned, sets are seen as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def _learn_scale(self, bags: RaggedBags) -> None:
        """Take both numbers from the training sets."""
        self.shift = bags.values.mean().to(self.shift)
        self.scale = bags.values.std().clamp(min=1e-12).to(self.scale)
        if not bool(self.shift.isfinite() & self.scale.isfinite()):
            raise ValueError(f"sets must have a spread within the range of {self.scale.dtype}; scale them down")

    def _standard(self, bags: RaggedBags) -> RaggedBags:
        """Return the sets as the networks see them: about zero, near unit scale, of their dtype and on their device."""
        values = ((bags.values - self.shift.to(bags.values)) / self.scale.to(bags.values)).to(self.shift)
        return RaggedBags(values, bags.offsets.to(values.device))


class DirichletMixer:
    """Make new sets by mixing several with random weights.

    Parameters
    ----------
    n_sources : int
        Sets in each mixture, at least 1.
    concentration : float
        Of the symmetric Dirichlet distribution of the weights, positive; 1 is uniform.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Points are drawn with replacement: O(points) a mixture.

    Examples
    --------
    >>> sets = torch.tensor([[[0.0], [0.0]], [[1.0], [1.0]]])
    >>> mixed = DirichletMixer(1).mix(RaggedBags.from_list(list(sets)), 3, 4, generator=0)
    >>> mixed.shape, mixed.std(1).sum().item()  # one source: pure sets
    (torch.Size([3, 4, 1]), 0.0)

    References
    ----------
    Fishman et al., *Generative Distribution Embeddings*, arXiv:2505.18150, on mixing sets of Gaussians.
    """

    def __init__(self, n_sources: int = 3, concentration: float = 1.0) -> None:
        check_sizes(n_sources=n_sources)
        if not 0 < concentration < float("inf"):
            raise ValueError(f"concentration must be positive and finite; got {concentration}")
        self.n_sources, self.concentration = n_sources, concentration

    def draw(
        self, n_sets: int, n_mixtures: int, *, generator: torch.Generator | int
    ) -> tuple[Int[Tensor, "mixtures sources"], Float[Tensor, "mixtures sources"]]:
        """Draw which sets each mixture is made of, and their weights."""
        if n_sets < self.n_sources:
            raise ValueError(f"n_sets must be at least n_sources, {self.n_sources}; got {n_sets}")
        source = as_generator(generator)
        order = torch.rand(n_mixtures, n_sets, generator=source, device=source.device).argsort(1)[:, : self.n_sources]
        gamma = torch.full(order.shape, self.concentration, device=source.device)
        weights = torch._standard_gamma(gamma, generator=source).clamp(min=1e-30)
        return order, weights / weights.sum(1, keepdim=True)

    def mix(
        self, sets: RaggedBags, n_mixtures: int, n_points: int, *, generator: torch.Generator | int
    ) -> Float[Tensor, "mixtures points features"]:
        """Return mixtures of the sets, of ``n_points`` points each."""
        source = as_generator(generator)
        chosen, weights = self.draw(len(sets), n_mixtures, generator=source)
        component = torch.multinomial(weights, n_points, replacement=True, generator=source)
        bag = chosen.gather(1, component).to(sets.offsets.device)
        share = torch.rand(bag.shape, generator=source, device=source.device).to(bag.device)
        rows = (share * sets.sizes[bag]).long().minimum(sets.sizes[bag] - 1)
        return sets.values[sets.offsets[bag] + rows]


def as_bags(sets: Sets) -> RaggedBags:
    """Return sets in any accepted form as ragged bags of finite points.

    Parameters
    ----------
    sets : tensor of shape (sets, points, features), list of tensors of shape (points, features), or RaggedBags
        None empty.

    Returns
    -------
    RaggedBags

    Raises
    ------
    TypeError
        If ``sets`` are of no such form.
    ValueError
        If a set is empty, features differ, or a point is not finite.

    Examples
    --------
    >>> as_bags(torch.zeros(2, 3, 1)).sizes.tolist()
    [3, 3]
    """
    if isinstance(sets, Tensor):
        if sets.ndim != 3 or sets.shape[0] * sets.shape[1] == 0:
            raise ValueError(f"sets must have shape (sets, points, features), none empty; got {tuple(sets.shape)}")
        offsets = torch.arange(len(sets) + 1, device=sets.device) * sets.shape[1]
        sets = RaggedBags(sets.flatten(0, 1), offsets)
    elif not isinstance(sets, RaggedBags):
        if not isinstance(sets, Sequence) or not all(isinstance(one, Tensor) for one in sets):
            raise TypeError(f"sets must be a tensor, a list of tensors or RaggedBags; got {type(sets).__name__}")
        sets = RaggedBags.from_list(sets)
    check_float("sets", sets.values)
    if sets.values.ndim != 2 or len(sets) == 0 or bool((sets.sizes == 0).any()):
        raise ValueError("sets must hold points of shape (points, features), at least one set and none empty")
    return sets


def fitted_gaussians(sets: Sets) -> tuple[Float[Tensor, "sets features"], Float[Tensor, "sets features features"]]:
    """Return mean and covariance of every set.

    Parameters
    ----------
    sets : tensor, list of tensors or RaggedBags
        As for :func:`as_bags`.

    Returns
    -------
    means : tensor, shape (sets, features)
    covariances : tensor, shape (sets, features, features)
        Divided by the number of points.

    Examples
    --------
    >>> means, covariances = fitted_gaussians(torch.tensor([[[0.0], [2.0]]]))
    >>> means.item(), covariances.item()
    (1.0, 1.0)
    """
    bags = as_bags(sets)
    values, ids, sizes = bags.values, bags.ids, bags.sizes.to(bags.values)
    means = values.new_zeros(len(bags), values.shape[1]).index_add(0, ids, values) / sizes[:, None]
    centred = values - means[ids]
    sums = values.new_zeros(len(bags), values.shape[1], values.shape[1])
    # Some rows at a time: a square of numbers for each of very many would fill the memory.
    n_rows = max(1, LARGEST // values.shape[1] ** 2)
    for part, of in zip(torch.split(centred, n_rows), torch.split(ids, n_rows), strict=True):
        sums = sums.index_add(0, of, part[:, :, None] * part[:, None, :])
    return means, sums / sizes[:, None, None]


def draw_points(
    bags: RaggedBags,
    chosen: Int[Tensor, " batch"],
    n_points: int,
    generator: torch.Generator,
    weights: Float[Tensor, " n"] | None = None,
    *,
    halves: bool = False,
) -> Float[Tensor, "batch points features"]:
    """Draw points of the chosen sets in a random order: without replacement where a set has enough.

    Parameters
    ----------
    bags : RaggedBags
        Sets.
    chosen : int64 tensor, shape (batch,)
        Which of them.
    n_points : int
        How many of each.
    generator : torch.Generator
        Source of the draw.
    weights : tensor, shape (n,), optional
        Of each point. Each half of the points drawn is then drawn again, with replacement, as often as its points
        weigh: the two halves still share no point.
    halves : bool
        Keep the two halves of the points drawn apart where a set is too small, too: each repeats points of its own.

    Returns
    -------
    tensor, shape (batch, n_points, features)

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.tensor([[1.0], [2.0]])])
    >>> drawn = draw_points(bags, torch.tensor([0]), 2, torch.Generator().manual_seed(0))
    >>> sorted(drawn.flatten().tolist())
    [1.0, 2.0]
    """
    taken = bags.take(chosen)
    sizes = taken.sizes[:, None]
    widest = max(int(sizes.max()), n_points)
    keys = torch.rand(len(chosen), widest, generator=generator, device=generator.device).to(taken.offsets.device)
    absent = torch.arange(widest, device=keys.device) >= sizes
    # Points in a random order; where a set is too small, its order repeats.
    order = keys.masked_fill(absent, 2.0).argsort(1)
    place, half = torch.arange(n_points, device=keys.device), n_points // 2
    places = place % sizes
    if halves:
        own = sizes // 2
        apart = torch.where(place < half, place % own.clamp(min=1), own + (place - half) % (sizes - own))
        places = torch.where(sizes < n_points, apart, places)
    rows = taken.offsets[:-1, None] + order.gather(1, places)
    if weights is None:
        return taken.values[rows]
    # Weights of 0 are drawn only where a half holds nothing else.
    of_rows = RaggedBags(weights, bags.offsets).take(chosen).values[rows].clamp(min=1e-30)
    again = [
        part.gather(1, torch.multinomial(share, part.shape[1], replacement=True, generator=generator))
        for part, share in ((rows[:, :half], of_rows[:, :half]), (rows[:, half:], of_rows[:, half:]))
    ]
    return taken.values[torch.cat(again, 1)]


def flat_weights(weights: Weights, bags: RaggedBags) -> Float[Tensor, " n"]:
    """Return the weight of every point, bag after bag.

    Parameters
    ----------
    weights : tensor of shape (sets, points), or list of tensors of shape (points,)
        At least 0.
    bags : RaggedBags
        The sets whose points they weigh.

    Returns
    -------
    tensor, shape (n,)

    Raises
    ------
    TypeError
        If weights are no float tensors.
    ValueError
        If there is not one finite number of at least 0 for each point.

    Examples
    --------
    >>> flat_weights([torch.ones(1), torch.tensor([1.0, 2.0])], RaggedBags.from_list([torch.zeros(1), torch.zeros(2)]))
    tensor([1., 1., 2.])
    """
    parts = list(weights)
    for part in parts:
        check_float("weights", part)
        if part.ndim != 1 or bool((part < 0).any()):
            raise ValueError("weights must be at least 0, a vector of them for each set")
    if [len(part) for part in parts] != bags.sizes.tolist():
        raise ValueError("weights must hold one number for each point of each set")
    return torch.cat(parts)
