"""CAMELYON17 at the paper's scale: features that the user has packed, tested on two hospitals not seen in training."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn

from offprint.data.files import roots
from offprint.methods.bags.aem import GatedABMIL, MeanMIL, MILClassifier, PackedH5Dataset, SlideDataset
from offprint.methods.bags.aem.classifier import score
from offprint.methods.bags.aem.slides import SlideSubset
from offprint.papers.aem.trainings import Scores, chosen_by_validation
from offprint.papers.run import Run

FILE = "camelyon17/features.h5"
"""Below a folder of data; a group per slide as ``PackedH5Dataset`` reads it, named ``patient_012_node_3``."""
PER_HOSPITAL = 20
"""Patients 0 to 99 have public labels, so many of each hospital in turn; slides of others are left out."""
SEEN, UNSEEN = (0, 1, 2), (3, 4)
N_EPOCHS = 50
RATES = (1e-4, 3e-4, 1e-3)
"""Learning rates that every arm is given, the paper's first."""
WEIGHTS = (0.1, 0.001, 0.01, 0.3, 1.0)
"""Weights that the entropy term is given, that of the paper's example on these slides first."""
NOTE = (
    "CAMELYON17: hospitals 0 to 2 for training and, one patient in ten, validation; hospitals 3 and 4 for testing; "
    f"{N_EPOCHS} epochs of one slide a step. Learning rate 0.0001, 0.0003 or 0.001 for every arm, then the weight, by "
    "validation. The paper has five seeds. The baseline is the AUC of ABMIL."
)


@dataclass(frozen=True)
class Hospitals:
    """Slides of the hospitals that are trained on, those held out of them for validation, and the unseen ones."""

    train: SlideDataset
    val: SlideDataset
    test: SlideDataset

    @classmethod
    def read(cls, path: Path, seed: int) -> Hospitals:
        """Split a packed file by hospital, and the seen ones by patient."""
        every = PackedH5Dataset(path, case_of=patient_of)
        hospital = [int(case) // PER_HOSPITAL for case in every.cases]
        by_hospital = {kept: [i for i, number in enumerate(hospital) if number in kept] for kept in (SEEN, UNSEEN)}
        for hospitals, indices in by_hospital.items():
            if not indices:
                raise ValueError(f"{path} must hold slides of hospitals {hospitals}; it has none")
        train, val = SlideSubset(every, by_hospital[SEEN]).split_by_case(0.1, seed)
        return cls(train, val, SlideSubset(every, by_hospital[UNSEEN]))


def arms(run: Run) -> dict[str, Scores]:
    """Tune ABMIL, AEM and mean pooling on the seen hospitals and test them on the others; skip without the file."""
    path = next((root / FILE for root in roots() if (root / FILE).is_file()), None)
    if path is None:
        run.skip(
            "packed features of CAMELYON17 are not here. Extract them from the slides, pack them as PackedH5Dataset "
            f"reads them and put them at {FILE} below the folder named by OFFPRINT_DATA; sought in "
            f"{' and '.join(map(str, roots()))}"
        )
    slides = Hospitals.read(path, run.seed)
    width, n_classes = slides.train.width, len(set(slides.train.labels))
    models: dict[str, tuple[Callable[[], nn.Module], Sequence[float]]] = {
        "ABMIL": (lambda: GatedABMIL(width, n_classes, generator=run.seed), (0.0,)),
        "AEM": (lambda: GatedABMIL(width, n_classes, generator=run.seed), WEIGHTS),
        "mean": (lambda: MeanMIL(width, n_classes, generator=run.seed), (0.0,)),
    }
    return {
        name: chosen_by_validation(_Fit(make, slides, run), RATES, weights)
        for name, (make, weights) in run.track(list(models.items()), "arms")
    }


def patient_of(slide_id: str) -> str:
    """Return the number of a slide's patient, as text.

    Examples
    --------
    >>> patient_of("patient_017_node_2")
    '17'
    """
    found = re.match(r"patient_(\d{3})(?!\d)", slide_id)
    if found is None:
        raise ValueError(f"slides must be named as CAMELYON17 does, patient_012_node_3; got {slide_id!r}")
    return str(int(found[1]))


@dataclass(frozen=True)
class _Fit:
    """Train at a learning rate and weight, keep the best epoch on validation, and test."""

    make: Callable[[], nn.Module]
    slides: Hospitals
    run: Run

    def __call__(self, rate: float, weight: float) -> Scores:
        slides = self.slides
        classifier = MILClassifier(self.make(), rate, N_EPOCHS, weight, seed=self.run.seed, device=self.run.device).fit(
            slides.train, val=slides.val
        )
        held_out, probabilities = classifier.predict_proba(slides.val), classifier.predict_proba(slides.test)
        codes = np.searchsorted(classifier.classes_, slides.val.labels)
        loss = -np.log(held_out[np.arange(len(codes)), codes].clip(1e-30)).mean()
        y = np.array(slides.test.labels)
        return Scores(
            auc=macro_auc(y, probabilities, classifier.classes_),
            f1=float(f1_score(y, classifier.classes_[probabilities.argmax(1)], average="macro")),
            validation=(score(codes, held_out), -float(loss)),
        )


def macro_auc(
    y: Int[np.ndarray, " slides"], probabilities: Float[np.ndarray, "slides classes"], classes: Int[np.ndarray, " _"]
) -> float:
    """Return the mean, over classes that some slides have and some have not, of the AUC of each against the rest.

    Examples
    --------
    >>> macro_auc(np.array([0, 2]), np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]), np.arange(3))
    1.0
    """
    areas = [
        roc_auc_score(y == label, probabilities[:, column])
        for column, label in enumerate(classes)
        if 0 < (y == label).sum() < len(y)
    ]
    return float(np.mean(areas))
