"""Wasserstein distances that are known exactly: between Gaussians and their mixtures, and on the line."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from scipy.optimize import linprog
from torch import Tensor

from offprint.methods.bags.ragged import all_finite


def gaussian_w2(
    mean1: Float[Tensor, "*#batch d"],
    covariance1: Float[Tensor, "*#batch d d"],
    mean2: Float[Tensor, "*#batch d"],
    covariance2: Float[Tensor, "*#batch d d"],
) -> Float[Tensor, "..."]:
    """Return the Wasserstein distance W₂ between Gaussians.

    W₂² = ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½): the squares are added, then the root is taken.

    Parameters
    ----------
    mean1, mean2 : tensor, shape (..., d)
        Means; leading dimensions broadcast.
    covariance1, covariance2 : tensor, shape (..., d, d)
        Symmetric and positive semi-definite; eigenvalues down to −1e-5 times the largest count as rounding.

    Returns
    -------
    tensor, shape (...)

    Raises
    ------
    TypeError
        If an argument is no float tensor.
    ValueError
        If shapes do not fit, or an argument is not finite, not symmetric or not positive semi-definite.

    Notes
    -----
    O(d³) a pair, all pairs in batched decompositions; in one and two dimensions in closed form. Traces are subtracted
    only where that keeps ten digits of the square, in double precision; elsewhere, as between near equal or singular
    Gaussians, the square is computed as a sum of squares, which costs several times as much.

    Examples
    --------
    >>> a = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    >>> b = torch.tensor([[1.0, -0.3], [-0.3, 1.5]], dtype=torch.float64)
    >>> mean = torch.zeros(2, dtype=torch.float64)
    >>> round(gaussian_w2(mean, a, mean + torch.tensor([1.0, -2.0]), b).item(), 6)
    2.337407

    References
    ----------
    Dowson and Landau, *The Fréchet Distance between Multivariate Normal Distributions* (1982). Fishman et al.,
    *Generative Distribution Embeddings*, arXiv:2505.18150, which compares latent distances with it.
    """
    for names, mean, covariance in (
        (("mean1", "covariance1"), mean1, covariance1),
        (("mean2", "covariance2"), mean2, covariance2),
    ):
        _check_gaussian(names, mean, covariance)
    _check_dimensions(mean1=mean1, mean2=mean2)
    _check_broadcast(
        mean1=mean1[..., 0], covariance1=covariance1[..., 0, 0], mean2=mean2[..., 0], covariance2=covariance2[..., 0, 0]
    )
    return _gaussian_w2(mean1, covariance1, mean2, covariance2)


def gaussian_geodesic(
    mean1: Float[Tensor, " d"],
    covariance1: Float[Tensor, "d d"],
    mean2: Float[Tensor, " d"],
    covariance2: Float[Tensor, "d d"],
    times: Float[Tensor, " steps"],
) -> tuple[Float[Tensor, "steps d"], Float[Tensor, "steps d d"]]:
    """Return means and covariances along the optimal-transport path between two Gaussians.

    Parameters
    ----------
    mean1, mean2 : tensor, shape (d,)
        Means of the two ends.
    covariance1, covariance2 : tensor, shape (d, d)
        Symmetric; the first positive definite, the second positive semi-definite.
    times : tensor, shape (steps,)
        In [0, 1]: 0 is the first end.

    Returns
    -------
    means : tensor, shape (steps, d)
    covariances : tensor, shape (steps, d, d)

    Raises
    ------
    TypeError
        If an argument is no float tensor.
    ValueError
        If shapes do not fit, a covariance is not what it must be, or a time is outside [0, 1].

    Notes
    -----
    The map T = Σ₁^{−½} (Σ₁^½ Σ₂ Σ₁^½)^½ Σ₁^{−½} moves points along straight lines at constant speed, so that
    Σ_t = ((1−t) I + t T) Σ₁ ((1−t) I + t T). O(d³ · steps).

    Examples
    --------
    >>> means, covariances = gaussian_geodesic(
    ...     torch.zeros(1), torch.ones(1, 1), torch.ones(1), 9 * torch.ones(1, 1), torch.tensor([0.5])
    ... )
    >>> means.item(), round(covariances.item(), 4)  # standard deviations 1 and 3 meet at 2
    (0.5, 4.0)

    References
    ----------
    McCann, *A Convexity Principle for Interacting Gases* (1997), example 1.7.
    """
    for names, mean, covariance in (
        (("mean1", "covariance1"), mean1, covariance1),
        (("mean2", "covariance2"), mean2, covariance2),
    ):
        _check_gaussian(names, mean, covariance)
        if mean.ndim != 1 or covariance.ndim != 2:
            raise ValueError(f"{names[0]} and {names[1]} must be one Gaussian; got shape {tuple(covariance.shape)}")
    _check_dimensions(mean1=mean1, mean2=mean2)
    check_float("times", times)
    if times.ndim != 1 or not bool(((times >= 0) & (times <= 1)).all()):
        raise ValueError(f"times must be a vector of numbers in [0, 1]; got {times}")
    values, vectors = torch.linalg.eigh(covariance1)
    if not bool(values[0] > len(values) * torch.finfo(values.dtype).eps * values[-1]):
        raise ValueError(f"covariance1 must be positive definite; its eigenvalues are {values.tolist()}")
    root = _root(covariance1)
    inverse = (vectors / values.sqrt()) @ vectors.mT
    move = inverse @ _root(root @ covariance2 @ root) @ inverse
    t = times[:, None, None]
    flow = (1 - t) * torch.eye(len(mean1), dtype=move.dtype, device=move.device) + t * move
    return (1 - times[:, None]) * mean1 + times[:, None] * mean2, flow @ covariance1 @ flow


def gmm_w2(
    weights1: Float[Tensor, "*#batch k1"],
    means1: Float[Tensor, "*#batch k1 d"],
    covariances1: Float[Tensor, "*#batch k1 d d"],
    weights2: Float[Tensor, "*#batch k2"],
    means2: Float[Tensor, "*#batch k2 d"],
    covariances2: Float[Tensor, "*#batch k2 d d"],
) -> Float[Tensor, "..."]:
    """Return the mixture-Wasserstein distance between Gaussian mixtures: components are moved as wholes.

    Parameters
    ----------
    weights1, weights2 : tensor, shape (..., k)
        Weights of the components, at least 0 and adding up to 1.
    means1, means2 : tensor, shape (..., k, d)
        Means of the components.
    covariances1, covariances2 : tensor, shape (..., k, d, d)
        Symmetric and positive semi-definite.

    Returns
    -------
    tensor, shape (...)
        An upper bound of W₂ between the mixtures. Not differentiable.

    Raises
    ------
    TypeError
        If an argument is no float tensor.
    ValueError
        If shapes do not fit, weights are negative or do not add up to 1, or as :func:`gaussian_w2`.

    Notes
    -----
    Optimal transport between the weights, with squared Gaussian distances as cost: one sparse linear programme for all
    pairs at once.

    Examples
    --------
    >>> weights, means = torch.tensor([0.5, 0.5]), torch.tensor([[0.0], [4.0]])
    >>> round(gmm_w2(weights, means, torch.ones(2, 1, 1), weights, means + 1, torch.ones(2, 1, 1)).item(), 4)
    1.0

    References
    ----------
    Delon and Desolneux, *A Wasserstein-Type Distance in the Space of Gaussian Mixture Models*, arXiv:1907.05254,
    section 4.
    """
    _check_mixture("1", weights1, means1, covariances1)
    _check_mixture("2", weights2, means2, covariances2)
    _check_dimensions(means1=means1, means2=means2)
    _check_broadcast(means1=means1[..., 0, 0], means2=means2[..., 0, 0])
    cost = _gaussian_w2(
        means1[..., :, None, :],
        covariances1[..., :, None, :, :],
        means2[..., None, :, :],
        covariances2[..., None, :, :, :],
    ).square()
    *batch, k1, k2 = cost.shape
    rows = weights1.expand(*batch, k1).reshape(-1, k1).double()
    columns = weights2.expand(*batch, k2).reshape(-1, k2).double()
    values = _transport(
        cost.reshape(-1, k1, k2), rows / rows.sum(1, keepdim=True), columns / columns.sum(1, keepdim=True)
    )
    return values.reshape(batch).to(cost).clamp(min=0).sqrt()


def w2_1d(x: Float[Tensor, "*batch m"], y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch"]:
    """Return W₂ between samples of equal size on the line: sort both and pair them up.

    Parameters
    ----------
    x, y : tensor, shape (..., m)
        Samples.

    Returns
    -------
    tensor, shape (...)

    Raises
    ------
    TypeError
        If an argument is no float tensor.
    ValueError
        If sizes differ or an argument is not finite.

    Notes
    -----
    O(m log m).

    Examples
    --------
    >>> w2_1d(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 2.0])).item()
    2.0

    References
    ----------
    Peyré and Cuturi, *Computational Optimal Transport*, arXiv:1803.00567, remark 2.28.
    """
    for name, sample in (("x", x), ("y", y)):
        check_float(name, sample)
    if x.shape != y.shape:
        raise ValueError(f"y must have the shape of x, {tuple(x.shape)}; got {tuple(y.shape)}")
    return (x.sort(-1).values - y.sort(-1).values).square().mean(-1).sqrt()


def _gaussian_w2(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> Tensor:
    """Return W₂ of what has been checked."""
    return ((mean1 - mean2).square().sum(-1) + _squared_bures(covariance1, covariance2)).sqrt()


def _squared_bures(a: Tensor, b: Tensor) -> Tensor:
    """Return tr(A + B − 2 (A^½ B A^½)^½) as a sum of squares."""
    d = a.shape[-1]
    if d == 1:
        squared: Tensor = (a.clamp(min=0).sqrt() - b.clamp(min=0).sqrt()).square()[..., 0, 0]
        return squared
    if d == 2:
        return _squared_bures_in_the_plane(a, b)
    if a.dtype != torch.float64:
        return _sum_of_squares(a, b)
    found, enough = _difference_of_traces(a, b)
    if not bool(enough.all()):
        rest = [part.expand(*found.shape, d, d)[~enough] for part in (a, b)]
        found[~enough] = _sum_of_squares(*rest)
    return found


def _squared_bures_in_the_plane(a: Tensor, b: Tensor) -> Tensor:
    """Return the same of 2 × 2 matrices, entry by entry, which is many times faster than by decompositions.

    With s the root of the determinant, A^½ B A^½ has a root of trace (tr AB + 2 s_A s_B)^½. The difference from
    tr(A + B), multiplied by the sum of the two, is a sum of squares.
    """
    (a11, a12, a21, a22), (b11, b12, b21, b22) = (c.flatten(-2).unbind(-1) for c in (a, b))
    root_a, root_b = (a11 * a22 - a12 * a21).clamp(min=0).sqrt(), (b11 * b22 - b12 * b21).clamp(min=0).sqrt()
    gap11, gap12, gap22 = a11 - b11, a12 - b12, a22 - b22
    squares = (root_a - root_b).square() + (gap11 - gap22).square() / 4 + gap12.square()
    product = a11 * b11 + a12 * b21 + a21 * b12 + a22 * b22
    total = a11 + a22 + b11 + b22 + 2 * (product + 2 * root_a * root_b).clamp(min=0).sqrt()
    return 4 * squares / torch.where(total > 0, total, 1.0)


def _difference_of_traces(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return tr(A + B) − 2 tr (LᵀBL)^½, A = LLᵀ, and where what rounding does to it is below a share of 1e-10."""
    factor, info = torch.linalg.cholesky_ex(a)
    if bool(info.any()):  # what a factor that failed holds is left open
        factor = torch.linalg.cholesky(torch.where(info[..., None, None] == 0, a, torch.eye(a.shape[-1]).to(a)))
    values = torch.linalg.eigvalsh(factor.mT @ b @ factor).clamp(min=0)
    traces = _trace(a), _trace(b)
    found = traces[0] + traces[1] - 2 * values.sqrt().sum(-1)
    # Rounding moves an eigenvalue by its unit times the norms of both, and the root of the least by most.
    lost = (
        torch.finfo(a.dtype).eps * a.shape[-1] * (traces[0] + traces[1] + traces[0] * traces[1] / values[..., 0].sqrt())
    )
    return found, (info == 0) & (lost <= 1e-10 * found)


