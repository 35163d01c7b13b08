"""What a method may import. ``.importlinter`` holds the floors of this project as a whole."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

ABOVE = ("offprint.cli", "offprint.daily", "offprint.lab", "offprint.papers", "offprint.data", "offprint.store")


def upward_imports(method: Callable[..., Any]) -> list[str]:
    """Return what a method's file imports from floors that it must know nothing of, wherever in the file."""
    path = Path(inspect.getfile(inspect.unwrap(method)))
    return [
        f"line {line} imports {module}"
        for line, module in _imports(ast.parse(path.read_text(encoding="utf-8")))
        if any(module == floor or module.startswith(f"{floor}.") for floor in ABOVE)
    ]


def _imports(tree: ast.AST) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found
