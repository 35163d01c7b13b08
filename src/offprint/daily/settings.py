"""What an operator can set, by environment variables; each has a value that suits a reader's own machine."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import platformdirs
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


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

    model_config = SettingsConfigDict(env_prefix="OFFPRINT_", frozen=True, extra="ignore")

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
    digest_hour: int = Field(default=6, ge=0, le=23, description="The hour (UTC) of the built-in schedule for digests.")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Addresses of reverse proxies whose `X-Forwarded-…` headers count, separated by commas."
    )
    semantic_model: str = Field(
        default="", description="A sentence-transformers model by name or path; search is lexical only when empty."
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
        if value and (parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment):
            raise ValueError(f"an address such as https://papers.example.org is wanted, got {value!r}")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _mail_is_signed(self) -> Self:
        if any(character in self.mail_from for character in "\r\n"):
            raise ValueError("mail_from must be one line")
        return self

    @cached_property
    def https(self) -> bool:
        """Whether readers reach the site over TLS."""
        return self.base_url.startswith("https://")
