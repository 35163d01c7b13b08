"""The other aggregators against loops over sets, torch's own GRU and PyTorch Geometric's PNA."""

from __future__ import annotations

import copy

import pytest
import torch
from jaxtyping import config
from torch import nn

from offprint.methods.bags.lcm_aggregators import GRUAggregation, PNAAggregation, ReduceAggregation


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


SIZES = (3, 0, 1, 7)
INDEX = torch.arange(4).repeat_interleave(torch.tensor(SIZES))


def rows(seed: int = 0) -> torch.Tensor:
    return torch.randn(sum(SIZES), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("reduce", "by_hand"),
    [("sum", lambda z: z.sum(0)), ("mean", lambda z: z.mean(0)), ("max", lambda z: z.amax(0)), ("attention", None)],
)
def test_reductions_are_those_of_each_set_and_zeros_of_an_empty_one(reduce, by_hand):
    aggregate, x = ReduceAggregation(3, 5, reduce, generator=0).double(), rows()
    found = aggregate(x, INDEX)
    for k, vector in enumerate(found):
        z = aggregate.lin(x[k == INDEX]).relu()
        wanted = torch.zeros(5, dtype=torch.float64)
        if len(z) and by_hand is not None:
            wanted = by_hand(z)
        elif len(z):
            wanted = torch.softmax(aggregate.attention.logits(z)[:, 0], 0) @ z
        torch.testing.assert_close(vector, wanted)


def test_pna_is_that_of_pytorch_geometric():
    """Its degree scaler, with every training set of size 4; 1e-6, as its variance is a difference of two moments."""
    aggr = pytest.importorskip("torch_geometric.nn.aggr")
    aggregate, x = PNAAggregation(3, 5, 4.0, generator=0).double(), rows()
    histogram = torch.tensor([0, 0, 0, 0, 10])
    names = ["mean", "max", "min", "std"], ["identity", "amplification", "attenuation"]
    theirs = aggr.DegreeScalerAggregation(*names, deg=histogram)
    z = aggregate.lin(x).relu()
    wanted = aggregate.out(theirs(z, INDEX, dim_size=4))
    present = [0, 2, 3]  # the two scale what an empty set's bias becomes differently
    torch.testing.assert_close(aggregate(x, INDEX, dim_size=4)[present], wanted[present], atol=1e-6, rtol=0)


@pytest.mark.parametrize("order", ["random", "given"])
@pytest.mark.parametrize("sizes", [SIZES, (4, 0, 4, 4)])
def test_the_recurrent_aggregator_reads_each_set_as_a_gru_does(order, sizes):
    """Sets of unequal and of equal sizes go different ways."""
    aggregate, index = GRUAggregation(3, 5, order, generator=0).double().eval(), torch.arange(4)
    index = index.repeat_interleave(torch.tensor(sizes))
    x = torch.cat([rows(), rows(1)])[: len(index)]
    found = aggregate(x, index)
    for k, size in enumerate(sizes):
        wanted = torch.zeros(5, dtype=torch.float64)
        if size:
            wanted = aggregate.gru(aggregate.lin(x[k == index]).relu())[1][0]
        torch.testing.assert_close(found[k], wanted)
    aggregate.train()
    assert torch.equal(aggregate(x, index), aggregate(x, index)) == (order == "given")


def test_swapping_two_elements_costs_what_the_formula_says():
    """With one element there is one state but the first, and both elements drawn are the same: no cost."""
    aggregate = GRUAggregation(3, 5, generator=0).double()
    alone = aggregate.regularisation(rows()[:1], generator=0)["swap"]
    assert alone.item() == 0
    x = rows()[:2]
    drawn = aggregate.regularisation(x, torch.tensor([0, 1]), n_triples=8192, generator=0)["swap"].item()
    z = aggregate.lin(x).relu()
    states = [torch.zeros(1, 5, dtype=torch.float64), *(aggregate.gru(row[None])[1] for row in z)]
    swaps = [
        (aggregate.gru(z, state)[1] - aggregate.gru(z.flip(0), state)[1]).square().sum().item() for state in states
    ]
    # Half of all pairs are of the same element. The draw is a mean of 8192 terms of at most max(swaps).
    assert drawn == pytest.approx(sum(swaps) / 6, rel=0.1)


def test_training_on_swaps_makes_order_matter_less():
    torch.manual_seed(0)
    aggregate = GRUAggregation(3, 8, generator=0)
    before = copy.deepcopy(aggregate)
    x = rows().float()
    optimizer = torch.optim.Adam(aggregate.parameters(), 1e-2)
    for _ in range(200):
        loss = aggregate.regularisation(x, INDEX, 64)["swap"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    old, new = (model.regularisation(x, INDEX, 1024, generator=1)["swap"].item() for model in (before, aggregate))
    assert new < old / 5


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ReduceAggregation(3, 5, "median"), "reduce"),
        (lambda: PNAAggregation(3, 5, 0.0), "mean_size"),
        (lambda: GRUAggregation(3, 5, "sorted"), "order"),
        (lambda: GRUAggregation(3, 5).regularisation(torch.ones(2, 3), n_triples=0), "n_triples"),
        (lambda: GRUAggregation(3, 5).regularisation(torch.ones(0, 3)), "x"),
        (lambda: nn.Sequential(ReduceAggregation(3, 5))(torch.ones(2, 4)), "x"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
