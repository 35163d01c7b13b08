"""A classifier of rows from label proportions, by belief propagation and training in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.bags.llp_bp import LLPBeliefPropagation
from offprint.methods.bags.llp_bp_graph import SimilarityGraph
from offprint.methods.bags.llp_bp_network import (
    BagBatch,
    LabelledBags,
    ProportionClassifier,
    check_rows,
    dtype_of,
    flat,
)
from offprint.methods.bags.ragged import segment_mean
from offprint.models.evaluation import predict
from offprint.models.randomness import seeded
from offprint.models.training import TrainingHistory


@dataclass(frozen=True, eq=False)
class LLPBPRound:
    """One round: pseudo-labels, then training on them.

    Parameters
    ----------
    propagation : LLPBeliefPropagation
        Fitted to the rows of the bags that were trained on: marginals, graph, convergence.
    training : TrainingHistory or None
        Of the network; ``None`` for an estimator of scikit-learn.
    validation_loss : float
        Cross entropy of held-out bags after training; NaN where there are none.
    model : torch.nn.Module or estimator
        As trained in this round.
    """

    propagation: LLPBeliefPropagation
    training: TrainingHistory | None
    validation_loss: float
    model: Any


class LLPBPClassifier(ProportionClassifier):
    r"""A classifier of single rows from the share of positives in each bag of rows.

    Belief propagation fills in labels from counts and similarity (:class:`LLPBeliefPropagation`), a network is trained
    on them, its embedding gives a better graph of similar rows, and so on for some rounds. It is made for large bags
    and features in which neighbours tend to share a label; for small bags :class:`DLLPClassifier` is as good or better.
    Scale features first: similarity is that of the rows as given.

    Parameters
    ----------
    estimator : torch.nn.Module or classifier of scikit-learn, optional
        A module from rows to one logit each, of shape (n,) or (n, 1), with a method ``embed`` from rows to embeddings
        of shape (n, width). Where it also has ``classify`` from embeddings to logits, a pass is saved. It is copied for
        every round. A classifier with ``predict_proba`` is fitted to pseudo-labels once: it has no embedding. By
        default a multilayer perceptron of ``hidden_sizes``.
    propagation : LLPBeliefPropagation, optional
        Settings of belief propagation; by default those of the class.
    rounds : int
        Times that labels are filled in and a network is trained, at least 1.
    threshold : float
        Marginal from which on a pseudo-label is 1, in (0, 1); in place of that of ``propagation``.
    agg_weight : float
        Weight of the loss on bags beside that on pseudo-labels, at least 0: a small head predicts a bag's share from
        the mean embedding of its rows.
    hidden_sizes : sequence of int
        Widths of the default network, two at least. The paper's are 5040, 1280, 320, 128 and 64.
    n_epochs : int
        Passes over the bags at most, at least 1.
    batch_size : int
        Rows per step, at least 1, rounded to whole bags.
    learning_rate, weight_decay : float
        Of AdamW.
    patience : int
        Stop after this many epochs without a new least loss on held-out bags, whose weights are then restored.
    validation_fraction : float
        Share of bags held out, in [0, 1); at least one bag where it is not 0. They take no part in belief propagation.
    device : torch.device or str, optional
        Where to train and predict; by default where the module is.
    random_state : int
        Seed of held-out bags, weights and batches.

    Attributes
    ----------
    model_ : torch.nn.Module or estimator
        That of the last round.
    history_ : list of LLPBPRound
        What happened in each round.
    validation_loss_ : float
        Cross entropy of held-out bags; NaN where there are none.
    train_bags_ : int64 array, shape (kept,)
        Numbers of the bags, in sorted order of their ids, that were trained on.
    train_rows_ : bool array, shape (n,)
        Which rows belong to them.
    classes_ : int64 array, shape (2,)
    n_features_in_ : int

    Raises
    ------
    ValueError
        From ``fit``, when an argument is out of range, a proportion is no count over the size of its bag, pseudo-labels
        are all equal, or anything is not finite.
    TypeError
        From ``fit``, when ``estimator`` is neither such a module nor such a classifier.
    FloatingPointError
        From ``fit``, when the loss becomes infinite or NaN.

    Notes
    -----
    The loss is the mean cross entropy with pseudo-labels plus ``agg_weight`` times that of the head's answer with the
    share of each bag. Early stopping looks at proportions of held-out bags only, where the authors' code looks at
    labels of rows. Each round trains from scratch on the features as given. With ``count_noise`` in ``propagation``
    proportions may be any finite numbers.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 60)
    >>> X = rng.normal(size=(120, 2)) + 5 * np.eye(2)[y]
    >>> bag_ids = rng.permutation(np.arange(120) % 15)
    >>> proportions = np.bincount(bag_ids, weights=y) / 8
    >>> model = LLPBPClassifier(hidden_sizes=(16, 8), n_epochs=20, learning_rate=1e-2).fit(X, bag_ids, proportions)
    >>> model.predict(np.array([[5.0, 0.0], [0.0, 5.0]])), model.transform(X).shape
    (array([0, 1]), (120, 16))

    References
    ----------
    Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, *Learning from Label Proportions: Bootstrapping Supervised
    Learners via Belief Propagation*, arXiv:2310.08056, the algorithm and the aggregate embedding loss.
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        propagation: LLPBeliefPropagation | None = None,
        rounds: int = 2,
        threshold: float = 0.5,
        agg_weight: float = 0.1,
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
        self.propagation = propagation
        self.rounds = rounds
        self.threshold = threshold
        self.agg_weight = agg_weight
        self.hidden_sizes = hidden_sizes
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        bag_ids: ArrayLike,
        proportions: Any,
        graph: Any = None,
        *,
        side_information: ArrayLike | None = None,
        oracle_labels: ArrayLike | None = None,
    ) -> LLPBPClassifier:
        """Fit to rows, the bag of each row, and the share of positives in each bag.

        Parameters
        ----------
        X : float array, shape (n, d)
        bag_ids : array of int or str, shape (n,)
            Bags of any sizes, rows in any order.
        proportions : array of float, shape (bags,), or mapping from id to share
            In [0, 1]; an array is in the sorted order of the distinct ids, a pandas Series is taken by its index.
        graph : SimilarityGraph, or sparse or dense array, shape (n, n), optional
            Weights of at least 0 of pairs of rows, in place of the first round's graph of nearest neighbours.
        side_information : float array, shape (n,), optional
            Log-odds of label 1 of each row from elsewhere, for every round of belief propagation. Finite.
        oracle_labels : array of 0 and 1, shape (n,), optional
            Labels of rows, which this method is there to do without: networks then stop by the AUC on the rows of
            held-out bags, as in the authors' code, and not by the loss on proportions. For comparisons alone.

        Returns
        -------
        self
        """
        self._check()
        settings = LLPBeliefPropagation() if self.propagation is None else self.propagation
        exact = settings.count_noise is None
        bags, held_out = self._start(X, bag_ids, proportions, exact=exact)
        if oracle_labels is not None and not self._embeds:
            raise ValueError("oracle_labels are for networks: other estimators are not stopped early")
        if oracle_labels is not None:
            held_out = _with_oracle(held_out, oracle_labels, self.train_rows_)
        inside = None if graph is None else _part(graph, self.train_rows_)
        known = None if side_information is None else _per_row(side_information, self.train_rows_)
        counts = bags.shares * bags.index.sizes
        counts = np.round(counts) if exact else counts
        bags, held_out = _clipped(bags), None if held_out is None else _clipped(held_out)
        self.history_: list[LLPBPRound] = []
        features: Any = bags.rows
        for number in range(self.rounds if self._embeds else 1):
            found = clone(settings).set_params(threshold=self.threshold)
            own_graph = inside if number == 0 else None
            found.fit(features, bags.index.ids, counts, own_graph, side_information=known)
            self.history_.append(self._learn(found, bags, held_out, number))
            if self._embeds:
                features = _apart_from_zero(self._embed(bags.rows))
        self.validation_loss_ = self.history_[-1].validation_loss
        return self

    def transform(self, X: ArrayLike) -> Float[np.ndarray, "n width"]:
        """Return the last network's embedding of each row of X, an array of shape (n, d)."""
        check_is_fitted(self, "model_")
        if not self._embeds:
            raise TypeError(f"estimator must have an embedding; {type(self.estimator).__name__} has none")
        return self._embed(check_rows(X, self.n_features_in_))

    @property
    def _embeds(self) -> bool:
        return self.estimator is None or isinstance(self.estimator, nn.Module)

    def _learn(
        self, found: LLPBeliefPropagation, bags: LabelledBags, held_out: LabelledBags | None, number: int
    ) -> LLPBPRound:
        """Train on pseudo-labels."""
        labels, training = found.pseudo_labels_, None
        if labels.min() == labels.max():
            raise ValueError(
                f"threshold={self.threshold} makes every pseudo-label {labels[0]}: marginals range over "
                f"[{found.marginals_.min():.3g}, {found.marginals_.max():.3g}]"
            )
        if self._embeds:
            self.model_ = self._new_module(number)
            objective = _AggregateLoss(
                self.model_, self._embed(bags.rows[:2]).shape[1], self.agg_weight, self.random_state
            )
            training = self._train(
                objective, _AggregateLoss.forward, bags, labels.astype(np.float64), held_out, trained=self.model_
            )
        else:
            self.model_ = clone(self.estimator).fit(bags.rows, labels)
        loss = np.nan if held_out is None else self._bag_loss(self._positive(held_out.rows), held_out)
        return LLPBPRound(found, training, loss, self.model_)

    def _embed(self, rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n width"]:
        embedded = predict(
            _Embedding(self.model_), torch.as_tensor(rows, dtype=dtype_of(self.model_)), device=self.device
        )
        if not isinstance(embedded, Tensor) or embedded.ndim != 2 or len(embedded) != len(rows):
            raise ValueError(
                f"estimator.embed must return one row per row, shape ({len(rows)}, width); got "
                f"{tuple(embedded.shape) if isinstance(embedded, Tensor) else type(embedded).__name__}"
            )
        return np.asarray(embedded.cpu())

    def _check(self) -> None:
        if isinstance(self.estimator, nn.Module):
            if not callable(getattr(self.estimator, "embed", None)):
                raise TypeError("estimator must have a method embed, from rows to embeddings, where it is a module")
        elif self.estimator is not None and not hasattr(self.estimator, "predict_proba"):
            raise TypeError(
                f"estimator must be a module with embed, a classifier with predict_proba, or None; "
                f"got {type(self.estimator).__name__}"
            )
        if self.propagation is not None and not isinstance(self.propagation, LLPBeliefPropagation):
            raise TypeError(f"propagation must be an LLPBeliefPropagation; got {type(self.propagation).__name__}")
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1; got {self.rounds}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be in (0, 1); got {self.threshold}")
        if not 0 <= self.agg_weight < np.inf:
            raise ValueError(f"agg_weight must be finite and at least 0; got {self.agg_weight}")


class _Embedding(nn.Module):
    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, rows: Tensor) -> Any:
        return self.module.embed(rows)


