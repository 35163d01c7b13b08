"""Distances against the closed form by hand, axioms, brute force, POT, and what they become in known limits."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from jaxtyping import config

from offprint.methods.bags.gde_distances import energy_distance, mmd_squared, sinkhorn_divergence, sliced_w2
from offprint.methods.bags.gde_gaussian import gaussian_geodesic, gaussian_w2, gmm_w2, w2_1d

A = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
B = torch.tensor([[1.0, -0.3], [-0.3, 1.5]], dtype=torch.float64)
ZERO = torch.zeros(2, dtype=torch.float64)
SHIFT = torch.tensor([1.0, -2.0], dtype=torch.float64)
INDEFINITE = torch.diag(torch.tensor([3.0, 1.0, -1.0], dtype=torch.float64))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariances(n: int, d: int, seed: int = 0) -> torch.Tensor:
    factors = normal(n, d, d + 1, seed=seed)
    return factors @ factors.mT


def test_two_gaussians_by_hand():
    """Computed with scipy's matrix root to ten digits; the squares of means and covariances add, not the means."""
    assert gaussian_w2(ZERO, A, ZERO, B).item() ** 2 == pytest.approx(0.4634712, abs=1e-6)
    assert gaussian_w2(ZERO, A, SHIFT, B).item() == pytest.approx(2.3374069, abs=1e-6)
    means, found = gaussian_geodesic(ZERO, A, SHIFT, B, torch.tensor([0.5], dtype=torch.float64))
    wanted = torch.tensor([[1.4292035, 0.0847462], [0.0847462, 1.2049287]], dtype=torch.float64)
    torch.testing.assert_close(found[0], wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(means[0], SHIFT / 2)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_the_closed_form_is_that_of_scipys_matrix_roots(d):
    first, second = covariances(20, d), covariances(20, d, seed=1)
    means = normal(20, d, seed=2)
    found = gaussian_w2(torch.zeros(d, dtype=torch.float64), first, means, second)
    for a, b, mean, distance in zip(first.numpy(), second.numpy(), means.numpy(), found, strict=True):
        root = scipy.linalg.sqrtm(a)
        bures = np.trace(a + b - 2 * np.real(scipy.linalg.sqrtm(root @ b @ root)))
        assert distance.item() == pytest.approx(math.sqrt(mean @ mean + bures), abs=1e-6)


def exact_w2(a: torch.Tensor, b: torch.Tensor) -> float:
    """W₂ between centred Gaussians in sixty digits: the trace of (AB)^½ from the eigenvalues of LᵀBL."""
    with mpmath.workdps(60):
        first, second = mpmath.matrix(a.tolist()), mpmath.matrix(b.tolist())
        values, vectors = mpmath.eigsy(first)
        root = vectors * mpmath.diag([mpmath.sqrt(max(value, 0)) for value in values])
        inner = mpmath.eigsy(root.T * second * root, eigvals_only=True)
        traces = sum(first[i, i] + second[i, i] for i in range(len(a)))
        return float(mpmath.sqrt(traces - 2 * sum(mpmath.sqrt(max(value, 0)) for value in inner)))


@pytest.mark.parametrize("d", [2, 3, 5])
def test_all_digits_are_kept_whatever_the_covariances(d):
    """One batch of plain, near equal, nearly singular and tiny pairs, where a difference of traces has no digits.

    Nearly singular ones have a least eigenvalue of 1e-9 of the largest, of which rounding leaves half the digits; but
    it adds a share of 1e-5 at most to the distance.
    """
    a, b = covariances(6, d), covariances(6, d, seed=1)
    basis = torch.linalg.qr(normal(2, d, d, seed=2)).Q
    thin = basis @ torch.diag(torch.logspace(-9, 0, d, dtype=torch.float64)) @ basis.mT
    thin = (thin + thin.mT) / 2
    a = torch.stack([a[0], a[1], a[2], thin[0], thin[0], 1e-12 * a[5]])
    b = torch.stack([b[0], b[1], (1 + 1e-7) * a[2], b[3], thin[1], 1e-12 * b[5]])
    zero = torch.zeros(d, dtype=torch.float64)
    wanted = [exact_w2(*pair) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(gaussian_w2(zero, a, zero, b), wanted, rtol=1e-8, atol=1e-13)
    assert gaussian_w2(zero, a[0], zero, b[0]).item() == pytest.approx(wanted[0], rel=1e-12)
    low = gaussian_w2(zero.float(), a[:2].float(), zero.float(), b[:2].float())
    np.testing.assert_allclose(low, wanted[:2], rtol=1e-5)


@pytest.mark.parametrize("d", [2, 3, 4])
def test_gaussians_on_a_line_or_a_point_have_a_distance(d):
    """By hand: W₂² is |v|² + tr B − 2 (vᵀBv)^½ from vvᵀ, tr B from a point, and (|v| − |w|)² between like lines."""
    v, b, zero = normal(d), covariances(1, d, seed=1)[0], torch.zeros(d, dtype=torch.float64)
    line, point, other = torch.outer(v, v), torch.zeros_like(b), covariances(1, d, seed=2)[0]
    first, second = torch.stack([line, point, line, point, other]), torch.stack([b, b, 4 * line, point, b])
    plain = gaussian_w2(zero, other, zero, b).square()
    wanted = torch.stack([v @ v + b.trace() - 2 * (v @ b @ v).sqrt(), b.trace(), v @ v, zero.sum(), plain])
    for one, two in ((first, second), (second, first)):
        # Rounding of 1e-16 in an eigenvalue that is 0 is one of 1e-8 in its root.
        torch.testing.assert_close(gaussian_w2(zero, one, zero, two).square(), wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("d", [2, 3])
def test_gradients_of_the_distance_are_those_of_finite_differences(d):
    """Beside a pair that is equal, whose own gradient has no meaning."""
    factors, other = normal(d, d), covariances(2, d, seed=1)
    mean = torch.ones(d, dtype=torch.float64)

    def distance(factor, shift):
        both = torch.stack([factor @ factor.mT + torch.eye(d).to(factor), other[1]])
        return gaussian_w2(torch.stack([shift, shift + 1]), both, mean, other)[0]

    assert torch.autograd.gradcheck(distance, (factors.requires_grad_(), (2 * mean).requires_grad_()))


def test_it_is_a_metric():
    """On 1000 random triples, to 1e-6 of distances near 3."""
    points = [(normal(1000, 3, seed=k), covariances(1000, 3, seed=10 + k)) for k in range(3)]
    ab, bc, ac = (gaussian_w2(*points[i], *points[j]) for i, j in ((0, 1), (1, 2), (0, 2)))
    assert bool((ac <= ab + bc + 1e-6).all())
    torch.testing.assert_close(gaussian_w2(*points[1], *points[0]), ab, atol=1e-6, rtol=0)
    assert gaussian_w2(*points[0], *points[0]).max().item() < 1e-6


@pytest.mark.parametrize("d", [1, 2, 3])
def test_near_equal_gaussians_keep_their_digits(d):
    """Variances v and (1 + 1e-6)² v differ by 1e-6 times the root of their trace: a difference of traces loses that."""
    a, zero = covariances(5, d), torch.zeros(d, dtype=torch.float64)
    wanted = 1e-6 * a.diagonal(dim1=1, dim2=2).sum(1).sqrt()
    torch.testing.assert_close(gaussian_w2(zero, a, zero, (1 + 1e-6) ** 2 * a), wanted, atol=0, rtol=1e-4)


def test_commuting_covariances_differ_by_their_roots():
    basis = torch.linalg.qr(normal(3, 3)).Q
    x, y = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64), torch.tensor([4.0, 0.0, 1.0], dtype=torch.float64)
    zero = torch.zeros(3, dtype=torch.float64)
    found = gaussian_w2(zero, (basis * x) @ basis.mT, zero, (basis * y) @ basis.mT)
    assert found.item() == pytest.approx((x.sqrt() - y.sqrt()).norm().item(), abs=1e-6)


def test_the_geodesic_has_constant_speed():
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    means, found = gaussian_geodesic(ZERO, A, SHIFT, B, times)
    whole = gaussian_w2(ZERO, A, SHIFT, B).item()
    for i, j in itertools.combinations(range(6), 2):
        assert gaussian_w2(means[i], found[i], means[j], found[j]).item() == pytest.approx(
            (j - i) / 5 * whole, abs=1e-6
        )


def test_samples_on_the_line_are_paired_as_brute_force_pairs_them():
    x, y = normal(7), normal(7, seed=1)
    best = min((x - y[list(order)]).square().mean() for order in itertools.permutations(range(7)))
    assert w2_1d(x, y).item() == pytest.approx(best.sqrt().item(), abs=1e-12)
    assert sliced_w2(x[:, None], y[:, None], 3, generator=0).item() == pytest.approx(best.sqrt().item(), abs=1e-12)


def test_a_shift_costs_its_length_over_the_root_of_the_dimension():
    """The mean of 10,000 squared cosines: 3% is more than three of its standard errors."""
    x, shift = normal(50, 5), normal(5, seed=1)
    found = sliced_w2(x, x + shift, 10_000, generator=0).item()
    assert found == pytest.approx(shift.norm().item() / math.sqrt(5), rel=0.03)


def test_the_sinkhorn_divergence_becomes_the_squared_distance():
    """Five points against all 120 pairings, to 1%; and POT's exact solver on sets of unequal size."""
    x, y = normal(5, 2), normal(5, 2, seed=1) + 1
    best = min((x - y[list(order)]).square().sum(1).mean() for order in itertools.permutations(range(5))).item()
    assert sinkhorn_divergence(x, y, blur=0.05).value.item() == pytest.approx(best, rel=0.01)
    assert sinkhorn_divergence(x, x.clone()).value.item() == pytest.approx(0, abs=1e-6)


def test_the_gradient_of_the_sinkhorn_divergence_is_that_of_finite_differences():
    x, y = normal(3, 2).requires_grad_(), normal(4, 2, seed=1) + 1
    assert torch.autograd.gradcheck(
        lambda moved: sinkhorn_divergence(moved, y, 1.0, 5000, 1e-12).value, (x,), atol=1e-5, rtol=1e-4
    )


def test_the_sinkhorn_divergence_says_whether_it_has_converged():
    x, y = normal(3, 20, 2), normal(3, 20, 2, seed=1) + 1
    enough, few = sinkhorn_divergence(x, y, 0.5, tolerance=1e-6), sinkhorn_divergence(x, y, 0.02, 3)
    assert enough.converged
    assert enough.marginal_error.max() <= 1e-6
    assert not few.converged
    assert few.marginal_error.max() > 1e-3


def test_exact_transport_is_that_of_pot():
    ot = pytest.importorskip("ot")
    x, y = normal(6, 2), normal(9, 2, seed=1) + 1
    wanted = ot.emd2([], [], ot.dist(x.numpy(), y.numpy()))
    assert sinkhorn_divergence(x, y, blur=0.05).value.item() == pytest.approx(wanted, rel=0.01)
    means, parts = normal(2, 4, 2), covariances(8, 2, seed=3).unflatten(0, (2, 4))
    weights = torch.softmax(normal(2, 4, seed=4), 1)
    cost = gaussian_w2(means[0, :, None], parts[0, :, None], means[1], parts[1]).square()
    by_pot = ot.emd2(weights[0].numpy(), weights[1].numpy(), cost.numpy()) ** 0.5
    found = gmm_w2(weights[0], means[0], parts[0], weights[1], means[1], parts[1])
    assert found.item() == pytest.approx(by_pot, abs=1e-9)
    directions = normal(2, 40, seed=5)
    directions /= directions.norm(dim=0)
    sliced = ot.sliced_wasserstein_distance(x.numpy(), y.numpy()[:6], projections=directions.numpy())
    torch.manual_seed(0)
    many = sliced_w2(x, y[:6], 20_000, generator=0).item()
    assert many == pytest.approx(sliced, rel=0.2)  # forty directions against many: the same quantity


def test_equal_mixtures_are_at_no_distance_and_one_component_is_a_gaussian():
    weights, means, parts = torch.tensor([[0.2, 0.8]], dtype=torch.float64), normal(1, 2, 2), covariances(2, 2)[None]
    assert gmm_w2(weights, means, parts, weights, means, parts).item() == pytest.approx(0, abs=1e-6)
    one = torch.ones(1, dtype=torch.float64)
    found = gmm_w2(one, ZERO[None], A[None], one, SHIFT[None], B[None])
    assert found.item() == pytest.approx(2.3374069, abs=1e-6)


def test_kernel_and_energy_distances_are_their_double_sums():
    x, y = normal(4, 2), normal(3, 2, seed=1)

    def mean(kernel, a, b):
        return np.mean([[kernel(p, q) for q in b.numpy()] for p in a.numpy()])

    gauss = lambda p, q: math.exp(-((p - q) ** 2).sum() / (2 * 0.7**2))  # noqa: E731
    length = lambda p, q: math.sqrt(((p - q) ** 2).sum())  # noqa: E731
    wanted = mean(gauss, x, x) + mean(gauss, y, y) - 2 * mean(gauss, x, y)
    assert mmd_squared(x, y, 0.7).item() == pytest.approx(wanted, abs=1e-12)
    assert mmd_squared(x, x).item() == pytest.approx(0, abs=1e-12)
    wanted = 2 * mean(length, x, y) - mean(length, x, x) - mean(length, y, y)
    assert energy_distance(x, y).item() == pytest.approx(wanted, abs=1e-12)


def test_the_unbiased_energy_distance_vanishes_on_average():
    """20,000 pairs of samples of 3 points: within four standard errors of 0, while the plain one is far above."""
    x, y = normal(20_000, 3, 2), normal(20_000, 3, 2, seed=1)
    found = energy_distance(x, y, unbiased=True)
    error = found.std().item() / math.sqrt(20_000)
    assert abs(found.mean().item()) < 4 * error
    assert energy_distance(x, y).mean().item() > 40 * error
    with pytest.raises(ValueError, match="x and y"):
        energy_distance(x[:, :1], y, unbiased=True)


@pytest.mark.parametrize(
    "distance", [sliced_w2, lambda x, y: sinkhorn_divergence(x, y).value, mmd_squared, energy_distance]
)
def test_gradients_vanish_only_where_samples_agree(distance):
    x = normal(8, 2).requires_grad_()
    torch.manual_seed(0)
    (apart,) = torch.autograd.grad(distance(x, x.detach() + SHIFT), x)
    (same,) = torch.autograd.grad(distance(x, x.detach()), x)
    assert bool(torch.isfinite(apart).all())
    assert apart.abs().max() > 1e-3
    assert bool(torch.isfinite(same).all())


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: gaussian_w2(ZERO, A, SHIFT, -B), ValueError, "covariance2"),
        (lambda: gaussian_w2(ZERO, A, SHIFT, 2 - torch.eye(2, dtype=torch.float64)), ValueError, "covariance2"),
        (lambda: gaussian_w2(normal(3), covariances(1, 3)[0], normal(3), INDEFINITE), ValueError, "covariance2"),
        (lambda: gaussian_w2(ZERO, A, SHIFT, torch.triu(B)), ValueError, "covariance2"),
        (lambda: gaussian_w2(normal(3), torch.triu(covariances(1, 3)[0]), normal(3), INDEFINITE), ValueError, "sym"),
        (lambda: gaussian_w2(ZERO * torch.nan, A, SHIFT, B), ValueError, "mean1"),
        (lambda: gaussian_w2(ZERO[:1], A, SHIFT, B), ValueError, "mean1"),
        (lambda: gaussian_w2(ZERO.long(), A, SHIFT, B), TypeError, "mean1"),
        (lambda: gaussian_w2(ZERO[:1], A[:1, :1], SHIFT, B), ValueError, "mean1 and mean2"),
        (lambda: gaussian_w2(ZERO.repeat(3, 1), A, SHIFT.repeat(2, 1), B), ValueError, "mean2"),
        (lambda: gaussian_geodesic(ZERO, A * 0, SHIFT, B, ZERO), ValueError, "covariance1"),
        (lambda: gmm_w2(SHIFT, A, A[None], SHIFT, A, A[None]), ValueError, "weights1"),
        (lambda: gmm_w2(SHIFT, A, torch.stack([A, A]), SHIFT, A, torch.stack([A, A])), ValueError, "weights1"),
        (lambda: gaussian_geodesic(ZERO, A, SHIFT, B, torch.tensor([1.5])), ValueError, "times"),
        (lambda: w2_1d(ZERO, torch.zeros(3, dtype=torch.float64)), ValueError, "y"),
        (lambda: sliced_w2(A, A[:1]), ValueError, "y"),
        (lambda: sliced_w2(A, A, 0), ValueError, "n_directions"),
        (lambda: sinkhorn_divergence(A[:1], A), ValueError, "x"),
        (lambda: sinkhorn_divergence(A, A, 0.0), ValueError, "blur"),
        (lambda: sinkhorn_divergence(A, A, 0.1, 0), ValueError, "n_iterations"),
        (lambda: sinkhorn_divergence(A, A, 0.1, 10, math.nan), ValueError, "tolerance"),
        (lambda: mmd_squared(A, A, -1.0), ValueError, "bandwidth"),
        (lambda: energy_distance(A, A * torch.inf), ValueError, "y"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_refused(call, error, named):
    with pytest.raises(error, match=named):
        call()
