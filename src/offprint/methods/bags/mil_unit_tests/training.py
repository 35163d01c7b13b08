"""Train a module on labelled bags as the paper's experiments do, and score bags with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.bags.mil_unit_tests.calling import Call, Caller, Output
from offprint.methods.bags.ragged import RaggedBags
from offprint.models.evaluation import evaluating
from offprint.models.training import train

GRADIENT_BOUND = 5.0
WEIGHT_DECAY = 0.01


def score(
    model: nn.Module,
    bags: RaggedBags,
    *,
    call: Call = "auto",
    output: Output | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Float[Tensor, " bags"]:
    """Return a model's logit of each bag, in evaluation mode and in batches of bags of like size.

    Parameters
    ----------
    model : torch.nn.Module
        Its training mode is restored afterwards.
    bags : RaggedBags
        Rows of the length that the model takes.
    call : {"auto", "padded", "ragged", "list", "bag"}
        How the model is called.
    output : callable, optional
        Turns what the model returns into one logit per bag.
    batch_size : int
        Bags per batch.
    device : torch.device or str
        Where batches are moved; the logits come back to the CPU.

    Returns
    -------
    tensor, shape (bags,)

    Raises
    ------
    ValueError
        If the model returns another shape.

    Examples
    --------
    >>> class First(nn.Module):
    ...     def forward(self, rows, mask):
    ...         return rows[:, 0, 0]
    >>> score(First(), RaggedBags.from_list([torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0]])]))
    tensor([1., 5.])
    """
    caller = Caller(call, output)
    order = bags.sizes.argsort().cpu()
    with evaluating(model), torch.no_grad():
        parts = [caller(model, bags.take(chosen).to(device)).cpu() for chosen in torch.split(order, batch_size)]
    found = torch.cat(parts)
    return torch.empty_like(found).index_copy_(0, order, found)


@dataclass
class Fit:
    """A module's training: AdamW on the cross entropy of bags, gradients clamped entry by entry."""

    caller: Caller
    bags: RaggedBags
    labels: Int[Tensor, " bags"]
    n_epochs: int
    batch_size: int
    learning_rate: float
    source: torch.Generator

    def train(self, model: nn.Module, progress: Callable[[float, float, str], None] | None) -> None:
        trained = [item for item in model.parameters() if item.requires_grad]
        hooks = [item.register_hook(_bounded) for item in trained]  # type: ignore[no-untyped-call]
        if not hooks:
            return  # A model with nothing to learn is scored as it is.
        try:
            train(
                model,
                self.loss,
                torch.arange(self.bags.n_bags),
                n_epochs=self.n_epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                weight_decay=WEIGHT_DECAY,
                generator=self.source,
                device=self.bags.values.device,
                progress=progress,
            )
        finally:
            for hook in hooks:
                hook.remove()

    def loss(self, model: nn.Module, chosen: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        logits = self.caller(model, self.bags.take(chosen))
        return functional.binary_cross_entropy_with_logits(logits, self.labels[chosen].to(logits.dtype))


def _bounded(gradient: Tensor) -> Tensor:
    return gradient.nan_to_num(nan=0.0).clamp(-GRADIENT_BOUND, GRADIENT_BOUND)


def scaled(training: RaggedBags, testing: RaggedBags) -> tuple[RaggedBags, RaggedBags]:
    """Shift and scale every feature of both to mean 0 and variance 1 over the rows of the first."""
    mean, deviation = training.values.mean(0), training.values.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    first, second = (RaggedBags((bags.values - mean) / deviation, bags.offsets) for bags in (training, testing))
    return first, second
