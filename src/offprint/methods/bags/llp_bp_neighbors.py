"""Nearest neighbours of rows of a table: exact, or approximate and then with the recall that a sample had."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import no_type_check

import numba
import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

CELL_SIZE, MANY_CELLS = 256, 1000
FIRST_PROBES, RECALL, N_CHECKED = 8, 0.9, 5000
WIDER, FEW_BETTER = 3, 0.005
BLOCK = 2048
"""Queries at a time, and times four keys at a time: 64 MB of scores in single precision."""
ROUNDING = 16
"""Scores that differ by no more than so many units of rounding, of the squared norms behind them, are equal."""


def exact_neighbors(
    queries: Float[np.ndarray, "q d"],
    keys: Float[np.ndarray, "c d"],
    k: int,
    own: Int[np.ndarray, " q"] | None = None,
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """Return the k nearest keys of each query, nearest first and without the key that it is itself, and their scores.

    A score is q · k - |k|² / 2, which is half the squared distance less, from what is the same for all keys.
    """
    found, scores = _nothing(queries, k)
    own = np.full(len(queries), -1) if own is None else own
    offsets, ids = (keys**2).sum(axis=1) / 2, np.arange(len(keys))
    _look_among(queries, np.arange(len(queries)), keys, offsets, ids, own, scores, found)
    return found, scores


def _nothing(queries: Float[np.ndarray, "q d"], k: int) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """Return lists of neighbours, and of their scores, before any is found."""
    return np.full((len(queries), k), -1, dtype=np.int64), np.full((len(queries), k), -np.inf, dtype=queries.dtype)


def _look_among(
    queries: Float[np.ndarray, "q d"],
    mine: Int[np.ndarray, " some"],
    keys: Float[np.ndarray, "c d"],
    offsets: Float[np.ndarray, " c"],
    ids: Int[np.ndarray, " c"],
    own: Int[np.ndarray, " q"],
    scores: Float[np.ndarray, "q k"],
    found: Int[np.ndarray, "q k"],
) -> None:
    """Compare some of the queries with all keys, in blocks: a cell may hold half of a table, if its rows are alike."""
    for start in range(0, len(mine), BLOCK):
        rows = mine[start : start + BLOCK]
        for first in range(0, len(keys), 4 * BLOCK):
            part = slice(first, first + 4 * BLOCK)
            products = queries[rows] @ keys[part].T - offsets[part]
            _keep_nearest(products, rows, ids[part], own, scores, found)


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


def approximate_neighbors(
    points: Float[np.ndarray, "n d"], k: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "n k"], float]:
    """Search a few nearest cells of every row, then among neighbours of neighbours, until a sample has the recall.

    Most neighbours that a search of few cells misses are neighbours of those it finds, and looking there costs the same
    whatever the number of rows, where more cells would be needed the more rows there are.
    """
    n = len(points)
    lists = _Lists.of(points, max(math.isqrt(n), n // CELL_SIZE), rng)
    # Rows are numbered as they lie in the lists, so that those alike are close together in memory.
    order, points, lists = lists.ids, lists.points, replace(lists, ids=np.arange(n))
    offsets = (points**2).sum(axis=1) / 2
    sample = np.sort(rng.choice(n, min(N_CHECKED, n), replace=False))
    nearest, truth = exact_neighbors(points[sample], points, k, sample)
    rounding = ROUNDING * np.finfo(points.dtype).eps * (offsets[sample] + offsets[nearest[:, -1]])
    enough = truth[:, -1] - rounding
    n_probes = min(FIRST_PROBES, len(lists.centers))
    while True:
        found, scores = lists.search(points, min(WIDER * k, n - 1), n_probes, np.arange(n))
        recall, better, visit = _recall(scores[sample, :k], enough), found.size, 0
        since = np.zeros(found.shape, dtype=np.int32)
        while recall < RECALL and better > FEW_BETTER * found.size:
            visit += 1
            better = _look_around(points, offsets, scores, found, since, visit)
            recall = _recall(scores[sample, :k], enough)
        if recall >= RECALL or n_probes == len(lists.centers):
            break
        n_probes = min(2 * n_probes, len(lists.centers))
    neighbors = np.empty((n, k), dtype=np.int64)
    neighbors[order] = np.where(found[:, :k] < 0, -1, order[found[:, :k]])
    return neighbors, recall


def _recall(scores: Float[np.ndarray, "q k"], enough: Float[np.ndarray, " q"]) -> float:
    """Return the share of neighbours found that are as near as the true ones: of rows equally far away any will do."""
    return float((scores >= enough[:, None]).mean())


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def _look_around(points, offsets, scores, found, since, visit):
    """Compare every row with the neighbours of its neighbours, both ways; return how many better ones that gave.

    ``since`` says in which visit each neighbour was found: two that were there at the last one have been compared.
    """
    better = 0
    n, k = found.shape
    near, near_since = found[0].copy(), since[0].copy()
    for row in range(n):
        near[:], near_since[:] = found[row], since[row]
        for a in range(k):
            neighbor, seen = near[a], near_since[a] < visit - 1
            if neighbor < 0:
                continue
            for b in range(k):
                other = found[neighbor, b]
                if other < 0 or other == row or (seen and since[neighbor, b] < visit - 1):
                    continue
                product = _product(points, row, other)
                if product - offsets[other] > scores[row, k - 1]:
                    better += _insert(scores, found, since, row, other, product - offsets[other], visit)
                if product - offsets[row] > scores[other, k - 1]:
                    better += _insert(scores, found, since, other, row, product - offsets[row], visit)
    return better


@numba.njit(cache=True, fastmath={"reassoc", "contract"})
@no_type_check  # numba compiles the bare function
def _product(points, a, b):
    total = points[a, 0] * points[b, 0]
    for c in range(1, points.shape[1]):
        total += points[a, c] * points[b, c]
    return total


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def _insert(scores, found, since, row, key, score, visit):
    """Put a key in its place in the sorted list of a row, in place of the last, unless it is there already."""
    k = scores.shape[1]
    for place in range(k):
        if found[row, place] == key:
            return False
    place = k - 1
    while place > 0 and scores[row, place - 1] < score:
        scores[row, place] = scores[row, place - 1]
        found[row, place] = found[row, place - 1]
        since[row, place] = since[row, place - 1]
        place -= 1
    scores[row, place], found[row, place], since[row, place] = score, key, visit
    return True


@dataclass(frozen=True, eq=False)
class _Lists:
    """Points in the order of their cells: cell c holds ``points[bounds[c]:bounds[c + 1]]``, numbered by ``ids``.

    Where there are many cells their centres are points of such lists themselves, so that the nearest cells of a point
    are found without a look at all of them.
    """

    centers: Float[np.ndarray, "cells d"]
    points: Float[np.ndarray, "n d"]
    ids: Int[np.ndarray, " n"]
    bounds: Int[np.ndarray, " bounds"]
    above: _Lists | None

    @classmethod
    def of(cls, points: Float[np.ndarray, "n d"], n_cells: int, rng: np.random.Generator) -> _Lists:
        """Make cells by Lloyd's algorithm, a few steps on a sample: they need be compact, not optimal."""
        sample = points[rng.choice(len(points), min(len(points), 32 * n_cells), replace=False)]
        centers = sample[:n_cells].copy()
        if len(np.unique(centers, axis=0)) < n_cells:  # of centres that are alike one would get all rows
            centers = rng.permutation(np.unique(sample, axis=0))[:n_cells]
            n_cells = len(centers)
        for _ in range(4):
            above = cls._over(centers, rng)
            nearest = _nearest_cells(sample, centers, above, 1)[:, 0]
            sizes = np.bincount(nearest, minlength=n_cells)
            members = scipy.sparse.csr_array(
                (np.ones(len(sample), sample.dtype), (nearest, np.arange(len(sample)))), (n_cells, len(sample))
            )
            centers[sizes > 0] = (members @ sample)[sizes > 0] / sizes[sizes > 0, None].astype(sample.dtype)
        above = cls._over(centers, rng)
        if above is not None:  # cells of one group side by side, as rows will be that are read together
            centers, above = above.points, replace(above, ids=np.arange(n_cells))
        cells = _nearest_cells(points, centers, above, 1)[:, 0]
        order = np.argsort(cells, kind="stable")
        return cls(centers, points[order], order, np.searchsorted(cells[order], np.arange(n_cells + 1)), above)

    @classmethod
    def _over(cls, centers: Float[np.ndarray, "cells d"], rng: np.random.Generator) -> _Lists | None:
        return None if len(centers) < MANY_CELLS else cls.of(centers, math.isqrt(len(centers)), rng)

    def search(
        self, queries: Float[np.ndarray, "q d"], k: int, n_probes: int, own: Int[np.ndarray, " q"] | None = None
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """Return the k nearest points in the ``n_probes`` nearest cells of each query, and how near they are.

        -1 stands where there are fewer.
        """
        found, scores = _nothing(queries, k)
        own = np.full(len(queries), -1) if own is None else own
        offsets = (self.points**2).sum(axis=1) / 2
        for start in range(0, len(queries), 32 * BLOCK):
            probes = _nearest_cells(queries[start : start + 32 * BLOCK], self.centers, self.above, n_probes)
            for cell, local in _by_cell(probes, len(self.centers)):
                part, mine = slice(self.bounds[cell], self.bounds[cell + 1]), local + start
                _look_among(queries, mine, self.points[part], offsets[part], self.ids[part], own, scores, found)
        return found, scores


def _nearest_cells(
    queries: Float[np.ndarray, "q d"], centers: Float[np.ndarray, "cells d"], above: _Lists | None, n_cells: int
) -> Int[np.ndarray, "q nearest"]:
    """Return the nearest cells of each query, -1 for some where a search from above did not see as many."""
    if above is None:
        return exact_neighbors(queries, centers, n_cells)[0]
    # Twice as many groups as these cells would fill, and some for those that lie across borders.
    n_groups = FIRST_PROBES + math.ceil(2 * n_cells * len(above.centers) / len(centers))
    return above.search(queries, n_cells, min(n_groups, len(above.centers)))[0]


def _by_cell(probes: Int[np.ndarray, "q probes"], n_cells: int) -> Iterator[tuple[int, Int[np.ndarray, " some"]]]:
    """Yield every cell that is probed with the queries that probe it."""
    cells = probes.ravel()
    order = np.argsort(cells, kind="stable")
    bounds = np.searchsorted(cells[order], np.arange(n_cells + 1))
    for cell in np.flatnonzero(np.diff(bounds)):
        yield int(cell), order[bounds[cell] : bounds[cell + 1]] // probes.shape[1]
