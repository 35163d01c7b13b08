"""A network that proposes subsets of a set, with correlated draws that carry gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from offprint.methods.bags.inset_utility import (
    check_choice,
    checked_mask,
    chunks,
    encode_elements,
    generator_on,
    summary,
)
from offprint.models.batches import check_sizes
from offprint.models.randomness import seeded

Noise = Literal["ind", "copula"]


@dataclass(frozen=True, eq=False)
class Proposal:
    """How likely each element is to be chosen, and how the choices of a set hang together.

    Parameters
    ----------
    logits : tensor, shape (sets, points)
        Of the probability that each element is chosen.
    deviation : tensor, shape (sets, points)
        Of the noise of each element by itself.
    factors : tensor, shape (sets, points, rank)
        How the noise that a set shares moves each element.
    mask : bool tensor, shape (sets, points)
        Where there is an element.
    """

    logits: Float[Tensor, "sets points"]
    deviation: Float[Tensor, "sets points"]
    factors: Float[Tensor, "sets points rank"]
    mask: Bool[Tensor, "sets points"]

    @property
    def probabilities(self) -> Float[Tensor, "sets points"]:
        """That each element is chosen; 0 where there is none."""
        return self.logits.sigmoid().masked_fill(~self.mask, 0.0)

    def entropy(self) -> Float[Tensor, " sets"]:
        """Return the entropy of independent choices with these probabilities, in nats."""
        each = nn.functional.softplus(self.logits) - self.logits * self.logits.sigmoid()
        return each.masked_fill(~self.mask, 0.0).sum(1)

    def sample(
        self,
        n_samples: int,
        temperature: float = 0.1,
        noise: Noise = "copula",
        *,
        generator: torch.Generator | int | None = None,
    ) -> Float[Tensor, "sets draws points"]:
        """Draw subsets, 0 or 1 with the gradients of a relaxed draw.

        Parameters
        ----------
        n_samples : int
            Subsets of each set, at least 1.
        temperature : float
            Of the relaxation, positive: small ones have nearly no bias and steep gradients.
        noise : {"ind", "copula"}
            "ind" chooses each element by itself, exactly as often as its probability says. With "copula" those of a
            set are correlated.
        generator : torch.Generator or int, optional
            Source (or seed); by default torch's global state.

        Returns
        -------
        tensor, shape (sets, draws, points)
        """
        check_sizes(n_samples=n_samples)
        check_choice("noise", noise, Noise)
        if not temperature > 0:
            raise ValueError(f"temperature must be positive; got {temperature}")
        source = generator_on(generator, self.logits.device)
        n_sets, n_points, rank = self.factors.shape
        blank = self.logits.new_empty
        if noise == "ind":
            logit_u = blank(n_sets, n_samples, n_points).uniform_(generator=source).logit(1e-6)
        else:
            own = blank(n_sets, n_samples, n_points).normal_(generator=source)
            shared = blank(n_sets, n_samples, rank).normal_(generator=source)
            g = own * self.deviation[:, None] + shared @ self.factors.transpose(1, 2)
            # The logit of u = Φ(g), without the rounding of u to 1.
            logit_u = torch.special.log_ndtr(g) - torch.special.log_ndtr(-g)
        relaxed = ((self.logits[:, None] + logit_u) / temperature).sigmoid()
        hard = (relaxed > 0.5).to(relaxed)
        drawn: Tensor = (hard + (relaxed - relaxed.detach())) * self.mask[:, None]
        return drawn


class CopulaRecognition(nn.Module):
    """A network that looks at the elements of a set and proposes subsets, to start from and to learn a utility from.

    Every element gets a probability. Subsets are drawn with a Gaussian copula of low rank, so that the elements of a
    set are not chosen independently, and carry gradients.

    Parameters
    ----------
    encoder : torch.nn.Module
        From elements of shape (n, ...) to (n, features); not to be shared with that of the utility.
    features : int
        Length of what the encoder returns, at least 1.
    hidden_features : int
        Width of the layer over each element, at least 1.
    rank : int
        Of the noise that a set shares, at least 1.
    context : bool
        Whether each element is told a summary of all of them.
    agg : {"mean", "sum", "max"}
        That summary.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, an option is unknown, or inputs do not fit together or are not finite.
    TypeError
        If the encoder is no module, or elements are no floating-point tensor.

    Notes
    -----
    O(points · features · hidden_features) a set, and O(points · rank) for a draw. As in the authors' code of the
    backbone, the noise u = Φ(g) is not exactly uniform, since the variance of g is not 1: elements of copula draws are
    not chosen exactly as often as their probability says.

    Examples
    --------
    >>> from offprint.models.mlp import MLP
    >>> recognition = CopulaRecognition(MLP(2, [8], 8, generator=0), 8, 16, generator=0)
    >>> proposal = recognition(torch.zeros(1, 4, 2))
    >>> proposal.probabilities.shape, proposal.sample(3, generator=0).shape
    (torch.Size([1, 4]), torch.Size([1, 3, 4]))

    References
    ----------
    Ou et al., *Learning Neural Set Functions Under the Optimal Subset Oracle*, arXiv:2203.01693, section 4. Telling
    each element a summary of its set follows Xie et al., arXiv:2402.03139.
    """

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        hidden_features: int = 500,
        rank: int = 5,
        *,
        context: bool = True,
        agg: Literal["mean", "sum", "max"] = "mean",
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise TypeError(f"encoder must be a torch.nn.Module; got {type(encoder).__name__}")
        check_sizes(features=features, hidden_features=hidden_features, rank=rank)
        check_choice("agg", agg, Literal["mean", "sum", "max"])
        self.encoder, self.agg, self.rank = encoder, agg, rank
        with seeded(generator):
            self.own = nn.Linear(features, hidden_features)
            self.told = nn.Linear(features, hidden_features, bias=False) if context else None
            self.out = nn.Linear(hidden_features, 2 + rank)

    def forward(
        self,
        x: Float[Tensor, "sets points ..."],
        mask: Bool[Tensor, "sets points"] | None = None,
        chunk_size: int | None = None,
    ) -> Proposal:
        """Propose subsets of sets of shape (sets, points, ...), padded where the mask is False.

        Parameters
        ----------
        x : tensor, shape (sets, points, ...)
            Elements, padded to the same number; finite.
        mask : bool tensor, shape (sets, points), optional
            Where there is an element; by default everywhere.
        chunk_size : int, optional
            The most elements, of all sets together, that go through the layers at a time, at least one of each set; by
            default all. As for :meth:`.SetUtility.prepare`, but that encoded elements are kept.

        Returns
        -------
        Proposal
        """
        mask = checked_mask(x, mask)
        parts = chunks(x.shape[:2], chunk_size)
        features = self.own.in_features
        encoded = torch.cat([encode_elements(self.encoder, x[:, part], mask[:, part], features) for part in parts], 1)
        told = None if self.told is None else self.told(summary(encoded, mask, self.agg))[:, None]
        out = []
        for part in parts:
            hidden = self.own(encoded[:, part])
            out.append(self.out((hidden if told is None else hidden + told).relu()))
        logits, deviation, factors = torch.split(torch.cat(out, 1), [1, 1, self.rank], 2)
        return Proposal(logits[..., 0], nn.functional.softplus(deviation[..., 0]), factors.tanh(), mask)
