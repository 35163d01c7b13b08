"""Whether a property of a network holds: attack, then bounds, then branch and bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.methods.certify.verification.inputs import Progress, split_inputs
from offprint.methods.certify.verification.kinks import make_root, split_kinks
from offprint.methods.certify.verification.multipliers import Root
from offprint.methods.certify.verification.outcome import Outcome
from offprint.methods.certify.verification.relaxed import Network
from offprint.methods.certify.verification.task import Clock, Target, Task
from offprint.methods.certify.vnnlib import Property

Status = Literal["verified", "counterexample", "unknown"]
MAX_SPLIT_INPUTS = 20
"""With up to so many inputs that vary, ``branching="auto"`` halves boxes of inputs."""


@dataclass(frozen=True)
class VerificationResult:
    """What `verify` found.

    Parameters
    ----------
    status : {"verified", "counterexample", "unknown"}
        ``unknown`` where the time ran out, or a margin is too close to 0 for the precision.
    counterexample : Tensor of the shape of the model's input, or None
        In the precision of the model's weights.
    output : Tensor, shape (n_outputs,), or None
        What the model, as it was given, returns for the counterexample.
    bound : float
        Proven least margin: no input brings the largest of ``matrix @ y - bound`` of any polytope below it. Positive
        where the property was verified, ``inf`` where nothing was left to bound; ``-inf`` with a counterexample, and
        where nothing is proven.
    n_domains : int
        Domains that branch and bound made.
    n_open : int
        How many of them were not decided.
    branching : {"none", "input", "relu"}
        What was split; ``none`` where the attack or a single bound was enough.
    seconds : float
        Time that was taken.
    """

    status: Status
    counterexample: Float[Tensor, "..."] | None
    output: Float[Tensor, " n_outputs"] | None
    bound: float
    n_domains: int
    n_open: int
    branching: Literal["none", "input", "relu"]
    seconds: float


def verify(
    model: nn.Module,
    property: Property,
    *,
    input_shape: Sequence[int] | None = None,
    method: str = "alpha-crown",
    branching: str = "auto",
    time_limit: float = 300.0,
    batch: int = 64,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    attack_steps: int = 40,
    attack_restarts: int = 5,
    progress: Progress | None = None,
    generator: torch.Generator | None = None,
) -> VerificationResult:
    """Decide whether a property holds: prove it, find a counterexample, or say that neither was possible in time.

    First the network is attacked by projected gradient steps. Then margins are bounded by linear relaxation, and where
    that is not enough the problem is split until it is: boxes of few inputs are halved; with many inputs the kinks of
    ReLUs (also of leaky ones and absolute values) are decided one by one, where the decisions enter the bounds with
    multipliers of their own, and a linear program decides what is affine in the end. For networks of straight pieces
    this is complete: given time, it is undecided only where a margin is 0 to the precision of the numbers.

    Parameters
    ----------
    model : torch.nn.Module
        Of one input, in any precision; run in evaluation mode. It is copied, not changed.
    property : Property
        What a counterexample would be; see :func:`offprint.methods.certify.vnnlib.read` and
        :func:`offprint.methods.certify.vnnlib.robustness`.
    input_shape : sequence of int, optional
        Shape of one sample with an axis of length 1 in front, such as (1, 3, 32, 32). By default that of a model from
        :func:`offprint.methods.certify.onnx_import.convert.from_onnx`, else ``(1, property.n_inputs)``.
    method : {"alpha-crown", "crown"}
        Bounds with optimised lines and multipliers, or (faster each, looser) with fixed ones.
    branching : {"auto", "input", "relu"}
        What is split. By default inputs where at most `MAX_SPLIT_INPUTS` of them vary.
    time_limit : float
        Seconds, greater than 0; steps under way are finished.
    batch : int
        Domains that are bounded at once, at least 1.
    dtype : {torch.float64, torch.float32}
        Precision of the bounds.
    device : str or torch.device
    attack_steps, attack_restarts : int
        Of the attack; with 0 restarts there is none.
    progress : callable, optional
        Called now and then with the number of decided domains, of open ones, and the least bound of these.
    generator : torch.Generator, optional
        For the attack's starts, on the device; by default with seed 0.

    Returns
    -------
    VerificationResult

    Raises
    ------
    ValueError
        If an argument is out of its range, or the model does not fit the property.
    NotImplementedError
        If the model has an operator that cannot be bounded; it is named.

    Notes
    -----
    A counterexample is checked by running the network, in the precision of the bounds and as it was given. Bounds are
    floating point without directed rounding: a margin counts as positive from 1e-8 on in float64 (1e-4 in float32).
    The time grows exponentially with the number of ReLUs that must be split in the worst case; memory is proportional
    to the open domains.

    Examples
    --------
    >>> import torch
    >>> from offprint.methods.certify.vnnlib import parse
    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1)).double()
    >>> for one, numbers in zip(model.parameters(), ([[1.0], [-1.0]], [0.0, 0.0], [[1.0, 1.0]], [0.0]), strict=True):
    ...     one.data = torch.tensor(numbers, dtype=torch.float64)
    >>> text = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (>= X_0 -1))(assert (<= X_0 1))(assert {})"
    >>> verify(model, parse(text.format("(>= Y_0 1.01)"))).status  # the network is |x|
    'verified'
    >>> found = verify(model, parse(text.format("(>= Y_0 0.9)")))
    >>> found.status, bool(found.output >= 0.9)
    ('counterexample', True)

    References
    ----------
    Shiqi Wang et al., Beta-CROWN, arXiv:2103.06624, section 3 (multipliers of split constraints). Rudy Bunel et al.,
    Branch and Bound for Piecewise Linear Neural Network Verification, arXiv:1909.06588, section 5 (choice of the
    split). Kaidi Xu et al., Automatic Perturbation Analysis, arXiv:2002.12920 (the bounds).
    """
    _check(model, property, method, branching, time_limit, batch, dtype, attack_steps, attack_restarts)
    clock = Clock(time_limit)
    device = torch.device(device)
    shape, batched = _shape(model, property, input_shape)
    task = Task(model, property, shape, batched, dtype, device)
    _check_run(task)
    generator = torch.Generator(device=device).manual_seed(0) if generator is None else generator
    total = Outcome()
    total.counterexample = _anywhere(task)
    if total.counterexample is None and attack_restarts > 0 and task.targets:
        total.counterexample = task.attack(
            task.targets,
            n_steps=attack_steps,
            n_restarts=attack_restarts,
            generator=generator,
            batch=batch,
            clock=clock,
        )
    split: Literal["none", "input", "relu"] = "none"
    if total.counterexample is None and task.targets:
        total, split = _branch(task, branching, method, batch, clock, progress)
    status: Status = "verified" if total.n_open == 0 else "unknown"
    point = output = None
    if total.counterexample is not None:
        status, total.bound, (point, output) = "counterexample", -math.inf, total.counterexample
        point = point.reshape(shape)
    return VerificationResult(status, point, output, total.bound, total.n_domains, total.n_open, split, clock.seconds)


def _branch(
    task: Task, branching: str, method: str, batch: int, clock: Clock, progress: Progress | None
) -> tuple[Outcome, Literal["none", "input", "relu"]]:
    """Split inputs of all targets together, or kinks target by target."""
    network = Network(task, batch)
    width = torch.stack([target.upper - target.lower for target in task.targets]).amax(0)
    few = int((width > 0).sum()) <= MAX_SPLIT_INPUTS
    by_input = branching == "input" or (branching == "auto" and few) or not task.batched
    if by_input or not network.relaxed(1).splits:
        total = split_inputs(task, network, task.targets, batch=batch, clock=clock, progress=progress)
        return total, "input" if total.n_domains > len(task.targets) else "none"
    total = Outcome()
    roots: dict[tuple[int, int], Root] = {}
    for target in task.targets:
        if clock.is_over:
            total.n_domains += 1
            total.left_open(-math.inf)
            continue
        found = split_kinks(
            task,
            _root(network, target, roots, method == "alpha-crown"),
            batch=batch,
            optimise=method == "alpha-crown",
            clock=clock,
            progress=progress,
        )
        if found.n_open and found.counterexample is None and not clock.is_over:
            # Something else than kinks is not affine, or a margin is close to 0: boxes of inputs can still be halved.
            found = split_inputs(task, network, [target], batch=batch, clock=clock, progress=progress)
        total.n_domains += found.n_domains
        total.n_decided += found.n_decided
        total.n_open += found.n_open
        total.bound = min(total.bound, found.bound)
        if found.counterexample is not None:
            total.counterexample = found.counterexample
            break
    return total, "relu" if total.n_domains > len(task.targets) else "none"


def _root(network: Network, target: Target, known: dict[tuple[int, int], Root], optimise: bool) -> Root:
    """Return a target's root; targets of the same box share its intervals."""
    box = (target.lower.data_ptr(), target.upper.data_ptr())
    if box not in known:
        known.clear()
        known[box] = make_root(network, target, optimise=optimise)
    return Root(network, target, known[box].intervals)


