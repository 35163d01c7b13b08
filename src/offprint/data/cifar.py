"""CIFAR-10: the official Python batches, in their folder or in their archive."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from offprint.data.dataset import Dataset, Split
from offprint.data.files import find
from offprint.data.pickles import read_pickle

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = ("test_batch",)
SHAPE = (3, 32, 32)


def read_batch(content: bytes, origin: str) -> tuple[UInt8[np.ndarray, "n 3072"], Int64[np.ndarray, " n"]]:
    """Read one batch without running any code that its pickle might ask for.

    Parameters
    ----------
    content : bytes
        The pickle.
    origin : str
        What the batch is called in errors.

    Returns
    -------
    pixels : array of uint8, shape (n, 3072)
    labels : array of int64, shape (n,)

    Raises
    ------
    ValueError
        If it is not such a batch, or asks for anything but arrays; the message names file and fault.

    Examples
    --------
    >>> import pickle
    >>> batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [3, 8]}
    >>> read_batch(pickle.dumps(batch), "a batch")[1]
    array([3, 8])
    """
    batch = read_pickle(content, f"{origin} is not a readable batch", encoding="bytes")
    pixels, labels = (batch.get(b"data"), batch.get(b"labels")) if isinstance(batch, dict) else (None, None)
    width = int(np.prod(SHAPE))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (width,):
        raise ValueError(f"{origin} must hold 'data', uint8 of shape (n, {width})")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise ValueError(f"{origin} must hold 'labels', one for each of {len(pixels)} images")
    if not all(isinstance(label, int) and 0 <= label < len(CLASSES) for label in labels):
        raise ValueError(f"{origin} must hold labels from 0 to {len(CLASSES) - 1}")
    return pixels, np.array(labels, dtype=np.int64)


def load_cifar10(split: Split, places: Sequence[Path]) -> Dataset:
    """Load CIFAR-10: float32 images of shape (n, 3, 32, 32) in [0, 1], red, green, blue; int64 classes.

    Parameters
    ----------
    split : {"train", "test", "all"}
        "all" is the training part followed by the test part.
    places : sequence of Path
        Roots, best first.

    Returns
    -------
    Dataset

    Raises
    ------
    MissingDataError
        If files are missing.
    ValueError
        If a file is malformed; the message names file and fault.

    Notes
    -----
    Reading from the archive takes a few seconds longer than from its unpacked folder.

    Examples
    --------
    >>> load_cifar10("test", [])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    offprint.data.dataset.MissingDataError: cifar10 is not here; get it with `offprint data get cifar10`. ...
    """
    names = {"train": TRAIN, "test": TEST, "all": TRAIN + TEST}[split]
    paths = find("cifar10", [[f"{FOLDER}/{name}" for name in names], [ARCHIVE]], places)
    if paths[0].name == ARCHIVE:
        source = paths[0]
        batches = [read_batch(content, f"{source}:{name}") for name, content in _members(source, names)]
    else:
        source = paths[0].parent
        batches = [read_batch(path.read_bytes(), str(path)) for path in paths]
    inputs = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, *SHAPE).astype(np.float32)
    inputs /= 255
    return Dataset(inputs, np.concatenate([labels for _, labels in batches]), "cifar10", split, str(source), CLASSES)


def _members(archive: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted members in the order of their names, reading the archive once and unpacking nothing to disk."""
    wanted = {f"{FOLDER}/{name}" for name in names}
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                if member.name in wanted and member.isfile():
                    file = tar.extractfile(member)
                    contents[member.name] = b"" if file is None else file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{archive} is not a whole tar archive: {error}") from error
    if missing := sorted(wanted - contents.keys()):
        raise ValueError(f"{archive} lacks {', '.join(missing)}")
    return ((name, contents[f"{FOLDER}/{name}"]) for name in names)
