"""The usual baselines for learning from label proportions: DLLP and EasyLLP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.bags.aggregate import bag_loss
from offprint.methods.bags.llp_bp_network import BagBatch, LabelledBags, ProportionClassifier, flat


class _DirectClassifier(ProportionClassifier):
    """A network trained on one loss of whole bags; subclasses say which, and with what target for each row."""

    def __init__(
        self,
        estimator: nn.Module | None = None,
        *,
        hidden_sizes: Sequence[int] = (256, 128, 64),
        n_epochs: int = 100,
        batch_size: int = 1024,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        patience: int = 4,
        validation_fraction: float = 0.2,
        device: torch.device | str | None = None,
        random_state: int = 0,
    ) -> None:
        self.estimator = estimator
        self.hidden_sizes = hidden_sizes
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, bag_ids: ArrayLike, proportions: Any) -> Any:
        """Fit to rows, the bag of each row, and the share of positives in each bag.

        Parameters
        ----------
        X : float array, shape (n, d)
        bag_ids : array of int or str, shape (n,)
        proportions : array of float, shape (bags,), or mapping from id to share
            In [0, 1]; an array is in the sorted order of the distinct ids, a pandas Series is taken by its index.

        Returns
        -------
        self
        """
        if self.estimator is not None and not isinstance(self.estimator, nn.Module):
            raise TypeError(f"estimator must be a torch.nn.Module or None; got {type(self.estimator).__name__}")
        bags, held_out = self._start(X, bag_ids, proportions)
        self.model_ = self._new_module(0)
        self.history_ = self._train(
            self.model_, self._objective, bags, self._targets(bags), held_out, trained=self.model_
        )
        self.validation_loss_ = np.nan if held_out is None else self._bag_loss(self._positive(held_out.rows), held_out)
        return self

    def _targets(self, bags: LabelledBags) -> Float[np.ndarray, " n"]:
        raise NotImplementedError

    def _objective(self, module: nn.Module, batch: BagBatch) -> Tensor:
        raise NotImplementedError


class DLLPClassifier(_DirectClassifier):
    r"""Train a network so that its mean prediction over a bag meets the bag's share of positives (DLLP).

    The plain, strong baseline: hard to beat where bags are small, and short of signal where they are large.

    Parameters
    ----------
    estimator : torch.nn.Module, optional
        From rows to one logit each, of shape (n,) or (n, 1). It is copied, never changed. By default a multilayer
        perceptron of ``hidden_sizes``.
    hidden_sizes : sequence of int
        Widths of that perceptron, two at least.
    n_epochs : int
        Passes over the bags at most, at least 1.
    batch_size : int
        Rows per step, at least 1, rounded to whole bags.
    learning_rate, weight_decay : float
        Of AdamW.
    patience : int
        Stop after this many epochs without a new least loss on held-out bags, whose weights are then restored.
    validation_fraction : float
        Share of bags held out, in [0, 1); at least one bag where it is not 0.
    device : torch.device or str, optional
        Where to train and predict; by default where the module is.
    random_state : int
        Seed of held-out bags, weights and batches.

    Attributes
    ----------
    model_ : torch.nn.Module
        Trained, in evaluation mode.
    history_ : TrainingHistory
    validation_loss_ : float
        Cross entropy of held-out bags; NaN where there are none.
    train_bags_ : int64 array, shape (kept,)
        Numbers of the bags, in sorted order of their ids, that were trained on.
    classes_ : int64 array, shape (2,)
    n_features_in_ : int

    Raises
    ------
    ValueError
        From ``fit``, when an argument is out of range, a proportion is no count over the size of its bag, or anything
        is not finite.
    TypeError
        From ``fit``, when ``estimator`` is no module.
    FloatingPointError
        From ``fit``, when the loss becomes infinite or NaN.

    Notes
    -----
    The loss is :math:`\frac1m \sum_S \mathrm{BCE}(Y_S / B_S, \frac{1}{B_S} \sum_{i \in S} \sigma(f(x_i)))`. An epoch is
    one forward and backward pass.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y, bag_ids = np.repeat([0, 1], 40), rng.permutation(np.arange(80) % 20)
    >>> X = (rng.normal(size=80) + 6 * y)[:, None]
    >>> proportions = np.bincount(bag_ids, weights=y) / 4
    >>> model = DLLPClassifier(hidden_sizes=(16, 8), n_epochs=40, learning_rate=1e-2).fit(X, bag_ids, proportions)
    >>> model.predict(np.array([[0.0], [6.0]]))
    array([0, 1])

    References
    ----------
    Ardehaly and Culotta, *Co-training for Demographic Classification Using Deep Learning from Label Proportions*,
    arXiv:1709.04108, section 3.
    """

    def _targets(self, bags: LabelledBags) -> Float[np.ndarray, " n"]:
        targets: Float[np.ndarray, " n"] = bags.shares[bags.index.ids]
        return targets

    def _objective(self, module: nn.Module, batch: BagBatch) -> Tensor:
        positive = torch.sigmoid(flat(module(batch.rows), len(batch.rows)))
        return bag_loss(positive, batch.ids, batch.shares, "log")


class EasyLLPClassifier(_DirectClassifier):
    r"""Train a network on soft labels that make the loss of random bags an unbiased estimate of the labelled one.

    Cheap and free of bias where bags are drawn at random, but of a variance that grows with the size of the bags.

    Parameters
    ----------
    estimator : torch.nn.Module, optional
        From rows to one logit each, of shape (n,) or (n, 1). It is copied, never changed. By default a multilayer
        perceptron of ``hidden_sizes``.
    hidden_sizes : sequence of int
        Widths of that perceptron, two at least.
    clip : bool
        Clip soft labels to [0, 1]: biased, but the loss is then bounded from below.
    n_epochs : int
        Passes over the bags at most, at least 1.
    batch_size : int
        Rows per step, at least 1, rounded to whole bags.
    learning_rate, weight_decay : float
        Of AdamW.
    patience : int
        Stop after this many epochs without a new least loss on held-out bags, whose weights are then restored.
    validation_fraction : float
        Share of bags held out, in [0, 1); at least one bag where it is not 0.
    device : torch.device or str, optional
        Where to train and predict; by default where the module is.
    random_state : int
        Seed of held-out bags, weights and batches.

    Attributes
    ----------
    model_ : torch.nn.Module
        Trained, in evaluation mode.
    history_ : TrainingHistory
    validation_loss_ : float
        Cross entropy of held-out bags; NaN where there are none.
    train_bags_ : int64 array, shape (kept,)
        Numbers of the bags, in sorted order of their ids, that were trained on.
    classes_ : int64 array, shape (2,)
    n_features_in_ : int

    Raises
    ------
    ValueError
        From ``fit``, when an argument is out of range, a proportion is no count over the size of its bag, or anything
        is not finite.
    TypeError
        From ``fit``, when ``estimator`` is no module.
    FloatingPointError
        From ``fit``, when the loss becomes infinite or NaN.

    Notes
    -----
    A row of a bag of size B with share α has the soft label :math:`B (\alpha - p) + p`, where p is the share of
    positives over all bags; the loss is cross entropy with it, of either sign beyond [0, 1].

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y, bag_ids = np.repeat([0, 1], 40), rng.permutation(np.arange(80) % 20)
    >>> X = (rng.normal(size=80) + 6 * y - 3)[:, None]
    >>> proportions = np.bincount(bag_ids, weights=y) / 4
    >>> model = EasyLLPClassifier(hidden_sizes=(16, 8), n_epochs=40, learning_rate=1e-2).fit(X, bag_ids, proportions)
    >>> model.predict(np.array([[-3.0], [3.0]]))
    array([0, 1])

    References
    ----------
    Busa-Fekete, Choi, Dick, Gentile and Medina, *Easy Learning from Label Proportions*, arXiv:2302.03115, section 3.
    """

    def __init__(
        self,
        estimator: nn.Module | None = None,
        *,
        hidden_sizes: Sequence[int] = (256, 128, 64),
        clip: bool = False,
        n_epochs: int = 100,
        batch_size: int = 1024,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        patience: int = 4,
        validation_fraction: float = 0.2,
        device: torch.device | str | None = None,
        random_state: int = 0,
    ) -> None:
        super().__init__(
            estimator,
            hidden_sizes=hidden_sizes,
            n_epochs=n_epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            patience=patience,
            validation_fraction=validation_fraction,
            device=device,
            random_state=random_state,
        )
        self.clip = clip

    def _targets(self, bags: LabelledBags) -> Float[np.ndarray, " n"]:
        soft = soft_labels(bags.shares, bags.index.sizes)
        targets: Float[np.ndarray, " n"] = (soft.clip(0, 1) if self.clip else soft)[bags.index.ids]
        return targets

    def _objective(self, module: nn.Module, batch: BagBatch) -> Tensor:
        logits = flat(module(batch.rows), len(batch.rows))
        return functional.binary_cross_entropy_with_logits(logits, batch.targets)


def soft_labels(shares: ArrayLike, sizes: ArrayLike) -> Float[np.ndarray, " bags"]:
    """Return the label that EasyLLP gives to every row of each bag.

    Parameters
    ----------
    shares : array of float, shape (bags,)
        Of positives.
    sizes : array of int, shape (bags,)
        Rows of each bag.

    Returns
    -------
    float64 array, shape (bags,)
        May lie outside [0, 1].

    Raises
    ------
    ValueError
        If lengths differ.

    Examples
    --------
    >>> soft_labels([0.5, 0.0], [2, 2]).tolist()
    [0.75, -0.25]
    """
    given, rows = np.asarray(shares, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    if given.shape != rows.shape:
        raise ValueError(f"shares and sizes must have one entry per bag; got shapes {given.shape} and {rows.shape}")
    overall = float((given * rows).sum() / rows.sum())
    soft: Float[np.ndarray, " bags"] = rows * (given - overall) + overall
    return soft
