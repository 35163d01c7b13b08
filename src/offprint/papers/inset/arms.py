"""Everything that the claims compare: the tasks, selectors with and without context, and other ways to choose."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from offprint.data.subsets import SubsetData
from offprint.methods.bags.inset import SubsetSelector
from offprint.methods.bags.inset_data import jaccard, top
from offprint.methods.bags.inset_utility import SetUtility
from offprint.models.mlp import MLP
from offprint.models.sets import DeepSets, SetTransformer
from offprint.models.training import train

RATES = (1e-4, 1e-3)


@dataclass(frozen=True)
class Setting:
    """How much is trained, and on how much. ``n_tuning`` epochs decide between the rates; 0 takes the larger one."""

    n_train: int
    n_test: int
    n_epochs: int
    n_tuning: int
    features: int = 64
    hidden_features: int = 128

    @property
    def n_sets(self) -> int:
        """Sets to draw for training, validation and test together."""
        return self.n_train + 2 * self.n_test


Draw = Callable[[Setting, int], SubsetData]
"""Draws as many sets as a setting needs, from a seed: those for training first, then for validation, then for test."""


@dataclass(frozen=True, eq=False)
class Task:
    """Sets to train on, to choose the epoch and the rate by, and to test on."""

    train: SubsetData
    validation: SubsetData
    test: SubsetData

    @classmethod
    def split(cls, data: SubsetData, setting: Setting) -> Task:
        """Cut sets in three."""
        ends = setting.n_train, setting.n_train + setting.n_test
        return cls(data.part(0, ends[0]), data.part(*ends), data.part(ends[1], len(data)))


@dataclass(frozen=True, eq=False)
class Found:
    """A trained selector, its mean Jaccard index in percent on the test sets, and on validation sets by epoch."""

    selector: SubsetSelector
    score: float
    curve: tuple[float, ...]

    def f1(self, test: SubsetData) -> float:
        """Return the mean F1 score in percent where the size of the subset is not given."""
        chosen = self.selector.select(test.sets)
        overlap = jaccard(test.chosen, chosen)
        return float(100 * np.mean(2 * overlap / (1 + overlap)))


@dataclass
class Arms:
    """Trains arms on one task, each once, all from the same seed."""

    task: Task
    setting: Setting
    seed: int
    device: str
    done: dict[str, Found] = field(default_factory=dict)

    def fit(self, **options: Any) -> Found:
        """Return a selector trained with these options of :class:`SubsetSelector`."""
        key = repr(sorted(options.items(), key=lambda item: item[0]))
        if key not in self.done:
            self.done[key] = self._fit(options)
        return self.done[key]

    def gain(self, **options: Any) -> float:
        """Return by how much the score with context exceeds that without."""
        plain = {name: value for name, value in options.items() if name not in ("merge", "agg")}
        return self.fit(**options).score - self.fit(context=False, **plain).score

    def encoder(self) -> nn.Module:
        """Return the encoder that all arms start from."""
        width = self.setting.features
        return MLP(tuple(self.task.train.sets.shape[2:]), [width], width, generator=self.seed)

    def n_weights(self, hidden_features: int, **options: Any) -> int:
        """Return the number of weights of a utility."""
        utility = SetUtility(self.encoder(), self.setting.features, hidden_features, **options)
        return sum(parameter.numel() for parameter in utility.parameters())

    def widened(self) -> int:
        """Return the hidden width at which a utility without context has as many weights as one with it."""
        own = self.setting.hidden_features
        target = self.n_weights(own)
        return min(range(own, 2 * own), key=lambda width: abs(self.n_weights(width, context=False) - target))

    def _fit(self, options: Mapping[str, Any]) -> Found:
        def trained(rate: float, n_epochs: int) -> SubsetSelector:
            selector = SubsetSelector(
                self.encoder(),
                **{"hidden_features": self.setting.hidden_features, "mode": "diffMF", **options},
                learning_rate=rate,
                n_epochs=n_epochs,
                patience=None,
                device=self.device,
                random_state=self.seed,
            )
            task = self.task
            validation = (task.validation.sets, task.validation.chosen)
            return selector.fit(task.train.sets, task.train.chosen, validation=validation)

        selector = trained(
            self._rate(lambda rate, n: min(trained(rate, n).history_.validation_losses)), self.setting.n_epochs
        )
        score = 100 * selector.score(self.task.test.sets, self.task.test.chosen)
        return Found(selector, score, tuple(-100 * loss for loss in selector.history_.validation_losses))

    def _rate(self, loss: Callable[[float, int], float]) -> float:
        if self.setting.n_tuning == 0:
            return max(RATES)
        return min(RATES, key=lambda rate: loss(rate, self.setting.n_tuning))

    def scorer(self, head: str) -> float:
        """Return the score of a network that scores elements, trained by cross-entropy on all of them."""
        width, test = self.setting.features, self.task.test
        heads: Mapping[str, Callable[[], nn.Module]] = {
            "single elements": lambda: MLP(width, [width], 1, generator=self.seed),
            "DeepSets": lambda: DeepSets(width, 1, width, per_element=True, generator=self.seed),
            "SetTransformer": lambda: SetTransformer(width, 1, width, per_element=True, generator=self.seed),
        }

        def trained(rate: float, n_epochs: int) -> tuple[nn.Module, float]:
            model = nn.Sequential(self.encoder(), heads[head]()).to(self.device)
            history = train(
                model,
                lambda network, batch: nn.functional.binary_cross_entropy_with_logits(
                    network(batch[0])[..., 0], batch[1]
                ),
                (self.task.train.sets, self.task.train.chosen.float()),
                validation=lambda network: -overlap(self._scores(network, self.task.validation), self.task.validation),
                n_epochs=n_epochs,
                learning_rate=rate,
                generator=self.seed,
            )
            return model, min(history.validation_losses)

        model, _ = trained(self._rate(lambda rate, n: trained(rate, n)[1]), self.setting.n_epochs)
        return overlap(self._scores(model, test), test)

    @torch.no_grad()
    def _scores(self, model: nn.Module, data: SubsetData) -> Float[Tensor, "sets size"]:
        scores: Tensor = model(data.sets.to(self.device))[..., 0]
        return scores.cpu()


@functools.lru_cache(maxsize=16)
def arms(make: Draw, setting: Setting, seed: int, device: str) -> Arms:
    """Return the arms on a task, the same for all claims measured in one process."""
    return Arms(Task.split(make(setting, seed), setting), setting, seed, device)


def overlap(scores: Float[Tensor, "sets size"], data: SubsetData) -> float:
    """Return the mean Jaccard index in percent of the elements with the largest scores, as many as there should be."""
    everything = torch.ones_like(data.chosen)
    return float(100 * jaccard(data.chosen, top(scores, data.chosen.sum(1), everything)).mean())


def distance_to_mean(data: SubsetData) -> float:
    """Return the score of choosing the elements farthest from the mean of their set."""
    flat = data.sets.flatten(2)
    return overlap((flat - flat.mean(1, keepdim=True)).norm(dim=2), data)


def chance(chosen: Bool[Tensor, "sets size"]) -> float:
    """Return the expected score of random subsets of the right size, by the hypergeometric distribution."""
    n = chosen.shape[1]

    def expected(k: int) -> float:
        shares = [math.comb(k, i) * math.comb(n - k, k - i) / math.comb(n, k) for i in range(k + 1)]
        return sum(share * i / (2 * k - i) for i, share in enumerate(shares))

    return float(100 * np.mean([expected(int(k)) for k in chosen.sum(1)]))


def of_another_set(encoded: Float[Tensor, "sets points features"], mask: Bool[Tensor, "sets points"]) -> Tensor:
    """Return the mean over the next set of the batch: a summary that tells nothing of one's own set."""
    return (encoded.sum(1) / mask.sum(1, keepdim=True)).roll(1, 0)