def _sum_of_squares(a: Tensor, b: Tensor) -> Tensor:
    """Return the least ‖A^½ − B^½ U‖² over rotations U, which the polar factor of B^½ A^½ attains."""
    root_a, root_b = _root(a), _root(b)
    left, _, right = torch.linalg.svd(root_b @ root_a)
    least: Tensor = (root_a - root_b @ left @ right).square().sum((-2, -1))
    return least


def _root(covariance: Tensor) -> Tensor:
    """Return the symmetric root of a symmetric matrix."""
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT
    return root


def _trace(a: Tensor) -> Tensor:
    return a.diagonal(dim1=-2, dim2=-1).sum(-1)


def _transport(cost: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Solve many small transport problems as the one linear programme that they are together."""
    n, k1, k2 = cost.shape
    variable = np.arange(n * k1 * k2).reshape(n, k1, k2)
    row = np.broadcast_to(np.arange(n * k1).reshape(n, k1, 1), variable.shape)
    column = np.broadcast_to(n * k1 + np.arange(n * k2).reshape(n, 1, k2), variable.shape)
    places = np.concatenate([row.ravel(), column.ravel()]), np.concatenate([variable.ravel()] * 2)
    constraints: Any = scipy.sparse.csr_array((np.ones(len(places[0])), places))
    totals = torch.cat([rows.flatten(), columns.flatten()]).cpu().numpy()
    costs = cost.detach().double().cpu().numpy()
    found = linprog(costs.ravel(), A_eq=constraints, b_eq=totals, method="highs")
    if found.x is None:
        raise RuntimeError(f"the transport problem was not solved: {found.message}")
    return torch.as_tensor((found.x.reshape(costs.shape) * costs).sum((1, 2)))


def check_float(name: str, value: object) -> None:
    """Refuse what is no finite tensor of floating-point numbers, naming the argument.

    Examples
    --------
    >>> check_float("x", torch.ones(2))
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name} must be a tensor of floating-point numbers; got {type(value).__name__}")
    if not all_finite(value):
        raise ValueError(f"{name} must be finite; it holds NaN or infinity")


