"""What the paper claims about bounds of any network and training on them, measured."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.attack.gradient import projected_gradient_descent
from offprint.methods.certify.lirpa.bounds import BoundedModule, Method, perturb_parameters
from offprint.methods.certify.lirpa.certificates import certify
from offprint.methods.certify.lirpa.perturbations import LpBall
from offprint.methods.certify.lirpa.training import EpsSchedule, certified_loss
from offprint.models.mlp import MLP
from offprint.models.training import train
from offprint.papers.figure import Level, Panel, Series
from offprint.papers.lirpa.architectures import architectures, untrained
from offprint.papers.lirpa.classifiers import (
    Images,
    Pair,
    Robust,
    attacked_accuracy,
    clean_error,
    convolutional,
    cross_entropy,
    digits,
    largest,
    trained,
)
from offprint.papers.run import Measurement, Run, measures
from offprint.statistics import bootstrap_interval

INF = float("inf")
NAMES: dict[Method, str] = {
    "ibp": "IBP",
    "forward": "forward",
    "crown-ibp": "CROWN-IBP",
    "crown": "CROWN",
    "alpha-crown": "α-CROWN",
}
EPS = 0.02
"""Radius at which networks of different kinds are compared; pixels are in [0, 1]."""


@measures("bounds-any-architecture")
def bounds_any_architecture(run: Run) -> Measurement:
    """Bound seven untrained networks by five methods, and look for outputs outside of the bounds."""
    images = digits(run, run.pick(smoke=1, quick=2, full=8))
    x = images.test[0].double()
    widths: dict[str, dict[str, float]] = {name: {} for name in NAMES.values()}
    reached: dict[str, float] = {}
    violations = 0
    curves = []
    made = architectures(run.pick(smoke=1, quick=1, full=2, paper=4))
    for i, (name, make) in enumerate(run.track(list(made.items()), "architectures")):
        sequence = name in ("Transformer", "LSTM")
        known, points = (part.squeeze(1) if sequence else part for part in (images.train[0][:64].double(), x))
        model = untrained(make, known, run.generator(10 + i))
        bounded = BoundedModule(model, points)
        outputs = _searched(run, model, points, EPS)
        reached[name] = _spread(outputs)
        methods = run.pick(smoke=("ibp", "crown"), quick=tuple(NAMES), full=tuple(NAMES))
        for method in methods:
            low, high = _bounds(bounded, points, EPS, method)
            violations += int(((outputs < low - 1e-9) | (outputs > high + 1e-9)).sum())
            widths[NAMES[method]][name] = float((high - low).mean())
        if name in ("CNN + BN", "Transformer") and run.scale != "smoke":
            curves.append(_tightness(run, name, model, bounded, points))
    ratios = {name: widths["CROWN"][name] / widths["IBP"][name] for name in made}
    run.figure(
        Panel(
            "network",
            "width of the bounds over the range found",
            [
                Series(method, list(made), [found[name] / reached[name] for name in made], "bars")
                for method, found in widths.items()
                if found
            ],
            title=f"ε = {EPS}",
            y_axis="log",
            levels=[Level("range found", 1.0)],
        ),
        *curves,
        caption="How wide certified bounds of untrained networks are over the range that a search finds, which none "
        "can go below: by network, and for two of them against the radius.",
    )
    return Measurement(
        max(ratios.values()),
        baseline=1.0,
        also={"violations": violations},
        note=f"eps = {EPS} (l-infinity), double precision; CROWN over IBP: {_listed(ratios)}",
    )


def _bounds(bounded: BoundedModule, x: Tensor, eps: float, method: Method) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        found = bounded.compute_bounds(x, LpBall(INF, eps), method, steps=10)
    assert found.lower is not None
    assert found.upper is not None
    return found.lower, found.upper


def _searched(run: Run, model: nn.Module, x: Tensor, eps: float) -> Tensor:
    """Return outputs at points of the ball: at random, at corners, and where gradients lead, (points, batch, 10)."""
    n_points = run.pick(smoke=20, quick=500, full=1000)
    noise = torch.rand(n_points, *x.shape, generator=run.generator(3), dtype=x.dtype, device=x.device) * 2 - 1
    noise[::3] = noise[::3].sign()
    # Each of the ten outputs as high and as low as gradients lead, all twenty searches as one batch.
    ways = torch.cat([torch.eye(10), -torch.eye(10)]).to(x)

    def objective(points: Tensor) -> Tensor:
        values: Tensor = (ways.repeat_interleave(len(x), 0) * model(points)).sum(1)
        return values

    steps = run.pick(smoke=3, quick=15, full=40)
    led = projected_gradient_descent(objective, x.repeat(len(ways), *[1] * (x.ndim - 1)), radius=eps, n_steps=steps)
    points = torch.cat([x + eps * noise, led.points.reshape(len(ways), *x.shape)])
    with torch.no_grad():
        return torch.cat([model(part.flatten(0, 1)).view(-1, len(x), 10) for part in torch.split(points, 100)])


def _spread(outputs: Tensor) -> float:
    return float((outputs.amax(0) - outputs.amin(0)).mean())


def _tightness(run: Run, name: str, model: nn.Module, bounded: BoundedModule, x: Tensor) -> Panel:
    """Compare the widths of bounds with the range that the search finds, over the radius."""
    radii = [0.001, 0.003, 0.01, 0.03, 0.1]
    ratios: dict[str, list[float]] = {method: [] for method in NAMES.values()}
    for eps in radii:
        reached = _spread(_searched(run, model, x, eps))
        for method, title in NAMES.items():
            try:
                low, high = _bounds(bounded, x, eps, method)
                ratios[title].append(float((high - low).mean()) / reached)
            except ValueError:  # intervals so wide that an operator's domain is left
                ratios[title].append(float("nan"))
    return Panel(
        "radius ε",
        "width of the bounds over the range found",
        [Series(title, radii, values) for title, values in ratios.items()],
        title=name,
        x_axis="log",
        y_axis="log",
        levels=[Level("range found", 1.0)],
    )


@measures("tighter-than-intervals")
def tighter_than_intervals(run: Run) -> Measurement:
    """Verify a normally trained digits network by four methods over the radius, with an attack as the other side."""
    images = digits(run, run.pick(smoke=10, quick=60, full=200))
    model = trained(run, images, run.pick(smoke=2, quick=8, full=8), run.pick(smoke=1, quick=40, full=60), 3e-3, "CNN")
    radii = run.pick(smoke=[0.02, 0.06], quick=[0.02, 0.04, 0.06, 0.08, 0.1], full=[0.02, 0.03, 0.04, 0.06, 0.08, 0.1])
    verified: dict[str, list[float]] = {title: [] for method, title in NAMES.items() if method != "forward"}
    attacked = []
    bounded = BoundedModule(model, images.test[0])
    for eps in run.track(radii, "verifying"):
        for method, title in NAMES.items():
            if method != "forward":
                found = certify(
                    bounded,
                    *images.test,
                    eps,
                    method=method,
                    x_L=0.0,
                    x_U=1.0,
                    early_stop=False,
                    batch_size=len(images.test[0]),
                    steps=run.pick(smoke=2, quick=10, full=20),
                )
                verified[title].append(100 * float(found.verified.double().mean()))
        steps, restarts = run.pick(smoke=(5, 1), quick=(50, 2), full=(100, 5))
        attacked.append(attacked_accuracy(run, model, images.test, eps, steps, restarts))
    gains = [crown - ibp for crown, ibp in zip(verified["CROWN"], verified["IBP"], strict=True)]
    best = int(np.argmax(gains))
    ordered = _ordered([*verified.values(), attacked], best)
    run.figure(
        Panel(
            "radius ε (l∞, pixels in [0, 1])",
            "accuracy (%)",
            [
                # Dashed, as CROWN below it may be the same.
                *(Series(title, radii, values, dashed=title == "α-CROWN") for title, values in verified.items()),
                Series("under attack (PGD)", radii, attacked, dashed=True),
            ],
            levels=[Level("clean", 100 - clean_error(model, images.test))],
        ),
        caption="Verified accuracy of a normally trained network by each method; no method can pass the attack.",
    )
    table = "; ".join(f"{title} {_rounded(values)}" for title, values in verified.items())
    return Measurement(
        gains[best],
        baseline=0.0,
        also={"ordered": ordered},
        note=f"clean accuracy {100 - clean_error(model, images.test):.1f}%; verified at eps {radii}: {table}; "
        f"PGD {_rounded(attacked)}",
    )


def _ordered(accuracies: Sequence[Sequence[float]], best: int) -> bool:
    """Say whether accuracies grow from method to method, the first two times strictly at the best radius."""
    pairs = list(pairwise(accuracies))
    growing = all(a <= b for first, second in pairs for a, b in zip(first, second, strict=True))
    return growing and all(first[best] < second[best] for first, second in pairs[:2])


@measures("certified-training-works")
def certified_training_works(run: Run) -> Measurement:
    """Train on intervals and by CROWN-IBP, and compare clean and verified errors with those of natural training."""
    eps = 0.1
    images = largest(run, run.pick(smoke=20, quick=200, full=500), run.pick(smoke=0, quick=0, full=5000, paper=60000))
    width = run.pick(smoke=2, quick=8, full=8, paper=16)
    n_epochs = run.pick(smoke=1, quick=40, full=15, paper=100)
    if images.name == "digits" and run.scale not in ("smoke", "quick"):
        n_epochs *= 6
    rates = run.pick(smoke=(3e-3,), quick=(3e-3,), full=(1e-3, 3e-3))
    arms: dict[str, Robust | None] = {
        "natural": None,
        "IBP": Robust(eps, "ibp"),
        "CROWN-IBP": Robust(eps, "crown-ibp"),
    }
    clean, verified, chosen = {}, {}, {}
    for name, robust in arms.items():
        models = {rate: trained(run, images, width, n_epochs, rate, f"{name}, rate {rate:g}", robust) for rate in rates}
        # Each arm is tuned for what it is judged by: its verified error. Natural training is compared by its best model
        # for either error, so that neither is won against a rate that was chosen for the other.
        rate = min(rates, key=lambda one: _verified_error(run, models[one], images.validation, eps, "crown-ibp"))
        for_clean = rate if robust else min(rates, key=lambda one: clean_error(models[one], images.validation))
        clean[name] = clean_error(models[for_clean], images.test)
        verified[name] = _verified_error(run, models[rate], images.test, eps, "crown")
        chosen[name] = f"{rate:g}" if rate == for_clean else f"{rate:g} (clean: {for_clean:g})"
    robust_names = ("IBP", "CROWN-IBP")
    run.figure(
        Panel(
            "training",
            "error (%)",
            [
                Series("clean", list(arms), list(clean.values()), "bars"),
                Series(f"verified at ε = {eps}", list(arms), list(verified.values()), "bars"),
            ],
        ),
        caption="Errors after natural training and after training on certified bounds; all verified by CROWN.",
    )
    return Measurement(
        max(verified[name] for name in robust_names) / verified["natural"],
        baseline=1.0,
        also={"clean-error-increase": max(clean[name] for name in robust_names) - clean["natural"]},
        note=f"{images.name}, {len(images.train[0])} training images, {n_epochs} epochs; clean errors in % "
        f"{_listed(clean)}; verified {_listed(verified)}; rates {chosen}",
    )


def _verified_error(run: Run, model: nn.Module, test: Pair, eps: float, method: Method) -> float:
    x, y = (part[: run.pick(smoke=20, quick=200, full=500)] for part in test)
    found = certify(model, x, y, eps, method=method, x_L=0.0, x_U=1.0, batch_size=100)
    return 100 * float((~found.verified).double().mean())


@measures("loss-fusion-removes-the-cost-of-classes")
def loss_fusion_removes_the_cost_of_classes(run: Run) -> Measurement:
    """Time CROWN-IBP steps with and without loss fusion over the number of classes, and train both ways."""
    counts = (10, 50, 200)
    eps = 0.02
    ratios, errors, seconds = {}, {}, {}
    for i, n_classes in enumerate(counts):
        data, test = _clusters(run, n_classes, run.pick(smoke=4, quick=20, full=40), 20 + i)
        seconds[n_classes] = _step_times(run, data, n_classes, eps)
        ratios[n_classes] = seconds[n_classes][False] / seconds[n_classes][True]
        errors[n_classes] = {fusion: _fusion_error(run, data, test, n_classes, eps, fusion) for fusion in (True, False)}
    run.figure(
        Panel(
            "classes",
            "seconds per training step",
            [
                Series("without loss fusion", counts, [seconds[n][False] for n in counts], dashed=True),
                Series("with loss fusion", counts, [seconds[n][True] for n in counts]),
            ],
            x_axis="log",
            y_axis="log",
        ),
        Panel(
            "classes",
            "verified error (%)",
            [
                Series("without loss fusion", counts, [errors[n][False] for n in counts], dashed=True),
                Series("with loss fusion", counts, [errors[n][True] for n in counts]),
            ],
            x_axis="log",
        ),
        caption="Cost and outcome of CROWN-IBP training with and without loss fusion.",
    )
    differences = {n: abs(both[True] - both[False]) for n, both in errors.items()}
    shown = {n: f"{both[True]:.1f} / {both[False]:.1f}" for n, both in errors.items()}
    return Measurement(
        ratios[200],
        baseline=1.0,
        also={
            "ratio-grows-with-classes": ratios[10] < ratios[50] < ratios[200],
            "verified-error-difference": max(differences.values()),
        },
        note=f"eps = {eps}; ratios of times {_listed(ratios)}; verified errors in % with / without fusion {shown}",
    )


def _clusters(run: Run, n_classes: int, n_each: int, stream: int) -> tuple[Pair, Pair]:
    """Return images of 8 by 8 around one pattern for each class, those for training and others for testing."""
    generator = run.generator(stream)
    centres = torch.rand(n_classes, 1, 8, 8, generator=generator, device=run.device)
    parts = []
    for n in (n_classes * n_each, run.pick(smoke=50, quick=1000, full=2000)):
        y = torch.randint(n_classes, (n,), generator=generator, device=run.device)
        noise = torch.randn(n, 1, 8, 8, generator=generator, device=run.device)
        parts.append((centres[y] + 0.1 * noise, y))
    return parts[0], parts[1]


def _network(run: Run, n_classes: int) -> nn.Module:
    return convolutional((1, 8, 8), run.pick(smoke=4, quick=16, full=16), run.generator(1), n_classes).to(run.device)


def _step_times(run: Run, data: Pair, n_classes: int, eps: float) -> dict[bool, float]:
    """Return the median seconds of a training step with and without fusion, by turns, after one that is not timed."""
    model = _network(run, n_classes)
    x, y = (part[:64] for part in data)
    bounded = BoundedModule(model, x)
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(run.pick(smoke=2, quick=8, full=15)):
        for fusion, seconds in found.items():
            start = time.perf_counter()
            model.zero_grad()
            certified_loss(bounded, x, y, LpBall(INF, eps), "crown-ibp", fusion, mix=0.5).backward()  # type: ignore[no-untyped-call]
            seconds.append(time.perf_counter() - start)
    return {fusion: float(np.median(seconds[1:])) for fusion, seconds in found.items()}


def _fusion_error(run: Run, data: Pair, test: Pair, n_classes: int, eps: float, fusion: bool) -> float:
    """Return the verified error in percent after CROWN-IBP training from the same weights."""
    model = _network(run, n_classes)
    n_rows = min(64, len(data[0]))
    bounded = BoundedModule(model, data[0][:n_rows])
    n_steps = run.pick(smoke=6, quick=200, full=500, paper=2000)
    # The radius grows for little of the time, as each step of that is dear without fusion; then the bound is IBP's.
    schedule = EpsSchedule(eps, start=n_steps // 5, length=n_steps // 8 + 1)
    step = 0

    def loss(network: nn.Module, batch: Pair) -> Tensor:
        nonlocal step
        step += 1
        if schedule(step) == 0:
            return cross_entropy(network, batch)
        region = LpBall(INF, schedule(step))
        return certified_loss(bounded, *batch, region, "crown-ibp", fusion, mix=schedule.mix(step))

    train(
        model,
        loss,
        data,
        n_steps=n_steps,
        batch_size=n_rows,
        drop_last=True,
        learning_rate=3e-3,
        schedule="cosine",
        generator=run.generator(2),
        progress=lambda done, total, _: run.progress(done, total, f"{n_classes} classes, fusion {fusion}"),
    )
    found = certify(model, *test, eps, method="crown-ibp", batch_size=500)
    return 100 * float((~found.verified).double().mean())


WEIGHT_EPS = 0.1
"""Radius of the l2 ball of each layer's weights."""


