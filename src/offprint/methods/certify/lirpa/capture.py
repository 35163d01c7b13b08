"""From a torch.nn.Module, as its author wrote it, to a graph of operators that bounds can be pushed through."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx.experimental.proxy_tensor import make_fx

from offprint.methods.certify.lirpa import functions, layers, recurrent  # noqa: F401  register their decompositions
from offprint.methods.certify.lirpa.decompositions import decomposition
from offprint.methods.certify.lirpa.graph import Graph, Node, call_operator, complete, module_path, to_meta
from offprint.methods.certify.lirpa.operators.base import lookup

_KINDS = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
    InputKind.USER_INPUT: "input",
}


def capture(
    module: nn.Module,
    inputs: Sequence[Tensor],
    *,
    batch_norm: Literal["forward", "ibp"] | None = None,
    dropout: Literal["identity"] | None = None,
) -> Graph:
    """Return the graph of a module for inputs of these shapes.

    The module is traced with ``torch.export``; where that fails, ``torch.fx.symbolic_trace`` is tried in front of it.
    Composite operators (layer norm, attention, recurrent layers) are lowered to simpler ones. Nothing is run on data,
    and values of parameters are not part of the graph.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode, usually; it is captured in the mode that it is in.
    inputs : sequence of Tensor
        Examples; shapes, dtypes and the device matter.
    batch_norm, dropout : str, optional
        What layers in training mode are taken for; see :class:`.BoundedModule`.

    Returns
    -------
    Graph

    Raises
    ------
    ValueError
        If the module cannot be captured, say because its control flow depends on data.

    Examples
    --------
    >>> import torch
    >>> graph = capture(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), [torch.zeros(1, 3)])
    >>> [node.name for node in graph.nodes if node.target is not None]
    ['linear', 'relu']
    """
    program = _export(module, tuple(inputs))
    graph = Graph(batch_norm=batch_norm, dropout=dropout)
    lowering = _Lowering(graph)
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    n_inputs = 0
    shared: dict[int, Node] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            spec = specs[node.name]
            kind = _KINDS.get(spec.kind)
            value = node.meta.get("val")
            if kind == "input":
                key: Any = n_inputs
                n_inputs += 1
            else:
                key = spec.target
            if not isinstance(value, Tensor):
                lowering.known[node] = value
                continue
            if kind is None:
                raise ValueError(f"module: input {node.name!r} of kind {spec.kind} is not understood")
            if kind == "constant":
                key = program.constants[spec.target]
            elif kind != "input":
                # Tied weights are one tensor under several names, and change together: one root, under the first name.
                tensor = attrgetter(key)(module)
                if id(tensor) in shared:
                    lowering.known[node] = shared[id(tensor)]
                    continue
            lowering.known[node] = graph.root(kind, key, value, node.name)  # type: ignore[arg-type]
            if kind in ("parameter", "buffer"):
                shared[id(tensor)] = lowering.known[node]
        elif node.op == "call_function":
            graph.calls = _module_calls(node)
            try:
                lowering.add(node)
            except (RuntimeError, NotImplementedError) as error:
                reason = str(error).strip().splitlines()[0]
                raise ValueError(f"module {graph.module!r}: {node.target} cannot be followed: {reason}") from error
        elif node.op == "get_attr":
            raise ValueError(
                f"module: it branches on data or calls a sub-graph ({node.target}), which cannot be bounded; "
                "write the branch with torch.where, or bound the branches one by one"
            )
    (output,) = [node for node in program.graph.nodes if node.op == "output"]
    graph.calls = ()
    graph.outputs = [lowering.known[one] for one in _flat(output.args[0]) if isinstance(lowering.get(one), Node)]
    return _pruned(graph)


def _export(module: nn.Module, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(module, inputs, strict=False)
        except Exception as first:
            try:
                return torch.export.export(torch.fx.symbolic_trace(module), inputs, strict=False)
            except Exception:
                reason = str(first).strip().splitlines()[0] if str(first).strip() else type(first).__name__
                raise ValueError(
                    "module: it cannot be captured as a graph. Control flow that depends on values (an if on a tensor, "
                    f".item(), a loop of unknown length) is the usual reason. torch.export says: {reason}"
                ) from first


def _module_calls(node: torch.fx.Node) -> tuple[str, ...]:
    """Return the calls of modules around a node, as `Node` has them: keys of the stack are numbered in the same way."""
    stack = node.meta.get("nn_module_stack") or {}
    return tuple(
        f"{path}{''.join(key.rpartition('@')[1:])}" if "@" in key else path for key, (path, _) in stack.items()
    )


def _module(node: torch.fx.Node) -> str:
    return module_path(_module_calls(node))


def _flat(arg: Any) -> list[Any]:
    if isinstance(arg, dict):
        arg = list(arg.values())
    if isinstance(arg, (list, tuple)):
        return [one for part in arg for one in _flat(part)]
    return [arg]


class _Lowering:
    """Adds nodes of an fx graph to ours, composite ones in pieces, in-place ones as what they return."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[torch.fx.Node, Any] = {}

    def get(self, arg: Any) -> Any:
        if isinstance(arg, torch.fx.Node):
            return self.known[arg]
        if isinstance(arg, (list, tuple)):
            return type(arg)(self.get(a) for a in arg) if not isinstance(arg, torch.Size) else list(arg)
        if isinstance(arg, slice):
            return slice(self.get(arg.start), self.get(arg.stop), self.get(arg.step))
        return arg

    def add(self, node: torch.fx.Node) -> None:
        target = node.target
        assert callable(target)
        args = complete(target, tuple(self.get(a) for a in node.args), {k: self.get(v) for k, v in node.kwargs.items()})
        if target is operator.getitem:
            self.known[node] = args[0][args[1]]
            return
        mutates = _mutated(target)
        if mutates:
            target = _functional(target, node)
            self._refuse_views(node)
            args = complete(target, args[: len(target._schema.arguments)], {})
        result = lower(self.graph, target, args)
        self.known[node] = result
        if mutates and isinstance(node.args[0], torch.fx.Node):
            self._rebind(node.args[0], result)

    def _rebind(self, changed: torch.fx.Node, result: Any) -> None:
        """Let later readers of a tensor that was changed in place, under any of its names, read the new value."""
        old, tensor = self.known[changed], _tensor_behind(changed)
        for name, value in self.known.items():
            # A clone has the same value up to here, and keeps it.
            if value is old and _tensor_behind(name) is tensor:
                self.known[name] = result

    def _refuse_views(self, node: torch.fx.Node) -> None:
        base = node.args[0]
        while isinstance(base, torch.fx.Node) and _is_view(base.target):
            base = base.args[0]
            if isinstance(base, torch.fx.Node) and any(_after(user, node) for user in base.users):
                raise ValueError(
                    f"module: {node.target} changes a part of a tensor in place (node {node.name!r}, module "
                    f"{_module(node)!r}) that is read again later; write it without the in-place change"
                )


