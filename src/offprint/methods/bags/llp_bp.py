"""Pseudo-labels from counts per bag and a graph of similar rows, by belief propagation."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from offprint.methods.bags.llp_bp_bags import align_counts, check_counts
from offprint.methods.bags.llp_bp_counts import CountFactors, LogDensity
from offprint.methods.bags.llp_bp_graph import Kernel, Metric, Search, SimilarityGraph, neighbor_graph
from offprint.methods.bags.llp_bp_propagation import Propagation, belief_propagation, check_settings
from offprint.methods.bags.ragged import BagIndex

PAIRWISE_LIMIT = 256
"""Largest bag that is written out in pairs: a million rows in bags of 2048 would make a thousand million pairs."""


class LLPBeliefPropagation(BaseEstimator):
    r"""Pseudo-labels for rows of which only the number of positives in each bag is known.

    Computes marginals of the Gibbs distribution
    :math:`P(y) \propto \exp(-\lambda_b \sum_S (\sum_{i \in S} y_i - Y_S)^2 - \lambda_s \sum_{ij} k_{ij} 1[y_i \ne
    y_j])`: bags keep to their counts, similar rows (neighbours i, j with kernel :math:`k_{ij}`) to equal labels. Use it
    by itself to fill in labels, or :class:`LLPBPClassifier` to train a classifier on them. Labels are 0 and 1; for more
    classes there is :class:`OneVsRestPropagation`.

    Parameters
    ----------
    k : int
        Neighbours of each row in the graph, from 1 to n - 1.
    metric : {"cosine", "euclidean"}
        By which neighbours are sought.
    kernel : {"matern12", "rbf"}
        Weight of a pair at Euclidean distance r with length scale s: exp(-r / s), or exp(-(r / s)² / 2).
    length_scale : "median" or float
        s, positive; "median" is the median distance of neighbours. (The authors' code has 1, which on standardised
        features of some dimension leaves hardly any similarity.)
    delta : float, optional
        Keep only neighbours at a distance (by ``metric``) below it, positive.
    lambda_s : float
        Weight of similarity, at least 0 and finite.
    lambda_b : float
        Weight of the counts, at least 0; ``inf`` holds them exactly.
    bag_factor : {"cardinality", "pairwise"}
        One exact factor per bag, or the same energy written out in pairs, as in the authors' code: that is a poor
        approximation from about ``lambda_b=1`` on, and for bags of up to 256 rows only.
    count_noise : callable, optional
        For counts that were released with noise: takes an array of errors (reported minus true) and returns the
        logarithm of their density, such as ``scipy.stats.laplace(scale=2.0).logpdf``. It takes the place of
        ``lambda_b``, and counts need not be whole.
    edge_bag_limit : int, optional
        Drop neighbour pairs whose first row (the lower one) lies in a bag with more positives; the authors' code
        has 1. By default no pair is dropped.
    max_iter : int
        Iterations at most, at least 1.
    damping : float
        Share of the old message kept in an update, in [0, 1).
    tol : float
        Largest change of a message, in log-odds, at which to stop: at least 0.
    threshold : float
        Marginal from which on the pseudo-label is 1, in (0, 1).
    neighbors : {"auto", "exact", "ivf"}
        How neighbours are found; see :func:`neighbor_graph`.
    random_state : int
        Seed of the inverted lists.

    Attributes
    ----------
    marginals_ : float array, shape (n,)
        Probability of label 1, of the dtype of ``X``.
    pseudo_labels_ : int64 array, shape (n,)
    graph_ : SimilarityGraph
    n_iter_ : int
    residual_ : float
        Largest change of a message in the last iteration, in log-odds and before damping.
    converged_ : bool
        If not (there is a warning), the marginals are no fixed point and may be far off.
    bag_sum_error_ : float
        Mean over bags of abs(sum of marginals - count) / size; with ``count_noise``, of the count as reported.
    n_bags_ : int

    Raises
    ------
    ValueError
        From ``fit``, when an argument is out of range, a row is not finite, or counts do not fit the bags.
    TypeError
        From ``fit``, when ids are neither integers nor strings.

    Notes
    -----
    An iteration costs O(n k + sum of squared bag sizes); a million rows in bags of 32 take minutes. ``fit`` warns where
    belief propagation did not converge (``ConvergenceWarning``), where a single bag holds everything, and where every
    bag is pure, so that labels are known. Without ``delta`` or ``edge_bag_limit`` and with ties aside, results do not
    depend on the order of rows or the names of bags.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 50)
    >>> X = rng.normal(size=(100, 2)) + 6 * np.eye(2)[y]
    >>> bag_ids = rng.permutation(np.arange(100) % 10)
    >>> counts = np.bincount(bag_ids, weights=y)
    >>> found = LLPBeliefPropagation().fit(X, bag_ids, counts)
    >>> found.converged_, float((found.pseudo_labels_ == y).mean())
    (True, 1.0)

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, *Learning from Label Proportions: Bootstrapping Supervised
    Learners via Belief Propagation*, arXiv:2310.08056, the Gibbs distribution and the pseudo-labels.
    """

    def __init__(
        self,
        k: int = 5,
        *,
        metric: Metric = "cosine",
        kernel: Kernel = "matern12",
        length_scale: Literal["median"] | float = "median",
        delta: float | None = None,
        lambda_s: float = 1.0,
        lambda_b: float = 4.0,
        bag_factor: Literal["cardinality", "pairwise"] = "cardinality",
        count_noise: LogDensity | None = None,
        edge_bag_limit: int | None = None,
        max_iter: int = 100,
        damping: float = 0.5,
        tol: float = 1e-4,
        threshold: float = 0.5,
        neighbors: Search = "auto",
        random_state: int = 0,
    ) -> None:
        self.k = k
        self.metric = metric
        self.kernel = kernel
        self.length_scale = length_scale
        self.delta = delta
        self.lambda_s = lambda_s
        self.lambda_b = lambda_b
        self.bag_factor = bag_factor
        self.count_noise = count_noise
        self.edge_bag_limit = edge_bag_limit
        self.max_iter = max_iter
        self.damping = damping
        self.tol = tol
        self.threshold = threshold
        self.neighbors = neighbors
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike | None,
        bag_ids: ArrayLike,
        counts: Any,
        graph: Any = None,
        *,
        side_information: ArrayLike | None = None,
    ) -> LLPBeliefPropagation:
        """Compute marginals of rows from their features and the counts of their bags.

        Parameters
        ----------
        X : float array, shape (n, d)
            Features. May be ``None`` where ``graph`` is given.
        bag_ids : array of int or str, shape (n,)
            The bag of each row; bags of any sizes, rows in any order.
        counts : array of int, shape (bags,), in the sorted order of the distinct ids, or mapping from id to count
            Positives in each bag, from 0 to its size. A pandas Series is taken by its index.
        graph : SimilarityGraph, or sparse or dense array, shape (n, n), optional
            Weights of at least 0 of pairs of rows, in place of the graph of nearest neighbours.
        side_information : float array, shape (n,), optional
            What is known of each row besides, as log-odds of label 1: another model's logit, or a few known labels as
            large numbers such as ±20; 0 says nothing. Finite.

        Returns
        -------
        self
        """
        self._check()
        if X is None and graph is None:
            raise ValueError("X must be given where there is no graph")
        own = None if graph is None else _own_graph(graph)
        # All that can be wrong with the bags is looked at first: the graph of many rows takes a minute.
        index, given = align_counts(bag_ids, counts, _n_rows(X) if own is None else own.n_rows, "counts")
        side = _side_information(side_information, len(index.ids))
        if self.bag_factor == "pairwise":
            _check_pairwise(index)
        if self.count_noise is None:
            check_counts(given, index)
            _warn_of_extremes(index, given)
        self.graph_ = self._graph(X) if own is None else own
        found = self._propagate(index, given, side)
        self.marginals_ = found.marginals
        self.pseudo_labels_ = (found.marginals >= self.threshold).astype(np.int64)
        self.n_iter_, self.residual_, self.converged_ = found.n_iter, found.residual, found.converged
        sums = np.bincount(index.ids, weights=found.marginals)
        self.bag_sum_error_ = float((np.abs(sums - given) / index.sizes).mean())
        self.n_bags_ = len(index.sizes)
        if not self.converged_:
            warnings.warn(
                f"belief propagation did not converge in {self.n_iter_} iterations (a message still changes by "
                f"{self.residual_:.3g}); marginals miss the counts by {self.bag_sum_error_:.1%} of the bag. "
                "More damping or max_iter, less lambda_s, or bag_factor='cardinality' may help",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _propagate(
        self, index: BagIndex, given: Float[np.ndarray, " bags"], side: Float[np.ndarray, " n"] | None
    ) -> Propagation:
        edges, weights = self._edges(index, given)
        settings: dict[str, Any] = {"max_iter": self.max_iter, "damping": self.damping, "tol": self.tol}
        # 1[y_i != y_j] = y_i + y_j - 2 y_i y_j, so that similarity lowers both ends and raises the pair.
        strength = self.lambda_s * np.bincount(edges.ravel(), np.repeat(weights, 2), minlength=len(index.ids))
        theta, couplings = -strength.astype(weights.dtype), (2 * self.lambda_s * weights).astype(weights.dtype)
        if side is not None:
            theta = theta + side.astype(weights.dtype)
        if self.bag_factor == "pairwise":
            theta, edges, couplings = _with_bag_pairs(theta, edges, couplings, index, given, self.lambda_b)
            return belief_propagation(theta, edges, couplings, **settings)
        if self.count_noise is not None:
            bags = CountFactors.from_noise(index.ids, given, self.count_noise)
        else:
            bags = CountFactors.from_counts(index.ids, given, self.lambda_b)
        return belief_propagation(theta, edges, couplings, bags, **settings)

    def _edges(
        self, index: BagIndex, given: Float[np.ndarray, " bags"]
    ) -> tuple[Int[np.ndarray, "m 2"], Float[np.ndarray, " m"]]:
        graph = self.graph_
        if self.lambda_s == 0:
            return graph.edges[:0], graph.weights[:0]
        if self.edge_bag_limit is None:
            return graph.edges, graph.weights
        kept = given[index.ids[graph.edges[:, 0]]] <= self.edge_bag_limit
        return graph.edges[kept], graph.weights[kept]

    def _graph(self, X: Any) -> SimilarityGraph:
        return neighbor_graph(
            X,
            self.k,
            metric=self.metric,
            kernel=self.kernel,
            length_scale=self.length_scale,
            delta=self.delta,
            method=self.neighbors,
            random_state=self.random_state,
        )

    def _check(self) -> None:
        check_settings(self.max_iter, self.damping, self.tol)
        if not 0 <= self.lambda_s < math.inf:
            raise ValueError(f"lambda_s must be at least 0 and finite; got {self.lambda_s}")
        if not self.lambda_b >= 0:
            raise ValueError(f"lambda_b must be at least 0, inf allowed; got {self.lambda_b}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be in (0, 1); got {self.threshold}")
        if self.bag_factor not in ("cardinality", "pairwise"):
            raise ValueError(f"bag_factor must be 'cardinality' or 'pairwise'; got {self.bag_factor!r}")
        if self.bag_factor == "pairwise" and (self.count_noise is not None or math.isinf(self.lambda_b)):
            raise ValueError("bag_factor='pairwise' takes neither count_noise nor an infinite lambda_b")
        if self.edge_bag_limit is not None and self.edge_bag_limit < 0:
            raise ValueError(f"edge_bag_limit must be at least 0, or None; got {self.edge_bag_limit}")


def _side_information(values: ArrayLike | None, n_rows: int) -> Float[np.ndarray, " n"] | None:
    if values is None:
        return None
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (n_rows,):
        raise ValueError(f"side_information must hold one number per row, {n_rows}; got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError("side_information must be finite; it holds NaN or infinity")
    return numbers


def _own_graph(graph: Any) -> SimilarityGraph:
    return graph if isinstance(graph, SimilarityGraph) else SimilarityGraph.from_matrix(graph)


def _n_rows(X: Any) -> int | None:
    """Return the number of rows of what can be a table."""
    return int(np.shape(X)[0]) if np.ndim(X) == 2 else None


def _check_pairwise(index: BagIndex) -> None:
    if index.sizes.max() > PAIRWISE_LIMIT:
        raise ValueError(
            f"bag_factor='pairwise' is for bags of at most {PAIRWISE_LIMIT} rows; the largest has {index.sizes.max()}"
        )


def _warn_of_extremes(index: BagIndex, counts: Float[np.ndarray, " bags"]) -> None:
    if ((counts == 0) | (counts == index.sizes)).all():
        warnings.warn("every bag is pure, so all labels are known: plain supervised learning applies", stacklevel=3)
    elif len(index.sizes) == 1:
        warnings.warn("a single bag holds everything: its count says nearly nothing about single rows", stacklevel=3)


def _with_bag_pairs(
    theta: Float[np.ndarray, " n"],
    edges: Int[np.ndarray, "m 2"],
    couplings: Float[np.ndarray, " m"],
    index: BagIndex,
    counts: Float[np.ndarray, " bags"],
    lambda_b: float,
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, "pairs 2"], Float[np.ndarray, " pairs"]]:
    """Write the squares of bags out in pairs, added to those of similarity where a pair is both."""
    n = len(theta)
    order, offsets = np.argsort(index.ids, kind="stable"), np.cumsum(index.sizes)
    pairs = [np.stack(np.triu_indices(size, k=1)) + end - size for size, end in zip(index.sizes, offsets, strict=True)]
    inside = np.sort(order[np.concatenate(pairs, axis=1)], axis=0)
    keys = np.concatenate([edges[:, 0].astype(np.int64) * n + edges[:, 1], inside[0] * n + inside[1]])
    values = np.concatenate([couplings, np.full(inside.shape[1], -2 * lambda_b, dtype=theta.dtype)])
    distinct, where = np.unique(keys, return_inverse=True)
    summed = np.bincount(where, weights=values).astype(theta.dtype)
    unary = theta - (lambda_b * (1 - 2 * counts[index.ids])).astype(theta.dtype)
    return unary, np.stack(np.divmod(distinct, n), axis=1).astype(np.int32), summed
