"""State-space sequence layers by approximate diagonalisation: perturb the HiPPO matrix, then diagonalise it.

What a user imports: the matrices and their spikes (:func:`hippo_legs`, :func:`dplr`, :func:`diag_spikes`,
:func:`transfer_function`), the method (:func:`perturb_then_diagonalize`), the layers (:class:`S4D`, :class:`S5`,
:class:`S4DPLR`) and a model around them (:class:`SequenceModel`, :func:`parameter_groups`), and what tells which
frequencies break a trained model (:func:`find_spikes`, :func:`frequency_sensitivity`, :func:`with_fourier_noise`,
:func:`response_distance`).
"""

from offprint.methods.nn.ptd_ssm.diagonalize import PTD, perturb_then_diagonalize
from offprint.methods.nn.ptd_ssm.hippo import diag_spikes, dplr, hippo_legs
from offprint.methods.nn.ptd_ssm.model import SequenceModel, parameter_groups
from offprint.methods.nn.ptd_ssm.response import transfer_function
from offprint.methods.nn.ptd_ssm.s4d import S4D
from offprint.methods.nn.ptd_ssm.s4dplr import S4DPLR
from offprint.methods.nn.ptd_ssm.s5 import S5
from offprint.methods.nn.ptd_ssm.spikes import (
    ResponseDistance,
    Spike,
    find_spikes,
    frequency_sensitivity,
    response_distance,
    with_fourier_noise,
)

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
