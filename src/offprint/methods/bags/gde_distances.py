"""Distances between samples that can be trained on: sliced Wasserstein, Sinkhorn divergence, MMD and energy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from offprint.methods.bags.gde_gaussian import check_float
from offprint.models.randomness import as_generator


def sliced_w2(
    x: Float[Tensor, "*batch m d"],
    y: Float[Tensor, "*batch m d"],
    n_directions: int = 100,
    *,
    generator: torch.Generator | int | None = None,
) -> Float[Tensor, "*batch"]:
    """Return the sliced Wasserstein distance between samples of equal size.

    The root of the mean, over random directions, of W₂² between the projections. In d dimensions a shift by v costs
    ‖v‖ / √d.

    Parameters
    ----------
    x, y : tensor, shape (..., m, d)
        Samples, of equal sizes.
    n_directions : int
        Random unit directions, at least 1; the same for all pairs of a batch.
    generator : torch.Generator or int, optional
        Source (or seed) of the directions; by default torch's global state.

    Returns
    -------
    tensor, shape (...)
        Differentiable, with a gradient of 0 where both samples agree.

    Raises
    ------
    TypeError
        If an argument is no float tensor.
    ValueError
        If shapes differ, an argument is not finite, or n_directions is below 1.

    Notes
    -----
    One matrix product and one sort: O(m n_directions (d + log m)) a pair.

    Examples
    --------
    >>> x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> round(sliced_w2(x, x + torch.tensor([3.0, 4.0]), 10_000, generator=0).item())  # near 5 / √2
    4

    References
    ----------
    Bonneel, Rabin, Peyré and Pfister, *Sliced and Radon Wasserstein Barycenters of Measures* (2015).
    """
    _check_samples(x, y)
    if x.shape != y.shape:
        raise ValueError(f"y must have the shape of x, {tuple(x.shape)}; got {tuple(y.shape)}")
    if n_directions < 1:
        raise ValueError(f"n_directions must be at least 1; got {n_directions}")
    source = None if generator is None else as_generator(generator)
    place = x.device if source is None else source.device
    drawn = torch.randn(x.shape[-1], n_directions, dtype=x.dtype, device=place, generator=source).to(x.device)
    directions = drawn / drawn.norm(dim=0)
    gaps = (x @ directions).sort(-2).values - (y @ directions).sort(-2).values
    return _root(gaps.square().mean((-2, -1)))


@dataclass(frozen=True, eq=False)
class SinkhornDivergence:
    """A debiased entropic transport cost and how well it has converged.

    Parameters
    ----------
    value : tensor, shape (...)
        The divergence, in squared units; differentiable.
    marginal_error : tensor, shape (...)
        How much mass is not yet where it belongs, from 0 to 2, in the worst of the three transport problems.
    n_iterations : int
        Iterations of the first problem, all blurs together.
    converged : bool
        Whether every marginal error is within the tolerance asked for.
    """

    value: Float[Tensor, "*batch"]
    marginal_error: Float[Tensor, "*batch"]
    n_iterations: int
    converged: bool


def sinkhorn_divergence(
    x: Float[Tensor, "*batch m d"],
    y: Float[Tensor, "*batch k d"],
    blur: float = 0.05,
    n_iterations: int = 1000,
    tolerance: float = 1e-3,
) -> SinkhornDivergence:
    """Return the debiased entropic transport cost between samples: near W₂² for a small blur, 0 for equal samples.

    Parameters
    ----------
    x, y : tensor, shape (..., m, d) and (..., k, d)
        Samples of at least two points each; sizes may differ.
    blur : float
        Length below which detail is smoothed over, positive; the entropy weighs ``blur²``.
    n_iterations : int
        Most iterations at the final blur, at least 1, after a descent from the samples' diameter that halves it each
        step.
    tolerance : float
        Share of mass out of place at which to stop, positive.

    Returns
    -------
    SinkhornDivergence
        ``value`` to train on, and whether it has converged.

    Raises
    ------
    TypeError
        If an argument is no float tensor.
    ValueError
        If shapes do not fit, an argument is not finite, a sample has one point, blur or tolerance is not positive, or
        n_iterations is below 1.

    Notes
    -----
    O(m k) an iteration, in the logarithmic domain; a blur much below the distance between points takes many. Gradients
    come from the last iteration alone, which is exact where the potentials have converged.

    Examples
    --------
    >>> x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    >>> found = sinkhorn_divergence(x, x + torch.tensor([1.0, 0.0]))
    >>> round(found.value.item(), 2), found.converged
    (1.0, True)

    References
    ----------
    Feydy et al., *Interpolating between Optimal Transport and MMD using Sinkhorn Divergences*, arXiv:1810.08278,
    section 3.
    """
    _check_samples(x, y)
    if min(x.shape[-2], y.shape[-2]) < 2:
        raise ValueError(f"x and y must hold at least two points; got {x.shape[-2]} and {y.shape[-2]}")
    for name, length in (("blur", blur), ("tolerance", tolerance)):
        if not 0 < length < math.inf:
            raise ValueError(f"{name} must be positive and finite; got {length}")
    if n_iterations < 1:
        raise ValueError(f"n_iterations must be at least 1; got {n_iterations}")
    both = torch.cat([x, y], -2).detach()
    diameter = float((both.amax(-2) - both.amin(-2)).norm(dim=-1).max())
    blurs = [blur * 2**k for k in range(max(0, math.ceil(math.log2(max(diameter, blur) / blur))), 0, -1)]
    plans = [
        _transport(a, b, [*blurs, *[blur] * n_iterations], len(blurs), tolerance) for a, b in ((x, y), (x, x), (y, y))
    ]
    values, errors, counts = zip(*plans, strict=True)
    worst = torch.stack(errors).amax(0)
    value = values[0] - (values[1] + values[2]) / 2
    return SinkhornDivergence(value, worst, counts[0], bool((worst <= tolerance).all()))


def mmd_squared(
    x: Float[Tensor, "*batch m d"], y: Float[Tensor, "*batch k d"], bandwidth: float | None = None
) -> Float[Tensor, "*batch"]:
    """Return the squared maximum mean discrepancy between samples, with a Gaussian kernel, in its biased form.

    Parameters
    ----------
    x, y : tensor, shape (..., m, d) and (..., k, d)
        Samples; sizes may differ.
    bandwidth : float, optional
        Standard deviation of the kernel, positive; by default the median distance within both samples together.

    Returns
    -------
    tensor, shape (...)
        At least 0, differentiable.

    Raises
    ------
    TypeError
        If an argument is no float tensor.
    ValueError
        If shapes do not fit, an argument is not finite, or bandwidth is not positive.

    Notes
    -----
    O((m + k)² d).

    Examples
    --------
    >>> x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    >>> round(mmd_squared(x, x).item(), 6)
    0.0

    References
    ----------
    Gretton et al., *A Kernel Two-Sample Test* (2012), equation 5.
    """
    _check_samples(x, y)
    if bandwidth is not None and not 0 < bandwidth < math.inf:
        raise ValueError(f"bandwidth must be positive and finite; got {bandwidth}")
    both = torch.cat([x, y], -2)
    squared = _squared_distances(both, both)
    if bandwidth is None:
        width = squared.detach().flatten(-2).median(-1).values[..., None, None].clamp(min=1e-12)
    else:
        width = squared.new_tensor(bandwidth**2)
    kernel, m = (-squared / (2 * width)).exp(), x.shape[-2]
    within = kernel[..., :m, :m].mean((-2, -1)) + kernel[..., m:, m:].mean((-2, -1))
    return (within - 2 * kernel[..., :m, m:].mean((-2, -1))).clamp(min=0)


def energy_distance(
    x: Float[Tensor, "*batch m d"], y: Float[Tensor, "*batch k d"], *, unbiased: bool = False
) -> Float[Tensor, "*batch"]:
    """Return 2 E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖ between samples: 0 exactly for equal distributions.

    Parameters
    ----------
    x, y : tensor, shape (..., m, d) and (..., k, d)
        Samples; sizes may differ.
    unbiased : bool
        Leave out the distance of each point to itself: 0 on average for equal distributions, whatever the sizes, so
        that training on small samples does not favour too little spread. Needs two points or more.

    Returns
    -------
    tensor, shape (...)
        At least 0 (the unbiased one can fall below), differentiable.

    Raises
    ------
    TypeError
        If an argument is no float tensor.
    ValueError
        If shapes do not fit, an argument is not finite, or samples of one point are asked for the unbiased one.

    Notes
    -----
    O((m + k)² d).

    Examples
    --------
    >>> energy_distance(torch.zeros(3, 1), torch.ones(2, 1)).item()
    2.0

    References
    ----------
    Székely and Rizzo, *Energy Statistics* (2013), section 1.
    """
    _check_samples(x, y)
    between, first, second = (_root(_squared_distances(a, b)).mean((-2, -1)) for a, b in ((x, y), (x, x), (y, y)))
    if not unbiased:
        return (2 * between - first - second).clamp(min=0)
    m, k = x.shape[-2], y.shape[-2]
    if min(m, k) < 2:
        raise ValueError(f"x and y must hold two points or more; got {m} and {k}")
    return 2 * between - first * (m / (m - 1)) - second * (k / (k - 1))


def _transport(
    x: Tensor, y: Tensor, blurs: list[float], n_descent: int, tolerance: float
) -> tuple[Tensor, Tensor, int]:
    """Return the dual value of entropic transport with squared distances, its marginal error, and the iterations."""
    cost = _squared_distances(x, y)
    held = cost.detach()
    f, g = torch.zeros_like(held[..., 0]), torch.zeros_like(held[..., 0, :])
    n, error = 0, torch.full_like(held[..., 0, 0], 2.0)
    for n, blur in enumerate(blurs, 1):
        epsilon = blur**2
        wanted = _potential(held, g, epsilon)
        # With g just updated all columns of the plan are right: what the rows lack is how far f is from fitting g.
        error = (((f - wanted) / epsilon).exp() - 1).abs().mean(-1)
        if n > n_descent + 1 and bool((error <= tolerance).all()):
            break
        f = (f + wanted) / 2 if x is y else wanted
        g = f if x is y else _potential(held.mT, f, epsilon)
    # The gradient of the value with respect to the cost is the plan, which the last potential alone gives.
    return f.mean(-1) + _potential(cost.mT, f, blurs[-1] ** 2).mean(-1), error, n


def _potential(cost: Tensor, other: Tensor, epsilon: float) -> Tensor:
    """Return the potential of the rows that fits that of the columns."""
    return -epsilon * ((other[..., None, :] - cost) / epsilon - math.log(cost.shape[-1])).logsumexp(-1)


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    return (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)


def _root(squared: Tensor) -> Tensor:
    """Return the root, with a gradient of 0 instead of infinity at 0."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


def _check_samples(x: object, y: object) -> None:
    for name, sample in (("x", x), ("y", y)):
        check_float(name, sample)
        assert isinstance(sample, Tensor)
        if sample.ndim < 2 or sample.shape[-2] == 0:
            raise ValueError(f"{name} must have shape (..., m, d) with m at least 1; got {tuple(sample.shape)}")
    assert isinstance(x, Tensor)
    assert isinstance(y, Tensor)
    if x.shape[-1] != y.shape[-1] or x.shape[:-2] != y.shape[:-2]:
        raise ValueError(f"y must match x but for the number of points; got {tuple(y.shape)} for {tuple(x.shape)}")
