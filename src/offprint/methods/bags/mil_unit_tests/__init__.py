"""Unit tests for multiple-instance models: does a model use evidence against the positive class?

What a user calls: :func:`check` on a model of one's own, :func:`assert_respects_mil` in one's own test suite,
:func:`monotonicity_probe` on bags of one's own. The tests' bags come from :func:`make_single_concept`,
:func:`make_multi_concept` and :func:`make_false_frequency`.

File by file: ``generators`` draws bags, ``calling`` calls models the way they want, ``training`` trains and scores,
``report`` judges, ``suite`` runs the tests, ``probe`` inserts rows; ``models`` are the paper's deep models,
``respecting`` those that pass, ``classical`` the support vector machines.
"""

from offprint.methods.bags.mil_unit_tests.classical import MISVM, NSK, SIL, STK, MiSVM
from offprint.methods.bags.mil_unit_tests.generators import (
    BACKGROUND,
    CONCEPT_A,
    CONCEPT_B,
    POISON,
    POSITIVE,
    BagDataset,
    make_false_frequency,
    make_multi_concept,
    make_single_concept,
)
from offprint.methods.bags.mil_unit_tests.models import AttentionMIL, GraphMIL, HopfieldMIL, MINet, TransformerMIL
from offprint.methods.bags.mil_unit_tests.probe import MonotonicityProbe, monotonicity_probe
from offprint.methods.bags.mil_unit_tests.report import UnitTestReport, UnitTestRow, judge
from offprint.methods.bags.mil_unit_tests.respecting import MonotoneMIL, miNet
from offprint.methods.bags.mil_unit_tests.suite import assert_respects_mil, check, run_unit_test, run_unit_tests
from offprint.methods.bags.mil_unit_tests.training import score

__all__ = [
    "BACKGROUND",
    "CONCEPT_A",
    "CONCEPT_B",
    "MISVM",
    "NSK",
    "POISON",
    "POSITIVE",
    "SIL",
    "STK",
    "AttentionMIL",
    "BagDataset",
    "GraphMIL",
    "HopfieldMIL",
    "MINet",
    "MiSVM",
    "MonotoneMIL",
    "MonotonicityProbe",
    "TransformerMIL",
    "UnitTestReport",
    "UnitTestRow",
    "assert_respects_mil",
    "check",
    "judge",
    "make_false_frequency",
    "make_multi_concept",
    "make_single_concept",
    "miNet",
    "monotonicity_probe",
    "run_unit_test",
    "run_unit_tests",
    "score",
]
