"""The loss that rewards attention entropy, and the hook that adds it to a model of the user's own."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from offprint.methods.bags.aem.entropy import EntropyPenalty, Kind, Schedule
from offprint.methods.bags.aem.output import MILOutput


@dataclass(frozen=True, eq=False)
class LossTerms:
    """What the last loss consisted of.

    Parameters
    ----------
    ce : tensor, shape ()
        Classification, with all that the framework adds to it.
    neg_entropy : tensor, shape (), or None
        The mean over rows; ``None`` for a model without attention.
    weight : float
        λ at that epoch; of weights by class their mean over the bags.
    penalty : tensor, shape (), or None
        The loss is ``ce + penalty``, which is ``weight * neg_entropy`` for one weight; ``None`` without attention.
    """

    ce: Float[Tensor, ""]
    neg_entropy: Float[Tensor, ""] | None
    weight: float
    penalty: Float[Tensor, ""] | None = None


class AEMLoss(nn.Module):
    """Classification loss plus the annealed, weighted negative entropy of attention.

    Takes what the models of this package return, or a pair of logits and attention logits of a model of one's own.

    Parameters
    ----------
    base : callable, optional
        From logits of shape (rows, classes) and classes of shape (rows,) to a scalar; by default cross entropy.
    weight : float, sequence of float, or mapping of int to float
        λ at epoch 0, at least 0. Choose it on validation data: where evidence sits in very few instances, a large one
        hurts. A sequence, or a mapping with every class, gives the λ of bags by their class: for example none for
        slides with tumour, whose evidence is rare, and some for normal ones, where any tissue is evidence.
    weight_end : float
        λ at the end of annealing, at least 0, of every class.
    schedule : {"cosine", "constant"}
        How the weight goes from one to the other.
    total_epochs : int
        Epochs of training, at least 1.
    normalize : bool
        Divide entropy by the logarithm of the number of instances, so that a weight means the same for bags of any
        size.
    floor : float, optional
        Reward entropy up to this only, in nats or, normalised, in [0, 1]; by default without end.
    kind : {"entropy", "kl"}
        "kl" penalises KL(uniform ‖ attention) instead, a baseline of the paper.
    allow_negative : bool
        Accept negative weights, which sharpen attention.

    Attributes
    ----------
    terms : LossTerms or None
        Of the last call.

    Raises
    ------
    ValueError
        If a number is out of range, or a choice unknown; on a call, if the model has no attention, its attention is
        given as probabilities or in another shape, numbers of bags and targets differ, or weights are not those of the
        model's classes.
    TypeError
        On a call, if the output is neither a ``MILOutput`` nor a pair.

    Notes
    -----
    Of several rows of attention (heads, classes, branches) the mean counts; of several stages (DTFD-MIL) their sum.
    With weights by class each row is multiplied by that of its bag, and the mean is over all rows as before. A weight
    of 0 adds nothing, so that training is exactly that without the term. O(instances · rows).

    Examples
    --------
    >>> from offprint.methods.bags.aem import GatedABMIL
    >>> loss = AEMLoss(weight=0.1, total_epochs=50)
    >>> model, bag = GatedABMIL(16, 2, generator=0), torch.ones(100, 16)
    >>> value = loss(model(bag), torch.tensor([1]), epoch=10)
    >>> round(loss.terms.weight, 4), round(loss.terms.neg_entropy.item(), 4)  # all instances alike: -ln 100
    (0.0905, -4.6052)

    References
    ----------
    Zhang et al., *AEM: Attention Entropy Maximization for Multiple Instance Learning based Whole Slide Image
    Classification*, arXiv:2406.15303, equations 2 and 3.
    """

    def __init__(
        self,
        base: Callable[[Tensor, Tensor], Tensor] | None = None,
        weight: float | Sequence[float] | Mapping[int, float] = 0.1,
        weight_end: float = 0.0,
        schedule: Schedule = "cosine",
        total_epochs: int = 50,
        normalize: bool = False,
        *,
        floor: float | None = None,
        kind: Kind = "entropy",
        allow_negative: bool = False,
    ) -> None:
        super().__init__()
        self.base = nn.CrossEntropyLoss() if base is None else base
        shared = (weight_end, schedule, total_epochs, normalize, floor, kind, allow_negative)
        self.penalties = tuple(EntropyPenalty(one, *shared) for one in _in_order(weight))
        self.by_class = isinstance(weight, Sequence | Mapping)
        self.terms: LossTerms | None = None

    def forward(
        self,
        output: MILOutput | tuple[Float[Tensor, "bags classes"], Float[Tensor, "bags rows n"]],
        target: Int[Tensor, " bags"],
        epoch: float = 0,
    ) -> Float[Tensor, ""]:
        """Return the loss of a batch of bags.

        Parameters
        ----------
        output : MILOutput, or pair of tensors
            The pair is logits of shape (bags, classes) and attention logits of shape (bags, rows, n), -inf at padding.
        target : int64 tensor, shape (bags,)
            Classes.
        epoch : float
            From 0, for the weight.
        """
        output = _as_output(output)
        if target.shape != output.logits.shape[:1]:
            raise ValueError(f"target must hold one class per bag, {len(output.logits)}; got {tuple(target.shape)}")
        ce = output.classification_loss(self.base, target)
        weights = self._weights(output.logits, target, epoch)
        used = any(weight != 0 for weight in weights)
        with torch.set_grad_enabled(torch.is_grad_enabled() and used):
            neg_entropy, penalty = self._entropy_terms(output, weights)
        if neg_entropy is None and used:
            raise ValueError("output has no attention logits, whose entropy the weight could count; use weight=0")
        known = [None if term is None else term.detach() for term in (neg_entropy, penalty)]
        self.terms = LossTerms(ce.detach(), known[0], sum(weights) / len(weights), known[1])
        return ce + penalty if used and penalty is not None else ce

    def _weights(self, logits: Tensor, target: Tensor, epoch: float) -> list[float]:
        """Return λ at an epoch: one number, or where it goes by class one for each bag."""
        weights = [penalty.weight_at(epoch) for penalty in self.penalties]
        if not self.by_class:
            return weights
        if len(weights) != logits.shape[1]:
            raise ValueError(
                f"weight must hold one number for each of the model's {logits.shape[1]} classes; got {len(weights)}"
            )
        return [weights[label] for label in target.tolist()]

    def _entropy_terms(self, output: MILOutput, weights: Sequence[float]) -> tuple[Tensor | None, Tensor | None]:
        """Return the negative entropy, and what of it the loss counts: means over rows, added up over stages."""
        if output.attention_logits is None:
            return None, None
        first = self.terms is None
        total = counted = torch.zeros((), device=output.attention_logits.device)
        for number, stage in enumerate((output.attention_logits, *output.stages)):
            values, present = self.penalties[0].of_rows(stage, may_be_probabilities=first and number == 0)
            n_present = present.sum().clamp(min=1)
            total = total + values[present].sum() / n_present
            if self.by_class:
                by_row = torch.tensor(weights, dtype=values.dtype, device=values.device)[:, None]
                counted = counted + (by_row * values)[present].sum() / n_present
        return total, counted if self.by_class else weights[0] * total


class AEMRegularizer:
    """Reward the attention entropy of any attention model of one's own, by a hook on the layer that yields its logits.

    Made by :meth:`attach`. Call it once per step, after the forward pass or passes, and add the result to the loss.

    Parameters
    ----------
    penalty : EntropyPenalty
        How strongly, and when.
    dim : int, optional
        The dimension of the attention logits along which instances lie.
    select : callable, optional
        From the layer's output to the attention logits.

    Attributes
    ----------
    entropy : tensor, shape (), or None
        The negative of the penalty at the last call: the mean entropy, unless ``kind`` or ``floor`` is set.

    Raises
    ------
    ValueError
        If a setting is out of range, there is no such layer, its output is no attention logits or holds probabilities,
        or the dimension of instances is needed and not given.
    TypeError
        If the module is none, or the layer returns no tensor and ``select`` is not given.
    RuntimeError
        On a call, if the layer has not run in training since the last one.

    Notes
    -----
    The model is not changed, and costs nothing in evaluation: outputs are kept only in training mode with gradients
    enabled, from one call to the next.

    Examples
    --------
    >>> class Mine(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.score, self.head = nn.Linear(16, 1), nn.Linear(16, 2)
    ...
    ...     def forward(self, bag):
    ...         return self.head(self.score(bag).softmax(0).T @ bag)
    >>> _ = torch.manual_seed(0)
    >>> model, bag, label = Mine(), torch.ones(100, 16), torch.tensor([1])
    >>> with AEMRegularizer.attach(model, "score", weight=0.1, total_epochs=50) as entropy_term:
    ...     loss = nn.functional.cross_entropy(model(bag), label) + entropy_term(epoch=10)
    >>> round(entropy_term.entropy.item(), 4)  # all instances alike: ln 100
    4.6052

    References
    ----------
    Zhang et al., *AEM: Attention Entropy Maximization for Multiple Instance Learning based Whole Slide Image
    Classification*, arXiv:2406.15303, equations 2 and 3.
    """

    def __init__(
        self, penalty: EntropyPenalty, dim: int | None = None, select: Callable[[Any], Tensor] | None = None
    ) -> None:
        self.penalty = penalty
        self.entropy: Tensor | None = None
        self._dim = dim
        self._select = select
        self._seen: list[Tensor] = []
        self._handle: RemovableHandle | None = None

    @classmethod
    def attach(
        cls,
        module: nn.Module,
        name: str,
        *,
        dim: int | None = None,
        select: Callable[[Any], Tensor] | None = None,
        **settings: Any,
    ) -> AEMRegularizer:
        """Hook onto the layer of a model that yields attention logits.

        Parameters
        ----------
        module : torch.nn.Module
            The model.
        name : str
            The layer, as in ``module.named_modules()``; "" is the model itself, with ``select``.
        dim : int, optional
            The dimension of the logits along which instances lie. By default the other one where one of the last two
            has size 1, as in (n, 1), (batch, n, 1) or (batch, heads, 1, n).
        select : callable, optional
            From the layer's output to the attention logits, where it is no tensor or some of it.
        **settings
            ``weight``, ``schedule``, ``total_epochs`` and the other parameters of :class:`EntropyPenalty`.
        """
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module; got {type(module).__name__}")
        layers = dict(module.named_modules())
        if name not in layers:
            near = difflib.get_close_matches(name, layers, n=5, cutoff=0.3) or list(layers)[1:6]
            raise ValueError(f"name must be a layer of the module, such as {', '.join(near)}; got {name!r}")
        made = cls(EntropyPenalty(**settings), dim, select)
        made._handle = layers[name].register_forward_hook(made._keep)
        return made

    def __call__(self, epoch: float = 0, mask: Bool[Tensor, "..."] | None = None) -> Float[Tensor, ""]:
        """Return the weighted negative entropy of the forward passes since the last call, their mean.

        Parameters
        ----------
        epoch : float
            From 0, for the weight.
        mask : bool tensor, optional
            True at real instances of a padded batch, of shape (batch, n).
        """
        weight = self.penalty.weight_at(epoch)
        if not self._seen:
            raise RuntimeError("the layer has not run in training mode, with gradients enabled, since the last call")
        if mask is not None and len(self._seen) > 1:
            raise ValueError(f"mask must be of a single forward pass; there were {len(self._seen)} since the last call")
        first = self.entropy is None
        seen, self._seen = self._seen, []
        with torch.set_grad_enabled(weight != 0):
            terms = [self.penalty(logits, mask, self._along(logits), may_be_probabilities=first) for logits in seen]
            neg_entropy = torch.stack(terms).mean()
        self.entropy = -neg_entropy.detach()
        return torch.zeros_like(neg_entropy) if weight == 0 else weight * neg_entropy

    def detach(self) -> None:
        """Take the hook off the model."""
        if self._handle is not None:
            self._handle.remove()
        self._seen = []

    def __enter__(self) -> AEMRegularizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def _keep(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        if not (layer.training and torch.is_grad_enabled()):
            return
        found = output if self._select is None else self._select(output)
        if not isinstance(found, Tensor):
            raise TypeError(
                f"the layer must return attention logits, a tensor; got {type(found).__name__}. Give select, for "
                "example select=lambda output: output[1]"
            )
        self._seen.append(found)

    def _along(self, logits: Tensor) -> int:
        if self._dim is not None:
            return self._dim
        if logits.ndim < 2 or logits.shape[-2] == 1:
            return -1
        if logits.shape[-1] == 1:
            return -2
        raise ValueError(
            f"dim must say along which dimension of {tuple(logits.shape)} instances lie: -2 for (n, heads), -1 for "
            "(heads, n)"
        )


def _as_output(output: Any) -> MILOutput:
    """Return what a model of one's own gave in the form of ours; refuse what is not of one shape or the other."""
    if isinstance(output, tuple) and len(output) == 2:
        output = MILOutput(*output)
    if not isinstance(output, MILOutput):
        given = f"a tuple of {len(output)}" if isinstance(output, tuple) else type(output).__name__
        raise TypeError(f"output must be a MILOutput, or a pair of logits and attention logits; got {given}")
    for logits in (output.attention_logits, *output.stages):
        if logits is not None and (logits.ndim != 3 or len(logits) != len(output.logits)):
            raise ValueError(
                f"output must have attention logits of shape ({len(output.logits)}, rows, n), one row of attention or "
                f"more per bag; got {tuple(logits.shape)}"
            )
    return output


def _in_order(weight: float | Sequence[float] | Mapping[int, float]) -> tuple[float, ...]:
    """Return one weight, or those of classes from 0."""
    if isinstance(weight, Mapping):
        if sorted(weight) != list(range(len(weight))) or not weight:
            raise ValueError(f"weight must hold every class from 0 on; got {sorted(weight)}")
        return tuple(weight[label] for label in range(len(weight)))
    if isinstance(weight, Sequence):
        if isinstance(weight, str) or len(weight) == 0:
            raise ValueError(f"weight must hold one number per class; got {weight!r}")
        return tuple(weight)
    return (weight,)
