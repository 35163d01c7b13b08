"""Speed of the learned monoid: against PyTorch Geometric's, against a recurrence, and a scan against a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from harness import Comparison, compare
from torch import Tensor, nn
from torch_geometric.nn.aggr import LCMAggregation as TheirAggregation

from offprint.methods.bags.lcm import LCMAggregation
from offprint.methods.bags.lcm_aggregators import GRUAggregation
from offprint.methods.bags.lcm_fold import associative_scan


def comparisons() -> Iterator[Comparison]:
    """Yield one comparison for each speed target of the brief, and prefixes of 10^3 to 10^5 elements."""
    ours, theirs = LCMAggregation(32, 32, shuffle=False, generator=0), TheirAggregation(32, 32)
    for name, sizes, target in (
        ("256 sets of 32", [32] * 256, 1 / 1.2),
        ("one set of 4096 beside 512 of 4", [4096] + [4] * 512, 5.0),
    ):
        x = torch.randn(sum(sizes), 32)
        index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        yield compare(
            f"forward and backward, {name}",
            forward_backward(ours, x, index),
            forward_backward(theirs, x, index),
            peer_name="PyTorch Geometric's LCMAggregation",
            target=target,
            repeats=5,
        )

    recurrent = GRUAggregation(64, 64, generator=0)
    folded = LCMAggregation(64, 64, generator=0)
    x, index = torch.randn(8 * 1024, 64), torch.arange(8).repeat_interleave(1024)
    yield compare(
        "forward and backward, 8 sets of 1024",
        forward_backward(folded, x, index),
        forward_backward(recurrent, x, index),
        peer_name="a GRU over the elements",
        target=1 / 0.3,
        repeats=5,
    )

    for n in (1000, 10_000, 100_000):
        matrices = torch.eye(2) + torch.randn(n, 2, 2) / n
        yield compare(
            f"prefixes of {n} products of matrices",
            lambda matrices=matrices: associative_scan(torch.matmul, matrices),
            lambda matrices=matrices: by_loop(matrices),
            peer_name="a loop over elements",
            repeats=3,
            note=f"at most {2 * (n - 1).bit_length()} calls of the operator, one after the other, against {n - 1}",
        )


def forward_backward(aggregation: nn.Module, x: Tensor, index: Tensor) -> Callable[[], None]:
    """Return the work of one training step of an aggregator."""

    def work() -> None:
        aggregation.zero_grad()
        aggregation(x, index).sum().backward()

    return work


def by_loop(matrices: Tensor) -> Tensor:
    """Return all prefix products, one after the other."""
    found = [matrices[0]]
    for matrix in matrices[1:]:
        found.append(found[-1] @ matrix)
    return torch.stack(found)
