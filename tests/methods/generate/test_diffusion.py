"""Noise levels, denoiser and sampler, against Gaussian data, for which everything has a closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offprint.methods.generate.diffusion import Denoiser, denoising_loss, karras_times, probability_flow


@pytest.mark.parametrize("n", [2, 18, 81])
def test_grid_is_even_in_the_root(n: int) -> None:
    times = karras_times(n)
    assert (times[0].item(), times[-1].item()) == (80.0, 0.002)
    assert (times.diff() < 0).all()
    roots = times.numpy() ** (1 / 7)
    np.testing.assert_allclose(roots, np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), n), rtol=1e-12)


class Gaussian(nn.Module):
    """The network that makes a denoiser exact where data are N(0, s²) and sigma_data is s: it returns zero."""

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        assert code.shape == (len(x),)
        return torch.zeros_like(x)


def test_denoiser_with_a_zero_network_is_the_posterior_mean_of_gaussian_data() -> None:
    x, t, s = torch.randn(5, 3, dtype=torch.float64), torch.rand(5, dtype=torch.float64) + 0.1, 0.5
    expected = x * (s**2 / (s**2 + t**2))[:, None]
    torch.testing.assert_close(Denoiser(Gaussian(), s)(x, t), expected, rtol=1e-12, atol=0)


def test_network_sees_unit_variance_and_the_quarter_log() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Spy(Gaussian):
        def forward(self, x: Tensor, code: Tensor) -> Tensor:
            seen.append((x, code))
            return super().forward(x, code)

    generator = torch.Generator().manual_seed(0)
    x = 0.5 * torch.randn(20_000, 2, generator=generator)
    for t in (0.01, 1.0, 50.0):
        noisy = x + t * torch.randn(x.shape, generator=generator)
        Denoiser(Spy(), 0.5)(noisy, torch.full((len(x),), t))
        assert seen[-1][0].std().item() == pytest.approx(1.0, rel=0.03)  # 40,000 draws: 0.5 % standard error
        torch.testing.assert_close(seen[-1][1], torch.full((len(x),), math.log(t) / 4))


@pytest.mark.parametrize("t", [0.01, 1.0, 50.0])
def test_loss_of_the_exact_denoiser_is_one_at_every_level(t: float) -> None:
    """The posterior variance s²t²/(s²+t²) times the weight (s²+t²)/(s²t²); 2 % is five standard errors of 60,000."""
    generator = torch.Generator().manual_seed(1)
    x, noise = 0.5 * torch.randn(20_000, 3, generator=generator), torch.randn(20_000, 3, generator=generator)
    loss = denoising_loss(Denoiser(Gaussian(), 0.5), x, torch.full((20_000,), t), noise)
    assert loss.item() == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_flow_scales_gaussian_data_as_it_should(method: str, order: int) -> None:
    """Along the flow x / √(s² + t²) stays the same; halving the steps' size divides the error by 2 or by 4."""
    s, x = 0.5, torch.tensor([[1.0, -3.0]], dtype=torch.float64)
    exact, denoiser = x * s / math.hypot(s, 2.0), Denoiser(Gaussian(), s)
    grids = [karras_times(n, 1e-5, 2.0, 3.0) for n in (101, 201)]
    errors = [(probability_flow(denoiser, x, grid, method=method) - exact).abs().max() for grid in grids]
    assert errors[1] < 0.02
    assert (errors[0] / errors[1]).item() == pytest.approx(2**order, rel=0.2)


def test_one_euler_step_is_one_shot_denoising() -> None:
    denoiser, x = Denoiser(Gaussian(), 0.5), torch.tensor([[1.0, -3.0]])
    one = probability_flow(denoiser, x, torch.tensor([0.7]))
    torch.testing.assert_close(one, denoiser(x, torch.tensor([0.7])))


def test_bad_input_is_refused() -> None:
    for options in ({"n": 1}, {"n": 5, "t_min": 0.0}, {"n": 5, "t_min": 2.0, "t_max": 1.0}, {"n": 5, "rho": 0.0}):
        with pytest.raises(ValueError, match="must"):
            karras_times(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sigma_data"):
        Denoiser(Gaussian(), 0.0)
    with pytest.raises(ValueError, match="decreasing"):
        probability_flow(Denoiser(Gaussian()), torch.zeros(1, 2), torch.tensor([0.1, 0.2]))