@measures("weight-bounds-find-flat-minima")
def weight_bounds_find_flat_minima(run: Run) -> Measurement:
    """Train on 120 digits with bounds over perturbed weights, with weight decay, and with noise on the weights."""
    images = digits(run, run.pick(smoke=20, quick=200, full=360), 120)
    n_epochs = run.pick(smoke=1, quick=60, full=150)
    decays = run.pick(smoke=(0.0,), quick=(0.0, 1e-2), full=(0.0, 1e-3, 1e-2, 3e-2))
    noises = run.pick(smoke=(1.0,), quick=(10.0, 30.0), full=(3.0, 10.0, 30.0, 100.0))
    arms: dict[str, list[Callable[[], nn.Module]]] = {
        "weight decay": [_fit(run, images, n_epochs, cross_entropy, decay) for decay in decays],
        "random noise": [_fit(run, images, n_epochs, _noisy(run, noise), 0.0) for noise in noises],
        # A step on bounds is dear, so they get every other value of the grid only.
        "weight bounds": [_fit(run, images, n_epochs, None, decay) for decay in decays[::2]],
    }
    models, losses, unseen, right = {}, {}, {}, {}
    lowest = INF
    for name, fits in arms.items():
        candidates = [fit() for fit in run.track(fits, name)]
        certified = [_certified_cross_entropy(one, images.train) for one in candidates]
        if name != "weight bounds":
            lowest = min(lowest, *certified)
        chosen = min(range(len(fits)), key=lambda i: clean_error(candidates[i], images.validation))
        models[name], losses[name] = candidates[chosen], certified[chosen]
        unseen[name] = _certified_cross_entropy(models[name], images.test)
        right[name] = (models[name](images.test[0]).argmax(1) == images.test[1]).double().cpu().numpy()
    accuracy = {name: 100 * float(hits.mean()) for name, hits in right.items()}
    strongest = max(("weight decay", "random noise"), key=lambda name: accuracy[name])
    gain = bootstrap_interval(100 * (right["weight bounds"] - right[strongest]), "mean", seed=run.seed)
    run.figure(
        _directions(run, models, images.train),
        Panel(
            "training",
            "certified cross-entropy over the ball",
            [
                Series("training images", list(arms), list(losses.values()), "bars"),
                Series("test images", list(arms), list(unseen.values()), "bars"),
            ],
            y_axis="log",
        ),
        Panel("training", "test accuracy (%)", [Series("accuracy", list(arms), list(accuracy.values()), "bars")]),
        caption="Loss along 20 random directions in the space of weights, and certified loss over the ball, after "
        "training on 120 digits.",
    )
    return Measurement(
        losses["weight bounds"] / lowest,
        baseline=1.0,
        note=f"eps = {WEIGHT_EPS} for each layer. Certified cross-entropies of the 120 images {_listed(losses)}, the "
        f"lowest of any baseline {lowest:.3g}; of test images {_listed(unseen)}; test accuracies in % "
        f"{_listed(accuracy)}; difference to {strongest} {gain.estimate:+.1f} points "
        f"(95% interval over test images {gain.low:+.1f} to {gain.high:+.1f}). Each arm is chosen by its accuracy on "
        "validation images; the value compares with the lowest of all baselines, chosen or not.",
    )


