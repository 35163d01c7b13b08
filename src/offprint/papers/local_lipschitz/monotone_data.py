"""Data and networks for monotonicity: synthetic credit scores, and Adult where it is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from offprint.data import MissingDataError, load
from offprint.models.mlp import MLP
from offprint.papers.local_lipschitz.networks import MonotoneScore
from offprint.papers.run import Run

FEATURES = ("income", "years employed", "debt", "age", "requests", "region")
GROWING = (0, 1)
CONTINUOUS = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")


def credit_network(run: Run) -> tuple[nn.Module, Tensor, tuple[int, ...], tuple[str, ...]]:
    """Train a score on data that grows with the first two of six features, with weights that keep it so.

    Returns
    -------
    (model, test points, growing features, names)
    """
    rng = run.rng(1)
    n = run.pick(smoke=300, quick=4000, full=8000)
    X = rng.uniform(size=(n, len(FEATURES)))
    truth = (
        2 * X[:, 0]
        + np.sqrt(X[:, 1])
        + X[:, 0] * X[:, 1]
        - 1.5 * np.sin(3 * X[:, 2])
        + np.cos(5 * X[:, 3])
        - 2 * (X[:, 4] - 0.4) ** 2
        + 0.5 * np.sin(8 * X[:, 5])
    )
    inputs = torch.as_tensor(X, dtype=torch.float32)
    targets = torch.as_tensor((truth - truth.mean()) / truth.std(), dtype=torch.float32)[:, None]
    n_train = int(0.8 * n)
    model = MonotoneScore(len(FEATURES), GROWING, run.pick(smoke=8, quick=32, full=32), run.generator(2))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator = run.generator(3)
    for _ in range(run.pick(smoke=20, quick=800, full=2000)):
        batch = torch.randint(n_train, (128,), generator=generator)
        optimizer.zero_grad()
        (model(inputs[batch]) - targets[batch]).square().mean().backward()
        optimizer.step()
        model.project()
    return model.eval(), inputs[n_train:], GROWING, FEATURES


def adult_network(run: Run) -> tuple[nn.Module, Tensor, dict[str, int], float] | None:
    """Train a perceptron on Adult, its continuous features scaled to [0, 1]; ``None`` where Adult is not here.

    Returns
    -------
    (model with one output, the score of a high income; points held out; columns of the continuous features; accuracy)
    """
    try:
        data = load("adult", split="train", encoding="one_hot")
    except MissingDataError:
        return None
    # The official test part may be missing: a fifth is held out instead.
    order = run.rng(10).permutation(len(data.targets))
    kept, held_out = np.split(order, [int(0.8 * len(order))])
    names = list(data.features)
    inputs, labels = np.asarray(data.inputs, dtype=float), np.asarray(data.targets)
    low, high = inputs[kept].min(0), inputs[kept].max(0)
    width = np.where(high > low, high - low, 1.0)
    everything = torch.as_tensor(((inputs - low) / width).clip(0, 1), dtype=torch.float32)
    scaled, test_scaled = everything[kept], everything[held_out]
    y = torch.as_tensor(labels[kept], dtype=torch.float32)[:, None]
    model = MLP(scaled.shape[1], [32, 16], 1, generator=run.generator(11))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = run.generator(12)
    for _ in range(run.pick(smoke=5, quick=300, full=1500)):
        batch = torch.randint(len(scaled), (256,), generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(scaled[batch]), y[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = ((model(test_scaled)[:, 0] > 0).numpy() == (labels[held_out] == 1)).mean()
    return model, test_scaled, {name: names.index(name) for name in CONTINUOUS}, float(right)
