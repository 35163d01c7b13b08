"""Which input frequencies can break a model: spikes of trained layers, sinusoidal disturbances, layer distances."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.methods.nn.ptd_ssm.convolution import Convolution
from offprint.methods.nn.ptd_ssm.s5 import S5

LOWEST = 1e-4
"""Radians per sample below which nothing is looked for: 60,000 samples a period."""


@dataclass(frozen=True)
class Spike:
    """A frequency at which a layer's gain stands out.

    Parameters
    ----------
    layer : str
        The layer's name in the model (``""`` where the model is the layer).
    feature : int or None
        Which feature's system, or ``None`` for a layer that mixes features.
    omega : float
        Radians per sample, in (0, π].
    gain : float
        Amplitude out over amplitude in.
    contrast : float
        The gain over the typical gain within an octave on either side.
    """

    layer: str
    feature: int | None
    omega: float
    gain: float
    contrast: float


@dataclass(frozen=True)
class ResponseDistance:
    """The largest gain of the difference of two layers, and the frequency (radians per sample) where it is reached."""

    value: float
    omega: float
    feature: int | None


def find_spikes(model: nn.Module, min_contrast: float = 2.0) -> list[Spike]:
    """Return the input frequencies that a trained model's state-space layers amplify far above their surroundings.

    Use it to learn which sinusoidal disturbances a model is most exposed to, layer by layer; then measure how much they
    do to its outputs with :func:`frequency_sensitivity`.

    Parameters
    ----------
    model : torch.nn.Module
        A layer, or any model that holds S4D, S4DPLR or S5 layers.
    min_contrast : float
        At least 1. How far above the typical gain within an octave a peak must stand.

    Returns
    -------
    list of Spike
        By descending contrast; empty where nothing stands out.

    Raises
    ------
    ValueError
        If the model holds no such layer or ``min_contrast`` is below 1.

    Notes
    -----
    The gain is evaluated on a logarithmic grid and on a fine one around the resonance of every mode, where alone a
    narrow peak can be. O(modes²) per feature.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> from offprint.methods.nn.ptd_ssm import S4D
    >>> layer = S4D(d_model=1, n_state=16, delta_range=(0.01, 0.01), generator=generator)
    >>> round(find_spikes(layer)[0].omega / 0.01)  # the last spike of n = 16 is at 81 radians per unit of time
    81

    References
    ----------
    Yu, Nigmetov, Morozov, Mahoney and Erichson, *Robustifying State-space Models for Long Sequences via Approximate
    Diagonalization*, arXiv:2310.01698, the section on the failure of the diagonal initialisation.
    """
    if not 1 <= min_contrast < math.inf:
        raise ValueError(f"min_contrast must be at least 1 and finite; got {min_contrast}")
    found = [spike for name, layer in _layers(model) for spike in _layer_spikes(name, layer, min_contrast)]
    return sorted(found, key=lambda spike: -spike.contrast)


@torch.no_grad()
def response_distance(first: Convolution | S5, second: Convolution | S5) -> ResponseDistance:
    """Return the H-infinity distance of two layers: the most by which their outputs can differ per unit of input.

    Parameters
    ----------
    first, second : S4D, S4DPLR or S5
        Layers of the same features and channels: both of one system per feature, or both S5.

    Returns
    -------
    ResponseDistance

    Raises
    ------
    ValueError
        If the layers have different features or channels.
    TypeError
        If they are not layers, or of different structure.

    Notes
    -----
    The largest value over a grid with all resonances of both layers, refined about its maximum; a lower bound that is
    reached at ``omega``. For layers with several channels, the largest over channels, before they are mixed.

    Examples
    --------
    >>> from offprint.methods.nn.ptd_ssm import S4D
    >>> layer = S4D(d_model=2, n_state=8)
    >>> response_distance(layer, layer).value
    0.0

    References
    ----------
    Boyd and Balakrishnan, *A Regularity Result for the Singular Values of a Transfer Matrix*, Systems & Control Letters
    15 (1990).
    """
    for name, layer in (("first", first), ("second", second)):
        if not isinstance(layer, Convolution | S5):
            raise TypeError(f"{name} must be an S4D, S4DPLR or S5 layer; got {type(layer).__name__}")
    if isinstance(first, S5) != isinstance(second, S5):
        raise TypeError("first and second must both have one system per feature, or both be S5")
    if first.D.shape != second.D.shape:
        raise ValueError(
            f"first and second must have the same features and channels; got {tuple(first.D.shape)} and "
            f"{tuple(second.D.shape)}"
        )
    grid = torch.cat((_grid(first), _grid(second))).sort(0).values
    steps = torch.linspace(0, 1, 21, dtype=grid.dtype, device=grid.device)[:, None]
    top, where = torch.zeros_like(grid[0]), grid[0]
    for _ in range(8):
        gain, best = _gain(first, grid, second).max(0)
        spot = grid.gather(0, best[None])
        top, where = torch.maximum(top, gain), torch.where(gain > top, spot[0], where)
        # The grids of both layers share points, so the neighbours are the nearest distinct ones.
        low = torch.where(grid < spot, grid, LOWEST).amax(0)
        high = torch.where(grid > spot, grid, math.pi).amin(0)
        grid = low + (high - low) * steps
    feature = int(top.argmax())
    return ResponseDistance(float(top[feature]), float(where[feature]), None if isinstance(first, S5) else feature)


def with_fourier_noise(
    inputs: Float[Tensor, "batch length features"], omega: float, amplitude: float, phase: float = 0.0
) -> Float[Tensor, "batch length features"]:
    """Return sequences with a sinusoid added to every feature.

    Parameters
    ----------
    inputs : tensor, shape (batch, length, features)
        Finite.
    omega : float
        Radians per sample; above π it is an alias of a lower frequency.
    amplitude : float
        Non-negative, in the units of the inputs.
    phase : float
        Radians at the first sample.

    Returns
    -------
    tensor, shape (batch, length, features)

    Raises
    ------
    ValueError
        If the shape does not fit, a value is not finite, or the amplitude is negative.
    TypeError
        If inputs are not a real floating-point tensor.

    Notes
    -----
    O(batch length features).

    Examples
    --------
    >>> with_fourier_noise(torch.zeros(1, 3, 1), omega=math.pi / 2, amplitude=0.5).flatten().round(decimals=3).tolist()
    [0.0, 0.5, 0.0]

    References
    ----------
    Yu, Nigmetov, Morozov, Mahoney and Erichson, *Robustifying State-space Models for Long Sequences via Approximate
    Diagonalization*, arXiv:2310.01698, the robustness experiment.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise TypeError("inputs must be a real floating-point tensor")
    if inputs.ndim != 3:
        raise ValueError(f"inputs must have shape (batch, length, features); got {tuple(inputs.shape)}")
    if not bool(torch.isfinite(inputs).all()):
        raise ValueError("inputs must be finite; they hold NaN or infinity")
    for name, value in (("omega", omega), ("phase", phase), ("amplitude", amplitude)):
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite; got {value}")
    if amplitude < 0:
        raise ValueError(f"amplitude must be non-negative; got {amplitude}")
    time = torch.arange(inputs.shape[1], dtype=torch.float64, device=inputs.device)
    return inputs + (amplitude * torch.sin(omega * time + phase)).to(inputs.dtype)[:, None]


