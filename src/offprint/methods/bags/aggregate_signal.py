"""Noise and signal of a data set, estimated from bag means alone, for the theory to be asked about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from offprint.methods.bags.aggregate import align_bags


@dataclass(frozen=True)
class Signal:
    """What :func:`asymptotic_risk` needs to know of a data set, estimated from bag means alone.

    Parameters
    ----------
    psi : float
        Rows per feature.
    k : float
        Rows per bag, on average.
    sigma2 : float
        Variance of a label given its features, in squared units of the label.
    r2 : float
        Variance of a label that its features explain, in the same units.
    """

    psi: float
    k: float
    sigma2: float
    r2: float


def estimate_signal(
    X: ArrayLike,
    bag_ids: ArrayLike,
    bag_means: ArrayLike | Mapping[Any, float],
) -> Signal:
    r"""Estimate noise and signal variance from bag means, so that :func:`optimal_rho` can be asked about real data.

    Parameters
    ----------
    X : array, shape (n, d)
        Features of every row, n > d, of full rank once centred.
    bag_ids : array of int or str, shape (n,)
        The bag of each row.
    bag_means : array of shape (bags,) in the sorted order of the distinct ids, or mapping from id to mean
        Mean label of each bag; at least 3 bags.

    Returns
    -------
    Signal
        ``asymptotic_risk(signal.psi, signal.k, rho, signal.sigma2, signal.r2)`` is then the expected excess risk.

    Raises
    ------
    ValueError
        If there are too few rows or bags, features are collinear, or anything is not finite or does not match.

    Notes
    -----
    Maximum likelihood, with the intercept taken out, in the model where the coefficients of whitened features are
    independent and Gaussian: the scaled bag means then have covariance :math:`\sigma^2 I + (r^2/d) Z_1\hat\Sigma^{-1}
    Z_1^\top`, one singular value decomposition makes it diagonal, and a scalar search over the ratio remains. Works
    with fewer bags than features. Where bag means carry privacy noise it is counted in ``sigma2``, as it should be.
    Cost O(n d²).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(3000, 20))
    >>> y = X @ np.full(20, 0.5) + rng.normal(size=3000)
    >>> bag_ids = np.arange(3000) // 3
    >>> signal = estimate_signal(X, bag_ids, y.reshape(-1, 3).mean(1))
    >>> signal.psi, signal.k, round(signal.sigma2, 1), 4 < signal.r2 < 6
    (150.0, 3.0, 1.0, True)

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, arXiv:2401.11081, for the use. Jiang, *Linear and Generalized Linear
    Mixed Models and Their Applications*, chapter 1, for restricted maximum likelihood.
    """
    rows = np.asarray(X, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[0] <= rows.shape[1] + 1:
        raise ValueError(f"X must be a matrix with more than d + 1 rows; got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("X must be finite; it holds NaN or infinity")
    index, targets = align_bags(bag_ids, bag_means, len(rows))
    if targets.ndim != 1 or len(targets) < 3:
        raise ValueError(f"bag_means must hold one number for each of at least 3 bags; got shape {targets.shape}")
    n, d = rows.shape
    rows = rows - rows.mean(0)
    try:
        whitener = scipy.linalg.cholesky(rows.T @ rows / n, lower=True)
    except scipy.linalg.LinAlgError as error:
        raise ValueError("X must have full column rank once centred; drop features that others determine") from error
    # Rows scaled so that each carries noise of variance sigma2, then rid of the direction that the intercept takes up.
    root = np.sqrt(index.sizes)
    z = scipy.linalg.solve_triangular(whitener, (root[:, None] * index.means(rows)).T, lower=True).T
    ones = root / np.linalg.norm(root)
    z, response = z - np.outer(ones, ones @ z), root * targets
    response = response - ones * (ones @ response)
    basis, singular, _ = scipy.linalg.svd(z, full_matrices=False)
    basis, spectrum = basis[:, singular > 1e-10 * singular.max()], singular[singular > 1e-10 * singular.max()] ** 2 / d
    squares = (basis.T @ response) ** 2
    n_rest = len(targets) - 1 - len(squares)
    rest = np.full(n_rest, max(response @ response - squares.sum(), 0.0) / max(n_rest, 1))
    sigma2, r2 = _variance_components(np.append(squares, rest), np.append(spectrum, np.zeros(n_rest)))
    return Signal(n / d, n / len(targets), sigma2, r2)


def _variance_components(squares: Float[np.ndarray, " b"], spectrum: Float[np.ndarray, " b"]) -> tuple[float, float]:
    """Fit ``squares[i]`` as draws of variance ``sigma2 + r2 * spectrum[i]`` by maximum likelihood."""
    if not squares.any():
        return 0.0, 0.0

    def negative_log_likelihood(share: float) -> float:
        shape = (1 - share) + share * spectrum
        return float(len(squares) * np.log((squares / shape).mean()) + np.log(shape).sum())

    # The likelihood of a variance ratio can be flat; a grid before the search keeps it from a local optimum.
    shares = np.linspace(1e-6, 1 - 1e-6, 101)
    start = int(np.argmin([negative_log_likelihood(share) for share in shares]))
    bounds = (shares[max(start - 1, 0)], shares[min(start + 1, 100)])
    share = float(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x)
    scale = float((squares / ((1 - share) + share * spectrum)).mean())
    return scale * (1 - share), scale * share
