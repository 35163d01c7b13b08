"""The paper's scale of AEM on a small packed file in the layout of CAMELYON17: who is trained on and who is tested."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from jaxtyping import config
from sklearn.metrics import roc_auc_score

from offprint.papers.aem import camelyon
from offprint.papers.aem.claims import improves_accuracy_under_shift
from offprint.papers.aem.trainings import Scores, chosen_by_validation
from offprint.papers.run import Run, Skip

h5py = pytest.importorskip("h5py")
PATIENTS = [*range(6), *range(20, 26), *range(40, 44), 60, 79, 80, 99, 103]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two slides of each patient, the second with tumour; patient 103 is of the part without public labels."""
    path = tmp_path_factory.mktemp("data") / camelyon.FILE
    path.parent.mkdir()
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for patient in PATIENTS:
            for node in (0, 1):
                group = file.create_group(f"patient_{patient:03}_node_{node}")
                features = rng.normal(size=(rng.integers(6, 12), 4))
                features[:2] += 2 * node
                group["feat"], group["coords"] = features.astype(np.float16), np.zeros((len(features), 2), dtype=int)
                group.attrs["label"] = node
    return path


@pytest.fixture
def packed(original, tmp_path):
    """A copy that may be changed."""
    path = tmp_path / camelyon.FILE
    path.parent.mkdir()
    shutil.copy(original, path)
    return path


def train_briefly(folder, monkeypatch):
    """Seek data in this folder only, and check no annotations meanwhile, which is faster."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)
    monkeypatch.setattr(camelyon, "roots", lambda: (folder / "elsewhere", folder))
    monkeypatch.setattr(camelyon, "N_EPOCHS", 1)
    monkeypatch.setattr(camelyon, "RATES", (1e-2,))
    monkeypatch.setattr(camelyon, "WEIGHTS", (0.1,))


@pytest.fixture
def here(tmp_path, monkeypatch):
    train_briefly(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def before(original):
    """The arms as they are on the file before anything in it is changed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        train_briefly(original.parents[1], monkeypatch)
        return camelyon.arms(Run(scale="paper", seed=0))


@pytest.mark.parametrize("seed", [0, 1])
def test_hospitals_are_told_by_the_number_of_the_patient(packed, seed):
    slides = camelyon.Hospitals.read(packed, seed)
    train, val, test = ({int(case) for case in part.cases} for part in (slides.train, slides.val, slides.test))
    assert test == {60, 79, 80, 99}
    assert train | val == set(PATIENTS) - test - {103}
    assert not train & val
    assert len(val) == 2  # a tenth of 16
    assert len(slides.test) == 2 * len(test)
    assert camelyon.Hospitals.read(packed, seed).val.cases == slides.val.cases


def test_the_claim_is_measured_on_the_packed_file(before, monkeypatch):
    run, found = Run(scale="paper", seed=0), before
    monkeypatch.setattr(camelyon, "arms", lambda given: found if given is run else None)
    measured = improves_accuracy_under_shift(run)
    assert list(found) == ["ABMIL", "AEM", "mean"]
    assert measured.baseline == found["ABMIL"].auc
    assert measured.value == found["AEM"].auc - found["ABMIL"].auc
    assert measured.also == {"over-mean-pooling": found["AEM"].auc - found["mean"].auc}
    assert "CAMELYON17" in measured.note
    assert len({one.auc for one in found.values()}) > 1  # or else the lines above tell no arm from another
    assert [panel.title for panel in run.drawn.panels] == ["paired", "test AUC", "test F1 (macro)"]


def test_only_the_unseen_hospitals_decide_what_is_reported(before, packed, here):
    """With the features of their slides turned round, and one of a class that training does not know."""
    with h5py.File(packed, "a") as file:
        for name, group in file.items():
            if 60 <= int(name[8:11]) < 100:
                group["feat"][:] = -group["feat"][:]
        file["patient_060_node_0"].attrs["label"] = 2
    after = camelyon.arms(Run(scale="paper"))
    for name in before:
        assert after[name].validation == before[name].validation
        assert after[name].auc != before[name].auc


def test_without_the_file_it_is_skipped_saying_where_it_goes(here):
    with pytest.raises(Skip, match=r"CAMELYON17 are not here.*camelyon17/features\.h5 below .*OFFPRINT_DATA"):
        improves_accuracy_under_shift(Run(scale="paper"))


def test_a_file_that_is_something_else_is_refused(packed):
    with h5py.File(packed, "a") as file:
        for name in list(file):
            if int(name[8:11]) >= 60:
                del file[name]
    with pytest.raises(ValueError, match=r"must hold slides of hospitals \(3, 4\)"):
        camelyon.Hospitals.read(packed, 0)
    for name in ("tumor_001", "patient_1_node_2", "patient_0123_node_0"):
        with pytest.raises(ValueError, match=f"must be named as CAMELYON17 does.*{name}"):
            camelyon.patient_of(name)


def test_the_area_over_classes_is_scikit_learns():
    rng = np.random.default_rng(0)
    y, probabilities = rng.integers(0, 4, 60), rng.dirichlet(np.ones(4), 60)
    expected = roc_auc_score(y, probabilities, multi_class="ovr", average="macro")
    assert camelyon.macro_auc(y, probabilities, np.arange(4)) == pytest.approx(expected)


def test_the_rate_is_chosen_at_the_first_weight_and_the_weight_at_that_rate():
    table = {(1, 10): 0.5, (2, 10): 0.7, (3, 10): 0.6, (2, 20): 0.4, (2, 30): 0.9, (2, 40): 0.8}
    tried = []

    def fit(rate, weight):
        tried.append((rate, weight))
        return Scores(auc=rate, f1=weight, validation=(table[rate, weight], 0.0))

    chosen = chosen_by_validation(fit, (1, 2, 3), (10, 20, 30, 40))
    assert (chosen.auc, chosen.f1) == (2, 30)
    assert sorted(tried) == sorted(table)
    tied = chosen_by_validation(lambda rate, weight: Scores(rate, 0.0, (1.0, -abs(rate - 2.0))), (1, 2, 3), (10,))
    assert tied.auc == 2  # where the score is the same for all
