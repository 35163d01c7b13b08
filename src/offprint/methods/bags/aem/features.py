"""Slides from files: folders of features as CLAM writes them, and one packed HDF5 file; one slide in memory."""

from __future__ import annotations

import csv
import importlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from offprint.methods.bags.aem.slides import SlideDataset

SHOWN = 5
SPLITS = ("train", "val", "test")
COLUMNS = ("case_id", "slide_id", "label")


class CLAMFeatureDataset(SlideDataset):
    r"""Slides in a folder of features as CLAM writes it: ``pt_files`` or ``h5_files``, and a table of labels.

    Parameters
    ----------
    root : str or Path
        Holds ``pt_files/<slide_id>.pt``, a tensor of shape (n, features), or ``h5_files/<slide_id>.h5`` with datasets
        ``features`` of shape (n, features) and ``coords`` of shape (n, 2).
    table : str or Path
        CSV with the columns ``case_id``, ``slide_id`` and ``label``.
    split_table : str or Path, optional
        CSV with columns ``train``, ``val`` and ``test`` of slide ids; without one all slides are taken.
    split : {"train", "val", "test"}
        Which column.
    label_map : mapping of str to int, optional
        Class of each label; by default the sorted labels are numbered from 0.
    source : {"pt", "h5"}
        Which files; only the latter have coordinates.
    max_instances : int, optional
        Keep a random choice of so many patches of a slide, the same each time.
    seed : int
        Of that choice.
    shared_cases : bool
        Accept a split table that puts a patient's slides into several splits.

    Raises
    ------
    ValueError
        If a table lacks a column or has rows of a slide that differ, a label is not in ``label_map``, a slide of the
        split is not in the table, or a patient is in several splits; on reading, if a slide is empty, not finite or of
        another width than the first one read, named.
    FileNotFoundError
        If files of slides are missing; the first five are listed.
    ImportError
        On reading "h5" files, if the package h5py is missing.

    Notes
    -----
    Nothing is read before it is asked for, and nothing is kept: the memory is that of one slide, and files are mapped
    into it where their layout allows, so that of a slide with many patches only those that ``max_instances`` keeps are
    read. Tensors are read with ``weights_only=True``, so that a file cannot run code.

    Examples
    --------
    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "pt_files").mkdir()
    >>> torch.save(torch.ones(20, 8), root / "pt_files" / "slide_1.pt")
    >>> _ = (root / "labels.csv").write_text("case_id,slide_id,label\npatient_1,slide_1,tumour\n")
    >>> dataset = CLAMFeatureDataset(root, root / "labels.csv", label_map={"normal": 0, "tumour": 1})
    >>> dataset[0].slide_id, dataset[0].label, dataset[0].features.shape
    ('slide_1', 1, torch.Size([20, 8]))

    References
    ----------
    Lu et al., *Data-efficient and weakly supervised computational pathology on whole-slide images*, Nature Biomedical
    Engineering 5 (2021), and the layout of its released code.
    """

    def __init__(
        self,
        root: str | Path,
        table: str | Path,
        split_table: str | Path | None = None,
        split: Literal["train", "val", "test"] = "train",
        label_map: Mapping[str, int] | None = None,
        source: Literal["pt", "h5"] = "pt",
        max_instances: int | None = None,
        seed: int = 0,
        *,
        shared_cases: bool = False,
    ) -> None:
        if source not in ("pt", "h5"):
            raise ValueError(f"source must be 'pt' or 'h5'; got {source!r}")
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
        self.root, self.source = Path(root), source
        rows = _by_slide(Path(table))
        cases = {slide_id: row["case_id"] for slide_id, row in rows.items()}
        chosen = list(rows)
        if split_table is not None:
            columns = _splits(Path(split_table), rows)
            if not shared_cases:
                _refuse_shared_cases(columns, cases)
            chosen = columns[split]
        self.label_map = dict(label_map or _numbered(row["label"] for row in rows.values()))
        unknown = sorted({rows[slide_id]["label"] for slide_id in chosen} - self.label_map.keys())
        if unknown:
            raise ValueError(f"label_map must hold every label, of {sorted(self.label_map)}; got {_some(unknown)}")
        missing = [slide_id for slide_id in chosen if not self._path(slide_id).is_file()]
        if missing:
            raise FileNotFoundError(f"no file for {_some(missing)} in {self._path(missing[0]).parent}")
        labels = {slide_id: self.label_map[rows[slide_id]["label"]] for slide_id in chosen}
        super().__init__(labels, cases, max_instances, seed)

    def read(self, slide_id: str) -> tuple[Shaped[Tensor, "..."], Int[Tensor, "..."] | None]:
        """Return features and, from "h5" files, coordinates of a slide."""
        if self.source == "pt":
            path = self._path(slide_id)
            # Files that torch wrote before it wrote archives cannot be mapped into memory.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
            if not isinstance(found, Tensor):
                raise ValueError(f"{path} must hold a tensor; got {type(found).__name__}")
            return found, None
        with _h5py().File(self._path(slide_id), "r") as file:
            return _from_group(file, "features", slide_id)

    def _path(self, slide_id: str) -> Path:
        return self.root / f"{self.source}_files" / f"{slide_id}.{self.source}"


