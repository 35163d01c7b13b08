"""More than two classes, known as a vector of counts per bag: one class against the rest, for each class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from offprint.methods.bags.llp_bp import LLPBeliefPropagation
from offprint.methods.bags.llp_bp_bags import by_index, check_counts
from offprint.methods.bags.llp_bp_classifier import LLPBPClassifier
from offprint.methods.bags.llp_bp_network import ProportionClassifier, check_rows
from offprint.methods.bags.ragged import BagIndex


class OneVsRestPropagation(BaseEstimator):
    r"""Pseudo-labels of several classes for rows of which only the number of each class in each bag is known.

    Runs :class:`LLPBeliefPropagation` once per class, with that class as label 1 and all others as 0, on one graph of
    similar rows, and divides the marginals of a row by their sum.

    Parameters
    ----------
    propagation : LLPBeliefPropagation, optional
        Settings of belief propagation, by default those of the class; its ``threshold`` is not used.
    classes : sequence of labels, optional
        Of the columns of counts, in order and distinct; by default 0, 1, ...

    Attributes
    ----------
    marginals_ : float array, shape (n, classes)
        Probabilities of the classes of each row, which add up to 1.
    one_vs_rest_ : float array, shape (n, classes)
        Marginals before the division. Those of a class keep to its counts, exactly with ``lambda_b=inf``.
    pseudo_labels_ : array, shape (n,)
        The most probable of ``classes_``.
    classes_ : array, shape (classes,)
    parts_ : tuple of LLPBeliefPropagation
        As fitted, one per class; with two classes one, for the second.
    graph_ : SimilarityGraph
        The same for all.
    n_iter_ : int
        The most of any class.
    converged_ : bool
        Whether all classes did. If not (there is a warning), those marginals are no fixed point and may be far off.
    bag_sum_error_ : float
        Mean over classes of that of ``parts_``.
    n_bags_ : int

    Raises
    ------
    ValueError
        From ``fit``, when counts do not fit the bags, the counts of a bag do not add up to its size, labels of classes
        do not match, or an argument of ``propagation`` is out of range.
    TypeError
        From ``fit``, when ids are neither integers nor strings, or ``propagation`` is none.

    Notes
    -----
    The cost is that of one class times their number, and of one graph. Classes do not know of each other before the
    division: marginals afterwards do not keep to the counts.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1, 2], 40)
    >>> X = rng.normal(size=(120, 3)) + 6 * np.eye(3)[y]
    >>> bag_ids = rng.permutation(np.arange(120) % 12)
    >>> settings = LLPBeliefPropagation(lambda_s=3.0)
    >>> found = OneVsRestPropagation(settings).fit(X, bag_ids, class_counts_from(y, bag_ids))
    >>> found.converged_, float((found.pseudo_labels_ == y).mean()), found.marginals_.shape
    (True, 1.0, (120, 3))

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, *Learning from Label Proportions: Bootstrapping Supervised
    Learners via Belief Propagation*, arXiv:2310.08056, for two classes; one against the rest is this project's.
    """

    def __init__(
        self, propagation: LLPBeliefPropagation | None = None, *, classes: Sequence[Any] | None = None
    ) -> None:
        self.propagation = propagation
        self.classes = classes

    def fit(
        self,
        X: ArrayLike | None,
        bag_ids: ArrayLike,
        counts: Any,
        graph: Any = None,
        *,
        side_information: ArrayLike | None = None,
    ) -> OneVsRestPropagation:
        """Compute marginals of rows from their features and the counts of each class in their bags.

        Parameters
        ----------
        X : float array, shape (n, d)
            Features. May be ``None`` where ``graph`` is given.
        bag_ids : array of int or str, shape (n,)
            The bag of each row; bags of any sizes, rows in any order.
        counts : array of int, shape (bags, classes), in the sorted order of the distinct ids, or mapping from id to row
            Rows of each class in each bag; those of a bag add up to its size. A pandas DataFrame is taken by its index.
        graph : SimilarityGraph, or sparse or dense array, shape (n, n), optional
            Weights of at least 0 of pairs of rows, in place of the graph of nearest neighbours.
        side_information : float array, shape (n, classes), optional
            Log-odds, from elsewhere, of each class of a row against all others. Finite.

        Returns
        -------
        self
        """
        settings = LLPBeliefPropagation() if self.propagation is None else self.propagation
        if not isinstance(settings, LLPBeliefPropagation):
            raise TypeError(f"propagation must be an LLPBeliefPropagation; got {type(settings).__name__}")
        index, given = align_class_counts(bag_ids, counts, exact=settings.count_noise is None)
        self.classes_ = _classes(self.classes, given.shape[1])
        side = _side_information(side_information, (len(index.ids), given.shape[1]))
        if (given.max(axis=1) == index.sizes).all():
            warnings.warn("every bag is pure, so all labels are known: plain supervised learning applies", stacklevel=2)
        parts: list[LLPBeliefPropagation] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said once below, and above, for all classes
            for column in _columns(given):
                shared = parts[0].graph_ if parts else graph
                known = None if side is None else side[:, column]
                part = clone(settings)
                parts.append(part.fit(X, bag_ids, given[:, column], shared, side_information=known))
        self.parts_ = tuple(parts)
        self._gather([part.marginals_ for part in parts])
        self.graph_, self.n_bags_ = parts[0].graph_, len(index.sizes)
        self.n_iter_ = max(part.n_iter_ for part in parts)
        self.bag_sum_error_ = float(np.mean([part.bag_sum_error_ for part in parts]))
        self.converged_ = all(part.converged_ for part in parts)
        if not self.converged_:
            tried = self.classes_[1:] if len(parts) == 1 else self.classes_
            named = [label for label, part in zip(tried.tolist(), parts, strict=True) if not part.converged_]
            warnings.warn(
                f"belief propagation did not converge in {self.n_iter_} iterations for classes {named}. More damping "
                "or max_iter, less lambda_s, or bag_factor='cardinality' may help",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _gather(self, found: list[Float[np.ndarray, " n"]]) -> None:
        self.one_vs_rest_ = _all_columns(found)
        self.marginals_ = _divided(self.one_vs_rest_)
        self.pseudo_labels_ = self.classes_[self.marginals_.argmax(axis=1)]


class OneVsRestLLPClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of single rows into several classes, from the number of each class in each bag of rows.

    Fits a classifier for two classes, such as :class:`LLPBPClassifier`, :class:`DLLPClassifier` or
    :class:`EasyLLPClassifier`, once per class against the rest, and divides the probabilities of a row by their sum.

    Parameters
    ----------
    estimator : LLPBPClassifier, DLLPClassifier or EasyLLPClassifier, optional
        Copied for each class; by default ``LLPBPClassifier()``. In large bags marginals of a class that is one of many
        seldom reach one half: an ``LLPBPClassifier`` then wants a lower ``threshold``, such as 0.3.
    classes : sequence of labels, optional
        Of the columns of counts, in order and distinct; by default 0, 1, ...

    Attributes
    ----------
    estimators_ : tuple of classifiers
        As fitted, one per class; with two classes one, for the second.
    classes_ : array, shape (classes,)
    validation_loss_ : float
        Mean of that of ``estimators_``: what to tune on.
    n_features_in_ : int

    Raises
    ------
    ValueError
        From ``fit``, when counts do not fit the bags, the counts of a bag do not add up to its size, labels of classes
        do not match, or the classifier of a class, named, could not be fitted.
    TypeError
        From ``fit``, when ids are neither integers nor strings, or ``estimator`` is no such classifier.

    Notes
    -----
    The cost is that of one classifier times the number of classes. All hold out the same bags.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1, 2], 40)
    >>> X = rng.normal(size=(120, 3)) + 6 * np.eye(3)[y]
    >>> bag_ids = rng.permutation(np.arange(120) % 15)
    >>> each = LLPBPClassifier(LogisticRegression(), propagation=LLPBeliefPropagation(lambda_s=3.0))
    >>> model = OneVsRestLLPClassifier(each, classes=["a", "b", "c"])
    >>> model.fit(X, bag_ids, class_counts_from(y, bag_ids)).predict(6 * np.eye(3)).tolist()
    ['a', 'b', 'c']

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, *Learning from Label Proportions: Bootstrapping Supervised
    Learners via Belief Propagation*, arXiv:2310.08056, for two classes; one against the rest is this project's.
    """

    def __init__(self, estimator: ProportionClassifier | None = None, *, classes: Sequence[Any] | None = None) -> None:
        self.estimator = estimator
        self.classes = classes

    def fit(self, X: ArrayLike, bag_ids: ArrayLike, counts: Any) -> OneVsRestLLPClassifier:
        """Fit to rows, the bag of each row, and the counts of each class in each bag.

        Parameters
        ----------
        X : float array, shape (n, d)
        bag_ids : array of int or str, shape (n,)
            Bags of any sizes, rows in any order.
        counts : array of int, shape (bags, classes), in the sorted order of the distinct ids, or mapping from id to row
            Rows of each class in each bag; those of a bag add up to its size. A pandas DataFrame is taken by its index.

        Returns
        -------
        self
        """
        each: Any = LLPBPClassifier() if self.estimator is None else self.estimator
        if not isinstance(each, ProportionClassifier):
            raise TypeError(
                "estimator must be a classifier that is fitted to proportions, such as LLPBPClassifier; got "
                f"{type(each).__name__}"
            )
        rows = check_rows(X, None)
        noisy = isinstance(each, LLPBPClassifier) and getattr(each.propagation, "count_noise", None) is not None
        index, given = align_class_counts(bag_ids, counts, exact=not noisy)
        self.classes_ = _classes(self.classes, given.shape[1])
        fitted = []
        for column in _columns(given):
            try:
                fitted.append(clone(each).fit(rows, bag_ids, given[:, column] / index.sizes))
            except ValueError as error:
                label = self.classes_[column].item()
                raise ValueError(f"class {label!r} against the rest: {error}") from error
        self.estimators_ = tuple(fitted)
        self.validation_loss_ = float(np.mean([one.validation_loss_ for one in fitted]))
        self.n_features_in_ = rows.shape[1]
        return self

    def predict_proba(self, X: ArrayLike) -> Float[np.ndarray, "n classes"]:
        """Return the probability of each class for each row of X, an array of shape (n, d)."""
        check_is_fitted(self, "estimators_")
        return _divided(_all_columns([one.predict_proba(X)[:, 1] for one in self.estimators_]))

    def predict(self, X: ArrayLike) -> Shaped[np.ndarray, " n"]:
        """Return the most probable class of each row of X, an array of shape (n, d)."""
        columns = self.predict_proba(X).argmax(axis=1)
        found: np.ndarray = self.classes_[columns]
        return found


