"""Pre-training and fine-tuning: schedules, losses and their gradients, collapse, and the way into certificates."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.certify.rrcm import (
    ConsistencyPretrainer,
    KarrasSchedule,
    NoisyClassifier,
    PatchEncoder,
    ResidualEncoder,
    consistency_regularized_loss,
    contrastive_loss,
    ema_rate,
    finetune_smoothing,
    info_nce,
    layerwise_groups,
    noise_features,
    trajectory_loss,
    warmup_cosine,
)
from offprint.methods.certify.smoothing import SmoothedClassifier


@pytest.fixture
def as_users_call_it() -> Iterator[None]:
    """Without the shape checks of the test run, so that what refuses bad input is the code itself."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(n: int, *shape: int) -> Tensor:
    return torch.rand(n, *shape, generator=seeded())


# --- schedules -------------------------------------------------------------------------------------------------------


def test_the_finest_grid_ends_where_it_should() -> None:
    schedule = KarrasSchedule()
    times = schedule.times(81)
    assert (times[0].item(), times[80].item()) == (80.0, 0.002)
    assert (times.diff() < 0).all()


@pytest.mark.parametrize("t", [0.5, 1.0, 2.0])
def test_nearest_level_is_within_half_a_step(t: float) -> None:
    schedule = KarrasSchedule()
    times, i = schedule.times(81), schedule.nearest(t, 81)
    gap = max(times[i - 1] - times[i], times[i] - times[i + 1])
    assert abs(times[i] - t) <= gap / 2
    assert all(abs(times[i] - t) <= abs(other - t) for other in times)


def test_the_number_of_levels_doubles() -> None:
    # K' = ceil(1000 / log2(5)) = 431
    found = [KarrasSchedule().n_times(step, 1000) for step in (0, 1, 431, 432, 862, 1000)]
    assert found == [21, 41, 41, 81, 81, 81]


def test_the_target_slows_down() -> None:
    rates = [ema_rate(step, 500) for step in range(501)]
    assert rates[0] == 0.99
    assert rates[-1] == pytest.approx(0.9999, abs=1e-7)
    assert rates == sorted(rates)
    # The formula, at a tenth: e = √(0.1 (e₁² - e₀²) + e₀²), c = tanh of half the argument.
    e = math.sqrt(0.1 * (0.9999**2 - 0.99**2) + 0.99**2)
    c = math.tanh(15 * (e - 0.99) / 0.0099 / 2)
    assert rates[50] == pytest.approx(c * 0.9999 + (1 - c) * 0.99, abs=1e-12)


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule, rates = warmup_cosine(optimizer, 20, 4), []
    for _ in range(20):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[12] == pytest.approx(1.0)  # half of the way down
    assert schedule.get_last_lr()[0] == pytest.approx(0.0)


# --- losses ----------------------------------------------------------------------------------------------------------


def test_info_nce_is_cross_entropy_of_the_similarities() -> None:
    u, v = (torch.randn(7, 5, generator=seeded(i), dtype=torch.float64) for i in (1, 2))
    total = 0.0
    for b in range(7):
        similar = [float(u[b] @ v[k] / (u[b].norm() * v[k].norm())) / 0.2 for k in range(7)]
        total += -similar[b] + math.log(sum(math.exp(value) for value in similar))
    assert info_nce(u, v, 0.2).item() == pytest.approx(total / 7, abs=1e-6)
    similarity = functional.cosine_similarity(u[:, None], v[None], dim=2) / 0.2
    assert info_nce(u, v, 0.2).item() == pytest.approx(
        functional.cross_entropy(similarity, torch.arange(7)).item(), abs=1e-6
    )


