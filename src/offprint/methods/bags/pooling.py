"""Pooling of ragged bags: mean, largest, and attention that is plain, gated or by a learned query with many heads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.methods.bags.ragged import (
    RaggedBags,
    all_finite,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)
from offprint.models.batches import check_sizes
from offprint.models.randomness import seeded


@dataclass(frozen=True, eq=False)
class Pooled:
    """One vector per bag, and how much attention each row of the bags got.

    Parameters
    ----------
    vectors : tensor, shape (bags, features)
        With several heads, one head's features after the other's.
    attention_logits : tensor, shape (n, heads), optional
        Before the softmax over the rows of a bag; ``None`` where the pooling has no attention.
    """

    vectors: Float[Tensor, "bags features"]
    attention_logits: Float[Tensor, "n heads"] | None = None

    def attention(self, bags: RaggedBags) -> Float[Tensor, "n heads"]:
        """Return the weights of the rows, which add up to one in each bag and head.

        Raises
        ------
        ValueError
            If the pooling has no attention.
        """
        if self.attention_logits is None:
            raise ValueError("this pooling has no attention")
        return segment_softmax(self.attention_logits, bags.ids, bags.n_bags)


class MeanPooling(nn.Module):
    """The mean row of each bag.

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0]])])
    >>> MeanPooling()(bags).vectors.tolist()
    [[2.0], [5.0]]
    """

    def forward(self, bags: RaggedBags) -> Pooled:
        """Pool bags of rows of shape (n, features), none empty."""
        _check_bags(bags, None)
        return Pooled(segment_mean(bags.values, bags.ids, bags.n_bags))


class MaxPooling(nn.Module):
    """The largest row of each bag, entry by entry.

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0]])])
    >>> MaxPooling()(bags).vectors.tolist()
    [[3.0], [5.0]]
    """

    def forward(self, bags: RaggedBags) -> Pooled:
        """Pool bags of rows of shape (n, features), none empty."""
        _check_bags(bags, None)
        return Pooled(segment_max(bags.values, bags.ids, bags.n_bags))


class AttentionPooling(nn.Module):
    """A mean of each bag's rows, weighted by a small network that looks at each row.

    The logit of a row h is wᵀ tanh(V h + b); gated, it is wᵀ (tanh(V h + b) ⊙ sigmoid(U h + c)). The vector of a bag is
    the sum of its rows weighted by the softmax of the logits within the bag.

    Parameters
    ----------
    in_features : int
        Length of a row.
    hidden_features : int
        Width of the network that scores rows.
    gated : bool
        Whether half of that network gates the other.
    n_heads : int
        Independent rows of attention over the same rows; they share V and U.
    dropout : float
        Probability of dropping a hidden unit of the scoring network, in [0, 1).
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, or dropout is outside [0, 1).

    Notes
    -----
    Forward and backward cost O(n · in_features · hidden_features), whatever the sizes of the bags; nothing is padded.

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.randn(3, 8), torch.randn(1, 8)])
    >>> pooled = AttentionPooling(8, 16, gated=True, generator=0)(bags)
    >>> pooled.vectors.shape, pooled.attention_logits.shape
    (torch.Size([2, 8]), torch.Size([4, 1]))
    >>> pooled.attention(bags)[3].item()
    1.0

    References
    ----------
    Ilse, Tomczak and Welling, *Attention-based Deep Multiple Instance Learning*, arXiv:1802.04712, equations 7 to 9.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int = 128,
        *,
        gated: bool = False,
        n_heads: int = 1,
        dropout: float = 0.0,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_features=in_features, hidden_features=hidden_features, n_heads=n_heads)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}")
        self.in_features = in_features
        with seeded(generator):
            self.content = nn.Linear(in_features, hidden_features)
            self.gate = nn.Linear(in_features, hidden_features) if gated else None
            self.dropout = nn.Dropout(dropout)
            self.score = nn.Linear(hidden_features, n_heads)

    def logits(self, rows: Float[Tensor, "*n features"]) -> Float[Tensor, "*n heads"]:
        """Return the attention logits of rows, of shape (..., n_heads)."""
        hidden = self.content(rows).tanh()
        if self.gate is not None:
            hidden = hidden * self.gate(rows).sigmoid()
        found: Tensor = self.score(self.dropout(hidden))
        return found

    def forward(self, bags: RaggedBags) -> Pooled:
        """Pool bags of rows of shape (n, in_features); an empty bag becomes zeros."""
        _check_bags(bags, self.in_features)
        logits = self.logits(bags.values)
        return Pooled(attend(bags, logits), logits)


