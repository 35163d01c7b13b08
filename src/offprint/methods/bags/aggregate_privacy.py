"""Bags and their mean responses as something that can be shared: assignment, and release under label privacy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from offprint.methods.bags.ragged import BagIndex
from offprint.methods.privacy.mechanisms import PrivacyReport, gaussian_mechanism, laplace_mechanism


@dataclass(frozen=True)
class BagPrivacyReport(PrivacyReport):
    """What a release of bag means guarantees: the budget holds for every label, all bags together.

    Parameters
    ----------
    mechanism, epsilon, delta, scale
        As in :class:`PrivacyReport`; ``scale`` has one entry per bag.
    clip : (float, float)
        The range that labels were clipped to.
    bag_sizes : array, shape (bags,)
        Rows of each bag, taken to be public.
    n_clipped : int
        How many labels lay outside ``clip``. **For the curator alone**: it depends on the labels, the guarantee does
        not cover it, and it is left out when the report is printed.
    """

    clip: tuple[float, float]
    bag_sizes: Int[np.ndarray, " bags"]
    n_clipped: int = field(repr=False)

    @property
    def n_bags(self) -> int:
        """How many means were released."""
        return len(self.bag_sizes)


def assign_bags(n: int, k: int, rng: np.random.Generator | int) -> Int[np.ndarray, " n"]:
    """Put n rows into bags of k at random, regardless of their data, as theory and privacy both ask.

    Parameters
    ----------
    n : int
        Number of rows, at least k.
    k : int
        Rows per bag, at least 1. Where k does not divide n, the rows left over make some bags larger, none smaller.
    rng : numpy.random.Generator or int
        Source of randomness.

    Returns
    -------
    int64 array, shape (n,)
        The bag of each row, from 0 to n // k − 1.

    Raises
    ------
    ValueError
        If n and k are no integers, or not 1 <= k <= n.

    Notes
    -----
    O(n). A random permutation of the rows, dealt out to the bags in turn.

    Examples
    --------
    >>> assign_bags(7, 3, rng=0).tolist()
    [0, 0, 1, 0, 1, 0, 1]

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, arXiv:2401.11081, the set-up: bags independent of the data.
    """
    if n != int(n) or k != int(k) or not 1 <= k <= n:
        raise ValueError(f"n and k must be integers with 1 <= k <= n; got n={n}, k={k}")
    return np.random.default_rng(rng).permutation(np.arange(int(n)) % (int(n) // int(k)))


def private_bag_means(
    y: ArrayLike,
    bag_ids: ArrayLike,
    epsilon: float,
    clip: float | tuple[float, float],
    rng: np.random.Generator | int,
    *,
    delta: float = 0.0,
    row_ids: ArrayLike | None = None,
) -> tuple[Float[np.ndarray, " bags"], BagPrivacyReport]:
    r"""Release the mean label of each bag so that no single label can be told from them.

    Labels are clipped, averaged bag by bag, and Laplace noise of scale (high − low)/(k epsilon) is added to the mean of
    each bag of k. Bags are disjoint, so the budget does not add up over bags; and anything trained on the released
    means and on public features is exactly as private as they are.

    Parameters
    ----------
    y : array, shape (n,)
        Individual labels, finite.
    bag_ids : array of int or str, shape (n,)
        The bag of each row, chosen without looking at labels (see :func:`assign_bags`). Sizes of bags may differ.
    epsilon : float
        Privacy budget of each label, positive.
    clip : float or (float, float)
        Labels are clipped to [−clip, clip], or to [low, high]. Must not be chosen from these labels.
    rng : numpy.random.Generator or int
        Source of the noise. For a real release pass ``numpy.random.default_rng()``, unseeded: whoever knows the seed
        can take the noise off.
    delta : float
        0 for pure privacy with Laplace noise; in (0, 1) for Gaussian noise.
    row_ids : array of int or str, shape (n,), optional
        Whose label each row is. Nobody may appear twice, neither in two bags nor in one.

    Returns
    -------
    means : array, shape (bags,)
        Noisy means in the sorted order of the distinct ids: what ``fit(X, bag_ids, means)`` takes.
    report : BagPrivacyReport

    Raises
    ------
    ValueError
        If epsilon or clip is not positive, delta is out of range, shapes do not match, labels are not finite, or
        somebody appears twice.

    Notes
    -----
    The guarantee is label differential privacy: two label vectors that differ in one entry give any outcome with
    probabilities within a factor exp(epsilon). Features are not protected. O(n). :func:`release_noise` says what the
    noise costs, :func:`optimal_bag_size` which bag size to choose.

    Examples
    --------
    >>> y = np.array([0.0, 1.0, 1.0, 5.0])
    >>> means, report = private_bag_means(y, [0, 0, 1, 1], epsilon=1.0, clip=(0.0, 2.0), rng=0)
    >>> means.round(2).tolist(), report.scale.tolist(), report.n_clipped
    ([0.82, 0.88], [1.0, 1.0], 1)

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, *Learning from Aggregate responses: Instance Level versus Bag Level
    Loss Functions*, arXiv:2401.11081, the label-private mechanism.
    """
    labels = np.asarray(y, dtype=np.float64)
    if labels.ndim != 1 or not np.isfinite(labels).all():
        raise ValueError(f"y must be a vector of finite labels; got shape {labels.shape}, or NaN or infinity in it")
    index = BagIndex.of(bag_ids)
    if len(index.ids) != len(labels):
        raise ValueError(f"bag_ids must hold one id per label, {len(labels)}; got {len(index.ids)}")
    if row_ids is not None:
        _refuse_overlap(row_ids, index)
    low, high = _range(clip)
    clipped = np.clip(labels, low, high)
    sensitivity = (high - low) / index.sizes
    if delta == 0:
        released, report = laplace_mechanism(index.means(clipped), sensitivity, epsilon, rng)
    else:
        released, report = gaussian_mechanism(index.means(clipped), sensitivity, epsilon, delta, rng)
    n_clipped = int((clipped != labels).sum())
    return released, BagPrivacyReport(
        report.mechanism, report.epsilon, report.delta, report.scale, (low, high), index.sizes, n_clipped
    )


def _range(clip: float | tuple[float, float]) -> tuple[float, float]:
    if isinstance(clip, tuple | list):
        if len(clip) != 2 or not all(map(math.isfinite, clip)) or not clip[0] < clip[1]:
            raise ValueError(f"clip must be (low, high) with low < high, both finite; got {clip}")
        return float(clip[0]), float(clip[1])
    if not (math.isfinite(clip) and clip > 0):
        raise ValueError(f"clip must be positive and finite, or (low, high); got {clip}")
    return -float(clip), float(clip)


def _refuse_overlap(row_ids: ArrayLike, index: BagIndex) -> None:
    people = BagIndex.of(row_ids)
    if len(people.ids) != len(index.ids):
        raise ValueError(f"row_ids must hold one id per label, {len(index.ids)}; got {len(people.ids)}")
    if people.sizes.max() > 1:
        twice = int(people.sizes.argmax())
        bags = index.labels[np.unique(index.ids[people.ids == twice])].tolist()
        raise ValueError(
            f"row_ids must not repeat: {people.labels[twice]!s} appears {people.sizes[twice]} times, in bags {bags}; "
            "the budget would be exceeded"
        )
