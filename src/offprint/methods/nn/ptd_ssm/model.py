"""A sequence model around any of the layers, and what its training needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from offprint.methods.nn.ptd_ssm.convolution import check_count, check_sequences, linear
from offprint.methods.nn.ptd_ssm.diagonalize import perturb_then_diagonalize
from offprint.methods.nn.ptd_ssm.hippo import hippo_legs
from offprint.methods.nn.ptd_ssm.s4d import S4D
from offprint.methods.nn.ptd_ssm.s4dplr import S4DPLR
from offprint.methods.nn.ptd_ssm.s5 import S5

Layer = Literal["s4d", "s5", "s4dplr", "gru"]
Norm = Literal["layer", "batch", "none"]
Pooling = Literal["mean", "last", "none"]


class SequenceModel(nn.Module):
    """A stack of sequence layers with residual connections: sequences in, one output per sequence or per time step.

    Each block is norm, layer, GELU, gated linear unit, dropout, and a residual connection.

    Parameters
    ----------
    d_in, d_out : int
        Features of inputs and outputs.
    n_layers : int
        Blocks.
    d_model : int
        Features inside.
    layer : {"s4d", "s5", "s4dplr", "gru"} or callable
        The sequence layer; a callable takes ``d_model`` and returns a module of your own that maps
        (batch, length, d_model) to the same shape.
    dropout : float
        In [0, 1).
    norm : {"layer", "batch", "none"}
    pooling : {"mean", "last", "none"}
        How time is summarised before the output; ``"none"`` gives an output per step.
    generator : torch.Generator, optional
        Draws the first weights; torch's global one by default.
    **layer_options
        Passed to the layer, for example ``init="ptd"``, whose perturbation is computed once and shared by all blocks.

    Raises
    ------
    ValueError
        If a name is not known or a number is out of range.
    TypeError
        If a count is not an integer or the layer does not know an option.

    Notes
    -----
    Time and memory are ``n_layers`` times those of the layer, plus O(batch length d_model²) for the linear units.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> model = SequenceModel(1, 10, n_layers=2, d_model=8, layer="s4d", n_state=16, init="legs", generator=generator)
    >>> model(torch.zeros(5, 64, 1)).shape
    torch.Size([5, 10])

    References
    ----------
    Gu, Goel and Ré, *Efficiently Modeling Long Sequences with Structured State Spaces*, arXiv:2111.00396, section 4 and
    its appendix on architecture.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        n_layers: int,
        d_model: int,
        layer: Layer | Callable[[int], nn.Module] = "s4d",
        *,
        dropout: float = 0.0,
        norm: Norm = "layer",
        pooling: Pooling = "mean",
        generator: torch.Generator | None = None,
        **layer_options: Any,
    ) -> None:
        super().__init__()
        for name, count in (("d_in", d_in), ("d_out", d_out), ("n_layers", n_layers), ("d_model", d_model)):
            check_count(name, count)
        for name, given, known in (("norm", norm, get_args(Norm)), ("pooling", pooling, get_args(Pooling))):
            if given not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {given!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}")
        build = _layer_factory(layer, generator, layer_options)
        self.d_in, self.pooling = d_in, pooling
        self.encode = linear(d_in, d_model, generator)
        self.blocks = nn.ModuleList(Block(build(d_model), d_model, dropout, norm, generator) for _ in range(n_layers))
        self.decode = linear(d_model, d_out, generator)

    def forward(self, inputs: Float[Tensor, "batch length d_in"]) -> Float[Tensor, "batch ..."]:
        """Apply the model to whole sequences.

        Parameters
        ----------
        inputs : tensor, shape (batch, length, d_in)
            Finite, of the model's dtype.

        Returns
        -------
        tensor, shape (batch, d_out), or (batch, length, d_out) without pooling

        Raises
        ------
        ValueError
            If the shape does not fit or a value is not finite.
        TypeError
            If the dtype is not the model's.
        """
        check_sequences(inputs, self.d_in, self.encode.weight.dtype)
        hidden = self.encode(inputs)
        for block in self.blocks:
            hidden = block(hidden)
        if self.pooling == "mean":
            hidden = hidden.mean(1)
        elif self.pooling == "last":
            hidden = hidden[:, -1]
        outputs: Tensor = self.decode(hidden)
        return outputs


