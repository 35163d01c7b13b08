"""The smoothing certificate, against closed forms, SciPy, and how often it errs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from torch import Tensor, nn

from offprint.methods.certify.smoothing import (
    Certificate,
    SmoothedClassifier,
    SmoothedRegressor,
    certified_accuracy,
    certified_together,
    clopper_pearson_lower,
)

Base = Callable[[Tensor], Tensor]


@pytest.fixture
def as_users_call_it() -> Iterator[None]:
    """Without the shape checks of the test run, so that what refuses bad input is the code itself."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", before)


def half_space(w: Tensor, b: float) -> Base:
    """Class 0 where w·x + b > 0, else class 1."""
    return lambda x: torch.stack([x @ w + b, -(x @ w + b)], dim=1)


def coin(p: float, seed: int) -> Base:
    """Class 0 with probability p, whatever the input."""
    draws = torch.Generator().manual_seed(seed)

    def base(x: Tensor) -> Tensor:
        first = torch.rand(len(x), generator=draws) < p
        return torch.stack([first, ~first], dim=1).float()

    return base


# --- the bound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "alpha", "bound", "radius"),
    [
        (100_000, 100_000, 0.001, 0.999930925, 3.811457),
        (99_000, 100_000, 0.001, 0.988989340, 2.290000),
        (990, 1000, 0.001, 0.976036187, 1.978010),
        (60, 100, 0.05, 0.512975820, 0.032531),
    ],
)
def test_bound_and_radius_have_the_known_values(k: int, n: int, alpha: float, bound: float, radius: float) -> None:
    # 1e-6, the digits of the reference values.
    found = clopper_pearson_lower(k, n, alpha)
    assert found == pytest.approx(bound, abs=1e-6)
    assert scipy.stats.norm.ppf(found) == pytest.approx(radius, abs=1e-6)


def test_a_share_near_one_half_is_not_enough() -> None:
    assert clopper_pearson_lower(50_200, 100_000, 0.001) < 0.5


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(1e-6, 0.49))
@settings(max_examples=60, deadline=None)
def test_bound_is_that_of_an_independent_implementation(n: int, share: float, alpha: float) -> None:
    k = round(share * n)
    interval = scipy.stats.binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact")
    assert clopper_pearson_lower(k, n, alpha) == pytest.approx(interval.low, abs=1e-9)


def test_bound_takes_arrays() -> None:
    bounds = clopper_pearson_lower(np.array([0, 50, 100]), 100, 0.01)
    single = [clopper_pearson_lower(k, 100, 0.01) for k in (0, 50, 100)]
    assert bounds.tolist() == single
    assert single[0] == 0.0


# --- exact radii -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["gaussian", "laplace", "uniform"])
@pytest.mark.parametrize("margin", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_radius_of_a_half_space_is_its_distance(noise: str, margin: float, sigma: float) -> None:
    """Along one coordinate the distance is the same in l1 and l2, and a half space is the worst classifier there is."""
    distance = margin * sigma
    if noise == "uniform" and margin == 2.0:
        distance = 1.7 * sigma  # the noise reaches no further than √3 sigma
    base = half_space(torch.tensor([-2.0, 0.0]), 2.0 * distance)
    smoothed = SmoothedClassifier(base, sigma, 2, noise=noise)
    found = smoothed.certify(torch.zeros(2), n=100_000, batch=50_000, generator=1)
    assert found.norm == ("l2" if noise == "gaussian" else "l1")
    assert found.label == 0
    assert 0.9 * distance <= found.radius <= distance


def test_radius_of_a_half_space_in_any_direction() -> None:
    w = torch.tensor([3.0, -4.0, 12.0], dtype=torch.float64)
    x = torch.tensor([0.2, 0.1, 0.05], dtype=torch.float64)
    distance = float(w @ x + 6.5) / 13
    found = SmoothedClassifier(half_space(w, 6.5), 0.5, 2).certify(x, batch=50_000, generator=0)
    assert 0.9 * distance <= found.radius <= distance


def test_little_noise_leaves_the_classifier_as_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 4, generator=generator)
    X = torch.randn(30, 5, generator=generator)
    smoothed = SmoothedClassifier(lambda x: x @ weights, 1e-6, 4)
    labels = [certificate.label for certificate in smoothed.certify_many(X, n0=10, n=50)]
    assert labels == (X @ weights).argmax(1).tolist()
    assert [smoothed.predict(x, n=50).label for x in X] == labels


