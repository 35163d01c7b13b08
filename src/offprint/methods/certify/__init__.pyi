from .rrcm import ConsistencyPretrainer as ConsistencyPretrainer
from .rrcm import FineTuned as FineTuned
from .rrcm import KarrasSchedule as KarrasSchedule
from .rrcm import NoisyClassifier as NoisyClassifier
from .rrcm import PatchEncoder as PatchEncoder
from .rrcm import ResidualEncoder as ResidualEncoder
from .rrcm import finetune_smoothing as finetune_smoothing
from .smoothing import Certificate as Certificate
from .smoothing import MedianBounds as MedianBounds
from .smoothing import Prediction as Prediction
from .smoothing import SmoothedClassifier as SmoothedClassifier
from .smoothing import SmoothedRegressor as SmoothedRegressor
from .smoothing import certified_accuracy as certified_accuracy
from .smoothing import certified_together as certified_together
from .smoothing import clopper_pearson_lower as clopper_pearson_lower

__all__ = [
    "Certificate",
    "ConsistencyPretrainer",
    "FineTuned",
    "KarrasSchedule",
    "MedianBounds",
    "NoisyClassifier",
    "PatchEncoder",
    "Prediction",
    "ResidualEncoder",
    "SmoothedClassifier",
    "SmoothedRegressor",
    "certified_accuracy",
    "certified_together",
    "clopper_pearson_lower",
    "finetune_smoothing",
]
