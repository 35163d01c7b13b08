"""Train on certified bounds: an upper bound of the cross entropy, and how the radius grows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from offprint.methods.certify.lirpa.backward import Pulled, concretize, pull, unit_rows
from offprint.methods.certify.lirpa.bounds import METHODS, BoundedModule, Method, Perturbations, margin_spec
from offprint.methods.certify.lirpa.certificates import logits_of, without_own
from offprint.methods.certify.lirpa.forward import push_affine
from offprint.methods.certify.lirpa.graph import Node
from offprint.methods.certify.lirpa.intervals import Sharpener, push
from offprint.methods.certify.lirpa.operators.convex import exp_chord
from offprint.methods.certify.lirpa.problem import Problem, split_elements

_FUSED = ("ibp", "crown-ibp", "forward+crown", "crown")


def certified_loss(
    bounded: BoundedModule,
    x: Tensor | Sequence[Tensor],
    y: Shaped[Tensor, " samples"],
    perturbation: Perturbations,
    method: Method = "crown-ibp",
    loss_fusion: bool = True,
    *,
    mix: float = 1.0,
    reduction: Literal["mean", "none"] = "mean",
) -> Float[Tensor, "*samples"]:
    r"""Return an upper bound of the cross entropy of a classifier over all allowed perturbations.

    It has gradients, so that training on it makes the network certifiably robust; with perturbed parameters it finds
    minima that are certifiably flat.

    Parameters
    ----------
    bounded : BoundedModule
        A classifier: inputs to logits of shape (samples, classes).
    x : Tensor of shape (samples, ...), or sequence of them
        The centre.
    y : Tensor of int, shape (samples,)
        Labels in [0, classes).
    perturbation : Perturbation, or mapping of int or str to Perturbation
        Of inputs, parameters (see `perturb_parameters`) or both, as for `BoundedModule.compute_bounds`.
    method : str
        How margins are bounded, as for `BoundedModule.compute_bounds`. With ``loss_fusion`` one of "ibp", "crown-ibp",
        "forward+crown" and "crown".
    loss_fusion : bool
        Bound the sum of :math:`e^{z_k - z_y}` over the classes with a single row of coefficients, rather than every
        margin with a row of its own. It costs the same for any number of classes and is somewhat looser.
    mix : float
        Part of ``method`` in [0, 1]; the rest is "ibp". Going from 1 to 0 while the radius grows, as `EpsSchedule.mix`
        does, is CROWN-IBP training.
    reduction : {"mean", "none"}
        The mean over samples, or one number for each.

    Returns
    -------
    Tensor, shape () or (samples,)

    Raises
    ------
    ValueError, TypeError
        If an argument is none of these or does not fit, is not finite, or the bounds overflow.
    UnsupportedOperatorError
        If a perturbation reaches an operator that is not known.

    Notes
    -----
    Without fusion: lower bounds :math:`m_k` of :math:`z_y - z_k` give :math:`\log(1 + \sum_k e^{-m_k})`.

    With fusion: intervals :math:`[l_k, u_k]` of :math:`z_k - z_y` come from the intervals in front of the last affine
    layer; above each exponential lies its chord there. The sum of the chords is linear in the logits, one row that is
    pulled back through the network, and its maximum is the bound of the sum. All is scaled by :math:`e^{-c}` with the
    constant :math:`c = \max_k u_k`, so that nothing overflows.

    With "ibp" both are the same and cost about four forward passes. "crown-ibp" adds one backward pass with fusion, and
    without it one for each class but one.

    Examples
    --------
    >>> import torch
    >>> from offprint.methods.certify.lirpa.perturbations import LpBall
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    >>> loss = certified_loss(BoundedModule(model, x), x, y, LpBall(float("inf"), 0.1))
    >>> loss.backward()
    >>> bool(loss > torch.nn.functional.cross_entropy(model(x), y))
    True

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920,
    sections 3.4 (loss fusion) and 4.3 (perturbed weights).
    Huan Zhang et al., Towards Stable and Efficient Training of Verifiably Robust Neural Networks, arXiv:1906.06316,
    section 3 (the mix of CROWN-IBP and IBP).
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction: expected 'mean' or 'none', got {reduction!r}")
    if not 0 <= mix <= 1:
        raise ValueError(f"mix: expected a number in [0, 1], got {mix}")
    if loss_fusion and method not in _FUSED:
        raise ValueError(f"method: with loss_fusion expected one of {_FUSED}, got {method!r}")
    if not all(bool(torch.isfinite(one).all()) for one in ((x,) if isinstance(x, Tensor) else x)):
        raise ValueError("x: expected finite numbers, got nan or inf")
    if mix == 0:
        method = "ibp"
    problem = bounded.problem(x, perturbation)
    target = logits_of(problem, y)
    if target not in problem.perturbed:
        losses = functional.cross_entropy(problem.value(target), y, reduction="none")
    elif loss_fusion or method == "ibp":
        losses = _fused(problem, target, y, method, mix)
    else:
        margins = _margins(bounded, x, y, perturbation, method, target.shape[1])
        if mix < 1:
            margins = mix * margins - (1 - mix) * without_own(_differences(problem, target, y)[1], y)
        losses = functional.softplus(torch.logsumexp(-margins, 1))
    return losses.mean() if reduction == "mean" else losses