def _check_gaussian(names: tuple[str, str], mean: Tensor, covariance: Tensor) -> None:
    """Refuse what is no Gaussian: leading dimensions are not looked at."""
    for name, value in zip(names, (mean, covariance), strict=True):
        check_float(name, value)
    d = mean.shape[-1] if mean.ndim else 0
    if d == 0 or covariance.ndim < 2 or covariance.shape[-2:] != (d, d):
        raise ValueError(
            f"{names[0]} and {names[1]} must have shapes (..., d) and (..., d, d); "
            f"got {tuple(mean.shape)} and {tuple(covariance.shape)}"
        )
    size = covariance.abs().amax((-2, -1))
    asymmetry, least = _asymmetry_in_the_plane(covariance) if d == 2 else _asymmetry(covariance, size)
    if bool((asymmetry > 1e-5 * size).any()):
        raise ValueError(f"{names[1]} must be symmetric")
    if least is not None and bool((least < -1e-5 * size).any()):
        raise ValueError(f"{names[1]} must be positive semi-definite; it has an eigenvalue of {least.min():.3g}")


def _asymmetry_in_the_plane(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far 2 × 2 matrices are from symmetric, and their least eigenvalues."""
    a11, a12, a21, a22 = a.flatten(-2).unbind(-1)
    return (a12 - a21).abs(), (a11 + a22) / 2 - torch.hypot((a11 - a22) / 2, a12)


def _asymmetry(a: Tensor, size: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the same of larger matrices, but no eigenvalues where none is below a rounding of ``size``."""
    # Most are positive definite with a little added, and to see that costs a fraction of their eigenvalues.
    raised = a + (1e-5 * size)[..., None, None] * torch.eye(a.shape[-1]).to(a)
    definite = not bool(torch.linalg.cholesky_ex(raised).info.any())
    return (a - a.mT).abs().amax((-2, -1)), None if definite else torch.linalg.eigvalsh(a)[..., 0]


def _check_mixture(number: str, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
    """Refuse what is no mixture of Gaussians."""
    names = f"weights{number}", f"means{number}", f"covariances{number}"
    check_float(names[0], weights)
    _check_gaussian(names[1:], means, covariances)
    if weights.ndim == 0 or means.ndim < 2 or covariances.ndim < 3:
        raise ValueError(f"{names[0]}, {names[1]} and {names[2]} must have a dimension of components")
    if not weights.shape[-1] == means.shape[-2] == covariances.shape[-3]:
        raise ValueError(
            f"{names[0]}, {names[1]} and {names[2]} must share their number of components; "
            f"got {weights.shape[-1]}, {means.shape[-2]} and {covariances.shape[-3]}"
        )
    if bool((weights < 0).any()) or bool(((weights.sum(-1) - 1).abs() > 1e-4).any()):
        raise ValueError(f"{names[0]} must be at least 0 and add up to 1; got {weights}")
    _check_broadcast(**{names[0]: weights, names[1]: means[..., 0], names[2]: covariances[..., 0, 0]})


def _check_dimensions(**means: Tensor) -> None:
    """Refuse points of unequal dimensions, naming the arguments."""
    if len({mean.shape[-1] for mean in means.values()}) > 1:
        found = " and ".join(str(mean.shape[-1]) for mean in means.values())
        raise ValueError(f"{' and '.join(means)} must be of one dimension; got {found}")


def _check_broadcast(**values: Tensor) -> None:
    """Refuse shapes that do not broadcast, naming the arguments."""
    try:
        np.broadcast_shapes(*(tuple(value.shape) for value in values.values()))
    except ValueError:
        shapes = ", ".join(str(tuple(value.shape)) for value in values.values())
        raise ValueError(f"{', '.join(values)} must have leading dimensions that broadcast; got {shapes}") from None