class Scaled(nn.Module):
    """Features that are the input times a weight of their own: gradients are seen one by one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, width, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return (x * self.weight) ** 2, x * self.weight


def numerical(loss: object, weight: nn.Parameter) -> Tensor:
    """Central differences."""
    found = torch.empty_like(weight)
    with torch.no_grad():
        for i in range(len(weight)):
            ends = []
            for sign in (1, -1):
                weight[i] += sign * 1e-6
                ends.append(loss().item())  # type: ignore[operator]
                weight[i] -= sign * 1e-6
            found[i] = (ends[0] - ends[1]) / 2e-6
    return found


def test_no_gradient_flows_through_the_less_noisy_point() -> None:
    """The gradient is the derivative with the targets held as they were, and not that of the whole."""
    encoder, x, noise = Scaled(4), *(torch.randn(6, 4, generator=seeded(i), dtype=torch.float64) for i in (1, 2))
    trajectory_loss(encoder, x, noise, 1.0, 0.8).backward()  # type: ignore[no-untyped-call]
    held = ((x + 0.8 * noise) / math.hypot(0.8, 0.5) * encoder.weight).detach()
    queries = (x + noise) / math.hypot(1.0, 0.5)
    alone = numerical(lambda: info_nce(queries * encoder.weight, held), encoder.weight)
    whole = numerical(lambda: trajectory_loss(encoder, x, noise, 1.0, 0.8), encoder.weight)
    torch.testing.assert_close(encoder.weight.grad, alone, rtol=1e-6, atol=1e-8)
    assert (whole - alone).abs().max() > 1e-3


def test_the_slow_copy_never_receives_a_gradient() -> None:
    encoder, target = Scaled(4), Scaled(4)
    x, y, noise = (torch.randn(6, 4, generator=seeded(i), dtype=torch.float64) for i in (1, 2, 3))
    contrastive_loss(encoder, target, x, y, noise, 0.002).backward()  # type: ignore[no-untyped-call]
    assert target.weight.grad is None
    assert encoder.weight.grad.abs().max() > 0


def test_contrastive_loss_goes_both_ways_with_one_noise() -> None:
    encoder, target = Scaled(4), Scaled(4)
    with torch.no_grad():
        target.weight.mul_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    x, y, noise = (torch.randn(6, 4, generator=seeded(i), dtype=torch.float64) for i in (1, 2, 3))
    level = torch.full((6,), 0.3)
    (qx, qy), (kx, ky) = (
        [net((view + 0.3 * noise) / math.hypot(0.3, 0.5), level)[0] for view in (x, y)] for net in (encoder, target)
    )
    expected = info_nce(qx, ky) + info_nce(qy, kx)
    torch.testing.assert_close(contrastive_loss(encoder, target, x, y, noise, 0.3), expected, rtol=1e-9, atol=0)


def test_a_point_is_perfectly_similar_to_itself() -> None:
    """With both levels the same every positive similarity is 1, so the loss is that of the features with themselves."""
    encoder, x, noise = ResidualEncoder(6, 16, generator=0), inputs(8, 6), torch.randn(8, 6, generator=seeded())
    features = encoder((x + 0.5 * noise) / math.hypot(0.5, 0.5), torch.full((8,), 0.5))[1]
    similarity = functional.cosine_similarity(features[:, None], features[None], dim=2)
    torch.testing.assert_close(similarity.diagonal(), torch.ones(8))
    loss = trajectory_loss(encoder, x, noise, 0.5, 0.5)
    assert loss.item() == pytest.approx((similarity.div(0.2).logsumexp(1) - 5).mean().item(), abs=1e-5)


def test_consistency_regularisation_is_its_formula() -> None:
    logits = torch.randn(3, 5, 4, generator=seeded(), dtype=torch.float64)
    y = torch.tensor([0, 3, 1, 1, 2])
    p = logits.softmax(2)
    mean = p.mean(0)
    expected = -p.log()[:, torch.arange(5), y].mean()
    expected += 2.0 * sum((mean * (mean / p[j]).log()).sum(1).mean() for j in range(3)) / 3
    expected += 0.7 * -(mean * mean.log()).sum(1).mean()
    torch.testing.assert_close(consistency_regularized_loss(logits, y, 2.0, 0.7), expected, rtol=1e-10, atol=0)
    alone = functional.cross_entropy(logits.flatten(0, 1), y.repeat(3))
    torch.testing.assert_close(consistency_regularized_loss(logits, y, 0.0, 0.0), alone)


# --- pre-training ----------------------------------------------------------------------------------------------------


def views(x: Tensor) -> Tensor:
    return x + 0.1 * torch.randn_like(x)


def pretrainer(n_steps: int = 30, **options: object) -> ConsistencyPretrainer:
    encoder = ResidualEncoder(6, 16, 1, projection_hidden=16, generator=0)
    return ConsistencyPretrainer(encoder, views, n_steps=n_steps, batch_size=16, **options)  # type: ignore[arg-type]


def test_a_trained_encoder_pulls_trajectories_together_and_notices_broken_ones() -> None:
    X = inputs(256, 6)
    x, first, second = (X[:64] - 0.5) / 0.5, *(torch.randn(64, 6, generator=seeded(i)) for i in (1, 2))
    model, times = pretrainer(250, learning_rate=3e-3), KarrasSchedule().times(81)
    before = trajectory_loss(model.encoder, x, first, 1.0, 0.9).item()
    trained = model.fit(X)
    assert trajectory_loss(trained.encoder, x, first, 1.0, 0.9).item() < before - 0.1
    assert len(model.consistency_losses_) == len(model.contrastive_losses_) == 250
    for i in (KarrasSchedule().nearest(t, 81) for t in (0.5, 1.0)):
        t, t_next = times[i].item(), times[i + 1].item()
        kept = trajectory_loss(trained.encoder, x, first, t, t_next)
        level, below = torch.full((64,), t), torch.full((64,), t_next)
        queries = trained.encoder((x + t * first) / math.hypot(t, 0.5), level)[1]
        keys = trained.encoder((x + t_next * second) / math.hypot(t_next, 0.5), below)[1]
        assert info_nce(queries, keys) > kept + 0.3


def test_slow_copy_is_the_moving_average_of_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    model, kept = pretrainer(3, ema=(0.5, 0.8), learning_rate=1e-2), []
    weight = model.encoder.embedding.weight
    start, expected = weight.detach().clone(), weight.detach().clone()
    original = model._follow

    def follow(step: object) -> None:
        kept.append(weight.detach().clone())
        original(step)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "_follow", follow)
    model.fit(inputs(64, 6))
    for k, current in enumerate(kept, 1):
        rate = ema_rate(k, 3, 0.5, 0.8, 15.0)
        expected = rate * expected + (1 - rate) * current
    torch.testing.assert_close(model.target_.embedding.weight, expected)
    assert (expected - start).abs().max() > 1e-4
    assert all(not p.requires_grad and p.grad is None for p in model.target_.parameters())


def test_terms_can_be_left_out() -> None:
    X = inputs(64, 6)
    assert pretrainer(5, consistency_weight=0.0).fit(X).consistency_losses_ == []
    assert pretrainer(5, contrastive_weight=0.0).fit(X).contrastive_losses_ == []


def test_pretraining_follows_its_seed_alone() -> None:
    found = []
    for global_seed, seed in ((1, 0), (2, 0), (3, 1)):
        torch.manual_seed(global_seed)
        found.append(pretrainer(5, generator=seed).fit(inputs(64, 6)).history_.losses)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "encoder",
    [ResidualEncoder((1, 8, 8), 16, 1, generator=0), PatchEncoder(1, 8, 4, width=16, n_layers=1, generator=0)],
)
def test_images_and_both_dtypes(encoder: nn.Module, dtype: torch.dtype) -> None:
    X = inputs(32, 1, 8, 8).to(dtype)
    trained = ConsistencyPretrainer(encoder.to(dtype), lambda x: x.flip(-1), n_steps=2, batch_size=16).fit(X)
    tuned = finetune_smoothing(trained.encoder, X, torch.arange(32) % 3, 0.5, n_steps=2)
    assert tuned.classifier(X).shape == (32, 3)
    assert tuned.classifier(X).dtype == dtype


def test_noise_features_tell_levels_apart_as_the_position_code_of_250_ln_t() -> None:
    t = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    found = noise_features(t, 8)
    for j in range(4):
        angle = 250 * t.log() * 10_000 ** (-j / 4)
        torch.testing.assert_close(found[:, j], angle.cos())
        torch.testing.assert_close(found[:, 4 + j], angle.sin())


# --- fine-tuning -----------------------------------------------------------------------------------------------------


def blobs(n: int, n_classes: int = 3) -> tuple[Tensor, Tensor]:
    """Classes around corners of a cube in 6 dimensions."""
    y = torch.arange(n) % n_classes
    corners = torch.rand(n_classes, 6, generator=seeded(9)).round()
    return 0.2 + 0.6 * corners[y] + 0.05 * torch.randn(n, 6, generator=seeded(8)), y


def tune(lbd: float = 0.0, eta: float = 0.0, sigma: float = 0.2, **options: object):  # type: ignore[no-untyped-def]
    X, y = blobs(300)
    settings = {"n_epochs": 10, "batch_size": 64, "learning_rate": 1e-2, **options}
    encoder = ResidualEncoder(6, 16, 1, generator=0)
    return finetune_smoothing(encoder, X, y, sigma, lbd, eta, validation=blobs(90), **settings)  # type: ignore[arg-type]


def test_fine_tuned_classifier_is_certified() -> None:
    tuned = tune(1.0, 0.5)
    assert tuned.noisy_accuracy > 0.9
    assert not tuned.collapsed
    assert tuned.n_classes_predicted == pytest.approx(3.0, abs=0.2)
    X, y = blobs(9)
    certificates = SmoothedClassifier(tuned.classifier, 0.2, 3).certify_many(X, 50, 500)
    assert [certificate.label for certificate in certificates] == y.tolist()
    assert min(certificate.radius for certificate in certificates) > 0.1


def test_collapse_is_reported() -> None:
    """A regulariser that outweighs the labels says one class, and would certify its share at any radius."""
    tuned = tune(0.0, 1000.0, sigma=2.0)
    assert tuned.collapsed
    assert tuned.n_classes_predicted < 1.5
    reach = SmoothedClassifier(tuned.classifier, 2.0, 3).certify(blobs(1)[0][0], 50, 1000).radius
    assert reach > 2.0  # further than from any of these inputs to any other


def test_encoder_is_copied_and_told_the_nearest_level() -> None:
    encoder = ResidualEncoder(6, 16, 1, generator=0)
    before = [p.clone() for p in encoder.parameters()]
    X, y = blobs(60)
    tuned = finetune_smoothing(encoder, X, y, 0.5, n_steps=3, learning_rate=0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))
    # sigma 0.5 in [0, 1] is t = 1 after scaling by a standard deviation of 0.5.
    times = KarrasSchedule().times(81)
    assert tuned.classifier.t == times[(times - 1.0).abs().argmin()].item()


def test_classifier_normalises_and_scales() -> None:
    class Spy(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            assert t.tolist() == [2.0, 2.0]
            return x, x

    x = inputs(2, 4)
    found = NoisyClassifier(Spy(), nn.Identity(), 2.0, mean=0.3, std=0.4, sigma_data=0.5)(x)
    torch.testing.assert_close(found, (x - 0.3) / 0.4 / math.sqrt(4.25))


def test_rates_fall_by_layer() -> None:
    model = NoisyClassifier(PatchEncoder(1, 8, 4, width=16, n_layers=3, generator=0), nn.Linear(16, 2), 1.0)
    rate = {id(p): group["lr"] for group in layerwise_groups(model, 1.0, 0.5) for p in group["params"]}  # type: ignore[attr-defined]
    transformer = model.encoder.transformer
    assert {rate[id(p)] for p in model.head.parameters()} == {1.0}
    assert {rate[id(p)] for p in transformer.norm.parameters()} == {1.0}
    for layer, expected in zip(transformer.layers, (0.125, 0.25, 0.5), strict=True):
        assert {rate[id(p)] for p in layer.parameters()} == {expected}
    assert {rate[id(p)] for p in model.encoder.patches.parameters()} == {0.0625}
    assert rate[id(model.encoder.class_token)] == 0.0625
    assert len(rate) == len(list(model.parameters()))


def test_an_encoder_without_layers_has_one_rate() -> None:
    model = NoisyClassifier(Scaled(4), nn.Linear(4, 2), 1.0)
    assert {group["lr"] for group in layerwise_groups(model, 0.3, 0.5)} == {0.3}


def test_training_on_noise_draws_new_noise_for_each_copy() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(x.detach() * t[0].pow(2).add(0.25).sqrt() * 0.5 + 0.5)
            return x * self.weight, x * self.weight

    X = torch.zeros(4000, 2)
    finetune_smoothing(Spy(), X, torch.arange(4000) % 2, 0.3, m=2, n_steps=1, batch_size=4000)
    copies = seen[1].unflatten(0, (2, -1))
    # 16,000 draws: five standard errors are 3 %; copies are as good as uncorrelated.
    assert copies.std().item() == pytest.approx(0.3, rel=0.03)
    assert abs((copies[0] * copies[1]).mean().item()) < 5 * 0.09 / math.sqrt(8000)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(
    "options",
    [
        {"tau": 0.0},
        {"learning_rate": math.nan},
        {"warmup": 1.0},
        {"ema": (0.99, 1.0)},
        {"n_steps": 0},
        {"std": 0.0},
        {"contrastive_weight": 0.0, "consistency_weight": 0.0},
    ],
)
def test_pretrainer_refuses(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="|".join(options)):
        pretrainer(**{"n_steps": 5, **options})  # type: ignore[arg-type]


@pytest.mark.usefixtures("as_users_call_it")
def test_data_that_cannot_be_trained_on_are_refused() -> None:
    encoder, (X, y) = ResidualEncoder(6, 16, 1, generator=0), blobs(30)
    with pytest.raises(ValueError, match="X must"):
        pretrainer().fit(X * math.nan)
    with pytest.raises(TypeError, match="X must"):
        pretrainer().fit(y)
    for bad in ({"sigma": 0.0}, {"lbd": -1.0}, {"layer_decay": 0.0}, {"m": 0}, {"num_classes": 2}, {"y": y[:-1]}):
        with pytest.raises(ValueError, match="must"):
            finetune_smoothing(encoder, **{"X": X, "y": y, "sigma": 0.5, "n_steps": 1, **bad})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualEncoder(4, 15), "even"),
        (lambda: ResidualEncoder(4, 0), "sizes"),
        (lambda: PatchEncoder(1, 8, 3), "divide"),
        (lambda: KarrasSchedule(t_min=1.0, t_max=0.5), "t_min"),
        (lambda: KarrasSchedule(n_first=90), "n_first"),
    ],
)
def test_parts_that_cannot_be_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
