"""The utility of a subset that knows the set it is part of, and what each element adds to it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from offprint.models.batches import check_count, check_sizes
from offprint.models.mlp import MLP
from offprint.models.randomness import as_generator, seeded

Merge = Literal["concat", "sum", "film"]
Summary = Literal["mean", "sum", "max", "attention"]
Summarise = Callable[[Tensor, Tensor], Tensor]
Subsets = Shaped[Tensor, "sets draws points"]
"""Boolean, or 0 and 1 in floating point where gradients are to flow."""


@dataclass(frozen=True, eq=False)
class PreparedSets:
    """Sets of which everything that does not depend on the subset has been computed: F(S) = ρ(d + Σ_{i in S} eᵢ).

    Parameters
    ----------
    elements : tensor, shape (sets, points, hidden)
        eᵢ, zero where there is no element.
    offset : tensor, shape (sets, hidden)
        d, into which the summary of the whole set has gone.
    rest : callable
        ρ, from (..., hidden) to (..., 1).
    chunk_size : int, optional
        The most elements, of all sets together, whose gains are computed at a time; by default all.
    """

    elements: Float[Tensor, "sets points hidden"]
    offset: Float[Tensor, "sets hidden"]
    rest: Callable[[Tensor], Tensor]
    chunk_size: int | None = None

    def __len__(self) -> int:
        return len(self.elements)

    def values(self, subsets: Subsets) -> Float[Tensor, "sets draws"]:
        """Return the utility of several subsets of each set."""
        scores: Tensor = self.rest(self._sums(subsets))
        return scores[..., 0]

    def gains(self, subsets: Subsets) -> Float[Tensor, "sets draws points"]:
        """Return F(S with i) − F(S without i) for every element i of each set; nothing where there is none.

        One of the two is S itself, so there is one more evaluation per element, whose sum differs from that of S by
        that element alone.
        """
        sums = self._sums(subsets)
        sign = 1 - 2 * subsets.to(sums)
        moved = [
            self.rest(torch.addcmul(sums[:, :, None], sign[:, :, part, None], self.elements[:, None, part]))[..., 0]
            for part in chunks(self.elements.shape[:2], self.chunk_size)
        ]
        return sign * (torch.cat(moved, 2) - self.rest(sums))

    def take(self, sets: Int64[Tensor, " taken"]) -> PreparedSets:
        """Return some of the sets."""
        return PreparedSets(self.elements[sets], self.offset[sets], self.rest, self.chunk_size)

    def _sums(self, subsets: Tensor) -> Tensor:
        return self.offset[:, None] + subsets.to(self.elements) @ self.elements


class SetUtility(nn.Module):
    """A learned utility F(S; V) of a subset S of a set V: S by the sum of its elements, V by a summary of all of them.

    F(S; V) = ρ(Σ_{i in S} φ(xᵢ) ⊕ summary of φ(x_j) over all j in V), where ρ has two hidden layers. It is the same in
    whatever order elements come. Without the summary (``context=False``) it is the utility of EquiVSet.

    Parameters
    ----------
    encoder : torch.nn.Module
        φ, from elements of shape (n, ...) to (n, features): a linear layer, or a convolutional network for images.
    features : int
        Length of what the encoder returns, at least 1.
    hidden_features : int
        Width of ρ, at least 1.
    context : bool
        Whether F sees the summary of V.
    merge : {"concat", "sum", "film"}
        How the summary is merged: beside the sum over S, added to it after a small network, or scaling and shifting it
        feature by feature.
    agg : {"mean", "sum", "max", "attention"} or callable
        The summary. A sum grows with the size of V; attention is a mean with learned weights. A callable, such as a
        module, takes encoded elements of shape (sets, points, features), zero where there is none, and the mask of
        those that are there, and returns (sets, features).
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, an option is unknown, or inputs do not fit together or are not finite.
    TypeError
        If the encoder is no module, or elements or subsets are of the wrong dtype.

    Notes
    -----
    The first layer of ρ is linear, and so applied to elements and to V once, never to subsets: after :meth:`prepare`,
    M subsets of N elements cost O(M · N · hidden_features + M · hidden_features²), and the gains of all their elements
    O(M · N · hidden_features²) time and O(M · N · hidden_features) memory, or O(M · chunk_size · hidden_features).

    Examples
    --------
    >>> utility = SetUtility(MLP(2, [8], 8, generator=0), 8, 16, generator=0)
    >>> x = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [3.0, 1.0]]])
    >>> subsets = torch.tensor([[[True, False, False], [True, True, False]]])
    >>> values = utility(x, subsets)
    >>> gains = utility.prepare(x).gains(subsets)
    >>> gains.shape, torch.allclose(values[0, 1] - values[0, 0], gains[0, 0, 1], atol=1e-6)
    (torch.Size([1, 2, 3]), True)

    References
    ----------
    Xie et al., *Enhancing Neural Subset Selection: Integrating Background Information into Set Representations*,
    arXiv:2402.03139. The choice of merges is made here. Ou et al., *Learning Neural Set Functions Under the Optimal
    Subset Oracle*, arXiv:2203.01693, for F without V.
    """

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        hidden_features: int = 500,
        *,
        context: bool = True,
        merge: Merge = "concat",
        agg: Summary | Summarise = "mean",
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise TypeError(f"encoder must be a torch.nn.Module; got {type(encoder).__name__}")
        check_sizes(features=features, hidden_features=hidden_features)
        check_choice("merge", merge, Merge)
        if not callable(agg):
            check_choice("agg", agg, Summary)
        self.encoder, self.features, self.merge, self.agg = encoder, features, merge, agg
        source = None if generator is None else as_generator(generator)
        with seeded(source):
            self.first = nn.Linear(features, hidden_features)
            self.score = nn.Linear(features, 1) if context and agg == "attention" else None
        self.rest = nn.Sequential(nn.ReLU(), MLP(hidden_features, [hidden_features], 1, generator=source))
        self.context = _context(merge, features, hidden_features, source) if context else None

    def forward(
        self,
        x: Float[Tensor, "sets points ..."],
        subsets: Subsets,
        mask: Bool[Tensor, "sets points"] | None = None,
        chunk_size: int | None = None,
    ) -> Float[Tensor, "sets draws"]:
        """Return the utility of several subsets of each set.

        Parameters
        ----------
        x : tensor, shape (sets, points, ...)
            Elements, padded to the same number.
        subsets : tensor, shape (sets, draws, points)
            Boolean, or 0 and 1 in floating point.
        mask : bool tensor, shape (sets, points), optional
            Where there is an element; by default everywhere. What lies elsewhere never matters.
        chunk_size : int, optional
            As for :meth:`prepare`.

        Returns
        -------
        tensor, shape (sets, draws)
        """
        prepared = self.prepare(x, mask, chunk_size)
        if subsets.ndim != 3 or (len(subsets), subsets.shape[2]) != x.shape[:2]:
            raise ValueError(
                f"subsets must have shape ({len(x)}, draws, {x.shape[1]}), as x has; got {tuple(subsets.shape)}"
            )
        if not bool(((subsets == 0) | (subsets == 1)).all()):
            raise ValueError("subsets must be boolean, or 0 and 1")
        return prepared.values(subsets)

    def prepare(
        self,
        x: Float[Tensor, "sets points ..."],
        mask: Bool[Tensor, "sets points"] | None = None,
        chunk_size: int | None = None,
    ) -> PreparedSets:
        """Compute all that does not depend on the subset, once for each set.

        Parameters
        ----------
        x, mask
            As for a call.
        chunk_size : int, optional
            The most elements, of all sets together, that are encoded at a time, and whose gains are computed at a time:
            for sets of very many elements. At least one of each set, and by default all. Elements are then encoded
            twice, once for the summary, and only what the first layer makes of them is kept. The encoder must treat
            each by itself, as batch norm does in evaluation mode alone. A callable ``agg`` gets all of them at once.

        Returns
        -------
        PreparedSets
        """
        mask = checked_mask(x, mask)
        parts = chunks(x.shape[:2], chunk_size)

        # Where there is one part, the second look at it costs nothing.
        @functools.lru_cache(maxsize=1)
        def encoded(k: int) -> Tensor:
            return encode_elements(self.encoder, x[:, parts[k]], mask[:, parts[k]], self.features)

        offset, told = self.first.bias.expand(len(x), -1), None
        if self.context is not None:
            offset, told = self._merged(self._summary(encoded, mask, parts))
        elements = [
            nn.functional.linear(encoded(k) if told is None else encoded(k) * told[:, None], self.first.weight)
            for k in range(len(parts))
        ]
        return PreparedSets(torch.cat(elements, 1), offset, self.rest, chunk_size)

    def summarise(
        self, encoded: Float[Tensor, "sets points features"], mask: Bool[Tensor, "sets points"]
    ) -> Float[Tensor, "sets features"]:
        """Summarise each set from its encoded elements, which are zero where there is none."""
        if self.score is not None:
            logits = self.score(encoded)[..., 0].masked_fill(~mask, -torch.inf)
            return torch.einsum("sp,spf->sf", logits.softmax(1), encoded)
        found = self.agg(encoded, mask) if callable(self.agg) else summary(encoded, mask, self.agg)
        if found.shape != (len(encoded), self.features):
            raise ValueError(f"agg must return shape {(len(encoded), self.features)}; got {tuple(found.shape)}")
        return found

    def _summary(self, encoded: Callable[[int], Tensor], mask: Tensor, parts: Sequence[slice]) -> Tensor:
        """Summarise each set part by part, which is exact for each of the summaries."""
        if len(parts) == 1 or callable(self.agg):
            rows = encoded(0) if len(parts) == 1 else torch.cat([encoded(k) for k in range(len(parts))], 1)
            return self.summarise(rows, mask)
        if self.score is None:
            wanted: Summary = "max" if self.agg == "max" else "sum"
            each = torch.stack([summary(encoded(k), mask[:, part], wanted) for k, part in enumerate(parts)])
            if wanted == "max":
                return each.amax(0)
            return each.sum(0) / (mask.sum(1, keepdim=True) if self.agg == "mean" else 1)
        means, weights = [], []
        for k, part in enumerate(parts):
            rows = encoded(k)
            # Far below any logit, yet finite: a part of a set may hold no element at all.
            logits = self.score(rows)[..., 0].masked_fill(~mask[:, part], torch.finfo(rows.dtype).min / 2)
            means.append(torch.einsum("sp,spf->sf", logits.softmax(1), rows))
            weights.append(logits.logsumexp(1))
        return torch.einsum("sk,skf->sf", torch.stack(weights, 1).softmax(1), torch.stack(means, 1))

    def _merged(self, whole: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the offset, and what elements are multiplied with before the first layer, if with anything."""
        assert self.context is not None
        told: Tensor = self.context(whole)
        if self.merge == "concat":
            return self.first.bias + told, None
        if self.merge == "sum":
            return self.first(told), None
        scale, shift = told.chunk(2, 1)
        return self.first(shift), 1 + scale


