"""Labelled slides that are read one at a time, whatever files they lie in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from offprint.methods.bags.ragged import RaggedBags


@dataclass(frozen=True, eq=False)
class Slide:
    """One slide as read.

    Parameters
    ----------
    slide_id : str
        Its name.
    label : int
        Its class.
    features : float32 tensor, shape (n, features)
        One row per patch.
    coords : int64 tensor, shape (n, 2), optional
        Upper left corners of the patches, in pixels of the highest resolution; where the file has them.
    """

    slide_id: str
    label: int
    features: Float[Tensor, "n features"]
    coords: Int[Tensor, "n 2"] | None = None


class SlideDataset:
    """Labelled slides, each read when it is asked for and held by nobody afterwards.

    Subclasses define ``read(slide_id)``.

    Parameters
    ----------
    labels : mapping of str to int
        The class of each slide, in order.
    cases : mapping of str to str
        The patient of each slide.
    max_instances : int, optional
        Keep a random choice of so many patches of a slide, the same each time.
    seed : int
        Of that choice.
    """

    def __init__(
        self,
        labels: Mapping[str, int],
        cases: Mapping[str, str],
        max_instances: int | None = None,
        seed: int = 0,
    ) -> None:
        if not labels:
            raise ValueError("there must be at least one slide; got none")
        if max_instances is not None and max_instances < 1:
            raise ValueError(f"max_instances must be at least 1; got {max_instances}")
        self.slide_ids = list(labels)
        self.labels = list(labels.values())
        self.cases = [cases[slide_id] for slide_id in self.slide_ids]
        self.max_instances, self.seed = max_instances, seed
        self._first: tuple[str, int] | None = None

    def __len__(self) -> int:
        return len(self.slide_ids)

    def __getitem__(self, index: int) -> Slide:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be in [0, {len(self)}); got {index}")
        index %= len(self)
        slide_id = self.slide_ids[index]
        features, coords = self.read(slide_id)
        self._check_shapes(slide_id, features, coords)
        if self.max_instances is not None and len(features) > self.max_instances:
            kept = np.random.default_rng([self.seed, index]).choice(len(features), self.max_instances, replace=False)
            kept.sort()  # so that a file that is mapped into memory is read from front to back
            features, coords = features[kept], None if coords is None else coords[kept]
        if not bool(torch.isfinite(features).all()):
            raise ValueError(f"features of slide {slide_id} must be finite; they hold NaN or infinity")
        return Slide(slide_id, self.labels[index], features.float(), coords)

    def __iter__(self) -> Iterator[Slide]:
        return (self[index] for index in range(len(self)))

    @property
    def width(self) -> int:
        """Length of a row of features; reads the first slide unless one was read before."""
        if self._first is None:
            self[0]
        assert self._first is not None  # reading sets it
        return self._first[1]

    def read(self, slide_id: str) -> tuple[Shaped[Tensor, "..."], Int[Tensor, "..."] | None]:
        """Return features and, where there are, coordinates of a slide as they lie in its file."""
        raise NotImplementedError

    def bags(self, indices: Sequence[int] | None = None) -> RaggedBags:
        """Return the features of some slides, by default of all, as ragged bags: these are held in memory together."""
        chosen = range(len(self)) if indices is None else indices
        return RaggedBags.from_list([self[index].features for index in chosen])

    def split_by_case(self, share: float = 0.1, seed: int = 0) -> tuple[SlideSubset, SlideSubset]:
        """Hold out a random share of the patients with all of their slides.

        Parameters
        ----------
        share : float
            In (0, 1); at least one patient is held out and one kept.
        seed : int
            Of the choice.

        Returns
        -------
        kept, held_out : SlideSubset

        Raises
        ------
        ValueError
            If the share is out of range, or there is one patient only.
        """
        if not 0 < share < 1:
            raise ValueError(f"share must be in (0, 1); got {share}")
        cases = sorted(set(self.cases))
        if len(cases) < 2:
            raise ValueError(f"there must be at least two patients to split; all slides are of {cases[0]!r}")
        n_held_out = min(max(1, round(share * len(cases))), len(cases) - 1)
        held_out = set(np.random.default_rng(seed).permutation(cases)[:n_held_out].tolist())
        first = [index for index, case in enumerate(self.cases) if case not in held_out]
        second = [index for index, case in enumerate(self.cases) if case in held_out]
        return SlideSubset(self, first), SlideSubset(self, second)

    def _check_shapes(self, slide_id: str, features: Tensor, coords: Tensor | None) -> None:
        if features.ndim != 2 or len(features) == 0 or not features.is_floating_point():
            raise ValueError(
                f"features of slide {slide_id} must be floating-point numbers of shape (n, features), n at least 1; "
                f"got {features.dtype} of shape {tuple(features.shape)}"
            )
        if coords is not None and tuple(coords.shape) != (len(features), 2):
            raise ValueError(f"coords of slide {slide_id} must be {(len(features), 2)}; got {tuple(coords.shape)}")
        if self._first is None:
            self._first = slide_id, features.shape[1]
        if features.shape[1] != self._first[1]:
            raise ValueError(
                f"slides must have features of one width; slide {slide_id} has {features.shape[1]}, slide "
                f"{self._first[0]} has {self._first[1]}"
            )


class SlideSubset(SlideDataset):
    """Some slides of a dataset, read through it.

    Parameters
    ----------
    whole : SlideDataset
        The dataset.
    indices : sequence of int
        Which of its slides.
    """

    def __init__(self, whole: SlideDataset, indices: Sequence[int]) -> None:
        chosen = {whole.slide_ids[index]: whole.labels[index] for index in indices}
        super().__init__(chosen, dict(zip(whole.slide_ids, whole.cases, strict=True)))
        self.whole, self.indices = whole, list(indices)

    def __getitem__(self, index: int) -> Slide:
        slide = self.whole[self.indices[index]]
        self._first = (slide.slide_id, slide.features.shape[1])
        return slide

    def read(self, slide_id: str) -> tuple[Shaped[Tensor, "..."], Int[Tensor, "..."] | None]:
        """Return features and coordinates of a slide as they lie in its file."""
        return self.whole.read(slide_id)
