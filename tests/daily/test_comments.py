"""Comments: what Markdown becomes, who may change and see what, and that nothing typed can run."""

from __future__ import annotations

import re

import lxml.html
import pytest
from attacks import MARK, PAYLOADS, dangers, harmless
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import Browser, send, sign_in, token
from sqlalchemy import select

from offprint.daily import comments
from offprint.daily.inputs import LONGEST_COMMENT, comment_body
from offprint.daily.markdown import rendered
from offprint.store import Account, Comment, Database, Paper

PAGE = "/papers/alpha-method"
TAGS = {"a", "blockquote", "br", "code", "em", "li", "ol", "p", "pre", "strong", "ul"}


def kept(database: Database) -> list[Comment]:
    with database.session() as session:
        return list(session.scalars(select(Comment).order_by(Comment.id)))


def n_comments(database: Database) -> int:
    with database.session() as session:
        return session.query(Paper).filter_by(slug="alpha-method").one().n_comments


def say(client: Browser, body: str):
    return send(client, f"{PAGE}/comments", body=body)


class TestMarkdown:
    @pytest.mark.parametrize(
        ("typed", "shown"),
        [
            ("plain", "<p>plain</p>"),
            ("*a* and **b**", "<p><em>a</em> and <strong>b</strong></p>"),
            ("one\ntwo", "<p>one<br>\ntwo</p>"),
            ("`a < b`", "<p><code>a &lt; b</code></p>"),
            ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>"),
            ("3. a\n4. b", '<ol start="3">\n<li>a</li>\n<li>b</li>\n</ol>'),
            ("> a", "<blockquote>\n<p>a</p>\n</blockquote>"),
            ("```python\nx < 1\n```", "<pre><code>x &lt; 1\n</code></pre>"),
            ("<b>x</b> &amp; y", "<p>&lt;b&gt;x&lt;/b&gt; &amp; y</p>"),
            ("# no heading", "<p># no heading</p>"),
            ("| no | table |", "<p>| no | table |</p>"),
            ("[a](https://b.example 'c')", '<p><a href="https://b.example" rel="nofollow ugc noopener">a</a></p>'),
            ("<http://b.example>", '<p><a href="http://b.example" rel="nofollow ugc noopener">http://b.example</a></p>'),
            ("[a](/b)", "<p>[a](/b)</p>"),
            ("[a](//b.example)", "<p>[a](//b.example)</p>"),
            ("[a](mailto:b@c.example)", "<p>[a](mailto:b@c.example)</p>"),
            ("![a](https://b.example/c.png)",
             '<p>!<a href="https://b.example/c.png" rel="nofollow ugc noopener">a</a></p>'),
        ],
    )  # fmt: skip
    def test_the_subset(self, typed: str, shown: str) -> None:
        assert rendered(typed).strip() == shown

    @pytest.mark.parametrize("payload", PAYLOADS)
    def test_nothing_runs(self, payload: str) -> None:
        for typed in (
            payload,
            f"> - {payload}",
            f"*{payload}*",
            f"[{payload}]({payload})",
            f"`{payload}`",
            payload * 3,
        ):
            clean(rendered(typed))

    @settings(max_examples=60, deadline=None)
    @given(st.text(st.sampled_from("<>[]()!`*_>-1. \n\t\"'&;:/\\#xjavscripthtp="), max_size=80))
    def test_nothing_runs_of_anything(self, typed: str) -> None:
        clean(rendered(typed))

    def test_deep_nesting_and_long_text_stay_small(self) -> None:
        for typed in (">" * 4000, "- " * 2000, "[" * 4000, "*_" * 2000, "[a]()" * 800, "<http://b.example>" * 220):
            assert len(rendered(typed)) < 40_000
            clean(rendered(typed))


def clean(html: str) -> None:
    """Read what a comment became with two parsers that are not ours: no element, attribute or address but ours."""
    assert dangers(html) == []
    for element in lxml.html.fragment_fromstring(html, create_parent="div").iterdescendants():
        assert element.tag in TAGS, html
        attributes = dict(element.attrib)
        if element.tag == "a":
            address = attributes.pop("href", "https://")
            assert address.lower().startswith(("https://", "http://")), html
            assert harmless(address)
            assert attributes.pop("rel") == "nofollow ugc noopener"
        if element.tag == "ol":
            assert attributes.pop("start", "1").isdigit()
        assert attributes == {}, html


class TestBodies:
    def test_they_are_made_uniform(self) -> None:
        assert comment_body(" a\r\nb\rc\x07\u202ed \n") == "a\nb\ncd"
        assert comment_body("a" * LONGEST_COMMENT + "  ") == "a" * LONGEST_COMMENT
        assert comment_body("שלום\u200f עולם") == "שלום\u200f עולם"

    @pytest.mark.parametrize("typed", ["", " \n\t", "\u202e", "a" * (LONGEST_COMMENT + 1), "Z" + "\u0336" * 50])
    def test_what_is_none_comes_back_as_it_was(self, typed: str, client: Browser, database: Database) -> None:
        sign_in(client, database)
        response = say(client, typed)
        assert response.status_code == 422
        assert 'role="alert"' in response.text
        [area] = lxml.html.fromstring(response.text).xpath("//textarea")
        assert (area.text or "").lstrip("\n").rstrip("\r\n") == typed.lstrip("\n").rstrip("\r\n")
        assert kept(database) == []


