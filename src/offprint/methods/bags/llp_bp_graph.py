"""Graphs of nearest neighbours with kernel weights, exact or by inverted lists, and graphs that users bring."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, no_type_check

import numba
import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_array

Metric = Literal["cosine", "euclidean"]
Kernel = Literal["matern12", "rbf"]
Search = Literal["auto", "exact", "ivf"]
EXACT_UP_TO = 50_000
CELL_SIZE = 256
FIRST_PROBES, RECALL, N_CHECKED = 8, 0.9, 5000
BLOCK = 2048
"""Queries at a time, and times four keys at a time: 64 MB of scores in single precision."""


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
        """Return the share of pairs whose rows have equal labels, given as an array of shape (n_rows,)."""
        known = np.asarray(labels)
        if known.shape != (self.n_rows,):
            raise ValueError(f"labels must hold one label per row, {self.n_rows}; got shape {known.shape}")
        return float((known[self.edges[:, 0]] == known[self.edges[:, 1]]).mean())


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
        s, positive; "median" is the median distance of the pairs.
    delta : float, optional
        Keep only pairs at a distance (by ``metric``) below it, positive.
    method : {"auto", "exact", "ivf"}
        Compare all rows, or look into the nearest of inverted lists (cells of a k-means), as many of them as find 90 %
        of true neighbours on a sample of 5000 rows. "auto" is exact up to 50,000 rows.
    random_state : int
        Seed of the inverted lists.

    Returns
    -------
    SimilarityGraph

    Raises
    ------
    ValueError
        If X is no finite matrix, k is outside 1 to n - 1, a row is zero where the metric is "cosine", or an argument
        is out of range or unknown.

    Notes
    -----
    Exact: O(n² d) time in blocks of matrix products, O(n k) memory. Inverted lists: cells hold about 256 rows each, so
    that time is O(n d · 256 · probes) for the lists and O(n² d / 256) for finding them; the number of probes that the
    recall takes grows with the dimension in which the data really vary.

    Examples
    --------
    >>> graph = neighbor_graph(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), k=1)
    >>> graph.edges.tolist(), graph.weights.round(2).tolist()
    ([[0, 1], [2, 3]], [0.37, 0.37])

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, arXiv:2310.08056, the similarity term of the Gibbs distribution.
    Jégou, Douze and Schmid, *Product Quantization for Nearest Neighbor Search* (2011), section IV, for inverted lists.
    """
    rows = _rows(X)
    _check_graph_settings(len(rows), k, metric, kernel, length_scale, delta, method)
    points = rows
    if metric == "cosine":
        norms = np.linalg.norm(rows, axis=1)
        if (zero := norms == 0).any():
            raise ValueError(f"X must have no zero row where metric='cosine'; row {int(zero.argmax())} is zero")
        points = rows / norms[:, None]
    if method == "exact" or (method == "auto" and len(rows) <= EXACT_UP_TO):
        neighbors, recall = _search(points, points, k, np.arange(len(rows))), 1.0
    else:
        neighbors, recall = _inverted_lists(points, k, np.random.default_rng(random_state))
    edges = _pairs(neighbors)
    if delta is not None:
        far = _distances(points, edges)
        edges = edges[(far**2 / 2 if metric == "cosine" else far) < delta]
    distances = _distances(rows, edges)
    scale = _scale(distances) if length_scale == "median" else float(length_scale)
    ratio = distances / rows.dtype.type(scale)
    weights = np.exp(-ratio if kernel == "matern12" else -(ratio**2) / 2)
    return SimilarityGraph(len(rows), edges, weights, scale, recall)


def _scale(distances: Float[np.ndarray, " m"]) -> float:
    """Return the median distance, of rows that are not the same: repeated rows say nothing about scale."""
    apart = distances[distances > 0]
    return float(np.median(apart)) if len(apart) else 1.0


def _pairs(neighbors: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "m 2"]:
    n, k = neighbors.shape
    ends = np.stack([np.repeat(np.arange(n), k), neighbors.ravel()])[:, neighbors.ravel() >= 0]
    keys = np.unique(ends.min(axis=0) * n + ends.max(axis=0))
    return np.stack(np.divmod(keys, n), axis=1).astype(np.int32)


def _distances(rows: Float[np.ndarray, "n d"], edges: Int[np.ndarray, "m 2"]) -> Float[np.ndarray, " m"]:
    found = np.empty(len(edges), dtype=rows.dtype)
    for start in range(0, len(edges), 2**18):
        part = edges[start : start + 2**18]
        found[start : start + 2**18] = np.linalg.norm(rows[part[:, 0]] - rows[part[:, 1]], axis=1)
    return found


