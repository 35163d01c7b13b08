"""Belief propagation and its bag factors against sums over all labellings."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
import scipy.stats
from jaxtyping import config

from offprint.methods.bags.llp_bp_counts import CountFactors
from offprint.methods.bags.llp_bp_propagation import belief_propagation

NO_EDGES, NO_COUPLINGS = np.zeros((0, 2), dtype=np.int64), np.zeros(0)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def by_enumeration(theta, edges, couplings, log_potentials=()):
    """Marginals from all 2^n labellings; ``log_potentials`` holds (members, values at 0, ..., size) of each bag."""
    labels = np.array(list(itertools.product([0, 1], repeat=len(theta))), dtype=float)
    energy = labels @ theta
    for (i, j), coupling in zip(edges, couplings, strict=True):
        energy += coupling * labels[:, i] * labels[:, j]
    for members, values in log_potentials:
        energy += np.asarray(values)[labels[:, members].sum(1).astype(int)]
    weights = np.exp(energy - energy.max())
    return weights @ labels / weights.sum()


def squares(size, count, weight):
    """The bag's log potential, with an infinite weight written out."""
    if np.isinf(weight):
        return [0.0 if k == count else -np.inf for k in range(size + 1)]
    return [-weight * (k - count) ** 2 for k in range(size + 1)]


@pytest.mark.parametrize("seed", range(4))
def test_a_tree_is_exact(seed):
    rng = np.random.default_rng(seed)
    tree = nx.random_labeled_tree(12, seed=seed)
    edges = np.array(tree.edges)
    theta, couplings = rng.normal(0, 2, 12), rng.normal(0, 2, 11)
    found = belief_propagation(theta, edges, couplings, max_iter=500, tol=1e-10)
    # On a tree messages settle after as many steps as it is deep; damping leaves a geometric rest below tol.
    np.testing.assert_allclose(found.marginals, by_enumeration(theta, edges, couplings), atol=1e-6)
    assert found.converged
    assert found.residual <= 1e-10


@pytest.mark.parametrize("weight", [0.1, 1.0, 10.0, np.inf])
def test_a_single_bag_is_exact(weight):
    rng = np.random.default_rng(0)
    for count in (0, 1, 5, 10):
        theta = rng.normal(0, 3, 10)
        bags = CountFactors.from_counts(np.zeros(10, dtype=int), [count], weight)
        found = belief_propagation(theta, NO_EDGES, NO_COUPLINGS, bags)
        expected = by_enumeration(theta, [], [], [(np.arange(10), squares(10, count, weight))])
        np.testing.assert_allclose(found.marginals, expected, atol=1e-8)


def test_two_bags_of_unequal_sizes_in_any_order_are_exact():
    rng = np.random.default_rng(1)
    ids = rng.permutation([0] * 4 + [1] * 8)
    theta = rng.normal(0, 2, 12)
    found = belief_propagation(theta, NO_EDGES, NO_COUPLINGS, CountFactors.from_counts(ids, [3, 2], 0.7))
    potentials = [(np.flatnonzero(ids == 0), squares(4, 3, 0.7)), (np.flatnonzero(ids == 1), squares(8, 2, 0.7))]
    np.testing.assert_allclose(found.marginals, by_enumeration(theta, [], [], potentials), atol=1e-8)


def test_a_tree_through_bags_is_exact():
    """Two bags joined by one pair: the factor graph has no loop, so everything must be exact."""
    rng = np.random.default_rng(2)
    ids, edges, coupling = np.repeat([0, 1], 5), np.array([[2, 7]]), np.array([1.5])
    theta = rng.normal(0, 1, 10)
    found = belief_propagation(theta, edges, coupling, CountFactors.from_counts(ids, [2, 4], 1.0), tol=1e-12)
    potentials = [(np.arange(5), squares(5, 2, 1.0)), (np.arange(5, 10), squares(5, 4, 1.0))]
    np.testing.assert_allclose(found.marginals, by_enumeration(theta, edges, coupling, potentials), atol=1e-8)


@pytest.mark.parametrize(
    ("size", "count", "weight", "expected"), [(8, 1, 0.5, 0.2499181), (8, 3, 0.2, 0.4427831), (8, 1, 10.0, 0.1250191)]
)
def test_a_symmetric_bag(size, count, weight, expected):
    bags = CountFactors.from_counts(np.zeros(size, dtype=int), [count], weight)
    found = belief_propagation(np.zeros(size), NO_EDGES, NO_COUPLINGS, bags)
    k = np.arange(size + 1)
    law = scipy.stats.binom.pmf(k, size, 0.5) * np.exp(-weight * (k - count) ** 2)
    np.testing.assert_allclose(found.marginals, (law @ k) / law.sum() / size, atol=1e-12)
    np.testing.assert_allclose(found.marginals, expected, atol=1e-6)


