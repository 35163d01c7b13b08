"""A set embedding by distances, against transport distances that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from offprint.methods.bags.gde_encoders import MeanPoolEncoder
from offprint.methods.bags.wormhole import Wormhole


def sets_at(places: torch.Tensor) -> torch.Tensor:
    """Return copies of one cloud, moved along the first axis: W₂ between two is how far one was moved."""
    cloud = torch.randn(1, 8, 2, generator=torch.Generator().manual_seed(0))
    return cloud + torch.stack([places, torch.zeros_like(places)], 1)[:, None]


def test_distances_and_decoded_points_come_to_those_of_the_sets():
    """Sets moved by known lengths: latent distances within 10% of the spread of 8, correlation above 0.99."""
    places = torch.linspace(-4, 4, 16)
    sets = sets_at(places) + 10
    model = Wormhole(MeanPoolEncoder(2, 4, 16, generator=0), 8, 32, generator=0)
    history = model.fit(sets, n_epochs=60, batch_size=16, learning_rate=1e-2, seed=0)
    assert history.n_steps == 60
    z = model.encode(sets)
    found, wanted = torch.cdist(z, z).numpy(), (places[:, None] - places).abs().numpy()
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.99
    assert np.abs(found - wanted).mean() < 0.8
    centres = model.decode(z).mean(1)[:, 0]
    assert (centres - sets.mean(1)[:, 0]).abs().mean() < 0.8


@pytest.mark.parametrize(("factor", "wanted"), [(1.0, 0.0), (2.0, 14.0)])
def test_the_loss_is_that_of_distances_by_hand(factor, wanted):
    """The mean as vector, for copies of one cloud at 0, 1 and 5, which are 5, 1 and 4 from their neighbours.

    Decoding is exact, so distances are all that is left: none are wrong, or with vectors twice as far apart those of
    5, 1 and 4, whose mean square is 14.
    """

    class Mean(nn.Module):
        in_features, latent_features = 2, 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(1) * factor

    class Copy(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            cloud = sets_at(torch.zeros(1))[0]
            return (z[:, None] / factor + cloud - cloud.mean(0)).flatten(1)

    model = Wormhole(Mean(), 8)
    model.decoder = Copy()
    assert model.loss(sets_at(torch.tensor([0.0, 1.0, 5.0]))).item() == pytest.approx(wanted, abs=0.01 + 0.01 * wanted)


def test_sets_of_unequal_size_are_encoded_each_by_itself():
    model = Wormhole(MeanPoolEncoder(2, 4, 16, generator=0), 16, generator=0)
    sets = [torch.randn(n, 2, generator=torch.Generator().manual_seed(n)) for n in (4, 7)]
    together = model.encode(sets)
    torch.testing.assert_close(together[1:], model.encode(sets[1][None]))


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: Wormhole(lambda x: x), TypeError, "encoder"),
        (lambda: Wormhole(nn.Linear(2, 2)), TypeError, "encoder must have in_features and latent_features"),
        (lambda: Wormhole(MeanPoolEncoder(2, 4), 1), ValueError, "n_decoded"),
        (lambda: Wormhole(MeanPoolEncoder(2, 4), blur=0.0), ValueError, "blur"),
        (lambda: Wormhole(MeanPoolEncoder(2, 4)).fit(torch.zeros(1, 5, 2)), ValueError, "sets"),
        (lambda: Wormhole(MeanPoolEncoder(2, 4)).decode(torch.zeros(1, 5)), ValueError, "z"),
    ],
)
def test_what_is_refused(call, error, named):
    with pytest.raises(error, match=named):
        call()
