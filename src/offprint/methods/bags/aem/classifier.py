"""Train a multiple-instance model with annealed attention entropy, and predict with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from offprint.methods.bags.aem.entropy import Kind, Schedule
from offprint.methods.bags.aem.loss import AEMLoss
from offprint.methods.bags.aem.output import MILOutput
from offprint.methods.bags.aem.slides import SlideDataset
from offprint.methods.bags.aem.sources import Bags, BagSource, Labels, labels_of, subsampled
from offprint.methods.bags.ragged import RaggedBags
from offprint.models.batches import check_count
from offprint.models.evaluation import device_of, evaluating
from offprint.models.randomness import as_generator
from offprint.models.training import Step, TrainingHistory, train


class MILClassifier(ClassifierMixin, BaseEstimator):
    """Fit a multiple-instance model to bags and their labels, with attention entropy as regularizer.

    Bags are a list of arrays, ragged bags, or a dataset that reads one slide at a time.

    Parameters
    ----------
    model : torch.nn.Module
        One of :mod:`offprint.methods.bags.aem`, or any that takes ragged bags and returns a
        :class:`~offprint.methods.bags.aem.MILOutput`. Trained in place.
    learning_rate : float
        Of AdamW, positive; it falls to 0 along half a cosine, step by step.
    epochs : int
        Passes over the bags, at least 1.
    aem_weight : float, or mapping of label to float
        λ at the first epoch, at least 0; 0 trains without the entropy. A mapping holds that of bags of each label.
    schedule : {"cosine", "constant"}
        How λ goes to 0, or stays.
    subsample : float
        Share of a bag's instances, drawn anew in each step, that it is trained on; in (0, 1].
    seed : int
        Of the order of bags, of dropout and of subsampling.
    batch_size : int
        Bags per step, at least 1. Large bags are best taken one by one, small ones together.
    validate_every : int
        Epochs between looks at the validation bags, at least 1.
    weight_decay : float
        Of AdamW, at least 0.
    normalize : bool
        Divide entropy by the logarithm of the number of instances.
    floor : float, optional
        Reward entropy up to this only, in nats or, normalised, in [0, 1]; by default without end.
    kind : {"entropy", "kl"}
        "kl" penalises KL(uniform ‖ attention) instead.
    device : torch.device or str, optional
        Where bags are moved; by default where the model is.
    progress : callable, optional
        Called as ``progress(done, total, label)`` in steps.

    Attributes
    ----------
    classes_ : array, shape (classes,)
        Labels in the order of the model's logits.
    n_features_in_ : int
        Length of an instance.
    history_ : TrainingHistory
        Losses; with validation, the negated score of each epoch.
    entropies_ : tuple of float
        Mean attention entropy over the steps of each epoch, negated for ``kind="kl"``; empty for a model without
        attention.

    Raises
    ------
    ValueError
        From ``fit``, if a parameter is out of range, a bag is empty, not finite or of another width (named), or labels
        do not match bags or the model.
    TypeError
        If the model returns no ``MILOutput``.

    Notes
    -----
    With validation bags the weights of the best epoch are kept, by macro AUC plus macro F1. A list of arrays is held in
    memory once; of a dataset, the slides of one step. Time is ``epochs`` passes over all instances.

    Examples
    --------
    Positive bags hold a few instances that are shifted:

    >>> from offprint.methods.bags.aem import GatedABMIL
    >>> rng, y = np.random.default_rng(0), np.tile([0, 1], 20)
    >>> bags = [rng.normal(size=(30, 8)) + 3 * label * (np.arange(30) < 5)[:, None] for label in y]
    >>> model = GatedABMIL(8, reduced_features=16, generator=0)
    >>> classifier = MILClassifier(model, learning_rate=1e-2, epochs=5, aem_weight=0.01).fit(bags[:30], y[:30])
    >>> classifier.score(bags[30:], y[30:]), classifier.attention(bags[31]).shape
    (1.0, (1, 30))

    References
    ----------
    Zhang et al., *AEM: Attention Entropy Maximization for Multiple Instance Learning based Whole Slide Image
    Classification*, arXiv:2406.15303, equation 3 and implementation details.
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float = 1e-4,
        epochs: int = 50,
        aem_weight: float | Mapping[Any, float] = 0.1,
        schedule: Schedule = "cosine",
        subsample: float = 1.0,
        seed: int = 0,
        *,
        batch_size: int = 1,
        validate_every: int = 1,
        weight_decay: float = 1e-5,
        normalize: bool = False,
        floor: float | None = None,
        kind: Kind = "entropy",
        device: torch.device | str | None = None,
        progress: Callable[[float, float, str], None] | None = None,
    ) -> None:
        self.model = model
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.aem_weight = aem_weight
        self.schedule = schedule
        self.subsample = subsample
        self.seed = seed
        self.batch_size = batch_size
        self.validate_every = validate_every
        self.weight_decay = weight_decay
        self.normalize = normalize
        self.floor = floor
        self.kind = kind
        self.device = device
        self.progress = progress

    def fit(self, bags: Bags, y: Labels | None = None, val: tuple[Bags, Labels] | SlideDataset | None = None) -> Any:
        """Train the model.

        Parameters
        ----------
        bags : sequence of arrays, shape (n, features), RaggedBags, or SlideDataset
            At least two.
        y : sequence, array or tensor, shape (bags,)
            Labels; those of the dataset by default.
        val : pair of bags and labels, or SlideDataset, optional
            Chooses the epoch that is kept.

        Returns
        -------
        MILClassifier
        """
        self._check()
        source, labels = BagSource(bags, "bags"), labels_of(bags, y, "y")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2 or len(labels) != len(source):
            raise ValueError(
                f"y must hold one label for each of {len(source)} bags, of at least two classes; got {len(labels)} "
                f"labels of {len(self.classes_)}"
            )
        loss = self._loss()
        held_out = None if val is None else self._held_out(val)
        fitting = _Fitting(self, source, torch.from_numpy(codes), loss)
        self.history_: TrainingHistory = train(
            self.model,
            fitting.loss,
            torch.arange(len(source)),
            validation=held_out,
            n_epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self._optimizer,
            schedule="cosine",
            validate_every=self.validate_every,
            generator=as_generator(self.seed),
            device=self.device,
            progress=self.progress,
            on_step=fitting.count,
        )
        self.n_features_in_ = source.width
        self.entropies_ = fitting.means()
        return self

    def predict_proba(self, bags: Bags) -> Float[np.ndarray, "bags classes"]:
        """Return the probability of each class for each bag."""
        source = self._fitted_to(bags)
        found = [self._outputs(source, [bag]).logits.softmax(1).double().cpu() for bag in range(len(source))]
        return torch.cat(found).numpy()

    def predict(self, bags: Bags) -> Shaped[np.ndarray, " bags"]:
        """Return the most probable label of each bag."""
        columns = self.predict_proba(bags).argmax(1)
        found: np.ndarray = self.classes_[columns]
        return found

    def attention(self, bag: Float[np.ndarray, "n features"] | Float[Tensor, "n features"]) -> np.ndarray:
        """Return each row's attention over the instances of one bag, of shape (rows, n)."""
        source = self._fitted_to([bag])
        return self._outputs(source, [0]).attention[0].cpu().numpy()

    def instance_weights(self, bag: Float[np.ndarray, "n features"] | Float[Tensor, "n features"]) -> np.ndarray:
        """Return how much each instance of a bag counts, of shape (n,): what a heat map shows."""
        source = self._fitted_to([bag])
        return self._outputs(source, [0]).instance_weights[0].cpu().numpy()

    def _check(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module; got {type(self.model).__name__}")
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite; got {self.learning_rate}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0 and finite; got {self.weight_decay}")
        if not 0 < self.subsample <= 1:
            raise ValueError(f"subsample must be in (0, 1]; got {self.subsample}")

    def _loss(self) -> AEMLoss:
        """Return the loss, its weights in the order of ``classes_``."""
        weight: Any = self.aem_weight
        if isinstance(weight, Mapping):
            if set(weight) != set(self.classes_.tolist()):
                raise ValueError(f"aem_weight must hold each label of {self.classes_.tolist()}; got {list(weight)}")
            weight = [weight[label] for label in self.classes_.tolist()]
        for one in weight if isinstance(weight, list) else [weight]:
            if not 0 <= one < math.inf:
                raise ValueError(f"aem_weight must be at least 0 and finite; got {one}")
        return AEMLoss(
            weight=weight,
            schedule=self.schedule,
            total_epochs=self.epochs,
            normalize=self.normalize,
            floor=self.floor,
            kind=self.kind,
        )

    def _optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        # Fused, since the many small tensors of these models are slow to go through one by one.
        return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)

    def _held_out(self, val: tuple[Bags, Labels] | SlideDataset) -> Callable[[nn.Module], float]:
        bags, y = (val, None) if isinstance(val, SlideDataset) else val
        source, labels = BagSource(bags, "val"), labels_of(bags, y, "val")
        unknown = sorted(set(labels.tolist()) - set(self.classes_.tolist()))
        if unknown or len(labels) != len(source):
            raise ValueError(
                f"val must hold one label for each of {len(source)} bags, each seen in y; got {len(labels)} labels"
                + (f", of them unknown: {unknown}" if unknown else "")
            )
        codes = np.searchsorted(self.classes_, labels)

        def negated_score(model: nn.Module) -> float:
            parts = torch.split(torch.arange(len(source)), self.batch_size)
            logits = torch.cat([self._outputs(source, part.tolist()).logits.cpu() for part in parts])
            return -score(codes, logits.softmax(1).double().numpy())

        return negated_score

    def _fitted_to(self, bags: Bags) -> BagSource:
        check_is_fitted(self, "classes_")
        source = BagSource(bags, "bags")
        if source.width != self.n_features_in_:
            raise ValueError(f"bags must have {self.n_features_in_} features; got {source.width}")
        return source

    def _outputs(self, source: BagSource, chosen: list[int]) -> MILOutput:
        place = device_of(self.model) if self.device is None else self.device
        with evaluating(self.model), torch.no_grad():
            return _output(self.model, source.take(chosen).to(place))