def test_two_nodes():
    similarity = 0.9
    theta = np.array([0.7, -0.2]) - similarity
    found = belief_propagation(theta, np.array([[0, 1]]), np.array([2 * similarity]), tol=1e-9)
    np.testing.assert_allclose(found.marginals, [0.6492743, 0.5214273], atol=1e-6)


@pytest.mark.parametrize("strength", [29.0, 31.0, 90.0, 2000.0, -29.0, -31.0, -90.0, -2000.0])
def test_pairs_of_any_strength_are_exact(strength):
    """Fields that nearly undo the couplings, so that neither label is certain; 2000 is too large for an exponential."""
    theta = np.array([0.7, -0.2, 1.1]) - strength / 2
    edges, couplings = np.array([[0, 1], [1, 2]]), np.array([strength, strength])
    found = belief_propagation(theta, edges, couplings, max_iter=500, tol=1e-12)
    np.testing.assert_allclose(found.marginals, by_enumeration(theta, edges, couplings), atol=1e-9)


def test_loops_stay_close():
    """Twelve nodes on a graph of two nearest neighbours with three bags of four: a loopy model, enumerable."""
    rng = np.random.default_rng(3)
    errors = []
    for _ in range(5):
        points = rng.normal(size=(12, 2))
        near = np.argsort(((points[:, None] - points[None]) ** 2).sum(-1), axis=1)[:, 1:3]
        edges = np.array(sorted({(min(i, j), max(i, j)) for i in range(12) for j in near[i].tolist()}))
        ids, counts = rng.permutation(np.arange(12) % 3), rng.integers(0, 5, 3)
        couplings = np.full(len(edges), 2 * 0.5)
        theta = -0.5 * np.bincount(edges.ravel(), minlength=12)
        found = belief_propagation(theta, edges, couplings, CountFactors.from_counts(ids, counts, 1.0))
        bags = [(np.flatnonzero(ids == s), squares(4, counts[s], 1.0)) for s in range(3)]
        errors.append(np.abs(found.marginals - by_enumeration(theta, edges, couplings, bags)).mean())
    assert max(errors) <= 0.05


def log_poisson_binomial(logits):
    """The logarithm of the law of the number of positives, by repeated convolution of logarithms."""
    law = np.zeros(1)
    for x in logits:
        law = np.logaddexp(np.append(law, -np.inf) - np.logaddexp(0, x), np.append(-np.inf, law) - np.logaddexp(0, -x))
    return law


@pytest.mark.parametrize(("spread", "weight"), [(1.0, 4.0), (30.0, 4.0), (200.0, np.inf), (5.0, 1e-4), (0.0, np.inf)])
def test_messages_far_out_in_the_tails(spread, weight):
    """Counts that the odds speak against by thousands of log-odds, where plain probabilities underflow."""
    rng = np.random.default_rng(4)
    size = 60
    for count in (0, 3, 57):
        logits = rng.normal(0, 1 + spread, size) - (spread if count > 30 else -spread)
        potential = np.array(squares(size, count, weight))
        found = CountFactors.from_counts(np.zeros(size, dtype=int), [count], weight).messages(logits)
        for i in (0, 17, size - 1):
            law = log_poisson_binomial(np.delete(logits, i))
            up, down = np.logaddexp.reduce(potential[1:] + law), np.logaddexp.reduce(potential[:-1] + law)
            expected = np.clip(up - down, -700, 700)
            # Rounding of logarithms of up to 10^4, on either side.
            np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-9)


def test_large_bags_hold_their_counts():
    rng = np.random.default_rng(5)
    ids = np.repeat([0, 1, 2], [2048, 700, 1])
    counts = [5, 650, 1]
    theta = rng.normal(-1, 6, len(ids))
    found = belief_propagation(theta, NO_EDGES, NO_COUPLINGS, CountFactors.from_counts(ids, counts, np.inf))
    np.testing.assert_allclose(np.bincount(ids, found.marginals), counts, atol=1e-6)


def test_noise_of_a_known_law_is_exact():
    rng = np.random.default_rng(6)
    theta, noise = rng.normal(0, 1, 8), scipy.stats.laplace(scale=1.5)
    bags = CountFactors.from_noise(np.zeros(8, dtype=int), [9.3], noise.logpdf)
    found = belief_propagation(theta, NO_EDGES, NO_COUPLINGS, bags)
    expected = by_enumeration(theta, [], [], [(np.arange(8), noise.logpdf(9.3 - np.arange(9)))])
    np.testing.assert_allclose(found.marginals, expected, atol=1e-8)


