"""Search by meaning: with an encoder whose vectors are known, against distances computed one by one."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from typer.testing import CliRunner, Result

from offprint import cli
from offprint.daily.app import create_app
from offprint.daily.search import Filters, Query, Semantic, search, similar
from offprint.daily.search.embedding import embed
from offprint.daily.search.searching import fused
from offprint.daily.search.semantic import LEAST_SIMILARITY, load_encoder
from offprint.daily.settings import Settings
from offprint.store import Database, Embedding, Paper

MEANINGS = {"car": (1, 0, 0), "automobile": (1, 0.1, 0), "flower": (0, 1, 0), "rose": (0.1, 1, 0), "game": (0, 0, 1)}


class Meanings:
    """An encoder that knows five words: the mean of their vectors."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, sentences: list[str]) -> np.ndarray:
        self.seen += sentences
        known = [[MEANINGS[word] for word in text.lower().split() if word in MEANINGS] for text in sentences]
        return np.array([np.mean(vectors, axis=0) if vectors else np.zeros(3) for vectors in known])


@pytest.fixture
def papers(new_url: Callable[..., str], migrated_url: str) -> Database:
    """A paper for each word."""
    database = Database(new_url(migrated_url))
    with database.session() as session:
        for word in MEANINGS:
            session.add(Paper(title=f"{word} paper", title_key=word, family="bags" if word == "car" else "sets"))
            session.flush()
    return database


def loaded(encoder: object | None = None) -> Semantic:
    semantic = Semantic("meanings", lambda name: encoder or Meanings())  # type: ignore[arg-type, return-value]
    semantic.load()
    return semantic


def order(database: Database, typed: str, semantic: Semantic | None, filters: Filters = Filters()) -> list[str]:  # noqa: B008
    with database.session() as session:
        found = search(session, Query.parse(typed), filters=filters, semantic=semantic)
    assert found.total == len(found.hits)
    return [hit.paper.title_key for hit in found.hits]


def test_what_is_near_in_meaning_is_found(papers: Database) -> None:
    embed(papers, "meanings", Meanings())
    assert order(papers, "automobile", None) == ["automobile"]
    assert order(papers, "automobile", loaded()) == ["automobile", "car"]


def test_quotes_fields_minuses_and_filters_hold_for_it(papers: Database) -> None:
    embed(papers, "meanings", Meanings())
    assert order(papers, '"automobile"', loaded()) == ["automobile"]
    assert order(papers, "title:automobile", loaded()) == ["automobile"]
    assert order(papers, "automobile -car", loaded()) == ["automobile"]
    assert order(papers, "automobile family:bags", loaded()) == ["car"]
    assert order(papers, "automobile", loaded(), Filters(families=("sets",))) == ["automobile"]


def test_page_and_api_find_the_same(papers: Database, package: object) -> None:
    embed(papers, "meanings", Meanings())
    app = create_app(papers, settings=Settings(secret="x", answers_kept=0))
    app.state.semantic = loaded()
    client = TestClient(app, base_url="http://127.0.0.1")
    found = client.get("/api/papers/search?q=automobile&limit=1")
    further = client.get(found.links["next"]["url"])
    assert [entry["title"] for entry in (*found.json(), *further.json())] == ["automobile paper", "car paper"]
    assert "next" not in further.links
    assert "car paper" in client.get("/search?q=automobile").text


def test_a_paper_found_by_meaning_alone_is_shown_unmarked(papers: Database) -> None:
    with papers.session() as session:
        session.scalars(select(Paper).where(Paper.title_key == "car")).one().abstract = "<b>wheels</b> " * 100
    embed(papers, "meanings", Meanings())
    with papers.session() as session:
        hit = search(session, Query.parse("automobile"), semantic=loaded()).hits[1]
    assert "<mark>" not in hit.title + hit.passage
    assert hit.passage.startswith("&lt;b&gt;wheels")
    assert len(hit.passage.unescape()) < 310


def test_embedding_again_makes_only_what_is_missing_or_changed(papers: Database) -> None:
    encoder = Meanings()
    assert embed(papers, "meanings", encoder) == 5
    assert embed(papers, "meanings", encoder) == 0
    with papers.session() as session:
        session.scalars(select(Paper).where(Paper.title_key == "car")).one().summary = "rose"
        session.add(Paper(title="game two", title_key="new"))
    encoder.seen.clear()
    assert embed(papers, "meanings", encoder) == 2
    assert encoder.seen == ["car paper\nrose", "game two"]
    assert embed(papers, "another model", encoder) == 6


