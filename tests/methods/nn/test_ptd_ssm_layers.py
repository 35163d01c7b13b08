"""The layers, against dense systems simulated by SciPy, and the model around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from torch import Tensor, nn

from offprint.methods.nn.ptd_ssm import (
    S4D,
    S4DPLR,
    S5,
    SequenceModel,
    dplr,
    hippo_legs,
    parameter_groups,
    perturb_then_diagonalize,
    with_fourier_noise,
)
from offprint.methods.nn.ptd_ssm.s5 import linear_scan

Layer = S4D | S4DPLR | S5


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


PTD8 = perturb_then_diagonalize(hippo_legs(8)[0], 1e-2, max_iter=20)
BUILD: dict[str, Callable[[torch.dtype], Layer]] = {
    "S4D": lambda dtype: S4D(3, 8, generator=seeded(), dtype=dtype),
    "S4D bilinear": lambda dtype: S4D(3, 8, discretization="bilinear", generator=seeded(), dtype=dtype),
    "S4D lin": lambda dtype: S4D(3, 8, init="lin", generator=seeded(), dtype=dtype),
    "S4D inv": lambda dtype: S4D(3, 8, init="inv", generator=seeded(), dtype=dtype),
    "S4-PTD": lambda dtype: S4D(3, 8, init=PTD8, generator=seeded(), dtype=dtype),
    "S4-PTD, two channels": lambda dtype: S4D(3, 8, init=PTD8, channels=2, generator=seeded(), dtype=dtype),
    "S4DPLR": lambda dtype: S4DPLR(3, 8, generator=seeded(), dtype=dtype),
    "S4DPLR, two channels": lambda dtype: S4DPLR(3, 8, channels=2, generator=seeded(), dtype=dtype),
    "S5": lambda dtype: S5(3, 8, generator=seeded(), dtype=dtype),
    "S5-PTD in blocks": lambda dtype: S5(3, 16, init=PTD8, blocks=2, generator=seeded(), dtype=dtype),
}
every_layer = pytest.mark.parametrize("name", BUILD)


def sequences(length: int, dtype: torch.dtype, features: int = 3) -> Tensor:
    return torch.randn(2, length, features, generator=seeded(), dtype=dtype)


@pytest.fixture
def as_users_call_it() -> Iterator[None]:
    """Without the shape checks of the test run, so that what refuses bad input is the code itself."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


def test_the_fixture_has_real_modes_too() -> None:
    """So that every test below also covers eigenvalues that are their own conjugates."""
    assert (PTD8.Lambda.imag == 0).any()
    assert (PTD8.Lambda.imag > 0).any()


# float32 carries about 1e-7 and the phases of the kernel grow with time: 1e-5; float64: 1e-10.


@every_layer
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("length", [1, 2, 7, 256])
def test_whole_sequences_equal_step_by_step(name: str, length: int, dtype: torch.dtype, tolerance: float) -> None:
    layer, inputs = BUILD[name](dtype), sequences(length, dtype)
    state, outputs = layer.initial_state(2), []
    for t in range(length):
        output, state = layer.step(inputs[:, t], state)
        outputs.append(output)
    whole, stepped = layer(inputs), torch.stack(outputs, 1)
    assert whole.dtype == dtype
    assert (whole - stepped).abs().max() <= tolerance * max(1.0, stepped.abs().max().item())


@every_layer
def test_kernel_is_the_response_to_an_impulse(name: str) -> None:
    layer = BUILD[name](torch.float64)
    if not isinstance(layer, S5) and layer.channels > 1:
        pytest.skip("the kernel is that of each channel, before they are mixed")
    kernel = layer.kernel(50)
    for feature in range(3):
        impulse = torch.zeros(1, 50, 3, dtype=torch.float64)
        impulse[0, 0, feature] = 1
        response = layer(impulse)[0]
        response[0] -= layer.D.reshape(-1, 3)[0] * impulse[0, 0]
        expected = torch.zeros(50, 3, dtype=torch.float64)
        if isinstance(layer, S5):
            expected = kernel[:, :, feature]
        else:
            expected[:, feature] = kernel[0, feature]
        torch.testing.assert_close(response, expected, rtol=0, atol=1e-10)


def simulate(A: np.ndarray, B: np.ndarray, C: np.ndarray, inputs: np.ndarray, delta: float, method: str) -> np.ndarray:
    """Outputs of the dense system by SciPy; the input of a step already acts on the state that is read at its end."""
    bars = scipy.signal.cont2discrete((A, B[:, None], C[None], np.zeros((1, 1))), delta, method="zoh")
    if method == "bilinear":
        identity = np.eye(len(A))
        bars = (
            np.linalg.solve(identity - delta / 2 * A, identity + delta / 2 * A),
            delta * np.linalg.solve(identity - delta / 2 * A, B[:, None]),
        )
    A_bar, B_bar = bars[:2]
    return scipy.signal.dlsim((A_bar, B_bar, C[None] @ A_bar, C[None] @ B_bar, delta), inputs)[1][:, 0]


