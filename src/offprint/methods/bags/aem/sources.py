"""Bags and their labels in any form that a user may have them, read as ragged bags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from offprint.methods.bags.aem.models import refuse_not_finite
from offprint.methods.bags.aem.slides import SlideDataset
from offprint.methods.bags.ragged import RaggedBags, shuffled_ranks

Bags = Sequence[Float[np.ndarray, "_ features"] | Float[Tensor, "_ features"]] | RaggedBags | SlideDataset
Labels = Sequence[Any] | Shaped[np.ndarray, " _"] | Shaped[Tensor, " _"]


class BagSource:
    """Bags in any accepted form, of which any can be taken as ragged ones.

    Parameters
    ----------
    bags : sequence of arrays, shape (n, features), RaggedBags, or SlideDataset
    name : str
        What they are called in errors.
    """

    def __init__(self, bags: Bags, name: str) -> None:
        self.slides = bags if isinstance(bags, SlideDataset) else None
        self.bags: RaggedBags | None = None
        if self.slides is not None:
            self.width = self.slides.width
        else:
            self.bags = _checked(bags, name) if isinstance(bags, RaggedBags) else _together(bags, name)
            refuse_not_finite(self.bags, name=name)
            self.width = self.bags.values.shape[1]

    def __len__(self) -> int:
        return len(self.slides) if self.slides is not None else len(self.bags or ())

    def take(self, chosen: list[int]) -> RaggedBags:
        """Return the chosen bags, read now where they lie in files."""
        if self.slides is not None:
            return RaggedBags.from_list([self.slides[bag].features for bag in chosen])
        assert self.bags is not None  # one of the two is given
        return self.bags.take(chosen)


def subsampled(bags: RaggedBags, share: float, generator: torch.Generator | None = None) -> RaggedBags:
    """Keep a random share of the instances of each bag, at least one.

    Parameters
    ----------
    bags : RaggedBags
        None empty.
    share : float
        In (0, 1].
    generator : torch.Generator, optional
        Source of randomness; by default torch's global state.

    Returns
    -------
    RaggedBags

    Examples
    --------
    >>> subsampled(RaggedBags.from_list([torch.zeros(10, 3), torch.zeros(1, 3)]), 0.75).sizes.tolist()
    [7, 1]
    """
    sizes = (bags.sizes * share).long().clamp(min=1)
    kept = shuffled_ranks(bags, generator) < sizes[bags.ids]
    return RaggedBags(bags.values[kept], nn.functional.pad(sizes.cumsum(0), (1, 0)))


def labels_of(bags: Bags, y: Labels | None, name: str) -> np.ndarray:
    """Return one label per bag: those given, or those of a dataset.

    Parameters
    ----------
    bags : sequence of arrays, RaggedBags, or SlideDataset
    y : sequence, array or tensor, shape (bags,), optional
    name : str
        What labels are called in errors.

    Returns
    -------
    array, shape (bags,)

    Raises
    ------
    ValueError
        If there are none, or not one per bag.

    Examples
    --------
    >>> labels_of([np.zeros((3, 2)), np.ones((1, 2))], ["normal", "tumour"], "y").tolist()
    ['normal', 'tumour']
    """
    if y is None:
        if not isinstance(bags, SlideDataset):
            raise ValueError(f"{name} must hold labels, unless bags are a SlideDataset")
        return np.asarray(bags.labels)
    labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if labels.ndim != 1:
        raise ValueError(f"{name} must hold one label per bag; got shape {labels.shape}")
    return labels


def _checked(bags: RaggedBags, name: str) -> RaggedBags:
    shape = tuple(bags.values.shape)
    if len(shape) != 2 or not bags.values.is_floating_point():
        raise ValueError(f"{name} must hold floating-point rows of shape (n, features); got shape {shape}")
    if bags.n_bags == 0 or bool((bags.sizes == 0).any()):
        empty = "there is none" if bags.n_bags == 0 else f"bag {int((bags.sizes == 0).int().argmax())} is empty"
        raise ValueError(f"{name} must be bags of at least one instance each; {empty}")
    return bags


def _together(bags: Any, name: str) -> RaggedBags:
    if not isinstance(bags, list | tuple) or len(bags) == 0:
        raise ValueError(f"{name} must be a list of arrays, RaggedBags or a SlideDataset; got {type(bags).__name__}")
    tensors = [torch.as_tensor(bag) for bag in bags]
    for i, features in enumerate(tensors):
        if features.ndim != 2 or len(features) == 0 or features.shape[1] != tensors[0].shape[1]:
            raise ValueError(
                f"{name} must hold arrays of shape (n, features), n at least 1 and features the same for all; bag {i} "
                f"has {tuple(features.shape)}, bag 0 {tuple(tensors[0].shape)}"
            )
    return RaggedBags.from_list(tensors)
