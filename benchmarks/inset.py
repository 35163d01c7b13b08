"""Speed and memory of a mean-field step: sums changed by one element at a time, against a product for every subset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from harness import Comparison, compare, within
from torch import Tensor, nn

from offprint.data.subsets import gaussian_sets
from offprint.methods.bags.inset import SubsetSelector
from offprint.methods.bags.inset_utility import PreparedSets, SetUtility

N_SETS, N_SAMPLES, N_POINTS, FEATURES = 32, 5, 100, 256
CHUNK_SIZE = 160


def comparisons() -> Iterator[Comparison]:
    """Yield the sums alone, whole gains, and an epoch of training."""
    megabytes = [_peak(side) for side in ("ours", "peer")]
    yield compare(
        f"sums over all neighbours of {N_SAMPLES} subsets of {N_POINTS} elements, {N_SETS} sets",
        _sums("ours"),
        _sums("peer"),
        peer_name="a product of masks and elements",
        target=10.0,
        repeats=5,
        note=f"memory above the start: ours {megabytes[0]:.1f} MB, peer {megabytes[1]:.1f} MB, {FEATURES} features, "
        f"one thread; ours in chunks of {CHUNK_SIZE} elements",
    )
    utility = SetUtility(nn.Linear(2, FEATURES), FEATURES, generator=0)
    x, subsets = torch.randn(4, N_POINTS, 2), torch.rand(4, N_SAMPLES, N_POINTS) < 0.5
    yield compare(
        f"gains of all elements, {N_SAMPLES} subsets of {N_POINTS} elements, 4 sets",
        lambda: _without_gradients(lambda: utility.prepare(x).gains(subsets)),
        lambda: _without_gradients(lambda: _in_full(utility, x, subsets)),
        peer_name="the utility of every subset in full",
        repeats=5,
    )
    data = gaussian_sets(1000)
    selector = SubsetSelector(mode="diffMF", n_epochs=4)
    yield within(
        "4 epochs of 1000 sets of 100 elements, 5 masks, and the threshold",
        lambda: selector.fit(data.sets, data.chosen),
        4 * 12.0,
        repeats=1,
    )


def _sums(side: str, n_sets: int = N_SETS) -> Callable[[], Tensor]:
    """Return the work of summing S ∪ {i} and S without i for all i: by our way one of them, which is not S itself."""
    generator = torch.Generator().manual_seed(0)
    elements = torch.randn(n_sets, N_POINTS, FEATURES, generator=generator)
    subsets = torch.rand(n_sets, N_SAMPLES, N_POINTS, generator=generator) < 0.5
    if side == "ours":
        prepared = PreparedSets(
            elements,
            torch.zeros(n_sets, FEATURES),
            lambda sums: sums[..., :1].clone(),  # a view would keep all sums
            chunk_size=CHUNK_SIZE,
        )
        return lambda: prepared.gains(subsets)
    eye = torch.eye(N_POINTS, dtype=torch.bool)

    def product() -> Tensor:
        both = (subsets[:, :, None] | eye).float(), (subsets[:, :, None] & ~eye).float()
        inside, outside = (masks @ elements[:, None] for masks in both)
        return inside[..., 0] - outside[..., 0]

    return product


def _in_full(utility: SetUtility, x: Tensor, subsets: Tensor) -> Tensor:
    eye = torch.eye(x.shape[1], dtype=torch.bool)
    inside, outside = (subsets[:, :, None] | eye).flatten(1, 2), (subsets[:, :, None] & ~eye).flatten(1, 2)
    return (utility(x, inside) - utility(x, outside)).reshape(subsets.shape)


def _without_gradients(work: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():
        return work()


def _peak(side: str) -> float:
    """Return by how many megabytes a process of its own grows when it forms the sums once (on Linux)."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_grown, side).result()


def _grown(side: str) -> float:
    torch.set_num_threads(1)  # each further one has memory of its own
    work = _sums(side)
    _sums(side, n_sets=1)()  # what is loaded once is not counted
    before = _largest_so_far()
    work()
    return (_largest_so_far() - before) / 1024


def _largest_so_far() -> int:
    """Return the largest memory of this process in kilobytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])
