"""A smoothed classifier: what it predicts, and within which radius that is certain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest
from torch import Tensor

from offprint.methods.certify.smoothing.certificate import Certificate, check_level, clopper_pearson_lower
from offprint.methods.certify.smoothing.noise import NOISES, NoiseName, Norm
from offprint.methods.certify.smoothing.sampling import (
    Base,
    check_base,
    check_input,
    check_noise,
    check_range,
    check_sigma,
    noisy_outputs,
)
from offprint.methods.certify.smoothing.saved import SavedCertificates
from offprint.models.batches import check_count
from offprint.models.randomness import as_generator

ABSTAIN = -1


@dataclass(frozen=True)
class Prediction:
    """What a smoothed classifier says of one input.

    Parameters
    ----------
    label : int
        The most frequent class under noise, or the abstention mark where it is not significantly ahead.
    p_value : float
        Of the two-sided binomial test between the two most frequent classes.
    counts : tuple of int
        How often each class was seen.
    """

    label: int
    p_value: float
    counts: tuple[int, ...]


class SmoothedClassifier:
    """The class that a model most often says under noise, with a radius within which no perturbation changes it.

    It takes any classifier as it is; no gradient, architecture or training is asked for. What makes radii large is a
    model that is accurate under noise of the same sigma: train it so (see :func:`.finetune_smoothing`).

    Parameters
    ----------
    base : callable
        From a batch of inputs, shape (batch, ...), to logits of shape (batch, num_classes). A ``torch.nn.Module`` must
        be in evaluation mode. Anything that normalises inputs belongs inside it: noise is added before.
    sigma : float
        Standard deviation of the noise, in the units of the inputs, positive.
    num_classes : int
        At least 2.
    abstain : int
        The label that stands for no answer, outside [0, num_classes).
    noise : {"gaussian", "laplace", "uniform"}
        Gaussian noise certifies an l2 radius; Laplace and uniform noise certify an l1 radius.
    norm : {"l2", "l1"}, optional
        Ask for a radius in this norm; refused where the noise does not certify it.
    input_range : (float, float), optional
        Declare where inputs lie, such as (0, 1) for pixels; others are then refused. Noisy copies are not clipped.

    Raises
    ------
    ValueError
        If sigma is not positive, an option is unknown, base is in training mode, or the norm does not fit the noise.
    TypeError
        If base is not callable.

    Notes
    -----
    A certificate costs n0 + n evaluations of the base model and one batch of noisy copies in memory. Each certificate
    errs with a chance of at most alpha over its noise; see :func:`.certified_together` for many at once. Selection and
    estimation use separate noise, without which the bound would not hold.

    Examples
    --------
    A linear classifier, whose true radius is its distance to the boundary, 0.5:

    >>> base = lambda x: torch.stack([x[:, 0], -x[:, 0]], dim=1)
    >>> smoothed = SmoothedClassifier(base, sigma=0.5, num_classes=2)
    >>> certificate = smoothed.certify(torch.tensor([0.5, 3.0]), n=10_000, generator=0)
    >>> certificate.label, round(certificate.radius, 3)
    (0, 0.46)
    >>> smoothed.predict(torch.tensor([0.5, 3.0]), n=100, generator=0).label
    0

    References
    ----------
    Cohen, Rosenfeld and Kolter, *Certified Adversarial Robustness via Randomized Smoothing*, arXiv:1902.02918,
    theorem 1 and section 3.2 (PREDICT and CERTIFY). Yang et al., *Randomized Smoothing of All Shapes and Sizes*,
    arXiv:2002.08118, for Laplace and uniform noise.
    """

    def __init__(
        self,
        base: Base,
        sigma: float,
        num_classes: int,
        *,
        abstain: int = ABSTAIN,
        noise: NoiseName = "gaussian",
        norm: Norm | Literal["linf"] | None = None,
        input_range: tuple[float, float] | None = None,
    ) -> None:
        check_base(base)
        check_sigma(sigma)
        check_noise(noise)
        check_range(input_range)
        check_count("num_classes", num_classes)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2; got {num_classes}")
        if 0 <= abstain < num_classes:
            raise ValueError(f"abstain must not be one of the classes 0 to {num_classes - 1}; got {abstain}")
        _check_norm(norm, noise)
        self.base, self.sigma, self.num_classes, self.abstain = base, float(sigma), num_classes, abstain
        self.noise: NoiseName = noise
        self.input_range = input_range

    @property
    def norm(self) -> Norm:
        """The norm in which radii are measured."""
        return NOISES[self.noise].norm

    def predict(
        self,
        x: Float[Tensor, "*input"],
        n: int = 1000,
        alpha: float = 0.001,
        *,
        batch: int = 1000,
        generator: torch.Generator | int = 0,
    ) -> Prediction:
        """Return the smoothed class of one input, or abstain: wrong with a chance of at most alpha.

        Parameters
        ----------
        x : tensor, shape (...)
            One input, without a batch dimension; finite floating-point numbers.
        n : int
            Noisy copies, at least 1.
        alpha : float
            In (0, 1/2).
        batch : int
            Copies per evaluation of the model.
        generator : torch.Generator or int
            Source (or seed) of the noise.
        """
        check_level(alpha)
        self._check(x)
        counts = self._count(x, n, batch, as_generator(generator))
        runner_up, first = np.sort(counts)[-2:]
        p_value = float(binomtest(int(first), int(first + runner_up), 0.5).pvalue)
        label = int(np.argmax(counts)) if p_value <= alpha else self.abstain
        return Prediction(label, p_value, tuple(counts.tolist()))

    def certify(
        self,
        x: Float[Tensor, "*input"],
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        batch: int = 1000,
        generator: torch.Generator | int = 0,
    ) -> Certificate:
        """Return the class of one input with a radius around it, or abstain: wrong with a chance of at most alpha.

        Parameters
        ----------
        x : tensor, shape (...)
            One input, without a batch dimension; finite floating-point numbers.
        n0, n : int
            Noisy copies for choosing the class and, others, for bounding its probability; at least 1. The largest
            radius that n copies can certify is sigma · Φ⁻¹(alpha^(1/n)) with Gaussian noise.
        alpha : float
            In (0, 1/2).
        batch : int
            Copies per evaluation of the model.
        generator : torch.Generator or int
            Source (or seed) of the noise.
        """
        check_level(alpha)
        self._check(x)
        source = as_generator(generator)
        candidate = self._select(x, n0, batch, source)
        counts = self._count(x, n, batch, source)
        p_lower = float(clopper_pearson_lower(int(counts[candidate]), n, alpha))
        return self._certificate(counts, candidate, p_lower, alpha)

    def certify_adaptive(
        self,
        x: Float[Tensor, "*input"],
        radius: float,
        n0: int = 100,
        n_first: int = 1000,
        n_max: int = 100_000,
        alpha: float = 0.001,
        batch: int = 1000,
        generator: torch.Generator | int = 0,
    ) -> Certificate:
        """Certify with only as many copies as one radius needs, doubling their number until it is clear.

        The looks at n_first, 2 n_first, ... n_max copies each get an equal share of alpha, so all their bounds hold
        together and it is valid to stop at any of them. It stops when ``radius`` is certified, or when an upper bound
        of the same kind says that it will not be.

        Parameters
        ----------
        x : tensor, shape (...)
            One input, without a batch dimension; finite floating-point numbers.
        radius : float
            The radius of interest, at least 0.
        n0 : int
            Noisy copies for choosing the class.
        n_first, n_max : int
            Copies at the first look and at the last, 1 ≤ n_first ≤ n_max.
        alpha : float
            In (0, 1/2), for all looks together.
        batch : int
            Copies per evaluation of the model.
        generator : torch.Generator or int
            Source (or seed) of the noise.
        """
        check_level(alpha)
        self._check(x)
        check_count("n_first", n_first)
        check_count("n_max", n_max)
        if n_first > n_max:
            raise ValueError(f"n_first must be at most n_max; got {n_first} and {n_max}")
        if not (math.isfinite(radius) and radius >= 0):
            raise ValueError(f"radius must be finite and at least 0; got {radius}")
        needed = NOISES[self.noise].probability(radius / self.sigma)
        source = as_generator(generator)
        candidate = self._select(x, n0, batch, source)
        looks = [min(n_first * 2**j, n_max) for j in range(math.ceil(math.log2(n_max / n_first)) + 1)]
        share, counts, p_lower = alpha / len(looks), np.zeros(self.num_classes, dtype=np.int64), 0.0
        for before, total in zip([0, *looks], looks, strict=False):
            counts += self._count(x, total - before, batch, source)
            met = int(counts[candidate])
            p_lower = max(p_lower, float(clopper_pearson_lower(met, total, share)))
            p_upper = 1 - float(clopper_pearson_lower(total - met, total, share))
            if p_lower > needed or p_upper <= needed:
                break
        return replace(self._certificate(counts, candidate, p_lower, alpha), n_stages=len(looks))

    def certify_many(
        self,
        X: Float[Tensor, "n *input"],
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        batch: int = 1000,
        generator: torch.Generator | int = 0,
        *,
        save_to: Path | str | None = None,
        progress: Callable[[float, float, str], None] | None = None,
    ) -> list[Certificate]:
        """Certify every row of X, each with noise of its own; a run that was stopped goes on where it was.

        Parameters
        ----------
        X : tensor, shape (n, ...)
            At least one input; finite floating-point numbers.
        n0, n, alpha, batch, generator
            As for :meth:`certify`. Each row's noise depends on the generator and the row's place alone.
        save_to : path, optional
            A file that each certificate is added to when it is there. If the file exists, its certificates are taken
            over; it is refused where it belongs to other inputs, another model, other settings or another seed.
        progress : callable, optional
            Called as ``progress(done, total, label)`` after each row.
        """
        check_level(alpha)
        self._check(X, "X")
        if X.ndim == 0 or len(X) == 0:
            raise ValueError(f"X must hold at least one input; got shape {tuple(X.shape)}")
        source = as_generator(generator)
        seeds = torch.randint(2**62, (len(X),), generator=source, device=source.device).tolist()
        saved = None
        if save_to is not None:
            settings: dict[str, object] = {"n0": n0, "n": n, "alpha": alpha, "batch": batch}
            settings |= {"sigma": self.sigma, "noise": self.noise, "generator": source.device.type}
            settings |= {"num_classes": self.num_classes, "abstain": self.abstain}
            saved = SavedCertificates(Path(save_to), self.base, X, seeds, settings)
        done = saved.read() if saved is not None else []
        for i in range(len(done), len(X)):
            own = torch.Generator(source.device).manual_seed(seeds[i])
            done.append(self.certify(X[i], n0, n, alpha, batch, own))
            if saved is not None:
                saved.append(done[-1])
            if progress is not None:
                progress(i + 1, len(X), "inputs certified")
        return done

    def _check(self, x: Tensor, name: str = "x") -> None:
        check_base(self.base)
        check_input(name, x, self.input_range)

    def _select(self, x: Tensor, n0: int, batch: int, generator: torch.Generator) -> int:
        check_count("n0", n0)
        return int(np.argmax(self._count(x, n0, batch, generator)))

    def _count(self, x: Tensor, n: int, batch: int, generator: torch.Generator) -> Int[np.ndarray, " classes"]:
        counts = np.zeros(self.num_classes, dtype=np.int64)
        for logits in noisy_outputs(
            self.base, x, n, sigma=self.sigma, noise=self.noise, batch=batch, generator=generator
        ):
            if logits.ndim != 2 or logits.shape[1] != self.num_classes:
                raise ValueError(
                    f"base must return logits of shape ({len(logits)}, {self.num_classes}), as num_classes says; "
                    f"got {tuple(logits.shape)}"
                )
            counts += torch.bincount(logits.argmax(1), minlength=self.num_classes).cpu().numpy()
        return counts

    def _certificate(
        self, counts: Int[np.ndarray, " classes"], candidate: int, p_lower: float, alpha: float
    ) -> Certificate:
        sure = p_lower >= 0.5
        radius = self.sigma * NOISES[self.noise].radius(p_lower) if sure else 0.0
        return Certificate(
            label=candidate if sure else self.abstain,
            radius=radius,
            p_lower=p_lower,
            counts=tuple(counts.tolist()),
            candidate=candidate,
            sigma=self.sigma,
            alpha=float(alpha),
            noise=self.noise,
        )


def _check_norm(norm: str | None, noise: str) -> None:
    given = NOISES[noise].norm
    if norm in (None, given):
        return
    if norm == "linf":
        raise ValueError(
            "norm 'linf' is not certified by itself: an l-infinity ball of radius r lies in the l2 ball of radius r√d, "
            "so for inputs with d numbers take Gaussian noise and divide the certified l2 radius by √d"
        )
    fitting = [name for name, kind in NOISES.items() if kind.norm == norm]
    if not fitting:
        raise ValueError(f"norm must be 'l2' or 'l1'; got {norm!r}")
    raise ValueError(f"norm {norm!r} is not what {noise} noise certifies ({given}); take noise {' or '.join(fitting)}")
