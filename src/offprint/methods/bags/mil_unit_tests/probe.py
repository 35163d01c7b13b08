"""Insert rows into bags, one at a time, and watch whether a score falls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from offprint.methods.bags.mil_unit_tests.calling import Call, Caller, Output
from offprint.methods.bags.mil_unit_tests.training import score
from offprint.methods.bags.ragged import RaggedBags
from offprint.models.batches import check_count
from offprint.models.randomness import as_generator


@dataclass(frozen=True, eq=False)
class MonotonicityProbe:
    """How far scores fell when one row was inserted.

    Parameters
    ----------
    largest_drop : float
        The largest fall, at least 0: 0 where no score fell.
    mean_drop : float
        The mean over all insertions, those that lowered nothing counted as 0.
    drops : tensor, shape (insertions,)
        Score before less score after, largest first; negative where the score rose.
    bags, probes : int64 tensors, shape (insertions,)
        The witnesses: which bag each drop was in, and which row was inserted.
    """

    largest_drop: float
    mean_drop: float
    drops: Float[Tensor, " insertions"]
    bags: Int[Tensor, " insertions"]
    probes: Int[Tensor, " insertions"]


def monotonicity_probe(
    model: Callable[..., Any],
    bags: RaggedBags,
    probes: Float[Tensor, "rows features"] | None = None,
    *,
    n: int = 1000,
    call: Call = "auto",
    output: Output | None = None,
    generator: torch.Generator | int = 0,
) -> MonotonicityProbe:
    """Insert one row into one bag, many times, and return how far the model's score fell.

    A model that keeps to the assumption of multiple-instance learning never falls: what a bag holds besides cannot
    unmake it positive. A fall is a proof of the contrary, with the bag and the row to show; no fall says so for the
    insertions that were tried.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Scores bags. A function is called with :class:`.RaggedBags` unless ``call`` says otherwise.
    bags : RaggedBags
        Rows of shape (n, features), finite, as the model takes them (scaled, if it was trained so).
    probes : tensor, shape (rows, features), optional
        Rows to insert, finite; by default those of the bags themselves.
    n : int
        Insertions, each of a random row into a random bag, at least 1.
    call : {"auto", "padded", "ragged", "list", "bag"}
        How the model is called.
    output : callable, optional
        Turns what the model returns into one score per bag.
    generator : torch.Generator or int
        Chooses bags and rows; an int is a seed.

    Returns
    -------
    MonotonicityProbe

    Raises
    ------
    ValueError
        If rows are of unequal lengths or not finite, or the model returns NaN or another shape.
    TypeError
        If bags are no RaggedBags.

    Notes
    -----
    Scores n bags besides the given ones.

    Examples
    --------
    A model that averages is lowered by a row below the average:

    >>> bags = RaggedBags.from_list([torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0]])])
    >>> found = monotonicity_probe(lambda bags: torch.stack([bag.mean() for bag in bags]), bags, n=50)
    >>> found.largest_drop, bags[int(found.bags[0])].tolist(), bags.values[found.probes[0]].tolist()
    (2.0, [[5.0]], [1.0])

    References
    ----------
    Raff and Holt, *Reproducibility in Multiple Instance Learning: A Case For Algorithmic Unit Tests*, arXiv:2310.17867,
    for the assumption; the probe is this project's own.
    """
    if not isinstance(bags, RaggedBags):
        raise TypeError(f"bags must be RaggedBags; got {type(bags).__name__}")
    check_count("n", n)
    probes = bags.values if probes is None else probes
    for name, rows in (("bags", bags.values), ("probes", probes)):
        if rows.ndim != 2 or rows.shape[1] != bags.values.shape[1]:
            raise ValueError(f"{name} must hold rows of shape (n, {bags.values.shape[-1]}); got {tuple(rows.shape)}")
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"{name} must be finite; they hold NaN or infinity")
    source = as_generator(generator)
    chosen = torch.randint(bags.n_bags, (n,), generator=source, device=source.device).cpu()
    inserted = torch.randint(len(probes), (n,), generator=source, device=source.device).cpu()
    before = _scores(model, bags, call, output)[chosen]
    taken = bags.take(chosen)
    own = torch.arange(n, device=taken.ids.device)
    larger = RaggedBags.from_ids(torch.cat([taken.values, probes[inserted]]), torch.cat([taken.ids, own]))
    drops = before - _scores(model, larger, call, output)
    if not bool(torch.isfinite(drops).all()):
        raise ValueError("model must return finite scores; it returned NaN or infinity")
    order = drops.argsort(descending=True)
    falls = drops.clamp(min=0)
    return MonotonicityProbe(float(falls.max()), float(falls.mean()), drops[order], chosen[order], inserted[order])


def _scores(model: Callable[..., Any], bags: RaggedBags, call: Call, output: Output | None) -> Tensor:
    if isinstance(model, nn.Module):
        return score(model, bags, call=call, output=output, device=bags.values.device)
    with torch.no_grad():
        return Caller("ragged" if call == "auto" else call, output)(model, bags).cpu()