def _anywhere(task: Task) -> tuple[Tensor, Tensor] | None:
    """Return the centre of a box where it is a counterexample, say as no output is asked for."""
    for target in task.targets:
        found = task.counterexample(((target.lower + target.upper) / 2)[None])
        if found is not None:
            return found
    return None


def _shape(model: nn.Module, property: Property, given: Sequence[int] | None) -> tuple[tuple[int, ...], bool]:
    described = getattr(model, "meta", {}).get("onnx") if isinstance(getattr(model, "meta", None), dict) else None
    if described is not None and len(described["input_shapes"]) != 1:
        raise ValueError(f"model: expected one input, has {sorted(described['input_shapes'])}")
    if given is not None:
        shape = tuple(int(n) for n in given)
    elif described is not None:
        shape = next(iter(described["input_shapes"].values()))
    else:
        shape = (1, property.n_inputs)
    if math.prod(shape) != property.n_inputs:
        raise ValueError(
            f"input_shape: {shape} has {math.prod(shape)} elements, the property {property.n_inputs} inputs"
        )
    batched = shape[:1] == (1,) if described is None else bool(described["batched"])
    return shape, batched


def _check_run(task: Task) -> None:
    """Run the network once, so that what does not fit is refused before any work."""
    with torch.no_grad():
        try:
            output = task.run(torch.zeros(1, task.property.n_inputs, dtype=task.dtype, device=task.device))
        except RuntimeError as error:
            raise ValueError(f"model: it cannot be run on an input of shape {task.input_shape}: {error}") from error
    if output.shape[1] != task.property.n_outputs:
        raise ValueError(f"model: it has {output.shape[1]} outputs, the property {task.property.n_outputs}")
    for name, one in task.given.named_parameters():
        if not bool(torch.isfinite(one).all()):
            raise ValueError(f"model: {name} is not finite")
    for name, buffer in task.given.named_buffers():  # masks are made of infinities
        if bool(buffer.isnan().any()):
            raise ValueError(f"model: {name} has NaN")


def _check(
    model: nn.Module,
    property: Property,
    method: str,
    branching: str,
    time_limit: float,
    batch: int,
    dtype: torch.dtype,
    attack_steps: int,
    attack_restarts: int,
) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(property, Property):
        raise TypeError(f"property: expected a Property, got {type(property).__name__}")
    for name, value, known in (
        ("method", method, ("alpha-crown", "crown")),
        ("branching", branching, ("auto", "input", "relu")),
        ("dtype", dtype, (torch.float64, torch.float32)),
    ):
        if value not in known:
            raise ValueError(f"{name}: expected one of {known}, got {value!r}")
    if not time_limit > 0:
        raise ValueError(f"time_limit: expected more than 0 seconds, got {time_limit}")
    for name, number, least in (
        ("batch", batch, 1),
        ("attack_steps", attack_steps, 1),
        ("attack_restarts", attack_restarts, 0),
    ):
        if number < least:
            raise ValueError(f"{name}: expected at least {least}, got {number}")
