from .extragradient import eag as eag
from .extragradient import extragradient as extragradient
from .extragradient import optimistic_gradient as optimistic_gradient
from .extragradient import vr_extragradient as vr_extragradient
from .finite_sum import Constants as Constants
from .finite_sum import FiniteSumOperator as FiniteSumOperator
from .finite_sum import estimate_constants as estimate_constants
from .finite_sum import from_affine as from_affine
from .finite_sum import from_callables as from_callables
from .halpern import inexact_vr_halpern as inexact_vr_halpern
from .halpern import vr_halpern as vr_halpern
from .inclusion import History as History
from .inclusion import InclusionWarning as InclusionWarning
from .inclusion import Result as Result
from .plain_halpern import halpern as halpern
from .plain_halpern import stochastic_halpern as stochastic_halpern
from .projections import SimplexProduct as SimplexProduct
from .projections import project_affine as project_affine
from .projections import project_ball as project_ball
from .projections import project_box as project_box
from .projections import project_simplex as project_simplex
from .projections import prox_l1 as prox_l1
from .saddle import from_matrix_game as from_matrix_game
from .saddle import from_saddle_qp as from_saddle_qp
from .torch_sum import TorchSum as TorchSum
from .torch_sum import from_torch as from_torch

__all__ = [
    "Constants",
    "FiniteSumOperator",
    "History",
    "InclusionWarning",
    "Result",
    "SimplexProduct",
    "TorchSum",
    "eag",
    "estimate_constants",
    "extragradient",
    "from_affine",
    "from_callables",
    "from_matrix_game",
    "from_saddle_qp",
    "from_torch",
    "halpern",
    "inexact_vr_halpern",
    "optimistic_gradient",
    "project_affine",
    "project_ball",
    "project_box",
    "project_simplex",
    "prox_l1",
    "stochastic_halpern",
    "vr_extragradient",
    "vr_halpern",
]
