"""Sets of faces: small files in the published layout, written here, whole and damaged."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from jaxtyping import config
from PIL import Image

from offprint.data import MissingDataError
from offprint.data.celeba import celeba_sets
from offprint.methods.bags.inset import SubsetSelector

NAMES = ("Bald", "Hat", "Male", "Young")
N = 240
HAS = np.random.default_rng(0).random((N, 4)) < 0.5
PARTS = np.arange(N) % 3


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


def attribute_lines() -> list[str]:
    rows = [f"{k:06d}.jpg " + " ".join(" 1" if one else "-1" for one in HAS[k]) for k in range(N)]
    return [str(N), " ".join(NAMES), *rows]


def write(root, *, folders=("", "", ""), attributes=None, partition=None):
    """Write images of 12 by 18 pixels whose colours tell which image it is and where a pixel lies."""
    anno, eval_, img = (root / name for name in folders)
    (img / "img_align_celeba").mkdir(parents=True)
    for folder in (anno, eval_):
        folder.mkdir(exist_ok=True)
    partition = partition or [f"{k:06d}.jpg {PARTS[k]}" for k in range(N)]
    (anno / "list_attr_celeba.txt").write_text("\n".join(attributes or attribute_lines()) + "\n")
    (eval_ / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    for k in range(N):
        pixels = np.zeros((18, 12, 3), dtype=np.uint8)
        pixels[..., 0] = k
        pixels[3:15, :, 1] = 200  # all of the square in the middle
        Image.fromarray(pixels).save(img / "img_align_celeba" / f"{k:06d}.jpg", quality=100, subsampling=0)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("celeba"))


@pytest.mark.parametrize(("split", "part"), [("train", 0), ("validation", 1), ("test", 2)])
def test_sets_are_as_described(root, split, part):
    sets = celeba_sets(root, split, 60)
    assert len(sets) == 60
    assert set(sets.chosen.sum(1).tolist()) == {2, 3}
    for members, chosen, shared in zip(sets.members, sets.chosen.numpy(), sets.shared, strict=True):
        pair = [NAMES.index(name) for name in shared]
        assert len(set(pair)) == 2
        assert len(set(members)) == 8
        assert (PARTS[members] == part).all()
        assert HAS[members[~chosen]][:, pair].all()
        assert not HAS[members[chosen]][:, pair].any()
    assert len(set(sets.shared)) == 6  # any two of four attributes
    assert (sets.chosen.float().mean(0) > 0.1).all()  # at any place
    assert len(np.unique(sets.members)) > 60


@pytest.mark.usefixtures("unchecked")  # a check of types looks into a sequence, and so would read an image
def test_images_are_read_when_asked_for_cut_and_resized(root, tmp_path):
    sets = celeba_sets(root, "train", 5, image_size=6)
    images = sets[2]
    assert images.shape == (8, 3, 6, 6)
    assert images.dtype == torch.float32
    np.testing.assert_allclose(images[:, 0].mean((1, 2)) * 255, sets.members[2], atol=2)  # of an image's own red
    np.testing.assert_allclose(images[:, 1] * 255, 200, atol=3)  # nothing from above and below the square
    loaded = sets[1:4].load()
    assert torch.equal(loaded.sets[1], images)
    assert torch.equal(loaded.chosen, sets.chosen[1:4])
    # Lists alone are enough to draw sets.
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (tmp_path / "img_align_celeba").mkdir()
    drawn = celeba_sets(tmp_path, "train", 5)
    assert np.array_equal(drawn.members, sets.members)
    with pytest.raises(MissingDataError, match=r"lacks .*\.jpg"):
        drawn[0]
    (tmp_path / "img_align_celeba" / drawn.files[drawn.members[0, 0]].name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"\.jpg is not a readable image"):
        drawn[0]


def test_the_folders_of_the_authors_are_known_too(root, tmp_path):
    moved = write(tmp_path / "CelebA", folders=("Anno", "Eval", "Img"))
    assert torch.equal(celeba_sets(moved, "test", 2)[1], celeba_sets(root, "test", 2)[1])


def test_a_seed_draws_the_same_and_another_does_not(root):
    one, same, other = (celeba_sets(root, "train", 20, random_state=seed).members for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.array_equal(celeba_sets(root, "train", 5).members, one[:5])


def test_a_selector_learns_from_them(root):
    sets = celeba_sets(root, "train", 6, image_size=4)
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4))
    selector = SubsetSelector(encoder, hidden_features=4, mode="diffMF", n_epochs=1).fit(sets, sets.chosen)
    assert [len(one) for one in selector.select(sets, 2)] == [2] * 6


def broken(change):
    lines = attribute_lines()
    change(lines)
    return lines


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"attributes": broken(lambda a: a.__setitem__(4, a[4] + " 1"))},
            "list_attr_celeba.txt, line 5 must hold an image",
        ),
        ({"attributes": broken(lambda a: a.__setitem__(4, a[4].replace("1", "2")))}, "line 5 must hold an image"),
        ({"attributes": broken(lambda a: a.__setitem__(3, ""))}, "line 4 must hold an image"),
        (
            {"attributes": broken(lambda a: a.__setitem__(0, "9"))},
            "line 1 must hold the number of images, 240; it is '9'",
        ),
        ({"attributes": ["0"]}, "line 2 must name the attributes"),
        (
            {"partition": ["000000.jpg 0", "000001.jpg 3"]},
            "list_eval_partition.txt, line 2 must hold an image and 0, 1 or 2",
        ),
        ({"partition": ["000000.jpg 0"]}, "lacks 000001.jpg and 238 more"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_damaged_files_are_named(tmp_path, files, message, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda *args, **kwargs: None)
    with pytest.raises(ValueError, match=re.escape(message)):
        celeba_sets(write(tmp_path / "celeba", **files))


@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba"])
@pytest.mark.usefixtures("unchecked")
def test_missing_files_are_named(tmp_path, name, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda *args, **kwargs: None)
    root = write(tmp_path / "celeba")
    (root / name).rename(root / "elsewhere")
    with pytest.raises(MissingDataError, match=name):
        celeba_sets(root)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"split": "all"}, "split"),
        ({"n_sets": 0}, "n_sets"),
        ({"n_anomalies": (3, 2)}, "n_anomalies"),
        ({"n_anomalies": (2, 8)}, "n_anomalies"),
        ({"image_size": 0}, "image_size"),
        ({"size": 200}, "size must leave 19[78] images"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_refused(root, options, named):
    with pytest.raises(ValueError, match=named):
        celeba_sets(root, **options)
