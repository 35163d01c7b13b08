"""Bags of digits: images of a classification dataset in bags whose labels follow from what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from offprint.data.dataset import Dataset
from offprint.methods.bags.ragged import RaggedBags

Label = Literal["present", "count", "proportion"]


@dataclass(frozen=True, eq=False)
class DigitBags:
    """Bags of images with a label for each bag, and what no learner of bags is told.

    Parameters
    ----------
    bags : RaggedBags
        Images, float32 of shape (n, channels, height, width).
    labels : tensor, shape (bags,)
        int64 for "present" (0 or 1) and "count", float32 for "proportion".
    classes : int64 tensor, shape (n,)
        The digit of each image.
    rows : int64 tensor, shape (n,)
        Where each image stands in the dataset.
    """

    bags: RaggedBags
    labels: Int[Tensor, " bags"] | Float[Tensor, " bags"]
    classes: Int[Tensor, " n"]
    rows: Int[Tensor, " n"]


def make_digit_bags(
    data: Dataset,
    n_bags: int,
    *,
    target: int = 9,
    label: Label = "present",
    mean_size: float = 10.0,
    size_deviation: float = 2.0,
    positive_share: float | None = 0.5,
    random_state: int | np.random.Generator,
) -> DigitBags:
    """Draw bags of images, labelled by whether, how often or at what rate a digit occurs in them.

    Images are drawn with replacement, and independently of each other but for one thing: with ``positive_share``, bags
    that are to be negative hold no target, and bags that are to be positive hold at least one.

    Parameters
    ----------
    data : Dataset
        Images with classes: digits, MNIST, CIFAR-10.
    n_bags : int
        At least 1.
    target : int
        The class that counts.
    label : {"present", "count", "proportion"}
        What a bag's label says of the target.
    mean_size, size_deviation : float
        Sizes are drawn from a normal distribution of this mean and standard deviation, rounded, and at least 1.
    positive_share : float, optional
        Share of bags that hold a target, in [0, 1], exact up to rounding; ``None`` leaves it to chance.
    random_state : int or numpy.random.Generator
        Source of all draws.

    Returns
    -------
    DigitBags

    Raises
    ------
    ValueError
        If a number is out of range, the data have no classes or too few of either kind.

    Notes
    -----
    Time and memory grow with the number of images in all bags.

    Examples
    --------
    >>> from offprint.data import load
    >>> made = make_digit_bags(load("digits", split="train"), 4, random_state=0)
    >>> made.labels.tolist(), made.bags.n_bags
    ([0, 0, 1, 1], 4)
    >>> bool((made.classes[made.bags.ids == 1] == 9).any())
    False

    References
    ----------
    Ilse, Tomczak and Welling, *Attention-based Deep Multiple Instance Learning*, arXiv:1802.04712, section 4.2.
    """
    _check(data, n_bags, target, label, mean_size, size_deviation, positive_share)
    rng = np.random.default_rng(random_state)
    sizes = np.maximum(np.rint(rng.normal(mean_size, size_deviation, n_bags)), 1).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = rng.integers(len(data), size=offsets[-1])
    if positive_share is not None:
        others, targets = np.flatnonzero(data.targets != target), np.flatnonzero(data.targets == target)
        positive = rng.permutation(np.arange(n_bags) < round(positive_share * n_bags))
        in_negative = ~np.repeat(positive, sizes)
        rows[in_negative] = rng.choice(others, int(in_negative.sum()))
        # Where chance has put no target into a positive bag, one of its images gives way to one.
        held = np.add.reduceat(data.targets[rows] == target, offsets[:-1])
        lacking = np.flatnonzero(positive & (held == 0))
        places = offsets[lacking] + (rng.random(len(lacking)) * sizes[lacking]).astype(np.int64)
        rows[places] = rng.choice(targets, len(lacking))
    held = np.add.reduceat((data.targets[rows] == target).astype(np.int64), offsets[:-1])
    labels = {"present": (held > 0).astype(np.int64), "count": held, "proportion": (held / sizes).astype(np.float32)}
    images = torch.from_numpy(np.ascontiguousarray(data.inputs[rows], dtype=np.float32))
    return DigitBags(
        RaggedBags(images, torch.from_numpy(offsets)),
        torch.from_numpy(labels[label]),
        torch.from_numpy(data.targets[rows].astype(np.int64)),
        torch.from_numpy(rows),
    )


def _check(
    data: Dataset,
    n_bags: int,
    target: int,
    label: str,
    mean_size: float,
    size_deviation: float,
    positive_share: float | None,
) -> None:
    if n_bags < 1:
        raise ValueError(f"n_bags must be at least 1; got {n_bags}")
    if label not in ("present", "count", "proportion"):
        raise ValueError(f"label must be 'present', 'count' or 'proportion'; got {label!r}")
    if not 1 <= mean_size < np.inf:
        raise ValueError(f"mean_size must be finite and at least 1; got {mean_size}")
    if not 0 <= size_deviation < np.inf:
        raise ValueError(f"size_deviation must be finite and at least 0; got {size_deviation}")
    if not data.classes:
        raise ValueError(f"data must have classes; {data.name!r} has real targets")
    if not 0 <= target < len(data.classes):
        raise ValueError(f"target must be a class of {data.name!r}, 0 to {len(data.classes) - 1}; got {target}")
    n_target = int((data.targets == target).sum())
    if positive_share is not None:
        if not 0 <= positive_share <= 1:
            raise ValueError(f"positive_share must be in [0, 1]; got {positive_share}")
        if n_target in (0, len(data)):
            raise ValueError(f"data must hold images of class {target} and of others; {n_target} of {len(data)} are")