def _search(
    queries: Float[np.ndarray, "q d"],
    keys: Float[np.ndarray, "c d"],
    k: int,
    own: Int[np.ndarray, " q"] | None = None,
) -> Int[np.ndarray, "q k"]:
    """Return the k nearest keys of each query, nearest first, leaving out the key that a query itself is."""
    found = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=queries.dtype)
    own = np.full(len(queries), -1) if own is None else own
    offsets, ids = (keys**2).sum(axis=1) / 2, np.arange(len(keys))
    for start in range(0, len(queries), BLOCK):
        mine = np.arange(start, min(start + BLOCK, len(queries)))
        for first in range(0, len(keys), 4 * BLOCK):
            part = slice(first, first + 4 * BLOCK)
            products = queries[mine] @ keys[part].T - offsets[part]
            _keep_nearest(products, mine, ids[part], own, scores, found)
    return found


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def _keep_nearest(products, queries, keys, own, scores, found):
    """Insert keys of higher scores into the sorted lists of the queries."""
    k = scores.shape[1]
    for a in range(products.shape[0]):
        query = queries[a]
        for b in range(products.shape[1]):
            if products[a, b] <= scores[query, k - 1] or keys[b] == own[query]:
                continue
            place = k - 1
            while place > 0 and scores[query, place - 1] < products[a, b]:
                scores[query, place] = scores[query, place - 1]
                found[query, place] = found[query, place - 1]
                place -= 1
            scores[query, place] = products[a, b]
            found[query, place] = keys[b]


def _inverted_lists(
    points: Float[np.ndarray, "n d"], k: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "n k"], float]:
    """Search the nearest cells of every row, as many as give the recall, and return what the sample's recall was."""
    centers = _cell_centers(points, rng)
    cells = _search(points, centers, 1)[:, 0]
    order = np.argsort(cells, kind="stable")
    bounds = np.searchsorted(cells[order], np.arange(len(centers) + 1))
    lists = _Lists(centers, points[order], order, bounds)
    sample = np.sort(rng.choice(len(points), min(N_CHECKED, len(points)), replace=False))
    truth = _search(points[sample], points, k, sample)
    n_probes, recall = min(FIRST_PROBES, len(centers)), 0.0
    while True:
        found = lists.search(points[sample], k, n_probes, sample)
        recall = float((found[:, :, None] == truth[:, None, :]).any(axis=2).mean())
        if recall >= RECALL or n_probes == len(centers):
            break
        n_probes = min(n_probes * 3 // 2, len(centers))
    return lists.search(points, k, n_probes, np.arange(len(points))), recall


def _cell_centers(points: Float[np.ndarray, "n d"], rng: np.random.Generator) -> Float[np.ndarray, "cells d"]:
    """Lloyd's algorithm, a few steps on a sample: cells need be compact, not optimal."""
    n_cells = max(math.isqrt(len(points)), len(points) // CELL_SIZE)
    sample = points[rng.choice(len(points), min(len(points), 32 * n_cells), replace=False)]
    centers = sample[:n_cells].copy()
    for _ in range(4):
        nearest = _search(sample, centers, 1)[:, 0]
        sizes = np.bincount(nearest, minlength=n_cells)
        members = scipy.sparse.csr_array(
            (np.ones(len(sample), sample.dtype), (nearest, np.arange(len(sample)))), (n_cells, len(sample))
        )
        centers[sizes > 0] = (members @ sample)[sizes > 0] / sizes[sizes > 0, None].astype(sample.dtype)
    return centers


@dataclass(frozen=True, eq=False)
class _Lists:
    """Points in the order of their cells: cell c holds ``points[bounds[c]:bounds[c + 1]]``, numbered by ``ids``."""

    centers: Float[np.ndarray, "cells d"]
    points: Float[np.ndarray, "n d"]
    ids: Int[np.ndarray, " n"]
    bounds: Int[np.ndarray, " bounds"]

    def search(
        self, queries: Float[np.ndarray, "q d"], k: int, n_probes: int, own: Int[np.ndarray, " q"]
    ) -> Int[np.ndarray, "q k"]:
        """Return the k nearest points in the ``n_probes`` nearest cells of each query, -1 where there are fewer."""
        found = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=queries.dtype)
        offsets = (self.points**2).sum(axis=1) / 2
        for start in range(0, len(queries), 32 * BLOCK):
            probes = _search(queries[start : start + 32 * BLOCK], self.centers, n_probes)
            for cell, local in _by_cell(probes, len(self.centers)):
                part, mine = slice(self.bounds[cell], self.bounds[cell + 1]), local + start
                products = queries[mine] @ self.points[part].T - offsets[part]
                _keep_nearest(products, mine, self.ids[part], own, scores, found)
        return found


def _by_cell(probes: Int[np.ndarray, "q probes"], n_cells: int) -> Iterator[tuple[int, Int[np.ndarray, " some"]]]:
    """Yield every cell that is probed with the queries that probe it."""
    cells = probes.ravel()
    order = np.argsort(cells, kind="stable")
    bounds = np.searchsorted(cells[order], np.arange(n_cells + 1))
    for cell in np.flatnonzero(np.diff(bounds)):
        yield int(cell), order[bounds[cell] : bounds[cell + 1]] // probes.shape[1]


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
    if not 1 <= k < n:
        raise ValueError(f"k must be from 1 to n - 1 = {n - 1}, the number of other rows; got {k}")
    known = {"metric": ("cosine", "euclidean"), "kernel": ("matern12", "rbf"), "method": ("auto", "exact", "ivf")}
    for (name, accepted), value in zip(known.items(), (metric, kernel, method), strict=True):
        if value not in accepted:
            raise ValueError(f"{name} must be one of {accepted}; got {value!r}")
    if length_scale != "median" and not (not isinstance(length_scale, str) and 0 < length_scale < math.inf):
        raise ValueError(f"length_scale must be 'median' or a positive number; got {length_scale!r}")
    if delta is not None and not delta > 0:
        raise ValueError(f"delta must be positive; got {delta}")
