"""Aggregators in graph networks: a message-passing layer of its own, and the adapter to PyTorch Geometric."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from offprint.methods.bags.lcm import LCMAggregation
from offprint.methods.bags.lcm_sets import SetAggregation
from offprint.models.batches import check_sizes
from offprint.models.randomness import as_generator, seeded


class LCMConv(nn.Module):
    """A message-passing layer whose neighbours are aggregated by a learned monoid, or any other aggregator.

    h′_v = U(h_v, AGG over u → v of M(h_u, h_v, e_uv)), with a linear M and a linear U after ReLU. Needs torch alone.

    Parameters
    ----------
    in_channels, out_channels : int
        Length of a node's features before and after, at least 1.
    aggr : SetAggregation, optional
        From messages of ``out_channels`` to rows of ``out_channels``; by default an :class:`.LCMAggregation` that takes
        messages as they are, after ReLU.
    edge_channels : int
        Length of an edge's features, 0 for none.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range, or the aggregator takes or gives rows of another length.

    Notes
    -----
    The cost of two linear layers over edges and nodes, and of the aggregator over edges: O(edges · out_channels²), at
    depth ⌈log₂ of the largest in-degree⌉.

    Examples
    --------
    >>> layer = LCMConv(2, 8, generator=0).eval()
    >>> edge_index = torch.tensor([[0, 1, 2, 0], [1, 2, 1, 2]])  # node 0 has no in-neighbour
    >>> layer(torch.ones(3, 2), edge_index).shape
    torch.Size([3, 8])

    References
    ----------
    Euan Ong and Petar Veličković, *Learnable Commutative Monoids for Graph Neural Networks*, arXiv:2212.08541.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        aggr: SetAggregation | None = None,
        *,
        edge_channels: int = 0,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, out_channels=out_channels)
        if edge_channels < 0:
            raise ValueError(f"edge_channels must be at least 0; got {edge_channels}")
        source = None if generator is None else as_generator(generator)
        if aggr is None:
            aggr = LCMAggregation(out_channels, out_channels, project=False, generator=source)
        if aggr.in_channels != out_channels:
            raise ValueError(f"aggr must take messages of length {out_channels}; it takes {aggr.in_channels}")
        self.in_channels, self.edge_channels = in_channels, edge_channels
        self.aggr = aggr
        with seeded(source):
            self.message = nn.Linear(2 * in_channels + edge_channels, out_channels)
            self.update = nn.Linear(in_channels + aggr.out_channels, out_channels)

    def forward(
        self,
        x: Float[Tensor, "nodes features"],
        edge_index: Int[Tensor, "two edges"],
        edge_attr: Float[Tensor, "edges edge_features"] | None = None,
    ) -> Float[Tensor, "nodes out_channels"]:
        """Pass messages along edges from ``edge_index[0]`` to ``edge_index[1]``; edges come in any order."""
        if x.ndim != 2 or x.shape[1] != self.in_channels:
            raise ValueError(f"x must have shape (nodes, {self.in_channels}); got {tuple(x.shape)}")
        if edge_index.dtype != torch.int64 or edge_index.ndim != 2 or edge_index.shape[0] != 2:
            raise ValueError(
                f"edge_index must be int64 of shape (2, edges); got {edge_index.dtype} of {tuple(edge_index.shape)}"
            )
        if edge_index.numel() and not (int(edge_index.min()) >= 0 and int(edge_index.max()) < len(x)):
            raise ValueError(f"edge_index must name nodes in [0, {len(x)})")
        given = 0 if edge_attr is None else edge_attr.shape[-1]
        if given != self.edge_channels or (edge_attr is not None and len(edge_attr) != edge_index.shape[1]):
            shape = None if edge_attr is None else tuple(edge_attr.shape)
            raise ValueError(f"edge_attr must have shape ({edge_index.shape[1]}, {self.edge_channels}); got {shape}")
        source, destination = edge_index
        parts = [x[source], x[destination], *([] if edge_attr is None else [edge_attr])]
        messages = self.message(torch.cat(parts, 1)).relu()
        updated: Tensor = self.update(torch.cat([x, self.aggr(messages, destination, dim_size=len(x))], 1))
        return updated


def to_geometric(aggregation: SetAggregation) -> Any:
    """Return an aggregator as one of PyTorch Geometric, for ``aggr=`` of any of its layers.

    Parameters
    ----------
    aggregation : SetAggregation
        Such as :class:`.LCMAggregation`; it is shared, not copied, so that training the one trains the other.

    Returns
    -------
    torch_geometric.nn.aggr.Aggregation

    Raises
    ------
    TypeError
        If ``aggregation`` is no SetAggregation.
    ImportError
        If torch_geometric is missing; the message says what brings it.

    Notes
    -----
    Unlike PyTorch Geometric's own ``LCMAggregation``, edges need not be sorted by destination, and a node's result does
    not depend on how many neighbours other nodes of the batch have.

    Examples
    --------
    >>> from torch_geometric.nn import SimpleConv  # doctest: +SKIP
    >>> SimpleConv(aggr=to_geometric(LCMAggregation(16, 16)))  # doctest: +SKIP

    References
    ----------
    Fey and Lenssen, *Fast Graph Representation Learning with PyTorch Geometric*, arXiv:1903.02428.
    """
    if not isinstance(aggregation, SetAggregation):
        raise TypeError(f"aggregation must be a SetAggregation; got {type(aggregation).__name__}")
    try:
        aggr: Any = importlib.import_module("torch_geometric.nn.aggr")
    except ImportError as error:
        raise ImportError("to_geometric needs PyTorch Geometric: pip install 'offprint[graph]'") from error

    class GeometricAggregation(aggr.Aggregation):
        def __init__(self) -> None:
            super().__init__()
            self.aggregation = aggregation

        def forward(
            self,
            x: Any,
            index: Any = None,
            ptr: Any = None,
            dim_size: int | None = None,
            dim: int = -2,
            max_num_elements: int | None = None,
        ) -> Any:
            # Edges of a layer are not always sorted, and then come with an index only: so does everything here.
            return self.aggregation(x, index, ptr if index is None else None, dim_size, dim, max_num_elements)

        def __reduce__(self) -> tuple[Any, tuple[SetAggregation]]:
            # A class that is made when PyTorch Geometric is there has no name to be found by.
            return to_geometric, (self.aggregation,)

    return GeometricAggregation()
