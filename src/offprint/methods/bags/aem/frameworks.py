"""Frameworks with losses of their own: DSMIL, ACMIL and DTFD-MIL."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from offprint.methods.bags.aem.models import Generator, MILModel, Reduction, side_by_side
from offprint.methods.bags.aem.output import Head, MILOutput
from offprint.methods.bags.pooling import AttentionPooling, attend
from offprint.methods.bags.ragged import RaggedBags, segment_max, segment_softmax, segment_sum, shuffled_ranks
from offprint.models.batches import check_count
from offprint.models.randomness import seeded


class DSMIL(MILModel):
    """Score instances, then attend by likeness to the most critical instance of each class.

    Two streams are trained, half and half: the largest score of each class, and a classifier over one attention-pooled
    vector per class. The prediction averages their probabilities.

    Parameters
    ----------
    in_features : int
        Length of an instance.
    n_classes : int
        Classes, at least 2; as many rows of attention.
    query_features : int
        Width in which instances are compared with the critical one.
    nonlinear_query : bool
        Whether instances are mapped there by two layers rather than one.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range; from ``forward``, if bags are of another width, empty or not finite.

    Notes
    -----
    Works on the features as they are. ``aux`` holds ``max_logits`` and ``bag_logits``. O(n · in_features ·
    query_features).

    Examples
    --------
    >>> output = DSMIL(64, n_classes=3, generator=0)(torch.eye(50, 64))
    >>> round(output.logits.exp().sum().item(), 4), output.attention_logits.shape
    (1.0, torch.Size([1, 3, 50]))

    References
    ----------
    Li, Li and Eliceiri, *Dual-stream Multiple Instance Learning Network for Whole Slide Image Classification*,
    arXiv:2011.08939, section 3.2.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int = 2,
        query_features: int = 128,
        *,
        nonlinear_query: bool = False,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features, n_classes)
        check_count("query_features", query_features)
        with seeded(generator):
            self.score = nn.Linear(in_features, n_classes)
            self.query: nn.Module = nn.Linear(in_features, query_features)
            if nonlinear_query:
                self.query = nn.Sequential(self.query, nn.ReLU(), nn.Linear(query_features, query_features), nn.Tanh())
            # One filter per class as long as all pooled vectors together.
            self.classifier = nn.Linear(n_classes * in_features, n_classes)

    def output(self, bags: RaggedBags, mask: Bool[Tensor, "bags n"]) -> MILOutput:
        """Return class logits, and a row of attention logits per class."""
        scores = self.score(bags.values)
        sizes = bags.sizes.tolist()
        queries = self.query(bags.values)
        likeness = [
            queried @ queried[scored.argmax(0)].T  # (instances, classes)
            for queried, scored in zip(torch.split(queries, sizes), torch.split(scores, sizes), strict=True)
        ]
        attention = torch.cat(likeness) / math.sqrt(queries.shape[1])
        max_logits = segment_max(scores, bags.ids, bags.n_bags)
        bag_logits = self.classifier(attend(bags, attention))
        logits = torch.logaddexp(max_logits.log_softmax(1), bag_logits.log_softmax(1)) - math.log(2)
        return MILOutput(
            logits,
            side_by_side(attention, mask),
            aux={"max_logits": max_logits, "bag_logits": bag_logits},
            heads=(Head(max_logits, 0.5), Head(bag_logits, 0.5)),
        )


