"""Min-max problems over torch parameters against the gradients and the saddle point worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from offprint.methods.optimize.halpern import inexact_vr_halpern, vr_halpern
from offprint.methods.optimize.torch_sum import from_torch

X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + 1


def problem(dtype: torch.dtype = torch.float64, chunk_size: int = 4096):
    """Return min over w, b, max over s of mean (x·w + b - y)² / 2 + s·w - s·s / 2, whose s is w at the saddle."""
    model, shift = nn.Linear(3, 1, dtype=dtype), nn.Parameter(torch.full((3,), 0.5, dtype=dtype))

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        w = model.weight[0]
        return ((model(x)[:, 0] - y) ** 2).mean() / 2 + shift @ w - shift @ shift / 2

    return model, shift, from_torch(loss, (X.to(dtype), Y.to(dtype)), (model, [shift]), chunk_size=chunk_size)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("chunk_size", [7, 4096])
def test_field_is_the_gradient_and_the_negative_gradient(dtype: torch.dtype, tolerance: float, chunk_size: int) -> None:
    *_, operator = problem(dtype, chunk_size)
    u = np.random.default_rng(0).standard_normal(7)
    w, b, s = u[:3], u[3], u[4:]
    x, y = X.numpy(), Y.numpy()

    def expected(rows: np.ndarray) -> np.ndarray:
        error = x[rows] @ w + b - y[rows]
        return np.r_[x[rows].T @ error / len(rows) + s, error.mean(), s - w]

    np.testing.assert_allclose(operator.full(u), expected(np.arange(50)), atol=tolerance)
    batch = np.array([3, 3, 40])
    np.testing.assert_allclose(operator.component(batch, u), expected(batch), atol=tolerance)


@pytest.mark.parametrize("solver", [vr_halpern, inexact_vr_halpern])
def test_solver_finds_the_saddle_point_and_writes_it_back(solver) -> None:
    model, shift, operator = problem()
    options = {} if solver is vr_halpern else {"batch_size": 8}
    result = solver(operator, operator.u0, tol=1e-2, max_evals=50_000, restart=0.5, **options)
    assert result.converged, result.message
    operator.write(result.u)
    x, y = np.c_[X.numpy(), np.ones(50)], Y.numpy()
    ridge = np.linalg.solve(x.T @ x / 50 + np.diag([1, 1, 1, 0]), x.T @ y / 50)  # s = w turns s·w - s·s/2 into w·w/2
    found = np.r_[model.weight.detach()[0].numpy(), model.bias.detach().numpy()]
    # F is at least 0.6-strongly monotone in w, b here, so a residual of 1e-2 bounds the error by about 2e-2
    np.testing.assert_allclose(found, ridge, atol=3e-2)
    np.testing.assert_allclose(shift.detach().numpy(), ridge[:3], atol=3e-2)


def test_start_is_the_present_parameters_and_one_player_is_enough() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    unused = torch.tensor([3.0], requires_grad=True)
    operator = from_torch(lambda x: ((w - x) ** 2).mean(), torch.zeros(4, 2), ([w, unused], None))
    np.testing.assert_array_equal(operator.u0, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(operator.full(operator.u0), [1.0, 2.0, 0.0])


W = torch.zeros(2, requires_grad=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1, X, ([W], None)), TypeError, "loss_fn"),
        ((lambda x: x.sum(), (X, Y[:3]), ([W], None)), ValueError, "data"),
        ((lambda x: x.sum(), X, ([W], [W])), ValueError, "share"),
        ((lambda x: x.sum(), X, ([W.detach()], None)), ValueError, r"players\[0\]"),
        ((lambda x: x.sum(), X, ([torch.full((1,), torch.nan, requires_grad=True)], None)), ValueError, "finite"),
    ],
)
def test_bad_input_is_named(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises((error, TypeError), match=message if error is ValueError else None):
        from_torch(*arguments)


def test_loss_of_more_than_one_number_is_refused() -> None:
    operator = from_torch(lambda x: (W - x).sum(dim=1), X[:, :2].float(), ([W], None))
    with pytest.raises(ValueError, match="loss_fn must return the mean loss"):
        operator.full(operator.u0)
