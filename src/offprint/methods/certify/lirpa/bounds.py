"""Certified bounds of a network's outputs under perturbations of its inputs or parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

import offprint.methods.certify.lirpa.operators.table  # noqa: F401  registers the operators
from offprint.methods.certify.lirpa.capture import capture
from offprint.methods.certify.lirpa.forward import push_affine
from offprint.methods.certify.lirpa.graph import Graph, Node, module_path
from offprint.methods.certify.lirpa.intervals import Sharpener, push
from offprint.methods.certify.lirpa.operators.base import Interval
from offprint.methods.certify.lirpa.optimise import Schedule
from offprint.methods.certify.lirpa.outputs import (
    Bounds,
    Key,
    best_bounds,
    constant_bounds,
    pulled_bounds,
    pushed_bounds,
)
from offprint.methods.certify.lirpa.perturbations import Perturbation
from offprint.methods.certify.lirpa.problem import Problem
from offprint.methods.certify.lirpa.specification import margin_spec, perturb_parameters, specified_rows

__all__ = ["METHODS", "BoundedModule", "Bounds", "Key", "Method", "bound", "margin_spec", "perturb_parameters"]

Method = Literal["ibp", "forward", "forward+crown", "crown-ibp", "crown", "alpha-crown"]
METHODS = ("ibp", "forward", "forward+crown", "crown-ibp", "crown", "alpha-crown")
Perturbations = Perturbation | Mapping[Key, Perturbation]


class BoundedModule:
    r"""A network whose outputs are bounded over sets of inputs or parameters.

    The module is captured for each shape of its inputs once, and its parameters are read anew at every call, so it may
    be trained meanwhile. Bounds are tensors with gradients.

    Parameters
    ----------
    model : torch.nn.Module
        Any module that ``torch.export`` can trace; control flow may not depend on values. It is captured in the mode
        (training or evaluation) that it is in at the first call with a shape.
    example_inputs : Tensor of shape (samples, ...), or sequence of them
        Inputs as the model takes them, samples on the first axis; floating ones float32 or float64, and finite.
    batched : bool
        Whether samples are on the first axis of inputs and outputs. With ``False`` all is one sample: needed where the
        model mixes what is on the first axis.
    batch_norm : {"forward", "ibp"}, optional
        What batch norm in training mode uses as constant statistics: those of the clean batch, or those of the middles
        of its intervals. By default training mode is refused.
    dropout : {"identity"}, optional
        Leave out dropout in training mode. By default it is refused.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these, or the model cannot be captured.

    Notes
    -----
    Backward bounds of n outputs cost about 2 n times a forward pass, and as much for each neuron in front of a
    nonlinear operator whose sign is not known; all rows of a layer are one pass, all samples together.

    Examples
    --------
    >>> from offprint.methods.certify.lirpa.perturbations import LpBall
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> x = torch.randn(3, 4)
    >>> bounds = BoundedModule(model, x).compute_bounds(x, LpBall(float("inf"), 0.1))
    >>> bool(((bounds.lower <= model(x)) & (model(x) <= bounds.upper)).all())
    True

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920,
    section 3.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Tensor | Sequence[Tensor],
        *,
        batched: bool = True,
        batch_norm: Literal["forward", "ibp"] | None = None,
        dropout: Literal["identity"] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        if batch_norm not in (None, "forward", "ibp"):
            raise ValueError(f"batch_norm: expected 'forward', 'ibp' or None, got {batch_norm!r}")
        if dropout not in (None, "identity"):
            raise ValueError(f"dropout: expected 'identity' or None, got {dropout!r}")
        self.model: nn.Module | None = model
        self.batched = batched
        self.batch_norm = batch_norm
        self.dropout = dropout
        self._graphs: dict[Any, Graph] = {}
        self._last: Problem | None = None
        self.graph(_as_inputs(example_inputs, "example_inputs"))

    @classmethod
    def from_graph(cls, graph: Graph, model: nn.Module | None = None, *, batched: bool = True) -> BoundedModule:
        """Bound a graph of one's own; its parameters and buffers, where it has any, are those of ``model``."""
        bounded = cls.__new__(cls)
        bounded.model, bounded.batched, bounded.batch_norm, bounded.dropout = model, batched, None, None
        bounded._graphs, bounded._last = {None: graph}, None
        return bounded

    def graph(self, inputs: Tensor | Sequence[Tensor]) -> Graph:
        """Return the captured graph for inputs of these shapes."""
        if None in self._graphs:
            return self._graphs[None]
        inputs = _as_inputs(inputs)
        assert self.model is not None
        key = (tuple((tuple(x.shape), x.dtype, x.device) for x in inputs), self.model.training)
        if key not in self._graphs:
            self._graphs[key] = capture(self.model, inputs, batch_norm=self.batch_norm, dropout=self.dropout)
        return self._graphs[key]

    def problem(self, inputs: Tensor | Sequence[Tensor], perturbation: Perturbations) -> Problem:
        """Return the graph with values at its roots and what is perturbed, inputs checked, nothing bounded yet."""
        inputs = _as_inputs(inputs)
        graph = self.graph(inputs)
        perturbations = self._perturbed_nodes(graph, perturbation)
        values: dict[Node, Tensor] = {}
        for node in graph.nodes:
            if node.kind == "input":
                values[node] = inputs[node.key]
            elif node.kind == "constant":
                values[node] = node.key.to(inputs[0].device)
            elif node.kind in ("parameter", "buffer"):
                assert self.model is not None
                values[node] = attrgetter(node.key)(self.model)
        _check_dtypes(values)
        _check_weights(values)
        if self.batched and (inputs[0].ndim == 0 or len(inputs[0]) == 0):
            raise ValueError(
                f"inputs: expected at least one sample on the first axis of input 0, got shape {tuple(inputs[0].shape)}"
            )
        n_samples = inputs[0].shape[0] if self.batched else None
        for node in perturbations:
            if node.kind == "input" and n_samples is not None and values[node].shape[:1] != (n_samples,):
                raise ValueError(
                    f"input {node.key}: expected {n_samples} samples on its first axis, as input 0 has, since it is "
                    f"perturbed; got shape {tuple(values[node].shape)}"
                )
        problem = Problem(graph, values, perturbations, n_samples)
        for node, region in perturbations.items():
            name = f"input {node.key}" if node.kind == "input" else f"{node.kind or 'node'} {node.key or node.name!r}"
            value = problem.value(node)
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name} is not finite and perturbed")
            region.check(name, value if problem.sampled(node) else value.unsqueeze(0))
        return problem

    def _perturbed_nodes(self, graph: Graph, perturbation: Perturbations) -> dict[Node, Perturbation]:
        given = {0: perturbation} if isinstance(perturbation, Perturbation) else dict(perturbation)
        if not given:
            raise ValueError("perturbation: expected at least one, got none")
        found: dict[Node, Perturbation] = {}
        for key, region in given.items():
            if not isinstance(region, Perturbation):
                raise TypeError(f"perturbation: expected a Perturbation for {key!r}, got {type(region).__name__}")
            node = _find(graph, self._first_name(key))
            if not node.meta.is_floating_point():
                raise TypeError(
                    f"perturbation of {key!r}: only floating point tensors can be perturbed, got {node.meta.dtype}; "
                    "of indices, perturb the output of the embedding (the key is the path of its module)"
                )
            found[node] = region
        return found

    def _first_name(self, key: Key) -> Key:
        """Return the name under which a parameter is captured: of tied ones the first."""
        if not isinstance(key, str) or self.model is None:
            return key
        named = dict(self.model.named_parameters(remove_duplicate=False))
        if key not in named:
            return key
        return next(name for name, one in named.items() if one is named[key])

    def compute_bounds(
        self,
        inputs: Tensor | Sequence[Tensor],
        perturbation: Perturbations,
        method: Method | str = "crown",
        C: Shaped[Tensor, "..."] | None = None,
        lower: bool = True,
        upper: bool = True,
        return_A: bool = False,
        *,
        output: Key = 0,
        intervals: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        steps: int = 20,
        lr: float = 0.5,
        lr_decay: float = 0.98,
        optimize_intermediate: bool = False,
        memory: int | None = None,
    ) -> Bounds:
        r"""Bound an output, or rows ``C @ output`` of it.

        Parameters
        ----------
        inputs : Tensor or sequence of Tensor
            The centre, of any shape that the model takes.
        perturbation : Perturbation, or mapping of int or str to Perturbation
            Of the first input; or of several roots: the position of an input, the name of a parameter, the path of a
            module whose output (of an embedding, say) is perturbed, or the name of a node.
        method : str
            "ibp": intervals pushed through. "forward": linear functions pushed through. "crown": linear functions
            pulled back, intermediate intervals found in the same way. "crown-ibp", "forward+crown": pulled back with
            intermediate intervals of the other two. "alpha-crown": "crown" with slopes optimised for each row.
        C : Tensor, optional
            Rows of coefficients of the output, (samples, rows, outputs) or (rows, outputs); see `margin_spec`.
        lower, upper : bool
            Which bounds to find.
        return_A : bool
            Whether to return the linear functions; not for "ibp".
        output : int or str
            Which output of a model with several, or the name of a node.
        intervals : mapping of str to (Tensor, Tensor), optional
            Intervals of nodes by name that are known from elsewhere: taken as they are, and not looked for.
        steps, lr, lr_decay
            Of "alpha-crown": steps of Adam, its learning rate, and the factor of this at each step.
        optimize_intermediate : bool
            Of "alpha-crown": optimise slopes for intermediate intervals as well, which costs as much for each.
        memory : int, optional
            About how many bytes of coefficients to hold at once; more rows are handled one part after the other. By
            default 64 MiB on a processor, where little memory is also fast, and 1 GiB elsewhere. Where gradients are
            wanted, parts after the first are computed again in the backward pass instead of being kept.

        Returns
        -------
        Bounds

        Raises
        ------
        ValueError, TypeError
            If an argument is none of these, does not fit, is not finite, or an operator's domain is left.
        UnsupportedOperatorError
            If a perturbation reaches an operator that is not known.
        """
        _check_options(method, lower, upper, return_A, memory)
        schedule = _schedule(steps, lr, lr_decay)
        problem = self.problem(inputs, perturbation)
        target = self._output(problem, output)
        given = {}
        for name, (low, high) in (intervals or {}).items():
            node = _node(problem.graph, name)
            given[node] = Interval(low.expand(node.shape), high.expand(node.shape))
        problem.intervals.update(given)
        self._last = problem
        rows = specified_rows(problem, target, C)
        sides = tuple(side for side, wanted in ((False, lower), (True, upper)) if wanted)
        if target not in problem.perturbed:
            return constant_bounds(problem, target, rows, lower, upper)
        if method in ("ibp", "forward"):
            return pushed_bounds(problem, target, rows, sides, method, return_A)
        if method == "forward+crown":
            push_affine(problem, [target])
        elif method == "crown-ibp":
            push(problem, target, skip_last=True)
        else:
            push(problem, target, Sharpener(memory), skip_last=True)
        last = schedule if method == "alpha-crown" else None
        bounds = pulled_bounds(problem, target, rows, sides, return_A, memory, last)
        if last is None or not optimize_intermediate:
            return bounds
        sharper = problem.again(given)
        push(sharper, target, Sharpener(memory, schedule), skip_last=True)
        self._last = sharper
        return best_bounds(bounds, pulled_bounds(sharper, target, rows, sides, return_A, memory, last))

    def interval(self, node: str) -> Interval:
        """Return the interval of a node, by its name in the graph, that the last call of `compute_bounds` found.

        Raises
        ------
        ValueError
            If there was no call yet, or the interval was not needed in it.
        """
        if self._last is None:
            raise ValueError("node: no bounds were computed yet; call compute_bounds first")
        found = self._last.intervals.get(_node(self._last.graph, node))
        if found is None:
            raise ValueError(f"node: the interval of {node!r} was not needed in the last call")
        return found

    def _output(self, problem: Problem, output: Key) -> Node:
        if isinstance(output, str):
            return _node(problem.graph, output)
        if not 0 <= output < len(problem.graph.outputs):
            raise ValueError(f"output: the model has {len(problem.graph.outputs)}, got {output}")
        return problem.graph.outputs[output]