class ACMIL(MILModel):
    """Several branches of gated attention, some of whose favourite instances are hidden in training.

    Each branch has a classifier of its own; the slide's classifier sees the mean of their attentions. Branches are kept
    apart by a penalty on the likeness of their attentions.

    Parameters
    ----------
    in_features : int
        Length of an instance.
    n_classes : int
        Classes, at least 2.
    reduced_features : int, optional
        Width that instances are first reduced to; by default half of ``in_features``, a third of 384.
    attention_features : int
        Width of the network that scores instances, which branches share.
    n_branches : int
        Rows of attention.
    n_favourites : int
        How many instances with the largest logits of a branch may be hidden, at least 1.
    hidden_share : float
        Share of them that is hidden at random in each training step, in [0, 1).
    dropout : float
        Probability of dropping a unit of the scoring network, in [0, 1).
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range, or a share outside [0, 1); from ``forward``, if bags are of another width, empty or
        not finite.

    Notes
    -----
    The loss is the mean of the branches' plus the slide's plus the mean cosine similarity of two branches' attentions.
    ``aux`` holds ``branch_logits`` of shape (bags, branches, classes). Hidden instances have attention logits of -inf.
    O(n · in_features · reduced_features).

    Examples
    --------
    >>> _ = torch.manual_seed(0)  # hides at random
    >>> output = ACMIL(64, generator=0)(torch.eye(50, 64))
    >>> output.attention_logits.shape, int(output.attention_logits.isinf().sum())  # 5 branches hide 6 each
    (torch.Size([1, 5, 50]), 30)

    References
    ----------
    Zhang et al., *Attention-Challenging Multiple Instance Learning for Whole Slide Image Classification*,
    arXiv:2311.07125, section 3.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int = 2,
        reduced_features: int | None = None,
        attention_features: int = 128,
        *,
        n_branches: int = 5,
        n_favourites: int = 10,
        hidden_share: float = 0.6,
        dropout: float = 0.0,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features, n_classes)
        check_count("n_branches", n_branches)
        check_count("n_favourites", n_favourites)
        if not 0 <= hidden_share < 1:
            raise ValueError(f"hidden_share must be in [0, 1); got {hidden_share}")
        self.n_favourites, self.hidden_share = n_favourites, hidden_share
        with seeded(generator):
            self.reduce = Reduction(in_features, reduced_features)
            width = self.reduce.width
            self.pooling = AttentionPooling(width, attention_features, gated=True, n_heads=n_branches, dropout=dropout)
            self.branches = nn.ModuleList(nn.Linear(width, n_classes) for _ in range(n_branches))
            self.classifier = nn.Linear(width, n_classes)

    def output(self, bags: RaggedBags, mask: Bool[Tensor, "bags n"]) -> MILOutput:
        """Return class logits, and a row of attention logits per branch."""
        reduced = self.reduce(bags)
        attention = self.pooling.logits(reduced.values)
        if self.training:
            attention = attention.masked_fill(self._hidden(reduced, attention.detach()), -torch.inf)
        n_branches = len(self.branches)
        vectors = attend(reduced, attention).view(bags.n_bags, n_branches, -1)
        found = [branch(vectors[:, i]) for i, branch in enumerate(self.branches)]
        # The slide's attention is the mean of the branches', so its vector is the mean of theirs.
        logits = self.classifier(vectors.mean(1))
        return MILOutput(
            logits,
            side_by_side(attention, mask),
            aux={"branch_logits": torch.stack(found, 1)},
            heads=(*(Head(branch, 1 / n_branches) for branch in found), Head(logits)),
            penalty=_likeness(bags, attention),
        )

    def _hidden(self, bags: RaggedBags, logits: Float[Tensor, "n branches"]) -> Bool[Tensor, "n branches"]:
        """Choose, for each bag and branch, which favourites are hidden; at least one instance stays."""
        chosen = []
        for part in torch.split(logits, bags.sizes.tolist()):
            favourites = part.topk(min(self.n_favourites, len(part)), dim=0).indices
            order = torch.rand(favourites.shape, device=logits.device).argsort(0)
            hidden = order < int(self.hidden_share * len(favourites))
            chosen.append(torch.zeros_like(part, dtype=torch.bool).scatter(0, favourites, hidden))
        return torch.cat(chosen)


class DTFDMIL(MILModel):
    """Split each bag into pseudo-bags, pool each by attention, then pool their vectors by attention once more.

    Both tiers are trained: every pseudo-bag with the label of its bag, and the bag.

    Parameters
    ----------
    in_features : int
        Length of an instance.
    n_classes : int
        Classes, at least 2.
    reduced_features : int, optional
        Width that instances are first reduced to; by default half of ``in_features``, a third of 384.
    attention_features : int
        Width of the networks that score instances and pseudo-bags.
    n_parts : int
        Pseudo-bags of a bag; fewer where it has fewer instances.
    dropout : float
        Probability of dropping a unit of the scoring networks, in [0, 1).
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is out of range, or dropout outside [0, 1); from ``forward``, if bags are of another width, empty or
        not finite.

    Notes
    -----
    In training parts are drawn at random, of equal sizes. In evaluation an instance's part follows from its features
    alone, by a checksum of their bits, so that a prediction depends neither on chance nor on the order of instances.
    What stands for a pseudo-bag is its pooled vector (AFS). Rows of attention are those of the first tier, one per
    pseudo-bag; ``stages`` holds that of the second. O(n · in_features · reduced_features).

    Examples
    --------
    >>> _ = torch.manual_seed(0)  # splits at random
    >>> output = DTFDMIL(64, generator=0)(torch.eye(50, 64))
    >>> output.attention_logits.isfinite().sum(2).tolist(), output.stages[0].shape
    ([[10, 10, 10, 10, 10]], torch.Size([1, 1, 5]))

    References
    ----------
    Zhang et al., *DTFD-MIL: Double-Tier Feature Distillation Multiple Instance Learning for Histopathology Whole Slide
    Image Classification*, arXiv:2203.12081, section 3.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int = 2,
        reduced_features: int | None = None,
        attention_features: int = 128,
        *,
        n_parts: int = 5,
        dropout: float = 0.0,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features, n_classes)
        check_count("n_parts", n_parts)
        self.n_parts = n_parts
        with seeded(generator):
            self.reduce = Reduction(in_features, reduced_features)
            width = self.reduce.width
            self.pooling = AttentionPooling(width, attention_features, gated=True, dropout=dropout)
            self.part_classifier = nn.Linear(width, n_classes)
            self.part_pooling = AttentionPooling(width, attention_features, gated=True, dropout=dropout)
            self.classifier = nn.Linear(width, n_classes)

    def output(self, bags: RaggedBags, mask: Bool[Tensor, "bags n"]) -> MILOutput:
        """Return class logits, a row of attention logits per pseudo-bag, and one over pseudo-bags as a stage."""
        parts = shuffled_ranks(bags) if self.training else _checksum(bags.values)
        cells = bags.ids * self.n_parts + parts % self.n_parts
        order = cells.argsort(stable=True)
        sizes = torch.bincount(cells, minlength=bags.n_bags * self.n_parts)
        filled = (sizes > 0).view(bags.n_bags, self.n_parts)
        reduced = self.reduce(bags)
        pseudo = RaggedBags(reduced.values[order], nn.functional.pad(sizes[sizes > 0].cumsum(0), (1, 0)))
        first = self.pooling(pseudo)
        distilled = RaggedBags(first.vectors, nn.functional.pad(filled.sum(1).cumsum(0), (1, 0)))
        second = self.part_pooling(distilled)
        logits = self.classifier(second.vectors)
        # Each instance has one logit, in the row of its pseudo-bag.
        attention = first.attention_logits.new_full((len(order), self.n_parts), -torch.inf)
        attention = attention.index_put((order, cells[order] % self.n_parts), first.attention_logits.squeeze(1))
        stage = side_by_side(second.attention_logits, filled)
        return MILOutput(
            logits,
            side_by_side(attention, mask),
            heads=(Head(self.part_classifier(first.vectors), bags=distilled.ids), Head(logits)),
            stages=(stage,),
            row_weights=stage.squeeze(1).softmax(1),
        )


