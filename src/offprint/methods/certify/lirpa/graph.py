"""The graph of a network: roots (inputs, parameters, constants) and calls of ATen operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

RootKind = Literal["input", "parameter", "buffer", "constant"]


@dataclass(eq=False)
class Node:
    """A tensor in the computation.

    Parameters
    ----------
    name : str
        Unique in the graph.
    target : callable or None
        The operator whose output this is; ``None`` for a root.
    args : tuple
        Arguments of the operator in the order of its schema: numbers, lists, and other nodes.
    meta : Tensor
        On the ``meta`` device: shape and dtype of the value.
    kind, key : str
        Of a root: what it is, and the position of the input, the name of the parameter or buffer, or the tensor itself.
    calls : tuple of str
        The calls of modules, outermost first, in which the operator was called: their paths as in ``named_modules``,
        from the second call of a module on with ``@1`` and so on behind.
    """

    name: str
    target: Callable[..., Any] | None
    args: tuple[Any, ...]
    meta: Tensor
    kind: RootKind | None = None
    key: Any = None
    calls: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Path of the module that called the operator; empty where unknown."""
        return module_path(self.calls)

    @property
    def shape(self) -> torch.Size:
        return self.meta.shape

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes among the arguments, in order, with repetitions."""
        return tuple(node for _, _, node in self.places())

    def places(self) -> Iterator[tuple[int, int, Node]]:
        """Yield (position of the argument, place in it where it is a list, node)."""
        for position, arg in enumerate(self.args):
            if isinstance(arg, Node):
                yield position, 0, arg
            elif isinstance(arg, (list, tuple)):
                for place, one in enumerate(arg):
                    if isinstance(one, Node):
                        yield position, place, one

    def __repr__(self) -> str:
        return f"'{self.name}'" + (f" (module '{self.module}')" if self.module else "")


@dataclass
class Graph:
    """Nodes in an order in which they can be computed. More may be added at the end with `call` and `root`.

    Parameters
    ----------
    nodes, outputs : list of Node
    batch_norm, dropout : str, optional
        What layers in training mode are taken for; see :class:`.BoundedModule`.
    calls : tuple of str
        The calls of modules whose operators are being added; see `Node`.
    plans : dict
        What problems on this graph found out that does not depend on values; see ``problem.py``.
    """

    nodes: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    batch_norm: Literal["forward", "ibp"] | None = None
    dropout: Literal["identity"] | None = None
    calls: tuple[str, ...] = ()
    plans: dict[Any, Any] = field(default_factory=dict, repr=False)
    _names: dict[str, int] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """Path of the module whose operators are being added."""
        return module_path(self.calls)

    def _name(self, stem: str) -> str:
        count = self._names.get(stem, 0)
        self._names[stem] = count + 1
        return stem if count == 0 else self._name(f"{stem}_{count}")

    def root(self, kind: RootKind, key: Any, like: Tensor, name: str) -> Node:
        """Add an independent node."""
        meta = torch.empty(like.shape, dtype=like.dtype, device="meta")
        node = Node(self._name(name), None, (), meta, kind=kind, key=key)
        self.nodes.append(node)
        return node

    def constant(self, value: Tensor, name: str = "constant") -> Node:
        """Add a tensor as it is."""
        return self.root("constant", value, value, name)

    def call(self, target: Callable[..., Any], *args: Any, name: str | None = None, meta: Tensor | None = None) -> Node:
        """Add the output of an operator, its arguments given in the order of its schema (defaults may be left out)."""
        args = complete(target, args, {})
        if meta is None:
            meta = call_operator(target, tuple(to_meta(a) for a in args))
        stem = name or getattr(target, "__name__", str(target)).split(".")[0]
        like = torch.empty(meta.shape, dtype=meta.dtype, device="meta")
        node = Node(self._name(stem), target, args, like, calls=self.calls)
        self.nodes.append(node)
        return node

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)


def module_path(calls: tuple[str, ...]) -> str:
    """Return the path of the innermost module, as in ``named_modules``; empty where there is none."""
    return calls[-1].partition("@")[0] if calls else ""


def to_meta(arg: Any) -> Any:
    """Replace nodes in an argument by their meta tensors."""
    if isinstance(arg, Node):
        return arg.meta
    if isinstance(arg, (list, tuple)):
        return type(arg)(to_meta(a) for a in arg)
    return torch.device("meta") if isinstance(arg, torch.device) else arg


def complete(target: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
    """Return all arguments of an operator in the order of its schema, defaults filled in."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return args
    full = list(args)
    full += [keywords.get(one.name, one.default_value) for one in schema.arguments[len(args) :]]
    return tuple(full)


def call_operator(target: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call an operator with arguments as `complete` orders them; the keyword-only ones are given by name."""
    n_positional, names = _signature(target)
    return target(*args[:n_positional], **dict(zip(names, args[n_positional:], strict=False)))


@lru_cache(maxsize=4096)
def _signature(target: Callable[..., Any]) -> tuple[int | None, tuple[str, ...]]:
    """Return how many arguments of an operator are positional (``None``: all), and the names of the others."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return None, ()
    names = tuple(one.name for one in schema.arguments if one.kwarg_only)
    return len(schema.arguments) - len(names), names
