"""Belief propagation over pairs and bags against a loop over edges, and its time limits on large tables."""

from __future__ import annotations

import math
from collections.abc import Iterator

import harness
import numpy as np

from offprint.methods.bags.llp_bp import LLPBeliefPropagation
from offprint.methods.bags.llp_bp_bags import make_bags
from offprint.methods.bags.llp_bp_counts import CountFactors
from offprint.methods.bags.llp_bp_graph import SimilarityGraph, neighbor_graph
from offprint.methods.bags.llp_bp_propagation import belief_propagation

N_ITERATIONS = 5


def comparisons() -> Iterator[harness.Comparison]:
    """Yield the comparisons that the paper's targets name."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(10_000, 16)).astype(np.float32)
    graph, ids = neighbor_graph(X), make_bags(X[:, 0], 8)
    counts = np.bincount(ids, weights=rng.random(10_000) < 0.5)
    theta, couplings = _model(graph)
    yield harness.compare(
        f"{N_ITERATIONS} iterations, 10,000 rows, 5 neighbours, bags of 8",
        lambda: belief_propagation(
            theta,
            graph.edges,
            couplings,
            CountFactors.from_counts(ids, counts),
            max_iter=N_ITERATIONS,
            tol=0.0,
        ),
        lambda: _by_loops(theta, graph.edges, couplings, ids, counts),
        peer_name="a loop over edges and bags",
        target=20.0,
        repeats=3,
        note="the peer holds messages in dictionaries and bags in log-space tables, in plain Python",
    )
    pairs = rng.integers(0, 1_000_000, (5_000_000, 2))
    large = _distinct(pairs, 1_000_000)
    big_theta, big_couplings = _model(large)
    yield harness.within(
        f"10 iterations, {2 * len(large.edges):,} messages along pairs in each",
        lambda: belief_propagation(big_theta, large.edges, big_couplings, max_iter=10, tol=0.0),
        10 * 1.5 * 2 * len(large.edges) / 1e7,
        repeats=1,
        note="1.5 s an iteration for 10 million messages; checking the edges, once, is included",
    )
    table = rng.normal(size=(100_000, 16)).astype(np.float32)
    bags = make_bags(table[:, 0], 32)
    known = np.bincount(bags, weights=rng.random(100_000) < 0.5)
    yield harness.within(
        "graph and 30 iterations, 100,000 rows, bags of 32",
        lambda: LLPBeliefPropagation(lambda_s=0.5, max_iter=30, tol=1e-6).fit(table, bags, known),
        40.0,
        repeats=1,
    )


def _model(graph: SimilarityGraph) -> tuple[np.ndarray, np.ndarray]:
    strength = np.bincount(graph.edges.ravel(), np.repeat(graph.weights, 2), minlength=graph.n_rows)
    return -strength.astype(np.float32), 2 * graph.weights.astype(np.float32)


def _distinct(pairs: np.ndarray, n: int) -> SimilarityGraph:
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    keys = np.unique((low * n + high)[low < high])
    edges = np.stack(np.divmod(keys, n), axis=1).astype(np.int32)
    return SimilarityGraph(n, edges, np.full(len(edges), 0.25, dtype=np.float32))


def _by_loops(
    theta: np.ndarray, edges: np.ndarray, couplings: np.ndarray, ids: np.ndarray, counts: np.ndarray
) -> list[float]:
    """Do the same iterations edge by edge and bag by bag."""
    unary, coupling = theta.tolist(), {}
    for (i, j), strength in zip(edges.tolist(), couplings.tolist(), strict=True):
        coupling[i, j] = coupling[j, i] = strength
    message = {pair: strength / 2 for pair, strength in coupling.items()}
    members: list[list[int]] = [[] for _ in counts]
    for row, bag in enumerate(ids.tolist()):
        members[bag].append(row)
    field = _fields(unary, message)
    from_bag = _bag_loop(field, members, counts)
    for _ in range(N_ITERATIONS):
        message = {
            (i, j): 0.5 * message[i, j] + 0.5 * _through(field[i] + from_bag[i] - message[j, i], strength)
            for (i, j), strength in coupling.items()
        }
        field = _fields(unary, message)
        from_bag = _bag_loop(field, members, counts)
    return [a + b for a, b in zip(field, from_bag, strict=True)]


def _fields(unary: list[float], message: dict[tuple[int, int], float]) -> list[float]:
    field = list(unary)
    for (_, j), value in message.items():
        field[j] += value
    return field


def _through(c: float, coupling: float) -> float:
    return _softplus(c + coupling) - _softplus(c)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _log_add(a: float, b: float) -> float:
    if a == -math.inf or b == -math.inf:
        return max(a, b)
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def _bag_loop(field: list[float], members: list[list[int]], counts: np.ndarray) -> list[float]:
    """Return every bag's message to every member, with the forward and backward pass in log space."""
    found = [0.0] * len(field)
    for rows, count in zip(members, counts.tolist(), strict=True):
        forward = [[0.0]]
        for row in rows[:-1]:
            last = forward[-1]
            forward.append(
                [
                    _log_add(last[k] if k < len(last) else -math.inf, last[k - 1] + field[row] if k else -math.inf)
                    for k in range(len(last) + 1)
                ]
            )
        backward = [-4.0 * (k - count) ** 2 for k in range(len(rows) + 1)]
        for row, before in zip(reversed(rows), reversed(forward), strict=True):
            up, down = -math.inf, -math.inf
            for k, weight in enumerate(before):
                up, down = _log_add(up, weight + backward[k + 1]), _log_add(down, weight + backward[k])
            found[row] = up - down
            backward = [_log_add(backward[k], backward[k + 1] + field[row]) for k in range(len(before))]
    return found
