"""The matrices, their transfer functions and the perturbed diagonalisation, against closed forms."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from offprint.methods.nn.ptd_ssm import (
    PTD,
    diag_spikes,
    dplr,
    hippo_legs,
    perturb_then_diagonalize,
    transfer_function,
)
from offprint.methods.nn.ptd_ssm.hippo import diagonal_spectrum

SIZES = [8, 16, 32, 64]


def blaschke(n: int, omega: np.ndarray) -> np.ndarray:
    """P(iω), the product over j of (s - j + 1) / (s + j), factor by factor."""
    s = 1j * np.asarray(omega, dtype=complex)
    return np.prod([(s - (j - 1)) / (s + j) for j in range(1, n + 1)], axis=0)


def frequencies(n: int) -> np.ndarray:
    return np.array([0.1, 1, 10, n, 3 * n, 10 * n])


# 1e-8 leaves room for the rounding of matrices whose norm is 0.64 n²; what is measured is below 1e-12.


@pytest.mark.parametrize("n", SIZES)
def test_transfer_function_of_hippo_has_the_closed_form(n: int) -> None:
    A, B = hippo_legs(n)
    omega = frequencies(n)
    np.testing.assert_allclose(transfer_function(A, B, B, 0.0, omega), 1 - blaschke(n, omega), rtol=0, atol=1e-8)


@pytest.mark.parametrize("n", SIZES)
def test_dropping_the_rank_one_term_divides_by_one_plus_p(n: int) -> None:
    (A, B), (A_normal, p) = hippo_legs(n), dplr(n)
    C, omega = np.random.default_rng(n).standard_normal(n), frequencies(n)
    diagonal = transfer_function(A_normal, p / np.sqrt(2), C, 0.0, omega)
    full = transfer_function(A, B, C, 0.0, omega)
    np.testing.assert_allclose(diagonal, full / (1 + blaschke(n, omega)), rtol=1e-8)


@pytest.mark.parametrize("n", SIZES)
def test_modulus_of_p(n: int) -> None:
    (A, B), omega = hippo_legs(n), frequencies(n)
    modulus = np.abs(1 - transfer_function(A, B, B, 0.0, omega))
    np.testing.assert_allclose(modulus, omega / np.hypot(omega, n), rtol=1e-8)


@pytest.mark.parametrize("n", [1, 2, *SIZES])
def test_dplr_splits_hippo_into_skew_minus_half_and_rank_one(n: int) -> None:
    (A, _), (A_normal, p) = hippo_legs(n), dplr(n)
    assert np.abs(A_normal + A_normal.T + np.eye(n)).max() < 1e-13
    np.testing.assert_allclose(A_normal - np.outer(p, p), A, rtol=0, atol=1e-12 * n)


@pytest.mark.parametrize(("n", "expected"), [(8, 7.7e4), (16, 8.3e10)])
def test_condition_number_of_the_raw_eigenvectors(n: int, expected: float) -> None:
    # 10 %, the precision of the reference values.
    assert np.linalg.cond(np.linalg.eig(hippo_legs(n)[0])[1]) == pytest.approx(expected, rel=0.1)


def test_raw_eigenvectors_are_dependent_to_rounding_for_32_states() -> None:
    # Double precision cannot tell 1e16 from more; in exact arithmetic the value is above 1e18.
    assert np.linalg.cond(np.linalg.eig(hippo_legs(32)[0])[1]) > 1e15


@pytest.mark.parametrize(
    ("n", "known"),
    [
        (8, [(0.39, 1.05), (1.96, 1.31), (5.37, 2.25), (19.87, 13.8)]),
        (16, [(13.84, 2.89), (25.6, 6.59)]),
        (32, [(62.6, 9.13)]),
    ],
)
def test_spikes_lie_where_they_are_known_to_be(n: int, known: list[tuple[float, float]]) -> None:
    omega, height = diag_spikes(n)
    for expected_omega, expected_height in known:
        nearest = np.abs(omega - expected_omega).argmin()
        # 2 %, the precision of the reference values.
        assert omega[nearest] == pytest.approx(expected_omega, rel=0.02)
        assert height[nearest] == pytest.approx(expected_height, rel=0.02)


@pytest.mark.parametrize("n", [2, 3, 8, 9, 16, 33])
def test_spikes_are_all_local_maxima_of_the_amplification(n: int) -> None:
    grid = np.geomspace(0.02, 3.0 * n**2, 100_000)
    gain = 1 / np.abs(1 + blaschke(n, grid))
    peaks = np.flatnonzero((gain[1:-1] > gain[:-2]) & (gain[1:-1] > gain[2:])) + 1
    omega, height = diag_spikes(n)
    # The grid's spacing is 1.4e-4 of ω; half of it beside a peak of half-width 1/2 at ω ≤ 350 costs 1e-3 of the height.
    np.testing.assert_allclose(omega, grid[peaks], rtol=3e-4)
    np.testing.assert_allclose(height, gain[peaks], rtol=1e-3)


def test_only_the_highest_spikes_on_request() -> None:
    everything, highest = diag_spikes(16), diag_spikes(16, 2)
    np.testing.assert_allclose(highest, [everything[0][-2:], everything[1][-2:]], rtol=1e-9)


@pytest.mark.parametrize("n", [2, 16, 64])
def test_diagonal_spectrum_is_that_of_the_normal_part(n: int) -> None:
    Lambda, B, V = diagonal_spectrum(n, "legs")
    expected = np.linalg.eigvals(dplr(n)[0])
    expected = expected[expected.imag > 0]
    np.testing.assert_allclose(np.sort(Lambda.imag), np.sort(expected.imag), rtol=1e-9)
    assert V is not None
    np.testing.assert_allclose(2 * (V @ B).real, hippo_legs(n)[1] / 2, rtol=0, atol=1e-10 * n)


def test_discretised_transfer_function_is_that_of_scipy() -> None:
    A, B = hippo_legs(6)
    C, omega, delta = np.random.default_rng(0).standard_normal(6), np.array([0.0, 0.7, 5.0]), 0.1
    for method in ("zoh", "bilinear"):
        dense = scipy.signal.cont2discrete((A, B[:, None], C[None], np.array([[0.3]])), delta, method=method)
        _, expected = scipy.signal.dfreqresp((*dense[:4], delta), w=omega * delta)
        measured = transfer_function(A, B, C, 0.3, omega, delta=delta, discretization=method)
        np.testing.assert_allclose(measured, expected, rtol=1e-10)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 6), inputs=st.integers(1, 3), outputs=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_transfer_function_solves_the_dense_system(n: int, inputs: int, outputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n)) - 4 * np.eye(n)
    B, C, D = (rng.standard_normal(shape) for shape in ((n, inputs), (outputs, n), (outputs, inputs)))
    expected = [C @ np.linalg.solve(1j * w * np.eye(n) - A, B) + D for w in (0.3, 2.0)]
    np.testing.assert_allclose(transfer_function(A, B, C, D, [0.3, 2.0]), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["optimize", "ginibre"])
@pytest.mark.parametrize(("n", "rel_size"), [(8, 1e-1), (16, 1e-3), (32, 1e-2)])
def test_result_is_an_exact_diagonalisation_of_the_perturbed_matrix(n: int, rel_size: float, method: str) -> None:
    A = hippo_legs(n)[0]
    result = perturb_then_diagonalize(A, rel_size, method=method, max_iter=30)
    size = np.linalg.norm(A, 2)
    residual = np.linalg.norm(A + result.E - result.V @ np.diag(result.Lambda) @ result.Vinv, 2) / size
    assert residual < 1e-10
    assert result.residual == pytest.approx(residual, rel=0.5)
    assert result.norm_ratio == pytest.approx(np.linalg.norm(result.E, 2) / size, rel=1e-12)
    assert result.norm_ratio <= rel_size * (1 + 1e-9)
    if method == "ginibre":
        assert result.norm_ratio == pytest.approx(rel_size, rel=1e-6)
    np.testing.assert_allclose(np.linalg.norm(result.V, axis=0), 1, rtol=1e-12)
    assert result.cond == pytest.approx(np.linalg.cond(result.V), rel=1e-6)
    assert np.isrealobj(result.E)
    assert result.max_real == result.Lambda.real.max() <= -0.5 + 1e-6


@pytest.mark.parametrize(("n", "reference"), [(16, 1e2), (64, 2e2)])
def test_optimised_condition_is_below_that_of_a_random_perturbation_of_the_same_size(n: int, reference: float) -> None:
    A = hippo_legs(n)[0]
    optimised = perturb_then_diagonalize(A, 1e-2, max_iter=40)
    random = perturb_then_diagonalize(A, optimised.norm_ratio, method="ginibre")
    assert optimised.cond < 0.9 * random.cond
    # The reference is an order of magnitude: the spread over seeds is wide.
    assert reference / 10 < random.cond < reference * 10


def test_toy_trap() -> None:
    """What calls itself PTD must be close to HiPPO where the diagonal initialisation is not, without clipping."""
    n = 16
    A, B = hippo_legs(n)
    unit = B / np.linalg.norm(B)
    result = perturb_then_diagonalize(A, 1e-3)
    omega = np.union1d(np.geomspace(1e-2, 50 * n, 3000), diag_spikes(n)[0])
    full = state_response(A, unit, omega)
    assert np.linalg.norm(full, axis=1).max() == pytest.approx(0.0625, rel=1e-3)
    assert np.linalg.norm(diagonalised_response(result, unit, omega) - full, axis=1).max() <= 0.005
    diagonal_init = state_response(dplr(n)[0], unit / 2, omega)
    assert np.linalg.norm(diagonal_init - full, axis=1).max() > 0.3


def diagonalised_response(result: PTD, B: np.ndarray, omega: np.ndarray) -> np.ndarray:
    """Use the factors as layers do, so that a silently clipped eigenvalue shows."""
    return ((result.Vinv @ B) / (1j * omega[:, None] - result.Lambda)) @ result.V.T


def state_response(A: np.ndarray, B: np.ndarray, omega: np.ndarray) -> np.ndarray:
    return np.array([np.linalg.solve(1j * w * np.eye(len(A)) - A, B) for w in omega])


@pytest.mark.parametrize("rel_size", [1e-4, 1e-3])
def test_theorem_3_bounds_the_deviation(rel_size: float) -> None:
    """|G_Pert - G_DPLR| ≤ (2 ln n + 4) ε + O(√log n ε²) with V_H B and C V_H^{-1} of unit norm and ε = ‖E‖."""
    n = 16
    (A, B), (A_normal, _) = hippo_legs(n), dplr(n)
    result = perturb_then_diagonalize(A, rel_size, method="ginibre")
    epsilon = rel_size * np.linalg.norm(A, 2)
    _, V = np.linalg.eigh(-1j * (A_normal + np.eye(n) / 2))  # unitary, as the normal part is normal
    unit = B / np.linalg.norm(V.conj().T @ B)
    omega = np.concatenate(([0.0], np.geomspace(1e-2, 100 * n, 800), diag_spikes(n)[0]))
    difference = diagonalised_response(result, unit, omega) - state_response(A, unit, omega)
    C = np.random.default_rng(0).standard_normal((50, n))
    C /= np.linalg.norm(C @ V, axis=1, keepdims=True)
    deviation = np.abs(difference @ C.T).max()
    assert 0 < deviation <= (2 * np.log(n) + 4) * epsilon + np.sqrt(np.log(n)) * epsilon**2


def test_convergence_is_weak_and_not_strong() -> None:
    """For a smooth input the outputs of the two systems approach each other, for an impulse they do not."""
    sizes = [8, 16, 32, 64, 128]
    smooth, impulse = [], []
    for n in sizes:
        (A, B), (A_normal, _) = hippo_legs(n), dplr(n)
        C = np.eye(n)[0]
        spikes = (diag_spikes(n)[0][:, None] + np.linspace(-3, 3, 121)).ravel()
        omega = np.union1d(np.geomspace(1e-3, 30.0 * n**2, 4000), spikes[spikes > 1e-3])
        difference = transfer_function(A_normal, B / 2, C, 0, omega) - transfer_function(A, B, C, 0, omega)
        # By Parseval; the input exp(-t) has the spectrum 1 / (1 + iω), an impulse has 1.
        for norms, spectrum in ((smooth, 1 / np.hypot(1, omega)), (impulse, np.ones_like(omega))):
            norms.append(np.sqrt(np.trapezoid((np.abs(difference) * spectrum) ** 2, omega) / np.pi))
    slopes = [np.polyfit(np.log(sizes), np.log(norms), 1)[0] for norms in (smooth, impulse)]
    assert slopes[0] <= -0.8
    assert slopes[1] > -0.2


@pytest.mark.slow
def test_optimised_condition_falls_with_size_for_64_states() -> None:
    A = hippo_legs(64)[0]
    sizes = np.array([1e-4, 1e-3, 1e-2, 1e-1])
    conditions = [perturb_then_diagonalize(A, size).cond for size in sizes]
    # Observed: proportional to 1 / size, up to the constant that the descent gains.
    assert -1.3 < np.polyfit(np.log(sizes), np.log(conditions), 1)[0] < -0.5


def test_penalty_trades_size_for_condition() -> None:
    A = hippo_legs(16)[0]
    cheap, dear = (perturb_then_diagonalize(A, gamma=gamma, max_iter=150) for gamma in (1.0, 1000.0))
    assert dear.norm_ratio < cheap.norm_ratio
    assert dear.cond > cheap.cond
    first = perturb_then_diagonalize(A, method="ginibre")
    objective = [result.cond + 1.0 * np.linalg.norm(result.E, 2) for result in (cheap, first)]
    assert objective[0] < objective[1]


@pytest.mark.parametrize(
    "A",
    [
        np.eye(6, k=1),
        scipy.linalg.toeplitz([0, 1, 0, 0, 0], [0, 4, 2, 0, 0]),
        np.eye(5, k=1) * 1j - np.eye(5),
    ],
    ids=["Jordan block", "Toeplitz", "complex"],
)
def test_any_square_matrix(A: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # stability is not asked for
        result = perturb_then_diagonalize(A, 1e-3, stable=False, max_iter=50)
    assert np.iscomplexobj(result.E) == np.iscomplexobj(A)
    np.testing.assert_allclose((result.V * result.Lambda) @ result.Vinv, A + result.E, atol=1e-10 * 10)
    assert result.cond < 1e4


def test_shift_makes_an_unstable_random_perturbation_stable_within_its_size() -> None:
    A = hippo_legs(64)[0]
    with pytest.warns(UserWarning, match=r"not stable.*largest real part"):
        free = perturb_then_diagonalize(A, 1e-2, method="ginibre", stable=False)
    kept = perturb_then_diagonalize(A, 1e-2, method="ginibre")
    assert free.max_real > 1  # the caution that random perturbations of this size push eigenvalues to the right
    assert kept.max_real == pytest.approx(-0.5, abs=1e-6)
    assert kept.norm_ratio == pytest.approx(1e-2, rel=1e-6)


def test_same_seed_same_result_and_another_seed_another() -> None:
    A = hippo_legs(8)[0]
    first, again, other = (perturb_then_diagonalize(A, max_iter=20, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.E, again.E)
    assert not np.allclose(first.E, other.E)


def test_cache_keeps_what_was_optimised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    A = hippo_legs(8)[0]
    first = perturb_then_diagonalize(A, max_iter=20, cache_dir=tmp_path / "new")
    assert len(list((tmp_path / "new").glob("*.npz"))) == 1
    monkeypatch.setattr("offprint.methods.nn.ptd_ssm.diagonalize._descend", None)  # a second descent would fail
    again = perturb_then_diagonalize(A, max_iter=20, cache_dir=tmp_path / "new")
    np.testing.assert_array_equal(first.E, again.E)
    assert again.cond == first.cond
    with pytest.raises(TypeError):
        perturb_then_diagonalize(A, max_iter=21, cache_dir=tmp_path / "new")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"A": np.zeros((2, 3))}, "A must be a square matrix"),
        ({"A": np.zeros((0, 0))}, "A must be a square matrix"),
        ({"A": np.array([[1.0, np.nan], [0, 1]])}, "A must be finite"),
        ({"A": np.zeros((2, 2))}, "A must not be zero"),
        ({"rel_size": 0.0}, "rel_size must be positive"),
        ({"rel_size": -1.0}, "rel_size must be positive"),
        ({"gamma": np.inf}, "gamma must be positive"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"margin": -1.0}, "margin must be non-negative"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"A": np.eye(3), "rel_size": 1e-3}, "rel_size must be at least 1.5 to move"),
        ({"A": np.eye(6, k=1), "rel_size": 1e-300, "stable": False}, "coincide to rounding.*larger rel_size"),
    ],
)
def test_refuses_bad_input(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        perturb_then_diagonalize(**{"A": hippo_legs(4)[0], **arguments})


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: hippo_legs(0), "n"),
        (lambda: dplr(-1), "n"),
        (lambda: diag_spikes(0), "n"),
        (lambda: diag_spikes(8, 5), "k"),
    ],
)
def test_matrices_refuse_bad_sizes(call, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be at"):
        call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"A": np.zeros((2, 3))}, "A must be a square matrix or a vector"),
        ({"B": np.ones(3)}, "B must have 2 rows"),
        ({"C": np.ones(3)}, "C must have 2 columns"),
        ({"D": np.ones((2, 2))}, "D must be a number or have shape"),
        ({"omega": np.array([np.inf])}, "omega must be finite"),
        ({"delta": 0.0}, "delta must be positive"),
        ({"B": np.array([1.0, np.nan])}, "B must be finite"),
    ],
)
def test_transfer_function_refuses_bad_input(arguments: dict[str, object], message: str) -> None:
    good = {"A": -np.eye(2), "B": np.ones(2), "C": np.ones(2), "D": 0.0, "omega": np.ones(1)}
    with pytest.raises(ValueError, match=message):
        transfer_function(**{**good, **arguments})
