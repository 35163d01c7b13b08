"""Which inputs of a classifier are certified."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from offprint.methods.certify.lirpa.bounds import METHODS, BoundedModule, Method, margin_spec
from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.perturbations import LpBall
from offprint.methods.certify.lirpa.problem import Problem

_CHEAPER: Mapping[str, tuple[Method, ...]] = {
    "ibp": (),
    "forward": ("ibp",),
    "forward+crown": ("ibp",),
    "crown-ibp": ("ibp",),
    "crown": ("ibp", "crown-ibp"),
    "alpha-crown": ("ibp", "crown-ibp", "crown"),
}


@dataclass(frozen=True)
class Certificates:
    """What `certify` found for each sample.

    Parameters
    ----------
    verified : Tensor of bool, shape (samples,)
        Whether no allowed perturbation changes the class from the label. ``False`` says nothing but that no proof was
        found.
    margins : Tensor, shape (samples, classes - 1)
        Lower bounds of the margins over every other class, in the order of `margin_spec`.
    correct : Tensor of bool, shape (samples,)
        Whether the class is right without perturbation.
    method : tuple of str
        For each sample the last method that was tried on it.
    """

    verified: Bool[Tensor, " samples"]
    margins: Float[Tensor, "samples margins"]
    correct: Bool[Tensor, " samples"]
    method: tuple[str, ...]


@torch.no_grad()
def certify(
    model: nn.Module | BoundedModule,
    X: Shaped[Tensor, "samples ..."],
    y: Shaped[Tensor, " samples"],
    eps: float | Tensor,
    norm: float = math.inf,
    method: Method = "crown",
    *,
    x_L: float | Tensor | None = None,
    x_U: float | Tensor | None = None,
    early_stop: bool = True,
    batch_size: int = 64,
    steps: int = 20,
    progress: Callable[[float, float, str], None] | None = None,
) -> Certificates:
    """Say for which inputs a classifier is proven to keep the right class under every perturbation.

    Parameters
    ----------
    model : torch.nn.Module or BoundedModule
        A classifier: inputs to logits of shape (samples, classes). A module is put in evaluation mode meanwhile.
    X : Tensor, shape (samples, ...)
        Float32 or float64, finite.
    y : Tensor of int, shape (samples,)
        Labels in [0, classes).
    eps : float or Tensor of shape (samples,)
        Radius, at least 0.
    norm : float
        Of the ball, at least 1; ``math.inf`` for the largest change of an element.
    method : str
        How margins are bounded, as for `BoundedModule.compute_bounds`.
    x_L, x_U : float or Tensor, optional
        The least and the greatest value that an element of one input may take anyway, such as 0 and 1 for pixels.
    early_stop : bool
        Try cheaper methods first, and dearer ones only on the samples that are right but not verified yet. Without it
        every margin is bounded by ``method`` alone.
    batch_size : int
        Samples at once, at least 1.
    steps : int
        Of "alpha-crown": steps of the optimisation.
    progress : callable, optional
        Called as ``progress(done, total, label)`` after each batch.

    Returns
    -------
    Certificates

    Raises
    ------
    ValueError, TypeError
        If an argument is none of these or does not fit, is not finite, or an operator's domain is left.
    UnsupportedOperatorError
        If the model has an operator that is not known.

    Notes
    -----
    Bounds are sound but not exact: what is not verified may still be robust. They are computed in the precision of
    ``X`` and, in float32, hold up to its rounding. Time is that of the bounds; see `BoundedModule`. Margins that
    cheaper methods have found already are kept, so a dearer method never verifies fewer with ``early_stop``.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> found = certify(model, torch.tensor([[1.0, 0.0], [0.3, 0.2]]), torch.tensor([0, 0]), eps=0.2)
    >>> found.verified.tolist(), [round(value, 2) for value in found.margins[:, 0].tolist()]
    ([True, False], [0.6, -0.3])

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920,
    section 4.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if not isinstance(X, Tensor) or not X.is_floating_point():
        raise TypeError(f"X: expected float32 or float64, got {X.dtype if isinstance(X, Tensor) else type(X).__name__}")
    if X.ndim < 1 or len(X) == 0:
        raise ValueError(f"X: expected at least one sample, got shape {tuple(X.shape)}")
    if not bool(torch.isfinite(X).all()):
        raise ValueError("X: expected finite numbers, got nan or inf")
    # A plain number must not be rounded to float32 on the way: it could come out smaller.
    radius = eps.to(X) if isinstance(eps, Tensor) else torch.as_tensor(eps, dtype=X.dtype, device=X.device)
    if tuple(radius.shape) not in ((), (len(X),)):
        raise ValueError(f"eps: expected a number or shape ({len(X)},), got shape {tuple(radius.shape)}")
    if isinstance(y, Tensor) and tuple(y.shape) != (len(X),):
        raise ValueError(f"y: expected shape ({len(X)},), got {tuple(y.shape)}")
    radius = radius.expand(len(X))
    module = model.model if isinstance(model, BoundedModule) else model
    modes = [] if module is None else [(one, one.training) for one in module.modules()]
    if module is not None:
        module.eval()
    try:
        bounded = model if isinstance(model, BoundedModule) else BoundedModule(model, X[:batch_size])
        parts = []
        for start in range(0, len(X), batch_size):
            part = slice(start, start + batch_size)
            region = _Region(X[part], radius[part], norm, x_L, x_U)
            parts.append(_certify_batch(bounded, region, y[part], method, early_stop, steps))
            if progress is not None:
                progress(min(part.stop, len(X)), len(X), f"certifying by {method}")
    finally:
        for one, mode in modes:
            one.training = mode
    return Certificates(
        torch.cat([part.verified for part in parts]),
        torch.cat([part.margins for part in parts]),
        torch.cat([part.correct for part in parts]),
        tuple(name for part in parts for name in part.method),
    )