def test_an_embedding_that_was_stopped_goes_on(papers: Database) -> None:
    class Stopping(Meanings):
        def encode(self, sentences: list[str]) -> np.ndarray:
            if len(self.seen) >= 4:
                raise KeyboardInterrupt
            return super().encode(sentences)

    with pytest.raises(KeyboardInterrupt):
        embed(papers, "meanings", Stopping(), batch=2)
    rest = Meanings()
    told: list[tuple[int, int]] = []
    assert embed(papers, "meanings", rest, batch=2, progress=lambda done, total: told.append((done, total))) == 1
    assert rest.seen == ["game paper"]
    assert told[-1] == (5, 5)


def test_the_vectors_of_a_searcher_follow_the_database(papers: Database) -> None:
    semantic, encoder = loaded(), Meanings()
    assert order(papers, "automobile", semantic) == ["automobile"]  # nothing is embedded yet
    embed(papers, "meanings", encoder)
    assert order(papers, "automobile", semantic) == ["automobile", "car"]
    with papers.session() as session:
        changed = session.scalars(select(Paper).where(Paper.title_key == "car")).one()
        changed.title = "flower paper"
        session.add(Paper(title="car", title_key="late"))
        session.delete(session.scalars(select(Paper).where(Paper.title_key == "rose")).one())
    embed(papers, "meanings", encoder)
    assert order(papers, "automobile", semantic) == ["automobile", "late"]
    assert order(papers, "rose", semantic) == ["flower", "car"]


def test_the_nearest_are_those_of_a_scan(new_url: Callable[..., str], migrated_url: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    class Known:
        def encode(self, sentences: list[str]) -> np.ndarray:
            return vectors[[int(text) for text in sentences]]

    database = Database(new_url(migrated_url))
    with database.session() as session:
        session.add_all(Paper(id=number + 1, title=str(number), title_key=str(number)) for number in range(300))
    embed(database, "meanings", Known(), batch=32)
    with database.session() as session:
        for number in range(0, 300, 60):
            cosines = [float(np.dot(vectors[number], other)) for other in vectors]
            expected = sorted(range(300), key=lambda other: -cosines[other])
            expected = [other + 1 for other in expected if cosines[other] >= LEAST_SIMILARITY][:20]
            assert [found for found, _ in loaded(Known()).nearest(session, str(number), 20)] == expected
            paper = session.get_one(Paper, number + 1)
            alike = similar(session, paper, 5, semantic=loaded(Known()))
            assert [other.id for other in alike] == expected[1:6]


@pytest.mark.parametrize("when", ["loading", "encoding", "other size", "not numbers"])
def test_a_broken_model_leaves_search_by_words(when: str, papers: Database, caplog: pytest.LogCaptureFixture) -> None:
    embed(papers, "meanings", Meanings())

    class Broken:
        def encode(self, sentences: list[str]) -> np.ndarray:
            if when == "encoding":
                raise RuntimeError("out of memory")
            return np.ones((len(sentences), 7)) if when == "other size" else np.full((len(sentences), 3), np.nan)

    def load(name: str) -> Broken:
        if when == "loading":
            raise OSError("no such model")
        return Broken()

    semantic = Semantic("meanings", load)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        semantic.load()
        for _ in range(3):
            assert order(papers, "automobile", semantic) == ["automobile"]
    assert len(caplog.records) == 1


def test_the_first_search_does_not_wait_for_the_model(papers: Database) -> None:
    import threading

    embed(papers, "meanings", Meanings())
    go_on = threading.Event()

    def load(name: str) -> Meanings:
        go_on.wait(60)
        return Meanings()

    semantic = Semantic("meanings", load)
    assert order(papers, "automobile", semantic) == ["automobile"]
    go_on.set()
    assert semantic._loading is not None
    semantic._loading.join(60)
    assert order(papers, "automobile", semantic) == ["automobile", "car"]


def test_vectors_are_of_unit_length_and_named_after_the_model(papers: Database) -> None:
    embed(papers, "x" * 300, Meanings())
    with papers.session() as session:
        for row in session.scalars(select(Embedding)):
            assert row.model == "x" * 200
            assert np.linalg.norm(np.frombuffer(row.vector, "<f4")) == pytest.approx(1)


class TestTheCommand:
    """``offprint embed`` with the encoder of known vectors in the place of a model."""

    @pytest.fixture
    def run(self, papers: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
        monkeypatch.setenv("OFFPRINT_DATABASE_URL", papers.url.render_as_string(hide_password=False))
        monkeypatch.delenv("OFFPRINT_SEMANTIC_MODEL", raising=False)

        def run(encoder: object, *options: str) -> Result:
            def load(name: str) -> object:
                assert name == "meanings"
                if isinstance(encoder, Exception):
                    raise encoder
                return encoder

            monkeypatch.setattr("offprint.daily.search.semantic.load_encoder", load)
            return CliRunner().invoke(cli.app, ["embed", *options])

        return run

    @staticmethod
    def nearest(database: Database) -> dict[str, list[float]]:
        """Return the vector of each paper."""
        with database.session() as session:
            rows = session.execute(select(Paper.title_key, Embedding.model, Embedding.vector).join(Embedding)).all()
        assert {model for _, model, _ in rows} <= {"meanings"}
        return {key: np.frombuffer(vector, "<f4").tolist() for key, _, vector in rows}

    def test_vectors_are_made_once_and_anew_where_a_text_changes(
        self, run: Callable[..., Result], papers: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = Meanings()
        result = run(first, "--model", "meanings", "--batch", "2")
        assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "5 vectors made; the others were up to date")
        assert first.seen == [f"{word} paper" for word in MEANINGS]
        for word, vector in self.nearest(papers).items():
            known = np.array(MEANINGS[word])
            assert vector == pytest.approx(known / np.linalg.norm(known), abs=1e-6)
        with papers.session() as session:
            session.scalars(select(Paper).where(Paper.title_key == "game")).one().abstract = "flower"
        monkeypatch.setenv("OFFPRINT_SEMANTIC_MODEL", "meanings")  # as the site has it
        second = Meanings()
        assert "1 vectors made" in run(second).stdout
        assert second.seen == ["game paper\nflower"]
        assert self.nearest(papers)["game"] == pytest.approx([0, 0.5**0.5, 0.5**0.5], abs=1e-6)
        assert "0 vectors made" in run(Meanings()).stdout

    def test_one_that_was_stopped_goes_on(self, run: Callable[..., Result], papers: Database) -> None:
        class Stopped(Meanings):
            def encode(self, sentences: list[str]) -> np.ndarray:
                if self.seen:
                    raise KeyboardInterrupt
                return super().encode(sentences)

        assert run(Stopped(), "--model", "meanings", "--batch", "2").exit_code != 0
        assert list(self.nearest(papers)) == [*MEANINGS][:2]
        rest = Meanings()
        assert "3 vectors made" in run(rest, "--model", "meanings").stdout
        assert rest.seen == [f"{word} paper" for word in [*MEANINGS][2:]]

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (OSError("no such file"), "the model 'meanings' cannot be loaded: no such file"),
            (ModuleNotFoundError("x", name="sentence_transformers"), "needs sentence_transformers: pip install"),
        ],
    )
    def test_what_is_missing_is_told(
        self, error: Exception, told: str, run: Callable[..., Result], papers: Database
    ) -> None:
        result = run(error, "--model", "meanings")
        assert result.exit_code == 2
        assert told in result.stderr
        assert self.nearest(papers) == {}

    def test_without_a_model_it_says_where_to_name_one(self, run: Callable[..., Result]) -> None:
        result = run(Meanings())
        assert result.exit_code == 2
        assert "OFFPRINT_SEMANTIC_MODEL" in result.stderr


