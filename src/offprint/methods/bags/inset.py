"""Learn to pick subsets of sets from examples of sets and their chosen subsets, with the whole set in view."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from offprint.methods.bags.inset_confidence import expected_jaccard
from offprint.methods.bags.inset_data import PaddedSets, Sets, Subsets, overlap, pad_sets, positions_of, top, unpadded
from offprint.methods.bags.inset_networks import Mode, SubsetNetworks, subset_loss
from offprint.methods.bags.inset_search import SubsetSearch, search_subsets
from offprint.methods.bags.inset_utility import Merge, Summarise, Summary, check_choice
from offprint.models.batches import Batches, check_count, check_sizes
from offprint.models.randomness import seeded
from offprint.models.training import TrainingHistory, train

Search = Literal["greedy", "local"]
THRESHOLDS = np.linspace(0.05, 0.95, 19)


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
        Whether the utility sees a summary of the whole set. Without, this is EquiVSet.
    context_in_q : bool, optional
        Whether the proposals of the recognition network see one too; by default as ``context`` says.
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
    chunk_size : int, optional
        For sets of very many elements: the most elements, of a batch of sets together, that go through the networks at
        a time after training, as for :meth:`.SetUtility.prepare`. Take a small ``batch_size`` with it.
    device : torch.device or str
        Where to train and predict.
    random_state : int
        Seed of weights, order and draws.

    Attributes
    ----------
    model_ : SubsetNetworks
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
    numbers of memory a set. Sets of unequal sizes are padded; what is padded never enters a result. Inference with a
    ``chunk_size`` needs points · hidden_features + mc_samples · chunk_size · hidden_features numbers a batch.

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
    the two alternating optimizers. The calibrated threshold, the search and the confidence are additions made here.
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        features: int = 256,
        hidden_features: int = 500,
        context: bool = True,
        context_in_q: bool | None = None,
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
        chunk_size: int | None = None,
        device: torch.device | str = "cpu",
        random_state: int = 0,
    ) -> None:
        self.encoder = encoder
        self.features = features
        self.hidden_features = hidden_features
        self.context = context
        self.context_in_q = context_in_q
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
        self.chunk_size = chunk_size
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        sets: Sets,
        subsets: Subsets,
        *,
        validation: tuple[Sets, Subsets] | None = None,
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
        self.model_ = SubsetNetworks.build(
            data,
            self.encoder,
            self.features,
            self.hidden_features,
            context=self.context,
            context_in_q=self.context if self.context_in_q is None else self.context_in_q,
            merge=self.merge,
            agg=self.agg,
            mode=self.mode,
            rank=self.rank,
            device=self.device,
            source=source,
        ).to(self.device)
        parameters = [] if self.model_.recognition is None else list(self.model_.recognition.parameters())
        of_recognition = self._adam(parameters) if parameters else None

        def loss(model: SubsetNetworks, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            x, mask, chosen = batch
            if of_recognition is not None:
                self._recognise(model, x, mask, of_recognition)
            return subset_loss(model.infer(x, mask, self.steps, self.mc_samples), mask, chosen, self.neg_ratio)

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
        return unpadded(self._probabilities(data).double(), data.mask)

    def select(
        self, sets: Sets, size: int | Sequence[int] | None = None, *, search: Search | None = None
    ) -> list[Int64[np.ndarray, " chosen"]]:
        """Return the positions of the selected elements of each set, in rising order.

        Parameters
        ----------
        sets : sequence of arrays, each of shape (size, ...)
            Elements of each set.
        size : int or sequence of int, optional
            How many to select, from each or from each by itself. By default those more likely than ``threshold_``, or,
            with a search, as many as raise the utility.
        search : {"greedy", "local"}, optional
            Look for a subset of larger utility, as :meth:`search` does. By default select by probabilities, which is
            what was trained.

        Returns
        -------
        list of int64 arrays
        """
        check_is_fitted(self, "model_")
        if search is not None:
            check_choice("search", search, Search)
            return positions_of(self.search(sets, size, search).chosen)
        data = self._known(pad_sets(sets))
        return positions_of(self._pick(data, _sizes(size, data.mask)))

    def search(
        self, sets: Sets, size: int | Sequence[int] | None = None, method: Search = "local", *, max_moves: int = 1000
    ) -> SubsetSearch:
        """Look for the subset of largest utility in each set, and tell how that went.

        Measure on validation sets first whether it helps: training fits the probabilities that mean-field steps find,
        and does not make the right subset the one of largest utility.

        Parameters
        ----------
        sets : sequence of arrays, each of shape (size, ...)
            Elements of each set.
        size : int or sequence of int, optional
            How many to select. By default as many as raise the utility.
        method : {"greedy", "local"}
            "local" improves what :meth:`select` returns by additions, removals and swaps until none helps. "greedy"
            starts with nothing and swaps no elements, which is what large sets can afford.
        max_moves : int
            The most moves that raise the utility, of each set.

        Returns
        -------
        SubsetSearch
            Its tensors are padded to the largest set.
        """
        check_is_fitted(self, "model_")
        check_choice("method", method, Search)
        data = self._known(pad_sets(sets))
        sizes = _sizes(size, data.mask)
        start = self._pick(data, sizes) if method == "local" else torch.zeros_like(data.mask)
        arrays = (data.x, data.mask, start, *([] if sizes is None else [sizes]))
        found = []
        for x, mask, begin, *given in Batches("sets", arrays, self.batch_size).in_order():
            done = search_subsets(
                self.model_.utility,
                x.to(self.device),
                begin.to(self.device),
                given[0].to(self.device) if given else None,
                mask.to(self.device),
                swaps=method == "local",
                max_moves=max_moves,
                chunk_size=self.chunk_size,
            )
            found.append((done.chosen, done.utility, done.start_utility, done.n_moves, done.converged))
        return SubsetSearch(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))

    def confidence(self, sets: Sets, subsets: Subsets, *, same_size: bool = False) -> Float[np.ndarray, " sets"]:
        """Return the Jaccard index with the true subset that the model's probabilities lead one to expect.

        Parameters
        ----------
        sets : sequence of arrays, each of shape (size, ...)
            Elements of each set.
        subsets : sequence
            For each set the subset in question, such as :meth:`select` returns.
        same_size : bool
            Whether these are known to be of the true sizes.

        Returns
        -------
        float64 array, shape (sets,)
            As for :func:`.expected_jaccard`. It ranks selections of known sizes by how sure the model is; its level is
            as far off as the probabilities are.
        """
        check_is_fitted(self, "model_")
        data = self._known(pad_sets(sets, subsets))
        return expected_jaccard(self._probabilities(data), data.chosen, data.mask, same_size=same_size).numpy()

    def utility(self, sets: Sets, subsets: Subsets) -> Float[np.ndarray, " sets"]:
        """Return F(S; V) for one subset of each set: to be compared between subsets of the same set."""
        check_is_fitted(self, "model_")
        data = self._known(pad_sets(sets, subsets))
        with torch.no_grad():
            x, mask, chosen = (part.to(self.device) for part in (data.x, data.mask, data.chosen))
            values: Tensor = self.model_.utility(x, chosen[:, None], mask, self.chunk_size)
        return values[:, 0].cpu().numpy()

    def score(self, sets: Sets, subsets: Subsets) -> float:
        """Return the mean Jaccard index of selections of the true sizes."""
        check_is_fitted(self, "model_")
        return float(self._jaccard(self._known(pad_sets(sets, subsets))).mean())

    def _recognise(self, model: SubsetNetworks, x: Tensor, mask: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Take one step of the recognition network on its bound, the utility held fixed."""
        assert model.recognition is not None
        parameters = list(model.recognition.parameters())
        bound = model.bound(x, mask, self.mc_samples, self.temperature, "ind" if self.mode == "ind" else "copula")
        optimizer.zero_grad()
        torch.autograd.backward(-bound, inputs=parameters)
        nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
        optimizer.step()

    def _pick(self, data: PaddedSets, sizes: Tensor | None) -> Bool[Tensor, "sets points"]:
        """Select by probabilities."""
        probabilities = self._probabilities(data)
        if sizes is None:
            return (probabilities > self.threshold_) & data.mask
        return top(probabilities, sizes, data.mask)

    def _probabilities(self, data: PaddedSets) -> Float[Tensor, "sets points"]:
        """Return marginals, the same every time."""
        self.model_.eval()
        found = []
        with torch.no_grad(), seeded(self.random_state, self.device):
            for x, mask in Batches("sets", (data.x, data.mask), self.batch_size).in_order():
                x, mask = x.to(self.device), mask.to(self.device)
                inferred = self.model_.infer(x, mask, self.steps, self.mc_samples, self.chunk_size)
                found.append(inferred.probabilities.cpu())
        return torch.cat(found)

    def _jaccard(self, data: PaddedSets) -> Float[Tensor, " sets"]:
        return overlap(data.chosen, top(self._probabilities(data), data.chosen.sum(1), data.mask))

    def _calibrated(self, data: PaddedSets) -> float:
        """Return the threshold whose selections overlap most with the true subsets."""
        probabilities = self._probabilities(data)
        overlaps = [float(overlap(data.chosen, probabilities > t).mean()) for t in THRESHOLDS]
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
        check_count("chunk_size", self.chunk_size)
        for name in ("learning_rate", "temperature", "neg_ratio", "gradient_clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite; got {getattr(self, name)}")


def _sizes(size: int | Sequence[int] | None, mask: Tensor) -> Tensor | None:
    """Return how many to select from each set, if that is given."""
    if size is None:
        return None
    most = mask.sum(1)
    sizes = torch.as_tensor(size)
    sizes = sizes.expand(len(most)) if sizes.ndim == 0 else sizes
    if sizes.is_floating_point() or sizes.shape != most.shape or bool(((sizes < 0) | (sizes > most)).any()):
        raise ValueError(f"size must be between 0 and the number of elements of each set; got {size}")
    return sizes
