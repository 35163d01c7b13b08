"""The one training loop: epochs or steps, any loss, early stopping, schedules, progress, all under one seed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from offprint.models.batches import Batches, Data, check_count, move
from offprint.models.evaluation import Loss, Model, RunningMean, device_of, evaluate, evaluating, scalar
from offprint.models.randomness import as_generator, seeded

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]
ScheduleFactory = Callable[[Optimizer, int], LRScheduler]
N_REPORTS = 200


@dataclass(frozen=True)
class TrainingHistory:
    """What happened during training.

    Parameters
    ----------
    losses : tuple of float
        Mean training loss of each epoch (of the steps taken in it, where the last one was cut short).
    validation_losses : tuple of float
        Validation loss each time it was measured; empty without validation.
    n_epochs : int
        Epochs begun.
    n_steps : int
        Optimizer steps taken.
    best_epoch : int or None
        The epoch (from 1) with the lowest validation loss; ``None`` without validation.
    stopped_early : bool
        Whether patience ran out, or ``on_step`` asked to stop, before the planned end.
    """

    losses: tuple[float, ...]
    validation_losses: tuple[float, ...]
    n_epochs: int
    n_steps: int
    best_epoch: int | None
    stopped_early: bool


@dataclass(frozen=True)
class Step:
    """One optimizer step, as ``on_step`` sees it: counted from 1, with the training loss before the update."""

    epoch: int
    step: int
    loss: float


def train(
    model: Model,
    loss: Loss[Model],
    train_data: Data,
    *,
    validation: Data | Callable[[Model], float] | None = None,
    n_epochs: int | None = None,
    n_steps: int | None = None,
    batch_size: int | None = 128,
    drop_last: bool = False,
    optimizer: Optimizer | OptimizerFactory | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    schedule: Literal["constant", "cosine"] | ScheduleFactory = "constant",
    patience: int | None = None,
    validate_every: int = 1,
    restore_best: bool = True,
    gradient_clip: float | None = None,
    generator: torch.Generator | int = 0,
    device: torch.device | str | None = None,
    progress: Callable[[float, float, str], None] | None = None,
    on_step: Callable[[Step], bool | None] | None = None,
) -> TrainingHistory:
    """Train a model in place and return what happened.

    Use it wherever a loss of a model on a batch is to be made small: classification, regression, penalties over
    environments, denoising, contrastive losses. The model ends in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place. Parameters that do not require gradients are left alone.
    loss : callable
        ``loss(model, batch)`` returns a scalar tensor, the mean over the batch. See :func:`.cross_entropy` and
        :func:`.mean_squared_error` for ``batch = (inputs, targets)``.
    train_data : tensor, tuple of tensors, Dataset or DataLoader
        Tensors or arrays that share their first length are shuffled and cut into batches of the same form (one tensor
        gives tensors, a tuple gives tuples); an object with ``inputs`` and ``targets`` counts as that pair. Any other
        iterable yields ready batches, and is iterated anew each epoch.
    validation : like ``train_data``, or callable, optional
        Held-out data, on which ``loss`` is averaged as by :func:`.evaluate`, or ``validation(model)`` returning a
        number to be made small. The model is in evaluation mode, and torch's global random state is the same each time.
    n_epochs, n_steps : int
        How long to train, at least 1: exactly one of the two.
    batch_size : int or None
        Rows per batch, at least 1; ``None`` takes all rows at once. Unused where ``train_data`` yields batches.
    drop_last : bool
        Leave out the last batch of an epoch where it would be short.
    optimizer : torch.optim.Optimizer or callable, optional
        An optimizer over the model's parameters, or a callable that takes the list of trainable parameters and returns
        one. It is stepped with a closure, so L-BFGS and sharpness-aware optimizers work. By default AdamW.
    learning_rate, weight_decay : float, optional
        Of the default AdamW: 1e-3 and 0. To be left out where ``optimizer`` is given.
    schedule : {"constant", "cosine"} or callable
        Learning rate over the steps; a callable takes ``(optimizer, total_steps)`` and returns a torch scheduler, which
        is stepped after every optimizer step.
    patience : int, optional
        Stop after this many validations in a row without a new lowest validation loss, at least 1.
    validate_every : int
        Epochs between validations; the last epoch is always validated.
    restore_best : bool
        With validation, end with the weights of the lowest validation loss rather than the last ones.
    gradient_clip : float, optional
        Largest Euclidean norm of the whole gradient, positive.
    generator : torch.Generator or int
        The only source of randomness, for the order of rows and for layers that draw (dropout); an int is a seed.
    device : torch.device or str, optional
        Where the model and each batch are moved; by default where the model is.
    progress : callable, optional
        Called as ``progress(done, total, label)`` in steps, about 200 times; ``total`` is 0 where unknown.
    on_step : callable, optional
        Called with a :class:`Step` after each optimizer step; training stops when it returns ``True``.

    Returns
    -------
    TrainingHistory

    Raises
    ------
    ValueError
        If an argument is out of range, arguments contradict each other, data are empty, of unequal lengths or not
        finite, or the loss is not a scalar.
    TypeError
        If an argument is of a kind that cannot be used.
    FloatingPointError
        If a training or validation loss becomes infinite or NaN; the message says at which step.

    Notes
    -----
    Each epoch draws its order and the seed of its layers from ``generator``. Training for two epochs and then, with the
    same generator and optimizer objects, for three more is therefore exactly training for five. Torch's global random
    state is the same before and after.

    Time is that of the forward and backward passes; memory is that of the model, its optimizer state and, with
    ``restore_best``, one more copy of the model.

    Examples
    --------
    A linear model finds the line through its data:

    >>> from offprint.models.evaluation import mean_squared_error
    >>> inputs = torch.linspace(-1, 1, 64)[:, None]
    >>> model = nn.Linear(1, 1)
    >>> history = train(model, mean_squared_error, (inputs, 3 * inputs + 1), n_steps=300, learning_rate=0.1)
    >>> round(model.weight.item(), 2), round(model.bias.item(), 2), history.n_steps
    (3.0, 1.0, 300)

    References
    ----------
    Prechelt, *Early Stopping - But When?*, in Neural Networks: Tricks of the Trade (1998), for patience.
    Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, arXiv:1711.05101, for AdamW.
    """
    _check_length(n_epochs, n_steps)
    check_count("patience", patience)
    check_count("validate_every", validate_every)
    if gradient_clip is not None and not 0 < gradient_clip < math.inf:
        raise ValueError(f"gradient_clip must be positive and finite; got {gradient_clip}")
    if patience is not None and validation is None:
        raise ValueError("patience needs validation: there is nothing to stop on")
    source = as_generator(generator)
    place = device_of(model) if device is None else torch.device(device)
    model.to(place)
    batches = Batches("train_data", train_data, batch_size, drop_last)
    measure = _validator(validation, loss, batch_size, place)
    chosen = _optimizer(model, optimizer, learning_rate, weight_decay)
    total = n_steps or (n_epochs or 0) * len(batches)
    loop = _Loop(model, loss, chosen, _schedule(schedule, chosen, total), gradient_clip, place)
    best = _Best(model, patience, restore_best)
    epoch, stopped = 0, False
    losses: list[float] = []
    while not stopped and (loop.n_steps < n_steps if n_steps else epoch < (n_epochs or 0)):
        epoch += 1
        model.train()
        taken = RunningMean()
        with seeded(source, place):
            for batch in batches.epoch(source):
                value = loop.step(batch, epoch)
                taken.add(value)
                _report(progress, loop.n_steps, total, epoch, value)
                stopped = on_step is not None and on_step(Step(epoch, loop.n_steps, value)) is True
                if stopped or loop.n_steps == n_steps:
                    break
        if taken.weight == 0:
            raise ValueError("train_data yielded no batch; it must be iterable anew each epoch")
        losses.append(taken.mean)
        last = stopped or (loop.n_steps == n_steps if n_steps else epoch == n_epochs)
        if measure is not None and (last or epoch % validate_every == 0):
            with seeded(0, place):
                out_of_patience = best.update(measure(model), epoch)
            stopped = stopped or out_of_patience
    best.restore()
    model.eval()
    if progress is not None:
        progress(total or loop.n_steps, total or loop.n_steps, "trained")
    return TrainingHistory(
        tuple(losses), tuple(best.values), epoch, loop.n_steps, best.epoch, stopped and loop.n_steps != total
    )


@dataclass
class _Loop:
    model: Any
    loss: Callable[[Any, Any], Tensor]
    optimizer: Optimizer
    schedule: LRScheduler | None
    gradient_clip: float | None
    device: torch.device
    n_steps: int = 0

    def step(self, batch: Any, epoch: int) -> float:
        batch = move(batch, self.device)
        seen: list[float] = []

        def closure() -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            value = scalar(self.loss(self.model, batch))
            seen.append(value.item())
            if not math.isfinite(seen[-1]):
                raise FloatingPointError(
                    f"the training loss is {seen[-1]} at step {self.n_steps + 1} (epoch {epoch}); "
                    "try a smaller learning rate or gradient_clip"
                )
            value.backward()  # type: ignore[no-untyped-call]
            if self.gradient_clip is not None:
                parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
                nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
            return value

        self.optimizer.step(closure)  # type: ignore[arg-type]
        if not seen:
            raise TypeError(f"optimizer.step must evaluate the closure that it is given; {self.optimizer} did not")
        if self.schedule is not None:
            self.schedule.step()
        self.n_steps += 1
        return seen[0]


@dataclass
class _Best:
    model: nn.Module
    patience: int | None
    keep: bool
    values: list[float] = field(default_factory=list)
    epoch: int | None = None
    lowest: float = math.inf
    waited: int = 0
    state: dict[str, Any] | None = None

    def update(self, value: float, epoch: int) -> bool:
        """Record a validation and say whether patience has run out."""
        if not math.isfinite(value):
            raise FloatingPointError(f"the validation loss is {value} after epoch {epoch}")
        self.values.append(value)
        self.waited += 1
        if value < self.lowest:
            self.lowest, self.epoch, self.waited = value, epoch, 0
            if self.keep:
                self.state = copy.deepcopy(self.model.state_dict())
        return self.patience is not None and self.waited >= self.patience

    def restore(self) -> None:
        if self.state is not None:
            self.model.load_state_dict(self.state)


def _validator(
    validation: Any, loss: Loss[Model], batch_size: int | None, device: torch.device
) -> Callable[[Model], float] | None:
    if validation is None:
        return None
    if callable(validation):

        def call(model: Model) -> float:
            with evaluating(model):
                return float(validation(model))

        return call
    rows = None if batch_size is None else max(batch_size, 512)
    Batches("validation", validation, rows)  # so that bad data are refused before training
    return lambda model: evaluate(model, loss, validation, batch_size=rows, device=device)


def _optimizer(
    model: nn.Module,
    optimizer: Optimizer | OptimizerFactory | None,
    learning_rate: float | None,
    weight_decay: float | None,
) -> Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if optimizer is not None:
        if learning_rate is not None or weight_decay is not None:
            raise ValueError(
                "learning_rate and weight_decay are those of the default optimizer; give them to optimizer"
            )
        return optimizer if isinstance(optimizer, Optimizer) else optimizer(parameters)
    if not parameters:
        raise ValueError("model has no parameter that requires a gradient: there is nothing to train")
    rate = 1e-3 if learning_rate is None else learning_rate
    decay = 0.0 if weight_decay is None else weight_decay
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"learning_rate must be positive and finite; got {rate}")
    if not (math.isfinite(decay) and decay >= 0):
        raise ValueError(f"weight_decay must be at least 0 and finite; got {decay}")
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)


def _schedule(schedule: str | ScheduleFactory, optimizer: Optimizer, total: int) -> LRScheduler | None:
    if schedule == "constant":
        return None
    if total == 0:
        raise ValueError("schedule needs n_steps where train_data has no length")
    if schedule == "cosine":
        return CosineAnnealingLR(optimizer, total)
    if not callable(schedule):
        raise ValueError(f"schedule must be 'constant', 'cosine' or a callable; got {schedule!r}")
    return schedule(optimizer, total)


def _report(
    progress: Callable[[float, float, str], None] | None, done: int, total: int, epoch: int, loss: float
) -> None:
    every = max(1, total // N_REPORTS)
    if progress is not None and done % every == 0 and done != total:
        progress(done, total, f"epoch {epoch}, loss {loss:.4g}")


def _check_length(n_epochs: int | None, n_steps: int | None) -> None:
    if (n_epochs is None) == (n_steps is None):
        raise ValueError(f"give exactly one of n_epochs and n_steps; got {n_epochs} and {n_steps}")
    check_count("n_epochs", n_epochs)
    check_count("n_steps", n_steps)
