"""S4 with the exact HiPPO-LegS matrix, kept as diagonal plus low rank and evaluated densely: a reference."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from offprint.methods.nn.ptd_ssm.convolution import Convolution, DeltaRange, log_uniform
from offprint.methods.nn.ptd_ssm.hippo import diagonal_spectrum


class S4DPLR(Convolution):
    r"""A layer of exact HiPPO-LegS systems, one per feature: S4, evaluated densely.

    The state matrix is normal minus rank one, ``A_normal - p pᵀ``, with both parts learned. Use it as the reference
    that diagonal layers approximate; for more than about 64 states or 64 features use :class:`S4D`.

    Parameters
    ----------
    d_model : int
        Features.
    n_state : int
        Real states per feature, even.
    channels : int
        Read-outs per feature; above 1 they are mixed back to ``d_model`` by a learned linear map.
    delta_range : (float, float)
        Step sizes are drawn log-uniformly between these, one per feature, and learned.
    lr_scale : float
        Factor on the learning rate of the dynamics (see :func:`parameter_groups`).
    generator : torch.Generator, optional
        Draws the first weights; torch's global one by default.
    dtype : torch.dtype, optional
        float32 or float64; torch's default by default.

    Raises
    ------
    ValueError
        If ``n_state`` is odd or a number is out of range.
    TypeError
        If a count is not an integer.

    Notes
    -----
    All arithmetic is real: in an orthogonal basis the normal part is 2 x 2 blocks [[-d, -w], [w, -d]]. Its symmetric
    part, and so that of A, is negative definite, hence the layer is stable for any parameters. Discretised by the
    bilinear rule, which keeps that. O(n³ + n² L) per feature and O(n √L + L) memory for the kernel.

    Examples
    --------
    >>> layer = S4DPLR(d_model=4, n_state=8)
    >>> layer(torch.zeros(2, 100, 4)).shape
    torch.Size([2, 100, 4])

    References
    ----------
    Gu, Goel and Ré, *Efficiently Modeling Long Sequences with Structured State Spaces*, arXiv:2111.00396.
    """

    def __init__(
        self,
        d_model: int,
        n_state: int = 16,
        *,
        channels: int = 1,
        delta_range: DeltaRange = (1e-3, 1e-1),
        lr_scale: float = 0.25,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(d_model, channels, lr_scale, generator, dtype)
        Lambda, half_B, V = diagonal_spectrum(n_state, "legs")
        assert V is not None
        self.n_state = n_state
        # Real and imaginary parts of unitary eigenvectors, times √2, are an orthogonal basis.
        basis = np.sqrt(2) * np.stack((V.real, V.imag), axis=-1).reshape(n_state, n_state)
        B = np.sqrt(2) * 2 * np.stack((half_B.real, -half_B.imag), axis=-1).reshape(n_state)
        random = torch.randn(channels, d_model, n_state, generator=generator, dtype=torch.float64)
        self.C = nn.Parameter((random @ torch.from_numpy(basis)).to(self.D.dtype))
        self.B = self._per_feature(B)
        self.p = self._per_feature(B / np.sqrt(2))
        self.log_decay = self._per_feature(np.log(-Lambda.real))
        # With x + iy an eigenvector of a + ib, the matrix maps x to a x - b y and y to b x + a y.
        self.frequency = self._per_feature(-Lambda.imag)
        self.log_delta = nn.Parameter(log_uniform((d_model,), delta_range, generator).to(self.D.dtype))

    def _per_feature(self, values: Float[np.ndarray, " n"]) -> nn.Parameter:
        return nn.Parameter(torch.from_numpy(values).to(self.D.dtype).repeat(self.d_model, 1))

    @property
    def delta(self) -> Float[Tensor, " d_model"]:
        """The step size of each feature."""
        return self.log_delta.exp()

    def state_matrix(self) -> Float[Tensor, "d_model n n"]:
        """Return the continuous state matrix of each feature."""
        decay, frequency = -self.log_decay.exp(), self.frequency
        upper = torch.zeros(self.d_model, self.n_state - 1, dtype=decay.dtype, device=decay.device)
        upper = upper.index_copy(1, torch.arange(0, self.n_state - 1, 2, device=decay.device), -frequency)
        normal = (
            torch.diag_embed(decay.repeat_interleave(2, dim=1))
            + torch.diag_embed(upper, offset=1)
            - torch.diag_embed(upper, offset=-1)
        )
        return normal - self.p[:, :, None] * self.p[:, None, :]

    def discretized(self) -> tuple[Float[Tensor, "d_model n n"], Float[Tensor, "d_model n"]]:
        """Return A_bar and B_bar for the current parameters."""
        half = self.state_matrix() * self.delta[:, None, None] / 2
        identity = torch.eye(self.n_state, dtype=half.dtype, device=half.device)
        right = torch.cat((identity + half, self.B[..., None] * self.delta[:, None, None]), -1)
        both = torch.linalg.solve(identity - half, right)
        return both[..., :-1], both[..., -1]

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
        A_bar, B_bar = self.discretized()
        block = math.isqrt(length - 1) + 1
        columns = [B_bar]
        for _ in range(block - 1):
            columns.append((A_bar @ columns[-1][..., None])[..., 0])
        stride = torch.linalg.matrix_power(A_bar, block)
        rows = [self.C[..., None, :]]
        for _ in range(-(-length // block) - 1):
            rows.append(rows[-1] @ stride)
        return (torch.cat(rows, -2) @ torch.stack(columns, -1)).flatten(-2)[..., :length]

    def initial_state(self, batch: int) -> Float[Tensor, "batch d_model n"]:
        """Return the state before the first step: zeros."""
        return self.B.new_zeros(batch, *self.B.shape)

    def _advance(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        A_bar, B_bar = self.discretized()
        state = (A_bar @ state[..., None])[..., 0] + B_bar * inputs[..., None]
        return (self.C * state[:, None]).sum(-1), state

    def state_space_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that set the dynamics."""
        return [self.log_decay, self.frequency, self.log_delta, self.B, self.p]

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
        A_bar, B_bar = self.discretized()
        delay = torch.polar(torch.ones_like(omega), -omega).reshape(len(omega), -1, 1, 1)
        identity = torch.eye(self.n_state, dtype=A_bar.dtype, device=A_bar.device)
        state = torch.linalg.solve(
            identity - delay * A_bar, B_bar.to(delay.dtype).expand(len(omega), -1, -1)[..., None]
        )
        response: Tensor = (self.C.to(delay.dtype) * state[:, None, ..., 0]).sum(-1) + self.D
        return response

    def resonances(self) -> tuple[Float[Tensor, "d_model modes"], Float[Tensor, "d_model modes"]]:
        """Return where each feature's modes resonate, in [0, π] radians per sample, and the half-widths there."""
        A_bar = torch.linalg.eigvals(self.discretized()[0])
        return A_bar.angle().abs(), -A_bar.abs().log()
