"""Families of distributions whose distances are known, and sets drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import wishart
from torch import Tensor

Prior = Literal["published", "balanced"]


@dataclass(frozen=True)
class Gaussians:
    """Many Gaussians: their means and covariances."""

    means: Float[Tensor, "sets d"]
    covariances: Float[Tensor, "sets d d"]

    def sample(self, n_points: int, rng: np.random.Generator) -> Float[Tensor, "sets points d"]:
        """Draw a set from each."""
        noise = torch.tensor(rng.standard_normal((len(self.means), n_points, self.means.shape[1])))
        factors = torch.linalg.cholesky(self.covariances)
        points: Tensor = self.means[:, None] + noise @ factors.mT
        return points.float()

    def take(self, chosen: np.ndarray) -> tuple[Float[Tensor, "chosen d"], Float[Tensor, "chosen d d"]]:
        """Return means and covariances of some."""
        return self.means[chosen], self.covariances[chosen]


def draw_gaussians(n: int, prior: Prior, rng: np.random.Generator) -> Gaussians:
    """Draw Gaussians in the plane.

    Under the published prior means are uniform on [0, 5]² and covariances inverse Wishart with 10 degrees of freedom:
    means carry nearly all of the distances. Under the balanced one means are uniform on [0, 1]² and covariances 4 times
    inverse Wishart with 4, eigenvalues capped at 10: means carry about a fifth.
    """
    degrees, spread, scale = (10, 5.0, 1.0) if prior == "published" else (4, 1.0, 4.0)
    precision = np.reshape(wishart(degrees, np.eye(2)).rvs(n, random_state=rng), (n, 2, 2))
    values, vectors = np.linalg.eigh(scale * np.linalg.inv(precision))
    covariances = (vectors * np.minimum(values, 10.0)[:, None, :]) @ vectors.transpose(0, 2, 1)
    return Gaussians(torch.tensor(rng.uniform(0, spread, (n, 2))), torch.tensor(covariances))


def pairs(n: int, n_pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of different numbers below n."""
    first = rng.integers(n, size=n_pairs)
    return first, (first + rng.integers(1, n, size=n_pairs)) % n


def plug_in(means: Float[Tensor, "sets d"], covariances: Float[Tensor, "sets d d"]) -> Float[Tensor, "sets entries"]:
    """Return mean and symmetric covariance root of each Gaussian as one vector, off-diagonal entries once."""
    rows, columns = torch.triu_indices(*covariances.shape[1:])
    return torch.cat([means, covariance_roots(covariances)[:, rows, columns]], 1)


def covariance_roots(covariances: Float[Tensor, "sets d d"]) -> Float[Tensor, "sets d d"]:
    """Return the symmetric root of each covariance."""
    values, vectors = torch.linalg.eigh(covariances)
    roots: Tensor = (vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT
    return roots


def simplex_grid(steps: int = 9) -> Float[Tensor, "points 3"]:
    """Return the points of the 3-class simplex whose coordinates are multiples of 1 / steps: 55 for 9 steps."""
    points = [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    return torch.tensor(points, dtype=torch.float64) / steps


def class_gaussians(shares: Float[Tensor, "sets classes"]) -> Gaussians:
    """Return mean and covariance of one-hot draws with these shares."""
    return Gaussians(shares, torch.diag_embed(shares) - shares[:, :, None] * shares[:, None, :])


def draw_classes(
    shares: Float[Tensor, "sets classes"], n_points: int, rng: np.random.Generator
) -> Float[Tensor, "sets points"]:
    """Draw the class of each point."""
    ends = shares.cumsum(1).numpy()
    uniform = rng.random((len(shares), n_points))
    return torch.tensor((uniform[:, :, None] > ends[:, None, :-1]).sum(2))