def _after(user: torch.fx.Node, node: torch.fx.Node) -> bool:
    return user is not node and node < user


def _mutated(target: Any) -> bool:
    schema = getattr(target, "_schema", None)
    return schema is not None and bool(schema.arguments) and schema.is_mutable


def _is_view(target: Any) -> bool:
    schema = getattr(target, "_schema", None)
    if schema is None or schema.is_mutable or not schema.arguments:
        return False
    alias = schema.arguments[0].alias_info
    return alias is not None


def _tensor_behind(node: torch.fx.Node) -> torch.fx.Node:
    """Return the node whose memory a node's value is in."""
    while isinstance(node.target, torch._ops.OpOverload) and node.args and isinstance(node.args[0], torch.fx.Node):
        shares = node.target._schema.arguments[0].alias_info is not None
        if not shares and "dropout" not in node.target._schema.name:
            break
        node = node.args[0]
    return node


def _functional(target: Any, node: torch.fx.Node) -> Any:
    name = target._schema.name.split("::")[1]
    packet = getattr(torch.ops.aten, name.rstrip("_"), None)
    if packet is not None and name.endswith("_") and target._overloadname in packet.overloads():
        return getattr(packet, target._overloadname)
    raise ValueError(
        f"module: {target} changes a tensor in place (node {node.name!r}, module {_module(node)!r}); "
        "write it without the in-place change"
    )


def lower(graph: Graph, target: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Add a call to the graph, in simpler pieces where there are any; returns a node, or a tuple of them."""
    pieces = decomposition(target)
    if pieces is not None:
        return pieces(graph, *args)
    if lookup(target) is None and _is_composite(target) and any(isinstance(one, Node) for one in _flat(list(args))):
        result = _opened(graph, target, args)
        if result is not None:
            return result
    if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()) and lookup(target) is None:
        raise ValueError(
            f"module {graph.module!r}: {target} draws random numbers, and bounds would hold for one draw only; "
            "pass them as an input"
        )
    meta = call_operator(target, tuple(to_meta(a) for a in args))
    if isinstance(meta, Tensor):
        return graph.call(target, *args, meta=meta)
    if not isinstance(meta, (list, tuple)):
        return meta
    whole = graph.call(target, *args, meta=torch.empty(0, device="meta"))
    return tuple(
        graph.call(operator.getitem, whole, i, meta=one) if isinstance(one, Tensor) else one
        for i, one in enumerate(meta)
    )


def _is_composite(target: Any) -> bool:
    has = getattr(target, "has_kernel_for_dispatch_key", None)
    return has is not None and bool(has(torch._C.DispatchKey.CompositeImplicitAutograd))


def _opened(graph: Graph, target: Any, args: tuple[Any, ...]) -> Any:
    """Trace an operator that torch itself makes of others, say ``einsum``; ``None`` where that does not work."""
    nodes = [one for one in _flat(list(args)) if isinstance(one, Node)]

    def run(*tensors: Tensor) -> Any:
        given = iter(tensors)

        def filled(arg: Any) -> Any:
            if isinstance(arg, (list, tuple)):
                return type(arg)(filled(a) for a in arg)
            return next(given) if isinstance(arg, Node) else arg

        return call_operator(target, tuple(filled(a) for a in args))

    try:
        traced = make_fx(run)(*(node.meta for node in nodes)).graph
    except Exception:
        return None
    calls = [one for one in traced.nodes if one.op == "call_function"]
    if any(one.op == "get_attr" for one in traced.nodes) or [one.target for one in calls] == [target]:
        return None
    lowering = _Lowering(graph)
    lowering.known.update(zip([one for one in traced.nodes if one.op == "placeholder"], nodes, strict=True))
    for one in calls:
        lowering.add(one)
    (output,) = [one for one in traced.nodes if one.op == "output"]
    return lowering.get(output.args[0])


def _pruned(graph: Graph) -> Graph:
    """Drop the nodes that no output depends on; roots stay."""
    needed: set[Node] = set()
    stack = list(graph.outputs)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.inputs)
    graph.nodes = [node for node in graph.nodes if node.target is None or node in needed]
    return graph
