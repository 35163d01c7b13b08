"""Local Lipschitz constants and bounds on the Jacobian of any network."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.methods.certify.lipschitz.branch import BranchAndBound, Branching, Trace
from offprint.methods.certify.lipschitz.certificate import Certificate
from offprint.methods.certify.lipschitz.global_bound import product_of_norms
from offprint.methods.certify.lipschitz.jacobian import Relaxing, activation_inputs, differentiate, find_intervals
from offprint.methods.certify.lipschitz.region import (
    Radius,
    check_inputs,
    check_model,
    draw,
    make_region,
    make_rows,
    one_sample,
)
from offprint.methods.certify.lirpa.bounds import BoundedModule
from offprint.methods.certify.lirpa.intervals import Sharpen, Sharpener
from offprint.methods.certify.lirpa.operators.base import Interval
from offprint.methods.certify.lirpa.optimise import Schedule
from offprint.methods.certify.lirpa.perturbations import Box, LpBall
from offprint.methods.certify.lirpa.problem import Problem

Method = Literal["bound-propagation", "recurjac", "ibp", "global"]
Forward = Literal["alpha-crown", "crown", "ibp"]
POINTS_AT_ONCE = 256
RELAXING: dict[str, Relaxing] = {"bound-propagation": "hull", "recurjac": "constants", "ibp": "intervals"}


@dataclass(frozen=True)
class LipschitzResult:
    """Certified bounds on how fast a network changes around each sample.

    Parameters
    ----------
    upper : Tensor, shape (batch,)
        No two points of the region have outputs further apart than this times their distance, in the norm that was
        asked for.
    per_output : Tensor, shape (batch, rows)
        The same for each row of ``C`` (each output) alone.
    lower_sampled : Tensor, shape (batch,)
        The largest norm of a sampled Jacobian: the constant is at least this.
    jacobian_lower, jacobian_upper : Tensor, shape (batch, rows, *input)
        Bounds of every entry of the Jacobian over the region.
    method : str
        How the bound was found.
    norm : float
        Of the region and of the constant. With 2, ``upper`` is the root of the sum of the rows' squares, an upper bound
        of the spectral norm and not the constant's own size even where every row is exact.
    trace : tuple of Trace
        One for each sample where branch and bound was asked for.
    certificate : Certificate or None
        Everything the bound rests on, to be checked again; of the bound before branching. ``None`` for "global".
    """

    upper: Float[Tensor, " batch"]
    per_output: Float[Tensor, "batch rows"]
    lower_sampled: Float[Tensor, " batch"]
    jacobian_lower: Float[Tensor, "batch rows *input"]
    jacobian_upper: Float[Tensor, "batch rows *input"]
    method: str
    norm: float
    trace: tuple[Trace, ...] = ()
    certificate: Certificate | None = field(default=None, repr=False, compare=False)


def local_lipschitz(
    model: nn.Module | BoundedModule,
    x: Float[Tensor, "batch *input"],
    eps: Radius,
    norm: float = math.inf,
    C: Float[Tensor, "..."] | None = None,
    method: Method = "bound-propagation",
    forward: Forward = "alpha-crown",
    clip: tuple[float, float] | None = None,
    bab: BranchAndBound | None = None,
    *,
    n_points: int = 64,
    generator: torch.Generator | None = None,
    memory: int = 2**30,
) -> LipschitzResult:
    r"""Bound the local Lipschitz constant of a network around each sample, with a proof.

    On a region :math:`X` around a sample, :math:`\|f(x) - f(y)\|_\infty \le L \|x - y\|_\infty` with
    :math:`L = \sup \|J\|_\infty` over all :math:`x \in X` and all :math:`J` in the Clarke Jacobian at x: the largest
    sum of sizes in a row. The network's pre-activations are bounded first, which bounds the slopes of its activations;
    the chain rule is then a graph of its own, whose output is bounded by linear relaxation as that of a network is. Use
    it for certified radii (with margins as ``C``), smoothness checks, and as a regulariser: with ``forward="crown"`` or
    ``"ibp"`` the bound can be differentiated with respect to the weights.

    Parameters
    ----------
    model : torch.nn.Module or BoundedModule
        From (batch, ...) to (batch, outputs), in evaluation mode; as a `BoundedModule` it is captured once for all
        calls, which pays in a training loop. Linear and convolutional layers, activations that are
        functions of one number (ReLU and its family, sigmoid, tanh, GELU, SiLU, ...), normalisation, average pooling,
        residual connections, reshapes, concatenation.
    x : Tensor, shape (batch, *input)
        Samples, finite, in the model's dtype.
    eps : float or Tensor
        Radius of the region, at least 0: one for all, one for each sample (batch,), or one for each element.
    norm : float
        ``math.inf`` or 2: of the region and of the constant.
    C : Tensor, shape (rows, outputs) or (batch, rows, outputs), optional
        Bound the constants of ``C @ model(x)``, of margins between classes say; by default those of the outputs.
    method : {"bound-propagation", "recurjac", "ibp", "global"}
        The method itself; its predecessor, which uses constants where the sign of a gradient is open; intervals pushed
        through the same graph; the product of the layers' norms, which holds everywhere (``norm`` inf only).
    forward : {"alpha-crown", "crown", "ibp"}
        How pre-activations are bounded: backward with slopes optimised, backward, or by intervals.
    clip : (float, float), optional
        Least and greatest value that an input can have anyway, (0, 1) for pixels say; must hold for ``x``.
    bab : BranchAndBound, optional
        Tighten the bound by branching, for "bound-propagation" alone; not differentiable.
    n_points : int
        Points of each region at which Jacobians are sampled for ``lower_sampled``; 0 leaves it 0.
    generator : torch.Generator, optional
        Of these points; by default seeded with 0.
    memory : int
        About how many bytes of coefficients to hold at once.

    Returns
    -------
    LipschitzResult

    Raises
    ------
    ValueError
        If an argument is out of its range, not finite or does not fit; if the model is in training mode, does not
        return (batch, outputs), or has an operator without a chain rule (max pooling, say); if bounds overflow.
    TypeError
        If ``model`` is no module or ``x`` or ``C`` no floating-point tensor.

    Notes
    -----
    About one backward bound propagation for each layer, O(batch * rows * n_i * n_{i-1}) numbers for dense layers of
    n_i units; ``memory`` cuts them into parts. Under ``torch.no_grad()`` nothing is kept to differentiate the bound:
    a fraction of the memory. Computed in the dtype of ``x``: rounding is not accounted for.

    Examples
    --------
    >>> import torch
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch._C.Generator object at ...>
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    >>> x = torch.zeros(2, 4)
    >>> bounds = {m: local_lipschitz(model, x, 0.1, method=m).upper for m in ("bound-propagation", "global")}
    >>> bool((bounds["bound-propagation"] < bounds["global"]).all())
    True

    References
    ----------
    Zhouxing Shi, Yihan Wang, Huan Zhang, J. Zico Kolter, Cho-Jui Hsieh, Efficiently Computing Local Lipschitz Constants
    of Neural Networks via Bound Propagation, arXiv:2210.07394, sections 3 and 4.
    """
    if method not in (*RELAXING, "global"):
        raise ValueError(f"method: expected one of {(*RELAXING, 'global')}, got {method!r}")
    if bab is not None and method != "bound-propagation":
        raise ValueError(f"bab: branching tightens method='bound-propagation' alone, got {method!r}")
    if n_points < 0:
        raise ValueError(f"n_points: expected at least 0, got {n_points}")
    network, module = captured(model, x)
    setting = _prepare(network, x, make_region(x, eps, norm, clip), forward, memory)
    rows = make_rows(C, x, setting.forward.graph.outputs[0].shape[1])
    order = 1 if norm == math.inf else 2
    generator = generator or torch.Generator(device=x.device).manual_seed(0)
    sampled = sampled_norms(module, setting.region, x, rows, order, n_points, generator)
    certificate, traces = None, []
    if method == "global":
        if order == 2:
            raise ValueError("norm: method='global' is the product of infinity norms, expected math.inf")
        bounds = product_of_norms(setting.forward, rows)
        upper = bounds[..., None].expand(*bounds.shape, x[0].numel()).reshape(*bounds.shape, *x.shape[1:])
        entries = Interval(-upper, upper)
    else:
        setting.find_intervals()
        jacobian = differentiate(setting.forward, rows.flatten(0, 1), order, RELAXING[method], memory)
        lower, upper = (end.reshape(*rows.shape[:2], *x.shape[1:]) for end in jacobian.entries())
        entries = Interval(lower, upper)
        bounds = _checked(jacobian.norm()).reshape(rows.shape[:2])
        certificate = Certificate(setting.forward, jacobian, setting.region, order, bounds.flatten())
    if bab is not None:
        bounds = bounds.detach().clone()
        for i in range(len(x)):
            # With several rows the l2 norm of all is no bound on the squares of each.
            reached = float(sampled[i] ** order) if order == 1 or rows.shape[1] == 1 else 0.0
            bounds[i], trace = setting.branch(bab, i, rows[i], order, bounds[i], reached)
            traces.append(trace)
    return LipschitzResult(
        upper=bounds.amax(1) if order == 1 else _root(bounds.sum(1)),
        per_output=bounds if order == 1 else _root(bounds),
        lower_sampled=sampled,
        jacobian_lower=entries.lower,
        jacobian_upper=entries.upper,
        method=method,
        norm=norm,
        trace=tuple(traces),
        certificate=certificate,
    )


@dataclass
class _Setting:
    """One set of samples with their regions, ready for what is asked of it."""

    network: BoundedModule
    x: Tensor
    region: Box | LpBall
    forward: Problem
    sharpeners: tuple[Sharpen, ...]
    memory: int

    def find_intervals(self) -> None:
        find_intervals(self.forward, self.forward.graph.outputs[0], None, self.sharpeners)
        for node in activation_inputs(self.forward):
            if not all(bool(torch.isfinite(end).all()) for end in self.forward.intervals[node]):
                raise ValueError(f"eps: the bounds overflow at node {node!r}; expected a smaller region")

    def branch(
        self, bab: BranchAndBound, index: int, rows: Tensor, order: int, bounds: Tensor, reached: float
    ) -> tuple[Tensor, Trace]:
        """Return tighter bounds of the rows of one sample, never above those that are known."""
        started = time.monotonic()
        with torch.no_grad():
            start: dict[str, Tensor] = {}
            for i, node in enumerate(activation_inputs(self.forward)):
                interval = self.forward.intervals[node]
                start[f"lower {i}"] = interval.lower[index : index + 1].detach()
                start[f"upper {i}"] = interval.upper[index : index + 1].detach()
            x, region = self.x[index : index + 1].detach(), one_sample(self.region, index)
            branching = Branching(bab, self.network, x, region, rows.detach(), order, start, self.memory)
            trace = branching.run(bounds, reached, started)
            found = torch.as_tensor(branching.per_row(), dtype=bounds.dtype, device=bounds.device)
        if order == 2:
            trace = replace(trace, bounds=tuple(math.sqrt(bound) for bound in trace.bounds))
        return torch.minimum(bounds, found), trace


def _prepare(network: BoundedModule, x: Tensor, region: Box | LpBall, forward: str, memory: int) -> _Setting:
    sharpeners: dict[str, tuple[Sharpen, ...]] = {
        "ibp": (),
        "crown": (Sharpener(memory),),
        "alpha-crown": (Sharpener(memory), Sharpener(memory, Schedule())),
    }
    if forward not in sharpeners:
        raise ValueError(f"forward: expected one of {tuple(sharpeners)}, got {forward!r}")
    if not memory > 0:
        raise ValueError(f"memory: expected a positive number of bytes, got {memory}")
    problem = network.problem(x, region)
    if len(problem.graph.outputs) != 1 or len(problem.graph.outputs[0].shape) != 2:
        shapes = [tuple(node.shape) for node in problem.graph.outputs]
        raise ValueError(f"model: expected one output of shape (batch, outputs), got {shapes}")
    if problem.graph.outputs[0].shape[0] != len(x):
        raise ValueError(
            f"model: expected an output for each of {len(x)} samples, got {problem.graph.outputs[0].shape[0]}"
        )
    return _Setting(network, x, region, problem, sharpeners[forward], memory)


def captured(model: object, x: Tensor, name: str = "x") -> tuple[BoundedModule, nn.Module]:
    """Return a model as a graph and as itself, after a look at it and at the inputs."""
    checked = check_model(model.model if isinstance(model, BoundedModule) else model)
    check_inputs(checked, x, name)
    return (model if isinstance(model, BoundedModule) else BoundedModule(checked, x)), checked


def _root(squares: Tensor) -> Tensor:
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)


def sampled_norms(
    model: nn.Module,
    region: Box | LpBall,
    x: Tensor,
    rows: Tensor,
    order: int,
    n_points: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the largest norm of the Jacobian's rows (together) over points of each region, (batch,)."""
    best = x.new_zeros(len(x))
    if n_points == 0:
        return best
    drawn = draw(region, x.detach(), n_points, generator)
    for points in torch.split(drawn, max(1, POINTS_AT_ONCE // len(x))):
        count = len(points)
        weights = rows.detach().repeat(count, 1, 1)
        with torch.enable_grad():
            flat = points.flatten(0, 1).requires_grad_()
            outputs = model(flat)
            gradients = [
                torch.autograd.grad(outputs, flat, weights[:, k], retain_graph=True, allow_unused=True)[0]
                for k in range(rows.shape[1])
            ]
        zero = torch.zeros_like(flat)
        matrix = torch.stack([zero if g is None else g for g in gradients], 1).flatten(2)
        size = matrix.abs().sum(2).amax(1) if order == 1 else torch.linalg.matrix_norm(matrix, 2)
        best = torch.maximum(best, size.detach().reshape(count, len(x)).amax(0))
    return best


def jacobian_bounds(
    model: nn.Module | BoundedModule,
    x: Float[Tensor, "batch *input"],
    eps: Radius,
    norm: float = math.inf,
    forward: Forward = "alpha-crown",
    clip: tuple[float, float] | None = None,
    *,
    method: Method = "bound-propagation",
    memory: int = 2**30,
) -> tuple[Float[Tensor, "batch outputs *input"], Float[Tensor, "batch outputs *input"]]:
    """Bound every entry of the Jacobian over a region around each sample.

    Use it to see which inputs matter, or which way, anywhere in the region. For one entry or one direction
    :func:`jvp_bounds` is cheaper, for norms :func:`local_lipschitz` is tighter.

    Parameters
    ----------
    model : torch.nn.Module or BoundedModule
        As for :func:`local_lipschitz`.
    x : Tensor, shape (batch, *input)
        Samples, finite, in the model's dtype.
    eps : float or Tensor
        Radius of the region, at least 0: one for all, one for each sample, or one for each element.
    norm : float
        ``math.inf`` or 2, of the region.
    forward : {"alpha-crown", "crown", "ibp"}
        How pre-activations are bounded.
    clip : (float, float), optional
        Least and greatest value that an input can have anyway.
    method : {"bound-propagation", "recurjac", "ibp"}
        How the gradient's graph is bounded.
    memory : int
        About how many bytes of coefficients to hold at once.

    Returns
    -------
    (Tensor, Tensor), each of shape (batch, outputs, *input)
        Below and above every element of the Clarke Jacobian at every point of the region.

    Raises
    ------
    ValueError, TypeError
        As :func:`local_lipschitz`.

    Notes
    -----
    Exact for one hidden layer of ReLUs that are all undecided, as each entry is linear in the slopes.

    Examples
    --------
    >>> import torch
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch._C.Generator object at ...>
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Sigmoid(), torch.nn.Linear(8, 2))
    >>> lower, upper = jacobian_bounds(model, torch.zeros(1, 3), 0.2)
    >>> lower.shape, bool((lower <= upper).all())
    (torch.Size([1, 2, 3]), True)

    References
    ----------
    Zhouxing Shi, Yihan Wang, Huan Zhang, J. Zico Kolter, Cho-Jui Hsieh, Efficiently Computing Local Lipschitz Constants
    of Neural Networks via Bound Propagation, arXiv:2210.07394.
    """
    if method not in RELAXING:
        raise ValueError(f"method: expected one of {tuple(RELAXING)}, got {method!r}")
    network, _ = captured(model, x)
    setting = _prepare(network, x, make_region(x, eps, norm, clip), forward, memory)
    setting.find_intervals()
    rows = make_rows(None, x, setting.forward.graph.outputs[0].shape[1])
    lower, upper = differentiate(setting.forward, rows.flatten(0, 1), 1, RELAXING[method], memory).entries()
    shape = (*rows.shape[:2], *x.shape[1:])
    return _checked(lower).reshape(shape), _checked(upper).reshape(shape)


def jvp_bounds(
    model: nn.Module | BoundedModule,
    x: Float[Tensor, "batch *input"],
    v: Float[Tensor, "..."],
    eps: Radius,
    norm: float = math.inf,
    forward: Forward = "alpha-crown",
    clip: tuple[float, float] | None = None,
    *,
    method: Method = "bound-propagation",
    memory: int = 2**30,
) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, "batch outputs"]]:
    """Bound the Jacobian times a vector, the derivative along a direction, over a region around each sample.

    Use it for sensitivity along one direction: a feature, a shift, the difference to another sample.

    Parameters
    ----------
    model : torch.nn.Module or BoundedModule
        As for :func:`local_lipschitz`.
    x : Tensor, shape (batch, *input)
        Samples, finite, in the model's dtype.
    v : Tensor
        The direction, of the shape of ``x`` or of one sample; finite.
    eps : float or Tensor
        Radius of the region, at least 0: one for all, one for each sample, or one for each element.
    norm : float
        ``math.inf`` or 2, of the region.
    forward : {"alpha-crown", "crown", "ibp"}
        How pre-activations are bounded.
    clip : (float, float), optional
        Least and greatest value that an input can have anyway.
    method : {"bound-propagation", "recurjac", "ibp"}
        How the gradient's graph is bounded.
    memory : int
        About how many bytes of coefficients to hold at once.

    Returns
    -------
    (Tensor, Tensor), each of shape (batch, outputs)
        Below and above the derivative at every point of the region.

    Raises
    ------
    ValueError, TypeError
        As :func:`local_lipschitz`; if ``v`` does not fit.

    Notes
    -----
    One backward pass for all outputs beyond the intervals of the gradient's graph; the sum over inputs is bounded as a
    whole, so it is tighter than summing bounds of entries.

    Examples
    --------
    >>> import torch
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch._C.Generator object at ...>
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))
    >>> lower, upper = jvp_bounds(model, torch.zeros(1, 3), torch.tensor([1.0, 0.0, -1.0]), 0.2)
    >>> lower.shape, bool((lower <= upper).all())
    (torch.Size([1, 2]), True)

    References
    ----------
    Zhouxing Shi, Yihan Wang, Huan Zhang, J. Zico Kolter, Cho-Jui Hsieh, Efficiently Computing Local Lipschitz Constants
    of Neural Networks via Bound Propagation, arXiv:2210.07394.
    """
    if method not in RELAXING:
        raise ValueError(f"method: expected one of {tuple(RELAXING)}, got {method!r}")
    network, _ = captured(model, x)
    if not isinstance(v, Tensor) or not bool(torch.isfinite(v).all()) or v.shape not in (x.shape, x.shape[1:]):
        raise ValueError(f"v: expected a finite tensor of shape {tuple(x.shape)} or {tuple(x.shape[1:])}, got {v}")
    region = make_region(x, eps, norm, clip)
    return directional_bounds(network, x, v.to(x).expand(x.shape), region, forward, RELAXING[method], memory)


def directional_bounds(
    network: BoundedModule, x: Tensor, v: Tensor, region: Box | LpBall, forward: str, relaxing: Relaxing, memory: int
) -> tuple[Tensor, Tensor]:
    """Bound derivatives along directions (batch, *input) over regions, (batch, outputs) each."""
    setting = _prepare(network, x, region, forward, memory)
    setting.find_intervals()
    rows = make_rows(None, x, setting.forward.graph.outputs[0].shape[1])
    jacobian = differentiate(setting.forward, rows.flatten(0, 1), 1, relaxing, memory)
    lower, upper = jacobian.dot(v.repeat_interleave(rows.shape[1], 0))
    return _checked(lower).reshape(rows.shape[:2]), _checked(upper).reshape(rows.shape[:2])


def _checked(bounds: Tensor) -> Tensor:
    if not bool(torch.isfinite(bounds).all()):
        raise ValueError("eps: the bounds overflow in a region this large; expected a smaller one")
    return bounds