def _weights(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters() if name.endswith("weight")]


def _certified_cross_entropy(model: nn.Module, data: Pair) -> float:
    """Return the mean over images of the least upper bound of the cross-entropy in the ball."""
    bounded = BoundedModule(model, data[0])
    ball = perturb_parameters(model, _weights(model), LpBall(2, WEIGHT_EPS))
    with torch.no_grad():
        found = [
            certified_loss(bounded, *data, ball, method, reduction="none", loss_fusion=False)
            for method in ("ibp", "crown-ibp")
        ]
    return float(torch.minimum(*found).mean())


def _fit(
    run: Run, images: Images, n_epochs: int, loss: Callable[[nn.Module, Pair], Tensor] | None, decay: float
) -> Callable[[], nn.Module]:
    """Return what trains a network from the same start; without a loss, on bounds over its weights."""

    def fit() -> nn.Module:
        model = MLP((1, 8, 8), [64, 64], 10, generator=run.generator(1)).to(run.device)
        schedule = EpsSchedule(WEIGHT_EPS, start=n_epochs // 15, length=max(1, 2 * n_epochs // 3))
        batch_size = min(40, len(images.train[0]))
        per_epoch = max(1, len(images.train[0]) // batch_size)
        bounded = BoundedModule(model, images.train[0][:batch_size]) if loss is None else None
        step = 0

        def bound(network: nn.Module, batch: Pair) -> Tensor:
            nonlocal step
            step += 1
            ball = LpBall(2, schedule(step / per_epoch))
            assert bounded is not None
            return certified_loss(bounded, *batch, perturb_parameters(network, _weights(network), ball), "ibp")

        train(
            model,
            bound if loss is None else loss,
            images.train,
            n_epochs=n_epochs,
            batch_size=batch_size,
            drop_last=True,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=decay),
            schedule="cosine",
            gradient_clip=8.0,
            generator=run.generator(2),
        )
        return model

    return fit


def _noisy(run: Run, scale: float) -> Callable[[nn.Module, Pair], Tensor]:
    """Return the cross-entropy at weights moved at random, ``scale`` times the radius for each layer."""
    generator = run.generator(6)

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        moved: dict[str, Tensor] = dict(model.named_parameters())
        for name in _weights(model):
            moved[name] = moved[name] + scale * WEIGHT_EPS * _direction(moved[name], generator)
        outputs = torch.func.functional_call(model, moved, (batch[0],))
        return functional.cross_entropy(outputs, batch[1])

    return loss


def _direction(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    unit: Tensor = drawn / drawn.norm()
    return unit


@torch.no_grad()
def _directions(run: Run, models: Mapping[str, nn.Module], data: Pair) -> Panel:
    """Show the mean loss along 20 random directions, each layer moved by as much."""
    distances = np.linspace(-30, 30, 13)
    lines = []
    for name, model in models.items():
        generator, total = run.generator(7), np.zeros(len(distances))
        for _ in range(20):
            steps = {key: _direction(model.get_parameter(key), generator) for key in _weights(model)}
            for i, distance in enumerate(distances):
                moved = copy.deepcopy(model)
                for key, step in steps.items():
                    moved.get_parameter(key).add_(step, alpha=distance * WEIGHT_EPS)
                total[i] += float(cross_entropy(moved, data)) / 20
        lines.append(Series(name, distances.tolist(), total.tolist()))
    return Panel("distance along a random direction / ε", "training cross-entropy", lines, y_axis="log")


def _listed(numbers: Mapping[str, float] | Mapping[int, float]) -> str:
    return ", ".join(f"{name}: {number:.3g}" for name, number in numbers.items())


def _rounded(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.1f}" for number in numbers)
