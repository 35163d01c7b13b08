"""How much a subset is expected to overlap with the true one, if elements belong to it as likely as stated."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import roots_legendre
from torch import Tensor

CERTAIN = 1e-12
"""Probabilities are kept this far from 0 and 1 where subsets of one size are compared."""


def expected_jaccard(
    probabilities: Float[Tensor, "sets points"],
    chosen: Bool[Tensor, "sets points"],
    mask: Bool[Tensor, "sets points"] | None = None,
    *,
    same_size: bool = False,
) -> Float[Tensor, " sets"]:
    """Return the Jaccard index that a subset is expected to have with the true one, of which each element is uncertain.

    The true subset is taken to hold each element by itself, with its probability. The expectation over all 2^N such
    subsets is computed as it is, without draws. It says how sure the probabilities are of a selection, and is as right
    as they are.

    Parameters
    ----------
    probabilities : tensor, shape (sets, points)
        Of each element, in [0, 1].
    chosen : bool tensor, shape (sets, points)
        The subset that was selected.
    mask : bool tensor, shape (sets, points), optional
        Where there is an element; by default everywhere.
    same_size : bool
        Whether the true subset is known to have as many elements as the selected one. A factor common to the odds of
        all elements, such as training on few elements outside subsets puts there, then has no effect.

    Returns
    -------
    float64 tensor, shape (sets,)
        In [0, 1]. 1 for an empty subset that is certain, or with ``same_size``.

    Raises
    ------
    ValueError
        If shapes do not fit, probabilities are outside [0, 1] or an element is chosen that is not there.
    TypeError
        If probabilities or subsets are no tensors of their kinds.

    Notes
    -----
    With A the number of true elements inside S, and B of those outside, which are independent, E A / (|S| + B) is
    E A · ∫₀¹ t^(|S| − 1) E t^B dt. The integrand is a polynomial of degree N − 1, and Gauss-Legendre quadrature with
    N / 2 nodes exact: O(N²) a set up to N = 512. Beyond, 16 √N nodes are right to about 1e-8: O(N √N). With
    ``same_size``, the distributions of A and B up to |S| take O(N |S|), in N steps.

    Examples
    --------
    One of two elements is certain, the other a coin: the true subset is the first alone, or both.

    >>> sure, chosen = torch.tensor([[1.0, 0.5]]), torch.tensor([[True, False]])
    >>> round(expected_jaccard(sure, chosen).item(), 6)  # (1 + 1 / 2) / 2
    0.75
    >>> round(expected_jaccard(sure, chosen, same_size=True).item(), 6)
    1.0

    References
    ----------
    An addition made here to Xie et al., *Enhancing Neural Subset Selection*, arXiv:2402.03139. The integral is that of
    Chao and Strawderman, *Negative moments of positive random variables* (1972).
    """
    q, chosen, mask = _checked(probabilities, chosen, mask)
    return _of_size(q, chosen, mask) if same_size else _of_any_size(q, chosen)


def _of_any_size(q: Tensor, chosen: Tensor) -> Tensor:
    outside, size = q.masked_fill(chosen, 0.0), chosen.sum(1)
    n_points, times = q.shape[1], (size - 1).clamp(min=0).to(q)
    n_nodes = math.ceil(n_points / 2) if n_points <= 512 else math.ceil(16 * math.sqrt(n_points))
    nodes, weights = roots_legendre(n_nodes)
    inverse = torch.zeros_like(q[:, 0])
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        power = times * np.log(t) + (outside * (t - 1)).log1p().sum(1)
        inverse += weight * power.exp()
    inside = (q * chosen).sum(1) * inverse
    return torch.where(size == 0, (1 - q).prod(1), inside).clamp(0, 1)


def _of_size(q: Tensor, chosen: Tensor, mask: Tensor) -> Tensor:
    """Condition on the size: P(A = a, B = |S| − a) over its sum, after the odds were scaled so that it is not tiny."""
    size = chosen.sum(1)
    scaled = _scaled(q, size, mask)
    most = int(size.max())
    # Of A and B, how likely 0, 1, ..., |S| are, one element after the other.
    likely = torch.zeros(2, len(q), most + 1, dtype=q.dtype, device=q.device)
    likely[:, :, 0] = 1
    for one, within in zip(scaled.T, chosen.T, strict=True):
        chance = torch.stack([one * within, one * ~within])[..., None]
        moved = likely * (1 - chance)
        moved[..., 1:] += likely[..., :-1] * chance
        likely = moved
    a = torch.arange(most + 1, device=q.device).expand(len(q), -1)
    rest = (size[:, None] - a).clamp(min=0)
    together = (likely[0] * likely[1].gather(1, rest)).masked_fill(a > size[:, None], 0.0)
    found = (together * a / (2 * size[:, None] - a).clamp(min=1)).sum(1) / together.sum(1)
    return torch.where((size == 0) | (size == mask.sum(1)), 1.0, found).clamp(0, 1)


def _scaled(q: Tensor, size: Tensor, mask: Tensor) -> Tensor:
    """Scale all odds of a set by one factor, which leaves subsets of one size as likely, so that E |T| = size."""
    logits = q.clamp(CERTAIN, 1 - CERTAIN).logit()
    low, high = torch.full_like(q[:, :1], -100.0), torch.full_like(q[:, :1], 100.0)
    for _ in range(60):
        middle = (low + high) / 2
        over = ((logits + middle).sigmoid() * mask).sum(1, keepdim=True) > size[:, None]
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return (logits + low).sigmoid() * mask


def _checked(probabilities: object, chosen: object, mask: object) -> tuple[Tensor, Tensor, Tensor]:
    if not isinstance(probabilities, Tensor) or not probabilities.is_floating_point():
        raise TypeError(f"probabilities must be a floating-point tensor; got {_kind(probabilities)}")
    if probabilities.ndim != 2 or 0 in probabilities.shape:
        raise ValueError(f"probabilities must have shape (sets, points); got {tuple(probabilities.shape)}")
    if mask is None:
        mask = torch.ones_like(probabilities, dtype=torch.bool)
    for name, given in (("chosen", chosen), ("mask", mask)):
        if not isinstance(given, Tensor) or given.dtype != torch.bool:
            raise TypeError(f"{name} must be a boolean tensor; got {_kind(given)}")
        if given.shape != probabilities.shape:
            raise ValueError(f"{name} must have shape {tuple(probabilities.shape)}; got {tuple(given.shape)}")
    assert isinstance(chosen, Tensor)
    assert isinstance(mask, Tensor)
    if bool((chosen & ~mask).any()):
        raise ValueError("chosen must hold elements of its set only; it holds some that the mask leaves out")
    q = probabilities.detach().double().masked_fill(~mask, 0.0)
    if not bool(((q >= 0) & (q <= 1)).all()):
        raise ValueError("probabilities must lie in [0, 1]; some do not, or are NaN")
    return q, chosen, mask


def _kind(given: object) -> object:
    return getattr(given, "dtype", type(given).__name__)