class TestOnTheSite:
    def test_one_is_shown_and_counted(self, client: Browser, database: Database) -> None:
        sign_in(client, database, name="Ada <L>", handle="ada-l")
        response = say(client, "I *like* it.")
        [comment] = kept(database)
        assert (response.status_code, response.headers["location"]) == (303, f"{PAGE}#comment-{comment.id}")
        page = client.get(PAGE).text
        assert "<em>like</em>" in page
        assert "Ada &lt;L&gt;" in page
        assert "@ada-l" in page
        assert '<h2 id="comments">1 comment</h2>' in page
        assert n_comments(database) == 1

    def test_sent_twice_it_is_one(self, client: Browser, database: Database) -> None:
        sign_in(client, database)
        fields = {"token": token(client), "body": "Once."}
        first, second = (client.post(f"{PAGE}/comments", data=fields) for _ in range(2))
        assert first.headers["location"] == second.headers["location"]
        assert n_comments(database) == 1

    def test_its_author_edits_and_deletes_it(self, client: Browser, database: Database) -> None:
        sign_in(client, database)
        say(client, "Frist </textarea>!")
        number = kept(database)[0].id
        form = client.get(f"/comments/{number}/edit")
        assert "Frist &lt;/textarea&gt;!" in form.text
        response = send(client, f"/comments/{number}/edit", page=f"/comments/{number}/edit", body="First!")
        assert response.headers["location"] == f"{PAGE}#comment-{number}"
        page = client.get(PAGE).text
        assert "First!" in page
        assert ", edited" in page
        assert "Frist" not in page
        too_long = send(client, f"/comments/{number}/edit", page=f"/comments/{number}/edit", body="b" * 5000)
        assert too_long.status_code == 422
        assert "b" * 5000 in too_long.text
        assert send(client, f"/comments/{number}/delete").headers["location"] == f"{PAGE}#comments"
        assert kept(database) == []
        assert n_comments(database) == 0
        assert send(client, f"/comments/{number}/delete").status_code == 404

    def test_nobody_else_does(self, client: Browser, database: Database) -> None:
        sign_in(client, database)
        say(client, "Mine.")
        number = kept(database)[0].id
        eve, nobody = Browser(client.app), Browser(client.app)
        sign_in(eve, database, "eve@example.org", moderator=True)  # a moderator hides, and does not put words in mouths
        for browser, status in ((eve, 404), (nobody, 303)):
            assert browser.get(f"/comments/{number}/edit").status_code == status
            for act in ("edit", "delete"):
                assert send(browser, f"/comments/{number}/{act}", body="Theirs.").status_code == status
        sign_in(client, database, banned=True)
        for act in ("edit", "delete"):
            assert send(client, f"/comments/{number}/{act}", body="x").status_code == 403
        assert "/edit" not in client.get(PAGE).text
        assert [comment.body for comment in kept(database)] == ["Mine."]

    def test_who_is_not_signed_in_or_banned_says_nothing(self, client: Browser, database: Database) -> None:
        response = send(client, f"{PAGE}/comments", body="x")
        assert (response.status_code, response.headers["location"]) == (303, f"/sign-in?next={PAGE}")
        assert "<textarea" not in client.get(PAGE).text
        sign_in(client, database, banned=True)
        assert send(client, f"{PAGE}/comments", body="x").status_code == 403
        assert "<textarea" not in client.get(PAGE).text
        assert kept(database) == []

    def test_many_are_shown_in_parts_and_none_is_lost(self, client: Browser, database: Database) -> None:
        account = sign_in(client, database)
        # Each as large as HTML can get from so many characters, and outside ASCII.
        bodies = [f"number-{i}-end " + ("[ü]()" * 790 if i % 8 == 0 else "") for i in range(33)]
        with database.session() as session:
            paper = session.query(Paper).filter_by(slug="alpha-method").one()
            session.add_all(Comment(paper_id=paper.id, account_id=account.id, body=body) for body in bodies)
        seen, where = [], PAGE
        for _ in range(30):
            response = client.get(where)
            assert len(response.content) < 100_000
            seen += re.findall(r"number-(\d+)-end", response.text)
            following = re.search(rf'rel="next" href="({PAGE}\?after=\d+)#comments"', response.text)
            if following is None:
                break
            where = following[1]
        assert [int(number) for number in seen] == list(range(33))
        response = say(client, "the last")
        assert "the last" in client.get(response.headers["location"].partition("#")[0]).text
        for after in ("x", "-1", "99999999999999999999", "²"):
            assert client.get(PAGE, params={"after": after}).status_code == 200

    def test_nothing_typed_into_a_comment_runs(self, client: Browser, database: Database) -> None:
        account = sign_in(client, database)
        with database.session() as session:
            paper = session.query(Paper).filter_by(slug="alpha-method").one()
            for payload in PAYLOADS:
                body = comment_body(payload)
                session.add(Comment(paper_id=paper.id, account_id=account.id, body=body))
        seen, where = 0, PAGE
        while True:
            page = client.get(where).text
            seen += page.count(MARK)
            assert dangers(page) == []
            following = re.search(rf'rel="next" href="({PAGE}\?after=\d+)#comments"', page)
            if following is None:
                break
            where = following[1]
        assert seen >= len(PAYLOADS) * 0.9  # they are shown as text, not removed

    def test_one_account_many_comments_count_once_in_trending(self, client: Browser, database: Database) -> None:
        account = sign_in(client, database)
        with database.session() as session:
            paper = session.query(Paper).filter_by(slug="alpha-method").one()
            comments.add(session, account, paper, "one")
            hotness = paper.hotness
            comments.add(session, account, paper, "two")
            assert paper.hotness == hotness
            assert paper.n_comments == 2
            session.get_one(Account, account.id)