def test_radius_grows_with_the_share() -> None:
    smoothed = [SmoothedClassifier(coin(p, 0), 1.0, 2) for p in (0.6, 0.8, 0.95, 1.0)]
    radii = [classifier.certify(torch.zeros(1), n=2000).radius for classifier in smoothed]
    assert radii == sorted(radii)
    assert radii[0] > 0


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_ties_and_too_few_copies_abstain(n: int) -> None:
    turn = iter(range(10**6))

    def alternating(x: Tensor) -> Tensor:
        place = torch.tensor([next(turn) % 2 for _ in range(len(x))])
        return nn.functional.one_hot(place, 2).float()

    smoothed = SmoothedClassifier(alternating, 1.0, 2, abstain=-7)
    found = smoothed.certify(torch.zeros(1), n0=100, n=n)
    assert (found.label, found.radius, found.abstained) == (-7, 0.0, True)
    assert smoothed.predict(torch.zeros(1), n=n).label == -7


# --- how often it errs -----------------------------------------------------------------------------------------------

N_REPEATS = 3000


def share_of_false_certificates(alpha: float, n: int, reuse: bool) -> float:
    """How often a fair coin is said to prefer a side."""
    draws = np.random.default_rng(0).integers(0, 2, (N_REPEATS, 2, n))
    false = 0
    for selection, estimation in draws:
        candidate = int(selection.mean() > 0.5)
        counted = selection if reuse else estimation
        false += clopper_pearson_lower(int((counted == candidate).sum()), n, alpha) > 0.5
    return false / N_REPEATS


@pytest.mark.usefixtures("as_users_call_it")
def test_a_fair_coin_is_certified_no_more_often_than_alpha() -> None:
    """Through the classifier itself; three standard errors, so a false alarm in a thousand."""
    alpha, source = 0.05, torch.Generator().manual_seed(0)
    smoothed = SmoothedClassifier(coin(0.5, 1), 1.0, 2)
    certified = sum(
        not smoothed.certify(torch.zeros(1), n0=200, n=200, alpha=alpha, generator=source).abstained
        for _ in range(N_REPEATS)
    )
    limit = alpha + 3 * math.sqrt(alpha * (1 - alpha) / N_REPEATS)
    assert certified / N_REPEATS <= limit
    assert share_of_false_certificates(alpha, 200, reuse=False) <= limit


@pytest.mark.usefixtures("as_users_call_it")
def test_selecting_on_the_same_copies_would_err_twice_as_often() -> None:
    """Why the copies must be separate: this is what the classifier must not do."""
    honest, reused = (share_of_false_certificates(0.05, 200, reuse) for reuse in (False, True))
    assert 1.6 < reused / honest < 2.4  # three standard errors of the ratio


def test_copies_for_selection_are_not_those_for_estimation() -> None:
    seen: list[Tensor] = []

    def base(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return torch.stack([x[:, 0], -x[:, 0]], 1)

    SmoothedClassifier(base, 1.0, 2).certify(torch.zeros(1), n0=64, n=64)
    values = torch.cat(seen).flatten().tolist()
    assert len(set(values)) == 128


def test_bound_is_above_the_truth_no_more_often_than_alpha() -> None:
    alpha, n, p = 0.05, 200, 0.9
    counts = np.random.default_rng(0).binomial(n, p, N_REPEATS)
    above = np.mean(clopper_pearson_lower(counts, n, alpha) > p)
    assert above <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / N_REPEATS)
    assert above > 0.01  # and not by being loose


@pytest.mark.usefixtures("as_users_call_it")
def test_prediction_errs_no_more_often_than_alpha() -> None:
    alpha, source = 0.05, torch.Generator().manual_seed(0)
    smoothed = SmoothedClassifier(coin(0.5, 2), 1.0, 2)
    said = [smoothed.predict(torch.zeros(1), 100, alpha, generator=source).label != -1 for _ in range(1000)]
    assert np.mean(said) <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / 1000)


def test_prediction_takes_the_two_sided_test_of_the_top_two() -> None:
    base, unseen = coin(0.6, 0), torch.zeros(200, 1)
    smoothed = SmoothedClassifier(lambda x: torch.cat([base(x), unseen[: len(x)]], dim=1), 1.0, 3)
    found = smoothed.predict(torch.zeros(1), 200, 0.05)
    first, second = sorted(found.counts)[:0:-1]
    tail = scipy.stats.binom.sf(first - 1, first + second, 0.5)
    assert found.p_value == pytest.approx(2 * tail)
    assert (found.label == 0) == (found.p_value <= 0.05)


