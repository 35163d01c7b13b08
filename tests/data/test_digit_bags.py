"""Bags of digits: what their labels say is counted by hand, and sizes and shares are those that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from offprint.data import load
from offprint.data.dataset import Dataset
from offprint.data.digit_bags import make_digit_bags


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", split="train")


@pytest.mark.parametrize("positive_share", [None, 0.0, 0.3, 1.0])
def test_labels_say_what_the_bags_hold(digits: Dataset, positive_share: float | None) -> None:
    given = {"target": 3, "mean_size": 4.0, "positive_share": positive_share, "random_state": 0}
    for label in ("present", "count", "proportion"):
        made = make_digit_bags(digits, 50, label=label, **given)
        for bag in range(50):
            held = [int(one) for one in made.classes[made.bags.ids == bag]]
            said = {"present": float(3 in held), "count": held.count(3), "proportion": held.count(3) / len(held)}
            assert float(made.labels[bag]) == pytest.approx(said[label], rel=1e-6)  # float32


def test_images_are_those_of_their_classes(digits: Dataset) -> None:
    made = make_digit_bags(digits, 20, random_state=1)
    for image, digit, row in zip(made.bags.values, made.classes, made.rows, strict=True):
        assert np.array_equal(image.numpy(), digits.inputs[row])
        assert int(digit) == digits.targets[row]


def test_the_share_of_positive_bags_is_exact_and_sizes_are_as_asked_for(digits: Dataset) -> None:
    made = make_digit_bags(digits, 4000, mean_size=10, size_deviation=2, positive_share=0.25, random_state=2)
    assert int(made.labels.sum()) == 1000
    sizes = made.bags.sizes.double()
    # Five standard errors: 2 / sqrt(4000) = 0.03 of the mean, 0.022 of the deviation (rounding adds 1/24 to the 2).
    assert float(sizes.mean()) == pytest.approx(10, abs=0.16)
    assert float(sizes.std()) == pytest.approx(2.02, abs=0.12)
    small = make_digit_bags(digits, 500, mean_size=1, size_deviation=3, random_state=2)
    assert int(small.bags.sizes.min()) == 1


def test_a_seed_gives_the_same_bags(digits: Dataset) -> None:
    first, second, other = (make_digit_bags(digits, 5, random_state=seed) for seed in (0, 0, 1))
    assert torch.equal(first.bags.values, second.bags.values)
    assert not torch.equal(first.rows[:5], other.rows[:5])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_bags", 0),
        ("label", "most"),
        ("mean_size", 0.0),
        ("mean_size", float("nan")),
        ("size_deviation", -1.0),
        ("target", 10),
        ("positive_share", 1.1),
    ],
)
def test_refusals(digits: Dataset, name: str, value: object) -> None:
    given = {"n_bags": 3, "random_state": 0} | {name: value}
    with pytest.raises((ValueError, TypeError), match=name):
        make_digit_bags(digits, **given)


def test_data_without_the_target_or_without_classes_are_refused(digits: Dataset) -> None:
    nines = digits.take(np.flatnonzero(digits.targets == 9))
    with pytest.raises(ValueError, match="of others"):
        make_digit_bags(nines, 3, random_state=0)
    with pytest.raises(ValueError, match="classes"):
        make_digit_bags(load("diabetes", split="all"), 3, random_state=0)
