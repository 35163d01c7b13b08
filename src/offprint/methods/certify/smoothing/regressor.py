"""Median smoothing: bounds that hold for a regression model's smoothed output under any small perturbation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import ndtr
from scipy.stats import binom
from torch import Tensor

from offprint.methods.certify.smoothing.certificate import check_level
from offprint.methods.certify.smoothing.sampling import (
    Base,
    check_base,
    check_input,
    check_range,
    check_sigma,
    noisy_outputs,
)
from offprint.models.batches import check_count
from offprint.models.randomness import as_generator


@dataclass(frozen=True)
class MedianBounds:
    """The smoothed output for one input, and where it stays for every perturbation within the radius.

    Parameters
    ----------
    median : tensor, shape (outputs,)
        The median of the outputs under noise, as sampled.
    lower, upper : tensor, shape (outputs,)
        With a chance of at least 1 - alpha, the true median of every output stays in [lower, upper] whatever the
        perturbation. Infinite where the copies are too few to say.
    radius : float
        The l2 norm of the perturbations that were allowed.
    n : int
        Noisy copies.
    """

    median: Float[Tensor, " outputs"]
    lower: Float[Tensor, " outputs"]
    upper: Float[Tensor, " outputs"]
    radius: float
    n: int


class SmoothedRegressor:
    """The median of a model's outputs under Gaussian noise, with bounds on it under any perturbation of l2 norm.

    For regression, scores and embeddings, where there is no class to count: each output has a median of its own.

    Parameters
    ----------
    base : callable
        From a batch of inputs, shape (batch, ...), to real outputs of shape (batch,) or (batch, outputs). A
        ``torch.nn.Module`` must be in evaluation mode.
    sigma : float
        Standard deviation of the noise, positive.
    input_range : (float, float), optional
        Declare where inputs lie; others are then refused. Noisy copies are not clipped.

    Raises
    ------
    ValueError
        If sigma is not positive or base is in training mode.
    TypeError
        If base is not callable.

    Notes
    -----
    Within a radius r the median moves no further than from the Φ(-r/sigma) quantile to the Φ(r/sigma) quantile of the
    outputs under noise; these are bounded by order statistics, exactly. The chance of error is shared between the two
    ends of every output. Time is that of n evaluations, memory that of n outputs.

    Examples
    --------
    >>> base = lambda x: x.sum(1)
    >>> bounds = SmoothedRegressor(base, sigma=0.5).certify(torch.zeros(4), radius=0.25, n=4000, generator=0)
    >>> bool(bounds.lower < -0.5) and bool(bounds.upper > 0.5)  # a unit of l2 moves the sum by 2
    True
    >>> round(bounds.upper.item(), 2)
    0.55

    References
    ----------
    Chiang, Curry, Abdelkader, Kumar, Dickerson and Goldstein, *Detection as Regression: Certified Object Detection by
    Median Smoothing*, arXiv:2007.03730, section 4.
    """

    def __init__(self, base: Base, sigma: float, *, input_range: tuple[float, float] | None = None) -> None:
        check_base(base)
        check_sigma(sigma)
        check_range(input_range)
        self.base, self.sigma, self.input_range = base, float(sigma), input_range

    def certify(
        self,
        x: Float[Tensor, "*input"],
        radius: float,
        n: int = 10_000,
        alpha: float = 0.001,
        batch: int = 1000,
        generator: torch.Generator | int = 0,
    ) -> MedianBounds:
        """Return the smoothed output of one input and its bounds over all perturbations of at most ``radius``.

        Parameters
        ----------
        x : tensor, shape (...)
            One input, without a batch dimension; finite floating-point numbers.
        radius : float
            In l2, at least 0.
        n : int
            Noisy copies, at least 1.
        alpha : float
            In (0, 1/2), for all outputs together.
        batch : int
            Copies per evaluation of the model.
        generator : torch.Generator or int
            Source (or seed) of the noise.
        """
        check_level(alpha)
        check_base(self.base)
        check_input("x", x, self.input_range)
        check_count("n", n)
        if not (math.isfinite(radius) and radius >= 0):
            raise ValueError(f"radius must be finite and at least 0; got {radius}")
        chunks = noisy_outputs(
            self.base, x, n, sigma=self.sigma, noise="gaussian", batch=batch, generator=as_generator(generator)
        )
        outputs = torch.cat([_columns(chunk) for chunk in chunks]).sort(dim=0).values
        rank = _rank_below(n, float(ndtr(-radius / self.sigma)), alpha / (2 * outputs.shape[1]))
        unbounded = torch.full_like(outputs[0], math.inf)
        lower, upper = (outputs[rank - 1], outputs[n - rank]) if rank else (-unbounded, unbounded)
        return MedianBounds(outputs.median(dim=0).values, lower, upper, float(radius), n)


def _columns(outputs: Tensor) -> Tensor:
    if not outputs.is_floating_point() or outputs.ndim > 2:
        raise ValueError(
            "base must return real outputs of shape (batch,) or (batch, outputs); "
            f"got {outputs.dtype} of {tuple(outputs.shape)}"
        )
    return outputs if outputs.ndim == 2 else outputs[:, None]


def _rank_below(n: int, quantile: float, alpha: float) -> int:
    """Return the rank, from 1, of the largest order statistic that is below a quantile but for a chance of alpha.

    The k-th smallest of n exceeds the p-quantile exactly if fewer than k copies are at or below it. 0 means none is.
    """
    k = int(binom.ppf(alpha, n, quantile))
    while k > 0 and binom.cdf(k - 1, n, quantile) > alpha:
        k -= 1
    return k
