"""Learn to pick subsets of sets from examples of sets and their chosen subsets, with the whole set in view."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from offprint.methods.bags.inset_recognition import CopulaRecognition
from offprint.methods.bags.inset_utility import (
    MeanField,
    Merge,
    SetUtility,
    Summarise,
    Summary,
    check_choice,
    mean_field,
)
from offprint.methods.bags.ragged import RaggedBags
from offprint.models.batches import Batches, check_sizes
from offprint.models.randomness import seeded
from offprint.models.training import TrainingHistory, train

Mode = Literal["diffMF", "ind", "copula"]
Sets = Sequence[Any] | np.ndarray | Tensor
"""Sets of elements, each of shape (size, ...), of any sizes."""
THRESHOLDS = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True, eq=False)
class PaddedSets:
    """Sets padded to one size, as float32, with the subset of each where one was given.

    Parameters
    ----------
    x : tensor, shape (sets, points, ...)
        Elements, zero where there is none.
    mask : bool tensor, shape (sets, points)
        Where there is an element.
    chosen : bool tensor, shape (sets, points)
        The elements of the subsets; none where no subsets were given.
    """

    x: Float[Tensor, "sets points ..."]
    mask: Bool[Tensor, "sets points"]
    chosen: Bool[Tensor, "sets points"]


class SubsetSelector(BaseEstimator):
    """Select the best subset of a set, learned from sets and their best subsets alone.

    Products bought together, the odd images out, the compounds that are active among those tested: whether an element
    belongs to the subset depends on the others. A utility F(S; V) scores a subset S of a set V, and p(S) ∝ exp F(S; V)
    says how likely it is to be the one. Elements are chosen by their marginal probabilities, from a mean-field step.

    Parameters
    ----------
    encoder : torch.nn.Module, optional
        From elements of shape (n, ...) to rows, such as a convolutional network for images; copied, never changed. By
        default a linear layer to ``features``.
    features : int
        Length of an encoded element, where there is no encoder of one's own.
    hidden_features : int
        Width of the layers behind it.
    context : bool
        Whether utility and proposals see a summary of the whole set. Without, this is EquiVSet.
    merge, agg
        How, as for :class:`.SetUtility`.
    mode : {"copula", "ind", "diffMF"}
        Where mean-field steps start: from a recognition network that is trained beside the utility, on draws with
        correlated or with independent noise, or ("diffMF") from one half throughout, which trains fastest.
    rank : int
        Of the correlated noise.
    mc_samples, steps : int
        Subsets drawn a mean-field step, and steps.
    temperature : float
        Of the relaxed draws.
    neg_ratio : float
        Elements outside the subset that enter the loss, drawn anew each time, for each one inside.
    learning_rate, weight_decay, gradient_clip : float
        Of Adam, for both networks.
    n_epochs, batch_size : int
        Passes over the sets, and sets a step.
    patience : int, optional
        Stop after this many epochs without a better Jaccard index on validation sets, where they are given.
    device : torch.device or str
        Where to train and predict.
    random_state : int
        Seed of weights, order and draws.

    Attributes
    ----------
    model_ : torch.nn.Module
        With the parts ``utility`` and ``recognition`` (``None`` in mode "diffMF").
    history_ : TrainingHistory
        Losses; validation losses are negative mean Jaccard indices.
    threshold_ : float
        The probability at which elements are selected where no size is given: the best of 19 on the validation sets,
        or on the training sets where there are none.

    Raises
    ------
    ValueError
        If sets or subsets are empty, not finite or do not fit together, a subset has elements that its set lacks, or a
        parameter is out of range.

    Warns
    -----
    UserWarning
        If a subset for training is empty or all of its set: its loss has elements of one kind only.

    Notes
    -----
    A step costs O(batch · mc_samples · points · hidden_features²) time and mc_samples · points · hidden_features
    numbers of memory a set. Sets of unequal sizes are padded; what is padded never enters a result.

    Examples
    --------
    Which of two values is rarer can only be told from the whole set:

    >>> rng = np.random.default_rng(0)
    >>> rare = rng.integers(0, 2, (64, 1)) == np.ones((1, 10))
    >>> chosen = np.arange(10) < 3
    >>> sets = np.where(chosen == rare, 1.0, -1.0)[:, :, None]
    >>> selector = SubsetSelector(features=8, hidden_features=16, mode="diffMF", learning_rate=0.01, n_epochs=30)
    >>> float(selector.fit(sets, [chosen] * 64).score(sets, [chosen] * 64))
    1.0

    References
    ----------
    Xie et al., *Enhancing Neural Subset Selection: Integrating Background Information into Set Representations*,
    arXiv:2402.03139. Ou et al., *Learning Neural Set Functions Under the Optimal Subset Oracle*, arXiv:2203.01693, for
    the two alternating optimizers. The calibrated threshold is an addition made here.
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        features: int = 256,
        hidden_features: int = 500,
        context: bool = True,
        merge: Merge = "concat",
        agg: Summary | Summarise = "mean",
        mode: Mode = "copula",
        rank: int = 5,
        mc_samples: int = 5,
        steps: int = 1,
        temperature: float = 0.1,
        neg_ratio: float = 1.0,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-5,
        gradient_clip: float = 10.0,
        n_epochs: int = 100,
        batch_size: int = 128,
        patience: int | None = 6,
        device: torch.device | str = "cpu",
        random_state: int = 0,
    ) -> None:
        self.encoder = encoder
        self.features = features
        self.hidden_features = hidden_features
        self.context = context
        self.merge = merge
        self.agg = agg
        self.mode = mode
        self.rank = rank
        self.mc_samples = mc_samples
        self.steps = steps
        self.temperature = temperature
        self.neg_ratio = neg_ratio
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.gradient_clip = gradient_clip
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.patience = patience
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        sets: Sets,
        subsets: Sequence[Any] | np.ndarray | Tensor,
        *,
        validation: tuple[Sets, Any] | None = None,
        progress: Callable[[float, float, str], None] | None = None,
    ) -> SubsetSelector:
        """Learn from sets and the subset chosen from each.

        Parameters
        ----------
        sets : sequence of arrays, each of shape (size, ...)
            Elements of each set, finite; sizes may differ.
        subsets : sequence
            For each set a boolean mask of shape (size,), or the positions of the chosen elements.
        validation : pair, optional
            Further sets and subsets, to keep the weights of the best epoch and to stop by.
        progress : callable, optional
            As for :func:`offprint.models.train`.

        Returns
        -------
        SubsetSelector
        """
        self._check_parameters()
        data = pad_sets(sets, subsets)
        sizes = data.chosen.sum(1)
        one_kind = int(((sizes == 0) | (sizes == data.mask.sum(1))).sum())
        if one_kind:
            warnings.warn(f"{one_kind} subsets are empty or all of their set: they teach one side only", stacklevel=2)
        held_out = None if validation is None else pad_sets(*validation)
        source = torch.Generator().manual_seed(self.random_state)
        self.model_ = self._build(data, source).to(self.device)
        parameters = [] if self.model_.recognition is None else list(self.model_.recognition.parameters())
        of_recognition = self._adam(parameters) if parameters else None

        def loss(model: _Networks, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            x, mask, chosen = batch
            if of_recognition is not None:
                self._recognise(model, x, mask, of_recognition)
            return self._cross_entropy(self._infer(model, x, mask), mask, chosen)

        self.history_: TrainingHistory = train(
            self.model_,
            loss,
            (data.x, data.mask, data.chosen),
            validation=None if held_out is None else lambda _: -float(self._jaccard(held_out).mean()),
            n_epochs=self.n_epochs,
            batch_size=self.batch_size,
            optimizer=lambda _: self._adam(list(self.model_.utility.parameters())),
            patience=self.patience if validation is not None else None,
            gradient_clip=self.gradient_clip,
            generator=source,
            device=self.device,
            progress=progress,
        )
        self.threshold_ = self._calibrated(data if held_out is None else held_out)
        return self

    def predict_proba(self, sets: Sets) -> list[Float[np.ndarray, " size"]]:
        """Return the probability that each element belongs to the subset of its set, one array per set."""
        check_is_fitted(self, "model_")
        data = self._known(pad_sets(sets))
        return _unpadded(self._probabilities(data).double(), data.mask)

    def select(self, sets: Sets, size: int | Sequence[int] | None = None) -> list[Shaped[np.ndarray, " chosen"]]:
        """Return the positions of the selected elements of each set, in rising order.

        Parameters
        ----------
        sets : sequence of arrays, each of shape (size, ...)
            Elements of each set.
        size : int or sequence of int, optional
            How many to select, from each or from each by itself. By default those more likely than ``threshold_``.

        Returns
        -------
        list of int64 arrays
        """
        check_is_fitted(self, "model_")
        data = self._known(pad_sets(sets))
        probabilities = self._probabilities(data)
        if size is None:
            picked = (probabilities > self.threshold_) & data.mask
        else:
            sizes = torch.as_tensor(size).expand(len(data.x)) if isinstance(size, int) else torch.as_tensor(size)
            most = data.mask.sum(1)
            if sizes.shape != most.shape or bool(((sizes < 0) | (sizes > most)).any()):
                raise ValueError(f"size must be between 0 and the number of elements of each set; got {size}")
            picked = top(probabilities, sizes, data.mask)
        return [row.nonzero()[:, 0].numpy() for row in picked]

    def utility(self, sets: Sets, subsets: Sequence[Any] | np.ndarray | Tensor) -> Float[np.ndarray, " sets"]:
        """Return F(S; V) for one subset of each set: to be compared between subsets of the same set."""
        check_is_fitted(self, "model_")
        data = self._known(pad_sets(sets, subsets))
        with torch.no_grad():
            x, mask, chosen = (part.to(self.device) for part in (data.x, data.mask, data.chosen))
            values: Tensor = self.model_.utility(x, chosen[:, None], mask)
        return values[:, 0].cpu().numpy()

    def score(self, sets: Sets, subsets: Sequence[Any] | np.ndarray | Tensor) -> float:
        """Return the mean Jaccard index of selections of the true sizes."""
        check_is_fitted(self, "model_")
        return float(self._jaccard(self._known(pad_sets(sets, subsets))).mean())

    def _build(self, data: PaddedSets, source: torch.Generator) -> _Networks:
        """Make both networks, each with an encoder of its own."""

        def encoder() -> tuple[nn.Module, int]:
            if self.encoder is not None:
                own = copy.deepcopy(self.encoder).to(self.device).eval()
                with torch.no_grad():
                    return own, own(data.x[data.mask][:2].to(self.device)).shape[-1]
            if data.x.ndim != 3:
                raise ValueError(f"encoder must be given for elements of shape {tuple(data.x.shape[2:])}")
            with seeded(source):
                return nn.Linear(data.x.shape[2], self.features), self.features

        utility = SetUtility(
            *encoder(),
            self.hidden_features,
            context=self.context,
            merge=self.merge,
            agg=self.agg,
            generator=source,
        )
        recognition = None
        if self.mode != "diffMF":
            recognition = CopulaRecognition(
                *encoder(), self.hidden_features, self.rank, context=self.context, generator=source
            )
        return _Networks(utility, recognition, tuple(data.x.shape[2:]))

    def _recognise(self, model: _Networks, x: Tensor, mask: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Take one step of the recognition network on the bound E F(S; V) + entropy, the utility held fixed."""
        assert model.recognition is not None
        parameters = list(model.recognition.parameters())
        proposal = model.recognition(x, mask)
        subsets = proposal.sample(self.mc_samples, self.temperature, "ind" if self.mode == "ind" else "copula")
        bound = (model.utility.prepare(x, mask).values(subsets).mean(1) + proposal.entropy()).mean()
        optimizer.zero_grad()
        (-bound).backward(inputs=parameters)
        nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
        optimizer.step()

    def _infer(self, model: _Networks, x: Tensor, mask: Tensor) -> MeanField:
        if model.recognition is None:
            q = torch.full(mask.shape, 0.5, dtype=x.dtype, device=x.device)
        else:
            with torch.no_grad():
                q = model.recognition(x, mask).probabilities
        return mean_field(model.utility, x, q, self.steps, self.mc_samples, mask)

    def _cross_entropy(self, found: MeanField, mask: Tensor, chosen: Tensor) -> Tensor:
        """Compare with the subset, on its elements and on as many others, drawn at random."""
        outside = mask & ~chosen
        n_negative = (self.neg_ratio * chosen.sum(1)).round().long().clamp(min=1).minimum(outside.sum(1))
        weight = chosen | top(torch.rand(mask.shape, device=mask.device), n_negative, outside)
        each = nn.functional.binary_cross_entropy_with_logits(found.logits, chosen.to(found.logits), reduction="none")
        return (each * weight).sum(1).mean()

    def _probabilities(self, data: PaddedSets) -> Float[Tensor, "sets points"]:
        """Return marginals, the same every time."""
        self.model_.eval()
        found = []
        with torch.no_grad(), seeded(self.random_state, self.device):
            for x, mask in Batches("sets", (data.x, data.mask), self.batch_size).in_order():
                found.append(self._infer(self.model_, x.to(self.device), mask.to(self.device)).probabilities.cpu())
        return torch.cat(found)

    def _jaccard(self, data: PaddedSets) -> Float[Tensor, " sets"]:
        return _overlap(data.chosen, top(self._probabilities(data), data.chosen.sum(1), data.mask))

    def _calibrated(self, data: PaddedSets) -> float:
        """Return the threshold whose selections overlap most with the true subsets."""
        probabilities = self._probabilities(data)
        overlaps = [float(_overlap(data.chosen, probabilities > t).mean()) for t in THRESHOLDS]
        return float(THRESHOLDS[int(np.argmax(overlaps))])

    def _known(self, data: PaddedSets) -> PaddedSets:
        """Refuse elements of another shape than those of the training sets."""
        shape = self.model_.shape
        if data.x.shape[2:] != shape:
            raise ValueError(f"sets must hold elements of shape {tuple(shape)}; got {tuple(data.x.shape[2:])}")
        return data

    def _adam(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)

    def _check_parameters(self) -> None:
        check_choice("mode", self.mode, Mode)
        check_sizes(mc_samples=self.mc_samples, steps=self.steps)
        for name in ("learning_rate", "temperature", "neg_ratio", "gradient_clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite; got {getattr(self, name)}")


class _Networks(nn.Module):
    """Both networks, and the shape of the elements that they are for."""

    def __init__(self, utility: SetUtility, recognition: CopulaRecognition | None, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.utility, self.recognition, self.shape = utility, recognition, shape


def jaccard(
    true: Sequence[Any] | Bool[np.ndarray, "sets size"] | Bool[Tensor, "sets size"],
    predicted: Sequence[Any] | Bool[np.ndarray, "sets size"] | Bool[Tensor, "sets size"],
) -> Float[np.ndarray, " sets"]:
    """Return the Jaccard index |A ∩ B| / |A ∪ B| of each pair of subsets, 1 where both are empty.

    Parameters
    ----------
    true, predicted : sequence, or bool array of shape (sets, size)
        For each set a boolean mask of shape (size,) or the positions of the chosen elements; the two may be mixed.

    Returns
    -------
    float64 array, shape (sets,)
        In [0, 1].

    Raises
    ------
    ValueError
        If there are not as many of the one as of the other, or entries are not finite.
    TypeError
        If an entry is neither a mask nor positions.

    Notes
    -----
    O(chosen elements).

    Examples
    --------
    >>> jaccard([[1, 2, 3], []], [[2, 3, 4], []]).tolist()
    [0.5, 1.0]
    >>> jaccard([np.array([True, True, False])], [[1]]).tolist()
    [0.5]

    References
    ----------
    Jaccard, *The distribution of the flora in the alpine zone* (1912). Xie et al., arXiv:2402.03139, section 5, for its
    mean as the metric.
    """
    if len(true) != len(predicted):
        raise ValueError(f"true and predicted must be of one length; got {len(true)} and {len(predicted)}")
    found = []
    for one, other in zip(true, predicted, strict=True):
        a, b = set(_positions("true", one).tolist()), set(_positions("predicted", other).tolist())
        found.append(len(a & b) / len(a | b) if a | b else 1.0)
    return np.array(found)


def pad_sets(sets: Sets, subsets: Sequence[Any] | np.ndarray | Tensor | None = None) -> PaddedSets:
    """Pad sets to one size, once it is known that they and their subsets can be used.

    Raises
    ------
    ValueError
        If there is no set, a set is empty, elements are not finite or differ in shape, or subsets do not fit.
    TypeError
        If sets hold no numbers, or a subset is neither a mask nor positions.

    Examples
    --------
    >>> padded = pad_sets([[[1.0], [2.0]], [[3.0]]], [[1], [0]])
    >>> padded.mask.tolist(), padded.chosen.tolist()
    ([[True, True], [True, False]], [[False, True], [True, False]])
    """
    rows = [_elements(one) for one in sets]
    if not rows:
        raise ValueError("sets must hold at least one set")
    shapes = {tuple(one.shape[1:]) for one in rows}
    if len(shapes) != 1:
        raise ValueError(f"sets must hold elements of one shape; got {sorted(shapes)}")
    bags = RaggedBags.from_list(rows)
    x, mask = bags.padded()
    chosen = torch.zeros_like(mask)
    if subsets is not None:
        if len(subsets) != len(rows):
            raise ValueError(f"subsets must be as many as sets, {len(rows)}; got {len(subsets)}")
        for row, subset, size in zip(chosen, subsets, bags.sizes.tolist(), strict=True):
            row[_positions("subsets", subset, size)] = True
    return PaddedSets(x, mask, chosen)


def top(
    scores: Float[Tensor, "sets points"], sizes: Shaped[Tensor, " sets"], among: Bool[Tensor, "sets points"]
) -> Bool[Tensor, "sets points"]:
    """Return where the largest scores of each set lie, as many as its size, among those allowed.

    Examples
    --------
    >>> top(torch.tensor([[0.3, 0.9, 0.5]]), torch.tensor([1]), torch.tensor([[True, False, True]])).tolist()
    [[False, False, True]]
    """
    rank = scores.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    within: Tensor = rank < sizes[:, None]
    return within & among


def _overlap(a: Tensor, b: Tensor) -> Float[Tensor, " sets"]:
    union = (a | b).sum(1)
    return torch.where(union == 0, 1.0, (a & b).sum(1) / union.clamp(min=1))


def _elements(one: Any) -> Tensor:
    try:
        rows = one.detach().cpu().float() if isinstance(one, Tensor) else torch.as_tensor(np.asarray(one, np.float32))
    except (TypeError, ValueError) as error:
        raise TypeError(f"sets must hold arrays of numbers, one for each set; {error}") from error
    if rows.ndim < 2 or 0 in rows.shape:
        raise ValueError(f"sets must hold arrays of shape (size, ...), none of them 0; got {tuple(rows.shape)}")
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("sets must be finite; one holds NaN or infinity")
    return rows


def _positions(name: str, subset: Any, size: int | None = None) -> np.ndarray:
    """Return the positions that a mask or a list of positions names."""
    given = subset.detach().cpu().numpy() if isinstance(subset, Tensor) else np.asarray(subset)
    if given.dtype == bool:
        if given.ndim != 1 or (size is not None and len(given) != size):
            raise ValueError(f"{name} must hold masks of shape ({size},), as the sets have; got {given.shape}")
        return given.nonzero()[0]
    if given.size == 0:
        return np.zeros(0, dtype=np.int64)
    if given.dtype.kind == "f" and not np.isfinite(given).all():
        raise ValueError(f"{name} must be finite; one holds NaN or infinity")
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise TypeError(
            f"{name} must hold boolean masks or integer positions; got {given.dtype} of shape {given.shape}"
        )
    if given.min() < 0 or (size is not None and given.max() >= size):
        raise ValueError(f"{name} must hold positions in [0, {size}); got {given.min()} to {given.max()}")
    return given


def _unpadded(values: Tensor, mask: Tensor) -> list[np.ndarray]:
    return [row[: int(size)].numpy() for row, size in zip(values, mask.sum(1), strict=True)]