def bound(
    model: nn.Module,
    x: Tensor | Sequence[Tensor],
    perturbation: Perturbations,
    method: Method | str = "crown",
    C: Shaped[Tensor, "..."] | None = None,
    lower: bool = True,
    upper: bool = True,
    return_A: bool = False,
    **options: Any,
) -> Bounds:
    """Bound the outputs of a network around an input, once.

    For more than one call with the same network make a `BoundedModule`, which captures it once.

    Parameters
    ----------
    model : torch.nn.Module
    x : Tensor of shape (samples, ...), or sequence of them
        Float32 or float64.
    perturbation : Perturbation, or mapping of int or str to Perturbation
        Of the first input, or of several inputs, parameters or embeddings by position, name or path.
    method : {"ibp", "forward", "forward+crown", "crown-ibp", "crown", "alpha-crown"}
        How, from cheap and loose to dear and tight; see `BoundedModule.compute_bounds`.
    C : Tensor, optional
        Rows of coefficients of the output, of shape (samples, rows, outputs) or (rows, outputs); see `margin_spec`.
    lower, upper : bool
        Which bounds to find.
    return_A : bool
        Whether to return the linear functions behind the bounds; not for "ibp".
    **options
        ``output``, ``intervals``, ``steps``, ``lr``, ``lr_decay``, ``optimize_intermediate`` and ``memory`` of
        `BoundedModule.compute_bounds`.

    Returns
    -------
    Bounds

    Raises
    ------
    ValueError, TypeError
        If an argument is none of these, does not fit, is not finite, the model cannot be captured, or an operator's
        domain is left.
    UnsupportedOperatorError
        If the perturbation reaches an operator that is not known.

    Notes
    -----
    The model is captured in every call, which takes longer than bounding a small network. Bounds cost as much as those
    of `BoundedModule`.

    Examples
    --------
    >>> from offprint.methods.certify.lirpa.perturbations import LpBall
    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, -4.0]]))
    >>> bound(model, torch.zeros(1, 2), LpBall(2, 0.1)).upper
    tensor([[0.5000]], grad_fn=...)

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920.
    """
    inputs = _as_inputs(x, "x")
    bounded = BoundedModule(model, inputs)
    return bounded.compute_bounds(inputs, perturbation, method, C, lower, upper, return_A, **options)