@pytest.mark.slow
def test_adaptive_looks_together_err_no_more_often_than_alpha() -> None:
    alpha, source = 0.05, torch.Generator().manual_seed(0)
    smoothed = SmoothedClassifier(coin(0.5, 3), 1.0, 2)
    wrong = 0
    for _ in range(N_REPEATS):
        found = smoothed.certify_adaptive(torch.zeros(1), 0.0, 10, 50, 800, alpha, generator=source)
        wrong += found.radius > 0
    assert wrong / N_REPEATS <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / N_REPEATS)


def test_adaptive_stops_where_it_is_clear() -> None:
    base = half_space(torch.tensor([1.0]), 1.0)
    smoothed = SmoothedClassifier(base, 1.0, 2)
    runs = [smoothed.certify_adaptive(torch.zeros(1), r, n_first=1000, n_max=64_000) for r in (0.5, 0.95, 1.5)]
    assert runs[0].radius > 0.5
    assert runs[0].n == 1000
    assert runs[1].n > 4000  # close to the true radius of 1
    assert runs[2].n < 64_000  # out of reach, and that shows early
    assert all(run.radius <= 1.0 and run.n_stages == 7 for run in runs)
    # The first look spends a seventh of alpha.
    met = runs[0].counts[runs[0].candidate]
    assert runs[0].p_lower == clopper_pearson_lower(met, 1000, 0.001 / 7)


# --- a test set ------------------------------------------------------------------------------------------------------


def certificate(k: int, n: int = 1000, candidate: int = 0, sigma: float = 0.5, alpha: float = 0.001) -> Certificate:
    p_lower = float(clopper_pearson_lower(k, n, alpha))
    sure = p_lower >= 0.5
    radius = sigma * float(scipy.stats.norm.ppf(p_lower)) if sure else 0.0
    counts = [n - k, n - k]
    counts[candidate] = k
    return Certificate(candidate if sure else -1, radius, p_lower, tuple(counts), candidate, sigma, alpha)


def test_certified_accuracy_counts_correct_and_far_enough() -> None:
    certificates = [certificate(990), certificate(700), certificate(990, candidate=1), certificate(505)]
    reach = certificates[1].radius
    # Both right; the third says the wrong class; the fourth abstains.
    accuracy = certified_accuracy(certificates, [0, 0, 0, 0], [0.0, reach, 0.9, 1.2])
    assert accuracy.tolist() == [0.5, 0.25, 0.25, 0.0]


@given(st.lists(st.integers(15, 65), min_size=2, max_size=12), st.floats(0, 0.4))
@settings(max_examples=60, deadline=None)
def test_certified_together_is_holms_procedure(above: list[int], radius: float) -> None:
    """With counts a little above what the radius needs, where it matters how many others there are."""
    successes = [round(1000 * scipy.stats.norm.cdf(radius / 0.5)) + more for more in above]
    certificates, alpha = [certificate(k) for k in successes], 0.01
    p = [
        scipy.stats.binomtest(k, 1000, scipy.stats.norm.cdf(radius / 0.5), alternative="greater").pvalue
        for k in successes
    ]
    adjusted, running = np.empty(len(p)), 0.0
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        running = max(running, (len(p) - rank) * p[i])
        adjusted[i] = running
    assert certified_together(certificates, radius, alpha).tolist() == (adjusted <= alpha).tolist()


def test_p_value_is_that_of_the_exact_test() -> None:
    for k, radius in ((520, 0.0), (700, 0.2), (990, 1.0)):
        needed = scipy.stats.norm.cdf(radius / 0.5)
        expected = scipy.stats.binomtest(k, 1000, needed, alternative="greater").pvalue
        assert certificate(k).p_value(radius) == pytest.approx(expected, rel=1e-9)
        assert replace(certificate(k), n_stages=3).p_value(radius) == pytest.approx(min(1.0, 3 * expected), rel=1e-9)


def test_one_certificate_together_with_none_is_the_certificate() -> None:
    for k in range(400, 1000, 7):
        one = certificate(k, alpha=0.01)
        for radius in (0.0, 0.3, 0.6):
            assert certified_together([one], radius, 0.01)[0] == (one.radius > radius)


