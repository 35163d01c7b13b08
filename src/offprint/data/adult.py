"""UCI Adult (Census Income): the official files, or a CSV file with a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped

from offprint.data.dataset import Dataset, Split
from offprint.data.files import find

Encoding = Literal["columns", "one_hot"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NUMBER: tuple[str, ...] = ()
# Each column in the order of the official files, with its categories as adult.names lists them, sorted.
COLUMNS: dict[str, tuple[str, ...]] = {
    "age": NUMBER,
    "workclass": _words(
        "Federal-gov Local-gov Never-worked Private Self-emp-inc Self-emp-not-inc State-gov Without-pay"
    ),
    "fnlwgt": NUMBER,
    "education": _words(
        "10th 11th 12th 1st-4th 5th-6th 7th-8th 9th Assoc-acdm Assoc-voc Bachelors Doctorate HS-grad Masters "
        "Preschool Prof-school Some-college"
    ),
    "education-num": NUMBER,
    "marital-status": _words(
        "Divorced Married-AF-spouse Married-civ-spouse Married-spouse-absent Never-married Separated Widowed"
    ),
    "occupation": _words(
        "Adm-clerical Armed-Forces Craft-repair Exec-managerial Farming-fishing Handlers-cleaners Machine-op-inspct "
        "Other-service Priv-house-serv Prof-specialty Protective-serv Sales Tech-support Transport-moving"
    ),
    "relationship": _words("Husband Not-in-family Other-relative Own-child Unmarried Wife"),
    "race": _words("Amer-Indian-Eskimo Asian-Pac-Islander Black Other White"),
    "sex": _words("Female Male"),
    "capital-gain": NUMBER,
    "capital-loss": NUMBER,
    "hours-per-week": NUMBER,
    "native-country": _words(
        "Cambodia Canada China Columbia Cuba Dominican-Republic Ecuador El-Salvador England France Germany Greece "
        "Guatemala Haiti Holand-Netherlands Honduras Hong Hungary India Iran Ireland Italy Jamaica Japan Laos Mexico "
        "Nicaragua Outlying-US(Guam-USVI-etc) Peru Philippines Poland Portugal Puerto-Rico Scotland South Taiwan "
        "Thailand Trinadad&Tobago United-States Vietnam Yugoslavia"
    ),
}
CLASSES = ("<=50K", ">50K")
MISSING = "?"
TRAIN, TEST, CSV = "adult/adult.data", "adult/adult.test", "adult/adult.csv"


def load_adult(split: Split, places: Sequence[Path], encoding: Encoding | str = "columns") -> Dataset:
    """Load Adult: is a person's yearly income above 50,000 dollars (class 1)?

    Parameters
    ----------
    split : {"train", "test", "all"}
        "all" is the training part followed by the test part. A CSV file stands for the training part.
    places : sequence of Path
        Roots, best first.
    encoding : {"columns", "one_hot"}
        "columns" gives a structured array with the 14 official columns: numbers are float64 (missing: NaN), categories
        text (missing: empty). "one_hot" gives float64 of shape (n, 105): numbers as they are, one column of 0 and 1 for
        each of the 99 possible categories, all 0 where the category is missing.

    Returns
    -------
    Dataset

    Raises
    ------
    MissingDataError
        If files are missing.
    ValueError
        If a file is malformed, the message naming file, line and fault, or if ``encoding`` is unknown.

    Examples
    --------
    >>> load_adult("train", [])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    offprint.data.dataset.MissingDataError: adult is not here; get it with `offprint data get adult`. ...

    References
    ----------
    Becker and Kohavi, *Adult*, UCI Machine Learning Repository (1996).
    """
    if encoding not in ("columns", "one_hot"):
        raise ValueError(f"encoding must be 'columns' or 'one_hot'; got {encoding!r}")
    layouts = {"train": [[TRAIN], [CSV]], "test": [[TEST]], "all": [[TRAIN, TEST], [CSV, TEST]]}[split]
    paths = find("adult", layouts, places)
    rows, targets = [], []
    for path in paths:
        for values, target in _rows(path):
            rows.append(values)
            targets.append(target)
    inputs = np.array(rows, dtype=[(name, _dtype(known)) for name, known in COLUMNS.items()])
    names = tuple(COLUMNS)
    if encoding == "one_hot":
        inputs, names = _one_hot(inputs)
    labels = np.array(targets, dtype=np.int64)
    return Dataset(inputs, labels, "adult", split, str(paths[0].parent), CLASSES, names)


def _dtype(known: tuple[str, ...]) -> str:
    return f"U{max(map(len, known))}" if known else "f8"


def _rows(path: Path) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Yield the values and the class of each row."""
    n_rows = 0
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if path.suffix == ".csv" and reader.line_num == 1:
                _check_header(cells, where)
            elif cells and not cells[0].startswith("|"):  # the official test file begins with such a remark
                yield _parse(cells, where)
                n_rows += 1
    if n_rows == 0:
        raise ValueError(f"{path} holds no rows")


def _check_header(cells: list[str], where: str) -> None:
    names = [cell.strip().replace(".", "-").replace("_", "-") for cell in cells]
    if names[:-1] != list(COLUMNS):
        raise ValueError(f"{where} must name the columns {', '.join(COLUMNS)} and the income; it reads {cells}")


def _parse(cells: list[str], where: str) -> tuple[tuple[Any, ...], int]:
    if len(cells) != len(COLUMNS) + 1:
        raise ValueError(f"{where} must hold {len(COLUMNS) + 1} values; it holds {len(cells)}")
    *cells, label = [cell.strip() for cell in cells]
    label = label.removesuffix(".")  # the official test file ends its lines with a full stop
    if label not in CLASSES:
        raise ValueError(f"{where} must end with {' or '.join(CLASSES)}; it ends with {label!r}")
    values = (_value(cell, name, where) for cell, name in zip(cells, COLUMNS, strict=True))
    return tuple(values), CLASSES.index(label)


def _value(cell: str, name: str, where: str) -> float | str:
    known = COLUMNS[name]
    if known:
        if cell != MISSING and cell not in known:
            raise ValueError(f"{where} must hold a known {name}; it holds {cell!r}")
        return "" if cell == MISSING else cell
    if cell == MISSING:
        return float("nan")
    try:
        return float(int(cell))
    except ValueError:
        raise ValueError(f"{where} must hold a whole number for {name}; it holds {cell!r}") from None


def _one_hot(table: Shaped[np.ndarray, " n"]) -> tuple[Float[np.ndarray, "n 105"], tuple[str, ...]]:
    columns: list[Float[np.ndarray, "n width"]] = []
    names: list[str] = []
    for name, known in COLUMNS.items():
        if known:
            columns.append((table[name][:, None] == np.array(known)).astype(np.float64))
            names += [f"{name}={category}" for category in known]
        else:
            columns.append(table[name][:, None])
            names.append(name)
    return np.concatenate(columns, axis=1), tuple(names)
