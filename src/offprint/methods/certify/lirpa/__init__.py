"""Certified bounds of any network by linear relaxation.

What a user imports: :class:`BoundedModule` (or :func:`bound` for once), regions (:class:`LpBall`, :class:`Box`,
:class:`L0`, :class:`Synonym`, :func:`perturb_parameters`), :func:`margin_spec`, :func:`certify`, training by
:func:`certified_loss` with an :class:`EpsSchedule`, and :func:`register_op` to teach an operator, by an
:class:`Elementwise` function or a whole :class:`Operator`.

How it works, file by file: ``capture`` turns a module into a ``graph``, with ``decompositions``, ``layers`` and
``recurrent`` for what is composite; ``operators`` say how each node is bounded; ``intervals``, ``forward`` and
``backward`` (with its ``rows`` of coefficients) propagate through a ``problem``, ``optimise`` chooses slopes;
``outputs`` and ``bounds`` put it together.
"""

from offprint.methods.certify.lirpa.bounds import BoundedModule, Bounds, bound, margin_spec, perturb_parameters
from offprint.methods.certify.lirpa.certificates import Certificates, certify
from offprint.methods.certify.lirpa.operators.base import Interval, Operator, Plane, Relaxation, register_op
from offprint.methods.certify.lirpa.operators.elementwise import Elementwise, Lines
from offprint.methods.certify.lirpa.perturbations import Box, LpBall, Perturbation
from offprint.methods.certify.lirpa.substitutions import L0, Synonym
from offprint.methods.certify.lirpa.training import EpsSchedule, certified_loss

__all__ = [
    "L0",
    "BoundedModule",
    "Bounds",
    "Box",
    "Certificates",
    "Elementwise",
    "EpsSchedule",
    "Interval",
    "Lines",
    "LpBall",
    "Operator",
    "Perturbation",
    "Plane",
    "Relaxation",
    "Synonym",
    "bound",
    "certified_loss",
    "certify",
    "margin_spec",
    "perturb_parameters",
    "register_op",
]
