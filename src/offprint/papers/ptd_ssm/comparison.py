"""The models that the claims compare, and how each of them is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from offprint.methods.nn.ptd_ssm import (
    PTD,
    SequenceModel,
    hippo_legs,
    parameter_groups,
    perturb_then_diagonalize,
)
from offprint.models.evaluation import evaluate
from offprint.models.training import train
from offprint.papers.run import Run

LEARNING_RATES = (1e-3, 4e-3)
DYNAMICS_RATE = 1e-3
LAYER_SIZE = 1e-2
"""‖E‖/‖A‖ of the layers that are trained: in the range where the paper's ablation finds good accuracy."""

Pair = tuple[Tensor, Tensor]
Build = Callable[[float, torch.Generator], SequenceModel]


class Splits(NamedTuple):
    """Inputs and targets to train on, to choose the learning rate on, and to report."""

    train: Pair
    validation: Pair
    test: Pair


@dataclass(frozen=True)
class Setting:
    """The shape that all models of one comparison share."""

    d_in: int
    d_out: int
    n_state: int = 64
    d_model: int = 16
    n_layers: int = 2
    norm: Literal["layer", "none"] = "layer"
    pooling: Literal["mean", "last", "none"] = "mean"
    delta_range: tuple[float, float] = (1e-3, 1e-1)
    max_iter: int = 500


@dataclass(frozen=True)
class Plan:
    """How all models of one comparison are trained."""

    loss: Callable[[Any, Any], Tensor]
    n_epochs: int
    batch_size: int = 50
    rates: tuple[float, ...] = LEARNING_RATES


def builders(setting: Setting) -> dict[str, Build]:
    """Return, by name, what builds each model of a comparison from a learning rate and a generator."""
    ptd = shared_ptd(setting.n_state, setting.max_iter)
    random = shared_ptd(setting.n_state, setting.max_iter, "ginibre")
    return {
        "S4-PTD": state_space(setting, "s4d", init=ptd),
        "S4D": state_space(setting, "s4d", init="legs"),
        "S4D-Lin": state_space(setting, "s4d", init="lin"),
        "S4D-Inv": state_space(setting, "s4d", init="inv"),
        "S4-PTD, random E": state_space(setting, "s4d", init=random),
        "S4 (16 states)": state_space(replace(setting, n_state=16), "s4dplr"),
        "S5-PTD": state_space(setting, "s5", init=ptd),
        "S5": state_space(setting, "s5", init="hippo"),
        "GRU": _gated_recurrent(setting),
    }


@cache
def shared_ptd(n_state: int, max_iter: int, method: Literal["optimize", "ginibre"] = "optimize") -> PTD:
    """Return the perturbed HiPPO-LegS matrix that all PTD layers of a comparison start from."""
    return perturb_then_diagonalize(hippo_legs(n_state)[0], LAYER_SIZE, method=method, max_iter=max_iter)


def state_space(setting: Setting, layer: Literal["s4d", "s5", "s4dplr"], **options: Any) -> Build:
    """Return what builds a model of state-space layers whose dynamics learn at ``DYNAMICS_RATE``."""

    def build(rate: float, generator: torch.Generator) -> SequenceModel:
        dynamics = {"n_state": setting.n_state, "delta_range": setting.delta_range, "lr_scale": DYNAMICS_RATE / rate}
        return _model(setting, setting.d_model, layer, generator, **dynamics, **options)

    return build


def _gated_recurrent(setting: Setting) -> Build:
    """Return what builds the GRU whose parameters are nearest in number to those of S4D."""

    def build(rate: float, generator: torch.Generator) -> SequenceModel:
        wanted = _count(state_space(setting, "s4d", init="legs")(rate, torch.Generator()))
        sizes = {width: _count(_model(setting, width, "gru", torch.Generator())) for width in range(4, 128, 2)}
        width = min(sizes, key=lambda candidate: abs(sizes[candidate] - wanted))
        return _model(setting, width, "gru", generator)

    return build


def _model(
    setting: Setting,
    width: int,
    layer: Literal["s4d", "s5", "s4dplr", "gru"],
    generator: torch.Generator,
    **options: Any,
) -> SequenceModel:
    return SequenceModel(
        setting.d_in,
        setting.d_out,
        setting.n_layers,
        width,
        layer,
        norm=setting.norm,
        pooling=setting.pooling,
        generator=generator,
        **options,
    )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def best_of(run: Run, label: str, build: Build, splits: Splits, plan: Plan) -> SequenceModel:
    """Train at each learning rate and return the model with the lowest loss on the validation data."""
    trained = []
    for rate in plan.rates:
        model = build(rate, run.generator(10)).to(run.device)
        train(
            model,
            plan.loss,
            splits.train,
            n_epochs=plan.n_epochs,
            batch_size=plan.batch_size,
            optimizer=torch.optim.AdamW(parameter_groups(model, rate, weight_decay=0.01), fused=True),
            schedule="cosine",
            generator=run.seed,
            progress=partial(_report, run, f"{label}, learning rate {rate:g}"),
        )
        trained.append((evaluate(model, plan.loss, splits.validation), model))
    return min(trained, key=lambda pair: pair[0])[1]


def _report(run: Run, label: str, done: float, total: float, _: str) -> None:
    run.progress(done, total, label)


def rates(run: Run) -> tuple[float, ...]:
    """Return the learning rates that every model is tuned over; below full scale there is one."""
    return run.pick(smoke=LEARNING_RATES[1:], quick=LEARNING_RATES[1:], full=LEARNING_RATES)


def iterations(run: Run) -> int:
    """Return how long a perturbation is optimised."""
    return run.pick(smoke=10, quick=500, full=500)
