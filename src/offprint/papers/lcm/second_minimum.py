"""The second minimum of an integer set: its data, the network around an aggregator, and one tuned training of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from offprint.methods.bags.lcm import LCMAggregation, permutation_gap
from offprint.methods.bags.lcm_aggregators import GRUAggregation, PNAAggregation, ReduceAggregation
from offprint.methods.bags.lcm_sets import SetAggregation
from offprint.models.mlp import MLP
from offprint.models.training import train

LARGEST = 255
RATES = (3e-4, 1e-3, 3e-3)
Sets = tuple[Int[Tensor, "sets most"], Int[Tensor, " sets"]]
"""Integers, of which only the first ones of each row count, and how many that is."""

AGGREGATORS: Mapping[str, Callable[[int, torch.Generator], SetAggregation]] = {
    "sum": lambda h, g: ReduceAggregation(h, h, "sum", generator=g),
    "mean": lambda h, g: ReduceAggregation(h, h, "mean", generator=g),
    "max": lambda h, g: ReduceAggregation(h, h, "max", generator=g),
    "attention": lambda h, g: ReduceAggregation(h, h, "attention", generator=g),
    "PNA": lambda h, g: PNAAggregation(h, h, 8.5, generator=g),
    "GRU": lambda h, g: GRUAggregation(h, h, generator=g),
    "GRU regularised": lambda h, g: GRUAggregation(h, h, generator=g),
    "GRU sorted": lambda h, g: GRUAggregation(h, h, "given", generator=g),
    "LCM": lambda h, g: LCMAggregation(h, h, generator=g),
}
WEIGHTS = {"GRU regularised": 0.1, "LCM": 0.1}
"""Of the regulariser, where one is used: the same for both."""


@dataclass(frozen=True)
class Setting:
    """How much is trained: sets, their largest size, width of the LCM, steps of its final and of each tuning run."""

    n_sets: int
    width: int
    n_steps: int
    n_tuning: int
    n_test: int = 500
    most: int = 16
    batch_size: int = 128


def draw(n_sets: int, sizes: tuple[int, int], generator: torch.Generator) -> Sets:
    """Draw sets of uniform integers, their sizes uniform between two bounds."""
    least, most = sizes
    device = generator.device
    values = torch.randint(LARGEST + 1, (n_sets, most), generator=generator, device=device)
    return values, torch.randint(least, most + 1, (n_sets,), generator=generator, device=device)


def second_minimum(sets: Sets) -> Float[Tensor, " sets"]:
    """Return the second smallest of each set, or its only element."""
    values, sizes = sets
    absent = torch.arange(values.shape[1], device=values.device) >= sizes[:, None]
    ordered = values.masked_fill(absent, LARGEST + 1).sort(1).values
    return torch.where(sizes == 1, ordered[:, 0], ordered[:, min(1, values.shape[1] - 1)]).float()


class Regressor(nn.Module):
    """Eight bits of each element, encoded, aggregated, and read off."""

    def __init__(self, aggregation: SetAggregation, ordered: bool, generator: torch.Generator) -> None:
        super().__init__()
        width = aggregation.in_channels
        self.encoder = MLP(8, [width], width, generator=generator)
        self.aggregation = aggregation
        self.head = MLP(width, [width], 1, generator=generator)
        self.ordered = ordered

    def elements(self, sets: Sets) -> tuple[Float[Tensor, "n width"], Int[Tensor, " n"]]:
        """Return all encoded elements and the set of each; largest first where the aggregator is told the order."""
        values, sizes = sets
        present = torch.arange(values.shape[1], device=values.device) < sizes[:, None]
        if self.ordered:
            values = values.masked_fill(~present, -1).sort(1, descending=True).values
        bits = values[present][:, None] >> torch.arange(8, device=values.device) & 1
        return self.encoder(bits.float()), present.nonzero()[:, 0]

    def forward(self, sets: Sets) -> Float[Tensor, " sets"]:
        """Return the second minimum, as a share of the largest integer."""
        x, index = self.elements(sets)
        found: Tensor = self.head(self.aggregation(x, index, dim_size=len(sets[1])))
        return found[:, 0]


@dataclass(frozen=True)
class Trained:
    """A network with what it was tuned to."""

    model: Regressor
    rate: float
    width: int

    @torch.no_grad()
    def errors(self, size: int, n_sets: int, generator: torch.Generator) -> tuple[float, float]:
        """Return mean absolute error and share of exact answers (rounded) on fresh sets of one size."""
        sets = draw(n_sets, (size, size), generator)
        gap = (self.model.eval()(sets) * LARGEST).round() - second_minimum(sets)
        continuous = (self.model(sets) * LARGEST - second_minimum(sets)).abs().mean()
        return float(continuous), float((gap == 0).float().mean())

    def order_gap(self, size: int, n_sets: int, generator: torch.Generator) -> float:
        """Return the permutation gap of the aggregator on sets of one size."""
        self.model.eval()
        with torch.no_grad():
            x, index = self.model.elements(draw(n_sets, (size, size), generator))
        return permutation_gap(self.model.aggregation, x, index, trials=5)


def build(name: str, width: int, generator: torch.Generator) -> Regressor:
    """Return an untrained network around one aggregator."""
    model = Regressor(AGGREGATORS[name](width, generator), name == "GRU sorted", generator)
    return model.to(generator.device)


def equal_width(name: str, width: int, make: Callable[[str, int, torch.Generator], nn.Module] = build) -> int:
    """Return the width at which a network has about as many parameters as that of the LCM at ``width``."""

    def size(of: str, at: int) -> int:
        return sum(p.numel() for p in make(of, at, torch.Generator()).parameters())

    target = size("LCM", width)
    return min(range(width // 2, 2 * width), key=lambda candidate: abs(size(name, candidate) - target))


def fit(
    name: str,
    setting: Setting,
    rates: Sequence[float],
    seed: int,
    *,
    weight: float | None = None,
    shuffle: bool = True,
    device: str = "cpu",
    progress: Callable[[float, float, str], None] | None = None,
) -> Trained:
    """Train with each rate for a few steps, take the one with the lowest error on held-out sets, and train in full."""
    source = torch.Generator(device).manual_seed(seed)
    sets = draw(setting.n_sets, (1, setting.most), source)
    held_out = draw(setting.n_test, (1, setting.most), source)
    width = equal_width(name, setting.width)
    weight = WEIGHTS.get(name, 0.0) if weight is None else weight

    def loss(model: Regressor, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        *of_batch, target = batch
        given: Sets = (of_batch[0], of_batch[1])
        value = nn.functional.l1_loss(model(given), target)
        if weight:
            penalties = model.aggregation.regularisation(*model.elements(given))  # type: ignore[operator]
            value = value + weight * sum(penalties.values())
        return value

    def trained(rate: float, n_steps: int) -> Regressor:
        model = build(name, width, torch.Generator(device).manual_seed(seed))
        if not shuffle:
            model.aggregation.shuffle = False  # type: ignore[assignment]
        data = (*sets, second_minimum(sets) / LARGEST)
        settings = {"batch_size": setting.batch_size, "schedule": "cosine", "generator": seed, "gradient_clip": 1.0}
        train(model, loss, data, n_steps=n_steps, learning_rate=rate, progress=progress, **settings)  # type: ignore[arg-type]
        return model

    @torch.no_grad()
    def error(rate: float) -> float:
        model = trained(rate, setting.n_tuning)
        return float((model(held_out) * LARGEST - second_minimum(held_out)).abs().mean())

    best = min(rates, key=error) if len(rates) > 1 else rates[0]
    return Trained(trained(best, setting.n_steps), best, width)
