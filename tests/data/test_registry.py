"""Names, splits, places and errors of the registry; bundled datasets against scikit-learn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn import datasets

from offprint import data
from offprint.data import MissingDataError

BUNDLED = {
    "breast_cancer": datasets.load_breast_cancer,
    "diabetes": lambda: datasets.load_diabetes(scaled=False),
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
}


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Both places where files are sought, empty."""
    monkeypatch.setenv("OFFPRINT_DATA", str(tmp_path / "mine"))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    return tmp_path


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_tables_are_scikit_learns(name):
    bunch, loaded = BUNDLED[name](), data.load(name)
    assert np.array_equal(loaded.inputs, bunch.data)
    assert np.array_equal(loaded.targets, bunch.target)
    assert loaded.features == tuple(bunch.feature_names)
    assert loaded.classes == tuple(bunch.get("target_names", ()))
    assert loaded.inputs.dtype == np.float64
    assert loaded.targets.dtype == (np.int64 if loaded.classes else np.float64)
    assert (loaded.split, loaded.name, loaded.source) == ("all", name, "scikit-learn")


def test_digits_are_images_in_the_unit_interval():
    images, classes = data.load("digits").tensors()
    bunch = datasets.load_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert np.array_equal(images.reshape(1797, 64).numpy() * 16, bunch.data.astype(np.float32))
    assert np.array_equal(classes.numpy(), bunch.target)


@pytest.mark.parametrize("name", ["digits", *BUNDLED])
def test_made_splits_part_the_rows_and_keep_the_classes_shares(name):
    whole, train, test = (data.load(name, split) for split in ("all", "train", "test"))
    assert (train.split, test.split) == ("train", "test")
    both = np.concatenate([part.inputs.reshape(len(part), -1) for part in (train, test)])
    everything = whole.inputs.reshape(len(whole), -1)
    assert len(both) == len(everything)
    assert np.array_equal(both[np.lexsort(both.T)], everything[np.lexsort(everything.T)])
    if whole.classes:
        counts = np.bincount(whole.targets)
        assert np.array_equal(np.bincount(test.targets), counts // 5)
    else:
        assert len(test) == len(whole) // 5
    assert np.array_equal(data.load(name, "test").inputs, test.inputs)


def test_loaded_arrays_are_fresh():
    first = data.load("iris")
    first.inputs[:] = 0
    assert data.load("iris").inputs.any()


def test_names_and_descriptions():
    assert {"mnist", "fashion_mnist", "cifar10", "adult", "digits", *BUNDLED} == set(data.names())
    for name in data.names():
        description = data.describe(name)
        assert description.name == name
        assert description.summary.endswith((".", "?"))
        assert bool(description.files) == description.official_split
        for file in description.files:
            algorithm, _, digest = file.digest.partition(":")
            assert len(digest) == {"sha256": 64, "md5": 32}[algorithm]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "adult"])
def test_missing_files_name_the_command_and_both_places(name, nowhere):
    with pytest.raises(MissingDataError) as error:
        data.load(name, "test")
    message = str(error.value)
    assert f"`offprint data get {name}`" in message
    assert str(nowhere / "mine") in message
    assert str(nowhere / "cache" / "offprint" / "data") in message
    assert isinstance(error.value, FileNotFoundError)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: data.load("minst"), "name must be one of adult, .*; got 'minst'"),
        (lambda: data.load("digits", "valid"), "split must be one of train, test, all; got 'valid'"),
        (lambda: data.load("digits", encoding="one_hot"), "digits takes no option encoding"),
        (lambda: data.load("adult", encode="one_hot"), "adult takes no option encode"),
        (lambda: data.get("digits"), "nothing to download"),
        (lambda: data.describe("nothing"), "name must be one of"),
    ],
)
def test_bad_requests_are_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_dataset_lengths_rows_and_tensors():
    with pytest.raises(ValueError, match="same length; got 3 and 2"):
        data.Dataset(np.zeros((3, 1)), np.zeros(2), "toy", "all", "here")
    toy = data.Dataset(np.arange(6.0).reshape(3, 2), np.array([0, 1, 1]), "toy", "all", "here", ("no", "yes"))
    some = toy.take([2, 0])
    assert some.inputs.tolist() == [[4, 5], [0, 1]]
    assert some.targets.tolist() == [1, 0]
    assert some.classes == toy.classes
    inputs, targets = toy.tensors()
    inputs += 1
    assert toy.inputs[0, 0] == 0
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    with pytest.raises(IndexError):
        toy.take([3])


def test_importing_the_registry_is_light():
    code = "import sys, offprint.data; print(sorted({'torch', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
