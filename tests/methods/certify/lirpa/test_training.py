"""Certified losses against attacks, closed forms and finite differences; schedules; certificates."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.attack.gradient import projected_gradient_descent
from offprint.methods.certify.lirpa.bounds import BoundedModule, perturb_parameters
from offprint.methods.certify.lirpa.certificates import certify
from offprint.methods.certify.lirpa.perturbations import LpBall
from offprint.methods.certify.lirpa.training import EpsSchedule, certified_loss

INF = math.inf
FUSED = ("ibp", "crown-ibp", "forward+crown", "crown")


@pytest.fixture
def as_users_call_it() -> Iterator[None]:
    """Without the shape checks of the test run, so that what refuses bad input is the code itself."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def linear(n_in: int, n_out: int) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Linear(n_in, n_out, dtype=torch.float64)


@functools.cache
def captured() -> BoundedModule:
    """`network()` for `data()`, captured once."""
    return BoundedModule(network(), data()[0])


def convolutional() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
        ).double()


def data(n: int = 6, n_classes: int = 4, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(n_classes, (n,), generator=generator)


@functools.cache
def cases() -> list[tuple[BoundedModule, float, float, Tensor]]:
    """Captured networks with a ball and the worst loss found in it, for `data()`."""
    made = []
    for seed, eps, norm in ((0, 0.1, INF), (1, 0.6, INF), (2, 0.5, 2.0)):
        model = network(seed)
        made.append((BoundedModule(model, data()[0]), eps, norm, worst_found(model, *data(), eps, norm)))
    return made


def worst_found(model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: float) -> Tensor:
    """The largest cross entropy that sampling and PGD find in the ball, for each sample."""

    def gain(points: Tensor) -> Tensor:
        return -functional.cross_entropy(model(points), y, reduction="none")

    attacked = -projected_gradient_descent(gain, x, radius=eps, norm=norm, n_steps=12, n_restarts=2).values
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(300, *x.shape, generator=generator, dtype=x.dtype)
    length = noise.flatten(2).norm(p=norm, dim=2)[(..., *[None] * (x.ndim - 1))]
    points = x + eps * noise / length  # on the sphere, where the maximum usually is
    with torch.no_grad():
        outputs = model(points.flatten(0, 1))
    sampled = functional.cross_entropy(outputs, y.repeat(len(points)), reduction="none").reshape(len(points), -1)
    return torch.maximum(attacked, sampled.amax(0))


# --- the loss is a bound ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize("method", FUSED)
def test_never_below_the_worst_loss_that_is_found(method: str, fusion: bool) -> None:
    x, y = data()
    for bounded, eps, norm, worst in cases():
        bound = certified_loss(bounded, x, y, LpBall(norm, eps), method, fusion, reduction="none")
        assert (bound >= worst - 1e-9).all()


def test_a_bound_for_convolutions_too() -> None:
    x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, model = torch.tensor([0, 1, 2, 0, 1]), convolutional()
    bounded, worst = BoundedModule(model, x), worst_found(model, x, y, 0.2, INF)
    for method in FUSED:
        bound = certified_loss(bounded, x, y, LpBall(INF, 0.2), method, reduction="none")
        assert (bound >= worst - 1e-9).all()


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown"])
def test_a_bound_over_weights_and_inputs(method: str, fusion: bool) -> None:
    x, y = data()
    bounded, model = captured(), captured().model
    assert model is not None
    names = [name for name, _ in model.named_parameters() if name.endswith("weight")]
    radii = {0: 0.05} | dict.fromkeys(names, 0.1)
    perturbation = {0: LpBall(INF, 0.05), **perturb_parameters(model, names, LpBall(2, 0.1))}
    bound = certified_loss(bounded, x, y, perturbation, method, fusion, reduction="none")
    generator = torch.Generator().manual_seed(5)
    original = {name: value.detach().clone() for name, value in model.named_parameters()}
    worst = torch.zeros(len(x), dtype=x.dtype)
    for attempt in range(40):
        steps = {name: torch.randn(original[name].shape, generator=generator, dtype=x.dtype) for name in names}
        if attempt % 2:  # half of the attempts go up the gradient, where the loss grows fastest
            loss = functional.cross_entropy(model(x)[attempt % 6 : attempt % 6 + 1], y[attempt % 6 : attempt % 6 + 1])
            steps = dict(zip(names, torch.autograd.grad(loss, [model.get_parameter(n) for n in names]), strict=True))
        moved = {name: original[name] + radii[name] * step / step.norm() for name, step in steps.items()}
        points = x + radii[0] * torch.randn(x.shape, generator=generator, dtype=x.dtype).sign()
        outputs = torch.func.functional_call(model, moved, (points,))
        worst = torch.maximum(worst, functional.cross_entropy(outputs, y, reduction="none").detach())
    assert (bound >= worst - 1e-9).all()


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize("method", FUSED)
def test_without_perturbation_it_is_the_cross_entropy(method: str, fusion: bool) -> None:
    x, y = data()
    bound = certified_loss(captured(), x, y, LpBall(INF, 0.0), method, fusion, reduction="none")
    truth = functional.cross_entropy(network()(x), y, reduction="none")
    torch.testing.assert_close(bound, truth, rtol=0, atol=1e-9)


def test_far_apart_logits_do_not_overflow() -> None:
    x, y = data()
    model = nn.Sequential(network(), linear(4, 4))
    with torch.no_grad():
        model[1].weight.mul_(5000)
    bound = certified_loss(BoundedModule(model, x), x, y, LpBall(INF, 0.1), "crown-ibp", reduction="none")
    assert torch.isfinite(bound).all()
    assert bound.max() > 700  # so that a plain exponential of it would have been infinite


# --- closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "order"), [(INF, 1), (2.0, 2), (1.0, INF)])
def test_margins_of_a_linear_classifier(norm: float, order: float) -> None:
    # The least margin over a class is (w_y - w_k) x + b_y - b_k - eps |w_y - w_k|_q, q the dual order.
    x, y = data()
    model = linear(5, 4)
    weight, bias = model.weight.detach(), model.bias.detach()
    found = certified_loss(BoundedModule(model, x), x, y, LpBall(norm, 0.3), "crown", False, reduction="none")
    total = torch.zeros(6, dtype=torch.float64)
    for k in range(4):
        difference = weight[k] - weight[y]
        reach = 0.3 * torch.linalg.vector_norm(difference, order, dim=1)
        total += ((difference * x).sum(1) + bias[k] - bias[y] + reach).exp()
    torch.testing.assert_close(found, total.log(), rtol=1e-9, atol=1e-9)


def test_chords_of_a_linear_classifier() -> None:
    # The fused bound is the maximum over a box of a sum of chords: linear, so it is at a corner, and all are tried.
    x, y = data()
    x = x[:, :3]
    model, eps = linear(3, 4), 0.4
    found = certified_loss(BoundedModule(model, x), x, y, LpBall(INF, eps), "crown-ibp", reduction="none")
    corners = torch.cartesian_prod(*[torch.tensor([-eps, eps], dtype=torch.float64)] * 3)
    for i in range(6):
        outputs = model(x[i] + corners).detach()
        differences = outputs - outputs[:, y[i] : y[i] + 1]
        low, high = differences.amin(0), differences.amax(0)
        width = (high - low).clamp(min=1e-300)
        chords = low.exp() + (high.exp() - low.exp()) / width * (differences - low)
        assert found[i].item() == pytest.approx(chords.sum(1).max().log().item(), abs=1e-9)


def test_weights_of_a_linear_classifier_in_a_ball() -> None:
    # A margin moves by (dw_k - dw_y) x with |dW|_F <= eps: by at most sqrt(2) eps |x|.
    x, y = data()
    model, eps = linear(5, 4), 0.2
    perturbation = perturb_parameters(model, ["weight"], LpBall(2, eps))
    reach = math.sqrt(2) * eps * x.norm(dim=1, keepdim=True)
    outputs = model(x).detach()
    differences = outputs - outputs.gather(1, y[:, None])
    others = torch.arange(4) != y[:, None]
    expected = torch.where(others, differences + reach, differences).exp().sum(1).log()
    for method in ("ibp", "crown"):
        found = certified_loss(BoundedModule(model, x), x, y, perturbation, method, method == "ibp", reduction="none")
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_intervals_need_no_fusion() -> None:
    x, y = data()
    bounded = captured()
    fused, plain = (certified_loss(bounded, x, y, LpBall(INF, 0.3), "ibp", fusion) for fusion in (True, False))
    margins = bounded.compute_bounds(x, LpBall(INF, 0.3), "ibp", C=_margin_rows(y, 4), upper=False).lower
    assert margins is not None
    expected = (1 + (-margins).exp().sum(1)).log().mean()
    torch.testing.assert_close(fused, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(plain, expected, rtol=1e-9, atol=1e-9)


def _margin_rows(y: Tensor, n_classes: int) -> Tensor:
    rows = torch.zeros(len(y), n_classes - 1, n_classes, dtype=torch.float64)
    for i, label in enumerate(y.tolist()):
        for j, k in enumerate(k for k in range(n_classes) if k != label):
            rows[i, j, label], rows[i, j, k] = 1, -1
    return rows


@pytest.mark.parametrize("fusion", [True, False])
def test_the_mix_lies_between_its_parts(fusion: bool) -> None:
    x, y = data()
    bounded = captured()
    ibp, half, crown = (
        certified_loss(bounded, x, y, LpBall(INF, 0.2), "crown-ibp", fusion, mix=mix, reduction="none")
        for mix in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(ibp, certified_loss(bounded, x, y, LpBall(INF, 0.2), "ibp", reduction="none"))
    if fusion:  # mixed under the logarithm
        torch.testing.assert_close(half.exp(), (ibp.exp() + crown.exp()) / 2)
    assert ((half - ibp) * (half - crown) <= 1e-12).all()
    assert ((half - ibp).abs() > 1e-6).all()


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown"])
@pytest.mark.parametrize("weights", [False, True])
def test_gradients_are_those_of_finite_differences(method: str, fusion: bool, weights: bool) -> None:
    x, y = data()
    bounded, model = captured(), captured().model
    assert model is not None
    perturbation = perturb_parameters(model, ["0.weight", "4.weight"], LpBall(2, 0.1)) if weights else LpBall(INF, 0.2)

    def loss() -> Tensor:
        return certified_loss(bounded, x, y, perturbation, method, fusion)

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    generator, step = torch.Generator().manual_seed(0), 1e-6
    for _ in range(1 if method == "crown" else 2):
        directions = [torch.randn(one.shape, generator=generator, dtype=one.dtype) for one in parameters]
        slope = sum((a * b).sum().item() for a, b in zip(gradients, directions, strict=True))
        ends = []
        for move in (step, -2 * step, step):
            with torch.no_grad():
                for one, direction in zip(parameters, directions, strict=True):
                    one.add_(direction, alpha=move)
                ends.append(loss().item())
        # Central differences of a function of size 1 are exact to about 1e-16 / 1e-6.
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-7)


def test_training_on_it_certifies() -> None:
    # Two classes 1 apart along the first coordinate: a slope of the right size there certifies up to 0.5.
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    x = torch.randn(60, 2, generator=generator) * torch.tensor([0.02, 1.0])
    x[:, 0] += y - 0.5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 2))
    bounded, schedule = BoundedModule(model, x), EpsSchedule(0.3, length=30)
    before = int(certify(model, x, y, 0.3).verified.sum())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for step in range(50):
        optimizer.zero_grad()
        certified_loss(bounded, x, y, LpBall(INF, schedule(step)), mix=schedule.mix(step)).backward()
        optimizer.step()
    assert before < 20
    assert int(certify(model, x, y, 0.3).verified.sum()) == 60


