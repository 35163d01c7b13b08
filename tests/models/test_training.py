"""The training loop against closed forms, scikit-learn and hand-written loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from offprint.data import Dataset
from offprint.models.evaluation import cross_entropy, mean_squared_error
from offprint.models.mlp import MLP
from offprint.models.training import train


def regression(n=60, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, d, generator=generator, dtype=torch.float64)
    targets = inputs @ torch.arange(1.0, d + 1, dtype=torch.float64) + torch.randn(
        n, generator=generator, dtype=torch.float64
    )
    return inputs, targets


def same(first, second):
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def lbfgs(parameters):
    return torch.optim.LBFGS(
        parameters, max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )


def test_full_batch_lbfgs_reaches_the_ridge_solution():
    inputs, targets = regression()
    model = nn.Linear(4, 1, dtype=torch.float64)

    def loss(network, batch):
        return mean_squared_error(network, batch) + 0.3 / len(batch[0]) * network.weight.square().sum()

    train(model, loss, (inputs, targets), n_steps=3, batch_size=None, optimizer=lbfgs)
    ridge = Ridge(alpha=0.3, solver="cholesky").fit(inputs.numpy(), targets.numpy())
    # L-BFGS on a quadratic with gradients below 1e-12 and curvature of order one: errors near 1e-12.
    np.testing.assert_allclose(model.weight.detach().numpy()[0], ridge.coef_, rtol=1e-8)
    np.testing.assert_allclose(model.bias.item(), ridge.intercept_, rtol=1e-7)


def test_minibatch_training_reaches_the_logistic_regression_optimum():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    classes = (
        inputs[:, 0] + 0.5 * inputs[:, 1] + torch.randn(200, generator=generator, dtype=torch.float64) > 0
    ).long()
    model = nn.Linear(3, 1, dtype=torch.float64)

    def loss(network, batch):
        return cross_entropy(network, batch) + 0.5 / 200 * network.weight.square().sum()

    history = train(model, loss, (inputs, classes), n_epochs=250, batch_size=50, learning_rate=0.1, schedule="cosine")
    expected = LogisticRegression(C=1.0, tol=1e-10).fit(inputs.numpy(), classes.numpy())
    # Adam with a learning rate annealed to zero still jitters: the last epochs move weights by less than 1e-3.
    np.testing.assert_allclose(model.weight.detach().numpy(), expected.coef_, atol=5e-3)
    assert history.n_steps == 1000
    assert history.n_epochs == 250


def test_equals_a_hand_written_loop_of_sgd_with_clipping_and_schedule():
    inputs, targets = regression(n=10)
    torch.manual_seed(0)
    ours, theirs = (nn.Linear(4, 1, dtype=torch.float64) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    batches = [(inputs[:5], targets[:5]), (inputs[5:], targets[5:])]
    history = train(
        ours,
        mean_squared_error,
        batches,
        n_epochs=3,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        schedule=lambda optimizer, total: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total),
        gradient_clip=0.5,
    )
    weight, bias = theirs.weight.detach().clone(), theirs.bias.detach().clone()
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    losses = []
    for step in range(6):
        x, y = batches[step % 2]
        error = x @ weight[0] + bias - y
        losses.append((error**2).mean())
        gradient = [2 * (error[:, None] * x).mean(0, keepdim=True), 2 * error.mean()[None]]
        norm = torch.sqrt(sum(part.square().sum() for part in gradient))
        gradient = [part * min(1, 0.5 / (norm + 1e-6)) for part in gradient]
        velocity = [0.9 * old + new for old, new in zip(velocity, gradient, strict=True)]
        rate = 0.1 * (1 - step / 6)
        weight, bias = weight - rate * velocity[0], bias - rate * velocity[1]
    # The same arithmetic in another order, float64.
    torch.testing.assert_close(ours.weight.detach(), weight, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(ours.bias.detach(), bias, rtol=1e-12, atol=1e-14)
    expected = [float(losses[2 * i] + losses[2 * i + 1]) / 2 for i in range(3)]
    np.testing.assert_allclose(history.losses, expected, rtol=1e-12)


def test_every_row_is_seen_once_an_epoch_in_a_new_order():
    seen = []

    def loss(network, batch):
        seen.append(batch.tolist())
        return network(batch[:, None].double()).square().mean()

    model = nn.Linear(1, 1, dtype=torch.float64)
    train(model, loss, torch.arange(10), n_epochs=2, batch_size=4)
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    first, second = ([row for batch in epoch for row in batch] for epoch in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    seen.clear()
    history = train(model, loss, torch.arange(10), n_steps=5, batch_size=4, drop_last=True)
    assert [len(batch) for batch in seen] == [4] * 5
    assert (history.n_epochs, history.n_steps, len(history.losses)) == (3, 5, 3)


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_state_alone():
    data = regression()

    def run(generator):
        model = MLP(4, [8], 1, dropout=0.5, generator=0).double()
        train(model, mean_squared_error, data, n_epochs=3, batch_size=16, generator=generator)
        return model

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = run(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, run(7))
    assert same(first, run(torch.Generator().manual_seed(7)))
    assert not same(first, run(8))


def test_training_resumed_with_the_same_generator_and_optimizer_equals_training_at_once():
    data = regression()
    whole, halves = (MLP(4, [8], 1, dropout=0.2, normalization="batch", generator=0).double() for _ in range(2))
    train(whole, mean_squared_error, data, n_epochs=5, batch_size=16, learning_rate=0.01, generator=3)
    optimizer = torch.optim.AdamW(halves.parameters(), lr=0.01, weight_decay=0.0)
    generator = torch.Generator().manual_seed(3)
    for n_epochs in (2, 3):
        train(
            halves, mean_squared_error, data, n_epochs=n_epochs, batch_size=16, optimizer=optimizer, generator=generator
        )
    assert same(whole, halves)


def test_early_stopping_waits_its_patience_and_restores_the_best_weights():
    model = nn.Linear(1, 1, bias=False)
    states, scores = [], iter([3.0, 1.0, 2.0, 1.0, 5.0, 0.0])

    def validation(network):
        assert not network.training
        states.append(network.weight.item())
        return next(scores)

    data = (torch.ones(4, 1), torch.full((4, 1), 9.0))
    history = train(model, mean_squared_error, data, n_epochs=6, validation=validation, patience=3, learning_rate=0.1)
    # The best is the second; a tie (the fourth) is no improvement; three waits end after the fifth.
    assert history.validation_losses == (3.0, 1.0, 2.0, 1.0, 5.0)
    assert (history.best_epoch, history.n_epochs, history.stopped_early) == (2, 5, True)
    assert model.weight.item() == states[1]
    assert len(set(states)) == 5


def test_without_restore_best_the_last_weights_stay():
    model = nn.Linear(1, 1, bias=False)
    states, scores = [], iter([0.0, 1.0, 2.0])

    def validation(network):
        states.append(network.weight.item())
        return next(scores)

    data = (torch.ones(4, 1), torch.full((4, 1), 9.0))
    history = train(model, mean_squared_error, data, n_epochs=3, validation=validation, restore_best=False)
    assert model.weight.item() == states[-1] != states[0]
    assert (history.best_epoch, history.stopped_early) == (1, False)


def test_validation_data_are_measured_with_the_loss_at_the_asked_epochs():
    inputs, targets = regression()
    model = MLP(4, [4], 1, dropout=0.5, generator=0).double()
    held_out = (inputs[:20], targets[:20])
    history = train(
        model,
        mean_squared_error,
        (inputs[20:], targets[20:]),
        n_epochs=5,
        validation=held_out,
        validate_every=2,
        restore_best=False,
    )
    assert len(history.validation_losses) == 3  # after epochs 2, 4 and the last
    expected = functional.mse_loss(model(held_out[0])[:, 0], held_out[1]).item()
    assert history.validation_losses[-1] == pytest.approx(expected, rel=1e-12)


def test_datasets_arrays_and_loaders_train_like_tensors():
    inputs, targets = regression()
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=60)
    dataset = Dataset(inputs.numpy(), targets.numpy(), "toy", "all", "here")
    models = []
    for data in ((inputs, targets), (inputs.numpy(), targets.numpy()), dataset, loader):
        models.append(MLP(4, [], 1, generator=0).double())
        train(models[-1], mean_squared_error, data, n_epochs=2, batch_size=60)
    assert all(same(models[0], model) for model in models[1:])
    shuffled = [MLP(4, [], 1, generator=0).double() for _ in range(2)]
    for seed, model in enumerate(shuffled):
        torch.manual_seed(seed)  # a loader that shuffles by the global state follows our generator all the same
        train(model, mean_squared_error, DataLoader(TensorDataset(inputs, targets), 16, shuffle=True), n_epochs=1)
    assert same(*shuffled)


def test_frozen_parameters_stay_and_others_move():
    model = MLP(4, [4], 1, generator=0).double()
    frozen = model.head.weight.requires_grad_(False).clone()
    moved = model.features[0].weight.clone()
    train(model, mean_squared_error, regression(), n_steps=3, weight_decay=0.1)
    assert torch.equal(model.head.weight, frozen)
    assert not torch.equal(model.features[0].weight, moved)


def test_progress_and_steps_are_reported_and_a_step_can_stop():
    reports, steps = [], []

    def on_step(step):
        steps.append((step.epoch, step.step))
        return step.step == 7

    history = train(
        nn.Linear(4, 1, dtype=torch.float64),
        mean_squared_error,
        regression(),
        n_epochs=5,
        batch_size=20,
        progress=lambda done, total, label: reports.append((done, total)),
        on_step=on_step,
    )
    assert steps == [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6), (3, 7)]
    assert (history.n_steps, history.stopped_early) == (7, True)
    assert reports == [*((step, 15) for step in range(1, 8)), (15, 15)]
    reports.clear()
    train(
        nn.Linear(4, 1, dtype=torch.float64),
        mean_squared_error,
        regression(),
        n_steps=1000,
        progress=lambda done, total, label: reports.append((done, total)),
    )
    assert len(reports) <= 201
    assert reports[-1] == (1000, 1000)


def test_a_diverging_loss_is_named_with_its_step():
    with pytest.raises(FloatingPointError, match=r"training loss is (inf|nan) at step \d+ \(epoch \d+\)"):
        train(
            nn.Linear(4, 1, dtype=torch.float64),
            mean_squared_error,
            regression(),
            n_steps=5000,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e6),
        )
    with pytest.raises(FloatingPointError, match="validation loss is nan after epoch 1"):
        train(
            nn.Linear(4, 1, dtype=torch.float64),
            mean_squared_error,
            regression(),
            n_epochs=2,
            validation=lambda network: float("nan"),
        )


INPUTS, TARGETS = torch.ones(4, 2), torch.ones(4)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_epochs": None}, ValueError, "exactly one of n_epochs and n_steps"),
        ({"n_steps": 3}, ValueError, "exactly one of n_epochs and n_steps"),
        ({"n_epochs": 0}, ValueError, "n_epochs must be an integer of at least 1; got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1; got 0"),
        ({"patience": 0, "validation": (INPUTS, TARGETS)}, ValueError, "patience must be"),
        ({"patience": 2}, ValueError, "patience needs validation"),
        ({"validate_every": 0}, ValueError, "validate_every must be"),
        ({"gradient_clip": -1.0}, ValueError, "gradient_clip must be positive"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be positive and finite; got nan"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay must be at least 0"),
        ({"optimizer": torch.optim.SGD, "learning_rate": 0.1}, ValueError, "learning_rate and weight_decay"),
        ({"generator": -1}, ValueError, "generator must be"),
        ({"validation": (INPUTS, TARGETS[:3])}, ValueError, "validation must hold arrays of one common length"),
    ],
)
def test_bad_settings_are_refused_by_name(options, error, words):
    with pytest.raises(error, match=words):
        train(nn.Linear(2, 1), mean_squared_error, (INPUTS, TARGETS), **{"n_epochs": 1, **options})


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ((INPUTS, TARGETS[:3]), ValueError, "train_data must hold arrays of one common length"),
        ((INPUTS[:0], TARGETS[:0]), ValueError, "at least 1"),
        ((), ValueError, "one common length"),
        ((INPUTS * float("inf"), TARGETS), ValueError, "train_data must be finite"),
        ((np.array([["a"]]), TARGETS), TypeError, "train_data must hold numbers"),
        ((torch.tensor(1.0),), ValueError, "at least one dimension"),
        (iter([(INPUTS, TARGETS)]), TypeError, "iterated anew"),
        ([], ValueError, "train_data yielded no batch"),
        ([INPUTS, TARGETS], ValueError, "batch must be a pair"),
    ],
)
def test_bad_data_are_refused_by_name(data, error, words):
    with pytest.raises(error, match=words):
        train(nn.Linear(2, 1), mean_squared_error, data, n_epochs=1)


def test_bad_models_and_losses_are_refused():
    data = (INPUTS, TARGETS)
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        train(nn.Flatten(), mean_squared_error, data, n_epochs=1)
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        train(nn.Linear(2, 1).requires_grad_(False), mean_squared_error, data, n_epochs=1)
    with pytest.raises(ValueError, match=r"loss must return a scalar; got shape \(4, 1\)"):
        train(nn.Linear(2, 1), lambda network, batch: network(batch[0]), data, n_epochs=1)
    with pytest.raises(ValueError, match=r"targets must have the shape of the outputs, \(4, 3\); got \(4,\)"):
        train(nn.Linear(2, 3), mean_squared_error, data, n_epochs=1)
