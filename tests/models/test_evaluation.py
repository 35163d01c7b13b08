"""Evaluation against whole-batch formulas and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from sklearn.metrics import mean_squared_error as sklearn_mean_squared_error
from torch import nn

from offprint.models.evaluation import accuracy, cross_entropy, evaluate, mean_squared_error, predict


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_losses_and_accuracy_agree_with_scikit_learn_whatever_the_batches():
    logits, classes = draw(23, 4), torch.arange(23) % 4
    probabilities = torch.softmax(logits, 1).numpy()
    for batch_size in (5, 23, None):  # 5 leaves a short last batch, which must weigh less
        assert accuracy(nn.Identity(), (logits, classes), batch_size=batch_size) == pytest.approx(
            accuracy_score(classes, logits.argmax(1)), abs=1e-15
        )
        assert evaluate(nn.Identity(), cross_entropy, (logits, classes), batch_size=batch_size) == pytest.approx(
            log_loss(classes, probabilities), rel=1e-12
        )
    targets = draw(23, 4).flip(0)
    assert evaluate(nn.Identity(), mean_squared_error, (logits, targets), batch_size=5) == pytest.approx(
        sklearn_mean_squared_error(targets, logits), rel=1e-12
    )


def test_one_logit_stands_for_two_classes():
    logits, classes = draw(9, 1), torch.arange(9) % 2
    both = torch.cat([torch.zeros(9, 1, dtype=torch.float64), logits], 1)
    for form in (logits, logits[:, 0]):
        assert accuracy(nn.Identity(), (form, classes)) == accuracy(nn.Identity(), (both, classes))
        torch.testing.assert_close(
            cross_entropy(nn.Identity(), (form, classes)), cross_entropy(nn.Identity(), (both, classes))
        )


def test_evaluation_mode_holds_inside_and_each_module_has_its_own_mode_back():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    model.train()
    model[1].eval()
    inputs = torch.ones(7, 3)
    outputs = predict(model, inputs, batch_size=2)
    torch.testing.assert_close(outputs, inputs / np.sqrt(1 + 1e-5))  # no dropping, running mean 0 and variance 1
    assert not outputs.requires_grad
    assert (model.training, model[0].training, model[1].training) == (True, True, False)


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="inputs must hold arrays"):
        predict(nn.Identity(), torch.ones(0, 2))
    with pytest.raises(ValueError, match="one class per row"):
        accuracy(nn.Identity(), (torch.ones(3, 2), torch.ones(3, 2)))
    with pytest.raises(ValueError, match="batch must be a pair"):
        evaluate(nn.Identity(), cross_entropy, torch.ones(3, 2))
    with pytest.raises(ValueError, match="data must be finite"):
        evaluate(nn.Identity(), cross_entropy, torch.full((3, 2), torch.nan))
