"""How models are called: padded with a mask, ragged, as a list, one bag at a time, or fitted like an estimator."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, clone
from torch import Tensor, nn

from offprint.methods.bags.ragged import RaggedBags

Call = Literal["auto", "padded", "ragged", "list", "bag"]
CALLS = ("auto", "padded", "ragged", "list", "bag")
Output = Callable[[Any], Tensor]
AGREEMENT = 1e-5
"""Largest difference, relative to the scores' size, between a bag alone and in a batch."""


@dataclass(frozen=True)
class Caller:
    """Call a model on ragged bags the way it wants to be called, and check what it returns.

    Parameters
    ----------
    call : {"auto", "padded", "ragged", "list", "bag"}
        "padded" is ``model(rows, mask)`` with a mask that is True at rows, "ragged" ``model(RaggedBags)``, "list"
        ``model([rows, ...])``, "bag" ``model(rows)`` for one bag at a time. "auto" decides by the signature.
    output : callable, optional
        Turns what the model returns into one logit per bag. By default a tensor of shape (bags,) or (bags, 1), alone or
        first in a tuple.
    """

    call: Call = "auto"
    output: Output | None = None

    def __post_init__(self) -> None:
        if self.call not in CALLS:
            raise ValueError(f"call must be one of {', '.join(CALLS)}; got {self.call!r}")

    def resolved(self, model: Callable[..., Any]) -> Call:
        """Return the way this model is called."""
        return convention(model) if self.call == "auto" else self.call

    def __call__(self, model: Callable[..., Any], bags: RaggedBags) -> Float[Tensor, " bags"]:
        """Return one logit per bag."""
        call = self.resolved(model)
        if call == "bag":
            return torch.cat([self._read(model(bag), 1) for bag in bags])
        if call == "padded":
            rows, mask = bags.padded()
            name = _mask_name(model)
            found = model(rows, mask) if name is None else model(rows, **{name: mask})
        else:
            found = model(bags if call == "ragged" else list(bags))
        return self._read(found, bags.n_bags)

    def _read(self, found: Any, n_bags: int) -> Tensor:
        if self.output is not None:
            found = self.output(found)
        if isinstance(found, tuple | list) and found:
            found = found[0]
        if not isinstance(found, Tensor):
            raise TypeError(f"model must return a tensor of logits; got {type(found).__name__}")
        if tuple(found.shape) not in ((n_bags,), (n_bags, 1)) and not (n_bags == 1 and found.numel() == 1):
            raise ValueError(
                f"model must return one logit per bag, of shape ({n_bags},) or ({n_bags}, 1); got "
                f"{tuple(found.shape)}. With two logits give output=lambda found: found[:, 1] - found[:, 0]"
            )
        return found.reshape(n_bags)


def convention(model: Callable[..., Any]) -> Literal["padded", "ragged", "list", "bag"]:
    """Tell by its signature how a model is called.

    Parameters
    ----------
    model : callable
        A module, or a function.

    Returns
    -------
    {"padded", "ragged", "list", "bag"}
        Ragged or a list where the first argument is annotated so, else padded where there is an argument called
        something with "mask" or a second required one, else one bag at a time.

    Examples
    --------
    >>> convention(lambda rows, mask: rows), convention(lambda rows: rows)
    ('padded', 'bag')
    """
    parameters = _positional(model)
    first = str(parameters[0].annotation) if parameters else ""
    if "RaggedBags" in first:
        return "ragged"
    if "list" in first.lower() or "Sequence" in first:
        return "list"
    required = [parameter for parameter in parameters if parameter.default is inspect.Parameter.empty]
    return "padded" if _mask_name(model) is not None or len(required) > 1 else "bag"


def factory_of(model: Any, n_features: int) -> Callable[[], Any]:
    """Return a function that makes a fresh model: from a factory, from a module, or from an estimator.

    A factory is called with ``n_features``. A module is copied and its layers drawn anew; parameters of its own,
    outside any layer with ``reset_parameters``, keep their values. An estimator is cloned, or else copied.
    """
    if isinstance(model, nn.Module):
        return lambda: _redrawn(model)
    if is_estimator(model) and not inspect.isclass(model):
        return (lambda: clone(model)) if isinstance(model, BaseEstimator) else (lambda: copy.deepcopy(model))
    if not callable(model):
        raise TypeError(
            "model must be a function of n_features that returns a model, a torch.nn.Module, or an object with fit and "
            f"decision_function; got {type(model).__name__}"
        )
    return lambda: model(n_features)


def is_estimator(model: Any) -> bool:
    """Whether a model is fitted to a list of bags, as scikit-learn's are to rows."""
    return hasattr(model, "fit") and (hasattr(model, "decision_function") or hasattr(model, "predict_proba"))


def estimator_scores(model: Any, bags: RaggedBags) -> Float[Tensor, " bags"]:
    """Return the scores that a fitted estimator gives to bags: above 0 where it says positive."""
    rows = as_arrays(bags)
    if hasattr(model, "decision_function"):
        found = np.asarray(model.decision_function(rows))
    else:
        found = np.asarray(model.predict_proba(rows)) - 0.5
        found = found[:, 1] if found.ndim == 2 and found.shape[1] == 2 else found
    if found.shape not in ((bags.n_bags,), (bags.n_bags, 1)):
        raise ValueError(f"model must return one score per bag, of shape ({bags.n_bags},); got {found.shape}")
    return torch.as_tensor(found.reshape(-1), dtype=torch.float64)


def as_arrays(bags: RaggedBags) -> list[Float[np.ndarray, "_ features"]]:
    """Return the bags as a list of arrays."""
    return [bag.numpy() for bag in bags.to("cpu")]


def complaints(model: nn.Module, caller: Caller, bags: RaggedBags) -> list[str]:
    """Say what is wrong with how a model treats batches: padding, order of rows, outputs that are no logits."""
    found = []
    together = caller(model, bags)
    scale = float(together.abs().max().clamp(min=1.0))
    if caller.resolved(model) != "bag":
        alone = torch.cat([caller(model, RaggedBags.from_list([bag])) for bag in bags])
        if float((alone - together).abs().max()) > AGREEMENT * scale:
            found.append("a bag's logit depends on its batch: the model ignores the mask, which is True at rows")
    turned = caller(model, RaggedBags.from_list([bag.flip(0) for bag in bags]))
    if float((turned - together).abs().max()) > AGREEMENT * scale:
        found.append("a bag's logit depends on the order of its rows")
    far = caller(model, RaggedBags(100 * bags.values, bags.offsets))
    both = torch.cat([together, far])
    if bool(((both >= 0) & (both <= 1)).all()) and float(both.std()) > 0:
        found.append("every output lies in [0, 1]: if these are probabilities, return logits instead")
    return found


def _redrawn(model: nn.Module) -> nn.Module:
    fresh = copy.deepcopy(model)
    for module in fresh.modules():
        for name in ("reset_parameters", "_reset_parameters"):
            if callable(reset := getattr(module, name, None)):
                reset()
                break
    return fresh


def _positional(model: Callable[..., Any]) -> list[inspect.Parameter]:
    function = model.forward if isinstance(model, nn.Module) else model
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [item for item in inspect.signature(function).parameters.values() if item.kind in kinds]


def _mask_name(model: Callable[..., Any]) -> str | None:
    function = model.forward if isinstance(model, nn.Module) else model
    names = [name for name in list(inspect.signature(function).parameters)[1:] if "mask" in name.lower()]
    return names[0] if names else None
