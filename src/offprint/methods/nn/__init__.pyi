from .ptd_ssm import PTD as PTD
from .ptd_ssm import S4D as S4D
from .ptd_ssm import S4DPLR as S4DPLR
from .ptd_ssm import S5 as S5
from .ptd_ssm import ResponseDistance as ResponseDistance
from .ptd_ssm import SequenceModel as SequenceModel
from .ptd_ssm import Spike as Spike
from .ptd_ssm import diag_spikes as diag_spikes
from .ptd_ssm import dplr as dplr
from .ptd_ssm import find_spikes as find_spikes
from .ptd_ssm import frequency_sensitivity as frequency_sensitivity
from .ptd_ssm import hippo_legs as hippo_legs
from .ptd_ssm import parameter_groups as parameter_groups
from .ptd_ssm import perturb_then_diagonalize as perturb_then_diagonalize
from .ptd_ssm import response_distance as response_distance
from .ptd_ssm import transfer_function as transfer_function
from .ptd_ssm import with_fourier_noise as with_fourier_noise

__all__ = [
    "PTD",
    "S4D",
    "S4DPLR",
    "S5",
    "ResponseDistance",
    "SequenceModel",
    "Spike",
    "diag_spikes",
    "dplr",
    "find_spikes",
    "frequency_sensitivity",
    "hippo_legs",
    "parameter_groups",
    "perturb_then_diagonalize",
    "response_distance",
    "transfer_function",
    "with_fourier_noise",
]