class _AggregateLoss(nn.Module):
    """A network with a small head from the mean embedding of a bag to its share, trained together."""

    def __init__(self, network: Any, width: int, weight: float, seed: int) -> None:
        super().__init__()
        self.network = network
        self.weight = weight
        with seeded(seed):
            self.head = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 1)).to(dtype_of(network))

    def forward(self, batch: BagBatch) -> Tensor:
        embedded = self.network.embed(batch.rows)
        classify = getattr(self.network, "classify", None)
        logits = flat(self.network(batch.rows) if classify is None else classify(embedded), len(batch.rows))
        loss = functional.binary_cross_entropy_with_logits(logits, batch.targets)
        shares = self.head(segment_mean(embedded, batch.ids, len(batch.shares))).squeeze(1)
        return loss + self.weight * functional.binary_cross_entropy_with_logits(shares, batch.shares)


def _with_oracle(held_out: LabelledBags | None, labels: ArrayLike, rows: Bool[np.ndarray, " n"]) -> LabelledBags:
    """Return held-out bags with the labels of their rows."""
    if held_out is None:
        raise ValueError("oracle_labels need bags that are held out: give validation_fraction, and two bags at least")
    given = np.asarray(labels)
    if given.shape != rows.shape or not np.isin(given, (0, 1)).all():
        raise ValueError(f"oracle_labels must be 0 or 1, one for each row of X, {len(rows)}; got shape {given.shape}")
    inside = given[~rows]
    if inside.min() == inside.max():
        raise ValueError(f"oracle_labels of the held-out rows are all {inside[0]}: an AUC needs both")
    return replace(held_out, oracle_labels=inside)


