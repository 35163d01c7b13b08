"""Models with one pooling: gated attention, a query with many heads, mean and maximum."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from offprint.methods.bags.aem.output import MILOutput
from offprint.methods.bags.pooling import AttentionPooling, MaxPooling, MeanPooling, QueryPooling
from offprint.methods.bags.ragged import RaggedBags, all_finite
from offprint.models.batches import check_count
from offprint.models.randomness import seeded

Generator = torch.Generator | int | None
REDUCED = {384: 128}
"""Width that the paper reduces features to, where it is not half of theirs."""


class MILModel(nn.Module):
    """A network from bags to class logits, which takes one bag, padded bags with a mask, or ragged ones.

    Subclasses define ``output(bags, mask)``: the bags are ragged and checked, and ``mask`` says where the rows of the
    attention logits go.

    Parameters
    ----------
    in_features : int
        Length of an instance.
    n_classes : int
        Classes, at least 2.
    """

    def __init__(self, in_features: int, n_classes: int) -> None:
        super().__init__()
        check_count("in_features", in_features)
        check_count("n_classes", n_classes)
        if n_classes < 2:
            raise ValueError(f"n_classes must be at least 2; got {n_classes}")
        self.in_features, self.n_classes = in_features, n_classes

    def forward(
        self, bags: RaggedBags | Float[Tensor, "*bags n features"], mask: Bool[Tensor, "bags n"] | None = None
    ) -> MILOutput:
        """Return class logits, and attention logits where there is attention.

        Parameters
        ----------
        bags : tensor of shape (n, in_features) or (bags, n, in_features), or RaggedBags
            One bag, padded bags, or bags of any sizes without padding; finite, none empty.
        mask : bool tensor, shape (bags, n), optional
            True at the instances of padded bags; by default everywhere. What lies elsewhere is never looked at.

        Raises
        ------
        ValueError
            If instances are not ``in_features`` long or not finite, a bag is empty, or the mask has another shape.
        """
        ragged, places = _ragged(bags, mask, self.in_features)
        return self.output(ragged, places)

    def output(self, bags: RaggedBags, mask: Bool[Tensor, "bags n"]) -> MILOutput:
        """Return what ``forward`` does, for ragged bags that have been checked."""
        raise NotImplementedError


class GatedABMIL(MILModel):
    """Attention pooling (ABMIL): average reduced features by attention from a small, by default gated, network.

    Parameters
    ----------
    in_features : int
        Length of an instance.
    n_classes : int
        Classes, at least 2.
    reduced_features : int, optional
        Width that instances are first reduced to; by default half of ``in_features``, a third of 384, as in the paper.
    attention_features : int
        Width of the network that scores instances.
    gated : bool
        Whether half of that network gates the other.
    dropout : float
        Probability of dropping a unit of that network, in [0, 1).
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range, or dropout outside [0, 1); from ``forward``, if bags are of another width, empty or
        not finite.

    Notes
    -----
    O(n · in_features · reduced_features), which the reduction dominates.

    Examples
    --------
    >>> output = GatedABMIL(384, n_classes=3, generator=0)(torch.zeros(50, 384))
    >>> output.logits.shape, output.attention_logits.shape
    (torch.Size([1, 3]), torch.Size([1, 1, 50]))

    References
    ----------
    Ilse, Tomczak and Welling, *Attention-based Deep Multiple Instance Learning*, arXiv:1802.04712, equations 7 to 9.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int = 2,
        reduced_features: int | None = None,
        attention_features: int = 128,
        *,
        gated: bool = True,
        dropout: float = 0.0,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features, n_classes)
        with seeded(generator):
            self.reduce = Reduction(in_features, reduced_features)
            self.pooling = AttentionPooling(self.reduce.width, attention_features, gated=gated, dropout=dropout)
            self.classifier = nn.Linear(self.reduce.width, n_classes)

    def output(self, bags: RaggedBags, mask: Bool[Tensor, "bags n"]) -> MILOutput:
        """Return class logits and one row of attention logits."""
        pooled = self.pooling(self.reduce(bags))
        assert pooled.attention_logits is not None  # this pooling has attention
        return MILOutput(self.classifier(pooled.vectors), side_by_side(pooled.attention_logits, mask))


