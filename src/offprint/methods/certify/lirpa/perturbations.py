"""What the inputs or the parameters of a network may be changed to, and the extremes of a linear function over that."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


class Perturbation(ABC):
    """A set of values that a root of the graph may take around its value ``x``.

    ``x`` has its samples on the first axis and ``rows`` are of shape (rows, *shape of x): each sample has an extreme of
    its own in each row. A parameter is one sample. A set of one's own needs `check`, `box` and `minimum`.
    """

    @abstractmethod
    def check(self, name: str, x: Shaped[Tensor, "samples ..."]) -> None:
        """Refuse values that this set makes no sense around.

        Parameters
        ----------
        name : str
            What to call ``x`` in the message.
        x : Tensor, shape (samples, ...)
            The root's value, without NaN: that is seen to before.

        Raises
        ------
        ValueError
            If shapes do not fit or ``x`` lies outside of a range that it must lie in.
        """

    @abstractmethod
    def box(self, x: Float[Tensor, "samples ..."]) -> tuple[Float[Tensor, "samples ..."], Float[Tensor, "samples ..."]]:
        """Return the smallest and the largest value of each element.

        Parameters
        ----------
        x : Tensor, shape (samples, ...)
            The root's value, without NaN: that is seen to before.

        Returns
        -------
        tuple of Tensor, shape (samples, ...)
        """

    @abstractmethod
    def minimum(
        self, rows: Float[Tensor, "rows samples ..."], x: Float[Tensor, "samples ..."]
    ) -> Float[Tensor, "rows samples"]:
        """Return the least value of ``rows . x'`` over all allowed ``x'``.

        Parameters
        ----------
        rows : Tensor, shape (rows, samples, ...)
            Coefficients. NaN makes its own row and sample NaN.
        x : Tensor, shape (samples, ...)
            The root's value, without NaN: that is seen to before.

        Returns
        -------
        Tensor, shape (rows, samples)
        """

    def maximum(
        self, rows: Float[Tensor, "rows samples ..."], x: Float[Tensor, "samples ..."]
    ) -> Float[Tensor, "rows samples"]:
        """Return the greatest value of ``rows . x'`` over all allowed ``x'``.

        Parameters
        ----------
        rows : Tensor, shape (rows, samples, ...)
            Coefficients. NaN makes its own row and sample NaN.
        x : Tensor, shape (samples, ...)
            The root's value, without NaN: that is seen to before.

        Returns
        -------
        Tensor, shape (rows, samples)
        """
        return -self.minimum(-rows, x)

    @property
    def is_box(self) -> bool:
        """Whether the set is all of its `box`."""
        return False


def dot(rows: Tensor, x: Tensor) -> Tensor:
    """Return the products of ``rows`` (rows, samples, ...) and ``x`` (samples, ...), of shape (rows, samples)."""
    flat = rows.flatten(2) if rows.ndim > 2 else rows.unsqueeze(-1)
    flat_x = x.reshape(x.shape[0], -1)
    return torch.einsum("rbn,bn->rb", flat, flat_x)


def _dot_box(rows: Tensor, lower: Tensor, upper: Tensor, sign: float) -> Tensor:
    return dot(rows, (lower + upper) / 2) + sign * dot(rows.abs(), (upper - lower) / 2)


@dataclass(frozen=True)
class LpBall(Perturbation):
    r"""All :math:`x'` with :math:`\|x' - x\|_p \le \epsilon`, and inside :math:`[x_L, x_U]` where that is given.

    Parameters
    ----------
    norm : float
        :math:`p \ge 1`; ``math.inf`` for the largest change of an element.
    eps : float or Tensor
        Radius, at least 0. A tensor of shape (samples,) gives each sample its own; one that broadcasts against ``x``
        scales the ball along each element, :math:`\|(x' - x) / \epsilon\|_p \le 1`.
    x_L, x_U : float or Tensor, optional
        The least and the greatest value an element may take anyway, say 0 and 1 for pixels; must hold for ``x``.

    Raises
    ------
    ValueError
        If ``norm < 1``, ``eps < 0`` or not finite, or ``x_L > x_U``.

    Notes
    -----
    With ``norm = inf`` the extremes of linear functions are exact. For other norms together with ``x_L`` or ``x_U`` the
    better of the two sets' extremes is taken, which is sound.

    Examples
    --------
    >>> import torch
    >>> LpBall(2, 0.5).minimum(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[1.0, 1.0]]))
    tensor([[4.5000]])

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920,
    section 3.1 (concretization by the dual norm).
    """

    norm: float
    eps: float | Tensor
    x_L: float | Tensor | None = None
    x_U: float | Tensor | None = None

    def __post_init__(self) -> None:
        if not self.norm >= 1:
            raise ValueError(f"norm: expected a number of at least 1, got {self.norm}")
        if not isinstance(self.eps, Tensor | float | int):
            object.__setattr__(self, "eps", torch.as_tensor(self.eps))  # of a list or an array
        eps = torch.as_tensor(self.eps)
        if not bool(torch.isfinite(eps).all()) or bool((eps < 0).any()):
            raise ValueError(f"eps: expected finite numbers of at least 0, got {self.eps}")
        for name, end in (("x_L", self.x_L), ("x_U", self.x_U)):
            if end is not None and bool(torch.as_tensor(end).isnan().any()):
                raise ValueError(f"{name}: expected numbers, got nan")
        if self.x_L is not None and self.x_U is not None:
            _check_order(torch.as_tensor(self.x_L), torch.as_tensor(self.x_U), "x_L", "x_U")

    @property
    def is_box(self) -> bool:
        return self.norm == math.inf

    def _radius(self, x: Tensor) -> Tensor:
        eps = torch.as_tensor(self.eps, dtype=x.dtype, device=x.device)
        if eps.ndim == 1 and eps.shape[0] == x.shape[0] and x.ndim != 1:
            eps = eps.reshape(-1, *[1] * (x.ndim - 1))
        return eps.expand(x.shape)

    def reach(
        self, x: Shaped[Tensor, "samples ..."], norms: Float[Tensor, "..."], like: Float[Tensor, "..."]
    ) -> Float[Tensor, "..."] | None:
        """Return how far linear functions move inside the ball, from the norms of their coefficients alone.

        Parameters
        ----------
        x : Tensor, shape (samples, ...)
            The root's value, of which only the shape counts, NaN or not.
        norms : Tensor, shape (samples or 1, ...)
            Dual norms of the coefficients. NaN stays NaN.
        like : Tensor, shape (...)
            Any tensor of the type and on the device to compute in; NaN in it does not matter.

        Returns
        -------
        Tensor or None
            Of a shape to which samples and ``norms`` broadcast; ``None`` with a range or a radius for each element,
            where norms do not say it.
        """
        eps = torch.as_tensor(self.eps, dtype=like.dtype, device=like.device)
        if self.x_L is not None or self.x_U is not None or eps.ndim > 1:
            return None
        if eps.ndim == 0:
            return eps * norms
        if eps.shape[0] != x.shape[0] or x.ndim == 1:
            return None
        return eps.reshape(-1, *[1] * (x.ndim - 1)) * norms

    def check(self, name: str, x: Shaped[Tensor, "samples ..."]) -> None:
        try:
            self._radius(x)
        except RuntimeError as error:
            raise ValueError(
                f"eps: shape {tuple(torch.as_tensor(self.eps).shape)} does not fit {name} of shape {tuple(x.shape)}"
            ) from error
        for end_name, end, sign in (("x_L", self.x_L, 1), ("x_U", self.x_U, -1)):
            if end is None:
                continue
            end = torch.as_tensor(end, dtype=x.dtype, device=x.device)
            try:
                outside = (sign * (end - x) > 0).any()
                if end.expand(x.shape).shape != x.shape:
                    raise RuntimeError
            except RuntimeError as error:
                message = f"{end_name}: shape {tuple(end.shape)} does not fit {name} of shape {tuple(x.shape)}"
                raise ValueError(message) from error
            if bool(outside):
                raise ValueError(f"{end_name}: {name} itself lies outside of it")

    def box(self, x: Float[Tensor, "samples ..."]) -> tuple[Float[Tensor, "samples ..."], Float[Tensor, "samples ..."]]:
        radius = self._radius(x)
        lower, upper = x - radius, x + radius
        if self.x_L is not None:
            lower = torch.maximum(lower, torch.as_tensor(self.x_L, dtype=x.dtype, device=x.device))
        if self.x_U is not None:
            upper = torch.minimum(upper, torch.as_tensor(self.x_U, dtype=x.dtype, device=x.device))
        return lower, upper

    def minimum(
        self, rows: Float[Tensor, "rows samples ..."], x: Float[Tensor, "samples ..."]
    ) -> Float[Tensor, "rows samples"]:
        return self._extreme(rows, x, -1.0)

    def maximum(
        self, rows: Float[Tensor, "rows samples ..."], x: Float[Tensor, "samples ..."]
    ) -> Float[Tensor, "rows samples"]:
        return self._extreme(rows, x, 1.0)

    def _extreme(self, rows: Tensor, x: Tensor, sign: float) -> Tensor:
        if self.is_box:
            return _dot_box(rows, *self.box(x), sign)
        order = dual(self.norm)
        radius = self._radius(x)
        if isinstance(self.eps, Tensor) and self.eps.ndim > 0:
            length = lp_norm((rows * radius).reshape(*rows.shape[:2], -1), order)
        else:
            length = self.eps * lp_norm(rows.reshape(*rows.shape[:2], -1), order)
        extreme = dot(rows, x) + sign * length
        if self.x_L is not None or self.x_U is not None:
            other = _dot_box(rows, *self.box(x), sign)
            extreme = torch.minimum(extreme, other) if sign > 0 else torch.maximum(extreme, other)
        return extreme


def dual(norm: float) -> float:
    """Return q with 1/p + 1/q = 1."""
    if norm == math.inf:
        return 1.0
    return math.inf if norm == 1 else norm / (norm - 1)


def lp_norm(rows: Tensor, order: float) -> Tensor:
    """Return the norm along the last axis, with gradient 0 (not nan) where all is 0."""
    if order == 1:
        return rows.abs().sum(-1)
    if order == math.inf:
        return rows.abs().amax(-1)
    if not rows.requires_grad:
        norm: Tensor = torch.linalg.vector_norm(rows, order, dim=-1)
        return norm
    zero = (rows == 0).all(-1, keepdim=True)
    safe = torch.linalg.vector_norm(torch.where(zero, torch.ones_like(rows), rows), order, dim=-1)
    return torch.where(zero.squeeze(-1), torch.zeros_like(safe), safe)


def _check_order(lower: Tensor, upper: Tensor, lower_name: str, upper_name: str) -> None:
    try:
        wrong = (lower > upper).any()
    except RuntimeError as error:
        raise ValueError(
            f"{lower_name}, {upper_name}: shapes {tuple(lower.shape)} and {tuple(upper.shape)} do not fit together"
        ) from error
    if bool(wrong):
        raise ValueError(f"{lower_name}: expected at most {upper_name} everywhere, got a larger value")


@dataclass(frozen=True)
class Box(Perturbation):
    """All values between two tensors.

    Parameters
    ----------
    lower, upper : Tensor
        Of a shape that broadcasts to the input's; finite, ``lower <= upper``. The input's own value need not be inside:
        the box alone says what is allowed.

    Raises
    ------
    ValueError
        If an end is not finite or ``lower > upper`` somewhere.

    Notes
    -----
    The extremes of linear functions are exact.

    Examples
    --------
    >>> import torch
    >>> Box(torch.zeros(2), torch.ones(2)).maximum(torch.tensor([[[3.0, -4.0]]]), torch.zeros(1, 2))
    tensor([[3.]])

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920.
    """

    lower: Shaped[Tensor, "..."]
    upper: Shaped[Tensor, "..."]

    def __post_init__(self) -> None:
        for name, end in (("lower", self.lower), ("upper", self.upper)):
            if not bool(torch.isfinite(end).all()):
                raise ValueError(f"{name}: expected finite numbers, got nan or inf")
        _check_order(self.lower, self.upper, "lower", "upper")

    @property
    def is_box(self) -> bool:
        return True

    def check(self, name: str, x: Shaped[Tensor, "samples ..."]) -> None:
        for end_name, end in (("lower", self.lower), ("upper", self.upper)):
            try:
                end.expand(x.shape)
            except RuntimeError as error:
                raise ValueError(
                    f"{end_name}: shape {tuple(end.shape)} does not fit {name} of shape {tuple(x.shape)}"
                ) from error

    def box(self, x: Float[Tensor, "samples ..."]) -> tuple[Float[Tensor, "samples ..."], Float[Tensor, "samples ..."]]:
        return self.lower.to(x).expand(x.shape), self.upper.to(x).expand(x.shape)

    def minimum(
        self, rows: Float[Tensor, "rows samples ..."], x: Float[Tensor, "samples ..."]
    ) -> Float[Tensor, "rows samples"]:
        return _dot_box(rows, *self.box(x), -1.0)

    def maximum(
        self, rows: Float[Tensor, "rows samples ..."], x: Float[Tensor, "samples ..."]
    ) -> Float[Tensor, "rows samples"]:
        return _dot_box(rows, *self.box(x), 1.0)