def class_counts_from(y: ArrayLike, bag_ids: ArrayLike) -> Int[np.ndarray, "bags classes"]:
    """Return how many rows of each class are in each bag, to try out learning from counts where labels are known.

    Parameters
    ----------
    y : array of labels, shape (n,)
        Columns are in the sorted order of the distinct ones.
    bag_ids : array of int or str, shape (n,)
        The bag of each row.

    Returns
    -------
    int64 array, shape (bags, classes)
        Rows in the sorted order of the distinct ids.

    Raises
    ------
    ValueError
        If lengths differ.
    TypeError
        If ids are neither integers nor strings.

    Notes
    -----
    O(n log n).

    Examples
    --------
    >>> class_counts_from(["cat", "dog", "owl", "dog"], [0, 0, 1, 1]).tolist()
    [[1, 1, 0], [0, 1, 1]]

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, arXiv:2310.08056, the set-up, there for two classes.
    """
    index = BagIndex.of(bag_ids)
    labels = np.asarray(y)
    if labels.shape != index.ids.shape:
        raise ValueError(f"y must hold one label per id in bag_ids, {len(index.ids)}; got shape {labels.shape}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("y must be finite; it holds NaN or infinity")
    classes, columns = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(index.sizes), len(classes)), dtype=np.int64)
    np.add.at(counts, (index.ids, columns), 1)
    return counts