class MultiHeadPoolMIL(MILModel):
    """Pool reduced features by one learned query with several heads of scaled dot-product attention.

    Parameters
    ----------
    in_features : int
        Length of an instance.
    n_classes : int
        Classes, at least 2.
    reduced_features : int, optional
        Width that instances are first reduced to, a multiple of ``n_heads``; by default half of ``in_features``, a
        third of 384.
    n_heads : int
        Rows of attention.
    dropout : float
        Probability of dropping a unit of the pooled vector, in [0, 1).
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range, heads do not divide the width, or dropout is outside [0, 1); from ``forward``, if
        bags are of another width, empty or not finite.

    Notes
    -----
    The pooled vector is normalised (LayerNorm) before the classifier. O(n · in_features · reduced_features).

    Examples
    --------
    >>> output = MultiHeadPoolMIL(64, generator=0).eval()(torch.zeros(50, 64))
    >>> output.logits.shape, output.attention_logits.shape
    (torch.Size([1, 2]), torch.Size([1, 8, 50]))

    References
    ----------
    Vaswani et al., *Attention Is All You Need*, arXiv:1706.03762, section 3.2. Zhang et al., arXiv:2406.15303,
    experiments on attention mechanisms.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int = 2,
        reduced_features: int | None = None,
        n_heads: int = 8,
        *,
        dropout: float = 0.1,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features, n_classes)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}")
        with seeded(generator):
            self.reduce = Reduction(in_features, reduced_features)
            self.pooling = QueryPooling(self.reduce.width, n_heads)
            self.norm = nn.LayerNorm(self.reduce.width)
            self.classifier = nn.Linear(self.reduce.width, n_classes)
        self.dropout = nn.Dropout(dropout)

    def output(self, bags: RaggedBags, mask: Bool[Tensor, "bags n"]) -> MILOutput:
        """Return class logits and a row of attention logits per head."""
        pooled = self.pooling(self.reduce(bags))
        assert pooled.attention_logits is not None  # this pooling has attention
        vectors = self.norm(self.dropout(pooled.vectors))
        return MILOutput(self.classifier(vectors), side_by_side(pooled.attention_logits, mask))


class MeanMIL(MILModel):
    """Average reduced features over each bag: attention that is uniform and cannot learn.

    Parameters
    ----------
    in_features : int
        Length of an instance.
    n_classes : int
        Classes, at least 2.
    reduced_features : int, optional
        Width that instances are first reduced to; by default half of ``in_features``, a third of 384.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range; from ``forward``, if bags are of another width, empty or not finite.

    Notes
    -----
    O(n · in_features · reduced_features).

    Examples
    --------
    >>> MeanMIL(64, generator=0)(torch.zeros(3, 50, 64)).logits.shape
    torch.Size([3, 2])

    References
    ----------
    Wang, Yan, Tang, Bai and Liu, *Revisiting Multiple Instance Neural Networks*, arXiv:1610.02501, section 3.2.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int = 2,
        reduced_features: int | None = None,
        *,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features, n_classes)
        with seeded(generator):
            self.reduce = Reduction(in_features, reduced_features)
            self.classifier = nn.Linear(self.reduce.width, n_classes)
        self.pooling: nn.Module = MeanPooling()

    def output(self, bags: RaggedBags, mask: Bool[Tensor, "bags n"]) -> MILOutput:
        """Return class logits."""
        return MILOutput(self.classifier(self.pooling(self.reduce(bags)).vectors))


