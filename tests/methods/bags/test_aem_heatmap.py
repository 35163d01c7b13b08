"""Heat maps read back by the csv and json modules, and measured by the shoelace formula."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from jaxtyping import config

from offprint.methods.bags.aem import ACMIL, GatedABMIL, MILClassifier, PackedH5Dataset, export_heat_map

h5py = pytest.importorskip("h5py")
SIDE = 256


@pytest.fixture
def as_users_call_it(monkeypatch):
    """Switch the checks of annotations off, as they are outside the tests."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


@pytest.fixture
def slide():
    """Corners on a grid in random order, attention that adds up to one, and one pair of equals."""
    rng = np.random.default_rng(0)
    coords = SIDE * rng.permutation(np.stack(np.meshgrid(np.arange(7), np.arange(5)), axis=-1).reshape(-1, 2))
    attention = rng.dirichlet(np.ones(len(coords)))
    attention[3] = attention[8] = attention[[3, 8]].mean()
    return coords.astype(np.int64), attention


def signed_area(ring):
    """Shoelace formula: positive where corners run counterclockwise in x, y."""
    x, y = np.array(ring, dtype=float).T
    return 0.5 * float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


def ranks_by_counting(attention):
    """Rank from above and percentile, by comparing all pairs."""
    less = (attention[None, :] < attention[:, None]).sum(1)
    equal = (attention[None, :] == attention[:, None]).sum(1)
    return len(attention) - less - equal + 1, 100 * (less + (equal + 1) / 2) / len(attention)


