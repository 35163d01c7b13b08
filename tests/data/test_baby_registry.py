"""Baby registries: small files in the published layout, written here, whole, damaged and hostile."""

from __future__ import annotations

import os
import pickle
import re

import numpy as np
import pytest
from jaxtyping import config

from offprint.data import MissingDataError
from offprint.data.baby_registry import amazon_registry

N_ITEMS, N_FEATURES = 40, 12
ITEMS = np.random.default_rng(0).standard_normal((N_ITEMS, N_FEATURES))
SIZES = [2, 3, 5, 9, 10, 3, 4, 4, 6, 7, 1, 8]  # with sets of ten, three of these do not fit
REGISTRIES = [np.random.default_rng(k).choice(N_ITEMS, size, replace=False).tolist() for k, size in enumerate(SIZES)]
FITTING = [one for one in REGISTRIES if 3 <= len(one) < 10]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def write(root, items="pickle", registries=None):
    root.mkdir(exist_ok=True)
    lines = [",".join(str(k + 1) for k in one) for one in REGISTRIES] if registries is None else registries
    (root / "toys.csv").write_text("\n".join(lines) + "\n")
    if items == "npy":
        np.save(root / "toys.npy", ITEMS)
    else:
        content = {k + 1: row for k, row in enumerate(ITEMS)} if isinstance(items, str) else items
        (root / "toys").write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return root


def item_of(row) -> int:
    return int(np.flatnonzero(np.isclose(ITEMS, row, atol=1e-6).all(1))[0])


@pytest.mark.parametrize("items", ["pickle", "npy"])
def test_sets_hold_a_registry_and_what_resembles_it_least(tmp_path, items):
    """Nine registries fit, three a split, in order; similarity is computed here anew, one item after the other."""
    root, at = write(tmp_path / items, items), 0
    for split in ("train", "validation", "test"):
        data = amazon_registry(root, "toys", split, size=10)
        assert data.sets.shape == (3, 10, N_FEATURES)
        for rows, chosen in zip(data.sets.numpy(), data.chosen.numpy(), strict=True):
            registry, found = FITTING[at], np.array([item_of(row) for row in rows])
            at += 1
            assert sorted(found[chosen]) == sorted(registry)
            mean = ITEMS[registry].mean(0)
            others = [k for k in range(N_ITEMS) if k not in registry]
            others.sort(key=lambda k, mean=mean: ITEMS[k] @ mean / np.linalg.norm(ITEMS[k]))
            assert sorted(found[~chosen]) == sorted(others[: 10 - len(registry)])
    assert at == len(FITTING) == 9


def test_items_are_in_random_order(tmp_path):
    root = write(tmp_path / "many", registries=["1,2,3"] * 300)
    data, same, other = (amazon_registry(root, "toys", size=10, random_state=seed) for seed in (0, 0, 1))
    # Each place holds an item of the subset in 3 of 10 sets; 0.14 is three standard errors of 100 sets.
    np.testing.assert_allclose(data.chosen.float().mean(0), 0.3, atol=0.14)
    assert np.array_equal(data.sets, same.sets)
    assert not np.array_equal(data.sets, other.sets)


def test_numbers_written_as_floats_lists_of_numbers_and_empty_lines(tmp_path):
    root = write(
        tmp_path / "floats", {k + 1: row.tolist() for k, row in enumerate(ITEMS)}, ["1.0,2.0,3.0", "", "4,5,6", "7,8,9"]
    )
    data = amazon_registry(root, "toys", "train", size=10)
    assert sorted(item_of(row) for row in data.sets[0, data.chosen[0]].numpy()) == [0, 1, 2]


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"registries": ["1,2,3", "1,2,41"]},
            "toys.csv, line 2 must hold numbers of items from 1 to 40, each once; it holds 1,2,41",
        ),
        ({"registries": ["0,2,3"]}, "toys.csv, line 1 must hold numbers"),
        ({"registries": ["1,2,3", "4,4,5"]}, "toys.csv, line 2 must hold numbers"),
        ({"registries": ["1,2.5,3"]}, "toys.csv, line 1 must hold numbers"),
        ({"registries": ["1,two,3"]}, "toys.csv, line 1 must hold numbers"),
        ({"registries": ["1,2", "1"]}, "toys.csv must hold registries of 3 to 9 items for train; 0 do in all"),
        ({"items": b"garbage"}, "toys is not a readable pickle"),
        ({"items": pickle.dumps({1: Hostile()})}, "toys is not a readable pickle of features: it asks for"),
        ({"items": {0: ITEMS[0], 1: ITEMS[1]}}, "toys must hold a dict from 1, 2, ..."),
        ({"items": [1.0, 2.0]}, "toys must hold a dict from 1, 2, ..."),
        ({"items": {1: ITEMS[0], 2: ITEMS[1][:3]}}, "toys must hold as many features of each item"),
        ({"items": {k + 1: row * np.nan for k, row in enumerate(ITEMS)}}, "toys must hold finite features"),
        ({"items": {k + 1: "text" for k in range(40)}}, "toys must hold finite features"),
        (
            {"items": {k + 1: row for k, row in enumerate(ITEMS[:9])}},
            "size must be at most the number of items of toys, 9",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_damaged_files_are_named(tmp_path, files, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(message)):
        amazon_registry(write(tmp_path / "toys", **files), "toys", size=10)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.usefixtures("unchecked")
def test_missing_files_are_named(tmp_path):
    root = write(tmp_path / "whole")
    with pytest.raises(MissingDataError, match=r"feeding\.csv"):
        amazon_registry(root, "feeding")
    (root / "toys").unlink()
    with pytest.raises(MissingDataError, match=r"toys or toys\.npy"):
        amazon_registry(root, "toys")
    (root / "toys.npy").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"toys\.npy is not a readable array"):
        amazon_registry(root, "toys")


@pytest.mark.parametrize(
    ("options", "named"), [({"split": "all"}, "split"), ({"least": 30}, "least"), ({"least": 0}, "least")]
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_refused(tmp_path, options, named):
    with pytest.raises(ValueError, match=named):
        amazon_registry(write(tmp_path / "whole"), "toys", **options)
