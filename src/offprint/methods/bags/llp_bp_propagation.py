"""Sum-product belief propagation for binary variables with pairs and with counts of bags."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy.typing import ArrayLike

from offprint.methods.bags.llp_bp_counts import CountFactors

LARGE_COUPLING = 30.0


@dataclass(frozen=True, eq=False)
class Propagation:
    """What belief propagation found.

    Parameters
    ----------
    marginals : float array, shape (n,)
        Probability that each variable is 1.
    logits : float array, shape (n,)
        Their log-odds.
    n_iter : int
        Iterations made.
    residual : float
        Largest change of a message in the last iteration, in log-odds and before damping.
    converged : bool
        Whether the residual came down to the tolerance. If not, the marginals are no fixed point and may be far off.
    """

    marginals: Float[np.ndarray, " n"]
    logits: Float[np.ndarray, " n"]
    n_iter: int
    residual: float
    converged: bool


def belief_propagation(
    theta: Float[np.ndarray, " n"],
    edges: Int[np.ndarray, "m 2"],
    couplings: Float[np.ndarray, " m"],
    bags: CountFactors | None = None,
    *,
    max_iter: int = 100,
    damping: float = 0.5,
    tol: float = 1e-4,
) -> Propagation:
    r"""Approximate the marginals of a binary model with pairwise terms and counts of bags.

    The model is :math:`P(y) \propto \exp(\sum_i \theta_i y_i + \sum_{ij} J_{ij} y_i y_j) \prod_S \varphi_S(\sum_{i \in
    S} y_i)` with y in {0, 1}. The answer is exact where the graph of pairs is a forest and there are no bags, and where
    there are only bags; else it is the usual approximation by loopy belief propagation.

    Parameters
    ----------
    theta : float array, shape (n,)
        Log-odds of each variable on its own, finite. Its dtype, float32 or float64, is that of messages and marginals.
    edges : int array, shape (m, 2)
        Ends of each pair, in [0, n), each pair once.
    couplings : float array, shape (m,)
        :math:`J_{ij}`, finite: above 0 for pairs that tend to be 1 together.
    bags : CountFactors, optional
        How likely each number of ones in each bag is.
    max_iter : int
        Iterations at most, at least 1.
    damping : float
        Share of the old message that is kept in an update, in [0, 1).
    tol : float
        Largest change of a message, in log-odds, at which to stop: at least 0.

    Returns
    -------
    Propagation

    Raises
    ------
    ValueError
        If shapes do not match, an edge is outside [0, n), a loop or there twice, or a number is not finite or out of
        range.
    TypeError
        If edges are no integers, or ``theta`` and ``couplings`` no floats.

    Notes
    -----
    The message along a pair is :math:`L_{i\to j} = \log(1+e^{c+J_{ij}}) - \log(1+e^{c})` with c the log-odds of i from
    all but j; it starts at :math:`J_{ij}/2`, which treats 0 and 1 alike. In each iteration all messages along pairs are
    updated at once, with damping, and the messages of bags then follow exactly from those: where counts are held
    exactly, the marginals of a bag add up to its count after any number of iterations. O(m + sum of squared bag sizes)
    time per iteration, O(m + n) memory. Ends are kept as int32.

    Examples
    --------
    >>> found = belief_propagation(np.array([-0.2, -1.1]), np.array([[0, 1]]), np.array([1.8]))
    >>> found.marginals.round(4).tolist(), found.converged
    ([0.6493, 0.5214], True)

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, *Learning from Label Proportions: Bootstrapping Supervised
    Learners via Belief Propagation*, arXiv:2310.08056, the section on belief propagation for pseudo-labels. Pearl,
    *Probabilistic Reasoning in Intelligent Systems* (1988), chapter 4.
    """
    check_settings(max_iter, damping, tol)
    theta = _floats("theta", theta)
    couplings = _floats("couplings", couplings).astype(theta.dtype)
    ends = _checked_edges(edges, couplings, len(theta))
    if bags is not None and len(bags.order) != len(theta):
        raise ValueError(f"bags must hold every entry of theta, {len(theta)}; they hold {len(bags.order)}")
    # J / 2 is what a variable tells that is as likely 0 as 1; a start from 0 would favour label 0 all over the graph.
    forward, backward = couplings / 2, couplings / 2
    incoming = np.bincount(ends.ravel(), np.repeat(forward, 2), minlength=len(theta)).astype(theta.dtype)
    tilts = np.zeros(0 if bags is None else bags.n_bags)

    def from_bags() -> Float[np.ndarray, " n"]:
        return np.zeros_like(theta) if bags is None else bags.messages(theta + incoming, tilts)

    logits = theta + incoming + from_bags()
    residual, n_iter = math.inf, 0
    while n_iter < max_iter and residual > tol:
        residual = _iterate(logits, ends, couplings, forward, backward, damping, incoming)
        n_iter += 1
        logits = theta + incoming + from_bags()
    return Propagation(_sigmoid(logits), logits, n_iter, residual, residual <= tol)


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def _iterate(logits, ends, couplings, forward, backward, damping, incoming):
    """Update both messages of every pair and their sums at its ends; return the largest undamped change."""
    residual = 0.0
    incoming[:] = 0.0
    for e in range(len(ends)):
        i, j = ends[e, 0], ends[e, 1]
        coupling = float(couplings[e])
        growth = math.expm1(min(abs(coupling), LARGE_COUPLING))
        to_j = _through(float(logits[i]) - backward[e], coupling, growth)
        to_i = _through(float(logits[j]) - forward[e], coupling, growth)
        residual = max(residual, abs(to_j - forward[e]), abs(to_i - backward[e]))
        forward[e] = damping * forward[e] + (1.0 - damping) * to_j
        backward[e] = damping * backward[e] + (1.0 - damping) * to_i
        incoming[j] += forward[e]
        incoming[i] += backward[e]
    return residual


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def _through(c, coupling, growth):
    """log(1 + exp(c + J)) - log(1 + exp(c)), without overflow and with few logarithms; growth is expm1(|J|)."""
    if abs(coupling) > LARGE_COUPLING:
        tails = math.log1p(math.exp(-abs(c + coupling))) - math.log1p(math.exp(-abs(c)))
        return max(c + coupling, 0.0) - max(c, 0.0) + tails
    # Seen from the smaller of both exponents it is a logarithm of 1 and something above 0, so no digits cancel.
    low = min(c, c + coupling)
    odds = math.exp(-abs(low))
    raised = math.log1p(growth * (1.0 if low >= 0 else odds) / (1.0 + odds))
    return raised if coupling >= 0 else -raised


def _sigmoid(logits: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    odds = np.exp(-np.abs(logits))
    marginals: Float[np.ndarray, " n"] = np.where(logits >= 0, 1, odds) / (1 + odds)
    return marginals


def _floats(name: str, values: Float[np.ndarray, " n"] | ArrayLike) -> Float[np.ndarray, " n"]:
    vector = np.asarray(values)
    if vector.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be floats; got dtype {vector.dtype}")
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise ValueError(f"{name} must be a vector of finite numbers; got shape {vector.shape}")
    return vector if vector.dtype in (np.float32, np.float64) else vector.astype(np.float64)


def _checked_edges(edges: Shaped[np.ndarray, "..."], couplings: Float[np.ndarray, " m"], n: int) -> np.ndarray:
    ends = np.asarray(edges)
    if ends.dtype.kind not in "iu":
        raise TypeError(f"edges must be integers; got dtype {ends.dtype}")
    if ends.ndim != 2 or ends.shape[1] != 2 or len(ends) != len(couplings):
        raise ValueError(
            f"edges must be of shape (m, 2) with one row per entry of couplings, {len(couplings)}; got {ends.shape}"
        )
    if len(ends) == 0:
        return ends.astype(np.int32)
    if ends.min() < 0 or ends.max() >= n:
        raise ValueError(f"edges must join variables in [0, {n}); they range over [{ends.min()}, {ends.max()}]")
    if (loops := ends[:, 0] == ends[:, 1]).any():
        raise ValueError(f"edges must join two variables; edge {int(loops.argmax())} joins {ends[loops.argmax()]}")
    keys = np.sort(ends.min(axis=1).astype(np.int64) * n + ends.max(axis=1))
    if (twice := keys[1:] == keys[:-1]).any():
        raise ValueError(f"edges must hold each pair once; {divmod(int(keys[twice.argmax()]), n)} is there twice")
    return ends.astype(np.int32)


def check_settings(max_iter: int, damping: float, tol: float) -> None:
    """Refuse settings of the iteration that are out of range.

    Raises
    ------
    ValueError
        Naming the argument.

    Examples
    --------
    >>> check_settings(100, 0.5, 1e-4)
    """
    if not max_iter >= 1:
        raise ValueError(f"max_iter must be at least 1; got {max_iter}")
    if not 0 <= damping < 1:
        raise ValueError(f"damping must be in [0, 1); got {damping}")
    if not tol >= 0:
        raise ValueError(f"tol must be at least 0; got {tol}")
