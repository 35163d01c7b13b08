"""What classifiers that learn from label proportions share: reading bags, holding some out, training on whole bags."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import roc_auc_score
from sklearn.utils.validation import check_array, check_is_fitted
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.bags.aggregate import bag_loss
from offprint.methods.bags.llp_bp_bags import align_counts, counts_from
from offprint.methods.bags.ragged import BagIndex, RaggedBags
from offprint.models.evaluation import predict
from offprint.models.mlp import MLP
from offprint.models.randomness import seeded
from offprint.models.training import TrainingHistory, train


class EmbeddingNet(nn.Module):
    """A multilayer perceptron for two classes that also gives an embedding: what its last hidden layer is fed with.

    Parameters
    ----------
    in_features : int
        Length of a row.
    hidden_sizes : sequence of int
        Widths, two at least, each followed by a ReLU; the embedding has the last width but one. The paper's are
        5040, 1280, 320, 128 and 64.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If there are fewer than two widths or one is below 1.

    Examples
    --------
    >>> net = EmbeddingNet(3, (16, 8, 4), generator=0)
    >>> net(torch.zeros(5, 3)).shape, net.embed(torch.zeros(5, 3)).shape
    (torch.Size([5]), torch.Size([5, 8]))
    """

    def __init__(
        self, in_features: int, hidden_sizes: Sequence[int], *, generator: torch.Generator | int | None = None
    ) -> None:
        super().__init__()
        if len(hidden_sizes) < 2:
            raise ValueError(f"hidden_sizes must hold at least two widths; got {list(hidden_sizes)}")
        with seeded(generator):
            self.body = MLP(in_features, hidden_sizes[:-1], hidden_sizes[-1])
            self.head = nn.Linear(hidden_sizes[-1], 1)

    def forward(self, rows: Float[Tensor, "batch features"]) -> Float[Tensor, " batch"]:
        """Return one logit per row."""
        return self.classify(self.embed(rows))

    def embed(self, rows: Float[Tensor, "batch features"]) -> Float[Tensor, "batch width"]:
        """Return the embedding of each row."""
        embedded: Tensor = self.body.features(rows)
        return embedded

    def classify(self, embedded: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """Return the logit of each embedding."""
        logits: Tensor = self.head(functional.relu(self.body.head(embedded)))
        return logits.squeeze(1)


@dataclass(frozen=True, eq=False)
class LabelledBags:
    """Rows with the share of positives in their bags.

    Parameters
    ----------
    rows : float array, shape (n, d)
    index : BagIndex
    shares : float64 array, shape (bags,)
        In [0, 1].
    oracle_labels : array, shape (n,), optional
        Labels 0 and 1 of the rows themselves, where training is to be stopped by these.
    """

    rows: Float[np.ndarray, "n d"]
    index: BagIndex
    shares: Float[np.ndarray, " bags"]
    oracle_labels: Shaped[np.ndarray, " n"] | None = None

    def take(self, bags: Int[np.ndarray, " chosen"]) -> LabelledBags:
        """Return those of the chosen bags, rows in their order."""
        kept = np.isin(self.index.ids, bags)
        labels = None if self.oracle_labels is None else self.oracle_labels[kept]
        return LabelledBags(self.rows[kept], BagIndex.of(self.index.ids[kept]), self.shares[np.sort(bags)], labels)


class BagBatch(NamedTuple):
    """Whole bags: their rows, the bag of each row from 0, the share of each bag, and a target for each row."""

    rows: Tensor
    ids: Tensor
    shares: Tensor
    targets: Tensor


BagObjective = Callable[[Any, BagBatch], Tensor]


class ProportionClassifier(ClassifierMixin, BaseEstimator):
    """Base of classifiers of rows that are fitted to the share of positives in each bag.

    A subclass stores ``estimator``, ``hidden_sizes``, ``n_epochs``, ``batch_size``, ``learning_rate``,
    ``weight_decay``, ``patience``, ``validation_fraction``, ``device`` and ``random_state``; its ``fit`` sets
    ``model_``.
    """

    estimator: Any
    hidden_sizes: Sequence[int]
    n_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    validation_fraction: float
    device: Any
    random_state: int
    model_: Any
    validation_loss_: float

    def predict_proba(self, X: ArrayLike) -> Float[np.ndarray, "n 2"]:
        """Return the probabilities of classes 0 and 1 for each row of X, an array of shape (n, d)."""
        check_is_fitted(self, "model_")
        positive = self._positive(check_rows(X, self.n_features_in_))
        return np.stack([1 - positive, positive], axis=1)

    def predict(self, X: ArrayLike) -> Int[np.ndarray, " n"]:
        """Return the more likely class, 0 or 1, of each row of X, an array of shape (n, d)."""
        classes: Int[np.ndarray, " n"] = (self.predict_proba(X)[:, 1] >= 0.5).astype(np.int64)
        return classes

    def bag_loss(self, X: ArrayLike, bag_ids: ArrayLike, proportions: Any) -> float:
        """Return the cross entropy of mean predictions of bags against their proportions: what to tune on.

        It needs no label of a row. X has shape (n, d), bag_ids shape (n,), proportions as in ``fit``.
        """
        check_is_fitted(self, "model_")
        bags = self._read(X, bag_ids, proportions, self.n_features_in_)
        return self._bag_loss(self._positive(bags.rows), bags)

    def _bag_loss(self, positive: Float[np.ndarray, " n"], bags: LabelledBags) -> float:
        pred = torch.as_tensor(positive, dtype=torch.float64)
        return float(bag_loss(pred, torch.as_tensor(bags.index.ids), torch.as_tensor(bags.shares), "log"))

    def _positive(self, rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        if isinstance(self.model_, nn.Module):
            return module_probabilities(self.model_, rows, self.device)
        positive: Float[np.ndarray, " n"] = self.model_.predict_proba(rows)[:, 1]
        return positive

    def _read(
        self, X: Any, bag_ids: Any, proportions: Any, n_features: int | None = None, exact: bool = True
    ) -> LabelledBags:
        """Check what a user gives; with ``exact``, proportions must be counts over sizes."""
        rows = check_rows(X, n_features)
        index, shares = align_counts(bag_ids, proportions, len(rows), "proportions")
        shares = counts_from(shares, index) / index.sizes if exact else shares
        return LabelledBags(rows, index, shares)

    def _start(self, X: Any, bag_ids: Any, proportions: Any, *, exact: bool = True) -> tuple[LabelledBags, Any]:
        """Begin ``fit``: return bags to train on and the held-out ones, which are None where none are held out."""
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and at least 0; got {value}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must be in [0, 1); got {self.validation_fraction}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {self.batch_size}")
        bags = self._read(X, bag_ids, proportions, exact=exact)
        self.n_features_in_ = bags.rows.shape[1]
        self.classes_ = np.array([0, 1])
        n_bags = len(bags.shares)
        n_held_out = max(1, round(self.validation_fraction * n_bags)) if self.validation_fraction > 0 else 0
        if n_held_out >= n_bags:
            n_held_out = 0  # with a single bag there is nothing to spare
        order = np.random.default_rng(self.random_state).permutation(n_bags)
        self.train_bags_ = np.sort(order[n_held_out:])
        self.train_rows_ = np.isin(bags.index.ids, self.train_bags_)
        return bags.take(self.train_bags_), bags.take(order[:n_held_out]) if n_held_out else None

    def _new_module(self, stream: int) -> nn.Module:
        """Return a fresh network: a copy of the user's, or ours with weights drawn from the seed."""
        if isinstance(self.estimator, nn.Module):
            return copy.deepcopy(self.estimator)
        source = int(np.random.default_rng([self.random_state, stream]).integers(2**62))
        return EmbeddingNet(self.n_features_in_, self.hidden_sizes, generator=source)

    def _train(
        self,
        module: nn.Module,
        objective: BagObjective,
        bags: LabelledBags,
        targets: Float[np.ndarray, " n"],
        held_out: LabelledBags | None,
        trained: nn.Module,
    ) -> TrainingHistory:
        """Train on batches of whole bags; ``trained`` is the part of ``module`` that predicts."""
        generator = torch.Generator().manual_seed(self.random_state)

        def validation(_: nn.Module) -> float:
            assert held_out is not None
            positive = module_probabilities(trained, held_out.rows, self.device)
            if held_out.oracle_labels is not None:
                return -float(roc_auc_score(held_out.oracle_labels, positive))
            return self._bag_loss(positive, held_out)

        return train(
            module,
            objective,
            _BagBatches.of(bags, targets, self.batch_size, generator, dtype_of(trained)),
            validation=None if held_out is None else validation,
            n_epochs=self.n_epochs,
            patience=None if held_out is None else self.patience,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            generator=generator,
            device=self.device,
        )