class MaxMIL(MeanMIL):
    """Take the largest of each reduced feature over each bag.

    Parameters
    ----------
    in_features : int
        Length of an instance.
    n_classes : int
        Classes, at least 2.
    reduced_features : int, optional
        Width that instances are first reduced to; by default half of ``in_features``, a third of 384.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range; from ``forward``, if bags are of another width, empty or not finite.

    Notes
    -----
    O(n · in_features · reduced_features).

    Examples
    --------
    >>> MaxMIL(64, generator=0)(torch.zeros(3, 50, 64)).logits.shape
    torch.Size([3, 2])

    References
    ----------
    Wang, Yan, Tang, Bai and Liu, *Revisiting Multiple Instance Neural Networks*, arXiv:1610.02501, section 3.2.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int = 2,
        reduced_features: int | None = None,
        *,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features, n_classes, reduced_features, generator=generator)
        self.pooling = MaxPooling()


class Reduction(nn.Module):
    """A linear map without bias and a ReLU, over the rows of ragged bags."""

    def __init__(self, in_features: int, width: int | None) -> None:
        super().__init__()
        check_count("reduced_features", width)
        self.width = REDUCED.get(in_features, max(in_features // 2, 1)) if width is None else width
        self.linear = nn.Linear(in_features, self.width, bias=False)

    def forward(self, bags: RaggedBags) -> RaggedBags:
        """Reduce rows of shape (n, in_features)."""
        return bags.with_values(self.linear(bags.values).relu())


def side_by_side(logits: Float[Tensor, "n rows"], mask: Bool[Tensor, "bags most"]) -> Float[Tensor, "bags rows most"]:
    """Put the attention logits of ragged instances where the mask has instances, and -inf elsewhere."""
    if len(logits) == mask.numel():
        return logits.view(*mask.shape, -1).mT
    padded = logits.new_full((*mask.shape, logits.shape[1]), -torch.inf)
    return padded.index_put((mask,), logits).mT


def _ragged(bags: RaggedBags | Tensor, mask: Tensor | None, in_features: int) -> tuple[RaggedBags, Tensor]:
    """Return ragged bags and where their instances lie in padded ones; refuse what are no bags."""
    if isinstance(bags, RaggedBags):
        if mask is not None:
            raise ValueError("mask is of padded bags; got one with RaggedBags")
        ragged, places = bags, bags.mask
    elif isinstance(bags, Tensor) and bags.ndim in (2, 3):
        if bags.ndim == 2 and mask is not None and mask.ndim == 1:
            mask = mask[None]
        padded = bags[None] if bags.ndim == 2 else bags
        ragged = RaggedBags.from_padded(padded, mask)
        places = torch.ones(padded.shape[:2], dtype=torch.bool, device=padded.device) if mask is None else mask
    else:
        given = tuple(bags.shape) if isinstance(bags, Tensor) else type(bags).__name__
        wanted = "RaggedBags or a tensor of shape (n, features) or (bags, n, features)"
        raise ValueError(f"bags must be {wanted}; got {given}")
    values = ragged.values
    if values.ndim != 2 or values.shape[1] != in_features or not values.is_floating_point():
        raise ValueError(
            f"bags must hold instances of {in_features} floating-point features; got {values.dtype} of shape "
            f"{tuple(values.shape)}"
        )
    if ragged.n_bags == 0 or bool((ragged.sizes == 0).any()):
        empty = "no bag" if ragged.n_bags == 0 else f"bag {int((ragged.sizes == 0).int().argmax())} is empty"
        raise ValueError(f"bags must hold at least one instance each; {empty}")
    refuse_not_finite(ragged)
    return ragged, places


def refuse_not_finite(bags: RaggedBags, name: str = "bags") -> None:
    """Refuse NaN and infinity, telling the first bag that holds them."""
    if not all_finite(bags.values):
        row = int((~bags.values.isfinite()).any(1).int().argmax())
        bag = int(bags.ids[row])
        raise ValueError(
            f"{name} must be finite; bag {bag} holds NaN or infinity, in instance {row - int(bags.offsets[bag])}"
        )
