"""One way of training, choosing and testing for every arm of the claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.bags.aem import GatedABMIL, MILClassifier, MILOutput, attention_entropy
from offprint.methods.bags.aem.classifier import score
from offprint.papers.aem.slides import N_FEATURES, Slides, World
from offprint.papers.run import Run

RATES = (1e-2, 3e-2)
"""Learning rates that every arm is given, that of the claims without a choice first."""
WEIGHTS = (0.1, 0.001, 0.01, 0.3, 1.0)
"""Weights that a penalised arm is given, the one at which its learning rate is chosen first."""
WIDTH = 32
"""Of the reduction and of the scoring networks, for slides of 64 features."""

Make = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Setting:
    """Sizes and lengths of every training at one scale."""

    sizes: tuple[int, int]
    n_epochs: int
    n_train: int = 60
    n_val: int = 20
    n_test: int = 200
    batch_size: int = 4

    @classmethod
    def of(cls, run: Run) -> Setting:
        """Return that of a run's scale."""
        return run.pick(
            smoke=cls((8, 16), 1, 8, 6, 8),
            quick=cls((50, 150), 8),
            full=cls((80, 220), 10),
            paper=cls((200, 600), 50, batch_size=1),
        )

    @property
    def note(self) -> str:
        """The setting in words."""
        return (
            f"{self.n_train} training, {self.n_val} validation and {self.n_test} test slides of {self.sizes[0]} to "
            f"{self.sizes[1]} patches, {self.n_epochs} epochs, {self.batch_size} slides a step; learning rates are ten "
            "to thirty times those for many steps of one slide."
        )


@dataclass(frozen=True)
class Splits:
    """Training, validation and test slides of one repetition."""

    train: Slides
    val: Slides
    test: Slides

    @classmethod
    def drawn(cls, generator: torch.Generator, setting: Setting, **options: Any) -> Splits:
        """Draw a world and its slides; the test slides are from a centre that the others do not show."""
        world = World.drawn(generator)
        train, val, test = (
            world.slides(n, generator, seen=seen, sizes=setting.sizes, **options)
            for n, seen in ((setting.n_train, True), (setting.n_val, True), (setting.n_test, False))
        )
        return cls(train, val, test)


@dataclass(frozen=True)
class Scores:
    """How well a trained model does on test slides, and on validation slides: macro AUC plus F1, less cross entropy."""

    auc: float
    f1: float
    validation: tuple[float, float]


Scored = TypeVar("Scored", bound=Scores)


@dataclass(frozen=True)
class Trained(Scores):
    """The same with what the model says about the test slides."""

    output: MILOutput
    test: Slides

    @property
    def entropies(self) -> Float[np.ndarray, " slides"]:
        """Mean attention entropy of each test slide."""
        return self._entropies(normalize=False)

    @property
    def normalised_entropies(self) -> Float[np.ndarray, " slides"]:
        """The same over ln n."""
        return self._entropies(normalize=True)

    def attention_on(self, marked: Tensor) -> float:
        """Return the mean attention on marked patches, over the slides that have any."""
        bags = self.test.bags
        weights = self.output.instance_weights[bags.mask]
        mass = torch.zeros(bags.n_bags).index_add(0, bags.ids, weights * marked)
        has = torch.zeros(bags.n_bags).index_add(0, bags.ids, marked.float()) > 0
        return float(mass[has].mean())

    def _entropies(self, normalize: bool) -> Float[np.ndarray, " slides"]:
        assert self.output.attention_logits is not None  # asked of attention models only
        found = attention_entropy(self.output.attention_logits, normalize=normalize)
        return found.mean(1).double().numpy()


@dataclass(frozen=True)
class Arm:
    """A model and how it is trained; ``weights`` are those that it may choose from."""

    make: Make
    weights: Sequence[float] = (0.0,)
    options: dict[str, Any] = field(default_factory=dict)

    def fit(
        self, splits: Splits, setting: Setting, seed: int, rate: float = RATES[0], weight: float | None = None
    ) -> Trained:
        """Train once, keep the best epoch on validation, and test."""
        model = self.make(seed)
        MILClassifier(
            model,
            rate,
            setting.n_epochs,
            self.weights[0] if weight is None else weight,
            seed=seed,
            batch_size=setting.batch_size,
            validate_every=max(1, setting.n_epochs // 5),
            **self.options,
        ).fit(splits.train.bags, splits.train.y, val=(splits.val.bags, splits.val.y))
        with torch.no_grad():
            held_out, output = model(splits.val.bags).logits, model(splits.test.bags)
        probabilities, y = output.logits.softmax(1).double().numpy(), splits.test.y
        loss = functional.cross_entropy(held_out, torch.from_numpy(splits.val.y))
        return Trained(
            auc=float(roc_auc_score(y, probabilities[:, 1])),
            f1=float(f1_score(y, probabilities.argmax(1), average="macro")),
            validation=(score(splits.val.y, held_out.softmax(1).double().numpy()), -float(loss)),
            output=output,
            test=splits.test,
        )

    def tuned(self, splits: Splits, setting: Setting, seed: int) -> Trained:
        """Choose the learning rate, then the weight, by validation alone."""
        return chosen_by_validation(
            lambda rate, weight: self.fit(splits, setting, seed, rate, weight), RATES, self.weights
        )


def chosen_by_validation(
    fit: Callable[[float, float], Scored], rates: Sequence[float], weights: Sequence[float]
) -> Scored:
    """Choose the learning rate at the first weight, then the weight, by validation alone.

    By macro AUC plus macro F1; where these are equal, as they often are over few slides, by cross entropy.
    """
    found = {(rate, weights[0]): fit(rate, weights[0]) for rate in rates}
    rate, _ = max(found, key=lambda choice: found[choice].validation)
    for weight in weights[1:]:
        found[rate, weight] = fit(rate, weight)
    return max(found.values(), key=lambda trained: trained.validation)


def abmil(seed: int, **options: Any) -> nn.Module:
    """Make the attention model of the claims."""
    return GatedABMIL(N_FEATURES, 2, WIDTH, WIDTH, generator=seed, **options)
