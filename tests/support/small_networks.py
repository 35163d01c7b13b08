"""Small networks of the usual kinds, in double precision, and captured once for all tests of a process."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offprint.methods.certify.lirpa.bounds import BoundedModule


def mlp(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


class Affine(nn.Module):
    """Convolution, batch norm, pooling, a residual and a concatenation: affine from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.pool = nn.AvgPool2d(2)
        self.last = nn.Linear(8 * 4, 3)
        self.norm.running_mean = torch.randn(4)
        self.norm.running_var = torch.rand(4) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.first(x))
        hidden = hidden + self.second(hidden)
        return self.last(torch.cat([self.pool(hidden), self.pool(-hidden)], 1).flatten(1))


class Residual(nn.Module):
    """Strided convolutions with a skip and changes in place, a transposed one, and a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.up = nn.ConvTranspose2d(3, 2, 2, stride=2)
        self.last = nn.Linear(2 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.first(x)), inplace=True)
        other = self.second(hidden)
        other += hidden
        return self.last(F.max_pool2d(self.up(F.relu_(other)), 2).flatten(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.inner = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.last((x + F.gelu(self.inner(x))).mean(1))


class Recurrent(nn.Module):
    def __init__(self, layer: type[nn.RNNBase], **options: bool) -> None:
        super().__init__()
        self.layer = layer(2, 3, batch_first=True, **options)
        self.last = nn.Linear(6 if options.get("bidirectional") else 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x)[0][:, -1])


class Twice(nn.Module):
    """A node used twice, a shared layer, a dense concatenation and two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.last = nn.Linear(12, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        f = self.shared(x).relu()
        g = x * f + f
        h = self.shared(g).tanh() - y
        return self.last(torch.cat([x, g, h * y], 1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: mlp(4, 8, 8, 3), (4,)),
    "affine": (Affine, (2, 4, 4)),
    "residual": (Residual, (1, 6, 6)),
    "attention": (Attention, (2, 4)),
    "lstm": (lambda: Recurrent(nn.LSTM), (2, 2)),
    "gru": (lambda: Recurrent(nn.GRU), (2, 2)),
    "rnn": (lambda: Recurrent(nn.RNN, bidirectional=True), (2, 2)),
}


@functools.cache
def captured(name: str, samples: int = 2) -> tuple[nn.Module, Tensor, BoundedModule]:
    """Return a network, inputs for it, and the network captured for them; nobody may change its weights."""
    with torch.random.fork_rng():
        torch.manual_seed(sorted(NETWORKS).index(name))
        make, shape = NETWORKS[name]
        model = make().double().eval()
        x = torch.randn(samples, *shape, dtype=torch.float64)
    return model, x, BoundedModule(model, x)
