"""What the paper claims, measured: distances, mixtures, paths, multinomials, reconstruction, and sufficiency."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn

from offprint.methods.bags.gde import GDE
from offprint.methods.bags.gde_encoders import KernelMeanEmbedding, MeanEncoder
from offprint.methods.bags.gde_gaussian import gaussian_w2, gmm_w2
from offprint.methods.bags.gde_sets import DirichletMixer, fitted_gaussians
from offprint.papers.figure import HeatMap, Panel, Series
from offprint.papers.gde.drawing import scatter, ternary
from offprint.papers.gde.paths import Path, ellipses, errors_along, latent_path
from offprint.papers.gde.populations import (
    Gaussians,
    Prior,
    class_gaussians,
    covariance_roots,
    draw_classes,
    draw_gaussians,
    pairs,
    plug_in,
    simplex_grid,
)
from offprint.papers.gde.training import (
    BANDWIDTHS,
    GENERATORS,
    LATENT,
    best_of_rates,
    chosen_rate,
    described,
    embedding,
    encoders,
    setting,
    trained,
    tuned,
    wormhole,
)
from offprint.papers.run import Measurement, Run, listed, measures

PUBLISHED = {"GDE": 0.952, "Wormhole": 0.841, "kernel mean at 0.1": 0.658}
"""Correlations of the published multinomial benchmark."""
Encode = Callable[[Tensor], Tensor]
WORMHOLE_NOTE = "Wormhole, whose transport costs much, sees {} points of a set at each step."


@measures("latent-distance-follows-wasserstein")
def latent_distance_follows_wasserstein(run: Run) -> Measurement:
    """Correlate latent with Wasserstein distances under both priors, beside means alone and kernel means."""
    of = setting(run)
    scores: dict[str, dict[str, float]] = {}
    shares: dict[str, float] = {}
    panels = []
    priors: tuple[Prior, Prior] = ("published", "balanced")
    for k, prior in enumerate(run.track(priors, "priors")):
        rng = run.rng(k)
        train = draw_gaussians(of.n_sets, prior, rng).sample(of.n_points, rng)
        test = draw_gaussians(of.n_test, prior, rng)
        sets, chosen = test.sample(of.test_points, rng), pairs(of.n_test, of.n_pairs, rng)
        wanted = gaussian_w2(*test.take(chosen[0]), *test.take(chosen[1])).numpy()
        apart = (test.means[chosen[0]] - test.means[chosen[1]]).square().sum(1).numpy()
        shares[prior] = float((apart / wanted**2).mean())
        means, covariances = fitted_gaussians(sets)
        vectors = {
            "GDE": tuned(run, train, embedding(run, train, "graph-style", "SWD")).encode(sets),
            "means alone": means,
            "mean and covariance": torch.cat([means, covariances.flatten(1)], 1),
            "mean and covariance root": torch.cat([means, covariance_roots(covariances).flatten(1)], 1),
        }
        if prior == "balanced" and run.scale != "quick":
            vectors["GDE with DDPM"] = tuned(run, train, embedding(run, train, "graph-style", "DDPM")).encode(sets)
            vectors["GDE with sums"] = tuned(run, train, embedding(run, train, "sum", "SWD")).encode(sets)
            vectors["Wormhole"] = tuned(run, train, wormhole(run, train)).encode(sets)
        scores[prior] = {name: correlation(z, chosen, wanted) for name, z in vectors.items()}
        kernel = [correlation(kernel_means(run, gamma)(sets), chosen, wanted) for gamma in BANDWIDTHS]
        scores[prior]["kernel mean"] = max(kernel)
        panels.append(scatter(vectors["GDE"], chosen, wanted, f"{prior} prior"))
    balanced = scores["balanced"]
    bars = Series("balanced prior", list(balanced), list(balanced.values()), "bars")
    run.figure(
        *panels,
        Panel("vector", "Spearman correlation with W2", [bars]),
        caption="Distances between latent vectors of test sets and Wasserstein distances; on the balanced prior, "
        "beside other vectors.",
    )
    return Measurement(
        scores["published"]["GDE"],
        scores["published"]["means alone"],
        also={"balanced-prior": balanced["GDE"], "over-kernel-mean": balanced["GDE"] - balanced["kernel mean"]},
        note=f"{described(of)}. Spearman, published prior: {listed(scores['published'])}; balanced prior: "
        f"{listed(balanced)}. Means carry {shares['published']:.1%} and {shares['balanced']:.1%} of a pair's squared "
        f"distance on average. The kernel mean has the best of {len(BANDWIDTHS)} bandwidths on the test pairs "
        "themselves. The baseline is means alone. "
        f"{WORMHOLE_NOTE.format(of.wormhole_points) if 'Wormhole' in balanced else ''}",
    )


@measures("follows-wasserstein-for-mixtures")
def follows_wasserstein_for_mixtures(run: Run) -> Measurement:
    """Correlate latent distances of mixtures of three Gaussians with mixture-Wasserstein distances."""
    of, rng = setting(run), run.rng(1)
    train = draw_gaussians(of.n_sets, "balanced", rng).sample(of.n_points, rng)
    model = tuned(run, train, embedding(run, train, "graph-style", "SWD"), mixer=DirichletMixer(3))
    parts = draw_gaussians(3 * of.n_test, "balanced", rng)
    weights = torch.tensor(rng.dirichlet(np.ones(3), of.n_test))
    points = parts.sample(of.test_points, rng).reshape(of.n_test, 3, of.test_points, 2)
    component = draw_classes(weights, of.test_points, rng)
    sets = points.gather(1, component[:, None, :, None].expand(-1, 1, -1, 2))[:, 0]
    chosen = pairs(of.n_test, min(of.n_pairs, 3000), rng)
    means, covariances = parts.means.reshape(-1, 3, 2), parts.covariances.reshape(-1, 3, 2, 2)
    first, second = ((weights[rows], means[rows], covariances[rows]) for rows in chosen)
    wanted = gmm_w2(*first, *second).numpy()
    found = {"GDE": correlation(model.encode(sets), chosen, wanted)}
    found["mean encoder"] = correlation(MeanEncoder(2, LATENT, generator=run.seed)(sets), chosen, wanted)
    found["kernel mean"] = max(correlation(kernel_means(run, gamma)(sets), chosen, wanted) for gamma in BANDWIDTHS)
    run.figure(
        scatter(model.encode(sets), chosen, wanted, "mixtures of three"),
        caption="Distances between latent vectors of mixtures and mixture-Wasserstein distances.",
    )
    return Measurement(
        found["GDE"],
        max(found["mean encoder"], found["kernel mean"]),
        also={
            "over-mean-encoder": found["GDE"] - found["mean encoder"],
            "over-kernel-mean": found["GDE"] - found["kernel mean"],
        },
        note=f"{described(of)}; three sources a mixture, Dirichlet weights of concentration 1. Spearman: "
        f"{listed(found)}. The kernel mean has the best of {len(BANDWIDTHS)} bandwidths on the test pairs themselves.",
    )


@measures("straight-lines-follow-transport")
def straight_lines_follow_transport(run: Run) -> Measurement:
    """Generate along straight latent lines between Gaussians and compare with the transport path."""
    of, rng = setting(run), run.rng(2)
    n_pairs, n_points = run.pick(smoke=(1, 100), quick=(8, 20_000), full=(20, 20_000))
    paths: dict[Prior, list[Path]] = {}
    priors: tuple[Prior, Prior] = ("published", "balanced")
    for prior in run.track(priors, "priors"):
        model = tuned_gde(run, draw_gaussians(of.n_sets, prior, rng).sample(of.n_points, rng))
        ends = draw_gaussians(2 * n_pairs, prior, rng)
        vectors = model.encode(ends.sample(n_points, rng))
        paths[prior] = [latent_path(model, ends, vectors, 2 * k, run.seed) for k in range(n_pairs)]
    # Each seed has other Gaussians: the ellipses of one are enough to look at.
    run.figure(
        *[errors_along(prior, paths[prior]) for prior in priors],
        *[ellipses(prior, paths[prior][0]) for prior in priors if run.seed == 0],
        caption="W2 to the transport path, over that of its ends; and one pair of Gaussians under each prior, as "
        "ellipses of one standard deviation along the latent line and the transport path.",
    )
    error = {prior: float(np.mean([path.error for path in paths[prior]])) for prior in priors}
    by_pair = {prior: ", ".join(f"{path.error:.3f}" for path in paths[prior]) for prior in priors}
    midpoint = {prior: float(np.mean([path.midpoint for path in paths[prior]])) for prior in priors}
    return Measurement(
        error["published"],
        also={"against-mixing": midpoint["published"], "balanced-prior": error["balanced"]},
        note=f"{described(of)}; means over {n_pairs} pairs of test Gaussians encoded from {n_points} points each. "
        f"Errors by pair, published prior: {by_pair['published']}; balanced prior: {by_pair['balanced']}. Error at the "
        "midpoint over the mixture's on the balanced prior, where means hardly differ and mixing costs little: "
        f"{midpoint['balanced']:.2f}.",
    )


@measures("best-on-multinomials")
def best_on_multinomials(run: Run) -> Measurement:
    """Correlate latent with Gaussian-form distances on the simplex grid, for one-hot points and for digits."""
    of, rng = setting(run), run.rng(3)
    n_trials, n_points = run.pick(smoke=(2, 16), quick=(20, 100), full=(20, 100))
    grid = simplex_grid()
    first, second = np.triu_indices(len(grid), 1)
    known = class_gaussians(grid)
    wanted = gaussian_w2(*known.take(first), *known.take(second)).numpy()
    images, labels = load_digits(n_class=3, return_X_y=True)
    digits = [torch.tensor(images[labels == c] / 16, dtype=torch.float32) for c in range(3)]

    def one_hot(shares: Tensor) -> Tensor:
        return nn.functional.one_hot(draw_classes(shares, n_points, rng), 3).float()

    def of_digits(shares: Tensor) -> Tensor:
        classes = draw_classes(shares, n_points, rng)
        drawn = torch.stack([d[torch.tensor(rng.integers(len(d), size=classes.shape))] for d in digits])
        return drawn.gather(0, classes[None, :, :, None].expand(1, -1, -1, 64))[0]

    trials, digit_trials = ([make(grid) for _ in range(n_trials)] for make in (one_hot, of_digits))

    def pearson(encode: Encode, trials: list[Tensor]) -> float:
        vectors = [encode(sets) for sets in trials]
        found = [np.corrcoef((z[first] - z[second]).norm(dim=1).numpy(), wanted)[0, 1] for z in vectors]
        return float(np.mean(found))

    def kernel(d: int, trials: list[Tensor]) -> dict[float, float]:
        return {gamma: pearson(KernelMeanEmbedding(d, 64, gamma, generator=run.seed), trials) for gamma in BANDWIDTHS}

    shares = torch.tensor(rng.dirichlet(np.ones(3), of.n_sets))
    train = one_hot(shares)
    model = tuned_gde(run, train)
    by_bandwidth = kernel(3, trials)
    found = {
        "GDE": pearson(model.encode, trials),
        "kernel mean at 0.1": by_bandwidth[0.1],
        "kernel mean, best": max(by_bandwidth.values()),
        "means alone": pearson(lambda sets: sets.mean(1), trials),
    }
    if run.scale != "quick":
        found["Wormhole"] = pearson(tuned(run, train, wormhole(run, train)).encode, trials)
    train = of_digits(shares)
    by_bandwidth = kernel(64, digit_trials)
    on_digits = {
        "GDE": pearson(tuned_gde(run, train).encode, digit_trials),
        "principal means": pearson(MeanEncoder.principal(train.flatten(0, 1), LATENT), digit_trials),
        "kernel mean at 0.1": by_bandwidth[0.1],
        "kernel mean, best": max(by_bandwidth.values()),
    }
    z = model.encode(trials[0])
    corner = int(grid[:, 2].argmax())
    known_from_corner = gaussian_w2(*known.take(np.full(len(grid), corner)), *known.take(np.arange(len(grid))))
    run.figure(
        Panel(
            "encoder",
            "Pearson correlation",
            [
                Series("measured, one-hot", list(found), list(found.values()), "bars"),
                Series("published", list(found), [PUBLISHED.get(name, np.nan) for name in found], "bars"),
            ],
            title="one-hot points",
        ),
        Panel(
            "encoder",
            "Pearson correlation",
            [Series("digits", list(on_digits), list(on_digits.values()), "bars")],
            title="digits 0 to 2",
        ),
        ternary((z - z[corner]).norm(dim=1), grid, "latent distance from class 3"),
        ternary(known_from_corner, grid, "W2 from class 3"),
        caption="Correlation of latent with Gaussian-form distances between the 55 points of the simplex grid; latent "
        "and Wasserstein distance of each from the corner of class 3.",
    )
    return Measurement(
        found["GDE"],
        found["kernel mean, best"],
        also={"over-kernel-mean": found["GDE"] - found["kernel mean at 0.1"], "digit-mixtures": on_digits["GDE"]},
        note=f"{described(of)}; {n_trials} trials, sets of {n_points}. One-hot: {listed(found)}; digits 0 to 2: "
        f"{listed(on_digits)}. The baseline is the kernel mean with the best of {len(BANDWIDTHS)} bandwidths on the "
        f"grid itself. {WORMHOLE_NOTE.format(of.wormhole_points) if 'Wormhole' in found else ''}",
    )


@measures("reconstructs-best")
def reconstructs_best(run: Run) -> Measurement:
    """Train every encoder with every generator and compare the distributions that come out with those that went in."""
    of, rng = setting(run), run.rng(4)
    n_sets, n_points, n_epochs, n_test = run.pick(
        smoke=(16, 16, 1, 4), quick=(400, 64, 6, 50), full=(600, 64, 8, 100), paper=(of.n_sets, of.n_points, 100, 500)
    )
    makers = run.pick(smoke=("SWD", "DDPM", "CVAE"), quick=("SWD", "DDPM", "CVAE"), full=tuple(GENERATORS))
    sets = draw_gaussians(n_sets, "balanced", rng).sample(n_points, rng)
    test = draw_gaussians(n_test, "balanced", rng).sample(of.test_points, rng)
    kinds = encoders(run, sets)

    def untrained(name: str, maker: str) -> GDE:
        return GDE(kinds[name](), GENERATORS[maker](2, of.hidden, run.seed))

    rates = dict.fromkeys(makers, of.rates[0])
    if len(of.rates) > 1:
        for maker in makers:
            rates[maker] = best_of_rates(run, sets, functools.partial(untrained, "mean", maker), n_epochs)[0]
    errors = {}
    for name, maker in run.track([(name, maker) for name in kinds for maker in makers], "table"):
        model = trained(run, sets, functools.partial(untrained, name, maker), rates[maker], n_epochs)
        errors[name, maker] = float(model.reconstruction_error(test, 300, seed=run.seed).mean())
    best = {name: min(errors[name, maker] for maker in makers) for name in kinds}
    run.figure(
        HeatMap(
            "generator",
            "encoder",
            "W2 reconstruction error",
            list(makers),
            list(kinds),
            [[errors[name, maker] for maker in makers] for name in kinds],
        ),
        caption="W2 between Gaussians fitted to test sets and to what is generated from their vectors.",
    )
    fixed = min(best["mean"], best["kernel mean"])
    return Measurement(
        1 - min(best["graph-style"], best["residual"], best["transformer"]) / fixed,
        note=f"{n_sets} sets of {n_points} on the balanced prior, {n_epochs} epochs in batches of {of.batch_size}, "
        f"width {of.hidden}, {LATENT} latent coordinates for every encoder; generators {', '.join(makers)}; each has "
        f"{chosen_rate(of)}, with the mean encoder; the kernel mean has the bandwidth that best predicts mean and "
        f"covariance root. Best error by encoder: {listed(best)}.",
    )


@measures("latents-are-sufficient")
def latents_are_sufficient(run: Run) -> Measurement:
    """Read mean and covariance root off latent vectors linearly, and measure their noise at growing set size."""
    of, rng = setting(run), run.rng(5)
    model = tuned_gde(run, draw_gaussians(of.n_sets, "balanced", rng).sample(of.n_points, rng))
    parts = [draw_gaussians(n, "balanced", rng) for n in (2 * of.n_test, of.n_test)]
    codes = [model.encode(part.sample(of.test_points, rng)).numpy() for part in parts]
    truths = [plug_in(part.means, part.covariances).numpy() for part in parts]
    probe = LinearRegression().fit(codes[0], truths[0])
    residual = ((probe.predict(codes[1]) - truths[1]) ** 2).mean(0)
    each = 1 - residual / truths[1].var(0)
    sizes = run.pick(smoke=(32, 64), quick=(32, 128, 512), full=(32, 64, 128, 256, 512, 1024, 2048))
    few = Gaussians(parts[1].means[:8], parts[1].covariances[:8])
    variances = [
        float(np.mean([torch.stack([model.encode(few.sample(m, rng)) for _ in range(20)]).var(0).sum(1).mean()]))
        for m in sizes
    ]
    slope = float(np.polyfit(np.log(sizes), np.log(variances), 1)[0])
    names = ["mean 1", "mean 2", "root 11", "root 12", "root 22"]
    run.figure(
        Panel("quantity", "R squared on held-out sets", [Series("linear probe", names, each.tolist(), "bars")]),
        Panel(
            "set size",
            "variance of latent vectors",
            [
                Series("measured", sizes, variances),
                Series("proportional to 1/m", sizes, [variances[0] * sizes[0] / m for m in sizes], dashed=True),
            ],
            x_axis="log",
            y_axis="log",
        ),
        caption="What a linear probe reads off latent vectors, and their noise from set to set.",
    )
    return Measurement(
        float(each.mean()),
        also={"variance-slope": slope},
        note=f"{described(of)}; balanced prior. R squared: {listed(dict(zip(names, each.tolist(), strict=True)))}.",
    )


@measures("split-halves-help")
def split_halves_help(run: Run) -> Measurement:
    """Train on sets of 32 with and without split halves; compare what is generated with the true distribution."""
    of, rng = setting(run), run.rng(6)
    n_points = min(32, of.n_points)
    sets = draw_gaussians(of.n_sets, "balanced", rng).sample(n_points, rng)
    test = draw_gaussians(of.n_test, "balanced", rng)
    held_out = test.sample(n_points, rng)
    errors, spreads = {}, {}
    for split in run.track((True, False), "split halves"):
        model = tuned_gde(run, sets, split=split)
        made = fitted_gaussians(model.sample(model.encode(held_out), 500, seed=run.seed).double())
        name = "split" if split else "whole"
        errors[name] = float(gaussian_w2(*made, test.means, test.covariances).mean())
        traces = [c.diagonal(dim1=1, dim2=2).sum(1) for c in (made[1], test.covariances)]
        spreads[name] = float((traces[0] / traces[1]).median())
    run.figure(
        Panel("training", "held-out W2 error", [Series("sets of 32", list(errors), list(errors.values()), "bars")]),
        caption="W2 from what is generated from held-out sets of 32 to the true distribution.",
    )
    return Measurement(
        errors["whole"] - errors["split"],
        errors["whole"],
        note=f"{described(of)}, but sets of {n_points} throughout. Errors: {listed(errors)}. Median variance "
        f"generated, over the true one: {listed(spreads)}; the sliced distance between small samples favours too "
        "little spread, the more so the fewer points it compares.",
    )


def tuned_gde(run: Run, sets: Tensor, *, split: bool = True) -> GDE:
    """Return a trained model of the kind that most claims are about."""
    return tuned(run, sets, embedding(run, sets, "graph-style", "SWD"), split=split)


def kernel_means(run: Run, bandwidth: float) -> Encode:
    """Return a kernel mean embedding of points in the plane."""
    return KernelMeanEmbedding(2, 64, bandwidth, generator=run.seed)


def correlation(z: Tensor, chosen: tuple[np.ndarray, np.ndarray], wanted: np.ndarray) -> float:
    """Return the Spearman correlation of latent with known distances."""
    return float(spearmanr((z[chosen[0]] - z[chosen[1]]).norm(dim=1).numpy(), wanted).statistic)
