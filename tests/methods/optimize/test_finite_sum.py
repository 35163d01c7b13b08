"""Finite sums against direct linear algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest

from offprint.methods.optimize.finite_sum import (
    Constants,
    FiniteSumOperator,
    estimate_constants,
    from_affine,
    from_callables,
)

RNG = np.random.default_rng(0)
MATRICES, OFFSETS, POINT, OTHER = (RNG.standard_normal(s) for s in ((6, 3, 3), (6, 3), 3, 3))


def test_affine_components_and_mean_are_those_of_the_formula() -> None:
    operator = from_affine(MATRICES, OFFSETS)
    each = MATRICES @ POINT - OFFSETS
    batch = np.array([4, 1, 1])
    np.testing.assert_allclose(operator.component(batch, POINT), each[batch].mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(operator.full(POINT), each.mean(axis=0), atol=1e-12)
    expected = (MATRICES[batch] @ (POINT - OTHER)).mean(axis=0)
    np.testing.assert_allclose(operator.difference(batch, POINT, OTHER), expected, atol=1e-12)


def test_callables_make_the_same_operator() -> None:
    operator = from_callables([lambda u, m=m, q=q: m @ u - q for m, q in zip(MATRICES, OFFSETS, strict=True)])
    same, batch = from_affine(MATRICES, OFFSETS), np.array([0, 5])
    np.testing.assert_allclose(operator.full(POINT), same.full(POINT), atol=1e-12)
    np.testing.assert_allclose(
        operator.difference(batch, POINT, OTHER), same.difference(batch, POINT, OTHER), atol=1e-12
    )


def test_sampling_follows_the_probabilities() -> None:
    weights = np.array([0.1, 0.2, 0.3, 0.15, 0.05, 0.2])
    operator = FiniteSumOperator(6, lambda i, u: u, lambda u: u, probabilities=weights)
    for drawn in (operator.sample(60_000, RNG), operator.sample_batch(60_000, RNG)):
        share = np.bincount(drawn, minlength=6) / drawn.size
        # five standard errors for each of twelve shares: a false alarm in about 1e5 seeds
        assert (np.abs(share - weights) < 5 * np.sqrt(weights * (1 - weights) / drawn.size)).all()


def test_uniform_batches_do_not_repeat() -> None:
    operator = from_affine(MATRICES, OFFSETS)
    assert sorted(operator.sample_batch(6, RNG)) == [0, 1, 2, 3, 4, 5]
    assert operator.sample((5, 2), RNG).shape == (5, 2)


def test_constants_of_a_linear_operator_approach_their_exact_values() -> None:
    root = RNG.standard_normal((40, 8, 8))
    matrices = root @ root.transpose(0, 2, 1) / 8
    mean, second = matrices.mean(axis=0), np.einsum("nij,nik->jk", matrices, matrices) / 40
    inverse_root = np.linalg.inv(np.linalg.cholesky(mean))
    exact = Constants(
        lipschitz=float(np.linalg.norm(mean, 2)),
        cocoercive=float(np.linalg.norm(mean, 2)),
        lipschitz_on_average=math.sqrt(np.linalg.norm(second, 2)),
        cocoercive_on_average=float(np.linalg.norm(inverse_root @ second @ inverse_root.T, 2)),
    )
    found = estimate_constants(from_affine(matrices, np.zeros((40, 8))), np.ones(8), n_pairs=40, n_components=40)
    for name in ("lipschitz", "cocoercive", "lipschitz_on_average", "cocoercive_on_average"):
        # largest ratios seen bound the constants from below; 0.8 is what forty pairs in eight dimensions must reach
        assert 0.8 * getattr(exact, name) <= getattr(found, name) <= getattr(exact, name) * (1 + 1e-9), name
    assert found.n_evals == 40 + 40 * (40 + 80)


def test_a_bilinear_operator_has_no_cocoercive_constant() -> None:
    skew = MATRICES - MATRICES.transpose(0, 2, 1)
    found = estimate_constants(from_affine(skew, OFFSETS), POINT)
    assert found.cocoercive == found.cocoercive_on_average == math.inf
    assert 0 < found.lipschitz <= found.lipschitz_on_average < math.inf


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FiniteSumOperator(0, lambda i, u: u), ValueError, "n must be at least 1"),
        (lambda: FiniteSumOperator(2, lambda i, u: u, probabilities=[0.5, 0.5]), ValueError, "full must be given"),
        (lambda: FiniteSumOperator(2, lambda i, u: u, lambda u: u, probabilities=[0.5, 0.6]), ValueError, "probabil"),
        (lambda: from_callables([]), ValueError, "n must be at least 1"),
        (lambda: from_affine(np.ones((2, 3, 2)), np.ones((2, 3))), ValueError, "matrices"),
        (lambda: from_affine(np.ones((2, 3, 3)), np.ones((2, 2))), ValueError, "offsets"),
        (lambda: from_affine(np.full((2, 3, 3), np.nan), np.ones((2, 3))), ValueError, "matrices"),
        (lambda: estimate_constants(from_affine(MATRICES, OFFSETS), [np.nan] * 3), ValueError, "u0"),
        (lambda: estimate_constants(from_affine(MATRICES, OFFSETS), POINT, radius=0.0), ValueError, "radius"),
        (lambda: estimate_constants(from_affine(MATRICES, OFFSETS), POINT, n_pairs=0), ValueError, "n_pairs"),
        (lambda: estimate_constants(from_callables([lambda u: u[:1]]), POINT), ValueError, "shape"),
        (lambda: estimate_constants(from_callables([lambda u: u / 0]), POINT), ValueError, "NaN"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_input_is_named(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises((error, TypeError), match=message):
        call()
