"""What the paper claims about certified local Lipschitz constants, measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import gmean
from torch import Tensor, nn

from offprint.methods.certify.lipschitz.branch import BranchAndBound
from offprint.methods.certify.lipschitz.local import Forward, LipschitzResult, Method, local_lipschitz
from offprint.methods.certify.lipschitz.monotone import monotonicity
from offprint.methods.certify.lirpa.bounds import BoundedModule
from offprint.models.mlp import MLP
from offprint.papers.figure import Level, Panel, Series
from offprint.papers.local_lipschitz.exact import exact_constant
from offprint.papers.local_lipschitz.monotone_data import adult_network, credit_network
from offprint.papers.local_lipschitz.networks import digits, fitted, linear_layers, small_convnet, tiny_network
from offprint.papers.run import Measurement, Run, measures

RADII = (0.001, 0.01, 0.05)
RELAXED: tuple[Method, Method] = ("ibp", "recurjac")
METHODS: dict[str, Method] = {
    "bound propagation": "bound-propagation",
    "RecurJac": "recurjac",
    "intervals (IBP)": "ibp",
}


@dataclass(frozen=True)
class Tiny:
    """One point of a tiny network: bounds before and after branching, the exact value, and seconds of both."""

    plain: float
    branched: LipschitzResult
    exact: float | None
    exact_seconds: float

    @property
    def upper(self) -> float:
        return float(self.branched.upper[0])


def _tiny_points(run: Run, widths: Sequence[int], n_points: int, limit: int) -> dict[tuple[int, float], list[Tiny]]:
    """Bound points of networks of some widths at every radius, and enumerate their regions of linearity."""
    bab = BranchAndBound(timeout=run.pick(smoke=0.2, quick=2.0, full=20.0))
    found: dict[tuple[int, float], list[Tiny]] = {}
    networks = {width: tiny_network(run, width) for width in run.track(widths, "training")}
    # Wider networks are beside the rule: one point is enough there.
    cells = [(width, eps, i) for width in widths for eps in RADII for i in range(n_points if width == 8 else 1)]
    for width, eps, i in run.track(cells, "branch and bound"):
        model, points = networks[width]
        x = points[i : i + 1]
        branched = local_lipschitz(model, x, eps, bab=bab, n_points=1000, generator=run.generator(7))
        started = time.perf_counter()
        exact = exact_constant(linear_layers(model), (x[0] - eps).numpy(), (x[0] + eps).numpy(), limit)
        one = Tiny(branched.trace[0].bounds[0], branched, exact.value, time.perf_counter() - started)
        found.setdefault((width, eps), []).append(one)
    return found


@measures("near-exact-on-tiny-networks")
def near_exact_on_tiny_networks(run: Run) -> Measurement:
    """Divide the bound after branching by the exact constant, for three widths and radii."""
    widths = run.pick(smoke=(8,), quick=(8,), full=(8, 16, 32))
    n_points, limit = run.pick(smoke=1, quick=2, full=3), run.pick(smoke=200, quick=1500, full=5000)
    found = _tiny_points(run, widths, n_points, limit)
    ratios, plain = {}, {}
    for key, points in found.items():
        known = [one for one in points if one.exact is not None]
        if known:
            ratios[key] = gmean([one.upper / (one.exact or 1) for one in known])
            plain[key] = gmean([one.plain / (one.exact or 1) for one in known])
    panels = []
    for eps in RADII:
        lines = [
            Series(name, list(widths), [values.get((width, eps), np.nan) for width in widths])
            for name, values in (("with branch and bound", ratios), ("without", plain))
        ]
        panels.append(
            Panel("width", "bound / exact constant", lines, title=f"radius {eps}", levels=[Level("rule", 1.5)])
        )
    run.figure(*panels, caption="How far the bound is above the exact constant; a gap where enumeration gave up.")
    missing = sum(one.exact is None for points in found.values() for one in points)
    seconds = {
        width: (
            statistics.median(one.exact_seconds for eps in RADII for one in found[width, eps]),
            statistics.median(one.branched.trace[0].seconds[-1] for eps in RADII for one in found[width, eps]),
        )
        for width in widths
    }
    listed = ", ".join(f"width {w}: {e:.2g} s exact, {b:.2g} s bound" for w, (e, b) in seconds.items())
    at_8 = [ratios[8, eps] for eps in RADII if (8, eps) in ratios]
    if not at_8:
        run.skip("enumeration gave up on every point of width 8")
    note = (
        f"{n_points} points a radius at width 8, 1 at others; {listed}; enumeration gave up {missing} times after "
        f"{limit} linear programmes; at most {run.pick(smoke=0.2, quick=2, full=20)} s of branch and bound"
    )
    return Measurement(max(at_8), baseline=max(plain[8, eps] for eps in RADII if (8, eps) in plain), note=note)


@measures("tighter-than-other-bounds")
def tighter_than_other_bounds(run: Run) -> Measurement:
    """Compare with RecurJac, intervals and the product of norms on digits, with the same forward bounds."""
    data = digits(run, "digits")
    width, n_epochs = run.pick(smoke=8, quick=32, full=32), run.pick(smoke=1, quick=30, full=60)
    # The rule is about two hidden layers; other depths are drawn beside it.
    depths = run.pick(smoke=(2,), quick=(1, 2, 3), full=(1, 2, 3, 4))
    models = {
        depth: fitted(run, MLP((1, 8, 8), [width] * depth, 10, generator=run.generator(1)), data.train, n_epochs)
        for depth in run.track(depths, "training")
    }
    x = data.test[0][: run.pick(smoke=2, quick=20, full=20)]
    radii = run.pick(
        smoke=(0.05,), quick=(1e-4, 0.01, 0.05, 0.1, 1.0), full=(1e-4, 1e-3, 0.01, 0.05, 0.1, 0.3, 1.0, 10.0)
    )
    uppers: dict[str, list[np.ndarray]] = {name: [] for name in (*METHODS, "product of norms", "sampled")}
    for eps in run.track(radii, "radii"):
        for name, values in _uppers(models[2], x, eps).items():
            uppers[name].append(values)
        rest = local_lipschitz(models[2], x, eps, method="global", n_points=run.pick(smoke=2, quick=200, full=1000))
        uppers["product of norms"].append(rest.upper.detach().numpy())
        uppers["sampled"].append(rest.lower_sampled.numpy())
    ours = uppers["bound propagation"]
    others = list(METHODS)[1:]
    ratios = {name: [gmean(o / t) for o, t in zip(ours, uppers[name], strict=True)] for name in others}
    at = radii.index(0.05)
    rules = [Level("rule for RecurJac", 0.8), Level("rule for IBP", 0.6)]
    by_depth: dict[str, list[float]] = {name: [] for name in others}
    for depth in run.track(depths, "depths"):
        found = _uppers(models[depth], x, 0.05)
        for name in others:
            by_depth[name].append(gmean(found["bound propagation"] / found[name]))
    run.figure(
        Panel(
            "radius",
            "bound on the local Lipschitz constant",
            [
                Series(name, radii, [gmean(values) for values in lines], dashed=name == "sampled")
                for name, lines in uppers.items()
            ],
            x_axis="log",
            y_axis="log",
            title="two hidden layers",
        ),
        Panel(
            "radius",
            "ours / other bound",
            [Series(name, radii, ratios[name]) for name in others],
            x_axis="log",
            title="two hidden layers",
            levels=rules,
        ),
        Panel(
            "hidden layers",
            "ours / other bound",
            [Series(name, [str(depth) for depth in depths], by_depth[name], "bars") for name in others],
            title="radius 0.05",
            levels=rules,
        ),
        caption="Geometric means over digits. Sampled Jacobians bound the constant from below.",
    )
    recurjac, ibp = (ratios[name] for name in others)
    listed = "; ".join(
        f"radius {eps:g}: {a:.3f} of RecurJac, {b:.3f} of IBP" for eps, a, b in zip(radii, recurjac, ibp, strict=True)
    )
    deep = "; ".join(
        f"{depth} hidden {'layer' if depth == 1 else 'layers'}: {a:.3f}, {b:.3f}"
        for depth, a, b in zip(depths, *by_depth.values(), strict=True)
    )
    return Measurement(
        recurjac[at],
        baseline=1.0,
        also={"over-interval-bound": ibp[at]},
        note=f"{len(x)} test digits, alpha-CROWN forward bounds for all; {_switching(models[2], x, 0.05):.0%} of the "
        f"units can switch at radius 0.05; {listed}; the same two at radius 0.05 with {deep}",
    )


def _uppers(model: nn.Module, x: Tensor, eps: float) -> dict[str, np.ndarray]:
    """Return the bound of each sample by every method, with the same forward bounds."""
    results = {name: local_lipschitz(model, x, eps, method=method, n_points=0) for name, method in METHODS.items()}
    return {name: result.upper.detach().numpy() for name, result in results.items()}


def _switching(model: nn.Module, x: Tensor, eps: float) -> float:
    """Return the share of ReLUs whose sign is open in the box, as the forward bounds see it."""
    certificate = local_lipschitz(model, x, eps, method="ibp", n_points=0).certificate
    assert certificate is not None
    products = certificate.jacobian.products
    return float(torch.cat([(one.least < one.greatest).flatten() for one in products]).double().mean())


@measures("scales-to-convolutional-networks")
def scales_to_convolutional_networks(run: Run) -> Measurement:
    """Time one image and all rows of its Jacobian on a convolutional network."""
    name, side = run.pick(smoke=("digits", 8), quick=("digits", 8), full=("mnist", 28))
    data = digits(run, name, run.pick(smoke=200, quick=None, full=20_000))
    model = fitted(run, small_convnet(run, side), data.train, run.pick(smoke=1, quick=10, full=2))
    eps = 2 / 255
    x = data.test[0][: run.pick(smoke=1, quick=5, full=5)]
    forward: dict[str, Forward] = {"alpha-CROWN": "alpha-crown", "CROWN": "crown"}
    results: dict[str, list[LipschitzResult]] = {label: [] for label in forward}
    seconds: dict[str, list[float]] = {label: [] for label in forward}
    with torch.no_grad():  # nothing is trained: what gradients would need is not kept
        bounded = BoundedModule(model, x[:1])  # captured once for all images
        for label, kind in forward.items():
            for one in run.track(x, label):
                started = time.perf_counter()
                results[label].append(local_lipschitz(bounded, one[None], eps, forward=kind, n_points=0))
                seconds[label].append(time.perf_counter() - started)
        ibp, recurjac = (
            [local_lipschitz(bounded, one[None], eps, method=method, n_points=0) for one in x] for method in RELAXED
        )
    sampled = local_lipschitz(model, x, eps, method="global", n_points=run.pick(smoke=2, quick=100, full=100))
    values = {
        "sampled": sampled.lower_sampled,
        "ours": torch.cat([result.upper for result in results["alpha-CROWN"]]),
        "RecurJac": torch.cat([result.upper for result in recurjac]),
        "IBP": torch.cat([result.upper for result in ibp]),
        "product of norms": sampled.upper,
    }
    means = {label: gmean(value.detach().numpy()) for label, value in values.items()}
    run.figure(
        Panel(
            "image",
            "seconds",
            [Series(label, list(range(1, len(x) + 1)), times, "dots") for label, times in seconds.items()],
            levels=[Level("rule", 2.0)],
        ),
        Panel(
            "bound",
            "local Lipschitz constant",
            [Series("mean", list(means), list(means.values()), "bars")],
            y_axis="log",
        ),
        caption=f"Two convolutions and two linear layers on {side}x{side} digits, radius 2/255: time, and bounds.",
    )
    tighter = gmean([float(a.upper / b.upper) for a, b in zip(results["alpha-CROWN"], results["CROWN"], strict=True)])
    medians = {label: statistics.median(times) for label, times in seconds.items()}
    return Measurement(
        medians["alpha-CROWN"],
        note=f"10 rows of {side * side} entries, radius 2/255, alpha-CROWN forward bounds; with those of CROWN "
        f"{medians['CROWN']:.2f} s and {1 / tighter:.3f} times the bound; ours is "
        f"{means['ours'] / means['sampled']:.2f} times the sampled lower bound, IBP "
        f"{means['IBP'] / means['sampled']:.2f}, the product of norms "
        f"{means['product of norms'] / means['sampled']:.3g}",
    )


@measures("branch-and-bound-tightens")
def branch_and_bound_tightens(run: Run) -> Measurement:
    """Follow the bound while domains are split, on the networks and points of the first claim."""
    widths = run.pick(smoke=(8,), quick=(8, 16), full=(8, 16, 32))
    limit = run.pick(smoke=0.2, quick=2.0, full=20.0)
    found = _tiny_points(run, widths, run.pick(smoke=1, quick=1, full=3), limit=0)
    reductions = {key: [100 * (1 - one.upper / one.plain) for one in points] for key, points in found.items()}
    rising = [
        any(late > early for early, late in zip(t.bounds, t.bounds[1:], strict=False))
        for points in found.values()
        for t in (one.branched.trace[0] for one in points)
    ]
    times = np.geomspace(limit / 200, limit, 30)
    panels = [
        Panel(
            "seconds",
            "bound / first bound",
            [Series(f"width {width}", times.tolist(), _share(times, found[width, eps]).tolist()) for width in widths],
            title=f"radius {eps}",
            x_axis="log",
        )
        for eps in RADII
    ]
    run.figure(*panels, caption="The certified bound over time; mean over points.")
    means = {key: float(np.mean(values)) for key, values in reductions.items()}
    listed = ", ".join(f"width {w} radius {eps}: {mean:.1f}%" for (w, eps), mean in means.items())
    return Measurement(
        float(np.mean([value for values in reductions.values() for value in values])),
        baseline=0.0,
        also={"never-rises": not any(rising)},
        note=f"at most {limit:g} s of branch and bound for each point; mean reductions {listed}",
    )


def _share(times: np.ndarray, points: Sequence[Tiny]) -> np.ndarray:
    """Return the bound as a share of the first, at some times, in the mean over points."""
    rows = []
    for one in points:
        trace = one.branched.trace[0]
        index = np.searchsorted(trace.seconds, times, side="right") - 1
        rows.append(np.array(trace.bounds)[np.maximum(index, 0)] / trace.bounds[0])
    mean: np.ndarray = np.mean(rows, axis=0)
    return mean


@measures("proves-monotonicity")
def proves_monotonicity(run: Run) -> Measurement:
    """Prove monotonicity of a credit score in every feature, and look for contradictions."""
    model, X, growing, names = credit_network(run)
    n = run.pick(smoke=20, quick=300, full=1000)
    X = X[:n]
    shares, false = {}, 0
    for j, name in enumerate(names):
        labels = monotonicity(model, X, j)
        shares[name] = _shares(labels)
        false += _contradictions(model, X, j, labels)
    proved = float(np.mean([shares[names[j]]["increasing"] for j in growing]))
    panels = [_label_panel("synthetic credit data", shares)]
    note = f"{n} points; a feature varies over [0, 1]; proved increasing: " + ", ".join(
        f"{name} {share['increasing']:.0%}" for name, share in shares.items()
    )
    if run.scale != "smoke" and (found := adult_network(run)) is not None:
        network, rows, columns, score = found
        adult: dict[str, dict[str, float]] = {}
        for name, j in columns.items():
            labels = monotonicity(network, rows[: run.pick(smoke=5, quick=100, full=300)], j, output=0)
            adult[name] = _shares(labels)
            false += _contradictions(network, rows[: len(labels)], j, labels)
        panels.append(_label_panel("Adult", adult))
        note += f"; Adult (accuracy {score:.3f}, not trained to be monotone): " + ", ".join(
            f"{name} {s['increasing']:.0%} up, {s['decreasing']:.0%} down" for name, s in adult.items()
        )
    run.figure(*panels, caption="Share of points at which a score is proved to grow or to fall with a feature.")
    return Measurement(proved, also={"false-proofs": false}, note=note)


def _label_panel(title: str, shares: dict[str, dict[str, float]]) -> Panel:
    kinds = ("increasing", "decreasing", "unknown")
    bars = [Series(kind, list(shares), [share[kind] for share in shares.values()], "bars") for kind in kinds]
    return Panel("feature", "share of points", bars, title=title)


def _shares(labels: np.ndarray) -> dict[str, float]:
    return {kind: float((labels == kind).mean()) for kind in ("increasing", "decreasing", "unknown")}


def _contradictions(model: nn.Module, X: Tensor, feature: int, labels: np.ndarray) -> int:
    """Count the points with a label that derivatives at 50 values of the feature contradict."""
    points = X.repeat_interleave(50, 0).clone()
    points[:, feature] = torch.linspace(0, 1, 50, dtype=X.dtype).repeat(len(X))
    points.requires_grad_()
    (gradient,) = torch.autograd.grad(model(points)[:, 0].sum(), points)
    slopes = gradient[:, feature].reshape(len(X), 50).numpy()
    tiny = 1e-6 * max(1.0, float(np.abs(slopes).max()))
    wrong = ((labels == "increasing") & (slopes < -tiny).any(1)) | ((labels == "decreasing") & (slopes > tiny).any(1))
    return int(wrong.sum())
