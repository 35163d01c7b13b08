"""Certified bounds of a network's outputs under perturbations of its inputs or parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

import offprint.methods.certify.lirpa.operators.table  # noqa: F401  registers the operators
from offprint.methods.certify.lirpa.backward import Pulled, concretize, pull, unit_rows
from offprint.methods.certify.lirpa.capture import capture
from offprint.methods.certify.lirpa.forward import Affine, concretize_affine, push_affine, roots_of
from offprint.methods.certify.lirpa.graph import Graph, Node
from offprint.methods.certify.lirpa.intervals import Sharpener, push, rows_at_once
from offprint.methods.certify.lirpa.operators.base import Interval
from offprint.methods.certify.lirpa.optimise import Schedule, optimise
from offprint.methods.certify.lirpa.perturbations import Perturbation
from offprint.methods.certify.lirpa.problem import Problem, join_elements, split_elements

Method = Literal["ibp", "forward", "forward+crown", "crown-ibp", "crown", "alpha-crown"]
METHODS = ("ibp", "forward", "forward+crown", "crown-ibp", "crown", "alpha-crown")
Key = int | str
Perturbations = Perturbation | Mapping[Key, Perturbation]
Coefficients = Tensor | dict[Key, Tensor]


@dataclass(frozen=True)
class Bounds:
    """Bounds of the rows of an output, and where they were asked for the linear functions behind them.

    Parameters
    ----------
    lower, upper : Tensor or None
        Of the output's shape, or (samples, rows) with a specification ``C``.
    lA, uA : Tensor, dict of Tensor, or None
        Coefficients of the perturbed input, of shape (samples, *rows, *shape of one sample of it): the output is at
        least ``lA . x + lb`` and at most ``uA . x + ub`` in the whole region. A dict of them, with the keys of the
        perturbations, where several were given.
    lb, ub : Tensor or None
        The constants, of the shape of ``lower``.
    """

    lower: Tensor | None
    upper: Tensor | None
    lA: Coefficients | None = None
    uA: Coefficients | None = None
    lb: Tensor | None = None
    ub: Tensor | None = None


class BoundedModule:
    r"""A network whose outputs are bounded over sets of inputs or parameters.

    The module is captured for each shape of its inputs once, and its parameters are read anew at every call, so it may
    be trained meanwhile. Bounds are tensors with gradients.

    Parameters
    ----------
    model : torch.nn.Module
        Any module that ``torch.export`` can trace; control flow may not depend on values. It is captured in the mode
        (training or evaluation) that it is in at the first call with a shape.
    example_inputs : Tensor or sequence of Tensor
        Inputs as the model takes them, samples on the first axis.
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
        self.graph(example_inputs)

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
                values[node] = _attribute(self.model, node.key)
                if values[node].is_floating_point() and not bool(torch.isfinite(values[node]).all()):
                    raise ValueError(f"model: {node.kind} {node.key!r} is not finite")
        problem = Problem(graph, values, perturbations, inputs[0].shape[0] if self.batched else None)
        for node, region in perturbations.items():
            name = f"input {node.key}" if node.kind == "input" else f"{node.kind or 'node'} {node.key or node.name!r}"
            value = problem.value(node)
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
            node = _find(graph, key)
            if not node.meta.is_floating_point():
                raise TypeError(
                    f"perturbation of {key!r}: only floating point tensors can be perturbed, got {node.meta.dtype}; "
                    "of indices, perturb the output of the embedding (the key is the path of its module)"
                )
            found[node] = region
        return found

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
        memory: int = 2**30,
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
        memory : int
            About how many bytes of coefficients to hold at once; more rows are handled one part after the other.

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
        _check_options(method, lower, upper, return_A, steps, memory)
        problem = self.problem(inputs, perturbation)
        target = self._output(problem, output)
        for name, (low, high) in (intervals or {}).items():
            node = _node(problem.graph, name)
            problem.intervals[node] = Interval(low.expand(node.shape), high.expand(node.shape))
        self._last = problem
        rows = _rows(problem, target, C)
        sides = tuple(side for side, wanted in ((False, lower), (True, upper)) if wanted)
        if target not in problem.perturbed:
            return _constant(problem, target, rows, lower, upper)
        if method in ("ibp", "forward"):
            return _pushed(problem, target, rows, sides, method, return_A)
        schedule = Schedule(steps, lr, lr_decay)
        if method == "forward+crown":
            push_affine(problem, [target])
        elif method == "crown-ibp":
            push(problem, target, skip_last=True)
        else:
            inner = schedule if method == "alpha-crown" and optimize_intermediate else None
            push(problem, target, Sharpener(memory, inner), skip_last=True)
        return _pulled(problem, target, rows, sides, return_A, memory, schedule if method == "alpha-crown" else None)

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
    perturbation, method, C, lower, upper, return_A, **options
        See `BoundedModule.compute_bounds`.

    Returns
    -------
    Bounds

    Raises
    ------
    ValueError, TypeError
        See `BoundedModule.compute_bounds`.

    Notes
    -----
    See `BoundedModule`.

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
    return BoundedModule(model, x).compute_bounds(x, perturbation, method, C, lower, upper, return_A, **options)


