"""The families that embeddings are measured on: how much means alone, and other plug-in vectors, say of distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from offprint.methods.bags.gde_gaussian import gaussian_w2
from offprint.papers.gde.populations import (
    class_gaussians,
    covariance_roots,
    draw_classes,
    draw_gaussians,
    pairs,
    plug_in,
    simplex_grid,
)


@pytest.mark.parametrize(
    ("prior", "share", "means_alone", "with_covariance"),
    [("published", 0.975, 0.9998, 0.9999), ("balanced", 0.21, 0.16, 0.965)],
)
def test_what_is_known_of_a_prior_without_learning(prior, share, means_alone, with_covariance):
    """Under the published prior means alone tell nearly all of a distance, under the balanced one hardly anything.

    4,000 pairs of 4,000 Gaussians: a correlation near 0 has a standard error of 0.016, one near 1 hardly any.
    """
    rng = np.random.default_rng(0)
    drawn = draw_gaussians(4000, prior, rng)
    first, second = pairs(4000, 4000, rng)
    wanted = gaussian_w2(*drawn.take(first), *drawn.take(second))
    shares = (drawn.means[first] - drawn.means[second]).square().sum(1) / wanted.square()
    assert shares.mean().item() == pytest.approx(share, abs=0.02)
    assert torch.linalg.eigvalsh(drawn.covariances).max() <= 10 + 1e-9
    roots = covariance_roots(drawn.covariances)
    torch.testing.assert_close(roots @ roots, drawn.covariances)

    def correlation(*parts):
        vectors = torch.cat([part.flatten(1) for part in parts], 1)
        return spearmanr((vectors[first] - vectors[second]).norm(dim=1), wanted).statistic

    assert correlation(drawn.means) == pytest.approx(means_alone, abs=0.04 if prior == "balanced" else 2e-4)
    assert correlation(drawn.means, drawn.covariances) == pytest.approx(with_covariance, abs=0.015)
    assert correlation(drawn.means, roots) > 0.999
    once = plug_in(drawn.means, drawn.covariances)
    torch.testing.assert_close(once, torch.stack([*drawn.means.T, roots[:, 0, 0], roots[:, 0, 1], roots[:, 1, 1]], 1))


def test_pairs_are_of_different_gaussians():
    first, second = pairs(5, 1000, np.random.default_rng(0))
    assert (first != second).all()
    assert set(first) == set(second) == set(range(5))


def test_sets_have_the_moments_of_their_gaussian():
    """20,000 points: five standard errors of a mean, and 5 % of the covariance's size, are 3.5 of its own."""
    drawn, rng = draw_gaussians(3, "balanced", np.random.default_rng(1)), np.random.default_rng(2)
    for points, mean, covariance in zip(drawn.sample(20_000, rng), drawn.means, drawn.covariances, strict=True):
        size = covariance.diagonal().sum()
        assert (points.mean(0) - mean).abs().max() < 5 * (size / 20_000).sqrt()
        assert (torch.cov(points.T.double(), correction=0) - covariance).abs().max() < 0.05 * size


def test_the_grid_and_its_draws_are_multinomial():
    """55 points of the simplex; mean and covariance of one-hot draws against 20,000 of them, five standard errors."""
    grid = simplex_grid()
    assert grid.shape == (55, 3)
    assert len({tuple(point) for point in grid.tolist()}) == 55
    torch.testing.assert_close(grid.sum(1), torch.ones(55, dtype=torch.float64))
    known, rng = class_gaussians(grid), np.random.default_rng(0)
    one_hot = torch.nn.functional.one_hot(draw_classes(grid[20:23], 20_000, rng), 3).double()
    for k, points in enumerate(one_hot, 20):
        assert (points.mean(0) - known.means[k]).abs().max() < 5 * 0.5 / 20_000**0.5
        assert (torch.cov(points.T, correction=0) - known.covariances[k]).abs().max() < 5 * 0.5 / 20_000**0.5
