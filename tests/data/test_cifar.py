"""CIFAR-10's batches: small ones written here in the official layout, whole, damaged and hostile."""

from __future__ import annotations

import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from offprint.data import MissingDataError, load
from offprint.data.cifar import read_batch

FOLDER = "cifar-10-batches-py"
NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3072), dtype=np.uint8)


def batch(i, **changes):
    return {b"data": PIXELS[i], b"labels": [i, i + 1, i + 2, i + 3], b"batch_label": b"a batch"} | {
        key.encode(): value for key, value in changes.items()
    }


def write(root, protocol=4, **changes):
    folder = root / FOLDER
    folder.mkdir(parents=True)
    for i, name in enumerate(NAMES):
        content = changes.get(name, pickle.dumps(batch(i), protocol=protocol))
        (folder / name).write_bytes(content)
    return folder


def check(root, source):
    train, test, whole = (load("cifar10", split, root=root) for split in ("train", "test", "all"))
    assert train.inputs.shape == (20, 3, 32, 32)
    assert np.array_equal(np.rint(train.inputs * 255).reshape(5, 4, 3072), PIXELS[:5])
    assert train.targets.tolist() == [i + j for i in range(5) for j in range(4)]
    assert test.targets.tolist() == [5, 6, 7, 8]
    assert np.array_equal(whole.inputs, np.concatenate([train.inputs, test.inputs]))
    assert train.source == str(source)
    # red first, then green, then blue, each row by row
    assert test.inputs[0, 1, 0, 2] == np.float32(PIXELS[5, 0, 1024 + 2]) / np.float32(255)


@pytest.mark.parametrize("protocol", [2, 4, 5])  # the official ones are protocol 2
def test_batches_come_back_from_their_folder(tmp_path, protocol):
    check(tmp_path, write(tmp_path, protocol))


@pytest.mark.parametrize("reverse", [True, False])
def test_batches_come_back_from_the_archive(tmp_path, reverse):
    folder = write(tmp_path / "made")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in sorted(NAMES, reverse=reverse):
            tar.add(folder / name, f"{FOLDER}/{name}")
    check(tmp_path, archive)
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name, "made"]  # nothing is unpacked


def test_pickles_of_python_2_are_read():
    """Opcode by opcode as Python 2 wrote the official files: its strings, NumPy's modules under their old names."""

    def text(content: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(content)) + content

    kind = (
        b"cnumpy\ndtype\n(" + text(b"u1") + b"K\0K\1tR(K\3" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0t" + text(b"b") + b"tR"
    array += b"(K\1(K\4M\x00\x0ct" + kind + b"I00\n" + text(PIXELS[0].tobytes()) + b"tb"
    content = b"\x80\2}(" + text(b"data") + array + text(b"labels") + b"](K\0K\1K\2K\3eu."
    pixels, labels = read_batch(content, "it")
    assert np.array_equal(pixels, PIXELS[0])
    assert labels.tolist() == [0, 1, 2, 3]


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile",)


class Sneaky:
    def __reduce__(self):
        return eval, ("1",)


@pytest.mark.parametrize("value", [Hostile(), Sneaky()])
def test_a_pickle_that_asks_for_code_is_refused_and_not_run(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, data_batch_2=pickle.dumps(batch(1) | {b"more": value}))
    with pytest.raises(ValueError, match=r"data_batch_2 is not a readable batch: it asks for \w+\.\w+"):
        load("cifar10", root=tmp_path)
    assert not (tmp_path / "hostile").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(batch(1))[:-10], "test_batch is not a readable batch"),
        (b"", "test_batch is not a readable batch"),
        (pickle.dumps([1]), "test_batch must hold 'data'"),
        (pickle.dumps(batch(1, data=PIXELS[1].astype(float))), "test_batch must hold 'data', uint8"),
        (pickle.dumps(batch(1, data=PIXELS[1, :, 1:])), r"test_batch must hold 'data', uint8 of shape \(n, 3072\)"),
        (pickle.dumps(batch(1, labels=[1, 2])), "test_batch must hold 'labels', one for each of 4 images"),
        (pickle.dumps(batch(1, labels=[1, 2, 3, 10])), "test_batch must hold labels from 0 to 9"),
    ],
)
def test_damaged_batches_are_named_with_their_fault(tmp_path, content, words):
    write(tmp_path, test_batch=content)
    with pytest.raises(ValueError, match=words):
        load("cifar10", "test", root=tmp_path)


def test_damaged_and_incomplete_archives_are_named(tmp_path):
    folder = write(tmp_path / "made")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "test_batch", f"{FOLDER}/test_batch")
    assert len(load("cifar10", "test", root=tmp_path)) == 4
    with pytest.raises(ValueError, match=r"lacks cifar-10-batches-py/data_batch_1, "):
        load("cifar10", "train", root=tmp_path)
    archive.write_bytes(archive.read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz is not a whole tar archive"):
        load("cifar10", "test", root=tmp_path)


def test_a_folder_with_a_batch_missing_is_incomplete(tmp_path):
    (write(tmp_path) / "data_batch_3").unlink()
    with pytest.raises(MissingDataError):
        load("cifar10", "train", root=tmp_path)
    assert len(load("cifar10", "test", root=tmp_path)) == 4
