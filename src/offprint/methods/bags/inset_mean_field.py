"""Mean-field steps on a utility of subsets: SetUtility's, or any function's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from offprint.methods.bags.inset_utility import PreparedSets, SetUtility, Subsets, checked_mask, generator_on
from offprint.models.batches import check_sizes

Utility = Callable[[Tensor, Tensor], Tensor]
"""Takes elements (sets, points, ...) and subsets (sets, draws, points), and returns utilities (sets, draws)."""


@dataclass(frozen=True, eq=False)
class MeanField:
    """Marginal probabilities after some mean-field steps.

    Parameters
    ----------
    probabilities : tensor, shape (sets, points)
        That each element belongs to the subset; 0 where there is none.
    logits : tensor, shape (sets, points)
        Their logits, which are the mean gains: what a loss is best computed from.
    n_steps : int
        Steps taken.
    change : float
        The largest change of a probability in the last step. Draws are random, so it does not fall to zero.
    """

    probabilities: Float[Tensor, "sets points"]
    logits: Float[Tensor, "sets points"]
    n_steps: int
    change: float


def mean_field(
    utility: SetUtility | Utility,
    x: Float[Tensor, "sets points ..."],
    q: Float[Tensor, "sets points"],
    n_steps: int = 1,
    n_samples: int = 5,
    mask: Bool[Tensor, "sets points"] | None = None,
    *,
    chunk_size: int | None = None,
    generator: torch.Generator | int | None = None,
) -> MeanField:
    """Take mean-field steps towards the marginals of p(S) ∝ exp F(S; V).

    A step draws subsets from q, each element by itself, and sets qᵢ to σ(mean of F(S with i) − F(S without i)).

    Parameters
    ----------
    utility : SetUtility or callable
        A callable takes x and subsets of shape (sets, draws, points), boolean, and returns utilities (sets, draws).
    x : tensor, shape (sets, points, ...)
        Elements, padded to the same number; finite.
    q : tensor, shape (sets, points)
        Where to start: probabilities in [0, 1], such as 0.5 throughout.
    n_steps : int
        At least 1. Gradients flow through the last one.
    n_samples : int
        Subsets drawn a step, at least 1. All elements share them, so each has a mean over ``n_samples`` of them.
    mask : bool tensor, shape (sets, points), optional
        Where there is an element; by default everywhere.
    chunk_size : int, optional
        As for :meth:`.SetUtility.prepare`; of no effect on a callable.
    generator : torch.Generator or int, optional
        Source (or seed) of the draws; by default torch's global state.

    Returns
    -------
    MeanField

    Raises
    ------
    ValueError
        If shapes do not fit, x is not finite, q is outside [0, 1], a count is below 1, or a callable returns another
        shape than (sets, draws) or numbers that are not finite.
    TypeError
        If x is no floating-point tensor.
    FloatingPointError
        If gains of a :class:`SetUtility` are not finite, as after training that went astray.

    Notes
    -----
    With a :class:`SetUtility`, sets · n_samples · points evaluations a step and as much memory, since the sum over each
    subset is formed once and changed by one element at a time; with ``chunk_size``, memory for n_samples · chunk_size
    of them. A callable is evaluated on every subset in full.

    Examples
    --------
    Where F is a sum over elements, one step is exact from anywhere:

    >>> x = torch.tensor([[[2.0], [-1.0], [0.0]]])
    >>> found = mean_field(lambda x, subsets: (subsets * x[:, None, :, 0]).sum(2), x, torch.full((1, 3), 0.3))
    >>> torch.allclose(found.probabilities, torch.sigmoid(x[..., 0])), found.n_steps
    (True, 1)

    References
    ----------
    Ou et al., *Learning Neural Set Functions Under the Optimal Subset Oracle*, arXiv:2203.01693, section 3.
    Xie et al., *Enhancing Neural Subset Selection*, arXiv:2402.03139.
    """
    mask = checked_mask(x, mask)
    check_sizes(n_steps=n_steps, n_samples=n_samples)
    if q.shape != mask.shape or not bool(((q >= 0) & (q <= 1)).all()):
        raise ValueError(f"q must be probabilities of shape {tuple(mask.shape)}, as x has; got {tuple(q.shape)}")
    prepared = prepare(utility, x, mask, chunk_size)
    source = generator_on(generator, x.device)
    before = q.detach()
    for step in range(n_steps):
        chance = before.masked_fill(~mask, 0.0)[:, None].expand(-1, n_samples, -1)
        subsets = torch.bernoulli(chance, generator=source).bool()
        with torch.set_grad_enabled(torch.is_grad_enabled() and step == n_steps - 1):
            logits = prepared.gains(subsets).mean(1)
        if not bool(torch.isfinite(logits).all()):
            raise FloatingPointError(f"utility gives gains that are NaN or infinite, in step {step + 1}")
        after = logits.sigmoid().masked_fill(~mask, 0.0)
        change = float((after.detach() - before).masked_fill(~mask, 0.0).abs().max())
        before = after.detach()
    return MeanField(after, logits, n_steps, change)


@dataclass(frozen=True, eq=False)
class DirectSets:
    """Sets with any utility, which is evaluated on every subset in full: what :class:`.PreparedSets` does, slowly.

    Parameters
    ----------
    utility : callable
        Takes x and subsets of shape (sets, draws, points), boolean, and returns utilities (sets, draws).
    x : tensor, shape (sets, points, ...)
        Elements.
    mask : bool tensor, shape (sets, points)
        Where there is an element.
    """

    utility: Utility
    x: Float[Tensor, "sets points ..."]
    mask: Bool[Tensor, "sets points"]

    def __len__(self) -> int:
        return len(self.x)

    def values(self, subsets: Subsets) -> Float[Tensor, "sets draws"]:
        """Return the utility of several subsets of each set."""
        found = self.utility(self.x, subsets)
        if found.shape != subsets.shape[:2]:
            raise ValueError(
                f"utility must return shape (sets, draws), {tuple(subsets.shape[:2])}; got {tuple(found.shape)}"
            )
        if not bool(torch.isfinite(found).all()):
            raise ValueError("utility must be finite; to forbid a subset, give it a large negative number")
        return found

    def gains(self, subsets: Subsets) -> Float[Tensor, "sets draws points"]:
        """Return F(S with i) − F(S without i) for every element i of each set; nothing where there is none."""
        n_sets, n_draws, n_points = subsets.shape
        eye = torch.eye(n_points, dtype=torch.bool, device=subsets.device)
        subsets = subsets[:, :, None]
        with_one, without = (
            self.values(one.flatten(1, 2)).reshape(n_sets, n_draws, n_points) for one in (subsets | eye, subsets & ~eye)
        )
        return (with_one - without) * self.mask[:, None]

    def take(self, sets: Int64[Tensor, " taken"]) -> DirectSets:
        """Return some of the sets."""
        return DirectSets(self.utility, self.x[sets], self.mask[sets])


def prepare(
    utility: SetUtility | Utility,
    x: Float[Tensor, "sets points ..."],
    mask: Bool[Tensor, "sets points"],
    chunk_size: int | None = None,
) -> PreparedSets | DirectSets:
    """Compute all that does not depend on the subset, where the utility lets us.

    Examples
    --------
    >>> x, mask = torch.ones(1, 2, 1), torch.ones(1, 2, dtype=torch.bool)
    >>> prepared = prepare(lambda x, subsets: (subsets * x[:, None, :, 0]).sum(2), x, mask)
    >>> prepared.gains(torch.tensor([[[True, False]]])).tolist()
    [[[1.0, 1.0]]]
    """
    if isinstance(utility, SetUtility):
        return utility.prepare(x, mask, chunk_size)
    return DirectSets(utility, x, mask)
