"""Writing the files that make a paper: method, record, claims and tests, in a checkout or in a package of one's own.

What is written is a small working paper. It passes the contract tests as it stands; one replaces it piece by piece.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import keyword
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template

from offprint.papers.record import FAMILIES
from offprint.papers.registry import records

TEMPLATES = Path(__file__).parent / "templates"
LONGEST_SLUG = 40

_CLAIMS_IMPORTS = """\
import numpy as np

from {module} import {name}
from offprint.papers import Measurement, Panel, Run, Series, measures"""
_OWN_CLAIMS_IMPORTS = """\
import numpy as np
from offprint.papers import Measurement, Panel, Run, Series, measures

from {module} import {name}"""
_TEST_IMPORTS = """\
import numpy as np
import pytest
import scipy.stats

from {module} import Estimate, {name}"""
_FAMILY = """\
\"\"\"Methods of the family {family}.\"\"\"

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
"""
_FAMILY_STUB = """\
from .{name} import {name} as {name}

__all__ = ["{name}"]
"""


@dataclass(frozen=True)
class _Paper:
    """What the templates need to know."""

    slug: str
    title: str
    arxiv: str
    family: str
    module: str

    @property
    def name(self) -> str:
        return self.slug.replace("-", "_")

    def fill(self, template: str, **more: str) -> str:
        return Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(
            slug=self.slug,
            name=self.name,
            title=json.dumps(self.title, ensure_ascii=False),
            arxiv=self.arxiv,
            family=self.family,
            module=self.module,
            year=str(2000 + int(self.arxiv[:2])),
            day=datetime.date.today().isoformat(),
            **more,
        )

    def imports(self, lines: str) -> str:
        return lines.format(module=self.module, name=self.name)


def create(
    slug: str,
    *,
    title: str | None = None,
    family: str = "learn",
    arxiv: str = "2501.00001",
    into: Path | None = None,
) -> list[Path]:
    """Write the files of a new paper. Nothing that exists is ever overwritten.

    Parameters
    ----------
    slug : str
        The paper's short name: lower-case words of letters and digits, joined by hyphens, a letter first.
    title : str, optional
        The paper's title; the slug's words when left out.
    family : str
        The family of the method, one of :data:`offprint.papers.FAMILIES`.
    arxiv : str
        The paper's arXiv id.
    into : Path, optional
        The folder of a package of one's own, named after it. It is created, or, where it holds such a package already,
        the paper is added to it. When left out, the paper goes into the checkout of offprint that holds the current
        folder.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ValueError
        If slug, title, family or arXiv id cannot be used, or ``into`` cannot name a package.
    FileExistsError
        If a file is in the way, or the slug is taken. Nothing has been written then.
    FileNotFoundError
        If ``into`` is left out and the current folder is in no checkout of offprint.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     written = create("wide-nets", into=Path(folder) / "our-lab")
    ...     print([path.name for path in written if path.suffix == ".toml"])
    ['pyproject.toml', 'paper.toml']
    """
    _check(slug, title, family, arxiv)
    if slug in records():
        raise FileExistsError(f"slug {slug!r} is taken by the paper in {records()[slug].folder}")
    name = slug.replace("-", "_")
    title = title or slug.replace("-", " ").capitalize()
    if into is None:
        paper = _Paper(slug, title, arxiv, family, f"offprint.methods.{family}.{name}")
        files = _in_checkout(paper, _checkout(Path.cwd()))
    else:
        package = _package_name(into)
        paper = _Paper(slug, title, arxiv, family, f"{package}.methods.{name}")
        files = _in_package(paper, into, package)
    if in_the_way := [str(path) for path in files if path.exists()]:
        raise FileExistsError(f"nothing was written, because there is already {', '.join(in_the_way)}")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def _in_checkout(paper: _Paper, root: Path) -> dict[Path, str]:
    source = root / "src" / "offprint"
    family = source / "methods" / paper.family
    for place in (source / "papers", family):
        for path in (place / paper.name, place / f"{paper.name}.py"):
            if path.exists():
                raise FileExistsError(f"nothing was written, because there is already {path}")
    files = {}
    if not (family / "__init__.py").exists():
        files[family / "__init__.py"] = _FAMILY.format(family=paper.family)
        files[family / "__init__.pyi"] = _FAMILY_STUB.format(name=paper.name)
    tests = root / "tests" / "methods" / paper.family
    return {
        **files,
        family / f"{paper.name}.py": paper.fill("paper/method.py.tmpl"),
        **_record(paper, source / "papers", _CLAIMS_IMPORTS),
        tests / f"test_{paper.name}.py": paper.fill("paper/test_method.py.tmpl", imports=paper.imports(_TEST_IMPORTS)),
    }


def _in_package(paper: _Paper, root: Path, package: str) -> dict[Path, str]:
    source, tests = root / "src" / package, root / "tests"
    names = {"package": package, "distribution": package.replace("_", "-"), "version": _version()}
    files = {}
    if not (source / "papers" / "__init__.py").exists():
        files = {
            root / "pyproject.toml": paper.fill("package/pyproject.toml.tmpl", **names),
            root / "README.md": paper.fill("package/README.md.tmpl", **names),
            source / "__init__.py": '"""Papers that run, registered with offprint."""\n',
            source / "methods" / "__init__.py": '"""Methods: what a user applies to their own model or data."""\n',
            source / "papers" / "__init__.py": '"""Papers: one folder each, with its record and its claims."""\n',
        }
    return {
        **files,
        source / "methods" / f"{paper.name}.py": paper.fill("paper/method.py.tmpl"),
        **_record(paper, source / "papers", _OWN_CLAIMS_IMPORTS),
        tests / f"test_{paper.name}.py": paper.fill("paper/test_method.py.tmpl", imports=paper.imports(_TEST_IMPORTS)),
        tests / f"test_{paper.name}_claims.py": paper.fill("package/test_claims.py.tmpl"),
    }


def _record(paper: _Paper, papers: Path, imports: str) -> dict[Path, str]:
    folder = papers / paper.name
    return {
        folder / "paper.toml": paper.fill("paper/paper.toml.tmpl"),
        folder / "__init__.py": f'"""The paper {paper.slug}: its record and its claims."""\n',
        folder / "claims.py": paper.fill("paper/claims.py.tmpl", imports=paper.imports(imports)),
    }


def _check(slug: str, title: str | None, family: str, arxiv: str) -> None:
    name = slug.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug) or len(slug) > LONGEST_SLUG or keyword.iskeyword(name):
        raise ValueError(
            f"slug must be lower-case words joined by hyphens, such as my-paper, a letter first, no Python keyword and "
            f"at most {LONGEST_SLUG} characters; got {slug!r}"
        )
    if title is not None and not title.strip():
        raise ValueError("title must not be empty")
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}; got {family!r}")
    if not re.fullmatch(r"\d{2}(0[1-9]|1[0-2])\.\d{4,5}", arxiv):
        raise ValueError(f"arxiv must be an id such as 2501.00001; got {arxiv!r}")


def _package_name(folder: Path) -> str:
    """Return the import name of the package in a folder, which is the folder's own name."""
    name = re.sub(r"[-. ]+", "_", folder.resolve().name).lower()
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"into must be a folder whose name can be a package's; got {str(folder)!r}")
    known = not (folder / "src" / name / "papers").exists() and importlib.util.find_spec(name) is not None
    if known:
        raise ValueError(f"into must not be named like a package that is already installed; got {str(folder)!r}")
    return name


def _checkout(start: Path) -> Path:
    for folder in (start, *start.parents):
        if (folder / "src" / "offprint" / "papers" / "record.py").exists():
            return folder
    raise FileNotFoundError(f"{start} is in no checkout of offprint; give the folder of a package of your own instead")


def _version() -> str:
    try:
        return version("offprint")
    except PackageNotFoundError:
        return "0"