def test_two_likely_counts_far_apart_are_both_seen():
    """A potential that is not concave: no tilt puts the mean on both of its peaks."""
    values = np.full(41, -np.inf)
    values[[0, 40]] = 0.0
    bags = CountFactors(np.arange(40), np.array([0, 40]), values)
    logits = np.full(40, 0.01)
    marginals = 1 / (1 + np.exp(-logits - bags.messages(logits)))
    np.testing.assert_allclose(marginals, 1 / (1 + np.exp(-0.4)), atol=1e-9)


def test_single_precision_agrees_with_double():
    rng = np.random.default_rng(7)
    graph = nx.random_regular_graph(4, 60, seed=0)
    edges, theta = np.array(graph.edges), rng.normal(0, 1, 60)
    bags = CountFactors.from_counts(np.arange(60) % 5, [3, 6, 9, 2, 5])
    couplings = np.full(len(edges), 0.5)
    single = belief_propagation(theta.astype(np.float32), edges, couplings.astype(np.float32), bags)
    assert single.marginals.dtype == np.float32
    # Messages of order 1 in single precision, and both stop at a residual of 1e-4.
    np.testing.assert_allclose(single.marginals, belief_propagation(theta, edges, couplings, bags).marginals, atol=1e-3)


def test_what_did_not_converge_says_so():
    edges = np.array(list(itertools.combinations(range(8), 2)))
    theta, couplings = np.full(8, -10.0 * (1 - 2 * 4)), np.full(len(edges), -20.0)
    found = belief_propagation(theta + np.linspace(-1, 1, 8), edges, couplings)
    assert not found.converged
    assert found.residual > 1
    assert found.n_iter == 100


def good(**changed):
    values = {"theta": np.zeros(3), "edges": np.array([[0, 1], [1, 2]]), "couplings": np.ones(2), **changed}
    return belief_propagation(values.pop("theta"), values.pop("edges"), values.pop("couplings"), **values)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"theta": np.array([0.0, np.nan, 0.0])}, "theta"),
        ({"couplings": np.array([np.inf, 0.0])}, "couplings"),
        ({"couplings": np.ones(3)}, "couplings"),
        ({"edges": np.array([[0, 3], [1, 2]])}, "edges"),
        ({"edges": np.array([[1, 1], [1, 2]])}, "edges"),
        ({"edges": np.array([[1, 2], [2, 1]])}, "edges"),
        ({"edges": np.array([[0.5, 1.0], [1.0, 2.0]])}, "edges"),
        ({"damping": 1.0}, "damping"),
        ({"damping": np.nan}, "damping"),
        ({"max_iter": 0}, "max_iter"),
        ({"tol": np.nan}, "tol"),
        ({"bags": CountFactors.from_counts([0, 0], [1])}, "bags"),
    ],
)
def test_bad_input_of_the_solver_is_refused(changed, names):
    with pytest.raises((ValueError, TypeError), match=names):
        good(**changed)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: CountFactors.from_counts([0, 0], [3]), "counts .* bag 0 is 3 of 2"),
        (lambda: CountFactors.from_counts([0, 0], [-1]), "counts"),
        (lambda: CountFactors.from_counts([0, 0], [0.5]), "counts .* bag 0 is 0.5"),
        (lambda: CountFactors.from_counts([0, 0], [1], weight=-1.0), "weight"),
        (lambda: CountFactors.from_counts([0, 0], [1], weight=np.nan), "weight"),
        (lambda: CountFactors.from_noise([0, 0], [np.nan], scipy.stats.norm.logpdf), "reported"),
        (lambda: CountFactors.from_noise([0, 0], [1.0], lambda errors: errors[:1]), "log_density"),
        (lambda: CountFactors.from_noise([0, 0], [1.0], lambda errors: errors * np.nan), "log_density"),
        (lambda: CountFactors.from_noise([0, 0], [1.0], lambda errors: errors - np.inf), "every count of bag 0"),
        (lambda: CountFactors(np.arange(2), np.array([0, 2]), np.zeros(2)), "log_potentials"),
        (lambda: CountFactors(np.arange(2), np.array([0, 3]), np.zeros(3)), "offsets"),
        (lambda: CountFactors.from_counts([0, 0], [1]).messages(np.zeros(3)), "logits"),
        (lambda: CountFactors.from_counts([0, 0], [1]).messages(np.array([0.0, np.nan])), "logits"),
    ],
)
def test_bad_input_of_the_bag_factors_is_refused(call, names):
    with pytest.raises(ValueError, match=names):
        call()
