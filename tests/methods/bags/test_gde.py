"""Encoders by the check of invariance, generators by exact cases, and the whole on sets of equal and unequal size."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from jaxtyping import config
from torch import nn

from offprint.methods.bags import gde_sets
from offprint.methods.bags.gde import GDE
from offprint.methods.bags.gde_encoders import (
    KernelMeanEmbedding,
    MeanEncoder,
    MeanPoolEncoder,
    ResNetSetEncoder,
    SetTransformerEncoder,
)
from offprint.methods.bags.gde_gaussian import gaussian_w2
from offprint.methods.bags.gde_generators import CVAEGenerator, DDPMGenerator, DirectGenerator
from offprint.methods.bags.gde_invariance import check_distributional_invariance
from offprint.methods.bags.gde_sets import DirichletMixer, draw_points, fitted_gaussians
from offprint.methods.bags.ragged import RaggedBags


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ENCODERS = {
    "graph": lambda: MeanPoolEncoder(2, 4, 16, generator=0),
    "residual": lambda: ResNetSetEncoder(2, 4, 16, generator=0),
    "median": lambda: ResNetSetEncoder(2, 4, 16, pooling="median", generator=0),
    "transformer": lambda: SetTransformerEncoder(2, 4, 16, generator=0),
    "kernel mean": lambda: KernelMeanEmbedding(2, 16, 1.0, generator=0),
    "mean": lambda: MeanEncoder(2, 4, generator=0),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_depend_on_the_distribution_alone(kind):
    """Gaps below 1e-5 of float32, and vectors of samples approach that of 256 points at the rate of the root."""
    report = check_distributional_invariance(ENCODERS[kind](), normal(4, 256, 2) + 1, n_repeats=16)
    assert report.passes, report


@pytest.mark.parametrize("kind", ENCODERS)
def test_weights_count_as_repeats(kind):
    """Whole weights against points repeated so often, to the rounding of float32; a weight of 0 is a point left out."""
    encoder, x = ENCODERS[kind](), normal(2, 4, 2)
    repeated = x.repeat_interleave(torch.tensor([3, 1, 0, 2]), 1)
    found = encoder(x, torch.tensor([[3.0, 1.0, 0.0, 2.0]]).expand(2, -1))
    torch.testing.assert_close(found, encoder(repeated), atol=1e-5, rtol=1e-4)


def test_the_median_encoder_takes_medians():
    encoder, x = ENCODERS["median"](), normal(3, 6, 2)
    torch.testing.assert_close(encoder.pool(x, None), x.quantile(0.5, dim=1))


def test_a_sum_is_the_mean_times_the_number_of_points():
    x = normal(2, 8, 2)
    mean, total = (MeanPoolEncoder(2, 4, 16, pooling=pooling, generator=0) for pooling in ("mean", "sum"))
    torch.testing.assert_close(total(x) - total.out.bias, 8 * (mean(x) - mean.out.bias), atol=1e-4, rtol=1e-4)
    assert "replication" in check_distributional_invariance(total, normal(4, 64, 2)).failures


@pytest.mark.slow
def test_consistency_up_to_eight_thousand_points():
    for make in (ENCODERS["graph"], ENCODERS["kernel mean"]):
        report = check_distributional_invariance(make(), normal(4, 8192, 2) + 1)
        assert report.consistency_slope == pytest.approx(-0.5, abs=0.1)


class Normalised(nn.Module):
    """A mean of points that batch norm has made depend on the sets beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x):
        return self.norm(x.flatten(0, 1)).square().relu().sin().unflatten(0, x.shape[:2]).mean(1)


def test_encoders_that_depend_on_more_are_reported():
    sets = normal(4, 256, 2) + torch.arange(4.0)[:, None, None]
    assert "replication" in check_distributional_invariance(lambda x: x.sum(1), sets).failures
    assert "order" in check_distributional_invariance(lambda x: x[:, 0], sets).failures
    assert check_distributional_invariance(lambda x: x[:, 0] * 0 + 1, sets).passes
    norm = Normalised().train()
    before = norm.norm.running_mean.clone()
    assert "companions" in check_distributional_invariance(norm, sets).failures
    assert torch.equal(norm.norm.running_mean, before)