# --- the schedule ----------------------------------------------------------------------------------------------------


def test_a_linear_schedule() -> None:
    schedule = EpsSchedule(0.8, start=20, length=40)
    assert [schedule(step) for step in (0, 20, 30, 40, 60, 61)] == pytest.approx([0, 0, 0.2, 0.4, 0.8, 0.8])
    assert [schedule.mix(step) for step in (0, 30, 60)] == pytest.approx([1, 0.75, 0])


def test_a_smoothed_schedule() -> None:
    schedule = EpsSchedule(2.0, start=100, length=800, kind="smoothed", mid=0.4, power=4.0)
    values = torch.tensor([schedule(step) for step in range(1001)], dtype=torch.float64)
    slopes = values.diff()
    assert (values[:101] == 0).all()
    assert values[900:].tolist() == pytest.approx([2.0] * 101)
    assert (slopes >= 0).all()
    # A fourth power up to step 420, ...
    assert (values[420] / values[260]).item() == pytest.approx(2**4, rel=1e-9)
    # ... then a line ...
    assert slopes[420:900].tolist() == pytest.approx([slopes[500].item()] * 480, rel=1e-9)
    # ... whose slope is that of the power where it ends, p value / t.
    assert slopes[500].item() == pytest.approx(4 * values[420].item() / 320, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("eps", {"eps": -0.1}),
        ("eps", {"eps": math.nan}),
        ("length", {"eps": 1.0, "length": 0}),
        ("start", {"eps": 1.0, "start": -1}),
        ("kind", {"eps": 1.0, "kind": "cosine"}),
        ("mid", {"eps": 1.0, "mid": 0.0}),
        ("power", {"eps": 1.0, "power": 0.5}),
    ],
)
def test_schedules_refuse(name: str, arguments: dict[str, float], as_users_call_it: None) -> None:
    with pytest.raises(ValueError, match=name):
        EpsSchedule(**arguments)