def test_familywise_accuracy_is_lower() -> None:
    certificates = [certificate(k) for k in (551, 552, 700, 900, 990)]
    alone = certified_accuracy(certificates, [0] * 5, [0.0, 0.2])
    together = certified_accuracy(certificates, [0] * 5, [0.0, 0.2], familywise=0.001)
    assert (together <= alone).all()
    assert together[0] < alone[0]


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    X, path = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), tmp_path / "certificates.jsonl"
    smoothed = SmoothedClassifier(half_space(torch.ones(2), 0.1), 0.5, 2)
    whole = smoothed.certify_many(X, 10, 200, generator=3)

    class Stop(Exception):
        pass

    def stop(done: float, total: float, label: str) -> None:
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        smoothed.certify_many(X, 10, 200, generator=3, save_to=path, progress=stop)
    with path.open("a") as file:
        file.write('{"label": 1, "rad')  # killed while writing
    reports: list[float] = []
    resumed = smoothed.certify_many(
        X, 10, 200, generator=3, save_to=path, progress=lambda done, *_: reports.append(done)
    )
    assert resumed == whole
    assert reports == [4, 5, 6]
    assert smoothed.certify_many(X, 10, 200, generator=3, save_to=path) == whole
    assert len(path.read_text().splitlines()) == 7
    assert [json.loads(line)["label"] for line in path.read_text().splitlines()[1:]] == [c.label for c in whole]


def test_certificates_of_another_run_are_not_taken_over(tmp_path: Path) -> None:
    X, path, model = torch.randn(3, 2), tmp_path / "certificates.jsonl", nn.Linear(2, 2).eval()
    SmoothedClassifier(model, 0.5, 2).certify_many(X, 10, 20, save_to=path)
    with pytest.raises(ValueError, match="different sigma"):
        SmoothedClassifier(model, 0.25, 2).certify_many(X, 10, 20, save_to=path)
    with pytest.raises(ValueError, match="different n"):
        SmoothedClassifier(model, 0.5, 2).certify_many(X, 10, 30, save_to=path)
    with pytest.raises(ValueError, match="different inputs"):
        SmoothedClassifier(model, 0.5, 2).certify_many(X + 1, 10, 20, save_to=path)
    with pytest.raises(ValueError, match="different inputs"):
        SmoothedClassifier(model, 0.5, 2).certify_many(X, 10, 20, generator=1, save_to=path)
    with pytest.raises(ValueError, match="different model"):
        SmoothedClassifier(nn.Linear(2, 2).eval(), 0.5, 2).certify_many(X, 10, 20, save_to=path)


def test_each_row_has_noise_of_its_own() -> None:
    smoothed = SmoothedClassifier(half_space(torch.ones(2), 0.1), 0.5, 2)
    found = smoothed.certify_many(torch.zeros(4, 2), 10, 500)
    assert len({certificate.counts for certificate in found}) > 1
    assert smoothed.certify_many(torch.zeros(4, 2), 10, 500) == found


def test_batches_do_not_change_the_counts() -> None:
    smoothed = SmoothedClassifier(half_space(torch.ones(2), 0.1), 0.5, 2)
    found = [smoothed.certify(torch.zeros(2), 64, 640, batch=batch) for batch in (640, 64)]
    assert found[0].n == found[1].n == 640
    assert abs(found[0].counts[0] - found[1].counts[0]) < 100


