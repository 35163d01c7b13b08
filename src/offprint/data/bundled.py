"""The small datasets that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from offprint.data.dataset import Dataset, Split

SOURCE = "scikit-learn"


def load_digits(split: Split) -> Dataset:
    """Load 1,797 handwritten digits: float32 images of shape (n, 1, 8, 8), grey levels 0 to 16 divided by 16.

    Parameters
    ----------
    split : {"train", "test", "all"}
        See :func:`.load`.

    Returns
    -------
    Dataset

    Raises
    ------
    ImportError
        If scikit-learn is not installed.

    Examples
    --------
    >>> data = load_digits("all")
    >>> data.inputs.shape, float(data.inputs.max())
    ((1797, 1, 8, 8), 1.0)
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = (bunch.images[:, None] / 16).astype(np.float32)
    return _dataset("digits", split, images, bunch.target, tuple(map(str, range(10))), ())


def load_breast_cancer(split: Split) -> Dataset:
    """Load 569 tumours with 30 measurements each, classes malignant and benign (Wisconsin, diagnostic)."""
    from sklearn import datasets

    return _table("breast_cancer", split, datasets.load_breast_cancer)


def load_wine(split: Split) -> Dataset:
    """Load 178 wines with 13 chemical measurements each, of three cultivars."""
    from sklearn import datasets

    return _table("wine", split, datasets.load_wine)


def load_iris(split: Split) -> Dataset:
    """Load 150 irises with 4 lengths each, of three species."""
    from sklearn import datasets

    return _table("iris", split, datasets.load_iris)


def load_diabetes(split: Split) -> Dataset:
    """Load 442 patients with 10 raw measurements each; the target is the disease's progression a year later."""
    from sklearn import datasets

    bunch = datasets.load_diabetes(scaled=False)
    inputs, targets = bunch.data.astype(np.float64), bunch.target.astype(np.float64)
    return _dataset("diabetes", split, inputs, targets, (), tuple(map(str, bunch.feature_names)))


def _table(name: str, split: Split, loader: Callable[[], Any]) -> Dataset:
    bunch = loader()
    classes, features = tuple(map(str, bunch.target_names)), tuple(map(str, bunch.feature_names))
    return _dataset(name, split, bunch.data.astype(np.float64), bunch.target, classes, features)


def _dataset(
    name: str,
    split: Split,
    inputs: Shaped[np.ndarray, "n ..."],
    targets: Shaped[np.ndarray, " n"],
    classes: tuple[str, ...],
    features: tuple[str, ...],
) -> Dataset:
    targets = targets.astype(np.int64) if classes else targets
    data = Dataset(inputs, targets, name, split, SOURCE, classes, features)
    if split == "all":
        return data
    test = _fifths(targets if classes else np.zeros(len(targets), np.int64))
    return data.take(np.flatnonzero(test if split == "test" else ~test))


def _fifths(groups: Shaped[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Mark every fifth row of each group: there is no official split, and this one needs no random numbers."""
    marked = np.zeros(len(groups), dtype=bool)
    for group in np.unique(groups):
        marked[np.flatnonzero(groups == group)[4::5]] = True
    return marked
