"""Attention entropy maximization for multiple-instance models.

What a user calls: :class:`AEMLoss` on the models here, :meth:`AEMRegularizer.attach` on a model of one's own,
:class:`MILClassifier` to train on bags and predict.

File by file: ``entropy`` computes and anneals, ``loss`` adds it to a loss or to one's own model, ``output`` is what
models return, ``models`` are those with one pooling, ``frameworks`` those with losses of their own, ``classifier``
trains them, ``sources`` takes bags in any form, ``slides`` is what reads them one by one, ``features`` from which
files, ``heatmap`` writes where attention lies.
"""

from offprint.methods.bags.aem.classifier import MILClassifier
from offprint.methods.bags.aem.entropy import (
    EntropyPenalty,
    annealed_weight,
    attention_entropy,
    divergence_from_uniform,
)
from offprint.methods.bags.aem.features import CLAMFeatureDataset, PackedH5Dataset
from offprint.methods.bags.aem.frameworks import ACMIL, DSMIL, DTFDMIL
from offprint.methods.bags.aem.heatmap import export_heat_map
from offprint.methods.bags.aem.loss import AEMLoss, AEMRegularizer, LossTerms
from offprint.methods.bags.aem.models import GatedABMIL, MaxMIL, MeanMIL, MILModel, MultiHeadPoolMIL
from offprint.methods.bags.aem.output import Head, MILOutput
from offprint.methods.bags.aem.slides import Slide, SlideDataset

__all__ = [
    "ACMIL",
    "DSMIL",
    "DTFDMIL",
    "AEMLoss",
    "AEMRegularizer",
    "CLAMFeatureDataset",
    "EntropyPenalty",
    "GatedABMIL",
    "Head",
    "LossTerms",
    "MILClassifier",
    "MILModel",
    "MILOutput",
    "MaxMIL",
    "MeanMIL",
    "MultiHeadPoolMIL",
    "PackedH5Dataset",
    "Slide",
    "SlideDataset",
    "annealed_weight",
    "attention_entropy",
    "divergence_from_uniform",
    "export_heat_map",
]
