from . import vnnlib as vnnlib
from .lipschitz import BranchAndBound as BranchAndBound
from .lipschitz import LipschitzResult as LipschitzResult
from .lipschitz import jacobian_bounds as jacobian_bounds
from .lipschitz import jvp_bounds as jvp_bounds
from .lipschitz import local_lipschitz as local_lipschitz
from .lipschitz import monotonicity as monotonicity
from .lipschitz import register_chain_rule as register_chain_rule
from .lirpa import L0 as L0
from .lirpa import BoundedModule as BoundedModule
from .lirpa import Bounds as Bounds
from .lirpa import Box as Box
from .lirpa import Certificates as Certificates
from .lirpa import EpsSchedule as EpsSchedule
from .lirpa import LpBall as LpBall
from .lirpa import Perturbation as Perturbation
from .lirpa import Synonym as Synonym
from .lirpa import bound as bound
from .lirpa import certified_loss as certified_loss
from .lirpa import certify as certify
from .lirpa import margin_spec as margin_spec
from .lirpa import perturb_parameters as perturb_parameters
from .lirpa import register_op as register_op
from .onnx_import.convert import from_onnx as from_onnx
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
from .verification.verifier import VerificationResult as VerificationResult
from .verification.verifier import verify as verify

# What a Lipschitz constant rests on is `offprint.methods.certify.lipschitz.Certificate`; here that name is smoothing's.
__all__ = [
    "L0",
    "BoundedModule",
    "Bounds",
    "Box",
    "BranchAndBound",
    "Certificate",
    "Certificates",
    "ConsistencyPretrainer",
    "EpsSchedule",
    "FineTuned",
    "KarrasSchedule",
    "LipschitzResult",
    "LpBall",
    "MedianBounds",
    "NoisyClassifier",
    "PatchEncoder",
    "Perturbation",
    "Prediction",
    "ResidualEncoder",
    "SmoothedClassifier",
    "SmoothedRegressor",
    "Synonym",
    "VerificationResult",
    "bound",
    "certified_accuracy",
    "certified_loss",
    "certified_together",
    "certify",
    "clopper_pearson_lower",
    "finetune_smoothing",
    "from_onnx",
    "jacobian_bounds",
    "jvp_bounds",
    "local_lipschitz",
    "margin_spec",
    "monotonicity",
    "perturb_parameters",
    "register_chain_rule",
    "register_op",
    "verify",
    "vnnlib",
]
