"""Run a user's model on noisy copies of one input, batch by batch, and refuse what would make the answer void."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from offprint.methods.certify.smoothing.noise import NOISES
from offprint.models.batches import check_count

Base = Callable[[Tensor], Tensor]
"""A model from a batch of inputs to a batch of outputs."""


def noisy_outputs(
    base: Base,
    x: Float[Tensor, "*input"],
    n: int,
    *,
    sigma: float,
    noise: str,
    batch: int,
    generator: torch.Generator,
) -> Iterator[Shaped[Tensor, "chunk ..."]]:
    """Yield the model's outputs for n fresh noisy copies of x, at most ``batch`` at a time, without gradients."""
    check_count("n", n)
    check_count("batch", batch)
    with torch.no_grad():
        for start in range(0, n, batch):
            size = min(batch, n - start)
            outputs = base(NOISES[noise].draw(size, x, sigma, generator))
            if not isinstance(outputs, Tensor):
                raise TypeError(f"base must return a tensor; got {type(outputs).__name__}")
            if outputs.ndim == 0 or len(outputs) != size:
                raise ValueError(f"base must return one row per input, {size}; got shape {tuple(outputs.shape)}")
            if outputs.isnan().any():
                raise ValueError("base returned NaN for a noisy copy of x; no class can be read from that")
            yield outputs


def check_base(base: Base) -> None:
    """Refuse a model that is no callable or that has a part in training mode."""
    if not callable(base):
        raise TypeError(f"base must be a callable from a batch of inputs to outputs; got {type(base).__name__}")
    if isinstance(base, nn.Module):
        training = [name or "the model itself" for name, part in base.named_modules() if part.training]
        if training:
            raise ValueError(
                "base must be in evaluation mode, since in training mode the copies of a batch influence each other "
                f"or units are dropped; call base.eval() (in training mode: {', '.join(training[:3])})"
            )


def check_sigma(sigma: float) -> None:
    """Refuse a standard deviation that is not positive and finite."""
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be positive and finite; got {sigma}")


def check_noise(noise: str) -> None:
    """Refuse a kind of noise that is not known."""
    if noise not in NOISES:
        raise ValueError(f"noise must be one of {', '.join(NOISES)}; got {noise!r}")


def check_input(name: str, x: Float[Tensor, "*input"], input_range: tuple[float, float] | None) -> None:
    """Refuse inputs that are not floating point, not finite, or outside the declared range."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a tensor of floating-point numbers; got {kind}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} must be finite; it holds NaN or infinity")
    if input_range is None or x.numel() == 0:
        return
    low, high = x.min().item(), x.max().item()
    if low < input_range[0] or high > input_range[1]:
        raise ValueError(f"{name} must lie in the declared input_range {input_range}; it spans [{low:g}, {high:g}]")


def check_range(input_range: tuple[float, float] | None) -> None:
    """Refuse a range that is not an interval."""
    if input_range is not None and not (len(input_range) == 2 and -math.inf < input_range[0] < input_range[1]):
        raise ValueError(f"input_range must be (low, high) with low < high; got {input_range}")
