"""Is a method documented: NumPy sections, every parameter, shapes of arrays, an example and a reference."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from numpydoc.docscrape import NumpyDocString

SECTIONS = ("Raises", "Notes", "Examples", "References")
ARRAYS = ("Tensor", "ndarray", "NDArray")
JAXTYPED = re.compile(r"""\b(\w+)\[\s*([\w.]+)\s*,\s*["']([^"']*)["']\s*\]""")
DOCUMENTED_SHAPE = re.compile(r"\bshape \(([^)]*)\)")


@dataclass(frozen=True)
class Argument:
    """One argument of a callable: what its signature and its docstring say about it."""

    name: str
    annotation: str
    text: str

    @property
    def dimensions(self) -> tuple[str, ...] | None:
        """Its dimensions by name, or ``None`` where neither the annotation nor the docstring fixes their number."""
        shapes = {shape for _, _, shape in JAXTYPED.findall(self.annotation)}
        if not shapes:
            shapes = {shape.replace(",", " ") for shape in DOCUMENTED_SHAPE.findall(self.text)}
        if len(shapes) != 1:
            return None
        names = tuple(shapes.pop().split())
        return None if any(name.startswith(("*", "...")) for name in names) else names

    @property
    def is_bare_array(self) -> bool:
        """Whether it is annotated as an array without a shape, and as nothing else beside ``None``."""
        heads = self._heads - {"None"}
        return bool(heads) and heads <= set(ARRAYS)

    @property
    def is_array(self) -> bool:
        """Whether it is an array that has a shape to state: not one that may as well be a single number."""
        parts = _alternatives(self.annotation)
        arrays = self._heads & {*ARRAYS, "ArrayLike"} or any(JAXTYPED.match(part) for part in parts)
        return bool(arrays) and not self._heads & {"int", "float"}

    @property
    def _heads(self) -> set[str]:
        """The types it may have, without module and parameters."""
        return {part.split("[")[0].split(".")[-1] for part in _alternatives(self.annotation)}


def findings(method: Callable[..., Any]) -> list[str]:
    """Return what the documentation of a method lacks."""
    docstring = inspect.getdoc(method)
    if not docstring or (inspect.isclass(method) and "__doc__" not in vars(method)):
        return ["has no docstring"]
    try:
        document = parse(docstring)
    except ValueError as error:
        return [f"docstring cannot be read: {error}"]
    return [*_section_findings(method, document), *_argument_findings(method), *_member_findings(method)]


def brief_findings(public: Any) -> list[str]:
    """Return what the documentation of a smaller public part lacks, which no record lists: a part, not a method."""
    docstring = inspect.getdoc(public)
    if not docstring or (inspect.isclass(public) and "__doc__" not in vars(public)):
        return ["has no docstring"]
    if inspect.isclass(public):
        return list(_member_findings(public))
    document = parse(docstring)
    found = [f"docstring has no section {section}" for section in ("Returns", "Examples") if not document[section]]
    return [*found, *_argument_findings(public)]


def parse(docstring: str) -> NumpyDocString:
    """Parse a NumPy docstring; a section that numpydoc does not know is a ``ValueError``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        document = NumpyDocString(docstring)
    unknown = [str(warning.message).splitlines()[0] for warning in caught if "section" in str(warning.message)]
    if unknown:
        raise ValueError("; ".join(unknown))
    return document


def arguments(function: Callable[..., Any]) -> dict[str, Argument]:
    """Return the arguments of a function, or of a class's constructor, without ``self``."""
    documented = dict(_documented(function))
    taken: dict[str, Argument] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in ("self", "cls") or name.startswith("_"):
            continue
        taken[name] = Argument(name, _annotation(parameter.annotation), documented.get(name, ""))
    return taken


def _documented(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Yield each documented parameter with its type and description."""
    docstring = inspect.getdoc(function)
    if not docstring:
        return
    document = NumpyDocString(docstring)
    for parameter in (*document["Parameters"], *document["Other Parameters"]):
        for name in parameter.name.split(","):
            yield name.strip().lstrip("*"), f"{parameter.type} {' '.join(parameter.desc)}"


def _section_findings(method: Callable[..., Any], document: NumpyDocString) -> Iterator[str]:
    summary = " ".join(document["Summary"])
    if not summary.endswith("."):
        yield f"summary is not a sentence: {summary!r}"
    needed = SECTIONS if inspect.isclass(method) else ("Returns", *SECTIONS)
    for section in needed:
        if not document[section] and not (section == "Returns" and document["Yields"]):
            yield f"docstring has no section {section}"
    if ">>>" not in "\n".join(document["Examples"]):
        yield "Examples hold no doctest"


def _argument_findings(method: Callable[..., Any]) -> Iterator[str]:
    documented = dict(_documented(method))
    taken = arguments(method)
    for argument in taken.values():
        if argument.name not in documented:
            yield f"parameter {argument.name} is not documented"
        if not argument.annotation:
            yield f"parameter {argument.name} is not annotated"
        if argument.is_bare_array:
            yield f"parameter {argument.name} is an array without a shape: {argument.annotation}"
        if argument.is_array and "shape" not in argument.text and argument.name in documented:
            yield f"parameter {argument.name} is an array whose shape the docstring does not state"
    for name in documented.keys() - taken.keys():
        yield f"documents {name}, which is no parameter"
    returned = Argument("return", _annotation(inspect.signature(method).return_annotation), "")
    if not inspect.isclass(method) and returned.is_bare_array:
        yield f"returns an array without a shape: {returned.annotation}"


def _member_findings(method: Callable[..., Any]) -> Iterator[str]:
    """Public methods and properties that a class defines itself need a docstring; their arrays need shapes."""
    if not inspect.isclass(method):
        return
    for name, member in vars(method).items():
        function = getattr(member, "__func__", member)
        if name.startswith("_") or not (inspect.isfunction(function) or isinstance(member, property)):
            continue
        if not inspect.getdoc(member):
            yield f"{name} has no docstring"
        if inspect.isfunction(function):
            for argument in arguments(function).values():
                if argument.is_bare_array:
                    yield f"{name}: parameter {argument.name} is an array without a shape: {argument.annotation}"


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _alternatives(annotation: str) -> list[str]:
    """Split a union at its bars."""
    if not annotation:
        return []
    try:
        node: ast.expr = ast.parse(annotation, mode="eval").body
    except SyntaxError:
        return [annotation]
    parts = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        parts.append(ast.unparse(node.right))
        node = node.left
    return [ast.unparse(node), *reversed(parts)]
