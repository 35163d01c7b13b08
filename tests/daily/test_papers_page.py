"""A paper's page: what it claims and what was measured, its abstract and formulas, and how it is cited."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from offprint.papers import record
from offprint.store import Database, Listing, Paper

ALPHA_TITLE = "Alpha: a &lt;b&gt;Method&lt;/b&gt; &amp; its &#34;Limits&#34; for Gröbner Bases"


def test_a_paper_shows_what_it_claims(client: TestClient) -> None:
    page = client.get("/papers/alpha-method").text
    assert f'<h1 class="tex">{ALPHA_TITLE}</h1>' in page
    assert "Solves small games by averaging. &lt;script&gt;alert(1)&lt;/script&gt; stays text." in page
    assert "It always &lt;i&gt;holds&lt;/i&gt;." in page
    assert "from offprint.statistics import bootstrap_interval" in page
    for link in ("https://arxiv.org/abs/2501.00001", "https://arxiv.org/pdf/2501.00001", "https://example.org/alpha"):
        assert f'href="{link}"' in page
    for expected in ("≥ 4", "1 ± 0.1", "holds", "≤ 1", "0 to 1"):
        assert f"<dd>{expected}</dd>" in page
    assert page.count('<span class="verdict not-yet-measured">') == 4
    assert "Measures 3 of 4 claims here and now" in page


def test_recorded_results_say_where_they_come_from(recorded_alpha: Path, client: TestClient) -> None:
    content = json.loads((recorded_alpha / "alpha-method.json").read_text(encoding="utf-8"))
    page = client.get("/papers/alpha-method").text
    assert "2 of 4 claims reproduced" in page
    assert "2 of 4 claims reproduced" in client.get("/").text
    verdicts = re.findall(r'<span class="verdict [a-z-]+">([a-z ]+)</span>', page)
    assert verdicts == ["reproduced", "reproduced", "not reproduced", "not yet measured"]
    assert "<strong>4.6 <small>(4.5 to 4.7 over 3 seeds)</small>" in page
    assert "<dt>Baseline</dt><dd>2</dd>" in page
    assert "<dt>Paper reports</dt><dd>4.2</dd>" in page
    assert "Full scale, 3 seeds" in page
    assert f"commit {content['commit'][:7]}" in page
    assert "<code>offprint record alpha-method</code>" in page
    assert content["machine"]["processor"] in page
    assert f"numpy {content['versions']['numpy']}" in page
    assert "Counted by hand." in page


def test_a_new_recording_is_seen_without_a_restart(recorded_alpha: Path, client: TestClient) -> None:
    path = recorded_alpha / "alpha-method.json"
    assert "2 of 4 claims reproduced" in client.get("/").text
    content = json.loads(path.read_text(encoding="utf-8"))
    content["claims"][2]["verdict"] = "reproduced"
    path.write_text(json.dumps(content, indent=3), encoding="utf-8")
    assert "3 of 4 claims reproduced" in client.get("/").text


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"claims": [{"id": "is-large"}]}', '{"claims": 3}'])
def test_a_recording_that_cannot_be_read_is_none(broken: str, recorded_alpha: Path, client: TestClient) -> None:
    (recorded_alpha / "alpha-method.json").write_text(broken, encoding="utf-8")
    assert "not yet measured" in client.get("/papers/alpha-method").text


def test_recorded_figures_are_served(recorded_alpha: Path, client: TestClient) -> None:
    page = client.get("/papers/alpha-method").text
    [address] = re.findall(r'src="(/figures/[^"]+)"', page)
    figure = client.get(address)
    assert figure.status_code == 200
    assert figure.headers["content-type"] == "image/svg+xml"
    assert figure.content == (recorded_alpha / "figures/alpha-method/is-large.svg").read_bytes()
    assert "sandbox" in figure.headers["content-security-policy"]
    assert "immutable" in figure.headers["cache-control"]
    assert client.get("/figures/alpha-method/is-large.png").headers["content-type"] == "image/png"


@pytest.fixture
def imported(database: Database) -> str:
    """The address of a paper that only an import knows."""
    with database.session() as session:
        paper = Paper(
            title="An $O(n^2)$ Bound &amp; More",
            title_key="bound",
            abstract="For $a&lt;b$ and <i>all</i> <b onclick=x()>c</b>.\n\nSecond <sub>part.",
            arxiv="2401.12345",
            authors=["Ludwig van Beethoven"],
            code="javascript:alert(1)",
        )
        paper.listings = [Listing(day=datetime.date(2025, 8, day)) for day in (20, 22)]
        session.add(paper)
    return "/papers/2401.12345"


def test_an_abstract_keeps_its_formulas_and_loses_what_is_live(imported: str, client: TestClient) -> None:
    page = client.get(imported).text
    assert "<p>For $a&lt;b$ and <i>all</i> &lt;b onclick=x()&gt;c.</p><p>Second <sub>part.</sub></p>" in page
    assert '<h1 class="tex">An $O(n^2)$ Bound &amp; More</h1>' in page
    assert 'href="/2025-08-22"' in page  # the newest day that lists it


def test_only_web_addresses_are_linked_to(imported: str, client: TestClient) -> None:
    assert "javascript:" not in client.get(imported).text
    assert "Authors’ code" in client.get("/papers/alpha-method").text


def test_formulas_bring_katex_and_nothing_else_does(imported: str, client: TestClient) -> None:
    for path in (imported, "/2025-08-22", "/trending"):
        page = client.get(path).text
        for name in ("katex/katex.min.css", "katex/katex.min.js", "math.js"):
            [address] = re.findall(rf'"(/static/[^"]*{name}[^"]*)"', page)
            assert client.get(address).status_code == 200


def test_pages_without_formulas_do_without(client: TestClient) -> None:
    for path in ("/papers/alpha-method", "/calendar", "/", "/trending"):
        assert "katex" not in client.get(path).text


def test_katex_is_whole_and_asks_for_nothing_from_elsewhere(client: TestClient) -> None:
    style = client.get("/static/vendor/katex/katex.min.css").text
    fonts = set(re.findall(r"url\(([^)]+)\)", style))
    assert len(fonts) == 20
    for font in fonts:
        assert re.fullmatch(r"fonts/KaTeX_[\w-]+\.woff2", font)
        assert client.get(f"/static/vendor/katex/{font}").content.startswith(b"wOF2")
    assert "WITHOUT WARRANTY" in client.get("/static/vendor/katex/katex.LICENSE").text
    assert "font-src 'self'" in client.get("/").headers["content-security-policy"]


def test_a_paper_is_cited_as_text(imported: str, client: TestClient) -> None:
    response = client.get(f"{imported}/bibtex")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text.startswith("@misc{beethoven2024bound,\n  title = {{An $O(n^2)$ Bound \\& More}},\n")
    page = client.get(imported).text
    assert "title = {{An $O(n^2)$ Bound \\&amp; More}}" in page
    assert f'href="{imported}/ris"' in page


def test_a_paper_on_record_is_cited_as_its_record_says(client: TestClient) -> None:
    response = client.get("/papers/alpha-method/bibtex")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == record("alpha-method").bibtex + "\n"
    assert response.text.splitlines() == [
        "@misc{alpha-method,",
        '  title = {{Alpha: a <b>Method</b> \\& its "Limits" for Gröbner Bases}},',
        "  author = {Ada Lovelace and Björn Åström and C Third and D Fourth and E Fifth},",
        "  year = {2025},",
        "  eprint = {2501.00001},",
        "  archivePrefix = {arXiv},",
        "  note = {ICLR},",
        "  url = {https://arxiv.org/abs/2501.00001},",
        "}",
    ]


def test_a_ris_file_has_a_name_that_no_title_can_spoil(imported: str, client: TestClient, database: Database) -> None:
    response = client.get(f"{imported}/ris")
    assert response.headers["content-type"] == "application/x-research-info-systems; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="beethoven2024bound.ris"'
    assert "AU  - van Beethoven, Ludwig\r\n" in response.text
    with database.session() as session:
        paper = session.scalars(select(Paper).where(Paper.arxiv == "2401.12345")).one()
        paper.title, paper.authors = 'x"\r\nSet-Cookie: a=b', ['";/../\\']
    name = client.get(f"{imported}/ris").headers["content-disposition"]
    assert re.fullmatch(r'attachment; filename="[a-z0-9-]+\.ris"', name)
    assert "set-cookie" not in client.get(f"{imported}/ris").headers


def test_a_paper_without_an_arxiv_id_is_cited_by_its_page(client: TestClient, database: Database) -> None:
    with database.session() as session:
        session.add(paper := Paper(title="Unknown", title_key="u", abstract="Only text."))
        session.flush()
        number = paper.id
    assert f"url = {{http://127.0.0.1/papers/{number}}}" in client.get(f"/papers/{number}/bibtex").text
    assert f"UR  - http://127.0.0.1/papers/{number}\r\n" in client.get(f"/papers/{number}/ris").text


def test_a_page_stays_small_whatever_was_imported(client: TestClient, database: Database) -> None:
    with database.session() as session:
        long = "word " * 100_000
        session.add(
            Paper(title=long[:5000], title_key="l", abstract=long, arxiv="2401.00009", authors=["Ada " * 9] * 3000)
        )
    assert len(client.get("/papers/2401.00009").content) < 100_000
    assert client.get("/papers/2401.00009/bibtex").text.count(" and ") == 2999


def test_papers_with_the_old_kind_of_arxiv_id_have_pages(client: TestClient, database: Database) -> None:
    with database.session() as session:
        session.add(Paper(arxiv="hep-th/9901001", title="Strings", title_key="strings", authors=["Ada"]))
    assert "Strings" in client.get("/papers/hep-th/9901001").text
    for form in ("bibtex", "ris"):
        assert "hep-th/9901001" in client.get(f"/papers/hep-th/9901001/{form}").text
    assert client.get("/papers/hep-th/9901001/more").status_code == 404
