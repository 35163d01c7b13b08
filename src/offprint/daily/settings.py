"""What an operator can set, by environment variables; each has a value that suits a reader's own machine."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "OFFPRINT_"
SECRET = ("secret", "smtp_url", "metrics_token")
"""Settings whose values are not repeated to anyone."""

ELSEWHERE = {
    "OFFPRINT_DATABASE_URL": (
        "`offprint.db` in the data folder",
        "The database: `sqlite:////path/to/file.db`, or `postgresql://user:password@host/name` (needs the extra "
        "`postgres`).",
    ),
    "PORT": ("`8000`", "The port of `offprint serve`, unless `--port` says otherwise."),
    "XDG_DATA_HOME": ("`~/.local/share`", "Where the data folder `offprint` is, on Linux."),
}
"""What is read elsewhere: default and description by variable."""


def data_folder() -> Path:
    """Return the user's data folder."""
    return Path(platformdirs.user_data_dir("offprint"))


class Settings(BaseSettings):
    """The settings, read from ``OFFPRINT_...`` when made.

    Raises
    ------
    pydantic.ValidationError
        Naming the variable that cannot be read.

    Examples
    --------
    >>> Settings(base_url="https://papers.example.org/").base_url
    'https://papers.example.org'
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    base_url: str = Field(
        default="",
        description="The address that readers use, for links in mails and feeds; that of the request when empty.",
    )
    secret: str = Field(
        default="",
        description="Keys to sign with, separated by commas: the first signs, the others still count. "
        "Made and kept in the data folder when empty.",
    )
    smtp_url: str = Field(
        default="",
        description="Where mail goes: `smtp://user:password@host:587` (STARTTLS where offered), "
        "`smtp+starttls://` (refuses to go without) or `smtps://`. To the mail folder when empty.",
    )
    maildir: Path = Field(
        default_factory=lambda: data_folder() / "mail",
        description="The folder (Maildir) that takes the mail while there is no SMTP server.",
    )
    mail_from: str = Field(default="offprint <offprint@localhost>", description="The sender of mails.")
    unsubscribe_mail: str = Field(
        default="",
        description="An address whose mail someone reads, which mails then offer as another way to unsubscribe.",
    )
    digest_hour: int = Field(default=6, ge=0, le=23, description="The hour (UTC) of the built-in schedule for digests.")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Addresses of reverse proxies whose `X-Forwarded-…` headers count, separated by commas."
    )
    arxiv_url: str = Field(
        default="https://export.arxiv.org/api/query", description="Where arXiv's API is asked for papers."
    )
    semantic_model: str = Field(
        default="", description="A sentence-transformers model by name or path; search is lexical only when empty."
    )
    answers_kept: float = Field(
        default=2.0,
        ge=0,
        description="For how many seconds readers who are not signed in are given the same list again, "
        "without a look at the database.",
    )
    runs: bool = Field(default=True, description="Whether readers may run claims.")
    log_format: Literal["text", "json"] = Field(default="text", description="How log lines are written.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning", description="The least that is logged."
    )
    metrics_token: str = Field(
        default="", description="The bearer token that `/metrics` asks for; it answers on this machine only when empty."
    )

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _separate(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        # Without a path: links on pages begin at the host.
        beyond = parts.path.strip("/") or parts.query or parts.fragment
        if value and (parts.scheme not in ("http", "https") or not parts.netloc or beyond):
            raise ValueError(f"an address such as https://papers.example.org is wanted, got {value!r}")
        return value.rstrip("/")

    @field_validator("mail_from")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if any(character in value for character in "\r\n"):
            raise ValueError("one line is wanted")
        return value

    @cached_property
    def https(self) -> bool:
        """Whether readers reach the site over TLS."""
        return self.base_url.startswith("https://")


class SettingsError(ValueError):
    """A variable that cannot be read, named in one line."""


def load() -> Settings:
    """Read the settings from the environment.

    Raises
    ------
    SettingsError
        Naming each variable that cannot be read, and what was found in it unless it is secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("; ".join(_complaint(problem) for problem in error.errors())) from None


def _complaint(problem: Any) -> str:
    name = str(problem["loc"][0])
    found = "" if name in SECRET else f" (found {str(problem['input'])[:80]!r})"
    return f"{PREFIX}{name.upper()}: {problem['msg'].removeprefix('Value error, ')}{found}"


def table() -> str:
    """Return all variables with their defaults and meaning, as a table in Markdown."""
    rows = {
        f"{PREFIX}{name.upper()}": (_default(field), field.description) for name, field in Settings.model_fields.items()
    }
    lines = [f"| `{name}` | {default} | {description} |" for name, (default, description) in (rows | ELSEWHERE).items()]
    return "\n".join(["| Variable | Default | What it sets |", "| --- | --- | --- |", *lines]) + "\n"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        path: Path = field.get_default(call_default_factory=True)
        return f"`{path.name}` in the data folder"
    return (
        f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
        if field.default
        else "–"
    )
