"""Entropy of attention from its logits, and how its weight is annealed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from offprint.methods.bags.ragged import all_finite
from offprint.models.batches import check_sizes

Schedule = Literal["cosine", "constant"]
Kind = Literal["entropy", "kl"]
SCHEDULES, KINDS = ("cosine", "constant"), ("entropy", "kl")


def attention_entropy(
    logits: Float[Tensor, "..."],
    mask: Bool[Tensor, "..."] | None = None,
    dim: int = -1,
    *,
    normalize: bool = False,
) -> Float[Tensor, "..."]:
    """Return the entropy, in nats, of each row of attention, from its logits.

    High when attention is spread over many instances, 0 when one instance gets it all.

    Parameters
    ----------
    logits : float tensor
        Before the softmax over instances; any shape with instances along ``dim``. -inf leaves an instance out.
    mask : bool tensor, optional
        True at real instances. Instances lie in its last dimension; the dimensions before are the first ones of
        ``logits`` without ``dim``, so that a mask of shape (bags, instances) serves (bags, rows, instances).
    dim : int
        The dimension of ``logits`` along which instances lie.
    normalize : bool
        Divide by the logarithm of the number of instances, so that the result lies in [0, 1] whatever the size of the
        bag. A row of a single instance counts as 1.

    Returns
    -------
    tensor, the shape of ``logits`` without ``dim``
        In float32 at least, since half precision cannot add up thousands of weights; 0 for a row left out whole.

    Raises
    ------
    ValueError
        If logits hold NaN or inf, no instance, or probabilities; or the mask does not fit them.
    TypeError
        If logits are no float tensor, or the mask is no bool tensor.

    Notes
    -----
    Never through the logarithm of a weight, which may have underflowed. O(size of ``logits``).

    Examples
    --------
    >>> attention_entropy(torch.tensor([1.0, 2.0, 4.0]).log())  # attention 1/7, 2/7, 4/7
    tensor(0.9557)
    >>> attention_entropy(torch.zeros(2, 8), normalize=True).round(decimals=4)
    tensor([1., 1.])

    References
    ----------
    Zhang et al., *AEM: Attention Entropy Maximization for Multiple Instance Learning based Whole Slide Image
    Classification*, arXiv:2406.15303, equation 2.
    """
    rows, kept = _rows(logits, mask, dim)
    _refuse_probabilities(rows, kept, logits.dtype)
    return _entropy(rows, kept, normalize)


def divergence_from_uniform(
    logits: Float[Tensor, "..."], mask: Bool[Tensor, "..."] | None = None, dim: int = -1
) -> Float[Tensor, "..."]:
    """Return the Kullback-Leibler divergence KL(uniform ‖ attention) of each row, from its logits.

    The alternative that the paper compares with: unlike negative entropy it grows without bound as any instance loses
    all attention.

    Parameters
    ----------
    logits : float tensor, any shape
        Before the softmax over instances, which lie along ``dim``. -inf leaves an instance out.
    mask : bool tensor, shape as for :func:`attention_entropy`, optional
        True at real instances.
    dim : int
        The dimension of ``logits`` along which instances lie.

    Returns
    -------
    tensor, the shape of ``logits`` without ``dim``
        At least 0; 0 for a row left out whole.

    Raises
    ------
    ValueError
        If logits hold NaN or inf, no instance, or probabilities; or the mask does not fit them.
    TypeError
        If logits are no float tensor, or the mask is no bool tensor.

    Notes
    -----
    The logarithm of the mean of exp(logits), less the mean logit. O(size of ``logits``).

    Examples
    --------
    >>> divergence_from_uniform(torch.tensor([1.0, 3.0]).log())  # ln 2 + (ln 1/4 + ln 3/4) / -2 - 2 ln 2
    tensor(0.1438)

    References
    ----------
    Zhang et al., arXiv:2406.15303, the comparison of regularizers.
    """
    rows, kept = _rows(logits, mask, dim)
    _refuse_probabilities(rows, kept, logits.dtype)
    return _divergence(rows, kept)


def annealed_weight(
    weight: float,
    epoch: float,
    total_epochs: int,
    *,
    weight_end: float = 0.0,
    schedule: Schedule = "cosine",
) -> float:
    """Return the weight of the entropy at an epoch: large early, then falling along half a cosine.

    Parameters
    ----------
    weight : float
        At epoch 0, finite.
    epoch : float
        From 0; beyond ``total_epochs`` the weight stays at its end.
    total_epochs : int
        Length of training, at least 1.
    weight_end : float
        At ``total_epochs``, finite.
    schedule : {"cosine", "constant"}
        "constant" keeps ``weight``.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If a number is out of range or the schedule unknown.

    Notes
    -----
    λ_t = λ_end + (λ_0 - λ_end) (1 + cos(π t / T)) / 2. The paper describes annealing by a cosine; the exact formula
    and its end at 0 are this project's reading.

    Examples
    --------
    >>> [round(annealed_weight(0.1, epoch, 50), 7) for epoch in (0, 10, 25, 50)]
    [0.1, 0.0904508, 0.05, 0.0]

    References
    ----------
    Zhang et al., arXiv:2406.15303 (third version), cosine weight annealing.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be 'cosine' or 'constant'; got {schedule!r}")
    for name, number in (("weight", weight), ("weight_end", weight_end)):
        if not math.isfinite(number):
            raise ValueError(f"{name} must be finite; got {number}")
    if not epoch >= 0:
        raise ValueError(f"epoch must be at least 0; got {epoch}")
    check_sizes(total_epochs=total_epochs)
    if schedule == "constant":
        return float(weight)
    gone = min(epoch / total_epochs, 1.0)
    return weight_end + 0.5 * (weight - weight_end) * (1 + math.cos(math.pi * gone))