Classifier = TypeVar("Classifier", bound=ProportionClassifier)


def fit_best(candidates: Sequence[Classifier], X: ArrayLike, bag_ids: ArrayLike, proportions: Any) -> Classifier:
    """Fit every candidate and return the one of least loss on held-out bags: tuning without labels of rows.

    Parameters
    ----------
    candidates : sequence of DLLPClassifier, EasyLLPClassifier or LLPBPClassifier
        Of equal ``random_state`` and ``validation_fraction``, so that all hold out the same bags.
    X : float array, shape (n, d)
    bag_ids : array of int or str, shape (n,)
    proportions : array of float, shape (bags,), or mapping from id to share

    Returns
    -------
    classifier
        Fitted, the first among equals.

    Raises
    ------
    ValueError
        If there is no candidate, they hold out different bags or none, there is a single bag, or from ``fit``.

    Examples
    --------
    >>> from offprint.methods.bags.llp_bp_baselines import DLLPClassifier
    >>> rng = np.random.default_rng(0)
    >>> y, bag_ids = np.repeat([0, 1], 40), rng.permutation(np.arange(80) % 20)
    >>> X = (rng.normal(size=80) + 4 * y)[:, None]
    >>> rates = [DLLPClassifier(hidden_sizes=(8, 8), n_epochs=15, learning_rate=rate) for rate in (1e-4, 1e-2)]
    >>> fit_best(rates, X, bag_ids, np.bincount(bag_ids, weights=y) / 4).learning_rate
    0.01
    """
    if len({(one.random_state, one.validation_fraction) for one in candidates}) != 1:
        raise ValueError("candidates must be at least one, all of the same random_state and validation_fraction")
    if candidates[0].validation_fraction == 0:
        raise ValueError("candidates must hold out bags: their validation_fraction is 0")
    fitted = [one.fit(X, bag_ids, proportions) for one in candidates]
    if np.isnan([one.validation_loss_ for one in fitted]).any():
        raise ValueError("bag_ids must hold at least two bags, so that one can be held out")
    best: Classifier = min(fitted, key=lambda one: one.validation_loss_)
    return best


