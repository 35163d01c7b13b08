"""Graphs of nearest neighbours with kernel weights, exact or by inverted lists, and graphs that users bring."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_array

from offprint.methods.bags.llp_bp_neighbors import approximate_neighbors, exact_neighbors

Metric = Literal["cosine", "euclidean"]
Kernel = Literal["matern12", "rbf"]
Search = Literal["auto", "exact", "ivf"]
EXACT_UP_TO = 50_000


@dataclass(frozen=True, eq=False)
class SimilarityGraph:
    """Pairs of rows that are alike, and how much.

    Parameters
    ----------
    n_rows : int
        Number of rows.
    edges : int32 array, shape (m, 2)
        Each pair once, the lower row first, in rising order.
    weights : float array, shape (m,)
        At least 0.
    length_scale : float
        Of the kernel; NaN for a graph from a matrix.
    recall : float
        Share of true neighbours that were found: 1 for exact search, else measured on a sample of rows.
    """

    n_rows: int
    edges: Int[np.ndarray, "m 2"]
    weights: Float[np.ndarray, " m"]
    length_scale: float = math.nan
    recall: float = 1.0

    @classmethod
    def from_matrix(cls, matrix: Any) -> SimilarityGraph:
        """Take a sparse or dense square matrix of weights; where it is not symmetric, the larger of both entries.

        Raises
        ------
        ValueError
            If it is not square, or a weight is negative or not finite. The diagonal is left out.
        """
        given: Any = scipy.sparse.coo_array(matrix)
        if given.ndim != 2 or given.shape[0] != given.shape[1]:
            raise ValueError(f"graph must be a square matrix; got shape {given.shape}")
        values: Any = np.asarray(given.data, dtype=np.float64)
        if not np.isfinite(values).all() or (values < 0).any():
            raise ValueError("graph must hold finite weights of at least 0")
        square: Any = scipy.sparse.csr_array((values, given.coords), shape=given.shape)
        upper: Any = scipy.sparse.triu(square.maximum(square.T), k=1).tocoo()
        edges, weights = np.stack(upper.coords, axis=1).astype(np.int32), upper.data
        order = np.lexsort((edges[:, 1], edges[:, 0]))
        order = order[weights[order] > 0]
        return cls(given.shape[0], edges[order], weights[order])

    def label_agreement(self, labels: ArrayLike) -> float:
        """Return the share of pairs whose rows have equal labels, an array of shape (n_rows,); NaN without a pair."""
        known = np.asarray(labels)
        if known.shape != (self.n_rows,):
            raise ValueError(f"labels must hold one label per row, {self.n_rows}; got shape {known.shape}")
        alike = known[self.edges[:, 0]] == known[self.edges[:, 1]]
        return float(alike.mean()) if len(alike) else math.nan


def neighbor_graph(
    X: Float[np.ndarray, "n d"] | ArrayLike,
    k: int = 5,
    *,
    metric: Metric = "cosine",
    kernel: Kernel = "matern12",
    length_scale: Literal["median"] | float = "median",
    delta: float | None = None,
    method: Search = "auto",
    random_state: int = 0,
) -> SimilarityGraph:
    r"""Join every row to its k nearest neighbours, weighted by a kernel of their Euclidean distance.

    Parameters
    ----------
    X : float array, shape (n, d)
        Rows, finite. float32 stays float32, which is faster; all else becomes float64.
    k : int
        Neighbours of each row, from 1 to n - 1. A pair is kept where either row is among the neighbours of the other.
    metric : {"cosine", "euclidean"}
        By which neighbours are sought.
    kernel : {"matern12", "rbf"}
        Weight of a pair at Euclidean distance r with length scale s: exp(-r / s), or exp(-(r / s)² / 2).
    length_scale : "median" or float
        s, positive; "median" is the median distance of the pairs, those of equal rows left out.
    delta : float, optional
        Keep only pairs at a distance (by ``metric``) below it, positive.
    method : {"auto", "exact", "ivf"}
        Compare all rows, or look into the nearest of inverted lists (cells of a k-means) and then at neighbours of
        neighbours, until 90 % of the true neighbours of a sample of 5000 rows are found, or as many others that are as
        near as the farthest of these. "auto" is exact up to 50,000 rows.
    random_state : int
        Seed of the inverted lists.

    Returns
    -------
    SimilarityGraph

    Raises
    ------
    ValueError
        If X is no finite matrix, k is no integer from 1 to n - 1, a row is zero where the metric is "cosine", or an
        argument is out of range or unknown.

    Notes
    -----
    Exact: O(n² d) time in blocks of matrix products, O(n k) memory. Inverted lists: cells hold about 256 rows each, of
    which at first 8 are looked into, and a look at neighbours of neighbours compares each row with 9 k² others: O(n d)
    both. How many looks the recall takes, and more cells where these no longer help, grows slowly with n and with the
    dimension in which the data really vary. From 256,000 rows on cells are found by way of groups of them, O(n d √n).
    Equal rows share a cell and are all compared with each other: time, not memory, grows with the square of how often
    the commonest row is there.

    Examples
    --------
    >>> graph = neighbor_graph(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), k=1)
    >>> graph.edges.tolist(), graph.weights.round(2).tolist()
    ([[0, 1], [2, 3]], [0.37, 0.37])

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, arXiv:2310.08056, the similarity term of the Gibbs distribution.
    Jégou, Douze and Schmid, *Product Quantization for Nearest Neighbor Search* (2011), section IV, for inverted lists.
    Dong, Charikar and Li, *Efficient K-Nearest Neighbor Graph Construction for Generic Similarity Measures* (2011), for
    neighbours of neighbours.
    """
    rows = _rows(X)
    _check_graph_settings(len(rows), k, metric, kernel, length_scale, delta, method)
    if metric == "cosine" and (zero := ~rows.any(axis=1)).any():
        raise ValueError(f"X must have no zero row where metric='cosine'; row {int(zero.argmax())} is zero")
    points = _unit(rows) if metric == "cosine" else _centered(rows)
    if method == "exact" or (method == "auto" and len(rows) <= EXACT_UP_TO):
        neighbors, recall = exact_neighbors(points, points, k, np.arange(len(rows)))[0], 1.0
    else:
        neighbors, recall = approximate_neighbors(points, k, np.random.default_rng(random_state))
    edges = _pairs(neighbors)
    distances = _distances(rows, edges)
    if delta is not None:
        near = (_distances(points, edges) ** 2 / 2 if metric == "cosine" else distances) < delta
        edges, distances = edges[near], distances[near]
    scale = _scale(distances) if length_scale == "median" else float(length_scale)
    ratio = distances / rows.dtype.type(scale)
    weights = np.exp(-ratio if kernel == "matern12" else -(ratio**2) / 2)
    return SimilarityGraph(len(rows), edges, weights, scale, recall)


def _unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Return the directions of rows, none of which is zero."""
    scaled, _ = _scaled(rows)
    unit: Float[np.ndarray, "n d"] = scaled / np.linalg.norm(scaled, axis=1)[:, None]
    return unit


