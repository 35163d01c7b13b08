"""MNIST's files: small ones written here byte by byte, whole and damaged."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from offprint.data import MissingDataError, load

RNG = np.random.default_rng(0)
IMAGES = {
    "train": RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8),
    "t10k": RNG.integers(0, 256, (3, 28, 28), dtype=np.uint8),
}
LABELS = {"train": [5, 0, 4, 1, 9, 2], "t10k": [7, 2, 1]}


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(root, compress=True, **changes):
    """Write the four files; a change maps a file's stem, with underscores, to its content."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        contents = {
            f"{part}-images-idx3-ubyte": idx(IMAGES[part]),
            f"{part}-labels-idx1-ubyte": idx(np.array(LABELS[part], np.uint8)),
        }
        for name, content in contents.items():
            content = changes.get(name.replace("-", "_"), content)
            if compress:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
            else:
                (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("compress", [True, False])
def test_images_and_labels_come_back(tmp_path, compress):
    folder = write(tmp_path, compress)
    train, test, whole = (load("mnist", split, root=tmp_path) for split in ("train", "test", "all"))
    assert np.array_equal(np.rint(train.inputs[:, 0] * 255), IMAGES["train"])
    assert train.inputs.dtype == np.float32
    assert train.inputs.max() <= 1
    assert train.targets.tolist() == LABELS["train"]
    assert train.targets.dtype == np.int64
    assert test.inputs.shape == (3, 1, 28, 28)
    assert np.array_equal(whole.inputs, np.concatenate([train.inputs, test.inputs]))
    assert whole.targets.tolist() == LABELS["train"] + LABELS["t10k"]
    assert train.source == str(folder)
    assert load("mnist", root=tmp_path).split == "train"


def test_fashion_has_its_own_folder(tmp_path):
    write(tmp_path)
    with pytest.raises(MissingDataError, match="FashionMNIST"):
        load("fashion_mnist", root=tmp_path)
    (tmp_path / "MNIST").rename(tmp_path / "FashionMNIST")
    assert load("fashion_mnist", root=tmp_path).classes[9] == "ankle boot"


def test_the_named_folder_comes_before_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    cached = write(tmp_path / "cache" / "offprint" / "data")
    monkeypatch.delenv("OFFPRINT_DATA", raising=False)
    assert load("mnist").source == str(cached)
    monkeypatch.setenv("OFFPRINT_DATA", str(tmp_path / "mine"))
    assert load("mnist").source == str(cached)
    mine = write(tmp_path / "mine")
    assert load("mnist").source == str(mine)
    (mine / "train-labels-idx1-ubyte.gz").unlink()  # an incomplete folder is passed over
    assert load("mnist").source == str(cached)


whole = idx(IMAGES["train"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images_idx3_ubyte": b"\0\0\x08\x01" + whole[4:]}, "images.* magic number 00000803; .* 00000801"),
        ({"train_images_idx3_ubyte": whole[:-1]}, r"images.* must hold 4704 bytes .* holds 4703"),
        ({"train_images_idx3_ubyte": whole + b"\0"}, r"images.* must hold 4704 bytes .* holds 4705"),
        ({"train_images_idx3_ubyte": whole[:10]}, "images.* truncated: its header has 10 bytes of 16"),
        ({"train_images_idx3_ubyte": b""}, "images.* magic number"),
        ({"train_labels_idx1_ubyte": idx(np.zeros(5, np.uint8))}, "labels.* one label per image, 6; it holds 5"),
        ({"train_labels_idx1_ubyte": idx(np.full(6, 10, np.uint8))}, "labels.* below 10; it holds 10"),
    ],
)
@pytest.mark.parametrize("compress", [True, False])
def test_damaged_files_are_named_with_their_fault(tmp_path, changes, words, compress):
    write(tmp_path, compress, **changes)
    with pytest.raises(ValueError, match=words):
        load("mnist", root=tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-20], lambda content: b"no" + content, lambda content: b""]
)
def test_a_cut_gzip_is_named(tmp_path, damage):
    path = write(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz"):
        load("mnist", root=tmp_path)
