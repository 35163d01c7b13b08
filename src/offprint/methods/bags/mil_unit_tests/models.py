"""The deep models under test: maximum, mean, attention, transformer, graph and Hopfield pooling."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from offprint.methods.bags.pooling import AttentionPooling, QueryPooling
from offprint.methods.bags.ragged import (
    RaggedBags,
    all_finite,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)
from offprint.models.batches import check_sizes
from offprint.models.mlp import MLP
from offprint.models.randomness import seeded
from offprint.models.transformer import TransformerEncoder

Generator = torch.Generator | int | None


class BagModel(nn.Module):
    """A network from bags to one logit each, which takes ragged bags or padded ones with a mask.

    Subclasses define ``logits(bags)`` for :class:`.RaggedBags`, and set ``row_features`` to ``None`` where rows may be
    of any length. Nothing they do sees padding.
    """

    def __init__(self, in_features: int) -> None:
        super().__init__()
        check_sizes(in_features=in_features)
        self.row_features: int | None = in_features

    def forward(
        self, bags: RaggedBags | Float[Tensor, "bags most features"], mask: Bool[Tensor, "bags most"] | None = None
    ) -> Float[Tensor, " bags"]:
        """Return one logit per bag.

        Parameters
        ----------
        bags : RaggedBags, or tensor of shape (bags, most, in_features)
            No bag empty.
        mask : bool tensor, shape (bags, most), optional
            True where a padded bag has a row; by default everywhere.

        Returns
        -------
        tensor, shape (bags,)

        Raises
        ------
        ValueError
            If the rows are not ``in_features`` long or not finite, the mask has another shape, or a bag is empty.
        """
        if isinstance(bags, Tensor):
            if bags.ndim != 3:
                raise ValueError(
                    f"bags must be RaggedBags or a tensor of shape (bags, most, features); got {tuple(bags.shape)}"
                )
            bags = RaggedBags.from_padded(bags, mask)
        shape = tuple(bags.values.shape)
        if len(shape) != 2 or self.row_features not in (None, shape[1]):
            raise ValueError(f"bags must hold rows of shape (n, {self.row_features or 'features'}); got {shape}")
        if bool((bags.sizes == 0).any()):
            raise ValueError("bags must hold at least one row each; got an empty bag")
        if not all_finite(bags.values):
            raise ValueError("bags must be finite; they hold NaN or infinity")
        return self.logits(bags)

    def logits(self, bags: RaggedBags) -> Float[Tensor, " bags"]:
        """Return one logit per bag."""
        raise NotImplementedError


class MINet(BagModel):
    """Embed every row, take the largest of each coordinate over the bag, then a linear layer.

    The pooling is a maximum, yet the linear layer may weigh coordinates negatively: a row can lower the bag's logit.

    Parameters
    ----------
    in_features : int
        Length of a row.
    width : int
        Of each of the three layers.
    dropout : float
        Probability of dropping a unit, in [0, 1).
    pooling : {"max", "mean"}
        How rows become one vector; "mean" is the usual baseline.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, dropout outside [0, 1) or pooling unknown.

    Notes
    -----
    O(n · width²).

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.ones(3, 16), torch.zeros(1, 16)])
    >>> MINet(16, generator=0).eval()(bags).shape
    torch.Size([2])

    References
    ----------
    Raff and Holt, arXiv:2310.17867, experiments. Wang, Yan, Tang, Bai and Liu, *Revisiting Multiple Instance Neural
    Networks*, arXiv:1610.02501, section 3.2.
    """

    def __init__(
        self,
        in_features: int,
        width: int = 128,
        *,
        dropout: float = 0.5,
        pooling: Literal["max", "mean"] = "max",
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features)
        if pooling not in ("max", "mean"):
            raise ValueError(f"pooling must be 'max' or 'mean'; got {pooling!r}")
        self.pooling = pooling
        self.network = _embedding(in_features, width, dropout, generator)

    def logits(self, bags: RaggedBags) -> Float[Tensor, " bags"]:
        """Return one logit per bag."""
        reduce = segment_max if self.pooling == "max" else segment_mean
        pooled = reduce(self.network.features(bags.values), bags.ids, bags.n_bags)
        return _flat(self.network.head(pooled))


class AttentionMIL(BagModel):
    """Embed every row and average over the bag with learned attention.

    Parameters
    ----------
    in_features : int
        Length of a row.
    width : int
        Of each of the three layers, and of the network that scores rows.
    attention : {"context", "gated"}
        "context" scores a row beside the mean row of its bag, and the logit is the sum of the pooled coordinates, as in
        the paper's experiments; "gated" scores a row alone, and a linear layer follows.
    dropout : float
        Probability of dropping a unit of the embedding, in [0, 1).
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, dropout outside [0, 1) or attention unknown.

    Notes
    -----
    O(n · width²).

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.ones(3, 16), torch.zeros(1, 16)])
    >>> AttentionMIL(16, generator=0).eval()(bags).shape
    torch.Size([2])

    References
    ----------
    Raff and Holt, arXiv:2310.17867, experiments. Ilse, Tomczak and Welling, *Attention-based Deep Multiple Instance
    Learning*, arXiv:1802.04712, equations 7 to 9.
    """

    def __init__(
        self,
        in_features: int,
        width: int = 128,
        *,
        attention: Literal["context", "gated"] = "context",
        dropout: float = 0.5,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features)
        if attention not in ("context", "gated"):
            raise ValueError(f"attention must be 'context' or 'gated'; got {attention!r}")
        self.in_context = attention == "context"
        with seeded(generator):
            self.network = _embedding(in_features, width, dropout)
            seen = 2 * width if self.in_context else width
            self.attention = AttentionPooling(seen, width, gated=not self.in_context)

    def logits(self, bags: RaggedBags) -> Float[Tensor, " bags"]:
        """Return one logit per bag."""
        rows = self.network.features(bags.values)
        seen = rows
        if self.in_context:
            means = segment_mean(rows, bags.ids, bags.n_bags)
            seen = torch.cat([rows, means[bags.ids]], dim=1)
        weights = segment_softmax(self.attention.logits(seen), bags.ids, bags.n_bags)
        pooled = segment_sum(weights * rows, bags.ids, bags.n_bags)
        return pooled.sum(1) if self.in_context else _flat(self.network.head(pooled))


class TransformerMIL(BagModel):
    """Let the rows of a bag attend to each other, take the largest of each coordinate, then a linear layer.

    Parameters
    ----------
    in_features : int
        Length of a row.
    width : int
        Of the representation and of the feed-forward networks, a multiple of ``n_heads``.
    n_layers, n_heads : int
        At least 1.
    dropout : float
        Probability of dropping a unit, in [0, 1).
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range, or dropout outside [0, 1).

    Notes
    -----
    Layers normalise after each part. O(T² · width + T · width²) per bag and layer, T being the longest of the
    batch.

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.ones(3, 16), torch.zeros(1, 16)])
    >>> TransformerMIL(16, generator=0).eval()(bags).shape
    torch.Size([2])

    References
    ----------
    Raff and Holt, arXiv:2310.17867, experiments. Vaswani et al., *Attention Is All You Need*, arXiv:1706.03762.
    """

    def __init__(
        self,
        in_features: int,
        width: int = 128,
        *,
        n_layers: int = 3,
        n_heads: int = 8,
        dropout: float = 0.1,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features)
        with seeded(generator):
            self.encoder = TransformerEncoder(
                width,
                n_layers,
                n_heads,
                in_features=in_features,
                feedforward=width,
                norm_first=False,
                dropout=dropout,
                activation=nn.ReLU,
            )
            self.head = nn.Linear(width, 1)

    def logits(self, bags: RaggedBags) -> Float[Tensor, " bags"]:
        """Return one logit per bag."""
        rows, mask = bags.padded()
        hidden = self.encoder(rows, mask)
        return _flat(self.head(hidden.masked_fill(~mask[:, :, None], -torch.inf).amax(1)))


class GraphMIL(BagModel):
    """Link each row to those nearest to it in its bag, convolve over that graph, average, then a linear layer.

    Parameters
    ----------
    in_features : int
        Length of a row.
    width : int
        Of each of the three convolutions.
    n_neighbours : int
        Links from each row, at least 1; fewer in a bag that has fewer other rows.
    symmetric : bool
        Whether links count both ways.
    dropout : float
        Probability of dropping a unit of the bag's vector, in [0, 1).
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, or dropout outside [0, 1).

    Notes
    -----
    Neighbours are by Euclidean distance; of equally near rows any may be taken. O(T²) distances per bag, T being the
    longest bag of the batch, and O(n · width²) for the convolutions.

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.ones(3, 16), torch.zeros(1, 16)])
    >>> GraphMIL(16, generator=0).eval()(bags).shape
    torch.Size([2])

    References
    ----------
    Raff and Holt, arXiv:2310.17867, experiments. Kipf and Welling, *Semi-Supervised Classification with Graph
    Convolutional Networks*, arXiv:1609.02907, equation 2.
    """

    def __init__(
        self,
        in_features: int,
        width: int = 128,
        *,
        n_neighbours: int = 2,
        symmetric: bool = True,
        dropout: float = 0.1,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features)
        if min(width, n_neighbours) < 1:
            raise ValueError(f"width and n_neighbours must be at least 1; got {width} and {n_neighbours}")
        self.n_neighbours, self.symmetric = n_neighbours, symmetric
        with seeded(generator):
            self.weights = nn.ModuleList(nn.Linear(size, width, bias=False) for size in (in_features, width, width))
            self.biases = nn.ParameterList(torch.zeros(width) for _ in range(3))
            self.dropout = nn.Dropout(_probability(dropout))
            self.head = nn.Linear(width, 1)

    def logits(self, bags: RaggedBags) -> Float[Tensor, " bags"]:
        """Return one logit per bag."""
        source, target = nearest_links(bags, self.n_neighbours, symmetric=self.symmetric)
        scale = torch.bincount(target, minlength=len(bags.values)).to(bags.values.dtype).rsqrt()
        weight = (scale[source] * scale[target])[:, None]
        hidden = bags.values
        for layer, (linear, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            messages = linear(hidden)[source] * weight
            hidden = segment_sum(messages, target, len(hidden)) + bias
            hidden = hidden.relu() if layer < 2 else hidden
        return _flat(self.head(self.dropout(segment_mean(hidden, bags.ids, bags.n_bags))))


class HopfieldMIL(BagModel):
    """Embed every row and retrieve one vector per bag by a learned query to a modern Hopfield network.

    Parameters
    ----------
    in_features : int
        Length of a row.
    width : int
        Of the embedding, a multiple of ``n_heads``.
    n_heads : int
        At least 1.
    association_steps : int
        How often each row is first replaced by what the rows of its bag recall for it, 0 to 3.
    scaling : float
        Inverse temperature of that recall, positive.
    dropout : float
        Probability of dropping a unit of the embedding and of the retrieved vector, in [0, 1).
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    Retrieval with one state pattern is attention with one query. O(n · width²), and with association O(T² · width) per
    bag and step, T being the longest bag of the batch.

    Examples
    --------
    >>> bags = RaggedBags.from_list([torch.ones(3, 16), torch.zeros(1, 16)])
    >>> HopfieldMIL(16, generator=0).eval()(bags).shape
    torch.Size([2])

    References
    ----------
    Raff and Holt, arXiv:2310.17867, experiments. Ramsauer et al., *Hopfield Networks is All You Need*,
    arXiv:2008.02217, equations 3 and 10.
    """

    def __init__(
        self,
        in_features: int,
        width: int = 128,
        *,
        n_heads: int = 8,
        association_steps: int = 0,
        scaling: float = 0.25,
        dropout: float = 0.5,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features)
        if association_steps not in (0, 1, 2, 3):
            raise ValueError(f"association_steps must be 0, 1, 2 or 3; got {association_steps!r}")
        if not 0 < scaling < float("inf"):
            raise ValueError(f"scaling must be positive and finite; got {scaling}")
        self.association_steps, self.scaling = association_steps, scaling
        with seeded(generator):
            self.embedding = nn.Sequential(
                nn.Linear(in_features, width), nn.LeakyReLU(0.2), nn.Dropout(_probability(dropout))
            )
            self.pooling = QueryPooling(width, n_heads)
            self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, 1))

    def logits(self, bags: RaggedBags) -> Float[Tensor, " bags"]:
        """Return one logit per bag."""
        rows = RaggedBags(self.embedding(bags.values), bags.offsets)
        if self.association_steps:
            stored, mask = rows.padded()
            state = stored
            for _ in range(self.association_steps):
                scores = self.scaling * state @ stored.mT
                state = scores.masked_fill(~mask[:, None, :], -torch.inf).softmax(2) @ stored
            rows = RaggedBags(state[mask], bags.offsets)
        return _flat(self.head(self.pooling(rows).vectors))


def nearest_links(
    bags: RaggedBags, n_neighbours: int, *, symmetric: bool = True
) -> tuple[Int[Tensor, " links"], Int[Tensor, " links"]]:
    """Link each row of a bag to itself and to the rows of the bag that are nearest to it.

    Parameters
    ----------
    bags : RaggedBags
        Rows of shape (n, features).
    n_neighbours : int
        Links from each row beside that to itself, where the bag has as many other rows.
    symmetric : bool
        Add each link's reverse.

    Returns
    -------
    source, target : int64 tensors, shape (links,)
        Numbers of rows; without ``symmetric`` a row receives from its own neighbours. No link comes twice.
    """
    rows, mask = bags.padded()
    length = rows.shape[1]
    # Differences rather than inner products: they stay exact for rows that are far from the origin.
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").detach()
    itself = torch.eye(length, dtype=torch.bool, device=rows.device)
    distances = distances.masked_fill(~mask[:, None, :] | itself, torch.inf)
    found = distances.topk(min(n_neighbours, length), dim=2, largest=False)
    bag, target, place = (found.values.isfinite() & mask[:, :, None]).nonzero(as_tuple=True)
    source = found.indices[bag, target, place]
    start = bags.offsets[bag]
    source, target = start + source, start + target
    own = torch.arange(len(bags.values), device=rows.device)
    if symmetric:
        source, target = torch.cat([source, target]), torch.cat([target, source])
        source, target = torch.unique(torch.stack([source, target]), dim=1)
    return torch.cat([source, own]), torch.cat([target, own])


def _embedding(in_features: int, width: int, dropout: float, generator: Generator = None) -> MLP:
    return MLP(
        in_features,
        [width] * 3,
        1,
        activation=lambda: nn.LeakyReLU(0.2),
        dropout=dropout,
        generator=generator,
    )


def _probability(dropout: float) -> float:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1); got {dropout}")
    return dropout


def _flat(logits: Tensor) -> Tensor:
    return logits.squeeze(1)
