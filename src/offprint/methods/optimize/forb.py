"""The resolvent of a finite-sum monotone operator, by variance-reduced forward-reflected-backward steps."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float, Int

from offprint.methods.optimize.inclusion import Ledger
from offprint.methods.optimize.projections import SimplexProduct
from offprint.methods.optimize.saddle import SaddleOperator, forb_steps


def approximate_resolvent(
    ledger: Ledger,
    k: int,
    center: Float[np.ndarray, " d"],
    value: Float[np.ndarray, " d"],
    eta: float,
    gamma: float,
    n_steps: int,
    batch_size: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " d"]:
    """Approximate J_{η(F+G)}(center) by variance-reduced forward-reflected-backward steps (Algorithm 3).

    The zero v that is sought is that of Fb + ηG with Fb(v) = ηF(v) + v - center, which is 1-strongly monotone.
    ``value`` is F(center). Stops the ledger at outer iterate ``k`` where the budget does not last to the end.
    """
    operator, p = ledger.operator, snapshot_probability(ledger.operator.n, batch_size)
    refresh = rng.random(n_steps) < p
    refresh[-1:] = True  # ends the last stretch; no snapshot is evaluated there
    ends = (np.flatnonzero(refresh) + 1).tolist()
    cost = 2 * batch_size * n_steps + operator.n * (len(ends) - 1)
    ledger.afford(cost, center, k)
    v = w = w_previous = center
    for start, end in itertools.pairwise([0, *ends]):
        indices = operator.sample((end - start, batch_size), rng)
        v = _forb_stretch(ledger, v, w, w_previous, value, center, eta, gamma, 1 - p, indices)
        if end < n_steps:
            w_previous, w, value = w, v, ledger.full(v)  # the new snapshot is where the iteration stands
    return v


def _forb_stretch(
    ledger: Ledger,
    v: Float[np.ndarray, " d"],
    w: Float[np.ndarray, " d"],
    w_previous: Float[np.ndarray, " d"],
    value: Float[np.ndarray, " d"],
    center: Float[np.ndarray, " d"],
    eta: float,
    gamma: float,
    alpha: float,
    indices: Int[np.ndarray, "steps batch"],
) -> Float[np.ndarray, " d"]:
    """Make the steps between two snapshots, ``w`` being the present one, ``value`` F(w), ``w_previous`` that before."""
    blocks = compiled_blocks(ledger)
    if blocks is not None and isinstance(ledger.operator, SaddleOperator):
        ledger.n_evals += 2 * indices.size
        arguments = ledger.operator.kernel_arguments
        return np.asarray(forb_steps(v, w, w_previous, value, center, eta, gamma, alpha, indices, blocks, *arguments))
    last = w_previous
    for batch in indices:
        change = eta * ledger.difference(batch, v, last) + v - last
        forward = alpha * v + (1 - alpha) * w - gamma * (eta * value + w - center + change)
        v, last = ledger.resolve(forward, gamma * eta), w
    return v


def compiled_blocks(ledger: Ledger) -> Int[np.ndarray, " blocks"] | None:
    """Return the ends of the simplex blocks if this problem has compiled steps, else ``None``."""
    if not isinstance(ledger.operator, SaddleOperator):
        return None
    if ledger.resolvent is None:
        return np.zeros(0, dtype=np.int64)
    return ledger.resolvent.ends if isinstance(ledger.resolvent, SimplexProduct) else None


def snapshot_probability(n: int, batch_size: int) -> float:
    """Return the chance of a new snapshot at each step: one in an epoch, and never more than one half."""
    return min(batch_size / n, 0.5)
