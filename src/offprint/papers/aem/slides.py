"""Bags like slides: tissue of several kinds, few tumour patches, stain that differs by centre, and artefacts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from offprint.methods.bags.ragged import RaggedBags

N_FEATURES, N_TISSUES = 64, 6
STAIN, TUMOUR, ARTEFACT = 0.5, 2.0, 6.0
"""Lengths of the shifts by centre, of tumour patches, and of artefacts."""


@dataclass(frozen=True, eq=False)
class Slides:
    """Slides of one split, with what a reader wants to know about each patch."""

    bags: RaggedBags
    y: Int[np.ndarray, " slides"]
    tumour: Bool[Tensor, " patches"]
    artefact: Bool[Tensor, " patches"]


@dataclass(frozen=True, eq=False)
class World:
    """What all slides of one repetition share: tissues, and the directions of tumour, artefact and stain."""

    tissues: Tensor
    stains: Tensor
    tumour: Tensor
    artefact: Tensor

    @classmethod
    def drawn(cls, generator: torch.Generator) -> World:
        """Draw tissue centres from N(0, I), and unit directions; that of artefacts is at right angles to tumour."""
        tissues = torch.randn(N_TISSUES, N_FEATURES, generator=generator)
        stains = torch.nn.functional.normalize(torch.randn(3, N_FEATURES, generator=generator), dim=1)
        directions = torch.linalg.qr(torch.randn(N_FEATURES, 2, generator=generator)).Q.T
        return cls(tissues, STAIN * stains, TUMOUR * directions[0], ARTEFACT * directions[1])

    def slides(
        self,
        n_slides: int,
        generator: torch.Generator,
        *,
        seen: bool,
        sizes: tuple[int, int],
        witness: tuple[float, float] | int = (0.05, 0.2),
    ) -> Slides:
        """Draw slides, half of them positive, from the two seen centres or from the unseen third.

        Parameters
        ----------
        n_slides : int
            Even.
        seen : bool
            Whether slides come from the first two centres, where artefacts go with the label, or from the third, where
            they do not.
        sizes : pair of int
            Smallest and largest number of patches.
        witness : pair of float, or int
            Range of the share of tumour patches in a positive slide; or their largest number, the smallest being 1.
        """
        y = torch.randperm(n_slides, generator=generator) % 2
        counts = torch.randint(sizes[0], sizes[1] + 1, (n_slides,), generator=generator)
        chance = torch.rand(n_slides, generator=generator)
        if isinstance(witness, int):
            tumours = 1 + (chance * witness).long()
        else:
            tumours = ((witness[0] + (witness[1] - witness[0]) * chance) * counts).round().long().clamp(min=1)
        centre = torch.randint(2, (n_slides,), generator=generator) if seen else torch.full((n_slides,), 2)
        likely = torch.where(y == 1, 0.8, 0.2) if seen else torch.full((n_slides,), 0.5)
        artefacts = torch.randint(1, 4, (n_slides,), generator=generator)
        artefacts = artefacts * (torch.rand(n_slides, generator=generator) < likely)
        offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        slide = torch.arange(n_slides).repeat_interleave(counts)
        place = torch.arange(len(slide)) - offsets[slide]
        is_tumour = place < (tumours * y)[slide]
        is_artefact = place >= (counts - artefacts)[slide]
        tissue = torch.randint(N_TISSUES, (len(slide),), generator=generator)
        values = torch.randn(len(slide), N_FEATURES, generator=generator)
        values += self.tissues[tissue] + self.stains[centre[slide]]
        values += is_tumour[:, None] * self.tumour + is_artefact[:, None] * self.artefact
        return Slides(RaggedBags(values, offsets), y.numpy(), is_tumour, is_artefact)
