"""Search for the subset of largest utility, by additions, removals and swaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from offprint.methods.bags.inset_mean_field import DirectSets, Utility, prepare
from offprint.methods.bags.inset_utility import PreparedSets, SetUtility, checked_mask
from offprint.models.batches import check_sizes

Landscape = PreparedSets | DirectSets
Move = Callable[[Landscape, Tensor, Tensor], Tensor]
"""From sets, their subsets and the mask of what is there to subsets that a move has changed, as well as it could."""
ROUNDING = 32
"""A move must raise F by more than so many units of rounding, or ties would be broken by rounding errors."""


@dataclass(frozen=True, eq=False)
class SubsetSearch:
    """Subsets that a search has found, and how.

    Parameters
    ----------
    chosen : bool tensor, shape (sets, points)
        The subset of each set.
    utility : tensor, shape (sets,)
        F(S; V) of each.
    start_utility : tensor, shape (sets,)
        F(S; V) of the subset that the search of each set began with.
    n_moves : int64 tensor, shape (sets,)
        Moves that raised F. Additions and removals made to reach a given size do not count.
    converged : bool tensor, shape (sets,)
        Whether no move of those allowed would raise F further. If not, ``max_moves`` ended the search.
    """

    chosen: Bool[Tensor, "sets points"]
    utility: Float[Tensor, " sets"]
    start_utility: Float[Tensor, " sets"]
    n_moves: Int64[Tensor, " sets"]
    converged: Bool[Tensor, " sets"]


def search_subsets(
    utility: SetUtility | Utility,
    x: Float[Tensor, "sets points ..."],
    start: Bool[Tensor, "sets points"],
    sizes: Shaped[Tensor, " sets"] | Sequence[int] | None = None,
    mask: Bool[Tensor, "sets points"] | None = None,
    *,
    swaps: bool = True,
    max_moves: int = 1000,
    chunk_size: int | None = None,
) -> SubsetSearch:
    """Climb from a subset of each set to one of larger utility, until no single move helps.

    Where no sizes are given, a move is the addition or removal that raises F most, or, where none does, the best swap
    of an element inside for one outside: p(S) ∝ exp F(S; V) ranks subsets of all sizes, and so decides the size too.
    Where sizes are given, subsets first reach them by the best additions or removals, even where these lower F, and
    then swaps are all there is. From an empty start and without swaps this is the greedy algorithm.

    Parameters
    ----------
    utility : SetUtility or callable
        A callable takes x and subsets of shape (sets, draws, points), boolean, and returns utilities (sets, draws).
    x : tensor, shape (sets, points, ...)
        Elements, padded to the same number; finite.
    start : bool tensor, shape (sets, points)
        Where to begin: nothing, or a selection that is good already.
    sizes : int tensor or sequence of int, shape (sets,), optional
        How many elements each subset is to have, from 0 to those of its set.
    mask : bool tensor, shape (sets, points), optional
        Where there is an element; by default everywhere.
    swaps : bool
        Whether swaps are moves.
    max_moves : int
        The most moves that raise F, of each set, at least 1.
    chunk_size : int, optional
        As for :meth:`.SetUtility.prepare`; of no effect on a callable.

    Returns
    -------
    SubsetSearch
        Without gradients. Ties go to the element that comes first, and no move is made for what rounding alone gains.

    Raises
    ------
    ValueError
        If shapes do not fit, x or a utility is not finite, a start has elements that its set lacks, a size is out of
        range or ``max_moves`` is below 1. To forbid a subset, give it a large negative utility.
    TypeError
        If x is no floating-point tensor, or start no boolean one.

    Notes
    -----
    With a :class:`.SetUtility`, all N additions and removals of a set cost N evaluations of its last layers, without
    forming a sum anew, and all swaps |S| · (N + 1). What is found cannot be improved by one move, but by several at
    once it may: it is a local optimum, not the argmax, except where F is a sum over elements.

    Examples
    --------
    Elements are worth what they hold, and any two of one sign get in each other's way:

    >>> def utility(x, subsets):
    ...     taken = subsets * x[:, None, :, 0]
    ...     return taken.abs().sum(2) - taken.sum(2) ** 2
    >>> x = torch.tensor([[[3.0], [2.0], [-2.5], [0.25]]])
    >>> nothing = torch.zeros(1, 4, dtype=torch.bool)
    >>> found = search_subsets(utility, x, nothing, [2])
    >>> found.chosen.tolist(), found.utility.item()
    ([[True, False, True, False]], 5.25)
    >>> search_subsets(utility, x, nothing).converged.tolist()
    [True]

    References
    ----------
    An addition made here to Xie et al., *Enhancing Neural Subset Selection*, arXiv:2402.03139, which selects by
    marginals. Nemhauser, Wolsey and Fisher, *An analysis of approximations for maximizing submodular set functions*
    (1978), for the greedy algorithm and interchanges.
    """
    mask = checked_mask(x, mask)
    check_sizes(max_moves=max_moves)
    chosen = _checked_start(start, mask).clone()
    with torch.no_grad():
        landscape = prepare(utility, x, mask, chunk_size)
        start_utility = _utility(landscape, chosen)
        if sizes is not None:
            _resize(landscape, chosen, _checked_sizes(sizes, mask), mask)
        moves = ([] if sizes is not None else [_best_flip]) + ([_best_swap] if swaps else [])
        worth, n_moves, converged = _climb(landscape, chosen, mask, moves, max_moves)
    return SubsetSearch(chosen, worth, start_utility, n_moves, converged)


def _climb(
    landscape: Landscape, chosen: Tensor, mask: Tensor, moves: Sequence[Move], max_moves: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Change subsets in place as long as a move helps, which the utility of the changed subset itself decides."""
    worth = _utility(landscape, chosen)
    n_moves = torch.zeros(len(chosen), dtype=torch.int64, device=chosen.device)
    converged = torch.zeros_like(n_moves, dtype=torch.bool)
    while len(rows := (~converged & (n_moves < max_moves)).nonzero()[:, 0]):
        for move in moves:
            if len(rows):
                part = _taken(landscape, rows)
                changed = move(part, chosen[rows], mask[rows])
                reached = _utility(part, changed)
                least = ROUNDING * torch.finfo(worth.dtype).eps * worth[rows].abs().clamp(min=1)
                helps = reached - worth[rows] > least
                chosen[rows[helps]], worth[rows[helps]] = changed[helps], reached[helps]
                n_moves[rows[helps]] += 1
                rows = rows[~helps]
        converged[rows] = True
    return worth, n_moves, converged


