"""What a multiple-instance model returns: class logits, attention logits, and what its own loss needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Head:
    """Logits that a framework trains beside, or instead of, those that it predicts with.

    Parameters
    ----------
    logits : tensor, shape (rows, classes)
        One row per bag, or several.
    weight : float
        Of its loss.
    bags : int64 tensor, shape (rows,), optional
        The bag of each row; by default row i is of bag i.
    """

    logits: Float[Tensor, "rows classes"]
    weight: float = 1.0
    bags: Int[Tensor, " rows"] | None = None


@dataclass(frozen=True, eq=False)
class MILOutput:
    """What a model says about bags, and where it looked.

    Parameters
    ----------
    logits : tensor, shape (bags, classes)
        Their softmax is the prediction.
    attention_logits : tensor, shape (bags, rows, n), optional
        Before the softmax over instances: one row per head, class, branch or pseudo-bag. -inf where a bag has no
        instance, or the row does not see it. ``None`` without attention.
    aux : mapping of str to tensor
        What else a framework computes, by name.
    heads : tuple of Head
        What is trained; empty for the logits alone.
    penalty : tensor, shape (), optional
        Added to the classification loss.
    stages : tuple of tensors, shape (bags, rows, n)
        Attention logits of further stages, over other things than instances.
    row_weights : tensor, shape (bags, rows), optional
        How much each row of attention counts for the bag; by default all alike.
    """

    logits: Float[Tensor, "bags classes"]
    attention_logits: Float[Tensor, "bags rows n"] | None = None
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    heads: tuple[Head, ...] = ()
    penalty: Float[Tensor, ""] | None = None
    stages: tuple[Float[Tensor, "bags _ _"], ...] = ()
    row_weights: Float[Tensor, "bags rows"] | None = None

    @property
    def attention(self) -> Float[Tensor, "bags rows n"]:
        """Attention of each row, which adds up to one; zeros where a row sees no instance."""
        if self.attention_logits is None:
            raise ValueError("this model has no attention")
        unseen = (self.attention_logits == -torch.inf).all(-1, keepdim=True)
        return self.attention_logits.masked_fill(unseen, 0.0).softmax(-1).masked_fill(unseen, 0.0)

    @property
    def instance_weights(self) -> Float[Tensor, "bags n"]:
        """How much each instance counts for its bag: attention averaged over the rows that see something."""
        attention = self.attention
        if self.row_weights is not None:
            return (self.row_weights[:, :, None] * attention).sum(1)
        return attention.sum(1) / attention.sum((1, 2))[:, None]

    def classification_loss(
        self, base: Callable[[Tensor, Tensor], Tensor], target: Int[Tensor, " bags"]
    ) -> Float[Tensor, ""]:
        """Return the framework's own loss: that of each head by its weight, and the penalty."""
        total: Tensor | None = None
        for head in self.heads or (Head(self.logits),):
            loss = head.weight * base(head.logits, target if head.bags is None else target[head.bags])
            total = loss if total is None else total + loss
        assert total is not None  # there is at least one head
        return total if self.penalty is None else total + self.penalty
