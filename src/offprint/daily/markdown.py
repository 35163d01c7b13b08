"""Comments as HTML: a subset of Markdown, made without raw HTML or images and then cleaned once more."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import cache, lru_cache
from typing import Any
from urllib.parse import urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from markupsafe import Markup

RULES = (
    "autolink",
    "backticks",
    "blockquote",
    "code",
    "emphasis",
    "entity",
    "escape",
    "fence",
    "link",
    "list",
    "newline",
)
TAGS = {"a", "blockquote", "br", "code", "em", "li", "ol", "p", "pre", "strong", "ul"}
SCHEMES = {"http", "https"}
REL = "nofollow ugc noopener"
DEEPEST = 20
"""How deep quotes and lists may be nested; what is deeper is left out."""


@lru_cache(maxsize=1024)
def rendered(text: str) -> Markup:
    """Return a comment as HTML that is safe to put into a page.

    Examples
    --------
    >>> print(rendered("*Nice*, <b>but</b> [why](https://example.org)?"), end="")
    <p><em>Nice</em>, &lt;b&gt;but&lt;/b&gt; <a href="https://example.org" rel="nofollow ugc noopener">why</a>?</p>
    """
    cleaned = nh3.clean(
        _renderer().render(text),
        tags=TAGS,
        clean_content_tags={"script", "style"},
        attributes={"a": {"href"}, "ol": {"start"}},
        attribute_filter=_attribute,
        link_rel=REL,
        url_schemes=SCHEMES,
    )
    return Markup(cleaned)


@cache
def _renderer() -> MarkdownIt:
    parser = MarkdownIt("zero", {"html": False, "linkify": False, "breaks": True, "maxNesting": DEEPEST})
    parser.enable(list(RULES))
    parser.validateLink = web_address  # type: ignore[method-assign]
    parser.add_render_rule("link_open", _link_open)
    return parser


def web_address(url: str) -> bool:
    """Whether a link leads to a page of the web by its full address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme.lower() in SCHEMES and bool(parts.netloc)


def _link_open(
    renderer: RendererHTML, tokens: Sequence[Token], place: int, options: OptionsDict, env: MutableMapping[str, Any]
) -> str:
    tokens[place].attrs.pop("title", None)
    tokens[place].attrSet("rel", REL)
    return renderer.renderToken(tokens, place, options, env)


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "rel":
        return REL
    if name == "href":
        return value if web_address(value) else None
    return value if value.isdecimal() and len(value) < 10 else None  # where a list begins to count
