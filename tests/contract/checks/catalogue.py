"""What there is to check: taken from the records, so that whatever is added is picked up."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from offprint.papers import Record, RecordError, measured_claims, records


def all_records() -> dict[str, Record]:
    """Return every record; none at all when one is faulty, which ``test_every_record_is_valid`` then reports."""
    try:
        return records()
    except RecordError:
        return {}


def method_references() -> list[str]:
    """Return every method that a record lists, as ``module:name``."""
    return sorted({method for record in all_records().values() for method in record.methods})


def exported_references() -> list[str]:
    """Return every public name that a family of this project exports by its stub and no record lists."""
    folder = Path(next(iter(importlib.util.find_spec("offprint.methods").submodule_search_locations)))
    found = set()
    for stub in sorted(folder.glob("*/__init__.pyi")):
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:  # without one it is a whole module of the family
                module = f"offprint.methods.{stub.parent.name}.{node.module}"
                found |= {f"{module}:{alias.name}" for alias in node.names}
    return sorted(found - set(method_references()))


def bound_claims() -> list[tuple[str, str]]:
    """Return every (slug, claim id) that has a function, without importing any."""
    return [
        (slug, claim.id)
        for slug, record in all_records().items()
        for claim in record.claims
        if claim.id in measured_claims(record)
    ]


def resolve(reference: str) -> Callable[..., Any]:
    """Import what ``module:name`` stands for."""
    module, _, name = reference.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