def _centered(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Return rows of the same order of distances around the origin, far from which products lose digits."""
    scaled = np.ldexp(rows, -np.frexp(np.abs(rows).max())[1])
    centered: Float[np.ndarray, "n d"] = scaled - scaled.mean(axis=0, dtype=np.float64).astype(rows.dtype)
    return centered


def _scaled(rows: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
    """Divide each row by a power of two, which is exact, so that its squares neither overflow nor vanish."""
    exponents = np.frexp(np.abs(rows).max(axis=1))[1]
    return np.ldexp(rows, -exponents[:, None]), exponents


def _scale(distances: Float[np.ndarray, " m"]) -> float:
    """Return the median distance, of rows that are not the same: repeated rows say nothing about scale."""
    apart = distances[distances > 0]
    return float(np.median(apart)) if len(apart) else 1.0


def _pairs(neighbors: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "m 2"]:
    n, k = neighbors.shape
    ends = np.stack([np.repeat(np.arange(n), k), neighbors.ravel()])[:, neighbors.ravel() >= 0]
    keys = np.sort(ends.min(axis=0) * n + ends.max(axis=0))
    keys = keys[np.diff(keys, prepend=-1) > 0]  # faster than np.unique
    return np.stack(np.divmod(keys, n), axis=1).astype(np.int32)


def _distances(rows: Float[np.ndarray, "n d"], edges: Int[np.ndarray, "m 2"]) -> Float[np.ndarray, " m"]:
    found = np.empty(len(edges), dtype=rows.dtype)
    for start in range(0, len(edges), 2**18):
        part = edges[start : start + 2**18]
        scaled, exponents = _scaled(rows[part[:, 0]] - rows[part[:, 1]])
        found[start : start + 2**18] = np.ldexp(np.linalg.norm(scaled, axis=1), exponents)
    return found


def _rows(X: Any) -> Float[np.ndarray, "n d"]:
    if np.ndim(X) != 2:
        raise ValueError(f"X must be of shape (n, d); got shape {np.shape(X)}")
    rows: Float[np.ndarray, "n d"] = check_array(
        X, dtype=[np.float64, np.float32], input_name="X", ensure_min_samples=2
    )
    return rows


def _check_graph_settings(
    n: int, k: int, metric: str, kernel: str, length_scale: Any, delta: float | None, method: str
) -> None:
    if not isinstance(k, Integral) or not 1 <= k < n:
        raise ValueError(f"k must be from 1 to n - 1 = {n - 1}, the number of other rows; got {k}")
    known = {"metric": ("cosine", "euclidean"), "kernel": ("matern12", "rbf"), "method": ("auto", "exact", "ivf")}
    for (name, accepted), value in zip(known.items(), (metric, kernel, method), strict=True):
        if value not in accepted:
            raise ValueError(f"{name} must be one of {accepted}; got {value!r}")
    if length_scale != "median" and not (not isinstance(length_scale, str) and 0 < length_scale < math.inf):
        raise ValueError(f"length_scale must be 'median' or a positive number; got {length_scale!r}")
    if delta is not None and not delta > 0:
        raise ValueError(f"delta must be positive; got {delta}")
