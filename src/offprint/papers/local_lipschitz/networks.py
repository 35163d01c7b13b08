"""The networks and the data of the claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from offprint.models.batches import Data
from offprint.models.evaluation import cross_entropy
from offprint.models.mlp import MLP
from offprint.models.randomness import seeded
from offprint.models.training import train
from offprint.papers.run import Run

N_FEATURES, N_LEADERS, N_CLASSES = 16, 80, 10


def leaders(run: Run, n: int) -> tuple[Tensor, Tensor]:
    """Draw points in the unit cube, each with the class of the nearest of 80 random leaders."""
    rng = run.rng(1)
    centres, classes = rng.uniform(size=(N_LEADERS, N_FEATURES)), rng.integers(N_CLASSES, size=N_LEADERS)
    points = rng.uniform(size=(n, N_FEATURES))
    return torch.as_tensor(points), torch.as_tensor(classes[_nearest(points, centres)])


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = ((centres**2).sum(1) - 2 * points @ centres.T).argmin(1)
    return nearest


def tiny_network(run: Run, width: int) -> tuple[nn.Module, Tensor]:
    """Train a perceptron of three layers on the leaders' data; returns it with points that it was not trained on."""
    n = run.pick(smoke=500, quick=10_000, full=10_000)
    points, labels = leaders(run, n)
    model = MLP(N_FEATURES, [width, width], N_CLASSES, generator=run.generator(2)).double()
    n_train = int(0.9 * n)
    data = (points[:n_train], labels[:n_train])
    train(
        model,
        cross_entropy,
        data,
        n_epochs=run.pick(smoke=1, quick=20, full=40),
        learning_rate=5e-3,
        generator=run.generator(3),
    )
    return model, points[n_train:]


def linear_layers(model: nn.Module) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the weights and biases of a perceptron, in order."""
    found = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in found]


@dataclass(frozen=True)
class Digits:
    """Images with pixels in [0, 1] of shape (n, 1, side, side), and their classes."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def digits(run: Run, name: str, n_train: int | None = None) -> Digits:
    """Return 8x8 digits or MNIST in float32."""
    parts = []
    for split in ("train", "test"):
        data = run.data(name, split=split)
        images = torch.as_tensor(np.asarray(data.inputs), dtype=torch.float32)
        side = 8 if name == "digits" else 28
        images = images.reshape(-1, 1, side, side)
        parts.append((images / images.max(), torch.as_tensor(data.targets)))
    (x, y), test = parts
    return Digits((x[:n_train], y[:n_train]), test)


def fitted(run: Run, model: nn.Module, data: Data, n_epochs: int, learning_rate: float = 2e-3) -> nn.Module:
    """Train a classifier and leave it in evaluation mode."""
    train(model, cross_entropy, data, n_epochs=n_epochs, learning_rate=learning_rate, generator=run.generator(5))
    return model.eval()


def small_convnet(run: Run, side: int) -> nn.Module:
    """Two convolutions with stride 2 and two linear layers."""
    with seeded(run.generator(4)):
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * (side // 4) ** 2, 64),
            nn.ReLU(),
            nn.Linear(64, N_CLASSES),
        )


class MonotoneScore(nn.Module):
    """A score that grows with some features by construction: no negative weight on any path from them.

    The other features come in through a layer of their own, with weights of any sign.
    """

    def __init__(self, n_features: int, growing: Sequence[int], width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.growing = list(growing)
        with seeded(generator):
            self.first = nn.Linear(n_features, width)
            self.second = nn.Linear(width, width)
            self.last = nn.Linear(width, 1)
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Set negative weights on the way from the growing features to zero."""
        self.first.weight[:, self.growing] = self.first.weight[:, self.growing].clamp(min=0)
        self.second.weight.clamp_(min=0)
        self.last.weight.clamp_(min=0)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (batch, 1)."""
        scores: Tensor = self.last(torch.relu(self.second(torch.relu(self.first(x)))))
        return scores
