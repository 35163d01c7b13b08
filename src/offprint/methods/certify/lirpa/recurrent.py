"""Recurrent layers unrolled: one set of linear layers, sigmoids, tanhs and products for each step in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from offprint.methods.certify.lirpa.decompositions import register_decomposition
from offprint.methods.certify.lirpa.graph import Graph, Node
from offprint.methods.certify.lirpa.layers import dropout

aten = torch.ops.aten
Weights = Sequence["Node | None"]
# From the inputs' share of the gates, the state and the weights to the next state: (hidden,) or (hidden, cell).
Cell = Callable[[Graph, Node, "tuple[Node, ...]", Weights], "tuple[Node, ...]"]


def _gates(graph: Graph, gates: Node, count: int) -> list[Node]:
    size = gates.shape[-1] // count
    return [graph.call(aten.slice.Tensor, gates, -1, i * size, (i + 1) * size, 1) for i in range(count)]


def _hidden_part(graph: Graph, hidden: Node, weights: Weights) -> Node:
    return graph.call(aten.linear.default, hidden, weights[1], weights[3])


def _add(graph: Graph, x: Node, y: Node) -> Node:
    return graph.call(aten.add.Tensor, x, y)


def _multiply(graph: Graph, x: Node, y: Node) -> Node:
    return graph.call(aten.mul.Tensor, x, y)


def lstm_cell(graph: Graph, inputs: Node, state: tuple[Node, ...], weights: Weights) -> tuple[Node, ...]:
    """Return the next hidden and cell state."""
    hidden, cell = state
    parts = _gates(graph, _add(graph, inputs, _hidden_part(graph, hidden, weights)), 4)
    keep_in, forget, out = (graph.call(aten.sigmoid.default, parts[i]) for i in (0, 1, 3))
    fresh = _multiply(graph, keep_in, graph.call(aten.tanh.default, parts[2]))
    cell = _add(graph, _multiply(graph, forget, cell), fresh)
    return _multiply(graph, out, graph.call(aten.tanh.default, cell)), cell


def gru_cell(graph: Graph, inputs: Node, state: tuple[Node, ...], weights: Weights) -> tuple[Node, ...]:
    """Return the next hidden state."""
    (hidden,) = state
    ours, theirs = _gates(graph, inputs, 3), _gates(graph, _hidden_part(graph, hidden, weights), 3)
    reset, update = (graph.call(aten.sigmoid.default, _add(graph, ours[i], theirs[i])) for i in (0, 1))
    fresh = graph.call(aten.tanh.default, _add(graph, ours[2], _multiply(graph, reset, theirs[2])))
    change = _multiply(graph, update, graph.call(aten.sub.Tensor, hidden, fresh))
    return (_add(graph, fresh, change),)


def plain_cell(activation: Any) -> Cell:
    """Return the cell of a recurrent layer without gates."""

    def cell(graph: Graph, inputs: Node, state: tuple[Node, ...], weights: Weights) -> tuple[Node, ...]:
        return (graph.call(activation, _add(graph, inputs, _hidden_part(graph, state[0], weights))),)

    return cell


def _unrolled(
    graph: Graph,
    cell: Cell,
    x: Node,
    states: Sequence[Node],
    parameters: Sequence[Node],
    has_biases: bool,
    n_layers: int,
    probability: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Node, ...]:
    """Return the outputs at all times and the last states, all layers and directions one after the other."""
    time = 1 if batch_first and x.meta.ndim == 3 else 0
    n_weights = 4 if has_biases else 2
    n_directions = 2 if bidirectional else 1
    if len(parameters) != n_weights * n_layers * n_directions:
        raise ValueError(f"module {graph.module!r}: recurrent layers with projections are not supported")
    last: list[tuple[Node, ...]] = []
    for layer in range(n_layers):
        directions = []
        for direction in range(n_directions):
            index = layer * n_directions + direction
            weights: list[Node | None] = list(parameters[index * n_weights : (index + 1) * n_weights])
            weights += [None] * (4 - n_weights)
            state = tuple(graph.call(aten.select.int, one, 0, index) for one in states)
            shares = graph.call(aten.linear.default, x, weights[0], weights[2])
            outputs = []
            steps = range(x.shape[time])
            for step in reversed(steps) if direction else steps:
                state = cell(graph, graph.call(aten.select.int, shares, time, step), state, weights)
                outputs.append(state[0])
            last.append(state)
            directions.append(_stacked(graph, outputs[::-1] if direction else outputs, time))
        x = directions[0] if len(directions) == 1 else graph.call(aten.cat.default, directions, -1)
        if layer + 1 < n_layers:
            x = dropout(graph, x, probability, training)
    return (x, *(_stacked(graph, [state[i] for state in last], 0) for i in range(len(states))))


def _stacked(graph: Graph, tensors: Sequence[Node], axis: int) -> Node:
    return graph.call(aten.cat.default, [graph.call(aten.unsqueeze.default, one, axis) for one in tensors], axis)


@register_decomposition(aten.lstm.input)
def lstm(graph: Graph, x: Node, states: Sequence[Node], *args: Any) -> tuple[Node, ...]:
    """Unroll ``nn.LSTM``."""
    return _unrolled(graph, lstm_cell, x, states, *args)


@register_decomposition(aten.gru.input)
def gru(graph: Graph, x: Node, state: Node, *args: Any) -> tuple[Node, ...]:
    """Unroll ``nn.GRU``."""
    return _unrolled(graph, gru_cell, x, [state], *args)


@register_decomposition(aten.rnn_tanh.input)
def rnn_tanh(graph: Graph, x: Node, state: Node, *args: Any) -> tuple[Node, ...]:
    """Unroll ``nn.RNN``."""
    return _unrolled(graph, plain_cell(aten.tanh.default), x, [state], *args)


@register_decomposition(aten.rnn_relu.input)
def rnn_relu(graph: Graph, x: Node, state: Node, *args: Any) -> tuple[Node, ...]:
    """Unroll ``nn.RNN`` with rectifiers."""
    return _unrolled(graph, plain_cell(aten.relu.default), x, [state], *args)


@register_decomposition(aten.lstm_cell.default)
def one_lstm_cell(graph: Graph, x: Node, states: Sequence[Node], *weights: Node | None) -> tuple[Node, ...]:
    """Take ``nn.LSTMCell`` apart."""
    weights = (*weights, None, None)
    shares = graph.call(aten.linear.default, x, weights[0], weights[2])
    return lstm_cell(graph, shares, tuple(states), weights)


@register_decomposition(aten.gru_cell.default)
def one_gru_cell(graph: Graph, x: Node, state: Node, *weights: Node | None) -> Node:
    """Take ``nn.GRUCell`` apart."""
    weights = (*weights, None, None)
    return gru_cell(graph, graph.call(aten.linear.default, x, weights[0], weights[2]), (state,), weights)[0]
