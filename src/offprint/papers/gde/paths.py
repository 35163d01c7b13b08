"""Latent lines beside transport paths and mixtures: how far apart they are, and how they look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from offprint.methods.bags.gde import GDE
from offprint.methods.bags.gde_gaussian import gaussian_geodesic, gaussian_w2
from offprint.methods.bags.gde_sets import fitted_gaussians
from offprint.papers.figure import Panel, Series
from offprint.papers.gde.populations import Gaussians


@dataclass(frozen=True)
class Path:
    """What is generated along a latent line beside the transport path: means and covariances, and how far they are."""

    transport: tuple[Tensor, Tensor]
    latent: tuple[Tensor, Tensor]
    off: list[float]
    off_by_mixing: list[float]

    @property
    def error(self) -> float:
        """The mean distance along the line, over that of the ends."""
        return float(np.mean(self.off))

    @property
    def midpoint(self) -> float:
        """The distance at the midpoint over that of the half-and-half mixture."""
        return self.off[5] / self.off_by_mixing[5]


def latent_path(model: GDE, ends: Gaussians, vectors: Tensor, k: int, seed: int) -> Path:
    """Generate at 11 places from Gaussian k to the next, and compare with the geodesic and with mixtures of both."""
    a, b = ends.take(np.array([k])), ends.take(np.array([k + 1]))
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    transport = gaussian_geodesic(a[0][0], a[1][0], b[0][0], b[1][0], times)
    latent = fitted_gaussians(model.interpolate(vectors[k], vectors[k + 1], 11, 5000, seed=seed).double())
    shift, t = (b[0] - a[0])[0], times[:, None, None]
    spread = (1 - t) * a[1] + t * b[1] + t * (1 - t) * shift[:, None] * shift[None, :]
    mixed = (1 - t[:, 0]) * a[0] + t[:, 0] * b[0], spread
    whole = gaussian_w2(*a, *b)
    off, off_by_mixing = ((gaussian_w2(*found, *transport) / whole).tolist() for found in (latent, mixed))
    return Path(transport, latent, off, off_by_mixing)


def errors_along(prior: str, paths: list[Path]) -> Panel:
    """Draw how far the latent line and mixtures are from the transport path, means over pairs."""
    times = [k / 10 for k in range(11)]
    series = [
        Series("latent line", times, np.mean([path.off for path in paths], 0).tolist()),
        Series("mixtures", times, np.mean([path.off_by_mixing for path in paths], 0).tolist(), dashed=True),
    ]
    return Panel("place on the line", "W2 to the path, over that of its ends", series, title=f"{prior} prior")


def ellipses(prior: str, path: Path) -> Panel:
    """Draw both paths at their ends and midpoint."""
    series = [
        Series(f"{name}, t = {k / 10:.1f}", *outline(found[0][k], found[1][k]), dashed=dashed)
        for found, dashed, name in ((path.transport, True, "transport"), (path.latent, False, "latent line"))
        for k in (0, 5, 10)
    ]
    return Panel("first coordinate", "second coordinate", series, title=f"{prior} prior")


def outline(mean: Tensor, covariance: Tensor) -> tuple[list[float], list[float]]:
    """Return the ellipse of one standard deviation."""
    angles = torch.linspace(0, 2 * torch.pi, 40, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    values, vectors = torch.linalg.eigh(covariance.double())
    points = mean.double() + circle @ (vectors * values.clamp(min=0).sqrt()).mT
    return points[:, 0].tolist(), points[:, 1].tolist()
