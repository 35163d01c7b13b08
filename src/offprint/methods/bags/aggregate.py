"""Losses for training any model on bag means: bag level, instance level, and everything between the two."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from offprint.methods.bags.ragged import BagIndex, segment_mean

Loss = str | Callable[[Tensor, Tensor], Tensor]


def bag_loss(
    pred: Float[Tensor, "n *outputs"],
    bag_ids: Int[Tensor, " n"],
    bag_targets: Float[Tensor, "bags *outputs"],
    loss: Loss = "squared",
) -> Float[Tensor, ""]:
    r"""Compare the mean prediction of each bag with the bag's mean response.

    Unbiased where a model can fit, but blind to how predictions differ inside a bag, and so of high variance: this is
    :func:`interpolating_loss` at ``rho=0``.

    Parameters
    ----------
    pred : float tensor, shape (n,) or shape (n, outputs)
        Predictions for every row of whole bags, rows in any order. On the scale on which labels were averaged:
        probabilities, not logits.
    bag_ids : int64 tensor, shape (n,)
        The bag of each row: an index into ``bag_targets``.
    bag_targets : float tensor, shape (bags,) or shape (bags, outputs)
        Mean response of each bag, finite.
    loss : {"squared", "log"} or callable
        ``"squared"`` is (pred − target)². ``"log"`` is the binary cross entropy of a probability against a share. A
        callable takes (pred, target) of the same shape and returns a loss per entry, for example
        ``partial(torch.nn.functional.huber_loss, reduction="none")``.

    Returns
    -------
    tensor, shape ()
        The mean **over bags**, small and large alike (and over outputs). Differentiable.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If shapes do not match, a bag has no rows or no target, or anything is not finite.

    Notes
    -----
    :math:`L_{bag} = \frac1m \sum_a \ell(\bar y_a, \bar f_a)` for m bags. O(n), with no loop over bags.

    Examples
    --------
    >>> pred = torch.tensor([1.0, 3.0, 4.0])
    >>> bag_loss(pred, torch.tensor([0, 0, 1]), torch.tensor([2.0, 3.0]))
    tensor(0.5000)

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, *Learning from Aggregate responses: Instance Level versus Bag Level
    Loss Functions*, arXiv:2401.11081, the bag-level loss.
    """
    _check(pred, bag_ids, bag_targets)
    return _bag_loss(pred, bag_ids, bag_targets, loss)


def instance_loss(
    pred: Float[Tensor, "n *outputs"],
    bag_ids: Int[Tensor, " n"],
    bag_targets: Float[Tensor, "bags *outputs"],
    loss: Loss = "squared",
) -> Float[Tensor, ""]:
    r"""Compare every prediction with the mean response of its bag, as if it were the row's own label.

    Of low variance, but biased: it pulls predictions inside a bag towards each other. This is
    :func:`interpolating_loss` at ``rho=1``.

    Parameters
    ----------
    pred : float tensor, shape (n,) or shape (n, outputs)
        Predictions for every row of whole bags, rows in any order.
    bag_ids : int64 tensor, shape (n,)
        The bag of each row: an index into ``bag_targets``.
    bag_targets : float tensor, shape (bags,) or shape (bags, outputs)
        Mean response of each bag, finite.
    loss : {"squared", "log"} or callable
        As for :func:`bag_loss`.

    Returns
    -------
    tensor, shape ()
        The mean **over rows**, so that a bag counts by its size (and over outputs). Differentiable.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If shapes do not match, a bag has no rows or no target, or anything is not finite.

    Notes
    -----
    :math:`L_{ins} = \frac1n \sum_i \ell(\bar y_{a(i)}, f_i)`. For the squared loss and bags of one size it is exactly
    the bag loss plus the mean squared deviation of predictions from their bag's mean; for any convex loss it is at
    least the bag loss. O(n).

    Examples
    --------
    >>> pred = torch.tensor([1.0, 3.0, 4.0])
    >>> instance_loss(pred, torch.tensor([0, 0, 1]), torch.tensor([2.0, 3.0]))
    tensor(1.)

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, arXiv:2401.11081, the instance-level loss and the lemma that relates
    it to the bag-level one.
    """
    _check(pred, bag_ids, bag_targets)
    return _entries(loss, pred, bag_targets[bag_ids]).mean()


def interpolating_loss(
    pred: Float[Tensor, "n *outputs"],
    bag_ids: Int[Tensor, " n"],
    bag_targets: Float[Tensor, "bags *outputs"],
    rho: float,
    loss: Loss = "squared",
) -> Float[Tensor, ""]:
    r"""Return (1 − rho) times the bag loss plus rho times the instance loss.

    The way to train on bag means when neither extreme is best, which is the usual case: choose ``rho`` by validation on
    held-out bags (:class:`RhoSearchCV`), or from theory (:func:`optimal_rho`).

    Parameters
    ----------
    pred : float tensor, shape (n,) or shape (n, outputs)
        Predictions for every row of whole bags, rows in any order.
    bag_ids : int64 tensor, shape (n,)
        The bag of each row: an index into ``bag_targets``.
    bag_targets : float tensor, shape (bags,) or shape (bags, outputs)
        Mean response of each bag, finite.
    rho : float
        In [0, 1].
    loss : {"squared", "log"} or callable
        As for :func:`bag_loss`.

    Returns
    -------
    tensor, shape ()
        Differentiable.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If rho is outside [0, 1], shapes do not match, a bag has no rows or no target, or anything is not finite.

    Notes
    -----
    For the squared loss and bags of one size, :math:`L_\rho = L_{bag} + \rho \cdot \frac1n \sum_i (f_i - \bar
    f_{a(i)})^2`: a penalty on the spread of predictions within bags. O(n).

    Examples
    --------
    >>> pred = torch.tensor([1.0, 3.0, 4.0], requires_grad=True)
    >>> value = interpolating_loss(pred, torch.tensor([0, 0, 1]), torch.tensor([2.0, 3.0]), rho=0.5)
    >>> value.backward()
    >>> value.item(), pred.grad.round(decimals=3).tolist()
    (0.75, [-0.3330000042915344, 0.3330000042915344, 0.8330000042915344])

    References
    ----------
    Javanmard, Chen, Mirrokni, Badanidiyuru and Fu, arXiv:2401.11081, the interpolating loss.
    """
    check_rho(rho)
    _check(pred, bag_ids, bag_targets)
    instance = _entries(loss, pred, bag_targets[bag_ids]).mean()
    return (1 - rho) * _bag_loss(pred, bag_ids, bag_targets, loss) + rho * instance


def align_bags(
    bag_ids: ArrayLike | Tensor, bag_means: ArrayLike | Tensor | Mapping[Any, Any], n_rows: int
) -> tuple[BagIndex, Float[np.ndarray, "bags *outputs"]]:
    """Number the bags of rows from 0 and put the responses of the bags in that order.

    Parameters
    ----------
    bag_ids : array or tensor of int or str, shape (n_rows,)
        The bag of each row.
    bag_means : array or tensor of shape (bags,) or shape (bags, outputs), or mapping from id to response
        Without a mapping, in the sorted order of the distinct ids, as a data frame's ``groupby(...).mean()`` has them.
    n_rows : int
        Rows that the ids must match.

    Returns
    -------
    index : BagIndex
    targets : float64 array, shape (bags,) or shape (bags, outputs)

    Raises
    ------
    ValueError
        If a bag has no response, a response has no rows, numbers do not match, or a response is not finite.

    Examples
    --------
    >>> index, targets = align_bags(["b", "a", "b"], {"a": 1.0, "b": 2.0}, 3)
    >>> index.ids.tolist(), targets.tolist()
    ([1, 0, 1], [1.0, 2.0])
    """
    index = BagIndex.of(bag_ids)
    if len(index.ids) != n_rows:
        raise ValueError(f"bag_ids must hold one id per row, {n_rows}; got {len(index.ids)}")
    if isinstance(bag_means, Mapping):
        bag_means = index.in_order(bag_means, "bag_means", "response")
    if isinstance(bag_means, Tensor):
        bag_means = bag_means.detach().cpu().numpy()
    targets = np.asarray(bag_means, dtype=np.float64)
    if targets.ndim not in (1, 2) or len(targets) != len(index.labels):
        raise ValueError(
            f"bag_means must hold one response for each of the {len(index.labels)} bags in bag_ids; "
            f"got shape {targets.shape}"
        )
    if not np.isfinite(targets).all():
        raise ValueError("bag_means must be finite; it holds NaN or infinity")
    return index, targets


def check_rho(rho: float, rho_max: float = 1.0) -> None:
    """Refuse an interpolation outside [0, rho_max].

    Parameters
    ----------
    rho : float
        The interpolation.
    rho_max : float
        The largest accepted.

    Raises
    ------
    ValueError
        If it is outside, or either is NaN.

    Examples
    --------
    >>> check_rho(0.3)
    """
    if not 0 < rho_max < math.inf:
        raise ValueError(f"rho_max must be positive and finite; got {rho_max}")
    if not 0 <= rho <= rho_max:
        raise ValueError(f"rho must be in [0, {rho_max:g}]; got {rho}")


def _bag_loss(pred: Tensor, bag_ids: Tensor, bag_targets: Tensor, loss: Loss) -> Tensor:
    return _entries(loss, segment_mean(pred, bag_ids, len(bag_targets)), bag_targets).mean()


def _entries(loss: Loss, pred: Tensor, target: Tensor) -> Tensor:
    if loss == "squared":
        return (pred - target).square()
    if loss == "log":
        for name, share in (("pred", pred), ("bag_targets", target)):
            if bool(((share < 0) | (share > 1)).any()):
                raise ValueError(
                    f"{name} must be in [0, 1] for the log loss; it ranges over [{share.min()}, {share.max()}]"
                )
        return functional.binary_cross_entropy(pred, target, reduction="none")
    if not callable(loss):
        raise ValueError(f"loss must be 'squared', 'log' or a callable; got {loss!r}")
    entries = loss(pred, target)
    if entries.shape != pred.shape:
        raise ValueError(f"loss must return one value per entry, {tuple(pred.shape)}; got {tuple(entries.shape)}")
    return entries


def _check(pred: Tensor, bag_ids: Tensor, bag_targets: Tensor) -> None:
    for name, value in (("pred", pred), ("bag_targets", bag_targets)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"{name} must be a float tensor; got {getattr(value, 'dtype', type(value).__name__)}")
        if value.ndim == 0 or len(value) == 0:
            raise ValueError(f"{name} must hold at least one row; got shape {tuple(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} must be finite; it holds NaN or infinity")
    if not isinstance(bag_ids, Tensor) or bag_ids.dtype != torch.int64:
        raise TypeError(f"bag_ids must be an int64 tensor; got {getattr(bag_ids, 'dtype', type(bag_ids).__name__)}")
    if bag_ids.shape != pred.shape[:1] or pred.shape[1:] != bag_targets.shape[1:]:
        raise ValueError(
            "pred must hold one row per entry of bag_ids, with the trailing shape of bag_targets; got shapes "
            f"{tuple(pred.shape)}, {tuple(bag_ids.shape)} and {tuple(bag_targets.shape)}"
        )
    n_bags, lowest, highest = len(bag_targets), int(bag_ids.min()), int(bag_ids.max())
    if lowest < 0 or highest >= n_bags:
        raise ValueError(f"bag_ids must be in [0, {n_bags}), one target per bag; they range over [{lowest}, {highest}]")
    sizes = torch.bincount(bag_ids, minlength=n_bags)
    if bool((sizes == 0).any()):
        raise ValueError(f"bag_ids leaves bag {int(sizes.argmin())} of {n_bags} without rows")
