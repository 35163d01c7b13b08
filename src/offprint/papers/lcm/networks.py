"""Graph tasks with known answers, digits as sets of pixels, and the networks that learn them with any aggregator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from offprint.methods.bags.lcm_graph import LCMConv
from offprint.methods.bags.lcm_sets import SetAggregation
from offprint.methods.bags.ragged import segment_max, segment_mean
from offprint.models.mlp import MLP

NODE_TARGETS = ("shortest path", "eccentricity", "Laplacian feature")
GRAPH_TARGETS = ("connectivity", "diameter", "spectral radius")
Aggregator = Callable[[int, torch.Generator], SetAggregation]


@dataclass(frozen=True)
class Graphs:
    """Graphs side by side: features and targets of their nodes, edges, the graph of each node, targets of graphs."""

    x: Float[Tensor, "nodes 2"]
    edge_index: Int[Tensor, "two edges"]
    graph: Int[Tensor, " nodes"]
    node_targets: Float[Tensor, "nodes 3"]
    graph_targets: Float[Tensor, "graphs 3"]


def random_graph(n_nodes: int, rng: np.random.Generator) -> nx.Graph:
    """Draw a graph of one of six families."""
    seed = int(rng.integers(2**31))
    side = max(2, int(np.sqrt(n_nodes)))
    families: Sequence[Callable[[], nx.Graph]] = (
        lambda: nx.gnp_random_graph(n_nodes, float(rng.uniform(0.1, 0.4)), seed=seed),
        lambda: nx.barabasi_albert_graph(n_nodes, int(rng.integers(1, 4)), seed=seed),
        lambda: nx.convert_node_labels_to_integers(nx.grid_2d_graph(side, -(-n_nodes // side))),
        lambda: nx.random_labeled_tree(n_nodes, seed=seed),
        lambda: nx.cycle_graph(n_nodes),
        lambda: nx.star_graph(n_nodes - 1),
    )
    graph = families[int(rng.integers(len(families)))]()
    order = dict(enumerate(rng.permutation(len(graph)).tolist()))
    return nx.relabel_nodes(graph, order)


def draw_graphs(n_graphs: int, sizes: tuple[int, int], rng: np.random.Generator) -> list[Graphs]:
    """Draw graphs with sizes uniform between two bounds, each with a marked source and a random feature per node."""
    return [_with_targets(random_graph(int(rng.integers(sizes[0], sizes[1] + 1)), rng), rng) for _ in range(n_graphs)]


def union(graphs: Sequence[Graphs]) -> Graphs:
    """Put graphs side by side as one."""
    sizes = torch.tensor([len(graph.x) for graph in graphs])
    starts = sizes.cumsum(0) - sizes
    return Graphs(
        torch.cat([graph.x for graph in graphs]),
        torch.cat([graph.edge_index + start for graph, start in zip(graphs, starts, strict=True)], 1),
        torch.arange(len(graphs)).repeat_interleave(sizes),
        torch.cat([graph.node_targets for graph in graphs]),
        torch.cat([graph.graph_targets for graph in graphs]),
    )


class GraphNetwork(nn.Module):
    """One message-passing layer used several times over, with three outputs a node and three a graph."""

    def __init__(self, aggregator: Aggregator, width: int, n_rounds: int, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = MLP(2, [], width, generator=generator)
        self.layer = LCMConv(width, width, aggregator(width, generator), generator=generator)
        self.nodes = MLP(width, [width], 3, generator=generator)
        self.graphs = MLP(2 * width, [width], 3, generator=generator)
        self.n_rounds = n_rounds

    def forward(self, batch: Graphs) -> tuple[Float[Tensor, "nodes 3"], Float[Tensor, "graphs 3"]]:
        """Return what it says of every node and every graph."""
        h = self.encoder(batch.x)
        for _ in range(self.n_rounds):
            h = h + self.layer(h, batch.edge_index).relu()
            h = nn.functional.layer_norm(h, h.shape[-1:])
        n = len(batch.graph_targets)
        pooled = torch.cat([segment_mean(h, batch.graph, n), segment_max(h, batch.graph, n)], 1)
        return self.nodes(h), self.graphs(pooled)

    def errors(self, batch: Graphs) -> Float[Tensor, " targets"]:
        """Return the mean squared error of each of the six targets."""
        nodes, graphs = self(batch)
        of_nodes = (nodes - batch.node_targets).square().mean(0)
        return torch.cat([of_nodes, (graphs - batch.graph_targets).square().mean(0)])


class PixelSets(nn.Module):
    """Classify an 8 x 8 image as a set of pixels: row, column and intensity of each, encoded, aggregated, read off."""

    side = 8
    contrast = 4.0
    """Brings one-hot places, weighed by intensities of 0 to 1, to about unit variance."""

    def __init__(self, aggregator: Aggregator, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            MLP(2 * self.side + 1, [width], width, normalization="layer", generator=generator), nn.LayerNorm(width)
        )
        self.aggregation = aggregator(width, generator)
        # Most of what is pooled is the same for all images, and drowns what tells them apart unless it is taken away.
        self.norm = nn.BatchNorm1d(width)
        # Those that read a set in some order are trained on random ones: reading order would be one they never saw.
        order = torch.randperm(self.side**2, generator=generator, device=generator.device)
        self.rows, self.columns = order // self.side, order % self.side
        self.head = MLP(width, [width], 10, generator=generator)

    def forward(self, images: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch 10"]:
        """Return logits of images of shape (batch, 64)."""
        n, n_pixels = images.shape
        one_hot = torch.eye(self.side, device=images.device)
        places = torch.cat([one_hot[self.rows], one_hot[self.columns]], 1).expand(n, -1, -1)
        lit = self.contrast * images[:, self.side * self.rows + self.columns, None]
        x = self.encoder(torch.cat([lit * places, lit], 2).flatten(0, 1))
        index = torch.arange(n, device=images.device).repeat_interleave(n_pixels)
        logits: Tensor = self.head(self.norm(self.aggregation(x, index, dim_size=n)))
        return logits


def _with_targets(graph: nx.Graph, rng: np.random.Generator) -> Graphs:
    """Compute all targets, distances, sums and eigenvalues in units of five."""
    n = len(graph)
    distance = np.full((n, n), np.nan)
    for source, reached in nx.all_pairs_shortest_path_length(graph):
        distance[source, list(reached)] = list(reached.values())
    feature, source = rng.standard_normal(n), int(rng.integers(n))
    adjacency = nx.to_numpy_array(graph, nodelist=range(n))
    eccentricity = np.nanmax(distance, 1)
    nodes = [
        np.nan_to_num(distance[source], nan=0.0) / 5,
        eccentricity / 5,
        (adjacency.sum(1) * feature - adjacency @ feature) / 5,
    ]
    connected = float(np.isfinite(distance).all())
    graphs = [connected, eccentricity.max() / 5, float(np.linalg.eigvalsh(adjacency)[-1]) / 5]
    edges = np.argwhere(adjacency).T
    return Graphs(
        torch.tensor(np.stack([np.arange(n) == source, feature], 1), dtype=torch.float32),
        torch.tensor(edges, dtype=torch.int64),
        torch.zeros(n, dtype=torch.int64),
        torch.tensor(np.stack(nodes, 1), dtype=torch.float32),
        torch.tensor([graphs], dtype=torch.float32),
    )