@torch.no_grad()
def frequency_sensitivity(
    model: Callable[[Tensor], Tensor],
    inputs: Float[Tensor, "batch length features"],
    omega: list[float] | Float[np.ndarray, " frequencies"],
    amplitude: float,
) -> Float[np.ndarray, " frequencies"]:
    """Return how much a sinusoidal disturbance of each frequency changes a model's outputs.

    Parameters
    ----------
    model : callable
        Any map from (batch, length, features) to a tensor, for example a module in evaluation mode.
    inputs : tensor, shape (batch, length, features)
        Sequences to disturb.
    omega : array of float, shape (frequencies,)
        Radians per sample.
    amplitude : float
        Of the disturbance, in the units of the inputs.

    Returns
    -------
    array of float64, shape (frequencies,)
        Root mean square change of the outputs over batch and entries.

    Raises
    ------
    ValueError
        As :func:`with_fourier_noise`.
    TypeError
        As :func:`with_fourier_noise`.

    Notes
    -----
    One evaluation of the model per frequency.

    Examples
    --------
    >>> frequency_sensitivity(lambda x: 2 * x[:, 1], torch.zeros(1, 8, 1), [0.0, math.pi / 2], 0.5).round(3).tolist()
    [0.0, 1.0]

    References
    ----------
    Yin, Gontijo Lopes, Shlens, Cubuk and Gilmer, *A Fourier Perspective on Model Robustness in Computer Vision*,
    arXiv:1906.08988.
    """
    clean = model(with_fourier_noise(inputs, 0.0, 0.0))
    noisy = (model(with_fourier_noise(inputs, float(frequency), amplitude)) for frequency in omega)
    return np.array([float((outputs - clean).double().square().mean().sqrt()) for outputs in noisy])


