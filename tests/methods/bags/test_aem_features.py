"""Loaders: folders and files written here in the layouts of CLAM and AEM, read back, and what is wrong in them."""

from __future__ import annotations

import builtins
import importlib
import pickle
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import config

from offprint.methods.bags.aem import CLAMFeatureDataset, PackedH5Dataset
from offprint.methods.bags.aem.slides import SlideDataset

h5py = pytest.importorskip("h5py")
NAMES = [f"slide_{i}" for i in range(5)]
CASES = {"slide_0": "a", "slide_1": "a", "slide_2": "b", "slide_3": "c", "slide_4": "d"}
LABELS = dict(zip(NAMES, ("normal", "tumour", "normal", "tumour", "tumour"), strict=True))


@pytest.fixture
def as_users_call_it(monkeypatch):
    """Switch the checks of annotations off, as they are outside the tests."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        name: (rng.normal(size=(n, 6)).astype(np.float32), rng.integers(10**5, size=(n, 2)).astype(np.int32))
        for name, n in zip(NAMES, (7, 1, 12, 4, 9), strict=True)
    }


@pytest.fixture
def root(tmp_path, arrays):
    (tmp_path / "pt_files").mkdir()
    (tmp_path / "h5_files").mkdir()
    for name, (features, coords) in arrays.items():
        torch.save(torch.from_numpy(features), tmp_path / "pt_files" / f"{name}.pt")
        with h5py.File(tmp_path / "h5_files" / f"{name}.h5", "w") as file:
            file["features"], file["coords"] = features, coords
    lines = ["case_id,slide_id,label", *(f"{CASES[name]},{name},{LABELS[name]}" for name in NAMES)]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "splits.csv").write_text(",train,val,test\n0,slide_0,slide_2,slide_3\n1,slide_1,,slide_4\n")
    return tmp_path


@pytest.fixture
def packed(tmp_path, arrays):
    path = tmp_path / "packed.h5"
    with h5py.File(path, "w") as file:
        for name, (features, coords) in arrays.items():
            group = file.create_group(name)
            group["feat"], group["coords"] = features.astype(np.float16), coords
            group.attrs["label"] = int(LABELS[name] == "tumour")
    return path


@pytest.mark.parametrize("source", ["pt", "h5"])
def test_a_clam_folder_reads_back_as_written(root, arrays, source):
    dataset = CLAMFeatureDataset(root, root / "labels.csv", source=source)
    assert [slide.slide_id for slide in dataset] == NAMES
    assert dataset.label_map == {"normal": 0, "tumour": 1}
    assert dataset.labels == [0, 1, 0, 1, 1]
    for slide in dataset:
        features, coords = arrays[slide.slide_id]
        np.testing.assert_array_equal(slide.features, features)
        assert slide.features.dtype == torch.float32
        assert slide.label == (LABELS[slide.slide_id] == "tumour")
        if source == "pt":
            assert slide.coords is None
        else:
            np.testing.assert_array_equal(slide.coords, coords)


def test_a_packed_file_reads_back_as_written(packed, arrays):
    dataset = PackedH5Dataset(packed)
    assert sorted(dataset.slide_ids) == NAMES
    for slide in dataset:
        features, coords = arrays[slide.slide_id]
        np.testing.assert_array_equal(slide.features, features.astype(np.float16).astype(np.float32))
        np.testing.assert_array_equal(slide.coords, coords)
        assert slide.features.dtype == torch.float32
        assert slide.label == (LABELS[slide.slide_id] == "tumour")
    assert PackedH5Dataset(packed, ["slide_3", "slide_1"]).slide_ids == ["slide_3", "slide_1"]
    assert pickle.loads(pickle.dumps(dataset))[2].features.shape == (12, 6)  # as workers of a DataLoader get it


def test_splits_are_those_of_the_table(root):
    found = {
        split: CLAMFeatureDataset(root, root / "labels.csv", root / "splits.csv", split).slide_ids
        for split in ("train", "val", "test")
    }
    assert found == {"train": NAMES[:2], "val": NAMES[2:3], "test": NAMES[3:]}


def test_no_patient_is_in_two_splits_unless_meant(root):
    (root / "splits.csv").write_text("train,val,test\nslide_0,slide_1,slide_3\n")
    with pytest.raises(ValueError, match=r"so are a\."):
        CLAMFeatureDataset(root, root / "labels.csv", root / "splits.csv")
    dataset = CLAMFeatureDataset(root, root / "labels.csv", root / "splits.csv", "val", shared_cases=True)
    assert dataset.slide_ids == ["slide_1"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_held_out_patients_share_no_slide_with_the_rest(root, packed, share):
    for dataset in (
        CLAMFeatureDataset(root, root / "labels.csv"),
        PackedH5Dataset(packed, case_of=CASES),
        PackedH5Dataset(packed, case_of=CASES.get),
    ):
        for seed in range(5):
            kept, held_out = dataset.split_by_case(share, seed)
            assert sorted([*kept.slide_ids, *held_out.slide_ids]) == NAMES
            assert not {CASES[name] for name in kept.slide_ids} & {CASES[name] for name in held_out.slide_ids}
            assert len(set(held_out.cases)) == {0.1: 1, 0.5: 2, 0.9: 3}[share]
            assert [slide.slide_id for slide in held_out] == held_out.slide_ids
            assert held_out.labels == [slide.label for slide in held_out]
    with pytest.raises(ValueError, match="two patients"):
        PackedH5Dataset(packed, case_of=lambda name: "same").split_by_case()


def test_a_capped_slide_keeps_the_same_patches_with_their_places(root, arrays):
    whole = CLAMFeatureDataset(root, root / "labels.csv", source="h5")
    capped = CLAMFeatureDataset(root, root / "labels.csv", source="h5", max_instances=5, seed=3)
    assert [len(slide.features) for slide in capped] == [5, 1, 5, 4, 5]
    features, coords = arrays["slide_2"]
    rows = [int(np.flatnonzero((features == row).all(1))[0]) for row in capped[2].features.numpy()]
    assert len(set(rows)) == 5
    np.testing.assert_array_equal(capped[2].coords, coords[rows])
    assert torch.equal(capped[2].features, capped[2].features)
    other = CLAMFeatureDataset(root, root / "labels.csv", source="h5", max_instances=5, seed=4)
    assert not torch.equal(capped[2].features, other[2].features)
    assert len(whole[2].features) == 12


def test_nothing_is_read_early_and_nothing_is_kept(root, packed, monkeypatch):
    read = []
    for dataset in (CLAMFeatureDataset(root, root / "labels.csv"), PackedH5Dataset(packed)):
        original = type(dataset).read
        monkeypatch.setattr(type(dataset), "read", lambda self, name, to=original: read.append(name) or to(self, name))
        read.clear()
        kept, _ = dataset.split_by_case(0.3)
        assert len(kept) > 0
        assert read == []
        slides = []
        for slide in dataset:
            slides.append(weakref.ref(slide.features))
            del slide
            assert sum(one() is not None for one in slides) == 0
        assert sorted(read) == NAMES


def mapped(path) -> bool:
    with open("/proc/self/maps") as file:
        return any(line.rstrip().endswith(str(path)) for line in file)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_files_in_one_piece_are_mapped_and_others_are_read(root, packed, arrays):
    """What the system says of this process; and what is written into a slide does not come into its file."""
    path = root / "pt_files" / "slide_0.pt"
    slide = CLAMFeatureDataset(root, root / "labels.csv")[0]
    assert mapped(path)
    slide.features[:] = 0
    del slide
    assert not mapped(path)
    np.testing.assert_array_equal(CLAMFeatureDataset(root, root / "labels.csv")[0].features, arrays["slide_0"][0])

    torch.save(torch.from_numpy(arrays["slide_1"][0]), root / "old.pt", _use_new_zipfile_serialization=False)
    (root / "old.pt").replace(root / "pt_files" / "slide_1.pt")
    np.testing.assert_array_equal(CLAMFeatureDataset(root, root / "labels.csv")[1].features, arrays["slide_1"][0])

    path = root / "h5_files" / "slide_0.h5"
    with h5py.File(root / "h5_files" / "slide_1.h5", "w", userblock_size=512) as file:
        file["features"], file["coords"] = arrays["slide_1"]
    with h5py.File(root / "h5_files" / "slide_2.h5", "w") as file:
        file.create_dataset("features", data=arrays["slide_2"][0], chunks=(4, 6), compression="gzip")
    with h5py.File(root / "h5_files" / "slide_3.h5", "w") as file:
        file["features"] = arrays["slide_3"][0].astype(">f4")
    dataset = CLAMFeatureDataset(root, root / "labels.csv", source="h5")
    for index, in_one_piece in enumerate((True, True, False, False)):
        slide = dataset[index]
        assert mapped(root / "h5_files" / f"slide_{index}.h5") == in_one_piece
        np.testing.assert_array_equal(slide.features, arrays[f"slide_{index}"][0])
        del slide


def test_of_a_capped_slide_only_the_patches_that_are_kept_are_looked_at(root, arrays):
    features = torch.from_numpy(arrays["slide_2"][0].copy())
    kept = CLAMFeatureDataset(root, root / "labels.csv", max_instances=5)[2].features
    alien = [row for row in range(12) if not (features[row] == kept).all(1).any()]
    features[alien] = torch.nan
    save(root, "slide_2", features)
    assert torch.equal(CLAMFeatureDataset(root, root / "labels.csv", max_instances=5)[2].features, kept)
    with pytest.raises(ValueError, match=r"slide_2.*NaN"):
        CLAMFeatureDataset(root, root / "labels.csv")[2]


def test_slides_become_ragged_bags(root, arrays):
    dataset = CLAMFeatureDataset(root, root / "labels.csv")
    for bags, names in ((dataset.bags(), NAMES), (dataset.bags([3, 1]), ["slide_3", "slide_1"])):
        assert bags.n_bags == len(names)
        for bag, name in zip(bags, names, strict=True):
            np.testing.assert_array_equal(bag, arrays[name][0])


def test_files_cannot_run_code(root):
    class Evil:
        def __reduce__(self):
            return builtins.print, ("ran",)

    torch.save(Evil(), root / "pt_files" / "slide_0.pt")
    with pytest.raises(pickle.UnpicklingError):
        CLAMFeatureDataset(root, root / "labels.csv")[0]


def test_missing_files_are_listed_up_to_five(root):
    for name in NAMES[1:3]:
        (root / "pt_files" / f"{name}.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"slide_1, slide_2 in .*pt_files$"):
        CLAMFeatureDataset(root, root / "labels.csv")
    lines = ["case_id,slide_id,label", *(f"{i},gone_{i},normal" for i in range(8))]
    (root / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(FileNotFoundError, match=r"gone_0, gone_1, gone_2, gone_3, gone_4 and 3 more in"):
        CLAMFeatureDataset(root, root / "labels.csv")
    with pytest.raises(FileNotFoundError, match="path must be"):
        PackedH5Dataset(root / "none.h5")


def save(root, name, content):
    torch.save(content, root / "pt_files" / f"{name}.pt")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (torch.zeros(0, 6), "slide_3.*n at least 1"),
        (torch.full((2, 6), torch.nan), "slide_3.*NaN"),
        (torch.zeros(2, 5), "slide_3 has 5, slide slide_0 has 6"),
        (torch.zeros(2, 6, dtype=torch.int64), "slide_3.*floating"),
        ([1, 2], r"slide_3\.pt must hold a tensor"),
    ],
)
def test_a_bad_slide_is_named(root, content, named, as_users_call_it):
    save(root, "slide_3", content)
    dataset = CLAMFeatureDataset(root, root / "labels.csv")
    assert dataset.width == 6
    with pytest.raises(ValueError, match=named):
        dataset[3]


def test_tables_that_do_not_fit_are_refused_by_name(root, packed, as_users_call_it):
    table = root / "labels.csv"
    with pytest.raises(ValueError, match=r"label_map.*tumour"):
        CLAMFeatureDataset(root, table, label_map={"normal": 0})
    with pytest.raises(ValueError, match="source"):
        CLAMFeatureDataset(root, table, source="npy")
    with pytest.raises(ValueError, match="split must be"):
        CLAMFeatureDataset(root, table, split="training")
    with pytest.raises(ValueError, match="max_instances"):
        CLAMFeatureDataset(root, table, max_instances=0)
    (root / "splits.csv").write_text("train,val,test\nother,slide_2,slide_3\n")
    with pytest.raises(ValueError, match=r"splits\.csv.*unknown: other"):
        CLAMFeatureDataset(root, table, root / "splits.csv")
    once = table.read_text()
    table.write_text(once + "a,slide_0,normal\n")
    assert len(CLAMFeatureDataset(root, table)) == 5
    table.write_text(once + "a,slide_0,tumour\n")
    with pytest.raises(ValueError, match=r"labels\.csv.*two rows of slide_0 that differ"):
        CLAMFeatureDataset(root, table)
    table.write_text("slide,label\nslide_0,normal\n")
    with pytest.raises(ValueError, match=r"columns.*lacks case_id, slide_id"):
        CLAMFeatureDataset(root, table)
    with pytest.raises(ValueError, match=r"slide_ids.*slide_9"):
        PackedH5Dataset(packed, ["slide_9"])
    with h5py.File(packed, "a") as file:
        del file["slide_1"].attrs["label"]
    with pytest.raises(ValueError, match=r"attribute label.*slide_1"):
        PackedH5Dataset(packed)
    with pytest.raises(IndexError, match="index"):
        PackedH5Dataset(packed, ["slide_0"])[1]
    with pytest.raises(ValueError, match="share"):
        PackedH5Dataset(packed, NAMES[2:]).split_by_case(1.0)


def test_coordinates_that_do_not_match_are_refused(root):
    with h5py.File(root / "h5_files" / "slide_0.h5", "a") as file:
        del file["coords"]
        file["coords"] = np.zeros((3, 2), int)
    with pytest.raises(ValueError, match="coords of slide slide_0"):
        CLAMFeatureDataset(root, root / "labels.csv", source="h5")[0]


def test_without_h5py_its_name_and_the_extra_are_told(packed, root, monkeypatch):
    real = importlib.import_module

    def without(name, *rest):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    assert len(CLAMFeatureDataset(root, root / "labels.csv")[0].features) == 7  # which needs none
    with pytest.raises(ImportError, match=r"h5py.*pip install"):
        PackedH5Dataset(packed)


def test_a_format_of_ones_own_is_a_small_subclass():
    class Mine(SlideDataset):
        def read(self, slide_id):
            return torch.full((3, 2), float(slide_id)), None

    dataset = Mine({"1": 0, "2": 1}, {"1": "a", "2": "b"})
    assert [slide.features.mean().item() for slide in dataset] == [1, 2]
