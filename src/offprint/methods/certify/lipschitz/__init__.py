"""Local Lipschitz constants of any network, certified by bound propagation on the graph of its Jacobian.

What a user imports: :func:`local_lipschitz` with its :class:`LipschitzResult`, :func:`jacobian_bounds`,
:func:`jvp_bounds`, :func:`monotonicity`, :class:`BranchAndBound` to make a bound tighter as time goes on, and
:func:`register_chain_rule` to teach an operator.

How it works, file by file: ``chain_rule`` writes the gradient as a graph of the operators that lirpa bounds; ``slopes``
adds the one operator that is new, a gradient times a set-valued slope; ``jacobian`` puts the two together; ``branch``
and ``pool`` split regions.
"""

from offprint.methods.certify.lipschitz.branch import BranchAndBound, Trace
from offprint.methods.certify.lipschitz.certificate import Certificate, Check
from offprint.methods.certify.lipschitz.chain_rule import register_chain_rule
from offprint.methods.certify.lipschitz.local import LipschitzResult, jacobian_bounds, jvp_bounds, local_lipschitz
from offprint.methods.certify.lipschitz.monotone import monotonicity

__all__ = [
    "BranchAndBound",
    "Certificate",
    "Check",
    "LipschitzResult",
    "Trace",
    "jacobian_bounds",
    "jvp_bounds",
    "local_lipschitz",
    "monotonicity",
    "register_chain_rule",
]
