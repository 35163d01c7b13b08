"""What finds the frequencies that break a model, against the closed form of the spikes and simple systems."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from offprint.methods.nn.ptd_ssm import (
    S4D,
    S4DPLR,
    S5,
    SequenceModel,
    diag_spikes,
    find_spikes,
    frequency_sensitivity,
    hippo_legs,
    perturb_then_diagonalize,
    response_distance,
    with_fourier_noise,
)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("n", [16, 64])
def test_scan_finds_the_known_spikes_of_the_diagonal_initialisation(n: int) -> None:
    delta = 1.0 / n**2  # keeps the highest spike, at about 0.32 n², in the range of a sampled signal
    layer = S4D(1, n, delta_range=(delta, delta), generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        layer.D.zero_()
    found = np.array([spike.omega for spike in find_spikes(layer)]) / delta
    for omega in diag_spikes(n, 2)[0]:
        # A spike is a resonance of half-width 1/2; the read-out shifts its top within that.
        assert np.abs(found - omega).min() < 0.5


def test_ptd_has_no_spike_where_the_diagonal_initialisation_has_its_highest() -> None:
    n, delta = 16, 1.0 / 256
    ptd = perturb_then_diagonalize(hippo_legs(n)[0], 1e-3)
    worst = diag_spikes(n, 1)[0][0] * delta
    gains = []
    for init in ("legs", ptd):
        layer = S4D(8, n, init=init, delta_range=(delta, delta), generator=seeded(), dtype=torch.float64)
        with torch.no_grad():
            layer.D.zero_()
            gains.append(layer.frequency_response(torch.tensor([worst], dtype=torch.float64)).abs().mean().item())
    # The height of the spike is 52.7; zero-order hold and the perturbation take a little of it.
    assert gains[0] > 20 * gains[1]


def test_scan_names_the_layer_and_the_feature() -> None:
    model = SequenceModel(1, 1, 2, 3, n_state=16, delta_range=(0.01, 0.01), generator=seeded())
    found = find_spikes(model)
    assert {spike.layer for spike in found} == {"blocks.0.layer", "blocks.1.layer"}
    assert {spike.feature for spike in found} == {0, 1, 2}
    assert all(spike.contrast >= 2 and 0 < spike.omega <= np.float32(math.pi) for spike in found)
    contrasts = [spike.contrast for spike in found]
    assert contrasts == sorted(contrasts, reverse=True)
    assert len(find_spikes(model, min_contrast=10.0)) < len(found)


@pytest.mark.parametrize("layer", [S5(2, 8, generator=seeded()), S4DPLR(2, 8, generator=seeded())])
def test_scan_takes_the_other_layers(layer: S5 | S4DPLR) -> None:
    assert all(spike.gain > 0 for spike in find_spikes(layer, min_contrast=1.0))


def one_mode(rate: float) -> S4D:
    """A layer that is x[t] = a x[t-1] + (1 - a) u[t] with a = exp(-rate), a low-pass filter of unit gain at zero."""
    layer = S4D(1, 2, delta_range=(1.0, 1.0), dtype=torch.float64)
    with torch.no_grad():
        layer.D.zero_()
        layer.log_decay.fill_(math.log(rate))
        layer.frequency.zero_()
        layer.B.copy_(torch.tensor([rate, 0.0], dtype=torch.float64).expand_as(layer.B))
        layer.C.copy_(torch.tensor([0.5, 0.0], dtype=torch.float64).expand_as(layer.C))
    return layer


def test_distance_of_two_first_order_filters_has_the_closed_form() -> None:
    first, second = one_mode(0.1), one_mode(0.5)
    omega = np.linspace(1e-4, np.pi, 2_000_001)
    gain = [(1 - np.exp(-rate)) / (1 - np.exp(-rate - 1j * omega)) for rate in (0.1, 0.5)]
    exact = np.abs(gain[0] - gain[1])
    distance = response_distance(first, second)
    # The reference grid has a step of 2e-6 about a smooth maximum.
    assert distance.value == pytest.approx(exact.max(), rel=1e-9)
    assert distance.omega == pytest.approx(omega[exact.argmax()], abs=1e-3)
    assert distance.feature == 0


def test_distance_is_a_metric_on_layers() -> None:
    layers = [S4D(2, 8, init=init, generator=seeded(), dtype=torch.float64) for init in ("legs", "lin", "inv")]
    a, b, c = layers
    assert response_distance(a, a).value == 0
    assert response_distance(a, b).value == pytest.approx(response_distance(b, a).value, rel=1e-9)
    assert response_distance(a, c).value <= response_distance(a, b).value + response_distance(b, c).value + 1e-9


def test_distance_bounds_the_difference_of_outputs() -> None:
    first, second = (S5(2, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    distance = response_distance(first, second).value
    inputs = torch.randn(4, 300, 2, generator=seeded())
    difference = (first(inputs) - second(inputs)).norm(dim=(1, 2)) / inputs.norm(dim=(1, 2))
    assert 0 < difference.max() <= distance


def test_sensitivity_is_the_gain_of_a_linear_layer() -> None:
    layer = one_mode(0.5)
    omega = [0.2, 1.0]
    inputs = torch.zeros(1, 4000, 1, dtype=torch.float64)
    gains = layer.frequency_response(torch.tensor(omega, dtype=torch.float64)).abs()[:, 0, 0].detach().numpy()
    # A sinusoid has a root mean square of its amplitude / √2; the start-up takes a few of 4,000 steps.
    np.testing.assert_allclose(frequency_sensitivity(layer, inputs, omega, 0.1), 0.1 * gains / np.sqrt(2), rtol=2e-3)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="model must hold at least one"):
        find_spikes(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="min_contrast must be at least 1"):
        find_spikes(S4D(1, 2), min_contrast=0.5)
    with pytest.raises(TypeError, match="must both have one system per feature"):
        response_distance(S4D(2, 8), S5(2, 8))
    with pytest.raises(ValueError, match="same features and channels"):
        response_distance(S4D(2, 8), S4D(3, 8))
    inputs = torch.zeros(1, 4, 1)
    for arguments, message in (
        ({"inputs": torch.full((1, 4, 1), torch.nan)}, "inputs must be finite"),
        ({"amplitude": -1.0}, "amplitude must be non-negative"),
        ({"omega": math.inf}, "omega must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            with_fourier_noise(**{"inputs": inputs, "omega": 1.0, "amplitude": 1.0, **arguments})