def module_probabilities(module: nn.Module, rows: Float[np.ndarray, "n d"], device: Any) -> Float[np.ndarray, " n"]:
    """Return the sigmoid of a module's logits, one per row."""
    logits = predict(module, torch.as_tensor(rows, dtype=dtype_of(module)), device=device)
    positive: Float[np.ndarray, " n"] = torch.sigmoid(flat(logits, len(rows))).double().cpu().numpy()
    return positive


def flat(logits: Any, n_rows: int) -> Tensor:
    """Return logits as a vector, or say what shape a module must give."""
    if not isinstance(logits, Tensor) or logits.shape not in ((n_rows,), (n_rows, 1)):
        raise ValueError(
            f"estimator must return one logit per row, shape ({n_rows},) or ({n_rows}, 1); got "
            f"{tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__}"
        )
    return logits.reshape(n_rows)


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the dtype of a module's parameters."""
    floats = (parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
    return next(floats, torch.get_default_dtype())


def check_rows(X: Any, n_features: int | None) -> Float[np.ndarray, "n d"]:
    """Return X as a matrix of finite floats, of as many features as were seen before, if any."""
    floats = [np.float64, np.float32]
    rows: Float[np.ndarray, "n d"] = check_array(X, dtype=floats, input_name="X")
    if n_features not in (None, rows.shape[1]):
        raise ValueError(f"X must have {n_features} features, as in fit; got {rows.shape[1]}")
    return rows


@dataclass
class _BagBatches:
    """Whole bags in batches of about as many rows as asked for, in a new order each time that it is iterated."""

    bags: RaggedBags
    targets: RaggedBags
    shares: Tensor
    size: int
    generator: torch.Generator

    @classmethod
    def of(
        cls,
        bags: LabelledBags,
        targets: Float[np.ndarray, " n"],
        batch_size: int,
        generator: torch.Generator,
        dtype: torch.dtype,
    ) -> _BagBatches:
        rows = RaggedBags.from_ids(torch.as_tensor(bags.rows, dtype=dtype), bags.index.ids)
        labels = RaggedBags.from_ids(torch.as_tensor(targets, dtype=dtype), bags.index.ids)
        # At least one bag, so that a bag larger than the batch is a batch by itself.
        size = max(1, round(batch_size / float(bags.index.sizes.mean())))
        return cls(rows, labels, torch.as_tensor(bags.shares, dtype=dtype), size, generator)

    def __len__(self) -> int:
        return -(-len(self.shares) // self.size)

    def __iter__(self) -> Iterator[BagBatch]:
        for chosen in torch.split(torch.randperm(len(self.shares), generator=self.generator), self.size):
            rows = self.bags.take(chosen)
            yield BagBatch(rows.values, rows.ids, self.shares[chosen], self.targets.take(chosen).values)
