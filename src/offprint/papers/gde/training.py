"""What the claims train: encoders and generators by name, how much of each, and the choice of the learning rate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from offprint.methods.bags.gde import GDE
from offprint.methods.bags.gde_encoders import (
    KernelMeanEmbedding,
    MeanEncoder,
    MeanPoolEncoder,
    ResNetSetEncoder,
    SetTransformerEncoder,
)
from offprint.methods.bags.gde_generators import CVAEGenerator, DDPMGenerator, DirectGenerator
from offprint.methods.bags.gde_sets import DirichletMixer, fitted_gaussians
from offprint.methods.bags.wormhole import Wormhole
from offprint.models.randomness import seeded
from offprint.papers.gde.populations import plug_in
from offprint.papers.run import Run

LATENT = 16
BANDWIDTHS = (0.05, 0.1, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0)
M = TypeVar("M", GDE, Wormhole)


@dataclass(frozen=True)
class Setting:
    """How much is trained and tested."""

    n_sets: int
    n_points: int
    n_epochs: int
    n_test: int
    test_points: int
    n_pairs: int
    wormhole_points: int
    hidden: int = 48
    batch_size: int = 16
    rates: tuple[float, ...] = (2e-4, 1e-3)


SMOKE = Setting(n_sets=16, n_points=16, n_epochs=1, n_test=8, test_points=64, n_pairs=20, wormhole_points=4, hidden=8)
QUICK = Setting(
    n_sets=600,
    n_points=64,
    n_epochs=15,
    n_test=200,
    test_points=500,
    n_pairs=2000,
    wormhole_points=8,
    rates=(1e-3,),
)
FULL = Setting(n_sets=1000, n_points=100, n_epochs=10, n_test=500, test_points=500, n_pairs=10_000, wormhole_points=12)
PAPER = Setting(
    n_sets=50_000,
    n_points=500,
    n_epochs=500,
    n_test=1000,
    test_points=500,
    n_pairs=50_000,
    wormhole_points=64,
    hidden=64,
    batch_size=256,
)

ENCODERS: Mapping[str, Callable[[int, int, int], nn.Module]] = {
    "graph-style": lambda d, h, seed: MeanPoolEncoder(d, LATENT, h, generator=seed),
    "residual": lambda d, h, seed: ResNetSetEncoder(d, LATENT, h, generator=seed),
    "transformer": lambda d, h, seed: SetTransformerEncoder(d, LATENT, h, generator=seed),
    "sum": lambda d, h, seed: MeanPoolEncoder(d, LATENT, h, pooling="sum", generator=seed),
}
GENERATORS: Mapping[str, Callable[[int, int, int], nn.Module]] = {
    "SWD": lambda d, h, seed: DirectGenerator(d, LATENT, h, "swd", 25, generator=seed),
    "MMD": lambda d, h, seed: DirectGenerator(d, LATENT, h, "mmd", generator=seed),
    "Sinkhorn": lambda d, h, seed: DirectGenerator(d, LATENT, h, "sinkhorn", generator=seed),
    # A quarter of the published 400 levels with four times their noise ends as near to pure noise.
    "DDPM": lambda d, h, seed: DDPMGenerator(d, LATENT, h, 100, (4e-4, 0.08), generator=seed),
    "CVAE": lambda d, h, seed: CVAEGenerator(d, LATENT, h, generator=seed),
}


def setting(run: Run) -> Setting:
    """Return how much is trained at this run's scale."""
    return run.pick(smoke=SMOKE, quick=QUICK, full=FULL, paper=PAPER)


def described(of: Setting) -> str:
    """Say what is trained."""
    return (
        f"{of.n_sets} sets of {of.n_points} (published: 50000 of 500), {of.n_epochs} epochs in batches of "
        f"{of.batch_size}, width {of.hidden}, {LATENT} latent coordinates, 25 directions; every trained model has "
        f"{chosen_rate(of)}; {of.n_test} test sets of {of.test_points}"
    )


def chosen_rate(of: Setting) -> str:
    """Say how the learning rate was found."""
    if len(of.rates) == 1:
        return f"rate {of.rates[0]:g}"
    return "the better of rates 2e-4 and 1e-3, by its loss on a tenth of the sets that is left out of training"


