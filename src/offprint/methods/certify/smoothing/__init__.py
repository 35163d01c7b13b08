"""Randomized smoothing: a certified radius for any classifier that is accurate under noise, and bounds for regression.

What a user imports: :class:`SmoothedClassifier` with its :class:`Certificate` and :class:`Prediction`,
:func:`certified_accuracy` and :func:`certified_together` over a test set, :class:`SmoothedRegressor` with its
:class:`MedianBounds`, and the bound under all of it, :func:`clopper_pearson_lower`.
"""

from offprint.methods.certify.smoothing.certificate import (
    Certificate,
    certified_accuracy,
    certified_together,
    clopper_pearson_lower,
)
from offprint.methods.certify.smoothing.classifier import Prediction, SmoothedClassifier
from offprint.methods.certify.smoothing.regressor import MedianBounds, SmoothedRegressor

__all__ = [
    "Certificate",
    "MedianBounds",
    "Prediction",
    "SmoothedClassifier",
    "SmoothedRegressor",
    "certified_accuracy",
    "certified_together",
    "clopper_pearson_lower",
]
