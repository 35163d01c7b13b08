"""Layers of the ptd-ssm paper against each other, against stepping through time, and against s5-pytorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import harness
import numpy as np
import torch

from offprint.methods.nn.ptd_ssm import S4D, S5, hippo_legs, perturb_then_diagonalize


def comparisons() -> Iterator[harness.Comparison]:
    """Yield the comparisons that the paper's targets name."""
    generator = torch.Generator().manual_seed(0)
    A = hippo_legs(64)[0]
    ptd = perturb_then_diagonalize(A, 1e-2)
    s4d, s4_ptd = (S4D(64, 64, init=init, generator=generator) for init in ("legs", ptd))
    inputs = torch.randn(8, 1024, 64, generator=generator)
    yield harness.compare(
        "forward and backward of S4-PTD, length 1,024",
        _forward_backward(s4_ptd, inputs),
        _forward_backward(s4d, inputs),
        peer_name="S4D",
        target=0.95,
        repeats=15,
        note=f"{s4_ptd.B.shape[1]} pairs of states against {s4d.B.shape[1]}: real eigenvalues take a pair each",
    )
    long = torch.randn(1, 4096, 64, generator=generator)
    yield harness.compare(
        "S4-PTD over a sequence of 4,096",
        _no_grad(lambda: s4_ptd(long)),
        _no_grad(lambda: _recurrence(s4_ptd, long)),
        peer_name="step by step",
        target=10.0,
        repeats=3,
        note="the recurrence is discretised once and stepped by one vectorised update of all features",
    )
    yield harness.compare(
        "kernel of length 4,096",
        _no_grad(lambda: s4_ptd.kernel(4096)),
        _no_grad(lambda: _full_vandermonde(s4_ptd, 4096)),
        peer_name="one Vandermonde product",
        target=1.0,
    )
    yield harness.compare(
        "optimised perturbation, 64 states, 500 steps",
        lambda: perturb_then_diagonalize(A, 1e-2),
        lambda: _bare_descent(A, 1e-2, 500),
        peer_name="a bare gradient loop",
        target=0.8,
        repeats=3,
        note="the peer neither keeps the best E nor looks after stability; ours is to take at most 20 s",
    )
    yield from _against_s5_pytorch(inputs, generator)


def _forward_backward(layer: torch.nn.Module, inputs: torch.Tensor) -> Callable[[], None]:
    def work() -> None:
        layer.zero_grad()
        layer(inputs).square().mean().backward()

    return work


def _no_grad(work: Callable[[], object]) -> Callable[[], object]:
    return torch.no_grad()(work)


def _recurrence(layer: S4D, inputs: torch.Tensor) -> torch.Tensor:
    decay, phase, B_bar = layer.discretized()
    A_bar, C = torch.polar(decay.exp(), phase), torch.view_as_complex(layer.C)[0]
    state, outputs = layer.initial_state(len(inputs)), []
    for t in range(inputs.shape[1]):
        state = A_bar * state + B_bar * inputs[:, t, :, None]
        outputs.append(2 * (C * state).real.sum(-1) + layer.D[0] * inputs[:, t])
    return torch.stack(outputs, 1)


def _full_vandermonde(layer: S4D, length: int) -> torch.Tensor:
    decay, phase, B_bar = layer.discretized()
    powers = torch.exp(torch.complex(decay, phase)[..., None] * torch.arange(length))
    return 2 * ((torch.view_as_complex(layer.C) * B_bar)[..., None] * powers).real.sum(-2)


def _bare_descent(A: np.ndarray, rel_size: float, n_steps: int) -> torch.Tensor:
    matrix = torch.from_numpy(A)
    budget = rel_size * torch.linalg.matrix_norm(matrix, 2)
    E = torch.randn(A.shape, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    E = (E * budget / torch.linalg.matrix_norm(E, 2)).requires_grad_()
    adam = torch.optim.Adam([E], lr=0.1 * budget.item() / len(A))
    for _ in range(n_steps):
        loss = torch.linalg.cond(torch.linalg.eig(matrix + E)[1]).log()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            E.mul_((budget / torch.linalg.matrix_norm(E, 2)).clamp(max=1))
    return E


def _against_s5_pytorch(inputs: torch.Tensor, generator: torch.Generator) -> Iterator[harness.Comparison]:
    try:
        from s5 import S5 as Peer
    except ImportError:
        return
    yield harness.compare(
        "forward and backward of S5, length 1,024",
        _forward_backward(S5(64, 64, generator=generator), inputs),
        _forward_backward(Peer(64, 32), inputs),
        peer_name="s5-pytorch",
        target=1.0,
        note="64 real states are 32 complex ones, which is how s5-pytorch counts",
    )
