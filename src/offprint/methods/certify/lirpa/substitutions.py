"""Changes to a few places of an input only: elements that become anything, words exchanged for synonyms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from offprint.methods.certify.lirpa.perturbations import Perturbation, dot


@dataclass(frozen=True)
class L0(Perturbation):
    """Up to ``k`` elements of each sample become anything in [``x_L``, ``x_U``]; the others stay.

    Parameters
    ----------
    k : int
        How many elements may change, at least 0.
    x_L, x_U : float
        The range of an element, by default [0, 1]; it must hold for the input itself.

    Raises
    ------
    ValueError
        If ``k < 0`` or ``x_L > x_U``.

    Notes
    -----
    The extremes of linear functions are exact: the ``k`` largest gains of single elements. Intervals pushed through
    the network (IBP) only know that every element may be anything in the range.

    Examples
    --------
    >>> import torch
    >>> L0(1).maximum(torch.tensor([[[3.0, -4.0]]]), torch.tensor([[0.5, 0.5]]))
    tensor([[1.5000]])

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920.
    """

    k: int
    x_L: float = 0.0
    x_U: float = 1.0

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ValueError(f"k: expected at least 0, got {self.k}")
        if not self.x_L <= self.x_U:
            raise ValueError(f"x_L: expected at most x_U = {self.x_U}, got {self.x_L}")

    def check(self, name: str, x: Shaped[Tensor, "samples ..."]) -> None:
        if bool((x < self.x_L).any()) or bool((x > self.x_U).any()):
            raise ValueError(f"{name}: expected elements in [{self.x_L}, {self.x_U}], as L0 says")

    def box(self, x: Float[Tensor, "samples ..."]) -> tuple[Float[Tensor, "samples ..."], Float[Tensor, "samples ..."]]:
        if self.k == 0:
            return x, x
        return torch.full_like(x, self.x_L), torch.full_like(x, self.x_U)

    def minimum(
        self, rows: Float[Tensor, "rows samples ..."], x: Float[Tensor, "samples ..."]
    ) -> Float[Tensor, "rows samples"]:
        gain = torch.minimum(rows * (self.x_L - x), rows * (self.x_U - x)).flatten(2)
        best = gain.topk(min(self.k, gain.shape[-1]), dim=-1, largest=False).values
        return dot(rows, x) + best.sum(-1)


@dataclass(frozen=True)
class Synonym(Perturbation):
    r"""Up to ``budget`` positions of a sequence of embeddings are exchanged for one of their candidates.

    Parameters
    ----------
    candidates : Tensor, shape (samples, positions, n_candidates, features)
        Embeddings that each position may take instead.
    budget : int
        How many positions may change, at least 0.
    mask : Tensor of bool, shape (samples, positions, n_candidates), optional
        Which candidates exist; by default all.

    Raises
    ------
    ValueError
        If ``budget < 0`` or shapes do not fit.

    Notes
    -----
    The perturbed root is the output of the embedding, of shape (samples, positions, features). The extremes of linear
    functions are exact: with :math:`a_i = A_i w_i` and :math:`r_i = \min_c A_i c`, the table
    :math:`g[i][j] = \min(g[i-1][j] + a_i, g[i-1][j-1] + r_i)` is filled in O(positions * budget).

    Examples
    --------
    >>> import torch
    >>> words = torch.tensor([[[1.0], [2.0]]])
    >>> others = torch.tensor([[[[0.0]], [[-1.0]]]])
    >>> Synonym(others, budget=1).minimum(torch.ones(1, 1, 2, 1), words)
    tensor([[0.]])

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920,
    section 3.1 (synonym-based word substitution).
    """

    candidates: Float[Tensor, "samples positions n_candidates features"]
    budget: int
    mask: Shaped[Tensor, "samples positions n_candidates"] | None = None

    def __post_init__(self) -> None:
        if self.budget < 0:
            raise ValueError(f"budget: expected at least 0, got {self.budget}")
        if self.candidates.ndim != 4 or not bool(torch.isfinite(self.candidates).all()):
            raise ValueError(
                "candidates: expected finite numbers of shape (samples, positions, n_candidates, features)"
            )
        if self.mask is not None and self.mask.shape != self.candidates.shape[:3]:
            raise ValueError(f"mask: expected shape {tuple(self.candidates.shape[:3])}, got {tuple(self.mask.shape)}")

    def check(self, name: str, x: Shaped[Tensor, "samples ..."]) -> None:
        samples, positions, _, features = self.candidates.shape
        if x.shape != (samples, positions, features):
            raise ValueError(
                f"{name}: expected {(samples, positions, features)} as in candidates, got {tuple(x.shape)}"
            )

    def box(self, x: Float[Tensor, "samples ..."]) -> tuple[Float[Tensor, "samples ..."], Float[Tensor, "samples ..."]]:
        if self.budget == 0:
            return x, x
        others = self.candidates.to(x)
        if self.mask is not None:
            others = torch.where(self.mask.bool().unsqueeze(-1), others, x.unsqueeze(2))
        return torch.minimum(others.amin(2), x), torch.maximum(others.amax(2), x)

    def minimum(
        self, rows: Float[Tensor, "rows samples ..."], x: Float[Tensor, "samples ..."]
    ) -> Float[Tensor, "rows samples"]:
        keep = torch.einsum("rbnd,bnd->rbn", rows, x)
        values = torch.einsum("rbnd,bncd->rbnc", rows, self.candidates.to(x))
        if self.mask is not None:
            values = values.masked_fill(~self.mask.bool(), math.inf)
        change = values.amin(-1)
        best = [torch.zeros_like(keep[..., 0])] + [torch.full_like(keep[..., 0], math.inf)] * self.budget
        for i in range(x.shape[1]):
            best = [best[0] + keep[..., i]] + [
                torch.minimum(best[j] + keep[..., i], best[j - 1] + change[..., i]) for j in range(1, self.budget + 1)
            ]
        return torch.stack(best).amin(0)
