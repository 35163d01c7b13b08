"""Domains in which every kink is decided: the network is affine there, and a linear program decides them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from offprint.methods.certify.verification.multipliers import Domains, Root
from offprint.methods.certify.verification.relaxed import lower_bound


@dataclass(frozen=True)
class Leaf:
    """The least margin in a leaf and where it is taken, ``inf`` where the leaf is empty; ``None`` where not decided."""

    margin: float | None
    point: Tensor | None = None


def decide(root: Root, domain: Domains, tolerance: float) -> Leaf:
    """Solve for the least margin among inputs that take the decided pieces.

    Parameters
    ----------
    root : Root
    domain : Domains
        A single one; kinks without a decision must have an interval on one side of 0.
    tolerance : float
        How far lower and upper linear bounds may be apart where the network is affine, relative to their size.

    Returns
    -------
    Leaf
        Not decided where some other operator is not affine in this leaf, or the solver failed.
    """
    signs = domain.signs[0]
    relaxed, problem = root.problem(domain, refine=False)
    for node in relaxed.kinks:  # lines that coincide do not depend on a choice
        problem.relaxations.pop(node, None)
    matrix = root.target.matrix
    decided = torch.nonzero(signs).flatten()
    n_rows, n_outputs = matrix.shape
    rows = matrix.new_zeros(n_rows + len(decided), 1, n_outputs + len(signs))
    rows[:n_rows, 0, :n_outputs] = matrix
    rows[torch.arange(len(decided)) + n_rows, 0, n_outputs + decided] = 1
    with torch.no_grad():
        below = lower_bound(relaxed, problem, relaxed.joined, rows)
        above = lower_bound(relaxed, problem, relaxed.joined, rows, side=True)
    if not (
        _same(below.coefficients, above.coefficients, tolerance) and _same(below.constant, above.constant, tolerance)
    ):
        return Leaf(None)
    slope, constant = (one[:, 0].double().cpu().numpy() for one in (below.coefficients, below.constant))
    sides = signs[decided].double().cpu().numpy()
    # Variables: the input, and the margin t, which is minimised: rows @ y - bound <= t, sign * split >= 0.
    lhs = np.concatenate([slope[:n_rows], -sides[:, None] * slope[n_rows:]])
    lhs = np.concatenate([lhs, np.concatenate([-np.ones(n_rows), np.zeros(len(decided))])[:, None]], axis=1)
    bound = root.target.bound.double().cpu().numpy()
    rhs = np.concatenate([bound - constant[:n_rows], sides * constant[n_rows:]])
    box = torch.stack([root.target.lower, root.target.upper], 1).double().cpu().numpy()
    cost = np.zeros(lhs.shape[1])
    cost[-1] = 1
    limits = [*(tuple(one) for one in box.tolist()), (None, None)]
    solved = linprog(cost, A_ub=lhs, b_ub=rhs, bounds=limits, method="highs")
    if solved.status == 2:
        return Leaf(float("inf"))
    if solved.status != 0 or solved.x is None or solved.fun is None:
        return Leaf(None)
    point = root.target.lower.new_tensor(solved.x[:-1])
    return Leaf(float(solved.fun), torch.minimum(torch.maximum(point, root.target.lower), root.target.upper))


def _same(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)