def test_a_kernel_mean_embedding_is_the_mean_of_its_features():
    encoder, x = KernelMeanEmbedding(2, 6, 0.5, generator=0), normal(1, 3, 2)
    phases = x[0] @ encoder.frequencies
    torch.testing.assert_close(encoder(x)[0], torch.cat([phases.cos().mean(0), phases.sin().mean(0)]))
    spread = KernelMeanEmbedding(2, 20_000, 0.5, generator=0).frequencies.std().item()
    assert spread == pytest.approx(2.0, rel=0.02)


def test_a_random_projection_keeps_distances_of_means():
    encoder, x = MeanEncoder(2, 8, generator=0), normal(2, 5, 2)
    wanted = (x[0].mean(0) - x[1].mean(0)).norm()
    torch.testing.assert_close((encoder(x)[0] - encoder(x)[1]).norm(), wanted)


def test_principal_means_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    x = normal(20, 5, 4) * torch.tensor([3.0, 2.0, 1.0, 0.1])
    wanted = PCA(2).fit(x.flatten(0, 1).numpy()).transform(x.mean(1).numpy())
    found = MeanEncoder.principal(x.flatten(0, 1), 2)(x)
    signs = torch.sign((found * torch.tensor(wanted)).sum(0))
    torch.testing.assert_close(found * signs, torch.tensor(wanted), atol=1e-4, rtol=1e-4)


def test_mean_and_deviation_as_latent_are_the_wasserstein_distance_on_the_line():
    """The limit in which latent distances are exact: Gaussians on the line encoded as mean and standard deviation."""
    rng = np.random.default_rng(0)
    means, deviations = rng.normal(size=200), rng.uniform(0.1, 2, 200)
    as_latent = torch.tensor(np.stack([means, deviations], 1))
    latent = (as_latent[:100] - as_latent[100:]).norm(dim=1)
    parts = torch.tensor(means)[:, None], torch.tensor(deviations**2)[:, None, None]
    exact = gaussian_w2(parts[0][:100], parts[1][:100], parts[0][100:], parts[1][100:])
    assert np.corrcoef(latent.numpy(), exact.numpy())[0, 1] > 1 - 1e-9


class ExactNoise(DDPMGenerator):
    """The noise predictor of one Gaussian, which is linear in the noisy point."""

    def predict_noise(self, noisy, z, t):
        mean, deviation = 1.5, 0.5
        kept = self.alpha_bar[t].to(noisy)
        variance = kept * deviation**2 + 1 - kept
        return (1 - kept).sqrt() * (noisy - kept.sqrt() * mean) / variance


def test_diffusion_with_the_exact_predictor_samples_the_gaussian():
    """20,000 points: 3% is about four standard errors of the deviation, plus the steps' own error."""
    maker = ExactNoise(1, 1, 4)
    betas = 1e-4 + (0.02 - 1e-4) * np.arange(401) / 400
    assert maker.alpha_bar[400].item() == pytest.approx(math.exp(np.log(1 - betas).sum()), rel=1e-9)
    points = maker.sample(torch.zeros(1, 1), 20_000, generator=0)
    assert points.mean().item() == pytest.approx(1.5, rel=0.03)
    assert points.std().item() == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("make", [DirectGenerator, DDPMGenerator, CVAEGenerator])
def test_generators_follow_their_seed_and_their_condition(make):
    maker = make(2, 4, 16, generator=0)
    z = normal(2, 4)
    assert torch.equal(maker.sample(z, 5, generator=1), maker.sample(z, 5, generator=1))
    assert not torch.equal(maker.sample(z, 5, generator=1), maker.sample(z, 5, generator=2))
    assert not torch.equal(maker.sample(z, 5, generator=1), maker.sample(z + 1, 5, generator=1))


