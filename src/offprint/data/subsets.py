"""Sets with a subset to be found in each: odd points out, odd images out, items that go together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from offprint.models.batches import check_sizes
from offprint.models.randomness import as_generator


@dataclass(frozen=True, eq=False)
class SubsetData:
    """Sets of one size and the subset of each.

    Parameters
    ----------
    sets : tensor, shape (sets, size, ...)
        Elements, in random order.
    chosen : bool tensor, shape (sets, size)
        Which elements belong to the subset.
    """

    sets: Float[Tensor, "sets size ..."]
    chosen: Bool[Tensor, "sets size"]

    def __len__(self) -> int:
        return len(self.sets)

    def part(self, start: int, stop: int) -> SubsetData:
        """Return the sets from one position up to another, such as those to test on."""
        return SubsetData(self.sets[start:stop], self.chosen[start:stop])


def two_moons_sets(
    n_sets: int, size: int = 100, n_anomalies: int = 10, *, noise: float = 0.1, generator: torch.Generator | int = 0
) -> SubsetData:
    """Draw sets of points on one of two interleaved half circles, with some on the other: these are the subset.

    Which of the two is the odd one is drawn for each set.

    Parameters
    ----------
    n_sets, size, n_anomalies : int
        At least 1; fewer anomalies than elements.
    noise : float
        Standard deviation of each coordinate before circles of radius 1 are scaled by 2 and shifted by (-1, -0.2).
    generator : torch.Generator or int
        Source (or seed) of the draw.

    Returns
    -------
    SubsetData
        Of two float32 features.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> data = two_moons_sets(3, 20, 4)
    >>> data.sets.shape, data.chosen.sum(1).tolist()
    (torch.Size([3, 20, 2]), [4, 4, 4])
    """
    _check(n_sets, size, (n_anomalies, n_anomalies), 2, noise)
    source = as_generator(generator)
    kinds, chosen = _odd_ones(n_sets, size, n_anomalies, 2, source)
    angles = torch.pi * torch.rand(n_sets, size, generator=source)
    outer = torch.stack([angles.cos(), angles.sin()], 2)
    inner = torch.stack([1 - angles.cos(), 0.5 - angles.sin()], 2)
    points = torch.where(kinds[..., None] == 0, outer, inner)
    points = points + noise * torch.randn(n_sets, size, 2, generator=source)
    return SubsetData(2 * points + torch.tensor([-1.0, -0.2]), chosen)


def gaussian_sets(
    n_sets: int, size: int = 100, n_anomalies: int = 10, *, generator: torch.Generator | int = 0
) -> SubsetData:
    """Draw sets of points around (1, 1) / √2 or its opposite, standard deviation 0.5, with some around the other.

    Parameters
    ----------
    n_sets, size, n_anomalies : int
        At least 1; fewer anomalies than elements.
    generator : torch.Generator or int
        Source (or seed) of the draw.

    Returns
    -------
    SubsetData
        Of two float32 features.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> gaussian_sets(3, 20, 4).sets.shape
    torch.Size([3, 20, 2])
    """
    _check(n_sets, size, (n_anomalies, n_anomalies), 2)
    source = as_generator(generator)
    kinds, chosen = _odd_ones(n_sets, size, n_anomalies, 2, source)
    centres = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]) / 2**0.5
    return SubsetData(centres[kinds] + 0.5 * torch.randn(n_sets, size, 2, generator=source), chosen)


def cluster_anomaly_sets(
    n_sets: int,
    size: int = 8,
    n_anomalies: int = 2,
    *,
    n_clusters: int = 10,
    n_features: int = 16,
    noise: float = 1.0,
    generator: torch.Generator | int = 0,
) -> SubsetData:
    """Draw sets of points around one of many centres, with some around others: these are the subset.

    Centres are standard normal and the same for all sets of a call: draw training and test sets together.

    Parameters
    ----------
    n_sets, size, n_anomalies : int
        At least 1; fewer anomalies than elements.
    n_clusters, n_features : int
        At least 2 clusters, and 1 feature.
    noise : float
        Standard deviation of each feature around its centre.
    generator : torch.Generator or int
        Source (or seed) of the draw.

    Returns
    -------
    SubsetData

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> cluster_anomaly_sets(3).sets.shape
    torch.Size([3, 8, 16])
    """
    _check(n_sets, size, (n_anomalies, n_anomalies), n_clusters, noise)
    check_sizes(n_features=n_features)
    source = as_generator(generator)
    kinds, chosen = _odd_ones(n_sets, size, n_anomalies, n_clusters, source)
    centres = torch.randn(n_clusters, n_features, generator=source)
    return SubsetData(centres[kinds] + noise * torch.randn(n_sets, size, n_features, generator=source), chosen)


def class_anomaly_sets(
    inputs: Float[Tensor, "n ..."],
    labels: Int[Tensor, " n"],
    n_sets: int,
    size: int = 8,
    n_anomalies: tuple[int, int] = (2, 3),
    *,
    generator: torch.Generator | int = 0,
) -> SubsetData:
    """Draw sets of labelled inputs of one class, with some of other classes: these are the subset.

    Parameters
    ----------
    inputs : tensor, shape (n, ...)
        Images or other inputs; any may be drawn into several sets, and several times into one.
    labels : int64 tensor, shape (n,)
        The class of each, of which there are at least two.
    n_sets, size : int
        At least 1.
    n_anomalies : pair of int
        Their number in a set is uniform between the two.
    generator : torch.Generator or int
        Source (or seed) of the draw.

    Returns
    -------
    SubsetData

    Raises
    ------
    ValueError
        If a number is out of range, or there are not as many labels as inputs.

    Examples
    --------
    >>> class_anomaly_sets(torch.arange(6.0)[:, None], torch.tensor([0, 0, 0, 1, 1, 1]), 4).sets.shape
    torch.Size([4, 8, 1])
    """
    if labels.shape != inputs.shape[:1]:
        raise ValueError(f"labels must hold one per input, {len(inputs)}; got shape {tuple(labels.shape)}")
    names, classes, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    _check(n_sets, size, n_anomalies, len(names))
    source = as_generator(generator)
    least, most = n_anomalies
    numbers = torch.randint(least, most + 1, (n_sets,), generator=source)
    kinds, chosen = _odd_ones(n_sets, size, numbers, len(names), source)
    # An input of the class wanted: inputs sorted by class, and a place among those of the class.
    place = (torch.rand(kinds.shape, generator=source) * counts[kinds]).long().minimum(counts[kinds] - 1)
    drawn = classes.argsort(stable=True)[(counts.cumsum(0) - counts)[kinds] + place]
    return SubsetData(inputs[drawn], chosen)


def registry_sets(
    n_sets: int,
    size: int = 30,
    *,
    n_wanted: tuple[int, int] = (10, 16),
    n_categories: int = 10,
    n_features: int = 64,
    noise: float = 1.0,
    generator: torch.Generator | int = 0,
) -> SubsetData:
    """Draw catalogues of items of many categories; the subset is what somebody wants who mixes two of the categories.

    Items scatter around the standard normal centre of their category. As many as will be wanted are of two categories
    drawn for each set, the others of the remaining ones. The subset is then those most similar, by cosine, to a mixture
    of the two centres, at a random share from one to two thirds. Centres are the same for all sets of a call: draw
    training and test sets together.

    Parameters
    ----------
    n_sets, size : int
        At least 1.
    n_wanted : pair of int
        The size of the subset is uniform between the two. It should leave the other categories fewer items each than
        the two have: nothing else in a set says which two they are.
    n_categories, n_features : int
        At least 3 categories, and 1 feature.
    noise : float
        Standard deviation of each feature around its centre.
    generator : torch.Generator or int
        Source (or seed) of the draw.

    Returns
    -------
    SubsetData

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> registry_sets(3).chosen.sum(1).tolist()
    [14, 13, 10]
    """
    _check(n_sets, size, n_wanted, n_categories - 1, noise)
    check_sizes(n_features=n_features)
    source = as_generator(generator)
    sizes = torch.randint(n_wanted[0], n_wanted[1] + 1, (n_sets, 1), generator=source)
    order = torch.rand(n_sets, n_categories, generator=source).argsort(1)
    position = torch.rand(n_sets, size, generator=source).argsort(1)
    mixed = torch.randint(0, 2, (n_sets, size), generator=source)
    other = torch.randint(2, n_categories, (n_sets, size), generator=source)
    kinds = order.gather(1, torch.where(position < sizes, mixed, other))
    centres = torch.randn(n_categories, n_features, generator=source)
    items = centres[kinds] + noise * torch.randn(n_sets, size, n_features, generator=source)
    share = (1 + torch.rand(n_sets, 1, generator=source)) / 3
    wanted = share * centres[order[:, 0]] + (1 - share) * centres[order[:, 1]]
    similarity = torch.nn.functional.cosine_similarity(items, wanted[:, None], dim=2)
    return SubsetData(items, similarity.argsort(dim=1, descending=True).argsort(dim=1) < sizes)


def _odd_ones(
    n_sets: int, size: int, n_anomalies: int | Tensor, n_kinds: int, source: torch.Generator
) -> tuple[Int[Tensor, "sets size"], Bool[Tensor, "sets size"]]:
    """Draw a normal kind for each set, and other kinds at random places; return kinds and where the others are."""
    place = torch.rand(n_sets, size, generator=source).argsort(1)
    chosen = place < torch.as_tensor(n_anomalies).reshape(-1, 1)
    normal = torch.randint(n_kinds, (n_sets, 1), generator=source)
    away = torch.randint(1, n_kinds, (n_sets, size), generator=source)
    return torch.where(chosen, (normal + away) % n_kinds, normal), chosen


def _check(n_sets: int, size: int, n_chosen: tuple[int, int], n_kinds: int, noise: float = 0.0) -> None:
    if n_sets < 1 or not 0 < n_chosen[0] <= n_chosen[1] < size:
        raise ValueError(
            f"n_sets must be at least 1, and the subset from 1 to one less than size, {size}; got {n_sets} and "
            f"{n_chosen[0]} to {n_chosen[1]}"
        )
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be at least 0 and finite; got {noise}")
    if n_kinds < 2:
        raise ValueError(f"there must be at least two classes, clusters or categories to choose from; got {n_kinds}")
