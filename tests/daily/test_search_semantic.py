"""Search by meaning: with an encoder whose vectors are known, against distances computed one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from offprint.daily.search import Filters, Query, Semantic, search, similar
from offprint.daily.search.embedding import embed
from offprint.daily.search.searching import fused
from offprint.daily.search.semantic import LEAST_SIMILARITY, load_encoder
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


def test_fusion_is_the_sum_of_reciprocal_ranks() -> None:
    words, meaning = [5, 3, 8, 1], [8, 9, 5]
    scores = {5: 1 / 61 + 1 / 63, 3: 1 / 62, 8: 1 / 63 + 1 / 61, 1: 1 / 64, 9: 1 / 62}
    assert fused(words, meaning) == sorted(scores, key=lambda it: (-scores[it], [5, 3, 8, 1, 9].index(it)))
    assert fused(words) == words
    assert fused([], meaning) == meaning


def test_a_real_model(papers: Database, tmp_path: Path) -> None:
    """A transformer with random weights, made here: what is the same text is nearest."""
    library = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *MEANINGS, "paper"]))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.BertModel(transformers.BertConfig(vocab_size=11, **sizes)).save_pretrained(tmp_path / "bert")
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    parts = library.models
    words = parts.Transformer(str(tmp_path / "bert"))
    pooling = parts.Pooling(words.get_word_embedding_dimension())
    library.SentenceTransformer(modules=[words, pooling]).save(str(tmp_path / "model"))
    encoder = load_encoder(str(tmp_path / "model"))
    assert embed(papers, "real", encoder) == 5
    semantic = Semantic("real", lambda name: encoder)
    semantic.load()
    with papers.session() as session:
        [(nearest, cosine), *_] = semantic.nearest(session, "rose paper")
        assert session.get_one(Paper, nearest).title_key == "rose"
    assert cosine == pytest.approx(1, abs=1e-5)
