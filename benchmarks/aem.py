"""Attention entropy maximization: training steps against the same layers written bare, and against torchmil."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import harness
import torch
from torch import nn

from offprint.methods.bags.aem import AEMLoss, GatedABMIL

N_PATCHES, WIDTH = 20_000, 384
TARGET = torch.tensor([1])


class Bare(nn.Module):
    """Gated attention pooling with the layers of ``GatedABMIL``, for one bag and with nothing around them."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Linear(WIDTH, 128, bias=False)
        self.content, self.gate, self.score = nn.Linear(128, 128), nn.Linear(128, 128), nn.Linear(128, 1)
        self.classifier = nn.Linear(128, 2)

    def forward(self, bag: torch.Tensor) -> torch.Tensor:
        rows = self.reduce(bag).relu()
        attention = self.score(self.content(rows).tanh() * self.gate(rows).sigmoid()).T.softmax(1)
        return self.classifier(attention @ rows)


def comparisons() -> Iterator[harness.Comparison]:
    """Yield the comparisons that the paper's targets name."""
    bag = torch.randn(N_PATCHES, WIDTH, generator=torch.Generator().manual_seed(0))
    model, bare, loss = GatedABMIL(WIDTH, generator=0), Bare(), AEMLoss(weight=0.1)
    plain = nn.CrossEntropyLoss()
    step = _step(model, lambda: loss(model(bag), TARGET))
    yield harness.within(f"{N_PATCHES} patches of width {WIDTH}, forward and backward", step, 0.25)
    yield harness.compare(
        "ABMIL with the entropy term",
        step,
        _step(bare, lambda: plain(bare(bag), TARGET)),
        peer_name="the same layers written bare, without it",
        target=1 / 1.1,
        repeats=15,
        note="forward and backward pass of one slide",
    )
    without = _step(model, lambda: plain(model(bag).logits, TARGET))
    yield harness.compare(
        "the entropy term", step, without, peer_name="the same model without it", target=1 / 1.05, repeats=15
    )
    yield from _against_torchmil(bag)


def _against_torchmil(bag: torch.Tensor) -> Iterator[harness.Comparison]:
    """Compare on reduced features, which is where torchmil's model begins, if it is installed."""
    try:
        from torchmil.models import ABMIL
    except ImportError:
        return
    reduce = nn.Sequential(nn.Linear(WIDTH, 128, bias=False), nn.ReLU())
    peer = ABMIL((WIDTH,), att_dim=128, gated=True, feat_ext=reduce)
    model, loss = GatedABMIL(WIDTH, generator=0), AEMLoss(weight=0.1)
    yield harness.compare(
        "ABMIL with the entropy term",
        _step(model, lambda: loss(model(bag), TARGET)),
        _step(peer, lambda: nn.functional.binary_cross_entropy_with_logits(peer(bag[None]), TARGET.float())),
        peer_name="torchmil's ABMIL, without it",
        repeats=15,
        note="the peer has one logit",
    )


def _step(model: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad()
        loss().backward()

    return step
