"""Support vector machines for bags: by instance, by imputed labels, and by kernels between whole bags."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel
from sklearn.svm import SVC

Bags = Sequence[Float[np.ndarray, "_ features"]]


class _BagSVM(ClassifierMixin, BaseEstimator):
    """What the machines share: parameters, checks, and labels from the sign of the decision."""

    def __init__(self, C: float = 1.0, kernel: Literal["linear", "rbf"] = "linear", gamma: float = 0.1) -> None:
        self.C = C
        self.kernel = kernel
        self.gamma = gamma

    def fit(self, bags: Bags, y: Sequence[int] | Int[np.ndarray, " bags"]) -> _BagSVM:
        """Fit to bags, arrays of shape (size, features), and their labels, 0 or 1."""
        self._check_parameters()
        rows, ids = _stacked(bags)
        labels = np.asarray(y)
        if labels.shape != (len(bags),):
            raise ValueError(f"y must hold one label per bag, {len(bags)}; got shape {labels.shape}")
        if set(np.unique(labels).tolist()) != {0, 1}:
            raise ValueError(f"y must hold labels 0 and 1, both; got {np.unique(labels).tolist()}")
        self.n_features_in_ = rows.shape[1]
        self.classes_ = np.array([0, 1])
        self._fit(rows, ids, labels)
        return self

    def decision_function(self, bags: Bags) -> Float[np.ndarray, " bags"]:
        """Return one score per bag, positive where the label is 1."""
        rows, ids = _stacked(bags)
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(f"bags must have {self.n_features_in_} features; got {rows.shape[1]}")
        return self._decide(rows, ids)

    def predict(self, bags: Bags) -> Int[np.ndarray, " bags"]:
        """Return the labels of bags, 0 or 1."""
        return (self.decision_function(bags) > 0).astype(np.int64)

    def _fit(self, rows: np.ndarray, ids: np.ndarray, labels: np.ndarray) -> None:
        raise NotImplementedError

    def _decide(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Return the largest score of each bag's rows."""
        starts = np.flatnonzero(np.diff(ids, prepend=-1))
        scores: np.ndarray = np.maximum.reduceat(self.machine_.decision_function(rows), starts)
        return scores

    def _machine(self) -> SVC:
        return SVC(C=self.C, kernel=self.kernel, gamma=self.gamma)

    def _check_parameters(self) -> None:
        if self.kernel not in ("linear", "rbf"):
            raise ValueError(f"kernel must be 'linear' or 'rbf'; got {self.kernel!r}")
        for name in ("C", "gamma"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be positive and finite; got {getattr(self, name)}")


class SIL(_BagSVM):
    """Give every row its bag's label and train a support vector machine; a bag scores as its best row.

    Parameters
    ----------
    C : float
        Penalty of errors, positive.
    kernel : {"linear", "rbf"}
        Between rows.
    gamma : float
        Of the kernel "rbf", positive.

    Attributes
    ----------
    machine_ : sklearn.svm.SVC

    Raises
    ------
    ValueError
        From ``fit``, if a parameter is out of range, bags are empty, not finite or of unequal widths, or y holds other
        labels than 0 and 1.

    Notes
    -----
    Between O(n²) and O(n³) for n rows.

    Examples
    --------
    >>> bags = [np.array([[0.0], [2.0]]), np.array([[0.1], [2.1]]), np.array([[0.0], [0.1]]), np.array([[0.2], [0.3]])]
    >>> SIL().fit(bags, [1, 1, 0, 0]).predict(bags)
    array([1, 1, 0, 0])

    References
    ----------
    Raff and Holt, arXiv:2310.17867, experiments. Bunescu and Mooney, *Multiple Instance Learning for Sparse Positive
    Bags* (2007), section 2.
    """

    def _fit(self, rows: np.ndarray, ids: np.ndarray, labels: np.ndarray) -> None:
        self.machine_ = self._machine().fit(rows, labels[ids])


class MiSVM(_BagSVM):
    """Train on guessed labels of rows, and guess anew until the guesses stay: mi-SVM.

    All rows of negative bags are negative. Those of positive bags are what the last machine said, and at least the best
    row of each is positive.

    Parameters
    ----------
    C : float
        Penalty of errors, positive.
    kernel : {"linear", "rbf"}
        Between rows.
    gamma : float
        Of the kernel "rbf", positive.
    max_iter : int
        Largest number of machines trained, at least 1.

    Attributes
    ----------
    machine_ : sklearn.svm.SVC
    n_iter_ : int
        Machines trained.
    converged_ : bool
        Whether the guesses stayed.

    Raises
    ------
    ValueError
        From ``fit``, if a parameter is out of range, bags are empty, not finite or of unequal widths, or y holds other
        labels than 0 and 1.

    Notes
    -----
    Each round is between O(n²) and O(n³) for n rows.

    Examples
    --------
    >>> bags = [np.array([[0.0], [2.0]]), np.array([[0.1], [2.1]]), np.array([[0.0], [0.1]]), np.array([[0.2], [0.3]])]
    >>> model = MiSVM().fit(bags, [1, 1, 0, 0])
    >>> model.predict(bags), model.converged_
    (array([1, 1, 0, 0]), True)

    References
    ----------
    Raff and Holt, arXiv:2310.17867, experiments. Andrews, Tsochantaridis and Hofmann, *Support Vector Machines for
    Multiple-Instance Learning* (2002), section 4.
    """

    def __init__(
        self, C: float = 1.0, kernel: Literal["linear", "rbf"] = "linear", gamma: float = 0.1, max_iter: int = 20
    ) -> None:
        super().__init__(C, kernel, gamma)
        self.max_iter = max_iter

    def _fit(self, rows: np.ndarray, ids: np.ndarray, labels: np.ndarray) -> None:
        guessed = labels[ids]
        self.converged_ = False
        for step in range(1, self.max_iter + 1):
            self.machine_, self.n_iter_ = self._machine().fit(rows, guessed), step
            scores = self.machine_.decision_function(rows)
            renewed = ((scores > 0) & (labels[ids] == 1)).astype(guessed.dtype)
            renewed[_best_rows(scores, ids)[labels == 1]] = 1
            if np.array_equal(renewed, guessed):
                self.converged_ = True
                return
            guessed = renewed

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _check_max_iter(self.max_iter)


class MISVM(_BagSVM):
    """Train on one row of each positive bag, and choose that row anew until the choices stay: MI-SVM.

    All rows of negative bags are negative examples. Of a positive bag only its witness counts: first the mean of its
    rows, then the row that the last machine likes best. Its name is the field's; :class:`.MiSVM` is another machine.

    Parameters
    ----------
    C : float
        Penalty of errors, positive.
    kernel : {"linear", "rbf"}
        Between rows.
    gamma : float
        Of the kernel "rbf", positive.
    max_iter : int
        Largest number of machines trained, at least 1.

    Attributes
    ----------
    machine_ : sklearn.svm.SVC
    n_iter_ : int
        Machines trained.
    converged_ : bool
        Whether the choices stayed.

    Raises
    ------
    ValueError
        From ``fit``, if a parameter is out of range, bags are empty, not finite or of unequal widths, or y holds other
        labels than 0 and 1.

    Notes
    -----
    Each round is between O(n²) and O(n³) for n rows of negative bags and positive bags together.

    Examples
    --------
    >>> bags = [np.array([[0.0], [2.0]]), np.array([[0.1], [2.1]]), np.array([[0.0], [0.1]]), np.array([[0.2], [0.3]])]
    >>> model = MISVM(C=10).fit(bags, [1, 1, 0, 0])
    >>> model.predict(bags), model.converged_
    (array([1, 1, 0, 0]), True)

    References
    ----------
    Raff and Holt, arXiv:2310.17867, experiments. Andrews, Tsochantaridis and Hofmann, *Support Vector Machines for
    Multiple-Instance Learning* (2002), section 5.
    """

    def __init__(
        self, C: float = 1.0, kernel: Literal["linear", "rbf"] = "linear", gamma: float = 0.1, max_iter: int = 20
    ) -> None:
        super().__init__(C, kernel, gamma)
        self.max_iter = max_iter

    def _fit(self, rows: np.ndarray, ids: np.ndarray, labels: np.ndarray) -> None:
        negative, positive = rows[labels[ids] == 0], labels == 1
        starts = np.flatnonzero(np.diff(ids, prepend=-1))
        means = np.add.reduceat(rows, starts) / np.bincount(ids)[:, None]
        witnesses, chosen = means[positive], np.full(positive.sum(), -1)
        targets = np.repeat([0, 1], [len(negative), len(witnesses)])
        self.converged_ = False
        for step in range(1, self.max_iter + 1):
            self.machine_, self.n_iter_ = self._machine().fit(np.concatenate([negative, witnesses]), targets), step
            best = _best_rows(self.machine_.decision_function(rows), ids)[positive]
            if np.array_equal(best, chosen):
                self.converged_ = True
                return
            witnesses, chosen = rows[best], best

    def _check_parameters(self) -> None:
        super()._check_parameters()
        _check_max_iter(self.max_iter)


class NSK(_BagSVM):
    """A support vector machine on whole bags, whose kernel sums over all pairs of rows, normalised.

    Parameters
    ----------
    C : float
        Penalty of errors, positive.
    kernel : {"linear", "rbf"}
        Between rows.
    gamma : float
        Of the kernel "rbf", positive.

    Attributes
    ----------
    machine_ : sklearn.svm.SVC

    Raises
    ------
    ValueError
        From ``fit``, if a parameter is out of range, bags are empty, not finite or of unequal widths, or y holds other
        labels than 0 and 1.

    Notes
    -----
    k(A, B) = S(A, B) / √(S(A, A) S(B, B)), S the sum of the rows' kernel over all pairs. O(n²) for n rows.

    Examples
    --------
    >>> bags = [np.array([[0.0], [2.0]]), np.array([[0.1], [2.1]]), np.array([[-0.5]]), np.array([[-0.2]])]
    >>> NSK(C=10).fit(bags, [1, 1, 0, 0]).predict(bags)
    array([1, 1, 0, 0])

    References
    ----------
    Raff and Holt, arXiv:2310.17867, experiments. Gärtner, Flach, Kowalczyk and Smola, *Multi-Instance Kernels* (2002),
    section 3.
    """

    def _fit(self, rows: np.ndarray, ids: np.ndarray, labels: np.ndarray) -> None:
        self._rows, self._ids = rows, ids
        self._norms = self._own_norms(rows, ids)
        kernel = self._sums(rows, ids) / np.outer(self._norms, self._norms)
        self.machine_ = SVC(C=self.C, kernel="precomputed").fit(kernel, labels)

    def _decide(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        kernel = self._sums(rows, ids) / np.outer(self._own_norms(rows, ids), self._norms)
        decided: np.ndarray = self.machine_.decision_function(kernel)
        return decided

    def _sums(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Sum the rows' kernel over pairs of rows, for each given bag and each training bag."""
        starts, own_starts = (np.flatnonzero(np.diff(of, prepend=-1)) for of in (ids, self._ids))
        over_given = np.add.reduceat(self._kernel(rows, self._rows), starts, axis=0)
        summed: np.ndarray = np.add.reduceat(over_given, own_starts, axis=1)
        return summed

    def _own_norms(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        bounds = np.flatnonzero(np.diff(ids, prepend=-1, append=ids[-1] + 1))
        sums = [self._kernel(rows[a:b], rows[a:b]).sum() for a, b in pairwise(bounds)]
        # A linear kernel of a bag whose rows add up to zero has no direction to normalise.
        return np.sqrt(np.maximum(sums, np.finfo(np.float64).tiny))

    def _kernel(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        found: np.ndarray = (
            linear_kernel(first, second) if self.kernel == "linear" else rbf_kernel(first, second, gamma=self.gamma)
        )
        return found


class STK(_BagSVM):
    """A support vector machine on the smallest and largest value of each feature in a bag.

    Parameters
    ----------
    C : float
        Penalty of errors, positive.
    kernel : {"linear", "rbf"}
        Between these statistics.
    gamma : float
        Of the kernel "rbf", positive.

    Attributes
    ----------
    machine_ : sklearn.svm.SVC

    Raises
    ------
    ValueError
        From ``fit``, if a parameter is out of range, bags are empty, not finite or of unequal widths, or y holds other
        labels than 0 and 1.

    Notes
    -----
    Between O(b²) and O(b³) for b bags.

    Examples
    --------
    >>> bags = [np.array([[0.0], [2.0]]), np.array([[0.1], [2.1]]), np.array([[0.0], [0.1]]), np.array([[0.2], [0.3]])]
    >>> STK().fit(bags, [1, 1, 0, 0]).predict(bags)
    array([1, 1, 0, 0])

    References
    ----------
    Raff and Holt, arXiv:2310.17867, experiments. Gärtner, Flach, Kowalczyk and Smola, *Multi-Instance Kernels* (2002),
    section 4.
    """

    def _fit(self, rows: np.ndarray, ids: np.ndarray, labels: np.ndarray) -> None:
        self.machine_ = self._machine().fit(_extremes(rows, ids), labels)

    def _decide(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        decided: np.ndarray = self.machine_.decision_function(_extremes(rows, ids))
        return decided


def _check_max_iter(max_iter: object) -> None:
    if isinstance(max_iter, bool) or not isinstance(max_iter, int | np.integer) or max_iter < 1:
        raise ValueError(f"max_iter must be an integer of at least 1; got {max_iter!r}")


def _extremes(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    return np.hstack([np.minimum.reduceat(rows, starts), np.maximum.reduceat(rows, starts)])


def _best_rows(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the number of the row with the largest score of each bag."""
    order = np.lexsort((-scores, ids))
    best: np.ndarray = order[np.flatnonzero(np.diff(ids[order], prepend=-1))]
    return best


def _stacked(bags: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return all rows, and the number of each row's bag."""
    arrays = [np.asarray(bag, dtype=np.float64) for bag in bags]
    if not arrays or any(array.ndim != 2 or 0 in array.shape for array in arrays):
        raise ValueError("bags must be arrays of shape (size, features), at least one, none empty")
    if len({array.shape[1] for array in arrays}) != 1:
        raise ValueError(f"bags must share their features; got {sorted({array.shape[1] for array in arrays})}")
    rows = np.concatenate(arrays)
    if not np.isfinite(rows).all():
        raise ValueError("bags must be finite; they hold NaN or infinity")
    return rows, np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])