def align_class_counts(
    bag_ids: Any, counts: Any, *, exact: bool = True
) -> tuple[BagIndex, Float[np.ndarray, "bags classes"]]:
    """Number the bags of rows from 0 and put their counts of classes in that order.

    Parameters
    ----------
    bag_ids : array of int or str, shape (n,)
        The bag of each row.
    counts : array, shape (bags, classes), in the sorted order of the distinct ids, or mapping from id to row
    exact : bool
        Whether counts must be whole and add up to the sizes of bags, which noisy ones do not.

    Returns
    -------
    index : BagIndex
    counts : float64 array, shape (bags, classes)

    Raises
    ------
    ValueError
        If shapes do not match, a number is not finite, or the counts of a bag, named, are out of range, not whole or do
        not add up to its size.

    Examples
    --------
    >>> index, counts = align_class_counts(["b", "a", "b"], {"a": [0, 1, 0], "b": [1, 0, 1]})
    >>> counts.tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    """
    index = BagIndex.of(bag_ids)
    counts = by_index(counts, "counts")
    if isinstance(counts, Mapping):
        counts = index.in_order(counts, "counts", "row")
    numbers = np.asarray(counts, dtype=np.float64)
    if numbers.ndim != 2 or len(numbers) != len(index.sizes) or numbers.shape[1] < 2:
        raise ValueError(
            f"counts must be of shape (bags, classes), with a row for each of {len(index.sizes)} bags and a column for "
            f"each of at least two classes; got shape {numbers.shape}"
        )
    if not np.isfinite(numbers).all():
        raise ValueError("counts must be finite; they hold NaN or infinity")
    if exact:
        for column in numbers.T:
            check_counts(column, index)
        sums = numbers.sum(axis=1)
        if (fault := sums != index.sizes).any():
            bag = int(fault.argmax())
            raise ValueError(
                f"counts of a bag must add up to its size; those of bag {index.labels[bag].item()!r} add up to "
                f"{sums[bag]:g}, but it has {index.sizes[bag]} rows"
            )
    return index, numbers


