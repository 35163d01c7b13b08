"""Projections against scipy's root finder, the variational inequality that defines them, and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offprint.methods.optimize.projections import (
    SimplexProduct,
    project_affine,
    project_ball,
    project_box,
    project_simplex,
    prox_l1,
)

vectors = arrays(np.float64, st.integers(1, 12), elements=st.floats(-100, 100))
RNG = np.random.default_rng(0)


def simplex_by_root(v: np.ndarray, total: float) -> np.ndarray:
    """The projection is max(v - t, 0) with the one t that gives the right sum."""
    low = v.min() - total - 1
    t = scipy.optimize.brentq(lambda t: np.maximum(v - t, 0).sum() - total, low, v.max(), xtol=1e-14)
    return np.maximum(v - t, 0)


@settings(max_examples=60, deadline=None)
@given(vectors, st.floats(0.1, 10))
def test_simplex_agrees_with_scipys_root(v: np.ndarray, total: float) -> None:
    # 1e-10 is the root's own tolerance with room for values of 100
    np.testing.assert_allclose(project_simplex(v, total), simplex_by_root(v, total), atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(vectors, vectors)
def test_simplex_product_projects_block_by_block(first: np.ndarray, second: np.ndarray) -> None:
    both = SimplexProduct(first.size, second.size)
    expected = np.concatenate([simplex_by_root(first, 1.0), simplex_by_root(second, 1.0), [7.0]])
    np.testing.assert_allclose(both(np.concatenate([first, second, [7.0]])), expected, atol=1e-10)


def test_simplex_product_survives_ties() -> None:
    for v in (np.full(5, 3.0), np.full(7, 0.1), np.full(3, 1e9), np.array([1e16, 1e16, 0.0])):
        projected = SimplexProduct(v.size)(v)
        assert projected.min() >= 0
        # entries of 1e16 are 2 apart, so their sum cannot be 1 more precisely than that
        assert abs(projected.sum() - 1) <= max(1e-9, 4 * np.spacing(v.max()))


@settings(max_examples=40, deadline=None)
@given(vectors, st.floats(0.1, 10))
def test_l1_ball_agrees_with_scipys_root(v: np.ndarray, radius: float) -> None:
    inside = np.abs(v).sum() <= radius
    expected = v if inside else np.sign(v) * simplex_by_root(np.abs(v), radius)
    np.testing.assert_allclose(project_ball(v, radius, norm=1), expected, atol=1e-10)


MATRIX = RNG.standard_normal((2, 5))
TARGET = RNG.standard_normal(2)
CENTER = RNG.standard_normal(5)
CONVEX_SETS = {
    "simplex": lambda v: project_simplex(v, 2.0),
    "box": lambda v: project_box(v, -0.5, [0.1, 0.2, 0.3, math.inf, 0.5]),
    "ball": lambda v: project_ball(v, 0.7, CENTER),
    "l1 ball": lambda v: project_ball(v, 0.7, CENTER, norm=1),
    "max ball": lambda v: project_ball(v, 0.7, CENTER, norm=math.inf),
    "affine": lambda v: project_affine(v, MATRIX, TARGET),
}
DIRECTIONS = RNG.normal(size=(200, 5))
MEMBERS = {
    "simplex": 2.0 * RNG.dirichlet(np.ones(5), 200),
    "box": RNG.uniform(-0.5, [0.1, 0.2, 0.3, 4.0, 0.5], (200, 5)),
    "ball": CENTER + 0.7 * DIRECTIONS / np.maximum(1, np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)),
    "l1 ball": CENTER + 0.7 * RNG.dirichlet(np.ones(5), 200) * RNG.choice([-1, 1], (200, 5)),
    "max ball": CENTER + RNG.uniform(-0.7, 0.7, (200, 5)),
    "affine": np.linalg.lstsq(MATRIX, TARGET)[0] + DIRECTIONS @ (np.eye(5) - np.linalg.pinv(MATRIX) @ MATRIX),
}


VIOLATION = {
    "simplex": lambda p: np.maximum(np.abs(p.sum(axis=-1) - 2), -p.min(axis=-1)),
    "box": lambda p: np.maximum(-0.5 - p, p - [0.1, 0.2, 0.3, math.inf, 0.5]),
    "ball": lambda p: np.linalg.norm(p - CENTER, axis=-1) - 0.7,
    "l1 ball": lambda p: np.abs(p - CENTER).sum(axis=-1) - 0.7,
    "max ball": lambda p: np.abs(p - CENTER) - 0.7,
    "affine": lambda p: np.abs(p @ MATRIX.T - TARGET),
}


@pytest.mark.parametrize("name", CONVEX_SETS)
def test_projection_satisfies_its_variational_inequality(name: str) -> None:
    """p is the projection of v if and only if p is in the set and <v - p, z - p> <= 0 for every z in it."""
    project, members = CONVEX_SETS[name], MEMBERS[name]
    v = 3 * RNG.standard_normal((40, 5))
    p = project(v)
    inner = np.einsum("id,ijd->ij", v - p, members[None] - p[:, None])
    assert inner.max() <= 1e-9
    assert VIOLATION[name](p).max() <= 1e-12
    np.testing.assert_allclose(project(members), members, atol=1e-10)
    np.testing.assert_allclose(project(v.reshape(8, 5, 5)), p.reshape(8, 5, 5), atol=1e-12)


def test_prox_l1_satisfies_its_optimality_condition() -> None:
    v, strength = RNG.standard_normal((3, 6)), np.array([0.1, 0.5, 1.0, 0.0, 0.3, 2.0])
    p = prox_l1(v, strength)
    slope = v - p  # must be strength * sign(p) where p is not 0, and at most strength where it is
    np.testing.assert_allclose(np.where(p != 0, slope, 0), np.where(p != 0, strength * np.sign(p), 0), atol=1e-12)
    assert (np.abs(slope) <= strength + 1e-12).all()


@pytest.mark.parametrize("name", CONVEX_SETS)
def test_dtype_is_kept(name: str) -> None:
    if name in ("simplex", "box"):
        assert CONVEX_SETS[name](np.ones(5, dtype=np.float32)).dtype == np.float32
    assert CONVEX_SETS[name](np.ones(5)).dtype == np.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: project_simplex([np.nan, 1.0]), "v must be finite"),
        (lambda: project_simplex(1.0), "v must have a last axis"),
        (lambda: project_simplex([1.0], total=0.0), "total"),
        (lambda: project_box([1.0], low=2.0, high=1.0), "low must not exceed high"),
        (lambda: project_box([1.0], low=np.nan), "low"),
        (lambda: project_ball([1.0], radius=-1.0), "radius"),
        (lambda: project_ball([1.0], norm=3.0), "norm"),
        (lambda: project_ball([1.0], center=[1.0, 2.0]), "center"),
        (lambda: prox_l1([1.0], -0.1), "strength"),
        (lambda: project_affine([1.0, 1.0], [[1.0]], [1.0]), "matrix"),
        (lambda: project_affine([1.0], [[1.0]], [1.0, 2.0]), "target"),
        (lambda: project_affine([1.0], [[1.0], [1.0]], [1.0, 2.0]), "solution"),
        (lambda: SimplexProduct(), "sizes"),
        (lambda: SimplexProduct(3)(np.ones(2)), "u must be a vector"),
    ],
)
def test_bad_input_is_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_text_is_refused() -> None:
    with pytest.raises(TypeError, match="v must hold real numbers"):
        project_simplex(["a", "b"])
