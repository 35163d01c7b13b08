"""The two losses of pre-training: between views of an image, and between neighbours on its noise trajectory."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


def info_nce(
    queries: Float[Tensor, "batch features"], keys: Float[Tensor, "batch features"], tau: float = 0.2
) -> Float[Tensor, ""]:
    """Return the contrastive loss of rows: each is to be most similar to its own counterpart among all.

    Parameters
    ----------
    queries, keys : tensor, shape (batch, features)
        Counterparts by row; scaled to unit length here.
    tau : float
        Temperature, positive.

    Returns
    -------
    tensor, shape ()
        The mean over rows.

    Raises
    ------
    ValueError
        If tau is not positive.

    Notes
    -----
    O(batch² features).

    Examples
    --------
    >>> info_nce(torch.eye(2), torch.eye(2), tau=1.0)  # log(1 + 1/e)
    tensor(0.3133)

    References
    ----------
    Chen, Xie and He, *An Empirical Study of Training Self-Supervised Vision Transformers*, arXiv:2104.02057, eq. 1.
    """
    if not (math.isfinite(tau) and tau > 0):
        raise ValueError(f"tau must be positive and finite; got {tau}")
    similarity = functional.normalize(queries, dim=1) @ functional.normalize(keys, dim=1).T / tau
    return functional.cross_entropy(similarity, torch.arange(len(queries), device=queries.device))


def contrastive_loss(
    encoder: nn.Module,
    target: nn.Module,
    first: Float[Tensor, "batch *input"],
    second: Float[Tensor, "batch *input"],
    noise: Float[Tensor, "batch *input"],
    t: float,
    tau: float = 0.2,
    sigma_data: float = 0.5,
) -> Float[Tensor, ""]:
    """Return the contrastive loss between projections of two views, both ways, at one low noise level.

    Parameters
    ----------
    encoder : torch.nn.Module
        ``encoder(x, t)`` returning (projection, features).
    target : torch.nn.Module
        Its slowly moving copy; no gradient reaches it.
    first, second : tensor, shape (batch, ...)
        Two views of each input.
    noise : tensor, shape (batch, ...)
        One draw for both views.
    t : float
        Noise level.
    tau, sigma_data : float
        Temperature, and standard deviation of the inputs.

    Returns
    -------
    tensor, shape ()

    Examples
    --------
    >>> from offprint.methods.certify.rrcm.encoders import ResidualEncoder
    >>> encoder, x = ResidualEncoder(4, 8, generator=0), torch.eye(4)
    >>> loss = contrastive_loss(encoder, encoder, x, x, torch.zeros(4, 4), t=0.002)
    >>> loss.shape
    torch.Size([])

    References
    ----------
    Lei et al., arXiv:2501.13094, the contrastive term of pre-training.
    """
    views = torch.cat([first, second]) + t * torch.cat([noise, noise])  # one pass for both
    queries = project(encoder, views, t, sigma_data).chunk(2)
    with torch.no_grad():
        keys = project(target, views, t, sigma_data).chunk(2)
    return info_nce(queries[0], keys[1], tau) + info_nce(queries[1], keys[0], tau)


def trajectory_loss(
    encoder: nn.Module,
    x: Float[Tensor, "batch *input"],
    noise: Float[Tensor, "batch *input"],
    t: float,
    t_next: float,
    tau: float = 0.2,
    sigma_data: float = 0.5,
) -> Float[Tensor, ""]:
    """Return the contrastive loss between features at two neighbouring points of the same noise trajectory.

    The point with less noise is the target, seen by the same encoder without a gradient. Close to no noise the other
    loss says what features should be; this one carries it up the trajectory step by step.

    Parameters
    ----------
    encoder : torch.nn.Module
        ``encoder(x, t)`` returning (projection, features).
    x : tensor, shape (batch, ...)
        Clean inputs.
    noise : tensor, shape (batch, ...)
        One draw for both points.
    t, t_next : float
        Noise levels, t ≥ t_next.
    tau, sigma_data : float
        Temperature, and standard deviation of the inputs.

    Returns
    -------
    tensor, shape ()

    Examples
    --------
    >>> from offprint.methods.certify.rrcm.encoders import ResidualEncoder
    >>> encoder, x = ResidualEncoder(4, 8, generator=0), torch.eye(4)
    >>> loss = trajectory_loss(encoder, x, torch.ones(4, 4), t=0.5, t_next=0.4)
    >>> loss.requires_grad
    True

    References
    ----------
    Lei et al., arXiv:2501.13094, the consistency term of pre-training.
    """
    queries = represent(encoder, x + t * noise, t, sigma_data)
    with torch.no_grad():
        keys = represent(encoder, x + t_next * noise, t_next, sigma_data)
    return info_nce(queries, keys, tau)


def project(
    encoder: nn.Module, noisy: Float[Tensor, "batch *input"], t: float, sigma_data: float
) -> Float[Tensor, "batch projection"]:
    """Return the projections of inputs that hold noise of level t."""
    projection: Tensor = encoder(*_scaled(noisy, t, sigma_data))[0]
    return projection


def represent(
    encoder: nn.Module, noisy: Float[Tensor, "batch *input"], t: float, sigma_data: float
) -> Float[Tensor, "batch features"]:
    """Return the features of inputs that hold noise of level t, without the projection where that can be spared."""
    own = getattr(encoder, "features", None)
    inputs = _scaled(noisy, t, sigma_data)
    features: Tensor = encoder(*inputs)[1] if own is None else own(*inputs)
    return features


def _scaled(
    noisy: Float[Tensor, "batch *input"], t: float, sigma_data: float
) -> tuple[Float[Tensor, "batch *input"], Float[Tensor, " batch"]]:
    levels = torch.full((len(noisy),), t, dtype=noisy.dtype, device=noisy.device)
    return noisy / math.hypot(t, sigma_data), levels