def margin_spec(y: Int[Tensor, " samples"], n_classes: int) -> Float[Tensor, "samples margins n_classes"]:
    """Return the rows ``e_y - e_k`` for all classes k other than y: margins of the right class over each other one.

    Parameters
    ----------
    y : Tensor of int, shape (samples,)
        Labels in [0, n_classes).
    n_classes : int
        At least 2.

    Returns
    -------
    Tensor, shape (samples, n_classes - 1, n_classes)
        For ``C`` of `BoundedModule.compute_bounds`; float32.

    Raises
    ------
    ValueError
        If a label is out of range.

    Notes
    -----
    O(samples * n_classes ** 2) numbers.

    Examples
    --------
    >>> import torch
    >>> margin_spec(torch.tensor([1]), 3)
    tensor([[[-1.,  1.,  0.],
             [ 0.,  1., -1.]]])

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920,
    section 3.4.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes: expected at least 2, got {n_classes}")
    if y.ndim != 1 or y.is_floating_point() or bool((y < 0).any()) or bool((y >= n_classes).any()):
        raise ValueError(f"y: expected whole numbers in [0, {n_classes}) of shape (samples,)")
    eye = torch.eye(n_classes, device=y.device)
    margins = eye[y].unsqueeze(1) - eye
    others = torch.arange(n_classes, device=y.device) != y.unsqueeze(1)
    return margins[others].reshape(len(y), n_classes - 1, n_classes)


def perturb_parameters(
    module: nn.Module, names: Sequence[str] | None, perturbation: Perturbation
) -> dict[Key, Perturbation]:
    """Return perturbations of parameters by name, for `BoundedModule.compute_bounds`.

    Parameters
    ----------
    module : torch.nn.Module
    names : sequence of str, optional
        As in ``module.named_parameters()``; by default all of them.
    perturbation : Perturbation
        Of each parameter by itself: each has a ball of its own, all its elements together.

    Returns
    -------
    dict of str to Perturbation
        To be joined with those of inputs: ``{0: ball, **perturb_parameters(...)}``.

    Raises
    ------
    ValueError
        If a name is none of the module's.

    Notes
    -----
    A linear layer of a fixed input with its weight in an l2 ball has exact intervals.

    Examples
    --------
    >>> from offprint.methods.certify.lirpa.perturbations import LpBall
    >>> import torch
    >>> sorted(perturb_parameters(torch.nn.Linear(2, 1), None, LpBall(2, 0.1)))
    ['bias', 'weight']

    References
    ----------
    Kaidi Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, arXiv:2002.12920,
    section 4.3.
    """
    known = dict(module.named_parameters())
    names = list(known) if names is None else names
    for name in names:
        if name not in known:
            raise ValueError(f"names: expected parameters of the module, got {name!r}; it has {sorted(known)}")
    return dict.fromkeys(names, perturbation)


def _as_inputs(inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    found = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if not found or not all(isinstance(one, Tensor) for one in found):
        raise TypeError("inputs: expected a tensor or a sequence of tensors")
    for i, one in enumerate(found):
        if one.is_floating_point():
            if one.dtype not in (torch.float32, torch.float64):
                raise TypeError(
                    f"inputs: expected float32 or float64, got {one.dtype} (input {i}); lower precision rounds more "
                    "than the bounds allow for"
                )
            if not bool(torch.isfinite(one).all()):
                raise ValueError(f"inputs: input {i} is not finite")
    return found


def _check_options(method: str, lower: bool, upper: bool, return_A: bool, steps: int, memory: int) -> None:
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
    if not lower and not upper:
        raise ValueError("lower, upper: at least one of them must be wanted")
    if return_A and method == "ibp":
        raise ValueError("return_A: method 'ibp' has no linear bounds; use another method")
    if steps < 0:
        raise ValueError(f"steps: expected at least 0, got {steps}")
    if memory <= 0:
        raise ValueError(f"memory: expected a positive number of bytes, got {memory}")


def _attribute(model: nn.Module, path: str) -> Tensor:
    owner, _, name = path.rpartition(".")
    return cast(Tensor, getattr(model.get_submodule(owner), name))


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
        inside = [node for node in graph.nodes if node.target is not None and node.module == key]
        if inside:
            return inside[-1]
        return _node(graph, key)
    raise ValueError(f"perturbation: there is no input {key} that the output depends on")


def _rows(problem: Problem, target: Node, C: Tensor | None) -> Tensor | None:
    """Return the specification as rows of coefficients of the target, (rows, *shape)."""
    if C is None:
        return None
    n_outputs = target.shape.numel() // (problem.n_samples if problem.batched else 1)
    if C.ndim not in (2, 3) or C.shape[-1] != n_outputs or (C.ndim == 3 and C.shape[0] != problem.n_samples):
        raise ValueError(
            f"C: expected shape ({problem.n_samples}, rows, {n_outputs}) or (rows, {n_outputs}), got {tuple(C.shape)}"
        )
    if not bool(torch.isfinite(C).all()):
        raise ValueError("C: expected finite numbers, got nan or inf")
    C = C.to(dtype=target.meta.dtype).expand(problem.n_samples, *C.shape[-2:])
    layout = problem.layouts[target]
    if layout is None and problem.tracked:
        if target.shape[:1] != (problem.n_samples,):
            raise ValueError("C: the output has no samples on its first axis")
        per_sample = C.new_zeros(C.shape[1], problem.n_samples, *C.shape[:1], C.shape[2])
        index = torch.arange(problem.n_samples, device=C.device)
        per_sample[:, index, index] = C.movedim(1, 0)
        return per_sample.reshape(-1, *target.shape)
    return join_elements(C.movedim(1, 0), target.shape, layout)


def _pulled(
    problem: Problem,
    target: Node,
    rows: Tensor | None,
    sides: tuple[bool, ...],
    return_A: bool,
    memory: int,
    schedule: Schedule | None,
) -> Bounds:
    """Pull the rows of the target back, some at once."""
    spread = problem.n_samples if problem.layouts[target] is None else 1
    n_elements = target.shape.numel() // (problem.n_samples if problem.layouts[target] is not None else 1)
    count = n_elements if rows is None else rows.shape[0] // spread
    step = rows_at_once(problem, target, memory if schedule is None else memory // 8)
    like = next(iter(problem.intervals.values())).lower
    found: list[list[Tensor]] = []
    linear: list[Pulled] = []
    for start in range(0, count, step):
        stop = min(count, start + step)
        part = unit_rows(problem, target, like, start, stop) if rows is None else rows[start * spread : stop * spread]
        if schedule is None:
            pulled = pull(problem, target, part, sides)
            ends = concretize(problem, pulled, sides)
        else:
            result = optimise(problem, target, part, sides, schedule)
            pulled, ends = result.pulled, result.bounds
        found.append(ends)
        if return_A:
            linear.append(pulled)
    ends = [torch.cat([part[k] for part in found]) for k in range(len(sides))]
    shaped = {upper: _shaped(problem, target, end, rows is not None) for upper, end in zip(sides, ends, strict=True)}
    bounds = Bounds(shaped.get(False), shaped.get(True))
    return _with_linear(problem, target, bounds, linear, sides, rows is not None) if return_A else bounds


def _shaped(problem: Problem, target: Node, bounds: Tensor, specified: bool) -> Tensor:
    """Bring (rows, samples) to (samples, rows), or to the target's shape."""
    if specified:
        return bounds.T
    layout = problem.layouts[target]
    if layout is None:
        return bounds[:, 0].reshape(target.shape)
    return join_elements(bounds.T.unsqueeze(0), target.shape, layout)[0]


