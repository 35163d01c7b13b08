"""Min-max problems over the parameters of torch models, as finite sums over a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from offprint.methods.optimize.finite_sum import FiniteSumOperator

Player = nn.Module | Iterable[Tensor]
Loss = Callable[..., Tensor]


class TorchSum(FiniteSumOperator):
    """The gradient field of a min-max problem, built by :func:`from_torch`.

    Parameters
    ----------
    loss_fn : callable
        As for :func:`from_torch`.
    data : tuple of Tensor, each of shape (n, ...)
    minimisers, maximisers : list of Tensor
        Leaf tensors that require gradients.
    chunk_size : int
        Samples of one call of ``loss_fn`` in a full evaluation.

    Attributes
    ----------
    u0 : array of float, shape (d,)
        The parameters as they were, minimising player first.
    """

    def __init__(
        self,
        loss_fn: Loss,
        data: tuple[Tensor, ...],
        minimisers: list[Tensor],
        maximisers: list[Tensor],
        chunk_size: int,
    ) -> None:
        self._loss_fn, self._data = loss_fn, data
        self._parameters = [*minimisers, *maximisers]
        self._signs = [1.0] * len(minimisers) + [-1.0] * len(maximisers)
        self._chunk_size = chunk_size
        self.u0 = self._flat([parameter.detach() for parameter in self._parameters])
        super().__init__(len(data[0]), self._component, self._full)

    def write(self, u: Float[np.ndarray, " d"]) -> None:
        """Set the players' parameters to ``u``, in place; the models are then those that ``u`` describes."""
        if np.shape(u) != self.u0.shape:
            raise ValueError(f"u must have shape {self.u0.shape}; got {np.shape(u)}")
        start = 0
        with torch.no_grad():
            for parameter in self._parameters:
                piece = torch.from_numpy(np.ascontiguousarray(u[start : start + parameter.numel()]))
                parameter.copy_(piece.view(parameter.shape))
                start += parameter.numel()

    def _component(self, indices: Int[np.ndarray, " batch"], u: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        self.write(u)
        where = torch.as_tensor(indices, device=self._data[0].device)
        loss = self._loss_fn(*(tensor[where] for tensor in self._data))
        if loss.ndim != 0:
            raise ValueError(f"loss_fn must return the mean loss of a batch, a scalar; got shape {tuple(loss.shape)}")
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        return self._flat(
            [
                torch.zeros_like(parameter) if gradient is None else sign * gradient
                for sign, gradient, parameter in zip(self._signs, gradients, self._parameters, strict=True)
            ]
        )

    def _full(self, u: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
        total = np.zeros(u.shape)
        for start in range(0, self.n, self._chunk_size):
            chunk = np.arange(start, min(start + self._chunk_size, self.n))
            total += len(chunk) / self.n * self._component(chunk, u)
        return total

    @staticmethod
    def _flat(tensors: list[Tensor]) -> Float[np.ndarray, " d"]:
        return torch.cat([tensor.reshape(-1).to("cpu", torch.float64) for tensor in tensors]).numpy()


def from_torch(
    loss_fn: Loss,
    data: Tensor | tuple[Tensor, ...],
    players: tuple[Player, Player | None],
    *,
    chunk_size: int = 4096,
) -> TorchSum:
    """Build the operator of min over one player, max over the other of the mean of a loss over a data set.

    F(u) is the gradient of the loss for the minimising player and its negative for the maximising one, by autograd;
    sample i is component i. Start a solver at ``operator.u0``, and put its answer into the models by
    ``operator.write(result.u)``. While a solver runs, the parameters are overwritten by whatever it tries.

    Parameters
    ----------
    loss_fn : callable (*batch) -> scalar Tensor
        The mean loss over a batch of samples, computed with the players' present parameters. It must not depend on
        anything random or on the other samples of the batch (no dropout, no batch normalisation in training mode).
    data : Tensor or tuple of Tensor, each of shape (n, ...)
        A batch is each of them at the same indices, on their own device.
    players : (minimiser, maximiser)
        Each a module or an iterable of leaf tensors that require gradients. The maximiser may be ``None``, which
        leaves a minimisation.
    chunk_size : int
        Samples of one call of ``loss_fn`` in a full evaluation, ≥ 1; bounds its memory.

    Returns
    -------
    TorchSum

    Raises
    ------
    ValueError
        If the data are empty or of unequal lengths, a player has no parameter or shares one with the other, or
        ``chunk_size`` < 1.
    TypeError
        If ``loss_fn`` is not callable, or data or players are of another kind.

    Notes
    -----
    Solvers keep their state in float64 on the CPU; parameters keep their dtype and device, so a residual below the
    resolution of float32 parameters (about 1e-6 of F) cannot be reached.

    Examples
    --------
    A regression whose weights w play against a reweighting of the features:

    >>> import torch
    >>> x, y = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), torch.ones(64)
    >>> w, s = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    >>> loss = lambda x, y: ((x @ w - y) ** 2).mean() + w @ s - s @ s
    >>> operator = from_torch(loss, (x, y), players=([w], [s]))
    >>> operator.n, operator.u0.shape
    (64, (4,))

    References
    ----------
    Cai, Alacaoglu and Diakonikolas, arXiv 2310.02987, for the solvers.
    """
    if not callable(loss_fn):
        raise TypeError(f"loss_fn must be callable; got {type(loss_fn).__name__}")
    tensors = (data,) if isinstance(data, Tensor) else tuple(data)
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise TypeError("data must be a tensor or a tuple of tensors")
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in tensors}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"data must have one first length of at least 1; got {sorted(lengths)}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1; got {chunk_size}")
    minimisers = _parameters("players[0]", players[0])
    maximisers = [] if players[1] is None else _parameters("players[1]", players[1])
    if {id(parameter) for parameter in minimisers} & {id(parameter) for parameter in maximisers}:
        raise ValueError("players must not share parameters")
    return TorchSum(loss_fn, tensors, minimisers, maximisers, int(chunk_size))


def _parameters(name: str, player: Player) -> list[Tensor]:
    found = list(player.parameters() if isinstance(player, nn.Module) else player)
    if not all(isinstance(parameter, Tensor) for parameter in found):
        raise TypeError(f"{name} must be a module or an iterable of tensors")
    trained: list[Tensor] = [parameter for parameter in found if parameter.requires_grad and parameter.is_leaf]
    if not trained:
        raise ValueError(f"{name} must have at least one leaf tensor that requires gradients")
    if not all(torch.isfinite(parameter).all() for parameter in trained):
        raise ValueError(f"{name} must have finite parameters")
    return trained
