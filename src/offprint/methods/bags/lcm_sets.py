"""What aggregators of sets share: their call, the rows of each set side by side, and random orders."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from offprint.methods.bags.lcm_fold import set_sizes
from offprint.methods.bags.ragged import RaggedBags
from offprint.models.batches import check_sizes


class SetAggregation(nn.Module):
    """What all aggregators here share: they take rows and the set of each, and give one row per set.

    A subclass says in :meth:`reduce` how the rows of ragged sets become one row each.

    Parameters
    ----------
    in_channels, out_channels : int
        Length of a row given and of a row returned, at least 1.

    Examples
    --------
    >>> class Sums(SetAggregation):
    ...     def reduce(self, sets):
    ...         return torch.stack([rows.sum(0) for rows in sets])
    >>> Sums(1, 1)(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1, 0, 1])).tolist()
    [[2.0], [5.0]]
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels

    def forward(
        self,
        x: Float[Tensor, "n in_channels"],
        index: Int[Tensor, " n"] | None = None,
        ptr: Int[Tensor, " bounds"] | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        max_num_elements: int | None = None,
    ) -> Float[Tensor, "sets out_channels"]:
        """Return one row per set.

        Parameters
        ----------
        x : tensor, shape (n, in_channels)
            Elements, in any order.
        index : int64 tensor, shape (n,), optional
            The set of each element, from 0; sorted or not.
        ptr : int64 tensor, shape (bounds,), optional
            Instead of ``index``, where each set begins, then n. With neither, all elements are one set.
        dim_size : int, optional
            The number of sets; by default one more than the largest index.
        dim : int
            Always the first of two: there for the signature that PyTorch Geometric uses.
        max_num_elements : int, optional
            Not needed, since nothing is padded.

        Returns
        -------
        tensor, shape (dim_size, out_channels)
        """
        return self.reduce(self.grouped(x, index, ptr, dim_size, dim))

    def reduce(self, sets: RaggedBags) -> Float[Tensor, "sets out_channels"]:
        """Return one row per set, empty ones included."""
        raise NotImplementedError

    def grouped(
        self,
        x: Float[Tensor, "n in_channels"],
        index: Int[Tensor, " n"] | None = None,
        ptr: Int[Tensor, " bounds"] | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> RaggedBags:
        """Sort rows by their set, in the order given within each, and refuse what does not fit."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"x must be a tensor of floating-point numbers; got {getattr(x, 'dtype', type(x))}")
        if x.ndim != 2 or x.shape[1] != self.in_channels or dim not in (-2, 0):
            raise ValueError(
                f"x must have shape (n, {self.in_channels}), with sets along dim -2; got {tuple(x.shape)} and dim {dim}"
            )
        if ptr is not None:
            set_sizes(x, ptr)
            if dim_size not in (None, len(ptr) - 1):
                raise ValueError(f"dim_size must be the number of sets in ptr, {len(ptr) - 1}; got {dim_size}")
            return RaggedBags(x, ptr)
        if index is None:
            index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if not isinstance(index, Tensor) or index.dtype != torch.int64:
            raise TypeError(f"index must be an int64 tensor; got {getattr(index, 'dtype', type(index).__name__)}")
        if index.shape != x.shape[:1]:
            raise ValueError(f"index must hold one set per row of x, {len(x)}; got shape {tuple(index.shape)}")
        if len(index) and int(index.min()) < 0:
            raise ValueError(f"index must be at least 0; got {int(index.min())}")
        n_sets = int(index.max()) + 1 if len(index) else 0
        if dim_size is not None and dim_size < n_sets:
            raise ValueError(f"dim_size must be at least {n_sets}, one more than the largest index; got {dim_size}")
        if bool((index.diff() < 0).any()):
            index, order = index.sort(stable=True)
            x = x[order]
        sizes = torch.bincount(index, minlength=n_sets if dim_size is None else dim_size)
        return RaggedBags(x, nn.functional.pad(sizes.cumsum(0), (1, 0)))


def in_random_order(sets: RaggedBags) -> RaggedBags:
    """Return the same sets, the elements of each in a random order drawn from torch's global state.

    Parameters
    ----------
    sets : RaggedBags
        Ragged sets.

    Returns
    -------
    RaggedBags

    Examples
    --------
    >>> sets = RaggedBags.from_list([torch.tensor([1.0, 2.0]), torch.tensor([3.0])])
    >>> in_random_order(sets)[1].item()
    3.0
    """
    order = torch.randperm(len(sets.values), device=sets.values.device)
    order = order[sets.ids[order].argsort(stable=True)]
    return RaggedBags(sets.values[order], sets.offsets)