@pytest.mark.parametrize("kind", ["legs zoh", "legs bilinear", "ptd zoh", "s4dplr"])
def test_layers_start_as_the_dense_systems_they_stand_for(kind: str) -> None:
    (A, B), (A_normal, _) = hippo_legs(8), dplr(8)
    options = {"delta_range": (0.05, 0.05), "generator": seeded(), "dtype": torch.float64}
    if kind == "s4dplr":
        layer: Layer = S4DPLR(1, 8, **options)
    else:
        init, method = kind.split()
        layer = S4D(1, 8, init=PTD8 if init == "ptd" else "legs", discretization=method, **options)
    system = {"legs": (A_normal, B / 2), "ptd": (A + PTD8.E, B), "s4dplr": (A, B)}[kind.split()[0]]
    # The same generator gives the read-out that the layer has drawn: D comes first, then C.
    generator = seeded()
    torch.randn(1, 1, generator=generator, dtype=torch.float64)
    C = torch.randn(1, 1, 8, generator=generator, dtype=torch.float64).numpy()[0, 0]
    inputs = np.random.default_rng(0).standard_normal(256)
    expected = simulate(*system, C, inputs, 0.05, "zoh" if "zoh" in kind else "bilinear")
    outputs = layer(torch.from_numpy(inputs)[None, :, None])[0, :, 0].detach().numpy()
    np.testing.assert_allclose(outputs - layer.D.item() * inputs, expected, rtol=0, atol=1e-8)


def test_slow_input_gives_the_output_of_the_continuous_system() -> None:
    layer = S4D(1, 8, init=PTD8, delta_range=(1e-3, 1e-3), generator=seeded(), dtype=torch.float64)
    time = np.arange(256) * 1e-3
    inputs = np.sin(40 * time)
    dense = (np.diag(layer.Lambda.detach().numpy()[0]), torch.view_as_complex(layer.B.detach()).numpy()[0, :, None])
    read = torch.view_as_complex(layer.C.detach()).numpy()[0]
    # Twice the real part, because only one of each conjugate pair is stored; lsim takes complex systems through ZOH.
    real = np.block([[dense[0].real, -dense[0].imag], [dense[0].imag, dense[0].real]])
    stacked = np.concatenate((dense[1].real, dense[1].imag))
    output = 2 * np.concatenate((read.real, -read.imag), axis=1)
    _, expected, _ = scipy.signal.lsim((real, stacked, output, np.zeros((1, 1))), inputs, time, interp=False)
    outputs = layer(torch.from_numpy(inputs)[None, :, None])[0, :, 0].detach().numpy() - layer.D.item() * inputs
    # lsim reads the state before the input of a step acts, the layer after it.
    np.testing.assert_allclose(outputs[:-1], expected[1:], rtol=0, atol=1e-8)


@every_layer
def test_frequency_response_is_the_transform_of_the_kernel(name: str) -> None:
    layer = BUILD[name](torch.float64)
    with torch.no_grad():
        layer.log_delta.fill_(np.log(0.1))  # so that 2,000 steps are long enough for the kernel to die out
        omega = torch.tensor([0.01, 0.5, 3.0], dtype=torch.float64)
        waves = torch.exp(-1j * omega[:, None] * torch.arange(2000))
        kernel = layer.kernel(2000).to(waves.dtype)
        if isinstance(layer, S5):
            expected = torch.einsum("wt,toi->woi", waves, kernel) + torch.diag(layer.D)
        else:
            expected = torch.einsum("wt,cht->wch", waves, kernel) + layer.D
        torch.testing.assert_close(layer.frequency_response(omega), expected, rtol=0, atol=1e-9)


@every_layer
def test_gradients_reach_every_parameter(name: str) -> None:
    layer = BUILD[name](torch.float64)
    layer(sequences(20, torch.float64)).square().sum().backward()
    for label, parameter in layer.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().sum() > 0, label


@pytest.mark.parametrize("name", ["S4-PTD", "S4DPLR", "S5"])
def test_gradients_are_right(name: str) -> None:
    """Against finite differences, through the blocks of the kernel and the rounds of the scan."""
    layer, inputs = BUILD[name](torch.float64), sequences(11, torch.float64)
    parameters = tuple(layer.parameters())

    def outputs(*values: Tensor) -> Tensor:
        names = [label for label, _ in layer.named_parameters()]
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (inputs,))

    torch.autograd.gradcheck(outputs, parameters, fast_mode=True)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 70), seed=st.integers(0, 10**6))
