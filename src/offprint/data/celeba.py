"""CelebA: sets of faces that share two attributes, with some that have neither, from the published files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from torch import Tensor

from offprint.data.dataset import MissingDataError
from offprint.data.subsets import SubsetData

Part = Literal["train", "validation", "test"]
N_SETS = {"train": 10_000, "validation": 1_000, "test": 1_000}
ATTRIBUTES = ("list_attr_celeba.txt", "Anno/list_attr_celeba.txt")
PARTITION = ("list_eval_partition.txt", "Eval/list_eval_partition.txt")
IMAGES = ("img_align_celeba", "Img/img_align_celeba")
TRIES = 1000


@dataclass(frozen=True, eq=False)
class ImageSets(Sequence[Tensor]):
    """Sets of images that are read when they are asked for, and the subset of each.

    A sequence of sets, each a float32 tensor of shape (size, 3, image_size, image_size), red, green and blue in [0, 1].
    A slice is such a sequence again, and reads nothing.

    Parameters
    ----------
    files : tuple of Path
        All images.
    members : int64 array, shape (sets, size)
        The positions in ``files`` of the images of each set.
    chosen : bool tensor, shape (sets, size)
        Which images belong to the subset.
    shared : tuple of tuple of str
        What the others of each set have in common, and those of the subset lack.
    image_size : int
        Side of the images: cut to the square in their middle, then resized.
    """

    files: tuple[Path, ...]
    members: Int64[np.ndarray, "sets size"]
    chosen: Bool[Tensor, "sets size"]
    shared: tuple[tuple[str, ...], ...]
    image_size: int

    def __len__(self) -> int:
        return len(self.members)

    @overload
    def __getitem__(self, index: int) -> Float[Tensor, "size 3 height width"]: ...

    @overload
    def __getitem__(self, index: slice) -> ImageSets: ...

    def __getitem__(self, index: int | slice) -> Tensor | ImageSets:
        """Read the images of one set, or return some of the sets."""
        if isinstance(index, slice):
            return replace(self, members=self.members[index], chosen=self.chosen[index], shared=self.shared[index])
        return torch.stack([self._image(self.files[k]) for k in self.members[index]])

    def load(self) -> SubsetData:
        """Read all images: 4 · 3 · size · image_size² bytes a set."""
        return SubsetData(torch.stack(list(self)), self.chosen)

    def _image(self, file: Path) -> Tensor:
        if not file.is_file():
            raise MissingDataError(f"celeba lacks {file}, which {' or '.join(ATTRIBUTES)} lists")
        try:
            with Image.open(file) as image:
                side = min(image.size)
                left, top = ((length - side) // 2 for length in image.size)
                square = image.convert("RGB").crop((left, top, left + side, top + side))
                pixels = np.array(square.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR))
        except (OSError, SyntaxError, ValueError) as error:  # what damaged files raise
            raise ValueError(f"{file} is not a readable image: {error}") from error
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def celeba_sets(
    path: Path | str,
    split: Part | str = "train",
    n_sets: int | None = None,
    *,
    size: int = 8,
    n_anomalies: tuple[int, int] = (2, 3),
    image_size: int = 64,
    random_state: int = 0,
) -> ImageSets:
    """Draw sets of faces of which most share two attributes; the subset are those that have neither.

    The two attributes are drawn anew for each set, from those of a face drawn at random, so that nothing in a single
    image says whether it is the odd one out.

    Parameters
    ----------
    path : Path or str
        A folder with ``list_attr_celeba.txt``, ``list_eval_partition.txt`` and ``img_align_celeba/``, or with these in
        ``Anno``, ``Eval`` and ``Img``, as they are published. Nothing is downloaded.
    split : {"train", "validation", "test"}
        Sets are drawn from the images of one part of the published partition, so that no face of a training set is
        tested on.
    n_sets : int, optional
        By default 10,000 for training, and 1,000 for each of the others.
    size : int
        Images of a set.
    n_anomalies : pair of int
        The size of the subset is uniform between the two.
    image_size : int
        Side of the images.
    random_state : int
        Seed of the draw.

    Returns
    -------
    ImageSets
        No image has been read yet.

    Raises
    ------
    MissingDataError
        If a file or the folder of images is not there.
    ValueError
        If a file is malformed, the message naming file, line and fault; if a number is out of range, or no two
        attributes are shared by enough images and lacked by enough.

    Notes
    -----
    The lists of 202,599 images take a few seconds to read, and a set of the training part under a millisecond to draw.

    Examples
    --------
    >>> celeba_sets("/nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    offprint.data.dataset.MissingDataError: celeba_sets needs list_attr_celeba.txt or ... in /nowhere; ...

    References
    ----------
    Liu et al., *Deep Learning Face Attributes in the Wild* (2015), for the images. Ou et al., *Learning Neural Set
    Functions Under the Optimal Subset Oracle*, arXiv:2203.01693, for the sets, there drawn from all images together.
    """
    if split not in get_args(Part):
        raise ValueError(f"split must be one of {', '.join(get_args(Part))}; got {split!r}")
    n_sets = N_SETS[split] if n_sets is None else n_sets
    least, most = n_anomalies
    if n_sets < 1 or image_size < 1 or not 1 <= least <= most < size:
        raise ValueError(
            f"n_sets and image_size must be at least 1, and n_anomalies rise from at least 1 to below size; got "
            f"n_sets={n_sets}, image_size={image_size}, n_anomalies={n_anomalies} and size={size}"
        )
    root = Path(path)
    lists, partition, images = (_there(root, names) for names in (ATTRIBUTES, PARTITION, IMAGES))
    names, attributes, has = _read_attributes(lists)
    parts = _read_partition(partition, names)
    rows = np.flatnonzero(parts == get_args(Part).index(split))
    rng = np.random.default_rng(random_state)
    drawn = [_draw(has[rows], size, int(rng.integers(least, most + 1)), rng) for _ in range(n_sets)]
    return ImageSets(
        tuple(images / name for name in names),
        np.stack([rows[members] for members, _, _ in drawn]),
        torch.from_numpy(np.stack([chosen for _, chosen, _ in drawn])),
        tuple(tuple(attributes[k] for k in pair) for _, _, pair in drawn),
        image_size,
    )


def _draw(
    has: Bool[np.ndarray, "n attributes"], size: int, n_odd: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " size"], Bool[np.ndarray, " size"], Int64[np.ndarray, " 2"]]:
    """Return the members of a set, which of them are odd, and the two attributes of the others."""
    for _ in range(TRIES if len(has) else 0):
        own = np.flatnonzero(has[rng.integers(len(has))])
        if len(own) < 2:
            continue
        pair = np.sort(rng.choice(own, 2, replace=False))
        both = np.flatnonzero(has[:, pair].all(1))
        neither = np.flatnonzero(~has[:, pair].any(1))
        if len(both) >= size - n_odd and len(neither) >= n_odd:
            chosen = rng.permutation(size) < n_odd
            members = np.zeros(size, dtype=np.int64)
            members[chosen] = rng.choice(neither, n_odd, replace=False)
            members[~chosen] = rng.choice(both, size - n_odd, replace=False)
            return members, chosen, pair
    raise ValueError(f"size must leave {size - n_odd} images that share two attributes, and {n_odd} that lack both")


def _there(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (root / name).exists():
            return root / name
    raise MissingDataError(
        f"celeba_sets needs {' or '.join(names)} in {root}; the files are to be had from the authors of CelebA"
    )


def _read_attributes(path: Path) -> tuple[list[str], list[str], Bool[np.ndarray, "n attributes"]]:
    """Read the number of images, the names of attributes, and for each image 1 or -1 for each attribute."""
    lines = path.read_text(encoding="utf-8").splitlines()
    attributes = lines[1].split() if len(lines) > 1 else []
    if not attributes:
        raise ValueError(f"{path}, line 2 must name the attributes")
    names, rows = [], []
    for number, line in enumerate(lines[2:], start=3):
        name, *values = line.split() or [""]
        if len(values) != len(attributes) or not set(values) <= {"1", "-1"}:
            raise ValueError(
                f"{path}, line {number} must hold an image and {len(attributes)} times 1 or -1; it is {line!r}"
            )
        names.append(name)
        rows.append([value == "1" for value in values])
    if lines[0].strip() != str(len(names)):
        raise ValueError(f"{path}, line 1 must hold the number of images, {len(names)}; it is {lines[0]!r}")
    return names, attributes, np.array(rows, dtype=bool).reshape(len(names), -1)


def _read_partition(path: Path, names: Sequence[str]) -> Int64[np.ndarray, " n"]:
    """Read for each image whether it is for training, 0, validation, 1, or testing, 2."""
    parts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, _, part = line.strip().partition(" ")
        if part not in ("0", "1", "2"):
            raise ValueError(f"{path}, line {number} must hold an image and 0, 1 or 2; it is {line!r}")
        parts[name] = int(part)
    if missing := [name for name in names if name not in parts]:
        raise ValueError(
            f"{path} must hold every image with attributes; it lacks {missing[0]} and {len(missing) - 1} more"
        )
    return np.array([parts[name] for name in names], dtype=np.int64)
