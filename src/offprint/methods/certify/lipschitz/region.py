"""The region around each sample, and what is checked before work starts."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from offprint.methods.certify.lirpa.perturbations import Box, LpBall, Perturbation

Radius = float | Tensor
MANY_ROWS = 1000


def check_model(model: object) -> nn.Module:
    """Return the model if it is one and computes the same each time, sample by sample."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if module.training and isinstance(module, (_NormBase, _DropoutNd)):
            raise ValueError(
                f"model: {type(module).__name__} {name!r} is in training mode, where outputs are random or depend on "
                "other samples; call model.eval() first"
            )
    return model


def check_inputs(model: nn.Module, x: Tensor, name: str = "x") -> None:
    """Refuse inputs that are no finite floating-point batch of the model's dtype."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
    if x.ndim < 2 or not len(x):
        raise ValueError(f"{name}: expected a batch of shape (batch, ...), got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point dtype, got {x.dtype}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is not None and parameter.dtype != x.dtype:
        raise ValueError(f"{name}: expected {parameter.dtype}, which the model has, got {x.dtype}")


def make_region(x: Tensor, eps: Radius, norm: float, clip: tuple[float, float] | None) -> Box | LpBall:
    """Return the points at most ``eps`` away from each sample, and inside of ``clip``.

    Raises
    ------
    ValueError
        If ``norm`` is neither inf nor 2, ``eps`` is negative or not finite or of a shape that does not fit, or ``clip``
        is empty or leaves out a sample.
    """
    if norm not in (2, math.inf):
        raise ValueError(f"norm: expected math.inf or 2, got {norm!r}")
    radius = torch.as_tensor(eps, dtype=x.dtype, device=x.device)
    if not bool(torch.isfinite(radius).all()) or bool((radius < 0).any()):
        raise ValueError(f"eps: expected finite numbers of at least 0, got {eps}")
    if radius.ndim == 1 and len(radius) == len(x):
        radius = radius.reshape(-1, *[1] * (x.ndim - 1))
    try:
        radius = radius.expand(x.shape)
    except RuntimeError as error:
        raise ValueError(
            f"eps: expected a number, one for each of {len(x)} samples or a shape that broadcasts against "
            f"{tuple(x.shape)}, got {tuple(torch.as_tensor(eps).shape)}"
        ) from error
    low, high = (-math.inf, math.inf) if clip is None else clip
    if not low <= high:
        raise ValueError(f"clip: expected (low, high) with low <= high, got {clip}")
    if bool((x < low).any()) or bool((x > high).any()):
        raise ValueError(f"clip: expected limits {clip} that hold for x itself")
    if norm == 2:
        return LpBall(2, radius, *((None, None) if clip is None else clip))
    return Box((x - radius).clamp(min=low), (x + radius).clamp(max=high))


def one_sample(region: Box | LpBall, index: int) -> Box | LpBall:
    """Return the region of a single sample; it broadcasts to copies of it."""
    if isinstance(region, Box):
        return Box(region.lower[index : index + 1], region.upper[index : index + 1])
    assert isinstance(region.eps, Tensor)
    return LpBall(region.norm, region.eps[index : index + 1], region.x_L, region.x_U)


def draw(region: Perturbation, x: Tensor, n_points: int, generator: torch.Generator) -> Tensor:
    """Return points of a region, (n_points, *x.shape): half of them inside, half at corners or on the surface."""
    lower, upper = region.box(x)
    shape = (n_points, *x.shape)
    share = torch.rand(shape, generator=generator, dtype=x.dtype, device=x.device)
    share[1::2] = share[1::2].round()
    points = lower + share * (upper - lower)
    if isinstance(region, LpBall):
        shift = (points - x).flatten(2)
        reach = torch.as_tensor(region.eps, dtype=x.dtype, device=x.device).expand(x.shape).flatten(1)
        length = torch.linalg.vector_norm(shift / reach.clamp(min=torch.finfo(x.dtype).tiny), dim=-1, keepdim=True)
        points = x + (shift / length.clamp(min=1.0)).reshape(shape)
    return points


def make_rows(C: Tensor | None, x: Tensor, n_outputs: int) -> Tensor:
    """Return what multiplies the Jacobian of each sample from the left, (batch, rows, n_outputs)."""
    if C is None:
        C = torch.eye(n_outputs, dtype=x.dtype, device=x.device)
    if not isinstance(C, Tensor):
        raise TypeError(f"C: expected a torch.Tensor, got {type(C).__name__}")
    if C.ndim not in (2, 3) or C.shape[-1] != n_outputs or (C.ndim == 3 and len(C) != len(x)) or not C.shape[-2]:
        raise ValueError(
            f"C: expected (rows, {n_outputs}) or ({len(x)}, rows, {n_outputs}), got shape {tuple(C.shape)}"
        )
    if not bool(torch.isfinite(C).all()):
        raise ValueError("C: expected finite numbers, got NaN or infinity")
    rows = C.to(x).expand(len(x), *C.shape[-2:])
    if rows.shape[1] > MANY_ROWS:
        warnings.warn(
            f"C: {rows.shape[1]} rows of the Jacobian are bounded at once for each sample, which takes much memory; "
            "pass fewer rows at a time",
            stacklevel=3,
        )
    return rows
