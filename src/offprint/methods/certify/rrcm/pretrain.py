"""Pre-training without labels: one encoder that gives all points of a noise trajectory the same representation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.methods.certify.rrcm.losses import contrastive_loss, trajectory_loss
from offprint.methods.certify.rrcm.schedule import KarrasSchedule, ema_rate, warmup_cosine
from offprint.models.batches import check_count
from offprint.models.training import Step, TrainingHistory, train

Augment = Callable[[Tensor], Tensor]
"""From a batch of inputs to a random view of each, drawn from torch's global state, which is seeded around it."""


class ConsistencyPretrainer:
    """Train an encoder so that inputs stay recognisable along their noise trajectories; fine-tune it afterwards.

    Each step draws one noise for each input and one pair of neighbouring noise levels for the batch. Two augmented
    views at the lowest level are pulled together against a slow copy of the encoder, which says what is alike; features
    at the two neighbouring levels are pulled together, which carries that up to high noise.

    Parameters
    ----------
    encoder : torch.nn.Module
        ``encoder(x, t)`` with x of shape (batch, ...) at unit scale and noise levels t of shape (batch,), returning
        (projection, features), each of shape (batch, any). Trained in place.
    augment : callable
        From a batch to a strong random view of each, of the same shape, in the units of the inputs.
    schedule : KarrasSchedule, optional
        Noise levels, in the units of normalised inputs; by default 0.002 to 80.
    weak_augment : callable, optional
        The view that the trajectory starts from; by default the input itself.
    tau : float
        Temperature of both losses, positive.
    contrastive_weight, consistency_weight : float
        Of the two losses, at least 0 and not both 0. Without the second it is plain contrastive learning.
    n_steps, batch_size : int
        Steps of training and inputs per step; at least 2 inputs, since the others in the batch are the negatives.
    learning_rate, weight_decay : float
        Of AdamW; the rate rises over the first share ``warmup`` of the steps, then falls as a cosine.
    warmup : float
        In [0, 1).
    gradient_clip : float
        Largest norm of the whole gradient.
    ema : (float, float)
        How much of its old weights the slow copy keeps at the start and at the end.
    ema_sharpness : float
        How soon the second is reached (see :func:`.ema_rate`).
    mean, std : float
        Inputs are normalised as (x - mean) / std.
    sigma_data : float
        Standard deviation of normalised inputs, positive.
    generator : torch.Generator or int
        The only source of randomness.
    device : torch.device or str, optional
        Where to train; by default where the encoder is.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    A step costs three evaluations of the encoder with gradients and three without, and batch² similarities. The
    gradient is clipped from the first step (the authors begin after warming up).

    Examples
    --------
    >>> from offprint.methods.certify.rrcm.encoders import ResidualEncoder
    >>> inputs = torch.rand(64, 6, generator=torch.Generator().manual_seed(0))
    >>> jitter = lambda x: x + 0.05 * torch.randn_like(x)
    >>> encoder = ResidualEncoder(6, width=16, generator=0)
    >>> pretrainer = ConsistencyPretrainer(encoder, jitter, n_steps=20, batch_size=32)
    >>> pretrainer.fit(inputs).history_.n_steps
    20

    References
    ----------
    Lei, Berner, Wang, Chen, Ba, Ren, Zhu and Anandkumar, *Robust Representation Consistency Model via Contrastive
    Denoising*, arXiv:2501.13094. Song and Dhariwal, *Improved Techniques for Training Consistency Models*,
    arXiv:2310.14189, for the growing number of levels.
    """

    encoder: nn.Module
    target_: nn.Module
    history_: TrainingHistory
    contrastive_losses_: list[float]
    consistency_losses_: list[float]

    def __init__(
        self,
        encoder: nn.Module,
        augment: Augment,
        schedule: KarrasSchedule | None = None,
        *,
        weak_augment: Augment | None = None,
        tau: float = 0.2,
        contrastive_weight: float = 1.0,
        consistency_weight: float = 1.0,
        n_steps: int = 300_000,
        batch_size: int = 256,
        learning_rate: float = 1e-4,
        weight_decay: float = 0.0,
        warmup: float = 1 / 30,
        gradient_clip: float = 2.0,
        ema: tuple[float, float] = (0.99, 0.9999),
        ema_sharpness: float = 15.0,
        mean: float = 0.5,
        std: float = 0.5,
        sigma_data: float = 0.5,
        generator: torch.Generator | int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        check_positive(
            tau=tau, learning_rate=learning_rate, gradient_clip=gradient_clip, std=std, sigma_data=sigma_data
        )
        check_at_least_zero(
            contrastive_weight=contrastive_weight, consistency_weight=consistency_weight, weight_decay=weight_decay
        )
        check_mean_and_warmup(mean, warmup)
        check_count("n_steps", n_steps)
        check_count("batch_size", batch_size)
        if contrastive_weight == consistency_weight == 0:
            raise ValueError("contrastive_weight and consistency_weight must not both be 0")
        try:
            ema_rate(0, 1, *ema, ema_sharpness)
        except ValueError as error:
            raise ValueError(
                f"ema and ema_sharpness must describe rates in [0, 1); got {ema}, {ema_sharpness}"
            ) from error
        self.encoder, self.augment, self.weak_augment = encoder, augment, weak_augment
        self.schedule = KarrasSchedule() if schedule is None else schedule
        self.tau, self.contrastive_weight, self.consistency_weight = tau, contrastive_weight, consistency_weight
        self.n_steps, self.batch_size, self.warmup = n_steps, batch_size, warmup
        self.learning_rate, self.weight_decay, self.gradient_clip = learning_rate, weight_decay, gradient_clip
        self.ema, self.ema_sharpness = ema, ema_sharpness
        self.mean, self.std, self.sigma_data = mean, std, sigma_data
        self.generator, self.device = generator, device

    def fit(
        self,
        X: Float[Tensor, "n *input"],
        progress: Callable[[float, float, str], None] | None = None,
    ) -> ConsistencyPretrainer:
        """Train on inputs of shape (n, ...), finite and in the units that ``mean`` and ``std`` are in.

        Parameters
        ----------
        X : tensor, shape (n, ...)
            At least 2 inputs; no labels.
        progress : callable, optional
            Called as ``progress(done, total, label)`` in steps.
        """
        if not isinstance(X, Tensor) or not X.is_floating_point():
            raise TypeError(f"X must be a tensor of floating-point numbers; got {type(X).__name__}")
        if X.ndim < 2 or len(X) < 2 or not bool(torch.isfinite(X).all()):
            raise ValueError(f"X must hold at least 2 inputs, all finite; got shape {tuple(X.shape)}")
        self.target_ = copy.deepcopy(self.encoder).requires_grad_(False)
        if self.device is not None:
            self.target_.to(self.device)
        self.contrastive_losses_, self.consistency_losses_ = [], []
        self._weights: tuple[list[Tensor], list[Tensor]] = (
            list(self.target_.parameters()),
            list(self.encoder.parameters()),
        )
        self._buffers = list(zip(self.target_.buffers(), self.encoder.buffers(), strict=True))
        optimizer = torch.optim.AdamW(
            self.encoder.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        self.history_ = train(
            self.encoder,
            self._loss,
            X,
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            drop_last=True,
            optimizer=optimizer,
            schedule=lambda chosen, total: warmup_cosine(chosen, total, round(self.warmup * total)),
            gradient_clip=self.gradient_clip,
            generator=self.generator,
            device=self.device,
            progress=progress,
            on_step=self._follow,
        )
        self.target_.eval()
        return self

    def _loss(self, encoder: nn.Module, batch: Tensor) -> Tensor:
        noise = torch.randn_like(batch)
        total = torch.zeros((), dtype=batch.dtype, device=batch.device)
        if self.contrastive_weight:
            first, second = (self._normalized(self.augment(batch)) for _ in range(2))
            term = contrastive_loss(
                encoder, self.target_, first, second, noise, self.schedule.t_min, self.tau, self.sigma_data
            )
            self.contrastive_losses_.append(term.item())
            total = total + self.contrastive_weight * term
        if self.consistency_weight:
            weak = batch if self.weak_augment is None else self.weak_augment(batch)
            t, t_next = self._neighbours(len(self.consistency_losses_))
            term = trajectory_loss(encoder, self._normalized(weak), noise, t, t_next, self.tau, self.sigma_data)
            self.consistency_losses_.append(term.item())
            total = total + self.consistency_weight * term
        return total

    def _neighbours(self, step: int) -> tuple[float, float]:
        """Draw one of the pairs of neighbouring levels that there are at this step."""
        n = self.schedule.n_times(step, self.n_steps)
        i = int(torch.randint(n - 1, ()))
        times = self.schedule.times(n)
        return float(times[i]), float(times[i + 1])

    def _normalized(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) / self.std

    def _follow(self, step: Step) -> None:
        """Move the slow copy a little towards the encoder; what is no weight (running means) is taken over."""
        rate = ema_rate(step.step, self.n_steps, *self.ema, self.ema_sharpness)
        with torch.no_grad():
            torch._foreach_lerp_(self._weights[0], self._weights[1], 1 - rate)
            for kept, current in self._buffers:
                kept.copy_(current)


def check_positive(**values: float) -> None:
    """Refuse what is not positive and finite, by name."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite; got {value}")


def check_at_least_zero(**values: float) -> None:
    """Refuse what is negative or not finite, by name."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be at least 0 and finite; got {value}")


def check_mean_and_warmup(mean: float, warmup: float) -> None:
    """Refuse a mean that is not finite and a share of warming up outside [0, 1)."""
    if not math.isfinite(mean):
        raise ValueError(f"mean must be finite; got {mean}")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup must be in [0, 1); got {warmup}")
