"""The record of a paper: what it is, what it claims and how each claim will be judged. Data only."""

from __future__ import annotations

import datetime
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from offprint.papers.bibtex import entry
from offprint.papers.rules import Rule
from offprint.papers.scales import Scale

Family = Literal[
    "certify",
    "attack",
    "explain",
    "shift",
    "stream",
    "bags",
    "sets",
    "generate",
    "learn",
    "optimize",
    "privacy",
    "nn",
    "theory",
]
FAMILIES: tuple[str, ...] = get_args(Family)

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Reference = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class RecordError(ValueError):
    """A ``paper.toml`` that cannot be used; the message names the file and every key at fault."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Criterion(_Data):
    """One number and its rule. ``key`` names it in ``Measurement.also``; the claim's own number has no key."""

    metric: Text
    expect: Rule
    key: Slug | None = None


class Secondary(Criterion):
    """A further number of a claim that must satisfy a rule of its own."""

    key: Slug


class Quick(_Data):
    """What differs at quick (and smoke) scale, where a brief asks something smaller of a claim."""

    metric: Text | None = None
    expect: Rule | None = None
    seeds: Annotated[int, Field(ge=1, le=100)] | None = None
    also: tuple[Secondary, ...] | None = None


class Needs(_Data):
    """What one task of a claim (one seed) needs, so that an executor can place and bound it."""

    cores: Annotated[int, Field(ge=1)] = 1
    memory_mb: Annotated[int, Field(ge=64)] = 4096
    gpus: Annotated[int, Field(ge=0)] = 0
    minutes: Annotated[float, Field(gt=0)] = 40.0
    extras: tuple[Slug, ...] = ()


class Claim(_Data):
    """One thing a paper says that can be measured, with the rule fixed in advance.

    ``seeds`` is how many independent repetitions a full run makes (quick makes one unless ``quick.seeds`` says more).
    ``also`` holds further numbers that must satisfy their own rules for the claim to count as reproduced.
    ``reported`` is the paper's own number for ``metric``, where it gives one.
    """

    id: Slug
    statement: Text
    source: Text
    metric: Text
    expect: Rule
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    also: tuple[Secondary, ...] = ()
    quick: Quick | None = None
    reported: float | None = None
    needs: Needs = Needs()
    note: str = ""

    @model_validator(mode="after")
    def _distinct_keys(self) -> Self:
        for where, group in (("also", self.also), ("quick.also", (self.quick and self.quick.also) or ())):
            if repeated := _repeated(item.key for item in group):
                raise ValueError(f"{where}: key {repeated!r} is used twice")
        return self

    def criteria(self, scale: Scale) -> tuple[Criterion, ...]:
        """Return every number of this claim that is judged at ``scale``, the claim's own first."""
        metric, expect, also = self.metric, self.expect, self.also
        if self.quick is not None and scale in ("smoke", "quick"):
            metric = self.quick.metric or metric
            expect = self.quick.expect or expect
            also = also if self.quick.also is None else self.quick.also
        return Criterion(metric=metric, expect=expect), *also

    def n_seeds(self, scale: Scale) -> int:
        """Return how many repetitions a run at ``scale`` makes."""
        if scale in ("full", "paper"):
            return self.seeds
        if scale == "quick" and self.quick is not None and self.quick.seeds is not None:
            return self.quick.seeds
        return 1


class Record(_Data):
    """A paper and its claims, as read from ``paper.toml``.

    ``package`` and ``folder`` say where it was found; they are set on reading and are no keys of the file.
    """

    slug: Slug
    title: Text
    arxiv: Annotated[str, StringConstraints(pattern=r"^\d{4}\.\d{4,5}$")]
    authors: Annotated[tuple[Text, ...], Field(min_length=1)]
    year: Annotated[int, Field(ge=1991, le=2100)]
    venue: Text
    family: Family
    methods: tuple[Reference, ...] = ()
    summary: Text
    day: datetime.date
    code: Annotated[str, StringConstraints(pattern=r"^https://\S+$")] | None = None
    claims: Annotated[tuple[Claim, ...], Field(min_length=1)]
    package: str = Field(default="", exclude=True)
    folder: Path = Field(default=Path(), exclude=True)

    @field_validator("claims")
    @classmethod
    def _distinct_ids(cls, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
        if repeated := _repeated(claim.id for claim in claims):
            raise ValueError(f"claim id {repeated!r} is used twice")
        return claims

    @classmethod
    def read(cls, path: Path, *, package: str = "") -> Record:
        """Read and validate one ``paper.toml``.

        Parameters
        ----------
        path : Path
            The file.
        package : str
            The import name of the folder that holds it, where ``claims.py`` is looked for.

        Raises
        ------
        RecordError
            Naming the file and each key at fault.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecordError(f"{path}: not valid TOML: {error}") from error
        found_by = {"package", "folder"} & content.keys()
        if found_by:
            raise RecordError(f"{path}: {', '.join(sorted(found_by))}: unknown key")
        try:
            record = cls.model_validate({**content, "package": package, "folder": path.parent})
        except ValidationError as error:
            raise RecordError("\n".join(_fault(path, content, item) for item in error.errors())) from error
        if path.parent.name != record.slug.replace("-", "_"):
            raise RecordError(f"{path}: slug: {record.slug!r} does not match its folder {path.parent.name!r}")
        return record

    def claim(self, claim_id: str) -> Claim:
        """Return the claim with this id, or raise ``KeyError`` naming those there are."""
        for claim in self.claims:
            if claim.id == claim_id:
                return claim
        raise KeyError(f"{self.slug} has no claim {claim_id!r}; it has {', '.join(claim.id for claim in self.claims)}")

    @property
    def import_lines(self) -> tuple[str, ...]:
        """The lines that bring this paper's methods into a user's program, one for each module."""
        names: dict[str, list[str]] = {}
        for method in self.methods:
            module, name = method.split(":")
            names.setdefault(module, []).append(name)
        return tuple(f"from {module} import {', '.join(imported)}" for module, imported in names.items())

    @property
    def url(self) -> str:
        """The paper's page on arXiv."""
        return f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def bibtex(self) -> str:
        """A BibTeX entry for the paper."""
        return entry(
            self.slug,
            title=self.title,
            authors=self.authors,
            year=self.year,
            arxiv=self.arxiv,
            note=self.venue,
            url=self.url,
        )


def _repeated(names: Any) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _fault(path: Path, content: dict[str, Any], item: Any) -> str:
    """Say where in the file a fault lies, naming a claim by its id rather than by its position."""
    where = list(item["loc"])
    if len(where) >= 2 and where[0] == "claims" and isinstance(where[1], int):
        claim = content["claims"][where[1]]
        where[1] = claim.get("id", where[1]) if isinstance(claim, dict) else where[1]
    message = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
    return f"{path}: {'.'.join(str(part) for part in where)}: {message}"
