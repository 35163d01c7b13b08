"""S5, and S5-PTD: one diagonal state-space system with many inputs and outputs, run by a parallel scan."""

from __future__ import annotations

import math
import os
from typing import Literal

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from offprint.methods.nn.ptd_ssm.convolution import DeltaRange, check_count, check_sequences, log_uniform, real_dtype
from offprint.methods.nn.ptd_ssm.diagonalize import PTD
from offprint.methods.nn.ptd_ssm.s4d import initial_modes


class S5(nn.Module):
    """A layer of one diagonal state-space system that mixes all features: S5, or S5-PTD with ``init="ptd"``.

    Inputs and outputs have shape (batch, length, d_model), any length. Only the initialisation differs between S5 and
    S5-PTD.

    Parameters
    ----------
    d_model : int
        Features, which are the inputs and the outputs of the system.
    n_state : int
        Real states in all, even; stored as conjugate pairs.
    init : {"hippo", "ptd"} or PTD
        Where the dynamics of each block start: the normal part of HiPPO-LegS, or the perturbed and diagonalised
        HiPPO-LegS. A :class:`PTD` of ``hippo_legs(n_state // blocks)[0]`` is used as it is.
    blocks : int
        The state matrix starts as this many equal blocks of size ``n_state / blocks``, which must be even.
    delta_range : (float, float)
        Step sizes are drawn log-uniformly between these, one per pair of states, and learned.
    rel_size : float
        For ``init="ptd"``: the size of the perturbation (see :func:`perturb_then_diagonalize`).
    cache_dir : path, optional
        For ``init="ptd"``: where the optimised perturbation is kept.
    lr_scale : float
        Factor on the learning rate of the dynamics (see :func:`parameter_groups`).
    generator : torch.Generator, optional
        Draws the first weights; torch's global one by default.
    dtype : torch.dtype, optional
        float32 or float64; torch's default by default.

    Raises
    ------
    ValueError
        If a block is odd, a number is out of range, or a given :class:`PTD` has another size, is not real, or is not
        stable.
    TypeError
        If a count is not an integer, or ``init`` is of another kind.

    Notes
    -----
    The scan does O(L) work in O(log L) rounds of vectorised operations. Zero-order hold.

    Examples
    --------
    >>> from offprint.methods.nn.ptd_ssm import hippo_legs, perturb_then_diagonalize
    >>> ptd = perturb_then_diagonalize(hippo_legs(8)[0], rel_size=1e-2, max_iter=20)
    >>> layer = S5(d_model=4, n_state=16, init=ptd, blocks=2, generator=torch.Generator().manual_seed(0))
    >>> layer(torch.zeros(2, 100, 4)).shape
    torch.Size([2, 100, 4])

    References
    ----------
    Smith, Warrington and Linderman, *Simplified State Space Layers for Sequence Modeling*, arXiv:2208.04933 (S5).
    Yu, Nigmetov, Morozov, Mahoney and Erichson, *Robustifying State-space Models for Long Sequences via Approximate
    Diagonalization*, arXiv:2310.01698 (S5-PTD).
    """

    def __init__(
        self,
        d_model: int,
        n_state: int = 64,
        *,
        init: Literal["hippo", "ptd"] | PTD = "hippo",
        blocks: int = 1,
        delta_range: DeltaRange = (1e-3, 1e-1),
        rel_size: float = 1e-2,
        cache_dir: str | os.PathLike[str] | None = None,
        lr_scale: float = 0.25,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, count in (("d_model", d_model), ("n_state", n_state), ("blocks", blocks)):
            check_count(name, count)
        if n_state % blocks:
            raise ValueError(f"blocks must divide n_state = {n_state}; got {blocks}")
        if isinstance(init, str) and init not in ("hippo", "ptd"):
            raise ValueError(f"init must be 'hippo', 'ptd' or a PTD; got {init!r}")
        if not 0 <= lr_scale < math.inf:
            raise ValueError(f"lr_scale must be non-negative and finite; got {lr_scale}")
        self.d_model, self.n_state, self.lr_scale = d_model, n_state, lr_scale
        modes = initial_modes(n_state // blocks, "legs" if init == "hippo" else init, rel_size, cache_dir)
        pairs = blocks * len(modes.Lambda)
        size, dtype = n_state // blocks, real_dtype(dtype)
        B = torch.randn(blocks, size, d_model, generator=generator, dtype=torch.float64) / math.sqrt(d_model)
        C = torch.randn(d_model, blocks, size, generator=generator, dtype=torch.float64) / math.sqrt(n_state)
        write, read = torch.from_numpy(modes.write), torch.from_numpy(modes.read)
        self.B = nn.Parameter(torch.view_as_real((write @ B.to(write.dtype)).reshape(pairs, d_model)).to(dtype))
        self.C = nn.Parameter(torch.view_as_real((C.to(read.dtype) @ read).reshape(d_model, pairs)).to(dtype))
        self.D = nn.Parameter(torch.randn(d_model, generator=generator, dtype=dtype))
        self.log_decay = nn.Parameter(torch.from_numpy(np.log(-modes.Lambda.real)).to(dtype).repeat(blocks))
        self.frequency = nn.Parameter(torch.from_numpy(modes.Lambda.imag.copy()).to(dtype).repeat(blocks))
        self.log_delta = nn.Parameter(log_uniform((pairs,), delta_range, generator).to(dtype))

    @property
    def delta(self) -> Float[Tensor, " pairs"]:
        """The step size of each pair of states."""
        return self.log_delta.exp()

    @property
    def Lambda(self) -> Complex[Tensor, " pairs"]:
        """The eigenvalues of the continuous system, one of each conjugate pair."""
        return torch.complex(-self.log_decay.exp(), self.frequency)

    def discretized(self) -> tuple[Complex[Tensor, " pairs"], Complex[Tensor, "pairs d_model"]]:
        """Return A_bar and B_bar for the current parameters."""
        exponent = self.Lambda * self.delta
        weight = torch.expm1(exponent) / self.Lambda
        return exponent.exp(), weight[:, None] * torch.view_as_complex(self.B)

    def forward(self, inputs: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Apply the layer to whole sequences, from a state of zeros.

        Parameters
        ----------
        inputs : tensor, shape (batch, length, d_model)
            Finite, of the layer's dtype.

        Returns
        -------
        tensor, shape (batch, length, d_model)

        Raises
        ------
        ValueError
            If the shape does not fit or a value is not finite.
        TypeError
            If the dtype is not the layer's.
        """
        check_sequences(inputs, self.d_model, self.D.dtype)
        A_bar, B_bar = self.discretized()
        states = linear_scan(A_bar, inputs.to(B_bar.dtype) @ B_bar.T)
        return self._read(states) + self.D * inputs

    def step(
        self, inputs: Float[Tensor, "batch d_model"], state: Complex[Tensor, "batch pairs"]
    ) -> tuple[Float[Tensor, "batch d_model"], Complex[Tensor, "batch pairs"]]:
        """Take one time step, as in generation or on a stream.

        Parameters
        ----------
        inputs : tensor, shape (batch, d_model)
        state : complex tensor, shape (batch, pairs)
            From :meth:`initial_state` or the previous step.

        Returns
        -------
        outputs : tensor, shape (batch, d_model)
        state : complex tensor, shape (batch, pairs)

        Raises
        ------
        ValueError
            If the shape does not fit or a value is not finite.
        TypeError
            If the dtype is not the layer's.
        """
        check_sequences(inputs[:, None], self.d_model, self.D.dtype)
        A_bar, B_bar = self.discretized()
        state = A_bar * state + inputs.to(B_bar.dtype) @ B_bar.T
        return self._read(state) + self.D * inputs, state

    def initial_state(self, batch: int) -> Complex[Tensor, "batch pairs"]:
        """Return the state before the first step: zeros."""
        return torch.zeros(batch, len(self.log_decay), dtype=self.Lambda.dtype, device=self.D.device)

    def kernel(self, length: int) -> Float[Tensor, "length d_model d_model"]:
        """Return the first ``length`` values of the response of each output to an impulse in each input, without D.

        Parameters
        ----------
        length : int
            At least 1.

        Returns
        -------
        tensor, shape (length, outputs, inputs)
        """
        A_bar, B_bar = self.discretized()
        impulse = torch.cat((B_bar.T[:, None], B_bar.new_zeros(self.d_model, length - 1, len(B_bar))), 1)
        return self._read(linear_scan(A_bar, impulse)).permute(1, 2, 0)

    def state_space_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that set the dynamics."""
        return [self.log_decay, self.frequency, self.log_delta, self.B]

    def frequency_response(
        self, omega: Float[Tensor, " frequencies"]
    ) -> Complex[Tensor, "frequencies d_model d_model"]:
        """Return the response of each output to exp(i omega t) in each input, D included.

        Parameters
        ----------
        omega : tensor, shape (frequencies,)
            Radians per sample.

        Returns
        -------
        complex tensor, shape (frequencies, outputs, inputs)
        """
        A_bar, B_bar = self.discretized()
        delay = torch.polar(torch.ones_like(omega), -omega)[:, None]
        C = torch.view_as_complex(self.C)
        upper = (C / (1 - delay * A_bar)[:, None]) @ B_bar
        lower = (C.conj() / (1 - delay * A_bar.conj())[:, None]) @ B_bar.conj()
        return upper + lower + torch.diag(self.D)

    def resonances(self) -> tuple[Float[Tensor, "1 modes"], Float[Tensor, "1 modes"]]:
        """Return where the modes resonate, in [0, π] radians per sample, and the half-widths there."""
        exponent = self.Lambda * self.delta
        return torch.acos(torch.cos(exponent.imag))[None], -exponent.real[None]

    def _read(self, states: Complex[Tensor, "... pairs"]) -> Float[Tensor, "... d_model"]:
        return 2 * (states @ torch.view_as_complex(self.C).T).real


def linear_scan(
    A: Complex[Tensor, " pairs"], inputs: Complex[Tensor, "batch length pairs"]
) -> Complex[Tensor, "batch length pairs"]:
    """Return all states of ``x[t] = A x[t-1] + inputs[t]`` (elementwise, x before the start is zero).

    Neighbours are combined in pairs, the half as long sequence that remains has the transition A², and the states in
    between follow from it: O(length) work, O(log length) rounds.

    Parameters
    ----------
    A : complex tensor, shape (pairs,)
    inputs : complex tensor, shape (batch, length, pairs)

    Returns
    -------
    complex tensor, shape (batch, length, pairs)

    Raises
    ------
    RuntimeError
        If the shapes do not fit.

    Examples
    --------
    >>> linear_scan(torch.tensor([0.5 + 0j]), torch.ones(1, 4, 1, dtype=torch.complex64)).real.flatten().tolist()
    [1.0, 1.5, 1.75, 1.875]
    """
    length = inputs.shape[1]
    if length == 1:
        return inputs
    odd = linear_scan(A * A, inputs[:, 1::2] + A * inputs[:, : length - 1 : 2])
    states = torch.empty_like(inputs)
    states[:, 0] = inputs[:, 0]
    states[:, 1::2] = odd
    states[:, 2::2] = inputs[:, 2::2] + A * odd[:, : (length - 1) // 2]
    return states
