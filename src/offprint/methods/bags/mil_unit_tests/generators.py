"""The three pairs of training and test bags, which differ in what a model must not have learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from offprint.methods.bags.ragged import RaggedBags
from offprint.models.batches import check_count
from offprint.models.randomness import as_generator

Split = Literal["train", "test"]
BACKGROUND, POSITIVE, CONCEPT_A, CONCEPT_B, POISON = range(5)
"""The codes of ``BagDataset.instance_tags``."""


@dataclass(frozen=True, eq=False)
class BagDataset:
    """Labelled bags, and for every row what it was drawn as.

    Parameters
    ----------
    bags : RaggedBags
        Rows of shape (n, n_features), float32; a sequence of one tensor per bag.
    y : int64 tensor, shape (bags,)
        Labels, 0 or 1.
    instance_tags : int8 tensor, shape (n,)
        What each row is: ``BACKGROUND``, ``POSITIVE``, ``CONCEPT_A``, ``CONCEPT_B`` or ``POISON`` (0 to 4).
    """

    bags: RaggedBags
    y: Int[Tensor, " bags"]
    instance_tags: Int[Tensor, " n"]

    def counts(self, tag: int) -> Int[Tensor, " bags"]:
        """Return how many rows with this tag each bag holds."""
        return torch.bincount(self.bags.ids[self.instance_tags == tag], minlength=self.bags.n_bags)


def make_single_concept(
    n_bags: int,
    split: Split,
    n_features: int = 16,
    *,
    variant: Literal["paper", "notebook"] = "paper",
    min_size: int | None = None,
    poison_mean: float = -10.0,
    poison_rate: float = 0.0,
    generator: torch.Generator | int = 0,
) -> BagDataset:
    """Draw bags of test 1, where a poison item marks negative bags in training and positive ones in testing.

    A bag is positive when it holds a positive item. Training negatives hold one poison item, so that its absence
    predicts as well; in testing it lies in the positive bags, and only a model that looks for positive items keeps its
    score.

    Parameters
    ----------
    n_bags : int
        At least 2; half of them, rounded down, are positive.
    split : {"train", "test"}
        Which of the pair.
    n_features : int
        Length of a row, at least 1.
    variant : {"paper", "notebook"}
        Whether positive items are half subtle, N(0, 3), and half obvious, N(1, 1), in every coordinate, or all subtle
        as in the authors' notebook.
    min_size : int, optional
        Add background until each bag has this many rows, so that sizes tell nothing; at least 4.
    poison_mean : float
        Mean of the poison's coordinates, finite; the further from 0, the plainer.
    poison_rate : float
        Share of positive training bags that hold a poison item too, in [0, 1].
    generator : torch.Generator or int
        Source of randomness, or its seed.

    Returns
    -------
    BagDataset

    Raises
    ------
    ValueError
        If a number is out of range, or split or variant unknown.

    Notes
    -----
    Negatives hold 1 to 9 background rows, positives 1 to 4 of them and 1 to 3 positive items, all uniform. Background
    is N(0, 1) and the poison N(poison_mean, 0.1) (mean, standard deviation). O(rows · n_features), without loops.

    Examples
    --------
    >>> data = make_single_concept(1000, "train", generator=0)
    >>> data.bags.n_bags, data.y.sum().item(), data.counts(POISON)[data.y == 1].sum().item()
    (1000, 500, 0)

    References
    ----------
    Raff and Holt, *Reproducibility in Multiple Instance Learning: A Case For Algorithmic Unit Tests*, arXiv:2310.17867,
    algorithm 1.
    """
    if variant not in ("paper", "notebook"):
        raise ValueError(f"variant must be 'paper' or 'notebook'; got {variant!r}")
    if not math.isfinite(poison_mean):
        raise ValueError(f"poison_mean must be finite; got {poison_mean}")
    if not 0 <= poison_rate <= 1:
        raise ValueError(f"poison_rate must be in [0, 1]; got {poison_rate}")
    draw = _Draw(n_bags, split, n_features, min_size, 4, generator)
    draw.put(POSITIVE, draw.positive, 1, 3)
    draw.put(BACKGROUND, draw.positive, 1, 4)
    draw.put(BACKGROUND, ~draw.positive, 1, 9)
    if split == "train":
        draw.put(POISON, ~draw.positive, 1, 1)
        draw.put(POISON, draw.positive & draw.chance(poison_rate), 1, 1)
    else:
        draw.put(POISON, draw.positive, 1, 1)
    subtle = 0.5 if variant == "paper" else 1.0
    return draw.dataset({POSITIVE: (1.0, 1.0), POISON: (poison_mean, 0.1)}, subtle=subtle)


def make_multi_concept(
    n_bags: int,
    split: Split,
    n_features: int = 16,
    *,
    with_neither: bool = False,
    min_size: int | None = None,
    generator: torch.Generator | int = 0,
) -> BagDataset:
    """Draw bags of test 2, which are positive when they hold both of two concepts.

    Training negatives hold one of the two and a poison item, which lies in the positives in testing.

    Parameters
    ----------
    n_bags : int
        At least 2; half of them, rounded down, are positive.
    split : {"train", "test"}
        Which of the pair.
    n_features : int
        Length of a row, at least 1.
    with_neither : bool
        Let a third of the training negatives hold neither concept (the authors' second version).
    min_size : int, optional
        Add background until each bag has this many rows; at least 9.
    generator : torch.Generator or int
        Source of randomness, or its seed.

    Returns
    -------
    BagDataset

    Raises
    ------
    ValueError
        If a number is out of range, or split unknown.

    Notes
    -----
    Concepts are N(2, 0.1) and N(3, 0.1) in every coordinate, poison N(-10, 0.1), background N(0, 1). Negatives hold one
    row of a concept, positives 1 to 4 of each; all hold 1 to 4 background rows. A tenth of the training positives hold
    poison. O(rows · n_features), without loops.

    Examples
    --------
    >>> data = make_multi_concept(1000, "test", generator=0)
    >>> both = (data.counts(CONCEPT_A) > 0) & (data.counts(CONCEPT_B) > 0)
    >>> torch.equal(both.long(), data.y)
    True

    References
    ----------
    Raff and Holt, *Reproducibility in Multiple Instance Learning: A Case For Algorithmic Unit Tests*, arXiv:2310.17867,
    algorithm 2.
    """
    draw = _Draw(n_bags, split, n_features, min_size, 9, generator)
    draw.put(BACKGROUND, draw.every, 1, 4)
    draw.put(CONCEPT_A, draw.positive, 1, 4)
    draw.put(CONCEPT_B, draw.positive, 1, 4)
    single = ~draw.positive & ~(draw.chance(1 / 3) & (with_neither and split == "train"))
    first = draw.chance(0.5)
    draw.put(CONCEPT_A, single & first, 1, 1)
    draw.put(CONCEPT_B, single & ~first, 1, 1)
    if split == "train":
        draw.put(POISON, ~draw.positive | draw.chance(0.1), 1, 1)
    else:
        draw.put(POISON, draw.positive, 1, 1)
    return draw.dataset({CONCEPT_A: (2.0, 0.1), CONCEPT_B: (3.0, 0.1), POISON: (-10.0, 0.1)})


def make_false_frequency(
    n_bags: int,
    split: Split,
    n_features: int = 16,
    *,
    concept_means: tuple[float, float] = (-2.0, 2.0),
    min_size: int | None = None,
    generator: torch.Generator | int = 0,
) -> BagDataset:
    """Draw bags of test 3, which are positive when they hold both of two concepts, however many of each.

    Training negatives hold one row of one concept, so that counting works; test negatives hold 35 to 39 of it.

    Parameters
    ----------
    n_bags : int
        At least 2; half of them, rounded down, are positive.
    split : {"train", "test"}
        Which of the pair.
    n_features : int
        Length of a row, at least 1.
    concept_means : pair of float
        Means of the coordinates of the two concepts, finite. Another implementation has 2 and 3.
    min_size : int, optional
        Add background until each bag has this many rows; at least 39.
    generator : torch.Generator or int
        Source of randomness, or its seed.

    Returns
    -------
    BagDataset

    Raises
    ------
    ValueError
        If a number is out of range, or split unknown.

    Notes
    -----
    All bags hold 1 to 9 background rows, N(0, 1); concepts have standard deviation 0.1. Positives hold one row of each
    concept. O(rows · n_features), without loops.

    Examples
    --------
    >>> data = make_false_frequency(1000, "test", generator=0)
    >>> sizes = data.bags.sizes[data.y == 0]
    >>> sizes.min().item(), sizes.max().item()
    (36, 48)

    References
    ----------
    Raff and Holt, *Reproducibility in Multiple Instance Learning: A Case For Algorithmic Unit Tests*, arXiv:2310.17867,
    algorithm 3.
    """
    if len(concept_means) != 2 or not all(math.isfinite(mean) for mean in concept_means):
        raise ValueError(f"concept_means must be two finite numbers; got {concept_means}")
    draw = _Draw(n_bags, split, n_features, min_size, 39, generator)
    draw.put(BACKGROUND, draw.every, 1, 9)
    few, many = (1, 1) if split == "train" else (35, 39)
    first = draw.chance(0.5)
    for tag, chosen in ((CONCEPT_A, first), (CONCEPT_B, ~first)):
        draw.put(tag, draw.positive, 1, 1)
        draw.put(tag, ~draw.positive & chosen, few, many)
    return draw.dataset({CONCEPT_A: (concept_means[0], 0.1), CONCEPT_B: (concept_means[1], 0.1)})


class _Draw:
    """Numbers of rows of each kind in each bag, then the rows."""

    def __init__(
        self,
        n_bags: int,
        split: Split,
        n_features: int,
        min_size: int | None,
        most_needed: int,
        generator: torch.Generator | int,
    ) -> None:
        check_count("n_features", n_features)
        check_count("n_bags", n_bags)
        if n_bags < 2:
            raise ValueError(f"n_bags must be at least 2; got {n_bags}")
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test'; got {split!r}")
        if min_size is not None and (isinstance(min_size, bool) or min_size < most_needed):
            raise ValueError(
                f"min_size must be at least {most_needed}, the most rows beside background; got {min_size}"
            )
        self.n_bags, self.n_features, self.min_size = n_bags, n_features, min_size
        self.source = as_generator(generator)
        self.positive = torch.randperm(n_bags, generator=self.source, device=self.source.device) % 2 == 1
        self.every = torch.ones_like(self.positive)
        self.counts = torch.zeros(n_bags, 5, dtype=torch.int64, device=self.source.device)

    def chance(self, probability: float) -> Tensor:
        return torch.rand(self.n_bags, generator=self.source, device=self.source.device) < probability

    def put(self, tag: int, chosen: Tensor, fewest: int, most: int) -> None:
        """Add a uniform number of rows of this kind to the chosen bags."""
        size = (self.n_bags,)
        drawn = torch.randint(fewest, most + 1, size, generator=self.source, device=self.source.device)
        self.counts[:, tag] += drawn * chosen

    def dataset(self, kinds: dict[int, tuple[float, float]], subtle: float = 0.0) -> BagDataset:
        """Draw the rows: ``kinds`` has a mean and a standard deviation by tag, for a share of the positives N(0, 3)."""
        place = self.source.device
        if self.min_size is not None:
            self.counts[:, BACKGROUND] += (self.min_size - self.counts.sum(1)).clamp(min=0)
        sizes = self.counts.sum(1)
        tags = torch.arange(5, device=place).repeat(self.n_bags).repeat_interleave(self.counts.flatten())
        ids = torch.arange(self.n_bags, device=place).repeat_interleave(sizes)
        # Rows come in random order within their bag, so that positions tell nothing.
        order = torch.rand(len(tags), generator=self.source, device=place, dtype=torch.float64).add(ids).argsort()
        tags = tags[order]
        table = torch.tensor([kinds.get(tag, (0.0, 1.0)) for tag in range(5)], device=place)
        moments = table[tags]
        is_subtle = (tags == POSITIVE) & (torch.rand(len(tags), generator=self.source, device=place) < subtle)
        moments[is_subtle] = torch.tensor([0.0, 3.0], device=place)
        noise = torch.randn(len(tags), self.n_features, generator=self.source, device=place)
        values: Float[Tensor, "n features"] = moments[:, :1] + moments[:, 1:] * noise
        offsets = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
        return BagDataset(RaggedBags(values, offsets), self.positive.long(), tags.to(torch.int8))
