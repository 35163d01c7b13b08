"""Search by meaning: papers as vectors made by a sentence-transformers model, the nearest found by brute force.

The vectors are stored in the database, and kept in memory as one matrix by whoever searches: 100,000 papers with 384
numbers each are 154 MB, and one search is one product of that matrix with a vector. Where the model is missing or
broken, search goes on without it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from offprint.store import Embedding

Vectors = NDArray[np.float32]

DEPTH = 100
"""How many of the nearest papers take part in the fusion with those found by words."""

LEAST_SIMILARITY = 0.3
"""The cosine from which on a paper is near enough; unrelated texts of one field are below with the usual models."""

OVERLAP = timedelta(minutes=1)
"""How far back vectors are read again, for those whose writing took a moment."""

log = logging.getLogger(__name__)


class Encoder(Protocol):
    """What turns texts into vectors, as models of sentence-transformers do."""

    def encode(self, sentences: list[str], /) -> Any:
        """Return one row for each text."""


def load_encoder(model: str) -> Encoder:
    """Load a sentence-transformers model by name or path.

    Raises
    ------
    ModuleNotFoundError
        If the extra ``semantic`` is not installed.
    """
    from sentence_transformers import SentenceTransformer

    encoder: Encoder = SentenceTransformer(model)
    return encoder


def unit_vectors(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    """Return the vectors of texts, each of length one."""
    vectors = np.asarray(encoder.encode(list(texts)), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise ValueError(f"the model gave an array of shape {vectors.shape} for {len(texts)} texts, or no numbers")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


def stored_name(model: str) -> str:
    """Return the name under which a model's vectors are stored; the end of one that is too long."""
    return model[-200:]


class Semantic:
    """A model, and the vectors that it made of the papers.

    Parameters
    ----------
    model : str
        A sentence-transformers model by name or path.
    load : callable
        Loads it, in a thread of its own when it is first asked for: until then search is by words.
    """

    def __init__(self, model: str, load: Callable[[str], Encoder] = load_encoder) -> None:
        self.model = stored_name(model)
        self._load: Callable[[], Encoder] = partial(load, model)
        self._encoder: Encoder | None = None
        self._loading: threading.Thread | None = None
        self._broken = False
        self._lock = threading.Lock()
        self._matrix = Matrix(self.model)
        self._vector: Callable[[str], Vectors] = lru_cache(maxsize=1000)(self._encode)

    def load(self) -> None:
        """Load the model now. One that cannot be loaded is reported once, and search goes on by words."""
        try:
            self._encoder = self._load()
        except Exception as error:
            self._give_up(error)

    def nearest(self, session: Session, text: str, limit: int = DEPTH) -> list[tuple[int, float]]:
        """Return the papers nearest to a text as (id, cosine); none while there is no model or no vector."""
        if not self._ready():
            return []
        try:
            return self._matrix.nearest(session, self._vector(text), limit, LEAST_SIMILARITY)
        except Exception as error:
            self._give_up(error)
            return []

    def like(self, session: Session, paper: int, limit: int) -> list[int]:
        """Return the papers nearest to a paper, without itself; none when it has no vector. Needs no model."""
        vector = self._matrix.vector(session, paper)
        if vector is None:
            return []
        found = self._matrix.nearest(session, vector, limit + 1, LEAST_SIMILARITY)
        return [number for number, _ in found if number != paper][:limit]

    def _encode(self, text: str) -> Vectors:
        assert self._encoder is not None
        with self._lock:
            vector: Vectors = unit_vectors(self._encoder, [text])[0]
        return vector

    def _ready(self) -> bool:
        with self._lock:
            if self._encoder is None and self._loading is None and not self._broken:
                self._loading = threading.Thread(target=self.load, name="semantic model", daemon=True)
                self._loading.start()
        return self._encoder is not None and not self._broken

    def _give_up(self, error: Exception) -> None:
        if not self._broken:
            log.warning("search goes on without the model %s: %s: %s", self.model, type(error).__name__, error)
        self._broken = True


class Matrix:
    """The stored vectors of one model, as rows of one matrix; what was stored since is read at the next look."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._lock = threading.Lock()
        self._ids = np.empty(0, dtype=np.int64)
        self._rows: Vectors = np.empty((0, 0), dtype=np.float32)
        self._seen: datetime | None = None

    def nearest(self, session: Session, vector: Vectors, limit: int, least: float) -> list[tuple[int, float]]:
        """Return the rows with the largest cosine, from ``least`` on, as (id, cosine); ties by the larger id."""
        ids, rows = self._current(session)
        if not len(ids):
            return []
        if rows.shape[1] != len(vector):
            raise ValueError(f"the stored vectors have {rows.shape[1]} numbers, the model's {len(vector)}")
        similar = rows @ vector
        places = np.arange(len(ids)) if len(ids) <= limit else np.argpartition(-similar, limit)[:limit]
        places = places[similar[places] >= least]
        order = places[np.lexsort((-ids[places], -similar[places]))]
        return [(int(ids[place]), float(similar[place])) for place in order]

    def vector(self, session: Session, paper: int) -> Vectors | None:
        """Return a paper's vector, if it has one."""
        ids, rows = self._current(session)
        place = int(np.searchsorted(ids, paper))
        return rows[place] if place < len(ids) and ids[place] == paper else None

    def _current(self, session: Session) -> tuple[NDArray[np.int64], Vectors]:
        newest = session.scalar(select(func.max(Embedding.embedded_at)).where(Embedding.model == self.model))
        with self._lock:
            if newest is not None and newest != self._seen:
                self._read(session, newest)
            return self._ids, self._rows

    def _read(self, session: Session, newest: datetime) -> None:
        """Read what was stored since the last time, and put it into the matrix by id."""
        changed = select(Embedding.paper_id, Embedding.vector).where(Embedding.model == self.model)
        if self._seen is not None:
            changed = changed.where(Embedding.embedded_at >= self._seen - OVERLAP)
        found = session.execute(changed.order_by(Embedding.paper_id)).all()
        ids = np.fromiter((row[0] for row in found), np.int64, len(found))
        width = len(found[-1][1]) if found else 0
        kept = np.fromiter((len(row[1]) == width for row in found), bool, len(found))
        content = b"".join(row[1] for row in found if len(row[1]) == width)
        rows = np.frombuffer(content, dtype="<f4").astype(np.float32, copy=False).reshape(int(kept.sum()), width // 4)
        ids = ids[kept]
        if self._seen is not None and self._rows.shape[1] == rows.shape[1]:
            old = ~np.isin(self._ids, ids)
            ids, rows = np.concatenate([self._ids[old], ids]), np.concatenate([self._rows[old], rows])
            order = np.argsort(ids)
            ids, rows = ids[order], rows[order]
        self._ids, self._rows, self._seen = ids, rows, newest