def test_csv_reads_back_as_given(slide, tmp_path):
    coords, attention = slide
    assert export_heat_map(tmp_path / "map.csv", coords, attention, SIDE) == len(coords)
    with (tmp_path / "map.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [[int(row["x"]), int(row["y"])] for row in rows] == coords.tolist()
    assert [float(row["attention"]) for row in rows] == attention.tolist()  # digits enough to lose no bit
    assert {row["patch_size"] for row in rows} == {str(SIDE)}
    ranks, percentiles = ranks_by_counting(attention)
    assert [int(row["rank"]) for row in rows] == ranks.tolist()
    np.testing.assert_allclose([float(row["percentile"]) for row in rows], percentiles, rtol=1e-12)


def test_geojson_holds_a_square_per_patch(slide, tmp_path):
    coords, attention = slide
    export_heat_map(tmp_path / "map.geojson", coords, attention, SIDE)
    collection = json.loads((tmp_path / "map.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    features = collection["features"]
    assert len(features) == len(coords)
    ranks, percentiles = ranks_by_counting(attention)
    for i, feature in enumerate(features):
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert len(ring) == 5
        assert signed_area(ring) == SIDE**2  # counterclockwise, as RFC 7946 has it
        assert np.min(ring, axis=0).tolist() == coords[i].tolist()
        assert np.max(ring, axis=0).tolist() == (coords[i] + SIDE).tolist()
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert properties["attention"] == attention[i]
        assert properties["rank"] == ranks[i]
        assert properties["percentile"] == pytest.approx(percentiles[i], rel=1e-12)
        assert properties["measurements"] == {key: properties[key] for key in ("attention", "rank", "percentile")}
    assert sum(feature["properties"]["attention"] for feature in features) == pytest.approx(1, abs=1e-12)


def test_more_patches_than_are_turned_at_a_time_keep_their_order(tmp_path):
    n = 9001
    coords = np.stack([np.arange(n), np.zeros(n, dtype=np.int64)], axis=1)
    attention = np.random.default_rng(0).dirichlet(np.ones(n)).astype(np.float32)
    assert export_heat_map(tmp_path / "map.csv", torch.from_numpy(coords), torch.from_numpy(attention), 1) == n
    table = np.loadtxt(tmp_path / "map.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table[:, 0], coords[:, 0])
    np.testing.assert_array_equal(table[:, 3], attention)
    np.testing.assert_array_equal(table[:, 4].argsort(kind="stable"), np.argsort(-attention, kind="stable"))


def test_of_several_rows_the_mean_of_those_that_see_is_written(slide, tmp_path):
    coords, attention = slide
    rows = np.stack([attention, np.zeros_like(attention), attention[::-1]])
    export_heat_map(tmp_path / "map.json", coords, rows, SIDE)
    features = json.loads((tmp_path / "map.json").read_text())["features"]
    expected = (attention + attention[::-1]) / 2
    assert [one["properties"]["attention"] for one in features] == pytest.approx(expected.tolist(), rel=1e-12)


@pytest.mark.parametrize("make", [GatedABMIL, ACMIL])
def test_a_classifier_on_packed_slides_gives_what_is_written(make, tmp_path):
    """From file to file: patches, attention of the fitted model by its own softmax, heat map."""
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        for i in range(4):
            group = file.create_group(f"slide_{i}")
            group["feat"] = rng.normal(size=(12 + i, 8)).astype(np.float16)
            group["coords"] = rng.integers(10**5, size=(12 + i, 2)).astype(np.int32)
            group.attrs["label"] = i % 2
    slides = PackedH5Dataset(tmp_path / "packed.h5")
    classifier = MILClassifier(make(8, 2, 4, 4, generator=0), epochs=1).fit(slides)
    slide = slides[3]
    export_heat_map(tmp_path / "map.csv", slide.coords, classifier.attention(slide.features), 512)
    table = np.loadtxt(tmp_path / "map.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table[:, :2], slide.coords)
    with torch.no_grad():
        logits = classifier.model(slide.features).attention_logits[0]
    np.testing.assert_allclose(table[:, 3], logits.softmax(1).mean(0), rtol=1e-5)
    assert table[:, 3].sum() == pytest.approx(1, abs=1e-5)


def test_a_failure_leaves_what_was_there(slide, tmp_path, monkeypatch):
    coords, attention = slide
    path = tmp_path / "map.geojson"
    path.write_text("before")

    def full_disk(patch):
        raise OSError("no space left")

    monkeypatch.setattr("offprint.methods.bags.aem.heatmap._feature", full_disk)
    with pytest.raises(OSError, match="no space left"):
        export_heat_map(path, coords, attention, SIDE)
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["map.geojson"]


GOOD = {"coords": np.array([[0, 0], [9, 0]]), "attention": np.array([0.5, 0.5]), "patch_size": 9}


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"coords": np.array([[0.0, 0.0], [9.0, 0.0]])}, TypeError, "coords must be whole numbers"),
        ({"coords": np.array([0, 9])}, ValueError, r"coords must be of shape \(n, 2\)"),
        ({"coords": np.zeros((0, 2), dtype=int)}, ValueError, "coords must be of shape"),
        ({"coords": np.zeros((3, 2), dtype=int)}, ValueError, "attention must hold one number per row of coords, 3"),
        ({"attention": np.array([0.5, np.nan])}, ValueError, "attention must be finite"),
        ({"attention": np.array([0.5, np.inf])}, ValueError, "attention must be finite"),
        ({"attention": np.array([-0.5, 1.5])}, ValueError, "attention must be at least 0, so taken after the softmax"),
        ({"attention": np.zeros(2)}, ValueError, "attention must be above 0 somewhere"),
        ({"attention": np.array([1, 0])}, TypeError, "attention must be floating-point"),
        ({"attention": np.full((1, 1, 2), 0.5)}, ValueError, "attention must be of shape"),
        ({"patch_size": 0}, ValueError, "patch_size must be at least 1"),
        ({"patch_size": 9.0}, TypeError, "patch_size must be a whole number"),
        ({"patch_size": True}, TypeError, "patch_size must be a whole number"),
        ({"file_format": "png"}, ValueError, "file_format must be 'csv' or 'geojson'"),
    ],
)
def test_what_is_no_heat_map_is_refused_by_name(tmp_path, change, error, named):
    with pytest.raises(error, match=named):
        export_heat_map(tmp_path / "map.csv", **(GOOD | change))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_ending_needs_the_format(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.csv, \.geojson, \.json, or file_format be given"):
        export_heat_map(tmp_path / "map.txt", **GOOD)
    assert export_heat_map(tmp_path / "map.txt", **GOOD, file_format="csv") == 2
