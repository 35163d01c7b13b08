"""Points of the sets that perturbations describe, and the points of them that a linear function likes best.

Written from what the sets are defined to be; nothing of the library's own arithmetic on them is used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from offprint.methods.certify.lirpa.perturbations import Box, LpBall, Perturbation
from offprint.methods.certify.lirpa.substitutions import L0, Synonym


def random_points(region: Perturbation, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return ``(count, *x.shape)`` points of a set around ``x``, whose samples are on the first axis.

    Half of them lie on the boundary, at corners where there are any.
    """
    half = count // 2
    if isinstance(region, L0):
        return _changed(region, x, count, generator)
    if isinstance(region, Synonym):
        return _exchanged(region, x, count, generator)
    if isinstance(region, Box):
        lower, upper = region.lower.to(x).expand(x.shape), region.upper.to(x).expand(x.shape)
        share = _uniform(count, x, generator)
        share[half:] = share[half:].round()
        return lower + share * (upper - lower)
    assert isinstance(region, LpBall)
    if region.norm == math.inf:
        step = _uniform(count, x, generator) * 2 - 1
        step[half:] = step[half:].sign()
    else:
        step = torch.randn(count, *x.shape, dtype=x.dtype, generator=generator)
        if region.norm < 2:
            # Few large elements: near the corners of the ball.
            step = step * step.abs() ** (3 * _per_sample(count, x, generator))
        step = step / _length(step, region.norm).clamp(min=1e-30)
        step[:half] *= _per_sample(half, x, generator)
    return _limited(region, x, x + radius(region, x) * step)


def best_points(region: Perturbation, x: Tensor, slope: Tensor) -> Tensor:
    """Return for each ``slope`` (count, *x.shape) a point of the set where ``slope . x'`` is large.

    It is the largest there is except in an lp ball with limits of its elements, p finite.
    """
    if isinstance(region, L0):
        low, high = (torch.full_like(x, end) for end in (region.x_L, region.x_U))
        target = torch.where(slope > 0, high, low).expand(slope.shape)
        gain = (slope * (target - x)).flatten(2)
        chosen = _largest(gain, region.k) & (gain > 0)
        return torch.where(chosen.reshape(slope.shape), target, x)
    if isinstance(region, Synonym):
        gain = torch.einsum("zbnd,bncd->zbnc", slope, region.candidates.to(x) - x.unsqueeze(2))
        if region.mask is not None:
            gain = gain.masked_fill(~region.mask, -math.inf)
        best, which = gain.max(-1)
        chosen = _largest(best, region.budget) & (best > 0)
        index = which[..., None, None].expand(*which.shape, 1, x.shape[-1])
        words = region.candidates.to(x).expand(len(slope), *region.candidates.shape).gather(3, index).squeeze(3)
        return torch.where(chosen.unsqueeze(-1), words, x)
    if isinstance(region, Box):
        return torch.where(slope > 0, region.upper.to(x), region.lower.to(x)).expand(slope.shape)
    assert isinstance(region, LpBall)
    reach = radius(region, x)
    scaled = slope * reach
    if region.norm == math.inf:
        step = scaled.sign()
    elif region.norm == 1:
        flat = scaled.abs().flatten(2)
        step = _largest(flat, 1).to(x.dtype).reshape(scaled.shape) * scaled.sign()
    else:
        step = scaled.sign() * scaled.abs() ** (1 / (region.norm - 1))
        step = step / _length(step, region.norm).clamp(min=1e-30)
    return _limited(region, x, x + reach * step)


def is_convex(region: Perturbation) -> bool:
    """Return whether points between two points of the set belong to it."""
    return not isinstance(region, L0 | Synonym)


def radius(region: LpBall, x: Tensor) -> Tensor:
    """Return the ball's radius along each element."""
    eps = torch.as_tensor(region.eps, dtype=x.dtype)
    if eps.ndim == 1 and x.ndim > 1 and len(eps) == len(x):
        eps = eps.reshape(-1, *[1] * (x.ndim - 1))
    return eps.expand(x.shape)


def _limited(region: LpBall, x: Tensor, points: Tensor) -> Tensor:
    # Clamping moves every element towards the centre's, which lies within the limits, so the ball is not left.
    if region.x_L is not None:
        points = torch.maximum(points, torch.as_tensor(region.x_L, dtype=x.dtype))
    if region.x_U is not None:
        points = torch.minimum(points, torch.as_tensor(region.x_U, dtype=x.dtype))
    return points


def _uniform(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(count, *like.shape, dtype=like.dtype, generator=generator)


def _per_sample(count: int, x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(count, len(x), *[1] * (x.ndim - 1), dtype=x.dtype, generator=generator)


def _length(step: Tensor, norm: float) -> Tensor:
    flat = torch.linalg.vector_norm(step.flatten(2), norm, dim=2)
    return flat.reshape(*flat.shape, *[1] * (step.ndim - 2))


def _largest(values: Tensor, k: int) -> Tensor:
    """Return a mask of the k largest numbers of the last axis."""
    k = min(k, values.shape[-1])
    return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, values.topk(k, dim=-1).indices, True)


def _changed(region: L0, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    others = region.x_L + (region.x_U - region.x_L) * _uniform(count, x, generator)
    others[count // 2 :] = torch.where(others[count // 2 :] > (region.x_L + region.x_U) / 2, region.x_U, region.x_L)
    chosen = _largest(_uniform(count, x, generator).flatten(2), region.k).reshape(others.shape)
    return torch.where(chosen, others, x)


def _exchanged(region: Synonym, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    exists = torch.ones(region.candidates.shape[:3]) if region.mask is None else region.mask.float()
    # Where a position has no candidate any is drawn, and not taken.
    exists = torch.where(exists.any(-1, keepdim=True), exists, 1.0)
    which = torch.multinomial(exists.flatten(0, 1), count, replacement=True, generator=generator)
    which = which.T.reshape(count, *exists.shape[:2])
    index = which[..., None, None].expand(*which.shape, 1, x.shape[-1])
    words = region.candidates.to(x).expand(count, *region.candidates.shape).gather(3, index).squeeze(3)
    chosen = _largest(_uniform(count, x[..., 0], generator), region.budget)
    if region.mask is not None:
        chosen = chosen & region.mask.any(-1)
    return torch.where(chosen.unsqueeze(-1), words, x)
