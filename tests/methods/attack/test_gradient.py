"""The attack against linear functions, whose extremes over balls are dual norms, and against brute force."""

from __future__ import annotations

import math

import pytest
import torch

from offprint.methods.attack.gradient import projected_gradient_descent

DUAL = {math.inf: 1, 2: 2, 1: math.inf}


def linear(seed=0, batch=4, n=6):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, n, generator=generator, dtype=torch.float64)
    return x, torch.randn(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("norm", [math.inf, 2, 1])
def test_linear_functions_are_minimised_by_the_dual_norm(norm) -> None:
    x, a = linear()
    radius = torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64)
    found = projected_gradient_descent(lambda p: p @ a, x, radius=radius, norm=norm, n_steps=60)
    expected = x @ a - radius * torch.linalg.vector_norm(a, DUAL[norm])
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-3)  # the last steps are 2.5 % of the radius
    assert bool(((found.points - x).norm(p=norm, dim=1) <= radius * (1 + 1e-12)).all())


@pytest.mark.parametrize("norm", [math.inf, 2, 1])
def test_points_stay_in_ball_and_box_with_random_starts(norm) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, 2, 3, generator=generator)
    seen = []

    def objective(points):
        seen.append(points.detach().clone())
        return (points**3).flatten(1).sum(1) * torch.tensor([1.0, -1, 1, -1, 1])

    found = projected_gradient_descent(objective, x, radius=0.7, norm=norm, lower=0.0, upper=1.0, n_restarts=3)
    everywhere = torch.cat([found.points[None], torch.stack(seen)])
    assert bool((everywhere >= 0).all())
    assert bool((everywhere <= 1).all())
    assert float((everywhere - x).flatten(2).norm(p=norm, dim=2).max()) <= 0.7 * (1 + 1e-5)
    starts = torch.stack(seen)[[0, 41, 82]]
    assert not torch.equal(starts[1], starts[2])


def test_a_box_alone_is_searched_to_its_corners() -> None:
    lower, upper = torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 4.0, 2.0])
    x = ((lower + upper) / 2)[None]
    found = projected_gradient_descent(lambda p: p @ torch.tensor([1.0, -2.0, 3.0]), x, lower=lower, upper=upper)
    assert found.points.tolist() == [[-1.0, 4.0, 2.0]]


def test_restarts_find_what_the_centre_does_not_lead_to() -> None:
    def objective(points):  # the slope at the centre leads to the shallow side
        p = points[:, 0]
        return torch.minimum(-0.1 * p, 10 * (p + 0.8))

    x = torch.zeros(1, 1)
    once = projected_gradient_descent(objective, x, radius=1.0)
    often = projected_gradient_descent(objective, x, radius=1.0, n_restarts=20)
    assert float(once.values) == pytest.approx(-0.1)
    assert float(often.values) == pytest.approx(-2.0)
    again = projected_gradient_descent(objective, x, radius=1.0, n_restarts=20)
    assert torch.equal(often.points, again.points)


def test_the_best_point_is_returned_with_its_value_and_the_search_stops_early() -> None:
    calls = []

    def objective(points):
        calls.append(len(points))
        return (points[:, 0] - 0.3).abs()

    found = projected_gradient_descent(objective, torch.zeros(1, 1), radius=1.0, step_size=0.25, n_restarts=2)
    assert torch.equal(found.values, objective(found.points))
    calls.clear()
    early = projected_gradient_descent(objective, torch.zeros(1, 1), radius=1.0, stop_below=0.1, n_restarts=5)
    assert len(calls) == 2
    assert int(early.n_steps) == 1


def test_a_value_that_is_no_number_is_never_best() -> None:
    found = projected_gradient_descent(lambda p: torch.sqrt(p[:, 0] - 0.0) + 0 * p[:, 0], torch.ones(1, 1), radius=2.0)
    assert bool(torch.isfinite(found.values).all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "radius: expected a number, or else both"),
        ({"radius": -1.0}, "radius: expected finite numbers of at least 0"),
        ({"radius": math.nan}, "radius"),
        ({"radius": torch.ones(3)}, r"radius: expected a number or shape \(2,\)"),
        ({"radius": 1.0, "norm": 3}, "norm: expected inf, 2 or 1, got 3"),
        ({"radius": 1.0, "n_steps": 0}, "n_steps: expected at least 1"),
        ({"radius": 1.0, "n_restarts": 0}, "n_restarts: expected at least 1"),
        ({"radius": 1.0, "step_size": 0.0}, "step_size: expected a positive"),
        ({"radius": 1.0, "lower": 0.5}, "lower: x itself lies outside"),
        ({"radius": 1.0, "upper": torch.ones(5)}, "upper: expected a shape that broadcasts"),
    ],
)
def test_bad_arguments_are_named(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        projected_gradient_descent(lambda p: p[:, 0], torch.zeros(2, 3), **arguments)


def test_bad_centres_and_objectives_are_refused() -> None:
    with pytest.raises(TypeError, match="x: expected floating"):
        projected_gradient_descent(lambda p: p[:, 0], torch.zeros(2, 3, dtype=torch.int64), radius=1.0)
    with pytest.raises(ValueError, match="x: expected finite"):
        projected_gradient_descent(lambda p: p[:, 0], torch.full((2, 3), math.nan), radius=1.0)
    with pytest.raises(ValueError, match=r"objective: expected values of shape \(2,\)"):
        projected_gradient_descent(lambda p: p, torch.zeros(2, 3), radius=1.0)