class PackedH5Dataset(SlideDataset):
    """Slides packed into one HDF5 file, as AEM's released code reads it: a group per slide.

    Parameters
    ----------
    path : str or Path
        Each group is named after its slide, has datasets ``feat`` of shape (n, features), of any precision, and
        ``coords`` of shape (n, 2), and an attribute ``label``.
    slide_ids : sequence of str, optional
        Which slides; by default all.
    case_of : callable or mapping, optional
        From a slide's name to its patient, for :meth:`split_by_case`; by default each slide is a patient.
    max_instances : int, optional
        Keep a random choice of so many patches of a slide, the same each time.
    seed : int
        Of that choice.

    Raises
    ------
    ValueError
        If a slide is not in the file or has no label or features; on reading, if it is empty, not finite or of another
        width than the first one read, named.
    FileNotFoundError
        If there is no such file.
    ImportError
        If the package h5py is missing.

    Notes
    -----
    Names and labels are read at once, features when they are asked for, and then cast to float32: the memory is that of
    one slide. Features that are stored in one piece, neither chunked nor compressed, are mapped into memory, so that of
    a slide with many patches only those that ``max_instances`` keeps are read. The file is opened anew for each slide,
    so that workers of a DataLoader do not share it.

    Examples
    --------
    >>> import tempfile, h5py
    >>> path = Path(tempfile.mkdtemp()) / "packed.h5"
    >>> with h5py.File(path, "w") as file:
    ...     group = file.create_group("slide_1")
    ...     group.attrs["label"] = 1
    ...     group["feat"], group["coords"] = np.ones((20, 8), np.float16), np.zeros((20, 2), int)
    >>> slide = PackedH5Dataset(path)[0]
    >>> slide.label, slide.features.dtype, slide.coords.shape
    (1, torch.float32, torch.Size([20, 2]))

    References
    ----------
    Zhang et al., arXiv:2406.15303, the layout of its released code.
    """

    def __init__(
        self,
        path: str | Path,
        slide_ids: Sequence[str] | None = None,
        case_of: Callable[[str], str] | Mapping[str, str] | None = None,
        max_instances: int | None = None,
        seed: int = 0,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"path must be an HDF5 file; there is none at {self.path}")
        with _h5py().File(self.path, "r") as file:
            chosen = list(file) if slide_ids is None else list(slide_ids)
            missing = [name for name in chosen if name not in file]
            if missing:
                raise ValueError(f"slide_ids must be in {self.path}; it lacks {_some(missing)}")
            bare = [name for name in chosen if "label" not in file[name].attrs or "feat" not in file[name]]
            if bare:
                raise ValueError(f"each group must have an attribute label and a dataset feat; not so {_some(bare)}")
            labels = {name: int(file[name].attrs["label"]) for name in chosen}
        named = case_of.__getitem__ if isinstance(case_of, Mapping) else case_of
        super().__init__(labels, {name: name if named is None else named(name) for name in chosen}, max_instances, seed)

    def read(self, slide_id: str) -> tuple[Shaped[Tensor, "..."], Int[Tensor, "..."] | None]:
        """Return features and coordinates of a slide."""
        with _h5py().File(self.path, "r") as file:
            return _from_group(file[slide_id], "feat", slide_id)


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError("reading HDF5 files needs the package h5py: pip install 'offprint[hdf5]'") from error


def _from_group(group: Any, name: str, slide_id: str) -> tuple[Tensor, Tensor | None]:
    if name not in group:
        raise ValueError(f"slide {slide_id} must have a dataset {name}; it has {', '.join(group) or 'none'}")
    coords = torch.from_numpy(group["coords"][:].astype(np.int64)) if "coords" in group else None
    return torch.from_numpy(_rows(group[name])), coords


def _rows(dataset: Any) -> Shaped[np.ndarray, "..."]:
    """Map a dataset that lies in the file in one piece into memory, and read any other."""
    offset = dataset.id.get_offset()
    if offset is None or dataset.external is not None or not dataset.dtype.isnative:
        rows: Shaped[np.ndarray, "..."] = dataset.astype(dataset.dtype.newbyteorder("="))[:]
        return rows
    # Copy on write: nobody can change the file through it.
    return np.memmap(dataset.file.filename, dataset.dtype, "c", offset, dataset.shape)


def _table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} must have the columns {', '.join(columns)}; it lacks {', '.join(missing)}")
        return list(reader)


def _by_slide(path: Path) -> dict[str, dict[str, str]]:
    """Return the row of each slide; a slide may be named twice where both rows say the same of it."""
    found: dict[str, dict[str, str]] = {}
    for row in _table(path, COLUMNS):
        first = found.setdefault(row["slide_id"], row)
        if any(first[column] != row[column] for column in COLUMNS):
            raise ValueError(
                f"{path} must say one thing of each slide; it has two rows of {row['slide_id']} that differ"
            )
    return found


def _splits(path: Path, rows: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the slides of each split; columns are of unequal lengths, filled up with nothing."""
    table = _table(path, SPLITS)
    columns = {split: [row[split] for row in table if row[split]] for split in SPLITS}
    unknown = [slide_id for column in columns.values() for slide_id in column if slide_id not in rows]
    if unknown:
        raise ValueError(f"{path} must name slides of the table of labels; unknown: {_some(unknown)}")
    return columns


def _refuse_shared_cases(columns: Mapping[str, Sequence[str]], cases: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    shared = [
        cases[slide_id]
        for split, column in columns.items()
        for slide_id in column
        if seen.setdefault(cases[slide_id], split) != split
    ]
    if shared:
        raise ValueError(
            f"no patient may be in two splits; so are {_some(sorted(set(shared)))}. Where that is meant, pass "
            "shared_cases=True"
        )


def _numbered(labels: Iterator[str]) -> dict[str, int]:
    return {label: code for code, label in enumerate(sorted(set(labels)))}


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
