"""The two networks that select subsets: how they are made, trained and asked."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from offprint.methods.bags.inset_data import PaddedSets, top
from offprint.methods.bags.inset_mean_field import MeanField, mean_field
from offprint.methods.bags.inset_recognition import CopulaRecognition, Noise
from offprint.methods.bags.inset_utility import Merge, SetUtility, Summarise, Summary
from offprint.models.randomness import seeded

Mode = Literal["diffMF", "ind", "copula"]


class SubsetNetworks(nn.Module):
    """A utility, the network that proposes subsets for it, and the shape of the elements that both are for.

    Parameters
    ----------
    utility : SetUtility
        F(S; V).
    recognition : CopulaRecognition, optional
        Where mean-field steps start; without it, from one half throughout.
    shape : tuple of int
        Of an element.

    Examples
    --------
    >>> networks = SubsetNetworks(SetUtility(nn.Linear(2, 4), 4, 8, generator=0), None, (2,))
    >>> networks.infer(torch.zeros(1, 3, 2), torch.ones(1, 3) > 0, 1, 5).probabilities.shape
    torch.Size([1, 3])
    """

    def __init__(self, utility: SetUtility, recognition: CopulaRecognition | None, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.utility, self.recognition, self.shape = utility, recognition, shape

    @classmethod
    def build(
        cls,
        data: PaddedSets,
        encoder: nn.Module | None,
        features: int,
        hidden_features: int,
        *,
        context: bool,
        context_in_q: bool,
        merge: Merge,
        agg: Summary | Summarise,
        mode: Mode,
        rank: int,
        device: torch.device | str,
        source: torch.Generator,
    ) -> SubsetNetworks:
        """Make both networks, each with an encoder of its own; the options are those of ``SubsetSelector``."""
        shape = tuple(data.x.shape[2:])

        def own_encoder() -> tuple[nn.Module, int]:
            if encoder is not None:
                own = copy.deepcopy(encoder).to(device).eval()
                with torch.no_grad():
                    return own, own(data.x[data.mask][:2].to(device)).shape[-1]
            if len(shape) != 1:
                raise ValueError(f"encoder must be given for elements of shape {shape}")
            with seeded(source):
                return nn.Linear(shape[0], features), features

        utility = SetUtility(*own_encoder(), hidden_features, context=context, merge=merge, agg=agg, generator=source)
        recognition = None
        if mode != "diffMF":
            recognition = CopulaRecognition(
                *own_encoder(), hidden_features, rank, context=context_in_q, generator=source
            )
        return cls(utility, recognition, shape)

    def infer(
        self,
        x: Float[Tensor, "sets points ..."],
        mask: Bool[Tensor, "sets points"],
        n_steps: int,
        n_samples: int,
        chunk_size: int | None = None,
    ) -> MeanField:
        """Take mean-field steps from where the recognition network says, which gets no gradient of them."""
        if self.recognition is None:
            q = torch.full(mask.shape, 0.5, dtype=x.dtype, device=x.device)
        else:
            with torch.no_grad():
                q = self.recognition(x, mask, chunk_size).probabilities
        return mean_field(self.utility, x, q, n_steps, n_samples, mask, chunk_size=chunk_size)

    def bound(
        self,
        x: Float[Tensor, "sets points ..."],
        mask: Bool[Tensor, "sets points"],
        n_samples: int,
        temperature: float,
        noise: Noise,
    ) -> Float[Tensor, ""]:
        """Return the mean over sets of E F(S; V) + entropy of the proposals: at most log Σ exp F(S; V)."""
        assert self.recognition is not None
        proposal = self.recognition(x, mask)
        subsets = proposal.sample(n_samples, temperature, noise)
        bound: Tensor = (self.utility.prepare(x, mask).values(subsets).mean(1) + proposal.entropy()).mean()
        return bound


def subset_loss(
    found: MeanField, mask: Bool[Tensor, "sets points"], chosen: Bool[Tensor, "sets points"], neg_ratio: float
) -> Float[Tensor, ""]:
    """Compare marginals with the subsets, on their elements and on ``neg_ratio`` times as many others, drawn at random.

    Examples
    --------
    >>> found = MeanField(torch.tensor([[0.5, 0.5]]), torch.zeros(1, 2), 1, 0.0)
    >>> round(subset_loss(found, torch.ones(1, 2) > 0, torch.tensor([[True, False]]), 1.0).item(), 3)  # 2 ln 2
    1.386
    """
    outside = mask & ~chosen
    n_negative = (neg_ratio * chosen.sum(1)).round().long().clamp(min=1).minimum(outside.sum(1))
    weight = chosen | top(torch.rand(mask.shape, device=mask.device), n_negative, outside)
    each = nn.functional.binary_cross_entropy_with_logits(found.logits, chosen.to(found.logits), reduction="none")
    return (each * weight).sum(1).mean()