class QueryPooling(nn.Module):
    """Scaled dot-product attention of one learned query over each bag's rows, with several heads.

    Parameters
    ----------
    in_features : int
        Length of a row.
    n_heads : int
        A divisor of ``in_features``: each head attends in a part of the features of its own.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, or heads do not divide the features.

    Notes
    -----
    The same function as ``torch.nn.MultiheadAttention`` of one query, without padding. The query starts near zero, so
    attention starts nearly uniform. O(n · in_features²).

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.randn(3, 8), torch.randn(1, 8)])
    >>> pooled = QueryPooling(8, n_heads=4, generator=0)(bags)
    >>> pooled.vectors.shape, pooled.attention_logits.shape
    (torch.Size([2, 8]), torch.Size([4, 4]))

    References
    ----------
    Vaswani et al., *Attention Is All You Need*, arXiv:1706.03762, section 3.2. Lee et al., *Set Transformer*,
    arXiv:1810.00825, section 3.2, for pooling by a learned query.
    """

    def __init__(self, in_features: int, n_heads: int = 8, *, generator: torch.Generator | int | None = None) -> None:
        super().__init__()
        check_sizes(in_features=in_features, n_heads=n_heads)
        if in_features % n_heads:
            raise ValueError(f"n_heads must divide in_features, {in_features}; got {n_heads}")
        self.in_features, self.n_heads = in_features, n_heads
        with seeded(generator):
            self.query = nn.Parameter(1e-6 * torch.randn(in_features))
            self.project_query = nn.Linear(in_features, in_features)
            self.keys = nn.Linear(in_features, in_features)
            self.values = nn.Linear(in_features, in_features)
            self.out = nn.Linear(in_features, in_features)

    def forward(self, bags: RaggedBags) -> Pooled:
        """Pool bags of rows of shape (n, in_features); an empty bag becomes the output layer's bias."""
        _check_bags(bags, self.in_features)
        heads = self.n_heads, self.in_features // self.n_heads
        query = self.project_query(self.query).view(heads)
        logits = (self.keys(bags.values).unflatten(1, heads) * query).sum(2) / math.sqrt(heads[1])
        pooled = attend(bags, logits, self.values(bags.values).unflatten(1, heads))
        return Pooled(self.out(pooled), logits)


def attend(
    bags: RaggedBags, logits: Float[Tensor, "n heads"], rows: Float[Tensor, "n heads part"] | None = None
) -> Float[Tensor, "bags features"]:
    """Average the rows of each bag by the softmax of attention logits: what any attention pooling ends in.

    Parameters
    ----------
    bags : RaggedBags
        Rows of shape (n, features).
    logits : float tensor, shape (n, heads)
        Before the softmax over the rows of a bag; -inf leaves a row out.
    rows : float tensor, shape (n, heads, part), optional
        What each head averages; by default every head averages the rows of the bags.

    Returns
    -------
    tensor, shape (bags, heads * part)
        One head's average after the other's; zeros for an empty bag.

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0]])])
    >>> attend(bags, torch.zeros(3, 2)).tolist()
    [[2.0, 2.0], [5.0, 5.0]]
    """
    if bags.n_bags == 1:  # one large bag, the usual case for slides: a product of matrices, without scattering
        weights = logits.softmax(0)
        pooled = weights.T @ bags.values if rows is None else torch.einsum("nh,nhp->hp", weights, rows)
        return pooled.reshape(1, -1)
    if rows is None:
        rows = bags.values[:, None].expand(-1, logits.shape[1], -1)
    weights = segment_softmax(logits, bags.ids, bags.n_bags)
    return segment_sum(weights[:, :, None] * rows, bags.ids, bags.n_bags).flatten(1)


def _check_bags(bags: RaggedBags, in_features: int | None) -> None:
    if not isinstance(bags, RaggedBags):
        raise TypeError(f"bags must be RaggedBags; got {type(bags).__name__}")
    values = bags.values
    if not values.is_floating_point():
        raise TypeError(f"bags must hold rows of floating-point numbers; got {values.dtype}")
    if values.ndim != 2 or (in_features is not None and values.shape[1] != in_features):
        wanted = "(n, features)" if in_features is None else f"(n, {in_features})"
        raise ValueError(f"bags must hold rows of shape {wanted}; got {tuple(values.shape)}")
    if not all_finite(values):
        raise ValueError("bags must be finite; they hold NaN or infinity")