def _clipped(bags: LabelledBags) -> LabelledBags:
    """Noise may have put shares outside [0, 1], where no cross entropy is."""
    return replace(bags, shares=bags.shares.clip(0, 1))


def _apart_from_zero(embedded: Float[np.ndarray, "n width"]) -> Float[np.ndarray, "n width"]:
    """Give rows that a network maps to zero a direction of their own: to a cosine they are then alike."""
    zero = ~embedded.any(axis=1, keepdims=True)
    moved: Float[np.ndarray, "n width"] = np.where(zero, embedded.dtype.type(1e-6), embedded)
    return moved


def _per_row(side_information: ArrayLike, rows: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " kept"]:
    numbers = np.asarray(side_information, dtype=np.float64)
    if numbers.shape != rows.shape:
        raise ValueError(f"side_information must hold one number per row of X, {len(rows)}; got shape {numbers.shape}")
    kept: Float[np.ndarray, " kept"] = numbers[rows]
    return kept


def _part(graph: Any, rows: Bool[np.ndarray, " n"]) -> Any:
    if isinstance(graph, SimilarityGraph):
        graph = scipy.sparse.coo_array((graph.weights, tuple(graph.edges.T)), shape=(graph.n_rows, graph.n_rows))
    square: Any = scipy.sparse.csr_array(graph)
    if square.shape != (len(rows), len(rows)):
        raise ValueError(f"graph must be of shape ({len(rows)}, {len(rows)}), one row per row of X; got {square.shape}")
    return square[rows][:, rows]
