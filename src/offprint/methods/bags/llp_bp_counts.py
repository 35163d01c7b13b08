"""One exact factor per bag on how many of its members are positive, and its sum-product messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from offprint.methods.bags.llp_bp_bags import align_counts, check_counts

LogDensity = Callable[[Float[np.ndarray, " m"]], Any]
LIMIT = 700.0
"""Largest log-odds of a message: beyond it an exponential leaves double precision."""


@dataclass(frozen=True, eq=False)
class CountFactors:
    r"""For every bag, how likely each number of positive members is: the bag side of :func:`belief_propagation`.

    Made by :meth:`from_counts` for known counts, held softly or exactly, and by :meth:`from_noise` for counts that were
    released with noise of a known law.

    Parameters
    ----------
    order : int64 array, shape (n,)
        Rows of a permutation, those of one bag side by side.
    offsets : int64 array, shape (bags + 1,)
        Bag ``a`` holds the rows ``order[offsets[a]:offsets[a + 1]]``.
    log_potentials : float64 array, shape (n + bags,)
        For bag after bag, :math:`\log\varphi(K)` at K = 0, ..., size; ``-inf`` forbids a number.

    Raises
    ------
    ValueError
        If sizes do not match, a log potential is NaN or +inf, or a bag has none that is finite.

    Notes
    -----
    The message to member i is :math:`\log\sum_k\varphi(k+1)P_{\setminus i}(k)-\log\sum_k\varphi(k)P_{\setminus i}(k)`,
    where :math:`P_{\setminus i}` is the law of the number of positives among the others. All B messages of a bag of
    size B come from one pass of a dynamic program forward and one backward: time O(B²), memory O(B^1.5) (the forward
    pass is kept at every √B-th member and computed again in between). Numbers stay in range because odds are tilted
    first, by a factor that puts the mean number of positives where the factor is largest, and the tilt is taken off
    the messages again.

    Examples
    --------
    >>> factors = CountFactors.from_counts(["a", "b", "a", "a"], {"a": 1, "b": 1}, weight=np.inf)
    >>> factors.n_bags, factors.messages(np.zeros(4)).round(3).tolist()
    (2, [-0.693, 700.0, -0.693, -0.693])

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, *Learning from Label Proportions: Bootstrapping Supervised
    Learners via Belief Propagation*, arXiv:2310.08056, the bag term of the Gibbs distribution; the factor over a whole
    bag is this project's. Tarlow, Swersky, Zemel, Adams and Frey, *Fast Exact Inference for Recursive Cardinality
    Models*, arXiv:1210.4899, for messages of such factors.
    """

    order: Int[np.ndarray, " n"]
    offsets: Int[np.ndarray, " bounds"]
    log_potentials: Float[np.ndarray, " values"]

    def __post_init__(self) -> None:
        if len(self.offsets) < 2 or self.offsets[-1] != len(self.order):
            raise ValueError(f"offsets must rise from 0 to {len(self.order)}, the number of rows; got {self.offsets}")
        if self.log_potentials.shape != (len(self.order) + self.n_bags,):
            raise ValueError(
                f"log_potentials must hold size + 1 numbers for each bag, {len(self.order) + self.n_bags} in all; "
                f"got shape {self.log_potentials.shape}"
            )
        if np.isnan(self.log_potentials).any() or (self.log_potentials == np.inf).any():
            raise ValueError("log_potentials must be finite or -inf; they hold NaN or +inf")
        highest = np.maximum.reduceat(self.log_potentials, self.offsets[:-1] + np.arange(self.n_bags))
        if not np.isfinite(highest).all():
            raise ValueError(f"log_potentials forbid every count of bag {int(np.isfinite(highest).argmin())}")

    @classmethod
    def from_counts(cls, bag_ids: Any, counts: Any, weight: float = 4.0) -> CountFactors:
        r"""Hold each bag to its count: :math:`\log\varphi(K) = -\text{weight}\,(K - Y)^2`.

        Parameters
        ----------
        bag_ids : array of int or str, shape (n,)
            The bag of each row.
        counts : array of int, shape (bags,), in the sorted order of the distinct ids, or mapping from id to count
            Positives in each bag, from 0 to its size.
        weight : float
            At least 0; ``inf`` forbids every other count.

        Returns
        -------
        CountFactors

        Raises
        ------
        ValueError
            If counts are no whole numbers between 0 and the size, or the weight is negative or NaN.

        Examples
        --------
        >>> CountFactors.from_counts([0, 0], [1], weight=2.0).log_potentials.tolist()
        [-2.0, -0.0, -2.0]
        """
        if not weight >= 0:
            raise ValueError(f"weight must be at least 0, inf allowed; got {weight}")
        index, given = align_counts(bag_ids, counts, None, "counts")
        check_counts(given, index)
        errors = _errors(index.sizes, given)
        with np.errstate(invalid="ignore"):  # 0 * inf, replaced at once
            penalties = np.where(errors == 0, 0.0, weight * errors**2)
        return cls(np.argsort(index.ids, kind="stable"), _offsets(index.sizes), -penalties)

    @classmethod
    def from_noise(cls, bag_ids: Any, reported: Any, log_density: LogDensity) -> CountFactors:
        r"""Take counts as released with noise of a known law: :math:`\log\varphi(K) = \log p(\text{reported} - K)`.

        Parameters
        ----------
        bag_ids : array of int or str, shape (n,)
            The bag of each row.
        reported : array of float, shape (bags,), in the sorted order of the distinct ids, or mapping from id to number
            What was released, for example a count plus Laplace noise: finite, not bound to be whole or in range.
        log_density : callable
            Takes an array of errors (reported minus true) and returns the logarithm of their density or probability,
            such as ``scipy.stats.laplace(scale=1 / epsilon).logpdf``. A constant factor does not matter.

        Returns
        -------
        CountFactors

        Raises
        ------
        ValueError
            If a number is not finite, the density has another shape, is NaN, or allows no count of some bag.

        Examples
        --------
        >>> from scipy.stats import laplace
        >>> factors = CountFactors.from_noise([0, 0], [1.7], laplace(scale=1.0).logpdf)
        >>> (factors.log_potentials - factors.log_potentials.max()).round(2).tolist()
        [-1.4, -0.4, 0.0]
        """
        index, given = align_counts(bag_ids, reported, None, "reported")
        errors = _errors(index.sizes, given)
        values = np.asarray(log_density(errors), dtype=np.float64)
        if values.shape != errors.shape or np.isnan(values).any():
            raise ValueError(
                f"log_density must return one number per error, shape {errors.shape}; got shape {values.shape}"
                + (" with NaN" if np.isnan(values).any() else "")
            )
        return cls(np.argsort(index.ids, kind="stable"), _offsets(index.sizes), values)

    @property
    def n_bags(self) -> int:
        """How many bags there are."""
        return len(self.offsets) - 1

    def messages(
        self, logits: Float[np.ndarray, " n"], tilts: Float[np.ndarray, " bags"] | None = None
    ) -> Float[np.ndarray, " n"]:
        """Return the log-odds that each bag tells each of its members.

        Parameters
        ----------
        logits : float array, shape (n,)
            Log-odds of every row without its bag's message, finite.
        tilts : float64 array, shape (bags,), optional
            Where to start looking for the tilts, overwritten by those found: from one call to the next it saves time,
            and changes nothing else.

        Returns
        -------
        float array, shape (n,)
            In [-700, 700], of the dtype of ``logits``.

        Raises
        ------
        ValueError
            If there is not one finite number per row.
        FloatingPointError
            If a potential is so far from what the logits allow that no count is left in double precision.
        """
        if logits.shape != self.order.shape or not np.isfinite(logits).all():
            raise ValueError(f"logits must be {len(self.order)} finite numbers; got shape {logits.shape}")
        found = np.empty(len(logits))
        start = np.zeros(self.n_bags) if tilts is None else tilts
        failed = _all_messages(logits.astype(np.float64), self.order, self.offsets, self.log_potentials, start, found)
        if failed >= 0:
            raise FloatingPointError(
                f"log_potentials and logits of the members of bag {failed} leave no count possible"
            )
        return found.astype(logits.dtype)


def _errors(sizes: Int[np.ndarray, " bags"], given: ArrayLike) -> Float[np.ndarray, " values"]:
    """Return what was given minus every possible count, for bag after bag."""
    lengths = sizes + 1
    starts = np.cumsum(lengths) - lengths
    possible = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    errors: Float[np.ndarray, " values"] = np.repeat(np.asarray(given, dtype=np.float64), lengths) - possible
    return errors


def _offsets(sizes: Int[np.ndarray, " bags"]) -> Int[np.ndarray, " bounds"]:
    return np.concatenate([[0], np.cumsum(sizes)])


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def _all_messages(logits, order, offsets, log_potentials, tilts, found):
    """Fill ``found`` bag by bag; return the first bag without any possible count, or -1."""
    for bag in range(len(offsets) - 1):
        low, high = offsets[bag], offsets[bag + 1]
        inside = np.empty(high - low)
        for i in range(high - low):
            inside[i] = logits[order[low + i]]
        potential = log_potentials[low + bag : high + bag + 1]
        tilts[bag] = _tilt(inside, potential, tilts[bag])
        messages = np.empty(high - low)
        if not _bag_messages(inside, potential, tilts[bag], messages):
            return bag
        for i in range(high - low):
            found[order[low + i]] = messages[i]
    return -1


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def _tilt(logits, potential, start):
    """Find t such that members of odds exp(logit + t) have as many positives as the factor likes best at exp(-t k).

    The mean number rises with t and the best count falls, so bisection safeguards Newton's steps. A rough answer is
    enough: the tilt cancels from the messages and only keeps them away from underflow.
    """
    size = len(logits)
    reach = math.log(4.0 * size)
    low, high = -logits.max() - reach, -logits.min() + reach
    tilt = min(max(start, low), high)
    for _ in range(60):
        mean, variance = 0.0, 0.0
        for logit in logits:
            p = 1.0 / (1.0 + math.exp(-min(max(logit + tilt, -LIMIT), LIMIT)))
            mean += p
            variance += p * (1.0 - p)
        best, highest = 0, -np.inf
        for k in range(size + 1):
            if potential[k] - tilt * k > highest:
                best, highest = k, potential[k] - tilt * k
        if abs(best - mean) <= 0.5 + 0.5 * math.sqrt(variance):
            break
        if mean < best:
            low = tilt
        else:
            high = tilt
        step = tilt + (best - mean) / max(variance, 1e-300)
        tilt = step if low < step < high else 0.5 * (low + high)
    return tilt


@numba.njit(cache=True, fastmath={"reassoc", "contract"})
@no_type_check  # numba compiles the bare function
def _bag_messages(logits, potential, tilt, messages):
    """Fill in the messages of one bag, and say whether any count was possible."""
    size = len(logits)
    positive, negative = np.empty(size), np.empty(size)
    for i in range(size):
        x = min(max(logits[i] + tilt, -LIMIT), LIMIT)
        positive[i], negative[i] = 1.0 / (1.0 + math.exp(-x)), 1.0 / (1.0 + math.exp(x))
    highest, last = -np.inf, 0
    for k in range(size + 1):
        highest = max(highest, potential[k] - tilt * k)
    backward = np.zeros(size + 2)  # of k: the weight of all that follows, when k came before
    for k in range(size + 1):
        backward[k] = math.exp(potential[k] - tilt * k - highest)
        if backward[k] > 0.0:
            last = k
    block = math.ceil(math.sqrt(size))
    n_blocks = (size + block - 1) // block
    kept, forward = np.zeros((n_blocks, last + 1)), np.zeros((block + 1, last + 1))
    kept[0, 0] = 1.0
    for c in range(n_blocks - 1):
        _sums(kept[c], positive, negative, c * block, (c + 1) * block, forward)
        kept[c + 1] = forward[block]
    for c in range(n_blocks - 1, -1, -1):
        end = min(size, (c + 1) * block)
        _sums(kept[c], positive, negative, c * block, end, forward)
        for i in range(end - 1, c * block - 1, -1):
            before, p, q = forward[i - c * block], positive[i], negative[i]
            without, including = 0.0, 0.0
            for k in range(min(i, last) + 1):
                without += before[k] * backward[k]
                including += before[k] * backward[k + 1]
            for k in range(min(i, last) + 1):
                backward[k] = q * backward[k] + p * backward[k + 1]
            if without == 0.0 and including == 0.0:
                return False
            if without == 0.0:
                messages[i] = LIMIT
            elif including == 0.0:
                messages[i] = -LIMIT
            else:
                messages[i] = min(max(tilt + math.log(including) - math.log(without), -LIMIT), LIMIT)
    return True


@numba.njit(cache=True)
@no_type_check  # numba compiles the bare function
def _sums(first, positive, negative, start, end, forward):
    """Row r becomes the law of the number of positives among the first start + r members, cut off after the last."""
    width = forward.shape[1]
    forward[0] = first
    for i in range(start, end):
        old, new = forward[i - start], forward[i - start + 1]
        new[0] = negative[i] * old[0]
        for k in range(1, width):
            new[k] = negative[i] * old[k] + positive[i] * old[k - 1]
