"""Abstracts: what is shown of untrusted text, read back by a parser that is not ours."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from offprint.daily.abstracts import LONGEST, TAGS, abstract, formulas, has_math, plain


class Read(HTMLParser):
    """The tags of a text with their attributes, those left open, and what a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[object] = []
        self.open: list[str] = []
        self.seen = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.seen += data


HOSTILE = st.lists(
    st.sampled_from(
        ["<script>", "</script>", "<i>", "</i>", "<p>", "</p>", "<b", ">", "<", "&lt;", "&amp;", "&#60;", "$", "$$",
         "\\(", "\\)", "<img src=x onerror=alert(1)>", "<svg/onload=x>", "<sub>", "javascript:", "\x00", "\n\n", "a<b",
         '"', "'", "<!--", "-->", "<![CDATA[", "</p></div>", "<style>", "&nbsp;", "\u202e", "<SUP >", "<br/>",
         "<math><mi>"]
    )
).map("".join)  # fmt: skip


@settings(deadline=None)
@given(st.text() | HOSTILE)
def test_whatever_comes_only_a_few_bare_tags_go_out(text: str) -> None:
    read = Read(str(abstract(text)))
    assert set(read.tags) <= TAGS
    assert read.attributes == []
    assert read.open == []


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs", "Cf", "Cn"], exclude_characters="&<")))
def test_plain_text_comes_out_as_it_went_in(text: str) -> None:
    assert " ".join(Read(str(abstract(text))).seen.split()) == " ".join(text.split()) == plain(text)


@settings(deadline=None)
@given(st.text())
def test_what_is_plain_fits_into_xml(text: str) -> None:
    said = plain(text)
    element = etree.Element("title")
    element.text = said  # lxml refuses what XML forbids
    assert etree.fromstring(etree.tostring(element)).text == (said or None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("p &lt; 0.05 &amp; q", "<p>p &lt; 0.05 &amp; q</p>"),
        ("a &amp;lt; b", "<p>a &amp;lt; b</p>"),  # read once, not twice
        ("AT&T; R&D &notanentity; &lt", "<p>AT&amp;T; R&amp;D &amp;notanentity; &amp;lt</p>"),
        ("One.\n\n \nTwo\nlines.", "<p>One.</p><p>Two lines.</p>"),
        ("CO<sub>2</sub> and <SUP>3</SUP>", "<p>CO<sub>2</sub> and <sup>3</sup></p>"),
        ("<i>never closed", "<p><i>never closed</i></p>"),
        ("if $a<i>b$ and \\(c</i>\\)", "<p>if $a&lt;i&gt;b$ and \\(c&lt;/i&gt;\\)</p>"),
        ("x<y and y>z", "<p>x&lt;y and y&gt;z</p>"),
        ("&lt;i&gt;coded&lt;/i&gt;", "<p><i>coded</i></p>"),
        ("", ""),
        (None, ""),
    ],
)
def test_cases(text: str | None, shown: str) -> None:
    assert abstract(text) == shown


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("an $O(n^2)$ bound", ["$O(n^2)$"]),
        ("$$a$$ and $b$", ["$$a$$", "$b$"]),
        (r"\(a\) then \[b\]", [r"\(a\)", r"\[b\]"]),
        ("from $5 to $10", []),
        ("$5 and x$ 7", ["$5 and x$"]),
        (r"costs \$5 or \$6", []),
        (r"$a \$ b$", [r"$a \$ b$"]),
        ("$ a$ $b $", []),
        ("US$300 and $x$", ["$x$"]),
        ("one $ only", []),
        ("a $5-$10 range", []),
    ],
)
def test_formulas_are_told_from_money(text: str, found: list[str]) -> None:
    assert [piece for formula, piece in formulas(text) if formula] == found
    assert has_math(text) == bool(found)


@settings(deadline=None)
@given(st.text(alphabet="$\\()[] ab5"))
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(piece for _, piece in formulas(text)) == text


def test_a_long_text_is_cut_and_takes_no_time() -> None:
    for long in ("word " * 100_000, "$" * 100_000, "\\(" * 50_000, "$a" * 50_000, "&lt;i&gt;" * 50_000, "<i>" * 50_000):
        assert len(html.unescape(Read(str(abstract(long))).seen)) <= LONGEST + 2
