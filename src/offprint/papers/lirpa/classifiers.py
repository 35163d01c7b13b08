"""Images, small classifiers and their training, for the claims about verified accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.attack.gradient import projected_gradient_descent
from offprint.methods.certify.lirpa.bounds import BoundedModule
from offprint.methods.certify.lirpa.perturbations import LpBall
from offprint.methods.certify.lirpa.training import EpsSchedule, certified_loss
from offprint.models.evaluation import predict
from offprint.models.randomness import seeded
from offprint.models.training import train
from offprint.papers.run import Run, Skip

Pair = tuple[Tensor, Tensor]
Loss = Callable[[nn.Module, Pair], Tensor]


@dataclass(frozen=True)
class Images:
    """Images with their classes, in three parts."""

    train: Pair
    validation: Pair
    test: Pair
    name: str


def digits(run: Run, n_test: int, n_train: int | None = None) -> Images:
    """Return 8 by 8 digits; a fifth of the training images (120 at most) is for validation."""
    return _images(run, "digits", n_test, n_train)


def largest(run: Run, n_test: int, n_train: int) -> Images:
    """Return MNIST where its files are and the scale is full, and digits otherwise."""
    if run.scale in ("full", "paper"):
        try:
            return _images(run, "mnist", n_test, n_train)
        except Skip:
            pass
    return digits(run, n_test)


def _images(run: Run, name: str, n_test: int, n_train: int | None) -> Images:
    parts = {}
    for stream, split in enumerate(("train", "test")):
        data = run.data(name, split=split)
        order = run.rng(100 + stream).permutation(len(data))
        parts[split] = tuple(torch.as_tensor(part[order], device=run.device) for part in (data.inputs, data.targets))
    (x, y), (x_test, y_test) = parts["train"], parts["test"]
    held_out = min(500, len(x) // 5)
    end = None if n_train is None else held_out + n_train
    return Images(
        (x[held_out:end], y[held_out:end]), (x[:held_out], y[:held_out]), (x_test[:n_test], y_test[:n_test]), name
    )


def convolutional(shape: tuple[int, ...], width: int, generator: torch.Generator, n_classes: int = 10) -> nn.Module:
    """Return two strided convolutions and two linear layers, as is usual where networks are certified."""
    channels, side = shape[0], shape[1]
    for _ in range(2):
        side = (side + 1) // 2
    with seeded(generator):
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * side**2, 8 * width),
            nn.ReLU(),
            nn.Linear(8 * width, n_classes),
        )


def cross_entropy(model: nn.Module, batch: Pair) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def trained(
    run: Run, images: Images, width: int, n_epochs: int, rate: float, label: str, robust: Robust | None = None
) -> nn.Module:
    """Train a network, naturally or on its bounds."""
    model = convolutional(tuple(images.train[0].shape[1:]), width, run.generator(1)).to(run.device)
    n_steps = n_epochs * (len(images.train[0]) // robust_batch(images))
    train(
        model,
        cross_entropy if robust is None else robust.loss(model, images, n_steps),
        images.train,
        n_epochs=n_epochs,
        batch_size=robust_batch(images),
        drop_last=True,
        learning_rate=rate,
        gradient_clip=8.0,
        schedule="cosine",
        generator=run.generator(2),
        progress=lambda done, total, _: run.progress(done, total, label),
    )
    return model


def robust_batch(images: Images) -> int:
    """Return the batch size: as many samples as leave at least ten steps an epoch, up to 100."""
    return min(100, max(10, len(images.train[0]) // 10))


@dataclass(frozen=True)
class Robust:
    """How to train on bounds: the last radius, and the method, which is mixed with intervals less and less."""

    eps: float
    method: Any

    def loss(self, model: nn.Module, images: Images, n_steps: int) -> Loss:
        """Return the loss, whose radius grows from a tenth of the steps to seven tenths of them."""
        bounded = BoundedModule(model, images.train[0][: robust_batch(images)])
        schedule = EpsSchedule(self.eps, start=n_steps // 10, length=max(1, 6 * n_steps // 10), kind="smoothed")
        step = 0

        def loss(network: nn.Module, batch: Pair) -> Tensor:
            nonlocal step
            eps, mix = schedule(step), schedule.mix(step)
            step += 1
            if eps == 0:
                return cross_entropy(network, batch)
            region = LpBall(float("inf"), eps, 0.0, 1.0)
            return certified_loss(bounded, *batch, region, self.method, mix=1.0 if self.method == "ibp" else mix)

        return loss


def attacked_accuracy(run: Run, model: nn.Module, test: Pair, eps: float, n_steps: int, n_restarts: int) -> float:
    """Return the share of images on which projected gradient descent finds no error, in percent."""
    x, y = test

    def margin(points: Tensor) -> Tensor:
        outputs = model(points)
        own = functional.one_hot(y, outputs.shape[1]).bool()
        worst: Tensor = outputs[own] - outputs.masked_fill(own, -float("inf")).amax(1)
        return worst

    found = projected_gradient_descent(
        margin,
        x,
        radius=eps,
        lower=0.0,
        upper=1.0,
        n_steps=n_steps,
        n_restarts=n_restarts,
        stop_below=0.0,
        generator=run.generator(9),
    )
    return 100 * float((found.values > 0).double().mean())


def clean_error(model: nn.Module, test: Pair) -> float:
    """Return the share of images whose class is wrong, in percent."""
    return 100 * float((predict(model, test[0]).argmax(1) != test[1]).double().mean())