def test_scan_equals_the_loop(length: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    A = torch.polar(torch.rand(4, generator=generator).double(), 6 * torch.rand(4, generator=generator).double())
    inputs = torch.randn(2, length, 4, generator=generator, dtype=torch.complex128)
    state, states = torch.zeros(2, 4, dtype=torch.complex128), []
    for t in range(length):
        state = A * state + inputs[:, t]
        states.append(state)
    torch.testing.assert_close(linear_scan(A, inputs), torch.stack(states, 1), rtol=0, atol=1e-12 * length)


@every_layer
def test_layers_are_linear_causal_and_time_invariant(name: str) -> None:
    layer, inputs = BUILD[name](torch.float64), sequences(40, torch.float64)
    with torch.no_grad():
        offset = layer(torch.zeros_like(inputs))  # the bias of the map that mixes channels
        whole = layer(inputs) - offset
        torch.testing.assert_close(layer(3 * inputs) - offset, 3 * whole)
        torch.testing.assert_close(layer(inputs[:, :25]) - offset[:, :25], whole[:, :25])
        delayed = torch.cat((torch.zeros(2, 5, 3, dtype=torch.float64), inputs[:, :35]), 1)
        torch.testing.assert_close((layer(delayed) - offset)[:, 5:], whole[:, :35])


def test_long_kernels_in_float32_keep_their_digits() -> None:
    layer = S4D(4, 64, generator=seeded())
    double = S4D(4, 64, generator=seeded()).double()
    double.load_state_dict({name: value.double() for name, value in layer.state_dict().items()})
    exact = double.kernel(4096)
    assert (layer.kernel(4096) - exact).abs().max() < 1e-3 * exact.abs().max()


def test_training_cannot_make_a_layer_unstable() -> None:
    layer = S4D(2, 8, init=PTD8, generator=seeded())
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded()))
    assert layer.Lambda.real.max() < 0


def test_ptd_starts_at_the_eigenvalues_of_the_perturbed_matrix() -> None:
    layer = S4D(1, 8, init=PTD8, dtype=torch.float64)
    stored = layer.Lambda.detach().numpy()[0]
    both = np.concatenate((stored, stored[stored.imag > 0].conj()))
    expected = np.linalg.eigvals(hippo_legs(8)[0] + PTD8.E)
    np.testing.assert_allclose(np.sort_complex(both), np.sort_complex(expected), rtol=1e-9)


@pytest.mark.parametrize("layer", ["s4d", "s5", "s4dplr", "gru"])
@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
def test_model_shapes(layer: str, norm: str) -> None:
    options = {} if layer == "gru" else {"n_state": 8}
    shape = {"n_layers": 2, "d_model": 6, "layer": layer, "norm": norm, "generator": seeded()}
    inputs = sequences(33, torch.float32)
    assert SequenceModel(3, 5, **shape, **options)(inputs).shape == (2, 5)
    assert SequenceModel(3, 5, pooling="none", **shape, **options)(inputs).shape == (2, 33, 5)
    last, every = (
        SequenceModel(3, 5, pooling=p, **{**shape, "generator": seeded()}, **options) for p in ("last", "none")
    )
    torch.testing.assert_close(last(inputs), every(inputs)[:, -1])


def test_model_takes_a_layer_of_ones_own() -> None:
    assert SequenceModel(3, 5, 1, 6, lambda d_model: nn.Linear(d_model, d_model))(
        sequences(4, torch.float32)
    ).shape == (2, 5)
    with pytest.raises(TypeError, match="layer_options go to named layers only"):
        SequenceModel(3, 5, 1, 6, nn.Identity, n_state=8)


def test_blocks_share_one_perturbation() -> None:
    model = SequenceModel(1, 1, 2, 4, "s5", n_state=8, blocks=2, init="ptd", generator=seeded())
    first, second = (block.layer for block in model.blocks)
    torch.testing.assert_close(first.frequency, second.frequency)
    assert not torch.equal(first.C, second.C)


def test_same_generator_same_weights() -> None:
    first, again = (SequenceModel(1, 2, 2, 4, n_state=8, generator=seeded()) for _ in range(2))
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_parameter_groups_cover_every_parameter_once() -> None:
    model = SequenceModel(1, 2, 2, 4, n_state=8, lr_scale=0.5)
    model.decode.bias.requires_grad_(False)
    groups = parameter_groups(model, 0.01, weight_decay=0.1)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.01, 0.1), (0.005, 0.0)]
    counted = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(set(counted)) == len(counted) == len(list(model.parameters())) - 1
    assert {id(block.layer.log_delta) for block in model.blocks} <= {id(p) for p in groups[1]["params"]}