def _as_inputs(inputs: Tensor | Sequence[Tensor], name: str = "inputs") -> tuple[Tensor, ...]:
    found = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if not found or not all(isinstance(one, Tensor) for one in found):
        raise TypeError(f"{name}: expected a tensor or a sequence of tensors")
    for i, one in enumerate(found):
        if one.is_floating_point():
            if one.dtype not in (torch.float32, torch.float64):
                raise TypeError(
                    f"{name}: expected float32 or float64, got {one.dtype} (input {i}); lower precision rounds more "
                    "than the bounds allow for"
                )
            if bool(torch.isnan(one).any()):
                raise ValueError(f"{name}: input {i} has NaN")
    return found


def _check_options(method: str, lower: bool, upper: bool, return_A: bool, memory: int | None) -> None:
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
    if not lower and not upper:
        raise ValueError("lower, upper: at least one of them must be wanted")
    if return_A and method == "ibp":
        raise ValueError("return_A: method 'ibp' has no linear bounds; use another method")
    if memory is not None and memory <= 0:
        raise ValueError(f"memory: expected a positive number of bytes, got {memory}")


def _schedule(steps: int, lr: float, lr_decay: float) -> Schedule:
    if steps < 0:
        raise ValueError(f"steps: expected at least 0, got {steps}")
    if not 0 <= lr < math.inf:
        raise ValueError(f"lr: expected a finite number of at least 0, got {lr}")
    if not 0 < lr_decay <= 1:
        raise ValueError(f"lr_decay: expected a number in (0, 1], got {lr_decay}")
    return Schedule(steps, lr, lr_decay)


