"""Making the vectors of papers: those that are missing, and those whose text has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from offprint.daily.search.semantic import Encoder, stored_name, unit_vectors
from offprint.store import Database, Embedding, Paper

BATCH = 64
CHUNK = 1000


def embed(
    database: Database,
    model: str,
    encoder: Encoder,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    batch: int = BATCH,
) -> int:
    """Store the vectors of all papers that have none of their present text, and return how many were made.

    Each batch is stored when it is there, so that a run that was stopped goes on where it stopped.

    Parameters
    ----------
    database : Database
    model : str
        The name of the model, under which the vectors are stored.
    encoder : Encoder
        The model.
    progress : callable, optional
        Told after each batch how many of how many papers are done.
    batch : int
        How many papers are encoded at once.
    """
    name, made = stored_name(model), 0
    with database.session() as session:
        total, last = session.execute(select(func.count(Paper.id), func.max(Paper.id))).one()
    done, after = 0, 0
    while after < (last or 0):
        with database.session() as session:
            seen, stale = _stale(session, name, after)
        if not seen:
            break
        for start in range(0, len(stale), batch):
            part = stale[start : start + batch]
            vectors = unit_vectors(encoder, [text for _, text in part])
            with database.session() as session:
                present = set(session.scalars(select(Paper.id).where(Paper.id.in_([number for number, _ in part]))))
                for (number, text), vector in zip(part, vectors, strict=True):
                    if number in present:
                        stored = Embedding(paper_id=number, model=name, text_hash=text_hash(text))
                        stored.vector = vector.astype("<f4").tobytes()
                        session.merge(stored)
            made += len(part)
            progress(done + start + len(part), total)
        done, after = done + len(seen), seen[-1]
        progress(done, total)
    return made


def paper_text(title: str, *parts: str | None) -> str:
    """Return what a paper's vector is made of: its title, summary, claims and abstract."""
    return "\n".join([title, *(part for part in parts if part)])


def text_hash(text: str) -> str:
    """Return what tells one version of a text from another."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _stale(session: Session, model: str, after: int) -> tuple[list[int], list[tuple[int, str]]]:
    """Return the next papers by id, and of those without a vector of their present text also the text."""
    joined = (Embedding.paper_id == Paper.id) & (Embedding.model == model)
    columns = Paper.id, Embedding.text_hash, Paper.title, Paper.summary, Paper.claims_text, Paper.abstract
    rows = select(*columns).outerjoin(Embedding, joined).where(Paper.id > after).order_by(Paper.id).limit(CHUNK)
    found = [(row[0], row[1], paper_text(*row[2:])) for row in session.execute(rows)]
    stale = [(number, text) for number, known, text in found if known != text_hash(text)]
    return [number for number, _, _ in found], stale