def test_the_divergence_warms_up_in_training_alone():
    """With zero weights but for the code's: the error is that of the point, the divergence that of the test below."""
    maker = CVAEGenerator(2, 4, 16, kl_weight=2.0, n_warmup=4)
    for parameter in maker.parameters():
        nn.init.zeros_(parameter)
    maker.encoder.head.bias.data[:] = torch.tensor([1.0, 1.0, math.log(4), math.log(4)])
    x, z, divergence = normal(3, 5, 2), torch.zeros(3, 4), (1 + 4 - 1 - math.log(4)) / 2
    for weight in (0.0, 0.5, 1.0):
        torch.testing.assert_close(maker.loss(x, z), x.square().mean() + weight * divergence)
    maker.eval()
    for _ in range(2):
        torch.testing.assert_close(maker.loss(x, z), x.square().mean() + 1.5 * divergence)
    maker.train()
    for weight in (1.5, 2.0, 2.0):
        torch.testing.assert_close(maker.loss(x, z), x.square().mean() + weight * divergence)


def test_the_divergence_of_a_decoder_is_that_of_gaussians():
    """With zero weights the code is standard normal: no divergence, and the error is that of the point alone."""
    maker = CVAEGenerator(2, 4, 16)
    for parameter in maker.parameters():
        nn.init.zeros_(parameter)
    x = normal(3, 5, 2)
    torch.testing.assert_close(maker.loss(x, torch.zeros(3, 4)), x.square().mean())
    maker.encoder.head.bias.data[:] = torch.tensor([1.0, 1.0, math.log(4), math.log(4)])
    divergence = (1 + 4 - 1 - math.log(4)) / 2
    torch.testing.assert_close(maker.loss(x, torch.zeros(3, 4)), x.square().mean() + divergence)


@pytest.mark.parametrize("loss", ["swd", "mmd", "sinkhorn", "energy"])
def test_training_brings_samples_to_the_sets(loss):
    """Sets that differ in where they lie: what is generated moves to them, on average well within their spread."""
    places = torch.linspace(-3, 3, 24)
    sets = normal(24, 20, 2) * 0.3 + places[:, None, None]
    model = GDE(MeanPoolEncoder(2, 4, 16, generator=0), DirectGenerator(2, 4, 16, loss, 20, generator=0))
    before = model.reconstruction_error(sets, 100).mean()
    history = model.fit(sets, n_epochs=60, batch_size=24, learning_rate=5e-3, seed=0)
    assert history.n_steps == 60
    assert model.reconstruction_error(sets, 100).mean() < 0.4 * before


@pytest.fixture(scope="module")
def model() -> GDE:
    trained = GDE(MeanPoolEncoder(2, 4, 16, generator=0), DirectGenerator(2, 4, 16, generator=0))
    trained.fit(normal(16, 20, 2) * 3 + 5, n_epochs=1, batch_size=8, seed=0)
    return trained


def test_sets_of_unequal_size_are_encoded_as_each_by_itself(model):
    sets = [normal(n, 2, seed=n) for n in (5, 3, 5, 9, 3)]
    together = model.encode(sets)
    alone = torch.cat([model.encode(one[None]) for one in sets])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.encode(RaggedBags.from_list(sets)), together)


def test_units_are_those_of_the_data(model):
    """The same model on data in other units: latent vectors agree and samples are scaled."""
    other = GDE(MeanPoolEncoder(2, 4, 16, generator=0), DirectGenerator(2, 4, 16, generator=0))
    other.fit((normal(16, 20, 2) * 3 + 5) * 10 - 7, n_epochs=1, batch_size=8, seed=0)
    x = normal(2, 6, 2)
    torch.testing.assert_close(other.encode(x * 10 - 7), model.encode(x), atol=1e-4, rtol=1e-4)
    z = model.encode(x)
    torch.testing.assert_close(other.sample(z, 4), model.sample(z, 4) * 10 - 7, atol=1e-2, rtol=1e-3)


