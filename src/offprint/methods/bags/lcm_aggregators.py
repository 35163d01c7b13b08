"""Aggregators with the call of the learned monoid: recurrent ones, sums, means, maxima, attention, and PNA."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from offprint.methods.bags.lcm_sets import SetAggregation, in_random_order
from offprint.methods.bags.pooling import AttentionPooling
from offprint.methods.bags.ragged import RaggedBags
from offprint.models.batches import check_sizes
from offprint.models.randomness import as_generator, seeded

Reduction = Literal["sum", "mean", "max", "attention"]


class ReduceAggregation(SetAggregation):
    """Encode each element and take the sum, the mean, the largest or an attention-weighted mean: DeepSets.

    Parameters
    ----------
    in_channels, out_channels : int
        Length of an element and of the result, at least 1.
    reduce : {"sum", "mean", "max", "attention"}
        How encoded elements become one row; an empty set becomes zeros.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1 or reduce is unknown.

    Notes
    -----
    O(n · in_channels · out_channels), at constant depth.

    Examples
    --------
    >>> ReduceAggregation(3, 8, "mean", generator=0)(torch.ones(5, 3), torch.tensor([0, 0, 2, 2, 2])).shape
    torch.Size([3, 8])

    References
    ----------
    Zaheer et al., *Deep Sets*, arXiv:1703.06114, section 3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        reduce: Reduction = "sum",
        *,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels)
        if reduce not in get_args(Reduction):
            raise ValueError(f"reduce must be one of {', '.join(get_args(Reduction))}; got {reduce!r}")
        self.reduction = reduce
        source = None if generator is None else as_generator(generator)
        with seeded(source):
            self.lin = nn.Linear(in_channels, out_channels)
        self.attention = (
            AttentionPooling(out_channels, out_channels, generator=source) if reduce == "attention" else None
        )

    def reduce(self, sets: RaggedBags) -> Float[Tensor, "sets out_channels"]:
        """Encode and reduce each set."""
        sets = RaggedBags(self.lin(sets.values).relu(), sets.offsets)
        if self.attention is not None:
            vectors: Tensor = self.attention(sets).vectors
            return vectors
        return _moments(sets, (self.reduction,))[0]


