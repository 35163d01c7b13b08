"""A property of a network as tensors: margins, the check of a counterexample, and the attack."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from offprint.methods.attack.gradient import projected_gradient_descent
from offprint.methods.certify.vnnlib import Case, Property


class Clock:
    """How much of the user's time limit is left."""

    def __init__(self, limit: float) -> None:
        self.start = time.monotonic()
        self.limit = limit

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.start

    @property
    def is_over(self) -> bool:
        """Whether the limit has been reached."""
        return self.seconds >= self.limit


@dataclass(frozen=True)
class Target:
    """One box of inputs and one polytope of outputs that must not be met: ``matrix @ y <= bound``."""

    lower: Tensor
    upper: Tensor
    matrix: Tensor
    bound: Tensor

    def margin(self, outputs: Tensor) -> Tensor:
        """Return for outputs (batch, n_outputs) the largest of ``matrix @ y - bound``; at most 0 is a violation."""
        return (outputs @ self.matrix.T - self.bound).amax(1)


class Task:
    """A model, in its own precision and in the one that bounds are computed in, and the targets it must not meet.

    Parameters
    ----------
    model : torch.nn.Module
    property : Property
    input_shape : sequence of int
        Of one sample, with an axis of length 1 in front where the model takes batches.
    batched : bool
        Whether the model takes batches; else samples are run one by one.
    dtype : torch.dtype
        Precision of the bounds.
    device : torch.device
    """

    def __init__(
        self,
        model: nn.Module,
        property: Property,
        input_shape: Sequence[int],
        batched: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.property = property
        self.batched = batched
        self.input_shape = tuple(input_shape)
        self.sample_shape = self.input_shape[1:] if batched and self.input_shape[:1] == (1,) else self.input_shape
        self.dtype, self.device = dtype, device
        self.given = copy.deepcopy(model).to(device).eval().requires_grad_(False)
        floating = [p.dtype for p in self.given.parameters()] + [b.dtype for b in self.given.buffers()]
        self.given_dtype = next((d for d in floating if d.is_floating_point), torch.float32)
        self.model = copy.deepcopy(self.given).to(dtype)
        # Rounding in bounds is far below this; a margin within it of 0 decides nothing.
        self.slack = 1e-8 if dtype == torch.float64 else 1e-4
        self.targets = [target for case in property.cases for target in self._targets(case)]

    def _targets(self, case: Case) -> list[Target]:
        lower, upper = self.tensor(case.lower), self.tensor(case.upper)
        return [Target(lower, upper, self.tensor(p.matrix), self.tensor(p.bound)) for p in case.polytopes]

    def tensor(self, array: np.ndarray) -> Tensor:
        """Return an array in the precision of the bounds."""
        return torch.as_tensor(array, dtype=self.dtype, device=self.device)

    def run(self, points: Tensor, model: nn.Module | None = None) -> Tensor:
        """Return the outputs (batch, n_outputs) for inputs (batch, n_inputs)."""
        model = self.model if model is None else model
        if self.batched:
            return first(model(points.reshape(-1, *self.sample_shape))).reshape(len(points), -1)
        single = [first(model(point.reshape(self.input_shape))).reshape(1, -1) for point in points]
        return torch.cat(single)

    def counterexample(self, points: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return a point (n_inputs,) among some, and its output, that is a counterexample when the network is run.

        It must be one in the precision of the bounds and in the model's own, exactly as the property is written.
        """
        with torch.no_grad():
            outputs = self.run(points)
            violated = self.property.violated(points.double().cpu().numpy(), outputs.double().cpu().numpy())
            for i in np.flatnonzero(violated):
                rounded = self._rounded(points[i : i + 1])
                output = self.run(rounded, self.given)
                if self._violates(points[i : i + 1], output):
                    return rounded[0], output[0]
        return None

    def _violates(self, exact_point: Tensor, output: Tensor) -> bool:
        """The box is asked about the exact point: an end may not be a number of the model's precision."""
        found = self.property.violated(exact_point.double().cpu().numpy(), output.double().cpu().numpy())
        return bool(found[0])

    def _rounded(self, points: Tensor) -> Tensor:
        """Return points in the model's precision, inside of the box where that has numbers of this precision."""
        rounded = points.to(self.given_dtype)
        for case in self.property.cases:
            lower, upper = self.tensor(case.lower), self.tensor(case.upper)
            if bool(((points >= lower) & (points <= upper)).all()):
                infinite = torch.full_like(rounded, math.inf)
                up, down = torch.nextafter(rounded, infinite), torch.nextafter(rounded, -infinite)
                rounded = torch.where((rounded < lower) & (up <= upper), up, rounded)
                return torch.where((rounded > upper) & (down >= lower), down, rounded)
        return rounded

    def attack(
        self,
        targets: Sequence[Target],
        *,
        n_steps: int,
        n_restarts: int,
        generator: torch.Generator,
        batch: int,
        clock: Clock,
    ) -> tuple[Tensor, Tensor] | None:
        """Search every target's box by projected gradient steps; return a counterexample and its output."""
        for start in range(0, len(targets), batch):
            chosen = targets[start : start + batch]
            lower, upper = torch.stack([t.lower for t in chosen]), torch.stack([t.upper for t in chosen])

            def objective(points: Tensor, chosen: Sequence[Target] = chosen) -> Tensor:
                outputs = self.run(points)
                return torch.stack([t.margin(outputs[i : i + 1])[0] for i, t in enumerate(chosen)])

            for _ in range(n_restarts):
                if clock.is_over:
                    return None
                draw = torch.rand(lower.shape, generator=generator, dtype=self.dtype, device=self.device)
                centre = torch.minimum(torch.maximum(lower + draw * (upper - lower), lower), upper)
                # Well below 0, so that other roundings of the same network agree.
                found = projected_gradient_descent(
                    objective, centre, lower=lower, upper=upper, n_steps=n_steps, stop_below=-1e-4, generator=generator
                )
                example = self.counterexample(found.points[found.values.argsort()])
                if example is not None:
                    return example
        return None


def first(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the output of a model, or the first of several."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]
