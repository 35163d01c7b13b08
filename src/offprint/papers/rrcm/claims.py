"""What the paper claims about consistent representations for smoothing, measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.certify.rrcm import NoisyClassifier
from offprint.methods.certify.smoothing import Certificate, SmoothedClassifier, certified_accuracy
from offprint.papers.figure import Level, Panel, Series
from offprint.papers.rrcm.arms import (
    ALPHA,
    CLEAN,
    FULL,
    PAPER,
    QUICK,
    SMOKE,
    Bench,
    OneShot,
    Pair,
    Setting,
    average,
    trained_denoiser,
)
from offprint.papers.run import Measurement, Run, listed, measures

GAUSSIAN, CONSISTENCY = "Gaussian augmentation", "consistency, from scratch"
DENOISER, CONTRASTIVE = "denoise, then classify", "contrastive, no trajectories"
PLAIN, FULL_METHOD = "rRCM, plain", "rRCM, consistency"


@measures("better-certified-accuracy")
def better_certified_accuracy(run: Run) -> Measurement:
    """Compare certified accuracies of six arms with the same encoder and equally long, equally tuned fine-tuning."""
    setting = _setting(run)
    tunings = len(setting.rates) + len(setting.weights)
    bench = Bench(run, setting, 2 + 2 * len(setting.rates) + 3 * tunings * len(setting.sigmas))
    consistent = bench.pretrained("pre-training")
    contrastive = bench.pretrained("pre-training without trajectories", consistency_weight=0.0)
    denoiser = trained_denoiser(bench, max(1, setting.pretraining // 4), "denoiser")
    clean = bench.best_plain(None, CLEAN, "clean classifier")[0].classifier
    scores: dict[str, list[float]] = {}
    weights: dict[str, list[str]] = {}
    panels = []
    for sigma in setting.sigmas:
        found: dict[str, list[Certificate]] = {}
        for start, plain_name, name in (
            (None, GAUSSIAN, CONSISTENCY),
            (consistent, PLAIN, FULL_METHOD),
            (contrastive, "", CONTRASTIVE),
        ):
            label = f"{name}, sigma {sigma:g}"
            plain = bench.best_plain(start, sigma, label)
            chosen, weight = bench.best_regularized(start, sigma, plain, label)
            weights.setdefault(name, []).append(f"{weight:g}")
            for key, tuned in ((plain_name, plain[0]), (name, chosen)):
                if key:
                    # A run that collapsed is void: it counts as certifying nothing.
                    found[key] = [] if tuned.collapsed else bench.certificates(tuned.classifier, sigma)
        found[DENOISER] = bench.certificates(OneShot(denoiser, clean, sigma), sigma)
        for name, certificates in found.items():
            score = average(certificates, bench.splits.test[1], sigma) if certificates else 0.0
            scores.setdefault(name, []).append(100 * score)
        panels.append(_by_radius(found, bench.splits.test[1], sigma))
    run.figure(*panels, caption="Certified accuracy over the l2 radius, each arm with its best rate and weight.")
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    strongest = max(means[GAUSSIAN], means[CONSISTENCY])
    void = [name for name, values in scores.items() if min(values) == 0.0]
    chosen_weights = "; ".join(f"{name}: {', '.join(values)}" for name, values in weights.items())
    return Measurement(
        means[FULL_METHOD] - strongest,
        baseline=means[CONTRASTIVE] - strongest,
        also={"sanity": means[FULL_METHOD] - means[CONSISTENCY]},
        note=f"{setting.note}; a residual MLP of width {setting.width}. Average certified accuracy in %: "
        f"{listed(means)}. Chosen weights of the regulariser by sigma: {chosen_weights}. "
        + (f"Void or without any certificate: {', '.join(void)}. " if void else "No run collapsed. ")
        + "The baseline is contrastive pre-training without trajectories.",
    )


@measures("cheaper-than-denoising")
def cheaper_than_denoising(run: Run) -> Measurement:
    """Time certificates of the one-pass classifier and of several denoising steps before a classifier of its size."""
    setting = _setting(run)
    bench = Bench(run, setting, 3)
    sigma, n_images = setting.sigmas[-1], run.pick(smoke=1, quick=10, full=15)
    rate = setting.rates[len(setting.rates) // 2]
    one_pass = bench.tuned(None, sigma, rate, 0.0, "one-pass classifier").classifier
    clean = bench.tuned(None, CLEAN, rate, 0.0, "clean classifier").classifier
    denoiser = trained_denoiser(bench, run.pick(smoke=4, quick=300, full=3000), "denoiser", rates=[rate])
    steps = (1, 10, 20, 40)
    models: dict[int, nn.Module] = {0: one_pass, **{n: OneShot(denoiser, clean, sigma, n) for n in steps}}
    seconds: dict[int, list[float]] = {n: [] for n in models}
    certificates: dict[int, list[Certificate]] = {n: [] for n in models}
    for image in run.track(bench.splits.test[0][:n_images], "certificates", total=n_images):
        for n, model in models.items():
            smoothed = SmoothedClassifier(model.eval(), sigma, 10)
            start = time.perf_counter()
            certificates[n].append(smoothed.certify(image, min(100, setting.n_samples), setting.n_samples, ALPHA))
            seconds[n].append(time.perf_counter() - start)
    cost = {n: float(np.median(values)) for n, values in seconds.items()}
    classes = bench.splits.test[1][:n_images]
    accuracy = {n: 100 * average(found, classes, sigma) for n, found in certificates.items()}
    run.figure(
        Panel(
            "denoising steps before the classifier",
            "cost over one pass (ratio)",
            [Series("measured", steps, [cost[n] / cost[0] for n in steps])],
            x_axis="log",
            y_axis="log",
            levels=[Level("one pass", 1.0)],
        ),
        caption="Seconds per certificate, over those of the classifier that sees the noisy input itself.",
    )
    ratios = ", ".join(f"{n}: {cost[n] / cost[0]:.3g}" for n in steps)
    return Measurement(
        cost[10] / cost[0],
        baseline=cost[1] / cost[0],
        note=f"judged with 10 denoising steps, the fewest; ratios by steps {ratios}; {1000 * cost[0]:.3g} ms a "
        f"certificate of {setting.n_samples} copies in one pass. The denoiser is as small as the classifier, so this "
        f"says nothing of the paper's networks. Average certified accuracy of {n_images} images in %: one pass "
        f"{accuracy[0]:.3g}; by steps {', '.join(f'{n}: {accuracy[n]:.3g}' for n in steps)}. The baseline is one step.",
    )


@measures("representation-is-consistent")
def representation_is_consistent(run: Run) -> Measurement:
    """Measure how similar features stay along a noise trajectory, after fine-tuning and from scratch."""
    setting = _setting(run)
    bench = Bench(run, setting, 1 + 2 * len(setting.rates))
    sigma, n_steps = setting.sigmas[-1], _fewer_steps(run, setting)
    encoder = bench.pretrained("pre-training", n_steps)
    models = {
        PLAIN: bench.best_plain(encoder, sigma, PLAIN)[0].classifier,
        GAUSSIAN: bench.best_plain(None, sigma, GAUSSIAN)[0].classifier,
    }
    images = bench.splits.test[0]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(run.seed)).to(run.device)
    levels = [0.0, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0]
    kept = {name: [_similarity(model, images, t, noise) for t in levels] for name, model in models.items()}
    others = {name: _similarity(model, images, 1.0, noise, of_others=True) for name, model in models.items()}
    told = [_similarity_told(encoder, models[PLAIN], images, t, noise) for t in levels]
    run.figure(
        Panel(
            "noise level t",
            "cosine similarity to the clean input",
            [
                *(Series(name, levels, values) for name, values in kept.items()),
                Series("pre-trained only, told the level", levels, told, dashed=True),
            ],
        ),
        caption="Features of an input with noise of growing level, against those of the input itself.",
    )
    at_one = {name: values[levels.index(1.0)] for name, values in kept.items()}
    return Measurement(
        at_one[PLAIN] - at_one[GAUSSIAN],
        note=f"{setting.note}, but {n_steps} pre-training steps; sigma {sigma:g} in fine-tuning. Similarity at t = 1: "
        f"{listed(at_one)}; to other inputs' noisy features: {listed(others)}; pre-trained only, told the level, "
        f"{told[levels.index(1.0)]:.3g}",
    )


@measures("helps-more-with-few-labels")
def helps_more_with_few_labels(run: Run) -> Measurement:
    """Compare the gain over consistency training from scratch with a tenth of the labels and with all of them."""
    setting = _setting(run)
    bench = Bench(run, setting, 1 + 2 * len(setting.sigmas) * (2 * len(setting.rates) + len(setting.weights)))
    n_steps = _fewer_steps(run, setting)
    encoder = bench.pretrained("pre-training", n_steps)
    shares, gaps, notes = (0.1, 1.0), [], []
    scores: dict[str, list[float]] = {PLAIN: [], CONSISTENCY: []}
    for share in shares:
        n = round(share * setting.n_train)
        labelled: Pair = (bench.splits.train[0][:n], bench.splits.train[1][:n])
        found: dict[str, list[float]] = {name: [] for name in scores}
        for sigma in setting.sigmas:
            label = f"{n} labels, sigma {sigma:g}"
            pretrained = bench.best_plain(encoder, sigma, label, labelled)[0]
            plain = bench.best_plain(None, sigma, label, labelled)
            scratch = bench.best_regularized(None, sigma, plain, label, labelled)[0]
            for name, tuned in ((PLAIN, pretrained), (CONSISTENCY, scratch)):
                certificates = bench.certificates(tuned.classifier, sigma)
                found[name].append(0.0 if tuned.collapsed else 100 * average(certificates, bench.splits.test[1], sigma))
        means = {name: float(np.mean(values)) for name, values in found.items()}
        for name, value in means.items():
            scores[name].append(value)
        gaps.append(means[PLAIN] - means[CONSISTENCY])
        notes.append(f"{n} labels: {listed(means)}")
    names = [f"{100 * share:g}%" for share in shares]
    run.figure(
        Panel(
            "labels",
            "average certified accuracy (%)",
            [Series(name, names, values, "bars") for name, values in scores.items()],
        ),
        caption="Certified accuracy averaged over radii and noise levels, with a tenth of the labels and all of them.",
    )
    return Measurement(
        gaps[0] - gaps[1],
        note=f"{setting.note}, but {n_steps} pre-training steps. Average certified accuracy in %: {'; '.join(notes)}",
    )


def _setting(run: Run) -> Setting:
    return run.pick(smoke=SMOKE, quick=QUICK, full=FULL, paper=PAPER)


def _fewer_steps(run: Run, setting: Setting) -> int:
    """Return the pre-training steps of the claims that are not about accuracy: at full scale a quarter."""
    return run.pick(
        smoke=setting.pretraining, quick=setting.pretraining, full=setting.pretraining // 4, paper=setting.pretraining
    )


@torch.no_grad()
def _similarity(model: NoisyClassifier, images: Tensor, t: float, noise: Tensor, of_others: bool = False) -> float:
    """Return the mean cosine similarity of a model's features, told the one level that it is used with."""
    noisy = images + t * model.std * noise
    features, clean = model.features(noisy), model.features(images)
    return float(functional.cosine_similarity(features.roll(1, 0) if of_others else features, clean).mean())


@torch.no_grad()
def _similarity_told(encoder: nn.Module, like: NoisyClassifier, images: Tensor, t: float, noise: Tensor) -> float:
    """Return the same for an encoder that is told every level as it is."""
    noisy, clean = (
        NoisyClassifier(encoder, nn.Identity(), max(level, 0.002), mean=like.mean, std=like.std).features(
            images + level * like.std * noise
        )
        for level in (t, 0.0)
    )
    return float(functional.cosine_similarity(noisy, clean).mean())


def _by_radius(found: Mapping[str, Sequence[Certificate]], classes: Tensor, sigma: float) -> Panel:
    grid, truth = np.linspace(0, 2.5 * sigma, 26), classes.cpu().numpy()
    lines = [
        Series(
            name,
            grid.tolist(),
            (100 * certified_accuracy(certificates, truth, grid)).tolist() if certificates else [0.0] * len(grid),
            dashed=name in (GAUSSIAN, CONSISTENCY, DENOISER, CONTRASTIVE),
        )
        for name, certificates in found.items()
    ]
    return Panel("l2 radius", "certified accuracy (%)", lines, title=f"σ = {sigma:g}")
