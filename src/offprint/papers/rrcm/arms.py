"""The arms that the claims compare: their data, pre-trainings, tuning and certificates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.certify.rrcm import (
    ConsistencyPretrainer,
    FineTuned,
    PatchEncoder,
    ResidualEncoder,
    finetune_smoothing,
)
from offprint.methods.certify.smoothing import Certificate, SmoothedClassifier, certified_accuracy
from offprint.methods.generate.diffusion import Denoiser, denoising_loss, probability_flow
from offprint.models.training import train
from offprint.papers.run import Run

RATES = (1e-3, 3e-3, 1e-2)
"""Learning rates of fine-tuning, the same three for every arm."""
WEIGHTS = (0.5, 1.0, 2.0, 5.0)
"""Of the consistency regulariser, beside 0."""
ETA = 0.5
ALPHA = 0.001
CLEAN = 1e-3
"""A noise level that stands for none."""

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    data: str
    sigmas: tuple[float, ...]
    n_train: int
    n_validation: int
    n_test: int
    n_samples: int
    pretraining: int
    finetuning: int
    batch_size: int = 128
    width: int = 128
    rates: tuple[float, ...] = RATES
    weights: tuple[float, ...] = WEIGHTS
    ema: tuple[float, float] = (0.99, 0.999)

    @property
    def note(self) -> str:
        """What was shrunk, in a sentence."""
        return (
            f"{self.data}, {self.n_train} training images, {self.pretraining} pre-training and {self.finetuning} "
            f"fine-tuning steps of {self.batch_size}, {self.n_test} test images with {self.n_samples} copies each"
        )


SMOKE = Setting("digits", (0.3,), 100, 60, 6, 60, 4, 4, 32, 16, (1e-2,), (1.0,))
QUICK = Setting("digits", (0.15, 0.3), 1142, 300, 120, 500, 800, 150, 64, ema=(0.9, 0.99))
FULL = Setting("mnist", (0.25, 0.5), 10_000, 2000, 200, 2000, 20_000, 400, 64)
PAPER = Setting("cifar10", (0.25, 0.5, 1.0), 45_000, 5000, 500, 100_000, 300_000, 4500, 1024, ema=(0.99, 0.9999))


@dataclass(frozen=True)
class Splits:
    """Images in [0, 1] with their classes."""

    train: Pair
    validation: Pair
    test: Pair


@dataclass
class Bench:
    """Everything the arms share for one seed: data, sizes and a count of what is still to be trained."""

    run: Run
    setting: Setting
    n_planned: int
    splits: Splits = field(init=False)
    n_done: int = 0

    def __post_init__(self) -> None:
        self.splits = load(self.run, self.setting)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image."""
        return tuple(self.splits.train[0].shape[1:])

    def step(self, label: str) -> Callable[[float, float, str], None]:
        """Return a progress callback for the next of the planned trainings."""
        done = self.n_done
        self.n_done += 1

        def report(steps: float, total: float, _: str) -> None:
            self.run.progress(done + steps / max(total, 1), max(self.n_planned, self.n_done), label)

        return report

    def encoder(self, stream: int = 1) -> ResidualEncoder | PatchEncoder:
        """Return a new encoder."""
        start = torch.Generator().manual_seed(int(self.run.rng(stream).integers(2**62)))
        if self.setting.data == "cifar10":
            return PatchEncoder(
                3, 32, 4, width=768, n_layers=12, n_heads=12,
                projection_width=256, projection_hidden=2048, generator=start,
            )  # fmt: skip
        return ResidualEncoder(self.shape, self.setting.width, n_layers=1, generator=start)

    def pretrained(self, label: str, n_steps: int | None = None, consistency_weight: float = 1.0) -> nn.Module:
        """Return an encoder trained on the training images without their classes."""
        encoder = self.encoder().to(self.run.device)
        flip = self.setting.data == "cifar10"
        ConsistencyPretrainer(
            encoder,
            lambda images: jitter(images, flip),
            n_steps=self.setting.pretraining if n_steps is None else n_steps,
            batch_size=self.setting.batch_size,
            learning_rate=1e-4 if flip else 1e-3,
            consistency_weight=consistency_weight,
            ema=self.setting.ema,
            generator=self.run.generator(2),
        ).fit(self.splits.train[0], progress=self.step(label))
        return encoder

    def tuned(
        self,
        encoder: nn.Module | None,
        sigma: float,
        rate: float,
        weight: float,
        label: str,
        labelled: Pair | None = None,
    ) -> FineTuned:
        """Fine-tune a copy of a pre-trained encoder, or train a new one, with one learning rate and weight."""
        return finetune_smoothing(
            self.encoder().to(self.run.device) if encoder is None else encoder,
            *(self.splits.train if labelled is None else labelled),
            sigma,
            weight,
            ETA if weight else 0.0,
            num_classes=10,
            validation=self.splits.validation,
            n_steps=self.setting.finetuning,
            batch_size=self.setting.batch_size,
            learning_rate=rate,
            layer_decay=1.0 if encoder is None else 0.75,
            validate_every=10**6,
            generator=self.run.generator(3),
            progress=self.step(label),
        )

    def best_plain(
        self, encoder: nn.Module | None, sigma: float, label: str, labelled: Pair | None = None
    ) -> tuple[FineTuned, float]:
        """Return the fine-tuning without regulariser of the best rate by noisy validation accuracy, and that rate."""
        tried = [(self.tuned(encoder, sigma, rate, 0.0, label, labelled), rate) for rate in self.setting.rates]
        return max(tried, key=lambda pair: pair[0].noisy_accuracy)

    def best_regularized(
        self,
        encoder: nn.Module | None,
        sigma: float,
        plain: tuple[FineTuned, float],
        label: str,
        labelled: Pair | None = None,
    ) -> tuple[FineTuned, float]:
        """Return the fine-tuning of the best weight by certified validation accuracy, and that weight (0 is plain).

        Runs that collapsed are void, and are taken only if every one of them did.
        """
        tried = [(plain[0], 0.0)]
        tried += [
            (self.tuned(encoder, sigma, plain[1], weight, label, labelled), weight) for weight in self.setting.weights
        ]

        def score(pair: tuple[FineTuned, float]) -> tuple[bool, float]:
            held_out = tuple(part[: self.setting.n_test] for part in self.splits.validation)
            found = self.certificates(
                pair[0].classifier, sigma, (held_out[0], held_out[1]), n=min(200, self.setting.n_samples)
            )
            return not pair[0].collapsed, average(found, held_out[1], sigma)

        return max(tried, key=score)

    def certificates(
        self, base: nn.Module, sigma: float, pair: Pair | None = None, n: int | None = None
    ) -> list[Certificate]:
        """Certify the test images (or others)."""
        images = (self.splits.test if pair is None else pair)[0]
        n = self.setting.n_samples if n is None else n
        smoothed = SmoothedClassifier(base.eval(), sigma, 10, input_range=(0.0, 1.0))
        return smoothed.certify_many(images, min(100, n), n, ALPHA, batch=2000, generator=self.run.generator(4))