def _check_dtypes(values: Mapping[Node, Tensor]) -> None:
    """Refuse inputs and parameters of two precisions."""
    dtypes: dict[torch.dtype, str] = {}
    for node, value in values.items():
        if node.kind in ("input", "parameter") and value.is_floating_point():
            dtypes.setdefault(value.dtype, f"{node.kind} {node.key!r}")
    if len(dtypes) > 1:
        found = " and ".join(f"{name} of {dtype}" for dtype, name in dtypes.items())
        raise ValueError(f"inputs: expected inputs and parameters of one precision, got {found}")


def _check_weights(values: Mapping[Node, Tensor]) -> None:
    """Refuse parameters that are not finite and buffers with NaN; masks for attention are buffers with infinities."""
    weights = [
        (node, value.detach())
        for node, value in values.items()
        if node.kind in ("parameter", "buffer") and value.is_floating_point()
    ]
    if not weights:
        return
    # One sum of all is several times as fast as a look at every element; it seldom overflows.
    total = weights[0][1].new_zeros(())
    for _, value in weights:
        total = total + value.sum().to(total)
    if bool(torch.isfinite(total)):
        return
    for node, value in weights:
        if node.kind == "buffer" and bool(value.isnan().any()):
            raise ValueError(f"model: buffer {node.key!r} has NaN")
        if node.kind == "parameter" and not bool(value.isfinite().all()):
            raise ValueError(f"model: parameter {node.key!r} is not finite")


def _node(graph: Graph, name: str) -> Node:
    try:
        return graph[name]
    except KeyError:
        names = [node.name for node in graph.nodes if node.target is not None]
        raise ValueError(f"node: there is no {name!r} in the graph; there are {names}") from None


def _find(graph: Graph, key: Key) -> Node:
    """Find an input by position, a parameter by name, the output of a module by path, or a node by name."""
    for node in graph.nodes:
        if node.kind is not None and node.key is not None and not isinstance(node.key, Tensor) and node.key == key:
            return node
    if isinstance(key, str):
        outputs = _outputs_of(graph, key)
        if len(outputs) > 1:
            names = [node.name for node in outputs]
            raise ValueError(
                f"perturbation: module {key!r} has several outputs or is called again; name a node of {names}"
            )
        return outputs[0] if outputs else _node(graph, key)
    raise ValueError(f"perturbation: there is no input {key} that the output depends on")


def _outputs_of(graph: Graph, path: str) -> list[Node]:
    """Return what the calls of a module return: the nodes in it that are read outside of the call."""
    calls = sorted({call for node in graph.nodes for call in node.calls if module_path((call,)) == path})
    found = []
    for call in calls:
        read = {one for node in graph.nodes if call not in node.calls for one in node.inputs} | set(graph.outputs)
        found += [node for node in graph.nodes if call in node.calls and node in read]
    return found