def _with_linear(
    problem: Problem,
    target: Node,
    bounds: Bounds,
    linear: list[Pulled],
    sides: tuple[bool, ...],
    specified: bool,
) -> Bounds:
    rows = () if specified or not problem.batched else target.shape[1:]
    for k, upper in enumerate(sides):
        constant = _shaped(problem, target, torch.cat([one.constant[k] for one in linear]), specified)
        coefficients: dict[Key, Tensor] = {}
        for root in linear[0].coefficients:
            matrix = torch.cat([one.coefficients[root][k] for one in linear]).movedim(1, 0)
            if rows:
                matrix = torch.unflatten(matrix, 1, rows)
            coefficients[_key(root)] = matrix
        single = next(iter(coefficients.values())) if len(problem.perturbations) == 1 else coefficients
        bounds = replace(bounds, uA=single, ub=constant) if upper else replace(bounds, lA=single, lb=constant)
    return bounds


def _key(root: Node) -> Key:
    return cast(Key, root.key) if root.kind in ("input", "parameter", "buffer") else root.name


def _pushed(
    problem: Problem, target: Node, rows: Tensor | None, sides: tuple[bool, ...], method: str, return_A: bool
) -> Bounds:
    """Bounds of what was pushed through; a specification is first pulled back through the last affine operators."""
    functions: Affine | None = None
    if rows is None and method == "ibp":
        push(problem, target)
        ends = list(problem.intervals[target])
    elif rows is None:
        functions = push_affine(problem, [target])[target]
        ends = list(problem.intervals[target])
    else:
        pulled = pull(problem, target, rows, (False,), until_nonlinear=True)
        if method == "ibp":
            ends = _concretized_rows(problem, target, pulled)
        else:
            pushed = push_affine(problem, list(pulled.coefficients))
            functions = _mixed(problem, target, pulled, pushed)
            ends = list(concretize_affine(problem, functions, *roots_of(problem, target), None))
    bounds = Bounds(*(end if side in sides else None for side, end in enumerate(ends)))
    if return_A:
        assert functions is not None
        bounds = _linear_of(problem, target, functions, bounds, sides, rows is not None)
    return bounds