@pytest.mark.parametrize("noise", ["gaussian", "laplace", "uniform"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sigma_is_the_standard_deviation_of_any_noise(noise: str, dtype: torch.dtype) -> None:
    seen: list[Tensor] = []

    def base(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros(len(x), 2)

    SmoothedClassifier(base, 0.3, 2, noise=noise).predict(torch.full((4,), 2.0, dtype=dtype), 20_000, batch=20_000)
    assert seen[0].dtype == dtype
    # Five standard errors of mean and deviation over 80,000 draws.
    assert seen[0].mean().item() == pytest.approx(2.0, abs=5 * 0.3 / math.sqrt(80_000))
    assert seen[0].std().item() == pytest.approx(0.3, rel=0.03)


# --- median smoothing ------------------------------------------------------------------------------------------------


def test_bounds_of_a_linear_regression_are_its_range() -> None:
    """The median of w·(x + noise) is w·x, and moves by radius·‖w‖ at most; the bounds come close from outside."""
    w, x = torch.tensor([[3.0, -4.0], [1.0, 0.0]]), torch.tensor([0.5, 1.0])
    found = SmoothedRegressor(lambda inputs: inputs @ w.T, 0.5).certify(x, 0.25, n=50_000, batch=50_000)
    truth, reach = w @ x, 0.25 * w.norm(dim=1)
    noise = 0.5 * w.norm(dim=1)
    for bound, sign in ((found.lower, -1), (found.upper, 1)):
        beyond = sign * (bound - (truth + sign * reach))
        assert (beyond >= 0).all()
        assert (beyond < 0.04 * noise).all()  # a quantile near 1/3 of 50,000 draws has a standard error of 0.006 noise
    assert ((found.median - truth).abs() < 0.03 * noise).all()


@pytest.mark.usefixtures("as_users_call_it")
def test_bounds_of_a_median_hold_as_often_as_promised() -> None:
    """One output, radius 0: the interval for the median misses with a chance of at most alpha."""
    alpha, source = 0.1, torch.Generator().manual_seed(0)
    smoothed = SmoothedRegressor(lambda x: x[:, 0], 1.0)
    missed = 0
    for _ in range(1000):
        found = smoothed.certify(torch.zeros(1), 0.0, n=99, alpha=alpha, generator=source)
        missed += not (found.lower.item() <= 0 <= found.upper.item())
    assert 0.03 < missed / 1000 <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / 1000)


def test_too_few_copies_bound_nothing() -> None:
    found = SmoothedRegressor(lambda x: x[:, 0], 1.0).certify(torch.zeros(1), 3.0, n=50)
    assert found.lower.item() == -math.inf
    assert found.upper.item() == math.inf


# --- refusals --------------------------------------------------------------------------------------------------------


def two(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0], -x[:, 0]], 1)


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": math.inf}, "sigma"),
        ({"num_classes": 1}, "num_classes"),
        ({"abstain": 1}, "abstain"),
        ({"noise": "cauchy"}, "noise"),
        ({"norm": "linf"}, "√d"),
        ({"norm": "l1"}, "laplace or uniform"),
        ({"norm": "l2", "noise": "laplace"}, "gaussian"),
        ({"norm": "l3"}, "norm"),
        ({"input_range": (1.0, 0.0)}, "input_range"),
        ({"base": nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))}, "evaluation mode"),
    ],
)
def test_refuses_what_it_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmoothedClassifier(**{"base": two, "sigma": 0.5, "num_classes": 2, **options})  # type: ignore[arg-type]


def test_one_layer_in_training_mode_is_enough_to_refuse() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2)).eval()
    smoothed = SmoothedClassifier(model, 0.5, 2)
    model[1].train()
    with pytest.raises(ValueError, match=r"in training mode: 1\b"):
        smoothed.certify(torch.zeros(1), n=10)
    with pytest.raises(ValueError, match="evaluation mode"):
        SmoothedRegressor(model, 0.5)


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.5}, "alpha"),
        ({"alpha": 0.0}, "alpha"),
        ({"n": 0}, "n must"),
        ({"n0": 0}, "n0 must"),
        ({"batch": 0}, "batch"),
        ({"x": torch.tensor([math.nan])}, "x must be finite"),
        ({"x": torch.tensor([1.5])}, "input_range"),
    ],
)
def test_refuses_to_certify_that(arguments: dict[str, object], message: str) -> None:
    smoothed = SmoothedClassifier(two, 0.5, 2, input_range=(0.0, 1.0))
    with pytest.raises(ValueError, match=message):
        smoothed.certify(**{"x": torch.zeros(1), "n": 10, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (lambda x: x[:, 0], r"shape \(10, 2\)"),
        (lambda x: torch.zeros(len(x), 3), "num_classes"),
        (lambda x: torch.zeros(1, 2), "one row per input"),
        (lambda x: torch.full((len(x), 2), math.nan), "NaN"),
    ],
)
def test_refuses_what_a_base_must_not_return(base: Base, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SmoothedClassifier(base, 0.5, 2).certify(torch.zeros(1), 10, 10)
    with pytest.raises(TypeError, match="tensor"):
        SmoothedClassifier(lambda x: [0] * len(x), 0.5, 2).certify(torch.zeros(1), 10, 10)  # type: ignore[arg-type, return-value]


@pytest.mark.usefixtures("as_users_call_it")
def test_refuses_counts_that_are_none() -> None:
    for k, n in ((-1, 10), (11, 10), (0, 0), (1.5, 10), (math.nan, 10)):
        with pytest.raises(ValueError, match=r"\b[kn] must"):
            clopper_pearson_lower(k, n, 0.05)
    with pytest.raises(ValueError, match="radii"):
        certified_accuracy([certificate(990)], [0], [-0.1])
    with pytest.raises(ValueError, match="y must"):
        certified_accuracy([certificate(990)], [0, 1], [0.1])
    other = Certificate(0, 0.1, 0.9, (9, 1), 0, 0.5, 0.001, noise="laplace")
    with pytest.raises(ValueError, match="norm"):
        certified_accuracy([certificate(990), other], [0, 1], [0.1])