def _margins(
    bounded: BoundedModule,
    x: Tensor | Sequence[Tensor],
    y: Tensor,
    perturbation: Perturbations,
    method: Method,
    n_classes: int,
) -> Tensor:
    rows = margin_spec(y, n_classes)
    margins = bounded.compute_bounds(x, perturbation, method, C=rows, upper=False).lower
    assert margins is not None
    return margins


def _fused(problem: Problem, target: Node, y: Tensor, method: str, mix: float) -> Tensor:
    """Return upper bounds of ``log sum_k exp(z_k - z_y)``, of shape (samples,)."""
    if method == "crown":
        push(problem, target, Sharpener(), skip_last=True)
    elif method == "forward+crown":
        push_affine(problem, [target])
    lower, upper = _differences(problem, target, y)
    shift = upper.detach().amax(1, keepdim=True)
    by_intervals = (upper - shift).exp().sum(1)
    if method == "ibp":
        return by_intervals.log() + shift[:, 0]
    slope = exp_chord(lower - shift, upper - shift)
    # The label's own difference is 0, which its slope times (z_y - z_y) gets right by itself.
    row = slope.scatter_add(1, y.unsqueeze(1), -slope.sum(1, keepdim=True))
    pulled = pull(problem, target, row.unsqueeze(0), (True,))
    constant = ((upper - shift).exp() - slope * upper).sum(1)
    fused = concretize(problem, pulled, (True,))[0][0] + constant
    # The label contributes exp(0); only rounding can bring the bound below it.
    fused = torch.maximum(fused, (-shift[:, 0]).exp().clamp(min=torch.finfo(shift.dtype).tiny))
    return (mix * fused + (1 - mix) * by_intervals).log() + shift[:, 0]