def _columns(counts: Float[np.ndarray, "bags classes"]) -> range:
    """Return the classes to set against the rest: of two the second says it all."""
    n_classes = counts.shape[1]
    return range(1, 2) if n_classes == 2 else range(n_classes)


def _all_columns(found: list[Float[np.ndarray, " n"]]) -> Float[np.ndarray, "n classes"]:
    return np.stack([1 - found[0], found[0]] if len(found) == 1 else found, axis=1)


def _divided(values: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n classes"]:
    kept = np.maximum(values, np.finfo(values.dtype).tiny)  # all may have underflowed to 0
    divided: Float[np.ndarray, "n classes"] = kept / kept.sum(axis=1, keepdims=True)
    return divided


def _classes(given: Sequence[Any] | None, n_classes: int) -> Shaped[np.ndarray, " classes"]:
    labels = np.arange(n_classes) if given is None else np.asarray(given)
    if labels.shape != (n_classes,) or len(np.unique(labels)) != n_classes:
        raise ValueError(f"classes must be {n_classes} distinct labels, one per column of counts; got {given!r}")
    return labels


def _side_information(values: ArrayLike | None, shape: tuple[int, int]) -> Float[np.ndarray, "n classes"] | None:
    if values is None:
        return None
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != shape:
        raise ValueError(
            f"side_information must be of shape {shape}, one number per row and class; got {numbers.shape}"
        )
    return numbers
