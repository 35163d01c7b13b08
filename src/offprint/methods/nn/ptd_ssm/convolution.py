"""What S4-type layers share: one single-input system per feature, run as a convolution or step by step."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

DeltaRange = tuple[float, float]


class Convolution(nn.Module):
    """A layer of independent linear systems, one per feature, each seen through ``channels`` read-outs.

    Subclasses give the kernel and the recurrence; this class applies them. With several channels a learned linear map
    brings channels x features back to ``d_model``.

    Parameters
    ----------
    d_model : int
        Features.
    channels : int
        Read-outs per feature.
    lr_scale : float
        Factor on the learning rate of the parameters in ``state_space_parameters`` (see :func:`parameter_groups`).
    generator : torch.Generator, optional
        Draws the first weights; torch's global one by default.
    dtype : torch.dtype, optional
        float32 or float64; torch's default by default.
    """

    def __init__(
        self, d_model: int, channels: int, lr_scale: float, generator: torch.Generator | None, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        for name, count in (("d_model", d_model), ("channels", channels)):
            check_count(name, count)
        if not 0 <= lr_scale < math.inf:
            raise ValueError(f"lr_scale must be non-negative and finite; got {lr_scale}")
        self.d_model, self.channels, self.lr_scale = d_model, channels, lr_scale
        self.D = nn.Parameter(torch.randn(channels, d_model, generator=generator, dtype=real_dtype(dtype)))
        self.mix = nn.Identity() if channels == 1 else linear(channels * d_model, d_model, generator, dtype)

    @abstractmethod
    def kernel(self, length: int) -> Float[Tensor, "channels d_model length"]:
        """Return the first ``length`` values of the response to a unit impulse, without the direct term D."""

    @abstractmethod
    def initial_state(self, batch: int) -> Tensor:
        """Return the state before the first step: zeros."""

    @abstractmethod
    def _advance(self, inputs: Float[Tensor, "batch d_model"], state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the read-outs, shape (batch, channels, d_model), and the next state."""

    @abstractmethod
    def state_space_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that set the dynamics, which are trained gently and without weight decay."""

    @abstractmethod
    def frequency_response(
        self, omega: Float[Tensor, "frequencies *systems"]
    ) -> Complex[Tensor, "frequencies channels d_model"]:
        """Return the response to exp(i omega t) with omega in radians per sample, D included."""

    @abstractmethod
    def resonances(self) -> tuple[Float[Tensor, "d_model modes"], Float[Tensor, "d_model modes"]]:
        """Return where each feature's modes resonate, in [0, π] radians per sample, and the half-widths there."""

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
        length = inputs.shape[1]
        signal = inputs.transpose(1, 2).unsqueeze(1)
        # Twice the length, so that the end of a sequence cannot wrap round to its beginning.
        spectrum = torch.fft.rfft(signal, n=2 * length) * torch.fft.rfft(self.kernel(length), n=2 * length)
        outputs = torch.fft.irfft(spectrum, n=2 * length)[..., :length] + self.D[..., None] * signal
        mixed: Tensor = self.mix(outputs.flatten(1, 2).transpose(1, 2))
        return mixed

    def step(
        self, inputs: Float[Tensor, "batch d_model"], state: Tensor
    ) -> tuple[Float[Tensor, "batch d_model"], Tensor]:
        """Take one time step, as in generation or on a stream.

        Parameters
        ----------
        inputs : tensor, shape (batch, d_model)
        state : tensor
            From :meth:`initial_state` or the previous step.

        Returns
        -------
        outputs : tensor, shape (batch, d_model)
        state : tensor

        Raises
        ------
        ValueError
            If the shape does not fit or a value is not finite.
        TypeError
            If the dtype is not the layer's.
        """
        check_sequences(inputs[:, None], self.d_model, self.D.dtype)
        outputs, state = self._advance(inputs, state)
        mixed: Tensor = self.mix((outputs + self.D * inputs[:, None]).flatten(1))
        return mixed, state


def linear(d_in: int, d_out: int, generator: torch.Generator | None, dtype: torch.dtype | None = None) -> nn.Linear:
    """Return a linear layer whose weights are drawn from ``generator``."""
    layer = nn.Linear(d_in, d_out, dtype=dtype)
    bound = 1 / math.sqrt(d_in)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def log_uniform(shape: tuple[int, ...], delta_range: DeltaRange, generator: torch.Generator | None) -> Tensor:
    """Return the logarithms of step sizes drawn log-uniformly from ``delta_range``."""
    low, high = delta_range
    if not 0 < low <= high < math.inf:
        raise ValueError(f"delta_range must be two positive numbers, low ≤ high; got {delta_range}")
    # Double precision, so that a range of no width is met exactly.
    return torch.rand(shape, generator=generator, dtype=torch.float64) * math.log(high / low) + math.log(low)


def real_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Return float32 or float64: the one that is asked for, or torch's default."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64; got {dtype}")
    return dtype


def check_count(name: str, value: int) -> None:
    """Refuse anything but a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1; got {value}")


def check_sequences(inputs: Tensor, features: int, dtype: torch.dtype) -> None:
    """Refuse what is not a finite (batch, length, features) tensor of this dtype."""
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a tensor; got {type(inputs).__name__}")
    if inputs.dtype != dtype:
        raise TypeError(f"inputs must have the layer's dtype {dtype}; got {inputs.dtype}")
    if inputs.ndim != 3 or inputs.shape[2] != features or 0 in inputs.shape:
        raise ValueError(f"inputs must have shape (batch, length, {features}); got {tuple(inputs.shape)}")
    if not bool(torch.isfinite(inputs).all()):
        raise ValueError("inputs must be finite; they hold NaN or infinity")