def _concretized_rows(problem: Problem, target: Node, pulled: Pulled) -> list[Tensor]:
    """Return the extremes of linear functions of nodes over their intervals, of shape (samples, rows)."""
    low = high = pulled.constant[0].T
    for node, (matrix,) in pulled.coefficients.items():
        push(problem, node)
        interval = problem.intervals[node]
        rows = _per_sample(problem, target, node, matrix)
        ends = [split_elements(end.unsqueeze(0), problem.layouts[node]) for end in interval]
        middle, radius = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
        value, reach = (
            torch.einsum("rbn,bn->br", a, b[0].expand(a.shape[1], -1))
            for a, b in ((rows, middle), (rows.abs(), radius))
        )
        low, high = low + value - reach, high + value + reach
    return [low, high]


def _per_sample(problem: Problem, target: Node, node: Node, matrix: Tensor) -> Tensor:
    """Return coefficients of a node as (rows, samples, elements of a sample)."""
    if problem.layouts[node] is None and problem.tracked:
        return torch.unflatten(matrix, 0, (-1, problem.n_samples)).flatten(2)
    return split_elements(matrix, problem.layouts[node])


def _mixed(problem: Problem, target: Node, pulled: Pulled, pushed: dict[Node, Affine]) -> Affine:
    """Return functions of the roots for rows of nodes, of shape (coordinates + 1, samples, rows)."""
    total_low: Tensor | None = None
    total_high: Tensor | None = None
    for node, (matrix,) in pulled.coefficients.items():
        rows = _per_sample(problem, target, node, matrix)
        lower, upper = (split_elements(one, problem.layouts[node]) for one in (pushed[node].lower, pushed[node].upper))
        up, down = rows.clamp(min=0), rows.clamp(max=0)
        lower, upper = (one.expand(-1, rows.shape[1], -1) for one in (lower, upper))
        low = torch.einsum("rbe,nbe->nbr", up, lower) + torch.einsum("rbe,nbe->nbr", down, upper)
        high = torch.einsum("rbe,nbe->nbr", up, upper) + torch.einsum("rbe,nbe->nbr", down, lower)
        total_low = low if total_low is None else total_low + low
        total_high = high if total_high is None else total_high + high
    assert total_low is not None
    assert total_high is not None
    constant = pulled.constant[0].T
    return Affine(*(torch.cat([one[:-1], one[-1:] + constant]) for one in (total_low, total_high)))


def _linear_of(
    problem: Problem, target: Node, functions: Affine, bounds: Bounds, sides: tuple[bool, ...], specified: bool
) -> Bounds:
    """Add the functions of forward mode to bounds, arranged as backward mode does."""
    roots, starts = roots_of(problem, target)
    layout = problem.layouts[target]
    for upper in sides:
        rows = functions.upper if upper else functions.lower
        parts = rows if specified else split_elements(rows, layout)  # (coordinates + 1, samples, rows)
        coefficients: dict[Key, Tensor] = {}
        for root in roots:
            shape = problem.value(root).shape[1:] if problem.sampled(root) else root.shape
            matrix = parts[starts[root] : starts[root] + shape.numel()].movedim(0, 2)
            if not specified and problem.batched:
                matrix = (
                    torch.unflatten(matrix, 1, target.shape[1:])
                    if layout is not None or not problem.tracked
                    else matrix
                )
            coefficients[_key(root)] = torch.unflatten(matrix, -1, shape) if len(shape) else matrix.squeeze(-1)
        constant = parts[-1] if specified else rows[-1]
        single = next(iter(coefficients.values())) if len(problem.perturbations) == 1 else coefficients
        bounds = replace(bounds, uA=single, ub=constant) if upper else replace(bounds, lA=single, lb=constant)
    return bounds


def _constant(problem: Problem, target: Node, rows: Tensor | None, lower: bool, upper: bool) -> Bounds:
    """Bounds of an output that no perturbation reaches: its value."""
    value = problem.value(target)
    if rows is not None:
        value = split_elements(rows * value, problem.layouts[target]).sum(-1).T
    return Bounds(value if lower else None, value if upper else None)
