"""One class against the rest: sums over all labellings, the binary method, counts, and labels held back."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import scipy.stats
from jaxtyping import config
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from offprint.methods.bags.llp_bp import LLPBeliefPropagation
from offprint.methods.bags.llp_bp_bags import make_bags
from offprint.methods.bags.llp_bp_baselines import DLLPClassifier
from offprint.methods.bags.llp_bp_classifier import LLPBPClassifier
from offprint.methods.bags.llp_bp_multiclass import OneVsRestLLPClassifier, OneVsRestPropagation, class_counts_from


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def problem(n=66, size=6, n_classes=3, apart=2.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    X = rng.normal(size=(n, n_classes)) + apart * np.eye(n_classes)[y]
    ids = make_bags(y, size, seed)
    return X, ids, class_counts_from(y, ids), y


def test_counts_are_those_of_a_loop():
    y, ids = np.array(["b", "a", "c", "a", "b", "a"]), np.array([9, 9, 4, 4, 4, 9])
    expected = [[int(((y == label) & (ids == bag)).sum()) for label in "abc"] for bag in (4, 9)]
    assert class_counts_from(y, ids).tolist() == expected
    with pytest.raises(ValueError, match="y must hold one label per id in bag_ids, 6"):
        class_counts_from(y[:5], ids)
    with pytest.raises(ValueError, match="y must be finite"):
        class_counts_from([np.nan] * 6, ids)


@pytest.mark.parametrize("lambda_b", [0.4, np.inf])
def test_each_class_against_the_rest_is_exact_where_nothing_loops(lambda_b):
    """All labellings of two bags of five that one pair joins, with log-odds of each row and class from elsewhere."""
    rng, counts, lambda_s, weight = np.random.default_rng(0), np.array([[1, 2, 2], [3, 0, 2]]), 1.1, 0.7
    ids, side = rng.permutation(np.repeat([0, 1], 5)), rng.normal(0, 1.5, (10, 3))
    i, j = np.flatnonzero(ids == 0)[2], np.flatnonzero(ids == 1)[0]
    graph = np.zeros((10, 10))
    graph[j, i] = weight
    labels = np.array(list(itertools.product([0, 1], repeat=10)))
    propagation = LLPBeliefPropagation(lambda_s=lambda_s, lambda_b=lambda_b, tol=1e-12)
    found = OneVsRestPropagation(propagation).fit(None, ids, counts, graph, side_information=side)
    for column in range(3):
        errors = np.stack([labels[:, ids == bag].sum(1) - counts[bag, column] for bag in (0, 1)], axis=1)
        penalties = np.where(errors == 0, 0.0, lambda_b * np.maximum(errors**2, 1)).sum(1)
        odds = np.exp(labels @ side[:, column] - penalties - lambda_s * weight * (labels[:, i] != labels[:, j]))
        np.testing.assert_allclose(found.one_vs_rest_[:, column], odds @ labels / odds.sum(), atol=1e-8)
    expected = found.one_vs_rest_ / found.one_vs_rest_.sum(1, keepdims=True)
    np.testing.assert_allclose(found.marginals_, expected, atol=1e-12)
    np.testing.assert_array_equal(found.pseudo_labels_, expected.argmax(1))


def test_two_classes_are_the_binary_method():
    X, ids, counts, _ = problem(n_classes=2)
    found = OneVsRestPropagation(classes=["no", "yes"]).fit(X, ids, counts)
    binary = LLPBeliefPropagation().fit(X, ids, counts[:, 1])
    np.testing.assert_allclose(found.marginals_[:, 1], binary.marginals_, atol=1e-12)
    np.testing.assert_array_equal(found.pseudo_labels_, np.array(["no", "yes"])[binary.pseudo_labels_])
    assert (found.n_iter_, found.bag_sum_error_, found.n_bags_) == (binary.n_iter_, binary.bag_sum_error_, 11)


def test_hard_counts_are_kept_for_every_class_before_the_division():
    X, _, _, y = problem()
    ids = np.random.default_rng(1).permutation(np.repeat(["a", "b", "c"], [5, 21, 40]))
    counts = class_counts_from(y, ids)
    found = OneVsRestPropagation(LLPBeliefPropagation(lambda_b=np.inf, lambda_s=2.0, max_iter=400)).fit(X, ids, counts)
    sums = np.stack([found.one_vs_rest_[ids == name].sum(0) for name in "abc"])
    np.testing.assert_allclose(sums, counts, atol=1e-6)
    np.testing.assert_allclose(found.marginals_.sum(1), 1, atol=1e-12)
    assert found.bag_sum_error_ <= 1e-6


def test_names_and_order_of_bags_and_classes_do_not_matter():
    X, ids, counts, _ = problem()
    found = OneVsRestPropagation().fit(X, ids, counts)
    order, columns = np.random.default_rng(2).permutation(66), np.array([2, 0, 1])
    by_name = {f"bag {len(counts) - bag:02}": row for bag, row in enumerate(counts[:, columns].tolist())}
    names = np.array([f"bag {len(counts) - bag:02}" for bag in ids])
    other = OneVsRestPropagation().fit(X[order], names[order], by_name)
    np.testing.assert_allclose(other.marginals_, found.marginals_[order][:, columns], atol=1e-6)
    assert all(part.graph_ is found.graph_ for part in found.parts_)


def test_a_class_that_is_nowhere_gets_nothing_and_float32_stays():
    X, ids, counts, _ = problem()
    wider = np.insert(counts, 1, 0, axis=1)
    hard = LLPBeliefPropagation(lambda_b=np.inf)
    found = OneVsRestPropagation(hard).fit(X.astype(np.float32), ids, wider)
    assert found.marginals_.dtype == np.float32
    assert found.marginals_[:, 1].max() < 1e-6
    np.testing.assert_allclose(found.marginals_.sum(1), 1, atol=1e-5)


def test_counts_with_noise_need_not_add_up():
    X, ids, counts, _ = problem()
    noisy = counts + np.random.default_rng(0).normal(0, 0.1, counts.shape)
    settings = LLPBeliefPropagation(count_noise=scipy.stats.norm(scale=0.1).logpdf)
    exact = OneVsRestPropagation(LLPBeliefPropagation(lambda_b=np.inf)).fit(X, ids, counts)
    found = OneVsRestPropagation(settings).fit(X, ids, noisy)
    np.testing.assert_allclose(found.marginals_, exact.marginals_, atol=1e-3)  # other counts are ten deviations off


def test_what_did_not_settle_or_says_everything_is_pointed_out_once():
    X, ids, counts, y = problem()
    with pytest.warns(ConvergenceWarning, match=r"in 1 iterations for classes \['a', 'b', 'c'\]") as seen:
        found = OneVsRestPropagation(LLPBeliefPropagation(max_iter=1), classes=list("abc")).fit(X, ids, counts)
    assert len(seen) == 1
    assert not found.converged_
    with pytest.warns(UserWarning, match="every bag is pure") as seen:
        OneVsRestPropagation().fit(X, y, np.diag(np.bincount(y)))
    assert sum("pure" in str(one.message) for one in seen) == 1


def digits():
    data = load_digits()
    X, y = data.data[:600] / 16, data.target[:600]
    ids = make_bags(y, 8, 0)
    return X, ids, class_counts_from(y, ids), y


def test_digits_are_told_apart_far_better_than_by_the_shares_of_their_bags():
    """Ten digits in bags of eight. To name the commonest digit of each bag is right for 29 %."""
    X, ids, counts, y = digits()
    guessed = (counts.argmax(1)[ids] == y).mean()
    found = OneVsRestPropagation(LLPBeliefPropagation(lambda_s=2.0)).fit(X, ids, counts)
    assert guessed < 0.35
    assert (found.pseudo_labels_ == y).mean() > 0.9


def test_a_classifier_of_digits_beats_the_shares_on_rows_it_has_not_seen():
    X, ids, counts, _ = digits()
    data = load_digits()
    new, truth = data.data[600:] / 16, data.target[600:]
    each = LLPBPClassifier(LogisticRegression(), propagation=LLPBeliefPropagation(lambda_s=2.0))
    model = OneVsRestLLPClassifier(each).fit(X, ids, counts)
    assert model.predict_proba(new).shape == (len(new), 10)
    np.testing.assert_allclose(model.predict_proba(new).sum(1), 1)
    assert model.score(new, truth) > 0.8  # where supervised logistic regression has 0.9, and guessing 0.1


SMALL = {"hidden_sizes": (8, 8), "n_epochs": 3}


def test_a_classifier_of_two_classes_is_the_binary_one():
    X, ids, counts, _ = problem(n_classes=2)
    each = DLLPClassifier(**SMALL)
    model = OneVsRestLLPClassifier(each, classes=["no", "yes"]).fit(X, ids, counts)
    binary = DLLPClassifier(**SMALL).fit(X, ids, counts[:, 1] / 6)
    np.testing.assert_allclose(model.predict_proba(X), binary.predict_proba(X), atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), np.array(["no", "yes"])[binary.predict(X)])
    assert model.validation_loss_ == binary.validation_loss_
    assert not hasattr(each, "model_")  # what was given is a setting


def test_a_classifier_of_several_classes_divides_the_binary_ones():
    X, ids, counts, _ = problem()
    model = OneVsRestLLPClassifier(DLLPClassifier(**SMALL), classes=[30, 10, 20]).fit(X, ids, counts)
    each = [DLLPClassifier(**SMALL).fit(X, ids, counts[:, c] / 6).predict_proba(X)[:, 1] for c in range(3)]
    expected = np.stack(each, axis=1) / np.sum(each, axis=0)[:, None]
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), np.array([30, 10, 20])[expected.argmax(1)])


def test_a_classifier_takes_counts_with_noise_where_its_binary_part_does():
    X, ids, counts, y = problem(120, 8, apart=5.0)
    noise = scipy.stats.laplace(scale=0.3)
    noisy = counts + noise.rvs(counts.shape, random_state=0)
    settings = LLPBeliefPropagation(lambda_s=3.0, count_noise=noise.logpdf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = OneVsRestLLPClassifier(LLPBPClassifier(LogisticRegression(), propagation=settings)).fit(X, ids, noisy)
    assert model.score(X, y) > 0.95
    with pytest.raises(ValueError, match="counts must be whole"):
        OneVsRestLLPClassifier(LLPBPClassifier(LogisticRegression())).fit(X, ids, noisy)


def test_a_class_that_cannot_be_fitted_is_named():
    X, ids, counts, _ = problem()
    each = LLPBPClassifier(LogisticRegression(), threshold=0.999)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"class 'a' against the rest: threshold=0\.999 makes every"):
            OneVsRestLLPClassifier(each, classes=list("abc")).fit(X * 0.01, ids, counts)


X, IDS, COUNTS, _ = problem()
SHORT = COUNTS.copy()
SHORT[4] -= np.eye(3, dtype=int)[SHORT[4].argmax()]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("make", [OneVsRestPropagation, OneVsRestLLPClassifier])
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"counts": SHORT}, "counts of a bag must add up to its size; those of bag 4 add up to 5, but it has 6 rows"),
        ({"counts": COUNTS[:, :1]}, r"counts must be of shape \(bags, classes\)"),
        ({"counts": COUNTS[:, 0]}, r"counts must be of shape \(bags, classes\)"),
        ({"counts": COUNTS[:-1]}, r"counts must be of shape \(bags, classes\), with a row for each of 11 bags"),
        ({"counts": COUNTS * np.nan}, "counts must be finite"),
        ({"counts": COUNTS + np.array([0.5, -0.5, 0])}, "counts must be whole numbers; that of bag 0"),
        ({"counts": COUNTS + np.array([7, -7, 0])}, "counts must be from 0 to the size"),
        ({"counts": dict(enumerate(COUNTS[:-1]))}, "counts has no row for 1 of 11 bags"),
        ({"bag_ids": IDS[:-1]}, "bag|counts"),
        ({"X": np.where(np.arange(66)[:, None] == 5, np.nan, X)}, "X contains NaN"),
    ],
)
def test_what_is_refused(make, given, named):
    with pytest.raises(ValueError, match=named):
        make().fit(**{"X": X, "bag_ids": IDS, "counts": COUNTS, **given})


@pytest.mark.usefixtures("unchecked")
def test_settings_that_do_not_fit_are_refused():
    for classes in (["a", "b"], ["a", "b", "b"]):
        for make in (OneVsRestPropagation, OneVsRestLLPClassifier):
            with pytest.raises(ValueError, match="classes must be 3 distinct labels"):
                make(classes=classes).fit(X, IDS, COUNTS)
    with pytest.raises(TypeError, match="propagation must be an LLPBeliefPropagation"):
        OneVsRestPropagation(LogisticRegression()).fit(X, IDS, COUNTS)
    with pytest.raises(TypeError, match="estimator must be a classifier that is fitted to proportions"):
        OneVsRestLLPClassifier(LogisticRegression()).fit(X, IDS, COUNTS)
    for side in (np.zeros((66, 2)), np.zeros(66)):
        with pytest.raises(ValueError, match=r"side_information must be of shape \(66, 3\)"):
            OneVsRestPropagation().fit(X, IDS, COUNTS, side_information=side)
    with pytest.raises(ValueError, match="side_information must be finite"):
        OneVsRestPropagation().fit(X, IDS, COUNTS, side_information=np.full((66, 3), np.nan))
