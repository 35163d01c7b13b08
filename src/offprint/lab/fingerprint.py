"""A hash over the code that a claim reaches, so that a change elsewhere leaves its measurements valid."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from offprint.papers import Record


def fingerprint(paper: Record, claim_id: str) -> str:
    """Return the hash of every source file that measuring this claim can reach, as 16 hexadecimal digits.

    Imports are followed from the paper's ``claims.py`` through offprint and the paper's own package, without running
    anything. Through a package's ``__init__`` only the names asked for are followed. Comments, layout, docstrings and
    the types of arguments do not count, nor do the functions that measure the paper's other claims.

    Parameters
    ----------
    paper : Record
    claim_id : str

    Raises
    ------
    FileNotFoundError
        If the paper has no ``claims.py``.
    """
    start = f"{paper.package}.claims"
    tree = _without_other_claims(_parse(paper.folder / "claims.py"), claim_id)
    roots = {"offprint", paper.package.split(".")[0]}
    seen: dict[str, str] = {start: _meaning(tree)}
    waiting = list(_imports(tree, start, is_package=False))
    while waiting:
        module, names = waiting.pop()
        if module.split(".")[0] not in roots:
            continue
        for name, path in _reached(module, names):
            if name not in seen:
                code = _parse(path)
                seen[name] = _meaning(code)
                waiting += _imports(code, name, is_package=path.stem == "__init__")
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(f"{name}\0{seen[name]}\0".encode())
    return digest.hexdigest()[:16]


def _imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (module, names imported from it) for every import statement, also those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            yield base, tuple(alias.name for alias in node.names)


def _reached(module: str, names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Yield the files that importing ``names`` from ``module`` reaches, following what a package re-exports."""
    path = _locate(module)
    if path is None:
        return
    if path.stem != "__init__":
        yield module, path
        return
    for name in names:
        submodule = _locate(f"{module}.{name}")
        source = _reexported(path).get(name)
        if submodule is not None:
            yield from _reached(f"{module}.{name}", ())
        elif source is not None:
            yield from _reached(source, (name,))
        else:
            yield module, path


@cache
def _reexported(package: Path) -> dict[str, str]:
    """Map each name that a package's ``__init__`` (or its stub) imports to the module it comes from."""
    stub = package.with_suffix(".pyi")
    tree = _parse(stub if stub.exists() else package)
    name = _module_name(package)
    return {
        bound: module for module, names in _imports(tree, name, is_package=True) for bound in names if module != name
    }


@cache
def _locate(module: str) -> Path | None:
    """Return a module's source file without importing it."""
    root, *rest = module.split(".")
    spec = importlib.util.find_spec(root)
    for folder in (spec and spec.submodule_search_locations) or ():
        base = Path(folder).joinpath(*rest)
        for candidate in (base / "__init__.py", base.with_suffix(".py")):
            if candidate.exists():
                return candidate
    return None


def _module_name(package: Path) -> str:
    folder = package.parent
    parts = [folder.name]
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
        parts.insert(0, folder.name)
    return ".".join(parts)


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _without_other_claims(tree: ast.Module, claim_id: str) -> ast.Module:
    def measures_another(node: ast.stmt) -> bool:
        decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
        bound = [
            ast.literal_eval(call.args[0])
            for call in decorators
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "measures"
        ]
        return bool(bound) and claim_id not in bound

    return ast.Module([node for node in tree.body if not measures_another(node)], [])


def _meaning(tree: ast.Module) -> str:
    """Return the code as text that changes only when what it does may change."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    return ast.dump(tree)
