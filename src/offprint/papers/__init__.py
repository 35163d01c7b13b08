"""Papers: one folder each, with its record (``paper.toml``) and its claims (``claims.py``).

Everything here is readable without importing torch or any method.
"""

from offprint.papers.figure import Figure, HeatMap, Level, Panel, Series
from offprint.papers.record import FAMILIES, Claim, Criterion, Needs, Record, RecordError
from offprint.papers.registry import claim_functions, measured_claims, record, records
from offprint.papers.rules import Rule
from offprint.papers.run import ClaimFunction, Measurement, Progress, Run, Skip, measures
from offprint.papers.scales import SCALES, Scale

__all__ = [
    "FAMILIES",
    "SCALES",
    "Claim",
    "ClaimFunction",
    "Criterion",
    "Figure",
    "HeatMap",
    "Level",
    "Measurement",
    "Needs",
    "Panel",
    "Progress",
    "Record",
    "RecordError",
    "Rule",
    "Run",
    "Scale",
    "Series",
    "Skip",
    "claim_functions",
    "measured_claims",
    "measures",
    "record",
    "records",
]