def _differences(problem: Problem, target: Node, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return intervals of ``z_k - z_y``, of shape (samples, classes), from those in front of the last affine layer.

    Rows of the logits are pulled back once for all samples and subtracted there.
    """
    like = cast(Tensor, problem.value(target)).detach()
    pulled = pull(problem, target, unit_rows(problem, target, like), (False,), until_nonlinear=True)
    index = torch.arange(problem.n_samples, device=y.device)

    def minus_own(rows: Tensor) -> Tensor:
        """From (classes, samples, ...) to (samples, classes, ...)."""
        by_sample = rows.transpose(0, 1)
        return by_sample - by_sample[index, y].unsqueeze(1)

    low = high = minus_own(pulled.constant[0])
    for node, (matrix,) in pulled.coefficients.items():
        rows = minus_own(_per_sample(problem, node, matrix))
        if node in problem.perturbations:
            shape = problem.value(node).shape[1:] if problem.sampled(node) else node.shape
            ours = rows.transpose(0, 1).reshape(rows.shape[1], rows.shape[0], *shape)
            both = Pulled({node: ours.expand(2, *ours.shape)}, rows.new_zeros(2, 1, 1))
            least, most = (end.T for end in concretize(problem, both, (False, True)))
        else:
            push(problem, node)
            ends = [split_elements(end.unsqueeze(0), problem.layouts[node])[0] for end in problem.intervals[node]]
            middle, radius = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
            value, reach = (
                (part @ one.expand(len(part), -1).unsqueeze(-1)).squeeze(-1)
                for part, one in ((rows, middle), (rows.abs(), radius))
            )
            least, most = value - reach, value + reach
        low, high = low + least, high + most
    if not bool(torch.isfinite(high).all()):
        raise ValueError("perturbation: the bounds overflow; it is too large for this network")
    return low, torch.maximum(low, high)


def _per_sample(problem: Problem, node: Node, matrix: Tensor) -> Tensor:
    """Return coefficients of a node as (rows, samples, elements of one sample)."""
    if problem.layouts[node] is None:
        return matrix.reshape(-1, problem.n_samples, node.shape.numel())
    return split_elements(matrix, problem.layouts[node])


@dataclass(frozen=True)
class EpsSchedule:
    r"""A radius that grows from 0 during training.

    Parameters
    ----------
    eps : float
        The last radius, at least 0.
    start : int
        Up to this step (or epoch, as you count) the radius is 0.
    length : int
        Over how many steps it grows, at least 1.
    kind : {"linear", "smoothed"}
        "linear" grows evenly. "smoothed" begins like a power of the step and goes on evenly, without a kink.
    mid : float
        Of "smoothed": the part of ``length`` after which it is linear, in (0, 1].
    power : float
        Of "smoothed": how slowly it begins, at least 1.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Notes
    -----
    With :math:`t` the part of ``length`` that is over and :math:`m` the ``mid``, "smoothed" is :math:`a t^p` up to
    :math:`m` and :math:`a m^p + a p m^{p-1} (t - m)` after it, where :math:`a` makes it 1 at the end.

    Examples
    --------
    >>> schedule = EpsSchedule(0.3, start=10, length=100)
    >>> [round(schedule(step), 3) for step in (0, 10, 60, 110, 1000)]
    [0.0, 0.0, 0.15, 0.3, 0.3]
    >>> round(schedule.mix(60), 3)
    0.5

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920,
    appendix on training (schedules of eps).
    """

    eps: float
    start: int = 0
    length: int = 1
    kind: Literal["linear", "smoothed"] = "linear"
    mid: float = 0.25
    power: float = 4.0

    def __post_init__(self) -> None:
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise ValueError(f"eps: expected a finite number of at least 0, got {self.eps}")
        if self.start < 0 or self.length < 1:
            raise ValueError(f"start, length: expected at least 0 and at least 1, got {self.start}, {self.length}")
        if self.kind not in ("linear", "smoothed"):
            raise ValueError(f"kind: expected 'linear' or 'smoothed', got {self.kind!r}")
        if not 0 < self.mid <= 1:
            raise ValueError(f"mid: expected a number in (0, 1], got {self.mid}")
        if not (self.power >= 1 and math.isfinite(self.power)):
            raise ValueError(f"power: expected a finite number of at least 1, got {self.power}")

    def __call__(self, step: float) -> float:
        """Return the radius at a step."""
        t = min(1.0, max(0.0, (step - self.start) / self.length))
        if self.kind == "smoothed":
            p, m = self.power, self.mid
            scale = m ** (p - 1) * (m + p * (1 - m))
            t = (t**p if t < m else m**p + p * m ** (p - 1) * (t - m)) / scale
        return self.eps * t

    def mix(self, step: float) -> float:
        """Return what is left of the way to the last radius, in [0, 1]: the part of CROWN-IBP in CROWN-IBP training."""
        return 1 - self(step) / self.eps if self.eps > 0 else 1.0
