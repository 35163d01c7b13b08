"""Models that keep to the assumption: whatever is added to a bag, its logit never falls."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.bags.mil_unit_tests.models import BagModel, Generator
from offprint.methods.bags.ragged import RaggedBags, segment_max
from offprint.models.mlp import MLP
from offprint.models.randomness import seeded

HEAD_WIDTH = 16


class miNet(BagModel):
    """Score every row by a network; the bag's logit is the largest score.

    It keeps to the standard assumption by construction, but cannot say that two things must be present. Its name is the
    field's; :class:`.MINet` is another model.

    Parameters
    ----------
    in_features : int
        Length of a row.
    width : int
        Of each of the three layers.
    dropout : float
        Probability of dropping a unit, in [0, 1); it slows training, since one row decides.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, or dropout outside [0, 1).

    Notes
    -----
    O(n · width²).

    Examples
    --------
    >>> model = miNet(16, generator=0).eval()
    >>> bag = torch.linspace(-1, 1, 48).reshape(3, 16)
    >>> more = torch.cat([bag, torch.full((1, 16), -10.0)])
    >>> low, high = model(RaggedBags.from_list([bag, more])).tolist()
    >>> high >= low
    True

    References
    ----------
    Wang, Yan, Tang, Bai and Liu, *Revisiting Multiple Instance Neural Networks*, arXiv:1610.02501, section 3.1.
    """

    def __init__(
        self, in_features: int, width: int = 128, *, dropout: float = 0.0, generator: Generator = None
    ) -> None:
        super().__init__(in_features)
        self.network = MLP(in_features, [width] * 3, 1, activation=_leaky, dropout=dropout, generator=generator)

    def logits(self, bags: RaggedBags) -> Float[Tensor, " bags"]:
        """Return one logit per bag."""
        return segment_max(self.network(bags.values), bags.ids, bags.n_bags).squeeze(1)


class MonotoneMIL(BagModel):
    """Learn which concepts a bag must hold together; adding a row can never lower its logit.

    A network gives every row a log-odds for each of ``n_rules`` times ``n_concepts`` concepts, and a concept is as
    present as in the row that shows it best. A rule holds when all its concepts are present, the bag is positive when
    one rule holds; both are soft. Use it where labels follow from what is present, or put it behind an encoder of your
    own to repair a model that fails.

    Parameters
    ----------
    in_features : int
        Length of a row (as it leaves the encoder, where there is one).
    n_rules, n_concepts : int
        Ways to be positive, and concepts that each may require, at least 1.
    width : int
        Of the two hidden layers.
    head : {"rules", "network"}
        How presences become a logit: soft OR of soft ANDs, or a small network with positive weights.
    encoder : torch.nn.Module, optional
        Applied to the rows first, (n, own features) to (n, in_features). It must treat rows one by one: normalisation
        over rows would break the promise.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, or head is unknown.

    Notes
    -----
    With presence p_rq = max over rows of h_rq, the logit is b + logsumexp_r(−logsumexp_q(−p_rq)), which rises in every
    p. Presences are not squashed before the maximum: a sigmoid there stops learning. Training can stay
    in rules of one concept, which a training AUC near 0.85 on test 2 gives away: on scaled rows at a learning rate of
    1e-3 each of a few starts did, at 1e-2 few. Try larger rates and a few starts (``n_restarts``), and keep the lowest
    training loss. O(n · width²).

    Examples
    --------
    >>> model = MonotoneMIL(16, generator=0)
    >>> bag = torch.linspace(-1, 1, 48).reshape(3, 16)
    >>> more = torch.cat([bag, torch.full((1, 16), -10.0)])
    >>> low, high = model(RaggedBags.from_list([bag, more])).tolist()
    >>> high >= low
    True

    References
    ----------
    Raff and Holt, *Reproducibility in Multiple Instance Learning: A Case For Algorithmic Unit Tests*, arXiv:2310.17867,
    for the assumption that it keeps to. The model is this project's own.
    """

    def __init__(
        self,
        in_features: int,
        n_rules: int = 4,
        n_concepts: int = 2,
        *,
        width: int = 64,
        head: Literal["rules", "network"] = "rules",
        encoder: nn.Module | None = None,
        generator: Generator = None,
    ) -> None:
        super().__init__(in_features)
        if min(n_rules, n_concepts) < 1:
            raise ValueError(f"n_rules and n_concepts must be at least 1; got {n_rules} and {n_concepts}")
        if head not in ("rules", "network"):
            raise ValueError(f"head must be 'rules' or 'network'; got {head!r}")
        self.shape = n_rules, n_concepts
        self.encoder = encoder
        if encoder is not None:
            self.row_features = None  # Rows are as long as the encoder takes.
        with seeded(generator):
            self.concepts = MLP(in_features, [width] * 2, n_rules * n_concepts, activation=_leaky)
            self.head = _PositiveNetwork(n_rules * n_concepts) if head == "network" else None
            self.bias = nn.Parameter(torch.zeros(()))

    def presences(self, bags: RaggedBags) -> Float[Tensor, "bags rules concepts"]:
        """Return the log-odds with which each concept of each rule is present in each bag."""
        rows = self.concepts(bags.values if self.encoder is None else self.encoder(bags.values))
        return segment_max(rows, bags.ids, bags.n_bags).reshape(bags.n_bags, *self.shape)

    def logits(self, bags: RaggedBags) -> Float[Tensor, " bags"]:
        """Return one logit per bag."""
        present = self.presences(bags)
        if self.head is not None:
            decided: Tensor = self.head((present / 2).tanh().flatten(1))
            return decided + self.bias
        every_concept = -(-present).logsumexp(2)
        return self.bias + every_concept.logsumexp(1)


class _PositiveNetwork(nn.Module):
    """Two layers whose weights are positive, so that the output rises with every input."""

    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        self.first = nn.Parameter(0.5 * torch.randn(HEAD_WIDTH, n_inputs) - 1)
        self.second = nn.Parameter(0.5 * torch.randn(1, HEAD_WIDTH) - 1)
        self.shift = nn.Parameter(torch.randn(HEAD_WIDTH))

    def forward(self, inputs: Float[Tensor, "bags inputs"]) -> Float[Tensor, " bags"]:
        hidden = functional.linear(inputs, functional.softplus(self.first), self.shift)
        outputs = functional.linear(functional.leaky_relu(hidden, 0.2), functional.softplus(self.second))
        return outputs.squeeze(1)


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)
