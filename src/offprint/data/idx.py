"""MNIST and its relatives: idx files, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from offprint.data.dataset import Dataset, Split
from offprint.data.files import find

PARTS = {"train": "train", "test": "t10k"}
UNSIGNED_BYTE = 8


def read_idx(path: Path, n_dimensions: int) -> UInt8[np.ndarray, "..."]:
    """Read one idx file of unsigned bytes.

    Parameters
    ----------
    path : Path
        The file, gzipped where its name ends in ``.gz``.
    n_dimensions : int
        3 for images, 1 for labels.

    Returns
    -------
    array of uint8
        Of the shape that the file's header states.

    Raises
    ------
    ValueError
        If the file is not what it should be; the message names file and fault.

    Notes
    -----
    Two zero bytes, a type code (8: unsigned byte), the number of dimensions, each size as a big-endian 32-bit integer,
    then the numbers, last dimension fastest.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 7]))
    ...     read_idx(path, 1)
    array([5, 6, 7], dtype=uint8)
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    n_header = 4 + 4 * n_dimensions
    magic = bytes([0, 0, UNSIGNED_BYTE, n_dimensions])
    if content[:4] != magic:
        raise ValueError(f"{path} must begin with the magic number {magic.hex()}; it begins with {content[:4].hex()}")
    if len(content) < n_header:
        raise ValueError(f"{path} is truncated: its header has {len(content)} bytes of {n_header}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", n_dimensions, offset=4))
    if len(content) - n_header != math.prod(shape):
        raise ValueError(
            f"{path} must hold {math.prod(shape)} bytes after its header, for shape {shape}; "
            f"it holds {len(content) - n_header}"
        )
    return np.frombuffer(content, np.uint8, offset=n_header).reshape(shape)


def load_idx_images(name: str, folder: str, classes: tuple[str, ...], split: Split, places: Sequence[Path]) -> Dataset:
    """Load a dataset in MNIST's four files: float32 images of shape (n, 1, height, width) in [0, 1], int64 classes.

    Parameters
    ----------
    name, folder : str
        The dataset, and the folder below a root that holds its files.
    classes : tuple of str
        The name of each class.
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

    Examples
    --------
    >>> load_idx_images("mnist", "MNIST/raw", (), "train", [])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    offprint.data.dataset.MissingDataError: mnist is not here; get it with `offprint data get mnist`. ...
    """
    parts = list(PARTS.values()) if split == "all" else [PARTS[split]]
    stems = [f"{folder}/{part}-{kind}-ubyte" for part in parts for kind in ("images-idx3", "labels-idx1")]
    paths = find(name, [stems, [f"{stem}.gz" for stem in stems]], places)
    images = [read_idx(path, 3) for path in paths[::2]]
    labels = [read_idx(path, 1) for path in paths[1::2]]
    for path, pixels, numbers in zip(paths[1::2], images, labels, strict=True):
        if len(pixels) != len(numbers):
            raise ValueError(f"{path} must hold one label per image, {len(pixels)}; it holds {len(numbers)}")
        if len(numbers) and numbers.max() >= len(classes):
            raise ValueError(f"{path} must hold labels below {len(classes)}; it holds {numbers.max()}")
    inputs = np.concatenate(images)[:, None].astype(np.float32)
    inputs /= 255
    targets = np.concatenate(labels).astype(np.int64)
    return Dataset(inputs, targets, name, split, str(paths[0].parent), classes)