def test_double_precision_data_and_models(model):
    """Data of NumPy's precision go through a float32 model, and a model in double precision works in it."""
    x = normal(2, 6, 2)
    torch.testing.assert_close(model.encode(x.double()), model.encode(x))
    double = copy.deepcopy(model).double()
    double.fit(x.double(), n_epochs=1, batch_size=2, seed=0, conditions=None, weights=torch.ones(2, 6))
    z = double.encode(x)
    assert z.dtype == double.sample(z, 5).dtype == torch.float64
    assert model.reconstruction_error(x.double(), 50).dtype == torch.float64


def test_lines_begin_and_end_at_their_ends(model):
    z = model.encode(normal(2, 6, 2))
    line = model.interpolate(z[0], z[1], 3, 5, seed=1)
    wanted = model.sample(torch.stack([z[0], (z[0] + z[1]) / 2, z[1]]), 5, seed=1)
    torch.testing.assert_close(line, wanted)
    x = normal(6, 2)
    torch.testing.assert_close(model.reconstruct(x, 5, seed=1), model.sample(model.encode([x]), 5, seed=1)[0])


def test_lines_under_a_condition_are_samples_told_of_it():
    told = GDE(MeanPoolEncoder(2, 4, 8, generator=0), DirectGenerator(2, 5, 8, generator=0))
    z, condition = normal(2, 4), torch.tensor([2.0])
    line = told.interpolate(z[0], z[1], 3, 5, condition=condition, seed=1)
    places = torch.stack([z[0], (z[0] + z[1]) / 2, z[1]])
    torch.testing.assert_close(line, told.sample(places, 5, conditions=condition.expand(3, 1), seed=1))


def test_a_last_batch_too_short_to_mix_is_mixed_of_all():
    """Seven sets in batches of five leave two, of which three cannot be mixed."""
    model = GDE(MeanPoolEncoder(2, 4, 8, generator=0), DirectGenerator(2, 4, 8, generator=0))
    assert model.fit(normal(7, 6, 2), n_epochs=2, batch_size=5, mixer=DirichletMixer(3)).n_steps == 4
    with pytest.raises(ValueError, match="sets must be at least as many as the mixer mixes, 3; got 2"):
        model.fit(normal(2, 6, 2), n_epochs=1, mixer=DirichletMixer(3))


def test_distances_and_their_calibration(model):
    a, b = normal(6, 30, 2), normal(6, 30, 2, seed=1) + torch.arange(6.0)[:, None, None]
    torch.testing.assert_close(model.distance(a, b), (model.encode(a) - model.encode(b)).norm(dim=1))
    found, wanted = model.distance(a, b), gaussian_w2(*fitted_gaussians(a), *fitted_gaussians(b))
    fitted = np.linalg.lstsq(found[:, None].numpy(), wanted.numpy(), rcond=None)[0]
    assert model.calibrate(a, b) == pytest.approx(float(fitted[0]), rel=1e-4)


@pytest.mark.parametrize("largest", [2**22, 10])
def test_fitted_gaussians_are_numpys(largest, monkeypatch):
    """Also some rows at a time."""
    monkeypatch.setattr(gde_sets, "LARGEST", largest)
    sets = [normal(7, 3), normal(4, 3, seed=1)]
    means, found = fitted_gaussians(sets)
    for one, mean, covariance in zip(sets, means, found, strict=True):
        torch.testing.assert_close(mean, one.mean(0))
        np.testing.assert_allclose(covariance, np.cov(one.numpy().T, bias=True), atol=1e-6)