@dataclass(frozen=True)
class EntropyPenalty:
    """How strongly concentrated attention is penalised, and when: what the loss and the hook share.

    Parameters
    ----------
    weight : float
        λ at epoch 0, at least 0.
    weight_end : float
        λ at the end, at least 0.
    schedule : {"cosine", "constant"}
        How λ goes from one to the other.
    total_epochs : int
        Epochs of training, at least 1.
    normalize : bool
        Divide each row's entropy by the logarithm of its number of instances, so that a weight means the same for
        bags of any size.
    floor : float, optional
        Reward entropy up to this only, in nats or, normalised, in [0, 1]; by default without end.
    kind : {"entropy", "kl"}
        "kl" penalises KL(uniform ‖ attention) instead, a baseline.
    allow_negative : bool
        Accept negative weights, which sharpen attention.
    """

    weight: float = 0.1
    weight_end: float = 0.0
    schedule: Schedule = "cosine"
    total_epochs: int = 50
    normalize: bool = False
    floor: float | None = None
    kind: Kind = "entropy"
    allow_negative: bool = False

    def __post_init__(self) -> None:
        self.weight_at(0)
        for name in ("weight", "weight_end"):
            if getattr(self, name) < 0 and not self.allow_negative:
                raise ValueError(
                    f"{name} must be at least 0; got {getattr(self, name)}, which would reward concentrated attention. "
                    "Where that is meant, pass allow_negative=True"
                )
        if self.kind not in KINDS:
            raise ValueError(f"kind must be 'entropy' or 'kl'; got {self.kind!r}")
        if self.floor is not None and not (math.isfinite(self.floor) and self.floor > 0):
            raise ValueError(f"floor must be positive and finite; got {self.floor}")
        if self.floor is not None and self.normalize and self.floor > 1:
            raise ValueError(f"floor must be at most 1 with normalize=True, a share of the largest; got {self.floor}")
        if self.kind == "kl" and (self.normalize or self.floor is not None):
            raise ValueError("normalize and floor are of kind 'entropy'; got them with kind 'kl'")

    def weight_at(self, epoch: float) -> float:
        """Return λ at an epoch, from 0."""
        return annealed_weight(
            self.weight, epoch, self.total_epochs, weight_end=self.weight_end, schedule=self.schedule
        )

    def __call__(
        self,
        logits: Float[Tensor, "..."],
        mask: Bool[Tensor, "..."] | None = None,
        dim: int = -1,
        *,
        may_be_probabilities: bool = True,
    ) -> Float[Tensor, ""]:
        """Return the mean over rows of the negative entropy; rows left out whole do not count.

        ``may_be_probabilities`` is to be ``False`` once logits were seen to be logits: a few of them that pass, in
        training, through the sum of 1 are no probabilities.
        """
        values, present = self.of_rows(logits, mask, dim, may_be_probabilities=may_be_probabilities)
        return values[present].sum() / present.sum().clamp(min=1)

    def of_rows(
        self,
        logits: Float[Tensor, "..."],
        mask: Bool[Tensor, "..."] | None = None,
        dim: int = -1,
        *,
        may_be_probabilities: bool = True,
    ) -> tuple[Float[Tensor, "..."], Bool[Tensor, "..."]]:
        """Return the negative entropy of each row, and which rows are not left out whole."""
        rows, kept = _rows(logits, mask, dim)
        if may_be_probabilities:
            _refuse_probabilities(rows, kept, logits.dtype)
        if self.kind == "kl":
            values = _divergence(rows, kept)
        else:
            entropy = _entropy(rows, kept, self.normalize)
            values = -(entropy if self.floor is None else entropy.clamp(max=self.floor))
        return values, kept.any(-1)


