"""The transformer against torch's own encoder layer, and its symmetries."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from offprint.models.transformer import TransformerEncoder, _allowed, _angles, _rotated

CLOSE = {"rtol": 1e-10, "atol": 1e-12}  # float64, the same sums in another order


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def make(n_layers=2, **options):
    model = TransformerEncoder(16, n_layers, 4, **{"in_features": 3, "generator": 0, **options}).double()
    for parameter in model.parameters():  # biases and norms that do something
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return model.eval()


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_a_layer_equals_torchs_own_encoder_layer(norm_first, causal, padded):
    ours = make(n_layers=1, norm_first=norm_first, causal=causal)
    layer = ours.layers[0]
    theirs = nn.TransformerEncoderLayer(
        16, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first, dtype=torch.float64
    ).eval()
    theirs.self_attn.in_proj_weight.data, theirs.self_attn.in_proj_bias.data = (
        layer.attention.inner.weight,
        layer.attention.inner.bias,
    )
    theirs.self_attn.out_proj.load_state_dict(layer.attention.outer.state_dict())
    theirs.linear1.load_state_dict(layer.feedforward[0].state_dict())
    theirs.linear2.load_state_dict(layer.feedforward[3].state_dict())
    theirs.norm1.load_state_dict(layer.attention_norm.state_dict())
    theirs.norm2.load_state_dict(layer.feedforward_norm.state_dict())
    inputs = draw(3, 6, 3)
    mask = torch.arange(6) < torch.tensor([[6], [4], [1]]) if padded else None
    forbidden = torch.ones(6, 6, dtype=torch.bool).triu(1) if causal else None
    expected = theirs(ours.embedding(inputs), src_mask=forbidden, src_key_padding_mask=None if mask is None else ~mask)
    expected = ours.norm(expected)
    kept = slice(None) if mask is None else mask
    torch.testing.assert_close(ours(inputs, mask)[kept], expected[kept], **CLOSE)


@pytest.mark.parametrize("positions", [None, "learned", "sinusoidal", "rotary"])
def test_a_causal_model_does_not_see_what_comes_later(positions):
    model = make(causal=True, positions=positions)
    inputs = draw(2, 7, 3)
    changed = inputs.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(model(changed)[:, :4], model(inputs)[:, :4], **CLOSE)
    assert (model(changed)[:, 4:] - model(inputs)[:, 4:]).abs().amin((0, 2)).gt(1e-6).all()
    torch.testing.assert_close(model(inputs[:, :4]), model(inputs)[:, :4], **CLOSE)
    full = make(positions=positions)
    assert (full(changed)[:, :4] - full(inputs)[:, :4]).abs().max() > 1e-3


def test_without_positions_it_is_permutation_equivariant_and_pooled_invariant():
    inputs, order = draw(2, 7, 3), torch.tensor([3, 1, 6, 0, 2, 5, 4])
    model = make()
    torch.testing.assert_close(model(inputs[:, order]), model(inputs)[:, order], **CLOSE)
    pooled = make(pooling="mean", out_features=2)
    torch.testing.assert_close(pooled(inputs[:, order]), pooled(inputs), **CLOSE)
    for positions in ("learned", "sinusoidal", "rotary"):
        placed = make(positions=positions)
        assert (placed(inputs[:, order]) - placed(inputs)[:, order]).abs().max() > 1e-3


@pytest.mark.parametrize("pooling", [None, "mean", "last"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing(pooling, causal):
    model = make(causal=causal, pooling=pooling, positions="rotary", out_features=2)
    inputs = draw(2, 5, 3)
    padded = torch.cat([inputs, 100 * draw(2, 3, 3)], 1)
    mask = (torch.arange(8) < 5).expand(2, 8)
    outputs = model(padded, mask)
    if pooling is None:
        outputs = outputs[:, :5]
    torch.testing.assert_close(outputs, model(inputs), **CLOSE)
    assert torch.isfinite(model(padded, torch.zeros(2, 8, dtype=torch.bool))).all()
    before = (torch.arange(8) >= 3).expand(2, 8)  # padding on the left, where a causal row would see nothing
    assert torch.isfinite(model(padded, before)).all()
    assert _allowed(before, causal).any(-1).all()  # kernels differ on what comes of nothing


def test_rotary_scores_depend_on_distance_alone_and_lengths_are_kept():
    query, key = draw(2, 1, 1, 8).expand(2, 1, 9, 8).unbind(0)
    angles = _angles(9, 8, query)
    query, key = (_rotated(vectors[None], angles)[0, 0] for vectors in (query, key))
    scores = query @ key.T
    for distance in range(-8, 9):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), **CLOSE)
    assert scores[0].std() > 1e-2
    torch.testing.assert_close(query.norm(dim=-1), query.norm(dim=-1)[:1].expand(9), **CLOSE)


def test_sinusoidal_positions_are_the_published_waves():
    model = make(positions="sinusoidal")
    table = model._added_positions(torch.zeros(1, 5, 16, dtype=torch.float64))
    for position in range(5):
        for i in range(8):
            angle = position / 10_000 ** (2 * i / 16)
            assert table[position, i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert table[position, 8 + i].item() == pytest.approx(math.cos(angle), abs=1e-12)


def test_tokens_counts_and_seeded_dropout():
    model = TransformerEncoder(16, 3, 4, 11, n_tokens=11, positions="learned", max_length=9, feedforward=40)
    layer = 4 * 16 * 16 + 4 * 16 + 2 * 16 * 40 + 40 + 16 + 4 * 16
    assert layer == 4 * 16**2 + 2 * 16 * 40 + 9 * 16 + 40  # as documented
    assert sum(p.numel() for p in model.parameters()) == 11 * 16 + 9 * 16 + 3 * layer + 2 * 16 + 17 * 11
    tokens = torch.arange(9)[None] % 11
    assert model(tokens).shape == (1, 9, 11)
    with pytest.raises(ValueError, match="at most max_length=9 long; got 10"):
        model(torch.zeros(1, 10, dtype=torch.long))
    dropping = TransformerEncoder(16, 2, 4, n_tokens=11, dropout=0.3)
    assert not torch.equal(dropping(tokens), dropping(tokens))
    dropping.eval()
    assert torch.equal(dropping(tokens), dropping(tokens))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"in_features": None}, "exactly one of in_features and n_tokens"),
        ({"n_tokens": 3}, "exactly one of in_features and n_tokens"),
        ({"width": 15}, "width must be a multiple of n_heads; got 15 and 4"),
        ({"width": 12, "positions": "rotary"}, "even width"),
        ({"n_layers": 0}, "at least 1"),
        ({"out_features": 0}, "at least 1"),
        ({"dropout": -0.1}, "dropout must be in"),
    ],
)
def test_bad_settings_are_refused_by_name(options, words):
    with pytest.raises(ValueError, match=words):
        TransformerEncoder(**{"width": 16, "n_layers": 1, "n_heads": 4, "in_features": 3, **options})


def test_bad_inputs_are_refused_by_name():
    model = make()
    with pytest.raises(ValueError, match="inputs must hold sequences"):
        model(draw(2, 0, 3))
    with pytest.raises(ValueError, match=r"mask must be bool of shape \(2, 4\)"):
        model(draw(2, 4, 3), torch.ones(2, 4, dtype=torch.bool)[:, :3])
