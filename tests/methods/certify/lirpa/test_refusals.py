"""Bad input is refused with an error that names the argument."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from jaxtyping import config
from small_networks import captured, mlp
from torch import Tensor, nn

from offprint.methods.certify.lirpa.bounds import BoundedModule, bound, margin_spec, perturb_parameters
from offprint.methods.certify.lirpa.operators.base import register_op
from offprint.methods.certify.lirpa.perturbations import Box, LpBall
from offprint.methods.certify.lirpa.substitutions import L0, Synonym

INF = math.inf
BALL = LpBall(INF, 0.1)


@pytest.fixture(autouse=True)
def as_users_call_it() -> Iterator[None]:
    """Without the shape checks of the test run, so that what refuses bad input is the code itself."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("eps", lambda: LpBall(2, -0.1)),
        ("eps", lambda: LpBall(2, math.nan)),
        ("eps", lambda: LpBall(2, torch.tensor([0.1, INF]))),
        ("norm", lambda: LpBall(0.5, 0.1)),
        ("norm", lambda: LpBall(math.nan, 0.1)),
        ("x_L", lambda: LpBall(2, 0.1, x_L=1.0, x_U=0.0)),
        ("x_U", lambda: LpBall(2, 0.1, x_U=math.nan)),
        ("lower", lambda: Box(torch.ones(2), torch.zeros(2))),
        ("upper", lambda: Box(torch.ones(2), torch.full((2,), INF))),
        ("k", lambda: L0(-1)),
        ("x_L", lambda: L0(1, 1.0, 0.0)),
        ("budget", lambda: Synonym(torch.zeros(1, 2, 1, 3), -1)),
        ("candidates", lambda: Synonym(torch.full((1, 2, 1, 3), math.nan), 1)),
        ("candidates", lambda: Synonym(torch.zeros(2, 1, 3), 1)),
        ("mask", lambda: Synonym(torch.zeros(1, 2, 1, 3), 1, torch.ones(1, 2).bool())),
        ("names", lambda: perturb_parameters(nn.Linear(2, 1), ["gain"], BALL)),
        ("y", lambda: margin_spec(torch.tensor([3]), 3)),
        ("y", lambda: margin_spec(torch.tensor([0.0]), 3)),
        ("n_classes", lambda: margin_spec(torch.tensor([0]), 1)),
    ],
)
def test_sets_and_specifications(name: str, make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=name):
        make()


def _bounds(**change: Any) -> Any:
    _, x, bounded = captured("mlp")
    given = {"inputs": x, "perturbation": BALL, **change}
    return bounded.compute_bounds(**given)


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (ValueError, "method", {"method": "magic"}),
        (ValueError, "lower, upper", {"lower": False, "upper": False}),
        (ValueError, "return_A", {"method": "ibp", "return_A": True}),
        (ValueError, "steps", {"method": "alpha-crown", "steps": -1}),
        (ValueError, "memory", {"memory": 0}),
        (ValueError, "C: expected shape", {"C": torch.ones(2, 1, 5, dtype=torch.float64)}),
        (ValueError, "C: expected shape", {"C": torch.ones(3, 1, 3, dtype=torch.float64)}),
        (ValueError, "C: expected finite", {"C": torch.full((1, 3), math.nan, dtype=torch.float64)}),
        (ValueError, "output", {"output": 1}),
        (ValueError, "node", {"output": "nothing"}),
        (ValueError, "node", {"intervals": {"nothing": (torch.zeros(1), torch.zeros(1))}}),
        (ValueError, "perturbation", {"perturbation": {}}),
        (ValueError, "perturbation", {"perturbation": {3: BALL}}),
        (ValueError, "gain", {"perturbation": {"gain": BALL}}),
        (TypeError, "perturbation", {"perturbation": {0: 0.1}}),
        (ValueError, "input 0 has NaN", {"inputs": torch.full((2, 4), math.nan, dtype=torch.float64)}),
        (ValueError, "input 0 is not finite", {"inputs": torch.full((2, 4), INF, dtype=torch.float64)}),
        (TypeError, "float32 or float64", {"inputs": torch.zeros(2, 4, dtype=torch.float16)}),
        (TypeError, "inputs", {"inputs": [0.0, 1.0]}),
        (ValueError, "eps", {"perturbation": LpBall(2, torch.ones(3))}),
        (ValueError, "x_U", {"perturbation": LpBall(2, 0.1, x_U=-9.0)}),
        (ValueError, "elements in", {"perturbation": L0(1, 5.0, 6.0)}),
        (ValueError, "lower", {"perturbation": Box(torch.zeros(5), torch.ones(5))}),
        (ValueError, "candidates", {"perturbation": Synonym(torch.zeros(2, 2, 1, 2), 1)}),
    ],
)
def test_bounds(error: type[Exception], match: str, change: dict[str, Any]) -> None:
    with pytest.raises(error, match=match):
        _bounds(**change)


def test_modules_and_their_weights() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match="model"):
        BoundedModule(torch.relu, x)
    with pytest.raises(ValueError, match="batch_norm"):
        BoundedModule(mlp(3, 2), x, batch_norm="yes")
    with pytest.raises(ValueError, match="dropout"):
        BoundedModule(mlp(3, 2), x, dropout="yes")
    broken = mlp(3, 4, 2)
    broken[0].weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"0\.weight"):
        bound(broken, x, BALL)
    with pytest.raises(TypeError, match=r"floating point.*embedding"):
        bound(nn.Embedding(5, 2), torch.zeros(2, 3, dtype=torch.long), BALL)
    with pytest.raises(ValueError, match="compute_bounds first"):
        BoundedModule(mlp(3, 2), x).interval("linear")
    with pytest.raises(TypeError, match="target"):
        register_op("relu", torch.relu)
    with pytest.raises(TypeError, match="handler"):
        register_op(torch.ops.aten.digamma.default, 3)


@pytest.mark.parametrize("name", ["log", "reciprocal", "sqrt"])
def test_domains_that_are_left(name: str) -> None:
    class Function(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return getattr(torch, name)(x)

    x = torch.full((2, 3), 0.3)
    for method in ("ibp", "forward", "crown"):
        with pytest.raises(ValueError, match=name):
            bound(Function(), x, LpBall(INF, 0.4), method)
        assert bound(Function(), x, LpBall(INF, 0.2), method).lower.isfinite().all()


def test_an_input_that_all_samples_share() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    alone = bound(Sum(), (torch.zeros(2, 3), torch.ones(1, 3)), BALL)
    torch.testing.assert_close(alone.upper, torch.full((2, 3), 1.1))
    with pytest.raises(ValueError, match="input 1: expected 2 samples on its first axis"):
        bound(Sum(), (torch.zeros(2, 3), torch.ones(1, 3)), {0: BALL, 1: BALL})