class PNAAggregation(SetAggregation):
    """Concatenate mean, largest, smallest and standard deviation of the encoded elements, each scaled by set size.

    Principal neighbourhood aggregation: every statistic is there thrice, plain, times s and divided by s, where
    s = log(size + 1) / log(mean size + 1), the mean being that of training sets. A linear layer brings all to one row.

    Parameters
    ----------
    in_channels, out_channels : int
        Length of an element and of the result, at least 1.
    mean_size : float
        The mean size of the training sets, positive.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is not positive.

    Notes
    -----
    O(n · in_channels · out_channels + sets · 12 · out_channels²).

    Examples
    --------
    >>> PNAAggregation(3, 8, 2.5, generator=0)(torch.ones(5, 3), torch.tensor([0, 0, 2, 2, 2])).shape
    torch.Size([3, 8])

    References
    ----------
    Corso, Cavalleri, Beaini, Liò and Veličković, *Principal Neighbourhood Aggregation for Graph Nets*,
    arXiv:2004.05718, section 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mean_size: float,
        *,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels)
        if not 0 < mean_size < float("inf"):
            raise ValueError(f"mean_size must be positive and finite; got {mean_size}")
        self.scale = float(torch.tensor(mean_size + 1.0).log())
        with seeded(generator):
            self.lin = nn.Linear(in_channels, out_channels)
            self.out = nn.Linear(12 * out_channels, out_channels)

    def reduce(self, sets: RaggedBags) -> Float[Tensor, "sets out_channels"]:
        """Encode each set, take its statistics, scale and mix them."""
        sets = RaggedBags(self.lin(sets.values).relu(), sets.offsets)
        statistics = torch.cat(_moments(sets, ("mean", "max", "min", "std")), 1)
        # An empty set has no neighbours to amplify: its scale is that of one element.
        scale = (sets.sizes.clamp(min=1).to(statistics)[:, None] + 1).log() / self.scale
        mixed: Tensor = self.out(torch.cat([statistics, statistics * scale, statistics / scale], 1))
        return mixed


class GRUAggregation(SetAggregation):
    """Read each set with a recurrent network, element by element in a random order, and return its last state.

    Expressive, but as deep as the largest set is long.

    Parameters
    ----------
    in_channels, out_channels : int
        Length of an element and of the result, at least 1.
    order : {"random", "given"}
        "random" takes the elements of each set in a new order every time, drawn from torch's global random state,
        in training mode; "given" always as they come, for sets that have an order.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1 or order is unknown.

    Notes
    -----
    As many steps one after the other as the largest set has elements; O(n · out_channels²) in all. Sets that have ended
    leave the batch, so nothing is padded.

    Examples
    --------
    >>> GRUAggregation(3, 8, generator=0).eval()(torch.ones(5, 3), torch.tensor([0, 0, 2, 2, 2])).shape
    torch.Size([3, 8])

    References
    ----------
    Cohen-Karlik, Ben David and Globerson, *Regularizing Towards Permutation Invariance in Recurrent Models*,
    arXiv:2010.13055, section 3, for the regulariser.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        order: Literal["random", "given"] = "random",
        *,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels)
        if order not in ("random", "given"):
            raise ValueError(f"order must be 'random' or 'given'; got {order!r}")
        self.order = order
        with seeded(generator):
            self.lin = nn.Linear(in_channels, out_channels)
            self.gru = nn.GRU(out_channels, out_channels)

    def reduce(self, sets: RaggedBags) -> Float[Tensor, "sets out_channels"]:
        """Read each set; an empty one becomes zeros."""
        if self.training and self.order == "random":
            sets = in_random_order(sets)
        present = sets.sizes.nonzero()[:, 0]
        if len(present) == 0:
            return sets.values.new_zeros(len(sets), self.out_channels)
        states = self._read(sets.take(present))[1]
        return states.new_zeros(len(sets), self.out_channels).index_copy(0, present, states)

    def regularisation(
        self,
        x: Float[Tensor, "n in_channels"],
        index: Int[Tensor, " n"] | None = None,
        n_triples: int = 256,
        *,
        generator: torch.Generator | int | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Return how much the order of two elements matters after a random prefix.

        Parameters
        ----------
        x : tensor, shape (n, in_channels)
            Elements, at least one.
        index : int64 tensor, shape (n,), optional
            The set of each; one set by default.
        n_triples : int
            How many states and pairs of elements are drawn, at least 1.
        generator : torch.Generator or int, optional
            Source (or seed) of the draw; by default torch's global state.

        Returns
        -------
        dict
            ``swap``, the mean of ‖f(f(s, a), b) − f(f(s, b), a)‖² over states s that random prefixes lead to.
        """
        check_sizes(n_triples=n_triples)
        sets = self.grouped(x, index)
        if len(sets.values) == 0:
            raise ValueError("x must hold at least one element to draw states from")
        with seeded(generator, x.device):
            with torch.no_grad():
                reached = self._read(in_random_order(sets).take(sets.sizes.nonzero()[:, 0]))[0]
            state = torch.cat([reached, torch.zeros_like(reached[:1])])[torch.randint(len(reached) + 1, (n_triples,))]
            a, b = self.lin(x).relu()[torch.randint(len(x), (2, n_triples))]
        one, _ = self.gru(torch.stack([a, b]), state[None])
        other, _ = self.gru(torch.stack([b, a]), state[None])
        return {"swap": (one[-1] - other[-1]).square().sum(1).mean()}

    def _read(self, sets: RaggedBags) -> tuple[Tensor, Tensor]:
        """Return the state after every element, in no particular order, and the last one of each set, none empty."""
        rows = self.lin(sets.values).relu()
        if bool((sets.sizes == sets.sizes[0]).all()):
            # Torch's gradients through packed sequences cost the square of their length, so these are kept for others.
            reached, last = self.gru(rows.unflatten(0, (len(sets), -1)).transpose(0, 1))
            return reached.flatten(0, 1), last[0]
        # Packed by hand: all first elements, then all second ones, ..., larger sets first. Hundreds of neighbourhoods
        # in a list of tensors each would cost more than the network does.
        rank = sets.sizes.argsort(descending=True, stable=True).argsort()
        ids = sets.ids
        within = torch.arange(len(ids), device=ids.device) - sets.offsets[ids]
        time_major = (within * len(sets) + rank[ids]).argsort()
        reached, last = self.gru(nn.utils.rnn.PackedSequence(rows[time_major], within.bincount().cpu()))
        return reached.data, last[0, rank]


def _moments(sets: RaggedBags, names: tuple[str, ...]) -> list[Tensor]:
    """Return statistics of each set's rows; those of an empty set are zeros."""
    values, ids = sets.values, sets.ids
    zeros = values.new_zeros(len(sets), values.shape[1])
    counts = sets.sizes.clamp(min=1).to(values)[:, None]
    places = ids[:, None].expand_as(values)

    def mean(rows: Tensor) -> Tensor:
        return zeros.index_add(0, ids, rows) / counts

    def extreme(which: str) -> Tensor:
        return zeros.scatter_reduce(0, places, values, which, include_self=False)

    def deviation() -> Tensor:
        variance = mean((values - mean(values)[ids]).square())
        # Zero where all elements agree, so that the gradient of the square root stays finite.
        return variance.clamp(min=1e-5).sqrt().masked_fill(variance <= 1e-5, 0.0)

    known = {
        "sum": lambda: zeros.index_add(0, ids, values),
        "mean": lambda: mean(values),
        "max": lambda: extreme("amax"),
        "min": lambda: extreme("amin"),
        "std": deviation,
    }
    return [known[name]() for name in names]
