"""Smoothing certificates: within their time limit, against the plain procedure, and one pass against denoising."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import harness
import numpy as np
import torch
from scipy.stats import beta, norm
from torch import nn

from offprint.methods.certify.rrcm import NoisyClassifier, ResidualEncoder
from offprint.methods.certify.smoothing import SmoothedClassifier
from offprint.methods.generate.diffusion import Denoiser, probability_flow
from offprint.models.mlp import MLP


def comparisons() -> Iterator[harness.Comparison]:
    """Yield the comparisons that the paper's targets name."""
    generator = torch.Generator().manual_seed(0)
    mlp = MLP(64, [256, 256], 10, generator=generator).eval()
    images = torch.rand(200, 64, generator=generator)
    smoothed = SmoothedClassifier(mlp, 0.25, 10)
    yield harness.within(
        "200 certificates of 10,000 copies, an MLP on 64 numbers",
        lambda: smoothed.certify_many(images, n=10_000, batch=2000),
        60.0,
        repeats=3,
    )
    yield harness.compare(
        "20 certificates of 10,000 copies, an MLP on 64 numbers",
        lambda: smoothed.certify_many(images[:20], n=10_000, batch=2000),
        lambda: [_plain_certificate(mlp, x, 0.25, 10_000, 2000) for x in images[:20]],
        peer_name="a plain loop",
        target=1.0,
        note="the peer repeats the input, adds noise, and counts labels in NumPy, as published code does",
    )
    one_pass, multi_step = _one_pass(generator), _multi_step(generator)
    digits = torch.rand(2, 1, 28, 28, generator=generator)
    for n_steps in (1, 10, 40):
        yield harness.compare(
            "certificates of 1,000 copies, 28×28 images, in one pass",
            _certify(one_pass, digits),
            _certify(multi_step(n_steps), digits),
            peer_name=f"denoised in {n_steps} step{'s' if n_steps > 1 else ''}, then classified",
            target=1.0,
            repeats=3,
            note="denoiser and classifier are of the same small size, so the ratio comes from the number of passes",
        )


def _plain_certificate(model: nn.Module, x: torch.Tensor, sigma: float, n: int, batch: int) -> tuple[int, float]:
    def counts(num: int) -> np.ndarray:
        found = np.zeros(10, dtype=int)
        with torch.no_grad():
            while num > 0:
                size = min(batch, num)
                num -= size
                copies = x.repeat((size, 1))
                labels = model(copies + torch.randn_like(copies) * sigma).argmax(1).cpu().numpy()
                for label in labels:
                    found[label] += 1
        return found

    label = counts(100).argmax().item()
    met = counts(n)[label].item()
    lower = beta.ppf(0.001, met, n - met + 1) if met else 0.0
    return (-1, 0.0) if lower < 0.5 else (label, sigma * norm.ppf(lower))


def _certify(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    smoothed = SmoothedClassifier(model.eval(), 0.5, 10)
    return lambda: smoothed.certify_many(images, n=1000)


def _one_pass(generator: torch.Generator) -> NoisyClassifier:
    encoder = ResidualEncoder((1, 28, 28), 128, 1, generator=generator)
    return NoisyClassifier(encoder, nn.Linear(128, 10), t=1.0)


class _Inner(nn.Module):
    def __init__(self, encoder: ResidualEncoder) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.width, 784)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder.features(x, (4 * code).exp())).unflatten(1, x.shape[1:])


class _Denoised(nn.Module):
    def __init__(self, denoiser: Denoiser, classifier: nn.Module, n_steps: int) -> None:
        super().__init__()
        self.denoiser, self.classifier = denoiser, classifier
        self.times = 1 - torch.arange(n_steps) / n_steps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier((probability_flow(self.denoiser, 2 * images - 1, self.times) + 1) / 2)


def _multi_step(generator: torch.Generator) -> Callable[[int], nn.Module]:
    denoiser = Denoiser(_Inner(ResidualEncoder((1, 28, 28), 128, 1, generator=generator)))
    classifier = _one_pass(generator)
    return lambda n_steps: _Denoised(denoiser, classifier, n_steps)