class Block(nn.Module):
    """One block of a :class:`SequenceModel`: ``x + dropout(glu(gelu(layer(norm(x)))))``."""

    def __init__(
        self, layer: nn.Module, d_model: int, dropout: float, norm: Norm, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.norm = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "none": nn.Identity}[norm](d_model)
        self.layer = layer
        self.gate = linear(d_model, 2 * d_model, generator)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Apply the block to whole sequences of the model's features."""
        if isinstance(self.norm, nn.BatchNorm1d):
            hidden = self.norm(inputs.transpose(1, 2)).transpose(1, 2)
        else:
            hidden = self.norm(inputs)
        hidden = functional.glu(self.gate(functional.gelu(self.layer(hidden))), dim=-1)
        outputs: Tensor = inputs + self.dropout(hidden)
        return outputs


class Recurrent(nn.Module):
    """A gated recurrent unit that returns only its outputs, as a baseline with the same interface."""

    def __init__(self, d_model: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.gru = nn.GRU(d_model, d_model, batch_first=True)
        for parameter in self.gru.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(d_model), 1 / math.sqrt(d_model), generator=generator)

    def forward(self, inputs: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Run the unit over whole sequences, from a state of zeros."""
        outputs: Tensor = self.gru(inputs)[0]
        return outputs


def parameter_groups(model: nn.Module, learning_rate: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Return parameter groups for a ``torch.optim`` optimizer: dynamics at a smaller rate and without weight decay.

    Parameters
    ----------
    model : torch.nn.Module
        Any model that holds these layers.
    learning_rate : float
        Positive. Of everything else; a layer's dynamics have ``layer.lr_scale`` times it.
    weight_decay : float
        Non-negative. Of everything else.

    Returns
    -------
    list of dict

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    One group of ordinary parameters and one for each distinct ``lr_scale``. Parameters that are frozen are left out.

    Examples
    --------
    >>> model = SequenceModel(1, 1, n_layers=1, d_model=4, n_state=8, lr_scale=0.25)
    >>> [group["lr"] for group in parameter_groups(model, 4e-3)]
    [0.004, 0.001]

    References
    ----------
    Gu, Gupta, Goel and Ré, *On the Parameterization and Initialization of Diagonal State Space Models*,
    arXiv:2206.11893, the appendix on experiments.
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be positive and finite; got {learning_rate}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be non-negative and finite; got {weight_decay}")
    dynamics: dict[float, list[nn.Parameter]] = {}
    for module in model.modules():
        if isinstance(module, S4D | S4DPLR | S5):
            dynamics.setdefault(module.lr_scale, []).extend(module.state_space_parameters())
    taken = {id(parameter) for parameters in dynamics.values() for parameter in parameters}
    others = [parameter for parameter in model.parameters() if id(parameter) not in taken]
    groups = [(others, learning_rate, weight_decay)]
    groups += [(found, learning_rate * scale, 0.0) for scale, found in dynamics.items()]
    return [
        {"params": [p for p in parameters if p.requires_grad], "lr": rate, "weight_decay": decay}
        for parameters, rate, decay in groups
    ]


def _layer_factory(
    layer: Layer | Callable[[int], nn.Module], generator: torch.Generator | None, options: dict[str, Any]
) -> Callable[[int], nn.Module]:
    if callable(layer):
        if options:
            raise TypeError(f"layer_options go to named layers only; got {', '.join(options)} with a callable layer")
        return layer
    if layer not in get_args(Layer):
        raise ValueError(f"layer must be one of {', '.join(get_args(Layer))} or a callable; got {layer!r}")
    if options.get("init") == "ptd":
        n = options.get("n_state", 64) // options.get("blocks", 1)
        settings = {name: options[name] for name in ("rel_size", "cache_dir") if name in options}
        options = {**options, "init": perturb_then_diagonalize(hippo_legs(n)[0], **settings)}
    kinds: dict[str, Callable[..., nn.Module]] = {"s4d": S4D, "s5": S5, "s4dplr": S4DPLR, "gru": Recurrent}
    return lambda d_model: kinds[layer](d_model, generator=generator, **options)