def embedding(run: Run, sets: Tensor, encoder: str, maker: str) -> Callable[[], GDE]:
    """Return how to make an untrained model of these kinds."""
    d, h = sets.shape[2], setting(run).hidden
    return lambda: GDE(ENCODERS[encoder](d, h, run.seed), GENERATORS[maker](d, h, run.seed))


def wormhole(run: Run, sets: Tensor) -> Callable[[], Wormhole]:
    """Return how to make an untrained embedding by distances, with the attention encoder of its paper."""
    of = setting(run)
    encoder = ENCODERS["transformer"]
    return lambda: Wormhole(
        encoder(sets.shape[2], of.hidden, run.seed), of.wormhole_points, of.hidden, generator=run.seed
    )


def trained(
    run: Run,
    sets: Tensor,
    make: Callable[[], M],
    rate: float,
    n_epochs: int,
    *,
    mixer: DirichletMixer | None = None,
    split: bool = True,
) -> M:
    """Return a trained model."""
    of, model = setting(run), make()
    given = {"n_epochs": n_epochs, "batch_size": of.batch_size, "learning_rate": rate, "seed": run.seed}
    if isinstance(model, Wormhole):
        model.fit(sets, n_points=of.wormhole_points, progress=run.progress, **given)  # type: ignore[arg-type]
    else:
        model.fit(sets, mixer=mixer, split=split, progress=run.progress, **given)  # type: ignore[arg-type]
    return model


def best_of_rates(
    run: Run,
    sets: Tensor,
    make: Callable[[], M],
    n_epochs: int,
    *,
    mixer: DirichletMixer | None = None,
    split: bool = True,
) -> tuple[float, M]:
    """Return the rate with the lower loss on a tenth of the sets that is left out of training, and its model."""
    n_held_out = max(4, len(sets) // 10)
    shown, held_out = sets[n_held_out:], sets[:n_held_out]
    of = setting(run)
    models = {rate: trained(run, shown, make, rate, n_epochs, mixer=mixer, split=split) for rate in of.rates}
    best = min(of.rates, key=lambda rate: held_out_loss(models[rate], held_out, of.wormhole_points))
    return best, models[best]


def tuned(
    run: Run, sets: Tensor, make: Callable[[], M], *, mixer: DirichletMixer | None = None, split: bool = True
) -> M:
    """Return the model of the better rate."""
    return best_of_rates(run, sets, make, setting(run).n_epochs, mixer=mixer, split=split)[1]


@torch.no_grad()
def held_out_loss(model: GDE | Wormhole, sets: Tensor, n_points: int) -> float:
    """Return the training loss on sets that were not trained on, one half encoded and the other matched."""
    points = (sets - model.shift) / model.scale
    with seeded(0):
        if isinstance(model, Wormhole):
            return float(model.loss(points[:, :n_points]))
        half = points.shape[1] // 2
        return float(model.generator.loss(points[:, half:], model.encoder(points[:, :half])))  # type: ignore[operator]


def encoders(run: Run, sets: Tensor) -> dict[str, Callable[[], nn.Module]]:
    """Return how to make every encoder of the table: three that are trained, and two that are not.

    The kernel mean has the bandwidth from whose vectors a ridge regression best predicts mean and covariance root of
    a fifth of the training sets.
    """
    d, h = sets.shape[2], setting(run).hidden
    standard = (sets - sets.mean()) / sets.std()
    wanted = plug_in(*fitted_gaussians(standard)).numpy()
    held_out = len(sets) // 5

    def fit(bandwidth: float) -> float:
        z = KernelMeanEmbedding(d, LATENT, bandwidth, generator=run.seed)(standard).numpy()
        probe = Ridge(1e-3).fit(z[held_out:], wanted[held_out:])
        return float(probe.score(z[:held_out], wanted[:held_out]))

    best = max(BANDWIDTHS, key=fit)
    learned = {
        name: functools.partial(ENCODERS[name], d, h, run.seed) for name in ("graph-style", "residual", "transformer")
    }
    return {
        **learned,
        "mean": lambda: MeanEncoder(d, LATENT, generator=run.seed),
        "kernel mean": lambda: KernelMeanEmbedding(d, LATENT, best, generator=run.seed),
    }
