"""Aggregate sets with a learned commutative monoid: an operator that is trained, folded in a balanced tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from offprint.methods.bags.lcm_fold import Monoid, partial_folds, tree_fold
from offprint.methods.bags.lcm_sets import SetAggregation, in_random_order
from offprint.methods.bags.ragged import RaggedBags
from offprint.models.batches import check_sizes
from offprint.models.randomness import as_generator, seeded

Operator = Callable[[Tensor, Tensor], Tensor]


class CommutativeGRU(nn.Module):
    """A learned operator that is commutative by construction: a GRU cell run both ways round, and the mean taken.

    z ⊕ z′ = ½ [cell(input z, state z′) + cell(input z′, state z)]. Both orders go through the cell in one call. It is
    associative only as far as training makes it so: see :meth:`LCMAggregation.regularisation`.

    Parameters
    ----------
    features : int
        Length of a row, at least 1.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If features is below 1, or rows of another length are given.

    Notes
    -----
    6 · features² weights; O(features²) for a pair of rows.

    Examples
    --------
    >>> operator = CommutativeGRU(4, generator=0)
    >>> a, b = torch.tensor([[1.0, 0.0, 2.0, -1.0]]), torch.zeros(1, 4)
    >>> torch.allclose(operator(a, b), operator(b, a))
    True

    References
    ----------
    Euan Ong and Petar Veličković, *Learnable Commutative Monoids for Graph Neural Networks*, arXiv:2212.08541.
    """

    def __init__(self, features: int, *, generator: torch.Generator | int | None = None) -> None:
        super().__init__()
        check_sizes(features=features)
        self.features = features
        with seeded(generator):
            self.cell = nn.GRUCell(features, features)

    def forward(
        self, left: Float[Tensor, "pairs features"], right: Float[Tensor, "pairs features"]
    ) -> Float[Tensor, "pairs features"]:
        """Combine two stacks of rows of shape (pairs, features), row by row."""
        for name, rows in (("left", left), ("right", right)):
            if rows.ndim != 2 or rows.shape[1] != self.features:
                raise ValueError(f"{name} must have shape (pairs, {self.features}); got {tuple(rows.shape)}")
        rows = torch.stack([left, right])
        both: Tensor = self.cell(rows.flatten(0, 1), rows.flip(0).flatten(0, 1))
        return torch.unflatten(both, 0, (2, -1)).mean(0)


class _Commutative(nn.Module):
    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, left: Shaped[Tensor, "..."], right: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        return (self.operator(left, right) + self.operator(right, left)) / 2


def commutative(operator: Operator) -> nn.Module:
    """Make any operator commutative: the mean of both orders of its arguments.

    Parameters
    ----------
    operator : callable
        ``operator(left, right)`` combines two stacks of rows; a module's parameters become those of the result.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    TypeError
        If ``operator`` cannot be called.

    Examples
    --------
    >>> weighted = commutative(lambda left, right: left + 2 * right)
    >>> weighted(torch.tensor([1.0]), torch.tensor([3.0])).item()
    6.0
    """
    if not callable(operator):
        raise TypeError(f"operator must be callable; got {type(operator).__name__}")
    return _Commutative(operator)


class LCMAggregation(SetAggregation):
    """Aggregate each set by folding its elements with a learned operator in a balanced tree.

    Elements are encoded by ReLU(W x + b), then combined two by two. Use it where sums, means and maxima are not
    expressive enough and a recurrent aggregator is too slow: its depth is the logarithm of the set's size. It has the
    call of PyTorch Geometric's aggregators; :func:`.to_geometric` makes it one. Absent elements count for nothing: a
    set's result does not depend on the sets beside it.

    Parameters
    ----------
    in_channels, out_channels : int
        Length of an element and of the result, at least 1.
    project : bool
        Whether elements are encoded. Without, both lengths must agree.
    op : "gru" or callable
        :class:`CommutativeGRU`, or an operator of one's own on rows of shape (pairs, out_channels): see
        :func:`commutative` and the exact ones such as :class:`.MaxMonoid`.
    identity : {"learned", "zeros", "operator"}
        What an empty set becomes. "operator" takes that of an exact operator.
    shuffle : bool
        In training mode, take the elements of each set in a new random order every time, so that the tree cannot rely
        on it. Drawn from torch's global random state, as dropout is.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, lengths differ without a projection, identity is unknown, or the operator changes the
        length of its rows or returns NaN at the identity.
    TypeError
        If ``op`` cannot be called.

    Notes
    -----
    ⌈log₂ of the largest set⌉ calls of the operator on n − sets pairs, O(n · out_channels²) time and O(n · out_channels)
    memory, whatever the sizes. The operator is exactly commutative; its associativity is learned, so that the result
    depends a little on the order of the elements. :func:`permutation_gap` measures how much: report it.

    Examples
    --------
    >>> aggregate = LCMAggregation(3, 8, generator=0).eval()
    >>> x = torch.arange(15.0).reshape(5, 3)
    >>> aggregate(x, torch.tensor([2, 0, 2, 2, 0])).shape  # set 1 is empty
    torch.Size([3, 8])
    >>> from offprint.methods.bags.lcm_fold import MaxMonoid
    >>> largest = LCMAggregation(3, 3, project=False, op=MaxMonoid(), identity="operator")
    >>> largest(x, torch.tensor([0, 0, 0, 1, 1])).tolist()
    [[6.0, 7.0, 8.0], [12.0, 13.0, 14.0]]

    References
    ----------
    Euan Ong and Petar Veličković, *Learnable Commutative Monoids for Graph Neural Networks*, arXiv:2212.08541. Folding
    only the elements that are there, and the handling of the identity, are choices made here.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        project: bool = True,
        op: Literal["gru"] | Operator = "gru",
        identity: Literal["learned", "zeros", "operator"] = "learned",
        shuffle: bool = True,
        *,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels)
        if not project and in_channels != out_channels:
            raise ValueError(
                f"out_channels must equal in_channels, {in_channels}, where project is False; got {out_channels}"
            )
        if op != "gru" and not callable(op):
            raise TypeError(f"op must be 'gru' or callable; got {op!r}")
        if identity not in ("learned", "zeros", "operator"):
            raise ValueError(f"identity must be 'learned', 'zeros' or 'operator'; got {identity!r}")
        source = None if generator is None else as_generator(generator)
        with seeded(source):
            self.lin = nn.Linear(in_channels, out_channels) if project else None
        self.op: Operator = CommutativeGRU(out_channels, generator=source) if op == "gru" else op
        self.shuffle = shuffle
        self.identity: Tensor
        if identity == "learned":
            self.identity = nn.Parameter(torch.zeros(out_channels))
        else:
            self.register_buffer("identity", self._fixed_identity(identity))
        self._try_operator()

    def encode(self, x: Float[Tensor, "n in_channels"]) -> Float[Tensor, "n out_channels"]:
        """Return the states of single elements."""
        encoded: Tensor = x if self.lin is None else self.lin(x).relu()
        return encoded

    def reduce(self, sets: RaggedBags) -> Float[Tensor, "sets out_channels"]:
        """Fold each set."""
        if self.training and self.shuffle:
            sets = in_random_order(sets)
        return tree_fold(self.op, self.encode(sets.values), sets.offsets, self.identity)

    def regularisation(
        self,
        x: Float[Tensor, "n in_channels"],
        index: Int[Tensor, " n"] | None = None,
        n_triples: int = 256,
        *,
        generator: torch.Generator | int | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Return how far the operator is from a monoid on the states that these sets lead to.

        States a, b and c are drawn from the encoded elements and the partial folds of the sets. They are held fixed, so
        that only the operator and its identity are trained, not the encoder towards vanishing states.

        Parameters
        ----------
        x : tensor, shape (n, in_channels)
            Elements, at least one.
        index : int64 tensor, shape (n,), optional
            The set of each; one set by default.
        n_triples : int
            How many triples are drawn, at least 1.
        generator : torch.Generator or int, optional
            Source (or seed) of the draw; by default torch's global state.

        Returns
        -------
        dict
            ``assoc``, the mean of ‖(a ⊕ b) ⊕ c − a ⊕ (b ⊕ c)‖², and ``identity``, the mean of ‖a ⊕ e − a‖²: scalars to
            be added to a loss, each with a weight.
        """
        check_sizes(n_triples=n_triples)
        sets = self.grouped(x, index)
        if len(sets.values) == 0:
            raise ValueError("x must hold at least one element to draw states from")
        with torch.no_grad(), seeded(generator, x.device):
            states = partial_folds(self.op, self.encode(in_random_order(sets).values), sets.offsets)
            a, b, c = states[torch.randint(len(states), (3, n_triples), device=states.device)]
        grouped_left, grouped_right = self.op(self.op(a, b), c), self.op(a, self.op(b, c))
        beside_identity = self.op(a, self.identity.expand_as(a))
        return {
            "assoc": _difference(grouped_left, grouped_right).square().sum(1).mean(),
            "identity": _difference(beside_identity, a).square().sum(1).mean(),
        }

    def _fixed_identity(self, identity: str) -> Tensor:
        zeros = torch.zeros(self.out_channels)
        if identity == "zeros":
            return zeros
        if not isinstance(self.op, Monoid):
            raise ValueError("identity='operator' needs an op with an identity of its own, such as MaxMonoid")
        return self.op.identity(zeros)

    @torch.no_grad()
    def _try_operator(self) -> None:
        """Refuse an operator of the user's that cannot work, before anything is trained with it."""
        if isinstance(self.op, CommutativeGRU):
            return
        row, identity = torch.ones(1, self.out_channels), self.identity.detach()[None].cpu()
        own = next(iter(self.op.parameters()), row) if isinstance(self.op, nn.Module) else row
        combined = self.op(row.to(own), identity.to(own))
        if combined.shape != row.shape:
            raise ValueError(f"op must keep the shape of its rows, {tuple(row.shape)}; got {tuple(combined.shape)}")
        if bool(combined.isnan().any()):
            raise ValueError("op must be defined at the identity; it returns NaN there")


def permutation_gap(
    aggregation: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "n features"],
    index: Int[Tensor, " n"],
    trials: int = 10,
    *,
    generator: torch.Generator | int = 0,
) -> float:
    """Measure how much an aggregator's results depend on the order of the elements.

    Parameters
    ----------
    aggregation : callable
        ``aggregation(x, index)`` returns one row per set, such as any aggregator here in evaluation mode.
    x : tensor, shape (n, features)
        Elements, finite.
    index : int64 tensor, shape (n,)
        The set of each.
    trials : int
        Pairs of random orders to compare, at least 1.
    generator : torch.Generator or int
        Source (or seed) of the orders.

    Returns
    -------
    float
        The mean over sets with elements, and over trials, of ‖f(π₁X) − f(π₂X)‖, over the mean of ‖f(X)‖: 0 for an
        aggregator that does not depend on the order.

    Raises
    ------
    TypeError
        If ``x`` or ``index`` is no tensor.
    ValueError
        If ``x`` is no finite matrix, ``index`` does not fit it, or trials is below 1.

    Notes
    -----
    2 · trials + 1 calls of the aggregator, without gradients.

    Examples
    --------
    >>> from offprint.methods.bags.lcm_fold import MaxMonoid
    >>> x, index = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0, 0, 0])
    >>> permutation_gap(LCMAggregation(1, 1, project=False, op=MaxMonoid()).eval(), x, index)
    0.0
    >>> means = LCMAggregation(1, 1, project=False, op=lambda a, b: (a + b) / 2).eval()
    >>> 0 < permutation_gap(means, x, index) < 1
    True

    References
    ----------
    Euan Ong and Petar Veličković, *Learnable Commutative Monoids for Graph Neural Networks*, arXiv:2212.08541.
    """
    if not isinstance(x, Tensor) or not isinstance(index, Tensor):
        raise TypeError(f"x and index must be tensors; got {type(x).__name__} and {type(index).__name__}")
    if x.ndim != 2 or len(x) == 0 or not bool(torch.isfinite(x).all()):
        raise ValueError(f"x must be a finite matrix of at least one row; got shape {tuple(x.shape)}")
    if index.shape != x.shape[:1]:
        raise ValueError(f"index must hold one set per row of x, {len(x)}; got shape {tuple(index.shape)}")
    check_sizes(trials=trials)
    source = as_generator(generator)

    present = torch.unique(index)

    def once() -> Tensor:
        order = torch.randperm(len(x), generator=source, device=source.device).to(x.device)
        return aggregation(x[order], index[order])[present]

    with torch.no_grad():
        gaps = torch.stack([(once() - once()).norm(dim=1).mean() for _ in range(trials)])
        size = aggregation(x, index)[present].norm(dim=1).mean()
    return float(gaps.mean() / size) if size > 0 else float(gaps.mean())


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Return a - b, and 0 where both are the same infinity, as states of exact monoids are."""
    return torch.where(a == b, torch.zeros_like(a), a - b)
