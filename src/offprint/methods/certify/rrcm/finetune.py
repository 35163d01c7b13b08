"""Fine-tuning: from a noise-conditioned encoder to a classifier that is accurate and steady under noise."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.certify.rrcm.losses import represent
from offprint.methods.certify.rrcm.pretrain import check_at_least_zero, check_mean_and_warmup, check_positive
from offprint.methods.certify.rrcm.schedule import KarrasSchedule, warmup_cosine
from offprint.models.batches import check_count
from offprint.models.randomness import as_generator, seeded
from offprint.models.training import TrainingHistory, train


class NoisyClassifier(nn.Module):
    """An encoder told one noise level, and a linear head: from noisy inputs, in their own units, to logits.

    Parameters
    ----------
    encoder : torch.nn.Module
        ``encoder(x, t)`` returning (projection, features); its method ``features(x, t)`` is used where there is one.
    head : torch.nn.Module
        From features to logits.
    t : float
        The noise level that the encoder is told, in units of normalised inputs.
    mean, std, sigma_data : float
        As in pre-training.

    Raises
    ------
    ValueError
        If t, std or sigma_data are not positive.

    Examples
    --------
    >>> from offprint.methods.certify.rrcm.encoders import ResidualEncoder
    >>> model = NoisyClassifier(ResidualEncoder(4, 8, generator=0), nn.Linear(8, 3), t=0.5)
    >>> model(torch.rand(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        t: float,
        *,
        mean: float = 0.5,
        std: float = 0.5,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__()
        check_positive(t=t, std=std, sigma_data=sigma_data)
        self.encoder, self.head = encoder, head
        self.t, self.mean, self.std, self.sigma_data = float(t), float(mean), float(std), float(sigma_data)

    def features(self, inputs: Float[Tensor, "batch *input"]) -> Float[Tensor, "batch features"]:
        """Return the encoder's features of noisy inputs."""
        return represent(self.encoder, (inputs - self.mean) / self.std, self.t, self.sigma_data)

    def forward(self, inputs: Float[Tensor, "batch *input"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of noisy inputs."""
        logits: Tensor = self.head(self.features(inputs))
        return logits


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned classifier and how it went.

    Parameters
    ----------
    classifier : NoisyClassifier
        In evaluation mode.
    history : TrainingHistory
        Of the training; with validation the weights are those of its best epoch.
    noisy_accuracy : float
        On one noisy copy of each validation input (of each training input, where there is no validation).
    n_classes_predicted : float
        The exponential of the entropy of the predicted classes there: how many classes are in use.
    collapsed : bool
        Whether that is less than half of what it is for the true classes. A classifier that mostly says one class
        certifies that class's share at any radius, and looks robust: its certificates say nothing of use.
    """

    classifier: NoisyClassifier
    history: TrainingHistory
    noisy_accuracy: float
    n_classes_predicted: float
    collapsed: bool


def finetune_smoothing(
    encoder: nn.Module,
    X: Float[Tensor, "n *input"],
    y: Int[Tensor, " n"],
    sigma: float,
    lbd: float = 10.0,
    eta: float = 0.5,
    m: int = 2,
    *,
    num_classes: int | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    n_epochs: int | None = None,
    n_steps: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 2e-4,
    layer_decay: float = 0.75,
    weight_decay: float = 0.0,
    warmup: float = 0.1,
    mean: float = 0.5,
    std: float = 0.5,
    sigma_data: float = 0.5,
    schedule: KarrasSchedule | None = None,
    validate_every: int = 1,
    generator: torch.Generator | int = 0,
    device: torch.device | str | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> FineTuned:
    """Make a classifier for smoothing with one sigma out of an encoder, pre-trained or new.

    The loss is cross entropy on ``m`` noisy copies of each input, plus a penalty on how much predictions differ between
    the copies and on how uncertain they are together. ``lbd=0, eta=0`` is training on Gaussian noise alone.

    Parameters
    ----------
    encoder : torch.nn.Module
        ``encoder(x, t)`` returning (projection, features). It is copied, so one pre-training serves several sigmas.
    X : tensor, shape (n, ...)
        Clean inputs, finite, in their own units (such as [0, 1]).
    y : tensor of int, shape (n,)
        Classes from 0.
    sigma : float
        Standard deviation of the noise to smooth with, in the units of X, positive.
    lbd, eta : float
        Weights of disagreement and of uncertainty, at least 0. The authors take 10 or 20 and 0.5; on small data such
        weights can drive everything to one class, which ``collapsed`` in the result reports.
    m : int
        Noisy copies of each input in a step.
    num_classes : int, optional
        By default one more than the largest of y.
    validation : (tensor, tensor), optional
        Held-out inputs and classes; the epoch with the best accuracy under noise is kept.
    n_epochs, n_steps : int, optional
        How long to train; at most one of the two, by default 100 epochs.
    batch_size : int
        Inputs per step.
    learning_rate, layer_decay, weight_decay : float
        Of AdamW for the head; each layer further from it has ``layer_decay``, in (0, 1], times the rate of the next.
    warmup : float
        Share of the steps over which the rate rises, in [0, 1); then it falls as a cosine.
    mean, std, sigma_data : float
        As in pre-training.
    schedule : KarrasSchedule, optional
        As in pre-training: the encoder is told the nearest of its final levels.
    validate_every : int
        Epochs between validations.
    generator : torch.Generator or int
        The only source of randomness.
    device : torch.device or str, optional
        Where to train; by default where the encoder is.
    progress : callable, optional
        Called as ``progress(done, total, label)`` in steps.

    Returns
    -------
    FineTuned

    Raises
    ------
    ValueError
        If an argument is out of range, or inputs are not finite or of another length than y.

    Notes
    -----
    A step costs m evaluations of the encoder with gradients. Certify the result with :class:`.SmoothedClassifier` at
    the same sigma.

    Examples
    --------
    >>> from offprint.methods.certify.rrcm.encoders import ResidualEncoder
    >>> X = torch.rand(64, 6, generator=torch.Generator().manual_seed(0))
    >>> y = (X[:, 0] > 0.5).long()
    >>> encoder = ResidualEncoder(6, width=16, generator=0)
    >>> tuned = finetune_smoothing(encoder, X, y, sigma=0.1, lbd=1.0, n_steps=60, learning_rate=1e-2, generator=0)
    >>> tuned.noisy_accuracy > 0.8, tuned.collapsed
    (True, False)

    References
    ----------
    Lei et al., *Robust Representation Consistency Model via Contrastive Denoising*, arXiv:2501.13094, fine-tuning.
    Jeong and Shin, *Consistency Regularization for Certified Robustness of Smoothed Classifiers*, arXiv:2006.04062,
    equations 7 and 8.
    """
    check_positive(sigma=sigma, learning_rate=learning_rate, std=std, sigma_data=sigma_data)
    check_at_least_zero(lbd=lbd, eta=eta, weight_decay=weight_decay)
    check_mean_and_warmup(mean, warmup)
    check_count("m", m)
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must be in (0, 1]; got {layer_decay}")
    _check_labelled("X", X, "y", y)
    n_classes = int(y.max()) + 1 if num_classes is None else num_classes
    if int(y.max()) >= n_classes:
        raise ValueError(f"y must hold classes below num_classes={n_classes}; got {int(y.max())}")
    if validation is not None:
        _check_labelled("validation", validation[0], "its classes", validation[1])
    source = as_generator(generator)
    classifier = _classifier(
        encoder, X, sigma, n_classes, schedule or KarrasSchedule(), (mean, std, sigma_data), source, device
    )

    def loss(model: NoisyClassifier, batch: tuple[Tensor, Tensor]) -> Tensor:
        copies = batch[0].repeat(m, *[1] * (batch[0].ndim - 1))
        logits = model(copies + sigma * torch.randn_like(copies)).unflatten(0, (m, -1))
        return consistency_regularized_loss(logits, batch[1], lbd, eta)

    def miss(model: NoisyClassifier) -> float:
        assert validation is not None
        return 1 - _noisy_predictions(model, validation[0], sigma).eq(validation[1]).double().mean().item()

    history = train(
        classifier,
        loss,
        (X, y.long()),
        validation=None if validation is None else miss,
        n_epochs=100 if n_epochs is None and n_steps is None else n_epochs,
        n_steps=n_steps,
        batch_size=batch_size,
        optimizer=lambda _: torch.optim.AdamW(
            layerwise_groups(classifier, learning_rate, layer_decay), weight_decay=weight_decay, fused=True
        ),
        schedule=lambda optimizer, total: warmup_cosine(optimizer, total, round(warmup * total)),
        validate_every=validate_every,
        generator=source,
        device=device,
        progress=progress,
    )
    inputs, classes = (X, y) if validation is None else validation
    with seeded(0):
        said = _noisy_predictions(classifier, inputs, sigma)
    used, true = _effective_classes(said), _effective_classes(classes)
    correct = said.eq(classes).double().mean().item()
    return FineTuned(classifier, history, correct, used, used < true / 2)


def consistency_regularized_loss(
    logits: Float[Tensor, "copies batch classes"], y: Int[Tensor, " batch"], lbd: float, eta: float
) -> Float[Tensor, ""]:
    """Return cross entropy over noisy copies plus lbd · KL(mean ‖ each) plus eta · entropy of the mean.

    Parameters
    ----------
    logits : tensor, shape (copies, batch, classes)
        Of each noisy copy.
    y : tensor of int, shape (batch,)
        Classes.
    lbd, eta : float
        Weights.

    Returns
    -------
    tensor, shape ()

    Examples
    --------
    Copies that agree and are sure cost nothing:

    >>> logits = torch.tensor([[[100.0, 0.0]], [[100.0, 0.0]]])
    >>> round(consistency_regularized_loss(logits, torch.tensor([0]), 10.0, 0.5).item(), 6)
    0.0

    References
    ----------
    Jeong and Shin, arXiv:2006.04062, equations 7 and 8.
    """
    log_p = logits.log_softmax(dim=2)
    hit = functional.nll_loss(log_p.flatten(0, 1), y.repeat(len(logits)))
    if lbd == 0 and eta == 0:
        return hit
    log_mean = log_p.logsumexp(dim=0) - math.log(len(logits))
    mean = log_mean.exp()
    disagreement = (mean * (log_mean - log_p)).sum(2).mean()
    entropy = -(mean * log_mean).sum(1).mean()
    return hit + lbd * disagreement + eta * entropy


def layerwise_groups(model: NoisyClassifier, learning_rate: float, decay: float) -> list[dict[str, object]]:
    """Return parameter groups whose learning rate falls by ``decay`` with every layer away from the head.

    The layers are those of the encoder's list ``layers``, where it has one. What comes before them has the smallest
    rate: weights that are in no layer, registered before the first; weights after the last have the head's own.

    Parameters
    ----------
    model : NoisyClassifier
        With its encoder and head.
    learning_rate, decay : float
        Of the head, and the factor per layer, in (0, 1].

    Returns
    -------
    list of dict
        For a torch optimizer.

    Examples
    --------
    >>> from offprint.methods.certify.rrcm.encoders import ResidualEncoder
    >>> model = NoisyClassifier(ResidualEncoder(4, 8, n_layers=2, generator=0), nn.Linear(8, 3), t=0.5)
    >>> sorted(group["lr"] for group in layerwise_groups(model, 1.0, 0.5))
    [0.125, 0.25, 0.5, 1.0]
    """
    found = getattr(model.encoder, "layers", None)
    layers = list(found) if isinstance(found, list | tuple | nn.ModuleList | nn.Sequential) else []
    place = {id(p): depth for depth, layer in enumerate(layers, 1) for p in layer.parameters()}
    depth, groups = 0 if layers else 1, dict[int, list[nn.Parameter]]()
    for parameter in model.encoder.parameters():
        # In the order of registration: what follows the last layer stays with the head.
        depth = place.get(id(parameter), depth if depth == 0 else len(layers) + 1)
        groups.setdefault(depth, []).append(parameter)
    groups.setdefault(len(layers) + 1, []).extend(model.head.parameters())
    return [
        {"params": parameters, "lr": learning_rate * decay ** (len(layers) + 1 - depth)}
        for depth, parameters in sorted(groups.items())
    ]


def _classifier(
    encoder: nn.Module,
    X: Tensor,
    sigma: float,
    n_classes: int,
    schedule: KarrasSchedule,
    scaling: tuple[float, float, float],
    generator: torch.Generator,
    device: torch.device | str | None,
) -> NoisyClassifier:
    """Copy the encoder and put a new head on it, told the noise level nearest to sigma in normalised units."""
    mean, std, sigma_data = scaling
    n = schedule.n_last + 1
    t = float(schedule.times(n)[schedule.nearest(sigma / std, n)])
    classifier = NoisyClassifier(copy.deepcopy(encoder), nn.Identity(), t, mean=mean, std=std, sigma_data=sigma_data)
    place = next((p.device for p in encoder.parameters()), X.device) if device is None else torch.device(device)
    with torch.no_grad():
        width = classifier.to(place).features(X[:2].to(place)).shape[1]
    with seeded(generator):
        head = nn.Linear(width, n_classes, dtype=X.dtype)
        nn.init.trunc_normal_(head.weight, std=2e-5)
        nn.init.zeros_(head.bias)
    classifier.head = head.to(place)
    return classifier


def _noisy_predictions(model: nn.Module, X: Tensor, sigma: float) -> Int[Tensor, " n"]:
    place = next(model.parameters()).device
    with torch.no_grad():
        chunks = [
            model((part := chunk.to(place)) + sigma * torch.randn_like(part)).argmax(1)
            for chunk in torch.split(X, 1024)
        ]
    return torch.cat(chunks).to(X.device)


def _effective_classes(classes: Int[Tensor, " n"]) -> float:
    shares = torch.bincount(classes.long()).double() / len(classes)
    return math.exp(-torch.special.xlogy(shares, shares).sum().item())


def _check_labelled(name: str, X: Tensor, of: str, y: Tensor) -> None:
    if not isinstance(X, Tensor) or not X.is_floating_point():
        raise TypeError(f"{name} must be a tensor of floating-point numbers; got {type(X).__name__}")
    if (
        not isinstance(y, Tensor)
        or y.is_floating_point()
        or y.ndim != 1
        or X.ndim < 2
        or len(X) != len(y)
        or not len(y)
    ):
        raise ValueError(
            f"{name} must have shape (n, ...) and {of} hold one integer class per row; got {tuple(X.shape)} and "
            f"{tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__}"
        )
    if not bool(torch.isfinite(X).all()):
        raise ValueError(f"{name} must be finite; it holds NaN or infinity")
    if int(y.min()) < 0:
        raise ValueError(f"{of} must hold classes from 0; got {int(y.min())}")
