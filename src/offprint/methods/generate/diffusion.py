"""Diffusion with exploding variance, x_t = x + t ξ: the grid of noise levels, a denoiser, its loss and its sampler."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.models.batches import check_count


def karras_times(n: int, t_min: float = 0.002, t_max: float = 80.0, rho: float = 7.0) -> Float[Tensor, " n"]:
    """Return noise levels from the largest to the smallest, evenly spaced in their rho-th root.

    Parameters
    ----------
    n : int
        How many, at least 2.
    t_min, t_max : float
        The last and the first level, 0 < t_min < t_max; both are met exactly.
    rho : float
        Positive; 1 spaces evenly, larger values put more levels at small noise.

    Returns
    -------
    tensor, shape (n,)
        float64, decreasing.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    O(n). The first level has index 0 here; consistency models often count from the smallest.

    Examples
    --------
    >>> karras_times(5, t_min=0.1, t_max=10.0, rho=1.0)
    tensor([10.0000,  7.5250,  5.0500,  2.5750,  0.1000], dtype=torch.float64)

    References
    ----------
    Karras, Aittala, Aila and Laine, *Elucidating the Design Space of Diffusion-Based Generative Models*,
    arXiv:2206.00364, equation 5.
    """
    check_count("n", n)
    if n < 2:
        raise ValueError(f"n must be at least 2; got {n}")
    if not (0 < t_min < t_max < math.inf):
        raise ValueError(f"t_min and t_max must satisfy 0 < t_min < t_max; got {t_min} and {t_max}")
    if not (math.isfinite(rho) and rho > 0):
        raise ValueError(f"rho must be positive and finite; got {rho}")
    start, end = t_max ** (1 / rho), t_min ** (1 / rho)
    times: Tensor = (start + torch.linspace(0, 1, n, dtype=torch.float64) * (end - start)) ** rho
    times[0], times[-1] = t_max, t_min
    return times


class Denoiser(nn.Module):
    """Make a network predict the clean input from a noisy one, well scaled at every noise level.

    Parameters
    ----------
    network : torch.nn.Module
        ``network(x, code)`` with x of shape (batch, ...) and unit scale and a noise code of shape (batch,), returning
        the shape of x.
    sigma_data : float
        Standard deviation of the clean data, positive.

    Raises
    ------
    ValueError
        If sigma_data is not positive.

    Notes
    -----
    D(x, t) = c_skip x + c_out F(c_in x, ln(t) / 4), with coefficients that give F inputs and targets of unit variance
    and make D the identity as t goes to 0. One evaluation of the network per call.

    Examples
    --------
    >>> class Zero(nn.Module):
    ...     def forward(self, x, code):
    ...         return torch.zeros_like(x)
    >>> Denoiser(Zero())(torch.ones(1, 2), torch.tensor([0.5]))
    tensor([[0.5000, 0.5000]])

    References
    ----------
    Karras, Aittala, Aila and Laine, *Elucidating the Design Space of Diffusion-Based Generative Models*,
    arXiv:2206.00364, section 5 and table 1.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__()
        if not (math.isfinite(sigma_data) and sigma_data > 0):
            raise ValueError(f"sigma_data must be positive and finite; got {sigma_data}")
        self.network, self.sigma_data = network, float(sigma_data)

    def forward(self, x: Float[Tensor, "batch *input"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch *input"]:
        """Return the estimate of the clean input: at noise level t, of shape (batch,), from x of shape (batch, ...)."""
        level = t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        spread = torch.hypot(level, torch.full_like(level, self.sigma_data))
        c_skip, c_out = (self.sigma_data / spread) ** 2, level * self.sigma_data / spread
        outputs: Tensor = c_skip * x + c_out * self.network(x / spread, t.to(x.dtype).log() / 4)
        return outputs


def denoising_loss(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *input"],
    t: Float[Tensor, " batch"],
    noise: Float[Tensor, "batch *input"],
) -> Float[Tensor, ""]:
    """Return the mean squared error of a denoiser, weighted so that every noise level counts the same at the start.

    Parameters
    ----------
    denoiser : Denoiser
        The model.
    x : tensor, shape (batch, ...)
        Clean inputs.
    t : tensor, shape (batch,)
        Noise level of each, positive.
    noise : tensor, shape (batch, ...)
        Standard normal.

    Returns
    -------
    tensor, shape ()

    Raises
    ------
    ValueError
        If shapes differ.

    Notes
    -----
    The weight is 1 / c_out², which makes the loss that of the inner network on targets of unit variance.

    Examples
    --------
    >>> class Zero(nn.Module):
    ...     def forward(self, x, code):
    ...         return torch.zeros_like(x)
    >>> denoising_loss(Denoiser(Zero()), torch.zeros(2, 3), torch.ones(2), torch.ones(2, 3))
    tensor(0.2000)

    References
    ----------
    Karras, Aittala, Aila and Laine, *Elucidating the Design Space of Diffusion-Based Generative Models*,
    arXiv:2206.00364, equation 8.
    """
    if noise.shape != x.shape or t.shape != x.shape[:1]:
        raise ValueError(
            f"noise must have the shape of x, {tuple(x.shape)}, and t one level per row; "
            f"got {tuple(noise.shape)} and {tuple(t.shape)}"
        )
    level = t.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
    weight = 1 / level.square() + 1 / denoiser.sigma_data**2
    error: Tensor = denoiser(x + level * noise, t) - x
    return (weight * error.square()).mean()


def probability_flow(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "batch *input"],
    times: Float[Tensor, " times"],
    *,
    method: Literal["euler", "heun"] = "euler",
) -> Float[Tensor, "batch *input"]:
    """Follow the probability-flow equation from the first noise level down to none.

    From pure noise at a large level it draws samples; from a noisy input at its own level it denoises step by step.

    Parameters
    ----------
    denoiser : callable
        ``denoiser(x, t)`` with t of shape (batch,), such as :class:`Denoiser`, returning the expected clean input.
    x : tensor, shape (batch, ...)
        Noisy inputs at level ``times[0]``.
    times : tensor, shape (times,)
        Positive, strictly decreasing levels, at least one; a last step goes from the last of them to 0.
    method : {"euler", "heun"}
        One evaluation a step, or two (but for the last step) of second order.

    Returns
    -------
    tensor, shape (batch, ...)

    Raises
    ------
    ValueError
        If times are not positive and strictly decreasing, or the method is unknown.

    Notes
    -----
    dx/dt = (x - D(x, t)) / t. No gradient is kept. With one time and Euler's method this is D itself, which is
    one-shot denoising.

    Examples
    --------
    For data at the origin the ideal denoiser is 0, and so is where every path ends:

    >>> probability_flow(lambda x, t: torch.zeros_like(x), torch.ones(1, 2), karras_times(4, 0.1, 1.0))
    tensor([[0., 0.]])

    References
    ----------
    Karras, Aittala, Aila and Laine, *Elucidating the Design Space of Diffusion-Based Generative Models*,
    arXiv:2206.00364, algorithm 1 without noise.
    """
    if method not in ("euler", "heun"):
        raise ValueError(f"method must be 'euler' or 'heun'; got {method!r}")
    levels = times.tolist()
    if not levels or levels[-1] <= 0 or any(not later < before for before, later in pairwise(levels)):
        raise ValueError(f"times must be positive and strictly decreasing; got {levels}")

    def slope(state: Tensor, t: float) -> Tensor:
        clean: Tensor = denoiser(state, torch.full((len(state),), t, dtype=state.dtype, device=state.device))
        return (state - clean) / t

    with torch.no_grad():
        for t, after in zip(levels, [*levels[1:], 0.0], strict=True):
            first = slope(x, t)
            ahead = x + (after - t) * first
            if method == "heun" and after > 0:
                ahead = x + (after - t) * (first + slope(ahead, after)) / 2
            x = ahead
    return x