def _rows(logits: Tensor, mask: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
    """Return logits with instances last, and where instances are."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"logits must be a tensor of floating-point numbers; got {getattr(logits, 'dtype', logits)}")
    if logits.ndim == 0 or not -logits.ndim <= dim < logits.ndim or logits.shape[dim] == 0:
        raise ValueError(f"logits must hold at least one instance along dim {dim}; got shape {tuple(logits.shape)}")
    rows = logits.movedim(dim, -1)
    rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
    kept = rows != -torch.inf
    if mask is not None:
        kept = kept & _fitted(mask, rows)
    if not all_finite(rows.detach().masked_fill(~kept, 0.0)):
        raise ValueError("logits must be finite, or -inf where an instance is left out; they hold NaN or inf")
    return rows, kept


def _refuse_probabilities(rows: Tensor, kept: Tensor, dtype: torch.dtype) -> None:
    seen = rows.detach().masked_fill(~kept, 0.0)
    precision = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    rounding = min(8 * precision * math.sqrt(rows.shape[-1]), 1e-2)
    several = kept.sum(-1) > 1
    adds_up = ((seen.sum(-1) - 1).abs() < rounding) & (seen >= 0).all(-1)
    if bool(several.any()) and bool(adds_up[several].all()):
        raise ValueError(
            "logits must be attention before its softmax; every row given is non-negative and adds up to 1, so these "
            "are probabilities. Take what enters the softmax or, where the model does not show it, "
            "attention.clamp_min(1e-30).log()"
        )


def _entropy(rows: Tensor, kept: Tensor, normalize: bool) -> Tensor:
    none = ~kept.any(-1, keepdim=True)
    log_weights = rows.masked_fill(~kept, -torch.inf).masked_fill(none, 0.0).log_softmax(-1).masked_fill(~kept, 0.0)
    entropy = -(log_weights.exp() * log_weights).sum(-1).clamp(max=0.0)
    if not normalize:
        return entropy
    sizes = kept.sum(-1)
    return torch.where(sizes > 1, entropy / sizes.clamp(min=2).to(entropy.dtype).log(), torch.ones_like(entropy))


def _divergence(rows: Tensor, kept: Tensor) -> Tensor:
    sizes = kept.sum(-1)
    none = sizes == 0
    total = rows.masked_fill(~kept, -torch.inf).masked_fill(none[..., None], 0.0).logsumexp(-1)
    mean = rows.masked_fill(~kept, 0.0).sum(-1) / sizes.clamp(min=1)
    return (total - mean - sizes.clamp(min=1).to(rows.dtype).log()).masked_fill(none, 0.0)


def _fitted(mask: Tensor, rows: Tensor) -> Tensor:
    """Give a mask the dimensions between its leading ones and the instances."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask must be a bool tensor; got {getattr(mask, 'dtype', mask)}")
    if 0 < mask.ndim <= rows.ndim:
        wide = mask.reshape(*mask.shape[:-1], *[1] * (rows.ndim - mask.ndim), mask.shape[-1])
        if all(given in (1, wanted) for given, wanted in zip(wide.shape, rows.shape, strict=True)):
            return wide
    raise ValueError(
        f"mask must have the instances of logits last and their first dimensions before, of {tuple(rows.shape)}; got "
        f"{tuple(mask.shape)}"
    )