def _resize(landscape: Landscape, chosen: Tensor, sizes: Tensor, mask: Tensor) -> None:
    """Add to subsets that are too small, and take from those too large, one best element after the other, in place."""
    while len(rows := (chosen.sum(1) != sizes).nonzero()[:, 0]):
        grow = (chosen[rows].sum(1) < sizes[rows])[:, None]
        gains = _taken(landscape, rows).gains(chosen[rows, None])[:, 0]
        allowed = torch.where(grow, mask[rows] & ~chosen[rows], chosen[rows])
        best = torch.where(grow, gains, -gains).masked_fill(~allowed, -torch.inf).argmax(1)
        chosen[rows, best] = grow[:, 0]


def _best_flip(part: Landscape, chosen: Tensor, mask: Tensor) -> Tensor:
    """Add or remove the element that raises F most."""
    gains = part.gains(chosen[:, None])[:, 0]
    best = torch.where(chosen, -gains, gains).masked_fill(~mask, -torch.inf).argmax(1, keepdim=True)
    return chosen.scatter(1, best, ~chosen.gather(1, best))


def _best_swap(part: Landscape, chosen: Tensor, mask: Tensor) -> Tensor:
    """Exchange the two elements that raise F most; a subset without either kind stays as it is.

    F(S without i, with j) − F(S) is the gain of j without i, less that of i.
    """
    every = torch.arange(len(chosen), device=chosen.device)
    inside = chosen.long().argsort(dim=1, descending=True, stable=True)
    n_inside = chosen.sum(1)
    of_inside = part.gains(chosen[:, None])[:, 0]
    best = torch.full_like(of_inside[:, 0], -torch.inf)
    leaving, entering = torch.zeros_like(n_inside), torch.zeros_like(n_inside)
    for k in range(int(n_inside.max())):
        out = inside[:, k]
        without = chosen.clone()
        without[every, out] = False
        gains = part.gains(without[:, None])[:, 0].masked_fill(chosen | ~mask, -torch.inf)
        place = gains.argmax(1)
        raised = (gains[every, place] - of_inside[every, out]).masked_fill(n_inside <= k, -torch.inf)
        higher = raised > best
        best = torch.where(higher, raised, best)
        leaving, entering = torch.where(higher, out, leaving), torch.where(higher, place, entering)
    swapped = chosen.clone()
    rows = best.isfinite().nonzero()[:, 0]
    swapped[rows, leaving[rows]] = False
    swapped[rows, entering[rows]] = True
    return swapped


def _utility(landscape: Landscape, chosen: Tensor) -> Tensor:
    return landscape.values(chosen[:, None])[:, 0]


def _taken(landscape: Landscape, rows: Tensor) -> Landscape:
    """Return some of the sets, without copying where these are all."""
    return landscape if len(rows) == len(landscape) else landscape.take(rows)


def _checked_start(start: object, mask: Tensor) -> Tensor:
    if not isinstance(start, Tensor) or start.dtype != torch.bool:
        raise TypeError(f"start must be a boolean tensor; got {getattr(start, 'dtype', type(start).__name__)}")
    if start.shape != mask.shape:
        raise ValueError(f"start must have shape {tuple(mask.shape)}, as x has; got {tuple(start.shape)}")
    if bool((start & ~mask).any()):
        raise ValueError("start must hold elements of its set only; it holds some that the mask leaves out")
    return start


def _checked_sizes(sizes: Tensor | Sequence[int], mask: Tensor) -> Tensor:
    wanted = torch.as_tensor(sizes, device=mask.device)
    most = mask.sum(1)
    if wanted.is_floating_point() or wanted.shape != most.shape or bool(((wanted < 0) | (wanted > most)).any()):
        raise ValueError(f"sizes must be integers from 0 to the number of elements, one for each set; got {sizes}")
    return wanted
