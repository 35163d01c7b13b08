"""Whether an encoder of sets depends on their empirical distributions alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from offprint.methods.bags.gde_gaussian import check_float
from offprint.models.batches import check_sizes
from offprint.models.randomness import as_generator


@dataclass(frozen=True)
class InvarianceReport:
    """How far an encoder depends on more than the empirical distribution of each set.

    Parameters
    ----------
    order_gap : float
        Change under a random order of the points, over the size of the latent vectors.
    replication_gap : float
        The largest change when every point is there 2, 3 or 10 times.
    companion_gap : float
        Change of a set's vector when it is encoded without the other sets.
    consistency_slope : float
        Slope of log distance to the vector of the whole set against log size of a sample from it: −½ where the encoder
        is consistent. NaN where the distance vanishes.
    tolerance : float
        Below which a gap counts as rounding.
    """

    order_gap: float
    replication_gap: float
    companion_gap: float
    consistency_slope: float
    tolerance: float

    @property
    def failures(self) -> tuple[str, ...]:
        """What the encoder fails at; empty where it depends on the distribution alone."""
        gaps = {"order": self.order_gap, "replication": self.replication_gap, "companions": self.companion_gap}
        found = [name for name, gap in gaps.items() if not gap <= self.tolerance]
        if abs(self.consistency_slope + 0.5) > 0.1:
            found.append("consistency")
        return tuple(found)

    @property
    def passes(self) -> bool:
        """Whether there is no failure."""
        return not self.failures


@torch.no_grad()
def check_distributional_invariance(
    encoder: Callable[[Tensor], Tensor],
    sets: Float[Tensor, "sets points features"],
    *,
    tolerance: float = 1e-5,
    n_repeats: int = 8,
    generator: torch.Generator | int = 0,
) -> InvarianceReport:
    """Check whether an encoder depends on each set through its empirical distribution alone.

    It must not depend on the order of the points, on every point being there several times, or on the sets beside it;
    and vectors of samples must approach that of the distribution. Sums, set sizes and batch norm in training mode fail.

    Parameters
    ----------
    encoder : callable
        From sets of shape (sets, points, features) to vectors of shape (sets, latent). It is copied, and called in the
        mode that it is in.
    sets : tensor, shape (sets, points, features)
        Large sets, of at least 64 points: samples of 32 points and more are drawn from them.
    tolerance : float
        Relative gap that counts as rounding, positive; 1e-5 suits float32.
    n_repeats : int
        Samples drawn at each size, at least 1.
    generator : torch.Generator or int
        Source (or seed) of orders and samples.

    Returns
    -------
    InvarianceReport

    Raises
    ------
    TypeError
        If ``sets`` is no float tensor.
    ValueError
        If ``sets`` is not finite or too small, or another argument is out of range.

    Notes
    -----
    Samples are drawn with replacement, so that the distance to the whole set falls as the root of their size up to its
    own. About 25 calls of the encoder on all points.

    Examples
    --------
    >>> from offprint.methods.bags.gde_encoders import MeanPoolEncoder
    >>> sets = torch.randn(4, 512, 2, generator=torch.Generator().manual_seed(0))
    >>> check_distributional_invariance(MeanPoolEncoder(2, 4, 16, generator=0), sets).passes
    True
    >>> check_distributional_invariance(lambda x: x.sum(1), sets).failures
    ('replication', 'consistency')

    References
    ----------
    Fishman et al., *Generative Distribution Embeddings*, arXiv:2505.18150, on distributional invariance.
    """
    check_float("sets", sets)
    if sets.ndim != 3 or sets.shape[1] < 64:
        raise ValueError(f"sets must have shape (sets, points, features), 64 points or more; got {tuple(sets.shape)}")
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be positive and finite; got {tolerance}")
    check_sizes(n_repeats=n_repeats)
    encode, source = copy.deepcopy(encoder), as_generator(generator)
    whole = encode(sets)
    size = whole.norm(dim=1).mean().clamp(min=1e-12)

    def gap(found: Tensor) -> float:
        return float((found - whole).norm(dim=1).mean() / size)

    n_points = sets.shape[1]
    order = torch.randperm(n_points, generator=source, device=source.device).to(sets.device)
    sizes = [2**k for k in range(5, int(math.log2(n_points)) + 1)]
    distances = []
    for m in sizes:
        drawn = torch.randint(n_points, (n_repeats, m), generator=source, device=source.device).to(sets.device)
        distances.append(float(np.mean([gap(encode(sets[:, rows])) for rows in drawn])))
    slope = math.nan
    if min(distances) > 0 and len(sizes) > 1:
        slope = float(np.polyfit(np.log(sizes), np.log(distances), 1)[0])
    return InvarianceReport(
        order_gap=gap(encode(sets[:, order])),
        replication_gap=max(gap(encode(sets.repeat(1, r, 1))) for r in (2, 3, 10)),
        companion_gap=gap(torch.cat([encode(one[None]) for one in sets])),
        consistency_slope=slope,
        tolerance=tolerance,
    )