class OneShot(nn.Module):
    """Denoise, in one step or several, then classify: takes noisy images in [0, 1]."""

    def __init__(self, denoiser: Denoiser, classifier: nn.Module, sigma: float, n_steps: int = 1) -> None:
        super().__init__()
        self.denoiser, self.classifier = denoiser, classifier
        self.times = 2 * sigma * (1 - torch.arange(n_steps) / n_steps)

    def forward(self, images: Float[Tensor, "batch *input"]) -> Float[Tensor, "batch classes"]:
        """Return logits; pixels of standard deviation sigma are normalised ones at level 2 sigma."""
        clean = probability_flow(self.denoiser, 2 * images - 1, self.times)
        logits: Tensor = self.classifier((clean + 1) / 2)
        return logits


class DenoiserNetwork(nn.Module):
    """The encoder with an output of the input's shape in place of a projection."""

    def __init__(self, encoder: nn.Module, width: int, shape: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.encoder, self.shape = encoder, tuple(shape)
        self.head = nn.Linear(width, math.prod(shape))
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(self.head.weight.shape, generator=generator) / math.sqrt(width))
            self.head.bias.zero_()

    def forward(
        self, inputs: Float[Tensor, "batch *input"], code: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *input"]:
        """Return what the denoiser scales: the code is a quarter of the log of the noise level."""
        features: Tensor = self.encoder.features(inputs, (4 * code).exp())  # type: ignore[operator]
        outputs: Tensor = self.head(features).unflatten(1, self.shape)
        return outputs


def trained_denoiser(bench: Bench, n_steps: int, label: str, rates: Sequence[float] | None = None) -> Denoiser:
    """Return the denoiser of the best of the learning rates, by its loss at the levels of the noise to smooth with."""
    images, held_out = (2 * pair[0] - 1 for pair in (bench.splits.train, bench.splits.validation))
    levels = torch.tensor(bench.setting.sigmas).mul(2).repeat(len(held_out))[: len(held_out)].to(held_out.device)
    noise = torch.randn(held_out.shape, generator=torch.Generator().manual_seed(0)).to(held_out.device)

    def loss(model: Denoiser, batch: Tensor) -> Tensor:
        t = torch.exp(1.2 * torch.randn(len(batch), device=batch.device) - 1.2)
        return denoising_loss(model, batch, t, torch.randn_like(batch))

    def held_out_loss(model: Denoiser) -> float:
        with torch.no_grad():
            return float(denoising_loss(model, held_out, levels, noise))

    tried = []
    for rate in bench.setting.rates if rates is None else rates:
        encoder = bench.encoder()
        network = DenoiserNetwork(encoder, encoder.width, bench.shape, torch.Generator().manual_seed(bench.run.seed))
        model = Denoiser(network).to(held_out.device)
        train(
            model, loss, images, n_steps=n_steps, batch_size=bench.setting.batch_size, learning_rate=rate,
            schedule="cosine", generator=bench.run.generator(5), progress=bench.step(label),
        )  # fmt: skip
        tried.append((held_out_loss(model), model))
    return min(tried, key=lambda pair: pair[0])[1]


def load(run: Run, setting: Setting) -> Splits:
    """Draw training, validation and test images by the run's seed."""
    parts = [run.data(setting.data, split=split) for split in ("train", "test")]
    n, rng = setting.n_train + setting.n_validation, run.rng(0)
    seen = parts[0].take(rng.permutation(len(parts[0]))[:n])
    test = parts[1].take(rng.permutation(len(parts[1]))[: setting.n_test]).tensors(run.device)
    images, classes = seen.tensors(run.device)
    cut = setting.n_train
    return Splits((images[:cut], classes[:cut]), (images[cut:], classes[cut:]), test)


def jitter(
    images: Float[Tensor, "batch channels height width"], flip: bool
) -> Float[Tensor, "batch channels height width"]:
    """Return a random view: turned by up to 15 degrees, shifted and scaled by up to a tenth or so, dimmed, cut out."""
    n, side, device = len(images), images.shape[-1], images.device
    angle = (torch.rand(n, 1, 1, device=device) - 0.5) * (math.pi / 6)
    scale = 1 + 0.3 * (torch.rand(n, 1, 1, device=device) - 0.5)
    shift = 0.25 * (torch.rand(2, n, 1, 1, device=device) - 0.5)
    across = (2 * torch.arange(side, device=device) + 1) / side - 1
    x, y = across[None, None, :], across[None, :, None]
    if flip:
        x = x * torch.where(torch.rand(n, 1, 1, device=device) < 0.5, -1.0, 1.0)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    grid = torch.stack([cosine * x - sine * y + shift[0], sine * x + cosine * y + shift[1]], dim=-1)
    views = functional.grid_sample(images, grid, align_corners=False)
    views = views * (0.7 + 0.6 * torch.rand(n, 1, 1, 1, device=device))
    places = torch.arange(side, device=device)
    rows, columns = ((places - start).abs() < side // 8 for start in torch.randint(side, (2, n, 1), device=device))
    hole = rows[:, :, None] & columns[:, None, :]
    return views.masked_fill(hole[:, None], 0.0).clamp(0, 1)


def radii(sigma: float) -> list[float]:
    """Return the radii that are averaged: multiples of sigma / 2 up to 2 sigma."""
    return [k * sigma / 2 for k in range(5)]


def average(certificates: Sequence[Certificate], classes: Tensor, sigma: float) -> float:
    """Return the certified accuracy averaged over the radii."""
    return float(np.mean(certified_accuracy(certificates, classes.cpu().numpy(), radii(sigma))))
