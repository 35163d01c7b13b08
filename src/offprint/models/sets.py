"""Networks over sets: one that tells every element the mean of all, and one whose elements attend to each other."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from offprint.models.mlp import MLP
from offprint.models.randomness import as_generator, seeded
from offprint.models.transformer import TransformerEncoder


class DeepSets(nn.Module):
    """Layers over elements that also see the mean of all, then an output for each element or for the set.

    hᵢ ← ReLU(A hᵢ + B mean(h) + c), layer by layer: whatever the order of the elements, each gets the same output, and
    so does the set. Elements that a mask leaves out count for nothing.

    Parameters
    ----------
    in_features, out_features : int
        Length of an element and of an output, at least 1.
    hidden_features, n_layers : int
        Width and number of the layers, at least 1.
    per_element : bool
        One output for each element; otherwise one for the set, from the mean over its elements.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1; from a call, if a mask does not fit or leaves a set without elements.

    Notes
    -----
    O(points · hidden_features² · n_layers) a set.

    Examples
    --------
    >>> x = torch.zeros(3, 5, 2)
    >>> DeepSets(2, 4, generator=0)(x).shape, DeepSets(2, 4, per_element=True, generator=0)(x).shape
    (torch.Size([3, 4]), torch.Size([3, 5, 4]))

    References
    ----------
    Zaheer et al., *Deep Sets*, arXiv:1703.06114, section 3.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: int = 64,
        n_layers: int = 2,
        *,
        per_element: bool = False,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, out_features, hidden_features, n_layers) < 1:
            raise ValueError(
                f"in_features, out_features, hidden_features and n_layers must be at least 1; "
                f"got {in_features}, {out_features}, {hidden_features} and {n_layers}"
            )
        self.per_element = per_element
        widths = [in_features, *[hidden_features] * (n_layers - 1)]
        with seeded(generator):
            self.own = nn.ModuleList(nn.Linear(width, hidden_features) for width in widths)
            self.told = nn.ModuleList(nn.Linear(width, hidden_features, bias=False) for width in widths)
            self.head = nn.Linear(hidden_features, out_features)

    def forward(
        self, x: Float[Tensor, "sets points features"], mask: Bool[Tensor, "sets points"] | None = None
    ) -> Float[Tensor, "sets *outputs"]:
        """Return outputs of shape (sets, points, out_features), or (sets, out_features).

        What lies where the mask, of shape (sets, points), is False never matters, be it NaN. Every set must have an
        element.
        """
        h = _present(x, mask)
        for own, told in zip(self.own, self.told, strict=True):
            h = (own(h) + told(_mean(h, mask))[:, None]).relu()
        outputs: Tensor = self.head(h if self.per_element else _mean(h, mask))
        return outputs


class SetTransformer(nn.Module):
    """Elements that attend to each other, then an output for each, or for the set by the attention of a learned query.

    Parameters
    ----------
    in_features, out_features : int
        Length of an element and of an output, at least 1.
    hidden_features : int
        Width, a multiple of ``n_heads``.
    n_layers, n_heads : int
        Attention layers and heads of each, at least 1.
    per_element : bool
        One output for each element; otherwise one for the set.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, or heads do not divide the width; from a call, if a mask does not fit or leaves a set
        without elements.

    Notes
    -----
    O(points² · hidden_features · n_layers) a set: attention between all elements, without inducing points.

    Examples
    --------
    >>> x = torch.zeros(3, 5, 2)
    >>> SetTransformer(2, 4, generator=0)(x).shape, SetTransformer(2, 4, per_element=True, generator=0)(x).shape
    (torch.Size([3, 4]), torch.Size([3, 5, 4]))

    References
    ----------
    Lee et al., *Set Transformer*, arXiv:1810.00825, sections 3.1 and 3.2.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden_features: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        *,
        per_element: bool = False,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        source = None if generator is None else as_generator(generator)
        self.encoder = TransformerEncoder(
            hidden_features,
            n_layers,
            n_heads,
            in_features=in_features,
            feedforward=2 * hidden_features,
            generator=source,
        )
        self.per_element = per_element
        with seeded(source):
            self.score = None if per_element else nn.Linear(hidden_features, n_heads)
        self.head = MLP(hidden_features, [], out_features, generator=source)

    def forward(
        self, x: Float[Tensor, "sets points features"], mask: Bool[Tensor, "sets points"] | None = None
    ) -> Float[Tensor, "sets *outputs"]:
        """Return outputs of shape (sets, points, out_features), or (sets, out_features).

        What lies where the mask, of shape (sets, points), is False never matters, be it NaN. Every set must have an
        element.
        """
        h = self.encoder(_present(x, mask), mask)
        if self.score is not None:
            logits = self.score(h)
            if mask is not None:
                logits = logits.masked_fill(~mask[..., None], -torch.inf)
            # Each head averages a part of the features of its own.
            parts = h.unflatten(2, (logits.shape[2], -1))
            h = torch.einsum("sph,sphf->shf", logits.softmax(1), parts).flatten(1)
        outputs: Tensor = self.head(h)
        return outputs


def _present(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return elements with zeros where a mask leaves them out, once it is known that it fits."""
    if mask is None:
        return x
    if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
        raise ValueError(f"mask must be bool of shape {tuple(x.shape[:2])}; got {mask.dtype} of {tuple(mask.shape)}")
    if not bool(mask.any(1).all()):
        raise ValueError("mask must leave at least one element in every set")
    return x.masked_fill(~mask[..., None], 0.0)


def _mean(h: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return h.mean(1)
    return (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
