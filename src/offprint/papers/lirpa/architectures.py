"""The seven kinds of network of the first claim, written as anyone would write them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from offprint.models.convnet import ConvNet
from offprint.models.mlp import MLP
from offprint.models.randomness import seeded
from offprint.models.resnet import ResNet
from offprint.models.transformer import TransformerEncoder


class DenseNet(nn.Module):
    """Layers that each see the outputs of all before them."""

    def __init__(self, growth: int, n_layers: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, growth, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(growth * i), nn.ReLU(), nn.Conv2d(growth * i, growth, 3, padding=1, bias=False)
            )
            for i in range(1, n_layers + 1)
        )
        self.head = nn.Linear(growth * (n_layers + 1), 10)

    def forward(self, images: Tensor) -> Tensor:
        seen = self.stem(images)
        for layer in self.layers:
            seen = torch.cat([seen, layer(seen)], 1)
        outputs: Tensor = self.head(seen.relu().mean((2, 3)))
        return outputs


class ResNeXtBlock(nn.Module):
    """A residual branch whose middle convolution works on groups of channels by themselves."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = (images + self.branch(images)).relu()
        return outputs


def resnext(width: int, groups: int) -> nn.Module:
    """Return two blocks of groups between a strided convolution and a linear head."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1),
        nn.ReLU(),
        ResNeXtBlock(width, groups),
        ResNeXtBlock(width, groups),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    )


class Recurrent(nn.Module):
    """An LSTM over the rows of an image, read out at the last one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, rows: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.lstm(rows)[0][:, -1])
        return outputs


def architectures(size: int) -> dict[str, Callable[[], nn.Module]]:
    """Return what makes each network; ``size`` (1, 2, ...) scales the widths. Recurrent ones read rows of 8 pixels."""
    return {
        "MLP": lambda: MLP((1, 8, 8), [32 * size, 32 * size], 10),
        "CNN + BN": lambda: ConvNet(1, [4 * size, 8 * size], 10),
        "ResNet": lambda: ResNet(1, 10, widths=(4 * size, 8 * size), n_blocks=(1, 1)),
        "DenseNet": lambda: DenseNet(4 * size, 3),
        "ResNeXt": lambda: resnext(8 * size, 4),
        "Transformer": lambda: TransformerEncoder(
            8 * size, 1, 2, 10, in_features=8, positions="learned", max_length=8, pooling="mean", activation=nn.ReLU
        ),
        "LSTM": lambda: Recurrent(8 * size),
    }


def untrained(make: Callable[[], nn.Module], images: Tensor, generator: torch.Generator) -> nn.Module:
    """Return a network with its first weights, and statistics of batch norm from some images."""
    with seeded(generator):
        model = make().double()
    with torch.no_grad():
        for _ in range(20):
            model(images)
    return model.eval()
