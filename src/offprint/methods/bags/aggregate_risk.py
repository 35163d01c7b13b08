"""What learning a linear model from bag means costs: the exact high-dimensional risk, and the choices that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.optimize.elementwise import find_root

from offprint.methods.privacy.mechanisms import gaussian_scale, laplace_scale

Real = float | Float[np.ndarray, "..."]
LARGEST_LOG_TAU = 600.0


@dataclass(frozen=True)
class Risk:
    """The limiting excess risk at one point (floats) or at many (arrays).

    Parameters
    ----------
    bias2, variance, total : float or array
        Squared bias, variance and their sum, in the units of ``sigma2``; infinite where there is no unique solution.
    tau : float or array
        The root of the fixed-point equation from which they follow.
    reason : str
        Why some of them are infinite; empty when none is.
    """

    bias2: Real
    variance: Real
    total: Real
    tau: Real
    reason: str = ""


@dataclass(frozen=True)
class OptimalRho:
    """The interpolation with the least limiting risk, and that risk; arrays where the arguments were."""

    rho: Real
    risk: Risk


@dataclass(frozen=True)
class OptimalBagSize:
    """The bag size with the least limiting risk under a privacy budget.

    Parameters
    ----------
    k : int
        The best bag size.
    rho, risk : float
        The interpolation there, and its risk.
    sizes, rhos, risks : array, shape (k_max,)
        Every size that was compared, with its best interpolation and its risk (infinite where it has none).
    """

    k: int
    rho: float
    risk: float
    sizes: Int[np.ndarray, " sizes"]
    rhos: Float[np.ndarray, " sizes"]
    risks: Float[np.ndarray, " sizes"]


def asymptotic_risk(
    psi: ArrayLike,
    k: ArrayLike,
    rho: ArrayLike,
    sigma2: ArrayLike = 1.0,
    r2: ArrayLike = 1.0,
    *,
    ridge: ArrayLike = 0.0,
    rho_max: float = 1.0,
) -> Risk:
    r"""Return the excess risk of the interpolating linear estimator as rows and features grow together.

    Rows are Gaussian, labels linear in them with noise, bags of equal size are drawn regardless of the data, and only
    bag means of labels are known. Use it to see what a bag size or an interpolation costs before collecting anything.

    Parameters
    ----------
    psi : float or array, shape (...)
        Rows per feature, n/d, positive.
    k : float or array, shape (...)
        Rows per bag, at least 1.
    rho : float or array, shape (...)
        Interpolation, in [0, rho_max]: 0 is the bag loss, 1 the instance loss.
    sigma2 : float or array, shape (...)
        Variance of the noise of a label, at least 0.
    r2 : float or array, shape (...)
        Variance of a label's signal, at least 0: :math:`\theta_0^\top \Sigma \theta_0` for features of covariance
        :math:`\Sigma`.
    ridge : float or array, shape (...)
        A further penalty :math:`d \cdot` ``ridge`` :math:`\cdot \|\theta\|^2` on :math:`\|Z_1\theta - y\|^2`, at least
        0 (see Notes). With ``rho=0`` this is ridge regression on bag means.
    rho_max : float
        Largest interpolation accepted. Above 1 the spread within bags is penalised harder than by the instance loss;
        the theory holds there as well.

    Returns
    -------
    Risk
        Floats when every argument is a number, else arrays of their common shape.

    Raises
    ------
    ValueError
        If an argument is out of range or not finite.

    Notes
    -----
    With :math:`Z_1` the bag means times :math:`\sqrt k`, :math:`Z_2` the deviations within bags,
    :math:`\psi_1 = \psi/k` and :math:`\psi_2 = \psi(k-1)/k`, the estimator is
    :math:`(Z_1^\top Z_1 + \rho Z_2^\top Z_2 + d\lambda I)^{-1} Z_1^\top \sqrt{k}\,\bar y`, and :math:`\tau` solves

    .. math:: \psi_1 \frac{\tau}{1+\tau} + \psi_2 \frac{\rho\tau}{1+\rho\tau} + \lambda\tau = 1.

    There is no root, and the risk is infinite, when :math:`\lambda = 0` and :math:`\psi \le 1` (or :math:`\psi \le k`
    for :math:`\rho = 0`). With :math:`F = \psi_1/(1+\tau)^2 + \psi_2\rho/(1+\rho\tau)^2` and
    :math:`Q = \tau/(F+\lambda)`,

    .. math::
        V = \sigma^2 \frac{\psi_1 Q}{(1+\tau)^2}, \qquad
        B = r^2 \Bigl[1 - \frac{2\psi_1\tau}{1+\tau} + \frac{\psi_1 Q}{(1+\tau)^2}
            + \frac{\psi_1^2 Q (1-\tau)}{(1+\tau)^3}\Bigr].

    Without ridge the estimator follows any linear change of the features, so B + V is the excess risk of prediction for
    features of any covariance; with ridge it needs :math:`\Sigma = I`. The cost is O(1) per point, vectorised.

    Examples
    --------
    >>> risk = asymptotic_risk(psi=5, k=2, rho=0.5)
    >>> round(risk.bias2, 6), round(risk.variance, 6)
    (0.187275, 0.205913)
    >>> asymptotic_risk(psi=3, k=4, rho=0).reason
    'rho = 0 needs psi > k: fewer bags than features leave the bag loss without a unique minimiser'

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, *Learning from Aggregate responses: Instance Level versus Bag Level
    Loss Functions*, arXiv:2401.11081, the risk in the proportional regime. The form above was derived anew by leaving
    one row out, with the ridge term added.
    """
    _at_least("psi", psi, 0, strict=True)
    _at_least("k", k, 1)
    _in_range_rho(rho, rho_max)
    for name, value in (("sigma2", sigma2), ("r2", r2), ("ridge", ridge)):
        _at_least(name, value, 0)
    psi, k, rho, sigma2, r2, ridge = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (psi, k, rho, sigma2, r2, ridge))
    )
    psi_1, psi_2 = psi / k, psi * (k - 1) / k
    solvable = (ridge > 0) | (psi_1 + psi_2 * (rho > 0) > 1)
    tau = _tau(psi_1, psi_2, rho, ridge, solvable)
    slope = psi_1 / (1 + tau) ** 2 + psi_2 * rho / (1 + rho * tau) ** 2
    q = tau / (slope + ridge)
    variance = sigma2 * psi_1 * q / (1 + tau) ** 2
    shrinkage = psi_1 * tau / (1 + tau)
    bias2 = r2 * (1 - 2 * shrinkage + psi_1 * q / (1 + tau) ** 2 + psi_1**2 * q * (1 - tau) / (1 + tau) ** 3)
    bias2 = np.maximum(bias2, 0.0)  # where the bias is zero its terms cancel only up to rounding
    infinite = ~solvable
    bias2, variance, tau = (_plain(np.where(infinite, np.inf, value)) for value in (bias2, variance, tau))
    return Risk(bias2, variance, bias2 + variance, tau, _reason(infinite, psi))


def optimal_rho(
    psi: ArrayLike, k: ArrayLike, sigma2: ArrayLike = 1.0, r2: ArrayLike = 1.0, *, rho_max: float = 1.0
) -> OptimalRho:
    """Return the interpolation between bag and instance loss with the least limiting risk.

    Parameters
    ----------
    psi : float or array, shape (...)
        Rows per feature, positive.
    k : float or array, shape (...)
        Rows per bag, at least 1. With ``k=1`` every interpolation is the same, and 0 is returned.
    sigma2, r2 : float or array, shape (...)
        Variances of noise and signal, at least 0. Only their ratio moves the optimum.
    rho_max : float
        Largest interpolation searched, positive. The optimum often sits at 1; a larger value shows what lies beyond.

    Returns
    -------
    OptimalRho
        With the risk there, which is infinite, and ``rho`` meaningless, where ``psi <= 1``.

    Raises
    ------
    ValueError
        If an argument is out of range or not finite.

    Notes
    -----
    Four grids of 65 values, each around the best value of the one before, locate the optimum to 1e-6. Cost is O(1) per
    point, vectorised over all arguments.

    Examples
    --------
    >>> best = optimal_rho(psi=5, k=2)
    >>> round(best.rho, 2), round(best.risk.total, 4)
    (0.4, 0.3903)
    >>> optimal_rho(psi=5, k=2, r2=[0.25, 1.0, 4.0]).rho.round(2)
    array([1.  , 0.4 , 0.08])

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, arXiv:2401.11081, the discussion of the optimal interpolation.
    """
    _at_least("rho_max", rho_max, 0, strict=True)
    points = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (psi, k, sigma2, r2)))
    psi, k, sigma2, r2 = (point[..., None] for point in points)
    low, high = np.zeros(points[0].shape), np.full(points[0].shape, float(rho_max))
    for _ in range(4):
        grid = np.linspace(low, high, 65, axis=-1)
        risks = np.asarray(asymptotic_risk(psi, k, grid, sigma2, r2, rho_max=rho_max).total)
        best = np.take_along_axis(grid, risks.argmin(-1)[..., None], -1)[..., 0]
        step = (high - low) / 64
        low, high = np.maximum(best - step, 0.0), np.minimum(best + step, rho_max)
    rho = _plain(np.where(points[1] == 1, 0.0, best))
    psi, k, sigma2, r2 = points
    return OptimalRho(rho, asymptotic_risk(psi, k, rho, sigma2, r2, rho_max=rho_max))


def release_noise(k: ArrayLike, epsilon: float, sensitivity: float, delta: float = 0.0) -> Real:
    r"""Return what a private release of bag means adds to the noise variance of every label.

    A mean of k labels that carries noise of variance s is as informative as one without whose labels carry k s more.
    Add the result to ``sigma2`` of :func:`asymptotic_risk` to get the risk under label privacy.

    Parameters
    ----------
    k : float or array, shape (...)
        Rows per bag, at least 1.
    epsilon : float
        Privacy budget, positive.
    sensitivity : float
        Range of one label, high − low after clipping, positive.
    delta : float
        0 for the Laplace mechanism; in (0, 1) for the Gaussian.

    Returns
    -------
    float or array
        :math:`2\Delta^2/(k\varepsilon^2)` for Laplace noise.

    Raises
    ------
    ValueError
        If an argument is out of range or not finite.

    Notes
    -----
    O(1) per bag size.

    Examples
    --------
    >>> release_noise(4, epsilon=0.5, sensitivity=1.0)
    2.0

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, arXiv:2401.11081, the label-private mechanism.
    """
    _at_least("k", k, 1)
    sizes = np.asarray(k, dtype=np.float64)
    if delta == 0:
        noise = 2 * laplace_scale(sensitivity, epsilon) ** 2 / sizes
    else:
        noise = gaussian_scale(sensitivity, epsilon, delta) ** 2 / sizes
    added: Real = _plain(noise)
    return added


def optimal_bag_size(
    psi: float,
    sigma2: float = 1.0,
    r2: float = 1.0,
    *,
    epsilon: float,
    sensitivity: float,
    k_max: int = 10,
    rho: float | str = "joint",
    delta: float = 0.0,
    rho_max: float = 1.0,
) -> OptimalBagSize:
    """Return the bag size with the least limiting risk when bag means are released under label privacy.

    Large bags need less noise per released mean, small bags tell more about each row. With little privacy singletons
    are best; with a tight budget larger bags can be, provided that the loss is not the pure bag loss.

    Parameters
    ----------
    psi : float
        Rows per feature, positive.
    sigma2, r2 : float
        Variances of noise and signal, at least 0.
    epsilon : float
        Privacy budget, positive.
    sensitivity : float
        Range of one label, high − low after clipping, positive.
    k_max : int
        Largest bag size compared, at least 1.
    rho : float or "joint"
        A fixed interpolation in [0, rho_max], or the best one for each size.
    delta : float
        0 for the Laplace mechanism; in (0, 1) for the Gaussian.
    rho_max : float
        Largest interpolation accepted or searched.

    Returns
    -------
    OptimalBagSize

    Raises
    ------
    ValueError
        If an argument is out of range or not finite, or every bag size has infinite risk.

    Notes
    -----
    O(k_max) evaluations of the risk, times 260 for ``rho="joint"``. Choosing k from public quantities, as here, spends
    no privacy; :func:`estimate_signal` on released means does not either.

    Examples
    --------
    >>> tight = optimal_bag_size(psi=5, epsilon=0.5, sensitivity=1.0)
    >>> tight.k, tight.rho, round(tight.risk, 6)
    (4, 1.0, 0.796875)
    >>> optimal_bag_size(psi=5, epsilon=4.0, sensitivity=1.0).k
    1

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, arXiv:2401.11081, the optimal bag size under label privacy.
    """
    if not (k_max >= 1 and k_max == int(k_max)):
        raise ValueError(f"k_max must be an integer of at least 1; got {k_max}")
    sizes = np.arange(1, int(k_max) + 1)
    noise = np.asarray(sigma2 + release_noise(sizes, epsilon, sensitivity, delta))
    if rho == "joint":
        best = optimal_rho(psi, sizes, noise, r2, rho_max=rho_max)
        rhos, risks = np.asarray(best.rho), np.asarray(best.risk.total)
    elif isinstance(rho, str):
        raise ValueError(f"rho must be a number or 'joint'; got {rho!r}")
    else:
        rhos = np.full(sizes.shape, float(rho))
        risks = np.asarray(asymptotic_risk(psi, sizes, rhos, noise, r2, rho_max=rho_max).total)
    if not np.isfinite(risks).any():
        raise ValueError(f"psi must exceed 1 for any bag size to have a finite risk; got {psi}")
    chosen = int(risks.argmin())
    return OptimalBagSize(int(sizes[chosen]), float(rhos[chosen]), float(risks[chosen]), sizes, rhos, risks)


def _tau(psi_1: Any, psi_2: Any, rho: Any, ridge: Any, solvable: Any) -> Any:
    """Solve the fixed-point equation in log tau, where its left side rises from 0 through 1; 1 where it does not."""

    def excess(log_tau: Any, psi_1: Any, psi_2: Any, rho: Any, ridge: Any) -> Any:
        tau = np.exp(log_tau)
        return psi_1 * tau / (1 + tau) + psi_2 * rho * tau / (1 + rho * tau) + ridge * tau - 1

    tau = np.ones(np.shape(psi_1))
    chosen = [np.asarray(array)[solvable] for array in (psi_1, psi_2, rho, ridge)]
    if not chosen[0].size:
        return tau
    # Every term is at most its slope at zero, so the root cannot lie below the reciprocal of their sum.
    low = -np.log(chosen[0] + chosen[1] * chosen[2] + chosen[3]) - 1e-9
    found = find_root(excess, (low, np.full_like(low, LARGEST_LOG_TAU)), args=tuple(chosen))
    tau[solvable] = np.where(found.success, np.exp(found.x), np.inf)
    return tau


def _reason(infinite: Any, psi: Any) -> str:
    if not infinite.any():
        return ""
    where = "" if infinite.ndim == 0 else f"{int(infinite.sum())} of {infinite.size} points are infinite: "
    causes = []
    if (psi[infinite] <= 1).any():
        causes.append("psi <= 1: no more rows than features leave every loss without a unique minimiser")
    if (psi[infinite] > 1).any():
        causes.append("rho = 0 needs psi > k: fewer bags than features leave the bag loss without a unique minimiser")
    return where + "; ".join(causes)


def _plain(number: Any) -> Any:
    return float(number) if np.ndim(number) == 0 else number


def _in_range_rho(rho: ArrayLike, rho_max: float) -> None:
    values = np.asarray(rho, dtype=np.float64)
    if not 0 < rho_max < np.inf:
        raise ValueError(f"rho_max must be positive and finite; got {rho_max}")
    if not (np.isfinite(values).all() and (values >= 0).all() and (values <= rho_max).all()):
        raise ValueError(f"rho must be in [0, {rho_max:g}] (see rho_max); got {values}")


def _at_least(name: str, value: ArrayLike, bound: float, *, strict: bool = False) -> None:
    values = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(values).all() and ((values > bound) if strict else (values >= bound)).all()):
        raise ValueError(f"{name} must be finite and {'above' if strict else 'at least'} {bound:g}; got {values}")
