"""Projected gradient steps inside an lp ball, a box, or both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class AttackResult:
    """What an attack found.

    Parameters
    ----------
    points : Tensor, shape (batch, ...)
        The best point found for each sample, inside of what was allowed.
    values : Tensor, shape (batch,)
        The objective there.
    n_steps : Tensor of int, shape (batch,)
        Steps until the best point, summed over restarts; 0 where the start was best.
    """

    points: Float[Tensor, "batch ..."]
    values: Float[Tensor, " batch"]
    n_steps: Int[Tensor, " batch"]


def projected_gradient_descent(
    objective: Callable[[Tensor], Tensor],
    x: Shaped[Tensor, "batch ..."],
    *,
    radius: float | Tensor | None = None,
    norm: float = math.inf,
    lower: float | Tensor | None = None,
    upper: float | Tensor | None = None,
    n_steps: int = 40,
    step_size: float | None = None,
    n_restarts: int = 1,
    stop_below: float | None = None,
    generator: torch.Generator | None = None,
) -> AttackResult:
    r"""Search points near ``x`` where an objective is as small as possible.

    Everything is batched: one call of the objective moves all samples. The objective is any function of the points, so
    the same code attacks a classifier (its margin :math:`f_y - \max_{k \ne y} f_k`, below 0 where it errs), a detector,
    or a property of a network.

    Parameters
    ----------
    objective : callable
        Takes points (batch, ...) and returns their values (batch,), to be minimised; differentiable, and each value
        depends on its own point alone.
    x : Tensor, shape (batch, ...)
        Centres, floating and finite; they must lie between ``lower`` and ``upper``.
    radius : float or Tensor of shape (batch,), optional
        Radius of the ball around each centre, at least 0. Without it only the box counts, which must then be given.
    norm : {inf, 2, 1}
        Of the ball.
    lower, upper : float or Tensor, optional
        Box that broadcasts against ``x``, such as 0 and 1 for pixels.
    n_steps : int
        Steps of each restart, at least 1.
    step_size : float, optional
        First step as a part of the radius (of half the box's width where there is no radius), greater than 0; by
        default 0.25. It shrinks to a tenth along a cosine.
    n_restarts : int
        The first start is the centre, further ones are random, at least 1.
    stop_below : float, optional
        Stop when every sample's value is below this.
    generator : torch.Generator, optional
        On the device of ``x``; by default one with seed 0.

    Returns
    -------
    AttackResult

    Raises
    ------
    ValueError
        If an argument is out of its range, not finite, or neither a radius nor a box is given.
    TypeError
        If ``x`` is not floating.

    Notes
    -----
    ``n_steps * n_restarts`` gradients of the objective. Steps follow the gradient's sign (inf), its direction (2), or
    its largest 1/16 of elements (1). A step is projected to the ball and then to the box; as the centre is in the box,
    that does not leave the ball.

    Examples
    --------
    >>> import torch
    >>> found = projected_gradient_descent(lambda x: x.sum(1), torch.zeros(1, 2), radius=0.5)
    >>> found.points.tolist(), found.values.tolist()
    ([[-0.5, -0.5]], [-1.0])

    References
    ----------
    Aleksander Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, arXiv:1706.06083,
    section 2.1.
    Florian Tramèr and Dan Boneh, Adversarial Training and Robustness for Multiple Perturbations, arXiv:1904.13000,
    section 3 (sparse steps for the l1 ball). John Duchi et al., Efficient projections onto the l1-ball, ICML 2008.
    """
    region = _Region(x, radius, norm, lower, upper)
    for name, value in (("n_steps", n_steps), ("n_restarts", n_restarts)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    first_step = 0.25 if step_size is None else step_size
    if not (first_step > 0 and math.isfinite(first_step)):
        raise ValueError(f"step_size: expected a positive number, got {step_size}")
    if generator is None:
        generator = torch.Generator(device=x.device).manual_seed(0)

    best = _Best(x.detach().clone())
    taken = 0
    for restart in range(n_restarts):
        point = x.detach().clone() if restart == 0 else region.project(region.random(generator))
        for step in range(n_steps + 1):
            point.requires_grad_(True)
            values = objective(point)
            best.update(point.detach(), values.detach(), taken)
            if step == n_steps or (stop_below is not None and bool((best.values < stop_below).all())):
                break
            (gradient,) = torch.autograd.grad(values.sum(), point)
            size = first_step * (0.1 + 0.45 * (1 + math.cos(math.pi * step / n_steps)))
            point = region.project(point.detach() - size * region.direction(gradient))
            taken += 1
        if stop_below is not None and bool((best.values < stop_below).all()):
            break
    return AttackResult(best.points, best.values, best.n_steps)


class _Best:
    """The best point of each sample so far; a value that is not a number is never best."""

    def __init__(self, x: Tensor) -> None:
        self.points = x
        self.values = x.new_full(x.shape[:1], math.inf)
        self.n_steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def update(self, points: Tensor, values: Tensor, taken: int) -> None:
        if values.shape != self.values.shape:
            shape = tuple(values.shape)
            raise ValueError(f"objective: expected values of shape ({len(self.values)},), got {shape}")
        better = values < self.values
        self.values = torch.where(better, values.to(self.values.dtype), self.values)
        self.points = torch.where(_wide(better, points), points, self.points)
        self.n_steps = torch.where(better, torch.full_like(self.n_steps, taken), self.n_steps)


class _Region:
    """A ball around each sample, cut by a box."""

    def __init__(
        self,
        x: Tensor,
        radius: float | Tensor | None,
        norm: float,
        lower: float | Tensor | None,
        upper: float | Tensor | None,
    ) -> None:
        if not x.is_floating_point():
            raise TypeError(f"x: expected floating numbers, got {x.dtype}")
        if x.ndim < 1 or not bool(torch.isfinite(x).all()):
            raise ValueError("x: expected finite numbers of shape (batch, ...)")
        if norm not in (1, 2, math.inf):
            raise ValueError(f"norm: expected inf, 2 or 1, got {norm}")
        self.x, self.norm = x.detach(), norm
        self.lower = self._end("lower", lower, 1)
        self.upper = self._end("upper", upper, -1)
        self.radius = None if radius is None else self._radius(radius)
        if self.radius is None and (self.lower is None or self.upper is None):
            raise ValueError("radius: expected a number, or else both lower and upper")

    def _end(self, name: str, end: float | Tensor | None, sign: int) -> Tensor | None:
        if end is None:
            return None
        try:
            tensor = torch.as_tensor(end, dtype=self.x.dtype, device=self.x.device).expand(self.x.shape)
        except RuntimeError as error:
            raise ValueError(f"{name}: expected a shape that broadcasts to {tuple(self.x.shape)}") from error
        if bool(tensor.isnan().any()) or bool((sign * (tensor - self.x) > 0).any()):
            raise ValueError(f"{name}: x itself lies outside of it, or it is not a number")
        return tensor

    def _radius(self, radius: float | Tensor) -> Tensor:
        tensor = torch.as_tensor(radius, dtype=self.x.dtype, device=self.x.device)
        if tensor.shape not in ((), self.x.shape[:1]):
            raise ValueError(f"radius: expected a number or shape ({len(self.x)},), got shape {tuple(tensor.shape)}")
        if not bool(torch.isfinite(tensor).all()) or bool((tensor < 0).any()):
            raise ValueError(f"radius: expected finite numbers of at least 0, got {radius}")
        return _wide(tensor.expand(len(self.x)), self.x)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the steepest way up for the norm, as long as the radius."""
        gradient = gradient.nan_to_num()
        if self.radius is None:
            assert self.lower is not None
            assert self.upper is not None
            return gradient.sign() * (self.upper - self.lower) / 2
        if self.norm == math.inf:
            return gradient.sign() * self.radius
        flat = gradient.flatten(1)
        if self.norm == 2:
            unit = flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
        else:
            n = max(1, flat.shape[1] // 16)
            places = flat.abs().topk(n, dim=1).indices
            unit = torch.zeros_like(flat).scatter(1, places, flat.gather(1, places).sign() / n)
        step: Tensor = unit.reshape(gradient.shape) * self.radius
        return step

    def random(self, generator: torch.Generator) -> Tensor:
        """Return points of the region at random: uniform in the box, somewhere in the ball."""
        draw = torch.rand(self.x.shape, generator=generator, dtype=self.x.dtype, device=self.x.device)
        if self.radius is None:
            assert self.lower is not None
            assert self.upper is not None
            return self.lower + draw * (self.upper - self.lower)
        if self.norm == math.inf:
            return self.x + (2 * draw - 1) * self.radius
        noise = torch.randn(self.x.shape, generator=generator, dtype=self.x.dtype, device=self.x.device)
        length = noise.flatten(1).norm(p=self.norm, dim=1).clamp(min=torch.finfo(noise.dtype).tiny)
        share = draw.flatten(1)[:, 0]
        return self.x + noise * _wide(share / length, noise) * self.radius

    def project(self, points: Tensor) -> Tensor:
        """Return points of the region near the given ones."""
        if self.radius is not None:
            points = self.x + self._into_ball(points - self.x, self.radius)
        if self.lower is not None:
            points = torch.maximum(points, self.lower)
        return points if self.upper is None else torch.minimum(points, self.upper)

    def _into_ball(self, change: Tensor, radius: Tensor) -> Tensor:
        if self.norm == math.inf:
            return torch.minimum(torch.maximum(change, -radius), radius)
        flat, limit = change.flatten(1), radius.reshape(len(change), 1)
        if self.norm == 2:
            length = torch.linalg.vector_norm(flat, dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
            shorter: Tensor = (flat * (limit / length).clamp(max=1)).reshape(change.shape)
            return shorter
        size = flat.abs()
        descending, _ = size.sort(dim=1, descending=True)
        counts = torch.arange(1, flat.shape[1] + 1, dtype=flat.dtype, device=flat.device)
        excess = descending.cumsum(1) - limit
        n_kept = (descending * counts > excess).sum(1, keepdim=True).clamp(min=1)
        threshold = (excess.gather(1, n_kept - 1) / n_kept).clamp(min=0)
        inside = size.sum(1, keepdim=True) <= limit
        moved = flat.sign() * (size - threshold).clamp(min=0)
        return torch.where(inside, flat, moved).reshape(change.shape)


def _wide(per_sample: Tensor, like: Tensor) -> Tensor:
    """Give a tensor (batch,) the rank of another one."""
    return per_sample.reshape(-1, *[1] * (like.ndim - 1))