def chunks(shape: Sequence[int], chunk_size: int | None) -> list[slice]:
    """Cut the points of padded sets of this shape, (sets, points, ...), so that a part has at most so many elements.

    Examples
    --------
    >>> chunks((2, 5), 4)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    check_count("chunk_size", chunk_size)
    n_sets, n_points = shape[:2]
    width = n_points if chunk_size is None else max(1, chunk_size // n_sets)
    return [slice(start, min(start + width, n_points)) for start in range(0, n_points, width)]


def encode_elements(
    encoder: nn.Module, x: Float[Tensor, "sets points ..."], mask: Bool[Tensor, "sets points"], features: int
) -> Float[Tensor, "sets points features"]:
    """Encode the elements that are there, and only these: what is padded must not even reach a batch norm.

    Raises
    ------
    ValueError
        If the encoder does not take them, or does not return one row of this many features for each.

    Examples
    --------
    >>> encode_elements(nn.Linear(1, 2), torch.ones(1, 2, 1), torch.tensor([[True, False]]), 2)[0, 1].tolist()
    [0.0, 0.0]
    """
    if not bool(mask.any()):
        return x.new_zeros(*mask.shape, features)
    try:
        rows: Tensor = encoder(x[mask])
    except RuntimeError as error:
        raise ValueError(f"x must hold elements that the encoder takes; given {tuple(x.shape)}, {error}") from error
    if rows.ndim != 2 or len(rows) != int(mask.sum()):
        raise ValueError(f"encoder must return one row per element; got shape {tuple(rows.shape)}")
    if rows.shape[1] != features:
        raise ValueError(f"encoder must return rows of {features} features; got {rows.shape[1]}")
    return rows.new_zeros(*mask.shape, features).masked_scatter(mask[..., None], rows)


def summary(
    encoded: Float[Tensor, "sets points features"], mask: Bool[Tensor, "sets points"], agg: Summary
) -> Float[Tensor, "sets features"]:
    """Return the mean, sum or largest of the elements that are there, all others being zero.

    Examples
    --------
    >>> summary(torch.tensor([[[1.0], [5.0], [0.0]]]), torch.tensor([[True, True, False]]), "mean").tolist()
    [[3.0]]
    """
    if agg == "max":
        return encoded.masked_fill(~mask[..., None], -torch.inf).amax(1)
    total = encoded.sum(1)
    return total if agg == "sum" else total / mask.sum(1, keepdim=True)


def checked_mask(x: object, mask: object = None) -> Bool[Tensor, "sets points"]:
    """Return the mask of padded sets, once it is known that they can be used.

    Raises
    ------
    TypeError
        If x is no floating-point tensor.
    ValueError
        If x is not finite, the mask does not fit, or a set is empty.

    Examples
    --------
    >>> checked_mask(torch.zeros(1, 2, 3)).tolist()
    [[True, True]]
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor; got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim < 3 or 0 in x.shape:
        raise ValueError(f"x must have shape (sets, points, ...), none of them 0; got {tuple(x.shape)}")
    if mask is None:
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != x.shape[:2]:
        shape = getattr(mask, "shape", type(mask).__name__)
        raise ValueError(f"mask must be a bool tensor of shape {tuple(x.shape[:2])}; got {shape}")
    if not bool(mask.any(1).all()):
        raise ValueError("mask must leave at least one element in every set")
    if not bool(torch.isfinite(x[mask]).all()):
        raise ValueError("x must be finite; it holds NaN or infinity")
    return mask


def generator_on(generator: torch.Generator | int | None, device: torch.device) -> torch.Generator | None:
    """Return a generator that draws on a device: the one given, or one that it seeds where it lies on another.

    Examples
    --------
    >>> generator_on(3, torch.device("cpu")).initial_seed()
    3
    """
    if generator is None:
        return None
    source = as_generator(generator)
    if source.device.type == device.type:
        return source
    seed = int(torch.randint(2**62, (), generator=source, device=source.device))
    return torch.Generator(device).manual_seed(seed)


def check_choice(name: str, given: object, accepted: object) -> None:
    """Refuse an option that is none of a Literal's.

    Examples
    --------
    >>> check_choice("merge", "sum", Merge)
    """
    if given not in get_args(accepted):
        raise ValueError(f"{name} must be one of {', '.join(get_args(accepted))}; got {given!r}")


def _context(merge: Merge, features: int, hidden: int, source: torch.Generator | None) -> nn.Module:
    if merge == "concat":
        return MLP(features, [], hidden, bias=False, generator=source)
    return MLP(features, [features], features if merge == "sum" else 2 * features, generator=source)