def score(y: Int[np.ndarray, " bags"], probabilities: Float[np.ndarray, "bags classes"]) -> float:
    """Return macro F1 plus macro AUC, by which the best epoch is chosen.

    Parameters
    ----------
    y : int array, shape (bags,)
        Columns of the true classes.
    probabilities : float array, shape (bags, classes)

    Returns
    -------
    float
        In [0, 2]; classes that are absent, or alone, do not count in the AUC.

    Examples
    --------
    >>> score(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    2.0
    """
    f1 = float(f1_score(y, probabilities.argmax(1), average="macro"))
    told = [c for c in range(probabilities.shape[1]) if 0 < int((y == c).sum()) < len(y)]
    areas = [roc_auc_score(y == c, probabilities[:, c]) for c in told]
    return f1 + (float(np.mean(areas)) if areas else 0.0)


class _Fitting:
    """The loss of a batch of bags, which knows the epoch and remembers entropies."""

    def __init__(self, settings: MILClassifier, source: BagSource, codes: Int[Tensor, " bags"], loss: AEMLoss) -> None:
        self.settings, self.source, self.codes, self.penalised = settings, source, codes, loss
        self.steps_per_epoch = -(-len(source) // settings.batch_size)
        self.n_steps = 0
        self.entropies: list[Tensor] = []

    def loss(self, model: nn.Module, chosen: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        bags = self.source.take(chosen.tolist()).to(chosen.device)
        if self.settings.subsample < 1:
            bags = subsampled(bags, self.settings.subsample)
        output = _output(model, bags)
        if output.logits.shape[1] != len(self.settings.classes_):
            raise ValueError(
                f"y holds {len(self.settings.classes_)} classes, but the model has {output.logits.shape[1]} logits"
            )
        target = self.codes[chosen.cpu()].to(output.logits.device)
        value: Tensor = self.penalised(output, target, epoch=self.n_steps // self.steps_per_epoch)
        terms = self.penalised.terms
        if terms is not None and terms.neg_entropy is not None:
            self.entropies.append(-terms.neg_entropy)
        return value

    def count(self, step: Step) -> None:
        self.n_steps = step.step

    def means(self) -> tuple[float, ...]:
        if not self.entropies:
            return ()
        epochs = torch.split(torch.stack(self.entropies).cpu(), self.steps_per_epoch)
        return tuple(part.mean().item() for part in epochs)


def _output(model: nn.Module, bags: RaggedBags) -> MILOutput:
    for parameter in model.parameters():  # half-precision files and double-precision arrays suit any model
        bags = bags.with_values(bags.values.to(parameter.dtype))
        break
    found = model(bags)
    if not isinstance(found, MILOutput):
        raise TypeError(
            f"model must return a MILOutput; got {type(found).__name__}. To train a model of another kind use your own "
            "loop with AEMRegularizer.attach"
        )
    return found
