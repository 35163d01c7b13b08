"""Bounds of networks: CROWN against a textbook one, intervals against a forward pass, and loss fusion against none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import auto_lirpa
import harness
import torch
from torch import Tensor, nn

from offprint.methods.certify.lirpa.bounds import BoundedModule
from offprint.methods.certify.lirpa.perturbations import LpBall
from offprint.methods.certify.lirpa.training import certified_loss
from offprint.models.mlp import MLP
from offprint.models.resnet import ResNet


def comparisons() -> Iterator[harness.Comparison]:
    """Yield the comparisons that the paper's targets name."""
    torch.manual_seed(0)
    mlp = MLP(784, [256, 256], 10, generator=0).eval().requires_grad_(False)
    yield _against_textbook(mlp, torch.rand(16, 784))
    yield _intervals("MLP 784-256-256-10", mlp, torch.rand(16, 784))
    for name in NETWORKS:
        for batch in (1, 64):
            yield _intervals(name, *_network(name, batch))
            yield _crown(name, batch)
    for n_classes in (10, 50, 200):
        yield _fusion(n_classes)


class Attention(nn.Module):
    """One block of self-attention over tokens of length 16, written with plain products."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.out = nn.Linear(16, width), nn.Linear(width, 10)
        self.query, self.key, self.value, self.join = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]), -1)
        x = x + self.join((weights @ value).transpose(1, 2).reshape(x.shape))
        outputs: Tensor = self.out((x + self.down(torch.relu(self.up(x)))).mean(1))
        return outputs

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


def _convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 64, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense 784-256-256-256-10": (lambda: MLP(784, [256, 256, 256], 10), (784,)),
    "convolutional, 32×32": (_convolutional, (3, 32, 32)),
    "residual, 16×16": (lambda: ResNet(3, 10, widths=(8, 16), n_blocks=(1, 1)), (3, 16, 16)),
    "attention, 8 tokens": (Attention, (8, 16)),
}
EPS = 2 / 255
BALL = LpBall(math.inf, EPS)


def _network(name: str, batch: int) -> tuple[nn.Module, Tensor]:
    """Return a network with the weights that it is made with, and inputs."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    return make().eval().requires_grad_(False), torch.rand(batch, *shape)


def _intervals(name: str, model: nn.Module, x: Tensor) -> harness.Comparison:
    return harness.compare(
        f"IBP, {name}, batch {len(x)}",
        _bounds(model, x, "ibp"),
        _forward(model, x),
        peer_name="one forward pass",
        target=0.25,
    )


def _crown(name: str, batch: int) -> harness.Comparison:
    """Compare with auto_LiRPA where it is installed, else with bounding one sample after the other."""
    model, x = _network(name, batch)
    title = f"CROWN, {name}, batch {batch}"
    if not auto_lirpa.is_installed():
        one = _bounds(model, x[:1], "crown")
        return harness.compare(
            title,
            _bounds(model, x, "crown"),
            lambda: [one() for _ in range(batch)],
            peer_name="one sample after the other",
            repeats=3,
        )
    peer = auto_lirpa.crown(model, x, EPS, matrices=name.startswith("attention"))
    ours = BoundedModule(model, x).compute_bounds(x, BALL)
    lower, upper = peer()
    assert ours.lower is not None
    assert ours.upper is not None
    looser = max(float((lower - ours.lower).max()), float((ours.upper - upper).max()))
    megabytes = [_peak(side, name, batch) for side in ("ours", "peer")]
    return harness.compare(
        title,
        _bounds(model, x, "crown"),
        peer,
        peer_name="auto_LiRPA 0.3",
        target=1.0,
        repeats=3,
        note=f"ours looser by at most {looser:.1e} (the peer takes softmax apart); mean width ours "
        f"{float((ours.upper - ours.lower).mean()):.6f}, peer {float((upper - lower).mean()):.6f}; memory above the "
        f"start ours {megabytes[0]:.0f} MB, peer {megabytes[1]:.0f} MB",
    )


def _peak(side: str, name: str, batch: int) -> float:
    """Return by how many megabytes a process of its own grows when it finds the bounds once (on Linux)."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_grown, side, name, batch).result()


def _grown(side: str, name: str, batch: int) -> float:
    model, x = _network(name, batch)
    matrices = name.startswith("attention")
    work: Callable[[], object] = (
        _bounds(model, x, "crown") if side == "ours" else auto_lirpa.crown(model, x, EPS, matrices=matrices)
    )
    start = _largest_so_far()
    work()
    return (_largest_so_far() - start) / 1024


def _largest_so_far() -> int:
    """Return the largest memory of this process in kilobytes; the resource module counts that of its parent too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


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
    ours = BoundedModule(mlp, x).compute_bounds(x, LpBall(math.inf, 0.02))
    lower, upper = _textbook_crown(layers, x, 0.02)
    assert ours.lower is not None
    assert ours.upper is not None
    # Ours intersects with intervals on the way, so it may be tighter.
    assert bool((ours.lower >= lower - 1e-4).all())
    assert bool((ours.upper <= upper + 1e-4).all())
    return harness.compare(
        "CROWN, MLP 784-256-256-10, batch 16",
        _bounds(mlp, x, "crown"),
        lambda: _textbook_crown(layers, x, EPS),
        peer_name="textbook CROWN for dense ReLU networks",
        target=0.5,
        note="the peer is batched, works with matrices, has no graph and bounds every neuron",
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
