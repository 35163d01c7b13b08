"""Bounds of networks: CROWN against a textbook one, intervals against a forward pass, and loss fusion against none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import harness
import torch
from torch import Tensor, nn

from offprint.methods.certify.lirpa.bounds import BoundedModule
from offprint.methods.certify.lirpa.perturbations import LpBall
from offprint.methods.certify.lirpa.training import certified_loss
from offprint.models.mlp import MLP
from offprint.models.resnet import ResNet
from offprint.models.transformer import TransformerEncoder

BALL = LpBall(math.inf, 0.02)


def comparisons() -> Iterator[harness.Comparison]:
    """Yield the comparisons that the paper's targets name."""
    torch.manual_seed(0)
    mlp = MLP(784, [256, 256], 10, generator=0).eval().requires_grad_(False)
    yield _against_textbook(mlp, torch.rand(16, 784))
    for name, model, shape in _networks():
        for batch in (1, 64):
            x = torch.rand(batch, *shape)
            yield harness.compare(
                f"IBP, {name}, batch {batch}",
                _bounds(model, x, "ibp"),
                _forward(model, x),
                peer_name="one forward pass",
                target=0.25,
            )
            yield harness.compare(
                f"CROWN, {name}, batch {batch}",
                _bounds(model, x, "crown"),
                _forward(model, x),
                peer_name="one forward pass",
                repeats=3,
                note="for the record of times: bounds of n neurons are about 2 n forward passes",
            )
    for n_classes in (10, 50, 200):
        yield _fusion(n_classes)


def _networks() -> Iterator[tuple[str, nn.Module, tuple[int, ...]]]:
    convolutional = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
    attention = TransformerEncoder(32, 1, 4, 10, in_features=16, max_length=8, pooling="mean", activation=nn.ReLU)
    for name, model, shape in (
        ("dense 784-256-256-10", MLP(784, [256, 256], 10), (784,)),
        ("convolutional, 28×28", convolutional, (1, 28, 28)),
        ("residual, 16×16", ResNet(3, 10, widths=(8, 16), n_blocks=(1, 1)), (3, 16, 16)),
        ("attention, 8 tokens", attention, (8, 16)),
    ):
        yield name, model.eval().requires_grad_(False), shape


def _bounds(model: nn.Module, x: Tensor, method: str) -> Callable[[], object]:
    bounded = BoundedModule(model, x)
    return lambda: bounded.compute_bounds(x, BALL, method)


def _forward(model: nn.Module, x: Tensor) -> Callable[[], object]:
    def forward() -> Tensor:
        with torch.no_grad():
            outputs: Tensor = model(x)
        return outputs

    return forward


def _against_textbook(mlp: MLP, x: Tensor) -> harness.Comparison:
    layers = [module for module in mlp.modules() if isinstance(module, nn.Linear)]
    ours = BoundedModule(mlp, x).compute_bounds(x, BALL)
    lower, upper = _textbook_crown(layers, x, 0.02)
    assert ours.lower is not None
    assert ours.upper is not None
    # Ours intersects with intervals on the way, so it may be tighter.
    assert bool((ours.lower >= lower - 1e-4).all())
    assert bool((ours.upper <= upper + 1e-4).all())
    return harness.compare(
        "CROWN, MLP 784-256-256-10, batch 16",
        _bounds(mlp, x, "crown"),
        lambda: _textbook_crown(layers, x, 0.02),
        peer_name="textbook CROWN for dense ReLU networks",
        target=0.5,
        note="the peer is batched, works with matrices, has no graph and bounds every neuron; the released auto_LiRPA "
        "(0.3) does not import with this torch",
    )


def _textbook_crown(layers: list[nn.Linear], x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return CROWN's bounds of a network of linear layers with ReLU between, adaptive slopes, written straight down."""
    known: list[tuple[Tensor, Tensor]] = []
    for depth in range(1, len(layers) + 1):
        n = layers[depth - 1].out_features
        ends = []
        for sign in (1.0, -1.0):
            rows = sign * torch.eye(n).expand(len(x), n, n)
            constant = torch.zeros(len(x), n)
            for i in range(depth - 1, -1, -1):
                constant = constant + rows @ layers[i].bias
                rows = rows @ layers[i].weight
                if i > 0:
                    low, high = known[i - 1]
                    chord = high.relu() / (high.relu() - (-(-low).relu())).clamp(min=1e-12)
                    slope = torch.where(low >= 0, 1.0, torch.where(high > -low, 1.0, 0.0))
                    chord = torch.where(low >= 0, 1.0, chord)
                    offset = torch.where((low < 0) & (high > 0), -chord * low, 0.0)
                    up, down = rows.clamp(min=0), rows.clamp(max=0)
                    constant = constant + (down @ offset.unsqueeze(-1)).squeeze(-1)
                    rows = up * slope.unsqueeze(1) + down * chord.unsqueeze(1)
            least = constant + (rows @ x.unsqueeze(-1)).squeeze(-1) - eps * rows.abs().sum(-1)
            ends.append(sign * least)
        known.append((ends[0], ends[1]))
    return known[-1]


def _fusion(n_classes: int) -> harness.Comparison:
    sizes = [16, 32]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([3, *sizes]):
        layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, n_classes))
    x, y = torch.rand(64, 3, 16, 16), torch.randint(n_classes, (64,))
    bounded = BoundedModule(model, x)

    def step(fusion: bool) -> Callable[[], object]:
        def one() -> None:
            model.zero_grad()
            certified_loss(bounded, x, y, BALL, "crown-ibp", fusion).backward()  # type: ignore[no-untyped-call]

        return one

    return harness.compare(
        f"a CROWN-IBP training step, {n_classes} classes, batch 64",
        step(True),
        step(False),
        peer_name="without loss fusion",
        target=5.0 if n_classes == 200 else None,
        repeats=3,
    )