# --- certificates ----------------------------------------------------------------------------------------------------


@functools.cache
def trained() -> tuple[BoundedModule, Tensor, Tensor]:
    """A network that is right on most points of noisy data, some of them near the border; captured once."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    y = (x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 0] > 1).long()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return BoundedModule(model, x), x, y


def test_what_is_verified_cannot_be_attacked() -> None:
    bounded, x, y = trained()
    for norm in (INF, 2.0):
        attacked = worst_margin(bounded.model, x, y, 0.1, norm)
        counts = []
        for method in ("ibp", "crown-ibp", "crown", "alpha-crown"):
            found = certify(bounded, x, y, 0.1, norm, method, early_stop=False, steps=3)
            assert (found.margins.amin(1) <= attacked + 1e-9).all()
            assert not (found.verified & (attacked <= 0)).any()
            counts.append(int(found.verified.sum()))
        assert 0 < counts[0] < counts[-1] <= int((attacked > 0).sum()) < 50


def worst_margin(model: nn.Module | None, x: Tensor, y: Tensor, eps: float, norm: float) -> Tensor:
    assert model is not None

    def margin(points: Tensor) -> Tensor:
        outputs = model(points)
        own = functional.one_hot(y, 4).bool()
        return outputs[own] - outputs.masked_fill(own, -INF).amax(1)

    return projected_gradient_descent(margin, x, radius=eps, norm=norm, n_steps=15, n_restarts=2).values


@pytest.mark.parametrize("method", ["forward", "crown", "alpha-crown"])
def test_stopping_early_loses_nothing(method: str) -> None:
    bounded, x, y = trained()
    x, y = x[:20], y[:20]
    quick = certify(bounded, x, y, 0.1, method=method, steps=2)
    slow = certify(bounded, x, y, 0.1, method=method, early_stop=False, steps=2)
    assert (quick.verified >= slow.verified).all()
    assert (quick.correct == slow.correct).all()
    assert bounded.model is not None
    assert (quick.correct == (bounded.model(x).argmax(1) == y)).all()
    tried = [i for i in range(20) if quick.method[i] == method]
    assert (quick.margins[tried] >= slow.margins[tried] - 1e-12).all()
    if method != "forward":
        assert len(tried) < 20


def test_batches_and_radii_are_those_of_single_samples() -> None:
    bounded, x, y = trained()
    x, y = x[:5], y[:5]
    radii = torch.linspace(0.02, 0.2, 5, dtype=torch.float64)
    together = certify(bounded, x, y, radii, early_stop=False)
    batches = certify(bounded, x, y, radii, early_stop=False, batch_size=3)
    for i in range(5):
        alone = certify(bounded, x[i : i + 1], y[i : i + 1], radii[i].item(), early_stop=False)
        torch.testing.assert_close(together.margins[i], alone.margins[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(together.margins, batches.margins, rtol=1e-9, atol=1e-9)


def test_a_range_for_pixels_helps() -> None:
    model = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    x, y = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    assert certify(model, x, y, 0.6).margins.item() == pytest.approx(-0.2)
    assert certify(model, x, y, 0.6, x_L=0.0, x_U=1.0).margins.item() == pytest.approx(-0.2)
    assert certify(model, x, y, 0.6, x_L=0.5 * x, x_U=1.0).margins.item() == pytest.approx(-0.1)
    assert certify(model, x, y, 0.6, x_L=0.9 * x, x_U=0.1 + 0.9 * x).verified.item()


def test_modes_are_restored_and_reports_made() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 3)).double()
    model[0].eval()
    reports: list[tuple[float, float, str]] = []
    x, y = torch.zeros(5, 2, dtype=torch.float64), torch.zeros(5, dtype=torch.long)
    certify(model, x, y, 0.1, method="ibp", batch_size=2, progress=lambda *report: reports.append(report))
    assert [one.training for one in model] == [False, True, True, True, True]
    assert [report[:2] for report in reports] == [(2, 5), (4, 5), (5, 5)]


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error", "change"),
    [
        ("y", ValueError, {"y": torch.tensor([0, 1, 4, 0, 0, 0])}),
        ("y", ValueError, {"y": torch.tensor([0, 1])}),
        ("y", TypeError, {"y": torch.zeros(6)}),
        ("method", ValueError, {"method": "magic"}),
        ("method", ValueError, {"method": "alpha-crown"}),
        ("mix", ValueError, {"mix": 1.5}),
        ("reduction", ValueError, {"reduction": "sum"}),
        ("x", ValueError, {"x": torch.full((6, 5), math.nan, dtype=torch.float64)}),
    ],
)
def test_losses_refuse(name: str, error: type[Exception], change: dict[str, object], as_users_call_it: None) -> None:
    x, y = data()
    given: dict[str, object] = {"x": x, "y": y, "perturbation": LpBall(INF, 0.1), **change}
    with pytest.raises(error, match=name):
        certified_loss(captured(), **given)  # type: ignore[arg-type]


def test_a_regression_has_no_certified_loss() -> None:
    x, y = data(3)
    with pytest.raises(ValueError, match="bounded"):
        certified_loss(BoundedModule(nn.Linear(5, 1, dtype=x.dtype), x), x, y, LpBall(INF, 0.1))


@pytest.mark.parametrize(
    ("name", "error", "change"),
    [
        ("y", ValueError, {"y": torch.tensor([0, 1, 4])}),
        ("y", ValueError, {"y": torch.tensor([0, 1])}),
        ("y", TypeError, {"y": torch.tensor([0.0, 1.0, 2.0])}),
        ("eps", ValueError, {"eps": -0.1}),
        ("eps", ValueError, {"eps": torch.tensor([0.1, 0.1])}),
        ("eps", ValueError, {"eps": math.nan}),
        ("norm", ValueError, {"norm": 0.5}),
        ("method", ValueError, {"method": "magic"}),
        ("batch_size", ValueError, {"batch_size": 0}),
        ("X", ValueError, {"X": torch.zeros(0, 5)}),
        ("finite", ValueError, {"X": torch.full((3, 5), math.inf, dtype=torch.float64)}),
    ],
)
def test_certify_refuses(name: str, error: type[Exception], change: dict[str, object], as_users_call_it: None) -> None:
    x, y = data(3)
    given: dict[str, object] = {"X": x, "y": y, "eps": 0.1, **change}
    with pytest.raises(error, match=name):
        certify(captured(), **given)  # type: ignore[arg-type]
