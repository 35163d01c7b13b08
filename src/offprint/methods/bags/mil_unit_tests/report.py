"""What a model did in the tests: rows, the verdict on each, and a report that can be read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor

Verdict = Literal["PASS", "WEAK", "FAIL"]
MEANINGS = {
    "PASS": "keeps its score where a model that counts evidence against cannot",
    "WEAK": "cannot learn the training bags, so the test says nothing about what it would have learned",
    "FAIL": "it has learned from the training bags what is wrong on the test bags",
}


@dataclass(frozen=True)
class UnitTestRow:
    """How one model did in one test with one seed.

    Parameters
    ----------
    test : str
        "single", "multi", "frequency", or a name of one's own.
    seed : int
        Of bags, weights and order.
    train_auc, test_auc : float
        Area under the ROC curve.
    train_balanced_accuracy, test_balanced_accuracy : float
        Mean of the two classes' accuracies where a positive score says positive.
    train_loss : float
        Mean cross entropy on the training bags after training; NaN for estimators, which have no logits.
    verdict : {"PASS", "WEAK", "FAIL"}
        By :func:`judge`.
    """

    test: str
    seed: int
    train_auc: float
    test_auc: float
    train_balanced_accuracy: float
    test_balanced_accuracy: float
    train_loss: float
    verdict: Verdict


@dataclass(frozen=True)
class UnitTestReport:
    """What a model did in all tests and seeds; ``print`` it to read it.

    Parameters
    ----------
    rows : tuple of UnitTestRow
        One for each test and seed.
    warnings : tuple of str
        What is wrong with how the model treats batches of bags.
    """

    rows: tuple[UnitTestRow, ...]
    warnings: tuple[str, ...] = ()

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict of each test: that of most seeds, the worse of two that are equally frequent."""
        order: tuple[Verdict, ...] = ("FAIL", "WEAK", "PASS")
        found: dict[str, Verdict] = {}
        for test in dict.fromkeys(row.test for row in self.rows):
            counts = Counter(row.verdict for row in self.rows if row.test == test)
            found[test] = max(order, key=lambda verdict: counts[verdict])
        return found

    @property
    def verdict(self) -> Verdict:
        """FAIL where one test fails, else WEAK where one is weak, else PASS."""
        found = set(self.verdicts.values())
        return "FAIL" if "FAIL" in found else "WEAK" if "WEAK" in found else "PASS"

    def to_markdown(self) -> str:
        """Return a table of every row."""
        lines = [
            "| test | seed | train AUC | test AUC | train balanced accuracy | test balanced accuracy | verdict |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in self.rows:
            numbers = (row.train_auc, row.test_auc, row.train_balanced_accuracy, row.test_balanced_accuracy)
            cells = " | ".join(f"{number:.3f}" for number in numbers)
            lines.append(f"| {row.test} | {row.seed} | {cells} | {row.verdict} |")
        return "\n".join(lines)

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {MEANINGS[self.verdict]}"]
        for test, verdict in self.verdicts.items():
            rows = [row for row in self.rows if row.test == test]
            train_auc = _spread([row.train_auc for row in rows])
            test_auc = _spread([row.test_auc for row in rows])
            lines.append(f"  {test:<10} {verdict}  AUC in training {train_auc}, in testing {test_auc}")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        if self.verdict == "FAIL":
            lines.append(
                "  repair: put MonotoneMIL(width, encoder=your row encoder) in place of the pooling and the head"
            )
        return "\n".join(lines)


def judge(train_auc: float, test_auc: float) -> Verdict:
    """Judge a model by its AUC on the training and on the test bags.

    Parameters
    ----------
    train_auc, test_auc : float
        In [0, 1].

    Returns
    -------
    {"PASS", "WEAK", "FAIL"}
        FAIL if the training AUC is at least 0.85 and the test AUC below 0.5 or more than 0.10 lower, or if the test AUC
        is below 0.40 whatever the other; WEAK if the training AUC is below 0.85 otherwise; else PASS.

    Raises
    ------
    ValueError
        If a number is outside [0, 1].

    Examples
    --------
    >>> judge(1.0, 0.1), judge(0.7, 0.7), judge(0.99, 0.98)
    ('FAIL', 'WEAK', 'PASS')
    """
    for name, value in (("train_auc", train_auc), ("test_auc", test_auc)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1]; got {value}")
    if test_auc < 0.40:
        return "FAIL"
    if train_auc < 0.85:
        return "WEAK"
    # Rounded, so that a gap of exactly 0.10 is not counted as more.
    return "FAIL" if test_auc < 0.5 or round(train_auc - test_auc, 12) > 0.10 else "PASS"


def row_of(
    test: str,
    seed: int,
    loss: float,
    train_scores: Float[Tensor, " train"],
    train_y: Int[Tensor, " train"],
    test_scores: Float[Tensor, " test"],
    test_y: Int[Tensor, " test"],
) -> UnitTestRow:
    """Judge the scores of a model on the training and on the test bags; NaN among them is refused."""
    found = []
    for scores, y in ((train_scores, train_y), (test_scores, test_y)):
        given, labels = scores.double().numpy(), y.cpu().numpy()
        if not np.isfinite(given).all():
            raise ValueError(f"model must return finite scores; in test {test!r} it returned NaN or infinity")
        found.append((float(roc_auc_score(labels, given)), float(balanced_accuracy_score(labels, given > 0))))
    (train_auc, train_accuracy), (test_auc, test_accuracy) = found
    verdict = judge(train_auc, test_auc)
    return UnitTestRow(test, seed, train_auc, test_auc, train_accuracy, test_accuracy, loss, verdict)


def _spread(values: list[float]) -> str:
    middle = float(np.median(values))
    return f"{middle:.2f}" if len(values) == 1 else f"{middle:.2f} ({min(values):.2f} to {max(values):.2f})"
