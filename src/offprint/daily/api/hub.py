"""Papers in the dialect of the Hub's papers API. What only this site knows is under one key, ``offprint``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from offprint.lab.verdicts import Verdict

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2025-08-20T00:00:00.000Z"])]
Address = Annotated[str, Field(json_schema_extra={"format": "uri"})]


class _Told(BaseModel):
    """What every part of an answer has in common: names as the Hub writes them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Author(_Told):
    """An author of a paper."""

    name: str = Field(examples=["Ada Lovelace"])
    hidden: bool = False


class Submitter(_Told):
    """Whoever brought a paper to the daily page."""

    user: str = Field(description="The handle, which `submitter=` takes.", examples=["ada"])
    name: str = Field(description="The same handle.")
    fullname: str = Field(description="The name shown; the handle where there is no other.", examples=["Ada L."])
    avatar_url: str = Field(description="The path of a picture.")
    type: Literal["user"] = "user"


class Number(_Told):
    """A number that a claim is judged by."""

    metric: str = Field(description="What is measured.", examples=["slope of log(saving) against log(n)"])
    rule: str = Field(description="What it must satisfy, fixed before anything was run.", examples=["0.35 to 0.65"])
    value: float | None = Field(default=None, description="The median over the seeds.", examples=[0.48])
    interval: tuple[float, float] | None = Field(
        default=None, description="A bootstrap interval of that median.", examples=[[0.44, 0.53]]
    )
    verdict: Verdict | None = None


class Claim(Number):
    """Something that a paper says, the rule by which it is judged, and what was measured."""

    id: str = Field(examples=["gain-grows-like-root-n"])
    statement: str
    source: str = Field(description="Where the paper says it.", examples=["abstract; complexity theorem"])
    verdict: Verdict = Field(description="The worst over the claim's numbers.")
    reported: float | None = Field(default=None, description="The paper's own number, where it gives one.")
    seeds: int | None = Field(default=None, description="How often it was measured.")
    scale: str | None = Field(default=None, description="How large the run was.", examples=["full"])
    measured_at: Moment | None = None
    commit: str | None = Field(default=None, description="The version of the code that measured it.")
    command: str | None = Field(default=None, description="What repeats the measurement.")
    also: list[Number] | None = Field(default=None, description="Further numbers that must satisfy rules of their own.")


class Offprint(_Told):
    """What this site knows of a paper beyond what the Hub tells."""

    page: Address = Field(description="The paper's page.")
    slug: str | None = None
    family: str | None = Field(default=None, description="What kind of method it is about.", examples=["optimize"])
    summary: str | None = Field(default=None, description="Our own summary.")
    year: int | None = None
    venue: str | None = None
    code: Address | None = Field(default=None, description="The authors' code.")
    categories: list[str] = Field(description="arXiv categories, the primary one first.", examples=[["cs.LG"]])
    runs_here: bool = Field(description="Whether its claims can be run here.")
    badge: str | None = Field(default=None, description="The verdicts in a line.", examples=["3 of 4 reproduced"])
    claims: list[Claim] = Field(description="What it claims, and what was measured; empty where nothing is on record.")
    import_lines: list[str] = Field(
        description="What brings its methods into a program.",
        examples=[["from offprint.methods.optimize.halpern import vr_halpern"]],
    )


class Paper(_Told):
    """What the Hub tells of a paper."""

    id: str = Field(description="The arXiv id; the slug or the number here where it has none.", examples=["2310.02987"])
    title: str
    summary: str | None = Field(default=None, description="The abstract; our own summary where there is none.")
    authors: list[Author]
    published_at: Moment | None = Field(default=None, description="When it was published, where that is known.")
    submitted_on_daily_at: Moment | None = Field(default=None, description="When the daily page listed it last.")
    submitted_on_daily_by: Submitter | None = None
    upvotes: int = Field(ge=0)
    num_comments: int = Field(ge=0)
    github_repo: Address | None = Field(default=None, description="The authors' code, where it is on GitHub.")
    project_page: Address | None = Field(default=None, description="The authors' code, where it is elsewhere.")


class PaperDetail(Paper):
    """A paper."""

    offprint: Offprint


class PaperEntry(_Told):
    """A paper on a list: the paper, and again what the Hub tells beside it."""

    paper: Paper
    title: str
    summary: str | None = None
    # The Hub's client reads this as the moment of listing wherever the paper itself has a date.
    published_at: Moment | None = Field(
        default=None, description="When the daily page listed it; missing where its own date is unknown."
    )
    submitted_on_daily_at: Moment | None = Field(default=None, description="When the daily page listed it.")
    submitted_by: Submitter | None = None
    upvotes: int = Field(ge=0)
    num_comments: int = Field(ge=0)
    github_repo: Address | None = None
    project_page: Address | None = None
    offprint: Offprint


class ClaimEntry(_Told):
    """A claim on a list, and the paper that makes it."""

    paper_id: str = Field(description="As `/api/papers/{id}` takes it.")
    paper_title: str
    family: str
    page: Address = Field(description="The claim on the paper's page.")
    claim: Claim