def _layers(model: nn.Module) -> list[tuple[str, Convolution | S5]]:
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, Convolution | S5)]
    if not layers:
        raise ValueError("model must hold at least one S4D, S4DPLR or S5 layer")
    return layers


@torch.no_grad()
def _layer_spikes(name: str, layer: Convolution | S5, min_contrast: float) -> Iterator[Spike]:
    grid = _grid(layer)
    gains, even = _gain(layer, grid), _even_grid(layer)
    log_levels = _gain(layer, even).clamp(min=1e-30).log()
    for feature in range(grid.shape[1]):
        omega, gain = grid[:, feature].numpy(force=True), gains[:, feature].numpy(force=True)
        spots, logs = even[:, feature].numpy(force=True), log_levels[:, feature].numpy(force=True)
        for peak in np.flatnonzero((gain[1:-1] > gain[:-2]) & (gain[1:-1] >= gain[2:])) + 1:
            near = (spots >= omega[peak] / 2) & (spots <= omega[peak] * 2)
            contrast = float(gain[peak] / np.exp(np.median(logs[near])))
            if contrast >= min_contrast:
                which = None if isinstance(layer, S5) else feature
                yield Spike(name, which, float(omega[peak]), float(gain[peak]), contrast)


def _even_grid(layer: Convolution | S5) -> Float[Tensor, "frequencies systems"]:
    systems = 1 if isinstance(layer, S5) else layer.d_model
    points = torch.logspace(math.log10(LOWEST), math.log10(math.pi), 300, dtype=layer.D.dtype, device=layer.D.device)
    return points.clamp(max=math.pi)[:, None].expand(-1, systems)


def _grid(layer: Convolution | S5) -> Float[Tensor, "frequencies systems"]:
    """Return each system's frequencies, ascending: evenly spaced ones and a cluster around every resonance."""
    centre, width = layer.resonances()
    offsets = torch.tensor([-4, -2, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 2, 4], dtype=width.dtype, device=width.device)
    clusters = (centre[..., None] + width[..., None] * offsets).flatten(1).T
    return torch.cat((_even_grid(layer), clusters.clamp(LOWEST, math.pi))).sort(0).values


def _gain(
    layer: Convolution | S5, omega: Float[Tensor, "frequencies systems"], minus: Convolution | S5 | None = None
) -> Float[Tensor, "frequencies systems"]:
    """Return the gain of a layer, or of the difference of two, at each system's own frequencies."""
    if isinstance(layer, S5):
        omega = omega[:, 0]
    response = layer.frequency_response(omega)
    if minus is not None:
        response = response - minus.frequency_response(omega)
    if isinstance(layer, S5):
        norm: Tensor = torch.linalg.matrix_norm(response, 2)
        return norm[:, None]
    return response.abs().amax(1)
