"""S4D, and S4-PTD: a diagonal state-space system per feature, run as a convolution."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Complex, Complex128, Float
from torch import Tensor, nn

from offprint.methods.nn.ptd_ssm.convolution import Convolution, DeltaRange, log_uniform
from offprint.methods.nn.ptd_ssm.diagonalize import PTD, perturb_then_diagonalize
from offprint.methods.nn.ptd_ssm.hippo import check_even, diagonal_spectrum, hippo_legs
from offprint.methods.nn.ptd_ssm.response import Discretization

Init = Literal["legs", "ptd", "lin", "inv"]


class S4D(Convolution):
    r"""A layer of diagonal state-space systems, one per feature: S4D, or S4-PTD with ``init="ptd"``.

    A drop-in for a recurrent or attention layer on long sequences: inputs and outputs have shape
    (batch, length, d_model), any length. Only the initialisation differs between S4D and S4-PTD. The PTD one starts as
    the exact HiPPO-LegS system up to a perturbation of size ``rel_size``, and has none of the frequencies at which a
    sinusoidal disturbance is amplified (see :func:`diag_spikes`).

    Parameters
    ----------
    d_model : int
        Features.
    n_state : int
        Real states per feature, even; stored as conjugate pairs.
    init : {"legs", "ptd", "lin", "inv"} or PTD
        Where the dynamics start: the normal part of HiPPO-LegS, the perturbed and diagonalised HiPPO-LegS, or one of
        two closed forms. A :class:`PTD` of ``hippo_legs(n_state)[0]`` is used as it is, which lets layers share it.
    channels : int
        Read-outs per feature; above 1 they are mixed back to ``d_model`` by a learned linear map.
    delta_range : (float, float)
        Step sizes are drawn log-uniformly between these, one per feature, and learned.
    discretization : {"zoh", "bilinear"}
        Zero-order hold, or the bilinear rule.
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
        If ``n_state`` is odd, a number is out of range, or a given :class:`PTD` has another size, is not real, or is
        not stable.
    TypeError
        If a count is not an integer, or ``init`` is of another kind.

    Notes
    -----
    The kernel is :math:`K_t = 2 \operatorname{Re} \sum_k \tilde C_k \bar B_k \bar A_k^t`. Splitting t = rS + s makes it
    a product of two matrices of exponentials: O(n √L) exponentials and memory and O(n L) multiplications per feature.
    The convolution is O(L log L). A real eigenvalue of a PTD takes a conjugate pair of its own, with half the read-out,
    so the layer starts as exactly the diagonalised system; the number of pairs can therefore exceed ``n_state / 2``.
    Real parts are parametrised as -exp(·), so training cannot make a layer unstable, and an unstable start is refused
    rather than clipped.

    Examples
    --------
    >>> from offprint.methods.nn.ptd_ssm import hippo_legs, perturb_then_diagonalize
    >>> ptd = perturb_then_diagonalize(hippo_legs(16)[0], rel_size=1e-2, max_iter=20)
    >>> layer = S4D(d_model=4, n_state=16, init=ptd, generator=torch.Generator().manual_seed(0))
    >>> layer(torch.zeros(2, 100, 4)).shape, layer.kernel(100).shape
    (torch.Size([2, 100, 4]), torch.Size([1, 4, 100]))
    >>> outputs, state = layer.step(torch.ones(2, 4), layer.initial_state(2))
    >>> outputs.shape
    torch.Size([2, 4])

    References
    ----------
    Yu, Nigmetov, Morozov, Mahoney and Erichson, *Robustifying State-space Models for Long Sequences via Approximate
    Diagonalization*, arXiv:2310.01698 (S4-PTD).
    Gu, Gupta, Goel and Ré, *On the Parameterization and Initialization of Diagonal State Space Models*,
    arXiv:2206.11893 (S4D).
    """

    def __init__(
        self,
        d_model: int,
        n_state: int = 64,
        *,
        init: Init | PTD = "legs",
        channels: int = 1,
        delta_range: DeltaRange = (1e-3, 1e-1),
        discretization: Discretization = "zoh",
        rel_size: float = 1e-2,
        cache_dir: str | os.PathLike[str] | None = None,
        lr_scale: float = 0.25,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(d_model, channels, lr_scale, generator, dtype)
        if discretization not in get_args(Discretization):
            raise ValueError(f"discretization must be 'zoh' or 'bilinear'; got {discretization!r}")
        self.n_state, self.discretization = n_state, discretization
        modes = initial_modes(n_state, init, rel_size, cache_dir)
        if isinstance(init, str) and init in ("lin", "inv"):
            shape = (channels, d_model, len(modes.Lambda), 2)
            C = torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(2)
        else:
            random = torch.randn(channels, d_model, n_state, generator=generator, dtype=torch.float64)
            C = torch.view_as_real(random.to(torch.complex128) @ torch.from_numpy(modes.read))
        self.C = nn.Parameter(C.to(self.D.dtype))
        B = torch.view_as_real(torch.from_numpy(modes.B))
        decay, frequency = (torch.from_numpy(part) for part in (np.log(-modes.Lambda.real), modes.Lambda.imag.copy()))
        log_delta = log_uniform((d_model,), delta_range, generator)
        self.B = nn.Parameter(B.to(self.D.dtype).repeat(d_model, 1, 1))
        self.log_decay = nn.Parameter(decay.to(self.D.dtype).repeat(d_model, 1))
        self.frequency = nn.Parameter(frequency.to(self.D.dtype).repeat(d_model, 1))
        self.log_delta = nn.Parameter(log_delta.to(self.D.dtype))

    @property
    def delta(self) -> Float[Tensor, " d_model"]:
        """The step size of each feature."""
        return self.log_delta.exp()

    @property
    def Lambda(self) -> Complex[Tensor, "d_model pairs"]:
        """The eigenvalues of each feature's continuous system, one of each conjugate pair."""
        return torch.complex(-self.log_decay.exp(), self.frequency)

    def discretized(
        self,
    ) -> tuple[Float[Tensor, "d_model pairs"], Float[Tensor, "d_model pairs"], Complex[Tensor, "d_model pairs"]]:
        """Return the logarithm of the modulus of A_bar, its phase, and B_bar, for the current parameters."""
        B, delta = torch.view_as_complex(self.B), self.delta[:, None]
        if self.discretization == "zoh":
            decay, phase = -self.log_decay.exp() * delta, self.frequency * delta
            # expm1, because A_bar - 1 loses most digits of float32 where the step size is small.
            return decay, phase, torch.expm1(torch.complex(decay, phase)) / self.Lambda * B
        half = self.Lambda * delta / 2
        A_bar = (1 + half) / (1 - half)
        return A_bar.abs().log(), A_bar.angle(), delta / (1 - half) * B

    def kernel(self, length: int) -> Float[Tensor, "channels d_model length"]:
        """Return the first ``length`` values of the response to a unit impulse, without the direct term D.

        Parameters
        ----------
        length : int
            At least 1.

        Returns
        -------
        tensor, shape (channels, d_model, length)
        """
        decay, phase, B_bar = self.discretized()
        return vandermonde(decay, phase, torch.view_as_complex(self.C) * B_bar, length)

    def initial_state(self, batch: int) -> Complex[Tensor, "batch d_model pairs"]:
        """Return the state before the first step: zeros."""
        return torch.view_as_complex(self.B.new_zeros(batch, *self.B.shape))

    def _advance(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        decay, phase, B_bar = self.discretized()
        state = torch.polar(decay.exp(), phase) * state + B_bar * inputs[..., None]
        return 2 * (torch.view_as_complex(self.C) * state[:, None]).real.sum(-1), state

    def state_space_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that set the dynamics."""
        return [self.log_decay, self.frequency, self.log_delta, self.B]

    def frequency_response(
        self, omega: Float[Tensor, "frequencies *systems"]
    ) -> Complex[Tensor, "frequencies channels d_model"]:
        """Return the response to exp(i omega t), D included.

        Parameters
        ----------
        omega : tensor, shape (frequencies,) or (frequencies, d_model)
            Radians per sample; a second dimension asks each feature for frequencies of its own.

        Returns
        -------
        complex tensor, shape (frequencies, channels, d_model)
        """
        decay, phase, B_bar = self.discretized()
        A_bar = torch.polar(decay.exp(), phase)
        delay = torch.polar(torch.ones_like(omega), -omega).reshape(len(omega), 1, -1, 1)
        weight = torch.view_as_complex(self.C) * B_bar
        both = weight / (1 - delay * A_bar) + weight.conj() / (1 - delay * A_bar.conj())
        return both.sum(-1) + self.D

    def resonances(self) -> tuple[Float[Tensor, "d_model modes"], Float[Tensor, "d_model modes"]]:
        """Return where each feature's modes resonate, in [0, π] radians per sample, and the half-widths there."""
        decay, phase, _ = self.discretized()
        return torch.acos(torch.cos(phase)), -decay


@dataclass(frozen=True)
class Modes:
    """One of each conjugate pair of modes; ``read`` brings a real read-out into their coordinates."""

    Lambda: Complex128[np.ndarray, " pairs"]
    B: Complex128[np.ndarray, " pairs"]
    read: Complex128[np.ndarray, "n pairs"]
    write: Complex128[np.ndarray, "pairs n"]


def initial_modes(n_state: int, init: Init | PTD, rel_size: float, cache_dir: str | os.PathLike[str] | None) -> Modes:
    """Return the modes that an initialisation starts from, all strictly stable."""
    check_even("n_state", n_state)
    if not 0 < rel_size < math.inf:
        raise ValueError(f"rel_size must be positive and finite; got {rel_size}")
    if init == "ptd":
        init = perturb_then_diagonalize(hippo_legs(n_state)[0], rel_size, cache_dir=cache_dir)
    if isinstance(init, str):
        if init not in get_args(Init):
            raise ValueError(f"init must be one of {', '.join(get_args(Init))} or a PTD; got {init!r}")
        Lambda, B, V = diagonal_spectrum(n_state, init)
        V = np.zeros((n_state, n_state // 2), dtype=np.complex128) if V is None else V
        return Modes(Lambda, B, V, V.conj().T)
    if not isinstance(init, PTD):
        raise TypeError(f"init must be a string or a PTD; got {type(init).__name__}")
    if len(init.Lambda) != n_state:
        raise ValueError(f"init must be a PTD of a matrix of size {n_state}; got size {len(init.Lambda)}")
    if np.iscomplexobj(init.E):
        raise ValueError("init must be the PTD of a real matrix: layers store conjugate pairs")
    if init.max_real >= 0:
        raise ValueError(f"init must be stable; its largest real part is {init.max_real:.3g} (ask for stable=True)")
    kept = init.Lambda.imag >= 0
    # A real mode is its own conjugate, so the real part taken twice would count it twice.
    weight = np.where(init.Lambda[kept].imag == 0, 0.5, 1.0)
    write = init.Vinv[kept]
    return Modes(init.Lambda[kept], write @ hippo_legs(n_state)[1], init.V[:, kept] * weight, write)


def vandermonde(
    decay: Float[Tensor, "d_model pairs"],
    phase: Float[Tensor, "d_model pairs"],
    coefficients: Complex[Tensor, "channels d_model pairs"],
    length: int,
) -> Float[Tensor, "channels d_model length"]:
    """Return ``2 Re Σ_k c_k exp((decay_k + i phase_k) t)`` for t < length, in blocks of about √length."""
    block = math.isqrt(length - 1) + 1
    n_blocks = -(-length // block)
    fine_real, fine_imag = _powers(decay, phase, torch.arange(block, device=decay.device, dtype=decay.dtype))
    starts = block * torch.arange(n_blocks, device=decay.device, dtype=decay.dtype)
    coarse_real, coarse_imag = _powers(decay, phase, starts)
    c_real, c_imag = 2 * coefficients.real[..., None], 2 * coefficients.imag[..., None]
    left = torch.cat((c_real * coarse_real - c_imag * coarse_imag, -c_real * coarse_imag - c_imag * coarse_real), -2)
    right = torch.cat((fine_real, fine_imag), -2)
    return (left.transpose(-1, -2) @ right).flatten(-2)[..., :length]


def _powers(decay: Tensor, phase: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Return the real and imaginary parts of exp((decay + i phase) t), with a last dimension for t."""
    modulus = (decay[..., None] * times).exp()
    angle = phase[..., None] * times
    return modulus * angle.cos(), modulus * angle.sin()