def test_points_are_drawn_without_repeats_where_there_are_enough():
    bags = RaggedBags(torch.arange(9.0)[:, None], torch.tensor([0, 3, 9]))
    drawn = draw_points(bags, torch.tensor([1, 0]), 6, torch.Generator().manual_seed(0))[:, :, 0]
    assert sorted(drawn[0].tolist()) == [3, 4, 5, 6, 7, 8]
    assert sorted(drawn[1].tolist()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("sizes", [(2, 5, 9), (3, 7, 30)])
def test_halves_share_no_point_even_of_sets_that_are_too_small(sizes):
    bags = RaggedBags(torch.arange(float(sum(sizes)))[:, None], torch.tensor([0, *np.cumsum(sizes)]))
    for n_points in (2, 8, 11):
        drawn = draw_points(bags, torch.arange(3), n_points, torch.Generator().manual_seed(0), halves=True)
        for bag, points in zip(bags, drawn[:, :, 0].tolist(), strict=True):
            first, second = set(points[: n_points // 2]), set(points[n_points // 2 :])
            assert not first & second
            assert first | second <= set(bag[:, 0].tolist())
            # No point is left out, and a half repeats its points evenly.
            assert len(first) == min(n_points // 2, len(bag) // 2) or len(bag) >= n_points
            assert len(first | second) == min(n_points, len(bag))
            for half in (points[: n_points // 2], points[n_points // 2 :]):
                counts = [half.count(point) for point in set(half)]
                assert max(counts) - min(counts) <= 1
    # Of sets that are large enough the same points are drawn either way.
    source = (torch.Generator().manual_seed(0) for _ in range(2))
    largest = torch.tensor([2, 2])
    either = [draw_points(bags, largest, 8, next(source), halves=halves) for halves in (True, False)]
    assert torch.equal(*either)


def test_training_on_small_sets_never_matches_what_was_shown():
    """Four points drawn as twelve: what is encoded and what is matched are disjoint."""
    seen = []

    class Recording(DirectGenerator):
        def loss(self, x, z):
            seen.extend(zip(z.detach().tolist(), x[:, :, 0].detach().tolist(), strict=True))
            return super().loss(x, z)

    class All(nn.Module):
        def forward(self, x):
            return x[:, :, 0]

    GDE(All(), Recording(1, 6, 4, generator=0)).fit(normal(5, 4, 1), n_epochs=1, batch_size=5, n_points=12, seed=0)
    assert len(seen) == 5
    assert all(not set(shown) & set(matched) for shown, matched in seen)


def test_heavier_points_are_drawn_more_often():
    """20,000 draws of four points of weights 0, 1, 2 and 3: 0.02 is about five standard errors of a share."""
    bags = RaggedBags(torch.arange(4.0).repeat(5000)[:, None], torch.tensor([0, 20_000]))
    source = torch.Generator().manual_seed(0)
    drawn = draw_points(bags, torch.tensor([0]), 20_000, source, torch.tensor([0.0, 1.0, 2.0, 3.0]).repeat(5000))
    shares = torch.bincount(drawn.flatten().long(), minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.arange(4) / 6, atol=0.02, rtol=0)
    unlike = RaggedBags(torch.arange(20.0)[:, None], torch.tensor([0, 20]))
    halves = draw_points(unlike, torch.tensor([0]), 20, source, torch.linspace(1, 2, 20))[0, :, 0].split(10)
    assert not set(halves[0].tolist()) & set(halves[1].tolist())


def test_weights_reach_the_encoder():
    """A mean of weighted points of unequal sets, whose sizes are not in order."""

    class Mean(nn.Module):
        def forward(self, x, weights):
            return (x * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True)

    sets = [normal(n, 1, seed=k) for k, n in enumerate((3, 2, 3))]
    weights = [normal(n, seed=3 + k).exp() for k, n in enumerate((3, 2, 3))]
    found = GDE(Mean(), DirectGenerator(1, 1)).encode(sets, weights)
    for one, weight, z in zip(sets, weights, found, strict=True):
        assert z.item() == pytest.approx(np.average(one[:, 0].numpy(), weights=weight.numpy()), abs=1e-6)


def test_conditions_move_what_is_generated():
    """Spreads differ from set to set, places by batch alone: told the other batch, a set is moved and keeps its spread.

    The encoder gives the spread and nothing else, so that only the condition can tell the place.
    """
    spread, batch = torch.linspace(0.2, 2, 24), torch.arange(24.0) % 2
    sets = normal(24, 40, 1) * spread[:, None, None] + 2 * batch[:, None, None]
    model = GDE(Spread(), DirectGenerator(1, 2, 32, n_directions=1, generator=0))
    model.fit(sets, n_epochs=160, batch_size=24, learning_rate=5e-3, conditions=batch[:, None], seed=0)
    z = model.encode(sets)
    moved = model.sample(z, 500, conditions=1 - batch[:, None])[:, :, 0]
    assert (moved.mean(1) - 2 * (1 - batch)).abs().mean() < 0.4
    assert np.corrcoef(moved.std(1), spread)[0, 1] > 0.9
    assert model.reconstruction_error(sets, 200, conditions=batch[:, None]).mean() < 0.4


class Spread(nn.Module):
    """The standard deviation of a set."""

    def forward(self, x):
        return x.std(1)


def test_mixtures_have_the_shares_of_their_weights():
    """20,000 points a mixture: 0.02 is above five standard errors of a share."""
    sets = RaggedBags.from_list([torch.full((n, 1), float(k)) for k, n in enumerate((2, 5, 3, 4))])
    mixer = DirichletMixer(3)
    chosen, weights = mixer.draw(4, 6, generator=0)
    mixed = mixer.mix(sets, 6, 20_000, generator=0)[:, :, 0]
    for points, sources, shares in zip(mixed, chosen, weights, strict=True):
        for source, share in zip(sources, shares, strict=True):
            assert (points == source).float().mean().item() == pytest.approx(share.item(), abs=0.02)
    assert all(len(set(row.tolist())) == 3 for row in chosen)
    # A Dirichlet of concentration 1 with three sources has mean 1/3 and variance 1/18 in each weight.
    many = mixer.draw(3, 4000, generator=0)[1]
    assert many.var(0).mean().item() == pytest.approx(1 / 18, rel=0.1)
    pure = DirichletMixer(1).mix(sets, 5, 10, generator=0)
    assert pure.std(1).max().item() == 0


@pytest.mark.parametrize("split", [True, False])
def test_split_halves_never_show_what_is_matched(split):
    """A generator that records what it is given: its points and those encoded are disjoint halves, or the same."""
    seen = []

    class Recording(DirectGenerator):
        def loss(self, x, z):
            seen.append((z[:, 0].detach(), x[:, :, 0].mean(1).detach()))
            return super().loss(x, z)

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(1)

    sets = normal(8, 10, 1)
    GDE(Mean(), Recording(1, 1, 4, generator=0)).fit(sets, n_epochs=1, batch_size=8, split=split, seed=0)
    shown, matched = seen[0]
    standard = (sets - sets.mean()) / sets.std()
    if split:
        wanted = standard.mean((1, 2)).sort().values
        torch.testing.assert_close(((shown + matched) / 2).sort().values, wanted, atol=1e-5, rtol=0)
        assert not torch.allclose(shown, matched, atol=1e-3)
    else:
        torch.testing.assert_close(shown, matched, atol=1e-5, rtol=0)


def pair() -> tuple[nn.Module, nn.Module]:
    return MeanPoolEncoder(2, 4, 8, generator=0), DirectGenerator(2, 4, 8, generator=0)


class Short(DirectGenerator):
    def sample(self, z, n, *, generator=None):
        return super().sample(z, n - 1, generator=generator)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: GDE(lambda x: x, pair()[1]), TypeError, "encoder"),
        (lambda: GDE(pair()[0], nn.Linear(2, 2)), TypeError, "generator"),
        (lambda: GDE(*pair()).fit(normal(4, 1, 2)), ValueError, "sets"),
        (lambda: GDE(*pair()).fit(normal(4, 6, 2) * torch.nan), ValueError, "sets"),
        (lambda: GDE(*pair()).encode([normal(3, 2), normal(3, 3)]), ValueError, "bags"),
        (lambda: GDE(*pair()).encode("sets"), TypeError, "sets"),
        (lambda: GDE(*pair()).encode(normal(4, 6, 3)), ValueError, "x"),
        (lambda: GDE(*pair()).interpolate(normal(4), normal(3), 3, 5), ValueError, "z0 and z1"),
        (lambda: GDE(pair()[0], Short(2, 4, 8)).sample(normal(1, 4), 5), ValueError, "generator"),
        (lambda: GDE(*pair()).distance(normal(2, 6, 2), normal(3, 6, 2)), ValueError, "sets_b"),
        (lambda: GDE(*pair()).interpolate(normal(4), normal(4), 0, 5), ValueError, "n_steps"),
        (lambda: GDE(*pair()).calibrate(normal(2, 6, 2), normal(2, 6, 2)), ValueError, "sets_a and sets_b"),
        (lambda: GDE(*pair()).fit(1e60 * normal(4, 6, 2).double(), n_epochs=1), ValueError, "sets must have a spread"),
        (lambda: MeanPoolEncoder(2, 4)(normal(2, 3, 2) * torch.nan), ValueError, "x must be finite"),
        (lambda: MeanPoolEncoder(2, 4)(torch.ones(2, 3, 2).long()), TypeError, "x must be"),
        (lambda: DirectGenerator(2, 4).loss(normal(2, 3, 2) * torch.inf, normal(2, 4)), ValueError, "x must be finite"),
        (lambda: CVAEGenerator(2, 4, n_warmup=-1), ValueError, "n_warmup"),
        (lambda: MeanPoolEncoder(2, 0), ValueError, "latent_features"),
        (lambda: ResNetSetEncoder(2, 4, pooling="max"), ValueError, "pooling"),
        (lambda: MeanPoolEncoder(2, 4, pooling="max"), ValueError, "pooling"),
        (lambda: MeanPoolEncoder(2, 4)(normal(2, 3, 2), torch.zeros(2, 3)), ValueError, "weights"),
        (lambda: MeanPoolEncoder(2, 4)(normal(2, 3, 2), torch.ones(2, 4)), ValueError, "weights"),
        (lambda: MeanEncoder.principal(normal(5, 2), 3), ValueError, "points"),
        (lambda: GDE(*pair()).encode(normal(2, 6, 2), torch.ones(2, 5)), ValueError, "weights"),
        (lambda: GDE(*pair()).encode(normal(2, 6, 2), -torch.ones(2, 6)), ValueError, "weights"),
        (lambda: GDE(*pair()).fit(normal(4, 6, 2), conditions=normal(3, 1)), ValueError, "conditions"),
        (
            lambda: GDE(*pair()).fit(normal(4, 6, 2), conditions=normal(4, 1), mixer=DirichletMixer()),
            ValueError,
            "mixer",
        ),
        (lambda: GDE(*pair()).sample(normal(4, 4), 5, conditions=normal(3, 1)), ValueError, "conditions"),
        (lambda: GDE(*pair()).sample(normal(4, 3), 5), ValueError, "z"),
        (lambda: SetTransformerEncoder(2, 4, 10), ValueError, "n_heads"),
        (lambda: KernelMeanEmbedding(2, 3), ValueError, "latent_features"),
        (lambda: KernelMeanEmbedding(2, 4, 0.0), ValueError, "bandwidth"),
        (lambda: DirectGenerator(2, 4, loss="w2"), ValueError, "loss"),
        (lambda: DirectGenerator(2, 4).sample(normal(1, 3), 5), ValueError, "z"),
        (lambda: DDPMGenerator(2, 4, n_steps=0), ValueError, "n_steps"),
        (lambda: DDPMGenerator(2, 4, noise_range=(0.1, 1.0)), ValueError, "noise_range"),
        (lambda: CVAEGenerator(2, 4, kl_weight=-1.0), ValueError, "kl_weight"),
        (lambda: CVAEGenerator(2, 4).loss(normal(1, 5, 3), normal(1, 4)), ValueError, "x"),
        (lambda: DirichletMixer(3, 0.0), ValueError, "concentration"),
        (lambda: DirichletMixer(3).draw(2, 5, generator=0), ValueError, "n_sets"),
        (lambda: check_distributional_invariance(pair()[0], normal(2, 32, 2)), ValueError, "sets"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_refused(call, error, named):
    with pytest.raises(error, match=named):
        call()
