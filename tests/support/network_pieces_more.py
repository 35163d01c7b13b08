"""Further pieces of random networks: reductions, views, indexing, masks, normalisation and recurrent layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from network_pieces import many, piece
from random_networks import Builder, Piece, Ref

aten = torch.ops.aten


# --- reductions -------------------------------------------------------------------------------------------------------


def _over_axes(target: Any, listed: bool = True, keep: bool = True) -> Piece:
    """Return a piece that reduces one axis of a sequence or an image, or two."""

    def apply(b: Builder, x: Ref, _: Ref) -> Ref:
        x = b.sequence(x) if b.flag() else b.image(x, 2)
        n_axes = len(b.shape(x))
        axes = b.choose([1], [-1], [1, -1]) if listed else b.choose(1, n_axes - 1, -1)
        return b.call(target, x, axes, b.flag()) if keep else b.call(target, x, axes)

    return apply


def _over_all(target: Any) -> Piece:
    """Return a piece that reduces everything, which only a single sample allows, and adds that to the input."""

    def apply(b: Builder, x: Ref, _: Ref) -> Ref:
        return b.call(aten.add.Tensor, x, b.call(target, x), alpha=0.3)

    return apply


# Pieces that mix all that is on the first axis.
OF_ONE_SAMPLE = {"mean_all", "sum_all", "max_all", "min_all"}
many(
    ("sum_dim", _over_axes(aten.sum.dim_IntList)),
    ("mean_dim", _over_axes(aten.mean.dim)),
    ("amax", _over_axes(aten.amax.default)),
    ("amin", _over_axes(aten.amin.default)),
    ("logsumexp", _over_axes(aten.logsumexp.default)),
    ("softmax", _over_axes(aten.softmax.int, listed=False, keep=False)),
    ("log_softmax", _over_axes(aten.log_softmax.int, listed=False, keep=False)),
    ("mean_all", _over_all(aten.mean.default)),
    ("sum_all", _over_all(aten.sum.default)),
    ("max_all", _over_all(aten.max.default)),
    ("min_all", _over_all(aten.min.default)),
    ("own_softmax", lambda b, x, _: b.call(aten._softmax.default, b.sequence(x), b.choose(1, 2), False)),
    ("own_log_softmax", lambda b, x, _: b.call(aten._log_softmax.default, b.sequence(x), b.choose(1, 2), False)),
    ("max_dim", lambda b, x, _: b.part(b.call(aten.max.dim, b.sequence(x), b.choose(1, 2), b.flag()), 0)),
    ("min_dim", lambda b, x, _: b.part(b.call(aten.min.dim, b.sequence(x), b.choose(1, 2), b.flag()), 0)),
    ("var", lambda b, x, _: b.call(aten.var.correction, b.sequence(x), [-1], correction=b.choose(0, 1), keepdim=True)),
    ("std", lambda b, x, _: b.call(aten.std.correction, b.sequence(x), [-1], correction=1, keepdim=b.flag())),
    ("var_mean", lambda b, x, _: b.part(b.call(aten.var_mean.correction, b.sequence(x), [1]), b.choose(0, 1))),
    ("std_mean", lambda b, x, _: b.part(b.call(aten.std_mean.correction, b.sequence(x), [1], keepdim=True), 0)),
    ("norm", lambda b, x, _: b.call(aten.linalg_vector_norm.default, b.sequence(x), b.choose(1, 2, 3), [-1], b.flag())),
    ("largest", lambda b, x, _: b.call(aten.linalg_vector_norm.default, b.sequence(x), math.inf, [1])),
    ("old_norm", lambda b, x, _: b.call(aten.norm.ScalarOpt_dim, b.sequence(x), b.choose(None, 1), [-1], b.flag())),
    ("cumsum", lambda b, x, _: b.call(aten.cumsum.default, b.sequence(x), b.choose(1, -1))),
    ("var_dim", lambda b, x, _: b.call(aten.var.dim, b.sequence(x), [1], b.flag(), b.flag())),
)


# --- views and moves --------------------------------------------------------------------------------------------------


def _samples_elsewhere(target: Any, *args: Any) -> Piece:
    """Return a piece that moves the samples to another axis, does something there, and moves them back."""

    def apply(b: Builder, x: Ref, _: Ref) -> Ref:
        x = b.sequence(x)
        moved = b.call(target, x, *args)
        size = b.shape(moved)[-1]
        if size != b.n_samples:  # the samples are not what a linear layer would mix
            moved = b.call(aten.linear.default, moved, b.weight(size, size), None)
        return b.call(target, b.call(aten.relu.default, moved), *args)

    return apply


@piece
def transposed_rows(b: Builder, x: Ref, _: Ref) -> Ref:
    """A matrix on the left, the samples on the last axis."""
    target = b.choose(aten.t.default, aten.numpy_T.default)
    x = b.call(target, b.vector(x))
    return b.call(aten.t.default, b.call(aten.matmul.default, b.numbers(3, b.shape(x)[0]), x))


@piece
def numpy_t(b: Builder, x: Ref, _: Ref) -> Ref:
    return b.call(aten.numpy_T.default, b.call(aten.relu.default, b.call(aten.numpy_T.default, b.vector(x))))


@piece
def merged_samples(b: Builder, x: Ref, _: Ref) -> Ref:
    """Samples and positions on one axis, as where a head is applied to every position."""
    x = b.sequence(x)
    n, positions, features = b.shape(x)
    first = b.flag()
    if first:
        x = b.call(aten.transpose.int, x, 0, 1)
    flat = b.call(aten.flatten.using_ints, x, 0, 1)
    flat = b.call(aten.sigmoid.default, b.call(aten.linear.default, flat, b.weight(3, features), None))
    back = b.call(aten.unflatten.int, flat, 0, [positions, n] if first else [n, positions])
    return b.call(aten.transpose.int, back, 0, 1) if first else back


many(
    ("permute", _samples_elsewhere(aten.permute.default, [1, 0, 2])),
    ("transpose", _samples_elsewhere(aten.transpose.int, 0, 1)),
    ("transpose_last", _samples_elsewhere(aten.transpose.int, -1, -2)),
    ("mT", _samples_elsewhere(aten.mT.default)),
    ("swapaxes", _samples_elsewhere(aten.swapaxes.default, 0, 2)),
    ("swapdims", _samples_elsewhere(aten.swapdims.default, 0, 1)),
    ("movedim", _samples_elsewhere(aten.movedim.intlist, [0, 1], [1, 0])),
    ("movedim_int", _samples_elsewhere(aten.movedim.int, 1, 0)),
    ("moveaxis", _samples_elsewhere(aten.moveaxis.int, 0, 1)),
    ("squeeze_all", lambda b, x, _: b.call(aten.squeeze.default, b.call(aten.unsqueeze.default, b.vector(x), -1))),
    ("squeeze_dim", lambda b, x, _: b.call(aten.squeeze.dim, b.call(aten.unsqueeze.default, x, -1), -1)),
    ("squeeze_dims", lambda b, x, _: b.call(aten.squeeze.dims, b.call(aten.unsqueeze.default, x, 1), [1])),
    ("flatten", lambda b, x, _: b.call(aten.flatten.using_ints, b.image(x, 2), 1, b.choose(2, -1))),
    ("unflatten", lambda b, x, _: b.call(aten.unflatten.int, b.shaped(x, 6), 1, [2, -1])),
    ("view", lambda b, x, _: b.call(aten.view.default, b.shaped(x, 6), [b.n_samples, 3, 2])),
    ("expand", lambda b, x, _: b.call(aten.expand.default, b.shaped(x, 1, 3), [-1, 2, -1])),
    ("expand_weight", lambda b, x, _: _class_token(b, x)),
    ("repeat", lambda b, x, _: b.call(aten.repeat.default, b.shaped(x, 2, 2), b.choose([1, 2, 1], [1, 1, 3]))),
    ("tile", lambda b, x, _: b.call(aten.tile.default, b.shaped(x, 3), [2])),
    ("repeat_interleave", lambda b, x, _: b.call(aten.repeat_interleave.self_int, b.shaped(x, 3), 2, 1)),
    ("flip", lambda b, x, _: b.call(aten.flip.default, b.sequence(x), b.choose([1], [2], [1, 2]))),
    ("roll", lambda b, x, _: b.call(aten.roll.default, b.sequence(x), [1, -1], [1, 2])),
    ("diagonal", lambda b, x, _: b.call(aten.diagonal.default, b.shaped(x, 3, 3), b.choose(0, 1, -1), 1, 2)),
    ("diag_embed", lambda b, x, _: b.call(aten.diag_embed.default, b.shaped(x, 2), b.choose(0, 1))),
    ("unfold", lambda b, x, _: b.call(aten.unfold.default, b.shaped(x, 5), 1, 3, b.choose(1, 2))),
    ("tril", lambda b, x, _: b.call(aten.tril.default, b.shaped(x, 3, 3), b.choose(0, -1, 1))),
    ("triu", lambda b, x, _: b.call(aten.triu.default, b.shaped(x, 3, 3), b.choose(0, -1, 1))),
)


def _class_token(b: Builder, x: Ref) -> Ref:
    x = b.sequence(x)
    token = b.call(aten.expand.default, b.weight(1, 1, b.shape(x)[-1], scale=0.5), [b.n_samples, -1, -1])
    return b.call(b.choose(aten.cat.default, aten.concat.default), [token, x], 1)


# --- joins, slices, indices -------------------------------------------------------------------------------------------


def _joined(target: Any) -> Piece:
    def apply(b: Builder, x: Ref, y: Ref) -> Ref:
        x = b.sequence(x)
        parts = [x, b.shaped(y, *b.shape(x)[1:]), x, b.numbers(*b.shape(x))]
        b.random.shuffle(parts)
        return b.call(target, parts[: b.choose(2, 3)], b.choose(1, 2, -1))

    return apply


@piece
def slices(b: Builder, x: Ref, _: Ref) -> Ref:
    x = b.shaped(x, 6)
    start, stop, step = b.choose((0, 3, 1), (1, 9223372036854775807, 2), (-3, -1, 1), (0, 6, 4))
    return b.call(aten.slice.Tensor, x, 1, start, stop, step)


def _split(target: Any, sizes: Any, gate: int) -> Piece:
    """Return a piece that multiplies a part of a split by a function of another part."""

    def apply(b: Builder, x: Ref, _: Ref) -> Ref:
        whole = b.call(target, b.shaped(x, 5), sizes, 1)
        return b.call(aten.mul.Tensor, b.part(whole, 0), b.call(aten.sigmoid.default, b.part(whole, gate)))

    return apply


@piece
def chunks(b: Builder, x: Ref, _: Ref) -> Ref:
    whole = b.call(aten.chunk.default, b.shaped(x, 5), 2, -1)
    return b.call(aten.cat.default, [b.part(whole, 1), b.call(aten.relu.default, b.part(whole, 0))], 1)


@piece
def gated_linear_unit(b: Builder, x: Ref, _: Ref) -> Ref:
    return b.call(aten.glu.default, b.shaped(x, 4), b.choose(1, -1))


@piece
def unbound(b: Builder, x: Ref, _: Ref) -> Ref:
    whole = b.call(aten.unbind.int, b.shaped(x, 2, 3), 1)
    parts = [b.call(aten.tanh.default, b.part(whole, 0)), b.part(whole, 1), b.part(whole, 0)]
    return b.call(aten.stack.default, parts, b.choose(1, 2, -1))


@piece
def scattered_slice(b: Builder, x: Ref, y: Ref) -> Ref:
    source = b.numbers(b.n_samples, 2) if b.flag() else b.shaped(y, 2)
    start, stop, step = b.choose((0, 4, 2), (1, 3, 1), (2, None, 1))
    return b.call(aten.slice_scatter.default, b.shaped(x, 4), source, 1, start, stop, step)


@piece
def scattered_row(b: Builder, x: Ref, y: Ref) -> Ref:
    source = b.numbers(b.n_samples, 3) if b.flag() else b.shaped(y, 3)
    return b.call(aten.select_scatter.default, b.shaped(x, 2, 3), source, 1, b.choose(0, 1))


@piece
def gathered(b: Builder, x: Ref, _: Ref) -> Ref:
    index = torch.randint(4, (b.n_samples, 3), generator=b.generator)
    return b.call(aten.gather.default, b.shaped(x, 4), 1, index)


@piece
def indexed(b: Builder, x: Ref, _: Ref) -> Ref:
    index = torch.randint(3, b.choose((2,), (4,), (2, 2)), generator=b.generator)
    return b.call(aten.index.Tensor, b.shaped(x, 3, 2), [None, index])


def _pooled(target: Any, n_axes: int, *args: Any) -> Piece:
    """Return a piece that takes the values of a pooling that tells places as well."""
    return lambda b, x, _: b.part(b.call(target, b.shaped(x, 2, *[4] * n_axes), *args), 0)


many(
    ("adaptive_max_pool1d", _pooled(aten.adaptive_max_pool1d.default, 1, [2])),
    ("adaptive_max_pool2d", _pooled(aten.adaptive_max_pool2d.default, 2, [2, 1])),
    ("adaptive_max_pool3d", _pooled(aten.adaptive_max_pool3d.default, 3, [1, 2, 1])),
    ("max_pool2d_places", _pooled(aten.max_pool2d_with_indices.default, 2, [2, 2], [1, 2])),
    ("max_pool3d_places", _pooled(aten.max_pool3d_with_indices.default, 3, [2, 2, 2])),
    ("split", _split(aten.split.Tensor, 2, 1)),
    ("split_with_sizes", _split(aten.split_with_sizes.default, [2, 2, 1], 1)),
    ("split_sizes", _split(aten.split.sizes, [2, 1, 2], 2)),
    ("cat", _joined(aten.cat.default)),
    ("concat", _joined(aten.concat.default)),
    ("concatenate", _joined(aten.concatenate.default)),
    ("select", lambda b, x, _: b.call(aten.select.int, b.sequence(x), b.choose(1, 2, -1), b.choose(0, 1, -1))),
    ("narrow", lambda b, x, _: b.call(aten.narrow.default, b.shaped(x, 4), 1, b.choose(0, 2), 2)),
    ("index_select", lambda b, x, _: b.call(aten.index_select.default, b.shaped(x, 3), 1, torch.tensor([2, 0, 2]))),
)


# --- masks and paddings -----------------------------------------------------------------------------------------------


_PADDINGS = (("constant", -0.6), ("reflect",), ("replicate",), ("circular",))


def _mask(b: Builder, x: Ref) -> torch.Tensor:
    """Return which elements are replaced: some, or all of the first sample."""
    shape = b.shape(x)
    mask = torch.rand(b.choose(shape, shape[1:], shape[-1:]), generator=b.generator) < 0.4
    if mask.shape == shape and b.flag():
        mask[0] = True
    return mask


@piece
def masked_fill(b: Builder, x: Ref, _: Ref) -> Ref:
    x = b.sequence(x)
    if b.flag():
        return b.call(aten.masked_fill.Tensor, x, _mask(b, x), b.numbers())
    return b.call(aten.masked_fill.Scalar, x, _mask(b, x), b.number(-1, 1))


@piece
def where(b: Builder, x: Ref, y: Ref) -> Ref:
    x = b.sequence(x)
    other = b.choose(b.shaped(y, *b.shape(x)[1:]), b.numbers(*b.shape(x)), b.weight(b.shape(x)[-1]))
    pair = [x, other] if b.flag() else [other, x]
    return b.call(aten.where.self, _mask(b, x), *pair)


many(
    ("masked_fill_tensor", lambda b, x, _: b.call(aten.masked_fill.Tensor, x, _mask(b, x), b.numbers())),
    ("masked_fill_scalar", lambda b, x, _: b.call(aten.masked_fill.Scalar, x, _mask(b, x), 0.7)),
    ("where_other", lambda b, x, _: b.call(aten.where.ScalarOther, _mask(b, x), x, 0.5)),
    ("where_self", lambda b, x, _: b.call(aten.where.ScalarSelf, _mask(b, x), -0.5, x)),
    ("constant_pad", lambda b, x, _: b.call(aten.constant_pad_nd.default, b.sequence(x), [1, 0, 0, 1], 0.4)),
    ("pad", lambda b, x, _: b.call(aten.pad.default, b.image(x, 1, size=3), [1, 1], *b.choose(*_PADDINGS))),
    ("pad_cut", lambda b, x, _: b.call(aten.pad.default, b.shaped(x, 5), [-1, 1], "constant", 0.2)),
)


# --- layers in pieces -------------------------------------------------------------------------------------------------


def _affine(b: Builder, *shape: int) -> tuple[Any, Any]:
    return b.choose((None, None), (b.weight(*shape, scale=0.7), b.weight(*shape, scale=0.7)))


@piece
def layer_norm(b: Builder, x: Ref, _: Ref) -> Ref:
    x = b.sequence(x)
    shape = b.shape(x)[-b.choose(1, 2) :]
    return b.call(aten.layer_norm.default, x, list(shape), *_affine(b, *shape), b.number(0.1, 1))


@piece
def rms_norm(b: Builder, x: Ref, _: Ref) -> Ref:
    x = b.sequence(x)
    shape = b.shape(x)[-1:]
    return b.call(aten.rms_norm.default, x, list(shape), _affine(b, *shape)[0], b.number(0.1, 1))


@piece
def group_norm(b: Builder, x: Ref, _: Ref) -> Ref:
    x = b.image(x, b.choose(1, 2), channels=2)
    return b.call(aten.group_norm.default, x, b.choose(1, 2), *_affine(b, 2), b.number(0.1, 1))


@piece
def instance_norm(b: Builder, x: Ref, _: Ref) -> Ref:
    x, own = b.image(x, 1), b.flag()
    channels = b.shape(x)[1]
    statistics = (None, None) if own else (b.numbers(channels), b.numbers(channels).abs() + 0.2)
    return b.call(aten.instance_norm.default, x, *_affine(b, channels), *statistics, own, 0.1, 0.3, False)


@piece
def batch_norm(b: Builder, x: Ref, _: Ref) -> Ref:
    x = b.image(x, b.choose(1, 2))
    channels = b.shape(x)[1]
    statistics = (b.numbers(channels), b.numbers(channels).abs() + 0.2)
    return b.call(aten.batch_norm.default, x, *_affine(b, channels), *statistics, False, 0.1, 1e-3, False)


def _recurrent(target: Any, gates: int, cell: bool) -> Piece:
    def apply(b: Builder, x: Ref, y: Ref) -> Ref:
        x, hidden = b.shaped(x, 2, 2), 2
        directions = b.choose(1, 2) if gates == 1 else 1
        weights: list[Any] = []
        for _ in range(directions):
            weights += [b.weight(gates * hidden, 2), b.weight(gates * hidden, hidden)]
            weights += [b.weight(gates * hidden, scale=0.3), b.weight(gates * hidden, scale=0.3)]
        state = b.call(aten.transpose.int, b.shaped(y, directions, hidden), 0, 1)
        state = [state, b.numbers(directions, b.n_samples, hidden)] if cell else state
        whole = b.call(target, x, state, weights, True, 1, 0.0, False, directions == 2, True)
        return b.part(whole, 0)

    return apply


def _cell(target: Any, gates: int, cell: bool) -> Piece:
    def apply(b: Builder, x: Ref, y: Ref) -> Ref:
        x, state = b.shaped(x, 2), b.shaped(y, 2)
        weights = [b.weight(gates * 2, 2), b.weight(gates * 2, 2), b.weight(gates * 2, scale=0.3), None]
        whole = b.call(target, x, [state, b.numbers(b.n_samples, 2)] if cell else state, *weights[: 2 if cell else 4])
        return b.part(whole, 1) if cell else whole

    return apply


many(
    ("lstm", _recurrent(aten.lstm.input, 4, True)),
    ("gru", _recurrent(aten.gru.input, 3, False)),
    ("rnn_tanh", _recurrent(aten.rnn_tanh.input, 1, False)),
    ("rnn_relu", _recurrent(aten.rnn_relu.input, 1, False)),
    ("lstm_cell", _cell(aten.lstm_cell.default, 4, True)),
    ("gru_cell", _cell(aten.gru_cell.default, 3, False)),
)
