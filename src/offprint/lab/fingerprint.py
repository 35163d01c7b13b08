"""A hash over the code that a claim reaches, so that a change elsewhere leaves its measurements valid."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import threading
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

from offprint.papers import Record

_PARSING = threading.Lock()
"""Python 3.11's parser counts its recursion in one place for all threads, and then fails on sound code."""


def fingerprint(paper: Record, claim_id: str) -> str:
    """Return the hash of every source file that measuring this claim can reach, as 16 hexadecimal digits.

    Imports are followed from the paper's ``claims.py`` through offprint and the paper's own package, without running
    anything. Through a package's ``__init__`` only the names asked for are followed. Comments, layout, docstrings and
    the types of arguments do not count, nor does whatever ``claims.py`` has for the paper's other claims only.

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
    tree = _only_what_it_uses(_parse(paper.folder / "claims.py"), claim_id)
    roots = {"offprint", paper.package.split(".")[0]}
    seen: dict[str, str] = {start: _meaning(tree)}
    waiting = list(_imports(tree, start, is_package=False))
    while waiting:
        module, names = waiting.pop()
        if module.split(".")[0] not in roots:
            continue
        for name, path in _reached(module, names):
            if name not in seen:
                seen[name], imported = _read(name, path, path.stat().st_mtime_ns)
                waiting += imported
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(f"{name}\0{seen[name]}\0".encode())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=4096)
def _read(module: str, path: Path, changed_at: int) -> tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    """Return what a file means and what it imports; read again only when it has changed."""
    tree = _parse(path)
    imported = tuple(_imports(tree, module, is_package=path.stem == "__init__"))
    return _meaning(tree), imported


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
    with _PARSING:
        return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _only_what_it_uses(tree: ast.Module, claim_id: str) -> ast.Module:
    """Keep the function that measures the claim, and of the file's other statements those it uses by name."""
    kept = [node for node in tree.body if _measures(node) == claim_id or not _bound_by(node)]
    offered = [(node, _bound_by(node)) for node in tree.body if _measures(node) is None]
    used: set[str] = set()
    new = kept
    while new:
        used |= {name.id for node in new for name in ast.walk(node) if isinstance(name, ast.Name)}
        new = [node for node, bound in offered if bound & used and node not in kept]
        kept = kept + new
    return ast.Module([node for node in tree.body if node in kept], [])


def _measures(node: ast.stmt) -> str | None:
    """Return the id of the claim that a statement defines the function of."""
    for call in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "measures":
            return str(ast.literal_eval(call.args[0]))
    return None


def _bound_by(node: ast.stmt) -> set[str]:
    """Return the names that a statement at the top of a file binds; none where it may do more than bind."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        return set() if "*" in names else names
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
    return set()


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
