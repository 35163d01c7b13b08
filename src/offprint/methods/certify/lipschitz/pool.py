"""Open domains of branch and bound, and the proof that one of them is empty."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from offprint.methods.certify.lirpa.perturbations import Perturbation

Fields = dict[str, Tensor]


class Pool:
    """Open domains as stacked tensors on the CPU, with places that are used again."""

    def __init__(self) -> None:
        self.fields: Fields = {}
        self.free: list[int] = []
        self.size = 0

    def add(self, domains: Fields) -> list[int]:
        """Store domains and return their places."""
        n = len(domains["bound"])
        if len(self.free) < n:
            self._grow(domains, n)
        places = [self.free.pop() for _ in range(n)]
        index = torch.tensor(places)
        for name, value in domains.items():
            self.fields[name][index] = value.detach().cpu()
        return places

    def _grow(self, domains: Fields, n: int) -> None:
        size = max(2 * self.size, self.size + n, 1024)
        for name, value in domains.items():
            new = torch.empty(size, *value.shape[1:], dtype=value.dtype)
            if self.size:
                new[: self.size] = self.fields[name]
            self.fields[name] = new
        self.free.extend(range(self.size, size))
        self.size = size

    def take(self, places: list[int], device: torch.device) -> Fields:
        """Remove domains and return them."""
        index = torch.tensor(places)
        self.free.extend(places)
        return {name: value[index].to(device) for name, value in self.fields.items()}


def padded(value: Tensor) -> Tensor:
    """Repeat the last domain until there are 4, 16, 64 ... of them: the network is captured for few sizes only."""
    n, size = len(value), 4
    while size < n:
        size *= 4
    return torch.cat([value, value[-1:].expand(size - n, *value.shape[1:])]) if size > n else value


def empty_domains(slopes: Tensor, constants: Tensor, region: Perturbation, x: Tensor, n_steps: int = 50) -> Tensor:
    """Return for which domains it is proved that no point of a region has all rows of ``slopes @ x + constants >= 0``.

    A game decides most of them at once: weights on the rows that grow where the last point did badly, against the point
    that is best for the weights. Its weights prove domains empty, its mean point shows others not to be; a linear
    programme is left with the rest.

    Parameters
    ----------
    slopes, constants : Tensor, shape (domains, rows, inputs) and (domains, rows)
    region : Perturbation
        The same for all domains.
    x : Tensor, shape (1, *input)
        Its centre.
    n_steps : int
        Of the game.
    """
    lower, upper = (end.flatten() for end in region.box(x))
    scale = (slopes.abs() @ (upper - lower).clamp(min=torch.finfo(x.dtype).tiny)).clamp(min=torch.finfo(x.dtype).tiny)
    matrix, offset = slopes / scale[..., None], constants / scale
    losses = torch.zeros_like(offset)
    mean = torch.zeros_like(matrix[:, 0])
    empty = torch.zeros(len(offset), dtype=torch.bool, device=x.device)
    for step in range(1, n_steps + 1):
        weights = torch.softmax(-losses * (4 / step**0.5), 1)
        combined = (weights[:, None] @ matrix)[:, 0]
        point = torch.where(combined > 0, upper, lower)
        empty |= _below_zero(weights / scale, slopes, constants, region, x)
        mean += (point - mean) / step
        losses += (matrix @ point[..., None])[..., 0] + offset
    inhabited = ((matrix @ mean[..., None])[..., 0] + offset >= 0).all(1)
    for k in (~(empty | inhabited)).nonzero()[:, 0].tolist():
        empty[k] = proves_empty(slopes[k], constants[k], region, x)
    return empty.cpu()


def _below_zero(weights: Tensor, slopes: Tensor, constants: Tensor, region: Perturbation, x: Tensor) -> Tensor:
    """Return whether the weighted sum of rows is below zero in all of the region, by more than rounding."""
    combined = (weights[:, None] @ slopes)[:, 0]
    greatest = region.maximum(combined.reshape(-1, *x.shape), x)[:, 0] + (weights * constants).sum(1)
    size = (weights * ((slopes.abs() @ x.flatten().abs()) + constants.abs())).sum(1)
    return greatest < -64 * torch.finfo(x.dtype).eps * size


def proves_empty(slopes: Tensor, constants: Tensor, region: Perturbation, x: Tensor) -> bool:
    """Return whether no point of a region has ``slopes @ x + constants >= 0`` in all rows.

    A linear programme finds the point at which the smallest row is largest. Its multipliers combine the rows into one
    linear function, whose greatest value over the region is then computed outside of the solver: below zero, it proves
    that there is no such point, whatever the solver's tolerance.
    """
    n_rows, n_inputs = slopes.shape
    lower, upper = (end.flatten().double().cpu().numpy() for end in region.box(x))
    matrix, offset = slopes.double().cpu().numpy(), constants.double().cpu().numpy()
    scale = np.maximum(np.abs(matrix).sum(1), np.finfo(float).tiny)
    matrix, offset = matrix / scale[:, None], offset / scale
    solved = linprog(
        np.r_[np.zeros(n_inputs), -1.0],
        A_ub=np.c_[-matrix, np.ones(n_rows)],
        b_ub=offset,
        bounds=[*zip(lower, upper, strict=True), (None, None)],
        method="highs",
    )
    if solved.status != 0 or solved.x is None or solved.x[-1] > -1e-9:
        return False
    multipliers = torch.as_tensor(np.maximum(-solved.ineqlin.marginals, 0.0) / scale).to(slopes)
    return bool(_below_zero(multipliers[None], slopes[None], constants[None], region, x))