def _likeness(bags: RaggedBags, logits: Float[Tensor, "n branches"]) -> Float[Tensor, ""]:
    """Return the mean cosine similarity of the attentions of two branches, over bags and pairs."""
    n_branches = logits.shape[1]
    if n_branches == 1:
        return logits.new_zeros(())
    weights = segment_softmax(logits, bags.ids, bags.n_bags)
    norms = segment_sum(weights.square(), bags.ids, bags.n_bags).sqrt()
    units = weights / norms[bags.ids]
    # The squared length of a sum of unit vectors is their number plus twice the sum over pairs.
    squares = segment_sum(units.sum(1).square(), bags.ids, bags.n_bags)
    return ((squares - n_branches) / (n_branches * (n_branches - 1))).mean()


def _checksum(values: Float[Tensor, "n features"]) -> Int[Tensor, " n"]:
    """Return a number from 0 for each row that depends on its bits alone, exactly."""
    kinds = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16}
    bits = (values.detach() + 0.0).contiguous().view(kinds.get(values.dtype, torch.int16)).long()
    # Multiplication by odd numbers and addition wrap around alike on every device and in any order.
    factors = 2 * torch.arange(1, values.shape[1] + 1, device=values.device) * 0x9E3779B97F4A7C1 + 1
    mixed = (bits * factors).sum(1)
    mixed = (mixed ^ (mixed >> 29)) * 0x1CE4E5B9BF58476D
    return (mixed ^ (mixed >> 32)) & 0x7FFFFFFF
