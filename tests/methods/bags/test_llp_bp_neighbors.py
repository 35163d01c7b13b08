"""Searches for neighbours against the table of all distances, steps done by hand, and tables full of ties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from offprint.methods.bags import llp_bp_neighbors
from offprint.methods.bags.llp_bp_neighbors import (
    _by_cell,
    _Lists,
    _look_around,
    _nearest_cells,
    _recall,
    approximate_neighbors,
    exact_neighbors,
)


def rows(n, d=6, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype) + 0.5


def squared_distances(queries, keys):
    return cdist(queries, keys, "sqeuclidean")  # in double precision, whatever is given


def brute_force(X, k):
    """The k nearest other rows of each row, from the table of all distances."""
    apart = squared_distances(X, X)
    np.fill_diagonal(apart, np.inf)
    return apart.argsort(axis=1, kind="stable")[:, :k]


def shared(found, truth):
    return float((found[:, :, None] == truth[:, None, :]).any(axis=2).mean())


def scores_of(X, found):
    return (X[:, None] * X[found]).sum(2) - (X**2).sum(1)[found] / 2


def lists_of(X, n_cells, seed=0):
    return _Lists.of(X, n_cells, np.random.default_rng(seed))


@pytest.fixture
def two_levels(monkeypatch):
    """Make ten cells so many that they are found by way of groups."""
    monkeypatch.setattr(llp_bp_neighbors, "MANY_CELLS", 10)


@pytest.fixture
def probes(monkeypatch):
    """Note of each search of rows in their cells how many cells it looked into."""
    seen, search = [], _Lists.search

    def watched(self, queries, k, n_probes, own=None):
        if own is not None:
            seen.append(n_probes)
        return search(self, queries, k, n_probes, own)

    monkeypatch.setattr(_Lists, "search", watched)
    return seen


@pytest.mark.parametrize("block", [2048, 16])
def test_the_exact_search_is_brute_force(block, monkeypatch):
    """Nearest first, without the row itself, and with the scores that it says; blocks of queries and of keys or one."""
    monkeypatch.setattr(llp_bp_neighbors, "BLOCK", block)
    X = rows(300)
    found, scores = exact_neighbors(X, X, 4, np.arange(300))
    np.testing.assert_array_equal(found, brute_force(X, 4))
    np.testing.assert_allclose(scores, scores_of(X, found), atol=1e-12)
    others, _ = exact_neighbors(X[:7], X[7:], 2)
    np.testing.assert_array_equal(others, squared_distances(X[:7], X[7:]).argsort(axis=1)[:, :2])
    few, scores = exact_neighbors(X[:2], X[:2], 3, np.arange(2))
    assert few.tolist() == [[1, -1, -1], [0, -1, -1]]
    assert np.isneginf(scores[:, 1:]).all()


def test_of_rows_equally_far_away_the_first_are_taken():
    X = np.array([[0.0], [1.0], [-1.0], [1.0], [-1.0]])
    assert exact_neighbors(X, X, 2, np.arange(5))[0].tolist() == [[1, 2], [3, 0], [4, 0], [1, 0], [2, 0]]


def test_cells_hold_every_row_once_and_each_row_lies_in_the_cell_of_the_nearest_centre():
    X = rows(2000)
    lists = lists_of(X, 40)
    assert lists.above is None
    assert sorted(lists.ids.tolist()) == list(range(2000))
    np.testing.assert_array_equal(lists.points, X[lists.ids])
    assert (lists.bounds[0], lists.bounds[-1], len(lists.bounds)) == (0, 2000, 41)
    cells = np.repeat(np.arange(40), np.diff(lists.bounds))
    apart = squared_distances(lists.points, lists.centers)
    np.testing.assert_array_equal(cells, apart.argmin(axis=1))
    # Centres are means of what they attract, not rows drawn at random: squared distances to the nearest are a
    # tenth smaller at least.
    drawn = X[np.random.default_rng(1).choice(2000, 40, replace=False)]
    assert apart.min(axis=1).mean() < 0.9 * squared_distances(X, drawn).min(axis=1).mean()


@pytest.mark.usefixtures("two_levels")
def test_cells_found_by_way_of_groups_are_nearly_always_the_nearest():
    X = rows(4000)
    lists = lists_of(X, 400)
    assert lists.above is not None
    assert lists.above.above is not None  # twenty groups are many too
    assert sorted(lists.ids.tolist()) == list(range(4000))
    np.testing.assert_array_equal(lists.above.points, lists.centers)
    np.testing.assert_array_equal(lists.above.ids, np.arange(400))
    apart = squared_distances(X, lists.centers)
    nearest = _nearest_cells(X, lists.centers, lists.above, 5)
    assert shared(nearest, apart.argsort(axis=1)[:, :5]) > 0.95
    assert (nearest[:, 0] == apart.argmin(axis=1)).mean() > 0.95
    every = _nearest_cells(X[:50], lists.centers, lists.above, 400)  # no group is left out
    np.testing.assert_array_equal(every, apart[:50].argsort(axis=1))


@pytest.mark.parametrize("block", [2048, 4])
def test_a_search_looks_into_as_many_cells_as_asked_for_and_no_other(block, monkeypatch):
    """The three nearest rows among those of the two nearest cells, from the table of all distances."""
    monkeypatch.setattr(llp_bp_neighbors, "BLOCK", block)
    X = rows(600)
    lists = lists_of(X, 20)
    cells = np.empty(600, dtype=int)
    cells[lists.ids] = np.repeat(np.arange(20), np.diff(lists.bounds))
    probed = squared_distances(X, lists.centers).argsort(axis=1)[:, :2]
    apart = squared_distances(X, X)
    apart[~(cells[None, :, None] == probed[:, None, :]).any(axis=2)] = np.inf
    np.fill_diagonal(apart, np.inf)
    wanted = apart.argsort(axis=1, kind="stable")[:, :3]
    wanted = np.where(np.isinf(np.take_along_axis(apart, wanted, 1)), -1, wanted)
    found, scores = lists.search(X, 3, 2, np.arange(600))
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(scores, np.where(found < 0, -np.inf, scores_of(X, found)), atol=1e-12)
    everywhere, _ = lists.search(X, 3, 20, np.arange(600))
    np.testing.assert_array_equal(everywhere, brute_force(X, 3))


def test_queries_of_a_cell_are_those_that_probe_it():
    probed = np.array([[2, 0], [0, -1], [3, 2]])
    assert {cell: sorted(mine.tolist()) for cell, mine in _by_cell(probed, 5)} == {0: [0, 1], 2: [0, 2], 3: [2]}


def test_a_look_around_by_hand():
    """On a line at 0, 1, 5 and 9, each knows one other. 0 knows 5, which knows 1: 0 and 1 find each other.

    The other two then find their best among what these knew: 5 stays with 1, and 9 with 5.
    """
    X = np.array([[0.0], [1.0], [5.0], [9.0]])
    found = np.array([[2], [3], [1], [2]])
    scores, since = scores_of(X, found), np.zeros((4, 1), dtype=np.int32)
    better = _look_around(X, (X**2).sum(1) / 2, scores, found, since, 1)
    assert found.tolist() == [[1], [0], [1], [2]]
    assert better == 2
    assert since.tolist() == [[1], [1], [0], [0]]
    np.testing.assert_array_equal(scores, scores_of(X, found))


def test_a_look_around_by_hand_where_a_row_knows_nobody():
    """At 0, 1, 5 and 0.5. The last knows 5, which knows 1, which knows nobody yet: these two find each other.

    What stands for nobody is no row, and not the last one, which would be nearest to 0.
    """
    X = np.array([[0.0], [1.0], [5.0], [0.5]])
    found = np.array([[1], [-1], [1], [2]])
    scores, since = np.where(found < 0, -np.inf, scores_of(X, found)), np.zeros((4, 1), dtype=np.int32)
    assert _look_around(X, (X**2).sum(1) / 2, scores, found, since, 1) == 2
    assert found.tolist() == [[1], [3], [1], [1]]


def test_a_look_around_compares_nothing_where_nothing_is_new(monkeypatch):
    X, rng, compared, product = rows(60, 3), np.random.default_rng(0), [], llp_bp_neighbors._product.py_func
    monkeypatch.setattr(llp_bp_neighbors, "_product", lambda *args: compared.append(1) or product(*args))
    found = np.array([rng.choice(np.delete(np.arange(60), i), 5, False) for i in range(60)])
    found = np.take_along_axis(found, (-scores_of(X, found)).argsort(1), 1)
    scores, since, better, visit = scores_of(X, found), np.zeros((60, 5), dtype=np.int32), 1, 0
    while better:
        visit += 1
        better = _look_around.py_func(X, (X**2).sum(1) / 2, scores, found, since, visit)
    assert len(compared) > 60 * 20  # nearly all 25 of each row at first
    compared.clear()
    assert _look_around.py_func(X, (X**2).sum(1) / 2, scores, found, since, visit + 1) == 0
    assert compared == []


def test_a_look_around_leaves_nobody_worse_and_counts_what_changed():
    X = rows(400, 3)
    rng = np.random.default_rng(1)
    found = np.array([rng.choice(np.delete(np.arange(400), i), 6, False) for i in range(400)])
    found = np.take_along_axis(found, (-scores_of(X, found)).argsort(1), 1)
    found[7, 4:] = -1  # as where a row's cells held few
    scores = np.where(found < 0, -np.inf, scores_of(X, found))
    before, old, since = scores.copy(), found.copy(), np.zeros((400, 6), dtype=np.int32)
    better = _look_around(X, (X**2).sum(1) / 2, scores, found, since, 1)
    assert (scores >= before).all()
    assert not (found == np.arange(400)[:, None]).any()
    assert all(len(set(row)) == 6 for row in found.tolist())
    assert (found >= 0).all()
    np.testing.assert_array_equal(since > 0, [[key not in old[i] for key in found[i]] for i in range(400)])
    assert better >= (since > 0).sum() > 400  # some were found, and gave way again


def test_a_second_look_compares_only_with_what_is_new():
    """And finds what a look at everything would."""
    X, truth = rows(1000, 8), brute_force(rows(1000, 8), 12)
    everyone = np.array(
        [np.random.default_rng(i).choice(np.delete(np.arange(1000), i), 12, False) for i in range(1000)]
    )
    results, compared = [], []
    for forget in (False, True):
        found = np.take_along_axis(everyone, (-scores_of(X, everyone)).argsort(1), 1)
        scores, since = scores_of(X, found), np.zeros((1000, 12), dtype=np.int32)
        better = 1
        for visit in range(1, 30):
            if forget:
                since[:] = visit
            better = _look_around(X, (X**2).sum(1) / 2, scores, found, since, visit)
            compared.append(better)
            if better == 0:
                break
        assert better == 0
        np.testing.assert_allclose(scores, scores_of(X, found), atol=1e-12)
        assert (np.diff(scores) <= 0).all()
        assert all(len(set(row)) == 12 for row in found.tolist())
        results.append(shared(found, truth))
    quick, full = results
    assert full > 0.95
    assert quick > full - 0.002


def test_the_recall_is_the_share_of_neighbours_that_are_near_enough():
    assert _recall(np.array([[3.0, 1.0], [0.5, -np.inf]]), np.array([1.0, 0.0])) == 0.75


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_recall_of_a_search_is_that_of_all_rows_where_all_are_sampled(dtype):
    """By ids, from brute force. A pair in a million may be a tie in single precision, of 15,000 here: 1e-3."""
    X = rows(3000, 16, dtype)
    found, recall = approximate_neighbors(X, 5, np.random.default_rng(0))
    assert found.shape == (3000, 5)
    assert not (found == np.arange(3000)[:, None]).any()
    assert all(len(set(row)) == 5 for row in found.tolist())
    assert recall == pytest.approx(shared(found, brute_force(X, 5)), abs=1e-3)
    assert 0.9 <= recall < 0.9999


def test_a_sample_tells_the_recall_of_all_rows(monkeypatch):
    """Of 500 rows and 5 neighbours each; five standard errors of a share of 0.9 or more of 2500 are 0.03."""
    monkeypatch.setattr(llp_bp_neighbors, "N_CHECKED", 500)
    X = rows(3000, 16)
    found, recall = approximate_neighbors(X, 5, np.random.default_rng(0))
    assert recall == pytest.approx(shared(found, brute_force(X, 5)), abs=0.03)


def test_neighbours_of_neighbours_are_found_without_a_search_of_more_cells(monkeypatch, probes):
    X = rows(3000, 16, dtype=np.float32)
    assert approximate_neighbors(X, 5, np.random.default_rng(0))[1] >= 0.9
    assert probes == [8]
    monkeypatch.setattr(llp_bp_neighbors, "_look_around", lambda *_: 0)
    assert approximate_neighbors(X, 5, np.random.default_rng(0))[1] >= 0.9
    assert probes[1:3] == [8, 16]


@pytest.mark.usefixtures("two_levels")
def test_in_the_end_all_cells_are_searched(monkeypatch):
    """Where no recall is enough, the search is exact, also by way of groups."""
    monkeypatch.setattr(llp_bp_neighbors, "RECALL", 1.1)
    X = rows(1000, 12)
    found, recall = approximate_neighbors(X, 4, np.random.default_rng(0))
    assert recall == 1.0
    np.testing.assert_array_equal(np.sort(found), np.sort(brute_force(X, 4)))


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_few_rows_and_all_of_them_as_neighbours(n):
    found, recall = approximate_neighbors(rows(n), n - 1, np.random.default_rng(0))
    assert recall == 1.0
    assert [sorted([i, *found[i]]) for i in range(n)] == [list(range(n))] * n


def test_equal_rows_are_neighbours_whichever_they_are(monkeypatch, probes):
    """Half of all rows are one, and of the rest each is there four times: a search by ids would find hardly any.

    Nor may a cell of half of the table be compared with itself at once: no block is larger than it says.
    """
    monkeypatch.setattr(llp_bp_neighbors, "BLOCK", 64)
    largest, keep = [0, 0], llp_bp_neighbors._keep_nearest

    def watched(products, *rest):
        largest[:] = np.maximum(largest, products.shape)
        keep(products, *rest)

    monkeypatch.setattr(llp_bp_neighbors, "_keep_nearest", watched)
    distinct = rows(500, 8, np.float32)
    X = np.concatenate([np.repeat(distinct[:1], 2000, axis=0), np.repeat(distinct[1:], 4, axis=0)])
    X = np.random.default_rng(1).permutation(X)
    found, recall = approximate_neighbors(X, 3, np.random.default_rng(0))
    assert recall == 1.0
    assert probes == [8]
    assert not (found == np.arange(len(X))[:, None]).any()
    assert all(len(set(row)) == 3 for row in found.tolist())
    np.testing.assert_array_equal(X[found], np.repeat(X[:, None], 3, axis=1))
    assert largest == [64, 256]


def test_equal_rows_do_not_make_equal_centres():
    """Nine of ten rows are one: centres drawn from rows as they come would be that one nine times of ten."""
    distinct = rows(400, 8)
    X = np.random.default_rng(1).permutation(np.concatenate([np.repeat(distinct[:1], 3600, axis=0), distinct]))
    lists = lists_of(X, 60)
    assert len(np.unique(lists.centers, axis=0)) == len(lists.centers) == 60
    assert (np.diff(lists.bounds) > 0).mean() > 0.9
    few = lists_of(np.repeat(distinct[:7], 100, axis=0), 20)  # there are no more than seven
    assert len(few.centers) == 7
    assert np.diff(few.bounds).tolist() == [100] * 7


def test_a_grid_is_full_of_ties(probes):
    """Every inner point of a grid of steps of 1 has six neighbours at distance 1: any three of them are right."""
    axes = np.arange(14.0)
    X = np.stack(np.meshgrid(axes, axes, axes), axis=-1).reshape(-1, 3) - 6.5
    found, recall = approximate_neighbors(X, 3, np.random.default_rng(0))
    assert recall >= 0.9
    assert probes == [8]
    apart = np.linalg.norm(X[:, None] - X[found], axis=2)
    assert (apart < 1 + 1e-9).mean() == pytest.approx(recall, abs=1e-12)
