"""Speed of distribution embeddings: distances of Gaussians against matrix roots one by one, and a training step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import torch
from harness import Comparison, compare, within

from offprint.methods.bags.gde_distances import sliced_w2
from offprint.methods.bags.gde_gaussian import gaussian_w2


def comparisons() -> Iterator[Comparison]:
    """Yield one comparison for each speed target of the brief."""
    for d, n in ((2, 20_000), (5, 500)):
        first, second = random_covariances(n, d, 0), random_covariances(n, d, 1)
        mean = torch.zeros(d, dtype=torch.float64)
        if d == 2:
            yield within(
                f"W2 between {n} pairs of Gaussians in the plane",
                lambda mean=mean, a=first, b=second: gaussian_w2(mean, a, mean, b),
                0.05,
                repeats=5,
            )
        yield compare(
            f"W2 between {n} pairs of Gaussians in {d} dimensions",
            lambda mean=mean, a=first, b=second: gaussian_w2(mean, a, mean, b),
            lambda both=(first, second): [by_root(a, b) for a, b in zip(*(c.numpy() for c in both), strict=True)],
            peer_name="a loop with scipy's sqrtm",
            target=50.0,
            repeats=3,
        )

    x = torch.randn(64, 300, 2, requires_grad=True)
    y = torch.randn(64, 300, 2)
    yield within(
        "sliced W2 with gradient, 64 sets of 300 points, 100 directions",
        lambda: sliced_w2(x, y, 100).mean().backward(),
        0.5,
        repeats=5,
    )


def random_covariances(n: int, d: int, seed: int) -> torch.Tensor:
    """Return random positive definite matrices."""
    factors = torch.randn(n, d, d + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return factors @ factors.mT


def by_root(a: np.ndarray, b: np.ndarray) -> float:
    """Return W2 between centred Gaussians by matrix roots."""
    root = scipy.linalg.sqrtm(a)
    return float(np.sqrt(max(0.0, np.trace(a + b - 2 * np.real(scipy.linalg.sqrtm(root @ b @ root))))))
