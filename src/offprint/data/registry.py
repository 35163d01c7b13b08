"""Datasets by name: what there is, how it is loaded and where its files come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from offprint.data.dataset import Dataset, Split
from offprint.data.download import Progress, RemoteFile, fetch
from offprint.data.files import roots


@dataclass(frozen=True)
class Description:
    """What is known of a dataset without loading it.

    Parameters
    ----------
    name : str
        Its name in the registry.
    summary : str
        One sentence: what it is, how large, in what form.
    official_split : bool
        Whether its authors say which rows are for testing. If not, every fifth row of each class (of all rows where
        the target is real) is.
    files : tuple of RemoteFile
        What :func:`get` downloads; empty where the dataset comes with scikit-learn.
    """

    name: str
    summary: str
    official_split: bool
    files: tuple[RemoteFile, ...]


def _digits(split: Split, places: Sequence[Path]) -> Dataset:
    from offprint.data.bundled import load_digits

    return load_digits(split)


def _breast_cancer(split: Split, places: Sequence[Path]) -> Dataset:
    from offprint.data.bundled import load_breast_cancer

    return load_breast_cancer(split)


def _diabetes(split: Split, places: Sequence[Path]) -> Dataset:
    from offprint.data.bundled import load_diabetes

    return load_diabetes(split)


def _iris(split: Split, places: Sequence[Path]) -> Dataset:
    from offprint.data.bundled import load_iris

    return load_iris(split)


def _wine(split: Split, places: Sequence[Path]) -> Dataset:
    from offprint.data.bundled import load_wine

    return load_wine(split)


def _mnist(split: Split, places: Sequence[Path]) -> Dataset:
    from offprint.data.idx import load_idx_images

    return load_idx_images("mnist", MNIST_FOLDER, tuple(map(str, range(10))), split, places)


def _fashion_mnist(split: Split, places: Sequence[Path]) -> Dataset:
    from offprint.data.idx import load_idx_images

    return load_idx_images("fashion_mnist", FASHION_FOLDER, FASHION_CLASSES, split, places)


def _cifar10(split: Split, places: Sequence[Path]) -> Dataset:
    from offprint.data.cifar import load_cifar10

    return load_cifar10(split, places)


def _adult(split: Split, places: Sequence[Path], **options: Any) -> Dataset:
    from offprint.data.adult import load_adult

    return load_adult(split, places, **options)


MNIST_FOLDER, FASHION_FOLDER = "MNIST/raw", "FashionMNIST/raw"
FASHION_CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def _files(folder: str, addresses: tuple[str, ...], digests: dict[str, str]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(folder + name, digest, addresses) for name, digest in digests.items())


MNIST_FILES = _files(
    f"{MNIST_FOLDER}/",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    {
        "train-images-idx3-ubyte.gz": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
)
FASHION_FILES = _files(
    f"{FASHION_FOLDER}/",
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    {
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
)
CIFAR10_FILES = _files(
    "",
    ("https://www.cs.toronto.edu/~kriz/",),
    {"cifar-10-python.tar.gz": "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"},
)
ADULT_FILES = _files(
    "adult/",
    ("https://archive.ics.uci.edu/ml/machine-learning-databases/adult/",),
    {"adult.data": "md5:5d7c39d7b8804f071cdd1f2a7c460872", "adult.test": "md5:35238206dfdf7f1fe215bbb874adecdc"},
)

Loader = Callable[..., Dataset]
REGISTRY: dict[str, tuple[Loader, Description]] = {
    description.name: (loader, description)
    for loader, description in (
        (
            _adult,
            Description(
                "adult",
                "48,842 people (32,561 for training) with 14 mixed columns; is the income above 50,000 dollars?",
                True,
                ADULT_FILES,
            ),
        ),
        (
            _breast_cancer,
            Description("breast_cancer", "569 tumours with 30 measurements, malignant or benign.", False, ()),
        ),
        (
            _cifar10,
            Description(
                "cifar10", "60,000 colour photographs (50,000 for training), 3×32×32, 10 classes.", True, CIFAR10_FILES
            ),
        ),
        (
            _diabetes,
            Description(
                "diabetes", "442 patients with 10 measurements; the disease's progression is predicted.", False, ()
            ),
        ),
        (_digits, Description("digits", "1,797 handwritten digits, 1×8×8, 10 classes.", False, ())),
        (
            _fashion_mnist,
            Description(
                "fashion_mnist",
                "70,000 pictures of clothes (60,000 for training), 1×28×28, 10 classes.",
                True,
                FASHION_FILES,
            ),
        ),
        (_iris, Description("iris", "150 irises with 4 lengths, of three species.", False, ())),
        (
            _mnist,
            Description(
                "mnist", "70,000 handwritten digits (60,000 for training), 1×28×28, 10 classes.", True, MNIST_FILES
            ),
        ),
        (_wine, Description("wine", "178 wines with 13 measurements, of three cultivars.", False, ())),
    )
}


def names() -> tuple[str, ...]:
    """Return the names of all datasets, sorted.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> names()
    ('adult', 'breast_cancer', 'cifar10', 'diabetes', 'digits', 'fashion_mnist', 'iris', 'mnist', 'wine')
    """
    return tuple(sorted(REGISTRY))


def describe(name: str) -> Description:
    """Return what is known of a dataset without loading it.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Returns
    -------
    Description

    Raises
    ------
    ValueError
        If there is no such dataset.

    Examples
    --------
    >>> describe("digits").summary
    '1,797 handwritten digits, 1×8×8, 10 classes.'
    """
    return _entry(name)[1]


def load(name: str, split: Split | str | None = None, *, root: Path | str | None = None, **options: Any) -> Dataset:
    """Load a dataset.

    Files are sought in the folder named by the environment variable ``OFFPRINT_DATA`` and then in the user's cache, in
    the layout of their authors: ``MNIST/raw/*-ubyte[.gz]``, ``FashionMNIST/raw/*-ubyte[.gz]``, ``cifar-10-batches-py/``
    or ``cifar-10-python.tar.gz``, ``adult/adult.data`` with ``adult/adult.test``, or ``adult/adult.csv``.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    split : {"train", "test", "all"}, optional
        By default the training part where there is an official split, and everything where there is none. Where there
        is none, "test" is every fifth row of each class (of all rows where the target is real), the same in every call.
    root : Path or str, optional
        Seek files below this folder only.
    **options
        ``encoding="one_hot"`` for adult (see :func:`.load_adult`). No other dataset takes any.

    Returns
    -------
    Dataset
        With fresh arrays, in the forms that :class:`.Dataset` describes.

    Raises
    ------
    ValueError
        If there is no such dataset, split or option, or a file is malformed.
    MissingDataError
        If files are missing; the message says where they were sought and how to get them.

    Examples
    --------
    >>> data = load("digits", "train")
    >>> data.inputs.shape, data.inputs.dtype, data.classes[:3]
    ((1442, 1, 8, 8), dtype('float32'), ('0', '1', '2'))
    """
    loader, description = _entry(name)
    if split is None:
        split = "train" if description.official_split else "all"
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}; got {split!r}")
    if unknown := sorted(options.keys() - ({"encoding"} if name == "adult" else set())):
        raise ValueError(f"{name} takes no option {', '.join(unknown)}")
    return loader(cast(Split, split), roots() if root is None else (Path(root),), **options)


def get(
    name: str, progress: Progress | None = None, base_url: str | None = None, *, root: Path | str | None = None
) -> Path:
    """Download a dataset's files, unless they are there already, and return the folder below which they lie.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    progress : callable, optional
        Called as ``progress(done, total, file)`` in bytes; ``total`` is 0 where unknown.
    base_url : str, optional
        Download from here rather than from the files' own addresses: ``<base_url>/<file>``.
    root : Path or str, optional
        Where files go; by default the folder named by ``OFFPRINT_DATA``, or else the user's cache.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If there is no such dataset, or it comes with scikit-learn and has nothing to download.
    DownloadError
        If a file cannot be had, or has a wrong digest.

    Notes
    -----
    A download that was cut goes on where it stopped. Files with a wrong digest never take their place.

    Examples
    --------
    >>> get("digits")
    Traceback (most recent call last):
    ValueError: digits comes with scikit-learn: there is nothing to download
    """
    files = describe(name).files
    if not files:
        raise ValueError(f"{name} comes with scikit-learn: there is nothing to download")
    folder = roots()[0] if root is None else Path(root)
    for file in files:
        fetch(file, folder, progress, base_url)
    return folder


def _entry(name: str) -> tuple[Loader, Description]:
    if name not in REGISTRY:
        raise ValueError(f"name must be one of {', '.join(names())}; got {name!r}")
    return REGISTRY[name]