@dataclass(frozen=True)
class _Region:
    """Inputs with the ball around each, from which some can be taken."""

    x: Tensor
    radius: Tensor
    norm: float
    x_L: float | Tensor | None
    x_U: float | Tensor | None

    def take(self, index: Tensor) -> _Region:
        return _Region(self.x[index], self.radius[index], self.norm, self.x_L, self.x_U)

    @property
    def ball(self) -> LpBall:
        return LpBall(self.norm, self.radius, self.x_L, self.x_U)


def _certify_batch(
    bounded: BoundedModule, region: _Region, y: Tensor, method: Method, early_stop: bool, steps: int
) -> Certificates:
    problem = bounded.problem(region.x, region.ball)
    logits = cast(Tensor, problem.value(logits_of(problem, y)))
    n_classes = logits.shape[1]
    correct = without_own(logits.gather(1, y.unsqueeze(1)) - logits, y).amin(1) > 0
    if not early_stop:
        margins = _bounded_margins(bounded, region, y, method, n_classes, steps)
        verified = correct & (margins.amin(1) > 0)
        return Certificates(verified, margins, correct, (method,) * len(y))
    margins = logits.new_full((len(y), n_classes - 1), -math.inf)
    tried: list[str] = [method] * len(y)
    left = torch.arange(len(y), device=y.device)
    for stage in (*_CHEAPER[method], method):
        # Every number of samples is captured once: rounded up to a power of two there are only a few.
        size = min(len(y), 1 << (len(left) - 1).bit_length())
        padded = torch.cat([left, left[:1].expand(size - len(left))])
        found = _bounded_margins(bounded, region.take(padded), y[padded], stage, n_classes, steps)[: len(left)]
        margins[left] = torch.maximum(margins[left], found)
        for i in left.tolist():
            tried[i] = stage
        left = (correct & (margins.amin(1) <= 0)).nonzero()[:, 0]
        if len(left) == 0:
            break
    return Certificates(correct & (margins.amin(1) > 0), margins, correct, tuple(tried))


def _bounded_margins(
    bounded: BoundedModule, region: _Region, y: Tensor, method: Method, n_classes: int, steps: int
) -> Tensor:
    rows = margin_spec(y, n_classes)
    margins = bounded.compute_bounds(region.x, region.ball, method, C=rows, upper=False, steps=steps).lower
    assert margins is not None
    return margins


def logits_of(problem: Problem, y: Tensor) -> Node:
    """Return the node of the logits of a classifier, after a look at their shape and at the labels."""
    target = problem.graph.outputs[0]
    shape = tuple(target.shape)
    if not problem.batched or len(shape) != 2 or shape[0] != problem.n_samples or shape[1] < 2:
        raise ValueError(f"bounded: expected logits of shape (samples, classes), at least 2 classes, got {shape}")
    _check_labels(y, problem.n_samples, shape[1])
    return target


def _check_labels(y: Tensor, n_samples: int, n_classes: int) -> None:
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"y: expected whole numbers, got {y.dtype if isinstance(y, Tensor) else type(y).__name__}")
    if tuple(y.shape) != (n_samples,):
        raise ValueError(f"y: expected shape ({n_samples},), got {tuple(y.shape)}")
    if bool((y < 0).any()) or bool((y >= n_classes).any()):
        raise ValueError(f"y: expected labels in [0, {n_classes}), got {int(y.min())} to {int(y.max())}")


def without_own(values: Tensor, y: Tensor) -> Tensor:
    """Leave out the column of the label of each row: from (samples, classes) to the columns of `margin_spec`."""
    others = torch.arange(values.shape[1], device=y.device) != y.unsqueeze(1)
    return values[others].reshape(len(y), -1)