def test_fusion_is_the_sum_of_reciprocal_ranks() -> None:
    words, meaning = [5, 3, 8, 1], [8, 9, 5]
    scores = {5: 1 / 61 + 1 / 63, 3: 1 / 62, 8: 1 / 63 + 1 / 61, 1: 1 / 64, 9: 1 / 62}
    assert fused(words, meaning) == sorted(scores, key=lambda it: (-scores[it], [5, 3, 8, 1, 9].index(it)))
    assert fused(words) == words
    assert fused([], meaning) == meaning


@pytest.mark.slow  # to load the library takes ten seconds
class TestARealModel:
    """A transformer with random weights, made here and loaded by its path, with no network to be had."""

    @pytest.fixture
    def model(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        library = pytest.importorskip("sentence_transformers")
        torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
        monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network"))
        folder = tmp_path / "bert"
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            bert = transformers.BertModel(transformers.BertConfig(vocab_size=11, initializer_range=1.0, **sizes))
        bert.save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *MEANINGS, "paper"]))
        # Of a bare transformer, the library makes one that takes the mean over the tokens.
        library.SentenceTransformer(str(folder)).save(str(tmp_path / "model"))
        return tmp_path / "model"

    @staticmethod
    def expected(model: Path, texts: Sequence[str]) -> np.ndarray:
        """Return the unit vectors by the transformer alone: the mean over each text's own tokens."""
        import torch
        import transformers

        bert = transformers.BertModel.from_pretrained(str(model)).eval()
        tokens = {"[CLS]": 2, "[SEP]": 3} | {word: 5 + place for place, word in enumerate([*MEANINGS, "paper"])}
        rows = []
        for text in texts:
            numbers = [tokens.get(word, 1) for word in ("[CLS]", *text.split(), "[SEP]")]
            with torch.no_grad():
                row = bert(torch.tensor([numbers])).last_hidden_state[0].mean(0).numpy()
            rows.append(row / np.linalg.norm(row))
        return np.array(rows)

    @staticmethod
    def embed(database: Database, model: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Result:
        monkeypatch.setenv("OFFPRINT_DATABASE_URL", database.url.render_as_string(hide_password=False))
        return CliRunner().invoke(cli.app, ["embed", "--model", str(model), *more])

    @staticmethod
    def stored(database: Database) -> dict[str, np.ndarray]:
        with database.session() as session:
            rows = session.execute(select(Paper.title_key, Embedding.vector).join(Embedding)).all()
        return {key: np.frombuffer(vector, "<f4") for key, vector in rows}

    def test_its_vectors_are_stored_and_made_anew_where_a_text_changes(
        self, model: Path, papers: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = self.embed(papers, model, monkeypatch)
        assert first.exit_code == 0
        assert "5 vectors made; the others were up to date" in first.output
        vectors = self.stored(papers)
        by_hand = self.expected(model, [f"{word} paper" for word in MEANINGS])
        # Batches are padded, which changes the last digits.
        np.testing.assert_allclose([vectors[word] for word in MEANINGS], by_hand, atol=1e-5)
        assert "0 vectors made" in self.embed(papers, model, monkeypatch).output
        with papers.session() as session:
            session.scalars(select(Paper).where(Paper.title_key == "car")).one().summary = "rose"
        assert "1 vectors made" in self.embed(papers, model, monkeypatch).output
        changed = self.stored(papers)
        np.testing.assert_allclose(changed["car"], self.expected(model, ["car paper rose"])[0], atol=1e-5)
        assert all((changed[word] == vectors[word]).all() for word in MEANINGS if word != "car")

    def test_a_run_that_was_stopped_goes_on(
        self, model: Path, papers: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoder = load_encoder(str(model))
        encode, batches = encoder.encode, []

        def stopping(texts: list[str]) -> np.ndarray:
            if len(batches) == 2:
                raise KeyboardInterrupt
            batches.append(texts)
            return np.asarray(encode(texts))

        with monkeypatch.context() as patch:
            patch.setattr(encoder, "encode", stopping)
            patch.setattr("offprint.daily.search.semantic.load_encoder", lambda name: encoder)
            assert self.embed(papers, model, monkeypatch, "--batch", "2").exit_code != 0
        assert list(self.stored(papers)) == [*MEANINGS][:4]
        assert "1 vectors made" in self.embed(papers, model, monkeypatch, "--batch", "2").output
        by_hand = self.expected(model, [f"{word} paper" for word in MEANINGS])
        np.testing.assert_allclose([self.stored(papers)[word] for word in MEANINGS], by_hand, atol=1e-5)

    def test_the_nearest_in_meaning_are_found(
        self, model: Path, papers: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.embed(papers, model, monkeypatch)
        semantic = Semantic(str(model))
        semantic.load()
        cosines = self.expected(model, [f"{word} paper" for word in MEANINGS]) @ self.expected(model, ["rose paper"])[0]
        with papers.session() as session:
            found = semantic.nearest(session, "rose paper")
            keys = [session.get_one(Paper, number).title_key for number, _ in found]
        by_hand = sorted(zip(MEANINGS, cosines, strict=True), key=lambda pair: -pair[1])
        assert keys == [word for word, cosine in by_hand if cosine >= LEAST_SIMILARITY]
        assert keys[0] == "rose"
        assert found[0][1] == pytest.approx(1, abs=1e-5)
        assert [cosine for _, cosine in found] == pytest.approx([c for _, c in by_hand][: len(found)], abs=1e-5)
        assert len(keys) > 1
        assert order(papers, "rose paper", None) == ["rose"]
        assert order(papers, "rose paper", semantic) == keys

    def test_a_path_without_a_model_is_told(
        self, tmp_path: Path, papers: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("sentence_transformers")
        (tmp_path / "empty").mkdir()
        for path in (tmp_path / "nothing", tmp_path / "empty"):
            result = self.embed(papers, path, monkeypatch)
            assert result.exit_code == 2
            assert f"the model {str(path)!r} cannot be loaded" in result.stderr
        assert self.stored(papers) == {}