def test_a_step_of_descent_lowers_the_loss() -> None:
    model = SequenceModel(1, 1, 1, 8, n_state=8, generator=seeded(), pooling="last")
    inputs = sequences(30, torch.float32, features=1)
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-2))
    losses = []
    for _ in range(20):
        loss = (model(inputs) - inputs[:, 5]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: S4D(0), "d_model must be at least 1"),
        (lambda: S4D(2, 7), "n_state must be even"),
        (lambda: S4D(2, 8, channels=0), "channels must be at least 1"),
        (lambda: S4D(2, 8, delta_range=(0.0, 0.1)), "delta_range must be two positive numbers"),
        (lambda: S4D(2, 8, delta_range=(0.2, 0.1)), "delta_range must be two positive numbers"),
        (lambda: S4D(2, 8, init="other"), "init must be one of legs, ptd, lin, inv"),
        (lambda: S4D(2, 8, discretization="euler"), "discretization must be"),
        (lambda: S4D(2, 8, lr_scale=-1.0), "lr_scale must be non-negative"),
        (lambda: S4D(2, 8, rel_size=float("nan")), "rel_size must be positive"),
        (lambda: S4D(2, 16, init=PTD8), "init must be a PTD of a matrix of size 16; got size 8"),
        (lambda: S4DPLR(2, 7), "must be even"),
        (lambda: S5(2, 8, blocks=3), "blocks must divide n_state = 8; got 3"),
        (lambda: S5(2, 6, blocks=2), "must be even"),
        (lambda: S5(2, 8, init="legs"), "init must be 'hippo', 'ptd' or a PTD"),
        (lambda: SequenceModel(1, 1, 1, 4, "lstm"), "layer must be one of s4d, s5, s4dplr, gru or a callable"),
        (lambda: SequenceModel(1, 1, 1, 4, dropout=1.0), "dropout must be in"),
        (lambda: SequenceModel(1, 1, 1, 4, norm="group"), "norm must be one of"),
        (lambda: parameter_groups(nn.Linear(1, 1), 0.0), "learning_rate must be positive"),
    ],
)
def test_constructors_refuse_bad_input(as_users_call_it: None, build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_unstable_start_is_refused_and_not_clipped() -> None:
    with pytest.warns(UserWarning, match="not stable"):
        unstable = perturb_then_diagonalize(hippo_legs(32)[0], 0.1, method="ginibre", stable=False)
    with pytest.raises(ValueError, match="init must be stable; its largest real part is"):
        S4D(2, 32, init=unstable)


def test_complex_perturbation_is_refused() -> None:
    result = perturb_then_diagonalize(hippo_legs(8)[0].astype(complex), max_iter=5)
    with pytest.raises(ValueError, match="PTD of a real matrix"):
        S4D(2, 8, init=result)


@every_layer
def test_layers_refuse_bad_sequences(name: str) -> None:
    layer = BUILD[name](torch.float32)
    with pytest.raises(ValueError, match="inputs must be finite"):
        layer(torch.full((1, 4, 3), torch.nan))
    with pytest.raises(ValueError, match="inputs must be finite"):
        layer.step(torch.full((1, 3), torch.inf), layer.initial_state(1))


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (torch.zeros(1, 4, 2), ValueError, r"inputs must have shape \(batch, length, 3\); got \(1, 4, 2\)"),
        (torch.zeros(4, 3), ValueError, "inputs must have shape"),
        (torch.zeros(1, 0, 3), ValueError, "inputs must have shape"),
        (torch.zeros(1, 4, 3, dtype=torch.complex64), TypeError, "inputs must have the layer's dtype"),
        (torch.zeros(1, 4, 3, dtype=torch.float64), TypeError, "inputs must have the layer's dtype"),
    ],
)
def test_layers_refuse_wrong_shapes_and_dtypes(
    as_users_call_it: None, inputs: Tensor, error: type[Exception], message: str
) -> None:
    for layer in (S4D(3, 8), S5(3, 8), SequenceModel(3, 1, 1, 4, n_state=8)):
        with pytest.raises(error, match=message):
            layer(inputs)


def test_noise_is_the_sinusoid_it_says() -> None:
    inputs = sequences(50, torch.float64)
    added = with_fourier_noise(inputs, omega=0.3, amplitude=0.2, phase=1.0) - inputs
    expected = 0.2 * np.sin(0.3 * np.arange(50) + 1.0)
    np.testing.assert_allclose(added.numpy(), np.broadcast_to(expected[None, :, None], added.shape), atol=1e-12)
