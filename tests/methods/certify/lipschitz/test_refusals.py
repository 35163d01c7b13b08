"""What Lipschitz bounds refuse, and how they say so."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

import pytest
import torch
from jaxtyping import config
from torch import Tensor, nn

from offprint.methods.certify.lipschitz import (
    BranchAndBound,
    jacobian_bounds,
    jvp_bounds,
    local_lipschitz,
    monotonicity,
    register_chain_rule,
)

MODEL = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
X = torch.zeros(2, 3)


class Steps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sign(x)


def convolutional(*rest: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), *rest).eval()


@pytest.fixture(autouse=True)
def as_users_call_it() -> Iterator[None]:
    """Without the shape checks of the test run, so that what refuses bad input is the code itself."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.full((2, 3), math.nan)}, "x: expected finite numbers"),
        ({"x": torch.zeros(3)}, "x: expected a batch"),
        ({"x": torch.zeros(2, 3, dtype=torch.float64)}, "x: expected torch.float32"),
        ({"eps": -0.1}, "eps: expected finite numbers of at least 0, got -0.1"),
        ({"eps": math.nan}, "eps: expected finite"),
        ({"eps": torch.ones(5)}, "eps: expected a number, one for each of 2 samples"),
        ({"norm": 1}, "norm: expected math.inf or 2, got 1"),
        ({"norm": 2, "method": "global"}, "norm: method='global'"),
        ({"clip": (1.0, 0.0)}, "clip: expected (low, high)"),
        ({"clip": (0.5, 1.0)}, "clip: expected limits (0.5, 1.0) that hold for x itself"),
        ({"method": "magic"}, "method: expected one of"),
        ({"forward": "magic"}, "forward: expected one of"),
        ({"bab": BranchAndBound(), "method": "ibp"}, "bab: branching tightens"),
        ({"n_points": -1}, "n_points: expected at least 0"),
        ({"memory": 0}, "memory: expected a positive"),
        ({"C": torch.ones(1, 5)}, "C: expected (rows, 2)"),
        ({"C": torch.full((1, 2), math.inf)}, "C: expected finite"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    given = {"model": MODEL, "x": X, "eps": 0.1} | arguments
    with pytest.raises(ValueError, match=re.escape(message)):
        local_lipschitz(**given)


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (convolutional(nn.MaxPool2d(2), nn.Flatten()), torch.zeros(1, 1, 4, 4), "maxima are not supported"),
        (convolutional(nn.BatchNorm2d(2).train(), nn.Flatten()).train(), torch.zeros(1, 1, 4, 4), "training mode"),
        (convolutional(), torch.zeros(1, 1, 4, 4), "expected one output of shape (batch, outputs)"),
        (nn.Sequential(nn.Linear(3, 4), Steps()), X, "no range of derivatives"),
        (nn.Sequential(nn.Linear(3, 4), nn.Softmax(1)), X, "has no chain rule here"),
    ],
)
def test_models_that_cannot_be_bounded_are_refused(model: nn.Module, x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        local_lipschitz(model, x, 0.1)


def test_a_region_in_which_bounds_overflow_is_refused() -> None:
    steep = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        steep[0].weight.fill_(1e3)
    with pytest.raises(ValueError, match="eps: the bounds overflow"):
        local_lipschitz(steep, X, 1e38, forward="ibp")


def test_what_is_no_model_or_tensor_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="model: expected"):
        local_lipschitz(lambda x: x, X, 0.1)
    with pytest.raises(TypeError, match="floating-point"):
        local_lipschitz(MODEL, torch.zeros(2, 3, dtype=torch.int64), 0.1)
    with pytest.raises(TypeError, match="targets"):
        register_chain_rule("relu")


def test_many_rows_warn_about_memory() -> None:
    with pytest.warns(UserWarning, match="takes much memory"):
        local_lipschitz(MODEL, X[:1], 0.1, C=torch.ones(1001, 2), method="ibp", forward="ibp", n_points=0)


@pytest.mark.parametrize("function", [torch.square, torch.exp, lambda x: 1 / (x + 2)])
def test_what_has_no_norm_everywhere_is_refused_by_the_product_of_norms(function: Callable[[Tensor], Tensor]) -> None:
    """Each has a finite slope in the region, and none that holds everywhere."""

    class Steep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    with pytest.raises(ValueError, match="method: 'global' knows no norm"):
        local_lipschitz(Steep(), X, 0.1, method="global", n_points=0)
    assert bool((local_lipschitz(Steep(), X, 0.1, n_points=0).upper > 0).all())


def test_the_other_functions_refuse_too() -> None:
    with pytest.raises(ValueError, match="method: expected"):
        jacobian_bounds(MODEL, X, 0.1, method="global")
    with pytest.raises(ValueError, match="v: expected a finite tensor"):
        jvp_bounds(MODEL, X, torch.ones(4), 0.1)
    for arguments, message in (
        ({"feature": 3}, "feature: expected a column"),
        ({"low": 1.0, "high": 0.0}, "low, high: expected"),
        ({"pieces": 0}, "pieces: expected"),
        ({"output": 2}, "output: expected a column"),
        ({"X": torch.zeros(2, 3, 1)}, "X: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            monotonicity(**({"model": MODEL, "X": X, "feature": 0} | arguments))
    for arguments, message in (
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"batch": 0}, "batch"),
        ({"heuristic": "magic"}, "heuristic"),
        ({"tolerance": -1.0}, "tolerance"),
    ):
        with pytest.raises(ValueError, match=message):
            BranchAndBound(**arguments)
