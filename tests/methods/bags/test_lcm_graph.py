"""Message passing against a loop over nodes, and in PyTorch Geometric's own layers."""

from __future__ import annotations

import copy
import pickle
import sys

import pytest
import torch
from jaxtyping import config

from offprint.methods.bags.lcm import LCMAggregation
from offprint.methods.bags.lcm_aggregators import GRUAggregation, ReduceAggregation
from offprint.methods.bags.lcm_graph import LCMConv, to_geometric


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch shape checking off, as it is for users, so that what refuses bad input is the code itself."""
    monkeypatch.setitem(config.__dict__, "jaxtyping_disable", True)


# Unsorted by destination; node 3 has no in-neighbour, node 4 neither, and lies behind all others.
EDGES = torch.tensor([[0, 3, 1, 2, 0, 4, 2], [2, 1, 0, 2, 1, 2, 0]])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("edge_channels", [0, 2])
def test_a_layer_is_a_loop_over_nodes_and_their_in_neighbours(edge_channels):
    layer = LCMConv(3, 8, edge_channels=edge_channels, generator=0).eval()
    x, edges = normal(5, 3), normal(7, edge_channels, seed=1) if edge_channels else None
    found = layer(x, EDGES, edges)
    for v in range(5):
        incoming = [e for e in range(7) if EDGES[1, e] == v]
        parts = [torch.cat([x[EDGES[0, e]], x[v], *([] if edges is None else [edges[e]])]) for e in incoming]
        messages = layer.message(torch.stack(parts)).relu() if parts else torch.zeros(0, 8)
        folded = layer.aggr(messages, dim_size=1)[0]
        torch.testing.assert_close(found[v], layer.update(torch.cat([x[v], folded])), atol=1e-6, rtol=0)


def test_any_aggregator_fits():
    layer = LCMConv(3, 8, ReduceAggregation(8, 4, "max", generator=0), generator=0)
    assert layer(normal(5, 3), EDGES).shape == (5, 8)


@pytest.mark.parametrize("kind", [LCMAggregation, GRUAggregation])
def test_inside_a_layer_of_pytorch_geometric(kind):
    """Its plainest layer hands the aggregator the features of in-neighbours, edges as they come: unsorted."""
    geometric = pytest.importorskip("torch_geometric.nn")
    aggregate = kind(3, 8, generator=0).eval()
    layer = geometric.SimpleConv(aggr=to_geometric(aggregate)).eval()
    x = normal(5, 3)
    torch.testing.assert_close(layer(x, EDGES), aggregate(x[EDGES[0]], EDGES[1], dim_size=5), atol=0, rtol=0)
    assert {id(p) for p in layer.parameters()} == {id(p) for p in aggregate.parameters()}


def test_as_one_of_pytorch_geometric_it_can_be_saved_and_copied():
    """A copy has parameters of its own, and says the same."""
    geometric = pytest.importorskip("torch_geometric.nn")
    layer = geometric.SimpleConv(aggr=to_geometric(LCMAggregation(3, 8, generator=0))).eval()
    x = normal(5, 3)
    wanted = layer(x, EDGES)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        torch.testing.assert_close(other(x, EDGES), wanted, atol=0, rtol=0)
        assert not {id(p) for p in other.parameters()} & {id(p) for p in layer.parameters()}
    fresh = to_geometric(LCMAggregation(3, 8, generator=1)).eval()
    fresh.load_state_dict(layer.aggr_module.state_dict())
    torch.testing.assert_close(geometric.SimpleConv(aggr=fresh).eval()(x, EDGES), wanted, atol=0, rtol=0)


def test_without_pytorch_geometric_the_error_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.nn.aggr", None)
    with pytest.raises(ImportError, match=r"pip install 'offprint\[graph\]'"):
        to_geometric(LCMAggregation(3, 8))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: LCMConv(3, 8, ReduceAggregation(4, 8)), "aggr"),
        (lambda: LCMConv(3, 8, edge_channels=-1), "edge_channels"),
        (lambda: LCMConv(3, 8)(normal(5, 2), EDGES), "x"),
        (lambda: LCMConv(3, 8)(normal(4, 3), EDGES), "edge_index"),
        (lambda: LCMConv(3, 8)(normal(5, 3), EDGES.T), "edge_index"),
        (lambda: LCMConv(3, 8)(normal(5, 3), EDGES, normal(7, 2)), "edge_attr"),
        (lambda: LCMConv(3, 8, edge_channels=2)(normal(5, 3), EDGES, normal(6, 2)), "edge_attr"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.usefixtures("unchecked")
def test_only_aggregators_become_geometric():
    with pytest.raises(TypeError, match="aggregation"):
        to_geometric(torch.nn.Linear(3, 8))
