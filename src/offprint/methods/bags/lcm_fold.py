"""Fold ragged sets with a binary operator in balanced trees, scan sequences with it, and the exact monoids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

Operator = Callable[[Tensor, Tensor], Tensor]
"""Combines two stacks of rows, of the same shape, row by row."""


@runtime_checkable
class Monoid(Protocol):
    """An operator that is exactly associative and knows its identity."""

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """Combine two stacks of rows, row by row."""
        ...

    def identity(self, like: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return the identity in the shape of one row."""
        ...


class SumMonoid(nn.Module):
    """Addition, whose identity is 0.

    Examples
    --------
    >>> tree_fold(SumMonoid(), torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 3])).tolist()
    [7.0]
    """

    def forward(self, left: Shaped[Tensor, "..."], right: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Combine rows of the same shape."""
        return left + right

    def identity(self, like: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return zeros in the shape of a row."""
        return torch.zeros_like(like)


class MinMonoid(nn.Module):
    """The smaller entry, whose identity is infinity.

    Examples
    --------
    >>> tree_fold(MinMonoid(), torch.tensor([4.0, 1.0, 2.0]), torch.tensor([0, 3])).tolist()
    [1.0]
    """

    def forward(self, left: Shaped[Tensor, "..."], right: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Combine rows of the same shape."""
        return torch.minimum(left, right)

    def identity(self, like: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return infinity in the shape of a row."""
        return torch.full_like(like, torch.inf)


class MaxMonoid(nn.Module):
    """The larger entry, whose identity is minus infinity.

    Examples
    --------
    >>> tree_fold(MaxMonoid(), torch.tensor([1.0, 4.0, 2.0]), torch.tensor([0, 3])).tolist()
    [4.0]
    """

    def forward(self, left: Shaped[Tensor, "..."], right: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Combine rows of the same shape."""
        return torch.maximum(left, right)

    def identity(self, like: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return minus infinity in the shape of a row."""
        return torch.full_like(like, -torch.inf)


class TwoSmallestMonoid(nn.Module):
    """The two smallest entries seen, smallest first: a state of two halves, whose identity is infinity.

    The second minimum of a set is no sum, mean or maximum of functions of its elements that holds for sets of any
    size, but it is a fold with this operator.

    Examples
    --------
    >>> two_smallest = TwoSmallestMonoid()
    >>> states = two_smallest.lift(torch.tensor([[4.0], [1.0], [2.0]]))
    >>> tree_fold(two_smallest, states, torch.tensor([0, 3])).tolist()
    [[1.0, 2.0]]
    """

    def lift(self, values: Float[Tensor, "*n features"]) -> Float[Tensor, "*n states"]:
        """Return the states of single elements, of shape (..., 2 · features): the element, then infinity."""
        return torch.cat([values, torch.full_like(values, torch.inf)], -1)

    def forward(self, left: Shaped[Tensor, "..."], right: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Combine states of shape (..., 2 · features)."""
        (a, b), (c, d) = left.chunk(2, -1), right.chunk(2, -1)
        second = torch.minimum(torch.maximum(a, c), torch.minimum(b, d))
        return torch.cat([torch.minimum(a, c), second], -1)

    def identity(self, like: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return infinity in the shape of a state."""
        return torch.full_like(like, torch.inf)


def tree_fold(
    operator: Operator,
    x: Shaped[Tensor, "n ..."],
    ptr: Int[Tensor, " bounds"],
    identity: Shaped[Tensor, "..."] | None = None,
) -> Shaped[Tensor, "sets ..."]:
    """Fold each set of rows into one with a binary operator, in a balanced tree.

    Level by level, neighbours (0, 1), (2, 3), ... of every set are combined; an unpaired last element moves up as it
    is. All sets climb together, one call of the operator a level, and no row is padded, so a set's result does not
    depend on its companions. Where the operator is associative this is its fold in the order given.

    Parameters
    ----------
    operator : callable
        ``operator(left, right)`` combines two stacks of rows of shape (pairs, ...) into one of the same shape: a
        module, a lambda, or an exact one such as :class:`TwoSmallestMonoid`.
    x : tensor, shape (n, ...)
        Elements, set after set; any dtype and device. NaN is passed to the operator as it is.
    ptr : int64 tensor, shape (bounds,)
        Where each set begins, then n: those of :attr:`RaggedBags.offsets`.
    identity : tensor, shape (...), optional
        What an empty set folds to, in the shape of one row. By default that of the operator, if it has one.

    Returns
    -------
    tensor, shape (sets, ...)
        One row per set, differentiable.

    Raises
    ------
    TypeError
        If ``x`` is no tensor or ``ptr`` no int64 tensor.
    ValueError
        If ``ptr`` does not rise from 0 to n, a set is empty without an identity, or the operator changes the shape of
        its rows.

    Notes
    -----
    ⌈log₂ of the largest size⌉ calls of the operator, on n − sets pairs in all. Memory O(n), whatever the sizes: a set
    that is done leaves the tree.

    Examples
    --------
    >>> tree_fold(torch.maximum, torch.tensor([3.0, 1.0, 7.0, 2.0]), torch.tensor([0, 3, 4])).tolist()
    [7.0, 2.0]

    References
    ----------
    Euan Ong and Petar Veličković, *Learnable Commutative Monoids for Graph Neural Networks*, arXiv:2212.08541.
    """
    sizes = set_sizes(x, ptr)
    if bool((sizes == 0).any()):
        identity = _identity(operator, x, identity)
    single = (sizes == 1).nonzero()[:, 0]
    done, results = [single], [x.index_select(0, ptr[single])]
    if identity is not None:
        empty = (sizes == 0).nonzero()[:, 0]
        done.append(empty)
        results.append(identity.to(x).expand(len(empty), *x.shape[1:]))
    # `at` says where the elements of the sets still climbing lie in the stack that was made last.
    sets = (sizes > 1).nonzero()[:, 0]
    sizes = sizes[sets]
    at, current = _rows(ptr[sets], sizes), x
    while len(sets):
        pairs, odd = sizes // 2, (sizes % 2).bool()
        last = sizes.cumsum(0)[odd] - 1
        paired = torch.ones(len(at), dtype=torch.bool, device=at.device).index_fill(0, last, False)
        left, right = torch.unflatten(current.index_select(0, at[paired]), 0, (-1, 2)).unbind(1)
        combined = _combine(operator, left.contiguous(), right.contiguous())
        current = torch.cat([combined, current.index_select(0, at[last])]) if len(last) else combined
        at = _climbed(pairs, odd, len(combined))
        sizes = pairs + odd
        top = sizes == 1
        if bool(top.any()):
            done.append(sets[top])
            results.append(current.index_select(0, at[sizes.cumsum(0)[top] - 1]))
            at = at[~top.repeat_interleave(sizes)]
            sets, sizes = sets[~top], sizes[~top]
    return torch.cat(results).index_select(0, torch.cat(done).argsort())


def partial_folds(
    operator: Operator, x: Shaped[Tensor, "n ..."], ptr: Int[Tensor, " bounds"]
) -> Shaped[Tensor, "states ..."]:
    """Return every state that a tree meets: the elements, then what each call of the operator returned.

    Parameters
    ----------
    operator, x, ptr
        As for :func:`tree_fold`; empty sets have no state.

    Returns
    -------
    tensor, shape (states, ...)
        n rows and one for each pair combined.

    Raises
    ------
    TypeError, ValueError
        As :func:`tree_fold`.

    Examples
    --------
    >>> partial_folds(torch.add, torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 3])).tolist()
    [1.0, 2.0, 4.0, 3.0, 7.0]
    """
    met = [x]

    def watched(left: Tensor, right: Tensor) -> Tensor:
        met.append(operator(left, right))
        return met[-1]

    set_sizes(x, ptr)
    tree_fold(watched, x, ptr, x.new_zeros(x.shape[1:]))
    return torch.cat(met)


def associative_scan(
    operator: Operator, x: Shaped[Tensor, "..."], dim: int = 0, reverse: bool = False
) -> Shaped[Tensor, "..."]:
    """Return all inclusive prefixes x₀, x₀ ⊕ x₁, x₀ ⊕ x₁ ⊕ x₂, ... of a sequence at logarithmic depth.

    For ordered data, such as the events at a node of a temporal graph. The operator must be associative for this to be
    what a loop gives; it need not be commutative.

    Parameters
    ----------
    operator : callable
        ``operator(left, right)`` combines two tensors whose first dimension counts pairs.
    x : tensor, shape (...)
        A sequence along ``dim``, of at least one element. NaN is passed to the operator as it is.
    dim : int
        The dimension to scan.
    reverse : bool
        Scan from the end: entry i is then xᵢ ⊕ ... ⊕ xₙ₋₁.

    Returns
    -------
    tensor, shape (...)
        Of the shape of ``x``; with an associative operator its last (first, if reversed) entry is the fold.

    Raises
    ------
    TypeError
        If ``x`` is no tensor.
    ValueError
        If there is no such dimension, or it is empty, or the operator changes the shape of its rows.

    Notes
    -----
    At most 2⌈log₂ n⌉ calls of the operator, on fewer than 2n pairs in all. A longer sequence only adds levels below: no
    element is read twice on one level.

    Examples
    --------
    >>> associative_scan(torch.add, torch.tensor([1, 2, 3, 4])).tolist()
    [1, 3, 6, 10]
    >>> associative_scan(torch.maximum, torch.tensor([3, 1, 4, 1]), reverse=True).tolist()
    [4, 4, 4, 1]

    References
    ----------
    Guy E. Blelloch, *Prefix Sums and Their Applications* (1990), section 1.2.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor; got {type(x).__name__}")
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim must be a dimension of x, which has {x.ndim}; got {dim}")
    if x.shape[dim] == 0:
        raise ValueError(f"x must hold at least one element along dim {dim}; got shape {tuple(x.shape)}")
    rows = x.movedim(dim, 0)
    if reverse:
        return _scan(lambda left, right: operator(right, left), rows.flip(0)).flip(0).movedim(0, dim)
    return _scan(operator, rows).movedim(0, dim)


def _scan(operator: Operator, x: Tensor) -> Tensor:
    """Scan pairs, which gives every odd prefix, and add one element to each for the even ones."""
    n = len(x)
    if n == 1:
        return x
    odd = _scan(operator, _combine(operator, x[0 : n - 1 : 2], x[1::2]))
    if n == 2:
        return torch.cat([x[:1], odd])
    even = torch.cat([x[:1], _combine(operator, odd[: (n - 1) // 2], x[2::2])])
    mixed = torch.stack([even[: len(odd)], odd], 1).flatten(0, 1)
    return mixed if n % 2 == 0 else torch.cat([mixed, even[-1:]])


def _combine(operator: Operator, left: Tensor, right: Tensor) -> Tensor:
    combined = operator(left, right)
    if combined.shape != left.shape:
        raise ValueError(f"operator must keep the shape of its rows, {tuple(left.shape)}; got {tuple(combined.shape)}")
    return combined


def _rows(starts: Tensor, counts: Tensor) -> Tensor:
    """Return start, start + 1, ... for each start, as many as its count, one after the other."""
    before = counts.cumsum(0) - counts
    within = torch.arange(int(counts.sum()), device=counts.device)
    return within + (starts - before).repeat_interleave(counts, output_size=len(within))


def _climbed(pairs: Tensor, odd: Tensor, n_combined: int) -> Tensor:
    """Return where each set's elements now lie: its pairs side by side, its lone element behind all pairs."""
    sizes = pairs + odd
    at = _rows(pairs.cumsum(0) - pairs, sizes)
    last = sizes.cumsum(0)[odd] - 1
    at[last] = n_combined + torch.arange(len(last), device=at.device)
    return at


def _identity(operator: Operator, x: Tensor, identity: Tensor | None) -> Tensor:
    if identity is None:
        if not isinstance(operator, Monoid):
            raise ValueError("identity must be given where a set is empty and the operator has none of its own")
        identity = operator.identity(x.new_empty(x.shape[1:]))
    if identity.shape != x.shape[1:]:
        raise ValueError(f"identity must have the shape of a row, {tuple(x.shape[1:])}; got {tuple(identity.shape)}")
    return identity


def set_sizes(x: object, ptr: object) -> Int[Tensor, " sets"]:
    """Return the size of each set, once ``ptr`` is known to fit ``x``.

    Parameters
    ----------
    x, ptr
        As for :func:`tree_fold`.

    Raises
    ------
    TypeError, ValueError
        As :func:`tree_fold`.

    Examples
    --------
    >>> set_sizes(torch.zeros(3), torch.tensor([0, 2, 2, 3])).tolist()
    [2, 0, 1]
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor; got {type(x).__name__}")
    if not isinstance(ptr, Tensor) or ptr.dtype != torch.int64:
        raise TypeError(f"ptr must be an int64 tensor; got {getattr(ptr, 'dtype', type(ptr).__name__)}")
    if x.ndim == 0 or ptr.ndim != 1 or len(ptr) == 0:
        raise ValueError(f"x and ptr must be at least a vector; got shapes {tuple(x.shape)} and {tuple(ptr.shape)}")
    sizes = ptr.diff()
    if int(ptr[0]) != 0 or int(ptr[-1]) != len(x) or bool((sizes < 0).any()):
        raise ValueError(f"ptr must rise from 0 to {len(x)}, the number of rows of x; got {ptr.tolist()[:20]}")
    return sizes
