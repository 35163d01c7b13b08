"""Finding the records: a scan of this folder, and of every package that registers under ``offprint.papers``."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from offprint.papers.record import Record, RecordError
from offprint.papers.run import ClaimFunction

ENTRY_POINTS = "offprint.papers"


@cache
def records() -> dict[str, Record]:
    """Return every paper on record, by slug, in alphabetical order.

    A package of one's own takes part by an entry point in the group ``offprint.papers`` whose value is the import name
    of a package that holds paper folders.

    Raises
    ------
    RecordError
        If a record is not valid, or two papers share a slug.
    """
    found: dict[str, Record] = {}
    for package, folder in _sources():
        for path in sorted(folder.glob("*/paper.toml")):
            record = Record.read(path, package=f"{package}.{path.parent.name}")
            if record.slug in found:
                raise RecordError(f"{path}: slug: {record.slug!r} is already taken by {found[record.slug].folder}")
            found[record.slug] = record
    return dict(sorted(found.items()))


def record(slug: str) -> Record:
    """Return one paper's record, or raise ``KeyError`` with the nearest slugs there are."""
    everything = records()
    if slug in everything:
        return everything[slug]
    near = difflib.get_close_matches(slug, everything, n=3, cutoff=0.5)
    raise KeyError(f"no paper {slug!r} on record" + (f"; did you mean {' or '.join(near)}?" if near else ""))


def claim_functions(paper: Record) -> dict[str, ClaimFunction]:
    """Import a paper's ``claims.py`` and return its functions by claim id; empty when there is none yet.

    Raises
    ------
    RecordError
        If a function is bound to an id that is not in the record, or two to the same.
    """
    if not (paper.folder / "claims.py").exists():
        return {}
    module = importlib.import_module(f"{paper.package}.claims")
    bound: dict[str, ClaimFunction] = {}
    for function in vars(module).values():
        claim_id = getattr(function, "__claim__", None)
        if claim_id is None or function.__module__ != module.__name__:
            continue
        if claim_id in bound:
            raise RecordError(f"{module.__file__}: two functions measure {claim_id!r}")
        if claim_id not in {claim.id for claim in paper.claims}:
            raise RecordError(f"{module.__file__}: measures {claim_id!r}, which {paper.slug} does not claim")
        bound[claim_id] = function
    return bound


def measured_claims(paper: Record) -> frozenset[str]:
    """Return the ids that ``claims.py`` binds, read from its text: nothing is imported, so this is fast."""
    path = paper.folder / "claims.py"
    if not path.exists():
        return frozenset()
    return frozenset(
        decorator.args[0].value
        for function in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(function, ast.FunctionDef)
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Name)
        and decorator.func.id == "measures"
        and isinstance(decorator.args[0], ast.Constant)
        and isinstance(decorator.args[0].value, str)
    )


def _sources() -> list[tuple[str, Path]]:
    sources = [("offprint.papers", Path(__file__).parent)]
    for point in entry_points(group=ENTRY_POINTS):
        try:
            spec = importlib.util.find_spec(point.value)
        except ModuleNotFoundError:  # a package above it is missing
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise RecordError(f"entry point {point.name!r}: {point.value!r} is not a package")
        sources += [(point.value, Path(folder)) for folder in spec.submodule_search_locations]
    return sources
