"""Linear regression from bag means: the minimiser of the interpolating squared loss, and its whole path in rho."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator, lsqr
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from offprint.methods.bags.aggregate import align_bags, check_rho
from offprint.methods.bags.ragged import BagIndex

Array = Float[np.ndarray, "..."]


@dataclass(frozen=True)
class RhoPath:
    """Linear models along a grid of interpolations.

    Parameters
    ----------
    rhos : array, shape (r,)
        The grid, as given.
    coefs : array, shape (r, d) or (r, outputs, d)
        Coefficients at each.
    intercepts : array, shape (r,) or (r, outputs)
        Intercepts at each; zero without one.
    ranks : array, shape (r,)
        Rank of each problem, the intercept included. Short of d (+ 1 with intercept) the model of least norm is given.
    """

    rhos: Float[np.ndarray, " r"]
    coefs: Float[np.ndarray, "r *outputs d"]
    intercepts: Float[np.ndarray, "r *outputs"]
    ranks: Any


class AggregateLinearRegression(RegressorMixin, BaseEstimator):
    r"""Linear regression when only the mean response of each bag of rows is known.

    Minimises (1 − rho) · bag loss + rho · instance loss with squared error, exactly. With ``rho_grid`` the
    interpolation is chosen by cross-validation over bags, for which bag means are all that is needed.

    Parameters
    ----------
    rho : float
        Interpolation in [0, rho_max]: 0 is least squares on bag means, 1 is least squares with each row given its bag's
        mean. Unused when ``rho_grid`` is given.
    fit_intercept : bool
        Whether to fit one.
    solver : {"cholesky", "lsqr"}
        ``"cholesky"`` forms d × d matrices once, O(n d²); ``"lsqr"`` iterates at O(nnz) a step and takes sparse rows.
    rho_grid : array of float, shape (r,), optional
        Interpolations to choose from.
    cv : int or scikit-learn splitter
        Folds over bags, for ``rho_grid``.
    rho_max : float
        Largest interpolation accepted; above 1 predictions within a bag are pulled together harder than by the instance
        loss (``"cholesky"`` only).

    Attributes
    ----------
    coef_ : array, shape (d,) or (outputs, d)
    intercept_ : float or array, shape (outputs,)
    rho_ : float
        The interpolation used.
    rank_ : int
        Rank of the problem, the intercept included (``"cholesky"`` only). Below d (+ 1) the solution of least norm is
        given.
    validation_errors_ : array, shape (len(rho_grid),)
        Mean squared error of held-out bag means at each, where ``rho_grid`` was given.
    n_features_in_, n_bags_ : int

    Raises
    ------
    ValueError
        From ``fit``, when an argument is out of range, bags and responses do not match, or anything is not finite.

    Notes
    -----
    Bag loss weighs bags alike, instance loss by size, as :func:`interpolating_loss` does; with bags of one size the two
    agree and the estimator is :math:`(Z_1^\top Z_1 + \rho Z_2^\top Z_2)^{-1} Z_1^\top \sqrt k \bar y`, with
    :math:`Z_1` the bag means times :math:`\sqrt k` and :math:`Z_2` the deviations within bags. A whole ``rho_grid``
    costs one generalised eigendecomposition per fold. Inputs are computed with in float64.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(600, 3))
    >>> y = X @ [1.0, -2.0, 0.5] + 4.0
    >>> bag_ids = np.repeat(np.arange(200), 3)
    >>> bag_means = y.reshape(200, 3).mean(axis=1)
    >>> model = AggregateLinearRegression(rho=0.0).fit(X, bag_ids, bag_means)
    >>> model.coef_.round(6), round(model.intercept_, 6)
    (array([ 1. , -2. ,  0.5]), 4.0)
    >>> AggregateLinearRegression(rho_grid=[0.0, 0.5, 1.0]).fit(X, bag_ids, bag_means).rho_
    0.0

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, *Learning from Aggregate responses: Instance Level versus Bag Level
    Loss Functions*, arXiv:2401.11081, the linear model.
    """

    def __init__(
        self,
        rho: float = 0.5,
        *,
        fit_intercept: bool = True,
        solver: str = "cholesky",
        rho_grid: ArrayLike | None = None,
        cv: Any = 5,
        rho_max: float = 1.0,
    ) -> None:
        self.rho = rho
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.rho_grid = rho_grid
        self.cv = cv
        self.rho_max = rho_max

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.input_tags.sparse = self.solver == "lsqr"
        return tags

    def fit(self, X: Any, bag_ids: ArrayLike, bag_means: ArrayLike | Mapping[Any, Any]) -> AggregateLinearRegression:
        """Fit to rows, the bag of each row, and the mean response of each bag.

        Parameters
        ----------
        X : array or (``lsqr``) sparse matrix, shape (n, d)
        bag_ids : array of int or str, shape (n,)
        bag_means : array of shape (bags,) or shape (bags, outputs) in the sorted order of the distinct ids, or mapping

        Returns
        -------
        self
        """
        if self.solver not in ("cholesky", "lsqr"):
            raise ValueError(f"solver must be 'cholesky' or 'lsqr'; got {self.solver!r}")
        rows = validate_data(self, X, accept_sparse="csr" if self.solver == "lsqr" else False, dtype=np.float64)
        index, targets = align_bags(bag_ids, bag_means, rows.shape[0])
        return self._fit(rows, index, targets)

    def predict(self, X: Any) -> Float[np.ndarray, "n *outputs"]:
        """Return the prediction for each row."""
        check_is_fitted(self)
        rows = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        return np.asarray(rows @ self.coef_.T + self.intercept_)

    def _fit(self, rows: Any, index: BagIndex, targets: Array) -> AggregateLinearRegression:
        check_rho(self.rho, self.rho_max)
        self.n_bags_, self.rho_ = len(targets), float(self.rho)
        if self.rho_grid is not None:
            self.rho_, self.validation_errors_ = self._choose_rho(rows, index, targets)
        path = self._path(rows, index, targets, [self.rho_])
        self.coef_ = path.coefs[0]
        self.intercept_ = float(path.intercepts[0]) if targets.ndim == 1 else path.intercepts[0]
        if self.solver == "cholesky":
            self.rank_ = int(path.ranks[0])
        return self

    def _choose_rho(self, rows: Any, index: BagIndex, targets: Array) -> tuple[float, Array]:
        grid = _grid("rho_grid", self.rho_grid, self.rho_max)
        means = index.means(rows)
        squares, n_held_out = np.zeros(len(grid)), 0
        for kept, held_out in index.folds(self.cv):
            path = self._path(rows[kept.rows], kept.index, targets[kept.bags], grid)
            responses = targets[held_out.bags]
            for position, (coef, intercept) in enumerate(zip(path.coefs, path.intercepts, strict=True)):
                squares[position] += np.square(responses - means[held_out.bags] @ coef.T - intercept).sum()
            n_held_out += responses.size
        return float(grid[squares.argmin()]), squares / n_held_out

    def _path(self, rows: Any, index: BagIndex, targets: Array, rhos: Iterable[float]) -> RhoPath:
        solve = _cholesky_path if self.solver == "cholesky" else _lsqr_path
        return solve(rows, index, targets, np.asarray(rhos, dtype=np.float64), self.fit_intercept)


class AggregateRegressor(AggregateLinearRegression):
    r"""The same estimator in the form of scikit-learn's tools: ``fit(X, y, groups)``.

    ``y`` repeats each bag's mean on its rows and ``groups`` names the bag of each row, so that pipelines,
    ``cross_val_score`` and ``GridSearchCV`` with ``GroupKFold`` work. Without groups every row is a bag of its own, and
    the fit is ordinary least squares.

    Parameters
    ----------
    rho, fit_intercept, solver, cv, rho_max
        As for :class:`AggregateLinearRegression`.
    rho_grid : array of float, shape (r,), optional
        As for :class:`AggregateLinearRegression`.

    Raises
    ------
    ValueError
        From ``fit``, as for :class:`AggregateLinearRegression`, and when ``y`` differs within a bag.

    Notes
    -----
    As for :class:`AggregateLinearRegression`.

    Examples
    --------
    >>> X, bag_means = np.arange(6.0).reshape(6, 1), np.array([1.0, 5.0, 9.0])
    >>> groups = np.repeat([0, 1, 2], 2)
    >>> model = AggregateRegressor(rho=0.0).fit(X, bag_means[groups], groups=groups)
    >>> model.predict([[10.0]]).round(6)
    array([20.])

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, arXiv:2401.11081, the linear model.
    """

    def fit(self, X: Any, y: Any, groups: ArrayLike | None = None) -> AggregateRegressor:  # type: ignore[override]
        """Fit to rows, each with the mean response of its bag, and the bag of each row."""
        sparse = "csr" if self.solver == "lsqr" else False
        rows, labels = validate_data(
            self, X, y, accept_sparse=sparse, dtype=np.float64, multi_output=True, y_numeric=True
        )
        index = BagIndex.of(np.arange(rows.shape[0]) if groups is None else groups)
        if len(index.ids) != rows.shape[0]:
            raise ValueError(f"groups must hold one id per row, {rows.shape[0]}; got {len(index.ids)}")
        _, first = np.unique(index.ids, return_index=True)
        targets = np.asarray(labels, dtype=np.float64)[first]
        if not np.array_equal(targets[index.ids], labels):
            raise ValueError("y must repeat one value, the bag's mean, on all rows of a bag; it differs within a bag")
        return self._fit(rows, index, targets)


def rho_path(
    X: ArrayLike,
    bag_ids: ArrayLike,
    bag_means: ArrayLike | Mapping[Any, Any],
    rhos: ArrayLike,
    *,
    fit_intercept: bool = True,
    rho_max: float = 1.0,
) -> RhoPath:
    """Return the linear models at many interpolations for little more than the price of one.

    Parameters
    ----------
    X : array, shape (n, d)
        Features of every row.
    bag_ids : array of int or str, shape (n,)
        The bag of each row.
    bag_means : array of shape (bags,) or shape (bags, outputs) in the sorted order of the distinct ids, or mapping
        Mean response of each bag.
    rhos : array of float, shape (r,)
        Interpolations in [0, rho_max].
    fit_intercept : bool
        Whether to fit one.
    rho_max : float
        Largest interpolation accepted.

    Returns
    -------
    RhoPath

    Raises
    ------
    ValueError
        If an argument is out of range, bags and responses do not match, or anything is not finite.

    Notes
    -----
    O(n d²) for two Gram matrices and O(d³) for their generalised eigendecomposition, then O(d²) for each rho. Without
    full rank, O(d³) for each.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 2))
    >>> path = rho_path(X, np.arange(60) // 2, X.reshape(30, 2, 2).mean(1) @ [1.0, 2.0], [0.0, 1.0])
    >>> path.coefs[0].round(6)
    array([1., 2.])

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, arXiv:2401.11081, the linear model.
    """
    if np.ndim(X) != 2:
        raise ValueError(f"X must be a matrix, one row each; got {np.ndim(X)} dimensions")
    rows = check_array(X, dtype=np.float64, input_name="X")
    index, targets = align_bags(bag_ids, bag_means, len(rows))
    return _cholesky_path(rows, index, targets, _grid("rhos", rhos, rho_max), fit_intercept)


def _cholesky_path(rows: Array, index: BagIndex, targets: Array, rhos: Array, fit_intercept: bool) -> RhoPath:
    """Solve ((1 − rho) G_bag + rho G_row) beta = (1 − rho) c_bag + rho c_row for each rho."""
    _check_weights(index.sizes, rhos)
    shift = rows.mean(0) if fit_intercept else np.zeros(rows.shape[1])  # for conditioning: the intercept takes it back
    rows = np.column_stack([rows - shift, np.ones(len(rows))]) if fit_intercept else rows
    means, outputs = index.means(rows), targets.reshape(len(targets), -1)
    gram_bag, gram_row = means.T @ means / len(means), rows.T @ rows / len(rows)
    cross_bag, cross_row = means.T @ outputs / len(means), (index.sizes[:, None] * means).T @ outputs / len(rows)

    path = _eigen_path(gram_bag, gram_row, cross_bag, cross_row, rhos) if len(rhos) > 1 else None
    if path is None:
        path = [_solve((1 - rho) * gram_bag + rho * gram_row, (1 - rho) * cross_bag + rho * cross_row) for rho in rhos]
    betas = np.stack([beta for beta, _ in path]).transpose(0, 2, 1)
    return _as_path(rhos, betas, shift, targets, fit_intercept, np.array([rank for _, rank in path]))


def _eigen_path(
    gram_bag: Array, gram_row: Array, cross_bag: Array, cross_row: Array, rhos: Array
) -> list[tuple[Array, int]] | None:
    """Solve for every rho in the basis that makes both Gram matrices diagonal; ``None`` where ill-conditioned."""
    if _factor(gram_row) is None:
        return None
    spread, basis = scipy.linalg.eigh(gram_bag, gram_row)  # basis.T @ gram_row @ basis = identity
    diagonals = np.outer(1 - rhos, spread) + rhos[:, None]
    if diagonals.min() <= _tolerance(gram_row):
        return None
    bag, row = basis.T @ cross_bag, basis.T @ cross_row
    weights = rhos[:, None, None]
    betas = basis @ (((1 - weights) * bag + weights * row) / diagonals[:, :, None])
    return [(beta, len(spread)) for beta in betas]


def _solve(gram: Array, cross: Array) -> tuple[Array, int]:
    """Return the solution, of least norm where ``gram`` is singular, and the rank."""
    factor = _factor(gram)
    if factor is not None:
        return scipy.linalg.cho_solve((factor, False), cross), len(gram)
    values, vectors = scipy.linalg.eigh(gram)
    kept = values > _tolerance(gram) * values.max(initial=0.0)
    basis = vectors[:, kept]
    return basis @ ((basis.T @ cross) / values[kept, None]), int(kept.sum())


def _factor(gram: Array) -> Array | None:
    """Return the upper Cholesky factor, or ``None`` when ``gram`` is singular to working precision."""
    factor, failed = scipy.linalg.lapack.dpotrf(gram)
    if failed:
        return None
    reciprocal_condition, _ = scipy.linalg.lapack.dpocon(factor, np.abs(gram).sum(0).max())
    return factor if reciprocal_condition > _tolerance(gram) else None


def _tolerance(gram: Array) -> float:
    return float(np.finfo(np.float64).eps * len(gram))


def _lsqr_path(rows: Any, index: BagIndex, targets: Array, rhos: Array, fit_intercept: bool) -> RhoPath:
    """Solve each rho by LSQR on bag means weighted sqrt((1 − rho)/m) stacked on rows weighted sqrt(rho/n)."""
    if rhos.max() > 1:
        raise ValueError(f"rho must be at most 1 with solver='lsqr'; got {rhos.max():g}")
    means, outputs = index.means(rows), targets.reshape(len(targets), -1)
    n, m, d = rows.shape[0], len(targets), rows.shape[1]

    def fit(rho: float, output: Array) -> Array:
        top, bottom = np.sqrt((1 - rho) / m), np.sqrt(rho / n)

        def matvec(beta: Array) -> Array:
            intercept = beta[d] if fit_intercept else 0.0
            return np.concatenate([top * (means @ beta[:d] + intercept), bottom * (rows @ beta[:d] + intercept)])

        def rmatvec(residual: Array) -> Array:
            up, down = top * residual[:m], bottom * residual[m:]
            slopes = means.T @ up + rows.T @ down
            return np.append(slopes, up.sum() + down.sum()) if fit_intercept else slopes

        operator = LinearOperator((m + n, d + fit_intercept), matvec=matvec, rmatvec=rmatvec, dtype=np.float64)
        response = np.concatenate([top * output, bottom * output[index.ids]])
        beta, stop, n_iter, *_ = lsqr(operator, response, atol=1e-12, btol=1e-12, iter_lim=20 * (d + 1))
        if stop == 7:
            warnings.warn(f"lsqr stopped after {n_iter} iterations short of 1e-12", ConvergenceWarning, stacklevel=5)
        return beta

    betas = np.stack([np.stack([fit(rho, output) for output in outputs.T]) for rho in rhos])
    return _as_path(rhos, betas, np.zeros(d), targets, fit_intercept, np.full(len(rhos), d + fit_intercept))


def _as_path(rhos: Array, betas: Array, shift: Array, targets: Array, fit_intercept: bool, ranks: Any) -> RhoPath:
    """Split (rhos, outputs, d + 1) solutions into coefficients and intercepts, without outputs where there was one."""
    coefs = betas[..., :-1] if fit_intercept else betas
    intercepts = betas[..., -1] - coefs @ shift if fit_intercept else np.zeros(betas.shape[:2])
    if targets.ndim == 1:
        coefs, intercepts = coefs[:, 0], intercepts[:, 0]
    return RhoPath(rhos, coefs, intercepts, ranks)


def _grid(name: str, rhos: Any, rho_max: float) -> Float[np.ndarray, " r"]:
    grid = np.asarray(rhos, dtype=np.float64)
    if grid.ndim != 1 or grid.size == 0:
        raise ValueError(f"{name} must be a vector of at least one number; got shape {grid.shape}")
    check_rho(0.0, rho_max)
    if not ((grid >= 0) & (grid <= rho_max)).all():
        raise ValueError(f"{name} must be in [0, {rho_max:g}]; got {grid}")
    return grid


def _check_weights(sizes: Any, rhos: Array) -> None:
    """Refuse a rho above 1 that would give a small bag's mean a negative weight."""
    smallest = (1 - rhos.max()) / len(sizes) + rhos.max() * sizes.min() / sizes.sum()
    if smallest < 0:
        limit = 1 / (1 - sizes.min() * len(sizes) / sizes.sum())
        raise ValueError(f"rho must be at most {limit:g} for bags of these sizes; got {rhos.max():g}")
