"""Graphs of neighbours against scikit-learn's search, and the ways of bringing one's own."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
from jaxtyping import config
from sklearn.neighbors import NearestNeighbors

from offprint.methods.bags import llp_bp_neighbors
from offprint.methods.bags.llp_bp_graph import SimilarityGraph, neighbor_graph


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def rows(n, d=6, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype) + 0.5


def pairs_of_scikit_learn(X, k, metric):
    found = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(X).kneighbors(return_distance=False)
    return {(min(i, j), max(i, j)) for i in range(len(X)) for j in found[i].tolist()}


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_exact_neighbours_are_those_of_scikit_learn(metric, monkeypatch):
    monkeypatch.setattr(llp_bp_neighbors, "BLOCK", 64)  # so that there are several blocks of queries and of keys
    X = rows(500)
    graph = neighbor_graph(X, 4, metric=metric)
    assert {tuple(edge) for edge in graph.edges.tolist()} == pairs_of_scikit_learn(X, 4, metric)
    assert (graph.edges[:, 0] < graph.edges[:, 1]).all()
    assert graph.edges.dtype == np.int32
    assert graph.recall == 1.0


@pytest.mark.parametrize("many_cells", [1000, 10])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_inverted_lists_find_nine_of_ten(metric, many_cells, monkeypatch):
    """Of so many dimensions that eight lists are not enough; where ten cells are many, lists are of two levels."""
    monkeypatch.setattr(llp_bp_neighbors, "MANY_CELLS", many_cells)
    X = rows(3000, 16, dtype=np.float32)
    graph = neighbor_graph(X, 5, metric=metric, method="ivf")
    truth = pairs_of_scikit_learn(X, 5, metric)
    found = {tuple(edge) for edge in graph.edges.tolist()}
    shared = len(found & truth) / len(truth)
    # The recall is that of every row's own neighbours, this of pairs, which either row may find: it can only be higher.
    assert 0.9 <= graph.recall <= shared + 0.01
    assert len(found) < 1.1 * len(truth)


def test_inverted_lists_follow_their_seed():
    X = rows(1500)
    first, again, other = (neighbor_graph(X, method="ivf", random_state=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.edges, again.edges)
    assert not np.array_equal(first.edges, other.edges)


@pytest.mark.parametrize(
    ("kernel", "law"), [("matern12", lambda r: np.exp(-r)), ("rbf", lambda r: np.exp(-(r**2) / 2))]
)
def test_weights_are_the_kernel_of_the_distance(kernel, law):
    X = rows(200)
    graph = neighbor_graph(X, kernel=kernel)
    distances = np.linalg.norm(X[graph.edges[:, 0]] - X[graph.edges[:, 1]], axis=1)
    assert graph.length_scale == pytest.approx(np.median(distances))
    np.testing.assert_allclose(graph.weights, law(distances / np.median(distances)), rtol=1e-12)
    np.testing.assert_allclose(
        neighbor_graph(X, kernel=kernel, length_scale=2.0).weights, law(distances / 2), rtol=1e-12
    )


@pytest.mark.parametrize(("metric", "delta"), [("cosine", 0.05), ("euclidean", 1.5)])
def test_far_neighbours_are_dropped(metric, delta):
    X = rows(300)
    every, near = neighbor_graph(X, metric=metric), neighbor_graph(X, metric=metric, delta=delta)
    a, b = X[every.edges[:, 0]], X[every.edges[:, 1]]
    apart = np.linalg.norm(a - b, axis=1)
    if metric == "cosine":
        apart = 1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert 0 < (apart < delta).sum() < len(apart)
    np.testing.assert_array_equal(near.edges, every.edges[apart < delta])


def test_repeated_rows_do_no_harm():
    X = np.repeat(rows(30), 4, axis=0)
    graph = neighbor_graph(X, 2)
    assert np.isfinite(graph.weights).all()
    assert graph.length_scale > 0
    assert neighbor_graph(np.ones((5, 2)), 2).weights.tolist() == [1.0] * len(neighbor_graph(np.ones((5, 2)), 2).edges)


def test_rows_far_from_the_origin_keep_their_neighbours():
    """In single precision squares of 1e6 leave no digit of distances of 1; rows themselves have steps of 0.06."""
    X = rows(400, 4)
    X[:, 1] += 2.0**20
    X = X.astype(np.float32)
    found = {tuple(edge) for edge in neighbor_graph(X, 4, metric="euclidean").edges.tolist()}
    truth = pairs_of_scikit_learn(X.astype(np.float64), 4, "euclidean")
    assert len(found & truth) > 0.98 * len(truth)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100])
def test_the_unit_of_features_does_not_matter(metric, scale):
    """Powers of two change no digit, but squares of 2^100 and 2^-100 are out of reach of single precision."""
    X = rows(200, dtype=np.float32)
    settings = {"metric": metric, "delta": 0.05 if metric == "cosine" else 1.5}
    plain = neighbor_graph(X, **settings)
    far = settings["delta"] * (scale if metric == "euclidean" else 1)
    scaled = neighbor_graph(X * np.float32(scale), **{**settings, "delta": far})
    assert len(plain.edges) > 0
    np.testing.assert_array_equal(scaled.edges, plain.edges)
    np.testing.assert_array_equal(scaled.weights, plain.weights)
    assert scaled.length_scale == plain.length_scale * scale


def test_to_a_cosine_the_length_of_single_rows_does_not_matter():
    X = rows(200, dtype=np.float32)
    lengths = 2.0 ** np.random.default_rng(1).integers(-100, 100, (200, 1))
    np.testing.assert_array_equal(neighbor_graph((X * lengths).astype(np.float32)).edges, neighbor_graph(X).edges)


def test_single_precision_stays_single():
    assert neighbor_graph(rows(50, dtype=np.float32)).weights.dtype == np.float32
    assert neighbor_graph(rows(50)).weights.dtype == np.float64


def test_a_matrix_is_taken_as_it_is_meant():
    matrix = scipy.sparse.csr_array(np.array([[9.0, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 3.0, 0.0]]))
    for given in (matrix, matrix.toarray()):
        graph = SimilarityGraph.from_matrix(given)
        assert graph.edges.tolist() == [[0, 1], [1, 2]]
        assert graph.weights.tolist() == [2.0, 3.0]
    assert graph.label_agreement([1, 1, 0]) == 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(SimilarityGraph.from_matrix(np.eye(3)).label_agreement([1, 1, 0]))


ROWS = rows(20)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: neighbor_graph(ROWS, 20), "k must be from 1 to n - 1 = 19"),
        (lambda: neighbor_graph(ROWS, 0), "k must be"),
        (lambda: neighbor_graph(ROWS, 2.0), "k must be"),
        (lambda: neighbor_graph(ROWS * np.nan), "X contains NaN"),
        (lambda: neighbor_graph(ROWS[:, 0]), "X must be of shape"),
        (lambda: neighbor_graph(ROWS * 0), "X must have no zero row"),
        (lambda: neighbor_graph(ROWS, metric="manhattan"), "metric"),
        (lambda: neighbor_graph(ROWS, kernel="linear"), "kernel"),
        (lambda: neighbor_graph(ROWS, method="tree"), "method"),
        (lambda: neighbor_graph(ROWS, length_scale=0.0), "length_scale"),
        (lambda: neighbor_graph(ROWS, length_scale=np.nan), "length_scale"),
        (lambda: neighbor_graph(ROWS, length_scale="mean"), "length_scale"),
        (lambda: neighbor_graph(ROWS, delta=np.nan), "delta"),
        (lambda: SimilarityGraph.from_matrix(np.full((2, 2), np.nan)), "graph"),
        (lambda: neighbor_graph(ROWS).label_agreement([1, 0]), "labels"),
    ],
)
def test_what_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
